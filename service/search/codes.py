"""Candidates for the nearest of many rows, from codes of one byte a number in an inverted file.

The rows lie in lists, each with the direction that its rows have in common. A search reads the lists whose directions
are nearest to the query, a few of each hundred, and compares codes; the caller scores what it finds by the rows
themselves. How many lists are read is measured: as few as find 99 of 100 true neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

LEAST_RECALL: Final = 0.99
_MEASURED_K: Final = 10
_QUERIES: Final = 200  # that the recall is measured with
_PASSES: Final = 8  # of k-means
_ROWS_OF_A_LIST: Final = 40  # that its direction is learned from
_BLOCK_ROWS: Final = 16_384
_BLOCK_QUERIES: Final = 20
_LANES: Final = 16  # FAISS compares codes by vector instructions if their length is a multiple of it; six times as fast
_SHARES: Final = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4)  # of the lists, that are read
_MANY: Final = 100  # neighbours; more of them lie in more lists


class StoppedError(Exception):
    """The codes are not wanted any more."""


class Codes:
    """One code for each row, in lists.

    Args:
        rows: float32 (n, dim), norm 1; read while the codes are made, and not kept.
        k: Candidates that are fetched for ``_MEASURED_K`` neighbours while the recall is measured.
        stopped: Asked several times a second; the making ends when it says True.

    Attributes:
        recall: The share of the true 10 nearest rows that are among the candidates, by a measurement.
        n_bytes: What the codes take.

    Raises:
        StoppedError: ``stopped`` said True.
    """

    def __init__(self, rows: npt.NDArray[np.float32], k: int, stopped: Callable[[], bool] = bool) -> None:
        faiss.omp_set_num_threads(1)  # of the calling thread
        self.n_rows, dim = rows.shape
        self._dim = -(-dim // _LANES) * _LANES
        self.n_lists = 1 << math.ceil((math.log2(self.n_rows) + 1) / 2)  # 500 rows each of a million
        self._probes = self.n_lists
        self._stopped = stopped
        lists = faiss.IndexFlatIP(self._dim)
        lists.add(self._directions(rows))
        codes = faiss.IndexIVFScalarQuantizer(
            lists, self._dim, self.n_lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT, False
        )
        codes.train(self._padded(rows[:: max(1, self.n_rows // _BLOCK_ROWS)]))
        for first in range(0, self.n_rows, _BLOCK_ROWS):
            self._check()
            codes.add(self._padded(rows[first : first + _BLOCK_ROWS]))
        self._codes: Any = faiss.clone_index(codes)  # which has no room to grow: half of the memory
        del codes
        self.n_bytes = self.n_rows * (self._dim + 8)
        self.recall = self._measured(rows, k)
        del self._stopped

    def _check(self) -> None:
        if self._stopped():
            raise StoppedError

    def _padded(self, rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        padded = np.zeros((len(rows), self._dim), np.float32)
        padded[:, : rows.shape[1]] = rows
        return padded

    def _directions(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The directions of the lists by spherical k-means: float32 (n_lists, padded dimension)."""
        n = min(self.n_rows, _ROWS_OF_A_LIST * self.n_lists)
        chosen = np.random.default_rng(0).choice(self.n_rows, n, replace=False)
        sample = self._padded(rows[np.sort(chosen)])
        # One pass at a time, so that it can be stopped.
        means = faiss.Kmeans(self._dim, self.n_lists, niter=1, spherical=True, min_points_per_centroid=1)
        directions = None
        for _ in range(_PASSES):
            self._check()
            means.train(sample, init_centroids=directions)
            directions = means.centroids
        assert directions is not None
        return np.asarray(directions)

    def _measured(self, rows: npt.NDArray[np.float32], k: int) -> float:
        """Sets how many lists are read to the least that find ``LEAST_RECALL``; returns what they find.

        The queries are means of two rows: further from all rows than a row is, as questions are.
        """
        pairs = np.random.default_rng(1).integers(0, self.n_rows, (2, _QUERIES))
        queries = rows[pairs[0]] + rows[pairs[1]]
        queries /= np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-12)
        n = min(_MEASURED_K, self.n_rows)
        floors = np.empty(_QUERIES, np.float32)
        for first in range(0, _QUERIES, _BLOCK_QUERIES):
            self._check()
            some = slice(first, first + _BLOCK_QUERIES)
            floors[some] = faiss.knn(queries[some], rows, n, faiss.METRIC_INNER_PRODUCT)[0][:, -1]
        recall = 0.0
        for share in _SHARES:
            self._check()
            self._probes = max(1, round(share * self.n_lists))
            found = self.search(queries, k)
            products = np.einsum("qkd,qd->qk", rows[found], queries)
            hits = ((products >= floors[:, None] - 1e-6) & (found >= 0)).sum(axis=1)
            recall = float(np.minimum(hits, n).mean() / n)
            if recall >= LEAST_RECALL:
                break
        return recall

    @property
    def n_read(self) -> int:
        """The rows in the lists that a search reads, on average."""
        return int(self.n_rows * self._probes / self.n_lists)

    def search(
        self,
        queries: npt.NDArray[Any],
        k: int,
        may: npt.NDArray[np.bool_] | None = None,
        *,
        least_share: float = 0.0,
    ) -> npt.NDArray[np.int64]:
        """The ``k`` rows nearest to each query by the codes, or a few more: int64, a row for each query, in no order;
        -1 in the place of a row that is none.

        Args:
            queries: Unit rows, float, shape (q, dim).
            k: At least 1.
            may: bool (n,): the rows that may be answers; all if None.
            least_share: Read at least this part of the lists.
        """
        selector, share = None, 1.0
        n_excluded = 0 if may is None else self.n_rows - int(np.count_nonzero(may))
        if may is not None and n_excluded > k:
            share = 1 - n_excluded / self.n_rows
            selector = faiss.IDSelectorBitmap(np.packbits(may, bitorder="little"))  # type: ignore[call-arg, arg-type]
        else:
            k += n_excluded  # they are dropped below, which costs less than a selector
        # Neighbours that are further away lie in more lists.
        probes = max(self._probes * max(1.0, k / _MANY) ** 0.5, least_share * self.n_lists)
        probes = min(self.n_lists, math.ceil(probes * max(share, 1e-3) ** -0.5))
        faiss.omp_set_num_threads(1)
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=probes)  # type: ignore[call-arg]
        _, found = self._codes.search(self._padded(queries), k, params=parameters)
        if may is not None:
            found[~may[found]] = -1
        return np.asarray(found)
