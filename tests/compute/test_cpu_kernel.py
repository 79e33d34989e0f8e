"""The CPU kernel against the oracle: one contrast on rows that differ, then whole trainings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import replay
from hypothesis import given
from hypothesis import strategies as st

from jose_embed.compute import sphere
from jose_embed.compute.cpu import backend as cpu
from jose_embed.compute.cpu.backend import CpuBackend, kernel
from jose_embed.compute.sampling import SamplingTables, alias_table
from jose_embed.compute.tables import DOCUMENT_BLOCK, PIECE, ChunkResult, Tables, Text, document_step, padded_table
from jose_embed.config import TrainConfig
from jose_embed.text.vocabulary import Vocabulary

# Every combination of the rules in rows of one register, some in rows of several: each one compiles a kernel.
RULES = [
    (16, "pairwise", "paper"),
    (16, "pairwise", "reference"),
    (16, "joint", "paper"),
    (16, "joint", "reference"),
    (100, "pairwise", "paper"),
    (17, "joint", "paper"),
]


class Trained(NamedTuple):
    """What the kernel and the replay made of the same tables."""

    tables: Tables
    replayed: Tables
    start: Tables
    result: Any
    totals: replay.Totals


def text_of(*documents: Sequence[int]) -> Text:
    lengths = [len(document) for document in documents]
    words = [word for document in documents for word in document]
    return Text(np.array(words, np.int32), np.cumsum([0, *lengths], dtype=np.int64))


def tables_of(dim: int, n_words: int, n_documents: int, seed: int = 0) -> Tables:
    tables = Tables(*(padded_table(n, dim) for n in (n_words, n_words, n_documents)))
    for number, table in enumerate(tables):
        sphere.random_points(np.random.default_rng([seed, number]), table[:, :dim])
    return tables


def in_float64(tables: Tables, dim: int) -> Tables:
    return Tables(*(table[:, :dim].astype(np.float64) for table in tables))


def both(
    text: Text,
    samples: SamplingTables,
    tables: Tables,
    config: TrainConfig,
    *,
    epochs: Sequence[Sequence[int]] | None = None,
    total_tokens: int | None = None,
) -> Trained:
    """Train with the kernel, in place, and with the replay; ``epochs`` are the orders of the documents."""
    epochs = epochs if epochs is not None else [range(len(text.offsets) - 1)]
    n_tokens = int(text.offsets[-1])
    total_tokens = total_tokens or len(epochs) * n_tokens
    start, replayed = in_float64(tables, config.dim), in_float64(tables, config.dim)
    backend = CpuBackend(text, samples, tables, config, total_tokens)
    results, all_totals = [], []
    for epoch, order in enumerate(epochs):
        first = epoch * n_tokens
        results.append(backend.train_chunk(np.array(order, np.int64), epoch, first))
        drawn = replay.contrasts(
            text, samples, config, order, epoch=epoch, first_token=first, total_tokens=total_tokens
        )
        all_totals.append(replay.train(replayed, drawn, config))
    totals = replay.Totals(*(sum(part) for part in zip(*all_totals, strict=True)))
    result = ChunkResult(*(sum(part) for part in zip(*results, strict=True)))
    return Trained(tables, replayed, start, result, totals)


def assert_equal(trained: Trained, dim: int, tolerance: float) -> None:
    """The kernel's rows are the replay's, its totals too, and nothing was written beside the rows."""
    for table, wanted in zip(trained.tables, trained.replayed, strict=True):
        assert np.abs(table[:, :dim] - wanted).max() < tolerance
        assert not table[:, dim:].any()
        assert np.abs(np.linalg.norm(table.astype(np.float64), axis=1) - 1).max() < 1e-6
    assert trained.result.active == trained.totals.active
    assert trained.result.pairs == trained.totals.pairs
    assert trained.result.loss == pytest.approx(trained.totals.loss, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_long_steps_in_few_dimensions_leave_the_rows_on_the_sphere(seed: int) -> None:
    """Rows nearly parallel to their anchors and steps of twice their length: a derived length would lose its digits."""
    random = np.random.default_rng(seed)
    words = np.minimum(random.pareto(0.7, (60, 60)), 400).astype(int)
    _, numbers = np.unique(words, return_inverse=True)
    text = text_of(*numbers.reshape(60, 60).tolist())
    counts = np.bincount(text.tokens)
    config = TrainConfig(
        dim=2, epochs=5, workers=1, seed=seed, learning_rate=1.0, negatives=2, negative_step="reference"
    )
    samples, tables = SamplingTables.of(counts, 1.0, 0.75), tables_of(2, len(counts), 60, seed)
    backend = CpuBackend(text, samples, tables, config, 5 * 3600)
    for epoch in range(5):
        assert np.isfinite(backend.train_chunk(np.arange(60), epoch, epoch * 3600).loss)
    for table in tables:
        assert np.abs(np.linalg.norm(table.astype(np.float64), axis=1) - 1).max() < 1e-3


# ---- one contrast ---------------------------------------------------------------------------------------------------


class Alone(NamedTuple):
    """A document of which only one contrast has active hinges, and the config that makes it so."""

    text: Text
    samples: SamplingTables
    tables: Tables
    config: TrainConfig


def one_contrast(dim: int, n_positives: int, kind: str, seed: int, **settings: Any) -> Alone:
    """A text whose one document, of ``n_positives + 1`` words, moves rows in a single contrast.

    The first axis of the vectors keeps all other contrasts satisfied: the document's words have 0.8 there, the
    negatives -0.8, the anchors that shall not move are that axis. The anchor in question is orthogonal to it.
    """
    words = n_positives + (kind == "context")
    n_words = words + 3000
    tables = tables_of(dim, n_words, 1, seed)
    center = tables.center[:, :dim]
    center[:, 0] = 0
    center[:] = 0.6 * sphere.normalized(center)
    center[:words, 0], center[words:, 0] = 0.8, -0.8
    axis = np.eye(1, tables.center.shape[1], dtype=np.float32)[0]
    anchor = tables.context[0].copy() if kind == "context" else tables.document[0].copy()
    for table in (tables.context, tables.document):
        table[:] = axis
    anchor[0] = 0
    (tables.context if kind == "context" else tables.document)[0] = sphere.normalized(anchor)
    if settings.get("objective") == "joint":  # the document's row is an anchor everywhere
        across = np.roll(axis, 1)
        tables.document[0] = across
    noise = np.zeros(n_words)
    noise[words:] = 1
    everything = np.full(n_words, 2**32 - 1, np.uint32)
    samples = SamplingTables(everything, *alias_table(noise))
    config = TrainConfig(dim=dim, window=1000, seed=seed, **settings)
    return Alone(text_of(range(words)), samples, tables, config)


def active_contrasts(alone: Alone) -> list[replay.Contrast]:
    """The contrasts of the replay with an active hinge."""
    tables = in_float64(alone.tables, alone.config.dim)
    n = len(alone.text.tokens)
    drawn = replay.contrasts(alone.text, alone.samples, alone.config, [0], epoch=0, first_token=0, total_tokens=10 * n)
    return [contrast for contrast in drawn if replay.train(tables, [contrast], alone.config).active]


def check_one_contrast(dim: int, n_positives: int, n_negatives: int, kind: str, **settings: Any) -> bool:
    """Compare; the answer is whether the contrast was of the wanted kind: a hinge in it was active, its rows differ."""
    for seed in range(1, 30):
        alone = one_contrast(dim, n_positives, kind, seed, **settings)
        active = active_contrasts(alone)
        if len(active) != 1:
            continue
        (contrast,) = active
        rows = {*contrast.positives, *contrast.negatives}
        if len(contrast.positives) == n_positives and len(rows) == n_positives + n_negatives:
            trained = both(
                alone.text, alone.samples, alone.tables, alone.config, total_tokens=10 * len(alone.text.tokens)
            )
            assert trained.totals.active > 0
            assert_equal(trained, dim, 2e-6)
            return True
    return False


@pytest.mark.parametrize(("dim", "objective", "negative_step"), [*RULES, (2, "pairwise", "paper")])
@pytest.mark.parametrize("n_positives", [1, 2, 3, 4, 5, 8, 13, 16])
def test_a_context_word_against_its_window(dim: int, objective: Any, negative_step: Any, n_positives: int) -> None:
    settings = {"objective": objective, "negative_step": negative_step, "doc_negatives": 2}
    for n_negatives in (1, 2, 7, 16):
        assert check_one_contrast(dim, n_positives, n_negatives, "context", negatives=n_negatives, **settings)


@pytest.mark.parametrize(("dim", "objective", "negative_step"), [rule for rule in RULES if rule[1] == "pairwise"])
@pytest.mark.parametrize("n_positives", range(1, DOCUMENT_BLOCK + 1))
def test_a_document_against_its_words(dim: int, objective: Any, negative_step: Any, n_positives: int) -> None:
    settings = {"objective": objective, "negative_step": negative_step, "negatives": 2}
    for n_negatives in (1, 3, 8, 16):
        assert check_one_contrast(dim, n_positives, n_negatives, "document", doc_negatives=n_negatives, **settings)


def test_the_replay_moves_rows_as_the_oracle_does() -> None:
    """Its own form of an update, for rows that stand several times, is the oracle's where they stand once."""
    random = np.random.default_rng(1)
    for objective in ("pairwise", "joint", "smooth", "cross-entropy"):
        for negative_step in ("paper", "reference"):
            joint = objective != "pairwise"
            center = sphere.normalized(random.standard_normal((9, 5)))
            anchors = sphere.normalized(random.standard_normal((1 + joint, 5)))
            contrast = replay.Contrast(0 if joint else None, 0, [4, 1, 7], [0, 8], 0.1, 0.3)
            config = TrainConfig(dim=5, margin=0.15, negative_step=negative_step, objective=objective)
            sharpness = config.temperature if objective == "cross-entropy" else config.sharpness
            rules = {"margin": 0.15, "rate": 0.1, "negative_step": negative_step}
            rules |= {"objective": objective, "sharpness": sharpness}
            anchor_steps = [1.0, 0.3] if joint else [0.3]
            wanted = replay.oracle.contrast(
                center[[4, 1, 7]], center[[0, 8]], anchors, anchor_steps=anchor_steps, **rules
            )
            assert contrast.anchor_steps == anchor_steps
            moved_anchors, totals = replay.contrast_in_slots(center, contrast, anchors, config)
            assert np.allclose(center[[4, 1, 7, 0, 8]], np.concatenate([wanted.positives, wanted.negatives]))
            assert np.allclose(moved_anchors, wanted.anchors)
            assert totals[:2] == (pytest.approx(wanted.loss), wanted.active)


