"""The geometry: on the sphere, tangent, and the first order right."""

from __future__ import annotations

import numpy as np
import oracle
from hypothesis import given
from hypothesis import strategies as st

from jose_embed.compute import sphere

seeds = st.integers(0, 2**32 - 1)


def points(seed: int, n: int, dim: int = 7) -> np.ndarray:
    return sphere.normalized(np.random.default_rng(seed).standard_normal((n, dim)))


@given(seeds)
def test_projections_are_tangent_and_leave_tangent_vectors_alone(seed: int) -> None:
    x = points(seed, 5)
    g = np.random.default_rng(seed + 1).standard_normal((5, 7))
    z = oracle.tangent_projection(x, g)
    assert np.abs((x * z).sum(-1)).max() < 1e-12
    assert np.allclose(oracle.tangent_projection(x, z), z)


@given(seeds, st.floats(1e-6, 1e3))
def test_retraction_stays_on_the_sphere_and_agrees_with_the_geodesic_to_the_first_order(seed: int, size: float) -> None:
    x = points(seed, 5)
    z = oracle.tangent_projection(x, points(seed + 1, 5)) * size
    assert np.allclose(np.linalg.norm(oracle.retraction(x, z), axis=-1), 1, atol=1e-12)
    small = z / size * 1e-5
    assert np.abs(oracle.retraction(x, small) - (x + small)).max() < 1e-9


def test_random_points_are_uniform_repeatable_and_fill_strided_rows() -> None:
    table = np.zeros((20_000, 16), np.float32)
    sphere.random_points(np.random.default_rng(3), table[:, :10])
    assert (table[:, 10:] == 0).all()
    rows = table[:, :10].astype(np.float64)
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() < 1e-6
    # A uniform point has mean 0 and covariance I / dim; 5 standard errors.
    assert np.abs(rows.mean(0)).max() < 5 * np.sqrt(1 / 10 / 20_000)
    assert np.abs(np.cov(rows.T) - np.eye(10) / 10).max() < 0.005
    again = np.empty((20_000, 10), np.float32)
    sphere.random_points(np.random.default_rng(3), again)
    assert np.array_equal(again, table[:, :10])


def test_a_row_of_zeros_has_no_direction() -> None:
    assert sphere.normalized(np.zeros((2, 3))).tolist() == [[0, 0, 0]] * 2
