"""What a user has after `pip install jose-embed` and nothing else; run by that environment's own Python.

It runs away from the checkout, so that only what was installed can be found. A file missing from the wheel, a need that
only an extra brings, or a command that fails without the extras shows here and nowhere else.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
EXTRAS = ("fastapi", "faiss", "scipy", "sklearn", "pytest", "gensim", "cupy")


def run(*command: str, status: int = 0) -> str:
    """Run an installed program; what it printed, both streams together."""
    program, *arguments = command
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(PROGRAMS / program), *arguments], env=environment, text=True, capture_output=True, timeout=300
    )
    said = done.stdout + done.stderr
    if done.returncode != status or "Traceback" in said:
        raise SystemExit(f"{' '.join(command)}: status {done.returncode}, not {status}\n{said}")
    return said


def expect(condition: bool, what: str) -> None:
    """Stop with a sentence where something is not as it must be."""
    if not condition:
        raise SystemExit(f"base install: {what}")


def sentences() -> Sequence[str]:
    """A small text with two topics."""
    topics = ["the cat and the dog chase a mouse in the house", "the ship sails over the sea into the harbour"]
    return [" ".join([topics[line % 2], f"story {line % 7}"]) for line in range(200)]


def main() -> None:
    """All the checks; the first that fails ends the run."""
    found = [name for name in EXTRAS if importlib.util.find_spec(name) is not None]
    expect(not found, f"{', '.join(found)} came with the base install")
    import jose_embed

    package = Path(jose_embed.__file__).parent
    expect("site-packages" in package.parts, f"the package is imported from {package}, not from the install")
    expect((package / "py.typed").is_file(), "py.typed is missing from the wheel")
    expect((package / "compute" / "gpu" / "kernels.cu").is_file(), "kernels.cu is missing from the wheel")
    page = {path.name for path in (package.parent / "service" / "page").iterdir()}
    expect(page == {"icon.svg", "index.html", "page.css", "page.js"}, f"the files of the page in the wheel are {page}")
    expect(jose_embed.__version__ == importlib.metadata.version("jose-embed"), "the version is not the installed one")

    Path("tiny.txt").write_text("\n".join(sentences()) + "\n", encoding="utf-8")
    said = run("jose-train", "tiny.txt", "--dim", "16", "--epochs", "2", "--workers", "1")
    refused = run("jose-train", "tiny.txt", "--backend", "gpu", "--output", "gpu.jose", status=2)
    expect("jose-embed[gpu]" in refused and refused.count("\n") == 1, f"a missing GPU was refused so:\n{refused}")
    expect("tiny.jose" in said and Path("tiny.jose/manifest.json").is_file(), f"jose-train made no model:\n{said}")
    expect("already exists" in run("jose-train", "tiny.txt", status=2), "an existing model was not refused")
    expect("mouse" in run("jose", "similar", "tiny.jose", "cat", "-k", "20"), "jose similar did not find a word")
    expect("documents" in run("jose", "info", "tiny.jose"), "jose info said nothing")
    run("jose", "documents", "tiny.jose", "1", "--labels", "tiny.txt")
    run("jose", "embed", "tiny.jose", "tiny.txt", "-o", "vectors.npy")
    run("jose", "export", "tiny.jose", "--format", "word2vec")
    expect("[service]" in run("jose-serve", "tiny.jose", status=2), "jose-serve does not name the extra it needs")
    print(f"base install: jose-embed {jose_embed.__version__} trains and answers without any extra")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        main()
