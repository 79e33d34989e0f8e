"""The oracle: its gradients are those of its losses, its steps go down, and they are what the formulas say."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jose_embed.compute import sphere

seeds = st.integers(0, 2**32 - 1)
margins = st.floats(0.01, 2.0)


def points(seed: int, n: int, dim: int = 6) -> np.ndarray:
    return sphere.normalized(np.random.default_rng(seed).standard_normal((n, dim)))


def difference_quotients(function: object, arguments: list[np.ndarray]) -> list[np.ndarray]:
    """The gradients of a function by each of its vectors, by central differences."""
    gradients = []
    for which, x in enumerate(arguments):
        gradient = np.zeros_like(x)
        for c in range(len(x)):
            values = []
            for step in (1e-6, -1e-6):
                moved = [y.copy() for y in arguments]
                moved[which][c] += step
                values.append(function(*moved))  # type: ignore[operator]
            gradient[c] = (values[0] - values[1]) / 2e-6
        gradients.append(gradient)
    return gradients


@given(seeds, margins)
def test_gradients_of_the_pairwise_hinge(seed: int, margin: float) -> None:
    u, v, negative = points(seed, 3)
    assume(abs(margin - u @ v + negative @ v) > 1e-4)  # away from the bend
    wanted = difference_quotients(lambda *x: oracle.pairwise_loss(*x, margin), [u, v, negative])
    found = oracle.pairwise_gradients(u, v, negative, margin)
    assert np.allclose(found, wanted, atol=1e-8)


@given(seeds, margins)
def test_gradients_of_the_joint_hinge(seed: int, margin: float) -> None:
    u, v, d, negative = points(seed, 4)
    assume(abs(margin - u @ (v + d) + negative @ (v + d)) > 1e-4)
    wanted = difference_quotients(lambda *x: oracle.joint_loss(*x, margin), [u, v, d, negative])
    found = oracle.joint_gradients(u, v, d, negative, margin)
    assert np.allclose(found, wanted, atol=1e-8)


@pytest.mark.parametrize("objective", ["smooth", "cross-entropy"])
@given(seeds, margins, st.floats(0.1, 30.0))
def test_gradients_of_smooth_losses(objective: str, seed: int, margin: float, sharpness: float) -> None:
    loss = oracle.smooth_loss if objective == "smooth" else oracle.cross_entropy_loss
    u, v, d, negative = points(seed, 4)
    wanted = difference_quotients(lambda *x: loss(*x, margin, sharpness), [u, v, d, negative])
    found = oracle.soft_gradients(u, v, d, negative, objective, margin, sharpness)
    assert np.allclose(found, wanted, atol=1e-6)
    f, h = (np.full((1, 1), x @ (v + d)) for x in (u, negative))
    value = oracle.slopes(f, h, objective, margin, sharpness)[0]
    assert value[0, 0] == pytest.approx(loss(u, v, d, negative, margin, sharpness), rel=1e-9)


@given(seeds, margins, st.floats(1.0, 1e4))
def test_a_sharp_smooth_hinge_is_the_hinge(seed: int, margin: float, sharpness: float) -> None:
    u, v, d, negative = points(seed, 4)
    above = oracle.smooth_loss(u, v, d, negative, margin, sharpness) - oracle.joint_loss(u, v, d, negative, margin)
    assert -1e-12 <= above <= np.log(2) / sharpness + 1e-12
    g = margin - (u - negative) @ (v + d)
    assume(abs(g) > 0.01)
    sharp = oracle.soft_gradients(u, v, d, negative, "smooth", margin, 1e4)
    assert np.allclose(sharp, oracle.joint_gradients(u, v, d, negative, margin), atol=1e-9)


@pytest.mark.parametrize("objective", ["smooth", "cross-entropy"])
@given(seeds)
def test_a_small_update_lowers_a_smooth_loss(objective: str, seed: int) -> None:
    positives, negatives, anchors = points(seed, 1), points(seed + 1, 1), points(seed + 2, 2)
    rules = {"margin": 0.2, "objective": objective, "sharpness": 5.0}
    before = oracle.contrast(positives, negatives, anchors, rate=1e-4, **rules)
    assume(before.loss > 1e-3)
    after = oracle.contrast(before.positives, before.negatives, before.anchors, rate=1e-4, **rules)
    assert after.loss <= before.loss


@pytest.mark.parametrize("n_anchors", [1, 2])
@given(seeds)
def test_a_small_step_follows_the_scaled_gradient_on_the_sphere(n_anchors: int, seed: int) -> None:
    """Each row moves against the sum of its Riemannian gradients, every one with the paper's scale."""
    positives, negatives, anchors = points(seed, 2), points(seed + 1, 3), points(seed + 2, n_anchors)
    rate, margin = 1e-6, 3.0 if n_anchors == 1 else 5.0  # every hinge is active
    moved = oracle.contrast(positives, negatives, anchors, margin=margin, rate=rate)
    assert moved.active == 6

    def steps(after: np.ndarray, before: np.ndarray) -> np.ndarray:
        return (after - before) / rate

    mixed = anchors.sum(0)
    for j, u in enumerate(positives):
        scale = 1 - u @ mixed / np.linalg.norm(mixed)  # 1 + cosine of u with the gradient -mixed
        wanted = 3 * scale * oracle.tangent_projection(u, mixed)
        assert np.allclose(steps(moved.positives, positives)[j], wanted, atol=1e-4)
    for n, negative in enumerate(negatives):
        scale = 1 + negative @ mixed / np.linalg.norm(mixed)
        wanted = -2 * scale * oracle.tangent_projection(negative, mixed)
        assert np.allclose(steps(moved.negatives, negatives)[n], wanted, atol=1e-4)
    for a, anchor in enumerate(anchors):
        wanted = sum(
            (1 - (u - negative) @ mixed / n_anchors) * oracle.tangent_projection(anchor, u - negative)
            for u in positives
            for negative in negatives
        )
        assert np.allclose(steps(moved.anchors, anchors)[a], wanted, atol=1e-4)


