"""How functions are compiled: with the freedom that was asked for, and no more."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time

import numpy as np
import numpy.typing as npt
import pytest

from jose_embed.compute.jit import jit


@jit(fastmath=True, inline=True)
def _reciprocal(x: float) -> float:
    """One over x, or -1 for what is no number."""
    return -1.0 if math.isnan(x) else 1.0 / x


@jit
def _sum_of_reciprocals(values: npt.NDArray[np.float64]) -> float:
    total = 0.0
    for value in values:
        total += _reciprocal(value)
    return total


def test_compiled_functions_compute_and_see_nan() -> None:
    assert _sum_of_reciprocals(np.array([1.0, 2.0, 4.0])) == pytest.approx(1.75)
    assert _sum_of_reciprocals(np.array([math.nan, 2.0])) == pytest.approx(-0.5)


def test_the_first_compilation_is_announced_once() -> None:
    code = """
import sys
from jose_embed.compute.jit import compilation_noted
from jose_embed.text.encode import encode_texts
notes = []
for _ in range(2):
    with compilation_noted(notes.append), compilation_noted(notes.append):
        encode_texts(["a b"], min_count=1).close()
assert notes == [sys.argv[1]] * (len(notes) > 0), notes
print(len(notes))
"""

    def announced(sentence: str, cache: str) -> str:
        environment = {**os.environ, "JOSE_CACHE_DIR": cache}
        command = [sys.executable, "-c", code, sentence]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    assert announced("compiling kernels for this processor", "off") == "1"


def test_a_division_by_zero_is_infinite_and_no_error() -> None:
    assert _sum_of_reciprocals(np.array([0.0])) == math.inf


@jit
def _iterations_until_set(flags: npt.NDArray[np.int64], other: int, limit: int) -> int:
    n = 0
    while flags[0] == 0 and n < limit:
        flags[other] = n  # for all the compiler knows this may be the flag itself, so that it is read each time
        n += 1
    return n


def test_the_lock_of_the_interpreter_is_released() -> None:
    _iterations_until_set(np.ones(2, np.int64), 1, 1)  # compiles
    flags, limit = np.zeros(2, np.int64), 1 << 35

    def set_when_it_runs() -> None:
        while flags[1] == 0:
            time.sleep(0.001)
        flags[0] = 1

    threading.Thread(target=set_when_it_runs).start()
    assert 0 < _iterations_until_set(flags, 1, limit) < limit


def test_modules_with_kernels_do_not_import_numba() -> None:
    modules = ["compute.cpu.backend", "compute.cpu.directions", "text.word_table", "model.inference", "training.train"]
    imports = "".join(f"import jose_embed.{name}; " for name in modules)
    code = imports + "import sys; sys.exit('numba' in sys.modules or 'llvmlite' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


INTERRUPTED = """
import os, signal, sys, threading, time
import numpy as np
from jose_embed.compute.cpu import directions

def interrupt():
    while MODULE not in sys.modules:
        time.sleep(0.001)
    while not ended.is_set():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

ended = threading.Event()
threading.Thread(target=interrupt, daemon=True).start()
tokens, offsets = np.array([0, 1, 1], np.int32), np.array([0, 1, 3])
try:
    directions.count_documents(tokens, offsets, 2)
    time.sleep(60)  # the call may end between two of them
except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ended.set()
assert ended.is_set(), "the interrupt was lost"
assert directions._count._loaded, "the interrupt did not wait"
print(directions.count_documents(tokens, offsets, 2).tolist())
"""


@pytest.mark.parametrize("module", ["jose_embed.compute.kernel_cache", "numba", "llvmlite.binding"])
def test_an_interrupt_of_a_first_call_waits_until_it_is_compiled(module: str) -> None:
    """Interrupts come every 10 ms from the moment on when a module is imported, so not by the clock of a machine."""
    code = INTERRUPTED.replace("MODULE", repr(module))
    environment = {**os.environ, "JOSE_CACHE_DIR": "off"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert (done.stdout, done.returncode) == ("[1, 1]\n", 0), done.stderr
