"""Cosine search over unit rows: exact, by codes where there are many rows, or by an HNSW graph.

The rows of an index are never changed, so any number of threads may search it; codes may be added to it once. Whatever
arithmetic FAISS chooses for a batch, the scores that leave here are computed again in float64 and sorted by score, then
row: an answer does not depend on the questions beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from service.search.codes import LEAST_RECALL, Codes, StoppedError

# Candidates fetched beyond k, so that the order within FAISS's rounding is settled by the exact scores.
SLACK: Final = 8
# Below this many rows a graph is slower to build than it ever gains.
SMALLEST_GRAPH: Final = 10_000
# From this number of queries on, one matrix product is faster than one scan per query (measured at dim 50, 100, 300).
MATRIX_PRODUCT_QUERIES: Final = 6
# Numbers that are scored again at a time: half a megabyte in float64.
SCORED_NUMBERS: Final = 65_536
# Selected rows are scored one by one if they are less than this part of the rows that a search by codes reads.
GATHERED: Final = 0.25
_MEASURED_K: Final = 10
_log = logging.getLogger("service")


class Reach(NamedTuple):
    """How far a search by codes looks for candidates.

    Attributes:
        rows: Candidates for each of the ``k`` nearest rows, beside some more.
        lists: Read at least this part of the lists.
    """

    rows: int
    lists: float


NEAREST: Final = Reach(1, 0.0)
# Questions are compared without the reliability matrix, but the codes are of rows with it: most nearest rows are among
# more candidates from more lists. A question by words and meaning gets most of its answers by the words.
QUESTION: Final = Reach(40, 0.25)
HYBRID: Final = Reach(20, 0.0)


class Hits(NamedTuple):
    """The best rows of one question: ``rows`` int64 and ``scores`` float64 (cosines), both (n,), best first."""

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How an index is built and searched.

    Args:
        kind: "exact", "hnsw", or "auto": exact, and for documents by codes from ``exact_rows`` on.
        links: Links per node of the graph.
        build_width: Candidates looked at while it is built.
        search_width: Candidates looked at in a search.
        exact_rows: See ``kind``.
    """

    kind: Literal["auto", "exact", "hnsw"] = "auto"
    links: int = 32
    build_width: int = 200
    search_width: int = 128
    exact_rows: int = 500_000


