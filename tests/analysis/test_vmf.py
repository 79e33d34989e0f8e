"""Mixtures of von Mises-Fisher distributions: the Bessel functions against mpmath, the fit against known mixtures."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from jose_embed.analysis.vmf import (
    Mixture,
    concentration,
    fit_mixture,
    joined_cosines,
    log_normaliser,
    refined_means,
    resultant_length,
    spherical_starts,
)

KAPPAS = np.logspace(-8, 6, 29)


@pytest.mark.parametrize("dim", [2, 3, 4, 10, 49, 50, 51, 100, 300, 1024])
def test_bessel_functions_agree_with_mpmath(dim: int) -> None:
    border = 2 * np.sqrt(dim)  # between the series and the expansion
    kappas = np.concatenate([KAPPAS, [border * (1 - 1e-9), border * (1 + 1e-9)]])
    with mpmath.workdps(40):
        nu = mpmath.mpf(dim) / 2 - 1
        bessel = [mpmath.besseli(nu, mpmath.mpf(float(kappa))) for kappa in kappas]
        above = [mpmath.besseli(nu + 1, mpmath.mpf(float(kappa))) for kappa in kappas]
        normalisers = np.array([
            float(mpmath.log(value) + mpmath.loggamma(nu + 1) - nu * mpmath.log(mpmath.mpf(float(kappa)) / 2))
            for value, kappa in zip(bessel, kappas, strict=True)
        ])  # fmt: skip
        lengths = np.array([float(a / b) for a, b in zip(above, bessel, strict=True)])
    np.testing.assert_allclose(log_normaliser(kappas, dim), normalisers, rtol=1e-12)
    np.testing.assert_allclose(resultant_length(kappas, dim), lengths, rtol=1e-13)
    # Near 1 the length alone has few digits of kappa: kappa = (d - 1) / 2 / (1 - length), about.
    np.testing.assert_allclose(concentration(lengths, dim), kappas, rtol=1e-8)


def test_the_ends_of_the_range() -> None:
    assert log_normaliser(0.0, 100) == 0
    assert resultant_length(0.0, 100) == 0
    assert concentration([0.0, 1.0, 2.0], 100).tolist() == [0.0, 1e6, 1e6]
    assert np.isfinite(log_normaliser([1e-300, 1e6], 2)).all()


def sample(random: np.random.Generator, mean: np.ndarray, kappa: float, n: int) -> np.ndarray:
    """Directions of a von Mises-Fisher distribution, by rejection (Wood, 1994)."""
    dim = len(mean)
    b = (dim - 1) / (2 * kappa + np.sqrt(4 * kappa**2 + (dim - 1) ** 2))
    x = (1 - b) / (1 + b)
    c = kappa * x + (dim - 1) * np.log(1 - x**2)
    cosines: list[float] = []
    while len(cosines) < n:
        z = random.beta((dim - 1) / 2, (dim - 1) / 2)
        w = (1 - (1 + b) * z) / (1 - (1 - b) * z)
        if kappa * w + (dim - 1) * np.log(1 - x * w) - c >= np.log(random.random()):
            cosines.append(w)
    tangents = random.standard_normal((n, dim))
    tangents -= (tangents @ mean)[:, None] * mean
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    w = np.array(cosines)[:, None]
    return (w * mean + np.sqrt(1 - w**2) * tangents).astype(np.float32)


def test_the_fit_finds_a_known_mixture() -> None:
    random = np.random.default_rng(0)
    dim, kappas, sizes = 100, [200.0, 200.0, 200.0], [500, 1000, 1500]
    means = np.linalg.qr(random.standard_normal((dim, 3)))[0].T
    vectors = np.concatenate([sample(random, *each) for each in zip(means, kappas, sizes, strict=True)])
    mixture = fit_mixture(vectors, spherical_starts(vectors, 3, random))
    order = np.argsort(mixture.shares)
    np.testing.assert_allclose(mixture.shares[order], np.array(sizes) / 3000, atol=0.01)
    np.testing.assert_allclose(mixture.kappas, kappas, rtol=0.05)
    assert ((mixture.means[order] * means).sum(1) > 0.99).all()
    memberships = mixture.memberships(vectors)
    np.testing.assert_allclose(memberships.sum(1), 1, atol=1e-12)
    assert (memberships[:, order].argmax(1) == np.repeat([0, 1, 2], sizes)).mean() > 0.99


def test_the_likelihood_never_falls_by_more_than_the_shrinkage_explains() -> None:
    random = np.random.default_rng(1)
    vectors = random.standard_normal((400, 20)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    start = spherical_starts(vectors, 4, random)
    found = [fit_mixture(vectors, start, iterations=n, tolerance=-1.0).log_likelihood for n in (1, 3, 10, 40)]
    assert found == sorted(found)


def test_densities_are_relative_to_the_uniform_distribution() -> None:
    uniform = np.random.default_rng(2).standard_normal((200_000, 5))
    uniform /= np.linalg.norm(uniform, axis=1, keepdims=True)
    mixture = Mixture(np.eye(5)[:2], np.array([2.0, 4.0]), np.array([0.3, 0.7]), 0.0)
    assert np.exp(mixture.log_densities(uniform)).sum(1).mean() == pytest.approx(1, abs=0.01)


def test_equal_vectors_and_empty_topics() -> None:
    vectors = np.repeat(np.eye(4, dtype=np.float32)[:1], 50, axis=0)
    mixture = fit_mixture(vectors, spherical_starts(vectors, 3, np.random.default_rng(0)))
    assert np.isfinite(mixture.log_likelihood)
    assert np.isfinite(mixture.memberships(vectors)).all()
    means = refined_means(vectors, np.eye(4), 5)
    np.testing.assert_array_equal(means, np.eye(4))  # centres without vectors stay


def test_cosines_of_joined_topics_are_those_of_the_planted_ones() -> None:
    # Six tight topics whose directions are three pairs at 60 degrees, the pairs orthogonal: the best topics are known.
    random = np.random.default_rng(0)
    angles = np.radians([0, 60])
    directions = np.zeros((6, 40))
    for pair in range(3):
        directions[2 * pair : 2 * pair + 2, 2 * pair : 2 * pair + 2] = np.column_stack([np.cos(angles), np.sin(angles)])
    vectors = np.repeat(directions, 50, axis=0) + 1e-4 * random.standard_normal((300, 40))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    cosines = joined_cosines(vectors, 12, random)
    joined = np.cos(np.radians(30))  # of a direction and the mean of its pair
    expected = [0, None, None, joined, (2 + 4 * joined) / 6, (4 + 2 * joined) / 6, *[1] * 7]
    for k, value in enumerate(expected):
        assert value is None or cosines[k] == pytest.approx(value, abs=1e-5), k
    assert cosines[1] == pytest.approx(np.linalg.norm(vectors.mean(0, dtype=np.float64)), rel=1e-6)
    assert (np.diff(cosines) > -1e-6).all()


def test_cosines_of_fewer_directions_than_topics() -> None:
    vectors = np.repeat(np.eye(4, dtype=np.float32)[:2], 20, axis=0)
    np.testing.assert_allclose(joined_cosines(vectors, 6, np.random.default_rng(0)), [0, np.sqrt(0.5), *[1] * 5])
