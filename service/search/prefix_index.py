"""The vocabulary sorted by spelling, for look-ups by prefix."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

# A prefix of more words than this is answered by going through the words from the most frequent one down.
_MANY: Final = 20_000


class Found(NamedTuple):
    """The rows of the most frequent words with a prefix, and the number of words with that prefix."""

    rows: list[int]
    total: int


class PrefixIndex:
    """A vocabulary sorted by spelling.

    Args:
        words: Most frequent first.

    Example:
        >>> PrefixIndex(["the", "then", "a", "they"]).starting_with("the", 2)
        Found(rows=[0, 1], total=3)
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        # NumPy sorts without the interpreter's lock; sorted() would hold it for seconds with a million words.
        self._rows = np.argsort(np.array(words, np.dtypes.StringDType()), kind="stable")

    def starting_with(self, prefix: str, limit: int) -> Found:
        """The most frequent words that start with a prefix.

        Args:
            prefix: May be empty: every word starts with it.
            limit: Most answers.
        """
        first = bisect_left(self._rows, prefix, key=self._words.__getitem__)
        end = _behind(prefix)
        last = bisect_left(self._rows, end, lo=first, key=self._words.__getitem__) if prefix else len(self._rows)
        total = last - first
        if total > _MANY:
            rows: list[int] = []
            for row, word in enumerate(self._words):
                if word.startswith(prefix):
                    rows.append(row)
                    if len(rows) == limit:
                        break
            return Found(rows, total)
        return Found(np.sort(self._rows[first:last])[:limit].tolist(), total)


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
