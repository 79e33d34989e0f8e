"""Mixtures of von Mises-Fisher distributions on the unit sphere, fitted by expectation maximisation.

The density of a direction x around a mean direction mu with the concentration kappa, relative to the uniform
distribution of the sphere in d dimensions, is

    f(x) = exp(kappa mu.x - g(kappa)),    g(kappa) = log 0F1(; d/2; kappa^2/4)
                                                   = log Gamma(d/2) + log I_{d/2-1}(kappa) - (d/2 - 1) log(kappa / 2).

In this form nothing underflows: g(0) = 0, and only its logarithm is computed. Its derivative is the mean resultant
length A(kappa) = I_{d/2}(kappa) / I_{d/2-1}(kappa), whose inverse estimates kappa.

Source: Banerjee, Dhillon, Ghosh and Sra, Clustering on the unit hypersphere using von Mises-Fisher distributions, JMLR
2005; the expansions of the Bessel functions for large order: DLMF 10.41.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numpy.polynomial import Polynomial

from jose_embed.compute.sphere import normalized

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

_TERMS: Final = 14  # of the expansion for large order
_LEAST_ORDER: Final = 24.0  # from which on it has all digits
_MOST_KAPPA: Final = 1e6
_BLOCK: Final = 1 << 13  # documents whose memberships are held at a time
_START_STEPS: Final = 8  # of k-means that a start takes
_JOINED_STEPS: Final = 3  # of k-means after two topics were joined


# ---- one distribution -----------------------------------------------------------------------------------------------


def log_normaliser(kappa: npt.ArrayLike, dim: int) -> Floats:
    """g(kappa): the logarithm of the mean of exp(kappa mu.x) over the sphere.

    Args:
        kappa: Concentrations, from 0 up.
        dim: Dimension d of the vectors, from 2 up.

    Returns:
        float64, the shape of ``kappa``; relative error below 1e-12 for d to 1024 and kappa from 1e-8 to 1e6.

    Example:
        >>> log_normaliser([0.0, 1.0, 300.0], 3).round(6).tolist()  # log(sinh(kappa) / kappa)
        [0.0, 0.161439, 293.60307]
    """
    kappa = np.asarray(kappa, np.float64)
    return np.where(_small(kappa, dim), np.log1p(_series(kappa, dim / 2)), _large(kappa, dim)[0])


def resultant_length(kappa: npt.ArrayLike, dim: int) -> Floats:
    """A(kappa), the mean of mu.x: 0 for the uniform distribution, towards 1 for a concentrated one.

    Args and accuracy as for :func:`log_normaliser`.

    Example:
        >>> resultant_length([0.0, 1.0, 300.0], 3).round(6).tolist()  # coth(kappa) - 1 / kappa
        [0.0, 0.313035, 0.996667]
    """
    kappa = np.asarray(kappa, np.float64)
    series = kappa / dim * (1 + _series(kappa, dim / 2 + 1)) / (1 + _series(kappa, dim / 2))
    return np.where(_small(kappa, dim), series, _large(kappa, dim)[1])


def concentration(length: npt.ArrayLike, dim: int) -> Floats:
    """The inverse of :func:`resultant_length`: the maximum-likelihood kappa of a mean resultant length.

    Args:
        length: From 0 to 1; the result is at most 1e6.
        dim: Dimension of the vectors, from 2 up.

    Example:
        >>> concentration(resultant_length([0.5, 30.0], 100), 100).round(9).tolist()
        [0.5, 30.0]
    """
    r = np.clip(np.asarray(length, np.float64), 0, 1 - 1e-15)
    kappa = np.clip(r * (dim - r**2) / (1 - r**2), 1e-300, _MOST_KAPPA)
    for _ in range(4):  # Newton's method, from the approximation of Banerjee and others
        a = resultant_length(kappa, dim)
        slope = np.maximum(1 - a * a - (dim - 1) * a / kappa, 1e-16)
        kappa = np.clip(kappa - (a - r) / slope, kappa / 2, np.minimum(2 * kappa, _MOST_KAPPA))
    return np.where(r > 0, kappa, 0.0)


def _small(kappa: Floats, dim: int) -> npt.NDArray[np.bool_]:
    return kappa * kappa <= 4.0 * dim


def _series(kappa: Floats, a: float) -> Floats:
    """0F1(; a; kappa^2/4) - 1 by its series; kappa^2 is at most 8 a, larger ones are cut there."""
    x = np.minimum(kappa * kappa / 4, 2 * a)
    term, total = np.ones_like(x), np.zeros_like(x)
    for k in range(1, 40):
        term = term * x / (k * (a + k - 1))
        total = total + term
    return total


def _large(kappa: Floats, dim: int) -> tuple[Floats, Floats]:
    """g and A by the uniform expansion for large order, taken down to the order wanted by the recurrence of I."""
    kappa = np.maximum(kappa, 2 * math.sqrt(dim))  # smaller ones are not used
    order = dim / 2 - 1
    steps = max(0, math.ceil(_LEAST_ORDER - order))
    nu = order + steps
    z = kappa / nu
    root = np.sqrt(1 + z * z)
    u, v = (np.sum([p(1 / root) / nu**k for k, p in enumerate(ps)], axis=0) for ps in _debye())
    # log I_nu - nu log(kappa / 2) + log Gamma(nu + 1), with log(2 z / (1 + root) / kappa * nu) in place of huge terms
    log_bessel = nu * (root - np.log1p(root) + math.log(2)) - math.log(2 * math.pi * nu) / 2 - np.log(root) / 2
    g = log_bessel + np.log(u) + math.lgamma(nu + 1) - nu * math.log(nu)
    ratio = z / (1 + root) + root / z * (v / u - 1)  # I_{nu+1} / I_nu
    for j in range(steps):
        lower = nu - j - 1
        ratio = 1 / (2 * (lower + 1) / kappa + ratio)
        g = g + np.log(kappa / (2 * (lower + 1))) - np.log(ratio)
    return g, ratio


@cache
def _debye() -> tuple[list[Polynomial], list[Polynomial]]:
    """The polynomials U_k and V_k of DLMF 10.41.9 and 10.41.11."""
    t = Polynomial([0.0, 1.0])
    u, v = [Polynomial([1.0])], [Polynomial([1.0])]
    for _ in range(_TERMS):
        last = u[-1]
        u.append(t**2 * (1 - t**2) * last.deriv() / 2 + ((1 - 5 * t**2) * last).integ() / 8)
        v.append(u[-1] - t * (1 - t**2) * last / 2 - t**2 * (1 - t**2) * last.deriv())
    return u, v


# ---- mixtures -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Mixture:
    """Several distributions with their shares.

    Attributes:
        means: float64 (n_topics, dim), mean directions of norm 1.
        kappas: float64 (n_topics,), concentrations.
        shares: float64 (n_topics,), above 0, with the sum 1.
        log_likelihood: Mean over the documents of the logarithm of their density, relative to the uniform distribution,
            at the last step of the fit.
    """

    means: Floats
    kappas: Floats
    shares: Floats
    log_likelihood: float

    def __len__(self) -> int:
        return len(self.shares)

    def log_densities(self, vectors: npt.NDArray[Any]) -> Floats:
        """float64 (n, n_topics): the logarithm of share times density of each vector in each topic."""
        offsets = np.log(self.shares) - log_normaliser(self.kappas, self.means.shape[1])
        return np.asarray(vectors.astype(np.float64) @ (self.kappas[:, None] * self.means).T + offsets)

    def memberships(self, vectors: npt.NDArray[Any]) -> Floats:
        """float64 (n, n_topics): the probability of each topic for each vector; rows sum to 1."""
        return _memberships(self.log_densities(vectors))[0]


def fit_mixture(vectors: Vectors, start: Floats | Mixture, *, iterations: int = 50, tolerance: float = 1e-4) -> Mixture:
    """A mixture by expectation maximisation, from given mean directions.

    Each concentration is the geometric mean of the maximum-likelihood estimate of its topic and that of all topics
    together: real documents are not exact von Mises-Fisher samples, and with estimates of their own wide topics absorb
    those around them (normalised mutual information with the classes of 20 Newsgroups .66, with this .69).

    Args:
        vectors: float32 (n, dim), rows of norm 1.
        start: float64 (n_topics, dim), the mean directions to start from; or a mixture.
        iterations: At most.
        tolerance: Ends when the mean log-likelihood grows by less than this.

    Returns:
        The mixture; topics in which no document remains are dropped.
    """
    dim = vectors.shape[1]
    mixture = start if isinstance(start, Mixture) else _first_mixture(vectors, start)
    for _ in range(iterations):
        sizes, sums, likelihood = _expectation(vectors, mixture)
        kept = sizes > 1e-3
        sizes, sums = sizes[kept], sums[kept]
        norms = np.linalg.norm(sums, axis=1)
        done = likelihood - mixture.log_likelihood < tolerance
        means = sums / np.maximum(norms, 1e-300)[:, None]
        kappas = np.sqrt(concentration(norms / sizes, dim) * concentration(norms.sum() / sizes.sum(), dim))
        mixture = Mixture(means, kappas, sizes / sizes.sum(), likelihood)
        if done:
            break
    return mixture


def _first_mixture(vectors: Vectors, means: Floats) -> Mixture:
    """Topics of equal shares and concentrations."""
    length = float((vectors[: 1 << 16] @ means.T.astype(np.float32)).max(1).mean(dtype=np.float64))
    kappa = float(concentration(max(length, 0.0), vectors.shape[1]))
    return Mixture(means, np.full(len(means), kappa), np.full(len(means), 1 / len(means)), -math.inf)


def _expectation(vectors: Vectors, mixture: Mixture) -> tuple[Floats, Floats, float]:
    """Sizes and sums of vectors of the topics, by the memberships, and the mean log-likelihood."""
    sizes, sums, total = np.zeros(len(mixture)), np.zeros_like(mixture.means), 0.0
    offsets = (np.log(mixture.shares) - log_normaliser(mixture.kappas, sums.shape[1])).astype(np.float32)
    directions = (mixture.kappas[:, None] * mixture.means).T.astype(np.float32)
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK]
        p, likelihoods = _memberships(block @ directions + offsets)
        sizes += p.sum(0, dtype=np.float64)
        sums += p.T @ block
        total += float(likelihoods.sum(dtype=np.float64))
    return sizes, sums, total / len(vectors)


def _memberships(log_densities: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Rows divided by their sums, and the logarithms of these sums; overwrites its argument."""
    largest = log_densities.max(1, keepdims=True)
    log_densities -= largest
    p = np.exp(log_densities, out=log_densities)
    sums = p.sum(1, keepdims=True)
    p /= sums
    return p, (np.log(sums) + largest)[:, 0]