class CosineIndex:
    """An index over unit rows.

    Args:
        vectors: float32, shape (n, dim), norm 1; must not be changed any more.
        options: See :class:`IndexOptions`.

    Example:
        >>> index = CosineIndex(np.eye(3, dtype=np.float32))
        >>> index.search(np.array([[0.6, 0.8, 0.0]]), 2)[0].rows.tolist()
        [1, 0]
    """

    def __init__(self, vectors: npt.NDArray[np.float32], options: IndexOptions | None = None) -> None:
        self._options = options = options or IndexOptions()
        self.n_rows, self.dim = vectors.shape
        # A process-wide number of FAISS, in units of queries times dimensions; every index here has the model's
        # dimension.
        faiss.cvar.distance_compute_blas_threshold = MATRIX_PRODUCT_QUERIES * self.dim
        self._rows = np.ascontiguousarray(vectors, np.float32).view()
        self._rows.flags.writeable = False
        self._codes: Codes | None = None
        self._without_codes = False  # they could not be made, or would find too little
        self._graph: Any = None
        if options.kind == "hnsw" and self.n_rows >= SMALLEST_GRAPH:
            self._graph = faiss.IndexHNSWFlat(self.dim, options.links, faiss.METRIC_INNER_PRODUCT)
            self._graph.hnsw.efConstruction = options.build_width
            # At once: in blocks FAISS would reserve up to twice the room.
            self._graph.add(self._rows)
            storage: Any = faiss.downcast_index(self._graph.storage)
            self._rows = np.asarray(_Rows(self._graph, int(storage.get_xb()), (self.n_rows, self.dim)))

    @property
    def kind(self) -> Literal["exact", "ivf", "hnsw"]:
        """How it is searched now."""
        return "hnsw" if self._graph is not None else "exact" if self._codes is None else "ivf"

    @property
    def codes_recall(self) -> float:
        """The share of the true 10 nearest rows that the codes find, as measured when they were made; 1.0 without."""
        return 1.0 if self._codes is None else self._codes.recall

    @property
    def codes_bytes(self) -> int:
        """The memory of the codes."""
        return 0 if self._codes is None else self._codes.n_bytes

    def wants_codes(self, least_rows: int) -> bool:
        """Whether it has at least so many rows and no codes, and making them has not failed."""
        return self.n_rows >= least_rows and self._codes is None and not self._without_codes

    def add_codes(self, stopped: Callable[[], bool]) -> None:
        """Makes the codes, and searches by them from then on; meanwhile the search is exact, and stays so if they
        cannot be made or find too little. The log says which.

        Args:
            stopped: Asked several times a second; the making ends, to be done another time, when it says True.
        """
        try:
            codes = Codes(self._rows, _MEASURED_K + SLACK, stopped)
        except StoppedError:
            return
        except Exception as error:  # MemoryError, or what FAISS raises: the service does not depend on it
            self._without_codes = True
            _log.warning("%d documents are searched exactly: their codes cannot be made: %r", self.n_rows, error)
            return
        if codes.recall < LEAST_RECALL:
            self._without_codes = True
            message = "%d documents are searched exactly: codes would find %.4f of the neighbours"
            _log.warning(message, self.n_rows, codes.recall)
            return
        self._codes = codes
        message = "%d documents are searched by codes of %.1f MB from now on: recall@10 %.4f"
        _log.info(message, self.n_rows, codes.n_bytes / 1e6, codes.recall)

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
        found = self._found(np.ascontiguousarray(queries, np.float32), fetched, n)
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

    def _found(self, queries: npt.NDArray[np.float32], k: int, n: int) -> npt.NDArray[np.int64]:
        """The ``k`` best of the first ``n`` rows by rounded scores: int64 (q, k), in no order."""
        if self._codes is not None and n == self.n_rows and k <= GATHERED * self._codes.n_read:
            found = self._codes.search(queries, k)
            if found.min() >= 0:
                return found
        faiss.omp_set_num_threads(1)  # of the calling thread; parallel are the callers
        chosen = faiss.IDSelectorRange(0, n) if n < self.n_rows else None
        if self._graph is not None:
            parameters = faiss.SearchParametersHNSW(  # type: ignore[attr-defined]
                efSearch=max(self._options.search_width, k), sel=chosen
            )
            return np.asarray(self._graph.search(queries, k, params=parameters)[1])
        found, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        pointers = map(faiss.swig_ptr, (queries, self._rows))
        sizes = (self.dim, len(queries), self.n_rows, k)
        exact: Any = faiss.knn_inner_product
        exact(*pointers, *sizes, faiss.swig_ptr(scores), faiss.swig_ptr(found), chosen)
        return found

    def candidates(
        self, query: npt.NDArray[np.float32], k: int, may: npt.NDArray[np.bool_], reach: Reach = NEAREST
    ) -> npt.NDArray[np.int64] | None:
        """Rows among which are the ``k`` nearest, for a caller that scores them.

        Args:
            query: float32 (dim,), norm 1.
            k: At least 1.
            may: bool (n_rows,): the rows that may be answers.
            reach: How many rows, from which part of the codes.

        Returns:
            int64, rising, at least ``k``; None if all rows should be scored: there are no codes, few rows may be
            answers, or the codes find too few.
        """
        codes, n = self._codes, reach.rows * k + SLACK
        if codes is None:
            return None
        n_read = max(codes.n_read, int(reach.lists * self.n_rows))
        if n > n_read or np.count_nonzero(may) < GATHERED * max(codes.n_read, 2 * reach.lists * self.n_rows):
            return None
        found = codes.search(query[None], n, may, least_share=reach.lists)[0]
        found = np.sort(found[found >= 0])
        return found if len(found) >= n else None

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
