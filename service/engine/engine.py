"""What the calls ask: one model, its indexes, the documents, and the lanes in which all work is done.

One thread changes things: the write lane's. Writes, the swap of a reloaded model and merged segments pass through it
one after the other, and each ends in a new :class:`~service.search.queries.Snapshot`, which replaces the old one.
Whoever reads takes the reference once and sees one model and one state of the documents from beginning to end.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import datetime
import functools
import logging
import platform
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ModelError
from jose_embed.version import __version__
from service.engine import garbage
from service.engine.lanes import Lane, call, lower_thread_priority
from service.engine.metrics import Metrics
from service.engine.store import Delete, Outcome, Put, Store, StoredVector
from service.problems import Problem
from service.search.index import IndexOptions
from service.search.library import Entry, Library, Merge
from service.search.queries import SearchJob, SearchQuery, Snapshot, run_jobs
from service.search.served_model import ServedModel
from service.search.texts import Inferred, vectors_of
from service.settings import MAX_BATCH, MAX_K, Settings

__all__ = ["Engine", "StaleModelError"]

_SEARCHES: Final = 64  # questions that share one pass over an index
_TEXTS: Final = 64  # texts that are made vectors of at once
_LONG: Final = 100_000  # characters of so many texts, some 20 ms of tokenising
_PATIENCE: Final = 0.01  # seconds; a pass over 100,000 words takes 15 for 25 questions, and 20 for 50
_WRITES: Final = 256  # jobs that share one sync of the disk
_PROBE_SECONDS: Final = 2.0

Result = TypeVar("Result")
_log = logging.getLogger("service")


class StaleModelError(Exception):
    """A write came with vectors of a model that has been replaced meanwhile."""


@dataclass(frozen=True, slots=True)
class WriteJob:
    """Changes of one request, with vectors of the model of that id."""

    model: str
    changes: Sequence[Put | Delete]


@dataclass(frozen=True, slots=True)
class EmbedJob:
    """Texts of one request, for one model."""

    served: ServedModel
    texts: Sequence[str]


class Engine:
    """The running service below HTTP.

    Args:
        settings: What it runs with.

    Attributes:
        settings: The same.
        draining: Set once the service is to stop: it answers what comes, and asks clients to go.
        metrics: Its figures.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.draining = False
        self.started = datetime.datetime.now(datetime.UTC)
        self._born = time.monotonic()
        self._options = IndexOptions(
            settings.index, settings.hnsw_links, settings.hnsw_build_width, settings.hnsw_search_width
        )
        self._snapshot: Snapshot | None = None
        self._store: Store | None = None
        self._reloading = threading.Lock()
        self._merging: threading.Thread | None = None
        self._died: list[int] | None = None  # serials that died while a reload was building another library
        self._n_stored = 0
        bound = settings.max_waiting
        self.search_lane: Lane[SearchJob, Any] = Lane(
            "search",
            run_jobs,
            threads=settings.resolved_search_threads,
            most=_SEARCHES,
            bound=bound,
            patience=_PATIENCE,
            low_priority=True,
        )
        self.embed_lane: Lane[EmbedJob, list[Inferred]] = Lane(
            "embed", _embedded, threads=settings.embed_threads, most=_TEXTS, bound=bound
        )
        self.write_lane: Lane[WriteJob | Callable[[], Any], Any] = Lane(
            "write", self._written, threads=1, most=_WRITES, bound=bound
        )
        self.work_lane: Lane[Callable[[], Any], Any] = Lane(
            "work", call, threads=settings.work_threads, most=1, bound=bound
        )
        # One thread: such work holds the interpreter's lock for most of its time, and each further thread that wants it
        # makes the event loop wait longer.
        self.long_lane: Lane[Callable[[], Any], Any] = Lane("long", call, threads=1, most=1, bound=bound)
        self.metrics = self._made_metrics()

    # ------------------------------------------------------------------------------------------------------------------
    # life

    def open(self) -> None:
        """Loads the model and the documents; a second call does nothing.

        Raises:
            ModelError: the model cannot be served.
            StoreError: the documents cannot be opened.
        """
        if self._snapshot is not None:
            return
        settings = self.settings
        served = ServedModel.load(settings.model, self._options, settings.cache_bytes, verify=settings.verify)
        store = Store(settings.documents_path, read_only=settings.read_only)
        try:
            self._store = store
            self._n_stored = store.count()
            if not settings.read_only:
                self._embed_again(served, store.keep_vectors)
            library, _ = self._library(served)
        except BaseException:
            store.close()
            raise
        self._snapshot = Snapshot(served, library)
        if not settings.read_only:
            self.write_lane.post(self._forget_other_models)
        model = served.embeddings
        _log.info(
            "serving %s: %d words, %d trained and %d added documents, dimension %d",
            *(settings.model, model.n_words, model.n_docs, self._n_stored, served.dim),
        )

    def close(self) -> None:
        """Finishes what was let in, then closes the documents."""
        for lane in reversed(self._lanes):
            lane.close()
        if self._merging is not None:
            self._merging.join()
        if self._store is not None:
            self._store.close()

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
    def store(self) -> Store:
        """The documents file."""
        if self._store is None:
            raise Problem("not-ready", "the documents are being opened")
        return self._store

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._born

    # ------------------------------------------------------------------------------------------------------------------
    # asking

    async def search(
        self, snapshot: Snapshot, questions: Sequence[SearchQuery], finish: Callable[[list[Any]], Result]
    ) -> Result:
        """Asks the index; ``finish`` makes the answer of the results, in the search lane too."""
        result: Result = await self.search_lane.submit(SearchJob(snapshot, questions, finish))
        return result

    async def embed(self, served: ServedModel, texts: Sequence[str]) -> list[Inferred]:
        """Vectors for texts, a few at a time, so that neither a long list nor a long text keeps short ones waiting."""
        made: list[Inferred] = []
        for first in range(0, len(texts), _TEXTS):
            some = texts[first : first + _TEXTS]
            if sum(map(len, some)) > _LONG:
                job = functools.partial(vectors_of, served.embeddings, some)
                made += await self.long_lane.submit(job, always=first > 0)
            else:
                made += await self.embed_lane.submit(EmbedJob(served, some), always=first > 0)
        return made

    async def work(self, job: Callable[[], Result]) -> Result:
        """Does something that takes its time in the work lane."""
        result: Result = await self.work_lane.submit(job)
        return result

    async def long_work(self, job: Callable[[], Result]) -> Result:
        """Does something that takes very long, one at a time, apart from the work that others wait for."""
        result: Result = await self.long_lane.submit(job)
        return result

    def advice(self) -> int:
        """Whole seconds after which the work that waits now will be done."""
        return max(lane.advice() for lane in self._lanes)

    async def write(self, model: str, changes: Sequence[Put | Delete]) -> list[Outcome | Problem]:
        """Writes changes; on return they are on the disk and in the index.

        Raises:
            StaleModelError: the vectors are of another model than the present one.
            Problem: ``disk-full``, ``storage-unavailable``, ``read-only``, ``saturated``.
        """
        outcomes: list[Outcome | Problem] = await self.write_lane.submit(WriteJob(model, changes))
        return outcomes

    # ------------------------------------------------------------------------------------------------------------------
    # changing (write lane)

    def _written(self, jobs: list[WriteJob | Callable[[], Any]]) -> list[Any]:
        """The work of the write lane: writes that stand together share a transaction, everything else is done in its
        turn."""
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
        snapshot = self.snapshot
        model = snapshot.served.id
        changes = [change for job in jobs if job.model == model for change in job.changes]
        try:
            outcomes = self.store.write(changes) if changes else []
        except Problem as problem:
            return [problem if job.model == model else StaleModelError() for job in jobs]
        entries: list[Entry] = []
        dead: list[int] = []
        for change, outcome in zip(changes, outcomes, strict=True):
            if isinstance(outcome, Problem):
                continue
            if outcome.replaced is not None:
                dead.append(outcome.replaced)
            if isinstance(change, Put) and outcome.serial is not None and change.vector is not None:
                entries.append(Entry(outcome.serial, outcome.id, change.vector))
            self._n_stored += (outcome.serial is not None) - (outcome.replaced is not None)
        if self._died is not None:
            self._died += dead
        if entries or dead:
            self._snapshot = Snapshot(snapshot.served, snapshot.library.changed(entries, dead))
            self._merge_in_the_background()
        rest = iter(outcomes)
        return [[next(rest) for _ in job.changes] if job.model == model else StaleModelError() for job in jobs]

    def _merge_in_the_background(self) -> None:
        if self._merging is not None and self._merging.is_alive():
            return
        served, library = self.snapshot
        merge = library.merge()
        if merge is None:
            return

        def run(merge: Merge = merge) -> None:
            lower_thread_priority()
            segment = merge.run()

            def install() -> None:
                now = self.snapshot
                if now.served is served:
                    self._snapshot = Snapshot(served, now.library.merged(merge, segment))
                self._merging = None
                self._merge_in_the_background()

            self.write_lane.post(install)

        self._merging = threading.Thread(target=run, name="merge", daemon=True)
        self._merging.start()

    # ------------------------------------------------------------------------------------------------------------------
    # reloading

    async def reload(self) -> dict[str, Any]:
        """Loads the model directory again, checks it, makes vectors of the stored texts where the model is another one,
        and swaps.

        Raises:
            Problem: ``reload-running``, or ``model-refused``: the model before goes on serving.
        """
        if not self._reloading.acquire(blocking=False):
            raise Problem("reload-running", "another reload has not ended yet")
        try:
            answer = await asyncio.to_thread(self._reload)
        except ModelError as error:
            self.metrics.reloads.labels("refused").inc()
            _log.warning("reload refused: %s", error)
            raise Problem("model-refused", str(error)) from None
        except BaseException:
            self.metrics.reloads.labels("failed").inc()
            raise
        finally:
            self._reloading.release()
        self.metrics.reloads.labels("done").inc()
        return answer

    def _reload(self) -> dict[str, Any]:
        started = time.perf_counter()
        before = self.snapshot.served
        served = ServedModel.load(self.settings.model, self._options, self.settings.cache_bytes, verify=True)
        embedded = 0
        if served.id == before.id:
            self._in_write_lane(lambda: self._put_in_place(served, self.snapshot.library))
        else:
            if not self.settings.read_only:
                embedded = self._embed_again(
                    served, lambda *vectors: self._in_write_lane(lambda: self.store.keep_vectors(*vectors))
                )
            self._in_write_lane(self._begin_journal)
            try:
                library, last = self._library(served)
                self._in_write_lane(lambda: self._swap(served, library, last))
            finally:
                self._in_write_lane(self._end_journal)
            self.write_lane.post(self._forget_other_models)
        _log.info("reloaded %s: model %s, before %s", self.settings.model, served.id, before.id)
        return {
            "model": served.reference,
            "previous": before.reference,
            "changed": served.id != before.id,
            "documents": embedded,
            "seconds": round(time.perf_counter() - started, 6),
        }

    def _begin_journal(self) -> None:
        self._died = []

    def _end_journal(self) -> None:
        self._died = None

    def _put_in_place(self, served: ServedModel, library: Library) -> None:
        before = self.snapshot.served
        self._snapshot = Snapshot(served, library)
        # The last to hold a replaced model is often a request, and so the event loop, which would stand still for a
        # tenth of a second while a million words go. So their parts outlive the model, and a thread lets go of them.
        parts = vars(before)
        weakref.finalize(before, lambda: self.long_lane.post(lambda: garbage.let_go(parts))).atexit = False

    def _swap(self, served: ServedModel, library: Library, last: int) -> None:
        """Puts a model and its library in the place of the present ones, with what was written while the library was
        built."""
        if not self.settings.read_only:
            self._embed_again(served, self.store.keep_vectors)
        entries = [
            Entry(serial, id, vector) for serial, id, vector in self._vectors_after(served, last) if vector is not None
        ]
        self._put_in_place(served, library.changed(entries, self._died or []))
        self._merge_in_the_background()

    def _embed_again(self, served: ServedModel, keep: Callable[[str, list[StoredVector]], None]) -> int:
        """Makes and keeps the vectors that stored texts lack under a model; returns how many."""
        n = 0
        while missing := self.store.without_vector(served.id):
            made = vectors_of(served.embeddings, [text for _, text in missing])
            keep(
                served.id, [StoredVector(serial, item.vector) for (serial, _), item in zip(missing, made, strict=True)]
            )
            n += len(missing)
        return n

    def _library(self, served: ServedModel) -> tuple[Library, int]:
        """The library of all stored vectors of a model, and the last serial that was looked at."""
        serials: list[int] = []
        ids: list[str] = []
        vectors: list[npt.NDArray[np.float32]] = []
        last = 0
        for serial, id, vector in self._vectors_after(served, 0):
            last = serial
            if vector is not None:
                serials.append(serial)
                ids.append(id)
                vectors.append(vector)
        rows = np.stack(vectors) if vectors else np.empty((0, served.dim), np.float32)
        return Library.build(served.dim, self._options, np.array(serials, np.int64), ids, rows), last

    def _vectors_after(
        self, served: ServedModel, serial: int
    ) -> Iterator[tuple[int, str, npt.NDArray[np.float32] | None]]:
        while page := self.store.vectors(served.id, after=serial):
            yield from page
            serial = page[-1][0]

    def _forget_other_models(self) -> None:
        """Deletes vectors of models before, a few at a time between the writes."""
        if (
            self._snapshot is not None
            and not self.draining
            and self.store.forget_other_models(self._snapshot.served.id)
        ):
            self.write_lane.post(self._forget_other_models)

    def _in_write_lane(self, job: Callable[[], None]) -> None:
        """Has something done by the one thread that changes things, and waits for it."""
        finished: concurrent.futures.Future[None] = concurrent.futures.Future()

        def run() -> None:
            try:
                job()
            except BaseException as error:
                finished.set_exception(error)
            else:
                finished.set_result(None)

        if not self.write_lane.post(run):
            raise Problem("not-ready", "the service is stopping")
        finished.result()

    # ------------------------------------------------------------------------------------------------------------------
    # being asked about itself

    async def probe(self) -> dict[str, float]:
        """Asks every part a question whose answer is known: the index, the inference, the documents.

        Returns:
            Seconds by part.

        Raises:
            Problem: ``not-ready``: a part is late or wrong, or the service is stopping.
        """
        if self.draining:
            raise Problem("not-ready", "the service is stopping")
        snapshot = self.snapshot
        served = snapshot.served
        row = served.embeddings.n_words // 2
        question = SearchQuery(vector=served.words.vectors[row], k=1)

        async def index() -> None:
            found = await self.search_lane.submit(
                SearchJob(snapshot, [question], lambda results: results[0]), always=True
            )
            if served.words.kind == "exact" and (not found or found[0]["score"] < 0.999):
                raise Problem("not-ready", "the index does not find a word by its own vector")

        async def inference() -> None:
            (made,) = await self.embed_lane.submit(EmbedJob(served, [served.embeddings.words[0]]), always=True)
            if made.vector is not None and not abs(float(np.linalg.norm(made.vector)) - 1.0) < 1e-3:
                raise Problem("not-ready", "the inference does not give unit vectors")

        async def documents() -> None:
            await self.work_lane.submit(lambda: self.store.serial(""), always=True)

        seconds: dict[str, float] = {}
        for name, part in (("index", index), ("inference", inference), ("documents", documents)):
            started = time.perf_counter()
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    await part()
            except TimeoutError:
                raise Problem("not-ready", f"the {name} did not answer within {_PROBE_SECONDS} s") from None
            seconds[name] = round(time.perf_counter() - started, 6)
        return seconds

    def info(self) -> dict[str, Any]:
        """What is served, and how: the answer to ``GET /info``."""
        served, library = self.snapshot
        model, settings = served.embeddings, self.settings
        return {
            "name": served.name,
            "model": served.reference,
            "dim": served.dim,
            "words": model.n_words,
            "trained_documents": model.n_docs,
            "tokenizer": model.manifest["tokenizer"],
            "training": model.manifest["config"],
            "index": {
                "kind": served.words.kind,
                "recall_at_10": round(served.recall, 4),
                "searchable_trained_documents": served.n_searchable,
            },
            "documents": {
                "stored": self._n_stored,
                "searchable": len(library),
                "segments": len(library.segments),
                "read_only": settings.read_only,
            },
            "limits": {
                "max_k": MAX_K,
                "max_batch": MAX_BATCH,
                "max_body_bytes": settings.max_body_bytes,
                "max_text_characters": settings.max_text_characters,
                "max_waiting": settings.max_waiting,
            },
            "versions": _versions(),
            "started": self.started.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "uptime_seconds": round(self.uptime, 3),
        }

    def _made_metrics(self) -> Metrics:
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "jose_words": (
                "Words in the vocabulary.",
                lambda: self._of_served(lambda served: served.embeddings.n_words),
            ),
            "jose_trained_documents": (
                "Documents of the model.",
                lambda: self._of_served(lambda served: served.embeddings.n_docs),
            ),
            "jose_index_recall": (
                "Share of the true 10 nearest words that the index finds.",
                lambda: self._of_served(lambda served: served.recall),
            ),
            "jose_kept_answer_bytes": (
                "Bytes of kept answers.",
                lambda: self._of_served(lambda served: served.answers.n_bytes),
            ),
            "jose_stored_documents": ("Added documents.", lambda: self._n_stored),
            "jose_searchable_documents": (
                "Added documents that a search can find.",
                lambda: 0 if self._snapshot is None else len(self._snapshot.library),
            ),
            "jose_library_segments": (
                "Pieces of the index of added documents.",
                lambda: 0 if self._snapshot is None else len(self._snapshot.library.segments),
            ),
            "jose_uptime_seconds": ("Seconds since the start.", lambda: self.uptime),
            "jose_draining": ("1 while the service is stopping.", lambda: float(self.draining)),
        }
        counters: dict[str, tuple[str, Callable[[], float]]] = {}
        for lane in self._lanes:
            name = f"jose_{lane.name}"
            read = functools.partial(getattr, lane)
            gauges[f"{name}_waiting"] = (f"Jobs in the {lane.name} lane.", functools.partial(read, "depth"))
            counters[f"{name}_jobs_total"] = (f"Jobs done in the {lane.name} lane.", functools.partial(read, "jobs"))
            counters[f"{name}_batches_total"] = (
                f"Batches done in the {lane.name} lane.",
                functools.partial(read, "batches"),
            )
            counters[f"{name}_busy_seconds_total"] = (
                f"Time at work in the {lane.name} lane.",
                functools.partial(read, "busy_seconds"),
            )
        return Metrics(gauges, counters)

    @property
    def _lanes(self) -> tuple[Lane[Any, Any], ...]:
        return (self.search_lane, self.embed_lane, self.write_lane, self.work_lane, self.long_lane)

    def _of_served(self, read: Callable[[ServedModel], float]) -> float:
        return 0.0 if self._snapshot is None else float(read(self._snapshot.served))


def _embedded(jobs: list[EmbedJob]) -> list[list[Inferred] | Exception]:
    """The work of the embed lane: the texts of all jobs for one model go through the inference together."""
    answers: list[list[Inferred] | Exception] = [[] for _ in jobs]
    models = {id(job.served): job.served for job in jobs}
    for key, served in models.items():
        places = [i for i, job in enumerate(jobs) if id(job.served) == key]
        made = vectors_of(served.embeddings, [text for i in places for text in jobs[i].texts])
        at = 0
        for i in places:
            answers[i] = made[at : at + len(jobs[i].texts)]
            at += len(jobs[i].texts)
    return answers


@functools.cache
def _versions() -> dict[str, str]:
    found = {"jose-embed": __version__, "python": platform.python_version()}
    for name in ("numpy", "numba", "faiss-cpu", "fastapi", "starlette", "uvicorn", "pydantic"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found | {"sqlite": sqlite3.sqlite_version}
