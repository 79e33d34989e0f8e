"""Training from given vectors: words begin there, are held there by their evidence, and others begin near them."""

from __future__ import annotations

import json
import signal
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
from jose_embed.progress import SilentReporter
from jose_embed.training import epochs

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


class Stopping(SilentReporter):
    """Presses Ctrl-C when so many chunks are trained; 0 for never."""

    def __init__(self, n: int) -> None:
        self._n = n
        self.n_chunks = 0
        self._phase = ""

    def start(self, phase: str, total: int | None, unit: str, done: int = 0) -> None:
        self._phase = phase

    def advance(self, amount: int, **figures: float) -> None:
        if self._phase == "training":
            self.n_chunks += 1
            if self.n_chunks == self._n:
                signal.raise_signal(signal.SIGINT)


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
        ({"init": str(tmp_path)}, ModelError, "is a directory, but not a model"),
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


@pytest.mark.parametrize("pull", [0, 20])
def test_a_resumed_training_has_the_same_bytes(
    other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pull: float
) -> None:
    """Stopped inside an epoch, and after its last chunk, before the words are pulled."""
    monkeypatch.setattr(epochs, "chunk_tokens", lambda *_: 500)
    settings = {**SETTINGS, "init": str(other), "init_pull": pull}
    del settings["progress"]
    whole = jose_embed.train(documents=TEXTS, reporter=(counted := Stopping(0)), **settings)
    n_chunks = counted.n_chunks // settings["epochs"]
    assert n_chunks > 2
    for n in (2, n_chunks, n_chunks + 1):
        run: dict[str, Any] = {"documents": TEXTS, "checkpoint": tmp_path / f"{n}.run", **settings}
        with pytest.raises(KeyboardInterrupt):
            jose_embed.train(reporter=Stopping(n), **run)
        resumed = jose_embed.train(resume=True, **run)
        for name in ("center_vectors", "context_vectors", "doc_vectors"):
            assert getattr(resumed, name).tobytes() == getattr(whole, name).tobytes(), (n, name)


def test_a_dry_run_counts_the_given_vectors(other: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text, wide = tmp_path / "text.txt", tmp_path / "wide.safetensors"
    text.write_text("\n".join(TEXTS) + "\n")
    words = [f"other{n}" for n in range(3000)] + ["t0w0"]
    write_vectors(wide, words, np.ones((len(words), 64), np.float32))
    need = []
    for more in ([], ["--init", str(other)], ["--init", str(wide)]):
        arguments = [str(text), "--dry-run", "--dim", "16", "--min-count", "1", "--log-json", *more]
        assert train_main(arguments) == 0
        lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
        need.append(next(line["needed"]["memory_bytes"] for line in lines if line["event"] == "summary"))
    assert need[0] < need[1] < need[2]
    assert need[2] - 2.2e8 > len(words) * 64 * 4
    assert train_main([str(text), "--dry-run", "--init", str(tmp_path / "absent.vec")]) == 2
    assert "there is no such file" in capfd.readouterr().err
