"""The vocabulary: which words a corpus holds and how often."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The kept words, the most frequent first, equal counts in the order of their UTF-8 bytes.

    Attributes:
        words: V different words.
        counts: int64 (V,), how often each occurs; at least 1, falling.

    Example:
        >>> vocabulary = Vocabulary(("the", "cat"), np.array([3, 1]))
        >>> vocabulary.n_words, vocabulary.n_tokens, vocabulary.index("cat"), vocabulary.index("dog")
        (2, 4, 1, None)
    """

    words: Sequence[str]
    counts: npt.NDArray[np.int64]

    @property
    def n_words(self) -> int:
        """V, the number of different words."""
        return len(self.words)

    @functools.cached_property
    def n_tokens(self) -> int:
        """How many running words of the corpus are words of the vocabulary: the sum of the counts."""
        return int(self.counts.sum())

    @functools.cached_property
    def _rows(self) -> dict[str, int]:
        return {word: row for row, word in enumerate(self.words)}

    def index(self, word: str) -> int | None:
        """The row of a word; ``None`` for a word that is not in the vocabulary."""
        return self._rows.get(word)

    def __contains__(self, word: object) -> bool:
        return word in self._rows

    def __len__(self) -> int:
        return len(self.words)


@dataclass(frozen=True)
class EarlierWords:
    """The words of earlier texts; their counts are added to those of the next text.

    Attributes:
        vocabulary: The words that stay in the vocabulary.
        rare: Occurrences of the other words, those that were too rare, by word; ``None`` if they are unknown.

    Example:
        >>> earlier = EarlierWords(Vocabulary(("the",), np.array([9])), {"dog": 1})
        >>> earlier.with_counts(["dog", "cat", "the"], np.array([1, 1, 2]))
        {'the': 11, 'dog': 2, 'cat': 1}
    """

    vocabulary: Vocabulary
    rare: Mapping[str, int] | None = None

    def with_counts(self, words: Sequence[str], counts: npt.NDArray[np.int64]) -> dict[str, int]:
        """Occurrences in all texts, by word: those of the vocabulary, then the others.

        Args:
            words: The words of the next text, which differ.
            counts: int64 (n_words,), how often each occurs there.
        """
        total = dict(zip(self.vocabulary.words, self.vocabulary.counts.tolist(), strict=True))
        total.update(self.rare or {})
        for word, count in zip(words, counts.tolist(), strict=True):
            total[word] = total.get(word, 0) + count
        return total
