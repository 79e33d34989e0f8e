"""An interrupt in the first second of a process, while libraries are imported and kernels loaded."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# The moment is the import of a module, which is the same one on every machine.
PROGRAM = """
import signal, sys
import jose_embed

texts = ["red green blue", "green blue red", "blue red green"] * 20
signal.signal(signal.SIGINT, signal.default_int_handler)
moments = [sys.argv[1]]

def interrupt(event, arguments):
    if event == "import" and arguments[0] in moments:
        moments.clear()
        signal.raise_signal(signal.SIGINT)

sys.addaudithook(interrupt)
try:
    while True:
        jose_embed.train(texts, dim=8, epochs=1, min_count=1, workers=1, backend="cpu")
        assert not moments, "the moment does not come"
except KeyboardInterrupt:
    model = jose_embed.train(texts, dim=8, epochs=1, min_count=1, workers=1, backend="cpu")
    print(model.n_words, model.infer(["red"]).shape)
"""


@pytest.mark.parametrize(
    "module",
    ["numpy", "numpy.linalg", "jose_embed.text.encode", "jose_embed.training.checkpoints", "llvmlite.binding"],
)
def test_training_works_after_an_interrupt_in_the_first_second(module: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, module],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (ended.returncode, ended.stdout) == (0, "3 (1, 8)\n"), ended.stderr


# ---- entry points -------------------------------------------------------------------------------------------------

SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]

# Found in the place of the standard library's, it interrupts the import of whatever imports it.
INTERRUPTING_MODULE = """
import os, signal
os.kill(os.getpid(), signal.SIGINT)
while True:
    pass
"""


def run_script(program: str, *arguments: str, searched: str = "") -> subprocess.CompletedProcess[str]:
    """A program as an installation starts it, with a folder that is searched for modules first."""
    module, function = SCRIPTS[program].split(":")
    code = f"import sys\nfrom {module} import {function}\nsys.exit({function}())"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([searched, str(ROOT)])}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("program", SCRIPTS)
def test_the_entry_points_run_the_programs(program: str) -> None:
    ended = run_script(program, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"usage: {program} ")


@pytest.mark.parametrize("program", SCRIPTS)
def test_an_interrupt_while_a_program_is_imported_is_one_line(program: str, tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text(INTERRUPTING_MODULE, encoding="utf-8")
    ended = run_script(program, searched=str(tmp_path))
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", f"{program}: interrupted\n")
