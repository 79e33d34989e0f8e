"""The spool: a text as numbers, in two temporary files that become the mapped arrays of a corpus.

The files have no name, or lose it at once where the system allows that, so nothing is left behind however the process
ends. They are written with plain writes, never through a mapping, so that a full disk is an error and no signal.
"""

from __future__ import annotations

import errno
import io
import mmap
import os
import shutil
import tempfile
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from jose_embed.errors import TrainingError
from jose_embed.progress import Reporter
from jose_embed.sources import printable
from jose_embed.wordtable import Ends, Ids

__all__ = ["Spool"]

_CHUNK = 1 << 18  # numbers replaced at a time


class Spool:
    """Numbers of words and ends of documents in two nameless files, which become the mapped arrays of a corpus.

    Args:
        directory: Where the files lie; the system's directory for such files where it is ``None``.

    Attributes:
        n_tokens: How many numbers were written.
        n_documents: How many documents were written.
        n_empty: How many of them are empty.
        progress: The share of the text that was written, as far as it is known; it tells how much room a full disk
            lacks.
    """

    def __init__(self, directory: str | os.PathLike[str] | None) -> None:
        self.n_tokens = self.n_documents = self.n_empty = 0
        self.progress = 0.0
        self._directory = os.fspath(directory) if directory is not None else None
        self._last_end = 0
        with ExitStack() as stack:
            try:
                self._directory = self._directory or tempfile.gettempdir()
                self._tokens = stack.enter_context(_nameless_file(self._directory))
                self._ends = stack.enter_context(_nameless_file(self._directory))
            except OSError as error:
                place = printable(self._directory or "the system's temporary directory")
                reason = error.strerror or error
                raise TrainingError(
                    f"{place}: no temporary file can be made there: {reason}; name another directory"
                ) from error
            self._files = stack.pop_all()
        self._write(self._ends, np.zeros(1, np.int64))

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # a buffer that still finds no room; the error that matters is on its way
            self._files.close()

    def append(self, ids: Ids, ends: Ends) -> None:
        """Write the numbers of more words, and for each document that ends among them, after how many it does."""
        ends = ends + self.n_tokens
        self.n_tokens += len(ids)
        self.n_documents += len(ends)
        self._write(self._tokens, ids)
        self._write(self._ends, ends)
        if len(ends):
            self.n_empty += int(np.count_nonzero(np.diff(ends, prepend=self._last_end) == 0))
            self._last_end = int(ends[-1])

    def renumbered(self, rows: Ids, reporter: Reporter) -> tuple[Ids, Ends]:
        """Replace every number by its row, drop those without one, and map the files.

        Args:
            rows: int32 (n_words_seen,): the row of each number; -1 for none.
            reporter: Told about the progress.

        Returns:
            ``tokens`` int32 and ``offsets`` int64, both read-only; they keep the files alive.
        """
        reporter.start("encoding", self.n_tokens, "tokens")
        self._flush()
        offsets = np.frombuffer(mmap.mmap(self._ends.fileno(), 0), np.int64)
        chunk = np.empty(_CHUNK, np.int32)
        read = written = 0
        document = 1
        while read < self.n_tokens:
            self._tokens.seek(4 * read)
            numbers = chunk[: min(_CHUNK, self.n_tokens - read)]
            numbers = numbers[: self._tokens.readinto(numbers.data) // 4]
            kept = rows[numbers]
            is_kept = kept >= 0
            before = np.concatenate(([0], np.cumsum(is_kept)))
            beyond = document + int(np.searchsorted(offsets[document:], read + len(numbers), side="right"))
            offsets[document:beyond] = written + before[offsets[document:beyond] - read]
            self._tokens.seek(4 * written)
            self._write(self._tokens, kept[is_kept])
            document = beyond
            read += len(numbers)
            written += int(before[-1])
            reporter.advance(len(numbers))
        self._flush()
        self._tokens.truncate(4 * written)
        reporter.finish(tokens=written)
        tokens = np.frombuffer(mmap.mmap(self._tokens.fileno(), 0, access=mmap.ACCESS_READ), np.int32)
        offsets.setflags(write=False)
        return tokens, offsets

    def _write(self, file: io.BufferedRandom, array: npt.NDArray[Any]) -> None:
        try:
            file.write(np.ascontiguousarray(array).data)
        except OSError as error:
            raise self._full(error) from error

    def _flush(self) -> None:
        try:
            self._tokens.flush()
            self._ends.flush()
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> Exception:
        assert self._directory is not None
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return TrainingError(
                f"{printable(self._directory)}: the temporary file cannot be written: {error.strerror or error}"
            )
        size = 4 * self.n_tokens + 8 * self.n_documents
        needed = f"about {size / self.progress / 1e6:,.1f}" if self.progress > 0.0 else f"more than {size / 1e6:,.1f}"
        ours = sum(os.fstat(file.fileno()).st_size for file in (self._tokens, self._ends))
        free = f"{(shutil.disk_usage(self._directory).free + ours) / 1e6:,.1f}"
        return TrainingError(
            f"{printable(self._directory)}: no room for the encoded text ({error.strerror}; needed: {needed} MB, "
            f"there was: {free} MB); make room or name another directory"
        )


def _nameless_file(directory: str) -> io.BufferedRandom:
    return tempfile.TemporaryFile(dir=directory)
