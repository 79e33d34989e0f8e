"""Real parts for the service's tests: models on disk, and ``jose-serve`` as a process of its own on a free port."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from jose_embed.model.embeddings import Embeddings
from jose_embed.model.parts import CONTEXT_SHARE, DOCUMENT_MATRIX

ROOT = Path(__file__).resolve().parent.parent.parent
READ_KEY = "read-key-0123456789"
WRITE_KEY = "write-key-0123456789"
# Bounds that end a test that hangs; no test waits for them to pass.
START_SECONDS = 600.0
END_SECONDS = 300.0
# A machine may be so busy that a probe takes longer than a service allows.
PATIENT_PROBE = "from service.engine import status; status._PROBE_SECONDS = 3600"


def wait_for(condition: Callable[[], object]) -> None:
    """Returns when a condition holds."""
    until = time.monotonic() + END_SECONDS
    while not condition():
        assert time.monotonic() < until, "it does not become true"
        time.sleep(0.02)


def unit_rows(n: int, dim: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Random directions, float32 (n, dim)."""
    rows = np.random.default_rng(seed).normal(size=(n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_model(
    path: Path, *, n_words: int = 2_000, dim: int = 24, n_docs: int = 120, seed: int = 1, overwrite: bool = False
) -> Embeddings:
    """A saved model of random directions: words king, queen, man, woman, w4, w5 ...; every tenth document is
    untrained. Among documents its words are others: they give back their context rows, and axes are scaled."""
    words = ["king", "queen", "man", "woman", *(f"w{i}" for i in range(4, n_words))]
    model = Embeddings.from_arrays(
        words=words,
        counts=np.arange(n_words, 0, -1) + 4,
        center_vectors=unit_rows(n_words, dim, seed),
        context_vectors=unit_rows(n_words, dim, seed + 1),
        doc_ids=[str(i + 1) for i in range(n_docs)],
        doc_vectors=unit_rows(n_docs, dim, seed + 2),
        doc_token_counts=np.where(np.arange(n_docs) % 10 == 0, 0, 7),
        extra_arrays={CONTEXT_SHARE: np.array(0.3), DOCUMENT_MATRIX: np.diag(np.linspace(0.2, 1, dim))},
    )
    model.save(path, overwrite=overwrite)
    return model


@dataclass
class Served:
    """A running ``jose-serve``.

    Attributes:
        process: The process.
        url: Where it listens.
        client: A client of it, without a key.
        lines: What it has written so far.
    """

    process: subprocess.Popen[str]
    url: str
    client: httpx.Client
    lines: list[str] = field(default_factory=list)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        return self.client.post(path, json=body, **options)

    def put(self, id: str, text: str, **options: Any) -> httpx.Response:
        return self.client.put(f"/documents/{id}", json={"text": text}, **options)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and waits for the end; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(END_SECONDS)
        self.client.close()
        return status


def start(
    model: Path,
    *arguments: str,
    environment: dict[str, str] | None = None,
    ready: bool = True,
    prelude: str = "",
    **popen: Any,
) -> Served:
    """Starts ``jose-serve`` on a free port; returns when it listens (or, with ``ready``, answers ``/readyz``).

    ``prelude`` is run before the service, to replace a time that must not pass in a test by one that passes on no
    machine, such as ``import service.app; service.app._LINGER_SECONDS = 3600``.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JOSE_")}
    clean |= {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": "1"}
    clean |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # main() would set them too late
    clean |= environment or {}
    program = f"{PATIENT_PROBE}\n{prelude}\nimport sys\nfrom service.cli import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, str(model), "--port", "0", *arguments]
    process = subprocess.Popen(
        command, env=clean, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT, **popen
    )
    lines: list[str] = []
    found: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if match := re.search(r"jose-serve: (http://\S+)", line):
                found.put(match[1])
        process.stderr.close()
        found.put(None)

    threading.Thread(target=read, daemon=True).start()
    try:
        url = found.get(timeout=START_SECONDS)
    except queue.Empty:
        process.kill()
        raise
    if url is None:
        raise AssertionError(f"jose-serve ended with status {process.wait()}:\n{''.join(lines)}")
    served = Served(process, url, httpx.Client(base_url=url, timeout=END_SECONDS, trust_env=False), lines)
    deadline = time.monotonic() + START_SECONDS
    while ready:
        with contextlib.suppress(httpx.TransportError):
            if served.get("/readyz").status_code == 200:
                break
        if time.monotonic() > deadline:
            process.kill()
            raise AssertionError("".join(lines))
        time.sleep(0.02)
    return served


Starter = Callable[..., Served]


@contextlib.contextmanager
def starting() -> Iterator[Starter]:
    """:func:`start` for services that are killed at the end, whatever happens."""
    running: list[Served] = []

    def started(*arguments: Any, **options: Any) -> Served:
        running.append(start(*arguments, **options))
        return running[-1]

    try:
        yield started
    finally:
        for served in running:
            if served.process.poll() is None:
                served.process.kill()
            served.process.wait(END_SECONDS)
            served.client.close()


def run_cli(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs ``jose-serve`` to its end."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JOSE_")}
    clean |= {"PYTHONPATH": str(ROOT)} | (environment or {})
    command = [sys.executable, "-m", "service.cli", *arguments]
    return subprocess.run(
        command, env=clean, capture_output=True, text=True, timeout=END_SECONDS, cwd=ROOT, check=False
    )
