"""Bounded queues with worker threads that run jobs in batches.

A lane is a queue and a few threads. A free thread takes all waiting jobs, up to a number, as one batch: under load,
queries share one pass over the index, and writes share one sync of the disk; without load, a job runs at once. The
number of jobs in a lane is bounded; one more is refused at once, with the time after which to try again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from service.problems import Problem

Job = TypeVar("Job")
Answer = TypeVar("Answer")
_Entry = tuple[Job, asyncio.Future[Answer] | None]  # None: no caller waits for the answer

_LONGEST_ADVICE: Final = 30  # seconds, for Retry-After
_LOAD: Final = 8  # jobs of a batch that mean that there are many clients
_STEP: Final = 0.0005
_NICER: Final = 10
_log = logging.getLogger("service")


def call(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """The work of a lane whose jobs are functions: each is called, and an exception is that job's own."""
    answers: list[Any] = []
    for job in jobs:
        try:
            answers.append(job())
        except Exception as error:
            answers.append(error)
    return answers


class Lane(Generic[Job, Answer]):
    """Threads that work off a bounded queue in batches.

    Args:
        name: For thread names and messages.
        work: Gives one answer per job, in order; an exception as an answer is raised to that job's caller, a
            raised exception to the callers of the whole batch.
        threads: How many batches may be in progress.
        most: Jobs per batch.
        bound: Jobs waiting or in progress; one more is refused.
        patience: Under load, the longest time in seconds that a thread waits for further jobs; it pays if a batch
            costs little more than one job. Without load it never waits.
        low_priority: See :func:`lower_thread_priority`.

    Attributes:
        depth: Jobs waiting or in progress now.
        batches: Batches done so far.
        jobs: Jobs done so far.
        busy_seconds: Time spent in ``work``, over all threads.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[Job]], Sequence[Answer | Exception]],
        *,
        threads: int,
        most: int,
        bound: int,
        patience: float = 0.0,
        low_priority: bool = False,
    ) -> None:
        self.name = name
        self.depth = 0
        self.batches = 0
        self.jobs = 0
        self.busy_seconds = 0.0
        self._work = work
        self._most = most
        self._bound = bound
        self._patience = patience
        self._stands_back = low_priority
        self._gate = threading.Lock()
        self._batch_starts: dict[int, float] = {}  # by thread, of the batches in progress
        self._closing = False
        self._waiting: queue.SimpleQueue[_Entry[Job, Answer] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._run, name=f"{name}-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    async def submit(self, job: Job, *, always: bool = False) -> Answer:
        """Waits for a job to be done.

        Args:
            job: What ``work`` takes.
            always: Take it even if the lane is full, for work that was admitted before.

        Raises:
            Problem: ``saturated``.
        """
        if self.depth >= self._bound and not always:
            raise Problem(
                "saturated",
                f"{self.depth} requests of the kind {self.name!r} are waiting; at most {self._bound} may wait",
                headers={"Retry-After": str(self.advice())},
            )
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.depth += 1
        self._waiting.put((job, future))
        return await future

    def post(self, job: Job) -> bool:
        """Queue a job without waiting for its answer, from any thread; False if the lane is closing."""
        with self._gate:
            if not self._closing:
                self._waiting.put((job, None))
            return not self._closing

    @property
    def longest_batch(self) -> float:
        """Seconds since the oldest batch in progress began; 0.0 if there is none."""
        starts = list(self._batch_starts.values())
        return time.perf_counter() - min(starts) if starts else 0.0

    def advice(self) -> int:
        """Whole seconds after which the present queue will be done, judged by the work so far."""
        each = self.busy_seconds / self.jobs if self.jobs else 0.0
        return min(_LONGEST_ADVICE, max(1, math.ceil(self.depth * each / len(self._threads))))

    def close(self) -> None:
        """Ends the threads once the queue is empty; returns when they have ended."""
        with self._gate:
            self._closing = True
            for _ in self._threads:
                self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        if self._stands_back:
            lower_thread_priority()
        n_before = 1
        ends = False
        while not ends:
            first = self._waiting.get()
            if first is None:
                return
            if n_before >= _LOAD:
                self._wait_for_more()
            batch, ends = self._joined(first)
            n_before = len(batch)
            self._do(batch)
            # A job holds the model that it asks, which may have been replaced by now: hold none while waiting.
            del batch, first

    def _joined(self, first: _Entry[Job, Answer]) -> tuple[list[_Entry[Job, Answer]], bool]:
        """A job with those that wait behind it, and whether the lane ends after them."""
        batch = [first]
        while len(batch) < self._most:
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                break
            if item is None:
                return batch, True
            batch.append(item)
        return batch, False

    def _wait_for_more(self) -> None:
        """Returns when jobs have ceased to come in, or a batch is full.

        The clients whose answers have just gone out are about to ask again.
        """
        until = time.perf_counter() + self._patience
        n = -1
        while n < self._waiting.qsize() < self._most and time.perf_counter() < until:
            n = self._waiting.qsize()
            time.sleep(_STEP)

    def _do(self, batch: list[_Entry[Job, Answer]]) -> None:
        # Nobody waits for the answer to a job that was cancelled while it waited.
        cancelled = [future for _, future in batch if future is not None and future.done()]
        batch = [entry for entry in batch if entry[1] is None or entry[1] not in cancelled]
        if cancelled:
            with contextlib.suppress(RuntimeError):
                cancelled[0].get_loop().call_soon_threadsafe(self._forget, len(cancelled))
        if not batch:
            return
        started = self._batch_starts[threading.get_ident()] = time.perf_counter()
        answers: Sequence[Answer | Exception]
        try:
            answers = self._work([job for job, _ in batch])
        except Exception as error:
            if not isinstance(error, Problem):
                _log.exception("%s failed", self.name)
            answers = [error] * len(batch)
        del self._batch_starts[threading.get_ident()]
        self.busy_seconds += time.perf_counter() - started
        self.batches += 1
        self.jobs += len(batch)
        told = [(future, answer) for (_, future), answer in zip(batch, answers, strict=True) if future is not None]
        for (job, future), answer in zip(batch, answers, strict=True):
            if future is None and isinstance(answer, Exception):
                _log.error("%s: %r failed", self.name, job, exc_info=answer)
        if told:
            with contextlib.suppress(RuntimeError):  # the loop has been closed, and with it all callers
                told[0][0].get_loop().call_soon_threadsafe(self._deliver, told)

    def _forget(self, n: int) -> None:
        self.depth -= n

    def _deliver(self, told: Sequence[tuple[asyncio.Future[Answer], Answer | Exception]]) -> None:
        self.depth -= len(told)
        for future, answer in told:
            if future.done():  # cancelled
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)


def lower_thread_priority() -> None:
    """Give the calling thread a lower priority than the event loop.

    At equal priority the loop would wait for the time slice of a computing thread, some milliseconds. Use it only for
    threads that compute without the interpreter's lock: a thread that holds the lock at low priority would delay the
    loop further. It has no effect except on Linux, where niceness belongs to a thread and not to the process.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            loop = os.getpriority(os.PRIO_PROCESS, os.getpid())
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), loop + _NICER)
