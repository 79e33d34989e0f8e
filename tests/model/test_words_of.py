"""Words of a direction are those of the documents around it: by the formula, and on real text by their frequencies."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jose_embed
from jose_embed.errors import ConfigError, NoKnownWordsError
from jose_embed.model.embeddings import Embeddings
from jose_embed.model.parts import CONTEXT_SHARE, DOCUMENT_MATRIX, WORD_WEIGHTS

DIM = 6
N_WORDS = 40


def units(n: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def model_of(**changes: Any) -> Embeddings:
    """A model with everything that changes documents: weights, a context share, a matrix."""
    random = np.random.default_rng(0)
    matrix = random.standard_normal((DIM, DIM))
    parts: dict[str, Any] = {
        "words": [f"w{row}" for row in range(N_WORDS)],
        "counts": np.arange(N_WORDS, 0, -1) * 3,
        "center_vectors": units(N_WORDS, 1),
        "context_vectors": units(N_WORDS, 2),
        "doc_ids": ["a", "b", "c"],
        "doc_vectors": units(3, 3),
        "doc_token_counts": [2, 0, 5],
        "extra_arrays": {
            WORD_WEIGHTS: random.uniform(0.1, 2, (N_WORDS, 2)),
            CONTEXT_SHARE: np.array(0.3),
            DOCUMENT_MATRIX: matrix @ matrix.T,
        },
    }
    return Embeddings.from_arrays(**{**parts, **changes})


def by_formula(model: Embeddings, vector: np.ndarray, shrinkage: float, mean: np.ndarray) -> np.ndarray:
    """The scores of all words from the vectors of texts of one word."""
    directions = model.infer([[word] for word in model.words]).astype(np.float64) - mean
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    query = vector.astype(np.float64) - mean
    topic = model.extra_arrays[WORD_WEIGHTS][:, 1]
    reliability = np.sqrt(topic / topic.max() * model.counts / (model.counts + shrinkage))
    return reliability * (directions @ (query / np.linalg.norm(query)))


@pytest.mark.parametrize("shrinkage", [0, 10.0, 1e6])
def test_words_are_those_of_the_formula(shrinkage: float) -> None:
    model = model_of()
    mean = model.doc_vectors[[0, 2]].mean(0, dtype=np.float64)  # the untrained document is left out
    for found, vector in (
        (model.words_of("a", k=N_WORDS, shrinkage=shrinkage), model.doc_vectors[0]),
        (model.words_of(text="w3 w9 nothing", k=N_WORDS, shrinkage=shrinkage), model.infer(["w3 w9"])[0]),
        (model.words_of(vector=5 * model.doc_vectors[2], k=N_WORDS, shrinkage=shrinkage), model.doc_vectors[2]),
    ):
        expected = by_formula(model, vector, shrinkage, mean)
        order = np.argsort(-expected)
        assert [answer.index for answer in found] == order.tolist()
        assert [answer.word for answer in found] == [model.words[row] for row in order]
        np.testing.assert_allclose([answer.score for answer in found], expected[order], atol=1e-6)


def test_words_against_other_directions_are_those_of_the_formula() -> None:
    model = model_of()
    mean = model.doc_vectors[[0, 2]].mean(0, dtype=np.float64)
    others = [3 * units(2, 8)[0], units(2, 8)[1]]
    of_others = np.max([by_formula(model, units(2, 8)[i], 10.0, mean) for i in range(2)], axis=0)
    expected = by_formula(model, model.doc_vectors[0], 10.0, mean) - 0.5 * np.maximum(of_others, 0)
    found = model.words_of("a", against=others, k=N_WORDS)
    assert [answer.index for answer in found] == np.argsort(-expected).tolist()
    np.testing.assert_allclose([answer.score for answer in found], np.sort(expected)[::-1], atol=1e-6)
    assert model.words_of("a", against=others[0]) == model.words_of("a", against=others[:1])
    assert model.words_of("a", against=np.empty((0, DIM))) == model.words_of("a")


def test_without_document_vectors_the_mean_is_that_of_the_words() -> None:
    model = model_of(doc_ids=[], doc_vectors=None, doc_token_counts=None, config={"doc_vectors": "none"})
    shares = model.counts * model.extra_arrays[WORD_WEIGHTS].sum(1)
    mean = (shares / shares.sum()) @ model.infer([[word] for word in model.words]).astype(np.float64)
    expected = by_formula(model, units(1, 7)[0], 10.0, mean)
    assert [answer.index for answer in model.words_of(vector=units(1, 7)[0], k=5)] == np.argsort(-expected)[:5].tolist()
    with pytest.raises(ConfigError, match="keeps no document vectors"):
        model.words_of("a")


@pytest.mark.parametrize(
    ("weights", "what"),
    [
        (
            np.stack([np.zeros(N_WORDS), np.linspace(1, 9, N_WORDS)], axis=1),
            "retrieval, high for rare words",
        ),
        (np.stack([np.ones(N_WORDS), np.zeros(N_WORDS)], axis=1), "no topic at all"),
    ],
)
def test_weights_that_say_nothing_of_topics_are_not_used(weights: np.ndarray, what: str) -> None:
    model = model_of(extra_arrays={WORD_WEIGHTS: weights})
    scores = {answer.index: answer.score for answer in model.words_of("a", k=N_WORDS, shrinkage=0)}
    mean = model.doc_vectors[[0, 2]].mean(0, dtype=np.float64)
    directions = model.center_vectors - mean
    query = model.doc_vectors[0] - mean
    for row, score in scores.items():
        cosine = directions[row] @ query / np.linalg.norm(directions[row]) / np.linalg.norm(query)
        assert score == pytest.approx(cosine, abs=1e-6), what


def test_equal_words_come_by_frequency_and_shrinkage_puts_the_rare_one_behind() -> None:
    vectors = np.repeat(units(1, 1), N_WORDS, axis=0)
    model = model_of(center_vectors=vectors, extra_arrays={})
    vector = model.infer(["w0"])[0]
    assert [answer.index for answer in model.words_of(vector=vector, k=7, shrinkage=0)] == list(range(7))
    shrunk = model.words_of(vector=vector, k=N_WORDS)
    assert [answer.index for answer in shrunk] == list(range(N_WORDS))
    assert len({answer.score for answer in shrunk}) == N_WORDS


def test_a_model_of_one_document_answers_with_finite_scores() -> None:
    model = model_of(doc_ids=["a"], doc_vectors=units(1, 3), doc_token_counts=[2])
    found = model.words_of("a", k=100)
    assert len(found) == N_WORDS
    assert np.isfinite([answer.score for answer in found]).all()


def test_same_answers_every_time() -> None:
    first, second = (model_of().words_of(text="w3 w4", k=N_WORDS) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        ({}, ConfigError, "document, text, vector; give exactly one"),
        ({"document": "a", "text": "w1"}, ConfigError, "give exactly one"),
        ({"document": "z"}, ConfigError, "there is no document 'z'"),
        ({"document": "b"}, NoKnownWordsError, "document 'b' has no known word"),
        ({"text": "nothing known"}, NoKnownWordsError, "its words are unknown: 'nothing', 'known'"),
        ({"text": ""}, NoKnownWordsError, "it has no words"),
        ({"vector": np.zeros(DIM)}, ConfigError, "no direction"),
        ({"vector": np.ones(DIM + 1)}, ConfigError, "has the shape"),
        ({"vector": np.full(DIM, np.nan)}, ConfigError, "finite"),
        ({"document": "a", "against": np.zeros((2, DIM))}, ConfigError, "no direction"),
        ({"document": "a", "against": np.ones(DIM - 1)}, ConfigError, "has the shape"),
        ({"document": "a", "against": "b"}, ConfigError, "not an array of numbers"),
        ({"document": "a", "against": [np.ones(DIM), [1]]}, ConfigError, "different lengths"),
        ({"document": "a", "k": 0}, ConfigError, "k is 0"),
        ({"document": "a", "shrinkage": -1}, ConfigError, "shrinkage is -1"),
        ({"document": "a", "shrinkage": float("nan")}, ConfigError, "shrinkage is nan"),
    ],
)
def test_queries_that_are_refused(query: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        model_of().words_of(**query)


# ---- real text ----------------------------------------------------------------------------------------------------


def true_words(folder: Path, name: str, seed: int, tmp_path: Path) -> tuple[Sequence[int], Sequence[int]]:
    """For each class of a corpus: how many of the first 10 words of its centre, alone and against the centres of the
    other classes, are words of the class.

    Such a word occurs in 8 documents or more and is at least twice as frequent in its class as in any other.
    """
    with gzip.open(folder / f"{name}.txt.gz", "rt", encoding="utf-8") as file:
        texts = file.read().removesuffix("\n").split("\n")
    order = np.random.default_rng(0).permutation(len(texts))
    labels = np.loadtxt(folder / f"{name}.label.txt", dtype=np.int64)[order]
    path = tmp_path / f"{name}.txt"
    path.write_text("".join(f"{texts[row]}\n" for row in order), encoding="utf-8")
    model = jose_embed.train(str(path), seed=seed)
    n_classes = int(labels.max()) + 1
    counts, documents = np.zeros((model.n_words, n_classes)), np.zeros(model.n_words, np.int64)
    for row, label in zip(order, labels, strict=True):
        words = model.rows_of(texts[row].split())
        words = words[words >= 0]
        np.add.at(counts[:, label], words, 1)
        documents[np.unique(words)] += 1
    rates = counts / counts.sum(0)
    known = model.known_documents
    centres = np.array([model.doc_vectors[(labels == label) & known].mean(0) for label in range(n_classes)])
    counted: tuple[list[int], list[int]] = [], []
    for label, centre in enumerate(centres):
        for true, against in zip(counted, (None, np.delete(centres, label, axis=0)), strict=True):
            found = [answer.index for answer in model.words_of(vector=centre, against=against)]
            others = np.delete(rates[found], label, axis=1).max(axis=1)
            true.append(int(((rates[found, label] >= 2 * others) & (documents[found] >= 8)).sum()))
    return counted


@pytest.mark.shared_data
def test_words_of_classes_of_news(shared_data: Path, tmp_path: Path) -> None:
    alone, contrasted = true_words(shared_data, "bbc", 0, tmp_path)
    assert min(*alone, *contrasted) >= 6


# The classes "interest" and "money-fx" of R8 share their words, and so do the religions of 20 Newsgroups.
@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("name", "least", "least_contrasted"), [("bbc", 5, 5), ("r8", 7, 8), ("20news", 14, 16)])
def test_words_of_classes_that_nothing_is_tuned_on(
    shared_data: Path, tmp_path: Path, name: str, least: int, least_contrasted: int, seed: int
) -> None:
    alone, contrasted = true_words(shared_data, name, seed, tmp_path)
    assert sum(count >= 6 for count in alone) >= least, alone
    assert sum(count >= 6 for count in contrasted) >= least_contrasted, contrasted
