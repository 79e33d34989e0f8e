"""Inflections: the words of a text that are forms of one word, such as ``computer``, ``computers``, ``computing``.

A stemmer needs to know the language; here the vectors decide. Two words are taken for forms of one word if they begin
alike, end in few other letters, and their vectors are near: ``compute`` and ``computer`` are, ``compute`` and
``company`` are not. Rare words have no vector; they count if they differ by two letters at most. Nothing of this needs
a list of endings. Words of fewer than three letters, and so most words in Chinese, stand for themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import Final

import numpy as np
import numpy.typing as npt

from jose_embed.model.lookup import WordLookup

__all__ = ["Inflections"]

LEAST_COMMON: Final = 3  # letters that both words begin with
MOST_OTHER: Final = 6  # letters behind them
LEAST_COSINE: Final = 0.3
_LEAST_COMMON_RARE: Final = 4
_MOST_OTHER_RARE: Final = 2
_KEPT: Final = 50_000  # words that are remembered


class Inflections:
    """Finds the inflections of words.

    Args:
        lookup: The vocabulary.
        center_vectors: float32 (n_words, dim), norm 1.
        beginning_with: All words of the texts that begin with some letters.
    """

    def __init__(
        self,
        lookup: WordLookup,
        center_vectors: npt.NDArray[np.float32],
        beginning_with: Callable[[str], Iterable[str]],
    ) -> None:
        self._lookup = lookup
        self._vectors = center_vectors
        self._beginning_with = beginning_with
        self._found: dict[str, tuple[str, ...]] = {}

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
        row = self._lookup.index_of(word)
        rare: list[str] = []
        rows: list[int] = []
        for other in self._beginning_with(word[:LEAST_COMMON]):
            n_common = _common(word, other)
            n_other = max(len(word), len(other)) - n_common
            if n_other > MOST_OTHER or not other.isalpha():
                continue
            of_other = self._lookup.index_of(other)
            if row is not None and of_other is not None:
                rows.append(of_other)
            elif n_other <= _MOST_OTHER_RARE and n_common >= _LEAST_COMMON_RARE:
                rare.append(other)
        if row is None or not rows:
            return rare
        near = self._vectors[rows] @ self._vectors[row] >= LEAST_COSINE
        return rare + [self._lookup.words[at] for at, is_near in zip(rows, near.tolist(), strict=True) if is_near]


def _common(a: str, b: str) -> int:
    """How many letters two words have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
