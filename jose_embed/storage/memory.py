"""Tables in mapped temporary files, and pages of mapped files that are given back.

A page of a mapped file counts as memory of the process from the moment it is looked at. What is given back stays in the
system's cache of files, written out when the system sees fit, and comes back when it is looked at again.
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

__all__ = ["ResidentRows", "mapped_file", "mapped_table", "read_in_order", "release"]

_POPULATE_WRITE = 23  # Linux 5.14, not yet among the names of mmap


def mapped_file(array: npt.NDArray[Any]) -> mmap.mmap | None:
    """The mapping that an array lies in; None where it lies in plain memory."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    return base if isinstance(base, mmap.mmap) else None


class _TableFile(mmap.mmap):
    """The mapping of a table of ours: shared with its file, so that nothing is lost with a page."""


def mapped_table(
    n_rows: int, width: int, directory: str | os.PathLike[str] | None, what: str
) -> npt.NDArray[np.float32]:
    """A zeroed float32 table in a nameless temporary file; its room on the disk is taken at once.

    Args:
        n_rows: Its rows.
        width: Its columns.
        directory: Where the file lies; the system's directory for such files where it is ``None``.
        what: What the table holds, for messages.

    Returns:
        float32 (n_rows, width), writable. The file is gone once no view of it is left.

    Raises:
        TrainingError: no room, or no file can be made there.
    """
    place = os.fspath(directory) if directory is not None else tempfile.gettempdir()
    n_bytes = 4 * n_rows * width
    if not n_bytes:
        return np.zeros((n_rows, width), np.float32)
    try:
        with tempfile.TemporaryFile(dir=place, buffering=0) as file:
            # A mapped page that finds no room when it is written out would be a signal and no error.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            else:
                os.truncate(file.fileno(), n_bytes)
            mapping = _TableFile(file.fileno(), n_bytes)
            if hasattr(mmap, "MADV_RANDOM"):  # else the system keeps megabytes together and maps them as one
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
    """Tell the system that these rows of a mapped file need not stay in memory; they come back when they are looked at.

    Nothing happens to an array that is in memory, to a mapping that could lose what was written to it, or on a system
    that cannot be told.
    """
    mapping = _mapping(array)
    if mapping is None or not array.size or not hasattr(mmap, "MADV_DONTNEED"):
        return
    begin, end = np.lib.array_utils.byte_bounds(array)
    base = np.frombuffer(mapping, np.uint8).ctypes.data
    start = (begin - base) // mmap.PAGESIZE * mmap.PAGESIZE
    mapping.madvise(mmap.MADV_DONTNEED, start, end - base - start)


def read_in_order(table: npt.NDArray[np.float32]) -> None:
    """Tell the system that the rows of a mapped table will be read one after the other from now on, not anywhere."""
    mapping = _mapping(table)
    if mapping is not None and hasattr(mmap, "MADV_SEQUENTIAL"):
        mapping.madvise(mmap.MADV_SEQUENTIAL)


class ResidentRows:
    """Rows of a mapped table that somebody works with: they are in memory, and nothing around them.

    A page that is read where it is not in memory brings fifteen neighbours along, one that is written comes alone. So
    pages are fetched for writing before the work, and given back when nobody works with them any more. Nothing happens
    to a table in memory, or on a system that cannot be told.

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
        """A context in which rows are held; several threads may hold rows of one page."""
        if self._mapping is None or not len(rows):
            yield
            return
        pages = self._pages(rows)
        with self._gate:
            self._users[pages] += 1
            with contextlib.suppress(OSError):  # an older system: then the neighbours come along
                self._advise(pages, _POPULATE_WRITE)
        try:
            yield
        finally:
            with self._gate:
                self._users[pages] -= 1
                self._advise(pages[self._users[pages] == 0], mmap.MADV_DONTNEED)

    def _pages(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The numbers of the pages that rows lie in, rising."""
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
    """The mapped file that an array lies in, where pages can be given back without a loss."""
    base = mapped_file(array)
    return base if base is None or isinstance(base, _TableFile) or memoryview(base).readonly else None


Number = TypeVar("Number", np.int32, np.int64, np.float32)


def anonymous_pages(n: int, kind: type[Number]) -> npt.NDArray[Number]:
    """Zeros in pages of their own: the heap would keep the room to the end of the process."""
    return np.frombuffer(mmap.mmap(-1, max(1, n) * np.dtype(kind).itemsize), kind, n)
