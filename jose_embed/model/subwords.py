"""Words composed of character n-grams."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.text.ngrams import Ngrams


class Subwords(NamedTuple):
    """The vectors of n-grams.

    Attributes:
        vectors: float32 (buckets, dim); zero for a bucket without an n-gram of the training.
        ngrams: The n-grams of a word.

    Example:
        >>> subwords = Subwords(np.float32([[3, 4]]), Ngrams(3, 6, 1))
        >>> [round(x, 3) for x in subwords.vector("anything").tolist()]
        [0.6, 0.8]
    """

    vectors: npt.NDArray[np.float32]
    ngrams: Ngrams

    def vector(self, word: str) -> npt.NDArray[np.float32] | None:
        """The direction of the sum of a word's n-grams: float32 (dim,), norm 1; None if they say nothing."""
        total = self.prediction(word)
        length = float(np.linalg.norm(total))
        if not 0 < length < np.inf:
            return None
        vector: npt.NDArray[np.float32] = (total / length).astype(np.float32)
        vector.flags.writeable = False
        return vector

    def prediction(self, word: str) -> npt.NDArray[np.float64]:
        """The sum of a word's m n-grams over the root of m: float64 (dim,); its norm, mostly below 1, is how much of
        the vector of such a word they explain."""
        rows = self.ngrams.rows(word)
        return np.asarray(np.add.reduce(self.vectors[rows].astype(np.float64), axis=0) / max(1, len(rows)) ** 0.5)
