"""Words that describe a direction of the document space: keywords of a document, a text, a cluster centre.

Word vectors and document vectors have the same dimension, but no document is near the vectors of its words: documents
are sums of u - s c, multiplied by the reliability matrix A (inference.py). A word is therefore compared by its
direction as a document, that of a text of this one word,

    z(w) = A (u_w - s c_w) / |A (u_w - s c_w)|,

and, since all documents share a mean direction m, by the cosine of what differs from it:

    score(w, v) = r(w) cos(z(w) - m, v - m),    r(w)^2 = topic(w) / max(topic) * n / (n + shrinkage).

topic(w) is the learned weight of the word. It is proportional to the squared mean resultant length of the word's
documents, so that topic^(1/2) cos(z(w) - m, v - m) estimates, up to a constant, the mean cosine between v and the
documents that contain the word. The second factor is the rule against rare words: a word of n occurrences is shrunk
towards 0 as a mean of n observations is by a prior of ``shrinkage`` of them.

Two directions near each other, such as the centres of two related classes, share their best words. Against other
directions a_1, a_2, ... a word is worth what it says about v more than about them:

    score(w, v | a) = r(w) (cos(z(w) - m, v - m) - 1/2 max(0, max_j cos(z(w) - m, a_j - m))).

Memory: n_words x dim float32 values for each model that is asked, made by the first call (40 MB for 100,000 words of
100 dimensions).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from jose_embed.compute.sphere import normalized
from jose_embed.model.nearest import nearest_rows

#: Occurrences at which a word's squared score is halved.
SHRINKAGE: Final = 10.0

_BLOCK_WORDS: Final = 4096  # rows that are converted to float64 at a time
_DISCOUNT: Final = 0.5  # of the cosine to the nearest of the directions that a query is contrasted with
_LEAST_TOPIC: Final = 1e-6  # share of the largest topic weight: words of one document have 0 and come last
_SAMPLED_DOCUMENTS: Final = 1 << 16  # for the mean of the documents
_NO_DIRECTION: Final = 1e-5  # a shorter difference of unit vectors in float32 is rounding error


class WordDirections:
    """The directions of all words as documents, centered.

    Args:
        center_vectors: float32 (n_words, dim), norm 1.
        context_vectors: float32 (n_words, dim); not read if the context share is 0.
        context_share: How much of its context vector is subtracted from each word vector.
        matrix: float64 (dim, dim), the reliability matrix; (0, 0) for none.
        word_weights: float64 (n_words, 2), presence and topic weights. Topic weights without presence are no learned
            ones and are not used.
        counts: int64 (n_words,), occurrences of each word.
        mean: float64 (dim,), the mean of the document vectors; None takes that of the words' directions, each as often
            as it occurs, by its weight.

    Example:
        >>> directions = WordDirections(
        ...     np.float32([[1, 0], [0, 1]]), np.float32([[1, 0], [0, 1]]), 0.0, np.empty((0, 0)), np.ones((2, 2)),
        ...     np.array([20, 10]), np.zeros(2),
        ... )
        >>> rows, scores = directions.nearest(np.array([0.6, 0.8]), 2)
        >>> rows.tolist(), scores.round(3).tolist()
        ([1, 0], [0.566, 0.49])
    """

    def __init__(
        self,
        center_vectors: npt.NDArray[np.float32],
        context_vectors: npt.NDArray[np.float32],
        context_share: float,
        matrix: npt.NDArray[np.float64],
        word_weights: npt.NDArray[np.float64],
        counts: npt.NDArray[np.int64],
        mean: npt.NDArray[np.float64] | None,
    ) -> None:
        self.counts = counts
        self.rows: npt.NDArray[np.float32] = np.empty(center_vectors.shape, np.float32)
        total = np.zeros(center_vectors.shape[1])
        frequent = counts * word_weights.sum(1)
        for start in range(0, len(self.rows), _BLOCK_WORDS):
            block = slice(start, start + _BLOCK_WORDS)
            vectors = center_vectors[block].astype(np.float64)
            if context_share:
                vectors -= context_share * context_vectors[block].astype(np.float64)
            self.rows[block] = normalized(vectors @ matrix if len(matrix) else vectors)
            total += frequent[block] @ self.rows[block].astype(np.float64)
        self.mean = total / frequent.sum() if mean is None else mean
        for start in range(0, len(self.rows), _BLOCK_WORDS):
            block = slice(start, start + _BLOCK_WORDS)
            self.rows[block] = normalized(self.rows[block] - self.mean)
        presence, topic = word_weights.T
        largest = float(topic.max(initial=0)) if presence.any() else 0.0
        self._agreement = np.maximum(topic / largest, _LEAST_TOPIC) if largest > 0 else np.ones(len(topic))

    def reliability(self, shrinkage: float = SHRINKAGE) -> npt.NDArray[np.float32]:
        """float32 (n_words,), 0 to 1: r(w), by which cosines are multiplied."""
        return np.asarray(np.sqrt(self._agreement * (self.counts / (self.counts + shrinkage))), np.float32)

    def centered(self, vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """float64 (..., dim): directions of the document space without the mean, norm 1.

        A direction equal to the mean, as in a model of one document, is not centered.
        """
        vectors = np.asarray(vectors, np.float64)
        differences = vectors - self.mean
        at_mean = np.linalg.norm(differences, axis=-1, keepdims=True) < _NO_DIRECTION
        return normalized(np.where(at_mean, vectors, differences))

    def nearest(
        self,
        vector: npt.NDArray[np.floating],
        k: int,
        *,
        against: npt.NDArray[np.floating] | None = None,
        shrinkage: float = SHRINKAGE,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """The rows of the ``k`` words of highest score, best first, equal ones by frequency, and their scores; exact.

        Args:
            vector: (dim,), norm 1, a direction of the document space.
            k: From 1 up; a larger one than there are words gives all.
            against: (n, dim), other directions; None or no rows for no contrast.
            shrinkage: From 0 up; see the head of this file.
        """
        query = self.centered(vector).astype(np.float32)
        if against is None or not len(against):
            return nearest_rows(self.rows, query, k, factors=self.reliability(shrinkage))
        others = self.centered(against).astype(np.float32)
        scores = np.empty(len(self.rows))
        for start in range(0, len(self.rows), _BLOCK_WORDS):
            block = self.rows[start : start + _BLOCK_WORDS]
            shared = (block @ others.T).max(1)
            scores[start : start + _BLOCK_WORDS] = block @ query - _DISCOUNT * np.maximum(shared, 0)
        scores *= self.reliability(shrinkage)
        order = np.argsort(-scores, kind="stable")[:k]
        return order, scores[order]


def mean_of_documents(
    doc_vectors: npt.NDArray[np.float32], token_counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64] | None:
    """The mean of the document vectors, of 65,536 drawn with a fixed seed if there are more; None without documents.

    Args:
        doc_vectors: float32 (n_docs, dim), norm 1.
        token_counts: int64 (n_docs,); documents of 0 known words have no direction and are left out.
    """
    rows = np.flatnonzero(token_counts)
    if len(rows) > _SAMPLED_DOCUMENTS:
        rows = rows[np.unique(np.random.default_rng(0).integers(0, len(rows), _SAMPLED_DOCUMENTS))]
    if not len(rows):
        return None
    total = np.zeros(doc_vectors.shape[1])
    for start in range(0, len(rows), _BLOCK_WORDS):
        total += doc_vectors[rows[start : start + _BLOCK_WORDS]].sum(0, dtype=np.float64)
    return np.asarray(total / len(rows))
