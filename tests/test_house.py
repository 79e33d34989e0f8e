"""The rules of the house, read off the source: who imports whom, what is explained, what is not in here."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parent.parent

# Where an import may stand inside a function: the face loads names on first use, a program starts without what its
# command does not need, a tokenizer or an adapter belongs to an extra, a backend needs a compiler or a device.
BORDERS = {
    "jose_embed/__init__.py",
    "jose_embed/cli/",
    "jose_embed/text/tokenizers.py",
    "jose_embed/adapters/",
    "jose_embed/compute/backends.py",
    "jose_embed/progress.py",
    "service/cli.py",
}

# What the service may know of the package.
SEEN_BY_SERVICE = {"jose_embed.analysis", "jose_embed.model", "jose_embed.errors", "jose_embed.version"}

HEAVY = ("numpy", "numba", "llvmlite", "scipy", "sklearn", "faiss", "cupy", "tqdm", "rapidfuzz", "fastapi", "service")


def name_of(path: Path) -> str:
    """A file's path in the repository, with slashes."""
    return path.relative_to(ROOT).as_posix()


MODULES = sorted((ROOT / "jose_embed").glob("**/*.py"))
SERVICE_MODULES = sorted((ROOT / "service").glob("**/*.py"))


def imports_in_functions(path: Path) -> Iterator[str]:
    """The imports of a file that run only when a function is called."""
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for node in ast.walk(function):
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", MODULES + SERVICE_MODULES, ids=name_of)
def test_imports_stand_at_the_top(path: Path) -> None:
    if not any(name_of(path).startswith(border) for border in BORDERS):
        assert list(imports_in_functions(path)) == []


def test_the_service_sees_little() -> None:
    graph = grimp.build_graph("jose_embed", "service", exclude_type_checking_imports=True)
    seen = {
        name
        for module in graph.modules
        if module.split(".")[0] == "service"
        for name in graph.find_modules_directly_imported_by(module)
        if name.split(".")[0] == "jose_embed"
    }
    assert {".".join(name.split(".")[:2]) for name in seen} <= SEEN_BY_SERVICE


@pytest.mark.parametrize(
    "code",
    [
        "import jose_embed",
        "import jose_embed; jose_embed.TrainConfig(dim=10), jose_embed.ModelError",
        "import jose_embed.cli.program",
        "from jose_embed.cli.program import main; main([])",
        "from jose_embed.cli.program import main; main(['--version'])",
        "from jose_embed.cli.program import main, COMMANDS; [main([command.name, '--help']) for command in COMMANDS]",
        "from jose_embed.cli.program import train_main; train_main(['--help'])",
        "from jose_embed.cli.program import train_main; train_main(['no.txt', '--dim', '0'])",
    ],
)
def test_help_waits_for_no_heavy_import(code: str) -> None:
    check = f"{code}\nimport sys\nheavy = set({HEAVY!r}) & set(sys.modules)\nassert not heavy, heavy"
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_public_names_are_there() -> None:
    import jose_embed

    assert sorted(jose_embed.__all__) == list(jose_embed.__all__)
    for name in jose_embed.__all__:
        assert getattr(jose_embed, name) is not None
        assert name in dir(jose_embed)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = jose_embed.nothing


# ---- explained ----------------------------------------------------------------------------------------------------


def undocumented(path: Path) -> Iterator[str]:
    """Public modules, classes, functions and methods of a file that nothing explains.

    A property may be explained among its class's attributes, and a class may say whose methods it implements ("methods
    as in ...", or a base class).
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if ast.get_docstring(tree) is None:
        yield "the module"
    todo: list[tuple[str, ast.AST]] = [("", tree)]
    while todo:
        prefix, parent = todo.pop()
        about = (ast.get_docstring(parent) or "") if isinstance(parent, ast.ClassDef) else ""
        inherits = "methods as in" in about or (isinstance(parent, ast.ClassDef) and bool(parent.bases))
        for node in ast.iter_child_nodes(parent):
            if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or node.name.startswith("_"):
                continue
            decorators = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
            explained = inherits or decorators & {"overload", "setter"}
            explained = explained or ("property" in decorators and re.search(rf"\b{node.name}\b", about))
            if ast.get_docstring(node) is None and not explained:
                yield f"{prefix}{node.name}, line {node.lineno}"
            if isinstance(node, ast.ClassDef):
                todo.append((f"{prefix}{node.name}.", node))


@pytest.mark.parametrize("path", MODULES + SERVICE_MODULES, ids=name_of)
def test_public_names_are_explained(path: Path) -> None:
    assert list(undocumented(path)) == []


def test_extras_that_messages_name_exist() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    for path in MODULES + SERVICE_MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("MissingExtraError"):
                named = node.args[1]
                if isinstance(named, ast.Constant):
                    assert named.value in extras, f"{path.name}, line {node.lineno}"


# ---- sizes --------------------------------------------------------------------------------------------------------

#: Kernels, compiled as one function each.
KERNELS = {"row_primitives", "kernel", "_scan"}


@pytest.mark.parametrize("path", MODULES + SERVICE_MODULES, ids=name_of)
def test_functions_and_classes_are_short(path: Path) -> None:
    most = {ast.FunctionDef: 80, ast.AsyncFunctionDef: 80, ast.ClassDef: 400}
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if getattr(node, "name", None) not in KERNELS:
            todo += ast.iter_child_nodes(node)
            assert type(node) not in most or node.end_lineno - node.lineno < most[type(node)], node.name


# ---- not in here --------------------------------------------------------------------------------------------------


def tracked_texts() -> Iterator[tuple[str, str]]:
    """Name and text of every file that git tracks."""
    try:
        listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"not a git checkout: {error}")
    for name in filter(None, listing.stdout.decode().split("\0")):
        path = ROOT / name
        if path.is_file() and path != Path(__file__).resolve():
            yield name, path.read_bytes().decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        (
            "a package registry",
            r"https?://[^\s\"'`>)]*(?:pypi|pythonhosted|/simple\b)|--(?:extra-)?index-url|find-links",
        ),
        ("a path of some machine", r"/work/(?:main|scratch|shared|\.)|/opt/pypi|/root/\.(?!cache)|/home/(?!jose\b)\w"),
        ("the number of an issue of this project", r"\b[Ii]ssue #?\d"),
    ],
)
def test_no_tracked_file_names(what: str, pattern: str) -> None:
    found = [
        f"{name}, line {text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
        for name, text in tracked_texts()
        for match in re.finditer(pattern, text)
    ]
    assert found == [], f"{what} is named"


def test_no_tracked_file_is_large() -> None:
    assert [name for name, text in tracked_texts() if len(text) > 1_000_000] == []


def test_constraints_are_names_and_versions_and_cover_the_needs() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*", line)] == []
    pinned = {normal(line.split("==")[0]) for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = itertools.chain(project["dependencies"], *project["optional-dependencies"].values())
    assert {normal(re.match(r"[\w.-]+", need)[0]) for need in needs} <= pinned


def normal(name: str) -> str:
    """A distribution's name in the form in which names are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_test_files_have_names_of_their_own() -> None:
    """pytest imports them by the bare name: two of one name could not be collected together."""
    names = [path.name for path in (ROOT / "tests").glob("**/test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_no_environment_is_tracked() -> None:
    """A tracked link of this name would replace the environment of whoever merges it."""
    try:
        listing = subprocess.run(["git", "ls-files", ".venv*"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"not a git checkout: {error}")
    assert listing.stdout == "", "take it out: git rm --cached .venv"
