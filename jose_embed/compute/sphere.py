"""The geometry of the unit sphere, as pure functions of NumPy arrays.

A point x is a row of norm 1. The tangent space at x holds the vectors z with x.z = 0. Base points come first in every
argument list, and every function works row by row on arrays of shape (..., dim).

Source: Meng et al., Spherical Text Embedding, NeurIPS 2019, section 4, for the gradient and the retraction; Mardia and
Jupp, Directional Statistics, section 9, for the mean direction and its length.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "cosine_distance",
    "mean_direction",
    "mean_resultant_length",
    "normalized",
    "random_points",
    "retraction",
    "riemannian_gradient",
    "slerp",
    "tangent_projection",
]

Array = npt.NDArray[np.floating[Any]]


def normalized(x: Array) -> Array:
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


def cosine_distance(x: Array, y: Array) -> Array:
    """1 - x.y: 0 for one direction, 1 for a right angle, 2 for opposite ones.

    Example:
        >>> float(cosine_distance(np.array([1.0, 0.0]), np.array([0.0, 1.0])))
        1.0
    """
    return np.asarray(1 - (x * y).sum(-1))


def tangent_projection(x: Array, g: Array) -> Array:
    """(I - x x^T) g: the part of g that is tangent at x.

    Args:
        x: (..., dim), points on the sphere.
        g: (..., dim), any vectors.

    Example:
        >>> tangent_projection(np.array([1.0, 0.0]), np.array([5.0, 2.0])).tolist()
        [0.0, 2.0]
    """
    return np.asarray(g - (x * g).sum(-1, keepdims=True) * x)


def riemannian_gradient(x: Array, euclidean_gradient: Array) -> Array:
    """The gradient on the sphere of a function whose gradient in the surrounding space is given: its tangent part."""
    return tangent_projection(x, euclidean_gradient)


def retraction(x: Array, z: Array) -> Array:
    """R_x(z) = (x + z) / |x + z|: the way from a tangent step back onto the sphere.

    It agrees with the geodesic to the first order and costs one normalisation.

    Args:
        x: (..., dim), points on the sphere.
        z: (..., dim), tangent at x, so that x + z is never zero.

    Example:
        >>> retraction(np.array([1.0, 0.0]), np.array([0.0, 0.75])).tolist()
        [0.8, 0.6]
    """
    return normalized(x + z)


def slerp(x: Array, y: Array, t: float) -> Array:
    """The point at the fraction t of the great circle from x to y (0: x, 1: y); opposite points have no such circle.

    Args:
        x: (..., dim), points on the sphere.
        y: (..., dim), points on the sphere, none opposite to its partner.
        t: the fraction.

    Example:
        >>> slerp(np.array([1.0, 0.0]), np.array([0.0, 1.0]), 0.5).round(3).tolist()
        [0.707, 0.707]
    """
    cosine = np.clip((x * y).sum(-1, keepdims=True), -1.0, 1.0)
    across = normalized(tangent_projection(x, y))
    angle = t * np.arccos(cosine)
    return np.asarray(np.cos(angle) * x + np.sin(angle) * across)


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


def mean_direction(points: Array, weights: Array | None = None) -> Array:
    """The direction of the weighted sum: the maximum-likelihood mean of a von Mises-Fisher distribution.

    Args:
        points: (n, dim).
        weights: (n,), not negative; all equal when left out.

    Example:
        >>> mean_direction(np.array([[1.0, 0.0], [0.0, 1.0]])).round(3).tolist()
        [0.707, 0.707]
    """
    weighted = points if weights is None else points * weights[:, None]
    return normalized(np.asarray(weighted.sum(0)))


def mean_resultant_length(points: Array, weights: Array | None = None) -> float:
    """|sum of w x| / sum of w: 1 when all points agree, near 0 when they lie all over the sphere.

    It rises with the concentration of the von Mises-Fisher distribution that fits the points.

    Args:
        points: (n, dim), on the sphere, n at least 1.
        weights: (n,), not negative, not all zero.

    Example:
        >>> mean_resultant_length(np.array([[1.0, 0.0], [-1.0, 0.0]]))
        0.0
    """
    shares = np.full(len(points), 1 / len(points)) if weights is None else weights / weights.sum()
    return float(np.linalg.norm((points * shares[:, None]).sum(0)))