# ---- whole trainings ------------------------------------------------------------------------------------------------

COUNTS = np.array([60, 40, 30, *range(25, 3, -1)], np.int64)
VOCABULARY = Vocabulary(tuple(f"w{i}" for i in range(len(COUNTS))), COUNTS)


def random_text(seed: int, lengths: Sequence[int], n_words: int = len(COUNTS), *, distinct: bool = False) -> Text:
    random = np.random.default_rng(seed)
    share = COUNTS[:n_words] / COUNTS[:n_words].sum()
    return text_of(*(random.choice(n_words, n, replace=not distinct, p=share).tolist() for n in lengths))


def whole_training(
    text: Text, *, vocabulary: Vocabulary = VOCABULARY, dim: int = 16, epochs: int = 2, **settings: Any
) -> Trained:
    config = TrainConfig(dim=dim, epochs=epochs, **settings)
    samples = SamplingTables.of(vocabulary.counts, config.subsample_threshold, config.noise_exponent)
    n_documents = len(text.offsets) - 1
    orders = [np.random.default_rng(epoch).permutation(n_documents).tolist() for epoch in range(epochs)]
    return both(text, samples, tables_of(dim, vocabulary.n_words, n_documents), config, epochs=orders)


@pytest.mark.parametrize(("dim", "objective", "negative_step"), RULES)
@pytest.mark.parametrize("distinct", [True, False], ids=["distinct words", "any words"])
@pytest.mark.parametrize("threshold", [1.0, 0.02])
def test_a_training_is_its_replay(
    dim: int, objective: Any, negative_step: Any, distinct: bool, threshold: float
) -> None:
    text = random_text(5, [1, 2, 7, 0, 8, 9, 17, 25], distinct=distinct)
    trained = whole_training(
        text,
        dim=dim,
        objective=objective,
        negative_step=negative_step,
        subsample_threshold=threshold,
        window=5,
        negatives=2,
        doc_negatives=3,
        seed=3,
    )
    assert (trained.result.positions < 2 * 69) == (threshold < 1)
    assert trained.totals.active > 100
    assert_equal(trained, dim, 2e-5)
    moved = [np.abs(row - start).max() > 1e-3 for row, start in zip(trained.replayed[2], trained.start[2], strict=True)]
    if threshold == 1:
        has_pair = np.diff(text.offsets) > (objective != "pairwise")
        assert moved == has_pair.tolist()


