"""The vocabulary's two distributions, and the table that samples from them exactly."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jose_embed.compute.sampling import AliasTable, alias_table, keep_probability, noise_distribution
from jose_embed.text.vocabulary import Vocabulary

COLUMN = 1 << 32


def vocabulary(*counts: int) -> Vocabulary:
    return Vocabulary(tuple(f"w{row}" for row in range(len(counts))), np.array(counts, np.int64))


def test_words_and_rows() -> None:
    words = Vocabulary(("the", "cat", "</s>"), np.array([5, 2, 1]))
    assert (words.n_words, words.n_tokens, len(words)) == (3, 8, 3)
    assert [words.index(word) for word in ("the", "cat", "</s>", "dog", "")] == [0, 1, 2, None, None]
    assert "cat" in words
    assert "dog" not in words


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=20), st.floats(1e-6, 1.0))
def test_keep_probability_is_the_formula(counts: list[int], threshold: float) -> None:
    counts.sort(reverse=True)
    total = sum(counts)
    found = keep_probability(vocabulary(*counts).counts, threshold)
    for count, probability in zip(counts, found, strict=True):
        expected = min(1.0, (math.sqrt(count / (threshold * total)) + 1.0) * threshold * total / count)
        assert probability == pytest.approx(expected, rel=1e-12)
        assert 0.0 < probability <= 1.0
    assert found.dtype == np.float64


def test_threshold_one_keeps_everything() -> None:
    for counts in ([1000, 1], [1], [10**9] * 3):
        assert set(keep_probability(vocabulary(*counts).counts, 1.0).tolist()) == {1.0}


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=20), st.floats(0.0, 2.0))
def test_noise_follows_the_power_of_the_count(counts: list[int], exponent: float) -> None:
    counts.sort(reverse=True)
    found = noise_distribution(vocabulary(*counts).counts, exponent)
    expected = np.array([count**exponent for count in counts])
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-9)
    assert found.sum() == pytest.approx(1.0)


def masses(table: AliasTable) -> npt.NDArray[np.int64]:
    """How many of the V 2^32 units the table gives to each value."""
    n = len(table.threshold)
    full = (table.threshold == COLUMN - 1) & (table.alias == np.arange(n))
    own = np.where(full, COLUMN, table.threshold.astype(np.int64))
    total = own.copy()
    np.add.at(total, table.alias, COLUMN - own)
    return total


distributions = hnp.arrays(
    np.float64, st.integers(1, 40), elements=st.one_of(st.just(0.0), st.floats(1e-12, 1.0), st.integers(1, 3))
).filter(lambda weights: weights.sum() > 0.0)


@given(distributions)
@example(np.array([1.0, 1.0, 0.0, 0.0]))  # a heavy value that is used up exactly
def test_the_table_holds_the_distribution(distribution: npt.NDArray[np.float64]) -> None:
    table = alias_table(distribution)
    n = len(distribution)
    assert table.threshold.dtype == table.alias.dtype == np.uint32
    assert table.threshold.shape == table.alias.shape == (n,)
    assert int(table.alias.max()) < n
    units = masses(table)
    assert int(units.sum()) == n * COLUMN
    expected = distribution / distribution.sum() * n * COLUMN
    # All but the largest value are rounded down to whole units; the largest, or one of them, takes what is left.
    largest = int(np.argmax(np.where(expected > expected.max() * (1 - 1e-12), units, 0)))
    assert np.all(np.abs(np.delete(units - expected, largest)) <= 1.0 + 1e-15 * n * COLUMN)
    assert abs(units[largest] - expected[largest]) <= n * (1.0 + 1e-15 * n * COLUMN)


def test_a_column_of_its_own() -> None:
    for n in (1, 2, 7):
        table = alias_table(np.full(n, 1.0 / n))
        assert table.alias.tolist() == list(range(n))
        assert table.threshold.tolist() == [COLUMN - 1] * n


def test_values_without_probability_are_never_drawn() -> None:
    table = alias_table(np.array([0.0, 1.0, 0.0, 3.0]))
    random = np.random.default_rng(0).integers(0, 2**64, 100_000, np.uint64)
    assert set(table.sample(random).tolist()) == {1, 3}
    assert masses(table)[[0, 2]].tolist() == [0, 0]


def test_samples_follow_the_distribution() -> None:
    distribution = noise_distribution(vocabulary(*(10_000 // rank for rank in range(1, 201))).counts, 0.75)
    random = np.random.default_rng(1).integers(0, 2**64, 400_000, np.uint64)
    drawn = alias_table(distribution).sample(random)
    observed = np.bincount(drawn, minlength=200)
    expected = distribution * len(random)
    chi_square = float(((observed - expected) ** 2 / expected).sum())
    assert abs(chi_square - 199) < 4 * math.sqrt(2 * 199)


def test_samples_at_the_borders() -> None:
    table = AliasTable(np.array([10, COLUMN - 1], np.uint32), np.array([1, 1], np.uint32))
    half = 1 << 63
    random = np.array([0, 9, 10, COLUMN - 1, half - 1, half, 2**64 - 1], np.uint64)
    assert table.sample(random).tolist() == [0, 0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("weights", [[], [0.0], [1.0, -0.1], [math.nan, 1.0], [math.inf], [-1.0]])
def test_what_is_no_distribution(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="not a distribution"):
        alias_table(np.array(weights))


def test_a_large_table_is_exact() -> None:
    distribution = 1.0 / np.arange(1, 300_001) ** 0.75
    units = masses(alias_table(distribution))
    expected = distribution / distribution.sum() * len(distribution) * COLUMN
    assert int(units.sum()) == len(distribution) * COLUMN
    assert np.abs(units - expected)[1:].max() <= 2.0
