"""Spelling suggestions: the vocabulary's words within a few typing mistakes of an unknown one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rapidfuzz import process
from rapidfuzz.distance import OSA

_LONGEST: Final = 48
_BLOCK_WORDS: Final = 65_536  # one call holds the interpreter's lock for about 8 ms


class SpellingIndex:
    """Finds words by edit distance.

    Args:
        words: The vocabulary, most frequent first.

    Example:
        >>> SpellingIndex(["potato", "language", "sausage"]).suggestions("langauge", 2)
        ['language']
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._folded = [_folded(word) for word in words]

    def suggestions(self, word: str, n: int = 3) -> list[str]:
        """At most ``n`` words close to ``word``, fewest mistakes first, then the more frequent first; upper and lower
        case count as equal.

        One mistake is a letter too many, too few, another one, or two neighbours exchanged (optimal string alignment).
        Words of up to 3 letters may have 1, up to 7 letters 2, longer ones 3.
        """
        query = word[: _LONGEST + 1].casefold()
        if not 0 < len(query) <= _LONGEST:
            return []
        mistakes = 1 if len(query) <= 3 else 2 if len(query) <= 7 else 3
        found: list[tuple[int, int]] = []
        for first in range(0, len(self._folded), _BLOCK_WORDS):
            block = self._folded[first : first + _BLOCK_WORDS]
            nearest = process.extract(query, block, scorer=OSA.distance, score_cutoff=mistakes, limit=n)
            found += [(int(distance), first + row) for _, distance, row in nearest]
        return [self._words[row] for _, row in sorted(found)[:n]]


def _folded(word: str) -> str:
    """The word without upper case; the same object if nothing changes, so that it is stored once."""
    folded = word.casefold()
    return word if folded == word else folded
