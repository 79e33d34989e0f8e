"""Two models are compared up to a rotation; a word that moved is found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import jose_embed
from jose_embed import ConfigError, Embeddings
from jose_embed.cli.program import main

N, DIM = 60, 8


def model(rows: np.ndarray, words: list[str] | None = None, start: int = 1000) -> Embeddings:
    units = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    words = words or [f"w{row}" for row in range(len(rows))]
    counts = [start - row for row in range(len(rows))]
    return Embeddings.from_arrays(words=words, counts=counts, center_vectors=units, context_vectors=units)


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((N, DIM))


def test_a_rotated_model_is_the_same(rows: np.ndarray) -> None:
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((DIM, DIM)))[0]
    found = jose_embed.compare(model(rows), model(rows @ turn))
    assert found.cosine == pytest.approx(1, abs=1e-6)
    assert found.overlap > 0.99
    assert (found.n_words, found.n_only_first, found.n_only_second, found.n_compared) == (N, 0, 0, N)


@pytest.mark.parametrize("dim", [8, 12])
def test_a_word_that_moved_is_named_first(rows: np.ndarray, dim: int) -> None:
    other = np.zeros((N, dim))
    other[:, :DIM] = rows
    other[7, :DIM] = -rows[7]
    order = np.random.default_rng(2).permutation(N)
    words = [f"w{row}" for row in order] + ["new"]
    second = model(np.concatenate([other[order], np.ones((1, dim))]), words)
    found = jose_embed.compare(model(rows), second, n_moved=3)
    assert (found.n_words, found.n_only_second) == (N, 1)
    assert found.moved[0].word == "w7"
    assert found.moved[0].cosine < -0.8
    assert found.moved[1].cosine > 0.9
    assert set(found.moved[0].before).isdisjoint(found.moved[0].after)
    swapped = jose_embed.compare(second, model(rows), n_moved=1)
    assert swapped.moved[0].before == found.moved[0].after


def test_rare_words_are_not_named(rows: np.ndarray) -> None:
    second = rows.copy()
    second[N - 1] *= -1
    found = jose_embed.compare(model(rows, start=N), model(second, start=N), min_count=2)
    assert all(word.word != f"w{N - 1}" for word in found.moved)


def test_unrelated_models_share_neighbors_by_chance(rows: np.ndarray) -> None:
    other = np.random.default_rng(5).standard_normal((N, DIM))
    found = jose_embed.compare(model(rows), model(other))
    assert 0.05 < found.overlap < 0.35


def test_refused(rows: np.ndarray) -> None:
    first = model(rows)
    with pytest.raises(ConfigError, match="0 words in common"):
        jose_embed.compare(first, model(rows, [f"v{row}" for row in range(N)]))
    with pytest.raises(ConfigError, match="neighbors is 0"):
        jose_embed.compare(first, first, neighbors=0)
    with pytest.raises(ConfigError, match="n_moved is -1"):
        jose_embed.compare(first, first, n_moved=-1)


def test_the_command(rows: np.ndarray, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first, second = str(model(rows).save(tmp_path / "a.jose")), str(model(rows).save(tmp_path / "b.jose"))
    assert main(["compare", first, second, "--top", "2"]) == 0
    printed = capfd.readouterr().out
    assert "60 in both, 0 and 0 in one only" in printed
    assert "1.000 of the 10 nearest words of 60 frequent words are the same" in printed
    assert main(["compare", first, second, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["n_words"] == N
    assert main(["compare", first, str(tmp_path / "none.jose")]) == 2
