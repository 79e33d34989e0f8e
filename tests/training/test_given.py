"""Training from given vectors: words begin there, are held there by their evidence, and others begin near them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest

import jose_embed
from jose_embed import ConfigError, Embeddings, ModelError
from jose_embed.cli.program import train_main
from jose_embed.compute.sphere import principal_axes
from jose_embed.model.exchange import export, write_vectors

TEXTS = planted.corpus(160).texts
SETTINGS: dict[str, Any] = {"dim": 16, "epochs": 3, "workers": 1, "min_count": 1, "progress": False}


@pytest.fixture(scope="module")
def model() -> Embeddings:
    return jose_embed.train(documents=TEXTS, **SETTINGS)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of the same words with unrelated vectors."""
    path = tmp_path_factory.mktemp("other") / "other.jose"
    jose_embed.train(documents=TEXTS, seed=9, **SETTINGS).save(path)
    return path


def cosines(model: Embeddings, given: Embeddings) -> np.ndarray:
    return np.array([model[word].astype(np.float64) @ given[word] for word in model.words if word in given])


def test_a_larger_pull_stays_nearer(other: Path) -> None:
    given = jose_embed.load(other)
    means = [
        cosines(jose_embed.train(documents=TEXTS, init=str(other), init_pull=pull, **SETTINGS), given).mean()
        for pull in (0, 30, 1000, 1e6)
    ]
    assert means == sorted(means), means
    assert means[0] < 0.99
    assert means[-1] > 1 - 1e-6


def test_a_large_pull_freezes_a_file(other: Path, tmp_path: Path) -> None:
    given = jose_embed.load(other)
    export(given, tmp_path / "v.bin")
    frozen = jose_embed.train(documents=TEXTS, init=str(tmp_path / "v.bin"), init_pull=1e6, **SETTINGS)
    assert cosines(frozen, given).min() > 1 - 1e-6


def test_words_with_more_evidence_move_further(tmp_path: Path) -> None:
    rare = ["t0w0 rare t0w1", "t1w0 seldom t1w1"]
    words = sorted({word for text in [*TEXTS, *rare] for word in text.split()})
    rows = np.random.default_rng(0).standard_normal((len(words), 16)).astype(np.float32)
    write_vectors(tmp_path / "v.txt", words, rows)
    trained = jose_embed.train(documents=[*TEXTS, *rare], init=str(tmp_path / "v.txt"), init_pull=10, **SETTINGS)
    given = dict(zip(words, rows / np.linalg.norm(rows, axis=1, keepdims=True), strict=True))
    kept = {word: float(trained[word] @ given[word]) for word in words}
    assert min(kept["rare"], kept["seldom"]) > np.mean([kept[f"c{c}"] for c in range(10)])


def test_words_without_a_vector_begin_among_their_contexts(tmp_path: Path) -> None:
    vectors = np.zeros((4, 16), np.float32)
    vectors[np.arange(4), np.arange(4)] = 1
    known = [f"t{topic}w{w}" for topic in range(4) for w in range(20)]  # five words of each topic are lacking
    write_vectors(tmp_path / "v.txt", known, np.repeat(vectors, 20, axis=0))
    settings = SETTINGS | {"epochs": 1, "learning_rate": 1e-6}
    start = jose_embed.train(documents=TEXTS, init=str(tmp_path / "v.txt"), init_pull=0, **settings)
    for topic in range(4):
        for w in range(20, 25):
            assert int(np.argmax(start[f"t{topic}w{w}"])) == topic


@pytest.mark.parametrize("dim", [4, 40])
def test_other_dimensions(model: Embeddings, tmp_path: Path, dim: int) -> None:
    export(model, tmp_path / "v.txt")
    settings = SETTINGS | {"dim": dim, "epochs": 1, "learning_rate": 1e-6}
    start = jose_embed.train(documents=TEXTS, init=str(tmp_path / "v.txt"), init_pull=0, **settings)
    rows = np.stack([model[word] for word in start.words]).astype(np.float64)
    if dim < 16:
        rows = rows @ principal_axes(rows.astype(np.float32), dim)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(start.center_vectors @ start.center_vectors.T, rows @ rows.T, atol=1e-3)


def test_one_worker_gives_the_same_bytes_again(other: Path) -> None:
    settings = SETTINGS | {"init": str(other), "init_pull": 50}
    whole = jose_embed.train(documents=TEXTS, **settings)
    again = jose_embed.train(documents=TEXTS, **settings)
    assert whole.id == again.id
    assert whole.id != jose_embed.train(documents=TEXTS, **settings | {"init_pull": 0}).id


def test_refused(other: Path, tmp_path: Path) -> None:
    write_vectors(tmp_path / "v.txt", ["nothing"], np.ones((1, 4), np.float32))
    for given, error, message in (
        ({"init": str(tmp_path / "v.txt")}, ConfigError, "no word of the text"),
        ({"init": str(tmp_path / "absent.vec")}, ModelError, "there is no such file"),
        ({"init": str(tmp_path)}, ModelError, "manifest.json: is missing"),
        ({"init": str(other), "init_pull": -1}, ConfigError, "init_pull is -1"),
    ):
        with pytest.raises(error, match=message):
            jose_embed.train(documents=TEXTS, **SETTINGS | given)


def test_the_command_prints_the_coverage(other: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(TEXTS) + "\n")
    arguments = [str(text), "-o", str(tmp_path / "new.jose"), "--dim", "16", "--epochs", "1", "--min-count", "1"]
    assert train_main([*arguments, "--init", str(other), "--init-pull", "5"]) == 0
    assert "110 of 110 words, 100.0% of the text, begin at given vectors" in capfd.readouterr().err
