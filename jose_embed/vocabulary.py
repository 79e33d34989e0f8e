"""The vocabulary: which words a corpus holds, how often, and the two distributions that training draws from.

Source: keep probability and noise distribution follow Mikolov et al., *Distributed Representations of Words and Phrases
and their Compositionality*, NeurIPS 2013, the former in the form that the word2vec program computes. The alias method
is Walker's (1977); it is built here by cumulated sums over integers instead of a work list.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["AliasTable", "Vocabulary", "alias_table"]


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

    def keep_probability(self, threshold: float) -> npt.NDArray[np.float64]:
        """The chance that an occurrence of each word is trained on; frequent words are thinned out.

        ``min(1, (sqrt(c / (t N)) + 1) t N / c)`` with the word's count c, N running words, threshold t.

        Args:
            threshold: The share t of the text above which thinning begins, in (0, 1]; 1 keeps everything.

        Returns:
            float64 (V,), in (0, 1].

        Example:
            >>> Vocabulary(("a", "b"), np.array([96, 4])).keep_probability(0.06).round(4).tolist()
            [0.3125, 1.0]
        """
        share = self.counts / (threshold * self.n_tokens)
        return np.minimum(1.0, (np.sqrt(share) + 1.0) / share)

    def noise_distribution(self, exponent: float) -> npt.NDArray[np.float64]:
        """The distribution of negative words: proportional to count to the power of ``exponent``.

        Args:
            exponent: 0 draws all words alike, 1 as often as they occur.

        Returns:
            float64 (V,), positive, with sum 1.
        """
        weights = (self.counts / self.counts[0]) ** exponent
        return np.asarray(weights / weights.sum(), dtype=np.float64)


class AliasTable(NamedTuple):
    """A distribution over V values in a form from which one 64-bit random number draws a value.

    ``slot = (high32(r) * V) >> 32``, then the value is ``slot`` if ``low32(r) < threshold[slot]`` else ``alias[slot]``.
    A column that holds its own value alone has the threshold 0xFFFFFFFF and itself as alias.

    Attributes:
        threshold: uint32 (V,).
        alias: uint32 (V,).
    """

    threshold: npt.NDArray[np.uint32]
    alias: npt.NDArray[np.uint32]

    def sample(self, random: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
        """The values that random numbers draw: what the kernel does, for arrays.

        Args:
            random: uint64, any shape, uniform over all 64 bits.

        Returns:
            uint32, the same shape, each below V.
        """
        slot = ((random >> np.uint64(32)) * np.uint64(len(self.threshold))) >> np.uint64(32)
        low = random & np.uint64(0xFFFFFFFF)
        return np.where(low < self.threshold[slot], slot, self.alias[slot]).astype(np.uint32)


def alias_table(distribution: npt.NDArray[np.float64]) -> AliasTable:
    """The alias table of a distribution, exact to 1 / (V 2^32) per value.

    Every value gets a whole number of units, V 2^32 in all; a column of the table holds 2^32 of them. Values below one
    column (light) are filled up from those above it (heavy), both in ascending order: cumulated needs against cumulated
    surpluses tell which heavy value fills which column. A heavy value that is used up becomes a light one itself,
    filled up by the next.

    Args:
        distribution: float64 (V,), not negative, with a positive sum; V below 2^31.

    Raises:
        ValueError: an empty distribution, a negative or infinite or undefined value, no positive one.
    """
    n = len(distribution)
    total = float(np.sum(distribution))
    if not (0 < n < 2**31 and 0.0 < total < np.inf and np.min(distribution) >= 0.0):
        raise ValueError(
            f"no distribution: {n} values with sum {total}; they must not be negative and their sum must be positive"
        )
    column = 1 << 32
    units = _whole_units(distribution / total, n * column)

    threshold = np.full(n, column - 1, np.uint32)
    alias = np.arange(n, dtype=np.uint32)
    light, heavy = np.flatnonzero(units < column), np.flatnonzero(units > column)
    if not len(light):
        return AliasTable(threshold, alias)
    needs, surpluses = np.cumsum(column - units[light]), np.cumsum(units[heavy] - column)  # their totals are equal
    needs_before = np.concatenate(([0], needs[:-1]))
    threshold[light] = units[light]
    alias[light] = heavy[np.searchsorted(surpluses, needs_before, side="right")]
    # A heavy value is overdrawn by the light one whose need begins before its surplus ends and goes on behind that. One
    # that is used up exactly, like the last (the sums are equal), keeps a full column.
    end = np.searchsorted(needs, surpluses[:-1], side="right")
    missing = np.where(needs_before[end] < surpluses[:-1], needs[end] - surpluses[:-1], 0)
    short = np.flatnonzero(missing)
    threshold[heavy[short]] = column - missing[short]
    alias[heavy[short]] = heavy[short + 1]
    return AliasTable(threshold, alias)


def _whole_units(shares: npt.NDArray[np.float64], total: int) -> npt.NDArray[np.int64]:
    """Whole numbers proportional to shares with exactly this sum; what rounding leaves goes to, or comes from, the
    largest."""
    units = np.floor(shares * total).astype(np.int64)
    units[np.argmax(units)] += total - int(units.sum())
    return units
