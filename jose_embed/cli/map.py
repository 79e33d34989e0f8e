"""``jose map``: the documents of a model as a map in one HTML file."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from jose_embed.cli.command import Command, add_model, add_number, add_quiet, nothing_written, reporter_of
from jose_embed.errors import ConfigError, whole_number
from jose_embed.progress import amount_text


def _configure(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the HTML file (default: corpus.html for corpus.jose)"
    )
    parser.add_argument("--png", type=Path, metavar="FILE", help="also write a picture: .png, .pdf or .svg")
    parser.add_argument("--title", metavar="TEXT", help="title of the page (default: the name of the model)")
    add_number(parser, "-k", "number of topics, at most 250 (default: found)")
    parser.add_argument(
        "--labels",
        metavar="FILE",
        nargs="+",
        default=[],
        help="files with one line for each document, by which points can be coloured",
    )
    parser.add_argument(
        "--text-length",
        type=int,
        default=2000,
        metavar="N",
        help="characters of each kept text in the file; 0 leaves the texts out (default: 2000)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of layout and topics (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_quiet(parser)


def _run(arguments: argparse.Namespace) -> None:
    output: Path = arguments.output or Path(f"{Path(arguments.model).resolve().stem}.html")
    whole_number("text_length", arguments.text_length, 0)

    from jose_embed.cli.query import labels_of_all
    from jose_embed.model.embeddings import load
    from jose_embed.storage.atomic import atomic_file, check_output

    for path in filter(None, (output, arguments.png)):
        check_output(path, arguments.labels, [arguments.model])
    if arguments.png is not None and arguments.png.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise ConfigError(f"{arguments.png}: the ending of a picture is one of .pdf, .png, .svg")
    model = load(arguments.model)
    fields = {"label": labels_of_all(arguments.labels, model.n_docs)} if arguments.labels else {}
    with nothing_written(), contextlib.ExitStack() as stack:
        write = stack.enter_context(atomic_file(output, overwrite=arguments.overwrite))
        reporter = stack.enter_context(reporter_of(arguments))
        reporter.note("loading the libraries of the map")  # takes seconds, and is only done if the file can be written
        from jose_embed.analysis.map import map

        made = map(model, n_topics=arguments.k, fields=fields, seed=arguments.seed, reporter=reporter)
        for piece in made.pieces(title=arguments.title, text_length=arguments.text_length, reporter=reporter):
            write(piece)
        if arguments.png is not None:
            made.picture(arguments.png, title=arguments.title, overwrite=arguments.overwrite)
    if not arguments.quiet:
        size = amount_text(output.stat().st_size, "bytes")
        print(f"{output}: {len(made.rows):,} documents, {len(made.topics)} topics, {size}; open it in a browser")
        print(f"  of the ten nearest documents of each, {made.kept:.0%} are among its ten nearest on the map")
        if model.has_texts and arguments.text_length:
            print(f"  it contains {arguments.text_length:,} characters of each text; --text-length 0 leaves them out")
        if arguments.png is not None:
            print(f"{arguments.png}: a picture")


MAP = Command(
    name="map",
    summary="Draw the documents as a map in one HTML file that asks no network.",
    configure=_configure,
    run=_run,
    examples=(
        "jose map corpus.jose                               writes corpus.html",
        "jose map corpus.jose -o map.html --labels labels.txt",
        "jose map corpus.jose --png map.png                 also a picture",
    ),
)
