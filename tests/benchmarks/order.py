"""Does the order of the file leak into the vectors? Trains on 20 Newsgroups sorted by class and shuffled.

A program that visits documents in file order drifts through one class after the other, and neighbours in the file get
similar vectors. Such figures look splendid on a sorted file and fall on a shuffled one. Where order does not matter the
two rows agree within the spread over seeds.

    python tests/benchmarks/order.py
    python tests/benchmarks/order.py --systems ours doc2vec reference-ofast --corpora 20news bbc --seeds 5
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import corpora
import peers
from ledger import header, markdown_table

from jose_embed import evaluation
from jose_embed.evaluation import Spread


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    options = _parser().parse_args(arguments)
    if not corpora.DATA.is_dir():
        print(f"no development corpora at {corpora.DATA}; JOSE_SHARED_DATA may name their place", file=sys.stderr)
        return 2
    facts = header()
    print(f"measured at {facts['commit']}, {facts['date']}, {facts['machine']}, {options.threads} threads")
    systems = []
    for system in options.systems:
        reason = peers.missing(system)
        if reason:
            print(reason)
        else:
            systems.append(system)
    for name in options.corpora:
        shuffled = corpora.load(name)
        orders = {"sorted by class": shuffled.sorted_by_class(), "shuffled": shuffled}
        rows = []
        for system in systems:
            neighbors: dict[str, Spread] = {}
            for order, corpus in orders.items():
                print(f"  {peers.title(system)} on {name}, {order} ...", file=sys.stderr, flush=True)
                neighbors[order], clusters = _figures(system, corpus, options)
                rows.append([peers.title(system), order, neighbors[order], clusters])
        title = shuffled.description.title
        print(f"\n### {title}: the order of the file ({options.epochs} epochs, {options.seeds} seeds)\n")
        print(markdown_table(["", "file", "kNN(3)", "k-means NMI"], rows), flush=True)
    return 0


def _figures(system: str, corpus: corpora.Corpus, options: argparse.Namespace) -> tuple[Spread, Spread]:
    """Accuracy of neighbours and NMI over the training seeds; the rows are scored in file order both times."""
    assert corpus.labels is not None
    accuracies, clusters = [], []
    for seed in range(1, options.seeds + 1):
        settings = peers.Settings(epochs=options.epochs, threads=options.threads, seed=seed)
        trained = peers.train(system, corpus, settings)
        assert trained.doc_vectors is not None
        vectors = corpus.in_file_order(trained.doc_vectors)
        score = evaluation.classify(vectors, corpus.labels, n_train=corpus.description.n_train)
        accuracies.append(score.accuracy.mean)
        clusters += evaluation.cluster(vectors, corpus.labels, seeds=range(5)).nmi.values
    return Spread(tuple(accuracies)), Spread(tuple(clusters))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    labelled = [name for name, description in corpora.KNOWN.items() if description.labelled]
    parser.add_argument("--corpora", nargs="+", choices=labelled, default=["20news"], metavar="NAME")
    parser.add_argument("--systems", nargs="+", default=["ours", "doc2vec", "reference-ofast"], metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3, help="training runs of each system on each file (default: 3)")
    parser.add_argument("--epochs", type=int, default=10, help="default: 10")
    parser.add_argument("--threads", type=int, default=2, help="default: 2")
    return parser


if __name__ == "__main__":
    sys.exit(main())
