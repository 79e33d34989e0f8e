"""``jose topics`` and ``jose near-duplicates``: the structure of a model's documents."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jose_embed.cli.command import Command, add_model, add_number, add_quiet, reporter_of
from jose_embed.cli.query import print_json, print_table, short_text
from jose_embed.cli.text_options import add_text_options, read_documents
from jose_embed.errors import ConfigError

if TYPE_CHECKING:
    from jose_embed.analysis.topics import Topic, Topics
    from jose_embed.text.texts import TextStore

_BATCH = 1 << 12  # kept documents, and lines to assign, that are read at a time
_NO_VALUE = "(none)"


def _configure_topics(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_number(parser, "-k", "number of topics (default: found from the documents)")
    add_number(parser, "--words", "words of each topic", 10)
    add_number(parser, "--documents", "typical documents", 3)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the random starts (default: 0)")
    parser.add_argument(
        "--assign", nargs="+", metavar="TEXT", help="print the topic of each document of these files instead"
    )
    parser.add_argument(
        "--by", metavar="FIELD", help="print the documents of each topic by the values of a kept field instead"
    )
    add_text_options(parser.add_argument_group("the texts of --assign"), keeping=False)
    add_formats(parser)
    add_quiet(parser)


def add_formats(parser: argparse.ArgumentParser) -> None:
    """Give a command its ``--json`` and ``--csv``."""
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--json", action="store_true", help="print JSON")
    formats.add_argument("--csv", action="store_true", help="print CSV")


def _run_topics(arguments: argparse.Namespace) -> None:
    if arguments.assign and arguments.by:
        raise ConfigError("--assign and --by are two different outputs; give one of them")

    from jose_embed.analysis.topics import topics
    from jose_embed.model.embeddings import load

    model = load(arguments.model)
    store = kept_texts(arguments.model)
    if arguments.by:
        check_field(arguments.by, store, model.n_docs)
    new = read_documents(arguments.assign, arguments, model) if arguments.assign else None
    with reporter_of(arguments) as reporter:
        found = topics(
            model,
            arguments.k,
            n_words=arguments.words,
            n_documents=arguments.documents,
            seed=arguments.seed,
            reporter=reporter,
        )
    if new is not None:
        _print_assigned(found, *new, arguments)
    elif arguments.by and store is not None:
        _print_by_field(found, store, arguments)
    elif arguments.json:
        print_json([_as_json(topic, store) for topic in found])
    else:
        titles = ["topic", "share", "documents", "concentration", "words"]
        rows = [
            [
                str(topic.number),
                f"{topic.share:.4f}",
                str(topic.n_documents),
                f"{topic.concentration:.1f}",
                " ".join(topic.words),
            ]
            for topic in found
        ]
        if arguments.csv:
            print_csv([*titles, "typical"], [[*row, " ".join(t.doc_ids)] for row, t in zip(rows, found, strict=True)])
            return
        print_table(titles, rows)
        print()
        print_table(["topic", "typical document"], list(_typical_rows(found, store)))


def _typical_rows(found: Topics, store: TextStore | None) -> Iterator[list[str]]:
    for topic in found:
        texts = [document.text for document in store.read(topic.doc_rows)] if store else [None] * len(topic.doc_rows)
        for doc_id, text in zip(topic.doc_ids, texts, strict=True):
            yield [str(topic.number), f"{doc_id}  {short_text(text)}" if text else doc_id]


def _as_json(topic: Topic, store: TextStore | None) -> dict[str, Any]:
    documents: list[dict[str, Any]] = [{"id": doc_id} for doc_id in topic.doc_ids]
    if store is not None:
        for document, kept in zip(documents, store.read(topic.doc_rows), strict=True):
            document |= ({"text": kept.text} if kept.text is not None else {}) | {"fields": dict(kept.fields)}
    words = [{"word": word, "score": score} for word, score in zip(topic.words, topic.scores, strict=True)]
    return {
        "topic": topic.number,
        "share": topic.share,
        "concentration": topic.concentration,
        "n_documents": topic.n_documents,
        "words": words,
        "documents": documents,
    }


def _print_assigned(found: Topics, ids: Sequence[str], texts: Sequence[str], arguments: argparse.Namespace) -> None:
    assigned = found.assign(texts)
    best = assigned.probabilities.max(1)
    numbers = assigned.topics.tolist()
    if arguments.json:
        print_json([
            {"id": id, "topic": number if number >= 0 else None, "probabilities": row}
            for id, number, row in zip(ids, numbers, assigned.probabilities.tolist(), strict=True)
        ])  # fmt: skip
        return
    rows = [
        [id, str(number) if number >= 0 else "", f"{probability:.4f}"]
        for id, number, probability in zip(ids, numbers, best.tolist(), strict=True)
    ]
    titles = ["id", "topic", "probability"]
    if arguments.csv:
        print_csv(titles, rows)
    else:
        words = [" ".join(found[number].words[:5]) if number >= 0 else "(no known word)" for number in numbers]
        print_table([*titles, "words"], [[*row, text] for row, text in zip(rows, words, strict=True)])


def _print_by_field(found: Topics, store: TextStore, arguments: argparse.Namespace) -> None:
    counts: Counter[tuple[str, int]] = Counter()
    totals: Counter[str] = Counter()
    for start in range(0, len(found.doc_topics), _BATCH):
        numbers = found.doc_topics[start : start + _BATCH].tolist()
        for number, kept in zip(numbers, store.read(range(start, start + len(numbers))), strict=True):
            value = kept.fields.get(arguments.by)
            name = _NO_VALUE if value is None else str(value)
            if number >= 0:
                counts[name, number] += 1
                totals[name] += 1
    rows = [
        (value, topic.number, counts[value, topic.number], counts[value, topic.number] / totals[value], topic.words)
        for value in sorted(totals, key=_numbers_first)
        for topic in found
        if counts[value, topic.number]
    ]
    if arguments.json:
        print_json([
            {arguments.by: value, "topic": number, "n_documents": count, "share": share, "words": list(words)}
            for value, number, count, share, words in rows
        ])  # fmt: skip
        return
    titles = [arguments.by, "topic", "documents", "share", "words"]
    cells = [[value, str(number), str(n), f"{share:.4f}", " ".join(words)] for value, number, n, share, words in rows]
    (print_csv if arguments.csv else print_table)(titles, cells)


def _numbers_first(value: str) -> tuple[bool, float, str]:
    """The key that sorts numbers by their value, before everything else."""
    with suppress(ValueError):
        if (number := float(value)) == number:
            return False, number, value
    return True, 0.0, value


def check_field(name: str, store: TextStore | None, n_docs: int) -> None:
    """Passes if a model of n documents keeps this field.

    Raises:
        ConfigError: it does not; names the fields that are kept.
    """
    from jose_embed.model.filters import no_field

    if store is None:
        raise no_field(name, ())
    if name not in store.fields and not any(name in kept.fields for kept in store.read(range(n_docs))):
        raise no_field(name, store.fields)


def kept_texts(path: str) -> TextStore | None:
    """The kept texts of a model directory, if it has any."""
    from jose_embed.text.texts import TEXTS_NAME, TextStore

    place = Path(path) / TEXTS_NAME
    return TextStore.open(place) if place.is_file() else None


def print_csv(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a header and rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([titles, *rows])
    sys.stdout.write(text.getvalue())


# ------------------------------------------------------------------------------------------------------ near-duplicates


def _configure_near_duplicates(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "--above", type=float, default=0.98, metavar="COSINE", help="least cosine of a pair (default: 0.98)"
    )
    add_number(parser, "-k", "print at most N pairs", 1000)
    add_formats(parser)
    add_quiet(parser)


def _run_near_duplicates(arguments: argparse.Namespace) -> None:
    from jose_embed.analysis.duplicates import near_duplicates
    from jose_embed.model.embeddings import load

    model = load(arguments.model)
    with reporter_of(arguments) as reporter:
        pairs = near_duplicates(model, above=arguments.above, k=arguments.k, reporter=reporter)
    if arguments.json:
        print_json([{"a": pair.a, "b": pair.b, "cosine": pair.cosine} for pair in pairs])
        return
    rows = [[f"{pair.cosine:.4f}", pair.a, pair.b] for pair in pairs]
    (print_csv if arguments.csv else print_table)(["cosine", "document", "document"], rows)


TOPICS = Command(
    name="topics",
    summary="Find topics of the documents: their words, shares and most typical documents.",
    configure=_configure_topics,
    run=_run_topics,
    examples=(
        "jose topics corpus.jose",
        "jose topics corpus.jose -k 20 --json",
        "jose topics corpus.jose --assign new.txt --csv",
        "jose topics corpus.jose --by year",
    ),
)
NEAR_DUPLICATES = Command(
    name="near-duplicates",
    summary="Find pairs of documents with almost the same vector.",
    configure=_configure_near_duplicates,
    run=_run_near_duplicates,
    examples=("jose near-duplicates corpus.jose", "jose near-duplicates corpus.jose --above 0.95 --csv"),
)
