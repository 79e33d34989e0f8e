"""``jose export``: write vectors or models for other programs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jose_embed.cli.command import Command, add_model, add_number, add_quiet, reporter_of
from jose_embed.progress import amount_text
from jose_embed.text.sources import printable

# The formats and the endings of their files or folders.
_FORMATS = {
    "word2vec": ".vec", "word2vec-binary": ".bin", "safetensors": ".safetensors", "csv": ".csv", "jsonl": ".jsonl",
    "parquet": ".parquet", "npy": ".npy", "sentence-transformers": "-sentence-transformers", "model2vec": "-model2vec",
    "onnx": ".onnx", "jose": "-small.jose",
}  # fmt: skip
_FOLDERS = ("sentence-transformers", "model2vec")
_WHOLE_MODELS = (*_FOLDERS, "onnx", "jose")


def _configure(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="PATH",
        help="the file or folder to write (default: corpus.vec for corpus.jose)",
    )
    parser.add_argument(
        "--format",
        choices=_FORMATS,
        help="the format (default: by the ending of --output, else word2vec); sentence-transformers and model2vec are"
        " folders from which these libraries make document vectors, onnx is a file that does so in an ONNX"
        " runtime, jose is a model",
    )
    add_number(parser, "--dim", "numbers in each vector: the first N principal axes")
    add_number(parser, "--words", "the N most frequent words only")
    parser.add_argument(
        "--int8", action="store_true", help="a byte for each number, in safetensors: directions, to be scaled to norm 1"
    )
    parser.add_argument(
        "--table",
        choices=("center", "context", "documents"),
        default="center",
        help="the vectors to write: of words (center), the second vector of each word, for its role as a neighbor in"
        " training (context), or of documents (default: center)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    add_quiet(parser)


def _run(arguments: argparse.Namespace) -> None:
    format = arguments.format
    if format is None and arguments.output is None:
        format = "word2vec"
    elif format is None and arguments.output.suffix.lower() in (".onnx", ".jose"):
        format = arguments.output.suffix.lower()[1:]
    output: Path = arguments.output or Path(f"{Path(arguments.model).resolve().stem}{_FORMATS[format]}")

    from jose_embed.adapters.onnx import export_onnx
    from jose_embed.adapters.static import export_static
    from jose_embed.errors import ConfigError
    from jose_embed.model.embeddings import load
    from jose_embed.model.exchange import export
    from jose_embed.model.parts import PHRASES
    from jose_embed.model.smaller import smaller
    from jose_embed.storage.atomic import check_output

    if format in _WHOLE_MODELS and arguments.table != "center":
        raise ConfigError(f"table={arguments.table!r} does not fit format={format!r}, which holds words; leave it out")
    if arguments.int8 and format in _WHOLE_MODELS:
        raise ConfigError(f"int8 does not fit format={format!r}; write a file .safetensors, or leave it out")
    check_output(output, [], [arguments.model])
    model = load(arguments.model)
    if arguments.dim or arguments.words:
        model = smaller(model, dim=arguments.dim, words=arguments.words)
    if model.subwords is not None and format != "jose" and arguments.table == "center":
        note = "the vectors of n-grams are left out, which only a model holds: unknown words stay unknown there"
        print(note, file=sys.stderr)
    if format == "jose":
        model.save(output, overwrite=arguments.overwrite)
        if not arguments.quiet:
            print(f"{output}: {model.n_words:,} words and {model.n_docs:,} documents of {model.dim} numbers")
        return
    if format in _FOLDERS:
        export_static(model, output, format=format, overwrite=arguments.overwrite)
        if not arguments.quiet:
            print(f"{output}: {model.n_words:,} vectors of {model.dim} numbers and a tokenizer")
        return
    if format == "onnx":
        export_onnx(model, output, overwrite=arguments.overwrite)
        if not arguments.quiet:
            print(f"{output}: words separated by spaces to vectors of {model.dim} numbers, {_size(output)}")
            if PHRASES in model.extra_json:
                print("It does not join phrases: its input must have them as one word, such as new_york (phrases.json)")
        return
    with reporter_of(arguments) as reporter:
        export(
            model,
            output,
            format=format,
            table=arguments.table,
            int8=arguments.int8,
            overwrite=arguments.overwrite,
            reporter=reporter,
        )
    if not arguments.quiet:
        rows = model.n_docs if arguments.table == "documents" else model.n_words
        print(f"{output}: {rows:,} vectors of {model.dim} numbers, {_size(output)}")
        if arguments.table == "documents" and (unknown := ~model.known_documents).any():
            first = printable(str(model.doc_ids[int(unknown.argmax())]))
            print(f"{int(unknown.sum()):,} of them hold no word of the model: ignore their rows (first: {first})")


def _size(path: Path) -> str:
    return amount_text(path.stat().st_size, "bytes")


EXPORT = Command(
    name="export",
    summary="Write vectors for other programs: word2vec, safetensors, CSV, JSON Lines, Parquet, npy, model2vec, ONNX.",
    configure=_configure,
    run=_run,
    examples=(
        "jose export corpus.jose                         writes corpus.vec",
        "jose export corpus.jose --table documents -o documents.parquet",
        "jose export corpus.jose --format model2vec      writes the folder corpus-model2vec",
        "jose export corpus.jose -o small.jose --dim 64 --words 50000",
    ),
)
