"""Questions to the indexes: from a direction to the words or documents beside it, many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from service.search.index import CosineIndex, Hits, best
from service.search.library import DocumentHit, Library
from service.search.served_model import ServedModel

_STEEP: Final = 0.999  # of cosines above this the arc cosine would show the rounding of float32


class Snapshot(NamedTuple):
    """The state that one request works with: a model and the documents added to it."""

    served: ServedModel
    library: Library

    @property
    def recall(self) -> float:
        """The least share of the true 10 nearest that one of the indexes finds; 1.0 for exact search."""
        return min(self.served.recall, self.library.recall)

    @property
    def indexes(self) -> list[CosineIndex]:
        """The indexes of the documents: of the trained ones, and of the added ones but for the newest."""
        return [self.served.documents.index, *(segment.index for segment in self.library.segments)]


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """One direction and what is asked of it.

    Args:
        vector: A unit vector, float32 (dim,).
        k: Most neighbours.
        target: What they are.
        first_rows: Words: only this number of most frequent ones.
        excluded: Words: rows that are not answers.
        among: Words: the only rows that are answers, int64.
        source: Documents: which ones.
        excluded_id: Documents: the source and id that is not an answer.
        least: Only neighbours of at least this cosine.
        composed: Whether the vector is made of words that the vocabulary lacks.
    """

    vector: npt.NDArray[np.float32]
    k: int
    target: Literal["words", "documents"] = "words"
    first_rows: int | None = None
    excluded: tuple[int, ...] = ()
    among: npt.NDArray[np.int64] | None = None
    source: Literal["all", "added", "trained"] = "all"
    excluded_id: tuple[str, str] | None = None
    least: float | None = None
    composed: bool = False

    @property
    def fetched(self) -> int:
        """How many an index must give, so that ``k`` are left when those that must not be answers are dropped."""
        return self.k + len(self.excluded) + (self.excluded_id is not None)


Found = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class SearchJob:
    """A job of the search lane: queries to one state of things, and what makes an answer of their results."""

    snapshot: Snapshot
    queries: Sequence[SearchQuery]
    finish: Callable[[list[Found]], Any]


def run_jobs(jobs: list[SearchJob]) -> list[Any]:
    """The work of the search lane: the queries of all jobs that look at the same index share one pass over it."""
    results: list[list[Found]] = [[[] for _ in job.queries] for job in jobs]
    groups: dict[tuple[Any, ...], list[tuple[int, int]]] = {}
    for t, job in enumerate(jobs):
        library = job.snapshot.library
        for q, query in enumerate(job.queries):
            # Of like k, so that one who asks for a thousand does not make a thousand of everybody's ten.
            key = (
                id(job.snapshot.served),
                id(library),
                query.target,
                query.source,
                query.first_rows,
                query.fetched.bit_length(),
            )
            groups.setdefault(key, []).append((t, q))
    for places in groups.values():
        snapshot = jobs[places[0][0]].snapshot
        found = answers(snapshot, [jobs[t].queries[q] for t, q in places])
        for (t, q), answer in zip(places, found, strict=True):
            results[t][q] = answer
    finished: list[Any] = []
    for job, result in zip(jobs, results, strict=True):
        try:
            finished.append(job.finish(result))
        except Exception as error:
            finished.append(error)
    return finished


def answers(snapshot: Snapshot, queries: Sequence[SearchQuery]) -> list[Found]:
    """Answers queries of one target, source and ``first_rows``."""
    if queries[0].target == "documents":
        return _documents(snapshot, queries)
    return _words(snapshot.served, queries)


def _words(served: ServedModel, queries: Sequence[SearchQuery]) -> list[Found]:
    open_ones = [query for query in queries if query.among is None]
    found: Iterator[Hits] = iter(())
    if open_ones:
        fetched = max(query.fetched for query in open_ones)
        found = iter(
            served.words.search(
                np.stack([query.vector for query in open_ones]), fetched, first_rows=open_ones[0].first_rows
            )
        )
    results: list[Found] = []
    for query in queries:
        if query.among is None:
            hits = next(found)
        else:
            rows = query.among if query.first_rows is None else query.among[query.among < query.first_rows]
            hits = best(served.words.vectors, rows, query.vector, query.fetched)
        results.append(_word_neighbors(served, query, hits))
    return results


def _word_neighbors(served: ServedModel, query: SearchQuery, hits: Hits) -> Found:
    rows, scores = hits
    if query.excluded:
        gone = set(query.excluded)
        kept = [i for i, row in enumerate(rows.tolist()) if row not in gone]
        rows, scores = rows[kept], scores[kept]
    rows, scores = rows[: query.k], scores[: query.k]
    if query.least is not None:
        rows = rows[scores >= query.least]
        scores = scores[: len(rows)]
    words, counts = served.embeddings.words, served.embeddings.counts[rows]
    degrees = angles(query.vector, served.words.vectors[rows], scores)
    return [
        {"word": words[row], "score": score, "angle_deg": angle, "rank": row + 1, "count": count}
        for row, score, angle, count in zip(
            rows.tolist(), np.round(scores, 7).tolist(), np.round(degrees, 5).tolist(), counts.tolist(), strict=True
        )
    ]


def _documents(snapshot: Snapshot, queries: Sequence[SearchQuery]) -> list[Found]:
    source = queries[0].source
    vectors = np.stack([query.vector for query in queries])
    fetched = max(query.fetched for query in queries)
    nothing: list[list[DocumentHit]] = [[] for _ in queries]
    added = snapshot.library.search(vectors, fetched) if source != "trained" else nothing
    trained = snapshot.served.search_documents(vectors, fetched) if source != "added" else nothing
    results: list[Found] = []
    for query, of_added, of_trained in zip(queries, added, trained, strict=True):
        hits = [("added", hit) for hit in of_added] + [("trained", hit) for hit in of_trained]
        hits.sort(key=lambda pair: -pair[1].score)  # stable: of equal ones the added come first
        hits = [(name, hit) for name, hit in hits if (name, hit.id) != query.excluded_id][: query.k]
        if query.least is not None:
            hits = [(name, hit) for name, hit in hits if hit.score >= query.least]
        degrees = _document_angles(query, [hit for _, hit in hits])
        results.append(
            [
                {"id": hit.id, "source": name, "score": round(hit.score, 7), "angle_deg": round(angle, 5)}
                for (name, hit), angle in zip(hits, degrees, strict=True)
            ]
        )
    return results


def _document_angles(query: SearchQuery, hits: Sequence[DocumentHit]) -> list[float]:
    if not hits:
        return []
    vectors, scores = np.stack([hit.vector for hit in hits]), np.array([hit.score for hit in hits])
    degrees: list[float] = angles(query.vector, vectors, scores).tolist()
    return degrees


def angles(x: npt.NDArray[Any], rows: npt.NDArray[Any], cosines: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The angles between a unit vector and unit rows, in degrees.

    The arc cosine, or where it loses precision (near 0 and 180 degrees) ``2 atan2(|x - y|, |x + y|)``.

    Args:
        x: Shape (dim,).
        rows: Shape (n, dim).
        cosines: Their inner products, shape (n,), from -1 to 1.

    Returns:
        float64, shape (n,), from 0 to 180.

    Example:
        >>> rows = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
        >>> angles(rows[0], rows, rows @ rows[0]).round(9).tolist()
        [0.0, 90.0, 180.0]
    """
    radians = np.arccos(cosines)
    steep = np.flatnonzero(np.abs(cosines) > _STEEP)
    if len(steep):
        exact, some = x.astype(np.float64), rows[steep]
        apart = np.sqrt(np.square(some - exact).sum(axis=1))
        along = np.sqrt(np.square(some + exact).sum(axis=1))
        radians[steep] = 2.0 * np.arctan2(apart, along)
    return np.asarray(np.degrees(radians))
