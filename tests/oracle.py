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


def softplus(x: npt.ArrayLike) -> Matrix:
    """log(1 + e^x)."""
    return np.logaddexp(0.0, x)


def sigmoid(x: npt.ArrayLike) -> Matrix:
    """1 / (1 + e^-x), the derivative of :func:`softplus`."""
    return np.asarray(np.exp(-softplus(-np.asarray(x))))


def smooth_loss(u: Matrix, v: Matrix, d: Matrix, negative: Matrix, margin: float, sharpness: float) -> float:
    """softplus(s g) / s, with g the hinge of :func:`joint_loss` before it is cut off at zero."""
    return float(softplus(sharpness * (margin - float((u - negative) @ (v + d)))) / sharpness)


def cross_entropy_loss(u: Matrix, v: Matrix, d: Matrix, negative: Matrix, margin: float, temperature: float) -> float:
    """-(log p(u) + log(1 - p(u'))) / t, where p(x) = sigmoid(t (cos(x, v) + cos(x, d) - m)): x is no random word."""
    logits = (temperature * (float(x @ (v + d)) - margin) for x in (u, negative))
    p_positive, p_negative = (sigmoid(sign * x) for sign, x in zip((1, -1), logits, strict=True))  # 1 - p(x) = p(-x)
    return float(-(np.log(p_positive) + np.log(p_negative)) / temperature)


def slopes(f: Matrix, h: Matrix, objective: str, margin: float, sharpness: float) -> tuple[Matrix, Matrix, Matrix]:
    """The loss of each pair of a positive and a negative, minus its derivative by f, its derivative by h.

    Args:
        f: (m, 1), products of the positives with the sum of the anchors.
        h: (1, k), those of the negatives.
        objective: A name of ``TrainConfig.objective``.
        margin: m.
        sharpness: s, or the temperature t.

    Returns:
        float64 (m, k), three times.
    """
    if objective == "cross-entropy":
        x, y = np.broadcast_arrays(sharpness * (margin - f), sharpness * (h - margin))
        return (softplus(x) + softplus(y)) / sharpness, sigmoid(x), sigmoid(y)
    g = margin - f + h
    if objective == "smooth":
        slope = sigmoid(sharpness * g)
        return softplus(sharpness * g) / sharpness, slope, slope
    active = (g > 0).astype(np.float64)
    return np.maximum(0, g), active, active


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


def soft_gradients(
    u: Matrix, v: Matrix, d: Matrix, negative: Matrix, objective: str, margin: float, sharpness: float
) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Euclidean gradients of :func:`smooth_loss` or :func:`cross_entropy_loss` by u, v, d and the negative."""
    f, h = (np.full((1, 1), float(x @ (v + d))) for x in (u, negative))
    _, by_positive, by_negative = (float(table[0, 0]) for table in slopes(f, h, objective, margin, sharpness))
    by_anchor = by_negative * negative - by_positive * u
    return -by_positive * (v + d), by_anchor, by_anchor, by_negative * (v + d)


def contrast(
    positives: Matrix,
    negatives: Matrix,
    anchors: Matrix,
    *,
    margin: float,
    rate: float,
    negative_step: str = "paper",
    anchor_steps: Sequence[float] = (1.0,),
    objective: str = "",
    sharpness: float = 1.0,
) -> Moved:
    """One update of every row by the sum of the steps of all its pairs, taken before any row moves.

    Args:
        positives: float64 (m, dim).
        negatives: float64 (k, dim), shared by the positives.
        anchors: float64 (1, dim) for the pairwise hinge, (2, dim), context word and document, for the others.
        margin: m.
        rate: eta.
        negative_step: "paper" or "reference".
        anchor_steps: How far the anchors move, each or all alike, in what their pairs ask for.
        objective: "smooth" or "cross-entropy"; else the hinge.
        sharpness: s of the smooth hinge, or the temperature t of the cross-entropy.
    """
    soft = objective in ("smooth", "cross-entropy")
    mixed = anchors.sum(0)
    norm = float(np.linalg.norm(mixed))
    moves = [np.zeros_like(positives), np.zeros_like(negatives), np.zeros_like(anchors)]
    loss, active = 0.0, 0
    for j, u in enumerate(positives):
        for n, negative in enumerate(negatives):
            f, h = float(u @ mixed), float(negative @ mixed)
            active += (margin - f if objective == "cross-entropy" else margin - f + h) > 0
            values = [
                float(part[0, 0])
                for part in slopes(np.full((1, 1), f), np.full((1, 1), h), objective, margin, sharpness)
            ]
            loss += values[0]
            if soft:
                by_u, *_, by_negative = soft_gradients(u, *anchors, negative, objective, margin, sharpness)
            elif len(anchors) == 2:
                by_u, *_, by_negative = joint_gradients(u, *anchors, negative, margin)
            else:
                by_u, _, by_negative = pairwise_gradients(u, anchors[0], negative, margin)
            # The step scale 1 + x.grad / |grad|: the gradient by u is -mixed, that by the negative is +mixed.
            positive_scale = 1 - f / norm
            negative_scale = 1 + h / norm if negative_step == "paper" else 2 * h / norm
            moves[0][j] -= rate * positive_scale * tangent_projection(u, by_u)
            moves[1][n] -= rate * negative_scale * tangent_projection(negative, by_negative)
            # The anchors have one scale for a pair, or, where its loss is a sum over its rows, one for each row.
            if objective == "cross-entropy":
                by_rows = (1 - f / 2) * values[1] * u - (1 + h / 2) * values[2] * negative
            else:
                by_rows = values[1] * (1 - (f - h) / len(anchors)) * (u - negative)
            moves[2] += rate * tangent_projection(anchors, np.broadcast_to(by_rows, anchors.shape))
    moves[2] *= np.array(anchor_steps)[:, None]
    points = (positives, negatives, anchors)
    moved = [retraction(x, z) for x, z in zip(points, moves, strict=True)]
    return Moved(moved[0], moved[1], moved[2], loss, active)
