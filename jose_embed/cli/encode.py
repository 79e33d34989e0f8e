"""``jose encode``: encode text files once for several trainings."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import time

from jose_embed.cli.command import (
    Command,
    add_log_json,
    add_quiet,
    default_output,
    nothing_written,
    option_of,
    print_rows,
    reporter_of,
    setting_arguments,
    text_facts,
    text_rows,
)
from jose_embed.cli.text_options import add_text_options, text_settings
from jose_embed.config import TEXT_SETTINGS, TrainConfig
from jose_embed.progress import amount_text, duration_text, log_event


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources", nargs="+", metavar="TEXT", help="text with one document per line: files, globs, directories or -"
    )
    parser.add_argument(
        "-o", "--output", metavar="DIR", help="the directory to write (default: corpus.encoded for corpus.txt)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the encoding of another text")
    for setting in dataclasses.fields(TrainConfig):
        if setting.name in TEXT_SETTINGS:
            parser.add_argument(
                option_of(setting.name), default=setting.default, **setting_arguments(setting, type(setting.default))
            )
    add_text_options(parser, keeping=True)
    add_quiet(parser)
    add_log_json(parser)


def _run(arguments: argparse.Namespace) -> None:
    config = TrainConfig.from_dict({name: getattr(arguments, name) for name in TEXT_SETTINGS})
    output = arguments.output if arguments.output is not None else str(default_output(arguments.sources, ".encoded"))

    from jose_embed.text.kept import encoding_settings, kept_encoding
    from jose_embed.text.records import TextOptions

    started = time.monotonic()
    with nothing_written(), reporter_of(arguments) as reporter:
        corpus = kept_encoding(
            arguments.sources,
            output,
            **encoding_settings(config),
            overwrite=arguments.overwrite,
            reporter=reporter,
            options=TextOptions(**text_settings(arguments)),
        )
    with corpus:
        seconds = time.monotonic() - started
        if arguments.log_json and not arguments.quiet:
            log_event("summary", output=output, **text_facts(corpus), seconds=seconds)
        elif not arguments.quiet:
            size = sum(entry.stat().st_size for entry in os.scandir(output))
            print()
            encoding = f"{output} ({amount_text(size, 'bytes')})"
            print_rows({**text_rows(corpus), "time": duration_text(seconds), "encoding": encoding})
            print(f"\nNext: jose-train {shlex.quote(output)}")


ENCODE = Command(
    name="encode",
    summary="Turn text into word numbers once, so that several trainings need not read it again.",
    configure=_configure,
    run=_run,
    examples=(
        "jose encode corpus.txt             writes corpus.encoded, if the text has changed",
        "jose encode 'news/*.txt.gz' -o news.encoded --min-count 10",
        "jose-train corpus.encoded --dim 200",
    ),
)
