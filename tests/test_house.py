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

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A room imports only rooms that stand before it. Each line is a floor; a new room gets its place here.
FLOORS = [
    "errors",
    "config machine progress jit",
    "sources compression tokenizers corpus",
    "wordtable vocabulary spool encoded",
    "npyfile storage pages mapped columns manifest lines qualityfile modelfiles encodedfiles spelling nearest wordrows",
    "passages sphere sampling simd cpu gpu_device gpu directions gpu_directions",
    "embeddings reliability backends inference line_vectors interrupts schedule epochs checkpoints trainer",
    "formats goldsets evaluation report modelcard",
    "cli_command cli_train cli_encode cli_query cli_embed cli_export cli_eval cli __main__",
]
ROOMS = " ".join(FLOORS).split()

# Imports against the order, inside a function and each with its reason.
EXCEPTIONS = {("embeddings", "inference"): "Embeddings.infer is there for its users, the work is done in inference"}

# What the service may know of the package.
SEEN_BY_SERVICE = {"embeddings", "inference", "errors"}

HEAVY = ("numpy", "numba", "llvmlite", "scipy", "sklearn", "faiss", "cupy", "tqdm", "fastapi", "service")

MODULES = sorted((ROOT / "jose_embed").glob("**/*.py"))
SERVICE_MODULES = sorted((ROOT / "service").glob("**/*.py"))


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run: those under ``if TYPE_CHECKING`` do not."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from runtime_nodes(node)


def imported_modules(path: Path) -> set[str]:
    """Dotted names of everything a file imports when it runs, names taken from packages included."""
    names: set[str] = set()
    for node in runtime_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_rooms(path: Path) -> set[str]:
    """The rooms of jose_embed that a file imports."""
    homes = public_homes()
    rooms = set()
    for name in imported_modules(path):
        package, _, rest = name.partition(".")
        if package == "jose_embed" and rest and not rest.startswith("__version__"):
            first = rest.split(".")[0]
            rooms.add(homes.get(first, first))
    return rooms


def public_homes() -> dict[str, str]:
    """Public name to the room that it comes from, as the package's own ``__init__`` says."""
    for node in ast.walk(ast.parse((ROOT / "jose_embed" / "__init__.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOME":
            return dict(ast.literal_eval(node.value))
    raise AssertionError("jose_embed/__init__.py no longer says where its names are from")


@pytest.mark.parametrize("path", [path for path in MODULES if path.stem != "__init__"], ids=lambda path: path.stem)
def test_imports_point_one_way(path: Path) -> None:
    assert path.stem in ROOMS, f"jose_embed/{path.name} is a new room: give it its place in ROOMS"
    allowed = set(ROOMS[: ROOMS.index(path.stem)])
    allowed |= {room for importer, room in EXCEPTIONS if importer == path.stem}
    assert imported_rooms(path) <= allowed


@pytest.mark.parametrize("path", SERVICE_MODULES, ids=lambda path: path.stem)
def test_the_service_sees_little(path: Path) -> None:
    assert imported_rooms(path) <= SEEN_BY_SERVICE
    if path.name != "index.py":
        assert not {name for name in imported_modules(path) if name.split(".")[0] == "faiss"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_package_does_not_know_the_service(path: Path) -> None:
    assert not {name for name in imported_modules(path) if name.split(".")[0] == "service"}


@pytest.mark.parametrize(
    "code",
    [
        "import jose_embed",
        "import jose_embed; jose_embed.TrainConfig(dim=10), jose_embed.ModelError",
        "import jose_embed.cli",
        "from jose_embed.cli import main; main([])",
        "from jose_embed.cli import main; main(['--version'])",
        "from jose_embed.cli import main, COMMANDS; [main([command.name, '--help']) for command in COMMANDS]",
        "from jose_embed.cli import train_main; train_main(['--help'])",
        "from jose_embed.cli import train_main; train_main(['no.txt', '--dim', '0'])",
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


@pytest.mark.parametrize("path", MODULES + SERVICE_MODULES, ids=lambda path: str(path.relative_to(ROOT)))
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
