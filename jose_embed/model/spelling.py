"""Spelling suggestions: the vocabulary's words within a few typing mistakes of an unknown one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["SpellingIndex"]

_LONGEST: Final = 48
_BLOCK_WORDS: Final = 65_536
_MOST_CANDIDATES: Final = 4_096


class SpellingIndex:
    """Finds words by edit distance; a filter over the letters that occur keeps the costly part to a few thousand words.

    Every word has a mask of 64 bits, one set for each of its letters (two letters may share a bit). One typing mistake
    changes at most two bits, so words whose masks differ in more than ``2 * mistakes`` bits are out of the question.

    Args:
        words: The vocabulary, most frequent first.

    Example:
        >>> SpellingIndex(["potato", "language", "sausage"]).suggestions("langauge", 2)
        ['language']
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._masks = np.empty(len(words), np.uint64)
        self._lengths = np.empty(len(words), np.int32)
        for first in range(0, len(words), _BLOCK_WORDS):
            block = words[first : first + _BLOCK_WORDS]
            codes = _codes("\n".join(block) + "\n")
            ends = np.flatnonzero(codes == 10)
            starts = np.concatenate([[0], ends[:-1] + 1])
            if len(ends) != len(block):  # a word with a line end inside, in a model made by hand: without suggestions
                self._masks[first : first + len(block)] = ~np.uint64(0)
                self._lengths[first : first + len(block)] = -1000
                continue
            bits = _bits(codes)
            bits[ends] = 0
            self._masks[first : first + len(block)] = np.bitwise_or.reduceat(bits, starts)
            self._lengths[first : first + len(block)] = ends - starts

    def suggestions(self, word: str, n: int = 3) -> list[str]:
        """At most ``n`` words close to ``word``, fewest mistakes first, then the more frequent first; upper and lower
        case count as equal.

        One mistake is a letter too many, too few, another one, or two neighbours exchanged; words of up to 3 letters
        may have 1, up to 7 letters 2, longer ones 3.
        """
        query = _codes(word[: _LONGEST + 1])
        if not 0 < len(query) <= _LONGEST or not len(self._words):
            return []
        mistakes = 1 if len(query) <= 3 else 2 if len(query) <= 7 else 3
        mask = np.bitwise_or.reduce(_bits(query))
        apart = np.bitwise_count(self._masks ^ mask)
        near = np.flatnonzero((apart <= 2 * mistakes) & (np.abs(self._lengths - len(query)) <= mistakes))
        if len(near) > _MOST_CANDIDATES:
            near = np.sort(near[np.argsort(apart[near], kind="stable")[:_MOST_CANDIDATES]])
        if not len(near):
            return []
        distances = edit_distances(query, [_codes(self._words[int(i)]) for i in near])
        order = np.lexsort((near, distances))
        return [self._words[int(near[i])] for i in order[:n] if distances[i] <= mistakes]


def edit_distances(word: npt.NDArray[np.uint32], others: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[Any]:
    """Edits (insert, delete, replace, exchange of neighbours) from one word to each of several, all at once; at most
    254 letters each.

    The rows of the usual table of optimal string alignment, one table per word, filled in step.

    Returns:
        uint8, shape (len(others),).
    """
    lengths = np.array([len(other) for other in others])
    width = int(lengths.max())
    letters = np.zeros((width, len(others)), np.uint32)
    for i, other in enumerate(others):
        letters[: len(other), i] = other
    table = np.zeros((len(word) + 1, width + 1, len(others)), np.uint8)
    table[:, 0] = np.arange(len(word) + 1, dtype=np.uint8)[:, None]
    table[0] = np.arange(width + 1, dtype=np.uint8)[:, None]
    for i in range(1, len(word) + 1):
        for j in range(1, width + 1):
            same = letters[j - 1] == word[i - 1]
            cell = np.minimum(np.minimum(table[i - 1, j], table[i, j - 1]) + 1, table[i - 1, j - 1] + ~same)
            if i > 1 and j > 1:
                exchanged = (letters[j - 2] == word[i - 1]) & (letters[j - 1] == word[i - 2])
                cell = np.where(exchanged, np.minimum(cell, table[i - 2, j - 2] + 1), cell)
            table[i, j] = cell
    return np.asarray(table[len(word), lengths, np.arange(len(others))])


def _bits(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """The bit of each letter in a mask: six bits of its code point's multiplicative hash say which."""
    return np.left_shift(np.uint64(1), ((codes * np.uint32(2654435761)) >> np.uint32(26)).astype(np.uint64))


def _codes(text: str) -> npt.NDArray[np.uint32]:
    """The code points of a text, case folded; a lone surrogate is one like any other."""
    return np.frombuffer(text.casefold().encode("utf-32-le", "surrogatepass"), np.uint32)
