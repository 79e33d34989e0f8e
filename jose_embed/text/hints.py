"""Hints: what a person should know if plain text looks as if something else was meant."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from jose_embed.errors import CorpusError
from jose_embed.text.records_csv import looks_like_table
from jose_embed.text.records_json import ONE_PER_LINE, is_json_list
from jose_embed.text.sources import Source, SourceReport, printable

_FEW_LINES = 100  # lines on average, for files that may be one document each
_SEVERAL_FILES = 5
_LONG_LINE = 5_000  # bytes


def looks_like(head: str) -> str | None:
    """The format that plain text seems to have: ``"jsonl"``, ``"json"``, ``"csv"`` or ``None``.

    Args:
        head: The beginning of the text.

    Example:
        >>> looks_like('{"a": 1}\\n{"a": 2}\\n'), looks_like("to be,\\nor not\\n")
        ('jsonl', None)
    """
    lines = [line for line in head.split("\n")[:-1] if line.strip()][:20]
    if len(lines) >= 2 and all(map(_is_json_object, lines)):
        return "jsonl"
    if is_json_list(head):
        return "json"
    return "csv" if len(lines) >= 4 and looks_like_table(head) else None


def _is_json_object(line: str) -> bool:
    try:
        return line.lstrip()[:1] == "{" and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def first_look(name: str, head: bytes) -> str | None:
    """The hint for a plain text that begins with these bytes; ``None`` if it looks like one.

    Raises:
        CorpusError: JSON in a file that is called so, which is not text.
    """
    if b"\n" not in head and head.count(b"\r") > 1:
        return (
            f"{printable(name)}: lines end in carriage returns, so all of it is one document; "
            "convert the line ends first (tr '\\r' '\\n')"
        )
    start = head[: 1 << 16].decode(errors="replace")
    kind, is_called_json = looks_like(start), ".json" in name.lower()[-10:]
    if is_called_json and (kind in ("json", "jsonl") or start.lstrip()[:1] == "{"):
        what, remedy = {
            "jsonl": ("is JSON Lines by its content", "format='jsonl' reads its records"),
            "json": ("is a JSON list, which is not read", ONE_PER_LINE),
        }.get(kind or "", ("is a JSON object, which is not read", "write one object per document, each in one line"))
        raise CorpusError(f"{printable(name)}: {what}; {remedy}, and format='text' reads it as plain text")
    match kind:
        case "jsonl":
            return f"{printable(name)}: looks like JSON Lines but is read as plain text; format='jsonl' reads records"
        case "json":
            return f"{printable(name)}: looks like a JSON list but is read as plain text; {ONE_PER_LINE}"
        case "csv":
            return f"{printable(name)}: looks like a table but is read as plain text; format='csv' reads records"
    return None


def last_look(sources: Sequence[Source], reports: Sequence[SourceReport]) -> Iterator[str]:
    """The hints for plain texts that were read."""
    if len(reports) == 1 and reports[0].n_lines == 1 and reports[0].n_bytes > _LONG_LINE:
        yield (
            f"{printable(reports[0].name)}: all of it is one line, so it is one document; "
            "put each document on a line of its own"
        )
    found = [report for source, report in zip(sources, reports, strict=True) if source.folder is not None]
    n_lines = sum(report.n_lines for report in found)
    if len(found) >= _SEVERAL_FILES and len(found) < n_lines <= _FEW_LINES * len(found):
        yield (
            f"{len(found):,} files were read as {n_lines:,} documents, one per line; "
            "one_file_per_document=True makes each file one document"
        )
