"""Work that takes longer than a client waits: reloads and snapshots, each with its progress and its result."""

from __future__ import annotations

import concurrent.futures
import datetime
import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Literal

from service.problems import Problem

_KEPT: Final = 100
_log = logging.getLogger("service")


class Job:
    """One piece of work.

    Args:
        kind: What it does: "reload", "snapshot".

    Attributes:
        id: Its name.
        kind: The same.
        stage: What it is doing now.
        done: How much of the stage is done.
        total: Of how much; 0 if that is not known.
        finished: Holds the result, or the :class:`Problem`, when it has ended.
    """

    def __init__(self, kind: str) -> None:
        self.id = f"{kind}-{secrets.token_hex(6)}"
        self.kind = kind
        self.stage = "starting"
        self.done = self.total = 0
        self.finished: concurrent.futures.Future[dict[str, Any]] = concurrent.futures.Future()
        self._started = datetime.datetime.now(datetime.UTC)
        self._began = time.perf_counter()
        self._seconds: float | None = None

    def report(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Says how far the work is."""
        self.stage, self.done, self.total = stage, done, total

    @property
    def status(self) -> Literal["running", "done", "failed"]:
        """Where it is."""
        if not self.finished.done():
            return "running"
        return "done" if self.finished.exception() is None else "failed"

    @property
    def seconds(self) -> float:
        """Since its start, or until its end."""
        return time.perf_counter() - self._began if self._seconds is None else self._seconds

    def run(self, work: Callable[[Job], dict[str, Any]]) -> None:
        """Does the work; what it raises becomes the job's problem."""
        try:
            result = work(self)
        except Problem as problem:
            self._seconds = self.seconds
            # A copy, without the traceback: that holds what the work held, such as a model, while the job is listed.
            self.finished.set_exception(
                Problem(problem.kind, problem.detail, headers=problem.headers, **problem.members)
            )
        except Exception:
            _log.exception("%s failed", self.id)
            self._seconds = self.seconds
            self.finished.set_exception(Problem("internal", "an unexpected error; it has been logged"))
        else:
            self._seconds = self.seconds
            self.finished.set_result(result)

    def document(self) -> dict[str, Any]:
        """The job as an answer shows it."""
        problem = self.finished.exception() if self.status == "failed" else None
        return {
            "id": self.id,
            "kind": self.kind,
            "status": self.status,
            "stage": self.stage,
            "done": self.done,
            "total": self.total,
            "started": self._started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "seconds": round(self.seconds, 3),
            "result": self.finished.result() if self.status == "done" else None,
            "problem": problem.document() if isinstance(problem, Problem) else None,
        }


Work = Callable[[Job], dict[str, Any]]


class Jobs:
    """The jobs of a service: one of each kind at a time, and the last hundred that have ended."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}  # by id
        self._last: dict[str, Job] = {}  # by kind
        # One thread for all jobs of a kind: each thread that reads documents has a connection to the file of its own.
        self._queues: dict[str, queue.SimpleQueue[tuple[Job, Work]]] = {}
        self._lock = threading.Lock()

    def start(self, kind: str, work: Callable[[Job], dict[str, Any]]) -> Job:
        """Begins a job in the thread of its kind.

        Args:
            kind: What it does.
            work: Does it; returns the result.

        Raises:
            Problem: KIND``-running``: another one of this kind has not ended.
        """
        with self._lock:
            if (other := self.running(kind)) is not None:
                raise Problem(f"{kind}-running", f"another {kind} has not ended yet: {other.id}", job=other.id)
            job = self._last[kind] = Job(kind)
            self._jobs[job.id] = job
            while len(self._jobs) > _KEPT:
                del self._jobs[next(iter(self._jobs))]
            if kind not in self._queues:
                waiting = self._queues[kind] = queue.SimpleQueue()
                threading.Thread(target=_worked, args=(waiting,), name=kind, daemon=True).start()
            self._queues[kind].put((job, work))
        return job

    def running(self, kind: str) -> Job | None:
        """The job of a kind that is in progress."""
        job = self._last.get(kind)
        return job if job is not None and job.status == "running" else None

    def last(self, kind: str) -> Job | None:
        """The last job of a kind."""
        return self._last.get(kind)

    def get(self, id: str) -> Job:
        """A job by its id.

        Raises:
            Problem: ``unknown-job``.
        """
        job = self._jobs.get(id)
        if job is None:
            raise Problem("unknown-job", f"there is no job {id[:100]!r}, or it is not among the last {_KEPT}")
        return job

    def list(self) -> list[Job]:
        """All known jobs, the newest first."""
        return list(self._jobs.values())[::-1]


def _worked(waiting: queue.SimpleQueue[tuple[Job, Work]]) -> None:
    while True:
        job, work = waiting.get()
        job.run(work)
        del job, work  # they may hold a model
