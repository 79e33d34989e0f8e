"""Search by codes: what it finds, what it never loses, and when it gives way to exact search."""

from __future__ import annotations

import logging
import threading
from typing import Any

import numpy as np
import pytest
from serving import unit_rows

from service.engine.codes import CodesMaker
from service.search import codes as codes_module
from service.search.codes import LEAST_RECALL, Codes, StoppedError
from service.search.index import CosineIndex, IndexOptions
from service.search.library import Entry, Library
from service.search.queries import Snapshot

DIM = 24
MANY = IndexOptions(exact_rows=2_000)


def topics(n: int, seed: int, n_topics: int = 40) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Directions around a few others, as documents have them: float32 (n, DIM)."""
    random = np.random.default_rng(seed)
    rows = unit_rows(n_topics, DIM, 0)[random.integers(0, n_topics, n)] * 1.5 + unit_rows(n, DIM, seed + 1)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def index() -> CosineIndex:
    index = CosineIndex(topics(6_000, 1), MANY)
    assert index.wants_codes(2_000)
    index.add_codes(bool)
    assert (index.kind, index.wants_codes(2_000)) == ("ivf", False)
    return index


def share_found(index: CosineIndex, queries: Any, k: int) -> float:
    """The share of the true neighbours that a search finds."""
    exact = CosineIndex(index.vectors).search(queries, k)
    found = index.search(queries, k)
    for hits, true in zip(found, exact, strict=True):
        assert len(hits.rows) == k
        scores = dict(zip(true.rows.tolist(), true.scores.tolist(), strict=True))
        got = {row: score for row, score in zip(hits.rows.tolist(), hits.scores.tolist(), strict=True) if row in scores}
        assert got == {row: scores[row] for row in got}, "the scores are those of exact search"
    return float(np.mean([len({*a.rows.tolist()} & {*b.rows.tolist()}) / k for a, b in zip(found, exact, strict=True)]))


@pytest.mark.parametrize("k", [1, 10, 100])
def test_codes_find_nearly_all(index: CosineIndex, k: int) -> None:
    assert index.codes_recall >= LEAST_RECALL
    assert share_found(index, topics(100, 7), k) >= 0.97
    assert share_found(index, index.vectors[:100], k) >= 0.97


def test_a_large_answer_is_exact(index: CosineIndex) -> None:
    assert share_found(index, topics(3, 7), 5_000) == 1.0
    assert len(index.search(topics(1, 7), 10_000)[0].rows) == 6_000


def test_an_answer_does_not_depend_on_the_questions_beside_it(index: CosineIndex) -> None:
    queries = topics(70, 9)
    together = index.search(queries, 10)
    for i in (0, 33, 69):
        alone = index.search(queries[i : i + 1], 10)[0]
        assert alone.rows.tolist() == together[i].rows.tolist()
        assert alone.scores.tobytes() == together[i].scores.tobytes()


@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.95, 1.0])
def test_candidates_may_be_answers_and_are_enough(index: CosineIndex, share: float) -> None:
    may = np.random.default_rng(3).random(6_000) < share
    n_narrowed = 0
    for query in topics(20, 5):
        rows = index.candidates(query, 10, may)
        if rows is None:
            continue
        n_narrowed += 1
        assert may[rows].all()
        assert (np.diff(rows) > 0).all()
        scores = np.where(may, index.vectors @ query, -1)
        true = np.argsort(-scores)[:10]
        assert len(np.intersect1d(rows, true)) >= 9
    assert bool(n_narrowed) == (share > 0.1)


def test_few_excluded_rows_do_not_make_the_search_exact(index: CosineIndex) -> None:
    query = topics(1, 5)[0]
    order = np.argsort(-(index.vectors @ query))
    for n_excluded in (1, 5, 18, 19, 60):
        may = np.ones(6_000, np.bool_)
        may[order[:n_excluded]] = False
        rows = index.candidates(query, 10, may)
        assert rows is not None
        assert may[rows].all()
        assert len(np.intersect1d(rows, order[n_excluded : n_excluded + 10])) >= 9


def test_a_filter_far_from_the_query_has_all_rows_scored(index: CosineIndex) -> None:
    query = topics(1, 5)[0]
    far = (index.vectors @ query) < 0
    rows = index.candidates(query, 200, far)
    assert rows is None or far[rows].all()


def test_rows_that_have_no_structure_are_searched_exactly(caplog: pytest.LogCaptureFixture) -> None:
    rows = unit_rows(3_000, 100, 1)
    index = CosineIndex(rows, MANY)
    with caplog.at_level(logging.WARNING, "service"):
        index.add_codes(bool)
    assert (index.kind, index.wants_codes(2_000), index.codes_recall) == ("exact", False, 1.0)
    assert "are searched exactly: codes would find" in caplog.records[0].getMessage()


def test_codes_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise MemoryError("no room")

    index = CosineIndex(topics(2_500, 1), MANY)
    monkeypatch.setattr(codes_module.faiss, "Kmeans", refuse)
    with caplog.at_level(logging.WARNING, "service"):
        index.add_codes(bool)
    (record,) = caplog.records
    assert "2500 documents are searched exactly: their codes cannot be made: MemoryError('no room')" in record.message
    assert (index.kind, index.wants_codes(2_000)) == ("exact", False)
    assert len(index.search(topics(1, 2), 5)[0].rows) == 5


def test_the_making_can_be_stopped_at_each_step() -> None:
    rows, asked = topics(2_500, 1), 0

    def count() -> bool:
        nonlocal asked
        asked += 1
        return False

    Codes(rows, 18, count)
    for last in (1, 4, asked // 2, asked):
        left = iter(range(last - 1))
        with pytest.raises(StoppedError):
            Codes(rows, 18, lambda left=left: next(left, None) is None)
    index = CosineIndex(rows, MANY)
    index.add_codes(lambda: True)
    assert index.wants_codes(2_000), "it is to be done another time"


def test_a_library_with_codes_under_changes() -> None:
    """Added, replaced and deleted documents are right at once, with codes and after a merge."""
    vectors = topics(9_000, 4)
    serials = np.arange(1, 5_001)
    library = Library.build(DIM, MANY, serials, [f"d{i}" for i in serials.tolist()], vectors[:5_000])
    index = library.index_without_codes()
    assert index is not None
    index.add_codes(bool)
    assert library.index_without_codes() is None
    living = dict(enumerate(vectors[:5_000], 1))

    def agrees() -> float:
        rows = np.array(sorted(living))
        table = np.array([living[row] for row in rows.tolist()])
        queries = topics(40, 11)
        n = 0
        for query, hits in zip(queries, library.search(queries, 10), strict=True):
            assert len(hits) == 10
            assert all(int(hit.id[1:]) in living for hit in hits)
            true = rows[np.argsort(-(table @ query))[:10]]
            n += len({f"d{row}" for row in true.tolist()} & {hit.id for hit in hits})
        return n / 400

    assert agrees() >= 0.97
    # Replaced and new ones, by the tail and by segments without codes; most of the nearest of a query deleted.
    dead = [row for row in range(1, 5_001) if row % 3 == 0]
    near = np.argsort(-(vectors[:5_000] @ topics(40, 11)[0]))[:300] + 1
    for serial in {*dead, *near.tolist()}:
        del living[serial]
    for first in range(5_001, 9_001, 500):
        added = [Entry(serial, f"d{serial}", vectors[serial - 1]) for serial in range(first, first + 500)]
        living |= {entry.serial: entry.vector for entry in added}
        library = library.changed(added, [*dead, *near.tolist()])
    assert len(library) == len(living)
    assert agrees() >= 0.97
    while merge := library.merge():
        library = library.merged(merge, merge.run())
    assert agrees() >= 0.97
    while (index := library.index_without_codes()) is not None:
        index.add_codes(bool)
    assert {len(segment.index) >= 250 for segment in library.segments if segment.index.kind == "ivf"} == {True}
    assert agrees() >= 0.97
    assert LEAST_RECALL <= library.recall < 1.0


def test_exact_stays_exact_below_the_limit_and_by_setting() -> None:
    def built(options: IndexOptions) -> Library:
        return Library.build(DIM, options, np.arange(1, 2_001), [str(i) for i in range(2_000)], topics(2_000, 1))

    assert built(IndexOptions(exact_rows=2_001)).index_without_codes() is None
    assert built(IndexOptions("exact", exact_rows=2_000)).index_without_codes() is None
    assert built(MANY).index_without_codes() is not None


def test_the_thread_makes_codes_one_index_after_the_other_and_ends_when_told() -> None:
    class Trained:
        def __init__(self, index: CosineIndex) -> None:
            self.documents = self
            self.index = index

        def index_without_codes(self) -> CosineIndex | None:
            return self.index if self.index.wants_codes(2_000) else None

    library = Library.build(DIM, MANY, np.arange(1, 3_001), [str(i) for i in range(3_000)], topics(3_000, 1))
    now: Any = Snapshot(Trained(CosineIndex(topics(3_000, 2), MANY)), library)  # type: ignore[arg-type]
    jobs: list[Any] = []
    posted = threading.Semaphore(0)

    def post(job: Any) -> None:
        jobs.append(job)
        posted.release()

    maker = CodesMaker(lambda: now, post)
    for kinds in (["ivf", "exact"], ["ivf", "ivf"]):
        maker.begin()
        maker.begin()  # one is being worked on
        assert posted.acquire(timeout=600)
        assert [one.kind for one in now.indexes] == kinds
        jobs.pop()()
    maker.close()
    ended = CodesMaker(lambda: now, post)
    now = Snapshot(Trained(CosineIndex(topics(3_000, 2), MANY)), library)  # type: ignore[arg-type]
    ended.close()
    ended.begin()
    assert now.indexes[0].wants_codes(2_000)
