"""Which objective is best? Prints the trials of every objective, and the winners of the trials on all corpora.

Every objective has the same budget: four settings, one seed, five epochs, on a quarter of 20 Newsgroups. The setting
with the best sum of neighbour accuracy, k-means NMI and MEN is the objective's own; the second table compares them
with three seeds.

    python tests/benchmarks/objectives.py                              the trials
    python tests/benchmarks/objectives.py --corpora bbc r8 wiki4       the table of these corpora
    python tests/benchmarks/objectives.py --corpora bbc --systems joint isotropy=1

Figures are kept in tests/benchmarks/.cache and reprinted from there; ``--again`` measures anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import corpora
import peers
import stability
from corpora import KNOWN, PARTS, Corpus
from ledger import Ledger, commit, header, markdown_table

from jose_embed.analysis import measures
from jose_embed.analysis.measures import Spread

_CE = "objective=cross-entropy"
#: The trials of each objective; the first is its default.
TRIALS = {
    "joint": ["", "margin=0.2", "margin=0.45", "learning_rate=0.06"],
    "smooth": [
        f"objective=smooth,{rest}"
        for rest in ("sharpness=8.0", "sharpness=20.0", "sharpness=4.0", "sharpness=20.0,margin=0.45")
    ],
    "cross-entropy": [
        f"{_CE},{rest}"
        for rest in ("temperature=4.0", "temperature=8.0", "temperature=4.0,margin=0.001", "temperature=8.0,margin=0.6")
    ],
    "isotropy": [f"isotropy={weight}" for weight in (0.1, 1.0, 10.0, 100.0)],
}

COLUMNS = {
    "knn": "kNN(3)",
    "nmi": "k-means NMI",
    "ws353": "WS-353",
    "men": "MEN",
    "simlex999": "SimLex-999",
    "zh-wordsim240": "WordSim-240",
    "same_words": "same word neighbours",
    "same_documents": "same document neighbours",
    "cpu_seconds": "CPU seconds",
}


def measure(recipe: str, corpus: Corpus, seed: int, threads: int) -> dict[str, Any]:
    """Train once and score documents and words; the neighbours are kept to be compared with those of other seeds."""
    settings = peers.Settings(epochs=corpus.description.epochs, threads=threads, seed=seed)
    trained = peers.train(f"ours:{recipe}" if recipe else "ours", corpus, settings)
    figures: dict[str, Any] = {"cpu_seconds": [round(trained.clock.cpu_seconds, 1)]}
    if corpus.labels is not None and trained.doc_vectors is not None:
        vectors = corpus.in_file_order(trained.doc_vectors)
        neighbors = measures.classify(vectors, corpus.labels, n_train=corpus.description.n_train)
        clusters = measures.cluster(vectors, corpus.labels, seeds=range(3))
        figures |= {"knn": [neighbors.accuracy.mean], "nmi": list(clusters.nmi.values)}
        figures["document_neighbors"] = stability.sampled_neighbors(vectors)
    for name, pairs in corpus.word_pairs().items():
        figures[name] = [measures.word_similarity(trained.words, trained.word_vectors, pairs).spearman]
    figures["word_neighbors"] = stability.word_neighbors(trained.words, trained.word_vectors)
    return {"figures": figures}


def recorded(ledger: Ledger, recipe: str, corpus: Corpus, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """What :func:`measure` returned at this commit; measured now where it never was, or ``--again``."""
    key = {"recipe": recipe, "corpus": corpus.name, "seed": seed, "threads": options.threads, "commit": commit()}
    key["epochs"] = corpus.description.epochs
    record = None if options.again else ledger.get(key)
    if record is None:
        print(f"  {recipe or 'default'} on {corpus.name}, seed {seed} ...", file=sys.stderr, flush=True)
        record = measure(recipe, corpus, seed, options.threads)
        if not str(key["commit"]).endswith("-dirty"):
            ledger.put(key, record)
    return record


def row(recipe: str, records: Sequence[Mapping[str, Any]]) -> tuple[list[object], float]:
    """The cells of a recipe, and its score."""
    values: dict[str, list[float]] = {}
    for record in records:
        for name, some in record["figures"].items():
            values.setdefault(name, []).extend(some)
    kept = {
        name: [record["figures"].get(f"{name}_neighbors", []) for record in records] for name in ("word", "document")
    }
    values |= {f"same_{name}s": stability.overlaps(runs) for name, runs in kept.items()}
    spreads = {name: Spread(tuple(values[name])) for name in COLUMNS if values.get(name)}
    score = sum(spreads[name].mean for name in ("knn", "nmi", "men") if name in spreads)
    return [recipe or "default", *(spreads.get(name, "") for name in COLUMNS)], score


def print_table(title: str, rows: Sequence[Sequence[object]]) -> None:
    """Print the rows without the columns that no row has."""
    present = [0, *(at for at in range(1, len(rows[0])) if any(row[at] != "" for row in rows))]
    names = ["", *COLUMNS.values()]
    print(f"\n### {title}\n")
    print(markdown_table([names[at] for at in present], [[row[at] for at in present] for row in rows]), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    options = _parser().parse_args(arguments)
    ledger = Ledger(options.ledger or corpora.cache_folder() / "objectives.json")
    facts = header()
    print(f"\nmeasured at {facts['commit']}, {facts['date']}, {facts['machine']}, {options.threads} threads")
    quarter = corpora.load("20news").every(4)
    tuning = dataclasses.replace(quarter.description, epochs=5, pairs=corpora.ENGLISH_PAIRS)
    quarter = dataclasses.replace(quarter, description=tuning)
    best = {}
    for objective in options.systems:
        if objective not in TRIALS:  # a setting itself, which needs no trial
            best[objective] = objective
            continue
        scored = [(*row(trial, [recorded(ledger, trial, quarter, 1, options)]), trial) for trial in TRIALS[objective]]
        best[objective] = max(scored, key=lambda each: each[1])[2]
        print_table(f"{objective}: trials on a quarter of 20 Newsgroups, one seed", [each[0] for each in scored])
    for name in options.corpora:
        corpus = corpora.load(name)
        seeds = range(1, options.seeds + 1)
        rows = [row(recipe, [recorded(ledger, recipe, corpus, seed, options) for seed in seeds])[0]
                for recipe in dict.fromkeys(["", *best.values()])]  # fmt: skip
        print_table(f"{corpus.description.title}, {options.seeds} seeds", rows)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Quality of our objectives.")
    parser.add_argument("--corpora", nargs="*", choices=[*KNOWN, *PARTS], default=[], metavar="NAME")
    parser.add_argument(
        "--systems", nargs="+", default=list(TRIALS), metavar="NAME", help="names of trials, or name=value,..."
    )
    parser.add_argument("--seeds", type=int, default=3, help="training runs of each system")
    parser.add_argument("--threads", type=int, default=2, help="threads of each training run")
    parser.add_argument("--again", action="store_true", help="measure anew what is kept from an earlier run")
    parser.add_argument("--ledger", type=Path, help="the JSON file of kept figures; in .cache unless given")
    return parser


if __name__ == "__main__":
    sys.exit(main())
