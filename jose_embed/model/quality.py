"""Figures of quality that were measured on a model: ``quality.json`` in its directory.

The manifest and the files that it lists do not change: a model keeps its id and its checksums. The file names the model
by its id and is ignored beside another one. Overwriting a model removes its figures.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jose_embed.errors import ModelError
from jose_embed.storage.atomic import atomic_file, reason
from jose_embed.storage.directory import DirectoryKind, DirectoryReader
from jose_embed.storage.locks import held_directory
from jose_embed.storage.manifest import TEXT, Rule, json_bytes, now, read_manifest

QUALITY_NAME: Final = "quality.json"
_KIND: Final = DirectoryKind(
    noun="table of figures",
    made="evaluate the model (jose eval)",
    advice="remove it and evaluate again",
    error=ModelError,
    format="jose-embed-evaluation",
    version=1,
    manifest=QUALITY_NAME,
)


def _is_table(table: Any) -> bool:
    return (
        isinstance(table, dict)
        and isinstance(table.get("title"), str)
        and isinstance(table.get("measured"), str)
        and isinstance(table.get("rows"), list)
        and all(isinstance(row, dict) for row in table["rows"])
    )


_FIELDS: Final = {
    "model": TEXT,
    "tables": Rule(lambda value: isinstance(value, list) and all(map(_is_table, value)), "a list of tables"),
}


def read_quality(path: str | os.PathLike[str], model_id: str) -> list[dict[str, Any]]:
    """The tables that were measured on a model, each with ``title``, ``rows`` and ``measured``.

    Args:
        path: The model's directory.
        model_id: The model's id; figures of another model are ignored.

    Raises:
        ModelError: the file is damaged or of a newer format.
    """
    if not os.path.lexists(os.path.join(path, QUALITY_NAME)):
        return []
    with DirectoryReader(path, _KIND) as directory:
        newer = "update jose-embed, or remove it and evaluate again"
        found = read_manifest(directory, _FIELDS, has_files=False, newer=newer)
    tables: list[dict[str, Any]] = found["tables"] if found["model"] == model_id else []
    return tables


def save_quality(path: str | os.PathLike[str], model_id: str, tables: Sequence[Mapping[str, Any]]) -> None:
    """Add tables to those that were measured before; a table replaces one of the same title.

    Processes that end at the same time wait for each other, so that no table is lost.

    Args:
        path: The model's directory.
        model_id: The model's id.
        tables: Each with ``title``, ``rows`` and perhaps ``note``.

    Raises:
        ModelError: the directory cannot be written to; what is there is damaged.
        TrainingError: no room on the disk.
    """
    measured = now()
    with held_directory(path):
        kept = {table["title"]: table for table in read_quality(path, model_id)}
        kept |= {table["title"]: {**table, "measured": measured} for table in tables}
        head = {"format": _KIND.format, "format_version": _KIND.version}
        with atomic_file(Path(path) / QUALITY_NAME, overwrite=True) as write:
            write(json_bytes({**head, "model": model_id, "tables": list(kept.values())}, QUALITY_NAME))


@contextlib.contextmanager
def copied_quality(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Iterator[None]:
    """A context that writes a model with the same id; the figures of the old one are written beside it at the end.

    Args:
        source: The directory of the old model.
        target: The directory of the new model, which may replace the old one.

    Raises:
        ModelError: the file cannot be read or written.
    """
    path = os.path.join(source, QUALITY_NAME)
    try:
        data = Path(path).read_bytes() if os.path.lexists(path) else None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({reason(error)}); remove it first") from error
    yield
    if data is not None:
        with atomic_file(os.path.join(target, QUALITY_NAME), overwrite=True) as write:
            write(data)
