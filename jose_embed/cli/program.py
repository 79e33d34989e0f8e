"""The programs ``jose`` and ``jose-train``: the list of commands.

A new command is one :class:`~jose_embed.cli.command.Command` in :data:`COMMANDS`. The modules imported here must not
import NumPy, Numba or other slow modules, so that ``--help`` is fast; commands import those when they run.
"""

from __future__ import annotations

from collections.abc import Sequence

from jose_embed.cli.classify import CLASSIFY
from jose_embed.cli.command import Command, Parser, add_version, run
from jose_embed.cli.compare import COMPARE
from jose_embed.cli.embed import EMBED
from jose_embed.cli.encode import ENCODE
from jose_embed.cli.evaluate import EVAL
from jose_embed.cli.export import EXPORT
from jose_embed.cli.importing import IMPORT
from jose_embed.cli.map import MAP
from jose_embed.cli.query import DOCUMENTS, INFO, SIMILAR, WORDS
from jose_embed.cli.search import SEARCH
from jose_embed.cli.strip import STRIP
from jose_embed.cli.topics import NEAR_DUPLICATES, TOPICS
from jose_embed.cli.train import TRAIN

COMMANDS: tuple[Command, ...] = (
    TRAIN, ENCODE, SIMILAR, WORDS, DOCUMENTS, SEARCH, TOPICS, MAP, NEAR_DUPLICATES, CLASSIFY, INFO, STRIP, EMBED,
    IMPORT, EXPORT, EVAL, COMPARE,
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """The program ``jose``: ``jose COMMAND ...``; returns its exit status."""
    parser = Parser(
        prog="jose",
        description="Train, query and export word and document vectors on the unit sphere.",
        epilog="Run jose COMMAND --help for the options and examples of a command.",
    )
    add_version(parser)
    parser.set_defaults(run=lambda _: parser.print_help(), options=frozenset())
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    for command in COMMANDS:
        command.declare(commands.add_parser(command.name, help=command.summary, **command.texts()))
    return run(parser, arguments)


def train_main(arguments: Sequence[str] | None = None) -> int:
    """The program ``jose-train``; returns its exit status."""
    parser = Parser(prog="jose-train", **TRAIN.texts())
    add_version(parser)
    TRAIN.declare(parser)
    return run(parser, arguments)
