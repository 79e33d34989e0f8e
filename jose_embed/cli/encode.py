"""``jose encode``: from text files to an encoded corpus, for any number of trainings."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import time
from typing import Any

from jose_embed.cli.command import Command, add_log_json, add_quiet, default_output
from jose_embed.config import TrainConfig
from jose_embed.progress import amount_text, duration_text, log_event, reporter_for

__all__ = ["ENCODE"]


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="TEXT",
        help="files, globs, directories or -, as for jose-train; a line is a document",
    )
    parser.add_argument(
        "-o", "--output", metavar="DIR", help="the directory to write (default: corpus.encoded for corpus.txt)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the encoding of another text that is there")
    for option in dataclasses.fields(TrainConfig):
        if option.name in ("tokenizer", "min_count"):
            kind: type = type(option.default)
            parser.add_argument(
                f"--{option.name.replace('_', '-')}",
                type=kind,
                default=option.default,
                metavar="N" if kind is int else "NAME",
                help=f"{option.metadata['help']} (default: {option.default})",
            )
    add_quiet(parser)
    add_log_json(parser)


def _run(arguments: argparse.Namespace) -> None:
    config = TrainConfig(tokenizer=arguments.tokenizer, min_count=arguments.min_count)
    output = arguments.output if arguments.output is not None else str(default_output(arguments.sources, ".encoded"))

    from jose_embed.text.kept import kept_encoding

    started = time.monotonic()
    try:
        with reporter_for(quiet=arguments.quiet, log_json=arguments.log_json) as reporter:
            corpus = kept_encoding(
                arguments.sources,
                output,
                tokenizer=config.tokenizer,
                min_count=config.min_count,
                overwrite=arguments.overwrite,
                reporter=reporter,
            )
    except KeyboardInterrupt as stop:
        stop.add_note("(nothing was written)")
        raise
    with corpus:
        if arguments.quiet:
            return
        seconds = time.monotonic() - started
        if arguments.log_json:
            counts = {"n_documents": corpus.n_documents, "n_tokens": corpus.n_tokens, "n_words": len(corpus.vocabulary)}
            about = corpus.statistics.to_dict()
            log_event("summary", output=output, counts=counts, corpus=about, seconds=seconds)
        else:
            print("\n".join(_summary(corpus, output, seconds)))


def _summary(corpus: Any, output: str, seconds: float) -> list[str]:
    statistics, vocabulary = corpus.statistics, corpus.vocabulary
    size = sum(entry.stat().st_size for entry in os.scandir(output))
    rows = {
        "documents": f"{statistics.n_documents:,} ({statistics.n_empty:,} empty)",
        "tokens": f"{statistics.n_tokens_seen:,}, of which {vocabulary.n_tokens:,} are kept",
        "vocabulary": f"{vocabulary.n_words:,} of {statistics.n_words_seen:,} words"
        f" (those that occur {corpus.min_count:,} times or more)",
        "time": duration_text(seconds),
        "encoding": f"{output} ({amount_text(size, 'bytes')})",
    }
    lines = [f"{name:<11} {value}" for name, value in rows.items()]
    return ["", *lines, "", f"Next: jose-train {shlex.quote(output)}"]


ENCODE = Command(
    name="encode",
    summary="Read text once, for any number of trainings.",
    configure=_configure,
    run=_run,
    examples=(
        "jose encode corpus.txt                              writes corpus.encoded; again where the text has changed",
        "jose encode 'news/*.txt.gz' -o news.encoded --min-count 10",
        "jose-train corpus.encoded --dim 200",
    ),
)
