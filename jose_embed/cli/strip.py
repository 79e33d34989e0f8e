"""``jose strip``: a model without the texts of its documents and the counts of rare words."""

from __future__ import annotations

import argparse
from pathlib import Path

from jose_embed.cli.command import Command, add_model, add_quiet, nothing_written, reporter_of
from jose_embed.progress import amount_text


def _configure(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="the model directory to write (default: replace MODEL)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing model at --output")
    add_quiet(parser)


def _run(arguments: argparse.Namespace) -> None:
    from jose_embed.model.embeddings import load
    from jose_embed.model.parts import RARE_COUNTS
    from jose_embed.model.quality import copied_quality
    from jose_embed.text.texts import TEXTS_NAME

    model = load(arguments.model)
    files = model.manifest["files"]
    size = sum(files[name]["bytes"] for name in (TEXTS_NAME, f"{RARE_COUNTS}.npy") if name in files)
    if not size and arguments.output is None:
        print(f"{arguments.model}: holds no texts of documents and no counts of rare words; nothing to do")
        return
    output = arguments.output or Path(arguments.model)
    with nothing_written(), reporter_of(arguments) as reporter, copied_quality(arguments.model, output):
        model.without_texts().save(output, overwrite=arguments.overwrite or arguments.output is None, reporter=reporter)
    if not arguments.quiet:
        less = f"{amount_text(size, 'bytes')} less" if size else "it held none"
        less = f"without texts and fields of documents and counts of rare words ({less})"
        print(f"{output}: the same model {less}")


STRIP = Command(
    name="strip",
    summary="Take texts and fields of documents, and counts of rare words, out of a model.",
    configure=_configure,
    run=_run,
    examples=(
        "jose strip corpus.jose                          replaces corpus.jose",
        "jose strip corpus.jose -o public.jose           leaves corpus.jose as it is",
    ),
)
