"""``jose import``: a model of the word vectors of another program."""

from __future__ import annotations

import argparse
from pathlib import Path

from jose_embed.cli.command import Command, add_quiet, nothing_written, reporter_of

_FORMATS = ("word2vec", "word2vec-binary", "safetensors", "npy", "static")


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "vectors",
        metavar="FILE",
        help="word2vec text or binary, GloVe, fastText .vec, safetensors, .npy, or the folder of a static model of"
        " sentence-transformers or model2vec",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="the model directory to write (default: NAME.jose for NAME.vec)",
    )
    parser.add_argument("--format", choices=_FORMATS, help="the format of FILE (default: by its ending)")
    parser.add_argument(
        "--words",
        metavar="FILE",
        help="the words of the rows, a line each or a JSON list, for .npy and for safetensors without names; for a"
        " folder, words to make from its sub-words",
    )
    parser.add_argument(
        "--counts",
        metavar="FILE",
        help="a word, a tab and its count per line (default: by Zipf's law from the order of the rows)",
    )
    parser.add_argument(
        "--weights",
        metavar="HOW",
        help="weights of words in texts: counts (rare words count more), norms (the norms of the rows), equal, or a"
        " file with a word, a tab and its weight per line (default: norms for folders, else counts)",
    )
    parser.add_argument(
        "--tokenizer", default="words", metavar="NAME", help="how texts are split, as for jose-train (default: words)"
    )
    parser.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="stop at rows of zeros and repeated words, or skip and count them (default: stop)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing model")
    add_quiet(parser)


def _run(arguments: argparse.Namespace) -> None:
    source = Path(arguments.vectors)
    output: Path = arguments.output or Path(f"{source.resolve().stem}.jose")

    from jose_embed.adapters.importing import import_vectors
    from jose_embed.model.files import check_model_target
    from jose_embed.storage.atomic import check_output

    files = [name for name in (arguments.words, arguments.counts) if name is not None]
    check_output(output, [source, *files], [source] if source.is_dir() else [])
    check_model_target(output, overwrite=arguments.overwrite)
    with nothing_written(), reporter_of(arguments) as reporter:
        model = import_vectors(
            source,
            format=arguments.format,
            words=arguments.words,
            counts=arguments.counts,
            weights=arguments.weights,
            tokenizer=arguments.tokenizer,
            on_error=arguments.on_error,
            reporter=reporter,
        )
        model.save(output, overwrite=arguments.overwrite, reporter=reporter)
    if not arguments.quiet:
        print(f"{output}: {model.n_words:,} words of {model.dim} numbers, no documents")


IMPORT = Command(
    name="import",
    summary="Make a model of word vectors of other programs: word2vec, GloVe, fastText, NumPy, static models.",
    configure=_configure,
    run=_run,
    examples=(
        "jose import glove.6B.100d.txt                   writes glove.6B.100d.jose",
        "jose import vectors.npy --words words.txt -o vectors.jose",
        "jose import potion-base-8M/ -o potion.jose      a folder of model2vec",
    ),
)
