"""Random samples of a training, as pure functions of their position.

Nothing here has a state. The random bits of a decision are a hash of the seed, the epoch, the document, the kind of
decision and the position it is made for. So the samples do not depend on the number of workers, on the order in which
documents are visited, or on the processor: the GPU computes the same function.

Source: the finaliser of SplitMix64 (Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014), used
on a counter.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy import uint32, uint64

from jose_embed.compute.jit import jit

#: The kinds of decisions; each has a stream of its own in every document and epoch.
KEEP, WINDOW, CONTEXT_NEGATIVES, DOCUMENT_NEGATIVES = 1, 2, 3, 4

#: Increment of SplitMix64: 2^64 over the golden ratio.
GOLDEN = 0x9E3779B97F4A7C15


class SamplingTables(NamedTuple):
    """Sampling probabilities of the words, as integers that a kernel compares random bits with.

    Attributes:
        keep: uint32 (n_words,): a running word is kept if 32 random bits are at most this.
        threshold: uint32 (n_words,): the alias table of the noise distribution, see :class:`AliasTable`.
        alias: uint32 (n_words,).
    """

    keep: npt.NDArray[np.uint32]
    threshold: npt.NDArray[np.uint32]
    alias: npt.NDArray[np.uint32]

    @classmethod
    def of(cls, counts: npt.NDArray[np.int64], subsample_threshold: float, noise_exponent: float) -> SamplingTables:
        """The tables of a vocabulary whose words occur so often: int64 (n_words,)."""
        keep = keep_probability(counts, subsample_threshold)
        noise = alias_table(noise_distribution(counts, noise_exponent))
        return cls(np.minimum(keep * 2.0**32, 2.0**32 - 1).astype(np.uint32), noise.threshold, noise.alias)


def mixed_bits(z: Any) -> Any:
    """The finaliser of SplitMix64: uint64 to uint64, one number in a kernel, or here an array of them."""
    z = (z ^ (z >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> uint64(27))) * uint64(0x94D049BB133111EB)
    return z ^ (z >> uint64(31))


_mixed = jit(inline=True)(mixed_bits)


@jit(inline=True)
def stream_key(seed: Any, epoch: Any, document: Any, stream: Any) -> Any:
    """The uint64 key of one kind of decision in one document and epoch."""
    key = _mixed(uint64(seed) + uint64(GOLDEN))
    key = _mixed(key ^ (uint64(epoch) + uint64(1)) * uint64(GOLDEN))
    return _mixed(key ^ (uint64(document) * uint64(8) + uint64(stream)) * uint64(GOLDEN))


@jit(inline=True)
def random_bits(key: Any, index: Any) -> Any:
    """64 random bits for the decision number ``index`` (from 0) of a stream."""
    return _mixed(key + (uint64(index) + uint64(1)) * uint64(GOLDEN))


@jit(inline=True)
def draw_below(bits: Any, limit: Any) -> Any:
    """A whole number from 0 to limit - 1, limit at most 2^32, from the upper half of 64 random bits."""
    return ((bits >> uint64(32)) * uint64(limit)) >> uint64(32)


@jit(inline=True)
def draw_word(tables: Any, bits: Any) -> Any:
    """A word's row from the noise distribution: the column from the upper 32 bits, itself or its alias by the lower."""
    column = draw_below(bits, uint64(tables.threshold.shape[0]))
    other = tables.alias[column]
    return uint32(column) if uint32(bits) < tables.threshold[column] else other


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
            f"not a distribution: {n} values with sum {total}; they must not be negative and their sum must be positive"
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


def keep_probability(counts: npt.NDArray[np.int64], threshold: float) -> npt.NDArray[np.float64]:
    """The probability that an occurrence of each word is trained on; frequent words are subsampled.

    ``min(1, (sqrt(c / (t N)) + 1) t N / c)`` with the word's count c, N running words, threshold t.

    Args:
        counts: int64 (n_words,), how often each word occurs, at least 1.
        threshold: The share t of the text above which subsampling begins, in (0, 1]; 1 keeps everything.

    Returns:
        float64 (n_words,), in (0, 1].

    Source: Mikolov et al., *Distributed Representations of Words and Phrases and their Compositionality*, NeurIPS 2013,
    in the form that the word2vec program computes.

    Example:
        >>> keep_probability(np.array([96, 4]), 0.06).round(4).tolist()
        [0.3125, 1.0]
    """
    share = counts / (threshold * int(counts.sum()))
    return np.minimum(1.0, (np.sqrt(share) + 1.0) / share)


def noise_distribution(counts: npt.NDArray[np.int64], exponent: float) -> npt.NDArray[np.float64]:
    """The distribution of negative words: proportional to the count to the power of ``exponent``.

    Args:
        counts: int64 (n_words,), the largest first.
        exponent: 0 draws all words with equal probability, 1 as often as they occur.

    Returns:
        float64 (n_words,), positive, with sum 1.

    Source: Mikolov et al., NeurIPS 2013.
    """
    weights = (counts / counts[0]) ** exponent
    return np.asarray(weights / weights.sum(), dtype=np.float64)
