"""File contents in blocks: tables of unit rows and columns of text, to bytes and back."""

from __future__ import annotations

import io
import math
import mmap
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ModelError, TrainingError
from jose_embed.storage.atomic import BLOCK_BYTES, Chunk
from jose_embed.storage.directory import DirectoryReader, npy_preamble
from jose_embed.storage.memory import release

NORM_TOLERANCE: Final = 1e-6
"""How far the norm of a row may be from 1: eight steps of float32."""

_BATCH: Final = 4096
_PLACES: Final = 64  # at which a large table is looked at
_PLACE_BYTES: Final = 1 << 16


def row_blocks(array: npt.NDArray[Any]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """First row number and rows of consecutive blocks of about ``BLOCK_BYTES``."""
    row_bytes = max(1, array.nbytes // max(1, len(array)))
    rows = max(1, BLOCK_BYTES // row_bytes)
    for first in range(0, len(array), rows):
        yield first, array[first : first + rows]


def array_chunks(array: npt.NDArray[Any], name: str, *, unit_rows: bool = False) -> Iterator[Chunk]:
    """The contents of a ``.npy`` file, C-ordered and little-endian, without a copy of the whole array.

    Args:
        array: Numbers or booleans.
        name: The file's name, for messages.
        unit_rows: Refuse a row that is not of norm 1.

    Raises:
        TrainingError: a row that is not finite, or whose norm differs from 1 by more than ``NORM_TOLERANCE``.
    """
    dtype = array.dtype.newbyteorder("<")
    yield npy_preamble(dtype, array.shape)
    if array.ndim == 0:
        yield array.astype(dtype).tobytes()
        return
    for first, block in row_blocks(array):
        if unit_rows:
            fault = _fault_in(block)
            if fault is not None:
                what = f"has norm {fault[1]:.9g}" if math.isfinite(fault[1]) else "holds a NaN or an infinity"
                raise TrainingError(
                    f"{name}: row {first + fault[0]} {what}; every row must have norm 1, so nothing was saved"
                )
        yield np.ascontiguousarray(block, dtype).data
        release(block)


def counted(chunks: Iterator[Chunk], advance: Callable[[int], object]) -> Iterator[Chunk]:
    """The same blocks; ``advance`` is called with the size of each after it is consumed."""
    for chunk in chunks:
        yield chunk
        advance(memoryview(chunk).nbytes)


def first_fault(table: npt.NDArray[np.float32], *, every_row: bool = True) -> tuple[int, float] | None:
    """The first row whose norm is not 1 within ``NORM_TOLERANCE``, and its norm; None if there is none.

    Args:
        table: float32 (n, dim).
        every_row: Look at all rows; False looks at those of 64 places in the table.
    """
    n_rows = max(1, _PLACE_BYTES // max(1, table.itemsize * table.shape[1]))
    sparse = not every_row and len(table) > _PLACES * n_rows
    starts = np.linspace(0, len(table) - n_rows, _PLACES, dtype=np.int64).tolist() if sparse else []
    for first, block in ((start, table[start : start + n_rows]) for start in starts) if sparse else row_blocks(table):
        fault = _fault_in(block)
        if fault is not None:
            return first + fault[0], fault[1]
        release(block)
    return None


def _fault_in(block: npt.NDArray[np.float32]) -> tuple[int, float] | None:
    with np.errstate(invalid="ignore", over="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64))
        wrong = ~(np.abs(norms - 1) <= NORM_TOLERANCE)
    if not wrong.any():
        return None
    row = int(wrong.argmax())
    return row, float(norms[row])


def line_chunks(texts: Sequence[str], what: str) -> Iterator[Chunk]:
    """A text file of one line per text.

    Raises:
        ModelError: a text contains a line end or a lone surrogate; ``what`` names it in the message.
    """
    remaining = iter(texts)
    while batch := list(islice(remaining, _BATCH)):
        joined = "\n".join(batch) + "\n"
        if joined.count("\n") != len(batch):
            wrong = next(text for text in batch if "\n" in text)
            raise ModelError(f"the {what} {wrong[:100]!r} holds a line end; it must be one line")
        yield encoded_text(joined, what)


def encoded_text(text: str, what: str) -> bytes:
    """A text as UTF-8.

    Raises:
        ModelError: it contains a lone surrogate; ``what`` names it in the message.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        around = text[max(0, error.start - 20) : error.end + 20]
        raise ModelError(
            f"a {what} holds a lone surrogate ({around!r}), which UTF-8 cannot express; clean the text"
        ) from None


def vocabulary_chunks(words: Sequence[str], counts: npt.NDArray[np.int64]) -> Iterator[Chunk]:
    """``vocabulary.tsv``: a word, a tab and its count per line.

    Raises:
        ModelError: a word that is empty or contains a tab, a line end or a lone surrogate.
    """
    for first in range(0, len(words), _BATCH):
        batch = words[first : first + _BATCH]
        for row, word in enumerate(batch, first):
            if not word or "\t" in word or "\n" in word:
                raise ModelError(
                    f"word {row} is {word[:100]!r}; a word must hold a character, and no tab or line end; "
                    "check the tokenizer"
                )
        numbers = counts[first : first + _BATCH].tolist()
        yield encoded_text("".join(f"{word}\t{n}\n" for word, n in zip(batch, numbers, strict=True)), "word")


def read_vocabulary(directory: DirectoryReader, n_words: int, n_tokens: int) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The words and counts of ``vocabulary.tsv``, whose number and sum must be those of the manifest.

    Raises:
        ModelError: they are not, or a line is not a word and a count.
    """
    name = "vocabulary.tsv"
    data = directory.read(name)
    n_lines = data.count(b"\n")
    if n_lines != n_words or not data.endswith(b"\n"):
        raise directory.error(name, f"has {n_lines} whole lines, but the manifest says {n_words} words")
    try:
        # Line by line: split at once, a hundred thousand of them keep every other thread waiting for 5 ms.
        lines = io.StringIO(data.decode("utf-8"), newline="\n")
    except UnicodeDecodeError as error:
        raise directory.error(name, f"is not UTF-8 at byte {error.start}") from None
    words: list[str] = []
    counts = np.empty(n_words, np.int64)
    for row, line in enumerate(lines):
        word, _, count = line[:-1].partition("\t")
        if not word or not (count.isascii() and count.isdigit() and len(count) < 19):
            raise directory.error(name, f"line {row + 1} is {line[:-1][:80]!r}, but must be a word, a tab and a count")
        words.append(word)
        counts[row] = int(count)
    if counts[-1] < 1 or (np.diff(counts) > 0).any() or int(counts.sum(dtype=np.float64)) >= 2**62:
        raise directory.error(name, "must hold counts of at least 1 in descending order")
    if int(counts.sum()) != n_tokens:
        raise directory.error(name, f"counts {int(counts.sum())} tokens, but the manifest says {n_tokens}")
    return words, counts


_STRIDE: Final = 64  # one offset in memory for each 64 lines
_BLOCK: Final = 4 << 20
_READ_BYTES: Final = 1 << 16  # decoded and split at a time
_HASHED: Final = 4096


class MappedLines(Sequence[str]):
    """The lines of a UTF-8 file as a read-only sequence; only ``"\\n"`` ends a line.

    Stores the offset of every 64th line: 5 MB of memory for 40 million rows.

    Args:
        data: The file's bytes, mapped.
        source: The name of the file in messages.

    Raises:
        ModelError: the last line has no line end, or (when a row is read) the row is not UTF-8.

    Example:
        >>> column = MappedLines("a\\nb c\\n\\u00e9\\n".encode())
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
            end = self._data.find(b"\n", min(start + _READ_BYTES, n_bytes) - 1) + 1
            yield from self._text(start, end - 1).split("\n")
            start = end

    def _text(self, start: int, end: int) -> str:
        try:
            return self._data[start:end].decode("utf-8")
        except UnicodeDecodeError as error:
            raise ModelError(
                f"{self._source}: is not UTF-8 at byte {start + error.start}; take the model from a good copy"
            ) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedLines, (bytes(self._data), self._source)

    def __repr__(self) -> str:
        return f"<MappedLines of {self._n_lines:,} lines>"


class RowFinder:
    """Finds the row of a text in a long column by sorted hashes, with 16 bytes per row.

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
    """A text that occurs more than once, or None; needs 16 bytes per text.

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
