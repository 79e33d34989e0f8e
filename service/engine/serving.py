"""The running service below HTTP: queries to a snapshot, in lanes of threads.

Changes of the documents are in ``writing.py``, the reload of the model in ``reloading.py``, the figures and the
readiness probe in ``status.py``.
"""

from __future__ import annotations

import asyncio
import datetime
import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from jose_embed.model.inference import Inferred
from service.engine import snapshots, status
from service.engine.following import Follower
from service.engine.jobs import Job, Jobs
from service.engine.lanes import Lane, call
from service.engine.records import Delete, Outcome, Put, StoreError
from service.engine.reloading import Reloader
from service.engine.store import Store
from service.engine.writing import DocumentWriter, as_problem
from service.problems import Problem
from service.search.index import IndexOptions
from service.search.queries import SearchJob, SearchQuery, Snapshot, run_jobs
from service.search.served_model import ServedModel
from service.search.texts import BulkEncoder, vectors_of
from service.settings import Settings

_SEARCHES: Final = 64  # jobs that share one pass over an index
_TEXTS: Final = 64  # texts of one job
_LONG_CHARACTERS: Final = 100_000  # of the texts of one job; they take some 20 ms
_SEGMENTED_CHARACTERS: Final = 10_000  # the same for texts that a library splits
_PATIENCE: Final = 0.01  # seconds; a pass over 100,000 words takes 15 ms for 25 queries and 20 ms for 50

Result = TypeVar("Result")
_log = logging.getLogger("service")


@dataclass(frozen=True, slots=True)
class EmbedJob:
    """Texts of one request, for one model."""

    served: ServedModel
    texts: Sequence[str]