# The GPU, which runs the tests of this file, has hinges only.
@pytest.mark.parametrize("objective", ["smooth", "cross-entropy"])
@pytest.mark.parametrize("threshold", [1.0, 0.02])
def test_a_training_without_hinges_is_its_replay(objective: Any, threshold: float) -> None:
    test_a_training_is_its_replay(16, objective, "paper", False, threshold)


@given(
    st.integers(0, 1000), st.integers(1, 40), st.integers(1, 16), st.integers(1, 16), st.integers(2, 25),
    st.sampled_from([1.0, 0.01, 0.5]), st.sampled_from(["pairwise", "joint"]), st.floats(0.01, 1.0),
    st.lists(st.integers(0, 30), min_size=1, max_size=4), st.integers(1, 9),
)  # fmt: skip
def test_any_training_is_its_replay(
    seed: int, window: int, negatives: int, doc_negatives: int, n_words: int, threshold: float, objective: Any,
    margin: float, lengths: list[int], positions_per_draw: int,
) -> None:  # fmt: skip
    vocabulary = Vocabulary(VOCABULARY.words[:n_words], COUNTS[:n_words])
    trained = whole_training(
        random_text(seed, lengths, n_words),
        vocabulary=vocabulary,
        epochs=1,
        seed=seed,
        window=window,
        negatives=negatives,
        positions_per_draw=positions_per_draw,
        doc_negatives=doc_negatives,
        subsample_threshold=threshold,
        objective=objective,
        margin=margin,
        learning_rate=0.01,
    )
    assert trained.result.pairs == trained.totals.pairs
    # A hinge near zero is a matter of rounding, so the rows may part by a step; the counts stay close.
    assert abs(trained.result.active - trained.totals.active) <= 2
    if trained.result.active == trained.totals.active:
        assert_equal(trained, 16, 2e-4)


