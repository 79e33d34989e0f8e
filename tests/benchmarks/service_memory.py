"""Memory and disk of the service by number of words and added documents.

::

    python tests/benchmarks/service_memory.py

For each size a model of random vectors of dimension 100 and a documents file of texts of 100 words are made, and
``jose-serve`` is started on them. The documents' vectors lie around those of 1,000 topics. Resident memory is read
after some searches, and after the codes of many documents are made, together with its peak since the start.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "service")]

import serving  # noqa: E402
from serving import make_model, start, unit_rows  # noqa: E402

from service.engine.records import Put  # noqa: E402
from service.engine.store import Store  # noqa: E402

DIM = 100
serving.START_SECONDS = 3_600.0  # a million documents on a busy machine
WORDS_OF_A_TEXT = 100
BY_CODES = 500_000  # documents: JOSE_EXACT_ROWS


def fill(path: Path, model: str, n: int, n_words: int) -> None:
    """A documents file of ``n`` documents with random vectors."""
    random = np.random.default_rng(1)
    store = Store(path)
    topics = unit_rows(1_000, DIM, 0)
    for first in range(0, n, 5_000):
        rows = topics[random.integers(0, len(topics), 5_000)] + unit_rows(5_000, DIM, first + 1)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        texts = random.integers(4, n_words, (5_000, WORDS_OF_A_TEXT)).tolist()
        some = zip(range(first, min(n, first + 5_000)), texts, rows, strict=False)
        puts = [Put(f"doc-{i:09}", " ".join(f"w{word}" for word in words), model, row) for i, words, row in some]
        store.write(puts)
    store.close()


def measure(folder: Path, n_words: int, n_documents: int) -> None:
    """Prints the line of one size."""
    model = make_model(folder / "own.jose", n_words=n_words, dim=DIM, n_docs=1_000)
    fill(folder / "d.sqlite3", model.id, n_documents, n_words)
    began = time.monotonic()
    served = start(folder / "own.jose", "--documents", str(folder / "d.sqlite3"))
    seconds = time.monotonic() - began
    for i in range(20):
        assert served.post("/search", {"text": f"w{i + 4} w{i + 50} king", "k": 10}).status_code == 200
    while n_documents >= BY_CODES and not any("codes" in line for line in served.lines):
        time.sleep(0.2)
    print("".join(line for line in served.lines if "codes" in line), end="")
    resident = psutil.Process(served.process.pid).memory_info().rss / 1e6
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
    served.stop()
    disk = sum(file.stat().st_size for file in (folder / "own.jose").iterdir()) / 1e6
    documents = (folder / "d.sqlite3").stat().st_size / 1e6
    sizes = f"{resident:.0f} | {peak:.0f} | {disk:.0f} | {documents:.0f}"
    print(f"| {n_words:,} | {n_documents:,} | {sizes} | {seconds:.1f} |", flush=True)


def main() -> None:
    """Measures all sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--words", type=int, nargs="+", default=[20_000, 100_000, 400_000])
    parser.add_argument("--documents", type=int, nargs="+", default=[0, 10_000, 100_000, 1_000_000])
    chosen = parser.parse_args()
    print("| words | documents | resident MB | peak MB | model MB | documents MB | start s |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for n_words in chosen.words:
        for n_documents in chosen.documents if n_words == chosen.words[0] else chosen.documents[:1]:
            with tempfile.TemporaryDirectory() as folder:
                measure(Path(folder), n_words, n_documents)


if __name__ == "__main__":
    main()
