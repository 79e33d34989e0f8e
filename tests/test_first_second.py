"""An interrupt in the first second of a process, while libraries are imported and kernels compiled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PROGRAM = """
import os, signal, sys, threading
import jose_embed

texts = ["red green blue", "green blue red", "blue red green"] * 20
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(float(sys.argv[1]), os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    while True:
        jose_embed.train(texts, dim=8, epochs=1, min_count=1, workers=1, backend="cpu")
except KeyboardInterrupt:
    model = jose_embed.train(texts, dim=8, epochs=1, min_count=1, workers=1, backend="cpu")
    print(model.n_words, model.infer(["red"]).shape)
"""


@pytest.mark.parametrize("delay", [0.02, 0.07, 0.12, 0.2, 0.3, 0.6])
def test_training_works_after_an_interrupt_in_the_first_second(delay: float) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(delay)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stdout) == (0, "3 (1, 8)\n"), ended.stderr