def test_a_sharp_smooth_hinge_trains_as_the_hinge() -> None:
    text, rules = random_text(5, [8, 9, 17, 25]), {"negatives": 2, "subsample_threshold": 1.0, "learning_rate": 0.01}
    hinge = whole_training(text, objective="joint", **rules)
    sharp = whole_training(text, objective="smooth", sharpness=1000.0, **rules)
    soft = whole_training(text, objective="smooth", sharpness=1.0, **rules)
    for tables, trained, least in ((sharp.tables, hinge.tables, 0.0), (soft.tables, hinge.tables, 5e-3)):
        furthest = max(np.abs(a - b).max() for a, b in zip(tables, trained, strict=True))
        assert least <= furthest < (5e-3 if not least else 1)
    assert sharp.result.loss == pytest.approx(hinge.result.loss, rel=1e-2)


def contrasts_of(text: Text, config: TrainConfig, vocabulary: Vocabulary = VOCABULARY) -> list[replay.Contrast]:
    samples = SamplingTables.of(vocabulary.counts, config.subsample_threshold, config.noise_exponent)
    n = int(text.offsets[-1])
    documents = range(len(text.offsets) - 1)
    return list(replay.contrasts(text, samples, config, documents, epoch=0, first_token=0, total_tokens=n))


def test_a_window_of_more_than_sixteen_words_is_contrasted_sixteen_at_a_time() -> None:
    text = random_text(6, [90])
    settings: dict[str, Any] = {"window": 40, "subsample_threshold": 1.0}
    sizes = [len(contrast.positives) for contrast in contrasts_of(text, TrainConfig(dim=16, **settings))]
    assert max(sizes) == 16
    assert sizes.count(16) > 90  # many windows hold several sixteens
    assert_equal(whole_training(text, epochs=1, **settings), 16, 5e-5)


