"""The notebook: it runs, and it is stored with its output."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "data"
CELLS = [cell for cell in json.loads((DATA / "tour.ipynb").read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
def test_the_tour_runs() -> None:
    pytest.importorskip("openTSNE")
    code = "\n".join("".join(cell["source"]) for cell in CELLS)
    ended = subprocess.run([sys.executable, "-"], input=code, cwd=DATA, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    (DATA / "tour-map.html").unlink()
    shown = ended.stdout.splitlines()
    assert shown[-1] == "(1, 50)"
    assert any("multiprocessing.process.BaseProcess.join" in line for line in shown)
    (said,) = [line for line in shown if line.startswith("accuracy")]
    accuracy, most = (float(word.rstrip(";")) for word in said.split() if word[0] == "0")
    assert accuracy > most + 0.2


def test_the_tour_is_stored_with_its_output() -> None:
    assert [cell["execution_count"] for cell in CELLS] == list(range(1, len(CELLS) + 1))
    assert all(cell["outputs"] for cell in CELLS)
    assert not any(output["output_type"] == "error" for cell in CELLS for output in cell["outputs"])
    assert not any(output.get("name") == "stderr" for cell in CELLS for output in cell["outputs"])
