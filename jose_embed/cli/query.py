"""``jose similar``, ``jose documents`` and ``jose info``: asking a model."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Collection, Sequence
from typing import Any

from jose_embed.cli.command import Command, add_model, positive_whole_number, visible
from jose_embed.errors import ConfigError, CorpusError, ModelError
from jose_embed.progress import reporter_for

__all__ = ["DOCUMENTS", "INFO", "SIMILAR"]

_LABEL_WIDTH = 100


def _answer_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-k", type=positive_whole_number, default=10, metavar="N", help="how many neighbours (default: 10)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


# -------------------------------------------------------------------------------------------------------------- similar


def _configure_similar(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("word", metavar="WORD", nargs="?", help="a word of the vocabulary")
    for name, what in [("positive", "added"), ("negative", "subtracted"), ("without", "projected out of the query")]:
        parser.add_argument(f"--{name}", nargs="+", default=[], metavar="WORD", help=f"words that are {what}")
    parser.add_argument(
        "--max-rank", type=positive_whole_number, metavar="N", help="only the N most frequent words may be answers"
    )
    _answer_arguments(parser)


def _run_similar(arguments: argparse.Namespace) -> None:
    if arguments.word is None and not arguments.positive and not arguments.negative:
        raise ConfigError("no word was given; name one, or use --positive and --negative")

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
    if arguments.json:
        _print_json([
            {"word": n.word, "score": n.score, "rank": n.index, "count": int(model.counts[n.index])} for n in neighbors
        ])  # fmt: skip
        return
    _print_table(
        ["score", "count", "word"],
        [[f"{n.score:.4f}", f"{int(model.counts[n.index]):,}", n.word] for n in neighbors],
    )


# ------------------------------------------------------------------------------------------------------------ documents


def _configure_documents(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("id", metavar="ID", nargs="?", help="a document's id: the number of its line, from 1")
    parser.add_argument("--text", metavar="TEXT", help="any text instead, - for standard input; its vector is inferred")
    parser.add_argument("--word", metavar="WORD", help="a word instead: documents about it")
    parser.add_argument(
        "--labels", metavar="FILE", nargs="+", default=[], help="files with a line for each document, to show beside it"
    )
    _answer_arguments(parser)


def _run_documents(arguments: argparse.Namespace) -> None:
    if sum(value is not None for value in (arguments.id, arguments.text, arguments.word)) != 1:
        raise ConfigError("give exactly one of: a document's ID, --text, --word")

    from jose_embed.model.embeddings import load

    model = load(arguments.model)
    text = sys.stdin.read() if arguments.text == "-" else arguments.text
    neighbors = model.similar_documents(arguments.id, text=text, word=arguments.word, k=arguments.k)
    labels = _labels(arguments.labels, {n.index for n in neighbors}, model.n_docs) if arguments.labels else {}
    if arguments.json:
        _print_json([
            {"id": n.doc_id, "score": n.score, "row": n.index, **({"label": labels[n.index]} if labels else {})}
            for n in neighbors
        ])  # fmt: skip
        return
    _print_table(
        ["score", "document", "label"] if labels else ["score", "document"],
        [[f"{n.score:.4f}", n.doc_id] + ([_short(labels[n.index])] if labels else []) for n in neighbors],
    )


def _labels(files: Sequence[str], rows: Collection[int], n_docs: int) -> dict[int, str]:
    """The lines of these numbers, from 0; the files are read only as far as that takes."""
    from jose_embed.text.reader import BlockReader, find_sources

    found: dict[int, str] = {}
    last = max(rows, default=-1)
    n_lines = 0
    with BlockReader(find_sources(files), whole_lines=True) as reader:
        for block in reader:
            lines = block.data.split(b"\n")[:-1]
            found.update({row: lines[row - n_lines].decode() for row in rows if n_lines <= row < n_lines + len(lines)})
            n_lines += len(lines)
            if n_lines > last:
                break
    if n_lines <= last:
        raise CorpusError(
            f"{', '.join(files)}: {n_lines:,} lines, but the model has {n_docs:,} documents; --labels takes the text"
            " that the model was trained on, or other files with a line for each document"
        )
    return found


def _short(line: str) -> str:
    text = " ".join(line.split())
    return text if len(text) <= _LABEL_WIDTH else text[: _LABEL_WIDTH - 3] + "..."


# ----------------------------------------------------------------------------------------------------------------- info


def _configure_info(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--verify", action="store_true", help="also read every byte and compare it with the checksums")
    parser.add_argument(
        "--json", action="store_true", help="print the manifest, and the figures of an evaluation, as JSON"
    )


def _run_info(arguments: argparse.Namespace) -> None:
    from jose_embed.analysis.card import card
    from jose_embed.model.embeddings import Embeddings
    from jose_embed.model.quality import read_quality

    try:
        with reporter_for() as reporter:
            model = Embeddings.load(arguments.model, verify=arguments.verify, reporter=reporter)
    except ModelError:
        if not _is_encoding(arguments):
            raise
        return
    quality = read_quality(arguments.model, model.id)
    if arguments.json:
        _print_json({**model.manifest, "evaluation": quality} if quality else model.manifest)
        return
    for line in card(model.manifest, arguments.model, frequent=model.words[:12], quality=quality):
        print(visible(line))
    if arguments.verify:
        print("\nverified: every file agrees with its checksum, every row has norm 1")


def _is_encoding(arguments: argparse.Namespace) -> bool:
    """Whether it is no model but an encoded corpus, which then is shown."""
    from jose_embed.analysis.card import encoding_card
    from jose_embed.text.kept import encoding_facts, is_encoded, open_encoded
    from jose_embed.text.sources import printable

    if not is_encoded(arguments.model):
        return False
    manifest, reports = encoding_facts(arguments.model)
    if arguments.verify:
        with reporter_for() as reporter:
            open_encoded(arguments.model, reporter=reporter).close()
    if arguments.json:
        _print_json({**manifest, "sources": [dataclasses.asdict(report) for report in reports]})
        return True
    for line in encoding_card(manifest, arguments.model, sources=[printable(report.name) for report in reports]):
        print(visible(line))
    if arguments.verify:
        print("\nverified: every file agrees with its checksum")
    return True


# --------------------------------------------------------------------------------------------------------------- output


def _print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns for people: numbers to the right, the last column, which may hold any script, to the left."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in [titles, *([visible(cell) for cell in row] for row in rows)]:
        print("  ".join([*(f"{cell:>{width}}" for cell, width in zip(row[:-1], widths, strict=False)), row[-1]]))


def _print_json(value: Any) -> None:
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # JSON is UTF-8, whatever the terminal
    print(json.dumps(value, ensure_ascii=False, indent=2))


SIMILAR = Command(
    name="similar",
    summary="The words nearest to a word, or to words added and subtracted.",
    configure=_configure_similar,
    run=_run_similar,
    examples=(
        "jose similar corpus.jose thread -k 5",
        "jose similar corpus.jose --positive king woman --negative man",
    ),
)
DOCUMENTS = Command(
    name="documents",
    summary="The documents nearest to a document, a text or a word.",
    configure=_configure_documents,
    run=_run_documents,
    examples=(
        "jose documents corpus.jose 17 --labels corpus.txt",
        "jose documents corpus.jose --text 'how to parse a date'",
    ),
)
INFO = Command(
    name="info",
    summary="The card of a model (text, settings, training, machine, loss by epoch, figures) or of an encoded text.",
    configure=_configure_info,
    run=_run_info,
    examples=("jose info corpus.jose", "jose info corpus.jose --verify"),
)
