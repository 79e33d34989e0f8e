"""Tables in mapped temporary files, and the release of mapped pages.

A page of a mapped file counts as memory of the process once it is accessed. A released page stays in the file cache of
the system, which writes it back when it needs the memory, and is mapped again at the next access.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from jose_embed.errors import TrainingError
from jose_embed.storage.atomic import plain_size, reason

_POPULATE_WRITE = 23  # Linux 5.14, not yet among the names of mmap


def mapped_file(array: npt.NDArray[Any]) -> mmap.mmap | None:
    """The mapped file that contains an array; None if it is in plain memory."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    return base if isinstance(base, mmap.mmap) else None


class _TableFile(mmap.mmap):
    """The mapping of a table of this module: shared with its file, so that a released page is not lost."""


def mapped_table(
    n_rows: int, width: int, directory: str | os.PathLike[str] | None, what: str
) -> npt.NDArray[np.float32]:
    """A table of zeros in an unnamed temporary file, whose disk space is allocated at once.

    Args:
        n_rows: Rows.
        width: Columns.
        directory: The directory of the file; None for the system's temporary directory.
        what: The contents of the table, for messages.

    Returns:
        float32 (n_rows, width), writable. The file disappears with the last view of the table.

    Raises:
        TrainingError: not enough disk space, or no file can be created there.
    """
    place = os.fspath(directory) if directory is not None else tempfile.gettempdir()
    n_bytes = 4 * n_rows * width
    if not n_bytes:
        return np.zeros((n_rows, width), np.float32)
    try:
        with tempfile.TemporaryFile(dir=place, buffering=0) as file:
            # If the disk were full when a mapped page is written back, the process would get SIGBUS.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            else:
                os.truncate(file.fileno(), n_bytes)
            mapping = _TableFile(file.fileno(), n_bytes)
            if hasattr(mmap, "MADV_RANDOM"):  # otherwise the system maps megabytes at a time
                mapping.madvise(mmap.MADV_RANDOM)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise TrainingError(
                f"{place}: no room for {what}: {plain_size(n_bytes)} are needed, "
                f"{plain_size(shutil.disk_usage(place).free)} are free; make room or name another directory"
            ) from error
        raise TrainingError(
            f"{place}: no temporary file for {what} can be made there ({reason(error)}); name another directory"
        ) from error
    return np.frombuffer(mapping, np.float32).reshape(n_rows, width)


def release(array: npt.NDArray[Any]) -> None:
    """Let the system reclaim the pages of these rows of a mapped file; the next access maps them again.

    Does nothing for an array in memory, for a private writable mapping, or on a system without ``madvise``.
    """
    mapping = _mapping(array)
    if mapping is None or not array.size or not hasattr(mmap, "MADV_DONTNEED"):
        return
    begin, end = np.lib.array_utils.byte_bounds(array)
    base = np.frombuffer(mapping, np.uint8).ctypes.data
    start = (begin - base) // mmap.PAGESIZE * mmap.PAGESIZE
    mapping.madvise(mmap.MADV_DONTNEED, start, end - base - start)


def read_in_order(table: npt.NDArray[np.float32]) -> None:
    """Tell the system that the rows of a mapped table will be read sequentially from now on."""
    mapping = _mapping(table)
    if mapping is not None and hasattr(mmap, "MADV_SEQUENTIAL"):
        mapping.madvise(mmap.MADV_SEQUENTIAL)


class ResidentRows:
    """Keeps the rows of a mapped table that are in use in memory, and no others.

    A read of a page that is not in memory also fetches fifteen neighbors, a write fetches one page. Pages are therefore
    populated for writing before they are used, and released when no thread uses them any more. Does nothing for a table
    in memory, or on systems other than Linux.

    Args:
        table: float32 (n_rows, width), C-contiguous.

    Example:
        >>> table = mapped_table(1000, 16, None, "a table")
        >>> held, rows = ResidentRows(table), np.array([3, 999])
        >>> with held.rows(rows):
        ...     table[rows] = 1
        >>> float(table.sum())
        32.0
    """

    def __init__(self, table: npt.NDArray[np.float32]) -> None:
        self._mapping = _mapping(table) if sys.platform.startswith("linux") else None
        if self._mapping is not None:
            self._first_byte = table.ctypes.data - np.frombuffer(self._mapping, np.uint8).ctypes.data
            self._row_bytes = table.strides[0]
            self._users = np.zeros(-(-len(self._mapping) // mmap.PAGESIZE), np.uint16)
            self._gate = threading.Lock()

    @contextlib.contextmanager
    def rows(self, rows: npt.NDArray[np.int64]) -> Iterator[None]:
        """A context in which the rows are in memory; several threads may use rows of one page."""
        if self._mapping is None or not len(rows):
            yield
            return
        pages = self._pages(rows)
        with self._gate:
            self._users[pages] += 1
            with contextlib.suppress(OSError):  # an older kernel: neighbors are fetched too
                self._advise(pages, _POPULATE_WRITE)
        try:
            yield
        finally:
            with self._gate:
                self._users[pages] -= 1
                self._advise(pages[self._users[pages] == 0], mmap.MADV_DONTNEED)

    def _pages(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The numbers of the pages that contain the rows, ascending."""
        starts = self._first_byte + rows * self._row_bytes
        first, last = starts // mmap.PAGESIZE, (starts + self._row_bytes - 1) // mmap.PAGESIZE
        return np.unique(np.concatenate([np.minimum(first + i, last) for i in range(int((last - first).max()) + 1)]))

    def _advise(self, pages: npt.NDArray[np.int64], advice: int) -> None:
        assert self._mapping is not None
        if not len(pages):
            return
        new = np.flatnonzero(np.diff(pages, prepend=-2) > 1)
        lengths = np.diff(np.append(new, len(pages)))
        starts, sizes = pages[new] * mmap.PAGESIZE, lengths * mmap.PAGESIZE
        for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
            self._mapping.madvise(advice, start, min(size, len(self._mapping) - start))


def _mapping(array: npt.NDArray[Any]) -> mmap.mmap | None:
    """The mapped file that contains an array, if its pages can be released without loss."""
    base = mapped_file(array)
    return base if base is None or isinstance(base, _TableFile) or memoryview(base).readonly else None


Number = TypeVar("Number", np.int32, np.int64, np.float32)


def anonymous_pages(n: int, kind: type[Number]) -> npt.NDArray[Number]:
    """An array of zeros in its own memory mapping, which is returned to the system when it is freed."""
    return np.frombuffer(mmap.mmap(-1, max(1, n) * np.dtype(kind).itemsize), kind, n)
