"""Does the order of the file leak into the vectors? Trains on 20 Newsgroups sorted by class and shuffled.

A program that visits documents in file order drifts through one class after the other, and neighbours in the file get
similar vectors. Such figures look splendid on a sorted file and fall on a shuffled one. Where order does not matter the
two rows agree within the spread over seeds.

    python tests/benchmarks/order.py
    python tests/benchmarks/order.py --systems ours doc2vec reference-ofast --corpora 20news bbc --seeds 5
    python tests/benchmarks/order.py --paper --corpora 20news moviereview    beside what the paper printed

``--paper`` takes the settings of the paper's own scripts for documents (window 10, 20 iterations), whose file of 20
Newsgroups is sorted by class, and prints its figures as a row. Where the paper's program is there, it also says how far
the preset ``paper`` is from it on the shuffled file, beside the spread over seeds. Source: Meng et al., NeurIPS 2019.

Figures are kept as those of quality.py are, whose runs on the shuffled file are the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import corpora
import numpy as np
import peers
from ledger import Ledger, header, markdown_table
from quality import DOCUMENT_COLUMNS, recorded, spread

from jose_embed.analysis.measures import Spread

SYSTEMS = ("ours", "doc2vec", "reference-ofast")
TASKS = {"sorted": "sorted by class", "together": "shuffled"}
PUBLISHED = {"20news": (".707", ".663"), "moviereview": (".765", "")}
PROGRAM, PRESET = "reference-ofast", "ours:preset=paper,window=10"
PAPER_SYSTEMS = (PROGRAM, PRESET, "ours:preset=pairwise,window=10", "ours")
COLUMNS = {name: DOCUMENT_COLUMNS[name] for name in ("knn", "nmi")}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    options = _parser().parse_args(arguments)
    if not corpora.DATA.is_dir():
        print(f"no development corpora at {corpora.DATA}; JOSE_SHARED_DATA may name their place", file=sys.stderr)
        return 2
    facts = header()
    print(f"measured at {facts['commit']}, {facts['date']}, {facts['machine']}, {options.threads} threads")
    systems = peers.present(options.systems or (PAPER_SYSTEMS if options.paper else SYSTEMS))
    ledger = Ledger(options.ledger or corpora.cache_folder() / "quality.json")
    epochs = options.epochs or (20 if options.paper else 10)
    settings = peers.Settings(window=10 if options.paper else 5, epochs=epochs, threads=options.threads)
    for name in options.corpora:
        corpus = corpora.load(name)
        rows = [["published", "", *PUBLISHED.get(name, ("", ""))]] if options.paper else []
        shuffled = {}
        for system in systems:
            for task, order in TASKS.items():
                runs = [
                    recorded(ledger, system, corpus, dataclasses.replace(settings, seed=seed), task)
                    for seed in range(1, options.seeds + 1)
                ]
                if task == "together":
                    shuffled[system] = runs
                rows.append([peers.title(system), order, *(spread(column, runs) for column in COLUMNS)])
        title = corpus.description.title
        print(f"\n### {title}: the order of the file ({epochs} epochs, {options.seeds} seeds)\n")
        print(markdown_table(["", "file", *COLUMNS.values()], rows), flush=True)
        if options.paper and {PROGRAM, PRESET} <= shuffled.keys():
            said = [f"{heading} {difference(column, shuffled)}" for column, heading in COLUMNS.items()]
            print(f"\nThe preset paper less the program, shuffled: {', '.join(said)}", flush=True)
    return 0


def difference(name: str, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A figure of the preset less that of the program; both deviations over seeds as that of a difference of runs."""
    ours, theirs = (
        Spread(tuple(np.mean(run["figures"][name]) for run in runs[system])) for system in (PRESET, PROGRAM)
    )
    apart, deviation = ours.mean - theirs.mean, np.hypot(ours.deviation, theirs.deviation)
    if min(len(ours.values), len(theirs.values)) < 2:
        return f"{apart:+.3f}, one seed has no spread"
    return f"{apart:+.3f}, {'within' if abs(apart) <= deviation else 'outside'} the spread of {deviation:.3f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    labelled = [name for name, description in corpora.KNOWN.items() if description.labelled]
    parser.add_argument("--corpora", nargs="+", choices=labelled, default=["20news"], metavar="NAME")
    parser.add_argument("--systems", nargs="+", metavar="NAME", help=f"default: {' '.join(SYSTEMS)}")
    parser.add_argument("--paper", action="store_true", help="the paper's settings, beside its figures")
    parser.add_argument("--seeds", type=int, default=3, help="training runs of each system on each file (default: 3)")
    parser.add_argument("--epochs", type=int, help="default: 10, with --paper 20")
    parser.add_argument("--threads", type=int, default=2, help="default: 2")
    parser.add_argument("--ledger", type=Path, help="the JSON file of kept figures; in .cache unless given")
    return parser


if __name__ == "__main__":
    sys.exit(main())
