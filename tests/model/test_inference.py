"""Vectors for documents: one computation, in NumPy for a text and compiled for a corpus, to the bit."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import planted
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jose_embed.compute import documents as passages
from jose_embed.compute import sphere
from jose_embed.compute.cpu import directions
from jose_embed.compute.tables import DocumentInputs, padded_table
from jose_embed.errors import ConfigError, ModelError, NoKnownWordsError
from jose_embed.model import inference
from jose_embed.model.embeddings import Embeddings, load
from jose_embed.model.inference import NO_MATRIX, TERM_WEIGHTS, infer
from jose_embed.text import tokenizers
from jose_embed.text.encode import encode_texts
from jose_embed.training import document_weights
from jose_embed.training.document_weights import concentration_weights, retrieval_weights
from jose_embed.training.train import train

ROOT = Path(__file__).resolve().parents[2]
SETTINGS: dict[str, Any] = {"dim": 20, "min_count": 2, "epochs": 2, "tokenizer": "whitespace", "workers": 1}


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Planted documents, and odd ones: without words, without a known word, of one word, long, with repetitions."""
    long = " ".join(f"t1w{i * i % 25} c{i % 10}" for i in range(2000))
    return [*planted.corpus(120).texts, "", "once", "t0w1", "t0w1 " * 70_000, long, "t2w3 nobody t2w3 knows c1"]


@pytest.fixture(scope="module")
def model(texts: list[str]) -> Embeddings:
    return train(documents=texts, doc_method="words", **SETTINGS)


def small_model(**settings: Any) -> Embeddings:
    """Four words in the plane and their weights."""
    vectors = np.float32([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]])
    return Embeddings.from_arrays(
        words=["east", "north", "between", "west"],
        counts=[8, 4, 2, 2],
        center_vectors=vectors,
        context_vectors=vectors,
        extra_arrays={"word_weights": np.array([[0.5, 0.5], [0.0, 0.5], [2.0, 0.0], [0.25, 0.75]])},
        **settings,
    )


# ---- what it computes -----------------------------------------------------------------------------------------------


def test_a_direction_is_the_weighted_mean_of_the_known_words() -> None:
    (found,) = small_model().encoder.infer_detailed(["North, east! NORTH nowhere north? nothing nowhere"])
    weights = np.array([0.5 * (1 + np.log(3)), 1.0])
    total = weights[0] * np.array([0, 1]) + weights[1] * np.array([1, 0])
    assert found.vector is not None
    assert found.vector.dtype == np.float32
    assert found.vector == pytest.approx(total / np.linalg.norm(total), abs=1e-7)
    assert found.n_tokens == 7
    assert found.n_known == 4
    assert found.coverage == 4 / 7
    assert found.known.tolist() == [1, 0]
    assert found.counts.tolist() == [3, 1]
    assert found.weights == pytest.approx(weights)
    assert found.unknown == ("nowhere", "nothing")
    assert found.concentration == pytest.approx(np.linalg.norm(total) / weights.sum())


@pytest.mark.parametrize(
    ("text", "concentration"),
    [
        ("east", 1.0),
        ("east east east", 1.0),
        ("between", 1.0),
        ("east north", np.hypot(1, 0.5) / 1.5),
        ("east between", np.hypot(1 + 1.2, 1.6) / 3),
    ],
)
def test_the_concentration_is_the_mean_resultant_length(text: str, concentration: float) -> None:
    (found,) = small_model().encoder.infer_detailed([text])
    assert found.concentration == pytest.approx(concentration)
    assert found.concentration <= 1


def test_a_text_whose_words_cancel_has_no_direction() -> None:
    model = small_model()
    (found,) = model.encoder.infer_detailed(["east west"])
    assert found.vector is None
    assert found.concentration == 0
    assert found.n_known == 2
    with pytest.raises(NoKnownWordsError, match=r"^text 1 has no direction: "):
        infer(model, ["east west"])


def test_a_text_without_a_known_word() -> None:
    model = small_model()
    for text, n_tokens in (("", 0), (" \t ", 0), ("up down", 2)):
        (found,) = model.encoder.infer_detailed([text])
        assert found.vector is None
        assert (found.n_tokens, found.n_known, found.coverage, found.concentration) == (n_tokens, 0, 0.0, 0.0)
    with pytest.raises(NoKnownWordsError) as error:
        infer(model, ["east", "a b c d e f g"])
    assert str(error.value) == (
        "text 2 has no direction: its words are unknown: 'a', 'b', 'c', 'd', 'e', ...; "
        "give a text with words of the training"
    )
    with pytest.raises(NoKnownWordsError, match=r"^text 1 has no direction: it has no words; give a text"):
        infer(model, [""])


