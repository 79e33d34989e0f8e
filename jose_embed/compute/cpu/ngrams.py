"""Fits vectors of n-grams to vectors of words, compiled; training/subwords.py says why and how."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from jose_embed.compute.jit import jit


@jit(fastmath=True)
def fit_ngrams(
    targets: npt.NDArray[np.float32],
    evidence: npt.NDArray[np.float32],
    order: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    table: npt.NDArray[np.float32],
    rest: npt.NDArray[np.float32],
    first_rate: float,
    last_rate: float,
) -> None:
    """One pass: each word in turn moves its n-grams so that their sum, over the root of their number, meets the word.

    Args:
        targets: (n_words, at least dim), norm 1 over the first dim columns.
        evidence: (n_words,), 0 to 1: how far the n-grams of the word move.
        order: (n_words,), the order of the words.
        rows: Rows of the table, those of word i from ``offsets[i]`` to ``offsets[i + 1]``.
        offsets: (n_words + 1,).
        table: (buckets, dim), changed in place.
        rest: (dim,), work space.
        first_rate: Share of the difference that the first word closes.
        last_rate: That of the last word; between them it falls linearly.
    """
    dim = table.shape[1]
    for place in range(len(order)):
        word = order[place]
        start, end = offsets[word], offsets[word + 1]
        if end == start:
            continue
        scale = np.float32(1 / np.sqrt(end - start))
        rate = first_rate + (last_rate - first_rate) * place / len(order)
        step = np.float32(rate * evidence[word]) * scale
        for column in range(dim):
            rest[column] = targets[word, column]
        for i in range(start, end):
            row = rows[i]
            for column in range(dim):
                rest[column] -= scale * table[row, column]
        for i in range(start, end):
            row = rows[i]
            for column in range(dim):
                table[row, column] += step * rest[column]
