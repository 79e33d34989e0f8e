"""The matrix of how reliably documents have a direction along each axis."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jose_embed.compute import sphere
from jose_embed.compute.backends import directions_writer
from jose_embed.compute.tables import DocumentInputs, padded_table
from jose_embed.model.inference import NO_MATRIX, TERM_WEIGHTS
from jose_embed.training import document_weights
from jose_embed.training.document_weights import reliability_matrix

Text = tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]


def text_of(documents: list[list[int]]) -> Text:
    tokens = np.array([word for words in documents for word in words], np.int32)
    return tokens, np.cumsum([0, *map(len, documents)], dtype=np.int64)


def matrix_of(text: Text, center: npt.NDArray[np.float32], dim: int) -> npt.NDArray[np.float64]:
    write = directions_writer(
        "cpu", DocumentInputs(np.ones((len(center), 2)), TERM_WEIGHTS, center, center, 0.0, NO_MATRIX)
    )
    return reliability_matrix(*text, dim, center.shape[1], 2.0, write)


def one_axis_of_topics() -> tuple[Text, npt.NDArray[np.float32]]:
    """400 documents of 30 words of 1,000; half have words of one side of the first axis, half of the other."""
    random = np.random.default_rng(5)
    center = padded_table(1000, 8)
    center[:, :8] = random.standard_normal((1000, 8))
    center[:500, 0] = np.abs(center[:500, 0])
    center[500:, 0] = -np.abs(center[500:, 0])
    center[:] = sphere.normalized(center)
    documents = [(500 * (d % 2) + random.choice(500, 30, replace=False)).tolist() for d in range(400)]
    return text_of(documents), center


def test_the_axis_of_the_topics_stays_and_the_others_shrink() -> None:
    text, center = one_axis_of_topics()
    matrix = matrix_of(text, center, 8)
    assert matrix == pytest.approx(matrix.T)
    assert matrix[0, 0] > 0.95
    assert np.diag(matrix)[1:].max() < 0.5
    assert np.linalg.eigvalsh(matrix).min() > 0


def test_pieces_and_a_sample_of_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    text, center = one_axis_of_topics()
    whole = matrix_of(text, center, 8)
    monkeypatch.setattr(document_weights, "_BLOCK_DOCUMENTS", 7)
    assert matrix_of(text, center, 8) == pytest.approx(whole, abs=1e-9)
    monkeypatch.setattr(document_weights, "_MOST_DOCUMENTS", 133)
    fewer = matrix_of(text, center, 8)
    assert np.abs(fewer - whole).max() > 1e-3
    assert fewer[0, 0] > 0.9


def test_occurrences_of_a_word_are_in_one_half() -> None:
    """Documents of one word that is repeated have no second half, and say nothing."""
    _, center = one_axis_of_topics()
    assert np.array_equal(matrix_of(text_of([[d] * 50 for d in range(100)]), center, 8), np.eye(8))


documents = st.lists(st.lists(st.integers(0, 19), max_size=20), max_size=30)


@given(documents, st.booleans())
def test_any_text_gives_a_matrix_that_shrinks_and_turns_nothing_round(some: list[list[int]], alike: bool) -> None:
    center = padded_table(20, 5)
    center[:, :5] = np.random.default_rng(1).standard_normal((20, 5))
    if alike:
        center[:] = center[0]
    center[:] = sphere.normalized(center)
    values = np.linalg.eigvalsh(matrix_of(text_of(some), center, 5))
    assert values.min() > 0
    assert values.max() < 1 + 1e-9