def test_a_batch_flags_the_rows_without_a_direction() -> None:
    model = small_model()
    vectors, known = model.infer_flagged(["east", "nothing", "", "north", "east west"])
    assert known.tolist() == [True, False, False, True, False]
    assert vectors[[0, 3]].tolist() == [[1, 0], [0, 1]]
    assert (vectors[~known] == model.encoder.mean_direction).all()
    assert np.linalg.norm(model.encoder.mean_direction) == pytest.approx(1)


def test_no_texts_give_no_rows() -> None:
    assert infer(small_model(), []).shape == (0, 2)
    assert small_model().encoder.infer_detailed([]) == []


def test_misuse_is_named() -> None:
    with pytest.raises(TypeError, match="takes a list of texts; for a single one write infer"):
        infer(small_model(), "east")
    with pytest.raises(TypeError, match="takes a list of texts"):
        small_model().encoder.infer_detailed("east")
    with pytest.raises(TypeError, match=r"infer_flagged\(\) takes a list of texts"):
        small_model().infer_flagged("east")
    for odd, what in [(None, "a missing value"), (float("nan"), "a missing value"), (b"east", "bytes"), (7, "the num")]:
        with pytest.raises(TypeError, match=rf"^infer\(\): text 2 is {what}"):
            infer(small_model(), ["east", odd])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="backend is 'tpu'; it must be one of auto, cpu, gpu"):
        infer(small_model(), ["east"], backend="tpu")


def test_texts_may_come_one_after_the_other() -> None:
    model, texts = small_model(), ["east", "north east"]
    wanted = infer(model, texts).tolist()
    assert infer(model, iter(texts)).tolist() == model.infer_flagged(text for text in texts).vectors.tolist() == wanted
    assert [found.n_tokens for found in model.encoder.infer_detailed(map(str.upper, texts))] == [1, 2]
    assert infer(model, np.array(texts)).tolist() == infer(model, dict.fromkeys(texts).keys()).tolist() == wanted
    with pytest.raises(NoKnownWordsError, match=r"^text 2 has no direction: its words are unknown: 'up'"):
        infer(model, iter(["east", "up"]))


def test_a_few_texts_wait_for_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "BatchEncoder", lambda *_: pytest.fail("compiled"))
    for backend in ("cpu", "auto"):
        assert infer(small_model(), ["east"], backend=backend).tolist() == [[1, 0]]


def test_tokens_are_taken_as_they_are() -> None:
    model = small_model()
    vectors = infer(model, [["north", "EAST"], "north EAST"])
    assert vectors.tolist() == infer(model, ["north", "north east"]).tolist()
    (found,) = model.encoder.infer_detailed([["north", " EAST\n", ""]])
    assert (found.n_tokens, found.n_known, found.unknown) == (2, 1, ("EAST",))


@pytest.mark.parametrize("at_once", [1, 300, 1 << 22])
@pytest.mark.parametrize("tokenizer", ["words", "whitespace", "plain"])
def test_many_texts_have_the_bytes_of_each_alone(
    model: Embeddings, texts: list[str], monkeypatch: pytest.MonkeyPatch, at_once: int, tokenizer: str
) -> None:
    """The compiled way against the plain one, with strings, lists of tokens, and both among each other."""
    if tokenizer == "plain":
        monkeypatch.setattr(tokenizers, "CodePointTokenizer", type("Nothing", (), {}))
    elif tokenizer != model.tokenizer.name:
        model = model_of(model, tokenizer)
    odd = ["t0w1 \0 t0w2\nt1w1\r\n", "t0w1\ud800t0w1 t1w3", "T0W1 c1", "", "nobody", "x" * 1000]
    strings = [*texts, *odd, *texts[:3]]
    lists = [*(model.tokenizer(text) for text in texts), ["c1", "t0w1 t0w2", "", "\n", "\0", "\ud800t0w3", "c2"]]
    monkeypatch.setattr(inference, "_BATCH_CHARACTERS", at_once)
    for some in (strings, lists, [*lists[:4], *strings, *lists[4:]]):
        monkeypatch.setattr(inference, "WORTH_COMPILING", 1 << 40)
        wanted = model.infer_flagged(some)
        monkeypatch.setattr(inference, "WORTH_COMPILING", 0)
        found = model.infer_flagged(some)
        assert found.known.tolist() == wanted.known.tolist()
        assert found.vectors.tobytes() == wanted.vectors.tobytes()
        assert 0 < (~found.known).sum() < 10
        with pytest.raises(NoKnownWordsError, match=f"^text {int(found.known.argmin()) + 1} has no direction"):
            infer(model, some)


