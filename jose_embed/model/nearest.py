"""Exact nearest rows by inner product, block by block, in bounded memory."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

BLOCK_ROWS: Final = 65_536
_SCORED_ROWS: Final = 4_096
_GATHERED: Final = 0.3  # of the rows: a smaller share is copied before it is scored


def nearest_rows(
    matrix: npt.NDArray[np.float32],
    query: npt.NDArray[np.float32],
    k: int,
    *,
    excluded: npt.NDArray[np.int64] | None = None,
    may: npt.NDArray[np.bool_] | None = None,
    factors: npt.NDArray[np.float32] | None = None,
    block_rows: int = BLOCK_ROWS,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The ``k`` rows with the largest inner product with ``query``, best first, equal ones by index.

    Each block is scored in float32; rows that could be among the best within the rounding error are scored again in
    float64. The result depends neither on the block size nor on the order in which a BLAS adds.

    Args:
        matrix: float32 (n, dim), rows of norm 1; may be a mapped file.
        query: float32 (dim,), norm 1.
        k: At least 1; all rows if it is larger than n.
        excluded: int64, rows to leave out.
        may: bool (n,): only these rows; all if None.
        factors: float32 (n,), 0 to 1: each inner product is multiplied by the factor of its row.
        block_rows: Rows scored at a time.

    Returns:
        Indices, int64, and inner products, float64, both of shape (at most k,). Rows that contain a NaN or an infinity
        are left out.
    """
    n, dim = matrix.shape
    slack = np.float32(4 * dim * 2.0**-24)
    exact_query = query.astype(np.float64)
    best = np.empty(0, np.int64)
    scores = np.empty(0, np.float64)
    for first in range(0, n, block_rows):
        last = min(first + block_rows, n)
        with np.errstate(invalid="ignore", over="ignore"):
            rough = matrix[first:last] @ query
            if factors is not None:
                rough *= factors[first:last]
        if excluded is not None:
            rough[excluded[(excluded >= first) & (excluded < last)] - first] = -np.inf
        there = None
        if may is not None and not may[first:last].all():
            there = np.flatnonzero(may[first:last])
            rough = rough[there]
        rough[~np.isfinite(rough)] = -np.inf
        floor = np.float32(-np.inf)
        if k < len(rough):
            floor = np.partition(rough, len(rough) - k)[len(rough) - k] - slack
        if len(best) == k:
            floor = max(floor, np.float32(scores[-1]) - slack)
        candidates = np.flatnonzero((rough >= floor) & (rough > -np.inf))
        if not len(candidates):
            continue
        candidates = (candidates if there is None else there[candidates]) + first
        exact = np.concatenate(
            [
                _products(matrix[candidates[i : i + _SCORED_ROWS]], exact_query)
                for i in range(0, len(candidates), _SCORED_ROWS)
            ]
        )
        if factors is not None:
            exact *= factors[candidates]
        best, scores = np.concatenate([best, candidates]), np.concatenate([scores, exact])
        order = np.lexsort((best, -scores))[:k]
        best, scores = best[order], scores[order]
    return best, scores


def nearest_among(
    matrix: npt.NDArray[np.float32],
    query: npt.NDArray[np.float32],
    k: int,
    may: npt.NDArray[Any],
    *,
    excluded: npt.NDArray[np.int64] | None = None,
    factors: npt.NDArray[np.float32] | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The same among the rows where ``may``, bool (n,), is true; few such rows are copied, so that they cost little.
    ``may`` may also be these rows, int64, rising."""
    if may.dtype == np.bool_ and int(np.count_nonzero(may)) >= _GATHERED * len(may):
        return nearest_rows(matrix, query, k, excluded=excluded, may=may, factors=factors)
    rows = np.flatnonzero(may) if may.dtype == np.bool_ else may
    if excluded is not None:
        rows = np.setdiff1d(rows, excluded)
    found, scores = nearest_rows(matrix[rows], query, k, factors=None if factors is None else factors[rows])
    return rows[found], scores


def _products(rows: npt.NDArray[np.float32], query: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    # Not a matrix product, which may give equal rows different sums, depending on their place in a block.
    return np.asarray((rows * query).sum(axis=1))
