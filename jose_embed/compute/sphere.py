"""Points on the unit sphere as rows of NumPy arrays."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

_BLOCK_ROWS = 1 << 14

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


def principal_axes(rows: npt.NDArray[np.float32], dim: int) -> npt.NDArray[np.float64] | None:
    """The first ``dim`` principal axes of directions, not centered: float64 (columns, dim); None if there are no more.

    Example:
        >>> principal_axes(np.float32([[3, 0], [0, 1]]), 1).round().tolist()
        [[1.0], [0.0]]
    """
    width = rows.shape[1]
    if width <= dim:
        return None
    moments = np.zeros((width, width))
    for start in range(0, len(rows), _BLOCK_ROWS):
        wide = rows[start : start + _BLOCK_ROWS].astype(np.float64)
        moments += wide.T @ wide
    axes = np.linalg.eigh(moments)[1][:, ::-1][:, :dim]
    signs = np.where(axes[np.abs(axes).argmax(axis=0), np.arange(dim)] < 0, -1.0, 1.0)
    return np.asarray(axes * signs)


def turned(
    rows: npt.NDArray[np.float32], axes: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Rows along axes, scaled to norm 1, and the lengths that they had; a row orthogonal to all becomes the first axis.

    Args:
        rows: float32 (n, columns).
        axes: float64 (columns, dim), orthonormal.

    Returns:
        float32 (n, dim) and float64 (n,).
    """
    out = np.empty((len(rows), axes.shape[1]), np.float32)
    lengths = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK_ROWS):
        wide = rows[start : start + _BLOCK_ROWS].astype(np.float64) @ axes
        norms = np.linalg.norm(wide, axis=1)
        wide[norms < 1e-9] = np.eye(1, axes.shape[1])
        out[start : start + _BLOCK_ROWS] = normalized(wide)
        lengths[start : start + _BLOCK_ROWS] = norms
    return out, lengths
