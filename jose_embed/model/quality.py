"""Figures of quality that belong to a model: ``quality.json`` in its directory.

The manifest and the files that it lists are never touched for them: a model keeps its id and its checksums whatever is
measured. The file names the model that it was measured on and counts only beside that one; overwriting a model takes
its figures away with it.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jose_embed.storage.atomic import atomic_file
from jose_embed.storage.directory import DirectoryReader
from jose_embed.storage.locks import held_directory
from jose_embed.storage.manifest import json_bytes

__all__ = ["QUALITY_NAME", "read_quality", "save_quality"]

QUALITY_NAME: Final = "quality.json"
FORMAT: Final = "jose-embed-evaluation"
FORMAT_VERSION: Final = 1
_LARGEST: Final = 16 << 20


def read_quality(path: str | os.PathLike[str], model_id: str) -> list[dict[str, Any]]:
    """The tables that were measured on a model, each with ``title``, ``rows`` and ``measured``.

    Args:
        path: The model's directory.
        model_id: The model's id; figures of another one are passed over.

    Raises:
        ModelError: the file is damaged or of a newer format.
    """
    if not os.path.lexists(os.path.join(path, QUALITY_NAME)):
        return []
    with DirectoryReader(path) as directory:
        advice = "remove it and evaluate again"
        try:
            value = json.loads(directory.read(QUALITY_NAME, largest=_LARGEST).decode("utf-8"))
        except (ValueError, RecursionError):
            raise directory.error(QUALITY_NAME, "is not JSON", advice) from None
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise directory.error(QUALITY_NAME, "holds no figures of a model", advice)
        if value.get("format_version") != FORMAT_VERSION:
            what = f"has another format version than {FORMAT_VERSION}, the one that this jose-embed reads"
            raise directory.error(QUALITY_NAME, what, "update jose-embed, or remove it and evaluate again")
        tables = value.get("tables")
        if not isinstance(tables, list) or not all(map(_is_table, tables)):
            raise directory.error(QUALITY_NAME, "holds tables that are none", advice)
    return tables if value.get("model") == model_id else []


def save_quality(path: str | os.PathLike[str], model_id: str, tables: Sequence[Mapping[str, Any]]) -> None:
    """Keep tables beside those that were measured before; one of the same title is replaced.

    Any number of evaluations may end at the same time: each waits for the one before, so that no table is lost.

    Args:
        path: The model's directory.
        model_id: The model's id.
        tables: Each with ``title``, ``rows`` and perhaps ``note``.

    Raises:
        ModelError: the directory cannot be written to; what is there is damaged.
        TrainingError: no room on the disk.
    """
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with held_directory(path):
        kept = {table["title"]: table for table in read_quality(path, model_id)}
        kept |= {table["title"]: {**table, "measured": now} for table in tables}
        value = {"format": FORMAT, "format_version": FORMAT_VERSION, "model": model_id, "tables": list(kept.values())}
        with atomic_file(Path(path) / QUALITY_NAME, overwrite=True) as write:
            write(json_bytes(value, QUALITY_NAME))


def _is_table(table: Any) -> bool:
    return (
        isinstance(table, dict)
        and isinstance(table.get("title"), str)
        and isinstance(table.get("measured"), str)
        and isinstance(table.get("rows"), list)
        and all(isinstance(row, dict) for row in table["rows"])
    )