class Engine:
    """The running service below HTTP.

    Args:
        settings: The service's settings.

    Attributes:
        settings: The same.
        writer: The documents and their index.
        metrics: Figures for Prometheus.
        jobs: Reloads and snapshots.
        follower: Follows the writer of the same documents, if this service only reads.
        draining: Set when the service stops; it still answers, and asks clients to close their connections.
        started: When the service started.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.draining = False
        self.started = datetime.datetime.now(datetime.UTC)
        self._born = time.monotonic()
        self._options = IndexOptions(
            settings.index,
            settings.hnsw_links,
            settings.hnsw_build_width,
            settings.hnsw_search_width,
            settings.exact_rows,
        )
        self._probe: asyncio.Task[tuple[dict[str, float], list[str]]] | None = None
        bound = settings.max_waiting
        self.search_lane: Lane[SearchJob, Any] = Lane(
            "search",
            run_jobs,
            threads=settings.resolved_search_threads,
            most=_SEARCHES,
            bound=bound,
            patience=_PATIENCE,
        )
        # Texts are split and summed without the interpreter's lock and stand back behind the loop and short questions.
        self.embed_lane: Lane[EmbedJob, list[Inferred]] = Lane(
            "embed", _embedded, threads=settings.embed_threads, most=_TEXTS, bound=bound, low_priority=True
        )
        self.work_lane: Lane[Callable[[], Any], Any] = Lane(
            "work", call, threads=settings.work_threads, most=1, bound=bound
        )
        # Questions in words take some milliseconds of arithmetic each: neither look-ups nor long work wait for them.
        self.question_lane: Lane[Callable[[], Any], Any] = Lane(
            "question", call, threads=settings.resolved_search_threads, most=1, bound=bound
        )
        # One thread: such work holds the interpreter's lock for most of its time, and each further thread that wants it
        # makes the event loop wait longer.
        self.long_lane: Lane[Callable[[], Any], Any] = Lane("long", call, threads=1, most=1, bound=bound)
        # Segmenters are slow, and their libraries are not for several threads.
        self.segment_lane: Lane[Callable[[], Any], Any] = Lane("segment", call, threads=1, most=1, bound=bound)
        self.probe_lane: Lane[Callable[[], Any], Any] = Lane("probe", call, threads=1, most=1, bound=bound)
        self.writer = DocumentWriter(settings, self._options)
        self.jobs = Jobs()
        self.metrics = status.metrics_of(self)
        load = functools.partial(self._load, verify=True)
        self._reloader = Reloader(settings, load, self.writer, self.metrics, self.jobs)
        self.follower = Follower(self.writer, self.reload) if settings.read_only else None

    def open(self) -> None:
        """Loads the model and the documents; a second call does nothing.

        Raises:
            ModelError: the model cannot be served.
            StoreError: the documents cannot be opened.
        """
        if self.writer.is_open:
            return
        self.writer.open(self._load(verify=self.settings.verify))
        if self.follower is not None:
            self.follower.start()
        served = self.snapshot.served
        model = served.embeddings
        if model.document_search.has_texts:
            self.has_words(self.snapshot)  # begins to read them
        _log.info(
            "serving %s: %d words, %d trained and %d added documents, dimension %d",
            *(self.settings.model, model.n_words, model.n_docs, self.writer.n_stored, served.dim),
        )
        if self.settings.map_model:
            _log.warning(
                "the model's files are mapped (JOSE_MAP_MODEL): a change of them in place ends the process or changes "
                "answers; replace the directory as a whole"
            )
        else:
            _log.info("the model takes %.1f MB of memory", served.n_bytes / 1e6)

    def close(self) -> None:
        """Finishes the accepted work, then closes the documents."""
        if self.follower is not None:
            self.follower.close()
        self.writer.close()
        for lane in self.lanes:
            lane.close()

    def _load(self, *, verify: bool) -> ServedModel:
        settings = self.settings
        return ServedModel.load(
            settings.model, self._options, settings.cache_bytes, verify=verify, mapped=settings.map_model
        )

    @property
    def lanes(self) -> tuple[Lane[Any, Any], ...]:
        """All lanes."""
        reading = (self.search_lane, self.embed_lane, self.question_lane, self.work_lane, self.long_lane)
        return (*reading, self.segment_lane, self.probe_lane, self.writer.lane)

    @property
    def snapshot(self) -> Snapshot:
        """The model and the added documents now.

        Raises:
            Problem: ``not-ready``, before :meth:`open`.
        """
        return self.writer.snapshot

    @property
    def store(self) -> Store:
        """The documents file."""
        return self.writer.store

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._born

    # ------------------------------------------------------------------------------------------------------------------
    # queries

    async def search(
        self, snapshot: Snapshot, queries: Sequence[SearchQuery], finish: Callable[[list[Any]], Result]
    ) -> Result:
        """Searches the indexes; ``finish`` makes the answer of the results, in the search lane too."""
        result: Result = await self.search_lane.submit(SearchJob(snapshot, queries, finish))
        return result

    async def embed(self, served: ServedModel, texts: Sequence[str], *, always: bool = False) -> list[Inferred]:
        """Vectors of texts, in jobs of bounded size: other requests get their turn between them, and nothing more is
        done for a client that has left. ``always``: see :meth:`~service.engine.lanes.Lane.submit`."""
        made: list[Inferred] = []
        for some in _jobs_of(texts, _SEGMENTED_CHARACTERS if served.embeddings.is_segmented else _LONG_CHARACTERS):
            if served.embeddings.is_segmented:
                job = functools.partial(vectors_of, served.embeddings, some)
                made += await self.segment_lane.submit(job, always=always or bool(made))
            elif sum(map(len, some)) > _LONG_CHARACTERS:
                job = functools.partial(vectors_of, served.embeddings, some)
                made += await self.long_lane.submit(job, always=always or bool(made))
            else:
                made += await self.embed_lane.submit(EmbedJob(served, some), always=always or bool(made))
        return made

    async def embed_bulk(
        self, served: ServedModel, bulk: BulkEncoder, texts: Sequence[str]
    ) -> list[npt.NDArray[np.float32] | None]:
        """Vectors of the next texts of an import, None for a text without a known word. ``bulk`` is an encoder of the
        model's embeddings, which the caller keeps for all its texts."""
        if bulk.is_compiled(texts):
            return await self.long_work(functools.partial(bulk.compiled, texts), always=True)
        return [made.vector for made in await self.embed(served, texts, always=True)]

    async def work(self, job: Callable[[], Result], *, always: bool = False) -> Result:
        """Runs a function in the work lane. ``always``: see :meth:`~service.engine.lanes.Lane.submit`.

        Raises:
            Problem: ``saturated``, ``storage-unavailable``, or what the function raises.
        """
        return await self._worked(self.work_lane, job, always)

    async def long_work(self, job: Callable[[], Result], *, always: bool = False) -> Result:
        """Runs a function that takes long in the long lane, one at a time; otherwise as :meth:`work`."""
        return await self._worked(self.long_lane, job, always)

    async def question(self, job: Callable[[], Result]) -> Result:
        """Answers a question in words in a lane of such questions; otherwise as :meth:`work`."""
        return await self._worked(self.question_lane, job, False)

    def has_words(self, snapshot: Snapshot) -> bool:
        """Whether the words and fields of documents are read but for a few; if not, they are read between long work."""
        return snapshot.served.added.is_ready(snapshot.library, self.store, self.long_lane.post)

    async def _worked(self, lane: Lane[Callable[[], Any], Any], job: Callable[[], Result], always: bool) -> Result:
        try:
            result: Result = await lane.submit(job, always=always)
        except StoreError as error:
            raise as_problem(error) from None
        return result

    def advice(self) -> int:
        """Whole seconds until the work that waits now will be done."""
        return max(lane.advice() for lane in self.lanes)

    async def write(
        self, model: str | None, changes: Sequence[Put | Delete], *, always: bool = False
    ) -> list[Outcome | Problem]:
        """See :meth:`~service.engine.writing.DocumentWriter.write`."""
        return await self.writer.write(model, changes, always=always)

    def reload(self) -> Job:
        """See :meth:`~service.engine.reloading.Reloader.start`."""
        return self._reloader.start()

    def reload_by_signal(self) -> None:
        """Begins a reload for whom no client asks; the log says how it ends."""
        try:
            _log.info("SIGHUP: loading %s again: %s", self.settings.model, self.reload().id)
        except Problem as problem:
            _log.warning("SIGHUP: %s", problem.detail)

    def take_snapshot(self) -> Job:
        """Begins a snapshot; see :mod:`service.engine.snapshots`.

        Raises:
            Problem: ``snapshot-running``.
        """
        return self.jobs.start("snapshot", functools.partial(snapshots.take, self.settings, self.writer))

    async def probe(self) -> tuple[dict[str, float], list[str]]:
        """Tests all parts; simultaneous callers share one test.

        Returns:
            Seconds by part, and warnings.

        Raises:
            Problem: ``not-ready``: a part is late or wrong, or the service is stopping.
        """
        if self.draining:
            raise Problem("not-ready", "the service is stopping")
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(status.probe(self))
        return await asyncio.shield(self._probe)

    def info(self) -> dict[str, Any]:
        """The answer to ``GET /info``."""
        return status.info(self)


def _jobs_of(texts: Sequence[str], most_characters: int) -> Iterator[Sequence[str]]:
    """Runs of texts that are not many and not long, and long texts one by one."""
    start, n_characters = 0, 0
    for i, text in enumerate(texts):
        if i > start and (i - start >= _TEXTS or n_characters + len(text) > most_characters):
            yield texts[start:i]
            start, n_characters = i, 0
        n_characters += len(text)
    if start < len(texts):
        yield texts[start:]


def _embedded(jobs: list[EmbedJob]) -> list[list[Inferred] | Exception]:
    """The work of the embed lane."""
    return [vectors_of(job.served.embeddings, job.texts) for job in jobs]
