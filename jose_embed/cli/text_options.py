"""The options of commands that read text: formats, columns, ids, malformed records, kept texts."""

from __future__ import annotations

import argparse
from typing import Any

from jose_embed.text.sources import FORMATS

__all__ = ["add_text_options", "text_settings"]

_READING = ("text_field", "id_field", "format", "on_error", "one_file_per_document")
_KEEPING = ("keep_text", "keep_fields")


def add_text_options(group: argparse._ActionsContainer, *, keeping: bool) -> None:
    """Declare the options that say how text is read.

    Args:
        group: The parser of a command, or a group of its options.
        keeping: Whether the command can keep texts and fields.
    """
    group.add_argument(
        "--text-field",
        type=_names,
        metavar="NAME[,NAME]",
        help="column of the text in CSV, TSV, JSON Lines and Parquet; several are joined (default: text, body or"
        " content, else the only column of long strings)",
    )
    group.add_argument("--id-field", metavar="NAME", help="column of the document ids (default: number the documents)")
    group.add_argument("--format", choices=FORMATS, help="format of all files (default: by their endings)")
    group.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        help="stop at malformed records, or skip and count them (default: stop)",
    )
    group.add_argument(
        "--one-file-per-document",
        action="store_true",
        default=None,
        help="each file is a document; its path is the id",
    )
    if keeping:
        group.add_argument(
            "--keep-text",
            action="store_true",
            default=None,
            help="store the texts in the model, for results to show",
        )
        group.add_argument(
            "--keep-fields",
            type=_names,
            metavar="NAME[,NAME]",
            help="store these columns in the model, too",
        )


def text_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, as :class:`~jose_embed.text.records.TextOptions` takes them."""
    given = {name: getattr(arguments, name, None) for name in (*_READING, *_KEEPING)}
    return {name: value for name, value in given.items() if value is not None}


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in text.split(","))))
