"""Cosine search over unit rows: exact, or approximate by an HNSW graph. The only file that imports FAISS.

An index is never changed after it was built, so any number of threads may search it. Whatever arithmetic FAISS chooses
for a batch, the scores that leave here are computed again in float64 and sorted by score, then row: an answer does not
depend on the questions beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

__all__ = ["SLACK", "CosineIndex", "Hits", "IndexOptions", "best"]

# Candidates fetched beyond k, so that the order within FAISS's rounding is settled by the exact scores.
SLACK: Final = 8
# Below this many rows a graph is slower to build than it ever gains.
SMALLEST_GRAPH: Final = 10_000
# From this number of queries on, one matrix product is faster than one scan per query (measured at dim 50, 100, 300).
MATRIX_PRODUCT_QUERIES: Final = 6
# Numbers that are scored again at a time: half a megabyte in float64.
SCORED_NUMBERS: Final = 65_536


class Hits(NamedTuple):
    """The best rows of one question: ``rows`` int64 and ``scores`` float64 (cosines), both (n,), best first."""

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How an index is built and searched.

    Args:
        kind: "exact" or "hnsw".
        links: Links per node of the graph.
        build_width: Candidates looked at while it is built.
        search_width: Candidates looked at in a search.
    """

    kind: Literal["exact", "hnsw"] = "exact"
    links: int = 32
    build_width: int = 200
    search_width: int = 128


class CosineIndex:
    """An immutable index over unit rows.

    Args:
        vectors: float32, shape (n, dim), norm 1; copied.
        options: See :class:`IndexOptions`.

    Example:
        >>> index = CosineIndex(np.eye(3, dtype=np.float32))
        >>> index.search(np.array([[0.6, 0.8, 0.0]]), 2)[0].rows.tolist()
        [1, 0]
    """

    def __init__(self, vectors: npt.NDArray[np.float32], options: IndexOptions | None = None) -> None:
        options = options or IndexOptions()
        self.n_rows, self.dim = vectors.shape
        self.kind = options.kind if self.n_rows >= SMALLEST_GRAPH else "exact"
        self._search_width = options.search_width
        # A process-wide number of FAISS, in units of queries times dimensions; every index here has the model's
        # dimension.
        faiss.cvar.distance_compute_blas_threshold = MATRIX_PRODUCT_QUERIES * self.dim
        storage: Any = faiss.IndexFlatIP(self.dim)
        self._index: Any = storage
        if self.kind == "hnsw":
            self._index = faiss.IndexHNSWFlat(self.dim, options.links, faiss.METRIC_INNER_PRODUCT)
            self._index.hnsw.efConstruction = options.build_width
            storage = faiss.downcast_index(self._index.storage)
        if self.n_rows:
            # At once: in blocks FAISS would reserve up to twice the room.
            self._index.add(np.ascontiguousarray(vectors, np.float32))
            self._rows = np.asarray(_Rows(self._index, int(storage.get_xb()), (self.n_rows, self.dim)))
        else:
            self._rows = np.empty((0, self.dim), np.float32)

    def __len__(self) -> int:
        return int(self.n_rows)

    @property
    def vectors(self) -> npt.NDArray[np.float32]:
        """The rows inside the index: float32, shape (n, dim), read-only."""
        return self._rows

    def search(self, queries: npt.NDArray[Any], k: int, *, first_rows: int | None = None) -> list[Hits]:
        """The ``k`` rows nearest to each query.

        Args:
            queries: Unit rows, float, shape (q, dim).
            k: At least 1; if the index has fewer rows, all are returned.
            first_rows: Search this number of first rows only; None searches all.

        Returns:
            One :class:`Hits` per query.
        """
        n = self.n_rows if first_rows is None else min(first_rows, self.n_rows)
        if not n:
            return [Hits(np.empty(0, np.int64), np.empty(0))] * len(queries)
        fetched = min(n, k + SLACK)
        chosen = faiss.IDSelectorRange(0, n) if n < self.n_rows else None
        parameters = None
        if self.kind == "hnsw":
            parameters = faiss.SearchParametersHNSW(  # type: ignore[attr-defined]
                efSearch=max(self._search_width, fetched), sel=chosen
            )
        elif chosen is not None:
            parameters = faiss.SearchParameters(sel=chosen)  # type: ignore[call-arg]
        faiss.omp_set_num_threads(1)  # of the calling thread; parallel are the callers
        _, found = self._index.search(np.ascontiguousarray(queries, np.float32), fetched, params=parameters)
        if found.min() < 0:  # a graph may find fewer than asked for
            return [best(self._rows, rows[rows >= 0], query, k) for query, rows in zip(queries, found, strict=True)]
        found.sort(axis=1)  # so that a stable order of the scores settles ties by row
        hits: list[Hits] = []
        step = max(1, SCORED_NUMBERS // (fetched * self.dim))
        for first in range(0, len(found), step):
            rows, some = found[first : first + step], queries[first : first + step].astype(np.float64)
            scores = (self._rows[rows] * some[:, None, :]).sum(axis=2)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            scores = np.clip(np.take_along_axis(scores, order, axis=1), -1.0, 1.0)
            hits += map(Hits, np.take_along_axis(rows, order, axis=1), scores)
        return hits

    def recall(self, k: int = 10, n_queries: int = 200, seed: int = 0) -> float:
        """The share of the true ``k`` nearest rows that :meth:`search` finds, measured on rows of the index itself.

        1.0 for an exact index, without measuring.
        """
        if self.kind == "exact" or not self.n_rows:
            return 1.0
        k = min(k, self.n_rows)
        sample = np.random.default_rng(seed).choice(self.n_rows, min(n_queries, self.n_rows), replace=False)
        queries = self._rows[np.sort(sample)]
        found = self.search(queries, k)
        hits = 0
        for query, answer in zip(queries, found, strict=True):
            scores = self._rows @ query
            floor = np.partition(scores, len(scores) - k)[len(scores) - k]
            hits += int((scores[answer.rows] >= floor - 1e-6).sum())
        return min(1.0, hits / (k * len(queries)))


class _Rows:
    """Memory of an index for NumPy; arrays over it keep the index alive."""

    def __init__(self, index: Any, address: int, shape: tuple[int, int]) -> None:
        self.index = index
        self.__array_interface__ = {"data": (address, True), "shape": shape, "typestr": "<f4", "version": 3}


def best(vectors: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], query: npt.NDArray[Any], k: int) -> Hits:
    """The best ``k`` of some rows by their exact cosine, equal ones by row.

    Args:
        vectors: float32, shape (n, dim).
        rows: int64 indices into ``vectors``.
        query: A unit vector, shape (dim,).
        k: At least 1.
    """
    # Not a matrix product: there, equal rows may get unequal sums, depending on their place.
    scores = (vectors[rows] * query.astype(np.float64)).sum(axis=1)
    order = np.lexsort((rows, -scores))[:k]
    return Hits(rows[order].astype(np.int64, copy=False), np.clip(scores[order], -1.0, 1.0))
