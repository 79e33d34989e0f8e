"""Whole processes under a stopwatch: wall time, processor time, and the largest resident size.

Also the child that trains gensim's Doc2Vec from a file as fast as gensim can, and the one that encodes a text:
``python processes.py doc2vec ...`` and ``python processes.py encode ...`` print their own phases as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ledger import ROOT


@dataclass(frozen=True)
class Run:
    """One process from start to end.

    Args:
        seconds: Wall time.
        cpu_seconds: On all processors together.
        peak_bytes: Largest resident size; shared and mapped pages count.
        output: Standard output, line by line, with the second at which each line was there.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: list[tuple[float, str]] = field(repr=False)

    def text(self) -> str:
        """Standard output."""
        return "\n".join(line for _, line in self.output)


class ProcessFailedError(RuntimeError):
    """A measured process ended with an error; the message holds the end of what it said."""


def run(command: Sequence[object], *, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> Run:
    """Run a command and measure it.

    Raises:
        ProcessFailedError: its exit status was not 0.
    """
    words = [str(word) for word in command]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            words, cwd=cwd, env=variables | dict(environment or {}), stdout=subprocess.PIPE, stderr=errors
        )
        assert process.stdout is not None
        lines: list[tuple[float, str]] = []
        reader = threading.Thread(target=_collect, args=(process.stdout, start, lines))
        reader.start()
        peak = _Peak(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        peak.stop()
        process.returncode = os.waitstatus_to_exitcode(status)
        reader.join()
        process.stdout.close()
        if process.returncode != 0:
            errors.seek(0)
            said = errors.read().decode(errors="replace")[-2000:]
            raise ProcessFailedError(f"{' '.join(words)} ended with status {process.returncode}:\n{said}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(seconds, usage.ru_utime + usage.ru_stime, peak.n_bytes or usage.ru_maxrss * unit, lines)


class _Peak:
    """The largest resident size of a process, looked up while it runs; it stays 0 where the system does not tell.

    What ``wait4`` says of a child includes the size of its parent, which it was for a moment.
    """

    def __init__(self, pid: int) -> None:
        self.n_bytes = 0
        self._status = Path(f"/proc/{pid}/status")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self.n_bytes = max(self.n_bytes, self._looked_up(self._status))

    @staticmethod
    def _looked_up(status: Path) -> int:
        try:
            found = re.search(r"VmHWM:\s*([0-9]+)", status.read_text())
        except OSError:
            return 0
        return 1024 * int(found[1]) if found is not None else 0


def python(*arguments: object, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> Run:
    """Run this interpreter on arguments."""
    return run([sys.executable, *arguments], cwd=cwd, environment=environment)


def _collect(stream: IO[bytes], start: float, lines: list[tuple[float, str]]) -> None:
    """Lines may also end with a carriage return, as those of progress do."""
    rest = b""
    while chunk := os.read(stream.fileno(), 1 << 16):
        *whole, rest = re.split(rb"[\r\n]", rest + chunk)
        now = time.perf_counter() - start
        lines += [(now, line.decode(errors="replace")) for line in whole if line.strip()]
    if rest.strip():
        lines.append((time.perf_counter() - start, rest.decode(errors="replace")))


# ---- what runs inside the children --------------------------------------------------------------------------------


def _doc2vec(options: argparse.Namespace) -> dict[str, Any]:
    from gensim.models.doc2vec import Doc2Vec

    start = time.perf_counter()
    model = Doc2Vec(
        dm=0,
        dbow_words=1,
        negative=options.negatives,
        vector_size=options.dim,
        window=options.window,
        min_count=options.min_count,
        epochs=options.epochs,
        workers=options.threads,
    )
    model.build_vocab(corpus_file=str(options.text))
    counted = time.perf_counter()
    model.train(
        corpus_file=str(options.text),
        total_examples=model.corpus_count,
        total_words=model.corpus_total_words,
        epochs=options.epochs,
    )
    trained = time.perf_counter()
    model.save(str(options.output))
    saved = time.perf_counter()
    return {"reading": counted - start, "training": trained - counted, "saving": saved - trained}


def _encode(options: argparse.Namespace) -> dict[str, Any]:
    import jose_embed

    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.txt"
        with open(options.text, "rb") as file:
            small.write_bytes(file.read(1 << 16))
        jose_embed.encode(str(small), tokenizer=options.tokenizer, min_count=1).close()  # compiles
    rates = []
    for _ in range(options.repetitions):
        start, cpu_start = time.perf_counter(), time.process_time()
        with jose_embed.encode(str(options.text), tokenizer=options.tokenizer) as corpus:
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
            n_bytes = corpus.statistics.n_bytes
        rates.append({"bytes": n_bytes, "seconds": seconds, "cpu_seconds": cpu_seconds})
    return {"runs": rates}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of the children."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    children = parser.add_subparsers(required=True)
    doc2vec = children.add_parser("doc2vec")
    doc2vec.set_defaults(work=_doc2vec)
    for name, value in {"dim": 100, "window": 5, "negatives": 5, "min_count": 5, "epochs": 10, "threads": 2}.items():
        doc2vec.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    doc2vec.add_argument("text", type=Path)
    doc2vec.add_argument("output", type=Path)
    encode = children.add_parser("encode")
    encode.set_defaults(work=_encode)
    encode.add_argument("--tokenizer", default="whitespace")
    encode.add_argument("--repetitions", type=int, default=3)
    encode.add_argument("text", type=Path)
    options = parser.parse_args(arguments)
    print(json.dumps(options.work(options)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
