"""``jose embed``: a vector for every line of texts of any size."""

from __future__ import annotations

import argparse
import struct
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from jose_embed.cli_command import Command, positive_whole_number
from jose_embed.config import available_workers
from jose_embed.errors import ConfigError
from jose_embed.progress import Reporter, amount_text, duration_text, reporter_for

if TYPE_CHECKING:
    from jose_embed.embeddings import Embeddings
    from jose_embed.line_vectors import LineVectors

__all__ = ["EMBED"]

_COPIED_AT_ONCE = 4 << 20
_LINES_NAMED = 5


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model directory, as jose-train writes it")
    parser.add_argument("sources", nargs="+", metavar="TEXT", help="files, globs, directories or -, as for jose-train")
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="FILE", help="the .npy to write: float32, one row per line"
    )
    parser.add_argument(
        "--details", type=Path, metavar="FILE", help="a table to write: each line's id, words, known words, coverage"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the files that are there")
    parser.add_argument(
        "--workers", type=positive_whole_number, metavar="N", help="threads (default: every core this process may use)"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress and no summary, only errors")


def _run(arguments: argparse.Namespace) -> None:
    output, details = arguments.output, arguments.details
    if details is not None and details.resolve() == output.resolve():
        raise ConfigError(f"{output}: vectors and details cannot be one file; name two")

    from jose_embed.embeddings import load
    from jose_embed.storage import atomic_file

    model = load(arguments.model)
    started = time.monotonic()
    try:
        with ExitStack() as stack:
            reporter = stack.enter_context(reporter_for(quiet=arguments.quiet))
            # Files that cannot be written are refused here, before any work; they appear when all of it is done.
            write_vectors = stack.enter_context(atomic_file(output, overwrite=arguments.overwrite))
            write_details = None
            if details is not None:
                write_details = stack.enter_context(atomic_file(details, overwrite=arguments.overwrite))
            spool = stack.enter_context(_Spool(output.resolve().parent, model.dim))
            ids = _infer(model, arguments, spool, reporter)
            reporter.start("saving", spool.n_lines, "vectors")
            for piece in spool.vector_file():
                write_vectors(piece)
            if write_details is not None:
                for piece in spool.details_file(ids):
                    write_details(piece)
            reporter.advance(spool.n_lines)
            reporter.finish()
    except KeyboardInterrupt as stop:
        stop.add_note("(nothing was written)")
        raise
    if not arguments.quiet:
        size = amount_text(output.stat().st_size, "bytes")
        seconds = duration_text(time.monotonic() - started)
        print(f"{output}: {spool.n_lines:,} vectors of {model.dim} numbers, {size}, in {seconds}")
        print(f"{spool.n_known:,} of {spool.n_tokens:,} words are known ({_share(spool.n_known, spool.n_tokens):.1%})")


def _infer(model: Embeddings, arguments: argparse.Namespace, spool: _Spool, reporter: Reporter) -> Sequence[str]:
    """Fill the spool; the ids of its lines are given back, and lines that need a word are noted."""
    from jose_embed.corpus import BlockReader, DocumentIds, find_sources
    from jose_embed.line_vectors import line_vectors

    with BlockReader(find_sources(arguments.sources), whole_lines=True) as reader:
        reporter.start("inferring", reader.total, "bytes")
        for lines in line_vectors(model, reader, workers=arguments.workers or available_workers()):
            spool.append(lines)
            coverage = _share(spool.n_known, spool.n_tokens)
            reporter.advance(lines.consumed, documents=spool.n_lines, coverage=coverage)
        reporter.finish()
    reports = reader.reports
    ids = DocumentIds([report.name for report in reports], [report.n_lines for report in reports])
    invalid = sum(report.invalid_lines for report in reports)
    if invalid:
        reporter.note(f"invalid UTF-8 in {invalid:,} lines was replaced by U+FFFD")
    if spool.n_flagged:
        named = ", ".join(ids[line] for line in spool.flagged)
        more = ", ..." if spool.n_flagged > len(spool.flagged) else ""
        what = "line holds" if spool.n_flagged == 1 else "lines hold"
        reporter.note(
            f"{spool.n_flagged:,} {what} no word of the vocabulary ({named}{more}): given the mean direction of the"
            " training text; --details tells them apart"
        )
    return ids


class _Spool:
    """Vectors and counts on their way to files whose first line says how many there are: kept in nameless files.

    Args:
        directory: Where the files lie.
        dim: Numbers of a vector.

    Attributes:
        n_lines: Lines so far.
        n_tokens: Their words.
        n_known: Those in the vocabulary.
        n_flagged: Lines without a known word.
        flagged: The first few of them, counted from 0.
    """

    def __init__(self, directory: Path, dim: int) -> None:
        self.n_lines = self.n_tokens = self.n_known = self.n_flagged = 0
        self.flagged: list[int] = []
        self._dim = dim
        with ExitStack() as stack:
            self._vectors = stack.enter_context(tempfile.TemporaryFile(dir=directory))
            self._counts = stack.enter_context(tempfile.TemporaryFile(dir=directory))
            self._files = stack.pop_all()

    def __enter__(self) -> _Spool:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # a buffer that finds no room: the error that matters is on its way
            self._files.close()

    def append(self, lines: LineVectors) -> None:
        """Keep the vectors and counts of the next lines."""
        self._vectors.write(lines.vectors.data)
        for n_tokens, n_known in zip(lines.n_tokens.tolist(), lines.n_known.tolist(), strict=True):
            self._counts.write(_COUNTS.pack(n_tokens, n_known))
        missing = (lines.n_known == 0).nonzero()[0]
        self.flagged += (missing[: _LINES_NAMED - len(self.flagged)] + self.n_lines).tolist()
        self.n_flagged += len(missing)
        self.n_lines += len(lines.n_known)
        self.n_tokens += int(lines.n_tokens.sum())
        self.n_known += int(lines.n_known.sum())

    def vector_file(self) -> Iterator[bytes]:
        """The .npy file of all vectors, piece by piece."""
        import numpy as np

        from jose_embed.npyfile import npy_preamble

        yield npy_preamble(np.dtype("<f4"), (self.n_lines, self._dim))
        self._vectors.seek(0)
        while piece := self._vectors.read(_COPIED_AT_ONCE):
            yield piece

    def details_file(self, ids: Sequence[str]) -> Iterator[bytes]:
        """The table of all lines, piece by piece."""
        yield b"id\twords\tknown\tcoverage\n"
        self._counts.seek(0)
        rows = iter(ids)
        while piece := self._counts.read(_COUNTS.size * 65536):
            counts = _COUNTS.iter_unpack(piece)
            yield "".join(f"{next(rows)}\t{n}\t{known}\t{_share(known, n):.4f}\n" for n, known in counts).encode()


_COUNTS = struct.Struct("<qq")


def _share(known: int, tokens: int) -> float:
    return known / tokens if tokens else 0.0


EMBED = Command(
    name="embed",
    summary="A vector for every line of texts of any size, with the model's own tokenizer.",
    configure=_configure,
    run=_run,
    examples=(
        "jose embed corpus.jose new.txt -o new.npy",
        "zcat big.gz | jose embed corpus.jose - -o big.npy --details big.tsv",
    ),
)
