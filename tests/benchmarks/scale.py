"""What do several machines cost in quality, and how many bytes do they exchange? Simulated, with the real code.

The machines of a training run one after the other in this process, one thread each, with the real shards, owners and
combiner; the documents are dealt to them in a random order. Prints a row for each training.

    python tests/benchmarks/scale.py                                      20 Newsgroups, N = 1 to 32, 3 seeds
    python tests/benchmarks/scale.py --corpora wiki --nodes 1 8 --deltas int8
    python tests/benchmarks/scale.py --combiners mean --nodes 8           plain averaging
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import corpora
import numpy as np
from ledger import header, markdown_table

from jose_embed.analysis import measures
from jose_embed.config import TrainConfig
from jose_embed.distributed.combiner import Moves
from jose_embed.distributed.exchange import Owner
from jose_embed.distributed.shard import Shard
from jose_embed.distributed.training import Job, train_on
from jose_embed.text.sources import find_sources
from jose_embed.training.engine import EngineOptions

sys.path.append(str(Path(__file__).resolve().parent.parent / "distributed"))

from local_group import LocalGroup, MeanOwner

FILES_OF_A_MACHINE = 4
FULL = 32  # float exchanges of an epoch that bytes are compared with


class CountingGroup(LocalGroup):
    """Members in this process; counts the bytes of moves that would travel between machines."""

    n_bytes = 0

    def handles(self, method: str, *arguments: Any, **options: Any) -> list[list[Any]]:
        found = super().handles(method, *arguments, **options)
        for number, results in enumerate(found):
            moves = [result for result in results if isinstance(result, Moves)]
            if method == "interval":  # to the owners on other machines
                self.n_bytes += sum(each.n_bytes for owner, each in enumerate(moves) if owner != number)
            else:  # to all other machines
                self.n_bytes += sum(each.n_bytes for each in moves) * (len(self) - 1)
        return found


def trained(
    corpus: corpora.Corpus, folder: Path, nodes: int, config: TrainConfig, options: EngineOptions, mean: bool
) -> tuple[Any, float]:
    """The model, and the share of bytes of full float exchanges 32 times an epoch."""
    lines, n_files = corpus.lines(), nodes * FILES_OF_A_MACHINE
    for number in range(n_files):
        some = lines[number * len(lines) // n_files : (number + 1) * len(lines) // n_files]
        (folder / f"{number:05}.txt").write_text("".join(f"{line}\n" for line in some), encoding="utf-8")
    shards = CountingGroup(lambda number: Shard(number, nodes), nodes)
    owners = CountingGroup(lambda _: MeanOwner(False) if mean else Owner(options.int8), nodes) if nodes > 1 else None
    model = train_on(Job(shards, owners, find_sources(str(folder)), config, options))
    full = 2 * 2 * 4 * model.dim * model.n_words * (nodes - 1) * FULL * len(model.manifest["training"]["epochs"])
    return model, (shards.n_bytes + (owners.n_bytes if owners else 0)) / full if full else 0.0


def scored(model: Any, corpus: corpora.Corpus) -> dict[str, float]:
    """Neighbors and clusters of documents, or similarity of words."""
    figures: dict[str, float] = {}
    if corpus.labels is not None:
        vectors = corpus.in_file_order(np.array(model.doc_vectors))
        n_train = corpus.description.n_train
        figures["kNN"] = measures.classify(vectors, corpus.labels, n_train=n_train).accuracy.mean
        figures["NMI"] = float(np.mean(measures.cluster(vectors, corpus.labels, seeds=range(5)).nmi.values))
    for name, pairs in corpus.word_pairs().items():
        figures[name] = measures.word_similarity(list(model.words), model.center_vectors, pairs).spearman
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", nargs="+", default=["20news"])
    parser.add_argument("--nodes", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--deltas", nargs="+", default=["float32"], choices=["float32", "int8"])
    parser.add_argument("--exchanges", nargs="+", type=int, default=[8])
    parser.add_argument("--combiners", nargs="+", default=["symmetric"], choices=["symmetric", "mean"])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--log", type=Path, help="append each training as a line of JSON")
    chosen = parser.parse_args(arguments)
    facts = header()
    print(f"\nmeasured at {facts['commit']}, {facts['date']}, {facts['machine']}, 1 thread a machine\n")
    rows: dict[tuple[Any, ...], list[dict[str, float]]] = defaultdict(list)
    for name in chosen.corpora:
        corpus = corpora.load(name)
        epochs = chosen.epochs or corpus.description.epochs
        for seed in chosen.seeds:
            for nodes in chosen.nodes:
                for key in dict.fromkeys(
                    (name, nodes, *(("", "", "") if nodes == 1 else (combiner, exchanges, deltas)))
                    for combiner in chosen.combiners for exchanges in chosen.exchanges for deltas in chosen.deltas
                ):  # fmt: skip
                    started = time.perf_counter()
                    config = TrainConfig(epochs=epochs, seed=seed, workers=1, tokenizer="whitespace", backend="cpu")
                    options = EngineOptions(
                        engine="ray", nodes=nodes, exchanges=key[3] or 8, deltas=key[4] or "float32"
                    )
                    with tempfile.TemporaryDirectory() as folder:
                        model, share = trained(corpus, Path(folder), nodes, config, options, key[2] == "mean")
                    found = {**scored(model, corpus), "bytes": share}
                    rows[key].append(found)
                    line = {"key": key, "seed": seed, **found, "seconds": round(time.perf_counter() - started, 1)}
                    print(json.dumps(line), file=sys.stderr, flush=True)
                    if chosen.log is not None:
                        with chosen.log.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(line) + "\n")
    names = list(dict.fromkeys(name for found in rows.values() for name in found[0]))
    table = [["corpus", "N", "combiner", "exchanges", "deltas", "seeds", *names]]
    for key, found in rows.items():
        cells = [[one[name] for one in found] if name in found[0] else [] for name in names]
        figures = [f"{np.mean(cell):.3f} ± {np.std(cell):.3f}" if cell else "" for cell in cells]
        table.append([*map(str, key), str(len(found)), *figures])
    print(markdown_table(table[0], table[1:]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
