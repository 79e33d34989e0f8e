"""Which program's vectors are worth more? Prints the tables of tests/benchmarks/RESULTS.md about quality.

Ours beside gensim, tf-idf with SVD and, where ``JOSE_REFERENCE`` or ``JOSE_REFERENCE_OFAST`` names an executable, the
paper's own program: same dimension, same epochs, documents in shuffled order, several training seeds, five k-means
seeds for each of them; and, where ``JOSE_WORDLLAMA`` names a Python that has it, a pretrained static model. The rules
of scoring are those of :mod:`jose_embed.analysis.measures`.

    python tests/benchmarks/quality.py                                   every table, 3 seeds
    python tests/benchmarks/quality.py --corpora bbc r8 --systems ours doc2vec --seeds 5
    python tests/benchmarks/quality.py --systems ours ours:words         a recipe beside a preset
    python tests/benchmarks/quality.py --systems ours ours:phrases=True --brief    kNN, NMI and words only

Peers' figures are kept in tests/benchmarks/.cache and reprinted from there; ``--again`` measures anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import corpora
import numpy as np
import peers
import stability
from corpora import HELD_OUT, KNOWN, Corpus
from ledger import Ledger, commit, header, machine, markdown_table, today

from jose_embed.analysis import measures as evaluation
from jose_embed.analysis.measures import Spread

RULES = 2  # raised when the scoring changes, so that older kept figures are measured anew
CLUSTER_SEEDS = range(5)
SYSTEMS = ("reference", "reference-ofast", "doc2vec", "word2vec", "tfidf", "wordllama", "ours")
# The two builds of the reference make the same vectors; quality is measured with the one that is quicker to wait for.
QUALITY_SYSTEMS = ("reference-ofast", "doc2vec", "word2vec", "tfidf", "wordllama", "ours")

SEARCH_COLUMNS = {"average_precision": "MAP", "ndcg": "nDCG@10"}
DOCUMENT_COLUMNS = {
    "knn": "kNN(3)",
    "logistic": "logistic regression",
    "nmi": "k-means NMI",
    "best_nmi": "NMI, best of 10 starts",
    "spherical_nmi": "spherical k-means NMI",
    "ari": "ARI",
    "purity": "purity",
    "same_documents": "same neighbors",
}
PAIR_TITLES = {"ws353": "WS-353", "men": "MEN", "simlex999": "SimLex-999", "zh-wordsim240": "zh WordSim-240"}

Figures = dict[str, list[float]]


def measure(system: str, corpus: Corpus, settings: peers.Settings, task: str) -> dict[str, Any]:
    """Train one system once and score everything the corpus has an answer for.

    Args:
        system: Which program.
        corpus: What to train on.
        settings: Shared settings, the seed among them.
        task: ``"together"`` trains on all documents and scores their vectors; ``"inference"`` trains on the training
            part and infers the test part; ``"sorted"`` is ``"together"`` on a file sorted by class; ``"brief"`` is
            ``"together"`` with the neighbors and k-means of documents and the words alone.

    Returns:
        ``figures`` (name -> values), ``neighbors`` (see :mod:`stability`),
        ``seconds`` and ``cpu_seconds`` of the training, and where and when.
    """
    part = {"inference": corpus.training_part, "sorted": corpus.sorted_by_class}.get(task, lambda: corpus)()
    if system in peers.REFERENCE_VARIABLES:
        part = part.reordered(settings.seed)
    trained = peers.train(system, part, settings, documents=part.labels is not None)
    figures: Figures = {}
    neighbors: dict[str, list[list[int]]] = {}
    if task == "inference":
        figures |= _inference_figures(trained, part, corpus)
    else:
        if part.labels is not None and trained.doc_vectors is not None:
            vectors = part.in_file_order(trained.doc_vectors)
            figures |= _document_figures(vectors, part, brief=task == "brief")
            neighbors["documents"] = stability.sampled_neighbors(vectors)
        figures |= _word_figures(trained, part)
        neighbors["words"] = stability.word_neighbors(trained.words, trained.word_vectors)
        if part.description.sentences and task != "brief":
            figures |= _sentence_figures(trained)
        if part.description.searched:
            figures |= _search_figures(trained, part)
    return {
        "figures": figures,
        "neighbors": neighbors,
        "seconds": round(trained.clock.seconds, 1),
        "cpu_seconds": round(trained.clock.cpu_seconds, 1),
        "date": today(),
        "commit": commit(),
        "machine": machine(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    options = _parser().parse_args(arguments)
    if absent := [name for name in options.corpora if not (corpora.DATA / f"{name}.txt.gz").is_file()]:
        print(f"not at {corpora.DATA}: {', '.join(absent)}; JOSE_SHARED_DATA may name their place", file=sys.stderr)
        return 2
    systems = peers.present(options.systems)
    ledger = Ledger(options.ledger or corpora.cache_folder() / "quality.json")
    facts = header()
    print(f"\nmeasured at {facts['commit']}, {facts['date']}, {facts['machine']}, {options.threads} threads")
    for name in options.corpora:
        corpus = corpora.load(name)
        epochs = options.epochs or corpus.description.epochs
        settings = peers.Settings(options.dim, options.window, options.min_count, epochs, options.threads)
        tasks = ["together"] + (["inference"] if corpus.description.n_train and not options.no_inference else [])
        if options.brief:
            tasks = ["brief"]
        for task in tasks:
            records = {
                system: [
                    recorded(
                        ledger, system, corpus, dataclasses.replace(settings, seed=seed), task, again=options.again
                    )
                    for seed in range(1, options.seeds + 1)
                ]
                for system in systems
            }
            _print_tables(corpus, task, settings, records)
    return 0


def recorded(
    ledger: Ledger, system: str, corpus: Corpus, settings: peers.Settings, task: str, *, again: bool = False
) -> dict[str, Any]:
    """What :func:`measure` returned the last time under this key; measured now where it never was, or ``again``."""
    ours = system.startswith("ours")
    key = {
        "rules": RULES,
        "system": system,
        "version": commit() if ours else peers.version(system),
        "corpus": corpus.name,
        "task": task,
        **dataclasses.asdict(settings),
    }
    record = None if again or str(key["version"]).endswith("-dirty") else ledger.get(key)
    if record is None:
        print(
            f"  {peers.title(system)} on {corpus.name}, {task}, seed {settings.seed} ...", file=sys.stderr, flush=True
        )
        record = measure(system, corpus, settings, task)
        if not str(key["version"]).endswith("-dirty"):
            ledger.put(key, record)
    return record


def _document_figures(vectors: np.ndarray, corpus: Corpus, *, brief: bool = False) -> Figures:
    labels, n_train = corpus.labels, corpus.description.n_train
    assert labels is not None
    neighbors = evaluation.classify(vectors, labels, n_train=n_train)
    if brief:
        return {
            "knn": [neighbors.accuracy.mean],
            "nmi": list(evaluation.cluster(vectors, labels, seeds=CLUSTER_SEEDS).nmi.values),
        }
    regression = evaluation.classify(vectors, labels, n_train=n_train, method="logistic")
    clusters = evaluation.cluster(vectors, labels, seeds=CLUSTER_SEEDS)
    best = evaluation.cluster(vectors, labels, seeds=CLUSTER_SEEDS[:1], n_init=10)
    spherical = evaluation.cluster(vectors, labels, seeds=CLUSTER_SEEDS, method="spherical")
    return {
        "knn": [neighbors.accuracy.mean],
        "knn_macro_f1": [neighbors.macro_f1.mean],
        "logistic": [regression.accuracy.mean],
        "nmi": list(clusters.nmi.values),
        "best_nmi": list(best.nmi.values),
        "ari": list(clusters.ari.values),
        "purity": list(clusters.purity.values),
        "spherical_nmi": list(spherical.nmi.values),
        "without_vector": [float((~vectors.any(axis=1)).sum())],
    }


def _inference_figures(trained: peers.Trained, part: Corpus, whole: Corpus) -> Figures:
    assert whole.labels is not None
    assert trained.doc_vectors is not None
    n_train = len(part.texts)
    inferred = trained.infer(whole.texts[n_train:])
    figures = {}
    # The training part is represented as training left it, and then by inference as well.
    represented = {"knn_both_inferred": trained.infer(whole.texts[:n_train])}
    if trained.infers_like_training:
        represented["knn"] = part.in_file_order(trained.doc_vectors)
    for name, known in represented.items():
        vectors = np.concatenate([known, inferred])
        figures[name] = [evaluation.classify(vectors, whole.labels, n_train=n_train).accuracy.mean]
    return figures


def _word_figures(trained: peers.Trained, corpus: Corpus) -> Figures:
    figures = {}
    for name, pairs in corpus.word_pairs().items():
        score = evaluation.word_similarity(trained.words, trained.word_vectors, pairs)
        figures[name] = [score.spearman]
        figures[f"{name}_coverage"] = [score.coverage]
    return figures


def _sentence_figures(trained: peers.Trained) -> Figures:
    pairs = corpora.sentence_pairs()
    first, second = (trained.infer([pair[side] for pair in pairs]) for side in (0, 1))
    score = evaluation.sts(first, second, [pair.score for pair in pairs])
    return {"sts": [score.spearman], "sts_coverage": [score.coverage]}


def _search_figures(trained: peers.Trained, corpus: Corpus) -> Figures:
    queries = corpus.search_queries()
    relevant = [[int(id) - 1 for id in query.relevant] for query in queries]
    documents = trained.doc_vectors
    if trained.scores is not None:
        asked = (trained.scores(query.text) for query in queries)
        score = evaluation.ranking((one if one is None else corpus.in_file_order(one) for one in asked), relevant)
    else:
        if documents is None or not trained.infers_like_training:  # then documents are made as questions are
            documents = trained.infer(corpus.lines())
        score = evaluation.search(
            trained.infer([query.text for query in queries]), corpus.in_file_order(documents), relevant
        )
    return {"average_precision": [score.average_precision], "ndcg": [score.ndcg], "search_coverage": [score.coverage]}


def _print_tables(
    corpus: Corpus, task: str, settings: peers.Settings, records: Mapping[str, Sequence[Mapping[str, Any]]]
) -> None:
    description = corpus.description
    setting = f"d = {settings.dim}, peers' window {settings.window}, {settings.epochs} epochs"
    if task == "inference":
        print(f"\n### {description.title}: trained on the training part, test part inferred ({setting})\n")
        columns = {"knn": "kNN(3)", "knn_both_inferred": "kNN(3), training part inferred too"}
        print(_table(columns, records))
        return
    if description.labelled:
        split = f"first {description.n_train:,} rows train" if description.n_train else "10-fold"
        print(f"\n### {description.title} ({len(corpus.texts):,} documents, {split}; {setting}, shuffled)\n")
        columns = {name: DOCUMENT_COLUMNS[name] for name in ("knn", "nmi")} if task == "brief" else DOCUMENT_COLUMNS
        print(_table(columns, records))
    if description.pairs:
        print(f"\n### {description.title}: word similarity, Spearman ({setting})\n")
        columns = {name: PAIR_TITLES[name] for name in description.pairs} | {"same_words": "same neighbors"}
        print(_table(columns, records))
        coverage = {f"{name}_coverage" for name in description.pairs}
        shares = {name: spread(name, next(iter(records.values()))) for name in coverage} if records else {}
        found = (
            f"{PAIR_TITLES[name.removesuffix('_coverage')]} {share.mean:.1%}" for name, share in shares.items() if share
        )
        print("\nPairs with both words in the vocabulary: " + ", ".join(sorted(found)))
    if description.searched:
        print(f"\n### {description.title}: search ({len(corpus.texts):,} documents; {setting})\n")
        print(_table(SEARCH_COLUMNS, records))
    if description.sentences and task != "brief":
        trained_on = f"trained on {description.title} ({setting})"
        print(f"\n### STS benchmark, test part: Spearman of inferred vectors, {trained_on}\n")
        print(_table({"sts": "STS-B"}, records))


def _table(columns: Mapping[str, str], records: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    rows = []
    for system, measured in records.items():
        cells = [spread(name, measured) or "" for name in columns]
        seconds = np.mean([record["seconds"] for record in measured])
        cpu_seconds = np.mean([record["cpu_seconds"] for record in measured])
        newest = max(measured, key=lambda record: record["date"])
        moment = f"{newest['date']} at {newest['commit']}" if "commit" in newest else newest["date"]
        rows.append([peers.title(system), *cells, len(measured), f"{seconds:.0f}", f"{cpu_seconds:.0f}", moment])
    return markdown_table(["", *columns.values(), "seeds", "seconds", "CPU seconds", "measured"], rows)


def spread(name: str, measured: Iterable[Mapping[str, Any]]) -> Spread | None:
    """All values of one figure over several records; None where they have none.

    ``same_words`` and ``same_documents`` are the overlaps of the ten nearest neighbours of each pair of them.
    """
    if name.startswith("same_"):
        kept = [record.get("neighbors", {}).get(name.removeprefix("same_"), []) for record in measured]
        values = tuple(stability.overlaps(kept))
    else:
        values = tuple(value for record in measured for value in record["figures"].get(name, ()))
    return Spread(values) if values else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Quality of our vectors beside those of other programs.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--corpora",
        nargs="+",
        choices=[*KNOWN, *HELD_OUT],
        default=list(KNOWN),
        metavar="NAME",
        help="from " + ", ".join([*KNOWN, *HELD_OUT]),
    )
    parser.add_argument(
        "--systems",
        nargs="+",
        default=list(QUALITY_SYSTEMS),
        metavar="NAME",
        help="from " + ", ".join(SYSTEMS) + ", ours:PRESET",
    )
    parser.add_argument("--seeds", type=int, default=3, help="training runs of each system")
    parser.add_argument("--threads", type=int, default=2, help="threads of each training run")
    parser.add_argument("--epochs", type=int, help="epochs of every system; 10, on Wikipedia 5, unless given")
    parser.add_argument("--dim", type=int, default=100, help="dimension of every system")
    parser.add_argument("--window", type=int, default=5, help="window of every peer")
    parser.add_argument("--min-count", type=int, default=5, help="smallest count of a word, for every peer")
    parser.add_argument("--no-inference", action="store_true", help="leave out the tables about unseen documents")
    parser.add_argument("--brief", action="store_true", help="only neighbors, k-means and words")
    parser.add_argument("--again", action="store_true", help="measure anew what is kept from an earlier run")
    parser.add_argument("--ledger", type=Path, help="the JSON file of kept figures; in .cache unless given")
    return parser


if __name__ == "__main__":
    sys.exit(main())
