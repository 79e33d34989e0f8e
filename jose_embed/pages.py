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
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from jose_embed.errors import TrainingError
from jose_embed.storage import plain_size, reason

__all__ = ["hold_rows", "mapped_table", "read_in_order", "release", "release_rows"]

_POPULATE_WRITE = 23  # Linux 5.14, not yet among the names of mmap


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


def hold_rows(table: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> None:
    """Bring rows of a mapped table into memory, and nothing around them; nothing happens to a table in memory.

    A page that is read where it is not in memory yet brings fifteen neighbours along, one that is written comes alone.
    """
    mapping = _mapping(table)
    if mapping is None or not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError):  # an older system: then the neighbours come along
        for start, length in _page_ranges(mapping, table, rows):
            mapping.madvise(_POPULATE_WRITE, start, length)


def release_rows(table: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> None:
    """The same as :func:`release` for rows that lie anywhere in a table."""
    mapping = _mapping(table)
    if mapping is None or not hasattr(mmap, "MADV_DONTNEED"):
        return
    for start, length in _page_ranges(mapping, table, rows):
        mapping.madvise(mmap.MADV_DONTNEED, start, length)


def _page_ranges(
    mapping: mmap.mmap, table: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]
) -> Iterator[tuple[int, int]]:
    """First byte and length, in whole pages of the mapping, of what the rows lie in; those that meet are joined."""
    first_byte = table.ctypes.data - np.frombuffer(mapping, np.uint8).ctypes.data
    row_bytes = table.strides[0]
    starts = first_byte + np.sort(rows) * row_bytes
    begins, ends = starts // mmap.PAGESIZE, (starts + row_bytes - 1) // mmap.PAGESIZE + 1
    new = np.flatnonzero(np.concatenate(([True], begins[1:] > ends[:-1]))) if len(rows) else np.empty(0, np.int64)
    last = np.concatenate((new[1:], [len(rows)])) - 1 if len(rows) else new
    pages = zip(
        (begins[new] * mmap.PAGESIZE).tolist(), ((ends[last] - begins[new]) * mmap.PAGESIZE).tolist(), strict=True
    )
    for start, length in pages:
        yield start, min(length, len(mapping) - start)


def _mapping(array: npt.NDArray[Any]) -> mmap.mmap | None:
    """The mapped file that an array lies in, where pages can be given back without a loss."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    if not isinstance(base, mmap.mmap):
        return None
    return base if isinstance(base, _TableFile) or memoryview(base).readonly else None
