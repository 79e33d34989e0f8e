"""How much of what two trainings answer is the same: the overlap of ten nearest neighbours between seeds.

A trainer with the same scores from every seed may still name other neighbours each time. The neighbours of a fixed
sample of rows are kept with the figures of a training, and compared for each pair of seeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

SAMPLE, NEIGHBORS = 200, 10


def sampled_neighbors(vectors: npt.NDArray[np.float32]) -> list[list[int]]:
    """The ten nearest other rows, by cosine, of at most 200 rows drawn with seed 0; empty for fewer than 12 rows."""
    if len(vectors) < NEIGHBORS + 2:
        return []
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    rows = np.random.default_rng(0).permutation(len(unit))[:SAMPLE]
    cosines = unit[rows] @ unit.T
    cosines[np.arange(len(rows)), rows] = -2
    nearest: list[list[int]] = np.argpartition(-cosines, NEIGHBORS, axis=1)[:, :NEIGHBORS].tolist()
    return nearest


def word_neighbors(words: Sequence[str], vectors: npt.NDArray[np.float32]) -> list[list[int]]:
    """The same of words, counted in alphabetical order, which does not depend on the training."""
    return sampled_neighbors(vectors[np.argsort(np.asarray(words))])


def overlaps(runs: Sequence[Sequence[Sequence[int]]]) -> list[float]:
    """For each pair of trainings, the mean share of neighbours that both name, in [0, 1].

    Example:
        >>> overlaps([[[1, 2], [3, 4]], [[2, 1], [3, 5]]])
        [0.75]
    """
    return [
        float(np.mean([len({*a} & {*b}) / len(a) for a, b in zip(first, second, strict=True)]))
        for first, second in itertools.combinations([run for run in runs if run], 2)
        if len(first) == len(second)
    ]
