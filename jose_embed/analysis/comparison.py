"""Two models compared: how far words moved between them, and whether their neighbours stayed.

The axes of two trainings have nothing in common, so the words of one are first turned by the orthogonal matrix that
brings the words of both models together best,

    R = argmin sum_w |x_w R - y_w|^2 = U V^T,    U S V^T = svd(sum_w x_w^T y_w),

over the words that both have. A word moved by 1 - cos(x_w R, y_w). Neighbours need no alignment: the overlap of two
lists of k neighbours is the share of words that are in both.

Source: Schoenemann, A generalized solution of the orthogonal Procrustes problem, Psychometrika 31, 1966; Hamilton,
Leskovec and Jurafsky, Diachronic word embeddings reveal statistical laws of semantic change, ACL 2016.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ConfigError, whole_number
from jose_embed.model.embeddings import Embeddings
from jose_embed.storage.columns import row_blocks

_BLOCK: Final = 128  # words whose neighbours are searched at a time


@dataclass(frozen=True)
class MovedWord:
    """A word of two models.

    Attributes:
        word: The word.
        cosine: Of its two vectors, after the alignment.
        count: The smaller of its two counts.
        before: Its nearest words in the first model, of the common words.
        after: The same in the second.
    """

    word: str
    cosine: float
    count: int
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """How two models differ.

    Attributes:
        n_words: Words that both have.
        n_only_first: Words of the first model alone.
        n_only_second: Words of the second model alone.
        cosine: The mean cosine of the two vectors of a common word, after the alignment.
        overlap: The mean share of ``neighbors`` nearest words that both models name, for ``n_compared`` frequent words.
        n_compared: How many of the most frequent common words were compared by their neighbours.
        neighbors: Length of a list of neighbours.
        moved: The words that moved most, first the one that moved furthest.
    """

    n_words: int
    n_only_first: int
    n_only_second: int
    cosine: float
    overlap: float
    n_compared: int
    neighbors: int
    moved: tuple[MovedWord, ...]

    def to_dict(self) -> dict[str, Any]:
        """The figures and words as JSON values."""
        return asdict(self)


def compare(
    first: Embeddings,
    second: Embeddings,
    *,
    n_moved: int = 20,
    min_count: int = 20,
    neighbors: int = 10,
    n_compared: int = 1000,
) -> Comparison:
    """Compare two models by the words that both have.

    Args:
        first: A model.
        second: Another one, of any dimension.
        n_moved: Words that moved most to name.
        min_count: Occurrences that such a word has in both models, at least; rare words move by chance.
        neighbors: Neighbours of a word whose overlap is counted; from the words that both models have.
        n_compared: Frequent words whose neighbours are counted, by the smaller rank sum in both models.

    Raises:
        ConfigError: fewer than two common words, or a number below 1.

    Example::

        print(jose_embed.compare(jose_embed.load("2024.jose"), jose_embed.load("2025.jose")).overlap)
    """
    n_moved, min_count = whole_number("n_moved", n_moved, 0), whole_number("min_count", min_count)
    neighbors, n_compared = whole_number("neighbors", neighbors), whole_number("n_compared", n_compared)
    places = {word: row for row, word in enumerate(second.words)}
    pairs = [(row, place) for row, word in enumerate(first.words) if (place := places.get(word)) is not None]
    if len(pairs) < 2:
        raise ConfigError(f"the models have {len(pairs)} words in common; compare models with at least two")
    # The most frequent in both first; one order for both models.
    rows, others = np.array(sorted(pairs, key=sum), np.int64).T
    x, y = first.center_vectors[rows], second.center_vectors[others]
    words = [first.words[row] for row in rows.tolist()]
    counts = np.minimum(first.counts[rows], second.counts[others])
    cosines = _aligned_cosines(x, y)
    n_near, n_lists = min(neighbors, len(words) - 1), min(n_compared, len(words))
    near, near_other = (_neighbors(table, np.arange(n_lists), n_near) for table in (x, y))
    overlap = np.mean([len(np.intersect1d(a, b)) for a, b in zip(near, near_other, strict=True)]) / n_near
    frequent = np.flatnonzero(counts >= min_count)
    moved = frequent[np.argsort(cosines[frequent], kind="stable")[:n_moved]]
    before, after = (_neighbors(table, moved, min(3, n_near)) for table in (x, y))
    return Comparison(
        n_words=len(words),
        n_only_first=first.n_words - len(words),
        n_only_second=second.n_words - len(words),
        cosine=float(cosines.mean()),
        overlap=float(overlap),
        n_compared=n_lists,
        neighbors=n_near,
        moved=tuple(
            MovedWord(
                words[row], float(cosines[row]), int(counts[row]),
                tuple(words[at] for at in before[place]), tuple(words[at] for at in after[place]),
            )
            for place, row in enumerate(moved.tolist())
        ),
    )  # fmt: skip


def _aligned_cosines(x: npt.NDArray[np.float32], y: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The cosines of the rows of ``x``, turned as near to those of ``y`` as possible, and of ``y``."""
    product = np.zeros((x.shape[1], y.shape[1]))
    for start, block in row_blocks(x):
        product += block.astype(np.float64).T @ y[start : start + len(block)].astype(np.float64)
    left, _, right = np.linalg.svd(product, full_matrices=False)
    turn = left @ right
    cosines = np.empty(len(x))
    for start, block in row_blocks(x):
        turned = block.astype(np.float64) @ turn
        cosines[start : start + len(block)] = (turned * y[start : start + len(block)]).sum(axis=1)
    return cosines


def _neighbors(table: npt.NDArray[np.float32], rows: npt.NDArray[Any], k: int) -> npt.NDArray[np.int64]:
    """int64 (n, k): the nearest other rows of each row, nearest first."""
    nearest = np.empty((len(rows), k), np.int64)
    for start in range(0, len(rows), _BLOCK):
        some = rows[start : start + _BLOCK]
        scores = table[some] @ table.T
        scores[np.arange(len(some)), some] = -np.inf
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        nearest[start : start + len(some)] = np.take_along_axis(best, order, axis=1)
    return nearest
