"""``jose compare``: how the words of two models differ."""

from __future__ import annotations

import argparse
import json

from jose_embed.cli.command import Command, add_number, print_rows, visible


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="MODEL", help="a model directory")
    parser.add_argument("second", metavar="OTHER", help="the model to compare it with")
    add_number(parser, "--top", "words that moved most", 20)
    add_number(
        parser, "--min-count", "occurrences of such a word in both models, at least; rare words move by chance", 20
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _run(arguments: argparse.Namespace) -> None:
    from jose_embed.analysis.comparison import compare
    from jose_embed.model.embeddings import load

    found = compare(load(arguments.first), load(arguments.second), n_moved=arguments.top, min_count=arguments.min_count)
    if arguments.json:
        print(json.dumps(found.to_dict(), ensure_ascii=False))
        return
    overlap = f"{found.overlap:.3f} of the {found.neighbors} nearest words of {found.n_compared:,} frequent words"
    print_rows(
        {
            "words": f"{found.n_words:,} in both, {found.n_only_first:,} and {found.n_only_second:,} in one only",
            "cosine": f"{found.cosine:.3f} on average, after the alignment",
            "neighbors": f"{overlap} are the same",
        }
    )
    print("\nmoved most:")
    for word in found.moved:
        before, after = (", ".join(map(visible, words)) for words in (word.before, word.after))
        print(f"{word.cosine:6.3f}  {visible(word.word)}: {before} -> {after}")


COMPARE = Command(
    name="compare",
    summary="Compare the words of two models: which moved most, and how many neighbours are the same.",
    configure=_configure,
    run=_run,
    examples=("jose compare 2024.jose 2025.jose", "jose compare 2024.jose 2025.jose --top 50 --json"),
)