def spherical_starts(vectors: Vectors, n_topics: int, random: np.random.Generator) -> Floats:
    """Mean directions to start from: k-means++ on the sphere and some steps of spherical k-means.

    Args:
        vectors: float32 (n, dim), rows of norm 1.
        n_topics: From 1 to n.
        random: Draws the starts.

    Source: Arthur and Vassilvitskii, k-means++, SODA 2007.
    """
    chosen = [int(random.integers(len(vectors)))]
    distance = np.maximum(1 - vectors @ vectors[chosen[0]], 0).astype(np.float64)
    for _ in range(n_topics - 1):
        cumulative = np.cumsum(distance)
        drawn = random.random(4) * cumulative[-1]
        candidates = np.minimum(np.searchsorted(cumulative, drawn, side="right"), len(vectors) - 1)
        distances = np.minimum(distance, np.maximum(1 - vectors @ vectors[candidates].T, 0).T)
        best = int(distances.sum(1).argmin())  # the greedy variant: of some candidates the one that helps most
        chosen.append(int(candidates[best]))
        distance = distances[best]
    return refined_means(vectors, vectors[chosen].astype(np.float64), _START_STEPS)


def refined_means(vectors: Vectors, means: Floats, steps: int) -> Floats:
    """Mean directions after steps of spherical k-means; a centre without vectors stays where it is.

    Args:
        vectors: float32 (n, dim), rows of norm 1.
        means: float64 (n_topics, dim), rows of norm 1.
        steps: At most; ends when no mean changes.
    """
    for _ in range(steps):
        sums = _nearest_sums(vectors, means)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        before, means = means, np.where(norms > 1e-9, sums / np.maximum(norms, 1e-9), means)
        if np.array_equal(before, means):
            break
    return means


