"""Figures that were measured, with when, where and at which commit; and how they become Markdown.

A peer does not change between our commits, so its figures are kept and shown again, marked with their date. Ours are
kept under the commit they belong to, and not at all while tracked files differ from it.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def commit() -> str:
    """The short commit of this checkout, with ``-dirty`` where tracked files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> str:
    """Processor, cores and interpreter, in a line."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def today() -> str:
    """The date in UTC."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")


def header() -> dict[str, Any]:
    """What stands above every set of tables."""
    return {"commit": commit(), "date": today(), "machine": machine()}


class Ledger:
    """A JSON file of records, one per (settings) key, rewritten whole after each addition.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """The record measured under exactly this key."""
        return self._read().get(_text(key))

    def put(self, key: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Keep a record; another process may write the same file in between, not at the same moment."""
        records = self._read()
        records[_text(key)] = {**key, **record}
        partial = self.path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(self.path)

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self.path.exists():
            return {}
        records: dict[str, dict[str, Any]] = json.loads(self.path.read_text(encoding="utf-8"))
        return records


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, the others are figures."""
    lines = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _text(key: Mapping[str, Any]) -> str:
    return json.dumps(key, sort_keys=True, ensure_ascii=False)
