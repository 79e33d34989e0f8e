"""What is drawn at random while training, as pure functions of where it is drawn.

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
from numba import uint32, uint64

from jose_embed.jit import jit
from jose_embed.vocabulary import Vocabulary, alias_table

__all__ = [
    "CONTEXT_NEGATIVES",
    "DOCUMENT_NEGATIVES",
    "GOLDEN",
    "KEEP",
    "WINDOW",
    "SamplingTables",
    "draw_below",
    "draw_word",
    "mixed_bits",
    "random_bits",
    "stream_key",
]

#: The kinds of decisions; each has a stream of its own in every document and epoch.
KEEP, WINDOW, CONTEXT_NEGATIVES, DOCUMENT_NEGATIVES = 1, 2, 3, 4

#: What SplitMix64 steps by: 2^64 over the golden ratio.
GOLDEN = 0x9E3779B97F4A7C15


class SamplingTables(NamedTuple):
    """What the vocabulary's counts say about sampling, as integers a kernel compares with.

    Attributes:
        keep: uint32 (n_words,): a running word is kept where 32 random bits are at most this.
        threshold: uint32 (n_words,): the alias table of the noise distribution, see vocabulary.AliasTable.
        alias: uint32 (n_words,).
    """

    keep: npt.NDArray[np.uint32]
    threshold: npt.NDArray[np.uint32]
    alias: npt.NDArray[np.uint32]

    @classmethod
    def of(cls, vocabulary: Vocabulary, subsample_threshold: float, noise_exponent: float) -> SamplingTables:
        """The tables of a vocabulary."""
        keep = vocabulary.keep_probability(subsample_threshold)
        noise = alias_table(vocabulary.noise_distribution(noise_exponent))
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
