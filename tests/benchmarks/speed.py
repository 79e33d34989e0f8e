"""How fast, beside whom, and at what cost? Prints the tables of tests/benchmarks/RESULTS.md about speed and memory.

Every program trains on the same file with the same settings, one after the other and around again, so that whatever
else the machine does meets all of them. Each run is a process of its own and starts cold: ours compiles its kernels.

    python tests/benchmarks/speed.py                                  20 Newsgroups and Wikipedia, 3 repetitions
    python tests/benchmarks/speed.py --corpora 20news --systems ours ours:pairwise --repetitions 5
    python tests/benchmarks/speed.py --sizes                          time and memory against 1, 2, 4, 8 times the text
    python tests/benchmarks/speed.py --cores                          the default recipe on 1, 2, 4, 8, 16 cores

``JOSE_REFERENCE`` and ``JOSE_REFERENCE_OFAST`` name the paper's own program as its makefile builds it and rebuilt with
-Ofast; without them their rows are left out. Words per second of training are the running words of the vocabulary times
epochs, by the seconds between the first and the last step of training.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import corpora
import numpy as np
import peers
from ledger import header, markdown_table
from processes import Run, python, run

HERE = Path(__file__).resolve().parent
COMPARED = "ours:pairwise"  # the objective and the negatives of the paper's program
SYSTEMS = ("reference", "reference-ofast", "doc2vec", COMPARED, "ours")

# The least that one (pair, negative) can take at d = 100 with 512-bit registers, counted by hand from its instructions.
FLOOR_ACTIVE_NS = 11.0
FLOOR_INACTIVE_NS = 2.5
MEMORY_BASE = 250e6
MEMORY_PER_TABLE_BYTE = 1.15


@dataclass(frozen=True)
class Measured:
    """One training process.

    Args:
        run: Its wall time, processor time and memory.
        training: Seconds of the training phase.
        reading: Seconds until the text was read, counted and encoded; NaN where the program does not tell.
        model: What our manifest says; empty for others.
    """

    run: Run
    training: float
    reading: float = float("nan")
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def rest(self) -> float:
        """Seconds that are neither reading nor training: start-up, compiling, saving."""
        return self.run.seconds - self.reading - self.training


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    options = _parser().parse_args(arguments)
    if not corpora.DATA.is_dir():
        print(f"no development corpora at {corpora.DATA}; JOSE_SHARED_DATA may name their place", file=sys.stderr)
        return 2
    facts = header()
    results: dict[str, Any] = {
        **facts,
        "threads": options.threads,
        "training": [],
        "reading": [],
        "sizes": [],
        "cores": [],
    }
    print(f"measured at {facts['commit']}, {facts['date']}, {facts['machine']}, {options.threads} threads")
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}")
    if options.cores:
        results["cores"] = _cores(options)
    elif not options.sizes:
        systems = peers.present(options.systems)
        for name in options.corpora:
            results["training"].append(_training(name, systems, options))
        if not options.no_reading:
            results["reading"] = _reading(options)
    else:
        results["sizes"] = _sizes(options)
    print(f"\nload of the machine after: {os.getloadavg()[0]:.1f}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


# ---- training, side by side ---------------------------------------------------------------------------------------


def _training(name: str, systems: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    corpus = corpora.load(name)
    epochs = options.epochs or corpus.description.epochs
    settings = peers.Settings(epochs=epochs, threads=options.threads)
    path = corpus.write()
    n_tokens, n_words = _vocabulary_size(corpus, settings.min_count)
    tables = 4 * settings.dim * (2 * n_words + len(corpus.texts))
    one_worker = dataclasses.replace(settings, threads=1)
    jobs = [(system, system, settings) for system in systems]
    if COMPARED in systems and options.threads != 1:
        jobs.append((f"{COMPARED}, 1 worker", COMPARED, one_worker))
    measured: dict[str, list[Measured]] = {title: [] for title, _, _ in jobs}
    for repetition in range(options.repetitions):
        for title, system, chosen in jobs:
            print(f"  {title} on {name}, repetition {repetition + 1} ...", file=sys.stderr, flush=True)
            measured[title].append(_train(system, path, chosen))

    description = corpus.description.title
    print(
        f"\n### Training on {description}: {len(corpus.texts):,} documents, {n_tokens:,} words of a vocabulary of "
        f"{n_words:,}, {epochs} epochs, d = {settings.dim}, window {settings.window}, "
        f"{options.repetitions} repetitions\n"
    )
    ours = measured.get(COMPARED, [])
    rows = []
    for title, runs in measured.items():
        rate = [n_tokens * epochs / item.training / 1e6 for item in runs]
        wall = [item.run.seconds for item in runs]
        rows.append([
            _title(title),
            _spread(rate, 2),
            _floor_share(runs, 1 if title.endswith("1 worker") else options.threads),
            _ratio([item.training for item in runs], [item.training for item in ours]),
            _spread(wall, 1),
            _ratio(wall, [item.run.seconds for item in ours]),
            _spread([item.run.cpu_seconds for item in runs], 1),
            _spread([item.run.peak_bytes / 1e6 for item in runs], 0),
        ])  # fmt: skip
    columns = [
        "",
        "training, M words/s",
        "of the floor",
        "our training is",
        "process, s",
        "our process is",
        "CPU s",
        "peak memory, MB",
    ]
    print(markdown_table(columns, rows))
    if ours:
        alone = measured.get(f"{COMPARED}, 1 worker", [])
        _print_ours(ours, alone, options.threads, tables)
    return {
        "corpus": name,
        "epochs": epochs,
        "n_tokens": n_tokens,
        "n_words": n_words,
        "n_documents": len(corpus.texts),
        "systems": {title: [_plain(item) for item in runs] for title, runs in measured.items()},
    }


def _print_ours(ours: Sequence[Measured], alone: Sequence[Measured], threads: int, tables: int) -> None:
    """Where our time and memory go, beside what was promised."""
    bound = MEMORY_BASE + MEMORY_PER_TABLE_BYTE * tables
    peak = max(item.run.peak_bytes for item in ours)
    rows: list[Sequence[object]] = [
        ["reading, counting, encoding, s", _spread([item.reading for item in ours], 2)],
        ["training, s", _spread([item.training for item in ours], 2)],
        ["start-up, compiling, saving, s", _spread([item.rest for item in ours], 2)],
        ["peak memory, MB", f"{peak / 1e6:.0f}, bound {bound / 1e6:.0f} (three tables: {tables / 1e6:.0f})"],
    ]
    costs = [cost for cost in (_cost(item, threads) for item in ours) if cost is not None]
    if costs:
        rows += [
            ["ns per (pair, negative) and worker", _spread([cost[0] for cost in costs], 1)],
            ["share of (pair, negative)s that are active", _spread([cost[2] for cost in costs], 3)],
            ["the counted floor is, ns", _spread([cost[1] for cost in costs], 1)],
            ["share of the floor reached", f"{np.mean([cost[1] / cost[0] for cost in costs]):.0%}"],
        ]
    if alone:
        gain = np.median([item.training for item in alone]) / np.median([item.training for item in ours])
        rows.append([f"{threads} workers train as fast as one, times", f"{gain:.2f}"])
    print("\n" + markdown_table(["ours", ""], rows), flush=True)


def _cost(measured: Measured, threads: int) -> tuple[float, float, float] | None:
    """Nanoseconds per (pair, negative) of one worker, the floor for the same mix, and the active share."""
    training = measured.model.get("training", {})
    epochs = training.get("epochs", [])
    pairs = sum(epoch["pairs"] for epoch in epochs)
    if not pairs:
        return None
    active = sum(epoch["active"] * epoch["pairs"] for epoch in epochs) / pairs
    floor = active * FLOOR_ACTIVE_NS + (1 - active) * FLOOR_INACTIVE_NS
    return 1e9 * measured.training * threads / pairs, floor, active


def _floor_share(runs: Sequence[Measured], threads: int) -> str:
    """The counted floor of the training by the time it took; empty for programs that do not tell their pairs."""
    costs = [cost for cost in (_cost(item, threads) for item in runs) if cost is not None]
    return f"{np.median([cost[1] / cost[0] for cost in costs]):.0%}" if costs else ""


def _train(system: str, path: Path, settings: peers.Settings) -> Measured:
    with tempfile.TemporaryDirectory(prefix="jose-speed-") as folder:
        if system in peers.REFERENCE_VARIABLES:
            return _train_reference(os.environ[peers.REFERENCE_VARIABLES[system]], path, settings, Path(folder))
        if system == "doc2vec":
            return _train_doc2vec(path, settings, Path(folder))
        return train_ours(path, settings, Path(folder), system.partition(":")[2])


def train_ours(path: Path, settings: peers.Settings, folder: Path, preset: str = "") -> Measured:
    """``jose-train`` from a cold start, in an empty folder, which also takes the caches of the compiler."""
    output = folder / "model.jose"
    command: list[object] = ["-m", "jose_embed", "train", path, "--output", output, "--quiet"]
    command += ["--tokenizer", "whitespace", "--workers", settings.threads, "--epochs", settings.epochs]
    command += ["--dim", settings.dim, "--window", settings.window, "--min-count", settings.min_count]
    command += ["--preset", preset] if preset else []
    done = python(*command, environment={"JOSE_CACHE_DIR": str(folder / "compiled")})
    model = json.loads((output / "manifest.json").read_text(encoding="utf-8"))
    phases = model["training"]["phases"]
    reading = sum(seconds for phase, seconds in phases.items() if phase in {"reading", "encoding"})
    return Measured(done, phases["training"], reading, model)


def _train_reference(executable: str, path: Path, settings: peers.Settings, folder: Path) -> Measured:
    os.symlink(path, folder / "text")  # the program copies paths into 100 bytes without a check
    command: list[object] = [executable, "-train", "text", "-word-output", "words", "-context-output", "contexts"]
    command += ["-doc-output", "documents", "-size", settings.dim, "-window", settings.window, "-negative", 2]
    command += ["-min-count", settings.min_count, "-iter", settings.epochs, "-threads", settings.threads, "-debug", 2]
    done = run(command, cwd=folder)
    marks = [
        (second, float(found[1]) / 100)
        for second, line in done.output
        if (found := re.search(r"Progress: ([0-9.]+)%", line)) is not None
    ]
    (first, begun), (last, ended) = marks[0], marks[-1]
    per_share = (last - first) / (ended - begun)
    return Measured(done, per_share, first - begun * per_share)


def _train_doc2vec(path: Path, settings: peers.Settings, folder: Path) -> Measured:
    command: list[object] = [HERE / "processes.py", "doc2vec", "--dim", settings.dim, "--window", settings.window]
    command += ["--min-count", settings.min_count, "--epochs", settings.epochs, "--threads", settings.threads]
    done = python(*command, path, folder / "model")
    phases = json.loads(done.text().splitlines()[-1])
    return Measured(done, phases["training"], phases["reading"])


def _vocabulary_size(corpus: corpora.Corpus, min_count: int) -> tuple[int, int]:
    """Running words that are in the vocabulary, and the vocabulary's words: the same numbers for every program."""
    counts: dict[str, int] = {}
    for text in corpus.texts:
        for word in text.split():
            counts[word] = counts.get(word, 0) + 1
    kept = [count for count in counts.values() if count >= min_count]
    return sum(kept), len(kept)


