"""Trained vectors: a directory of plain arrays, mapped into memory, and the questions they answer."""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from jose_embed.config import TrainConfig
from jose_embed.errors import ConfigError, ModelError, NoKnownWordsError, UnknownWordError
from jose_embed.model import inference
from jose_embed.model.files import ModelParts, check_model_target, manifest_of, open_model, write_model
from jose_embed.model.nearest import nearest_rows
from jose_embed.model.query import (
    _NOTHING_LEFT,
    DocumentNeighbor,
    Neighbor,
    Query,
    Words,
    _at_least_one,
    _listed,
    _projected_out,
)
from jose_embed.model.spelling import SpellingIndex
from jose_embed.model.words_of import SHRINKAGE, WordDirections, mean_of_documents
from jose_embed.storage.columns import RowFinder, first_repetition
from jose_embed.storage.manifest import json_copy
from jose_embed.text.tokenizers import get_tokenizer

if TYPE_CHECKING:
    from jose_embed.model.inference import Flagged
    from jose_embed.progress import Reporter
    from jose_embed.text.reader import Tokenizer

__all__ = ["Embeddings", "check_target", "load"]


Number = TypeVar("Number", bound=np.generic)


class Embeddings:
    """Word and document vectors on the unit sphere.

    Made by training, :meth:`from_arrays` or :meth:`load`. All arrays are read-only; those of a loaded model are mapped
    files, so that opening one costs no memory. Any number of threads may ask it.

    Attributes:
        words: The vocabulary, most frequent first.
        counts: int64 (n_words,), occurrences of each word.
        center_vectors: float32 (n_words, dim), norm 1: the word vectors, which hold a part of the context vectors too
            where ``config.word_method`` is "both".
        context_vectors: float32 (n_words, dim), norm 1.
        doc_ids: The documents' ids, one per row; read from disk where it is looked at.
        doc_vectors: float32 (n_docs, dim), norm 1.
        doc_token_counts: int64 (n_docs,), known words of each document; 0 marks an untrained one, which no search
            returns.
        extra_arrays: Further arrays by name.
        extra_json: Further JSON values by name.
        path: The directory it was loaded from or last saved to, or None.

    Example:
        >>> model = Embeddings.from_arrays(
        ...     words=["up", "down", "left"],
        ...     counts=[3, 2, 1],
        ...     center_vectors=np.float32([[0, 1], [0, -1], [-1, 0]]),
        ...     context_vectors=np.float32([[0, 1], [0, -1], [-1, 0]]),
        ... )
        >>> model.most_similar("up", k=1)
        [Neighbor(word='left', score=0.0, index=2)]
        >>> model["left"]
        array([-1.,  0.], dtype=float32)
    """

    words: Sequence[str]
    counts: npt.NDArray[np.int64]
    center_vectors: npt.NDArray[np.float32]
    context_vectors: npt.NDArray[np.float32]
    doc_ids: Sequence[str]
    doc_vectors: npt.NDArray[np.float32]
    doc_token_counts: npt.NDArray[np.int64]
    extra_arrays: Mapping[str, npt.NDArray[Any]]
    extra_json: Mapping[str, Any]
    path: Path | None
    _parts: ModelParts
    _manifest: dict[str, Any] | None
    _rows: dict[str, int] | None
    _doc_rows: RowFinder | None
    _word_directions: WordDirections | None
    _spelling: SpellingIndex | None
    _tokenizer: Tokenizer | None

    def __init__(self) -> None:
        raise TypeError("Embeddings are made by jose_embed.train, jose_embed.load or Embeddings.from_arrays")

    # ------------------------------------------------------------------------------------------------------------------

    @classmethod
    def from_arrays(
        cls,
        *,
        words: Sequence[str],
        counts: npt.ArrayLike,
        center_vectors: npt.NDArray[np.float32],
        context_vectors: npt.NDArray[np.float32],
        doc_ids: Sequence[str] = (),
        doc_vectors: npt.NDArray[np.float32] | None = None,
        doc_token_counts: npt.ArrayLike | None = None,
        config: TrainConfig | Mapping[str, Any] | None = None,
        tokenizer: str = "words",
        tokenizer_settings: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        corpus: Mapping[str, Any] | None = None,
        extra_arrays: Mapping[str, npt.NDArray[Any]] | None = None,
        extra_json: Mapping[str, Any] | None = None,
    ) -> Embeddings:
        """A model of arrays in memory or in mapped files, none of which is copied.

        Args:
            words: n_words different words, most frequent first.
            counts: int64 (n_words,), at least 1, never rising.
            center_vectors: float32 (n_words, dim), rows of norm 1 (checked by :meth:`save`); rows may be padded
                (strided). The caller leaves the arrays alone from here on.
            context_vectors: float32 (n_words, dim).
            doc_ids: n_docs ids; may be lazy.
            doc_vectors: float32 (n_docs, dim); none means no documents.
            doc_token_counts: int64 (n_docs,); 0 marks an untrained document. Left out, all count as trained.
            config: The settings of the training.
            tokenizer: The tokenizer's registered name.
            tokenizer_settings: Its settings.
            training: About the run: epochs, seconds, ... as JSON values.
            corpus: About the text, as JSON values.
            extra_arrays: Stored as NAME.npy.
            extra_json: Stored as NAME.json.

        Raises:
            ModelError: shapes, dtypes or lengths that do not fit together; information that is not JSON.
        """
        if doc_vectors is None:
            doc_vectors = np.empty((0, *np.shape(center_vectors)[1:]), np.float32)
        if doc_token_counts is None:
            doc_token_counts = np.ones(len(doc_vectors), np.int64)
        about = {
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "config": config.to_dict() if isinstance(config, TrainConfig) else dict(config or {}),
            "tokenizer": {"name": tokenizer, "settings": dict(tokenizer_settings or {})},
            "training": dict(training or {}),
            "corpus": dict(corpus or {}),
        }
        parts = ModelParts(
            words=words,
            counts=_whole_numbers("counts", counts),
            center_vectors=center_vectors,
            context_vectors=context_vectors,
            doc_ids=doc_ids,
            doc_vectors=doc_vectors,
            doc_token_counts=_whole_numbers("doc_token_counts", doc_token_counts),
            extra_arrays=dict(extra_arrays or {}),
            extra_json={name: json_copy(value, f"{name}.json") for name, value in (extra_json or {}).items()},
            about={name: json_copy(value, f"{name!r} of the manifest") for name, value in about.items()},
        )
        parts.check()
        return cls._of(parts)

    @classmethod
    def _of(cls, parts: ModelParts, manifest: dict[str, Any] | None = None, path: Path | None = None) -> Embeddings:
        model = object.__new__(cls)
        model.words = parts.words
        model.counts = _read_only(parts.counts)
        model.center_vectors = _read_only(parts.center_vectors)
        model.context_vectors = _read_only(parts.context_vectors)
        model.doc_ids = parts.doc_ids
        model.doc_vectors = _read_only(parts.doc_vectors)
        model.doc_token_counts = _read_only(parts.doc_token_counts)
        model.extra_arrays = {name: _read_only(array) for name, array in parts.extra_arrays.items()}
        model.extra_json = parts.extra_json
        model.path = path
        model._parts = parts
        model._manifest = manifest
        model._rows = None
        model._doc_rows = None
        model._word_directions = None
        model._spelling = None
        model._tokenizer = None
        return model

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False, reporter: Reporter | None = None) -> Path:
        """Writes the model as a directory that appears whole or not at all.

        It is written beside its place, every file synced, and renamed; arrays go block by block, without a second copy
        in memory. An interrupted call leaves at most a hidden temporary, which a later one removes.

        Args:
            path: The directory's name, by custom ``NAME.jose``.
            overwrite: Replace an existing model (nothing else is ever replaced).
            reporter: Told of the phase "saving", in bytes.

        Returns:
            The path, which is also the model's ``path`` from now on.

        Raises:
            ModelError: the place is taken or cannot be written; a word occurs twice; a word or id holds a line end.
            TrainingError: a row that is not finite or not of norm 1 (named), or no room on the disk (with what was
                needed and what there was).
        """
        self._manifest = write_model(self._parts, path, overwrite=overwrite, reporter=reporter)
        self.path = Path(path)
        return self.path

    # ------------------------------------------------------------------------------------------------------------------

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, verify: bool = False, reporter: Reporter | None = None
    ) -> Embeddings:
        """Opens a model directory; its arrays are mapped read-only, so that only what is looked at is read.

        Args:
            path: The directory.
            verify: Also read every byte: SHA-256 of each file and of the manifest, finite rows of norm 1, distinct
                words.
            reporter: Told of the phase "verifying", in bytes.

        Raises:
            ModelError: missing, damaged, foreign, or of a newer format; the message names the file and says what to do.
        """
        parts, manifest = open_model(path, verify=verify, reporter=reporter)
        return cls._of(parts, manifest, Path(path))

    # ------------------------------------------------------------------------------------------------------------------

    @property
    def n_words(self) -> int:
        """Words in the vocabulary."""
        return int(self.center_vectors.shape[0])

    @property
    def n_docs(self) -> int:
        """Documents, the untrained ones included."""
        return int(self.doc_vectors.shape[0])

    @property
    def dim(self) -> int:
        """Dimension of every vector."""
        return int(self.center_vectors.shape[1])

    @property
    def manifest(self) -> dict[str, Any]:
        """What is stored about the model: format, id, config, tokenizer, counts, files, training, corpus. To be read,
        not written.

        For a model that was neither saved nor loaded it is made here, which reads all of it once.
        """
        if self._manifest is None:
            self._manifest = manifest_of(self._parts)
        return self._manifest

    @property
    def id(self) -> str:
        """SHA-256, in hex, over all that answers depend on: equal models have equal ids, whenever they were saved."""
        return str(self.manifest["id"])

    @property
    def config(self) -> TrainConfig:
        """The settings it was trained with.

        A setting that came after the training has its default of today; ``manifest["config"]`` holds those that were
        recorded, and no others.

        Raises:
            ConfigError: settings of a version of this package that is not this one.
        """
        return TrainConfig.from_dict(self._parts.about["config"])

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the training text, to be used for every later text."""
        if self._tokenizer is None:
            tokenizer = self._parts.about["tokenizer"]
            self._tokenizer = get_tokenizer(tokenizer["name"], tokenizer["settings"])
        return self._tokenizer

    def with_extra(
        self, *, arrays: Mapping[str, npt.NDArray[Any]] | None = None, json: Mapping[str, Any] | None = None
    ) -> Embeddings:
        """The same model with further arrays and JSON values to be saved along, such as the figures of an evaluation.

        Raises:
            ModelError: as :meth:`from_arrays`.
        """
        parts = dataclasses.replace(
            self._parts,
            extra_arrays={**self.extra_arrays, **(arrays or {})},
            extra_json={
                **self.extra_json,
                **{name: json_copy(value, f"{name}.json") for name, value in (json or {}).items()},
            },
        )
        parts.check()
        return self._of(parts)

    def __repr__(self) -> str:
        return f"<Embeddings of {self.n_words:,} words and {self.n_docs:,} documents, dim {self.dim}>"

    # ------------------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.n_words

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and word in self._index_words()

    def __getitem__(self, word: str) -> npt.NDArray[np.float32]:
        return self.vector_of(word)

    def index_of(self, word: str) -> int | None:
        """The row of a word, or None if the vocabulary does not hold it."""
        return self._index_words().get(word)

    def rows_of(self, words: Iterable[str]) -> npt.NDArray[np.int32]:
        """The row of each of some words, -1 for one that the vocabulary does not hold: int32, shape (n,)."""
        return np.fromiter(map(self._index_words().get, words, repeat(-1)), np.int32)

    def vector_of(self, word: str) -> npt.NDArray[np.float32]:
        """The vector of a word: float32, shape (dim,), norm 1, read-only.

        Raises:
            UnknownWordError: with similar spellings.
        """
        vector: npt.NDArray[np.float32] = self.center_vectors[self._row(word)]
        return vector

    def similarity(self, a: str, b: str) -> float:
        """The cosine of two words.

        Raises:
            UnknownWordError: with similar spellings.
        """
        x, y = self.vector_of(a).astype(np.float64), self.vector_of(b)
        return min(1.0, max(-1.0, float((x * y).sum())))

    def suggestions(self, word: str, n: int = 3) -> list[str]:
        """At most ``n`` words of the vocabulary within a few typing mistakes of ``word``, nearest first.

        The first call prepares an index of 8 bytes per word, and of the letters of words with upper case.
        """
        if self._spelling is None:
            self._spelling = SpellingIndex(self.words)
        return self._spelling.suggestions(word, n)

    def _row(self, word: str) -> int:
        if not isinstance(word, str):
            raise TypeError(f"a word is a str, not {type(word).__name__}")
        row = self.index_of(word)
        if row is None:
            raise UnknownWordError(word, self.suggestions(word))
        return row

    def _index_words(self) -> dict[str, int]:
        if self._rows is None:
            rows = {word: row for row, word in enumerate(self.words)}
            if len(rows) != len(self.words):
                twice = first_repetition(self.words)
                raise ModelError(f"the word {twice!r} is in the vocabulary more than once; make the model again")
            self._rows = rows
        return self._rows

    # ------------------------------------------------------------------------------------------------------------------

    def query(
        self,
        word: str | None = None,
        *,
        positive: Words = (),
        negative: Words = (),
        vector: npt.ArrayLike | None = None,
        without: Words = (),
    ) -> Query:
        """A direction from a word, from words added and subtracted, or from numbers.

        With P the ``positive`` and N the ``negative`` words, the direction of ``sum P - sum N`` over unit vectors
        (3CosAdd). ``without`` words are then projected out, one after the other, so that the direction is orthogonal to
        all of them.

        Args:
            word: One word.
            positive: A word or several.
            negative: A word or several.
            vector: Any finite vector of shape (dim,) but zero; its length does not matter.
            without: Words whose directions are taken out.

        Returns:
            The direction and the rows of all words named here.

        Raises:
            UnknownWordError: a word that is not in the vocabulary.
            ConfigError: not exactly one kind of query, a vector that has no direction, or nothing left of the query.

        Source: 3CosAdd: Levy and Goldberg, Linguistic Regularities in Sparse and Explicit Word Representations, CoNLL
            2014.
        """
        plus = [self._row(name) for name in _listed("positive", positive)]
        minus = [self._row(name) for name in _listed("negative", negative)]
        out = [self._row(name) for name in _listed("without", without)]
        if (word is not None) + (vector is not None) + bool(plus or minus) != 1:
            raise ConfigError(
                "a query is one of: a word, positive and negative words, or a vector; give exactly one of these"
            )
        if vector is not None:
            direction = self._direction(vector)
        else:
            if word is not None:
                plus = [self._row(word)]
            if len(plus) == 1 and not minus and not out:
                return Query(self.center_vectors[plus[0]], tuple(plus))
            direction = self.center_vectors[plus].sum(0, np.float64) - self.center_vectors[minus].sum(0, np.float64)
            length = float(np.linalg.norm(direction))
            if not length > _NOTHING_LEFT:
                raise ConfigError(
                    "the positive and negative words cancel each other out, so that no direction is left; choose others"
                )
            direction /= length
        direction = _projected_out(direction, self.center_vectors[out].astype(np.float64))
        length = float(np.linalg.norm(direction))
        if not length > _NOTHING_LEFT:
            names = ", ".join(repr(self.words[row]) for row in out)
            raise ConfigError(f"nothing is left of the query without {names}; leave fewer words out")
        unit = _read_only((direction / length).astype(np.float32))
        return Query(unit, tuple(dict.fromkeys([*plus, *minus, *out])))

    def most_similar(
        self,
        word: str | npt.ArrayLike | None = None,
        *,
        positive: Words = (),
        negative: Words = (),
        vector: npt.ArrayLike | None = None,
        without: Words = (),
        k: int = 10,
        max_rank: int | None = None,
        exclude: Words = (),
    ) -> list[Neighbor]:
        """The ``k`` words nearest to a query by cosine, best first, equal ones by frequency; exact.

        Args:
            word: A word, or a vector in its place.
            positive: See :meth:`query`.
            negative: See :meth:`query`.
            vector: A direction of the word space, such as a mean of word vectors; see :meth:`query`. For a document
                vector, or a mean of such, use :meth:`words_of`: near it lie no words but rare ones by chance.
            without: See :meth:`query`.
            k: From 1 up; fewer come back where there are fewer.
            max_rank: Only the so many most frequent words are answers.
            exclude: Further words that are no answers. Those of the query never are.

        Raises:
            UnknownWordError: a word of the query that is not in the vocabulary.
            ConfigError: a query that :meth:`query` refuses, or a ``k`` or ``max_rank`` below 1.
        """
        k = _at_least_one("k", k)
        rows = self.n_words if max_rank is None else _at_least_one("max_rank", max_rank)
        if word is not None and not isinstance(word, str):
            if vector is not None:
                raise ConfigError(
                    "a query is one of: a word, positive and negative words, or a vector; give exactly one of these"
                )
            word, vector = None, word
        query = self.query(word, positive=positive, negative=negative, vector=vector, without=without)
        rows_out = {
            *query.words,
            *(row for name in _listed("exclude", exclude) if (row := self.index_of(name)) is not None),
        }
        indices, scores = nearest_rows(
            self.center_vectors[:rows], query.vector, k, excluded=np.array(sorted(rows_out), np.int64)
        )
        return [
            Neighbor(self.words[index], score, index)
            for index, score in zip(indices.tolist(), np.clip(scores, -1, 1).tolist(), strict=True)
        ]

    def similar_documents(
        self,
        doc_id: str | None = None,
        *,
        index: int | None = None,
        text: str | None = None,
        word: str | None = None,
        vector: npt.ArrayLike | None = None,
        k: int = 10,
    ) -> list[DocumentNeighbor]:
        """The ``k`` trained documents nearest to a document, a text, a word or a direction; exact, best cosine first.

        Args:
            doc_id: A document of the model, which is itself no answer.
            index: The same by its row, from 0.
            text: Any text; its vector is inferred.
            word: A word.
            vector: Any finite vector of shape (dim,) but zero.
            k: From 1 up; fewer come back where there are fewer.

        Raises:
            UnknownWordError: ``word`` is not in the vocabulary.
            NoKnownWordsError: the text or the document has no word of the vocabulary.
            ConfigError: not exactly one query, an unknown document, a vector without a direction, a ``k`` below 1, or
                a model that keeps no document vectors.

        Example:
            >>> model = Embeddings.from_arrays(
            ...     words=["up"],
            ...     counts=[3],
            ...     center_vectors=np.float32([[0, 1]]),
            ...     context_vectors=np.float32([[0, 1]]),
            ...     doc_ids=["1", "2", "3"],
            ...     doc_vectors=np.float32([[0, 1], [0.6, 0.8], [0, 1]]),
            ...     doc_token_counts=[2, 5, 0],
            ... )
            >>> [neighbor.doc_id for neighbor in model.similar_documents("2")]
            ['1']
        """
        self.require_documents()
        k = _at_least_one("k", k)
        if sum(value is not None for value in (doc_id, index, text, word, vector)) != 1:
            raise ConfigError("a query is one of: doc_id, index, text, word, vector; give exactly one of these")
        excluded: list[int] = []
        if doc_id is not None or index is not None:
            row = self._trained_row(doc_id, index)
            excluded.append(row)
            unit = self.doc_vectors[row]
        elif word is not None:
            unit = inference.word_as_document(self, self._row(word))
        elif text is not None:
            unit = self.infer([text])[0]
        else:
            assert vector is not None
            unit = self._direction(vector).astype(np.float32)
        indices, scores = nearest_rows(
            self.doc_vectors, unit, k, excluded=np.array(excluded, np.int64), counts=self.doc_token_counts
        )
        return [
            DocumentNeighbor(self.doc_ids[i], score, i)
            for i, score in zip(indices.tolist(), np.clip(scores, -1, 1).tolist(), strict=True)
        ]

    def words_of(
        self,
        document: str | None = None,
        *,
        text: str | None = None,
        vector: npt.ArrayLike | None = None,
        k: int = 10,
        shrinkage: float = SHRINKAGE,
    ) -> list[Neighbor]:
        """The ``k`` words that describe a document, a text or a direction of the document space; exact, best first.

        Words are compared by their directions as documents, and rare words are shrunk; see
        :mod:`jose_embed.model.words_of`. The first call computes the directions of all words and keeps them (n_words x
        dim float32 values).

        Args:
            document: The id of a document of the model.
            text: Any text; its vector is inferred.
            vector: Any finite vector of shape (dim,) but zero, of the document space: a document vector, or a mean of
                such.
            k: From 1 up; fewer come back if there are fewer.
            shrinkage: Occurrences at which a word's squared score is halved, from 0 (rare words count in full) up.

        Returns:
            Words with ``score``, the cosine multiplied by the word's reliability, which is at most 1.

        Raises:
            NoKnownWordsError: the text or the document has no word of the vocabulary.
            ConfigError: not exactly one query, an unknown document, a vector without a direction, a ``k`` below 1, a
                ``shrinkage`` below 0, or a document of a model that keeps no document vectors.
        """
        k = _at_least_one("k", k)
        if not (isinstance(shrinkage, int | float) and 0 <= shrinkage < math.inf):
            raise ConfigError(f"shrinkage is {shrinkage!r}; it must be a number from 0 up")
        if sum(value is not None for value in (document, text, vector)) != 1:
            raise ConfigError("a query is one of: document, text, vector; give exactly one of these")
        if document is not None:
            self.require_documents()
            unit = self.doc_vectors[self._trained_row(document, None)]
        elif text is not None:
            unit = self.infer([text])[0]
        else:
            assert vector is not None
            unit = self._direction(vector).astype(np.float32)
        indices, scores = self.word_directions.nearest(unit, k, shrinkage=shrinkage)
        return [
            Neighbor(self.words[index], score, index)
            for index, score in zip(indices.tolist(), np.clip(scores, -1, 1).tolist(), strict=True)
        ]

    @property
    def word_directions(self) -> WordDirections:
        """The directions of all words in the document space, made when first asked for."""
        if self._word_directions is None:
            self._word_directions = WordDirections(
                self.center_vectors,
                self.context_vectors,
                inference.context_share(self),
                inference.document_matrix(self),
                inference.word_weights(self),
                self.counts,
                mean_of_documents(self.doc_vectors, self.doc_token_counts),
            )
        return self._word_directions

    def require_documents(self) -> None:
        """Passes unless the training kept no document vectors (``doc_vectors="none"``).

        Raises:
            ConfigError: it kept none, so that nothing can be said about its documents.
        """
        if self.n_docs == 0 and self._parts.about["config"].get("doc_vectors") == "none":
            raise ConfigError(
                "this model keeps no document vectors (it was trained with --doc-vectors none); words and new texts "
                "can be asked for, or train one that keeps them (--doc-vectors mapped)"
            )

    def document_index(self, doc_id: str) -> int | None:
        """The row of a document (the first of that id), or None.

        The first call prepares an index of 16 bytes per document.
        """
        if self._doc_rows is None:
            self._doc_rows = RowFinder(self.doc_ids)
        return self._doc_rows.find(doc_id)

    def infer(self, texts: Iterable[str | Sequence[str]], **options: Any) -> npt.NDArray[np.float32]:
        """Vectors for new texts: float32, shape (n, dim); see :func:`jose_embed.model.inference.infer`."""
        vectors: npt.NDArray[np.float32] = inference.infer(self, texts, **options)
        return vectors

    def infer_flagged(self, texts: Iterable[str | Sequence[str]], **options: Any) -> Flagged:
        """The same for texts that may hold no known word; see :func:`~jose_embed.model.inference.infer_flagged`."""
        return inference.infer_flagged(self, texts, **options)

    def _trained_row(self, doc_id: str | None, index: int | None) -> int:
        row = self._document_row(doc_id, index)
        if self.doc_token_counts[row] == 0:
            name = self.doc_ids[row]
            raise NoKnownWordsError(f"document {name!r} has no word of the vocabulary; ask for another one")
        return row

    def _document_row(self, doc_id: str | None, index: int | None) -> int:
        if index is not None:
            if not isinstance(index, int | np.integer) or not 0 <= index < self.n_docs:
                raise ConfigError(f"document row {index!r} does not exist; there are {self.n_docs}, counted from 0")
            return int(index)
        if not isinstance(doc_id, str):
            raise ConfigError(f"document id {doc_id!r} is no text; ids are text such as '1' (use index= for a row)")
        row = self.document_index(doc_id)
        if row is None:
            example = f" such as {self.doc_ids[0]!r}" if self.n_docs else " (the model has no documents)"
            raise ConfigError(f"there is no document {doc_id!r}; ids are as in doc_ids{example}")
        return row

    def _direction(self, vector: npt.ArrayLike) -> npt.NDArray[np.float64]:
        try:
            array = np.asarray(vector)
        except (TypeError, ValueError):
            array = np.empty(0, object)
        if array.dtype.kind not in "iuf":
            raise ConfigError(f"vector is not an array of numbers; it must be {self.dim} of them")
        array = array.astype(np.float64)
        if array.shape != (self.dim,):
            raise ConfigError(f"vector has the shape {array.shape}; it must be ({self.dim},)")
        largest = float(np.abs(array).max())
        if not math.isfinite(largest):
            raise ConfigError("vector holds a NaN or an infinity; all its numbers must be finite")
        if largest == 0:
            raise ConfigError("vector is zero and so has no direction; it must hold a number other than 0")
        array /= largest  # so that squares neither overflow nor vanish
        return np.asarray(array / np.linalg.norm(array))


def load(path: str | os.PathLike[str], *, verify: bool = False) -> Embeddings:
    """Opens a model directory; see :meth:`Embeddings.load`."""
    return Embeddings.load(path, verify=verify)


def check_target(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """The absolute place that a model saved as ``path`` would take, found fit before hours of work.

    Raises:
        ModelError: as saving would: taken, no directory to write to, or something there that is not a model.
    """
    return check_model_target(path, overwrite=overwrite)


# ----------------------------------------------------------------------------------------------------------------------


def _read_only(array: npt.NDArray[Number]) -> npt.NDArray[Number]:
    view = array.view(np.ndarray)
    view.flags.writeable = False
    return view


def _whole_numbers(name: str, values: npt.ArrayLike) -> npt.NDArray[np.int64]:
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise ModelError(f"{name} holds {array.dtype} values; it must hold whole numbers")
    return array.astype(np.int64, copy=False)
