"""``jose embed``: infer a vector for each line of a text."""

from __future__ import annotations

import argparse
import struct
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from jose_embed.cli.command import (
    Command,
    add_log_json,
    add_model,
    add_number,
    add_quiet,
    nothing_written,
    reporter_of,
)
from jose_embed.cli.engine_options import add_cluster_options
from jose_embed.cli.text_options import add_text_options, options_as_trained
from jose_embed.config import available_workers
from jose_embed.errors import ConfigError
from jose_embed.progress import Reporter, amount_text, duration_text, log_event

if TYPE_CHECKING:
    from jose_embed.model.embeddings import Embeddings
    from jose_embed.model.line_vectors import LineVectors
    from jose_embed.storage.atomic import FileWriter
    from jose_embed.text.reader import Block

_LINES_NAMED = 5


def _configure(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("sources", nargs="+", metavar="TEXT", help="files, globs, directories or -, as for jose-train")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=_place,
        metavar="FILE",
        help="the file to write: .npy (vectors only), .csv, .jsonl or .parquet (ids and vectors); with --engine ray a"
        " folder, also s3://..., of a Parquet file for each file of text",
    )
    parser.add_argument(
        "--details", type=Path, metavar="FILE", help="also write a table: id, words, known words and coverage of a line"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_number(parser, "--workers", "threads (default: all cores)")
    parser.add_argument(
        "--backend",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="use the CPU, an NVIDIA GPU, or the GPU if there is one; the vectors are the same (default: auto)",
    )
    add_text_options(parser, keeping=False)
    add_cluster_options(parser)
    add_quiet(parser)
    add_log_json(parser)


def _place(text: str) -> Path | str:
    """A path, or a URI as it is."""
    return text if "://" in text else Path(text)


def _run_on_ray(arguments: argparse.Namespace, model: Embeddings) -> None:
    """Embed on the machines of a Ray cluster."""
    from jose_embed.distributed.embedding import embed_on_ray

    started = time.monotonic()
    with reporter_of(arguments) as reporter:
        found = embed_on_ray(
            model,
            arguments.sources,
            str(arguments.output),
            reporter=reporter,
            options=options_as_trained(arguments, model),
            address=arguments.address,
            overwrite=arguments.overwrite,
        )
    seconds = time.monotonic() - started
    if arguments.log_json and not arguments.quiet:
        log_event("summary", output=str(arguments.output), model=model.id, counts=vars(found), seconds=seconds)
    elif not arguments.quiet:
        print(
            f"{str(arguments.output).partition('?')[0]}: {found.n_files:,} files, {found.n_lines:,} vectors of "
            f"{model.dim} numbers, {found.n_without:,} without a known word, in {duration_text(seconds)}"
        )


def _run(arguments: argparse.Namespace) -> None:
    output, details = arguments.output, arguments.details
    if arguments.engine == "ray":
        from jose_embed.model.embeddings import load

        if details is not None or arguments.workers is not None:
            raise ConfigError("--details and --workers belong to a single machine; leave them out with --engine ray")
        if str(output).endswith((".npy", ".csv", ".jsonl")):
            raise ConfigError(f"{output}: with --engine ray the output is a folder of Parquet files; name a folder")
        _run_on_ray(arguments, load(arguments.model))
        return
    if arguments.address is not None or isinstance(output, str):
        what = "--address" if arguments.address is not None else f"--output {output.partition('?')[0]}"
        raise ConfigError(f"{what} needs a cluster; add --engine ray, or leave it out")
    if details is not None and details.resolve() == output.resolve():
        raise ConfigError(f"{output}: --output and --details cannot share a file; name two")

    from jose_embed.compute.backends import check_backend
    from jose_embed.model.embeddings import load
    from jose_embed.model.vector_files import VECTOR_FORMATS, vector_format_of
    from jose_embed.storage.atomic import atomic_file, check_output
    from jose_embed.text.sources import find_sources

    if output.suffix and vector_format_of(output) is None:
        endings = ", ".join(VECTOR_FORMATS)
        raise ConfigError(f"{output}: no format has the ending {output.suffix!r}; use one of {endings}")
    for written in filter(None, (output, details)):
        check_output(written, [source.path or "-" for source in find_sources(arguments.sources)], [arguments.model])
    check_backend(arguments.backend)
    model = load(arguments.model)
    started = time.monotonic()
    with nothing_written(), ExitStack() as stack:
        reporter = stack.enter_context(reporter_of(arguments))
        # Files that cannot be written are refused here, before any work; they appear when everything is done.
        write_vectors = stack.enter_context(atomic_file(output, overwrite=arguments.overwrite))
        write_details = None
        if details is not None:
            write_details = stack.enter_context(atomic_file(details, overwrite=arguments.overwrite))
        tally = stack.enter_context(_Tally(output.resolve().parent, kept=details is not None))
        _infer(model, arguments, tally, write_vectors, reporter)
        if write_details is not None:
            reporter.start("saving", tally.n_lines, "lines")
            for number, piece in tally.details_file():
                write_details(piece)
                reporter.advance(number)
            reporter.finish()
    if not arguments.quiet:
        _print_summary(arguments, model, tally, time.monotonic() - started)


def _print_summary(arguments: argparse.Namespace, model: Embeddings, tally: _Tally, seconds: float) -> None:
    output = arguments.output
    if arguments.log_json:
        counts = {"n_lines": tally.n_lines, "n_tokens": tally.n_tokens, "n_known": tally.n_known}
        counts |= {"n_without_known_word": tally.n_flagged, "dim": model.dim}
        log_event("summary", output=str(output), model=model.id, counts=counts, seconds=seconds)
        return
    size = amount_text(output.stat().st_size, "bytes")
    print(f"{output}: {tally.n_lines:,} vectors of {model.dim} numbers, {size}, in {duration_text(seconds)}")
    share = _share(tally.n_known, tally.n_tokens)
    print(f"{tally.n_known:,} of {tally.n_tokens:,} words are in the vocabulary ({share:.1%})")


def _infer(
    model: Embeddings, arguments: argparse.Namespace, tally: _Tally, write: FileWriter, reporter: Reporter
) -> None:
    """Write the vectors of all documents, and note those without a known word."""
    from jose_embed.model.line_vectors import line_vectors
    from jose_embed.model.vector_files import vector_file, vector_format_of
    from jose_embed.text.reader import BlockReader, complaints
    from jose_embed.text.sources import find_sources

    options = options_as_trained(arguments, model)
    sources = find_sources(arguments.sources, reporter.note)
    file = vector_file(vector_format_of(arguments.output) or "npy", write, model.dim)
    ids: deque[list[str]] = deque()  # of blocks that are under way
    with BlockReader(sources, whole_lines=True, options=options, with_ids=True) as reader:

        def blocks() -> Iterator[Block]:
            for block in reader:
                assert block.records is not None
                ids.append(block.records.ids or [])
                yield block

        reporter.start("inferring", reader.total, "bytes")
        consumed = 0
        workers = arguments.workers or available_workers()
        for lines in line_vectors(model.encoder, blocks(), workers=workers, backend=arguments.backend):
            while reader.notes:
                reporter.note(reader.notes.pop(0))
            consumed += lines.consumed
            write.share = consumed / reader.total if reader.total else 0.0
            lines_ids = ids.popleft()
            file.add(lines_ids, lines.vectors)
            tally.add(lines, lines_ids)
            coverage = _share(tally.n_known, tally.n_tokens)
            reporter.advance(lines.consumed, documents=tally.n_lines, coverage=coverage)
        file.finish()
        reporter.finish()
    for message in [*reader.notes, *complaints(reader.reports)]:
        reporter.note(message)
    if tally.n_flagged:
        named = ", ".join(tally.flagged) + (", ..." if tally.n_flagged > len(tally.flagged) else "")
        lines_hold = "line holds" if tally.n_flagged == 1 else "lines hold"
        instead = (
            "all of them got the same stand-in, the mean direction of the training text"
            if model.subwords is None
            else "their vectors are composed of n-grams"
        )
        reporter.note(
            f"{tally.n_flagged:,} {lines_hold} no word that the model knows ({named}); {instead};"
            " --details marks them by coverage 0"
        )


class _Tally:
    """Counts of the lines: sums, and the counts of each line in a temporary file if they are kept.

    Args:
        directory: Directory of the temporary file.
        kept: Whether :meth:`details_file` will be called.

    Attributes:
        n_lines: Lines so far.
        n_tokens: Their words.
        n_known: Those in the vocabulary.
        n_flagged: Lines without a known word.
        flagged: The ids of the first few of them.
    """

    def __init__(self, directory: Path, *, kept: bool) -> None:
        self.n_lines = self.n_tokens = self.n_known = self.n_flagged = 0
        self.flagged: list[str] = []
        self._counts = tempfile.TemporaryFile(dir=directory) if kept else None  # noqa: SIM115
        self._ids = tempfile.TemporaryFile(dir=directory) if kept else None  # noqa: SIM115

    def __enter__(self) -> _Tally:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # a full disk; the error that ended the context is the one to show
            for file in filter(None, (self._counts, self._ids)):
                file.close()

    def add(self, lines: LineVectors, ids: Sequence[str]) -> None:
        """Add the counts of the next lines."""
        if self._counts is not None and self._ids is not None:
            self._ids.write("".join(f"{id}\n" for id in ids).encode())
            for n_tokens, n_known in zip(lines.n_tokens.tolist(), lines.n_known.tolist(), strict=True):
                self._counts.write(_COUNTS.pack(n_tokens, n_known))
        missing = (lines.n_known == 0).nonzero()[0]
        self.flagged += [ids[line] for line in missing[: _LINES_NAMED - len(self.flagged)].tolist()]
        self.n_flagged += len(missing)
        self.n_lines += len(lines.n_known)
        self.n_tokens += int(lines.n_tokens.sum())
        self.n_known += int(lines.n_known.sum())

    def details_file(self) -> Iterator[tuple[int, bytes]]:
        """The table of all lines in pieces, each with its number of lines."""
        assert self._counts is not None
        assert self._ids is not None
        yield 0, b"id\twords\tknown\tcoverage\n"
        self._counts.seek(0)
        self._ids.seek(0)
        rows = (line[:-1].decode() for line in self._ids)
        while piece := self._counts.read(_COUNTS.size * 65536):
            counts = _COUNTS.iter_unpack(piece)
            text = "".join(f"{next(rows)}\t{n}\t{known}\t{_share(known, n):.4f}\n" for n, known in counts)
            yield len(piece) // _COUNTS.size, text.encode()


_COUNTS = struct.Struct("<qq")


def _share(known: int, tokens: int) -> float:
    return known / tokens if tokens else 0.0


EMBED = Command(
    name="embed",
    summary="Infer a vector for each line of new text.",
    configure=_configure,
    run=_run,
    examples=(
        "jose embed corpus.jose new.txt -o new.npy",
        "jose embed corpus.jose reviews.csv --id-field id -o reviews.parquet",
        "zcat big.gz | jose embed corpus.jose - -o big.npy --details big.tsv",
    ),
)
