"""A map of a model's documents: points on a plane, topics as labels, in one HTML file that asks no network.

The file is the page static/map.html with the script static/map.js and the parts that the script reads. A part is a
block of base64, often compressed, so that no text of a document, an id or a label is ever markup. The
Content-Security-Policy allows this style and this script by their hashes and nothing else.

The parts: ``about`` (JSON: counts, labels, columns, words, the card), ``positions`` (uint16 (n, 2), 65,535 is the
larger extent), ``column-I`` (uint8 (n,), see columns.py), ``codes`` and ``codebook`` (product_codes.py), ``words``
(int8 (n_words, 16 width): words as documents, rotated as the codes), ``rows`` (uint32 (n,), if the ids are the numbers
of the lines), ``texts-I`` (JSON: a list of [id, text, values of the kept fields] for consecutive points). Points are in
a random order, so that the first of them are a sample of all.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from jose_embed.analysis.card import card
from jose_embed.analysis.columns import MOST_COLUMNS, Column, ColumnBuilder, topic_column
from jose_embed.analysis.layout import Layout, layout
from jose_embed.analysis.pictures import map_picture
from jose_embed.analysis.places import Label, labels_of
from jose_embed.analysis.product_codes import ProductCodes
from jose_embed.analysis.topics import Topics, topics
from jose_embed.errors import ConfigError, whole_number
from jose_embed.progress import Reporter, SilentReporter, reporting
from jose_embed.storage.atomic import atomic_file

if TYPE_CHECKING:
    from jose_embed.model.embeddings import Embeddings

TEXT_LENGTH: Final = 2_000
MOST_TOPICS: Final = 250

_STATIC: Final = Path(__file__).with_name("static")
_WORD_BYTES: Final = 400_000  # of word vectors in a file
_BLOCK_CHARACTERS: Final = 200_000  # of texts in a part
_BLOCK: Final = 1 << 12


@dataclass(frozen=True, eq=False)
class DocumentMap:
    """A map of a model's documents, made by :func:`jose_embed.map`.

    Attributes:
        model: The model.
        topics: Its topics.
        rows: int64 (n,): the rows of the documents on the map, those with a known word.
        positions: float32 (n, 2): their places; centered, the larger extent is 1, y grows downwards.
        n_laid_out: Documents that were laid out; the others were placed among them.
        kept: Share of the ten nearest documents of each that are among its ten nearest on the map.
        recall: Share of the ten nearest documents of each that the codes in the file find.
        labels: Topics and smaller places.
    """

    model: Embeddings
    topics: Topics
    rows: npt.NDArray[np.int64]
    positions: npt.NDArray[np.float32]
    n_laid_out: int
    kept: float
    recall: float
    labels: tuple[Label, ...]
    _codes: ProductCodes
    _fields: Mapping[str, Sequence[Any]]
    _seed: int

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        title: str | None = None,
        text_length: int = TEXT_LENGTH,
        overwrite: bool = False,
        reporter: Reporter | None = None,
    ) -> Path:
        """Write the map as one HTML file, which appears complete or not at all.

        Args:
            path: The file.
            title: The title of the page; the name of the model if None.
            text_length: Characters of each kept text in the file; 0 leaves the texts out.
            overwrite: Replace an existing file.
            reporter: Receives the phase "writing".

        Raises:
            ModelError: the file exists or cannot be written, or the kept texts are damaged.
            TrainingError: a full disk.
            ConfigError: ``text_length`` below 0.
        """
        whole_number("text_length", text_length, 0)
        with atomic_file(path, overwrite=overwrite) as write:
            for piece in self.pieces(title=title, text_length=text_length, reporter=reporter):
                write(piece)
        return Path(path)

    def pieces(
        self, *, title: str | None = None, text_length: int = TEXT_LENGTH, reporter: Reporter | None = None
    ) -> Iterator[bytes]:
        """The bytes of the HTML file; arguments as for :meth:`save`."""
        page, script = ((_STATIC / name).read_text("utf-8") for name in ("map.html", "map.js"))
        style = page.partition("<style>")[2].partition("</style>")[0]
        head, _, rest = page.partition("@parts@\n")
        middle, _, foot = rest.partition("\n@script@\n")
        script = f"\n{script}\n"
        policy = f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'"
        head = head.replace("@policy@", f"{policy}; base-uri 'none'; form-action 'none'")
        yield head.replace("@model@", self.model.id).encode()
        order = np.random.default_rng(self._seed).permutation(len(self.rows))
        starts: list[int] = []
        columns = [self._topic_column(order)]
        numbered = all(doc_id == str(row) for row, doc_id in enumerate(self.model.doc_ids, 1))
        yield from self._texts(order, starts, columns, text_length, numbered, reporter or SilentReporter())
        extent = np.ptp(self.positions, axis=0) if len(self.positions) else np.ones(2)
        least = self.positions.min(0, initial=0)
        places = np.round((self.positions[order] - least) * 65535).clip(0, 65535).astype("<u2")
        yield _part("positions", places.tobytes())
        yield _part("codes", self._codes.codes[order].tobytes())
        yield _part("codebook", self._codes.centroids.astype("<f4").tobytes())
        for i, column in enumerate(columns):
            yield _part(f"column-{i}", column.codes.tobytes())
        if numbered:
            yield _part("rows", self.rows[order].astype("<u4").tobytes())
        name = self.model.path.stem if self.model.path else "Documents"
        vectors, about = self._words()
        yield _part("words", vectors.tobytes())
        about |= {
            "title": name if title is None else title,
            "n": len(self.rows),
            "extent": [max(float(each), 1e-3) for each in extent],
            "labels": [self._placed(label, least) for label in self.labels],
            "columns": [column.facts for column in columns],
            "fields": list(self._kept_fields()),
            "texts": bool(self.model.has_texts and text_length),
            "starts": starts,
            "rows": numbered,
            "mean": self._codes.mean.tolist(),
            "recall": round(self.recall, 3),
            "summary": self._summary(text_length),
            "card": card(self.model.manifest, name, frequent=self.model.words[:12]),
        }
        yield _part("about", json.dumps(about, ensure_ascii=False).encode("utf-8", "replace"))
        yield f"{middle}{script}{foot}".encode()

    def picture(
        self, path: str | os.PathLike[str], *, title: str | None = None, overwrite: bool = False, dpi: int = 300
    ) -> Path:
        """Write the map as a picture for a paper: PNG, PDF or SVG by the ending of the name.

        Args:
            path: The file.
            title: Stands above the map.
            overwrite: Replace an existing file.
            dpi: Pixels per inch.

        Raises:
            ModelError: the file exists or cannot be written.
            ConfigError: another ending.
        """
        return map_picture(self, path, title=title, overwrite=overwrite, dpi=dpi)

    def __repr__(self) -> str:
        return f"<DocumentMap of {len(self.rows):,} documents, {len(self.topics)} topics>"

    def _topic_column(self, order: npt.NDArray[np.int64]) -> Column:
        names = [" ".join(topic.words[:4]) or f"topic {topic.number}" for topic in self.topics]
        return topic_column(self.topics.doc_topics[self.rows[order]], names)

    def _kept_fields(self) -> tuple[str, ...]:
        return self.model.kept_fields

    def _texts(
        self,
        order: npt.NDArray[np.int64],
        starts: list[int],
        columns: list[Column],
        text_length: int,
        numbered: bool,
        reporter: Reporter,
    ) -> Iterator[bytes]:
        """The parts of the texts; fills ``starts``, the first point of each, and ``columns``."""
        names, texts = self._kept_fields(), bool(text_length and self.model.has_texts)
        builders = {name: ColumnBuilder(name, len(order), kept=True) for name in names}
        given = {name: ColumnBuilder(name, len(order)) for name in self._fields}
        needed, doc_ids = texts or bool(names) or not numbered, self.model.doc_ids
        block: list[Any] = []
        size = first = 0
        reporter.start("writing", len(order), "documents")
        for begin in range(0, len(order), _BLOCK):
            rows = self.rows[order[begin : begin + _BLOCK]].tolist()
            kept = self.model.kept_documents(rows) if texts or names else [None] * len(rows)
            for row, document in zip(rows, kept, strict=True):
                for name, builder in given.items():
                    builder.add(self._fields[name][row])
                fields = {} if document is None else document.fields
                for name, builder in builders.items():
                    builder.add(fields.get(name))
                if needed:
                    text = document.text if texts and document is not None else None
                    if text is not None and len(text) > text_length:
                        text = f"{text[:text_length]} ..."
                    block.append(
                        [None if numbered else doc_ids[row], text, [fields.get(name) for name in names] or None]
                    )
                    size += 40 + len(text or "")
                    if size >= _BLOCK_CHARACTERS:
                        yield _text_part(len(starts), block)
                        starts.append(first)
                        first, size, block = first + len(block), 0, []
            reporter.advance(len(rows))
        if block:
            yield _text_part(len(starts), block)
            starts.append(first)
        made = [builder.column() for builder in (*given.values(), *builders.values())]
        columns += [column for column in made if column is not None][:MOST_COLUMNS]
        reporter.finish()

    def _words(self) -> tuple[npt.NDArray[np.int8], dict[str, Any]]:
        """Words as documents, those that documents consist of first: int8 vectors, and factors of these."""
        encoder, directions, rotation = self.model.encoder, self.model.word_directions, self._codes.rotation
        weights = encoder.word_weights.sum(1)
        n = min(self.model.n_words, _WORD_BYTES // rotation.shape[1])
        chosen = np.sort(np.lexsort((np.arange(self.model.n_words), -weights * self.model.counts))[:n])
        vectors = encoder.center_vectors[chosen].astype(np.float64)
        vectors -= encoder.context_share * encoder.context_vectors[chosen].astype(np.float64)
        if len(encoder.matrix):
            vectors = vectors @ encoder.matrix
        lengths = np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)
        rotated = vectors / lengths[:, None] @ rotation
        scales = np.maximum(np.abs(rotated).max(1), 1e-12) / 127
        about = {
            "words": [self.model.words[row] for row in chosen.tolist()],
            "word_scales": _base64(scales.astype("<f4").tobytes()),
            "word_weights": _base64((weights[chosen] * lengths).astype("<f4").tobytes()),
            "word_reliability": _base64(directions.reliability()[chosen].astype("<f4").tobytes()),
        }
        return np.round(rotated / scales[:, None]).astype(np.int8), about

    def _placed(self, label: Label, least: npt.NDArray[np.float32]) -> dict[str, Any]:
        x, y = (round((at - start) * 65535) for at, start in zip((label.x, label.y), least.tolist(), strict=True))
        return {**label._asdict(), "x": x, "y": y}

    def _summary(self, text_length: int) -> str:
        n, unknown = len(self.rows), self.model.n_docs - len(self.rows)
        parts = [
            f"{n:,} documents; near points are documents about similar things.",
            f"Of the ten nearest documents of each, {self.kept:.0%} are among its ten nearest on the map.",
            f"The list of nearest documents is computed from 16 bytes for each (recall@10 {self.recall:.2f}).",
        ]
        if unknown:
            parts.append(f"{unknown:,} documents without a known word are not shown.")
        if n > self.n_laid_out:
            parts.append(f"{self.n_laid_out:,} documents were laid out, the others placed among them.")
        if self.model.has_texts and text_length:
            parts.append(f"The file contains the first {text_length:,} characters of each text.")
        return " ".join(parts)


def map(
    model: Embeddings,
    *,
    n_topics: int | None = None,
    fields: Mapping[str, Sequence[Any]] | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
    progress: bool | None = None,
) -> DocumentMap:
    """A map of a model's documents.

    Args:
        model: A model with document vectors.
        n_topics: The number of topics, at most 250; None finds it.
        fields: Values by which points can be coloured, besides the kept fields: by name, one for each document.
        seed: Of the layout and the topics. The same model and seed give the same bytes on any number of cores.
        reporter: Receives the phases; None shows them as ``progress`` says.
        progress: Whether to show progress; None shows it in notebooks and interactive sessions.

    Raises:
        ConfigError: a model without documents, a number of topics or a length of a field that does not fit.
        MissingExtraError: the extra ``map`` is not installed.

    Example::

        map = jose_embed.map(model)
        map.save("map.html")
        map.picture("map.png")
    """
    model.require_documents()
    if n_topics is not None:
        whole_number("n_topics", n_topics, 1, MOST_TOPICS)
    given = dict(fields or {})
    for name, values in given.items():
        if len(values) != model.n_docs:
            raise ConfigError(
                f"fields[{name!r}] has {len(values):,} values for {model.n_docs:,} documents; it needs one for each"
            )
    rows = np.flatnonzero(model.known_documents)
    if not len(rows):
        raise ConfigError("the model has no document with a known word; a map needs documents")
    with reporting(reporter, progress) as shown:
        vectors = np.ascontiguousarray(model.doc_vectors[rows])
        placed: Layout = layout(vectors, seed=seed, reporter=shown)
        found = topics(model, n_topics, seed=seed, reporter=shown)
        shown.start("labels", 1, "step")
        labels = labels_of(model, found, rows, vectors, placed.positions, seed=seed)
        shown.advance(1)
        shown.finish()
        shown.start("codes", 1, "step")
        codes = ProductCodes(vectors, model.word_directions.mean, seed=seed)
        recall = codes.recall(vectors, seed=seed)
        shown.advance(1)
        shown.finish()
    return DocumentMap(
        model, found, rows, placed.positions, placed.n_laid_out, placed.kept, recall, labels, codes, given, seed
    )


def _part(name: str, data: bytes) -> bytes:
    packed = gzip.compress(data, 6, mtime=0)
    smaller = len(packed) < 0.95 * len(data)
    mark = " data-packed" if smaller else ""
    text = _base64(packed if smaller else data)
    return f'<script type="text/plain" id="part-{name}"{mark}>{text}</script>\n'.encode()


def _text_part(number: int, block: list[Any]) -> bytes:
    return _part(f"texts-{number}", json.dumps(block, ensure_ascii=False, default=str).encode("utf-8", "replace"))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _hash(text: str) -> str:
    return f"sha256-{_base64(hashlib.sha256(text.encode()).digest())}"
