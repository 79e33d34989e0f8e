"""The vocabulary as the service looks words up: by prefix and by rank."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Found", "PrefixIndex"]

# A prefix of more words than this is answered by walking down the ranks, which finds enough of them at once.
_MANY: Final = 20_000
_SORTED: Final = 1_024  # words between two borders, on average
_FREED: Final = 4_096  # words that are let go of at a time


class Found(NamedTuple):
    """The rows of the most frequent words of a prefix, and how many words have it."""

    rows: list[int]
    total: int


class PrefixIndex:
    """A vocabulary sorted by spelling.

    A million words are neither read, kept nor let go of in one call of C code, which would hold the interpreter's lock
    for up to a tenth of a second. They stand in an array and not in a list, because the collector of cyclic garbage
    looks at every item of a list.

    Args:
        words: Most frequent first.

    Example:
        >>> PrefixIndex(["the", "then", "a", "they"]).starting_with("the", 2)
        Found(rows=[0, 1], total=3)
    """

    _sorted: npt.NDArray[np.object_] = np.empty(0, object)  # what a table has whose making failed

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._rows = np.empty(len(words), np.int64)
        self._sorted = np.empty(len(words), object)
        first = 0
        for rows in _spelling_order(words):
            last = first + len(rows)
            self._rows[first:last] = rows
            self._sorted[first:last] = [words[row] for row in rows]
            first = last

    def __del__(self) -> None:
        # The last to hold the words of a model that is replaced. The model's own list goes first: its words live on
        # here, and then they go in pieces.
        self._words = ()
        for first in range(0, len(self._sorted), _FREED):
            self._sorted[first : first + _FREED] = None

    def starting_with(self, prefix: str, limit: int) -> Found:
        """The most frequent words that start with a prefix.

        Args:
            prefix: May be empty, which every word starts with.
            limit: At most so many.
        """
        first = bisect_left(self._sorted, prefix)
        last = bisect_left(self._sorted, _behind(prefix), lo=first) if prefix else len(self._sorted)
        total = last - first
        if total > _MANY:
            rows: list[int] = []
            for row, word in enumerate(self._words):
                if word.startswith(prefix):
                    rows.append(row)
                    if len(rows) == limit:
                        break
            return Found(rows, total)
        ranks = self._rows[first:last]
        if total > limit:
            ranks = np.partition(ranks, limit - 1)[:limit]
        return Found(np.sort(ranks).tolist(), total)


def _spelling_order(words: Sequence[str]) -> Iterator[list[int]]:
    """The rows of different words, sorted by spelling, piece by piece.

    Sorted at once, 100,000 words would hold the interpreter's lock for some 20 ms, so they are dealt out first: one in
    a thousand is a border, and what lies between two borders is sorted alone.
    """
    borders = sorted(words[::_SORTED])
    between: list[list[int]] = [[] for _ in range(len(borders) + 1)]
    for row, word in enumerate(words):
        between[bisect_right(borders, word)].append(row)
    for i, rows in enumerate(between):
        between[i] = []  # so that the numbers of each piece go with it
        yield sorted(rows, key=words.__getitem__)


def _behind(prefix: str) -> str:
    """The least string above every string that starts with ``prefix``.

    Example:
        >>> _behind("ab")
        'ac'
    """
    for end in range(len(prefix), 0, -1):
        code = ord(prefix[end - 1])
        if code < 0x10FFFF:
            return prefix[: end - 1] + chr(code + 1)
    return chr(0x10FFFF) * (len(prefix) + 1)
