"""What a real training on two nodes takes, and whether that was forecast: a Ray cluster on this machine, the real code.

`exchanges`: for each size of the vocabulary, in turn, a forecast as `jose-train --dry-run --engine ray` makes it, and a
training in which the time of an exchange is that of the driver from the start of an interval to the end of the
exchange, less the longest training of a machine. Prints the medians over the rounds.

`newsgroups`: 20 Newsgroups end to end: compressed JSON lines with ids, texts and fields that are kept, checkpoints, the
model, and batch embedding; the forecast, the time and the quality, and the memory of each process.

    make bench-cluster
    python tests/benchmarks/cluster.py exchanges --words 4000 40000 200000 --rounds 5
    python tests/benchmarks/cluster.py newsgroups --epochs 10 --deltas int8
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import corpora
import numpy as np
import psutil
from ledger import header, markdown_table
from scale import scored

import jose_embed
from jose_embed.config import TrainConfig
from jose_embed.distributed.cluster import job_on_ray
from jose_embed.distributed.embedding import embed_on_ray
from jose_embed.distributed.exchange import Point
from jose_embed.distributed.forecast import forecast
from jose_embed.distributed.training import Run, read_shares, train_on
from jose_embed.progress import SilentReporter
from jose_embed.text.records import TextOptions
from jose_embed.training.checkpoints import Checkpoints
from jose_embed.training.engine import EngineOptions
from jose_embed.training.schedule import RunState

sys.path.append(str(Path(__file__).resolve().parent.parent / "distributed"))

from local_cluster import two_nodes

MIB = 1 << 20


def options_of(arguments: argparse.Namespace) -> EngineOptions:
    """Two machines."""
    return EngineOptions(engine="ray", nodes=2, exchanges=arguments.exchanges, deltas=arguments.deltas)


# ---- exchanges -----------------------------------------------------------------------------------------------------


def spent(state: RunState) -> float:
    """The seconds in which a machine has trained."""
    return state.seconds + sum(report["seconds"] for report in state.epochs)


class TimedRun(Run):
    """Notes the time of each exchange, in ``times`` by the number of words."""

    times: dict[int, list[float]]

    def exchange(self, point: Point) -> None:
        """Train and exchange."""
        before = [spent(state) for state in self._states]
        started = time.perf_counter()
        super().exchange(point)
        seconds = time.perf_counter() - started
        trained = max(spent(now) - then for now, then in zip(self._states, before, strict=True))
        self.times[point.limit].append(seconds - trained)


def write_text(folder: Path, n_words: int, n_tokens: int) -> None:
    """Four files of a random text with so many different words; the word of rank r occurs about 1 / r as often."""
    random = np.random.default_rng(0)
    rest = (n_words ** random.random(max(0, n_tokens - n_words))).astype(np.int64) - 1
    tokens = random.permutation(np.concatenate((np.arange(n_words), rest)))
    lines = [" ".join(f"w{word}" for word in some) for some in np.array_split(tokens, max(4, len(tokens) // 200))]
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.txt").write_text("\n".join(lines[number::4]) + "\n", encoding="utf-8")


def exchanges(arguments: argparse.Namespace, place: Path) -> None:
    """Forecasts against trainings."""
    config = TrainConfig(dim=100, min_count=1, workers=1, epochs=3, tokenizer="whitespace", backend="cpu")
    forecasts, measured = defaultdict[Any, list[float]](list), defaultdict[Any, list[float]](list)
    for n_words in arguments.words:
        write_text(place / str(n_words), n_words, arguments.tokens)
    for _ in range(arguments.rounds):
        for n_words in arguments.words:
            settings = (str(place / str(n_words)), config, options_of(arguments), TextOptions(), SilentReporter())
            with job_on_ray(*settings) as job:
                found = forecast(job)
            with job_on_ray(*settings) as job:
                run = TimedRun(job, read_shares(job))
                run.times = defaultdict(list)
                run.prepare()
                started = time.perf_counter()
                run.train()
                seconds = time.perf_counter() - started
            pairs = {
                f"exchange of {limit:,}": (found.exchange.seconds(limit), statistics.median(times))
                for limit, times in run.times.items()
            } | {"training": (found.seconds[2], seconds)}
            for what, pair in pairs.items():
                for kept, figure in zip((forecasts, measured), pair, strict=True):
                    kept[n_words, what].append(figure)
                line = {"words": n_words, "what": what, "forecast": pair[0], "measured": pair[1]}
                print(json.dumps(line), file=sys.stderr, flush=True)
    rows = []
    for n_words, what in measured:
        one, other = (statistics.median(kept[n_words, what]) for kept in (forecasts, measured))
        rows.append([f"{n_words:,}", what, f"{one:.3f}", f"{other:.3f}", f"{one / other - 1:+.0%}"])
    print(markdown_table(["vocabulary", "time of", "forecast, s", "measured, s", "error"], rows))


# ---- 20 Newsgroups -------------------------------------------------------------------------------------------------


class Memory(threading.Thread):
    """Watches processes; ``peaks``: of each name, the most resident bytes, and the most that are not shared."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        super().__init__(daemon=True)
        self.peaks = dict.fromkeys(pids, (0, 0))
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._ended = threading.Event()

    def run(self) -> None:
        """Look ten times a second."""
        while not self._ended.wait(0.1):
            for name, process in self._processes.items():
                try:
                    now = process.memory_info()
                except psutil.NoSuchProcess:
                    continue
                own = now.rss - now.shared
                self.peaks[name] = max(self.peaks[name][0], now.rss), max(self.peaks[name][1], own)

    def end(self) -> None:
        """Stop."""
        self._ended.set()
        self.join()


