"""The page's table of versions, the environments of the tests, and the bounds in pyproject.toml say the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import page

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
#: Extras with adapters or readers; the others hold programs, tools or need a device.
TESTED = ("eval", "parquet", "gensim", "bertopic", "keras", "onnx", "torch")


def pins(name: str) -> dict[str, str]:
    """The versions of a file of requirements."""
    found = re.findall(r"^([\w.-]+)==(\S+)$", (FOLDER / name).read_text(), re.MULTILINE)
    return {library.lower(): version for library, version in found}


def test_the_table_has_the_versions_of_the_tests() -> None:
    rows = re.findall(r"^\| ([\w-]+) \| ([\d.]+) \| ([\d.]*) ?\|$", page.section("Versions"), re.MULTILINE)
    assert len(rows) > 15
    newest, oldest = pins("requirements.txt"), pins("oldest.txt")
    assert [(name, newest[name], oldest.get(name, "")) for name, _, _ in rows] == rows


def test_lower_bounds_are_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = project["dependencies"] + [need for extra in TESTED for need in project["optional-dependencies"][extra]]
    oldest = pins("oldest.txt")
    for need in needs:
        name, bound = re.match(r"([\w.-]+)>=([\d.]+)", need).groups()
        if not need.startswith("backports"):
            assert re.fullmatch(rf"{re.escape(bound)}(\.0)*", oldest[name.lower()]), need


def test_licences_of_every_extra_are_listed() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    rows = re.findall(r"^\| (`[^|]+) \|", page.section("Licences of what the extras bring"), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(extras) - {"bench", "dev"}
