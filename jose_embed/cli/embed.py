"""``jose embed``: infer a vector for each line of a text."""

from __future__ import annotations

import argparse
import struct
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from jose_embed.cli.command import (
    Command,
    add_log_json,
    add_model,
    add_quiet,
    nothing_written,
    positive_whole_number,
    reporter_of,
)
from jose_embed.config import available_workers
from jose_embed.errors import ConfigError
from jose_embed.progress import Reporter, amount_text, duration_text, log_event

if TYPE_CHECKING:
    from jose_embed.model.embeddings import Embeddings
    from jose_embed.model.line_vectors import LineVectors
    from jose_embed.storage.atomic import FileWriter

__all__ = ["EMBED"]

_PREAMBLE = 128  # bytes before the vectors, for any number of them
_LINES_NAMED = 5


def _configure(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("sources", nargs="+", metavar="TEXT", help="files, globs, directories or -, as for jose-train")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help="the .npy file to write: one float32 row a line",
    )
    parser.add_argument(
        "--details", type=Path, metavar="FILE", help="also write a table: id, words, known words and coverage of a line"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.add_argument("--workers", type=positive_whole_number, metavar="N", help="threads (default: all cores)")
    parser.add_argument(
        "--backend",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="use the CPU, an NVIDIA GPU, or the GPU if there is one; the vectors are the same (default: auto)",
    )
    add_quiet(parser)
    add_log_json(parser)


def _run(arguments: argparse.Namespace) -> None:
    output, details = arguments.output, arguments.details
    if details is not None and details.resolve() == output.resolve():
        raise ConfigError(f"{output}: --output and --details cannot share a file; name two")

    from jose_embed.compute.backends import check_backend
    from jose_embed.model.embeddings import load
    from jose_embed.storage.atomic import atomic_file, check_output
    from jose_embed.text.sources import find_sources

    for written in filter(None, (output, details)) if arguments.overwrite else ():
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
        ids = _infer(model, arguments, tally, write_vectors, reporter)
        if write_details is not None:
            reporter.start("saving", tally.n_lines, "lines")
            for number, piece in tally.details_file(ids):
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
) -> Sequence[str]:
    """Write the vectors of all lines, and note lines without a known word.

    Returns:
        The ids of the lines.
    """
    import numpy as np

    from jose_embed.model.line_vectors import line_vectors
    from jose_embed.storage.directory import npy_preamble
    from jose_embed.text.reader import BlockReader, DocumentIds, complaints, find_sources

    def preamble() -> bytes:
        return npy_preamble(np.dtype("<f4"), (tally.n_lines, model.dim), least=_PREAMBLE)

    with BlockReader(find_sources(arguments.sources, reporter.note), whole_lines=True) as reader:
        reporter.start("inferring", reader.total, "bytes")
        consumed = 0
        write(preamble())  # the number of lines is not known yet
        workers = arguments.workers or available_workers()
        for lines in line_vectors(model.encoder, reader, workers=workers, backend=arguments.backend):
            consumed += lines.consumed
            write.share = consumed / reader.total if reader.total else 0.0
            write(lines.vectors.data)
            tally.add(lines)
            coverage = _share(tally.n_known, tally.n_tokens)
            reporter.advance(lines.consumed, documents=tally.n_lines, coverage=coverage)
        write.rewrite_head(preamble())
        reporter.finish()
    reports = reader.reports
    ids = DocumentIds([report.name for report in reports], [report.n_lines for report in reports])
    for message in complaints(reports):
        reporter.note(message)
    if tally.n_flagged:
        named = ", ".join(ids[line] for line in tally.flagged)
        more = ", ..." if tally.n_flagged > len(tally.flagged) else ""
        lines_hold = "line holds" if tally.n_flagged == 1 else "lines hold"
        reporter.note(
            f"{tally.n_flagged:,} {lines_hold} no word that the model knows ({named}{more}); all of them got the same"
            " stand-in, the mean direction of the training text; --details marks them by coverage 0"
        )
    return ids


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
        flagged: The first few of them, counted from 0.
    """

    def __init__(self, directory: Path, *, kept: bool) -> None:
        self.n_lines = self.n_tokens = self.n_known = self.n_flagged = 0
        self.flagged: list[int] = []
        self._counts = tempfile.TemporaryFile(dir=directory) if kept else None  # noqa: SIM115

    def __enter__(self) -> _Tally:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # a full disk; the error that ended the context is the one to show
            if self._counts is not None:
                self._counts.close()

    def add(self, lines: LineVectors) -> None:
        """Add the counts of the next lines."""
        if self._counts is not None:
            for n_tokens, n_known in zip(lines.n_tokens.tolist(), lines.n_known.tolist(), strict=True):
                self._counts.write(_COUNTS.pack(n_tokens, n_known))
        missing = (lines.n_known == 0).nonzero()[0]
        self.flagged += (missing[: _LINES_NAMED - len(self.flagged)] + self.n_lines).tolist()
        self.n_flagged += len(missing)
        self.n_lines += len(lines.n_known)
        self.n_tokens += int(lines.n_tokens.sum())
        self.n_known += int(lines.n_known.sum())

    def details_file(self, ids: Sequence[str]) -> Iterator[tuple[int, bytes]]:
        """The table of all lines in pieces, each with its number of lines."""
        assert self._counts is not None
        yield 0, b"id\twords\tknown\tcoverage\n"
        self._counts.seek(0)
        rows = iter(ids)
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
        "zcat big.gz | jose embed corpus.jose - -o big.npy --details big.tsv",
    ),
)
