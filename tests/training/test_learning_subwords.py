"""Learning the vectors of n-grams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import jose_embed
from jose_embed.cli.program import train_main as train_command
from jose_embed.compute.cpu.ngrams import fit_ngrams
from jose_embed.compute.tables import Tables
from jose_embed.config import TrainConfig
from jose_embed.errors import ConfigError
from jose_embed.model.parts import SUBWORD_VECTORS
from jose_embed.model.subwords import Subwords
from jose_embed.progress import SilentReporter
from jose_embed.text.ngrams import Ngrams
from jose_embed.text.vocabulary import Vocabulary
from jose_embed.training.subwords import learn_subwords, ngrams_of, subword_bytes

STEMS, ENDINGS = ["bako", "demi", "fulu", "gora", "hyta", "kipe", "lonu", "miri"], ["ing", "ness", "able", "ward"]
SETTINGS = TrainConfig(dim=8, subwords=True, subword_buckets=997)


def planted(count: int) -> tuple[Vocabulary, Tables]:
    """Words whose direction is the sum of that of their stem and a little of that of their ending."""
    generator = np.random.default_rng(1)
    parts = {part: generator.standard_normal(8) for part in [*STEMS, *ENDINGS]}
    words = [stem + ending for stem in STEMS for ending in ENDINGS]
    rows = np.array([parts[word[:4]] + 0.7 * parts[word[4:]] for word in words])
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    keep = [place for place in range(len(words)) if place % 7]
    tables = Tables(rows[keep].copy(), rows[keep].copy(), np.empty((0, 8), np.float32))
    vocabulary = Vocabulary([words[place] for place in keep], np.full(len(keep), count, np.int64))
    planted_rows = dict(zip(words, rows, strict=True))
    held_out[:] = [(word, planted_rows[word]) for word in words if word not in vocabulary]
    return vocabulary, tables


held_out: list[tuple[str, np.ndarray]] = []


def test_words_that_were_held_out_are_composed_near_their_direction() -> None:
    vocabulary, tables = planted(1000)
    learned = learn_subwords(vocabulary, tables, SETTINGS, SilentReporter())
    subwords = Subwords(learned[SUBWORD_VECTORS], Ngrams(3, 6, 997))
    cosines = [float(vector @ row) for word, row in held_out if (vector := subwords.vector(word)) is not None]
    assert len(cosines) == len(held_out) == 5
    assert min(cosines) > 0.6
    assert np.mean(cosines) > 0.8


def test_a_pass_is_the_plain_descent_step() -> None:
    vocabulary, tables = planted(3)
    ngrams = Ngrams(3, 6, 29)
    rows, offsets = ngrams.rows_of_words(vocabulary.words)
    table, expected = np.zeros((29, 8), np.float32), np.zeros((29, 8))
    evidence = np.linspace(0.2, 1, len(vocabulary)).astype(np.float32)
    order = np.random.default_rng(2).permutation(len(vocabulary))
    fit_ngrams(tables.center, evidence, order, rows, offsets, table, np.empty(8, np.float32), 0.5, 0.1)
    for place, word in enumerate(order):
        own = rows[offsets[word] : offsets[word + 1]]
        rest = tables.center[word] - expected[own].sum(0) / np.sqrt(len(own))
        step = evidence[word] * (0.5 - 0.4 * place / len(order)) / np.sqrt(len(own))
        np.add.at(expected, own, step * rest)
    np.testing.assert_allclose(table, expected, atol=1e-5)


def test_rare_words_move_towards_their_spelling_and_frequent_ones_stay() -> None:
    moved = []
    for count in (1, 1_000_000):
        vocabulary, tables = planted(count)
        before = tables.center.copy()
        learn_subwords(vocabulary, tables, SETTINGS, SilentReporter())
        assert np.abs(np.linalg.norm(tables.center, axis=1) - 1).max() < 1e-6
        moved.append(np.abs(tables.center - before).max())
    assert moved[0] > 0.05
    assert moved[1] < 1e-4


def test_without_subwords_nothing_happens() -> None:
    vocabulary, tables = planted(1)
    before = tables.center.tobytes()
    assert learn_subwords(vocabulary, tables, TrainConfig(dim=8), SilentReporter()) == {}
    assert tables.center.tobytes() == before
    assert ngrams_of(TrainConfig()) is None
    assert subword_bytes(TrainConfig(), vocabulary.words) == 0
    n_ngrams = sum(len(Ngrams(3, 6, 997).of(word)) for word in vocabulary.words)
    assert subword_bytes(SETTINGS, vocabulary.words) == 4 * 997 * 8 + 8 * n_ngrams


def test_a_training_composes_unknown_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "t.txt"
    texts = [f"{stem}ing {stem}ness {stem}able" for stem in STEMS] * 6
    text.write_text("\n".join([*texts, "rare"]) + "\n")
    settings = {"dim": 8, "epochs": 2, "workers": 1, "subwords": True, "subword_buckets": 500}
    model = jose_embed.train(texts, **settings)
    assert model.is_composed("bakoward")
    assert model.config.subword_buckets == 500
    np.testing.assert_array_equal(model.infer([texts[3]])[0], model.doc_vectors[3])
    again = jose_embed.train(texts, **settings)
    assert again.id == model.id
    options = ["--dim", "8", "--epochs", "2", "--subwords", "--subword-buckets", "500", "--workers", "1"]
    assert train_command([str(text), "-o", str(tmp_path / "m.jose"), *options]) == 0
    assert "500 vectors" in capsys.readouterr().out
    assert train_command([str(text), "--dry-run", *options]) == 0
    assert "500 vectors" in capsys.readouterr().out


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="subword_shortest is 5, above subword_longest, which is 4"):
        TrainConfig(subwords=True, subword_shortest=5, subword_longest=4)
    with pytest.raises(ConfigError, match="subword_buckets is 0"):
        TrainConfig(subword_buckets=0)
    with pytest.raises(ConfigError, match="subwords are learned on one machine"):
        jose_embed.train("text.txt", subwords=True, engine="ray")
