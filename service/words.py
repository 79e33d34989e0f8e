"""The vocabulary as the service looks words up: by prefix and by rank."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

__all__ = ["Found", "WordTable"]

# A prefix of more words than this is answered by walking down the ranks, which finds enough of them at once.
_MANY: Final = 20_000


class Found(NamedTuple):
    """The rows of the most frequent words of a prefix, and how many words have it."""

    rows: list[int]
    total: int


class WordTable:
    """A vocabulary sorted by spelling.

    Args:
        words: Most frequent first.

    Example:
        >>> WordTable(["the", "then", "a", "they"]).starting_with("the", 2)
        Found(rows=[0, 1], total=3)
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        order = sorted(range(len(words)), key=words.__getitem__)
        self._rows = np.array(order, np.int64)
        self._sorted = [words[row] for row in order]

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