@pytest.mark.parametrize("negative_step", ["paper", "reference"])
@given(seeds)
def test_a_small_update_lowers_the_loss(negative_step: str, seed: int) -> None:
    """The reference's 2 h pulls a negative closer where h is below zero; only there the loss may rise."""
    positives, negatives, anchors = points(seed, 1), points(seed + 1, 1), points(seed + 2, 1)
    assume(negative_step == "paper" or negatives[0] @ anchors[0] > 0)
    before = oracle.pairwise_loss(positives[0], anchors[0], negatives[0], 0.5)
    assume(before > 1e-3)
    moved = oracle.contrast(positives, negatives, anchors, margin=0.5, rate=1e-4, negative_step=negative_step)
    assert moved.loss == before
    assert oracle.pairwise_loss(moved.positives[0], moved.anchors[0], moved.negatives[0], 0.5) <= before


def test_a_satisfied_pair_asks_for_nothing() -> None:
    u, v, negative = np.eye(3)[[0, 0, 1]]
    moved = oracle.contrast(u[None], negative[None], v[None], margin=0.15, rate=0.04)
    assert (moved.loss, moved.active) == (0.0, 0)
    assert np.array_equal(moved.positives[0], u)
    assert np.array_equal(moved.negatives[0], negative)
    assert np.array_equal(moved.anchors[0], v)
    assert oracle.pairwise_gradients(u, v, negative, 0.15)[0].tolist() == [0, 0, 0]
    # Exactly at the bend the hinge is zero, and so are its gradients.
    assert oracle.pairwise_loss(u, v, negative, 1.0) == 0
    assert not np.any(oracle.joint_gradients(u, v, v, negative, 2.0))
