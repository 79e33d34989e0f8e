"""Places documents on a plane, so that near documents stay near: t-SNE in few steps.

t-SNE begins at the two principal components. A few steps with exaggerated attraction find the arrangement, and a few
without it arrange the neighbors; momentum from the first step on saves most of the usual steps. Beyond 100,000
documents a sample is laid out, and every other document is placed among its nearest ones. The neighbors are exact and
given to the library, so that the result has the same bytes on any number of cores.

Source: van der Maaten and Hinton, JMLR 2008; Linderman et al., Nature Methods 2019 (the interpolation that openTSNE
computes); Böhm, Berens and Kobak, JMLR 2022 (equal weights of few neighbors instead of a perplexity).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from jose_embed.errors import MissingExtraError
from jose_embed.progress import Reporter, SilentReporter

try:
    import faiss
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import Uniform
    from openTSNE.nearest_neighbors import PrecomputedNeighbors
except ImportError:
    raise MissingExtraError("the map", "map") from None

Vectors = npt.NDArray[np.float32]

LAID_OUT: Final = 100_000  # documents that are laid out; the others are placed among them

_NEIGHBORS: Final = 8
_REPORTED: Final = 10  # steps between two reports, each of which costs one
_SHARED: Final = 8_000  # fewer documents are laid out by one thread
_FEW_FOR_A_GRID: Final = 2_000  # fewer are faster without interpolation
_FEW: Final = 50  # fewer documents are shown by two principal components
_EXAGGERATED_STEPS, _STEPS = 60, 150
_EXAGGERATION, _MOMENTUM = 12.0, 0.8
_AMONG: Final = 3  # laid out documents that place another one
_SPARE: Final = 5  # candidates beyond k, ranked again in float64
_BLOCK: Final = 1 << 12
_JUDGED: Final = 1_000


class Layout(NamedTuple):
    """A layout.

    Attributes:
        positions: float32 (n, 2); centered, the larger extent is 1.
        n_laid_out: Documents that were laid out; the others were placed among them.
        kept: Share of the ten nearest documents of each that are among its ten nearest on the plane, of a sample.
    """

    positions: npt.NDArray[np.float32]
    n_laid_out: int
    kept: float


def layout(vectors: Vectors, *, seed: int = 0, reporter: Reporter | None = None) -> Layout:
    """Positions of unit vectors on a plane.

    Args:
        vectors: float32 (n, dim), norm 1.
        seed: Of the samples. The same vectors and seed give the same bytes on any number of cores.
        reporter: Receives the phases "neighbors", "layout" and "placing".

    Example:
        >>> vectors = np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 1, 2]]
        >>> layout(vectors).positions.shape
        (6, 2)
    """
    reporter = SilentReporter() if reporter is None else reporter
    n = len(vectors)
    random = np.random.default_rng(seed)
    if n < _FEW:
        positions, laid_out = _principal(vectors), np.arange(n)
    else:
        laid_out = np.arange(n) if n <= LAID_OUT else np.sort(random.choice(n, LAID_OUT, replace=False))
        own = vectors[laid_out] if n > LAID_OUT else vectors
        positions = _laid_out(own, random, reporter)
        if n > len(laid_out):
            rest = np.setdiff1d(np.arange(n), laid_out)
            every = np.empty((n, 2))
            every[laid_out] = positions
            every[rest] = _placed(vectors, rest, own, positions, reporter)
            positions = every
    positions = (
        positions - (positions.max(0, initial=-np.inf) + positions.min(0, initial=np.inf)) / 2 if n else positions
    )
    extent = float(np.ptp(positions, axis=0).max()) if n else 0.0
    scaled = np.asarray(positions / (extent or 1.0), np.float32)
    return Layout(scaled, len(laid_out), neighbors_kept(vectors, scaled, seed=seed))


def exact_neighbors(
    rows: Vectors,
    queries: Vectors,
    k: int,
    *,
    own: npt.NDArray[np.int64] | None = None,
    reporter: Reporter | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The ``k`` rows with the largest inner product with each query, best first, and these products.

    Products are taken again in float64, so that the answer does not depend on the number of threads.

    Args:
        rows: float32 (n, dim).
        queries: float32 (m, dim).
        k: At most n, or n - 1 with ``own``.
        own: int64 (m,): a row for each query that is not an answer.
        reporter: Is advanced by the number of queries.
    """
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(np.ascontiguousarray(rows))
    found = np.empty((len(queries), k), np.int64)
    scores = np.empty((len(queries), k))
    wanted = min(k + (own is not None) + _SPARE, len(rows))
    for start in range(0, len(queries), _BLOCK):
        block = np.ascontiguousarray(queries[start : start + _BLOCK])
        _, candidates = index.search(block, wanted)
        exact = np.einsum("ijk,ik->ij", rows[candidates], block, dtype=np.float64)
        if own is not None:
            exact[candidates == own[start : start + len(block), None]] = -np.inf
        order = np.lexsort((candidates, -exact))[:, :k]
        found[start : start + len(block)] = np.take_along_axis(candidates, order, 1)
        scores[start : start + len(block)] = np.take_along_axis(exact, order, 1)
        if reporter is not None:
            reporter.advance(len(block))
    return found, scores


