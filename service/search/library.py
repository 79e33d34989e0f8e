"""The documents that were added, as a searchable whole that is never changed under a search.

A :class:`Library` is a value: a few immutable indexes (segments) and a short tail of the newest rows, which is searched
by brute force. A change makes a new value that shares almost everything with the one before. Full tails become
segments, and small segments are merged into larger ones in the background, so that there are about log2(n / TAIL_ROWS)
of them and every row is copied about as often.

Each version of a document has a serial number, rising with every write and never used twice. Serials rise within a
segment and from segment to segment, so a row is found by two binary searches, and a merge moves rows without telling
anyone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from service.search.index import SLACK, CosineIndex, Hits, IndexOptions, best

TAIL_ROWS: Final = 2_048
# Of many documents, an index of this part of the rows that may be searched exactly gets codes.
_LARGE: Final = 8


class Entry(NamedTuple):
    """One version of a document: its serial, its id, and its vector, float32 (dim,)."""

    serial: int
    id: str
    vector: npt.NDArray[np.float32]


class DocumentHit(NamedTuple):
    """One found document."""

    id: str
    score: float
    vector: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Segment:
    """An immutable index of documents, some of which may be dead (replaced or deleted since).

    Args:
        index: The rows.
        serials: int64 (n,), rising.
        ids: n ids.
        dead: bool (n,).
        n_dead: How many are.
    """

    index: CosineIndex
    serials: npt.NDArray[np.int64]
    ids: Sequence[str]
    dead: npt.NDArray[np.bool_]
    n_dead: int = 0

    def without(self, serials: Iterable[int]) -> Segment:
        """The same with further rows dead; serials that are not here are passed over."""
        rows = [row for serial in serials if (row := self.row(serial)) is not None and not self.dead[row]]
        if not rows:
            return self
        dead = self.dead.copy()
        dead[rows] = True
        return replace(self, dead=dead, n_dead=int(dead.sum()))

    def row(self, serial: int) -> int | None:
        """The row of a serial, or None."""
        row = int(np.searchsorted(self.serials, serial))
        return row if row < len(self.serials) and self.serials[row] == serial else None

    def vector(self, row: int) -> npt.NDArray[np.float32]:
        """One row: float32 (dim,)."""
        vector: npt.NDArray[np.float32] = self.index.vectors[row]
        return vector

    def search(self, queries: npt.NDArray[Any], k: int) -> list[Hits]:
        """The ``k`` nearest living rows of each query."""
        if not self.n_dead:
            return self.index.search(queries, k)
        found = [self._living(hits, k) for hits in self.index.search(queries, k + min(self.n_dead, k))]
        short = [i for i, hits in enumerate(found) if len(hits.rows) < k]
        if short and k + min(self.n_dead, k) < len(self.index):  # many of the nearest are dead: look further
            for i, hits in zip(short, self.index.search(queries[short], k + self.n_dead), strict=True):
                found[i] = self._living(hits, k)
        return found

    def _living(self, hits: Hits, k: int) -> Hits:
        kept = np.flatnonzero(~self.dead[hits.rows])[:k]
        return Hits(hits.rows[kept], hits.scores[kept])


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Library:
    """All added documents that have a vector under one model. Two libraries are equal only if they are the same one.

    Args:
        dim: The model's dimension.
        options: How large segments are indexed.
        segments: Oldest first.
        tail: The newest rows: a segment-like block that is searched by brute force.
    """

    dim: int
    options: IndexOptions
    segments: tuple[Segment, ...] = ()
    tail: Tail | None = None

    @classmethod
    def build(
        cls,
        dim: int,
        options: IndexOptions,
        serials: npt.NDArray[np.int64],
        ids: Sequence[str],
        vectors: npt.NDArray[np.float32],
    ) -> Library:
        """A library of documents that are there already, in one segment.

        Args:
            dim: The model's dimension.
            options: How it is indexed.
            serials: int64 (n,), rising.
            ids: n ids.
            vectors: float32 (n, dim).
        """
        if not len(ids):
            return cls(dim, options)
        return cls(dim, options, (Segment(CosineIndex(vectors, options), serials, ids, np.zeros(len(ids), np.bool_)),))

    def __len__(self) -> int:
        tail = 0 if self.tail is None else self.tail.length - int(self.tail.dead.sum())
        return tail + sum(len(segment.ids) - segment.n_dead for segment in self.segments)

    @property
    def last_serial(self) -> int:
        """The highest serial, of dead rows too; 0 if there is none."""
        if self.tail is not None:
            return int(self.tail.serials[-1])
        return int(self.segments[-1].serials[-1]) if self.segments else 0

    @property
    def recall(self) -> float:
        """The least share of the true 10 nearest documents that one of the indexes finds; 1.0 for exact search."""
        return min((segment.index.codes_recall for segment in self.segments), default=1.0)

    def index_without_codes(self) -> CosineIndex | None:
        """A large index that should be searched by codes, because there are so many documents."""
        if self.options.kind != "auto" or len(self) < self.options.exact_rows:
            return None
        least = self.options.exact_rows // _LARGE
        indexes = (segment.index for segment in self.segments)
        return next((index for index in indexes if index.wants_codes(least)), None)

    def serials(self) -> npt.NDArray[np.int64]:
        """The serials of all living rows: int64, rising."""
        living = [segment.serials[~segment.dead] for segment in self.segments]
        if self.tail is not None:
            living.append(self.tail.serials[~self.tail.dead[: self.tail.length]])
        return np.concatenate([np.empty(0, np.int64), *living])

    def changed(self, added: Sequence[Entry], dead: Iterable[int]) -> Library:
        """The library after a change.

        Args:
            added: New versions, of rising serials above all that are here.
            dead: Serials that are gone: replaced or deleted.
        """
        segments, tail = self.segments, self.tail
        for entry in added:
            tail = (tail or Tail.empty(self.dim)).with_entry(entry)
            if tail.length == TAIL_ROWS:
                segments, tail = (*segments, tail.sealed()), None
        gone = list(dead)
        if gone:
            segments = tuple(segment.without(gone) for segment in segments)
            tail = None if tail is None else tail.without(gone)
        return replace(self, segments=segments, tail=tail)

    def search(self, queries: npt.NDArray[Any], k: int) -> list[list[DocumentHit]]:
        """The ``k`` documents nearest to each query, best first, equal ones oldest first.

        Args:
            queries: Unit rows, shape (q, dim).
            k: At least 1.
        """
        parts: list[tuple[Part, list[Hits]]] = [(segment, segment.search(queries, k)) for segment in self.segments]
        if self.tail is not None:
            parts.append((self.tail, self.tail.search(queries, k)))
        answers: list[list[DocumentHit]] = []
        for i in range(len(queries)):
            found: list[tuple[float, int, Part, int]] = [
                (-score, int(part.serials[row]), part, row)
                for part, hits in parts
                for row, score in zip(hits[i].rows.tolist(), hits[i].scores.tolist(), strict=True)
            ]
            found.sort(key=lambda hit: hit[:2])
            answers.append([DocumentHit(part.ids[row], -minus, part.vector(row)) for minus, _, part, row in found[:k]])
        return answers

    def vector(self, serial: int) -> npt.NDArray[np.float32] | None:
        """The vector of a living version, float32 (dim,), or None."""
        parts: list[Part] = [*self.segments, *([self.tail] if self.tail is not None else [])]
        for part in parts:
            row = part.row(serial)
            if row is not None:
                return None if part.dead[row] else part.vector(row)
        return None

    def merge(self) -> Merge | None:
        """The next merge that is worth doing, or None: neighbouring segments of like size, or one that is mostly
        dead."""
        sizes = [len(segment.ids) for segment in self.segments]
        first = len(sizes)
        total = 0
        while first > 0 and (total == 0 or sizes[first - 1] <= 2 * total):
            first -= 1
            total += sizes[first]
        if len(sizes) - first >= 2:
            return Merge(self.segments[first:], self.dim, self.options)
        for i, segment in enumerate(self.segments):
            if 2 * segment.n_dead > len(segment.ids):
                return Merge(self.segments[i : i + 1], self.dim, self.options)
        return None

    def merged(self, merge: Merge, result: Segment | None) -> Library:
        """The library with some segments replaced by their merger; rows that died meanwhile are dead in it too."""
        first = next(
            (i for i, segment in enumerate(self.segments) if segment.serials is merge.sources[0].serials), None
        )
        if first is None:  # the library was built anew meanwhile
            return self
        last = first + len(merge.sources)
        new: tuple[Segment, ...] = ()
        if result is not None:
            died: list[int] = []
            for before, now in zip(merge.sources, self.segments[first:last], strict=True):
                died += now.serials[now.dead & ~before.dead].tolist()
            new = (result.without(died),)
        return replace(self, segments=(*self.segments[:first], *new, *self.segments[last:]))


@dataclass(frozen=True, slots=True)
class Merge:
    """A merge to be done: a few neighbouring segments whose living rows become one."""

    sources: tuple[Segment, ...]
    dim: int
    options: IndexOptions

    def run(self) -> Segment | None:
        """The merged segment, or None if it would be empty; changes nothing that is shared."""
        n = sum(len(segment.ids) - segment.n_dead for segment in self.sources)
        if not n:
            return None
        vectors = np.empty((n, self.dim), np.float32)
        serials = np.empty(n, np.int64)
        ids: list[str] = []
        at = 0
        for segment in self.sources:
            living = np.flatnonzero(~segment.dead)
            vectors[at : at + len(living)] = segment.index.vectors[living]
            serials[at : at + len(living)] = segment.serials[living]
            ids += [segment.ids[row] for row in living.tolist()]
            at += len(living)
        return Segment(CosineIndex(vectors, self.options), serials, ids, np.zeros(n, np.bool_))


@dataclass(frozen=True, slots=True)
class Tail:
    """The newest rows. Values share their arrays: a longer tail writes only behind the end of the shorter ones.

    Args:
        rows: float32 (TAIL_ROWS, dim).
        all_serials: int64 (TAIL_ROWS,).
        ids: At least ``length`` ids.
        dead: bool (TAIL_ROWS,), copied on change.
        length: How many rows are in use.
    """

    rows: npt.NDArray[np.float32]
    all_serials: npt.NDArray[np.int64]
    ids: list[str]
    dead: npt.NDArray[np.bool_]
    length: int = 0

    @classmethod
    def empty(cls, dim: int) -> Tail:
        """A tail of no rows."""
        return cls(
            np.empty((TAIL_ROWS, dim), np.float32), np.empty(TAIL_ROWS, np.int64), [], np.zeros(TAIL_ROWS, np.bool_)
        )

    @property
    def serials(self) -> npt.NDArray[np.int64]:
        """int64 (length,), rising."""
        return self.all_serials[: self.length]

    def with_entry(self, entry: Entry) -> Tail:
        """One row longer. Only the newest value of a tail may grow, and only one thread may grow it."""
        self.rows[self.length] = entry.vector
        self.all_serials[self.length] = entry.serial
        self.ids[self.length :] = [entry.id]
        return replace(self, length=self.length + 1)

    def without(self, serials: Iterable[int]) -> Tail:
        """The same with further rows dead; serials that are not here are passed over."""
        rows = [row for serial in serials if (row := self.row(serial)) is not None]
        if not rows:
            return self
        dead = self.dead.copy()
        dead[rows] = True
        return replace(self, dead=dead)

    def row(self, serial: int) -> int | None:
        """The row of a serial, or None."""
        row = int(np.searchsorted(self.serials, serial))
        return row if row < self.length and self.all_serials[row] == serial else None

    def vector(self, row: int) -> npt.NDArray[np.float32]:
        """One row: float32 (dim,)."""
        vector: npt.NDArray[np.float32] = self.rows[row]
        return vector

    def search(self, queries: npt.NDArray[Any], k: int) -> list[Hits]:
        """The ``k`` nearest living rows of each query."""
        living = np.flatnonzero(~self.dead[: self.length])
        rough = queries.astype(np.float32, copy=False) @ self.rows[living].T
        n = k + SLACK
        if n < len(living):
            return [
                best(self.rows, living[np.argpartition(row, -n)[-n:]], query, k)
                for query, row in zip(queries, rough, strict=True)
            ]
        return [best(self.rows, living, query, k) for query in queries]

    def sealed(self) -> Segment:
        """The tail as a segment of its own."""
        dead = self.dead[: self.length].copy()
        return Segment(
            CosineIndex(self.rows[: self.length]), self.serials.copy(), self.ids[: self.length], dead, int(dead.sum())
        )


Part = Segment | Tail
