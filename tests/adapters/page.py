"""Runs the Python of the page about other libraries."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "jose_embed" / "adapters" / "README.md"


def section(title: str) -> str:
    """The text below a heading, to the next heading of the page."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"^##+ {re.escape(title)}\b[^\n]*\n(.*?)(?=^## |^### |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"the page has no section {title!r}"
    return found[1]


def run_section(title: str, **names: Any) -> dict[str, Any]:
    """The names after the Python blocks of a section have run."""
    blocks = re.findall(r"^```python\n(.*?)^```", section(title), re.MULTILINE | re.DOTALL)
    assert blocks, f"the section {title!r} has no Python"
    for block in blocks:
        exec(block, names)
    return names