def test_a_negative_that_is_the_center_word_is_left_out() -> None:
    vocabulary = Vocabulary(("a", "b"), np.array([30, 10]))
    text = text_of([0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0])
    settings: dict[str, Any] = {"negatives": 2, "subsample_threshold": 1.0}
    drawn = contrasts_of(text, TrainConfig(dim=16, **settings), vocabulary)
    windows = [contrast for contrast in drawn if contrast.context is not None]
    assert {len(contrast.negatives) for contrast in windows} == {1, 2}
    assert len(windows) < 12  # and where both are the center word there is nothing to contrast
    assert all(contrast.context not in contrast.negatives for contrast in windows)
    assert_equal(whole_training(text, vocabulary=vocabulary, epochs=1, **settings), 16, 2e-5)


def test_the_kernel_counts_no_references() -> None:
    """Numba would take and give back every array of the scratch at each contrast, a sixth of the time."""
    whole_training(random_text(1, [9]), epochs=1, subsample_threshold=1.0)
    codes = [loaded.machine.code for loaded in kernel(1, "joint", "paper")._loaded.values()]
    assert codes
    for code in codes:
        assert b"hinges" in code
        assert b"NRT_" not in code


@pytest.mark.parametrize("n_shared", [1, 2, 5])
def test_positions_in_a_row_share_their_negatives(n_shared: int) -> None:
    """Counted over the whole document; the last ones have what is left."""
    n = 2 * n_shared + 1
    text = text_of(list(range(n)))  # each word once, so that no window repeats a word
    settings: dict[str, Any] = {"negatives": 3, "subsample_threshold": 1.0, "positions_per_draw": n_shared, "window": 1}
    config = TrainConfig(dim=16, **settings)
    samples = SamplingTables.of(VOCABULARY.counts, 1.0, config.noise_exponent)
    key = replay.stream_key(config.seed, 0, 0, replay.CONTEXT_NEGATIVES)
    drawn = replay.draw_words(samples, replay.random_bits(key, np.arange(9))).reshape(3, 3).tolist()
    assert drawn[0] != drawn[1] != drawn[2]
    wanted = [[negative for negative in drawn[place // n_shared] if negative != place] for place in range(n)]
    assert [list(contrast.negatives) for contrast in contrasts_of(text, config)] == [some for some in wanted if some]
    assert_equal(whole_training(text, epochs=1, **settings), 16, 2e-5)


def test_a_document_longer_than_a_piece_is_trained_to_its_end() -> None:
    """A few words in a sea of one that is thinned out completely; some stand around the border of the pieces."""
    n = PIECE + 5000
    words = np.zeros(n, np.int32)
    places = np.sort(np.random.default_rng(2).choice(n, 200, replace=False))
    places = np.union1d(places, np.arange(PIECE - 9, PIECE + 12))
    words[places] = np.random.default_rng(3).integers(1, 20, len(places))
    config = TrainConfig(dim=16, window=5)
    samples = SamplingTables.of(VOCABULARY.counts, 1.0, 0.75)
    samples.keep[0] = 0
    text = Text(words, np.array([0, n], np.int64))
    tables = tables_of(16, VOCABULARY.n_words, 1)
    trained = both(text, samples, tables, config)
    assert trained.result.positions == len(places)
    assert_equal(trained, 16, 2e-5)


def test_documents_without_a_kept_word_change_nothing() -> None:
    tables = tables_of(16, VOCABULARY.n_words, 3)
    before = [table.copy() for table in tables]
    samples = SamplingTables.of(VOCABULARY.counts, 1.0, 0.75)
    samples.keep[:3] = 0
    trained = both(text_of([0, 1, 2], [], [0] * 50), samples, tables, TrainConfig(dim=16))
    assert trained.result == (0.0, 0, 0, 0)
    assert all(np.array_equal(table, old) for table, old in zip(tables, before, strict=True))


def test_satisfied_hinges_move_nothing() -> None:
    """Positives along the anchors, negatives against them: not a bit changes."""
    alone = one_contrast(100, 16, "context", 1, negatives=2, doc_negatives=2)
    axis = np.eye(1, alone.tables.center.shape[1], dtype=np.float32)[0]
    alone.tables.context[0] = axis
    before = [table.copy() for table in alone.tables]
    trained = both(alone.text, alone.samples, alone.tables, alone.config)
    assert trained.result.active == 0
    assert trained.result.loss == 0
    assert trained.result.pairs > 200
    assert all(np.array_equal(table, old) for table, old in zip(alone.tables, before, strict=True))


def test_the_learning_rate_falls_linearly_to_a_ten_thousandth() -> None:
    text = random_text(5, [30] * 4)
    drawn = list(
        replay.contrasts(
            text,
            SamplingTables.of(VOCABULARY.counts, 1.0, 0.75),
            TrainConfig(
                dim=16,
                objective="pairwise",
                learning_rate=0.5,
                negatives=2,
                doc_negatives=4,
                context_weight=1,
                doc_weight=3,
            ),
            [3, 0, 1, 2],
            epoch=1,
            first_token=120,
            total_tokens=240,
        )
    )
    # The steps of a pair are averaged over the negatives and count by the weight of their kind.
    for of_documents, factor in ((False, 1 / 2), (True, 3 / 4)):
        rates = dict.fromkeys(contrast.rate for contrast in drawn if (contrast.context is None) == of_documents)
        assert list(rates) == pytest.approx([factor * rate for rate in (0.25, 0.1875, 0.125, 0.0625)])
    # Beyond the end, as a caller who trains on would be: the smallest rate, never a negative one.
    config = TrainConfig(dim=16, subsample_threshold=1.0)
    tables = tables_of(16, VOCABULARY.n_words, 4)
    start, replayed = in_float64(tables, 16), in_float64(tables, 16)
    samples = SamplingTables.of(VOCABULARY.counts, 1.0, 0.75)
    CpuBackend(text, samples, tables, config, 240).train_chunk(np.arange(4), 0, 500)
    late = replay.contrasts(text, samples, config, range(4), epoch=0, first_token=500, total_tokens=240)
    replay.train(replayed, late, config)
    for table, wanted, old in zip(tables, replayed, start, strict=True):
        assert np.abs(table - wanted).max() < 2e-6
        assert 0 < np.abs(table - old).max() < 1e-3


def test_many_small_calls_are_one_large_one() -> None:
    """The samples depend on where they are drawn only, so that any division of the work gives the same bytes."""
    text = random_text(8, [20, 3, 0, 40, 11, 30])
    samples = SamplingTables.of(VOCABULARY.counts, 1e-3, 0.75)
    order = np.array([5, 0, 3, 2, 1, 4])
    made = []
    for size in (6, 1, 4):
        tables = tables_of(16, VOCABULARY.n_words, 6)
        backend = CpuBackend(text, samples, tables, TrainConfig(dim=16, epochs=1), 104)
        first = 0
        for start in range(0, 6, size):
            documents = order[start : start + size]
            backend.train_chunk(documents, 0, first)
            first += int(np.diff(text.offsets)[documents].sum())
        made.append([table.tobytes() for table in tables])
    assert made[0] == made[1] == made[2]


# ---- rows of a worker's own -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["pairwise", "joint"])
@pytest.mark.parametrize("n_private", [1, 5, len(COUNTS)])
def test_a_worker_without_company_moves_its_own_rows_as_if_they_were_shared(objective: Any, n_private: int) -> None:
    text = random_text(8, [20, 3, 0, 40, 11, 30])
    samples = SamplingTables.of(VOCABULARY.counts, 1.0, 0.75)
    plain = tables_of(16, VOCABULARY.n_words, 6)
    sizes = VOCABULARY.n_words + n_private, VOCABULARY.n_words + n_private, 6
    spacious = Tables(*(padded_table(n, 16) for n in sizes))
    for table, source in zip(spacious, plain, strict=True):
        table[: len(source)] = source
    for tables in (plain, spacious):
        config = TrainConfig(dim=16, epochs=1, objective=objective, workers=1)
        backend = CpuBackend(text, samples, tables, config, 104)
        for documents, first in (([5, 0, 3], 0), ([2, 1, 4], 90)):
            assert backend.train_chunk(np.array(documents), 0, first).active > 10
    for table, wanted in zip(spacious, plain, strict=True):
        assert table[: len(wanted)].tobytes() == wanted.tobytes()


def test_chunks_that_ran_beside_each_other_are_averaged() -> None:
    """Two chunks that began with the same rows leave the mean direction of what each reached."""
    text = random_text(8, [60, 60])
    samples = SamplingTables.of(VOCABULARY.counts, 1e-3, 0.75)
    n_words, config = VOCABULARY.n_words, TrainConfig(dim=16, epochs=1, workers=2)

    def backend_of() -> tuple[CpuBackend, Tables]:
        start = tables_of(16, n_words, 2)
        tables = Tables(padded_table(3 * n_words, 16), padded_table(3 * n_words, 16), start.document)
        for table, source in zip(tables[:2], start[:2], strict=True):
            table[:n_words] = source
        return CpuBackend(text, samples, tables, config, 120), tables

    alone = []
    for document, first in ((0, 0), (1, 60)):
        backend, tables = backend_of()
        backend.train_chunk(np.array([document]), 0, first)
        alone.append([table[:n_words].astype(np.float64) for table in tables[:2]])

    backend, tables = backend_of()
    backend.prepare()
    inner = backend._train  # the second chunk begins and ends while the first is under way

    def interrupted(*arguments: Any) -> Any:
        backend._train = inner
        result = inner(*arguments)
        backend.train_chunk(np.array([1]), 0, 60)
        return result

    backend._train = interrupted
    backend.train_chunk(np.array([0]), 0, 0)
    for table, first, second in zip(tables[:2], *alone, strict=True):
        assert np.abs(table[:n_words] - sphere.normalized(first + second)).max() < 1e-6
        assert np.abs(first - second).max() > 1e-3


def test_rows_are_merged_by_weight() -> None:
    random = np.random.default_rng(0)
    rows, others = (sphere.normalized(random.standard_normal((600, 16)).astype(np.float32)) for _ in range(2))
    others[7] = -rows[7]
    for weight in (0.0, 1.0, 3.0):
        merged = rows.copy()
        cpu.merge_rows(merged, others, np.float32(weight))
        wanted = sphere.normalized(weight * rows.astype(np.float64) + others)
        if weight == 1:
            wanted[7] = others[7]
        assert np.abs(merged - wanted).max() < 1e-6


@pytest.mark.parametrize(
    ("counts", "chunk_tokens", "threads", "rows"),
    [
        ([100, 10, 1], 1000, 1, 0),
        ([100, 10, 1], 111, 2, 4),  # 8 occurrences are often enough
        ([100, 8, 3], 111, 2, 4),
        ([100, 7, 4], 111, 2, 2),
        ([5] * 5000, 1 << 19, 3, 3 * 2048),
    ],
)
def test_spare_rows(counts: list[int], chunk_tokens: int, threads: int, rows: int) -> None:
    assert cpu.spare_rows(np.array(counts, np.int64), chunk_tokens, threads) == rows


@pytest.mark.parametrize("which", ["center", "context", "document"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("objective", ["joint", "smooth", "cross-entropy"])
def test_a_number_that_is_none_reaches_the_loss(which: str, value: float, objective: Any) -> None:
    text = random_text(8, [20, 30])
    tables = tables_of(16, VOCABULARY.n_words, 2)
    getattr(tables, which)[0, 3] = value
    samples = SamplingTables.of(VOCABULARY.counts, 1.0, 0.75)
    backend = CpuBackend(text, samples, tables, TrainConfig(dim=16, objective=objective), 50)
    assert not np.isfinite(backend.train_chunk(np.arange(2), 0, 0).loss)


def test_a_visit_moves_documents_of_all_lengths_equally_far() -> None:
    """Unless steps are added up as published, or would be longer than four of the context row's."""
    visit, longest = document_step(TrainConfig(window=2, doc_weight=6.0))
    assert (visit, longest) == (200, 4)
    visit, longest = document_step(TrainConfig(window=4, doc_weight=6.0))
    assert (visit, longest) == (120, 4)
    visit, longest = document_step(TrainConfig(doc_step="sum", doc_weight=6.0))
    assert [min(longest, visit / np.float32(n)) for n in (1, 100, 10**9)] == [1, 1, 1]


@pytest.mark.parametrize("settings", [{}, {"doc_step": "sum"}, {"doc_weight": 0.05}, {"doc_weight": 1000.0}])
def test_documents_take_the_steps_that_they_are_given(settings: dict[str, Any]) -> None:
    trained = whole_training(random_text(11, [40, 3, 120]), objective="joint", subsample_threshold=1.0, **settings)
    assert_equal(trained, 16, 2e-5)
