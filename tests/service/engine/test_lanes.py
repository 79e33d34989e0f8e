"""Lanes: batches of what waits, bounds, failures, cancelled jobs."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import weakref
from collections.abc import Callable

import pytest
from serving import wait_for

from service.engine.lanes import Lane, call
from service.problems import Problem


def test_a_lane_batches_what_waits_and_keeps_the_order() -> None:
    seen: list[list[int]] = []
    begun, gate = threading.Event(), threading.Event()

    def work(jobs: list[int]) -> list[int | Exception]:
        begun.set()
        gate.wait()
        seen.append(jobs)
        return [ValueError(str(job)) if job == 7 else job * 2 for job in jobs]

    async def main() -> None:
        lane: Lane[int, int] = Lane("test", work, threads=1, most=4, bound=12)
        first = asyncio.create_task(lane.submit(0))
        await asyncio.to_thread(begun.wait)
        rest = [asyncio.create_task(lane.submit(i)) for i in range(1, 12)]
        await asyncio.sleep(0)
        with pytest.raises(Problem) as refused:
            await lane.submit(99)
        assert (refused.value.kind, int(refused.value.headers["Retry-After"])) == ("saturated", 1)
        rest[0].cancel()
        gate.set()
        answers = await asyncio.gather(first, *rest[1:], return_exceptions=True)
        assert [answer for answer in answers if not isinstance(answer, ValueError)] == [
            0,
            4,
            6,
            8,
            10,
            12,
            16,
            18,
            20,
            22,
        ]
        assert lane.depth == 0
        assert await lane.submit(50, always=True) == 100
        lane.close()

    asyncio.run(main())
    assert seen[0] == [0]
    assert [job for batch in seen for job in batch] == [0, *range(2, 12), 50], "a cancelled one is left out"
    assert max(map(len, seen)) == 4


def test_a_lane_that_waits_holds_no_job() -> None:
    """A job of the search lane holds a model, which may be replaced while the lane waits for the next one."""

    class Job:
        """Something that can be watched."""

    async def main() -> None:
        gate = threading.Event()

        def work(jobs: list[Job]) -> list[bool]:
            return [gate.wait() for _ in jobs]

        lane: Lane[Job, bool] = Lane("test", work, threads=1, most=8, bound=8)
        jobs = [Job() for _ in range(3)]
        watched = [weakref.ref(job) for job in jobs]
        waiting = [asyncio.create_task(lane.submit(job)) for job in jobs]
        await asyncio.sleep(0)  # all are in the queue
        gate.set()
        await asyncio.gather(*waiting)
        del jobs, waiting
        assert lane.batches < 3, "some were taken together"
        await asyncio.to_thread(wait_for, lambda: [job() for job in watched] == [None] * 3)
        lane.close()

    asyncio.run(main())


def test_a_lane_that_fails_tells_everyone_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def work(jobs: list[str]) -> list[str | Exception]:
        if "bad" in jobs:
            raise RuntimeError("broken")
        return list(jobs)

    async def main() -> None:
        lane: Lane[str, str] = Lane("test", work, threads=1, most=8, bound=8)
        with pytest.raises(RuntimeError, match="broken"):
            await lane.submit("bad")
        assert await lane.submit("good") == "good"
        lane.close()

    asyncio.run(main())
    assert "test failed" in caplog.text


def test_calls_fail_one_by_one() -> None:
    answers = call([lambda: 1, lambda: 1 // 0, lambda: 3])
    assert (answers[0], answers[2]) == (1, 3)
    assert isinstance(answers[1], ZeroDivisionError)


def test_threads_that_compute_without_the_lock_stand_back_behind_the_loop() -> None:
    async def niceness(*, low_priority: bool) -> int:
        lane: Lane[Callable[[], int], int] = Lane("a", call, threads=1, most=1, bound=1, low_priority=low_priority)
        try:
            return await lane.submit(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        finally:
            lane.close()

    ours = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    expected = min(19, ours + 10) if sys.platform == "linux" else ours
    assert asyncio.run(niceness(low_priority=True)) == expected
    assert asyncio.run(niceness(low_priority=False)) == ours


def test_a_job_that_was_cancelled_while_it_waited_is_not_done() -> None:
    begun, gate = threading.Event(), threading.Event()
    ran: list[int] = []

    def work(jobs: list[int]) -> list[int]:
        begun.set()
        gate.wait()
        ran.extend(jobs)
        return jobs

    async def main() -> None:
        lane: Lane[int, int] = Lane("test", work, threads=1, most=4, bound=8)
        first = asyncio.create_task(lane.submit(0))
        await asyncio.to_thread(begun.wait)
        assert lane.longest_batch > 0
        waiting = [asyncio.create_task(lane.submit(i)) for i in (1, 2, 3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        waiting[2].cancel()
        await asyncio.sleep(0)
        gate.set()
        assert (await first, await waiting[1]) == (0, 2)
        while lane.depth:
            await asyncio.sleep(0.001)
        assert lane.longest_batch == 0.0
        lane.close()

    asyncio.run(main())
    assert ran == [0, 2]
