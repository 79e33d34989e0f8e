"""Words and fields of the added documents, for questions in words and for filters.

The texts lie in the documents file. Under one model, the words and fields of each version are read once, when a
question first needs them, and kept in the order of the serials; a question brings them up to date. Which versions live,
and their vectors, is said by the :class:`~service.search.library.Library` that the question sees.

A word weighs as much as in the documents of the training: their number, their lengths and how many of them have the
word are those of the model's index. So the scores of added and trained documents can be compared, and those of trained
documents do not depend on what is added.
"""

from __future__ import annotations

import contextlib
import json
import threading
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Final, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ModelError
from jose_embed.model.filters import Filter, KnownFields
from jose_embed.model.nearest import products
from jose_embed.model.search import DocumentSearch, Question
from service.search.index import NEAREST, QUESTION, Reach
from service.search.library import Library, Segment, Tail

_KEPT_FILTERS: Final = 64
_AT_ONCE: Final = 256  # new versions that a question reads itself; it takes 70 ms
_SMALL: Final = 20_000  # documents of the training whose index of words is made by the first question
_DEAD: Final = 10_000  # versions that may be dead beside as many as live
_SLACK: Final = 8  # candidates beyond k, so that exact scores settle the order


class StoredText(NamedTuple):
    """A version of a document: its serial, its text, and its fields as JSON."""

    serial: int
    text: str
    fields: str


class TextSource(Protocol):
    """The documents file."""

    def texts(self, after: int) -> list[StoredText]:
        """Some versions behind a serial, in order; none at the end."""


class AddedTexts:
    """Words and fields of the added documents under one model. Any number of threads may ask.

    Args:
        search: Searches the documents of the training.
    """

    def __init__(self, search: DocumentSearch) -> None:
        self._search = search
        self._lock = threading.Lock()
        self._source: TextSource | None = None
        self._reads = False  # whether jobs read what is missing
        self._preparing: threading.Thread | None = None
        self._prepared = search.n_documents <= _SMALL
        self._clear()

    def _clear(self) -> None:
        # Of a library that is still served: after a merge the segments before it must not be held here.
        self._made: WeakKeyDictionary[Library, AddedDocuments] = WeakKeyDictionary()
        self._read_to = 0  # the last serial that was looked at
        self._versions = _Versions(self._search, self._lock)

    def of(self, library: Library, source: TextSource) -> AddedDocuments:
        """The living documents of a library, after reading what is new.

        Args:
            library: The documents.
            source: Where their texts are.
        """
        while True:
            with self._lock:  # page by page, so that questions to what has been read need not wait for the rest
                if self._source is source and (known := self._made.get(library)) is not None:
                    return known
                if self._read_page(library, source):
                    continue
                parts: list[Segment | Tail] = [
                    *library.segments,
                    *([library.tail] if library.tail is not None else []),
                ]
                made = AddedDocuments(self._versions, self._search, library.dim, parts)
                self._made[library] = made
                return made

    def is_ready(self, library: Library, source: TextSource, post: Callable[[Callable[[], None]], object]) -> bool:
        """Whether a question in words has to read but little. If not, what is missing is read behind the questions: the
        index of the words of the training, and the texts of the added documents.

        To be asked by one thread.

        Args:
            library: The added documents that the question sees.
            source: Where their texts are.
            post: Runs a function in another thread; the reading is many short ones.
        """
        behind = library.last_serial - (self._read_to if self._source is source else 0)
        is_read = not len(library) or behind <= _AT_ONCE
        is_ready = self._prepared and is_read
        if not self._prepared and self._preparing is None:
            self._preparing = threading.Thread(target=self._prepare, name="words", daemon=True)
            self._preparing.start()
        if not is_read and not self._reads:
            self._reads = True
            post(partial(self._read_some, library, source, post))
        return is_ready

    def _prepare(self) -> None:
        with contextlib.suppress(ModelError):  # damage, which a question that names its mode reports
            self._search.question("a")
            self._prepared = True

    def _read_some(self, library: Library, source: TextSource, post: Callable[[Callable[[], None]], object]) -> None:
        again = False
        try:
            with self._lock:
                again = self._read_page(library, source)
        finally:
            self._reads = again and bool(post(partial(self._read_some, library, source, post)))

    def _read_page(self, library: Library, source: TextSource) -> bool:
        """Read the next texts; whether there were any. With the lock."""
        if self._source is not source or len(self._versions.serials) > 2 * len(library) + _DEAD:
            self._source = source
            self._clear()
        if self._read_to >= library.last_serial:
            return False
        page = source.texts(self._read_to)
        self._versions.take([one for one in page if one.serial <= library.last_serial], library)
        self._read_to = min(page[-1].serial, library.last_serial) if page else library.last_serial
        return True


