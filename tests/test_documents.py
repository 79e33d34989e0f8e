"""The documents: their sizes, their links, the commands and names they mention, and the list of public names.

``python tests/test_documents.py`` renews the list of public names, ``tests/public_names.txt``.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

import jose_embed
from jose_embed.cli.program import main, train_main
from service.cli import main as serve_main

ROOT = Path(__file__).resolve().parent.parent
PUBLIC_NAMES = ROOT / "tests" / "public_names.txt"
DESIGN = ROOT / "DESIGN.md"
SERVE_COMMANDS = ("healthcheck", "import", "export", "restore", "openapi", "settings")
PACKAGES = (ROOT, ROOT / "jose_embed", ROOT / "service")


def tracked(*patterns: str) -> list[Path]:
    """The files of these patterns that git tracks, or all of them outside a checkout."""
    try:
        listing = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return sorted(path for pattern in patterns for path in ROOT.rglob(pattern) if ".venv" not in path.as_posix())
    return [ROOT / name for name in filter(None, listing.stdout.decode().split("\0")) if (ROOT / name).is_file()]


DOCUMENTS = tracked("*.md")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def code_spans(text: str) -> Iterator[str]:
    """The inline code and the lines of code blocks, without prompts."""
    for block in re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from (line.removeprefix("$ ") for line in block.splitlines())
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


# ---- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "most_lines"), [("README.md", 120), ("DESIGN.md", 300), ("tests/benchmarks/RESULTS.md", 150)]
)
def test_document_is_short(name: str, most_lines: int) -> None:
    assert len(text_of(ROOT / name).splitlines()) <= most_lines


def test_readme_is_narrow() -> None:
    wide = [line for line in text_of(ROOT / "README.md").splitlines() if len(line) > 100]
    assert wide == []


def test_changes_of_a_version_are_few() -> None:
    sections = re.split(r"^## ", text_of(ROOT / "CHANGELOG.md"), flags=re.MULTILINE)[1:]
    assert sections
    for section in sections:
        lines = [line for line in section.splitlines()[1:] if line.strip()]
        assert len(lines) <= 15, f"{section.splitlines()[0]}: {len(lines)} lines; merge some, at most 15 are allowed"


def test_decisions_are_numbered_in_order_and_short() -> None:
    paragraphs = re.findall(r"^\*\*(\d+)\. .*?(?=\n\n|\Z)", text_of(DESIGN), re.MULTILINE | re.DOTALL)
    assert [int(number) for number in paragraphs] == list(range(1, len(paragraphs) + 1))
    for match in re.finditer(r"^\*\*\d+\. .*?(?=\n\*\*|\Z)", text_of(DESIGN), re.MULTILINE | re.DOTALL):
        assert len(match[0].strip().splitlines()) <= 8, match[0][:60]


# ---- what documents refer to ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_relative_links_exist(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", text_of(path), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    local = [target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:", target)]
    assert [target for target in local if target and not (path.parent / target).exists()] == []


def test_decisions_that_the_code_names_exist() -> None:
    known = {int(number) for number in re.findall(r"^\*\*(\d+)\. ", text_of(DESIGN), re.MULTILINE)}
    named = {
        (name_of(path), int(number))
        for path in tracked("*.py", "*.cu", "*.md", "*.h", "*.toml")
        for phrase in re.findall(r"\bdecisions?\s+\d+(?:(?:,|\s+and|\s+to)\s+\d+)*", text_of(path))
        for number in re.findall(r"\d+", phrase)
    }
    assert named
    assert {(name, number) for name, number in named if number not in known} == set()


def test_the_map_names_files_and_functions_that_exist() -> None:
    """Each path in DESIGN.md exists, and each name that follows a path stands in that file."""
    missing = []
    found: Path | None = None
    for gap, span in re.findall(r"([^`]*)`([^`\n]+)`", text_of(DESIGN)):
        if re.fullmatch(r"[\w./]+\.(?:py|cu|h|toml)", span):
            found = next((parent / span for parent in PACKAGES if (parent / span).is_file()), None)
            if found is None:
                missing.append(span)
        elif found is not None and gap in (" ", ", ", " and ") and re.fullmatch(r"[A-Za-z_][\w.]*", span):
            if not re.search(rf"\b{re.escape(span.split('.')[-1])}\b", text_of(found)):
                missing.append(f"{name_of(found)}: {span}")
        else:
            found = None
    assert missing == [], "DESIGN.md names what is not there; correct its map"


@cache
def options_of(program: str, command: tuple[str, ...]) -> frozenset[str]:
    """The long options that the help of a command shows."""
    run: Callable[[list[str]], int] = {"jose": main, "jose-train": train_main, "jose-serve": serve_main}[program]
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        assert run([*command, "--help"]) == 0
    return frozenset(re.findall(r"--[a-z][a-z0-9-]*", shown.getvalue()))


def commands_in(text: str) -> Iterator[tuple[str, tuple[str, ...], list[str]]]:
    """Program, command and long options of each call of a program."""
    for span in code_spans(text):
        for call in re.split(r"\s*(?:&&|\||;)\s*|\s+#\s", span):
            words = call.split()
            if not words or words[0] not in ("jose", "jose-train", "jose-serve"):
                continue
            command: tuple[str, ...] = ()
            if words[0] == "jose" and len(words) > 1:
                command = tuple(words[1:3]) if words[1] == "eval" else (words[1],)
            elif words[0] == "jose-serve" and len(words) > 1 and words[1] in SERVE_COMMANDS:
                command = (words[1],)
            command = tuple(word for word in command if re.fullmatch(r"[a-z]+", word))
            yield words[0], command, re.findall(r"--[a-z][a-z0-9-]*", call)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_options_exist(path: Path) -> None:
    for program, command, options in commands_in(text_of(path)):
        assert set(options) <= options_of(program, command) | {"--help"}, (program, *command)


def test_readme_shows_every_program_and_existing_options() -> None:
    text = text_of(ROOT / "README.md")
    calls = list(commands_in(text))
    assert {program for program, _, _ in calls} == {"jose", "jose-train", "jose-serve"}
    everywhere = frozenset().union(*(options_of(program, command) for program, command, _ in calls))
    alone = {option for span in code_spans(text) if span.startswith("--") for option in re.findall(r"^--[a-z-]+", span)}
    assert alone
    assert alone - everywhere == set()


def test_python_in_readme_uses_public_names() -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", text_of(ROOT / "README.md"), re.MULTILINE | re.DOTALL)
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = {"jose_embed": jose_embed, "model": jose_embed.Embeddings}[node.value.id]
            assert hasattr(owner, node.attr), f"{node.value.id}.{node.attr}"


def test_citation_has_the_version() -> None:
    citation = yaml.safe_load(text_of(ROOT / "CITATION.cff"))
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    assert str(citation["version"]) == project["version"]
    assert citation["license"] == project["license"]


# ---- public names ---------------------------------------------------------------------------------------------------


def public_names() -> str:
    """The names and signatures of ``jose_embed`` and of the public methods of ``Embeddings``, a line each."""
    lines = []
    for name in jose_embed.__all__:
        value = getattr(jose_embed, name)
        if inspect.isclass(value) and issubclass(value, Exception):
            lines.append(f"{name}: {value.__mro__[1].__name__}")
        elif callable(value):
            lines.append(f"{name}{inspect.signature(value)}")
        else:
            lines.append(name)
    bases = reversed(jose_embed.Embeddings.__mro__[:-1])
    for name, value in sorted({name: value for base in bases for name, value in vars(base).items()}.items()):
        if name.startswith("_"):
            continue
        if isinstance(value, (classmethod, staticmethod)):
            lines.append(f"Embeddings.{name}{inspect.signature(value.__func__)}")
        elif inspect.isfunction(value):
            lines.append(f"Embeddings.{name}{inspect.signature(value)}")
        elif hasattr(value, "__get__"):
            lines.append(f"Embeddings.{name}")
    return re.sub(r"ForwardRef\('([^']*)'[^)]*\)", r"'\1'", "\n".join(lines)) + "\n"


def test_public_names_are_those_of_the_list() -> None:
    assert public_names().splitlines() == text_of(PUBLIC_NAMES).splitlines(), (
        "a public name or signature differs from tests/public_names.txt; if that is intended, renew the list with "
        "`python tests/test_documents.py` and add a line to CHANGELOG.md"
    )


if __name__ == "__main__":
    PUBLIC_NAMES.write_text(public_names(), encoding="utf-8")