def model_of(model: Embeddings, tokenizer: str) -> Embeddings:
    """The same vectors behind another tokenizer."""
    return Embeddings.from_arrays(
        words=model.words,
        counts=model.counts,
        center_vectors=model.center_vectors,
        context_vectors=model.context_vectors,
        tokenizer=tokenizer,
        extra_arrays=model.extra_arrays,
    )


def test_a_model_without_weights_takes_inverse_frequencies() -> None:
    vectors = np.float32([[1, 0], [0, 1]])
    model = Embeddings.from_arrays(words=["a", "b"], counts=[3, 1], center_vectors=vectors, context_vectors=vectors)
    assert model.encoder.word_weights == pytest.approx(np.array([[0, np.log(5 / 3)], [0, np.log(5)]]))
    assert infer(model, ["a b"])[0] == pytest.approx(sphere.normalized(np.log([5 / 3, 5])), abs=1e-7)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("word_weights", np.ones(2), r"has the shape \(2,\); .* must be \(2, 2\)"),
        ("word_weights", np.array([[1.0, 2], [3, np.nan]]), "holds a NaN or an infinity"),
        ("word_weights", np.ones((2, 2), np.int64), "holds int64 numbers; it must hold finite floating-point numbers"),
        ("document_matrix", np.eye(3), r"has the shape \(3, 3\); .* must be \(2, 2\)"),
        ("document_matrix", np.diag([1.0, np.inf]), "holds a NaN or an infinity"),
        ("context_share", np.ones(2), r"has the shape \(2,\)"),
        ("context_share", np.array(np.nan), "holds a NaN or an infinity"),
    ],
)
def test_learned_arrays_that_cannot_be_used_are_refused(
    name: str, value: npt.NDArray[np.float64], message: str
) -> None:
    vectors = np.float32([[1, 0], [0, 1]])
    with pytest.raises(ModelError, match=f"^{name} {message}"):
        Embeddings.from_arrays(
            words=["a", "b"], counts=[3, 1], center_vectors=vectors, context_vectors=vectors, extra_arrays={name: value}
        )


def test_the_sum_is_multiplied_with_the_models_matrix() -> None:
    matrix = np.array([[1.0, 0.5], [0.5, 0.1]])
    plain = small_model()
    arrays = {"word_weights": plain.encoder.word_weights, "document_matrix": matrix}
    model = Embeddings.from_arrays(
        words=plain.words,
        counts=plain.counts,
        center_vectors=plain.center_vectors,
        context_vectors=plain.context_vectors,
        extra_arrays=arrays,
    )
    (without,), (found,) = plain.encoder.infer_detailed(["east north"]), model.encoder.infer_detailed(["east north"])
    assert found.vector == pytest.approx(sphere.normalized(np.array([1.0, 0.5]) @ matrix), abs=1e-7)
    assert found.concentration == without.concentration  # of the words, which are what they were
    assert model.encoder.word_as_document(0) == pytest.approx(infer(model, ["east"])[0], abs=1e-7)


def test_a_share_of_the_context_is_taken_from_each_word() -> None:
    plain = small_model()
    context = plain.center_vectors[::-1].copy()
    model = Embeddings.from_arrays(
        words=plain.words,
        counts=plain.counts,
        center_vectors=plain.center_vectors,
        context_vectors=context,
        extra_arrays={"word_weights": plain.encoder.word_weights, "context_share": np.array(0.25)},
    )
    (without,), (found,) = plain.encoder.infer_detailed(["east north"]), model.encoder.infer_detailed(["east north"])
    vectors = plain.center_vectors - 0.25 * context.astype(np.float64)
    assert found.vector == pytest.approx(sphere.normalized(found.weights @ vectors[found.known]), abs=1e-7)
    assert found.vector != pytest.approx(without.vector, abs=0.01)
    assert found.concentration == without.concentration  # of the words, which are what they were
    assert model.encoder.word_as_document(0).tobytes() == infer(model, ["east"])[0].tobytes()
    everything = vectors.T @ plain.counts
    assert model.encoder.mean_direction == pytest.approx(sphere.normalized(everything), abs=1e-7)


