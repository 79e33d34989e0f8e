"""Points on the unit sphere as rows of NumPy arrays."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["normalized", "random_points"]

Number = TypeVar("Number", bound=np.floating)


def normalized(x: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """The rows scaled to norm 1; a row of zeros has no direction and stays as it is.

    Args:
        x: (..., dim).

    Returns:
        The same shape and dtype.

    Example:
        >>> normalized(np.array([3.0, 4.0])).tolist()
        [0.6, 0.8]
    """
    norm = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.asarray(x / np.where(norm == 0, 1, norm), dtype=x.dtype)


def random_points(generator: np.random.Generator, out: npt.NDArray[np.float32]) -> None:
    """Fill rows with independent points, uniform on the sphere, block by block.

    Args:
        generator: The source of randomness; one state gives one table.
        out: float32 (n, dim), written in place; may be a strided view of a padded table.
    """
    block = max(1, (1 << 20) // max(1, out.shape[1]))
    for start in range(0, len(out), block):
        rows = out[start : start + block]
        rows[:] = normalized(generator.standard_normal(rows.shape, dtype=np.float32))
