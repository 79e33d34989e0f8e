"""Changes: the documents file and the index of its vectors, changed by one thread.

Writes, merged segments and the swap to a reloaded model pass through the write lane one after the other. Each ends in a
new :class:`~service.search.queries.Snapshot`. A request takes the snapshot once and sees one model and one state of the
documents from beginning to end.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import logging
import sqlite3
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from service.engine.codes import CodesMaker
from service.engine.lanes import Lane, call, lower_thread_priority
from service.engine.records import (
    Delete,
    DiskFullError,
    Mark,
    MissingText,
    Outcome,
    Put,
    ReadOnlyError,
    Refusal,
    StoredVector,
    StoreError,
)
from service.engine.store import Store
from service.problems import Problem, shown
from service.search.index import IndexOptions
from service.search.library import Entry, Library, Merge
from service.search.queries import Snapshot
from service.search.served_model import ServedModel
from service.search.texts import BulkEncoder
from service.settings import Settings

_WRITES: Final = 256  # jobs that share one sync of the disk
_CHECK_SECONDS: Final = 30.0
_CHECK_SHARE: Final = 100  # a check that takes a second is repeated after this many seconds at the earliest
_NORM_ERROR: Final = 1e-3  # a stored vector with a larger one is damaged
_log = logging.getLogger("service")
Answer = TypeVar("Answer")


def _quiet(n: int) -> None:
    """Drops a report of progress."""


class StaleModelError(Exception):
    """A write came with vectors of a model that has been replaced meanwhile."""


def as_problem(error: StoreError) -> Problem:
    """The answer to a caller whose documents could not be read or written."""
    if isinstance(error, DiskFullError):
        return Problem("disk-full", str(error))
    return Problem("read-only" if isinstance(error, ReadOnlyError) else "storage-unavailable", str(error))


@dataclass(frozen=True, slots=True)
class WriteJob:
    """Changes of one request, with vectors of the model of that id; None if they have no vectors."""

    model: str | None
    changes: Sequence[Put | Delete]


class DocumentWriter:
    """The documents file, the index of its vectors, and the thread that changes both.

    Args:
        settings: The service's settings.
        options: How documents are indexed.

    Attributes:
        lane: The write lane.
        n_stored: Stored documents.
        n_unsearchable: Stored vectors that the last check missed in the index and could not add.
        n_repairs: Checks that found the index and the documents file apart.
        mark: The state of the documents file that the snapshot holds, if the service only reads.
    """

    def __init__(self, settings: Settings, options: IndexOptions) -> None:
        self._settings = settings
        self._options = options
        self._store: Store | None = None
        self._snapshot: Snapshot | None = None
        self._merging: threading.Thread | None = None
        self._retired: Store | None = None  # a file that was replaced: requests may still read it
        self.mark: Mark | None = None
        self._next_model: str | None = None  # of a reload in progress: its vectors are kept
        self._unchecked = False  # whether anything was written since the last check
        self._next_check = 0.0
        self.n_stored = 0
        self.n_unsearchable = 0
        self.n_repairs = 0
        self.closing = False
        self._codes = CodesMaker(lambda: self.snapshot, lambda job: self.lane.post(job))
        self.lane: Lane[WriteJob | Callable[[], Any], Any] = Lane(
            "write", self._run, threads=1, most=_WRITES, bound=settings.max_waiting
        )

    def open(self, served: ServedModel) -> None:
        """Opens the documents and indexes their vectors under a model.

        Raises:
            StoreError: the documents cannot be opened.
        """
        settings = self._settings
        store = self._store = Store(settings.documents_path, read_only=settings.read_only, verify=settings.verify)
        try:
            self.n_stored = store.count()
            library, self.mark = self.built(served)
        except BaseException:
            store.close()
            raise
        self._publish(Snapshot(served, library))
        if not settings.read_only:
            self._note_model(served)
            self.lane.post(self._drop_other_models)

    def close(self) -> None:
        """Finishes the writes that were accepted, then closes the documents."""
        self.closing = True
        self.lane.close()
        if self._merging is not None:
            self._merging.join()
        self._codes.close()
        for store in (self._store, self._retired):
            if store is not None:
                store.close()

    @property
    def snapshot(self) -> Snapshot:
        """The model and the added documents now.

        Raises:
            Problem: ``not-ready``, before :meth:`open`.
        """
        if self._snapshot is None:
            raise Problem("not-ready", "the model is being loaded")
        return self._snapshot

    @property
    def is_open(self) -> bool:
        """Whether there is a snapshot."""
        return self._snapshot is not None

    @property
    def store(self) -> Store:
        """The documents file."""
        if self._store is None:
            raise Problem("not-ready", "the documents are being opened")
        return self._store

    # ------------------------------------------------------------------------------------------------------------------
    # writes

    async def write(
        self, model: str | None, changes: Sequence[Put | Delete], *, always: bool = False
    ) -> list[Outcome | Problem]:
        """Writes changes; on return they are on the disk and in the index.

        Args:
            model: The id of the model of their vectors; None if they only delete.
            changes: The changes.
            always: See :meth:`~service.engine.lanes.Lane.submit`.

        Raises:
            StaleModelError: the vectors are of another model than the present one.
            Problem: ``disk-full``, ``storage-unavailable``, ``read-only``, ``saturated``.
        """
        outcomes: list[Outcome | Problem] = await self.lane.submit(WriteJob(model, changes), always=always)
        return outcomes

    def _run(self, jobs: list[WriteJob | Callable[[], Any]]) -> list[Any]:
        """The work of the write lane: adjacent writes share a transaction, other jobs run alone."""
        answers: list[Any] = []
        batch: list[WriteJob] = []
        for job in jobs:
            if isinstance(job, WriteJob):
                batch.append(job)
                continue
            answers += self._write_together(batch)
            batch = []
            answers += call([job])
        return answers + self._write_together(batch)

    def _write_together(self, jobs: list[WriteJob]) -> list[Any]:
        if not jobs:
            return []
        served, library = self.snapshot
        fits = [job.model in (None, served.id) for job in jobs]
        changes = [change for job in itertools.compress(jobs, fits) for change in job.changes]
        try:
            outcomes = self.store.write(changes) if changes else []
        except StoreError as error:
            return [as_problem(error) if fit else StaleModelError() for fit in fits]
        added: list[Entry] = []
        dead: list[int] = []
        for change, outcome in zip(changes, outcomes, strict=True):
            if isinstance(outcome, Refusal):
                continue
            if outcome.replaced is not None:
                dead.append(outcome.replaced)
            if isinstance(change, Put) and outcome.serial is not None and change.vector is not None:
                added.append(Entry(outcome.serial, outcome.id, change.vector))
            self.n_stored += (outcome.serial is not None) - (outcome.replaced is not None)
        if added or dead:
            self._unchecked = True
            self._publish(Snapshot(served, library.changed(added, dead)))
        answers = iter([_refused(outcome) if isinstance(outcome, Refusal) else outcome for outcome in outcomes])
        return [
            [next(answers) for _ in job.changes] if fit else StaleModelError()
            for job, fit in zip(jobs, fits, strict=True)
        ]

    def _publish(self, snapshot: Snapshot) -> None:
        """Replaces the snapshot; merges segments and makes codes in threads of their own if that is worth doing."""
        self._snapshot = snapshot
        self._codes.begin()
        if self._merging is not None and self._merging.is_alive():
            return
        served, library = snapshot
        merge = library.merge()
        if merge is None:
            return

        def run(merge: Merge = merge) -> None:
            lower_thread_priority()
            segment = merge.run()

            def install() -> None:
                self._merging = None
                now = self.snapshot
                self._publish(Snapshot(served, now.library.merged(merge, segment)) if now.served is served else now)

            self.lane.post(install)

        self._merging = threading.Thread(target=run, name="merge", daemon=True)
        self._merging.start()

    def run_alone(self, job: Callable[[], Answer]) -> Answer:
        """Runs a function in the write lane, waits for it, and returns what it returns.

        Raises:
            Problem: ``not-ready``: the service is stopping.
        """
        finished: concurrent.futures.Future[Answer] = concurrent.futures.Future()

        def run() -> None:
            try:
                finished.set_result(job())
            except BaseException as error:
                finished.set_exception(error)

        if not self.lane.post(run):
            raise Problem("not-ready", "the service is stopping")
        return finished.result()

    # ------------------------------------------------------------------------------------------------------------------
    # the index of a model

    def announce(self, model: str | None) -> None:
        """Says which model a reload is about to serve, so that its vectors are kept; None if there is no reload."""
        self.run_alone(lambda: setattr(self, "_next_model", model))

    def built(self, served: ServedModel, report: Callable[[int], None] = _quiet) -> tuple[Library, Mark | None]:
        """The index of all stored documents under a model, and the state of the file that it holds.

        A service that writes gets no state: it knows what changes meanwhile.
        """
        if not self._settings.read_only:
            return self.library_of(served, report), None
        with self.store.reading():
            return self.library_of(served, report), self.store.mark()

    def library_of(self, served: ServedModel, report: Callable[[int], None] = _quiet) -> Library:
        """The index of all stored documents under a model; vectors that are missing or damaged are made and stored.

        A file that is open for reading only gets its missing vectors in the index alone.
        """
        writes = not self._settings.read_only
        if writes:  # the few that came since; they do not begin the report again
            self.embed_missing(served)
        table = _Table(served.dim, self.store.count())
        damaged: list[int] = []
        for entry in self._stored(served):
            if entry.vector.shape == (served.dim,) and abs(float(np.linalg.norm(entry.vector)) - 1.0) < _NORM_ERROR:
                table.add(entry)
            else:
                damaged.append(entry.serial)
        if damaged:
            _log.warning("%s: %d stored vectors are damaged", self.store.path, len(damaged))
            if writes:
                self.store.drop_vectors(served.id, damaged)
                return self.library_of(served)
        if not writes:
            for entry in self._unstored(served, report=report):
                table.add(entry)
        return Library.build(served.dim, self._options, *table.in_order())

    def embed_missing(self, served: ServedModel, report: Callable[[int], None] = _quiet) -> int:
        """Makes and stores the vectors that stored texts lack under a model; returns how many.

        ``report`` is called with the number so far.
        """
        n = 0
        for made in self._made(served, 0, report):
            self.store.keep_vectors(served.id, [StoredVector(item.serial, vector) for item, vector in made])
            n += len(made)
        return n

    def _unstored(self, served: ServedModel, after: int = 0, report: Callable[[int], None] = _quiet) -> list[Entry]:
        """The versions behind a serial whose vectors are not stored, with vectors."""
        pairs = itertools.chain.from_iterable(self._made(served, after, report))
        return [Entry(item.serial, item.id, vector) for item, vector in pairs if vector is not None]

    def _made(
        self, served: ServedModel, after: int, report: Callable[[int], None]
    ) -> Iterator[list[tuple[MissingText, npt.NDArray[np.float32] | None]]]:
        """The texts behind a serial without a stored vector, some at a time, with their vectors made anew."""
        n, bulk = 0, BulkEncoder(served.embeddings)
        while missing := self.store.without_vector(served.id, after=after):
            after = missing[-1].serial
            yield list(zip(missing, bulk.vectors_of([item.text for item in missing]), strict=True))
            n += len(missing)
            report(n)

    def _stored(self, served: ServedModel, after: int = 0) -> Iterator[Entry]:
        """The versions behind a serial that have a stored vector, in the order of serials."""
        while page := self.store.vectors(served.id, after=after):
            after = page[-1][0]
            yield from (Entry(serial, id, vector) for serial, id, vector in page if vector is not None)

    def swap(self, served: ServedModel, library: Library | None, mark: Mark | None = None) -> None:
        """Serves another model from now on; to be called in the write lane.

        Args:
            served: The model.
            library: The index of its vectors, which may lack what was written since it was built; None: the present
                one, of the same model.
            mark: As :meth:`built` gave it.
        """
        if library is None:
            library, mark = self.snapshot.library, self.mark
        self.mark = mark
        if not self._settings.read_only:
            self.embed_missing(served)
            library = self._agreeing(served, library)
        self._publish(Snapshot(served, library))
        if not self._settings.read_only:
            self._note_model(served)
            self.lane.post(self._drop_other_models)

    def _note_model(self, served: ServedModel) -> None:
        """Tells the replicas which model is served."""
        try:
            self.store.note_model(served.id)
        except StoreError as error:  # the service does not depend on it
            _log.warning("replicas cannot be told of the model: %s", error)

    # ------------------------------------------------------------------------------------------------------------------
    # replicas and snapshots

    def catch_up(self) -> None:
        """Brings the index of a replica to what is stored now; to be called in the write lane."""
        served, library = self.snapshot
        with self.store.reading():
            mark, before = self.store.mark(), self.mark
            dead = self.store.removed(before) if before is not None else None
            if before is None or dead is None or mark.serial < before.serial:
                library = self.library_of(served)
            else:
                behind = [*self._unstored(served, before.serial), *self._stored(served, before.serial)]
                added = {entry.serial: entry for entry in behind}
                library = library.changed([added[serial] for serial in sorted(added)], dead)
            self.n_stored = self.store.count()
        self.mark = mark
        self._publish(Snapshot(served, library))

    def reopen(self) -> None:
        """Opens the documents file of a replica again, after it was replaced or has appeared."""

        def swap() -> None:
            if self._retired is not None:
                self._retired.close()
            self._retired, self._store = self._store, store
            self.mark = None
            self.catch_up()

        store = Store(self._settings.documents_path, read_only=True, verify=self._settings.verify)
        try:
            self.run_alone(swap)
        except BaseException:
            if self._store is not store:
                store.close()
            raise
        _log.info("opened %s again, which was replaced", store.path)

    def freeze(self) -> tuple[sqlite3.Connection, ServedModel]:
        """A connection that sees the documents of this moment, and the model that is served now."""
        return self.run_alone(lambda: (self.store.frozen(), self.snapshot.served))

    def _agreeing(self, served: ServedModel, library: Library) -> Library:
        """The library, brought to what is stored now; to be called in the write lane."""
        stored, present = self.store.searchable_serials(served.id), library.serials()
        dead = np.setdiff1d(present, stored, assume_unique=True)
        missing = np.setdiff1d(stored, present, assume_unique=True)
        if not len(missing):
            return library.changed([], dead.tolist()) if len(dead) else library
        if missing[0] <= library.last_serial:
            return self.library_of(served)
        return library.changed(list(self._stored(served, library.last_serial)), dead.tolist())

    def request_check(self) -> None:
        """Has the index compared with the documents file, if anything was written since the last time."""
        if self._unchecked and not self._settings.read_only and time.monotonic() >= self._next_check:
            self._next_check = float("inf")
            self.lane.post(self.check)

    def check(self) -> None:
        """Compares the index with the documents file, and repairs it if they differ; runs in the write lane."""
        started = time.monotonic()
        try:
            served, library = self.snapshot
            self._unchecked = False
            stored = self.store.searchable_serials(served.id)
            n_wrong = len(np.setxor1d(stored, library.serials(), assume_unique=True)) + self.embed_missing(served)
            if n_wrong:
                self.n_unsearchable = n_wrong
                self.n_repairs += 1
                _log.error("%d stored documents were not as the index had them; it is repaired", n_wrong)
                self._publish(Snapshot(served, self._agreeing(served, library)))
            self.n_unsearchable = 0
        finally:
            now = time.monotonic()
            self._next_check = now + max(_CHECK_SECONDS, _CHECK_SHARE * (now - started))

    def _drop_other_models(self) -> None:
        """Deletes vectors of replaced models, a few at a time between the writes."""
        kept = [self.snapshot.served.id, *([self._next_model] if self._next_model is not None else [])]
        if not self.closing and self.store.drop_other_models(kept):
            self.lane.post(self._drop_other_models)


def _refused(refusal: Refusal) -> Problem:
    change, present = refusal.change, refusal.present
    if refusal.reason == "unknown":
        return Problem("unknown-document", f"there is no added document {shown(change.id)}")
    name = f"document {shown(change.id)}"
    if change.if_serial is not None:
        found = "is not there" if present is None else f'has the ETag "{present}"'
        return Problem("precondition-failed", f'{name} {found}, but If-Match asks for "{change.if_serial}"')
    if present is None:
        return Problem("precondition-failed", f"{name} is not there, but If-Match asks for one")
    return Problem("precondition-failed", f"{name} is there already, but If-None-Match asks for none")


class _Table:
    """Entries on their way into an index: their vectors are written to the table that the index keeps, so that a start
    needs the room for one.

    Args:
        dim: The dimension.
        n: How many there will be, unless documents are added meanwhile.
    """

    def __init__(self, dim: int, n: int) -> None:
        self._vectors = np.empty((n, dim), np.float32)
        self._serials = array("q")
        self._ids: list[str] = []

    def add(self, entry: Entry) -> None:
        """Takes an entry."""
        n = len(self._ids)
        if n == len(self._vectors):
            more = np.empty((1_000 + n // 8, self._vectors.shape[1]), np.float32)
            self._vectors = np.concatenate([self._vectors, more])
        self._vectors[n] = entry.vector
        self._serials.append(entry.serial)
        self._ids.append(entry.id)

    def in_order(self) -> tuple[npt.NDArray[np.int64], list[str], npt.NDArray[np.float32]]:
        """Serials, rising, int64 (n,), ids and vectors, float32 (n, dim)."""
        serials, ids, vectors = np.array(self._serials, np.int64), self._ids, self._vectors[: len(self._ids)]
        if (np.diff(serials) > 0).all():
            return serials, ids, vectors
        order = np.argsort(serials, kind="stable")
        return serials[order], [ids[i] for i in order.tolist()], vectors[order]