def test_what_a_word_says_by_its_presence_it_says_once() -> None:
    once, often = small_model().encoder.infer_detailed(["east north", "east north " * 20])
    assert once.weights.tolist() == [1.0, 0.5]
    assert often.weights == pytest.approx([0.5 + 0.5 * (1 + np.log(20)), 0.5 * (1 + np.log(20))])
    (between,) = small_model().encoder.infer_detailed(["between " * 20])
    assert between.weights.tolist() == [2.0]


# ---- the same bytes -------------------------------------------------------------------------------------------------


def test_a_training_document_has_its_row(texts: list[str], model: Embeddings, tmp_path: Path) -> None:
    present = np.flatnonzero(model.doc_token_counts)
    assert len(present) == len(texts) - 2
    wanted = np.ascontiguousarray(model.doc_vectors[present])
    assert infer(model, [texts[row] for row in present]).tobytes() == wanted.tobytes()
    model.save(tmp_path / "a.jose")
    loaded = load(tmp_path / "a.jose")
    assert infer(loaded, [texts[row] for row in present]).tobytes() == wanted.tobytes()
    for row in present[-4:]:  # alone
        assert infer(loaded, [texts[row]]).tobytes() == wanted[list(present).index(row)].tobytes()


def test_other_processes_give_the_same_bytes(texts: list[str], model: Embeddings, tmp_path: Path) -> None:
    path = model.save(tmp_path / "a.jose")
    some = [texts[3], texts[-1], texts[122]]
    code = f"import jose_embed, sys; sys.stdout.write(jose_embed.load({str(path)!r}).infer({some!r}).tobytes().hex())"
    other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert other.stdout == infer(model, some).tobytes().hex()


def test_the_number_of_training_workers_does_not_matter(texts: list[str]) -> None:
    """For a model that stands: one trained by two workers gives its own rows too."""
    model = train(documents=texts, doc_method="words", **{**SETTINGS, "workers": 2})
    assert infer(model, texts[:100]).tobytes() == np.ascontiguousarray(model.doc_vectors[:100]).tobytes()


def test_the_matrix_is_learned_unless_it_is_not_wanted(texts: list[str], model: Embeddings) -> None:
    assert model.encoder.matrix.shape == (model.dim, model.dim)
    without = train(documents=texts, doc_method="words", doc_shrinkage=0, **SETTINGS)
    assert without.encoder.matrix.shape == (0, 0)
    assert np.array_equal(without.center_vectors, model.center_vectors)
    assert np.array_equal(infer(without, texts[:5]), without.doc_vectors[:5])
    assert np.abs(without.doc_vectors - model.doc_vectors).max() > 0.01
    near_rows = [model.similar_documents(text=text, k=1)[0].index for text in texts[:20]]
    assert near_rows == list(range(20))
    assert train(documents=texts, doc_method="trained", **SETTINGS).encoder.matrix.shape == (0, 0)


def test_a_word_asks_documents_as_a_text_of_it_does(model: Embeddings) -> None:
    by_word, by_text = model.similar_documents(word="t0w1", k=9), model.similar_documents(text="t0w1", k=9)
    assert [found.index for found in by_word] == [found.index for found in by_text]


def test_trained_rows_are_not_directions_but_weights_are_kept(texts: list[str]) -> None:
    model = train(documents=texts, doc_method="trained", **SETTINGS)
    assert "word_weights" in model.extra_arrays
    cosines = (infer(model, texts[:120]) * model.doc_vectors[:120]).sum(1)
    assert 0 < cosines.mean() < 0.999


lines = st.lists(
    st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "g"]), max_size=30).map(" ".join), min_size=1, max_size=12
)


