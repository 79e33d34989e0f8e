"""A model goes on with more text: counts add up, words move by new evidence, old documents stay or are made anew."""

from __future__ import annotations

import dataclasses
import json
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest

import jose_embed
from jose_embed import ConfigError, CorpusError, Embeddings, ModelError
from jose_embed.cli.program import main, train_main
from jose_embed.compute.sampling import keep_probability, noise_distribution
from jose_embed.compute.tables import Tables
from jose_embed.config import TrainConfig
from jose_embed.model.rare_words import rare_counts
from jose_embed.progress import SilentReporter
from jose_embed.text.encode import encode_texts
from jose_embed.text.kept import write_encoded
from jose_embed.training import epochs
from jose_embed.training.continued import begin_documents, opened
from jose_embed.training.schedule import epoch_starts

ALL = planted.corpus(200)
# "late" is frequent enough in both parts together only, "seldom" is not.
OLD = [*ALL.texts[:118], "t0w0 late late seldom t0w1", "t1w0 late t1w1"]
NEW = [*ALL.texts[120:198], "t0w2 late late t0w3 fresh fresh", "fresh fresh seldom fresh t2w0"]
SETTINGS: dict[str, Any] = {"dim": 16, "epochs": 3, "min_count": 4}
RUN: dict[str, Any] = {"workers": 1, "progress": False}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without the texts of its documents."""
    path = tmp_path_factory.mktemp("old") / "old.jose"
    jose_embed.train(documents=OLD, **SETTINGS, **RUN).save(path)
    return path


@pytest.fixture(scope="module")
def with_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with them."""
    path = tmp_path_factory.mktemp("texts") / "texts.jose"
    jose_embed.train(documents=OLD, keep_text=True, **SETTINGS, **RUN).save(path)
    return path


@pytest.fixture(scope="module")
def continued(old: Path) -> Embeddings:
    return jose_embed.train(documents=NEW, continue_from=str(old), **RUN)


