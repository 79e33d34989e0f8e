"""What do an import of many documents and the reload of another model cost?

::

    python tests/benchmarks/service_import.py
    python tests/benchmarks/service_import.py --other ../before --runs 3

Texts of 100 words are imported into a running ``jose-serve``, which then loads another model and embeds them again.
Printed is the processor time of the service, which other work on the machine does not change much. With ``--other``,
the service of a second checkout takes turns with that of this one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "service")]

import serving  # noqa: E402
from serving import Served, make_model, start  # noqa: E402

DIM = 100
N_WORDS = 20_000
WORDS_OF_A_TEXT = 100
NDJSON = {"content-type": "application/x-ndjson"}


def lines(n: int) -> Iterator[bytes]:
    """Documents as lines of JSON; frequent words are more frequent, and one word in twenty is unknown."""
    random = np.random.default_rng(1)
    for first in range(0, n, 1_000):
        ranks = np.exp(random.uniform(0, np.log(N_WORDS), (1_000, WORDS_OF_A_TEXT))).astype(int).tolist()
        for i, words in enumerate(ranks[: n - first], first):
            text = " ".join(f"unknown{word}" if k % 20 == 0 else f"w{word + 3}" for k, word in enumerate(words))
            yield json.dumps({"id": f"doc-{i:09}", "text": text, "fields": {"n": i}}).encode() + b"\n"


def cpu_seconds(served: Served) -> float:
    """User and system time of the service's process."""
    times = psutil.Process(served.process.pid).cpu_times()
    return float(times.user + times.system)


def measure(name: str, folder: Path, n: int) -> None:
    """Prints the line of one import and one reload."""
    path = folder / "own.jose"
    make_model(path, n_words=N_WORDS, dim=DIM, n_docs=1_000)
    served = start(path, "--documents", str(folder / "documents.sqlite3"))
    body = b"".join(lines(n))
    started, before = time.monotonic(), cpu_seconds(served)
    pieces = (body[i : i + 65_536] for i in range(0, len(body), 65_536))
    answer = served.client.post("/documents:import", content=pieces, headers=NDJSON, timeout=3_600)
    last = json.loads(answer.text.splitlines()[-1])
    assert (last["status"], last["added"]) == ("done", n), last
    imported, seconds = cpu_seconds(served) - before, time.monotonic() - started
    make_model(path, n_words=N_WORDS, dim=DIM, n_docs=1_000, seed=9, overwrite=True)
    started, before = time.monotonic(), cpu_seconds(served)
    job = served.post("/admin/reload?wait=3600", timeout=3_600).json()
    assert job["status"] == "done", job
    reloaded, wait = cpu_seconds(served) - before, time.monotonic() - started
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1e3
    served.stop()
    print(f"| {name} | {n:,} | {imported:.1f} | {seconds:.1f} | {reloaded:.1f} | {wait:.1f} | {peak:.0f} |", flush=True)


def main() -> None:
    """Measures, in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--other", type=Path, help="a second checkout")
    chosen = parser.parse_args()
    print("| checkout | documents | import: CPU s | s | reload: CPU s | s | peak MB |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    roots = {"this": ROOT} | ({"other": chosen.other.resolve()} if chosen.other else {})
    for _ in range(chosen.runs):
        for name, root in roots.items():
            serving.ROOT = root
            with tempfile.TemporaryDirectory() as folder:
                measure(name, Path(folder), chosen.documents)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "error")
    main()
