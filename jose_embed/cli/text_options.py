"""The options of commands that read text: formats, columns, ids, malformed records, kept texts."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jose_embed.cli.command import reporter_of
from jose_embed.errors import ConfigError
from jose_embed.text.sources import FORMATS

if TYPE_CHECKING:
    from jose_embed.model.embeddings import Embeddings
    from jose_embed.text.records import TextOptions

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


def options_as_trained(arguments: argparse.Namespace, model: Embeddings) -> TextOptions:
    """The options that were given; columns that are not named are those of the training, where a table has them."""
    from jose_embed.text.records import Columns, TextOptions

    facts = model.manifest["corpus"]
    usual = None
    with contextlib.suppress(ConfigError):  # a model of other software
        found = TextOptions(text_field=facts.get("text_field", ()), id_field=facts.get("id_field"))
        usual = Columns(found.text_field, found.id_field)
    return TextOptions(**text_settings(arguments), usual=usual)


def read_documents(
    files: Sequence[str], arguments: argparse.Namespace, model: Embeddings
) -> tuple[list[str], list[str]]:
    """The ids and the texts of new documents, read as the text options say; notes go to standard error."""
    from jose_embed.text.reader import BlockReader, complaints
    from jose_embed.text.sources import find_sources

    ids: list[str] = []
    texts: list[str] = []
    with reporter_of(arguments) as reporter:
        sources, options = find_sources(files, reporter.note), options_as_trained(arguments, model)
        with BlockReader(sources, whole_lines=True, options=options, with_ids=True) as blocks:
            for block in blocks:
                assert block.records is not None
                ids += block.records.ids or ()
                texts += block.data.decode().split("\n")[:-1]
        for message in [*blocks.notes, *complaints(blocks.reports)]:
            reporter.note(message)
    return ids, texts


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in text.split(","))))
