"""``jose search``: find documents by a question in words."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jose_embed.cli.command import Command, add_model, add_number
from jose_embed.cli.query import print_json, print_table, short_text
from jose_embed.errors import ConfigError

if TYPE_CHECKING:
    from jose_embed.model.passages import Passage
    from jose_embed.model.search import SearchResult

_PASSAGE_WORDS = 25  # of what a table shows of a text
_MOST_FACETS = 20  # values of a field that a table shows


def _configure(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "text", metavar="QUESTION", nargs="?", help="any text, it has no syntax; - reads standard input"
    )
    parser.add_argument(
        "--mode",
        choices=("hybrid", "vector", "words"),
        help="hybrid: by meaning and exact words (default where texts are kept); vector: by meaning; words: by words",
    )
    parser.add_argument(
        "--filter",
        metavar="FILTER",
        help="only documents whose fields fit, which jose-train --keep-fields kept, such as: "
        "date >= 2025-01-01 and rating in [1, 2] and x is missing",
    )
    add_number(
        parser,
        "--passage-words",
        f"words of the part of a text that is shown (default: {_PASSAGE_WORDS} in a table, no part in JSON)",
    )
    parser.add_argument(
        "--facets", nargs="+", default=[], metavar="FIELD", help="count the values of kept fields; alone or with FILTER"
    )
    add_number(parser, "-k", "number of answers", 10)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run(arguments: argparse.Namespace) -> None:
    if arguments.text is None and not arguments.facets:
        raise ConfigError("the question is missing; give a QUESTION, or --facets to count the values of fields")

    from jose_embed.model.embeddings import load

    model = load(arguments.model)
    facets = {field: model.facets(field, filter=arguments.filter) for field in arguments.facets}
    found: Sequence[SearchResult] = ()
    if arguments.text is not None:
        text = sys.stdin.read() if arguments.text == "-" else arguments.text
        n_words = arguments.passage_words
        if n_words is None and not arguments.json and model.has_texts:
            n_words = _PASSAGE_WORDS
        found = model.search(text, k=arguments.k, mode=arguments.mode, filter=arguments.filter, passage_words=n_words)
    if arguments.json:
        counted = {name: [facet._asdict() for facet in values] for name, values in facets.items()}
        results = [_as_json(one) for one in found]
        print_json({"results": results, "facets": counted} if facets else results)
        return
    for name, values in facets.items():
        print_table(["count", name], [[f"{count:,}", _shown(value)] for value, count in values[:_MOST_FACETS]])
        if len(values) > _MOST_FACETS:
            print(f"and {len(values) - _MOST_FACETS:,} other values; --json prints all")
    if arguments.text is None:
        return
    if not found:
        why = "" if arguments.filter is None else ", or no document fits the filter"
        print(f"Nothing was found: no word of the question is known{why}.", file=sys.stderr)
    _print(found)


def _as_json(one: SearchResult) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": one.doc_id, "score": one.score, "row": one.index}
    if one.text is not None:
        shown["text"] = one.text
    if one.fields:
        shown["fields"] = dict(one.fields)
    if one.passage is not None:
        shown["passage"] = one.passage._asdict()
    return shown


def _print(found: Sequence[SearchResult]) -> None:
    fields = list(found[0].fields) if found else []
    has_texts = any(one.passage is not None for one in found)
    rows = []
    for one in found:
        kept = [short_text(_shown(one.fields.get(name), "")) for name in fields]
        if has_texts:
            kept.append("" if one.passage is None else _marked(one.passage))
        rows.append([f"{one.score:.4f}", one.doc_id, *kept])
    print_table(["score", "document", *fields, *(["passage"] if has_texts else [])], rows)


def _shown(value: Any, missing: str = "(missing)") -> str:
    return missing if value is None else str(value)


def _marked(passage: Passage) -> str:
    """A passage in one line, with *asterisks* around words of the question."""
    pieces: list[str] = []
    at = 0
    for start, end in passage.highlights:
        pieces += [passage.text[at:start], "*", passage.text[start:end], "*"]
        at = end
    return " ".join("".join([*pieces, passage.text[at:]]).split())


SEARCH = Command(
    name="search",
    summary="Find documents by a question: by meaning, by exact words, or by both.",
    configure=_configure,
    run=_run,
    examples=(
        "jose search corpus.jose 'how to parse a date'",
        "jose-train reviews.csv --keep-text --keep-fields date,rating -o corpus.jose",
        "jose search corpus.jose 'battery life' --filter 'date >= 2025-01-01 and rating in [1, 2]'",
        "jose search corpus.jose --facets rating",
    ),
)
