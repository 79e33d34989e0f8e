"""The schedule: which documents are visited when, in which chunks, and how far a run has come."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jose_embed.compute.cpu.backend import CHUNK_LIMITS
from jose_embed.compute.tables import ChunkResult
from jose_embed.training import schedule
from jose_embed.training.schedule import Chunk, RunState, chunk_tokens, chunks, visiting_order


def test_the_order_of_an_epoch_is_drawn_from_seed_and_epoch() -> None:
    offsets = np.arange(0, 1001, 10)
    orders = {(seed, epoch): tuple(visiting_order(offsets, seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}
    assert len(set(orders.values())) == 4
    assert tuple(visiting_order(offsets, 1, 0)) == orders[1, 0]


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=200), st.integers(0, 5), st.integers(0, 5), st.integers(1, 2000)
)
def test_an_order_is_a_permutation_of_the_documents_with_words(
    lengths: list[int], seed: int, epoch: int, block_tokens: int
) -> None:
    offsets = np.cumsum([0, *lengths])
    order = visiting_order(offsets, seed, epoch, block_tokens)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == np.flatnonzero(lengths).tolist()


def test_a_large_corpus_is_shuffled_in_blocks_that_change() -> None:
    """What is visited within a block of words stems from few stretches of the file, other ones in each epoch."""
    lengths = np.full(6400, 10)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    block = 1600  # words of 160 documents: sixteen stretches of ten documents
    seen = set()
    for epoch in range(3):
        order = visiting_order(offsets, 1, epoch, block)
        blocks = order.reshape(40, 160)
        for documents in blocks:
            stretches = np.unique(documents // 10)
            assert len(stretches) == 16
            assert stretches.max() - stretches.min() > 16
            assert (np.diff(documents) == 1).mean() < 0.2
            seen.add(tuple(stretches))
    assert len(seen) == 120


def test_chunks_are_small_enough_for_the_workers_and_large_enough_for_the_interpreter() -> None:
    limits = CHUNK_LIMITS
    assert chunk_tokens(5_000_000, 2, limits) == 78125
    assert chunk_tokens(100, 2, limits) == 1 << 15
    assert chunk_tokens(10**12, 64, limits) == 1 << 19


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=200), st.integers(0, 3), st.integers(1, 200), st.integers(0, 200)
)
def test_the_rest_of_an_epoch_has_the_same_chunks(lengths: list[int], epoch: int, size: int, cut: int) -> None:
    """Chunks that begin anywhere between two chunks are those that would have come."""
    offsets = np.cumsum([0, *lengths])
    order = visiting_order(offsets, 1, epoch)
    whole = list(chunks(order, offsets, 1000, size))
    assert sum(chunk.n_tokens for chunk in whole) == offsets[-1]
    cut = min(cut, len(whole))
    documents = sum(len(chunk.documents) for chunk in whole[:cut])
    tokens = sum(chunk.n_tokens for chunk in whole[:cut])
    rest = list(chunks(order[documents:], offsets, 1000 + tokens, size))
    assert [(c.documents.tolist(), *c[1:]) for c in rest] == [(c.documents.tolist(), *c[1:]) for c in whole[cut:]]


@given(st.lists(st.integers(0, 12), max_size=40), st.integers(1, 15), st.integers(1, 9))
def test_a_chunk_takes_documents_until_one_does_not_fit(lengths: list[int], size: int, looked_at: int) -> None:
    """Whatever the length of a document, and wherever one of those that are looked at together ends."""
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    wanted: list[list[int]] = []
    n_tokens = size  # the first document begins a chunk
    for document, length in enumerate(lengths):
        if not wanted or (n_tokens and n_tokens + length > size):
            wanted, n_tokens = [*wanted, []], 0
        wanted[-1].append(document)
        n_tokens += length
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "_BLOCK_DOCUMENTS", looked_at)
        made = list(chunks(np.arange(len(lengths)), offsets, 7, size))
    assert [chunk.documents.tolist() for chunk in made] == wanted
    assert [chunk.n_tokens for chunk in made] == [sum(lengths[d] for d in documents) for documents in wanted]
    assert [chunk.first_token for chunk in made] == [7 + int(offsets[documents[0]]) for documents in wanted]


def test_a_standing_survives_as_json() -> None:
    state = RunState()
    state.add(Chunk(np.arange(3), 70, 0), ChunkResult(0.1, 3, 10, 60))
    state.seconds = 0.25
    state = state.after_epoch()
    state.add(Chunk(np.arange(2), 30, 100), ChunkResult(0.2, 1, 4, 25))
    assert (state.epoch, state.documents, state.tokens, state.active_share) == (1, 2, 30, 0.25)
    assert state.epochs[0]["loss"] == pytest.approx(0.01)
    assert state.epochs[0]["words_per_second"] == 280
    again = RunState.from_dict(state.to_dict())
    assert again == state
    for wrong in ({}, {"loss": 1}, {"tokens": -1}, {"epochs": None}, {"more": 1}):
        values = {**state.to_dict(), **wrong} if wrong else {}
        with pytest.raises(ValueError, match="does not describe the state of a training"):
            RunState.from_dict(values)


def test_orders_beyond_2_to_the_31_words() -> None:
    """Offsets are 64 bits wide all the way: documents of a billion words, and an epoch of far more than 2^31."""
    offsets = np.arange(12, dtype=np.int64) * 10**9
    order = visiting_order(offsets, 1, 0)
    assert sorted(order.tolist()) == list(range(11))
    made = list(chunks(order, offsets, 5 * 11 * 10**9, 1 << 19))
    assert [chunk.n_tokens for chunk in made] == [10**9] * 11
    assert [chunk.first_token for chunk in made] == [(55 + i) * 10**9 for i in range(11)]
    assert chunk_tokens(int(offsets[-1]), 2, (1 << 15, 1 << 19)) == 1 << 19