@pytest.mark.parametrize("threads", [2, 3, 50])
def test_directions_do_not_depend_on_the_number_of_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents of no word and of hundreds, fewer than threads and more."""
    monkeypatch.setattr(directions, "_WORTH_A_THREAD", 1)
    monkeypatch.setattr(passages, "_AT_ONCE", 100)
    random = np.random.default_rng(2)
    for lengths in ([3, 0, 700, 0, 1, 90, 12, 0], [5], [0, 2, 0], [40] * 60):
        tokens = random.integers(0, 30, sum(lengths)).astype(np.int32)
        offsets = np.cumsum([0, *lengths], dtype=np.int64)
        center = padded_table(30, 100)
        sphere.random_points(random, center[:, :100])
        inputs = DocumentInputs(random.random((30, 2)), TERM_WEIGHTS, center, center, 0.0, NO_MATRIX)
        made = [np.full((len(lengths), 112), 7, np.float32) for _ in range(2)]
        directions.CpuDirections(inputs).write(tokens, offsets, made[0])
        directions.CpuDirections(inputs, threads).write(tokens, offsets, made[1])
        assert made[0].tobytes() == made[1].tobytes()
        assert (made[0][:, 0] == 7).tolist() == [length == 0 for length in lengths]


def test_what_fails_in_one_thread_does_not_wait_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt neither: the other threads stop where they are, not at the end of the text."""
    calls = itertools.count(1)

    def failing(*_: Any) -> None:
        number = next(calls)
        if number == 5:
            raise ValueError("broken")
        if number > 5:
            time.sleep(0.1)  # time for the other thread, of which the machine may have little

    monkeypatch.setattr(directions, "_WORTH_A_THREAD", 1)
    monkeypatch.setattr(passages, "_AT_ONCE", 4)
    monkeypatch.setattr(directions, "_kernel", lambda _: failing)
    tokens, offsets = np.zeros(4000, np.int32), np.arange(0, 4001, 2)
    center = padded_table(1, 100)
    inputs = DocumentInputs(np.ones((1, 2)), TERM_WEIGHTS, center, center, 0.0, NO_MATRIX)
    with pytest.raises(ValueError, match="broken"):
        directions.CpuDirections(inputs, 2).write(tokens, offsets, padded_table(2000, 100))
    assert next(calls) < 1000


