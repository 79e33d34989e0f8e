"""The float64 oracle: the objectives and the steps, written straight from the formulas, one pair at a time.

It is slow on purpose. Every backend is held against it.

Source: Meng et al., Spherical Text Embedding, NeurIPS 2019, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.compute.sphere import normalized

Matrix = npt.NDArray[np.float64]


def tangent_projection(x: Matrix, g: Matrix) -> Matrix:
    """(I - x x^T) g: the part of g that is tangent at x.

    Args:
        x: (..., dim), points on the sphere.
        g: (..., dim), any vectors.
    """
    return np.asarray(g - (x * g).sum(-1, keepdims=True) * x)


def retraction(x: Matrix, z: Matrix) -> Matrix:
    """R_x(z) = (x + z) / |x + z|: the way from a tangent step back onto the sphere.

    It agrees with the geodesic to the first order and costs one normalisation.

    Args:
        x: (..., dim), points on the sphere.
        z: (..., dim), tangent at x, so that x + z is never zero.
    """
    return normalized(x + z)


class Moved(NamedTuple):
    """All rows after one update, and what the update saw."""

    positives: Matrix
    negatives: Matrix
    anchors: Matrix
    loss: float
    active: int


def pairwise_loss(u: Matrix, anchor: Matrix, negative: Matrix, margin: float) -> float:
    """max(0, m - cos(u, v) + cos(u', v))."""
    return max(0.0, margin - float(u @ anchor) + float(negative @ anchor))


def joint_loss(u: Matrix, v: Matrix, d: Matrix, negative: Matrix, margin: float) -> float:
    """max(0, m - cos(u, v) - cos(u, d) + cos(u', v) + cos(u', d))."""
    return max(0.0, margin - float(u @ v) - float(u @ d) + float(negative @ v) + float(negative @ d))


def pairwise_gradients(u: Matrix, anchor: Matrix, negative: Matrix, margin: float) -> tuple[Matrix, Matrix, Matrix]:
    """Euclidean gradients of :func:`pairwise_loss` by u, the anchor and the negative."""
    if pairwise_loss(u, anchor, negative, margin) <= 0:
        return np.zeros_like(u), np.zeros_like(u), np.zeros_like(u)
    return -anchor, negative - u, anchor


def joint_gradients(
    u: Matrix, v: Matrix, d: Matrix, negative: Matrix, margin: float
) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Euclidean gradients of :func:`joint_loss` by u, v, d and the negative."""
    if joint_loss(u, v, d, negative, margin) <= 0:
        zero = np.zeros_like(u)
        return zero, zero, zero, zero
    return -(v + d), negative - u, negative - u, v + d


def contrast(
    positives: Matrix,
    negatives: Matrix,
    anchors: Matrix,
    *,
    margin: float,
    rate: float,
    negative_step: str = "paper",
    anchor_steps: Sequence[float] = (1.0,),
) -> Moved:
    """One update of every row by the sum of the steps of all its active hinges, taken before any row moves.

    Args:
        positives: float64 (m, dim).
        negatives: float64 (k, dim), shared by the positives.
        anchors: float64 (1, dim) for the pairwise hinge, (2, dim), context word and document, for the joint one.
        margin: m.
        rate: eta.
        negative_step: "paper" or "reference".
        anchor_steps: How far the anchors move, each or all alike, in what their hinges ask for.
    """
    joint = len(anchors) == 2
    mixed = anchors.sum(0)
    norm = float(np.linalg.norm(mixed))
    moves = [np.zeros_like(positives), np.zeros_like(negatives), np.zeros_like(anchors)]
    loss, active = 0.0, 0
    for j, u in enumerate(positives):
        for n, negative in enumerate(negatives):
            if joint:
                value = joint_loss(u, anchors[0], anchors[1], negative, margin)
                by_u, by_v, by_d, by_negative = joint_gradients(u, anchors[0], anchors[1], negative, margin)
                by_anchors = np.stack([by_v, by_d])
            else:
                value = pairwise_loss(u, anchors[0], negative, margin)
                by_u, by_v, by_negative = pairwise_gradients(u, anchors[0], negative, margin)
                by_anchors = by_v[None]
            if value <= 0:
                continue
            loss += value
            active += 1
            # The step scale 1 + x.grad / |grad|: the gradient by u is -mixed, that by the negative is +mixed.
            positive_scale = 1 - float(u @ mixed) / norm
            cosine = float(negative @ mixed) / norm
            negative_scale = 1 + cosine if negative_step == "paper" else 2 * cosine
            difference = float((u - negative) @ mixed)
            anchor_scale = 1 - (difference / 2 if joint else difference)
            moves[0][j] -= rate * positive_scale * tangent_projection(u, by_u)
            moves[1][n] -= rate * negative_scale * tangent_projection(negative, by_negative)
            moves[2] -= rate * anchor_scale * tangent_projection(anchors, by_anchors)
    moves[2] *= np.array(anchor_steps)[:, None]
    points = (positives, negatives, anchors)
    moved = [retraction(x, z) for x, z in zip(points, moves, strict=True)]
    return Moved(moved[0], moved[1], moved[2], loss, active)
