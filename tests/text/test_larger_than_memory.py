"""A corpus of ten times the memory that a training may use, as text and as CSV, and document vectors that do not fit.

The limit is the promise itself: 250 MB and 1.15 times the bytes of the tables that are in memory, in a first run, which
compiles. It is set twice where the system lets us: ``RLIMIT_DATA`` refuses memory that is not a file's, and a control
group of ours, which counts the cached pages of files as well, makes the system take pages back or kill. The peak of the
resident size, which counts mapped pages of files too, is read in the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
WIDTH, N_WORDS, DIM = 24, 20_000, 48
# OpenBLAS reserves this many bytes of addresses with its first product and touches about one MB of them.
RESERVED = 32 << 20

CHILD = """
import json, re, resource, sys
text, output, limit, storage = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_DATA, (int(limit), int(limit)))
import jose_embed
model = jose_embed.train(text, tokenizer="whitespace", epochs=1, dim=48, workers=2, doc_vectors=storage,
                         temporary_directory=output.rpartition("/")[0])
model.save(output)
peak = 1024 * int(re.search(r"VmHWM:\\s*([0-9]+)", open("/proc/self/status").read())[1])
training = model.manifest["training"]
print(json.dumps({"peak": peak, "phases": training["phases"], "n_tokens": model.manifest["counts"]["n_tokens"]}))
"""


def write_zipf_text(path: Path, n_bytes: int, words_per_document: int) -> int:
    """Text of ``N_WORDS`` words of 23 letters, the r-th of a share of 1/r; returns the number of documents.

    A name that ends in .csv gets a table with one column, quoted; every fifth text has a line break in it.
    """
    random = np.random.Generator(np.random.PCG64(1))
    letters = random.integers(ord("a"), ord("z") + 1, (N_WORDS, WIDTH), np.uint8)
    letters[:, -1] = ord(" ")
    words = letters.view(f"V{WIDTH}")[:, 0]
    shares = np.cumsum(1 / np.arange(1, N_WORDS + 1))
    chosen = np.searchsorted(shares / shares[-1], (np.arange(1 << 20) + 0.5) / (1 << 20)).astype(np.int32)
    n_documents = 0
    at_once = max(1, (1 << 19) // words_per_document)
    is_table = path.suffix == ".csv"
    with path.open("wb") as file:
        if is_table:
            file.write(b"text\n")
        while file.tell() < n_bytes:
            block = words[chosen[random.integers(0, 1 << 20, at_once * words_per_document, np.int32)]]
            block.view(np.uint8).reshape(-1, WIDTH)[words_per_document - 1 :: words_per_document, -1] = ord("\n")
            if is_table:
                rows = block.view(np.uint8).reshape(at_once, -1)
                rows[::5, WIDTH - 1] = ord("\n")
                quotes = np.full((at_once, 1), ord('"'), np.uint8)
                block = np.hstack([quotes, rows[:, :-1], quotes, rows[:, -1:]])
            file.write(block.data)
            n_documents += at_once
    return n_documents


@contextlib.contextmanager
def control_group(limit: int) -> Iterator[Path | None]:
    """A control group that may use so much memory, with its cached pages of files; None where we may not make one."""
    old = Path("/sys/fs/cgroup/memory")
    base, setting = (old, "memory.limit_in_bytes") if old.is_dir() else (Path("/sys/fs/cgroup"), "memory.max")
    group = base / f"jose-embed-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        yield None
        return
    try:
        try:
            (group / setting).write_text(str(limit))
        except OSError:
            yield None
        else:
            yield group
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()


def peak_of(group: Path) -> int | None:
    """The most bytes that a group has used."""
    for name in ("memory.max_usage_in_bytes", "memory.peak"):
        with contextlib.suppress(OSError, ValueError):
            return int((group / name).read_text())
    return None


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell the peak")
@pytest.mark.parametrize(
    ("storage", "words_per_document", "suffix"),
    [("memory", 1000, ".txt"), ("memory", 1000, ".csv"), ("mapped", 60, ".txt")],
)
def test_ten_times_the_memory(tmp_path: Path, storage: str, words_per_document: int, suffix: str) -> None:
    """With vectors of documents in memory, and in a mapped file of twice the limit."""
    in_memory = 4 * DIM * 2 * N_WORDS
    # Ten times a limit that grows with the documents of a text of ten times the limit.
    per_document = 4 * DIM if storage == "memory" else 0
    limit = 250e6 + 1.15 * in_memory
    limit /= 1 - 10 * 1.15 * per_document / (WIDTH * words_per_document)
    # Order, offsets and counts of the documents: they are not vectors, and there are as many whatever the dimension.
    text = tmp_path / f"text{suffix}"
    n_documents = write_zipf_text(text, int(10 * limit), words_per_document)
    bound = 250e6 + 1.15 * (in_memory + per_document * n_documents)
    if storage != "memory":
        bound += 48 * n_documents
    text_bytes = text.stat().st_size
    assert text_bytes >= 10 * limit
    with control_group(int(bound)) as group:
        command = [sys.executable, "-c", CHILD, text, tmp_path / "m.jose", str(int(bound) + RESERVED), storage]
        if group is not None:
            command = ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', group / "cgroup.procs", *command]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "JOSE_CACHE_DIR": str(tmp_path / "cache")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"status {done.returncode}: {done.stderr[-2000:]}"
        facts = json.loads(done.stdout)
        limited = (
            "no control group" if group is None else f"in a control group, peak {(peak_of(group) or 0) / 1e6:.0f} MB"
        )
    vectors, phases = 4 * DIM * n_documents / 1e6, {name: round(value) for name, value in facts["phases"].items()}
    n_words = facts["n_tokens"] / 1e6
    print(f"\n{text.name}, {storage}: {text_bytes / 1e6:,.0f} MB, {n_words:.0f} M words, {n_documents:,} documents")
    print(f"vectors of documents {vectors:.0f} MB, of words {in_memory / 1e6:.0f} MB; seconds: {phases}")
    print(f"resident peak {facts['peak'] / 1e6:.0f} MB of {bound / 1e6:.0f} allowed ({limited})")
    assert facts["n_tokens"] == n_documents * words_per_document
    assert facts["peak"] < bound
