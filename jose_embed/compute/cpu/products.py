"""The kernel that multiplies rows of a table with a query.

This module imports Numba; model/nearest.py imports it at the first call only.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jose_embed.compute.cpu.simd import prefetch
from jose_embed.compute.jit import jit
from jose_embed.compute.tables import LANES

_AHEAD: Final = 32  # rows: their memory arrives while those before them are multiplied


def kernel() -> Any:
    """The kernel :func:`write_products`."""
    return write_products


@jit(fastmath=True)
def write_products(
    matrix: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    query: npt.NDArray[np.float32],
    factors: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    """Write the product of each row with a query, times the row's factor. In one pass, faster than BLAS.

    Args:
        matrix: float32 (n, dim).
        rows: int64: the rows; all if empty.
        query: float32 (dim,).
        factors: float32 (n,); 1 if empty.
        out: float32, written to: as long as the rows are many.
    """
    # Four at a time: the processor waits for their memory together. The last four may be the same row, so that the
    # product of a row does not depend on its place.
    last = len(out) - 1
    for at in range(0, len(out), 4):
        at_b, at_c, at_d = min(at + 1, last), min(at + 2, last), min(at + 3, last)
        if len(rows):
            a, b, c, d = rows[at], rows[at_b], rows[at_c], rows[at_d]
            for later in range(at + _AHEAD, min(at + _AHEAD + 4, last + 1)):
                for axis in range(0, len(query), LANES):
                    prefetch(matrix, rows[later], axis)
        else:  # the processor sees itself which rows come next
            a, b, c, d = at, at_b, at_c, at_d
        row_a, row_b, row_c, row_d = np.uint64(a), np.uint64(b), np.uint64(c), np.uint64(d)
        of_a = of_b = of_c = of_d = np.float32(0)
        for axis in range(len(query)):
            of_query = query[axis]
            of_a += matrix[row_a, axis] * of_query
            of_b += matrix[row_b, axis] * of_query
            of_c += matrix[row_c, axis] * of_query
            of_d += matrix[row_d, axis] * of_query
        if len(factors):
            of_a *= factors[row_a]
            of_b *= factors[row_b]
            of_c *= factors[row_c]
            of_d *= factors[row_d]
        out[at], out[at_b], out[at_c], out[at_d] = of_a, of_b, of_c, of_d