def test_the_model_is_opened_once(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is checked is what is continued, also if another model takes its name meanwhile."""
    names: list[str] = []

    def load(name: str) -> Embeddings:
        names.append(name)
        return jose_embed.load(name)

    monkeypatch.setattr("jose_embed.training.continued.load", load)
    jose_embed.train(documents=NEW[:5], continue_from=str(old), **RUN)
    assert names == [str(old)]


def test_counts_are_those_of_both_texts(old: Path, continued: Embeddings) -> None:
    whole = jose_embed.train(documents=OLD + NEW, **SETTINGS, **RUN)
    assert dict(zip(continued.words, continued.counts, strict=True)) == dict(
        zip(whole.words, whole.counts, strict=True)
    )
    assert "late" in continued
    assert "late" not in jose_embed.load(old)
    assert rare_counts(continued) == rare_counts(whole) == {"seldom": 2}
    assert continued.config.min_count == SETTINGS["min_count"]
    facts = {name: continued.manifest["corpus"][name] for name in ("n_documents", "n_tokens_seen", "n_bytes")}
    assert facts == {name: whole.manifest["corpus"][name] for name in facts}


def test_a_chain_counts_all_texts(old: Path, tmp_path: Path) -> None:
    jose_embed.train(documents=NEW[:40], continue_from=str(old), **RUN).save(tmp_path / "b.jose")
    last = jose_embed.train(documents=NEW[40:], continue_from=str(tmp_path / "b.jose"), **RUN)
    whole = jose_embed.train(documents=OLD + NEW, **SETTINGS, **RUN)
    counts = dict(zip(whole.words, whole.counts, strict=True))
    assert {word: counts[word] for word in last.words} == dict(zip(last.words, last.counts, strict=True))
    assert rare_counts(last) == rare_counts(whole)
    assert last.n_docs == len(OLD) + len(NEW)


def test_words_move_by_the_new_evidence(old: Path) -> None:
    """A tenth of the text moves words less than all of it, and the axes stay those of the old model."""
    given = jose_embed.load(old)

    def moved(texts: list[str]) -> float:
        model = jose_embed.train(documents=texts, continue_from=str(old), **RUN)
        return float(np.mean([1 - model[word] @ given[word] for word in given.words]))

    few, many = moved(NEW[:8]), moved(NEW * 4)
    assert 0 < few < many / 2
    assert many < 0.5


def test_documents_without_their_text_are_carried_and_marked(old: Path, continued: Embeddings) -> None:
    given = jose_embed.load(old)
    assert continued.doc_vectors[: len(OLD)].tobytes() == given.doc_vectors.tobytes()
    assert continued.manifest["training"]["continued"]["carried_documents"] == len(OLD)
    np.testing.assert_array_equal(continued.doc_vectors[len(OLD) :], continued.infer_flagged(NEW).vectors)
    assert continued.doc_token_counts[: len(OLD)].tolist() == given.doc_token_counts.tolist()
    assert list(continued.doc_ids) == [str(number) for number in range(1, 201)]
    assert planted.nearest_agree(np.delete(continued.doc_vectors, [118, 119, 198, 199], 0), ORDER) > 0.95


ORDER = np.concatenate([ALL.topics[:118], ALL.topics[120:198]])


def test_documents_with_their_text_are_made_anew(
    with_texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [*NEW, "nothing known"]
    model = jose_embed.train(documents=texts, continue_from=str(with_texts), keep_text=True, **RUN)
    assert model.manifest["training"]["continued"]["carried_documents"] == 0
    np.testing.assert_array_equal(model.doc_vectors[:-1], model.infer(OLD + NEW))
    model.save(tmp_path / "m.jose")  # the last document has a random direction
    kept = jose_embed.load(tmp_path / "m.jose").texts
    assert kept is not None
    assert list(kept.every_text()) == OLD + texts
    # The index of words is stored with the texts, as by any training, and not made anew.
    monkeypatch.delattr("jose_embed.text.word_index.WordIndex.of_texts")
    kept.word_index(model.tokenizer)


def test_the_old_text_is_trained_again_in_a_part_of_the_last_epochs(with_texts: Path) -> None:
    """Of ten epochs the last five, each old document in two; by the rate that a training has before as many words."""
    continued = opened(str(with_texts))
    assert continued is not None
    with encode_texts(NEW, min_count=4, earlier=continued.words) as corpus:
        config = TrainConfig(dim=16, epochs=10, learning_rate=0.04)
        plan = continued.plan(corpus, config, None)
        more = continued.plan(corpus, dataclasses.replace(config, epochs=3), None)
        assert not continued.vectors(corpus, config).weights.any()
    assert plan.corpus.n_documents == len(OLD) + len(NEW)
    visits = np.full(plan.corpus.n_documents, 5)
    for epoch in range(5):
        visits[plan.left_out(epoch)] -= 1
        assert len(plan.left_out(epoch)) == 3 * len(OLD) / 5
    assert (visits[: len(OLD)] == 2).all()
    assert (visits[len(OLD) :] == 5).all()
    assert "the last 5 of 10 epochs; each of its 120 documents is in 2 of them" in plan.note
    assert more.config.epochs == 2
    words = int(visits @ np.diff(plan.corpus.offsets))
    assert epoch_starts(plan.corpus.offsets, 5, plan.left_out)[-1] == words
    rate = 0.04 * words / (10 * plan.corpus.n_tokens)
    assert plan.config == dataclasses.replace(config, epochs=5, learning_rate=rate)


def test_much_new_text_is_trained_for_more_epochs(with_texts: Path) -> None:
    continued = opened(str(with_texts))
    assert continued is not None
    with encode_texts(NEW * 6, min_count=4, earlier=continued.words) as corpus:
        plan = continued.plan(corpus, TrainConfig(dim=16, epochs=10), None)
        share = corpus.n_tokens / plan.corpus.n_tokens
    assert 0.7 < share < 0.9
    assert plan.config.epochs == math.ceil(10 * share)


def test_rows_of_documents_begin_where_words_pull_them() -> None:
    """Against the formula in float64; a document without a word keeps its row."""
    with encode_texts(["b a b c", "a c c a", "-", "a b c d"], min_count=2) as corpus:
        config = TrainConfig(dim=16).for_text(corpus.n_tokens)
        random = np.random.default_rng(0)
        tables = Tables(*(random.standard_normal((n, 16)).astype(np.float32) for n in (3, 3, 4)))
        before = tables.document[2].copy()
        begin_documents(corpus, config, tables, 1)
        counts, center = corpus.vocabulary.counts, tables.center.astype(np.float64)
        centered = center - noise_distribution(counts, config.noise_exponent) @ center
        kept = keep_probability(counts, config.subsample_threshold)
        for document in (0, 1, 3):
            total = sum(kept[word] * centered[word] for word in corpus[document])
            np.testing.assert_allclose(tables.document[document], total / np.linalg.norm(total), atol=1e-5)
    np.testing.assert_array_equal(tables.document[2], before)


def test_the_model_keeps_the_settings_of_a_whole_training(with_texts: Path) -> None:
    """Else each continuation would have half of the epochs of the last one."""
    model = jose_embed.train(documents=NEW, continue_from=str(with_texts), keep_text=True, **RUN)
    given = jose_embed.load(with_texts)
    assert (model.config.epochs, model.config.learning_rate) == (given.config.epochs, given.config.learning_rate)
    assert len(model.manifest["training"]["epochs"]) == 2


def test_an_encoded_text_serves_as_well(old: Path, tmp_path: Path) -> None:
    with encode_texts(OLD, min_count=SETTINGS["min_count"]) as corpus:
        write_encoded(corpus, tmp_path / "old.encoded")
    settings = {"continue_from": str(old), "earlier_text": str(tmp_path / "old.encoded"), **RUN}
    model = jose_embed.train(documents=NEW, **settings)
    # An encoded text has no words that were too rare then.
    rare = ("late", "seldom")
    lacking = [" ".join(word for word in text.split() if word not in rare) for text in OLD]
    np.testing.assert_array_equal(model.doc_vectors[: len(OLD)], model.infer(lacking))
    with encode_texts(OLD[::-1], min_count=SETTINGS["min_count"]) as corpus:
        write_encoded(corpus, tmp_path / "other.encoded")
    with pytest.raises(ConfigError, match="is not the text of"):
        jose_embed.train(documents=NEW, **settings | {"earlier_text": str(tmp_path / "other.encoded")})


def test_new_words_begin_among_their_contexts(old: Path) -> None:
    texts = [f"{text} planet" if "t3w" in text else text for text in NEW]
    model = jose_embed.train(documents=texts, continue_from=str(old), **RUN)
    nearest = [neighbor.word for neighbor in model.most_similar("planet", k=5)]
    assert sum(word.startswith("t3w") for word in nearest) >= 4, nearest


def test_ids_must_differ(tmp_path: Path) -> None:
    ids = [f"a{number}" for number in range(len(OLD))]
    jose_embed.train(documents=OLD, ids=ids, **SETTINGS, **RUN).save(tmp_path / "m.jose")
    run = {"continue_from": str(tmp_path / "m.jose"), **RUN}
    new_ids = [f"b{number}" for number in range(len(NEW))]
    assert list(jose_embed.train(documents=NEW, ids=new_ids, **run).doc_ids) == ids + new_ids
    with pytest.raises(CorpusError, match="'a7' is that of a new document, and of one of the model"):
        jose_embed.train(documents=NEW, ids=["a7", *new_ids[1:]], **run)


def test_refused(old: Path, with_texts: Path, tmp_path: Path) -> None:
    vectors = np.eye(3, 16, dtype=np.float32)
    words = ["t0w0", "t0w1", "t0w2"]
    Embeddings.from_arrays(words=words, counts=[3, 2, 1], center_vectors=vectors, context_vectors=vectors).save(
        tmp_path / "given.jose"
    )
    jose_embed.train(documents=["new york is big"] * 20, phrases=True, **SETTINGS, **RUN).save(tmp_path / "pairs.jose")
    for given, error, message in (
        ({"continue_from": str(tmp_path)}, ModelError, "is a directory, but not a model"),
        ({"continue_from": str(tmp_path / "given.jose")}, ConfigError, "was not trained by this program"),
        ({"continue_from": str(tmp_path / "pairs.jose")}, ConfigError, "has phrases"),
        ({"continue_from": str(old), "dim": 32}, ConfigError, r"dim is 32, but .* has 16"),
        ({"continue_from": str(old), "init": str(old)}, ConfigError, "both say where words begin"),
        ({"continue_from": str(old), "keep_text": True}, ConfigError, "keeps no texts and no fields"),
        ({"continue_from": str(with_texts)}, ConfigError, "keeps texts and no fields"),
        ({"continue_from": str(old), "backend": "gpu"}, ConfigError, "continue_from needs the CPU"),
        (
            {"continue_from": str(old), "engine": "ray", "nodes": 2},
            ConfigError,
            "continue_from starts trainings on one",
        ),
        ({"earlier_text": str(old)}, ConfigError, "add continue_from"),
        (
            {"continue_from": str(old), "earlier_text": str(old)},
            CorpusError,
            "is a directory, but not an encoded corpus",
        ),
    ):
        with pytest.raises(error, match=message):
            jose_embed.train(documents=NEW, **given)
    with pytest.raises(ConfigError, match="keep_encoded keeps a text and its own words"):
        jose_embed.train(tmp_path / "x.txt", continue_from=str(old), keep_encoded=tmp_path / "k")
    with encode_texts(NEW, min_count=1) as corpus:
        write_encoded(corpus, tmp_path / "new.encoded")
    with pytest.raises(ConfigError, match="whose rare words are lost"):
        jose_embed.train(tmp_path / "new.encoded", continue_from=str(old))


def test_a_text_without_a_known_word_adds_its_documents(old: Path) -> None:
    model = jose_embed.train(documents=["nothing known", "t0w0 t0w1"], continue_from=str(old), **RUN)
    assert model.n_docs == len(OLD) + 2
    assert model.doc_token_counts[-2:].tolist() == [0, 2]


def test_without_document_vectors(tmp_path: Path) -> None:
    settings = {**SETTINGS, "doc_vectors": "none"}
    jose_embed.train(documents=OLD, **settings, **RUN).save(tmp_path / "m.jose")
    model = jose_embed.train(documents=NEW, continue_from=str(tmp_path / "m.jose"), **RUN)
    assert model.n_docs == 0
    assert "fresh" in model


@pytest.mark.parametrize("settings", [{"doc_vectors": "mapped"}, {"doc_method": "trained"}])
def test_other_ways_to_make_documents(tmp_path: Path, settings: dict[str, Any]) -> None:
    jose_embed.train(documents=OLD, keep_text=True, **SETTINGS, **settings, **RUN).save(tmp_path / "m.jose")
    model = jose_embed.train(documents=NEW, continue_from=str(tmp_path / "m.jose"), keep_text=True, **RUN)
    model.save(tmp_path / "n.jose")
    assert planted.nearest_agree(np.delete(model.doc_vectors, [118, 119, 198, 199], 0), ORDER) > 0.9


class Stopping(SilentReporter):
    """Presses Ctrl-C when four chunks are trained."""

    def __init__(self) -> None:
        self._phase, self._n = "", 0

    def start(self, phase: str, total: int | None, unit: str, done: int = 0) -> None:
        self._phase = phase

    def advance(self, amount: int, **figures: float) -> None:
        self._n += self._phase == "training"
        if self._n == 4:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("kind", ["old", "with_texts"])
def test_it_resumes_to_the_same_bytes(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = request.getfixturevalue(kind)
    monkeypatch.setattr(epochs, "chunk_tokens", lambda *_: 500)
    (tmp_path / "new.txt").write_text("\n".join(NEW) + "\n")
    common: dict[str, Any] = {"continue_from": str(old), "workers": 1, "keep_text": kind == "with_texts"}
    run = {**common, "checkpoint": tmp_path / "m.run"}
    with pytest.raises(KeyboardInterrupt):
        jose_embed.train(tmp_path / "new.txt", reporter=Stopping(), **run)
    resumed = jose_embed.train(tmp_path / "new.txt", resume=True, progress=False, **run)
    whole = jose_embed.train(tmp_path / "new.txt", progress=False, **common)
    for name in ("center_vectors", "context_vectors", "doc_vectors"):
        assert getattr(resumed, name).tobytes() == getattr(whole, name).tobytes(), name


def test_the_command(old: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It prints how many neighbours stayed, replaces the model that it continues, and shows where it is from."""
    text, model = tmp_path / "new.txt", tmp_path / "m.jose"
    text.write_text("\n".join(NEW) + "\n")
    jose_embed.load(old).save(model)
    arguments = [str(text), "--continue-from", str(model), "-o", str(model), "--workers", "1"]
    assert train_main([*arguments, "--dry-run"]) == 0
    said = capfd.readouterr()
    assert "112" in said.out
    assert train_main(arguments) == 2
    assert train_main([*arguments, "--overwrite"]) == 0
    said = capfd.readouterr()
    assert "110 words seen" in said.err
    assert "of the 10 nearest words of 110 frequent words stayed" in said.out
    assert main(["info", str(model)]) == 0
    assert "the first 120 documents have the vectors of that model" in capfd.readouterr().out
    new = tmp_path / "n.jose"
    assert train_main([str(text), "--continue-from", str(old), "-o", str(new), "--log-json"]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert 0 < next(line["neighbors_kept"] for line in lines if line["event"] == "summary") <= 1
