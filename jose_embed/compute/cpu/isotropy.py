"""A step that spreads the rows of a table over all directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from jose_embed.compute.jit import jit


def spread_out(table: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], dim: int, step: float) -> None:
    """Move rows against the gradient of |M - I / dim|^2, M = W^T W / n being their second moment, in place.

    The gradient by a row w is (4 / n) (M - I / dim) w. The part with I is orthogonal to the sphere, so each row takes

        w <- R(w - step * dim * (I - w w^T) M w).

    dim * M has a mean eigenvalue of 1. The step is at most 1 / |dim * M|, so that no axis is turned around by it.

    Args:
        table: float32 (n_rows, columns), rows of norm 1, padded with zeros.
        rows: int64 (n,), the rows that are measured and moved, all different.
        dim: The columns that are not padding.
        step: Not negative.
    """
    _spread_out(table, rows, dim, step, np.zeros((dim, dim), np.float32), np.empty(dim, np.float32))


@jit(fastmath=True)
def _spread_out(table: Any, rows: Any, dim: Any, step: Any, moment: Any, asked: Any) -> None:
    # Loops, because a matrix product of this size costs a library of linear algebra more to share out than to compute.
    for row in rows:
        for i in range(dim):
            x = table[row, i]
            for j in range(dim):
                moment[i, j] += x * table[row, j]
    scale = dim / len(rows)
    total = 0.0
    for i in range(dim):
        for j in range(dim):
            moment[i, j] *= scale
            total += moment[i, j] * moment[i, j]
    bounded = np.float32(min(step, 1 / np.sqrt(total)))
    for row in rows:
        for j in range(dim):
            asked[j] = 0
        for i in range(dim):
            x = table[row, i]
            for j in range(dim):
                asked[j] += x * moment[i, j]
        along = np.float32(0)
        for j in range(dim):
            along += asked[j] * table[row, j]
        square = np.float32(0)
        for j in range(dim):
            table[row, j] -= bounded * (asked[j] - along * table[row, j])
            square += table[row, j] * table[row, j]
        inverse_norm = np.float32(1) / np.sqrt(square)
        for j in range(dim):
            table[row, j] *= inverse_norm