def joined_cosines(vectors: Vectors, n_topics: int, random: np.random.Generator) -> Floats:
    """Mean cosines between vectors and the means of their topics, for each number of topics from ``n_topics`` down.

    Each number begins with the topics of the number above it, of which the two are joined that lose the least cosine,
    and takes some steps of spherical k-means. Runs for different numbers, each with starts of its own, end in
    different local optima; here neighbouring numbers share theirs, so their differences have less noise.

    Args:
        vectors: float32 (n, dim), rows of norm 1.
        n_topics: The largest number, from 1 to n.
        random: Draws the start.

    Returns:
        float64 (n_topics + 1,): the mean cosine with k topics at k; 0 at 0.

    Source: Ward, JASA 1963, for the join that loses the least.
    """
    cosines = np.zeros(n_topics + 1)
    means = spherical_starts(vectors, n_topics, random)
    for k in range(n_topics, 0, -1):
        sums = _nearest_sums(vectors, refined_means(vectors, means, _JOINED_STEPS))
        norms = np.linalg.norm(sums, axis=1)  # each the sum of the cosines between the vectors of a topic and its mean
        cosines[k] = norms.sum() / len(vectors)
        losses = norms[:, None] + norms - np.sqrt(np.maximum(norms[:, None] ** 2 + norms**2 + 2 * sums @ sums.T, 0))
        np.fill_diagonal(losses, np.inf)
        a, b = np.unravel_index(losses.argmin(), losses.shape)
        sums[a] += sums[b]
        means = normalized(np.delete(sums, b, 0))
    return cosines


def _nearest_sums(vectors: Vectors, means: Floats) -> Floats:
    """float64, the shape of ``means``: the sums of the vectors that are nearest to each mean."""
    nearest = (vectors @ means.T.astype(np.float32)).argmax(1)
    return np.asarray((nearest[:, None] == np.arange(len(means))).astype(np.float32).T @ vectors, np.float64)