# ---- reading ------------------------------------------------------------------------------------------------------


def _reading(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows, results = [], []
    for name in options.corpora:
        path = corpora.load(name).write()
        for tokenizer in ("whitespace", "words"):
            print(f"  reading {name}, {tokenizer} ...", file=sys.stderr, flush=True)
            done = python(
                HERE / "processes.py", "encode", "--tokenizer", tokenizer, "--repetitions", options.repetitions, path
            )
            runs = json.loads(done.text().splitlines()[-1])["runs"]
            megabytes = [item["bytes"] / 1e6 for item in runs]
            per_core = [size / item["cpu_seconds"] for size, item in zip(megabytes, runs, strict=True)]
            wall = [size / item["seconds"] for size, item in zip(megabytes, runs, strict=True)]
            title = f"{corpora.KNOWN[name].title}, {tokenizer}"
            rows.append([title, f"{megabytes[0]:.0f}", _spread(per_core, 0), _spread(wall, 0)])
            results.append({"corpus": name, "tokenizer": tokenizer, "runs": runs})
    print("\n### Reading, counting and encoding, compiled\n")
    print(markdown_table(["text, tokenizer", "MB", "MB per second of one core", "MB/s on the wall"], rows), flush=True)
    return results


# ---- cost against size --------------------------------------------------------------------------------------------


def _sizes(options: argparse.Namespace) -> list[dict[str, Any]]:
    corpus = corpora.load("wiki")
    settings = peers.Settings(epochs=options.epochs or 1, threads=options.threads)
    rows, results = [], []
    for factor in (1, 2, 4, 8):
        n_documents = len(corpus.texts) * factor // 8
        part = dataclasses.replace(corpus, texts=corpus.texts[:n_documents], order=np.arange(n_documents))
        path = part.write()
        measured = []
        for repetition in range(options.repetitions):
            print(f"  {factor} times, repetition {repetition + 1} ...", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix="jose-sizes-") as folder:
                measured.append(train_ours(path, settings, Path(folder)))
        counts = measured[0].model["counts"]
        tables = 4 * counts["dim"] * (2 * counts["n_words"] + counts["n_docs"])
        bound = MEMORY_BASE + MEMORY_PER_TABLE_BYTE * tables
        rows.append([
            f"{factor}",
            f"{counts['n_docs']:,}",
            f"{counts['n_tokens'] / 1e6:.1f}",
            f"{counts['n_words']:,}",
            _spread([item.reading for item in measured], 2),
            _spread([item.training for item in measured], 2),
            _spread([item.rest for item in measured], 2),
            _spread([counts["n_tokens"] * settings.epochs / item.training / 1e6 for item in measured], 2),
            _spread([item.run.cpu_seconds for item in measured], 1),
            _spread([item.run.peak_bytes / 1e6 for item in measured], 0),
            f"{bound / 1e6:.0f}",
        ])  # fmt: skip
        results.append({"factor": factor, "counts": counts, "runs": [_plain(item) for item in measured]})
    print(f"\n### Cost against size: eighths of English Wikipedia, {settings.epochs} epoch(s)\n")
    columns = ["times", "documents", "M words", "vocabulary", "reading, s", "training, s", "rest, s", "M words/s"]
    print(markdown_table([*columns, "CPU s", "peak memory, MB", "bound, MB"], rows), flush=True)
    return results


# ---- cores --------------------------------------------------------------------------------------------------------


def _cores(options: argparse.Namespace) -> list[dict[str, Any]]:
    corpus = corpora.load("wiki")
    path = corpus.write()
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    numbers = [number for number in (1, 2, 4, 8, 16) if number <= n_cores]
    measured: dict[int, list[Measured]] = {number: [] for number in numbers}
    for repetition in range(options.repetitions):
        for number in numbers:
            print(f"  {number} cores, repetition {repetition + 1} ...", file=sys.stderr, flush=True)
            settings = peers.Settings(epochs=options.epochs or 1, threads=number)
            with tempfile.TemporaryDirectory(prefix="jose-cores-") as folder:
                measured[number].append(train_ours(path, settings, Path(folder)))
    rows, results = [], []
    for number, runs in measured.items():
        n_tokens = runs[0].model["counts"]["n_tokens"] * (options.epochs or 1)
        documents = [item.model["training"]["phases"]["documents"] for item in runs]
        rows.append([
            f"{number}",
            _spread([n_tokens / item.training / 1e6 for item in runs], 2),
            f"{np.median([item.training for item in measured[1]]) / np.median([item.training for item in runs]):.2f}",
            _floor_share(runs, number),
            _spread(documents, 2),
            _spread([item.run.seconds for item in runs], 1),
            _spread([item.run.peak_bytes / 1e6 for item in runs], 0),
        ])  # fmt: skip
        results.append({"cores": number, "runs": [_plain(item) for item in runs]})
    print(f"\n### Cores: English Wikipedia, {options.epochs or 1} epoch(s), the default recipe; {n_cores} cores here\n")
    columns = ["cores", "training, M words/s", "times one core", "of the floor", "documents, s", "process, s"]
    print(markdown_table([*columns, "peak memory, MB"], rows), flush=True)
    return results


# ---- figures ------------------------------------------------------------------------------------------------------


def _title(system: str) -> str:
    name, _, workers = system.partition(", ")
    return peers.title(name) + (f", {workers}" if workers else "")


def _spread(values: Sequence[float], digits: int) -> str:
    """The median, and the smallest and largest where there are several."""
    middle = float(np.median(values))
    if np.isnan(middle):
        return ""
    text = f"{middle:,.{digits}f}"
    return f"{text} ({min(values):,.{digits}f} to {max(values):,.{digits}f})" if len(values) > 1 else text


def _ratio(theirs: Sequence[float], ours: Sequence[float]) -> str:
    """How many times our median goes into theirs."""
    return f"{np.median(theirs) / np.median(ours):.1f} times as fast" if ours else ""


def _plain(measured: Measured) -> dict[str, Any]:
    return {
        "seconds": measured.run.seconds,
        "cpu_seconds": measured.run.cpu_seconds,
        "peak_bytes": measured.run.peak_bytes,
        "training": measured.training,
        "reading": measured.reading,
        "phases": measured.model.get("training", {}).get("phases"),
        "pairs": sum(epoch["pairs"] for epoch in measured.model.get("training", {}).get("epochs", [])),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = list(corpora.KNOWN)
    parser.add_argument("--corpora", nargs="+", choices=names, default=["20news", "wiki"], metavar="NAME")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), metavar="NAME")
    parser.add_argument("--repetitions", type=int, default=3, help="runs of each program (default: 3)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each program (default: 2)")
    parser.add_argument("--epochs", type=int, help="default: 10, on Wikipedia 5")
    parser.add_argument("--sizes", action="store_true", help="only the benchmark of time and memory against size")
    parser.add_argument("--cores", action="store_true", help="only the benchmark of speed against cores")
    parser.add_argument("--no-reading", action="store_true", help="leave out the reading speeds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
