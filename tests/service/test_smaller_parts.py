"""The smaller parts on their own: lanes, texts in slices, the word table, problems."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jose_embed.model.embeddings import Embeddings
from service.engine.lanes import Lane, call
from service.problems import CATALOGUE, Problem, catalogue_page, from_validation
from service.search import prefix_index as words
from service.search import texts
from service.search.prefix_index import PrefixIndex
from service.search.texts import ServedEmbeddings, SlicedTokenizer, vectors_of


@given(st.text(st.sampled_from("aé日ß .,'\u2019\u0301\u00ad_\n\t-Σ\u200d9"), max_size=200))
def test_texts_read_in_slices_have_the_same_words(text: str) -> None:
    from jose_embed.text.reader import get_tokenizer

    for name in ("words", "whitespace"):
        tokenizer = get_tokenizer(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(texts, "SLICE", 100)
            spaced = " ".join(text[i : i + 40] for i in range(0, len(text), 40))
            words = SlicedTokenizer(tokenizer)(spaced)
            assert list(words) == tokenizer(spaced)
            assert len(words) == len(tokenizer(spaced))


def test_a_word_longer_than_a_slice_is_cut(model_a: tuple[Path, Embeddings]) -> None:
    model = ServedEmbeddings.load(model_a[0])
    words = model.tokenizer("x" * 20_000)
    assert [len(word) for word in words] == [8_192, 8_192, 3_616]
    assert (model.tokenizer.name, model.tokenizer.settings()) == ("words", {})


def test_an_answer_knows_only_the_unknown_words_that_it_names(model_a: tuple[Path, Embeddings]) -> None:
    (made,) = vectors_of(model_a[1], [" ".join(f"nobody{i}" for i in range(200))])
    assert made.unknown == tuple(f"nobody{i}" for i in range(100))
    assert made.n_tokens == 200


@given(st.sets(st.text(max_size=4), min_size=1, max_size=60), st.integers(1, 60))
def test_words_dealt_out_are_sorted_as_at_once(found: set[str], piece: int) -> None:
    rows = sorted(found, key=hash)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "_SORTED", piece)
        order = [row for some in words._spelling_order(rows) for row in some]
        assert order == sorted(range(len(rows)), key=rows.__getitem__)


def test_no_step_of_a_word_table_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the sorting nor the end of it: both hold the interpreter's lock."""
    taken: list[int] = []

    def watched(rows: list[Any], **options: Any) -> list[Any]:
        taken.append(len(rows))
        return sorted(rows, **options)

    monkeypatch.setattr(words, "sorted", watched, raising=False)
    table = PrefixIndex([f"w{i * 7_919 % 50_000}" for i in range(50_000)])
    assert table.starting_with("w4999", 20).total == 11
    assert max(taken) < 10_000
    kept = table._sorted
    assert not gc.is_tracked(kept), "a collection of cyclic garbage looks at every word"
    del table
    assert set(kept) == {None}


def test_a_word_table_whose_making_fails_leaves_no_further_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ignored: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    for wrong in (["a", 5], 5):
        with pytest.raises(TypeError):
            PrefixIndex(wrong)  # type: ignore[arg-type]
    gc.collect()
    assert ignored == []


def test_a_lane_batches_what_waits_and_keeps_the_order() -> None:
    seen: list[list[int]] = []
    gate = threading.Event()

    def work(jobs: list[int]) -> list[int | Exception]:
        gate.wait(10)
        seen.append(jobs)
        return [ValueError(str(job)) if job == 7 else job * 2 for job in jobs]

    async def main() -> None:
        lane: Lane[int, int] = Lane("test", work, threads=1, most=4, bound=12)
        first = asyncio.create_task(lane.submit(0))
        await asyncio.sleep(0.05)
        rest = [asyncio.create_task(lane.submit(i)) for i in range(1, 12)]
        await asyncio.sleep(0.05)
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
    assert [job for batch in seen for job in batch] == [*range(12), 50]
    assert max(map(len, seen)) == 4


def test_a_lane_that_waits_holds_no_job() -> None:
    """A job of the search lane holds a model, which may be replaced while the lane waits for the next one."""

    class Job:
        """Something that can be watched."""

    async def main() -> None:
        gate = threading.Event()

        def work(jobs: list[Job]) -> list[bool]:
            return [gate.wait(10) for _ in jobs]

        lane: Lane[Job, bool] = Lane("test", work, threads=1, most=8, bound=8)
        jobs = [Job() for _ in range(3)]
        watched = [weakref.ref(job) for job in jobs]
        waiting = [asyncio.create_task(lane.submit(job)) for job in jobs]
        await asyncio.sleep(0.05)
        gate.set()
        await asyncio.gather(*waiting)
        del jobs, waiting
        assert lane.batches < 3, "some were taken together"
        for _ in range(100):
            if all(job() is None for job in watched):
                break
            await asyncio.sleep(0.01)
        assert [job() for job in watched] == [None] * 3
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


def test_problems_say_what_is_wrong_and_what_to_do() -> None:
    for kind, facts in CATALOGUE.items():
        document = Problem(kind, "why").document()
        assert document["status"] == facts.status
        assert facts.advice.endswith(".")
        assert f'id="{kind}"' in catalogue_page()
    assert from_validation([{"loc": ("body", "k"), "input": 10**5000, "msg": "too large"}]).detail.startswith(
        "body.k: too large, not a number of"
    )
    many = from_validation([{"loc": ("body",), "input": "\ud800" * 300, "msg": "no"}] * 50)
    assert len(many.members["errors"]) == 20
    assert "(and 30 more)" in many.detail


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