def processes_of_ray() -> dict[str, int]:
    """The processes of Ray itself below this one."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        for name in ("raylet", "gcs_server"):
            if process.name() == name:
                found[f"{name} {sum(key.startswith(name) for key in found) + 1}"] = process.pid
    return found


def newsgroups(arguments: argparse.Namespace, place: Path) -> None:
    """One training of 20 Newsgroups with everything, and its vectors again by batch embedding."""
    ray, parquet = import_module("ray"), import_module("pyarrow.parquet")
    corpus = corpora.load("20news")
    assert corpus.labels is not None
    folder = place / "texts"
    folder.mkdir()
    records = [
        json.dumps({"id": f"d{row}", "text": corpus.texts[row], "group": str(corpus.labels[row])})
        for row in corpus.order.tolist()
    ]
    for number in range(8):
        part = records[number * len(records) // 8 : (number + 1) * len(records) // 8]
        (folder / f"{number}.jsonl.gz").write_bytes(gzip.compress("\n".join(part).encode(), 1))
    config = TrainConfig(epochs=arguments.epochs, seed=1, workers=1, tokenizer="whitespace", backend="cpu")
    text = TextOptions(text_field=("text",), id_field="id", keep_text=True, keep_fields=("group",))
    settings = (str(folder), config, options_of(arguments), text, SilentReporter())
    with job_on_ray(*settings) as job:
        found = forecast(job)
    pids = {"driver": os.getpid(), **processes_of_ray()}
    started = time.perf_counter()
    with job_on_ray(*settings) as job:
        for name, group in (("shard", job.shards), ("owner", job.owners)):
            for number, actor in enumerate(group._actors):  # type: ignore[union-attr]
                pids[f"{name} {number + 1}"] = ray.get(actor.pid.remote())
        memory = Memory(pids)
        memory.start()
        with Checkpoints(place / "m.jose.run", every=20.0) as checkpoints:
            model = train_on(job, checkpoints)
            model.save(place / "m.jose")
            checkpoints.remove()
    seconds = time.perf_counter() - started
    memory.end()
    phases = model.manifest["training"]["phases"]
    times = ", ".join(f"{name} {span:.1f} s" for name, span in phases.items())
    print(f"end to end {seconds:.1f} s: {times}")
    print(
        f"training: forecast {found.seconds[2]:.1f} s, efficiency {found.efficiency(2):.2f}; measured "
        f"{phases['training']:.1f} s; fastest by the forecast: {found.fastest}"
    )
    model = jose_embed.load(place / "m.jose", verify=True)
    print(", ".join(f"{name} {figure:.3f}" for name, figure in scored(model, corpus).items()))
    rows = [[name, f"{most / MIB:.0f}", f"{own / MIB:.0f}"] for name, (most, own) in memory.peaks.items()]
    print(markdown_table(["process", "peak resident MiB", "of that not shared"], rows))
    started = time.perf_counter()
    done = embed_on_ray(model, str(folder), str(place / "vectors"), reporter=SilentReporter(), options=text)
    print(f"batch embedding: {done.n_lines:,} documents in {time.perf_counter() - started:.1f} s")
    table = parquet.read_table(place / "vectors" / "0.jsonl.gz.parquet")
    wanted = model.infer([corpus.texts[row] for row in corpus.order[: len(table)].tolist()])
    same = np.array_equal(np.array(table["vector"].to_pylist(), np.float32), wanted)
    print(f"the vectors of the first file are those of infer, byte for byte: {same}")


# ---- the command line ----------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["exchanges", "newsgroups"])
    parser.add_argument("--words", nargs="+", type=int, default=[4_000, 40_000, 200_000], help="sizes of vocabularies")
    parser.add_argument("--tokens", type=int, default=300_000, help="running words of each text")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10, help="of 20 Newsgroups")
    parser.add_argument("--exchanges", type=int, default=8, help="of an epoch")
    parser.add_argument("--deltas", default="float32", choices=["float32", "int8"])
    arguments = parser.parse_args(argv)
    facts = header()
    print(f"\nmeasured at {facts['commit']}, {facts['date']}, {facts['machine']}, two nodes on this machine\n")
    with tempfile.TemporaryDirectory() as place, two_nodes(1 << 30, cores=4):
        {"exchanges": exchanges, "newsgroups": newsgroups}[arguments.part](arguments, Path(place))
    return 0


if __name__ == "__main__":
    sys.exit(main())
