"""A text column of millions of rows that is read from its mapped file only where somebody looks."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from typing import Final, overload

import numpy as np

from jose_embed.errors import ModelError

__all__ = ["LineColumn", "RowFinder", "first_repetition"]

_STRIDE: Final = 64  # one offset in memory for so many lines
_BLOCK: Final = 4 << 20
_READ: Final = 1 << 16  # bytes that are decoded and split at a time: no other thread gets on meanwhile
_HASHED: Final = 4096


class LineColumn(Sequence[str]):
    """The lines of a UTF-8 file as a read-only sequence; only ``"\\n"`` ends a line.

    Every 64th line's place is kept, so a column of 40 million rows costs 5 MB of memory.

    Args:
        data: The file's bytes, mapped; kept open as long as the column lives.
        source: The file's name, for messages.

    Raises:
        ModelError: the last line is cut off, or (when a row is read) the row is not UTF-8.

    Example:
        >>> column = LineColumn("a\\nb c\\n\\u00e9\\n".encode())
        >>> len(column), column[1], column[-1], list(column[:2])
        (3, 'b c', 'é', ['a', 'b c'])
    """

    def __init__(self, data: mmap.mmap | bytes, source: str = "lines") -> None:
        self._data = data
        self._source = source
        starts = [np.zeros(1, np.int64)]
        n_lines = 0
        for first in range(0, len(data), _BLOCK):
            block = np.frombuffer(data, np.uint8, min(_BLOCK, len(data) - first), first)
            ends = np.flatnonzero(block == 0x0A)
            starts.append(ends[_STRIDE - 1 - n_lines % _STRIDE :: _STRIDE] + (first + 1))
            n_lines += len(ends)
        if len(data) and data[len(data) - 1] != 0x0A:
            raise ModelError(f"{source}: its last line is cut off; take the model from a good copy or train it again")
        self._starts = np.concatenate(starts)
        self._n_lines = n_lines

    def __len__(self) -> int:
        return self._n_lines

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._n_lines))]
        row = index + self._n_lines if index < 0 else index
        if not 0 <= row < self._n_lines:
            raise IndexError(f"row {index} of a column of {self._n_lines}")
        start = int(self._starts[row // _STRIDE])
        for _ in range(row % _STRIDE):
            start = self._data.find(b"\n", start) + 1
        return self._text(start, self._data.find(b"\n", start))

    def __iter__(self) -> Iterator[str]:
        n_bytes, start = len(self._data), 0
        while start < n_bytes:
            # Whole lines of about so many bytes; a longer line is taken whole.
            end = self._data.find(b"\n", min(start + _READ, n_bytes) - 1) + 1
            yield from self._text(start, end - 1).split("\n")
            start = end

    def _text(self, start: int, end: int) -> str:
        try:
            return self._data[start:end].decode("utf-8")
        except UnicodeDecodeError as error:
            raise ModelError(
                f"{self._source}: is not UTF-8 at byte {start + error.start}; take the model from a good copy"
            ) from None

    def __repr__(self) -> str:
        return f"<LineColumn of {self._n_lines:,} lines>"


class RowFinder:
    """Finds the row of a text in a long column with 16 bytes per row: sorted hashes, and a look at the text itself.

    Example:
        >>> RowFinder(["b", "a", "b"]).find("b")
        0
    """

    def __init__(self, column: Sequence[str]) -> None:
        self._column = column
        hashes = np.fromiter(map(hash, column), np.int64, len(column))
        self._rows = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._rows]

    def find(self, text: str) -> int | None:
        """The first row of a text, or None."""
        start, end = (
            np.searchsorted(self._hashes, hash(text), "left"),
            np.searchsorted(self._hashes, hash(text), "right"),
        )
        return next((row for row in self._rows[start:end].tolist() if self._column[row] == text), None)


def first_repetition(texts: Sequence[str]) -> str | None:
    """A text that occurs more than once, or None; found with 16 bytes per text, where a set would take a hundred.

    A few thousand are hashed at a time, so that other threads get on meanwhile.

    Example:
        >>> first_repetition(["a", "b", "a"])
        'a'
    """
    hashes = np.empty(len(texts), np.int64)
    for first in range(0, len(texts), _HASHED):
        hashes[first : first + _HASHED] = [hash(text) for text in texts[first : first + _HASHED]]
    order = np.argsort(hashes, kind="stable")
    suspects = order[np.flatnonzero(np.diff(hashes[order]) == 0) + 1]
    if not len(suspects):
        return None
    finder = RowFinder(texts)
    return next((texts[row] for row in sorted(suspects.tolist()) if finder.find(texts[row]) != row), None)
