"""Vectors in 16 bytes each, from which cosines are estimated: product codes (Jégou, Douze and Schmid, TPAMI 2011).

The vectors, less their mean, are rotated to their principal axes, which are dealt to 16 subspaces of similar variance.
Each subspace has 256 centroids; a code is the numbers of the nearest ones. The training uses one thread and a seeded
sample, so the same vectors have the same codes.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from jose_embed.analysis.layout import exact_neighbors
from jose_embed.errors import MissingExtraError

try:
    import faiss
except ImportError:
    raise MissingExtraError("product codes", "map") from None

Floats = npt.NDArray[np.float32]

CODE_BYTES: Final = 16
_CENTROIDS: Final = 256
_TRAINED: Final = 20_000  # vectors of the training
_ITERATIONS: Final = 20
_BLOCK: Final = 1 << 15
_JUDGED: Final = 500


class ProductCodes:
    """Codes of vectors and what decodes them.

    Args:
        vectors: float32 (n, dim), norm 1; n from 1 up.
        mean: float64 (dim,), the mean of the vectors.
        seed: Of the sample.

    Attributes:
        codes: uint8 (n, 16).
        centroids: float32 (16, 256, width), in the rotated space without the mean.
        rotation: float64 (dim, 16 width), orthonormal rows or columns.
        mean: float32 (16 width,), the rotated mean.
    """

    def __init__(self, vectors: Floats, mean: npt.NDArray[np.float64], *, seed: int = 0) -> None:
        n, dim = vectors.shape
        width = -(-dim // CODE_BYTES)
        random = np.random.default_rng(seed)
        chosen = np.sort(random.choice(n, _TRAINED, replace=False)) if n > _TRAINED else np.arange(n)
        threads = faiss.omp_get_max_threads()
        with threadpool_limits(1):  # the same bytes on any number of cores
            sample = vectors[chosen] - mean
            self.rotation = _balanced_rotation(sample, width)
            self.mean = np.asarray(mean @ self.rotation, np.float32)
            quantizer = faiss.ProductQuantizer(CODE_BYTES * width, CODE_BYTES, 8)
            quantizer.cp.niter = _ITERATIONS
            quantizer.cp.min_points_per_centroid = 1
            quantizer.cp.max_points_per_centroid = 1 << 20
            rotated = np.asarray(sample @ self.rotation, np.float32)
            try:
                faiss.omp_set_num_threads(1)
                quantizer.train(np.resize(rotated, (max(_CENTROIDS, len(rotated)), rotated.shape[1])))
                blocks = [
                    quantizer.compute_codes(
                        np.asarray((vectors[start : start + _BLOCK] - mean) @ self.rotation, np.float32)
                    )
                    for start in range(0, n, _BLOCK)
                ]
            finally:
                faiss.omp_set_num_threads(threads)
        self.codes: npt.NDArray[np.uint8] = np.concatenate(blocks)
        self.centroids: Floats = faiss.vector_to_array(quantizer.centroids).reshape(CODE_BYTES, _CENTROIDS, width)

    def decoded(self, rows: npt.NDArray[np.int64] | slice) -> Floats:
        """float32 (n, 16 width): approximate vectors in the rotated space."""
        codes = self.codes[rows]
        parts = [self.centroids[subspace, codes[:, subspace]] for subspace in range(CODE_BYTES)]
        return np.concatenate(parts, axis=1) + self.mean

    def recall(self, vectors: Floats, *, k: int = 10, seed: int = 0) -> float:
        """Share of the ``k`` nearest rows that the codes find when they are asked by a row's own code; of 500 rows."""
        n = len(vectors)
        k = min(k, n - 1)
        if k < 1:
            return 1.0
        judged = np.sort(np.random.default_rng(seed).choice(n, min(n, _JUDGED), replace=False))
        near, _ = exact_neighbors(vectors, vectors[judged], k, own=judged)
        queries = self.decoded(judged)
        found = np.full((len(judged), k), -1, np.int64)
        best = np.full((len(judged), k), -np.inf, np.float32)
        for start in range(0, n, _BLOCK):
            rows = self.decoded(slice(start, start + _BLOCK))
            scores = queries @ (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).T
            inside = np.flatnonzero((judged >= start) & (judged < start + len(rows)))
            scores[inside, judged[inside] - start] = -np.inf
            scores = np.concatenate([best, scores], axis=1)
            own = np.broadcast_to(np.arange(start, start + len(rows)), (len(judged), len(rows)))
            numbers = np.concatenate([found, own], axis=1)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            best, found = np.take_along_axis(scores, order, 1), np.take_along_axis(numbers, order, 1)
        return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(near.tolist(), found.tolist(), strict=True)]))


def _balanced_rotation(sample: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    """float64 (dim, 16 width): principal axes, each given to the subspace with the least variance that has room.

    Source: Ge, He, Ke and Sun, Optimized Product Quantization, CVPR 2013 (the parametric solution).
    """
    dim = sample.shape[1]
    values, axes = np.linalg.eigh(sample.T @ sample / len(sample))
    logarithms = np.zeros(CODE_BYTES)
    filled = np.zeros(CODE_BYTES, np.int64)
    rotation = np.zeros((dim, CODE_BYTES * width))
    floor = max(float(values[-1]), 1e-12) * 1e-9
    for axis in range(dim - 1, -1, -1):
        open_ = np.flatnonzero(filled < width)
        subspace = int(open_[np.argmin(logarithms[open_] + 1e-9 * open_)])
        rotation[:, subspace * width + filled[subspace]] = axes[:, axis]
        filled[subspace] += 1
        logarithms[subspace] += (
            np.log(max(float(values[axis]), floor) / max(float(values[0]), floor)) if dim > 1 else 0.0
        )
    return rotation
