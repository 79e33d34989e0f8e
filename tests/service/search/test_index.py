"""The indexes against NumPy: exact search, the graph's recall, and a library under any sequence of changes and
merges."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from serving import unit_rows

from service.search import library as library_module
from service.search.index import CosineIndex, IndexOptions
from service.search.library import Entry, Library, Merge

DIM = 8


def oracle(rows: Any, query: Any, k: int) -> tuple[list[int], list[float]]:
    """The k best rows by float64 cosine, equal ones by row."""
    scores = (rows * np.asarray(query, np.float64)).sum(axis=1)
    order = np.lexsort((np.arange(len(rows)), -scores))[:k]
    return order.tolist(), scores[order].tolist()


@pytest.mark.parametrize("dim", [2, 7, 24, 100])
@pytest.mark.parametrize("n", [1, 5, 300, 5_000])
def test_exact_search_equals_numpy_whatever_stands_beside_it(n: int, dim: int) -> None:
    rows = unit_rows(n, dim, 0)
    rows[n // 2 :] = rows[: n - n // 2]  # every direction twice: ties are settled by row
    index = CosineIndex(rows)
    queries = unit_rows(70, dim, 1)
    for k in (1, 10, 200, n + 5):
        together = index.search(queries, k)
        for query, hits in zip(queries, together, strict=True):
            order, scores = oracle(rows, query, k)
            assert hits.rows.tolist() == order
            np.testing.assert_allclose(hits.scores, scores, atol=1e-9)
        alone = index.search(queries[:1], k)[0]
        assert alone.rows.tolist() == together[0].rows.tolist()
        assert alone.scores.tobytes() == together[0].scores.tobytes()


def test_only_the_first_rows() -> None:
    rows = unit_rows(1_000, DIM, 0)
    index = CosineIndex(rows)
    for first in (1, 7, 999, 1_000, 2_000):
        hits = index.search(rows[-1:], 10, first_rows=first)[0]
        assert hits.rows.tolist() == oracle(rows[:first], rows[-1], 10)[0]


def test_an_empty_index() -> None:
    assert CosineIndex(np.empty((0, DIM), np.float32)).search(unit_rows(2, DIM, 0), 5)[1].rows.tolist() == []


def test_the_graph_and_its_recall() -> None:
    rows = unit_rows(12_000, 16, 0)
    index = CosineIndex(rows, IndexOptions("hnsw", 16, 80, 128))
    assert index.kind == "hnsw"
    assert np.array_equal(index.vectors, rows)
    found = 0
    for query, hits in zip(rows[:100], index.search(rows[:100], 10), strict=True):
        found += len(set(hits.rows.tolist()) & set(oracle(rows, query, 10)[0]))
    assert index.recall() == pytest.approx(found / 1_000, abs=0.05)
    assert index.recall() > 0.9
    assert max(index.search(rows[:1], 10, first_rows=500)[0].rows.tolist()) < 500
    assert CosineIndex(rows[:100], IndexOptions("hnsw")).kind == "exact", "a small one is searched exactly"
    assert CosineIndex(rows).recall() == 1.0


class LibraryMachine(RuleBasedStateMachine):
    """A library against a dictionary, with merges that end after further changes."""

    def __init__(self) -> None:
        super().__init__()
        self.library = Library(DIM, IndexOptions())
        self.documents: dict[str, Entry] = {}
        self.serial = 0
        self.merge: Merge | None = None
        self.random = np.random.default_rng(0)

    @rule(ids=st.lists(st.integers(0, 30), max_size=12), gone=st.sets(st.integers(0, 30), max_size=4))
    def change(self, ids: list[int], gone: set[int]) -> None:
        added: list[Entry] = []
        dead: list[int] = []
        for number in ids:
            self.serial += 1
            vector = self.random.normal(size=DIM)
            entry = Entry(self.serial, f"d{number}", (vector / np.linalg.norm(vector)).astype(np.float32))
            if before := self.documents.get(entry.id):
                dead.append(before.serial)
            self.documents[entry.id] = entry
            added.append(entry)
        dead += [self.documents.pop(f"d{number}").serial for number in gone if f"d{number}" in self.documents]
        before_library, before = self.library, self.seen(self.library)
        self.library = self.library.changed(added, dead)
        assert self.seen(before_library) == before, "a change must not touch the value before it"

    @precondition(lambda self: self.merge is None)
    @rule()
    def begin_merge(self) -> None:
        self.merge = self.library.merge()

    @precondition(lambda self: self.merge is not None)
    @rule()
    def end_merge(self) -> None:
        assert self.merge is not None
        self.library = self.library.merged(self.merge, self.merge.run())
        self.merge = None

    @rule()
    def rebuild(self) -> None:
        entries = sorted(self.documents.values())
        vectors = np.stack([entry.vector for entry in entries]) if entries else np.empty((0, DIM), np.float32)
        serials = np.array([entry.serial for entry in entries], np.int64)
        self.library = Library.build(DIM, IndexOptions(), serials, [entry.id for entry in entries], vectors)

    def seen(self, library: Library) -> list[tuple[str, float]]:
        return [(hit.id, hit.score) for hit in library.search(np.eye(DIM)[:1], 1_000)[0]]

    @invariant()
    def agrees(self) -> None:
        entries = sorted(self.documents.values(), key=lambda entry: entry.serial)
        assert len(self.library) == len(entries)
        for k in (1, 3, 1_000):
            queries = unit_rows(2, DIM, k)
            for query, hits in zip(queries, self.library.search(queries, k), strict=True):
                rows = np.stack([entry.vector for entry in entries]) if entries else np.empty((0, DIM), np.float32)
                assert [hit.id for hit in hits] == [entries[row].id for row in oracle(rows, query, k)[0]]
        for entry in entries:
            found = self.library.vector(entry.serial)
            assert found is not None
            assert np.array_equal(found, entry.vector)
        assert self.library.vector(self.serial + 1) is None


@pytest.mark.usefixtures("short_tails")
class TestLibrary(LibraryMachine.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=60, stateful_step_count=30)


@pytest.fixture(scope="class")
def short_tails() -> Any:
    patch = pytest.MonkeyPatch()
    patch.setattr(library_module, "TAIL_ROWS", 5)
    yield
    patch.undo()


def test_searching_while_things_change() -> None:
    """Readers take a value and see it whole, whatever the writer does meanwhile."""
    vectors = unit_rows(6_000, DIM, 3)
    current = Library(DIM, IndexOptions())
    failures: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            library = current
            n = len(library)
            hits = library.search(vectors[:1], 10_000)[0]
            if len(hits) != n or len({hit.id for hit in hits}) != n:
                failures.append(f"{len(hits)} of {n}")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for first in range(0, 6_000, 50):
        added = [Entry(i + 1, f"d{i}", vectors[i]) for i in range(first, first + 50)]
        current = current.changed(added, range(first - 40, first - 20) if first > 100 else [])
        if merge := current.merge():
            current = current.merged(merge, merge.run())
    stop.set()
    for reader in readers:
        reader.join()
    assert not failures
    assert len(current.segments) <= 3


@given(st.lists(st.integers(1, 50), max_size=20))
def test_merging_ends(sizes: list[int]) -> None:
    """Merges leave segments of falling size, about log2(n) of them."""
    library = Library(DIM, IndexOptions())
    serial = 0
    for size in sizes:
        built = Library.build(
            DIM,
            IndexOptions(),
            np.arange(serial + 1, serial + 1 + size),
            [str(i) for i in range(size)],
            unit_rows(size, DIM, 0),
        )
        library = Library(DIM, IndexOptions(), (*library.segments, *built.segments))
        serial += size
        while merge := library.merge():
            library = library.merged(merge, merge.run())
    assert len(library) == sum(sizes)
    assert all(len(a.ids) > 2 * len(b.ids) for a, b in zip(library.segments, library.segments[1:], strict=False))
