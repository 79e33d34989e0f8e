"""Counts of the words that a vocabulary leaves out, packed, for a training that goes on with more text.

A word that is rare in the first text may be frequent enough in both together, so its count is stored. The words are
lines ``word<TAB>count`` in UTF-8, sorted within runs and compressed by zlib: about 4 bytes for an English word.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from jose_embed.text.word_table import CompiledWords, WordTable

#: Words whose counts are stored, at most; of more, the most frequent.
MOST_RARE_WORDS: Final = 1 << 24

_RUN: Final = 1 << 18  # words sorted at a time
_PIECE: Final = 1 << 20  # bytes decompressed at a time
_LONGEST: Final = 1000  # characters of a word
_UNSAFE: Final = frozenset("\t\n\r")


def packed_counts(
    table: WordTable,
    numbers: npt.NDArray[np.intp],
    counts: npt.NDArray[np.int64],
    *,
    more: Iterable[tuple[str, int]] = (),
    known: frozenset[str] = frozenset(),
) -> bytes:
    """The counts of words as bytes.

    Args:
        table: Has the spellings.
        numbers: The numbers of the words in the table; shape (n,).
        counts: int64 (n,), at least 1.
        more: Further words and counts.
        known: Words to leave out.

    Words that no line can hold, or of more than 1,000 characters, are left out.

    Example:
        >>> from jose_embed.text.tokenizers import get_tokenizer
        >>> from jose_embed.text.word_table import PlainWords
        >>> table = PlainWords(str.split, "split")
        >>> _ = table.add_texts(["b a b"])
        >>> unpacked_counts(packed_counts(table, np.array([0, 1]), table.counts()))
        {'a': 1, 'b': 2}
    """
    if len(numbers) > MOST_RARE_WORDS:
        most = np.sort(np.argsort(-counts, kind="stable")[:MOST_RARE_WORDS])
        numbers, counts = numbers[most], counts[most]
    stream = zlib.compressobj(4)  # 4 % larger than by default, in half of the time
    packed = []
    for start in range(0, len(numbers), _RUN):
        run = slice(start, start + _RUN)
        packed.append(stream.compress(_lines_of(table, numbers[run], counts[run], known)))
    packed.append(stream.compress(_lines(more)))
    return b"".join([*packed, stream.flush()])


def _lines_of(
    table: WordTable, numbers: npt.NDArray[np.intp], counts: npt.NDArray[np.int64], known: frozenset[str]
) -> bytes:
    """The lines of the words that a line can hold; a compiled table makes all at once if it can hold every one."""
    if isinstance(table, CompiledWords) and not known:
        lines = table.lines(numbers, counts)
        longest = max(map(len, lines.split(b"\n")))
        if longest <= _LONGEST and lines.count(b"\t") == len(numbers) and b"\r" not in lines:
            return lines
    return _lines(zip(table.spellings(numbers), counts.tolist(), strict=True), known)


def _lines(pairs: Iterable[tuple[str, int]], known: frozenset[str] = frozenset()) -> bytes:
    lines = [
        f"{word}\t{n}\n"
        for word, n in pairs
        if 0 < len(word) <= _LONGEST and _UNSAFE.isdisjoint(word) and word not in known
    ]
    lines.sort()  # neighbors share their beginnings, which packs better
    return "".join(lines).encode(errors="ignore")


def unpacked_counts(packed: bytes) -> dict[str, int]:
    """The inverse of :func:`packed_counts`; words that occur twice are added.

    Raises:
        ValueError: other bytes; the message says what is wrong.
    """
    counts: dict[str, int] = {}
    try:
        for line in _unpacked_lines(packed):
            word, _, count = line.decode().partition("\t")
            if not (0 < len(word) <= _LONGEST and count.isascii() and count.isdigit() and 0 < len(count) < 19):
                raise ValueError
            counts[word] = counts.get(word, 0) + int(count)
            if len(counts) > 2 * MOST_RARE_WORDS:
                raise ValueError
    except (ValueError, zlib.error):
        raise ValueError("does not hold words and their counts") from None
    return counts


def _unpacked_lines(packed: bytes) -> Iterator[bytes]:
    """The lines, a piece at a time, so that a small file cannot fill the memory."""
    stream, rest = zlib.decompressobj(), b""
    while not stream.eof:
        piece = stream.decompress(packed, _PIECE)
        packed = stream.unconsumed_tail
        if not piece and not packed and not stream.eof:
            raise ValueError("it ends too early")
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > _PIECE:
            raise ValueError("there is a line without an end")
        yield from lines
    if rest or stream.unused_data:
        raise ValueError("there is more behind the end")
