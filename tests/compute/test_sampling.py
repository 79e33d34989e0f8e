"""The samples: distributed as the formulas say, independent of each other, the same on every machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import replay
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from jose_embed.compute import sampling
from jose_embed.compute.jit import jit
from jose_embed.compute.sampling import SamplingTables, alias_table, keep_probability, noise_distribution
from jose_embed.text.vocabulary import Vocabulary

STREAMS = [sampling.KEEP, sampling.WINDOW, sampling.CONTEXT_NEGATIVES, sampling.DOCUMENT_NEGATIVES]
COUNTS = np.array([5000, 2500, 900, 400, 100, 50, 30, 10, 7, 5], np.int64)
VOCABULARY = Vocabulary(tuple("abcdefghij"), COUNTS)
N = 200_000

# A chance below this is no chance; the seeds are fixed, so that a test passes always or never.
RARE = 1e-4


@jit
def compiled_bits(seed: Any, epoch: Any, document: Any, stream: Any, out: Any) -> None:
    key = sampling.stream_key(seed, epoch, document, stream)
    for i in range(out.shape[0]):
        out[i] = sampling.random_bits(key, i)


@jit
def compiled_draws(bits: Any, limit: Any, tables: Any, below: Any, words: Any) -> None:
    for i in range(bits.shape[0]):
        below[i] = sampling.draw_below(bits[i], limit)
        words[i] = sampling.draw_word(tables, bits[i])


def bits_of(seed: int, epoch: int, document: int, stream: int, n: int = N) -> np.ndarray:
    out = np.empty(n, np.uint64)
    compiled_bits(seed, epoch, document, stream, out)
    return out


def draws(bits: np.ndarray, limit: int, tables: SamplingTables) -> tuple[np.ndarray, np.ndarray]:
    below, words = np.empty(len(bits), np.int64), np.empty(len(bits), np.int64)
    compiled_draws(bits, limit, tables, below, words)
    return below, words


# ---- the same everywhere --------------------------------------------------------------------------------------------


def test_the_streams_of_one_document_are_known_numbers() -> None:
    """Every backend draws these."""
    known = {
        sampling.KEEP: ["0x8f58bb5516316ef1", "0xf4757edec564001b", "0xefb9ae2a8bd26f4f"],
        sampling.WINDOW: ["0x62c3d3fd9b35171e", "0x519787b167c33aec", "0x26f33fae357c94eb"],
        sampling.CONTEXT_NEGATIVES: ["0xd96ee60aaf29859f", "0x13cd603160c8102", "0x64145bdae51b1ad5"],
        sampling.DOCUMENT_NEGATIVES: ["0xe1c8f9d7eb698a15", "0xef2632904ae5d11b", "0x3ee62f2ef854b90b"],
    }
    for stream, numbers in known.items():
        assert [hex(bits) for bits in bits_of(1, 2, 3, stream, 3).tolist()] == numbers


def test_one_stream_is_the_sequence_of_the_published_generator() -> None:
    """The first numbers of SplitMix64 for the seed 1234567, as its users have pinned them."""

    @jit
    def run(key: Any, out: Any) -> None:
        for i in range(out.shape[0]):
            out[i] = sampling.random_bits(key, i)

    out = np.empty(5, np.uint64)
    run(np.uint64(1234567), out)
    assert out.tolist() == [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip


def test_the_tables_of_a_vocabulary_are_known_numbers() -> None:
    tables = SamplingTables.of(np.array([90, 6, 3, 1]), 0.05, 0.75)
    assert tables.keep.tolist() == [1250942794, 2**32 - 1, 2**32 - 1, 2**32 - 1]
    assert tables.threshold.tolist() == [2**32 - 1, 1812711573, 1077844750, 472841155]
    assert tables.alias.tolist() == [0, 0, 0, 0]
    _, words = draws(bits_of(1, 2, 3, sampling.CONTEXT_NEGATIVES, 16), 5, tables)
    assert words.tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 3, 0, 0]


@given(
    st.integers(0, 2**63 - 1), st.integers(0, 99_999), st.integers(0, 2**31), st.sampled_from(STREAMS), st.integers(1)
)
def test_bits_are_those_of_splitmix(seed: int, epoch: int, document: int, stream: int, n: int) -> None:
    n = n % 100 + 1
    wanted = replay.random_bits(replay.stream_key(seed, epoch, document, stream), np.arange(n))
    assert np.array_equal(bits_of(seed, epoch, document, stream, n), wanted)


@given(st.integers(0, 2**32), st.integers(1, 2**32))
def test_draws_are_those_of_the_definitions(seed: int, limit: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 2**64, 100, np.uint64)
    tables = SamplingTables.of(VOCABULARY.counts, 1e-3, 0.75)
    below, words = draws(bits, limit, tables)
    assert below.tolist() == [(number >> 32) * limit >> 32 for number in bits.tolist()]
    assert np.array_equal(words, replay.draw_words(tables, bits))
    alias = alias_table(noise_distribution(VOCABULARY.counts, 0.75))
    assert np.array_equal(words, alias.sample(bits))


def test_the_ends_of_the_range() -> None:
    bits = np.array([0, 2**64 - 1], np.uint64)
    for limit in (1, 2, 1000, 2**32):
        below, words = draws(bits, limit, SamplingTables.of(VOCABULARY.counts, 1.0, 0.0))
        assert below.tolist() == [0, limit - 1]
        assert words.tolist() == [0, 9]


# ---- distributed as the formulas say --------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [1.0, 1e-3, 0.02])
def test_words_are_kept_with_their_probability(threshold: float) -> None:
    tables = SamplingTables.of(VOCABULARY.counts, threshold, 0.75)
    wanted = keep_probability(VOCABULARY.counts, threshold)
    assert threshold == 1 or wanted.min() < 0.9
    for word, probability in enumerate(wanted):
        upper = bits_of(7, 0, word, sampling.KEEP, 50_000) >> np.uint64(32)
        kept = np.count_nonzero(upper <= tables.keep[word])
        if probability == 1:
            assert kept == 50_000
        else:
            expected = np.array([probability, 1 - probability]) * 50_000
            assert chisquare([kept, 50_000 - kept], expected).pvalue > RARE


@pytest.mark.parametrize("window", [1, 2, 5, 10, 1000])
def test_half_windows_are_uniform(window: int) -> None:
    below, _ = draws(bits_of(7, 1, 2, sampling.WINDOW), window, SamplingTables.of(VOCABULARY.counts, 1.0, 0))
    assert below.min() == 0
    assert below.max() == window - 1
    if window > 1:
        assert chisquare(np.bincount(below, minlength=window)).pvalue > RARE


@pytest.mark.parametrize("exponent", [0.0, 0.75, 1.0, 2.0])
@pytest.mark.parametrize("stream", [sampling.CONTEXT_NEGATIVES, sampling.DOCUMENT_NEGATIVES])
def test_negatives_follow_the_noise_distribution(stream: int, exponent: float) -> None:
    _, words = draws(bits_of(11, 3, 5, stream), 10, SamplingTables.of(VOCABULARY.counts, 1.0, exponent))
    expected = COUNTS**exponent / (COUNTS**exponent).sum() * N
    assert chisquare(np.bincount(words, minlength=10), expected).pvalue > RARE


def test_a_vocabulary_of_one_word_has_one_negative() -> None:
    tables = SamplingTables.of(np.array([7]), 1e-3, 0.75)
    _, words = draws(bits_of(1, 0, 0, sampling.CONTEXT_NEGATIVES, 1000), 5, tables)
    assert not words.any()


def test_consecutive_draws_are_independent() -> None:
    for stream in STREAMS:
        sixteenths = (bits_of(1, 0, 0, stream) >> np.uint64(60)).astype(np.int64)
        pairs = np.bincount(16 * sixteenths[:-1:2] + sixteenths[1::2], minlength=256)
        assert chisquare(pairs).pvalue > RARE


@pytest.mark.parametrize("half", [0, 32])
@pytest.mark.parametrize("other", [
    *[(1, 0, 0, stream) for stream in STREAMS[1:]],
    (2, 0, 0, sampling.KEEP), (1, 1, 0, sampling.KEEP), (1, 0, 1, sampling.KEEP), (1, 0, 8, sampling.KEEP),
    (0, 1, 0, sampling.KEEP), (1, 2, 1, sampling.KEEP),
])  # fmt: skip
def test_streams_are_independent_of_each_other(other: tuple[int, int, int, int], half: int) -> None:
    """Neighbours in seed, epoch, document and kind of decision, compared number by number, in both halves."""
    shift = np.uint64(half + 28)
    a, b = (
        (bits_of(*stream) >> shift & np.uint64(15)).astype(np.int64) for stream in ((1, 0, 0, sampling.KEEP), other)
    )
    assert chisquare(np.bincount(16 * a + b, minlength=256)).pvalue > RARE


def test_no_two_streams_have_the_same_key() -> None:
    keys = [
        replay.stream_key(seed, epoch, document, stream)[0]
        for seed in range(3)
        for epoch in range(10)
        for document in range(50)
        for stream in STREAMS
    ]
    assert len(set(keys)) == len(keys) == 6000
