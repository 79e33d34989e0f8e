"""Make the bundled corpus: the docstrings of the Python standard library and of the installed packages.

Real text that every machine with Python holds already, so that nothing is downloaded and nothing has to be shipped.
Files are parsed, never imported. Two files are written, line by line in step:

* ``corpus.txt``: one document per line, the words of one docstring;
* ``corpus.tsv``: what the document of the same line documents, and where it stands: ``json.dumps<TAB>function``.

The same Python with the same packages makes the same bytes.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import os
import re
import sys
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SMALLEST = 8
"""A document of fewer words says nothing about its neighbours."""

# Tests say what they test in half sentences; installed packages are roots of their own.
_SKIPPED_FOLDERS = {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test"}
_NAMED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_WORD = re.compile(r"\w[\w'’-]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_RULE = re.compile(r"^\s*([=\-~^*#_+.`\"'])\1{2,}\s*$")


class Document(NamedTuple):
    """One docstring: whose it is, what that is, and its text on one line."""

    name: str
    kind: str
    text: str


def source_files() -> Iterator[tuple[str, Path]]:
    """Every Python file of the standard library and of the installed packages, with its module's name."""
    seen: set[Path] = set()
    for key in ("stdlib", "platstdlib", "purelib", "platlib"):
        root = Path(sysconfig.get_paths()[key]).resolve()
        if root in seen or not root.is_dir():
            continue
        seen.add(root)
        for folder, folders, files in os.walk(root):
            folders[:] = sorted(name for name in folders if name not in _SKIPPED_FOLDERS and not name.startswith("."))
            for file in sorted(files):
                if file.endswith(".py"):
                    path = Path(folder, file)
                    parts = list(path.relative_to(root).with_suffix("").parts)
                    if parts[-1] == "__init__":
                        parts.pop()
                    yield ".".join(parts), path


def docstrings(module: str, tree: ast.Module) -> Iterator[Document]:
    """The docstrings of a module, its classes and its functions, in the order of the file."""
    todo: list[tuple[str, ast.AST]] = [(module, tree)]
    while todo:
        name, node = todo.pop()
        if isinstance(node, (ast.Module, *_NAMED)):
            kind = {ast.Module: "module", ast.ClassDef: "class"}.get(type(node), "function")
            text = ast.get_docstring(node, clean=True)
            if text:
                yield Document(name, kind, one_line(text))
        inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
        todo += [(f"{name}.{child.name}" if isinstance(child, _NAMED) else name, child) for child in reversed(inner)]


def one_line(text: str) -> str:
    """A docstring's prose on one line: without its interactive examples and without drawn rules."""
    kept = []
    in_example = False
    for line in text.splitlines():
        bare = line.strip()
        in_example = bool(bare) and (in_example or bare.startswith(">>>"))
        if not in_example and not _RULE.match(line):
            kept.append(bare)
    return " ".join(_CONTROL.sub(" ", " ".join(kept)).split())


def documents_of(file: tuple[str, Path]) -> list[Document]:
    """The documents of one file; none where it does not parse: some files are meant to be broken."""
    module, path = file
    try:
        source = path.read_bytes()
        if b'"""' not in source and b"'''" not in source:
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(docstrings(module, ast.parse(source)))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def documents() -> Iterator[Document]:
    """All documents worth training on, in the order of their names; a text that several objects share comes once."""
    seen: set[str] = set()
    with concurrent.futures.ProcessPoolExecutor() as pool:
        for found in pool.map(documents_of, sorted(source_files()), chunksize=64):
            for document in found:
                if document.text not in seen and len(_WORD.findall(document.text)) >= SMALLEST:
                    seen.add(document.text)
                    yield document


def write(path: Path, lines: list[str]) -> int:
    """Write a file whole or not at all; returns its bytes."""
    data = "".join(f"{line}\n" for line in lines).encode()
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return len(data)


def main() -> int:
    """Write the corpus and say in one line what it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).resolve().parent / "corpus.txt",
        help="the corpus (default: %(default)s); its .tsv goes beside it",
    )
    output: Path = parser.parse_args().output
    if not os.access(output.parent, os.W_OK):
        print(f"make_corpus: {output.parent} cannot be written to; name another place with --output", file=sys.stderr)
        return 2
    started = time.perf_counter()
    made = list(documents())
    n_bytes = write(output, [document.text for document in made])
    write(output.with_suffix(".tsv"), [f"{document.name}\t{document.kind}" for document in made])
    n_words = sum(len(_WORD.findall(document.text)) for document in made)
    print(
        f"{output}: {len(made):,} documents, {n_words:,} words, {n_bytes / 1e6:.1f} MB of docstrings"
        f" in {time.perf_counter() - started:.1f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
