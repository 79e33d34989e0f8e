"""Inflections: the words of a text that are forms of one word, such as ``computer``, ``computers``, ``computing``.

A stemmer needs to know the language; here the vectors decide. Two words are taken for forms of one word if they begin
alike, end in few other letters, and their vectors are near: ``compute`` and ``computer`` are, ``compute`` and
``company`` are not. Rare words have no vector; they count if they differ by two letters at most. Nothing of this needs
a list of endings. Words of fewer than three letters, and so most words in Chinese, stand for themselves.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from jose_embed.model.lookup import WordLookup
from jose_embed.text.word_index import SortedWords

LEAST_COMMON: Final = 3  # letters that both words begin with
MOST_OTHER: Final = 6  # letters behind them
LEAST_COSINE: Final = 0.3
_LEAST_COMMON_RARE: Final = 4
_MOST_OTHER_RARE: Final = 2
_TOO_LONG: Final = (1 << 16) - 1
_KEPT: Final = 50_000  # words that are remembered


class Inflections:
    """Finds the inflections of words.

    Args:
        lookup: The vocabulary.
        center_vectors: float32 (n_words, dim), norm 1.
        words: All words of the texts.
    """

    def __init__(self, lookup: WordLookup, center_vectors: npt.NDArray[np.float32], words: SortedWords) -> None:
        self._lookup = lookup
        self._vectors = center_vectors
        self._words = words
        self._found: dict[str, tuple[str, ...]] = {}
        every = list(words)
        self._rows = lookup.rows_of(every)
        # A word with other signs than letters is like no other; so is one of the greatest length.
        self._lengths = np.fromiter(
            (min(len(word), _TOO_LONG) if word.isalpha() else _TOO_LONG for word in every), np.uint16, len(every)
        )

    def of(self, word: str) -> tuple[str, ...]:
        """A word, as the tokenizer cuts it, and its inflections, in order."""
        found = self._found.get(word)
        if found is None:
            found = (
                tuple(sorted({word, *self._others(word)})) if len(word) >= LEAST_COMMON and word.isalpha() else (word,)
            )
            if len(self._found) >= _KEPT:
                self._found.clear()
            self._found[word] = found
        return found

    def _others(self, word: str) -> list[str]:
        first, common = self._words.alike(word, max(LEAST_COMMON, len(word) - MOST_OTHER))
        last = first + len(common)
        n_other = np.maximum(self._lengths[first:last].astype(np.int64), len(word)) - common
        row, rows = self._lookup.index_of(word), self._rows[first:last]
        known = (rows >= 0) & (row is not None)
        alike = ~known & (n_other <= _MOST_OTHER_RARE) & (common >= _LEAST_COMMON_RARE)
        if row is not None:
            near = np.flatnonzero(known & (n_other <= MOST_OTHER))
            near = near[self._vectors[rows[near]] @ self._vectors[row] >= LEAST_COSINE]
            alike[near] = True
        return [self._words[at] for at in (np.flatnonzero(alike) + first).tolist()]