class _Versions:
    """Words and fields of the versions that were read since the last clearing. A question that began before a clearing
    goes on with those it began with.

    Args:
        search: Searches the documents of the training.
        lock: Guards them.
    """

    def __init__(self, search: DocumentSearch, lock: threading.Lock) -> None:
        self._search, self._lock = search, lock
        self.serials = array("q")
        self._lengths = array("l")
        self._factors = array("f")
        self._words: dict[str, tuple[array[int], array[int]]] = {}
        self._fields: list[Mapping[str, Any]] = []
        self.known_fields = KnownFields()
        self._fitting: dict[str, bytearray] = {}

    def take(self, page: Sequence[StoredText], library: Library) -> None:
        """Add those of some versions that live. With the lock."""
        found = [library.vector(one.serial) for one in page]
        living = [(one, vector) for one, vector in zip(page, found, strict=True) if vector is not None]
        if not living:
            return
        self._factors.extend(self._search.factors_of(np.stack([vector for _, vector in living])).tolist())
        for one, _ in living:
            words = self._search.words_of(one.text) if self._search.has_texts else []
            at = len(self.serials)
            for word, count in Counter(words).items():
                places, counts = self._words.setdefault(word, (array("l"), array("l")))
                places.append(at)
                counts.append(count)
            fields = json.loads(one.fields)
            self._fields.append(fields)
            self.known_fields.add(fields)
            self._lengths.append(len(words))
            self.serials.append(one.serial)

    def scores(self, question: Question) -> npt.NDArray[np.float32]:
        """The scores of all versions by words: float32."""
        index = self._search.words
        with self._lock:
            found = [
                [(np.array(places), np.array(counts)) for word in spellings if (pair := self._words.get(word))
                 for places, counts in (pair,)]
                for spellings, _ in question.terms
            ]  # fmt: skip
            discounts = index.discounts(np.array(self._lengths, np.int64))
        total = np.zeros(len(discounts), np.float32)
        for (spellings, weight), pairs in zip(question.terms, found, strict=True):
            sums = np.zeros(len(total), np.float32)
            for places, counts in pairs:
                sums[places] += counts
            if pairs:
                total += index.gains(spellings, weight, sums, discounts)
        return total

    def factors(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """What the products of some vectors with a question are multiplied by: float32."""
        with self._lock:  # while a view of it is there, the array cannot grow
            return np.frombuffer(self._factors, np.float32)[places]

    def fitting(self, filter: Filter) -> npt.NDArray[np.bool_]:
        """Which versions fit a filter; only new ones are looked at when it is asked again."""
        key = repr(filter)
        with self._lock:
            fit = self._fitting.pop(key, bytearray())
            fit.extend(filter.fits(fields) for fields in self._fields[len(fit) :])
            if len(self._fitting) >= _KEPT_FILTERS:
                del self._fitting[next(iter(self._fitting))]
            self._fitting[key] = fit
            return np.frombuffer(bytes(fit), np.bool_)

    def fields(self, places: Iterable[int]) -> list[Mapping[str, Any]]:
        """The fields of some versions."""
        with self._lock:
            return [self._fields[place] for place in places]


class AddedDocuments:
    """The living added documents of one state of things, in the order of their serials.

    Args:
        versions: Their words and fields; made with their lock.
        search: Searches the documents of the training.
        dim: The dimension of the vectors.
        parts: The indexes that they are in.

    Attributes:
        known_fields: Their fields.
    """

    def __init__(
        self,
        versions: _Versions,
        search: DocumentSearch,
        dim: int,
        parts: Sequence[Segment | Tail],
    ) -> None:
        self._versions, self._search, self._dim = versions, search, dim
        self.known_fields = versions.known_fields
        serials = np.array(versions.serials, np.int64)
        self._parts: list[tuple[Segment | Tail, npt.NDArray[np.int64]]] = []
        places: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
        for part in parts:
            of_part = np.asarray(part.serials)
            at = np.minimum(np.searchsorted(serials, of_part), max(len(serials) - 1, 0))
            # A version that was replaced before its text was read has no words; its successor comes with the next look.
            there = serials[at] == of_part if len(serials) else np.zeros(len(of_part), np.bool_)
            rows = np.flatnonzero(there & ~part.dead[: len(of_part)])
            self._parts.append((part, rows))
            places.append(at[rows])
        self._places = np.concatenate(places)

    def __len__(self) -> int:
        return len(self._places)

    def id(self, place: int) -> str:
        """The id of a document."""
        for part, rows in self._parts:
            if place < len(rows):
                return part.ids[int(rows[place])]
            place -= len(rows)
        raise IndexError(place)

    def vectors(self, at: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The vectors of some documents: float32 (n, dim)."""
        places = np.array(at, np.int64)
        found = np.empty((len(places), self._dim), np.float32)
        first = 0
        for part, rows in self._parts:
            here = np.flatnonzero((places >= first) & (places < first + len(rows)))
            found[here] = _table(part)[rows[places[here] - first]]
            first += len(rows)
        return found

    def by_words(self, question: Question) -> npt.NDArray[np.float32]:
        """The scores by words: float32 (n,), comparable with those of the trained documents."""
        return self._versions.scores(question)[self._places]

    def cosines(self, vector: npt.NDArray[np.float32], at: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """As :meth:`DocumentSearch.cosines`: float32.

        Args:
            vector: float32 (dim,), norm 1.
            at: int64, rising: the documents.
        """
        query, scale = self._search.query_of(vector)
        out, first = np.empty(len(at), np.float32), 0
        for part, rows in self._parts:
            a, b = np.searchsorted(at, (first, first + len(rows)))
            out[a:b] = products(_table(part), query * np.float32(scale), rows[at[a:b] - first])
            first += len(rows)
        return out * self._versions.factors(self._places[at])

    def sum_of_cosines(self, vector: npt.NDArray[np.float32]) -> float:
        """As :meth:`DocumentSearch.sum_of_cosines`."""
        query, scale = self._search.query_of(vector)
        return float(self._total @ query) * scale

    @cached_property
    def _total(self) -> npt.NDArray[np.float64]:
        """float64 (dim,): the sum of all documents, each times its factor."""
        total, first = np.zeros(self._dim), 0
        factors = self._versions.factors(self._places)
        for part, rows in self._parts:
            of_part = np.zeros(len(_table(part)), np.float32)
            of_part[rows] = factors[first : first + len(rows)]
            total += of_part @ _table(part)
            first += len(rows)
        return total

    @property
    def by_codes(self) -> bool:
        """Whether a part of them is searched by codes."""
        return any(isinstance(part, Segment) and part.index.kind == "ivf" for part, _ in self._parts)

    def nearest(
        self, vector: npt.NDArray[np.float32], k: int, may: npt.NDArray[np.bool_], *, as_question: bool
    ) -> tuple[list[int], list[float]]:
        """The ``k`` nearest documents, best first, equal ones by serial; and their cosines.

        Args:
            vector: float32 (dim,), norm 1.
            k: At least 1.
            may: bool (n,): the documents that may be answers.
            as_question: Compare without the reliability matrix, as for short questions.
        """
        query, scale = self._search.query_of(vector) if as_question else (vector, 1.0)
        rows, rough = self.candidates(query, k, may, QUESTION if as_question else NEAREST)
        factors = self._versions.factors(self._places[rows]) if as_question else np.ones(len(rows), np.float32)
        n = k + _SLACK
        if n < len(rows):
            best = np.sort(np.argpartition(-rough * factors, n)[:n])
            rows, factors = rows[best], factors[best]
        exact = (self.vectors(rows.tolist()) * query.astype(np.float64)).sum(axis=1) * factors * scale
        order = np.argsort(-exact, kind="stable")[:k]
        return rows[order].tolist(), np.clip(exact[order], -1, 1).tolist()

    def candidates(
        self, query: npt.NDArray[np.float32], k: int, may: npt.NDArray[np.bool_], reach: Reach
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Places, int64, rising, among which are the ``k`` nearest documents that may be answers; and the products of
        their vectors with the query, float32."""
        places, made, first = [np.empty(0, np.int64)], [np.empty(0, np.float32)], 0
        for part, rows in self._parts:
            table, allowed, found = _table(part), may[first : first + len(rows)], None
            if isinstance(part, Segment) and part.index.kind == "ivf":
                of_part = np.zeros(len(table), np.bool_)
                of_part[rows[allowed]] = True
                found = part.index.candidates(query, k, of_part, reach)
            chosen = rows[allowed] if found is None else found
            places.append(first + (np.flatnonzero(allowed) if found is None else np.searchsorted(rows, found)))
            made.append(products(table, query, chosen))
            first += len(rows)
        return np.concatenate(places), np.concatenate(made)

    def fitting(self, filter: Filter | None) -> npt.NDArray[np.bool_]:
        """Which documents fit a filter, all for None: bool (n,)."""
        return np.ones(len(self), np.bool_) if filter is None else self._versions.fitting(filter)[self._places]

    def fields(self, at: npt.NDArray[np.int64]) -> list[Mapping[str, Any]]:
        """The fields of some documents."""
        return self._versions.fields(self._places[at].tolist())


def _table(part: Segment | Tail) -> npt.NDArray[np.float32]:
    """The vectors of a part, of dead rows too: float32 (n, dim)."""
    return part.index.vectors if isinstance(part, Segment) else part.rows[: part.length]
