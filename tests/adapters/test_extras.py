"""Each extra installs alone, and the modules that need it import."""

from __future__ import annotations

import os
import subprocess
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = {
    "service": ["service.app"],
    "eval": ["jose_embed.adapters.sklearn", "jose_embed.analysis.measures"],
    "parquet": ["pyarrow.parquet", "jose_embed.text.records_arrow"],
    "chinese": ["jieba"],
    "japanese": ["sudachipy", "sudachidict_core"],
    "thai": ["pythainlp"],
    "korean": ["kiwipiepy"],
    "map": ["faiss", "matplotlib", "openTSNE"],
    "gensim": ["jose_embed.adapters.gensim"],
    "bertopic": ["bertopic", "jose_embed.adapters.bertopic"],
    "keras": ["h5py", "jose_embed.adapters.keras"],  # Keras itself needs one of three backends
    "onnx": ["onnx", "jose_embed.adapters.onnx"],
    "ray": ["ray.data", "pyarrow.fs", "jose_embed.distributed.cluster"],
    "static": ["tokenizers", "jose_embed.adapters.importing"],
    "torch": ["torch", "jose_embed.adapters.torch"],
}
UNTRIED = {"gpu", "bench", "dev"}  # needs a device; hold other extras
WARN = {"bertopic", "chinese"}  # their imports warn


def test_every_extra_is_tried() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) == MODULES.keys() | UNTRIED


@pytest.mark.slow
@pytest.mark.parametrize("extra", MODULES)
def test_an_extra_alone(extra: str, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    options = ["--quiet", "--disable-pip-version-check", "-c", str(ROOT / "constraints.txt")]
    installed = subprocess.run(
        [python, "-m", "pip", "install", *options, f"{ROOT}[{extra}]"], env=environment, check=False
    )
    assert installed.returncode == 0
    code = "; ".join(f"import {module}" for module in MODULES[extra])
    warnings = "ignore" if extra in WARN else "error"
    subprocess.run([python, "-W", warnings, "-c", code], cwd=tmp_path, env=environment, check=True)
