"""Exact nearest rows by inner product: of a whole table block by block, in bounded memory, or of some of its rows."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from jose_embed.compute.jit import kernel_from

BLOCK_ROWS: Final = 65_536
_SCORED_ROWS: Final = 4_096
_MOST_OF_A_BLOCK: Final = 256
_READ_ALONE: Final = 0.55  # of the rows: it takes longer to read a larger share, row by row, than to read all
_write_products = kernel_from("jose_embed.compute.cpu.products", "kernel")


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
    slack = np.float32(_slack(dim))
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
        exact = _products(matrix, candidates, exact_query)
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
    rows: npt.NDArray[np.int64] | None = None,
    *,
    factors: npt.NDArray[np.float32] | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The same among some rows, by a compiled loop that reads these rows only.

    Args:
        matrix: As for :func:`nearest_rows`.
        query: The same.
        k: The same.
        rows: int64, rising; all if None.
        factors: float32 (n,), 0 to 1: the inner product with each row of the matrix is multiplied by it.
    """
    rough = products(matrix, query, rows, factors=factors)
    rough[~np.isfinite(rough)] = -np.inf
    candidates = at_least_best(rough, k, _slack(matrix.shape[1]))
    found = candidates if rows is None else rows[candidates]
    exact = _products(matrix, found, query.astype(np.float64))
    if factors is not None:
        exact *= factors[found]
    order = np.lexsort((found, -exact))[:k]
    return found[order], exact[order]


def products(
    matrix: npt.NDArray[np.float32],
    query: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64] | None = None,
    *,
    factors: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float32]:
    """The inner products of rows with a query, in float32; the arguments are those of :func:`nearest_among`."""
    weights = np.empty(0, np.float32) if factors is None else factors
    if rows is not None and len(rows) <= _READ_ALONE * (int(rows[-1]) + 1 - int(rows[0]) if len(rows) else 1):
        out = np.empty(len(rows), np.float32)
        _write_products(matrix, rows, query, weights, out)
        return out
    first, last = (0, len(matrix)) if rows is None else (int(rows[0]), int(rows[-1]) + 1)
    out = np.empty(last - first, np.float32)
    _write_products(matrix[first:last], np.empty(0, np.int64), query, weights[first:last], out)
    return out if rows is None or len(rows) == len(out) else out.take(rows - first)


def at_least_best(
    scores: npt.NDArray[np.float32], k: int, slack: float = 0.0, above: float = -np.inf
) -> npt.NDArray[np.int64]:
    """The places, rising, of all numbers that are at most ``slack`` below the ``k``-th largest.

    Args:
        scores: float32 (n,), no NaN.
        k: At least 1.
        slack: At least 0.
        above: Only numbers above this one.
    """
    least = np.float32(above)
    size = min(_MOST_OF_A_BLOCK, len(scores) // (4 * k))
    if size > 1:  # k blocks have a number that is no less than the k-th largest of the largest
        largest = scores[: len(scores) // size * size].reshape(size, -1).max(axis=0)
        least = max(least, kth_largest(largest, k) - np.float32(slack))
    found = np.flatnonzero(scores >= least if least > above else scores > least)
    if k < len(found):
        some = scores[found]
        found = found[some >= kth_largest(some, k) - np.float32(slack)]
    return found


def kth_largest(numbers: npt.NDArray[np.float32], k: int) -> np.float32:
    """The ``k``-th largest of at least ``k`` numbers."""
    found: np.float32 = np.partition(numbers, len(numbers) - k)[len(numbers) - k]
    return found


def _slack(dim: int) -> float:
    """The rounding error of a product in float32."""
    return 4 * dim * 2.0**-24


def _products(
    matrix: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], query: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    # Not a matrix product, which may give equal rows different sums, depending on their place in a block.
    some = [(matrix[rows[i : i + _SCORED_ROWS]] * query).sum(axis=1) for i in range(0, len(rows), _SCORED_ROWS)]
    return np.concatenate([np.empty(0), *some])
