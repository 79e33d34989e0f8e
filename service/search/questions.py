"""Questions to the indexes: from a direction to the words or documents beside it, many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from service.search.bundle import Bundle
from service.search.index import Hits, best
from service.search.library import DocumentHit, Library

__all__ = ["Current", "Found", "Question", "Task", "angles", "answers", "done"]

_STEEP: Final = 0.999  # of cosines above this the arc cosine would show the rounding of float32


class Current(NamedTuple):
    """What a request sees from beginning to end: a model, and the added documents under it."""

    bundle: Bundle
    library: Library


@dataclass(frozen=True, slots=True)
class Question:
    """One direction and what is asked of it.

    Args:
        vector: A unit vector, float32 (dim,).
        k: At most so many neighbours.
        target: What they are.
        first_rows: Words: only the so many most frequent ones.
        excluded: Words: rows that are no answers.
        among: Words: the only rows that are answers, int64.
        source: Documents: which ones.
        excluded_id: Documents: the source and id that is no answer.
        least: Only neighbours of at least this cosine.
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

    @property
    def fetched(self) -> int:
        """How many an index must give, so that ``k`` are left when those that are no answers have been dropped."""
        return self.k + len(self.excluded) + (self.excluded_id is not None)


Found = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Task:
    """A job of the search lane: questions to one state of things, and what makes an answer of their results."""

    current: Current
    questions: Sequence[Question]
    finish: Callable[[list[Found]], Any]


def done(tasks: list[Task]) -> list[Any]:
    """The work of the search lane: the questions of all tasks that look at the same index share one pass over it."""
    results: list[list[Found]] = [[[] for _ in task.questions] for task in tasks]
    groups: dict[tuple[Any, ...], list[tuple[int, int]]] = {}
    for t, task in enumerate(tasks):
        library = task.current.library
        for q, question in enumerate(task.questions):
            # Of like k, so that one who asks for a thousand does not make a thousand of everybody's ten.
            key = (
                id(task.current.bundle),
                id(library),
                question.target,
                question.source,
                question.first_rows,
                question.fetched.bit_length(),
            )
            groups.setdefault(key, []).append((t, q))
    for places in groups.values():
        current = tasks[places[0][0]].current
        found = answers(current, [tasks[t].questions[q] for t, q in places])
        for (t, q), answer in zip(places, found, strict=True):
            results[t][q] = answer
    finished: list[Any] = []
    for task, result in zip(tasks, results, strict=True):
        try:
            finished.append(task.finish(result))
        except Exception as error:
            finished.append(error)
    return finished


def answers(current: Current, questions: Sequence[Question]) -> list[Found]:
    """Answers questions of one target, source and ``first_rows``."""
    if questions[0].target == "documents":
        return _documents(current, questions)
    return _words(current.bundle, questions)


def _words(bundle: Bundle, questions: Sequence[Question]) -> list[Found]:
    open_ones = [question for question in questions if question.among is None]
    found: Iterator[Hits] = iter(())
    if open_ones:
        fetched = max(question.fetched for question in open_ones)
        found = iter(
            bundle.words.search(
                np.stack([question.vector for question in open_ones]), fetched, first_rows=open_ones[0].first_rows
            )
        )
    results: list[Found] = []
    for question in questions:
        if question.among is None:
            hits = next(found)
        else:
            rows = (
                question.among if question.first_rows is None else question.among[question.among < question.first_rows]
            )
            hits = best(bundle.words.vectors, rows, question.vector, question.fetched)
        results.append(_word_neighbors(bundle, question, hits))
    return results


def _word_neighbors(bundle: Bundle, question: Question, hits: Hits) -> Found:
    rows, scores = hits
    if question.excluded:
        gone = set(question.excluded)
        kept = [i for i, row in enumerate(rows.tolist()) if row not in gone]
        rows, scores = rows[kept], scores[kept]
    rows, scores = rows[: question.k], scores[: question.k]
    if question.least is not None:
        rows = rows[scores >= question.least]
        scores = scores[: len(rows)]
    words, counts = bundle.embeddings.words, bundle.embeddings.counts[rows]
    degrees = angles(question.vector, bundle.words.vectors[rows], scores)
    return [
        {"word": words[row], "score": score, "angle_deg": angle, "rank": row + 1, "count": count}
        for row, score, angle, count in zip(
            rows.tolist(), np.round(scores, 7).tolist(), np.round(degrees, 5).tolist(), counts.tolist(), strict=True
        )
    ]


def _documents(current: Current, questions: Sequence[Question]) -> list[Found]:
    source = questions[0].source
    vectors = np.stack([question.vector for question in questions])
    fetched = max(question.fetched for question in questions)
    nothing: list[list[DocumentHit]] = [[] for _ in questions]
    added = current.library.search(vectors, fetched) if source != "trained" else nothing
    trained = current.bundle.search_documents(vectors, fetched) if source != "added" else nothing
    results: list[Found] = []
    for question, of_added, of_trained in zip(questions, added, trained, strict=True):
        hits = [("added", hit) for hit in of_added] + [("trained", hit) for hit in of_trained]
        hits.sort(key=lambda pair: -pair[1].score)  # stable: of equal ones the added come first
        hits = [(name, hit) for name, hit in hits if (name, hit.id) != question.excluded_id][: question.k]
        if question.least is not None:
            hits = [(name, hit) for name, hit in hits if hit.score >= question.least]
        degrees = _document_angles(question, [hit for _, hit in hits])
        results.append(
            [
                {"id": hit.id, "source": name, "score": round(hit.score, 7), "angle_deg": round(angle, 5)}
                for (name, hit), angle in zip(hits, degrees, strict=True)
            ]
        )
    return results


def _document_angles(question: Question, hits: Sequence[DocumentHit]) -> list[float]:
    if not hits:
        return []
    vectors, scores = np.stack([hit.vector for hit in hits]), np.array([hit.score for hit in hits])
    degrees: list[float] = angles(question.vector, vectors, scores).tolist()
    return degrees


def angles(x: npt.NDArray[Any], rows: npt.NDArray[Any], cosines: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The angles between a unit vector and unit rows, in degrees.

    The arc cosine, and where that loses its digits (near 0 and 180 degrees) ``2 atan2(|x - y|, |x + y|)``.

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