def test_words_beyond_those_that_are_ready_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents of more different words than are added at a time, frequent and rare ones in turns."""
    random = np.random.default_rng(1)
    tokens, offsets = random.integers(0, 900, 5000).astype(np.int32), np.array([0, 10, 10, 40, 5000])
    center, context = padded_table(900, 20), padded_table(900, 20)
    for table in (center, context):
        sphere.random_points(random, table[:, :20])
    inputs = DocumentInputs(random.random((900, 2)), TERM_WEIGHTS, center, context, 0.3, random.random((20, 20)))
    made = [np.zeros((4, 32), np.float32) for _ in range(3)]
    for out, n_ready in zip(made, (900, 200, 1), strict=True):
        monkeypatch.setattr(directions, "_SUMMAND_FLOATS", 32 * n_ready)
        directions.CpuDirections(inputs).write(tokens, offsets, out)
    assert made[0].tobytes() == made[1].tobytes() == made[2].tobytes()


@given(lines, st.integers(0, 2**32), st.integers(2, 40))
def test_both_ways_give_the_same_bytes(documents: list[str], seed: int, dim: int) -> None:
    if not any(documents):
        documents = [*documents, "a"]
    random = np.random.default_rng(seed)
    with encode_texts(documents, tokenizer="whitespace", min_count=1) as corpus:
        center, context = np.empty((2, corpus.vocabulary.n_words, dim), np.float32)
        for table in (center, context):
            sphere.random_points(random, table)
        weights, share = random.random((len(center), 2)) + 0.01, seed % 3 * 0.3
        rows = np.full((len(documents), dim), 7, np.float32)
        matrix = random.standard_normal((dim, dim)) if seed % 2 else NO_MATRIX
        inputs = DocumentInputs(weights, TERM_WEIGHTS, center, context, share, matrix)
        directions.CpuDirections(inputs).write(corpus.tokens, corpus.offsets, rows)
        padded_center, padded_context = (padded_table(len(center), dim) for _ in range(2))
        padded_center[:, :dim], padded_context[:, :dim] = center, context
        padded_rows = padded_table(len(rows), dim)
        padded = DocumentInputs(weights, TERM_WEIGHTS, padded_center, padded_context, share, matrix)
        directions.CpuDirections(padded).write(corpus.tokens, corpus.offsets, padded_rows)
        model = Embeddings.from_arrays(
            words=corpus.vocabulary.words,
            counts=corpus.vocabulary.counts,
            center_vectors=center,
            context_vectors=context,
            tokenizer="whitespace",
            extra_arrays={"word_weights": weights, "context_share": np.array(share)}
            | ({"document_matrix": matrix} if len(matrix) else {}),
        )
    found = model.infer_flagged(documents).vectors
    empty = np.array([not document.split() for document in documents])
    assert (rows[empty] == 7).all()
    assert found[~empty].tobytes() == rows[~empty].tobytes() == padded_rows[~empty, :dim].tobytes()
    assert not padded_rows[:, dim:].any()
    assert np.abs(np.linalg.norm(found[~empty].astype(np.float64), axis=1) - 1).max(initial=0) < 1e-6


@pytest.mark.parametrize("n", [4095, 4096, 4097, 9000])
def test_many_different_words_are_added_in_order(n: int) -> None:
    """More words than are converted at a time; the order of the additions stays."""
    random = np.random.default_rng(n)
    center = np.empty((n, 3), np.float32)
    sphere.random_points(random, center)
    words = tuple(f"w{i:05}" for i in range(n))
    weights = random.random((n, 2))
    model = Embeddings.from_arrays(
        words=words,
        counts=np.ones(n, np.int64),
        center_vectors=center,
        context_vectors=center,
        extra_arrays={"word_weights": weights},
    )
    order = random.permutation(n)
    total = np.zeros(3)
    for row in order:
        total = total + (weights[row, 0] + weights[row, 1]) * center[row].astype(np.float64)
    found = infer(model, [" ".join(words[row] for row in order)])[0]
    wanted = (total / np.sqrt(total[0] * total[0] + total[1] * total[1] + total[2] * total[2])).astype(np.float32)
    assert found.tobytes() == wanted.tobytes()


def test_only_so_many_unknown_words_are_named() -> None:
    text = "up east down up left"
    (found,) = small_model().encoder.infer_detailed([text], most_unknown=2)
    (whole,) = small_model().encoder.infer_detailed([text])
    assert found.unknown == ("up", "down")
    assert whole.unknown == ("up", "down", "left")
    assert (found.coverage, found.n_tokens) == (whole.coverage, whole.n_tokens) == (0.2, 5)


def test_a_million_words_are_no_limit(model: Embeddings) -> None:
    (found,) = model.encoder.infer_detailed(["t0w1 t0w2 nobody t1w3 " * 250_000])
    assert found.n_tokens == 1_000_000
    assert found.counts.tolist() == [250_000] * 3
    (rare,) = model.encoder.infer_detailed(["t0w1 t0w2 t1w3"])
    assert found.vector is not None
    assert rare.vector is not None
    # What a word says of the topic counts by the logarithm of its occurrences, up to the end of the table of them.
    presence, topic = model.encoder.word_weights[found.known].T
    assert rare.weights == pytest.approx(presence + topic)
    assert found.weights == pytest.approx(presence + topic * TERM_WEIGHTS[-1])
    assert len(TERM_WEIGHTS) == 65536
    assert TERM_WEIGHTS[[0, 1, 2]] == pytest.approx([1, 1, 1 + np.log(2)])


# ---- the weights ----------------------------------------------------------------------------------------------------


def resultant_lengths(documents: list[list[int]], n_words: int, vectors: np.ndarray) -> np.ndarray:
    """r(w)^2 as the documentation has it, word by word: the mean cosine of the centered vectors of two documents."""
    present = [d for d, words in enumerate(documents) if words]
    centered = vectors - vectors[present].mean(0)
    centered = centered / np.linalg.norm(centered, axis=1, keepdims=True)
    lengths = np.zeros(n_words)
    for word in range(n_words):
        rows = centered[[d for d in present if word in documents[d]]]
        cosines = rows @ rows.T
        n = len(rows)
        lengths[word] = (cosines.sum() - np.trace(cosines)) / (n * (n - 1)) if n > 1 else 0.0
    return lengths


@pytest.mark.parametrize("slice_floats", [1, 60, 1 << 20])
@pytest.mark.parametrize("at_once", [1, 40, 1 << 20])
def test_weights_rise_with_the_agreement_of_a_words_documents(
    monkeypatch: pytest.MonkeyPatch, slice_floats: int, at_once: int
) -> None:
    """Against the definition, whatever slices of the vocabulary and of the text are taken at a time."""
    monkeypatch.setattr(document_weights, "_SUM_FLOATS", slice_floats)
    monkeypatch.setattr(passages, "_AT_ONCE", at_once)
    random = np.random.default_rng(3)
    chosen = [random.integers(0, 15, random.integers(0, 12)).tolist() for _ in range(60)]
    with encode_texts([" ".join(f"w{w}" for w in words) for words in chosen], min_count=1) as corpus:
        documents = [corpus[d].tolist() for d in range(60)]
        vectors = np.zeros((60, 7), np.float32)
        sphere.random_points(random, vectors)
        for d, words in enumerate(documents):  # one word's documents point one way
            if 0 in words:
                vectors[d] = sphere.normalized(vectors[d] + 3 * np.eye(7, dtype=np.float32)[2])
        frequencies = directions.count_documents(corpus.tokens, corpus.offsets, corpus.vocabulary.n_words)
        holding = Counter(word for words in documents for word in set(words))
        assert frequencies.tolist() == [holding[word] for word in range(corpus.vocabulary.n_words)]
        weights = concentration_weights(corpus.tokens, corpus.offsets, frequencies, vectors)
        lengths = resultant_lengths(documents, corpus.vocabulary.n_words, vectors.astype(np.float64))
        present = sum(bool(words) for words in documents)
        idf = np.log((present + 1) / frequencies)
        assert retrieval_weights(frequencies, present) == pytest.approx(np.stack([0 * idf, idf], axis=1))
    assert lengths.min() < -0.02 < 0.5 < lengths.max()  # mean cosines, which are the squares
    lengths, n = np.maximum(lengths, 0), frequencies
    m, rarity = (lengths * n).sum() / n.sum(), 1 - n / (present + 1)
    topic = 4 * m**6 / (m**6 + 0.08**6) * lengths / m * n / (n + 5)
    presence = rarity / ((rarity * n).sum() / n.sum()) * n / (n + 20)
    assert weights == pytest.approx(np.stack([presence, topic], axis=1), abs=1e-4)


def test_frequent_words_are_weighed_by_a_sample_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    n_words, n_documents, length = 40, 4000, 12
    tokens = random.integers(0, n_words, n_documents * length).astype(np.int32)
    offsets = np.arange(0, len(tokens) + 1, length)
    vectors = np.empty((n_documents, 30), np.float32)
    sphere.random_points(random, vectors)
    vectors[:, 0] += (tokens.reshape(-1, length) < 8).any(1)  # the documents of eight words agree
    vectors[:] = sphere.normalized(vectors)
    frequencies = directions.count_documents(tokens, offsets, n_words)
    monkeypatch.setattr(document_weights, "_MOST_SUMMED", n_documents)
    whole = concentration_weights(tokens, offsets, frequencies, vectors)
    monkeypatch.setattr(document_weights, "_MOST_SUMMED", 500)
    monkeypatch.setattr(document_weights, "_SUM_FLOATS", 30 * 7)
    sampled = concentration_weights(tokens, offsets, frequencies, vectors)
    assert frequencies.min() > 900
    assert not np.array_equal(sampled, whole)
    assert np.corrcoef(sampled[:, 1], whole[:, 1])[0, 1] > 0.95
    monkeypatch.setattr(document_weights, "_WORTH_A_THREAD", 1)
    for threads in (2, 3, 50):
        again = concentration_weights(tokens, offsets, frequencies, vectors, threads=threads)
        assert again.tobytes() == sampled.tobytes()


def test_without_topics_all_words_count_by_their_presence_alone() -> None:
    """Documents that agree in nothing, and a single document: no weight is lost, none is anything but a number."""
    random = np.random.default_rng(1)
    for texts in (["a b c"], ["a b", "b c", "c a"] * 40):
        vectors = np.empty((len(texts), 50), np.float32)
        sphere.random_points(random, vectors)
        with encode_texts(texts, min_count=1) as corpus:
            frequencies = directions.count_documents(corpus.tokens, corpus.offsets, corpus.vocabulary.n_words)
            presence, topic = concentration_weights(corpus.tokens, corpus.offsets, frequencies, vectors).T
        assert presence == pytest.approx(frequencies / (frequencies + 20))  # all words are in equally many documents
        assert (topic >= 0).all()
        assert topic.max() < 1e-3