def neighbors_kept(vectors: Vectors, positions: npt.NDArray[np.float32], *, k: int = 10, seed: int = 0) -> float:
    """Share of the ``k`` nearest rows of each vector that are among its ``k`` nearest on the plane, of 1,000 rows."""
    n = len(vectors)
    k = min(k, n - 1)
    if k < 1:
        return 1.0
    judged = np.sort(np.random.default_rng(seed).choice(n, min(n, _JUDGED), replace=False))
    near, _ = exact_neighbors(vectors, vectors[judged], k, own=judged)
    index = faiss.IndexFlatL2(2)
    index.add(np.ascontiguousarray(positions))
    _, on_plane = index.search(np.ascontiguousarray(positions[judged]), min(k + 1, n))
    shares = [
        len(set(a.tolist()) & set([j for j in b.tolist() if j != row][:k])) / k
        for row, a, b in zip(judged.tolist(), near, on_plane, strict=True)
    ]
    return float(np.mean(shares))


def _laid_out(vectors: Vectors, random: np.random.Generator, reporter: Reporter) -> npt.NDArray[np.float64]:
    n = len(vectors)
    reporter.start("neighbors", n, "documents")
    near, _ = exact_neighbors(vectors, vectors, min(_NEIGHBORS, n - 1), own=np.arange(n), reporter=reporter)
    reporter.finish()
    reporter.start("layout", _EXAGGERATED_STEPS + _STEPS, "steps")

    def advanced(*_: Any) -> None:
        reporter.advance(_REPORTED)

    affinities = Uniform(k_neighbors=near.shape[1], knn_index=PrecomputedNeighbors(near, np.ones(near.shape)))
    embedding = TSNEEmbedding(
        1e-4 * _principal(vectors) + 1e-7 * random.standard_normal((n, 2)),  # equal documents start apart
        affinities,
        negative_gradient_method="bh" if n < _FEW_FOR_A_GRID else "fft",
        n_jobs=1 if n < _SHARED else -1,
        random_state=0,
    )
    common = {"momentum": _MOMENTUM, "inplace": True, "callbacks": advanced, "callbacks_every_iters": _REPORTED}
    embedding.optimize(_EXAGGERATED_STEPS, exaggeration=_EXAGGERATION, **common)
    embedding.optimize(_STEPS, **common)
    reporter.finish()
    return np.array(embedding, np.float64)


def _principal(vectors: Vectors) -> npt.NDArray[np.float64]:
    """The two principal components, the first with deviation 1."""
    out = np.zeros((len(vectors), 2))
    with threadpool_limits(1):  # the same bytes on any number of cores
        centered = vectors - vectors.mean(0, dtype=np.float64)
        _, axes = np.linalg.eigh(centered.T @ centered)
        found = centered @ axes[:, :-3:-1]
    out[:, : found.shape[1]] = found
    deviation = out[:, 0].std()
    return np.asarray(out / deviation) if deviation > 0 else out


def _among(
    near: npt.NDArray[np.int64], scores: npt.NDArray[np.float64], positions: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Positions between those of near documents, mostly at the nearest one's."""
    weights = np.exp(20 * (scores - scores[:, :1]))
    weights /= weights.sum(1, keepdims=True)
    return np.asarray((weights[:, :, None] * positions[near]).sum(1))


def _placed(
    vectors: Vectors, rest: npt.NDArray[np.int64], own: Vectors, positions: npt.NDArray[np.float64], reporter: Reporter
) -> npt.NDArray[np.float64]:
    reporter.start("placing", len(rest), "documents")
    out = np.empty((len(rest), 2))
    for start in range(0, len(rest), _BLOCK * 8):
        block = slice(start, start + _BLOCK * 8)
        found = exact_neighbors(own, np.asarray(vectors[rest[block]]), _AMONG, reporter=reporter)
        out[block] = _among(*found, positions)
    reporter.finish()
    return out
