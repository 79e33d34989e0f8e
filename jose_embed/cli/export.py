"""``jose export``: a model's vectors as a file for another program."""

from __future__ import annotations

import argparse
from pathlib import Path

from jose_embed.cli.command import Command, add_model, add_quiet
from jose_embed.errors import ConfigError
from jose_embed.progress import amount_text, reporter_for
from jose_embed.text.sources import printable

__all__ = ["EXPORT"]

# As users know them: what formats.py calls them, and the ending of a file that nobody named.
_FORMATS = {
    "word2vec": ("text", ".vec"),
    "word2vec-binary": ("binary", ".bin"),
    "safetensors": ("safetensors", ".safetensors"),
}


def _configure(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--format", choices=_FORMATS, help="the file's format (default: by the ending of --output)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the file to write (default: the model's name, here)"
    )
    parser.add_argument(
        "--table",
        choices=("center", "context", "documents"),
        default="center",
        help="which vectors: of words as centers, of words as contexts, of documents (default: center)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file that is there")
    add_quiet(parser)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.format is None and arguments.output is None:
        known = ", ".join(_FORMATS)
        raise ConfigError(f"no format was named; give --format ({known}) or an --output with the ending of one")
    format, ending = _FORMATS.get(arguments.format, (None, ""))
    output: Path = arguments.output or Path(f"{Path(arguments.model).resolve().stem}{ending}")

    from jose_embed.model.embeddings import load
    from jose_embed.model.exchange import export
    from jose_embed.storage.atomic import check_output

    check_output(output, [], [arguments.model])
    model = load(arguments.model)
    with reporter_for(quiet=arguments.quiet) as reporter:
        export(model, output, format=format, table=arguments.table, overwrite=arguments.overwrite, reporter=reporter)
    if not arguments.quiet:
        rows = model.n_docs if arguments.table == "documents" else model.n_words
        print(f"{output}: {rows:,} vectors of {model.dim} numbers, {amount_text(output.stat().st_size, 'bytes')}")
        if arguments.table == "documents" and (silent := ~model.known_documents).any():
            first = printable(str(model.doc_ids[int(silent.argmax())]))
            print(f"documents without a known word, whose vectors say nothing: {int(silent.sum()):,} (first {first})")


EXPORT = Command(
    name="export",
    summary="Write the vectors for other programs: word2vec text or binary, safetensors.",
    configure=_configure,
    run=_run,
    examples=(
        "jose export corpus.jose --format word2vec           writes corpus.vec",
        "jose export corpus.jose --table documents -o documents.safetensors",
    ),
)
