"""``jose similar``, ``jose words``, ``jose documents`` and ``jose info``: query a model."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import combining, east_asian_width

from jose_embed.cli.command import Command, add_model, add_number, reporter_of, visible
from jose_embed.errors import ConfigError, CorpusError, ModelError

if TYPE_CHECKING:
    from jose_embed.model.embeddings import Embeddings
    from jose_embed.model.query import Neighbor

_LABEL_WIDTH = 100


def _answer_arguments(parser: argparse.ArgumentParser) -> None:
    add_number(parser, "-k", "number of answers", 10)
    parser.add_argument("--json", action="store_true", help="print JSON")


# -------------------------------------------------------------------------------------------------------------- similar


def _configure_similar(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("word", metavar="WORD", nargs="?", help="a word of the vocabulary")
    for name, help in [
        ("positive", "words to add to the query"),
        ("negative", "words to subtract from it"),
        ("without", "words to ignore: similarity to them no longer counts, while --negative prefers their opposite"),
    ]:
        parser.add_argument(f"--{name}", nargs="+", default=[], metavar="WORD", help=help)
    add_number(parser, "--max-rank", "answer with the N most frequent words only")
    _answer_arguments(parser)


def _run_similar(arguments: argparse.Namespace) -> None:
    if arguments.word is None and not arguments.positive and not arguments.negative:
        raise ConfigError("the query is empty; give a WORD, or words with --positive and --negative")

    from jose_embed.model.embeddings import load

    model = load(arguments.model)
    neighbors = model.most_similar(
        arguments.word,
        positive=arguments.positive,
        negative=arguments.negative,
        without=arguments.without,
        k=arguments.k,
        max_rank=arguments.max_rank,
    )
    words = [arguments.word, *arguments.positive, *arguments.negative, *arguments.without]
    _print_words(model, neighbors, arguments, _respelled(model, [word for word in words if word is not None]))


def _respelled(model: Embeddings, words: Sequence[str]) -> dict[str, Any]:
    """The members of each result that say which words matched in another spelling, and whether one is composed of
    n-grams, which is also said on standard error; empty if neither."""
    found, composed = [], {}
    for word in dict.fromkeys(words):
        matched = model.matched_word(word)
        if matched not in (None, word):
            found.append({"asked": word, "matched": matched})
            print(visible(f"asked: {word}, matched: {matched}"), file=sys.stderr)
        elif matched is None and model.is_composed(word):
            composed = {"composed": True}
            print(visible(f"asked: {word}, which is unknown: composed of its n-grams"), file=sys.stderr)
    return ({"respelled": found} if found else {}) | composed


def _composed(model: Embeddings, text: str | None) -> dict[str, Any]:
    """The member of each result that says that all words of a text are composed, also on standard error; else empty."""
    if text is None or model.subwords is None or not model.encoder.infer_detailed([text], most_unknown=0)[0].composed:
        return {}
    print("no word of the text is known: it is composed of n-grams", file=sys.stderr)
    return {"composed": True}


def _print_words(
    model: Embeddings, neighbors: Sequence[Neighbor], arguments: argparse.Namespace, respelled: dict[str, Any]
) -> None:
    if arguments.json:
        print_json([
            {"word": n.word, "score": n.score, "rank": n.index, "count": int(model.counts[n.index]), **respelled}
            for n in neighbors
        ])  # fmt: skip
        return
    print_table(
        ["score", "count", "word"],
        [[f"{n.score:.4f}", f"{int(model.counts[n.index]):,}", n.word] for n in neighbors],
    )


# ---------------------------------------------------------------------------------------------------------------- words


def _configure_words(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    _document_arguments(parser)
    _answer_arguments(parser)


def _document_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", nargs="?", help="the id of a document; by default its line number, from 1")
    parser.add_argument("--text", metavar="TEXT", help="use this text instead; - reads standard input")


def _run_words(arguments: argparse.Namespace) -> None:
    if (arguments.id is None) == (arguments.text is None):
        raise ConfigError("give exactly one of: the ID of a document, --text")

    from jose_embed.model.embeddings import load

    model = load(arguments.model)
    text = _text_of(arguments)
    _print_words(model, model.words_of(arguments.id, text=text, k=arguments.k), arguments, _composed(model, text))


def _text_of(arguments: argparse.Namespace) -> str | None:
    """The text of a query, from standard input for ``-``."""
    text: str | None = sys.stdin.read() if arguments.text == "-" else arguments.text
    return text


# ------------------------------------------------------------------------------------------------------------ documents


def _configure_documents(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    _document_arguments(parser)
    parser.add_argument("--word", metavar="WORD", help="find documents about this word")
    parser.add_argument(
        "--labels", metavar="FILE", nargs="+", default=[], help="files with one line for each document, shown beside it"
    )
    parser.add_argument("--filter", metavar="FILTER", help="only documents whose kept fields fit; see jose search")
    _answer_arguments(parser)


def _run_documents(arguments: argparse.Namespace) -> None:
    if sum(value is not None for value in (arguments.id, arguments.text, arguments.word)) != 1:
        raise ConfigError("give exactly one of: the ID of a document, --text, --word")

    from jose_embed.model.embeddings import load

    model = load(arguments.model)
    text = _text_of(arguments)
    neighbors = model.similar_documents(
        arguments.id, text=text, word=arguments.word, k=arguments.k, filter=arguments.filter
    )
    labels = _labels(arguments.labels, {n.index for n in neighbors}, model.n_docs) if arguments.labels else {}
    respelled = _respelled(model, [arguments.word]) if arguments.word is not None else _composed(model, text)
    if arguments.json:
        print_json([
            {
                "id": n.doc_id, "score": n.score, "row": n.index, **({"label": labels[n.index]} if labels else {}),
                **({} if n.text is None else {"text": n.text}), **({"fields": dict(n.fields)} if n.fields else {}),
                **respelled,
            }
            for n in neighbors
        ])  # fmt: skip
        return
    fields = list(neighbors[0].fields) if neighbors else []
    has_texts = any(n.text is not None for n in neighbors)
    titles = ["score", "document", *fields, *(["label"] if labels else []), *(["text"] if has_texts else [])]
    rows = []
    for n in neighbors:
        kept = ["" if n.fields.get(name) is None else str(n.fields[name]) for name in fields]
        kept += [labels[n.index]] if labels else []
        kept += [n.text or ""] if has_texts else []
        rows.append([f"{n.score:.4f}", n.doc_id, *map(short_text, kept)])
    print_table(titles, rows)
    if sys.stdout.isatty() and neighbors and not has_texts and not fields:
        print("The model keeps no texts; jose-train --keep-text shows them here.", file=sys.stderr)


def _labels(files: Sequence[str], rows: Collection[int], n_docs: int) -> dict[int, str]:
    """The lines with these numbers, from 0.

    Raises:
        CorpusError: the files do not have a line for each document.
    """
    from jose_embed.text.reader import BlockReader
    from jose_embed.text.records import TextOptions
    from jose_embed.text.sources import find_sources

    found: dict[int, str] = {}
    n_lines = 0
    with BlockReader(find_sources(files), whole_lines=True, options=TextOptions(format="text")) as reader:
        for block in reader:
            lines = block.data.split(b"\n")[:-1]
            found.update({row: lines[row - n_lines].decode() for row in rows if n_lines <= row < n_lines + len(lines)})
            n_lines += len(lines)
    if n_lines != n_docs:
        raise CorpusError(
            f"{', '.join(files)}: {n_lines:,} lines for {n_docs:,} documents; --labels needs one line for each document"
            " of the model, in the same order"
        )
    return found


def labels_of_all(files: Sequence[str], n_docs: int) -> list[str]:
    """The line of each document.

    Raises:
        CorpusError: the files do not have a line for each document.
    """
    found = _labels(files, range(n_docs), n_docs)
    return [found[row] for row in range(n_docs)]


def short_text(line: str) -> str:
    """A text in one line of at most 100 characters."""
    text = " ".join(line.split())
    return text if len(text) <= _LABEL_WIDTH else text[: _LABEL_WIDTH - 3] + "..."


# ----------------------------------------------------------------------------------------------------------------- info


def _configure_info(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "--verify", action="store_true", help="also read all files and compare them with their checksums"
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="write the loss of each epoch as a picture instead (.png, .pdf, .svg)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing picture")
    parser.add_argument("--json", action="store_true", help="print the manifest and saved evaluations as JSON")


def _run_info(arguments: argparse.Namespace) -> None:
    from jose_embed.analysis.card import card
    from jose_embed.model.embeddings import Embeddings
    from jose_embed.model.quality import read_quality

    try:
        with reporter_of(arguments) as reporter:
            model = Embeddings.load(arguments.model, verify=arguments.verify, reporter=reporter)
    except ModelError:
        if not _is_encoding(arguments):
            raise
        return
    if arguments.plot is not None:
        from jose_embed.analysis.pictures import loss_picture
        from jose_embed.storage.atomic import check_output

        check_output(arguments.plot, [], [arguments.model])
        print(f"{loss_picture(model.manifest, arguments.plot, overwrite=arguments.overwrite)}: the loss of each epoch")
        return
    quality = read_quality(arguments.model, model.id)
    if arguments.json:
        print_json({**model.manifest, "evaluation": quality} if quality else model.manifest)
        return
    for line in card(model.manifest, arguments.model, frequent=model.words[:12], quality=quality):
        print(visible(line))
    if arguments.verify:
        print("\nverified: all files match their checksums, all vectors have norm 1")


def _is_encoding(arguments: argparse.Namespace) -> bool:
    """Whether MODEL is an encoded corpus; if so, its card is printed."""
    from jose_embed.analysis.card import encoding_card
    from jose_embed.text.kept import encoding_facts, is_encoded, open_encoded
    from jose_embed.text.sources import printable

    if not is_encoded(arguments.model):
        return False
    manifest, reports = encoding_facts(arguments.model)
    if arguments.verify:
        with reporter_of(arguments) as reporter:
            open_encoded(arguments.model, reporter=reporter).close()
    if arguments.json:
        print_json({**manifest, "sources": [dataclasses.asdict(report) for report in reports]})
        return True
    for line in encoding_card(manifest, arguments.model, sources=[printable(report.name) for report in reports]):
        print(visible(line))
    if arguments.verify:
        print("\nverified: all files match their checksums")
    return True


# --------------------------------------------------------------------------------------------------------------- output


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns, aligned to the right except for the last."""
    shown = [list(titles), *([visible(cell) for cell in row] for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        padded = (" " * (width - _width(cell)) + cell for cell, width in zip(row[:-1], widths, strict=False))
        print("  ".join([*padded, row[-1]]))


def _width(text: str) -> int:
    """The columns of a terminal that a text takes."""
    if text.isascii():
        return len(text)
    return sum((not combining(c)) + (east_asian_width(c) in "WF") for c in text)


def print_json(value: Any) -> None:
    """Print a JSON value, in UTF-8."""
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # JSON is always UTF-8
    print(json.dumps(value, ensure_ascii=False, indent=2))


SIMILAR = Command(
    name="similar",
    summary="Find the words most similar to a word, or to a sum of words.",
    configure=_configure_similar,
    run=_run_similar,
    examples=(
        "jose similar corpus.jose thread -k 5",
        "jose similar corpus.jose --positive king woman --negative man",
    ),
)
WORDS = Command(
    name="words",
    summary="Find the words that describe a document or a text.",
    configure=_configure_words,
    run=_run_words,
    examples=("jose words corpus.jose 17", "jose words corpus.jose --text 'how to parse a date'"),
)
DOCUMENTS = Command(
    name="documents",
    summary="Find the documents most similar to a document, a text or a word.",
    configure=_configure_documents,
    run=_run_documents,
    examples=(
        "jose documents corpus.jose 17 --labels corpus.txt",
        "jose documents corpus.jose --text 'how to parse a date'",
    ),
)
INFO = Command(
    name="info",
    summary="Describe a model or an encoded text: its text, settings, training and files.",
    configure=_configure_info,
    run=_run_info,
    examples=("jose info corpus.jose", "jose info corpus.jose --verify", "jose info corpus.jose --plot loss.png"),
)
