"""Topics of documents with a known answer: their number, words and documents; near-duplicates."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import jose_embed
from jose_embed.analysis.duplicates import near_duplicates
from jose_embed.analysis.topics import _words, number_of_topics
from jose_embed.analysis.vmf import Mixture
from jose_embed.cli.program import main
from jose_embed.errors import ConfigError
from jose_embed.model.embeddings import Embeddings
from jose_embed.model.words_of import WordDirections
from jose_embed.progress import SilentReporter

DIM = 30
N_TOPICS, WORDS_EACH, DOCS_EACH = 6, 12, 60


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def planted(**changes: Any) -> Embeddings:
    """Six topics around orthogonal axes, with words and documents of their own; the last document is untrained."""
    random = np.random.default_rng(0)
    axes = np.eye(DIM)[:N_TOPICS] + np.eye(DIM)[N_TOPICS]  # all share a direction
    words = unit(np.tile(axes, (WORDS_EACH, 1)) + 0.05 * random.standard_normal((N_TOPICS * WORDS_EACH, DIM)))
    documents = unit(np.repeat(axes, DOCS_EACH, axis=0) + 0.15 * random.standard_normal((N_TOPICS * DOCS_EACH, DIM)))
    parts: dict[str, Any] = {
        "words": [f"t{row % N_TOPICS}w{row // N_TOPICS}" for row in range(len(words))],
        "counts": np.arange(len(words), 0, -1) * 100,
        "center_vectors": words,
        "context_vectors": words,
        "doc_ids": [f"d{row}" for row in range(len(documents))] + ["none"],
        "doc_vectors": np.concatenate([documents, np.eye(DIM, dtype=np.float32)[-1:]]),
        "doc_token_counts": [5] * len(documents) + [0],
    }
    return Embeddings.from_arrays(**{**parts, **changes})


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted().save(tmp_path_factory.mktemp("topics") / "m.jose")


def test_planted_topics_are_found_unaided() -> None:
    model = planted()
    found = jose_embed.topics(model, n_documents=4)
    assert len(found) == N_TOPICS
    assert sum(topic.n_documents for topic in found) == N_TOPICS * DOCS_EACH
    assert found.doc_topics[-1] == -1
    named = set()
    for topic in found:
        (name,) = {word[:2] for word in topic.words}  # no word of another topic
        named.add(name)
        rows = np.flatnonzero(found.doc_topics == topic.number)
        assert set(rows // DOCS_EACH) == {int(name[1])}
        assert set(topic.doc_rows) <= set(rows)
        assert topic.doc_ids == tuple(model.doc_ids[row] for row in topic.doc_rows)
        assert topic.share == pytest.approx(1 / N_TOPICS, abs=0.01)
        assert list(topic.scores) == sorted(topic.scores, reverse=True)
    assert len(named) == N_TOPICS
    assert [topic.number for topic in found] == list(range(N_TOPICS))
    np.testing.assert_array_equal(found.memberships()[:-1].argmax(1), found.doc_topics[:-1])
    assert not found.memberships()[-1].any()


def test_same_bytes_every_time_and_another_seed_finds_the_same_topics() -> None:
    first, second, other = (
        jose_embed.topics(planted()),
        jose_embed.topics(planted()),
        jose_embed.topics(planted(), seed=7),
    )
    assert first.mixture.means.tobytes() == second.mixture.means.tobytes()
    assert repr(first) == repr(second)
    for a, b in ((first, other), (other, first)):
        pairs = set(zip(a.doc_topics.tolist(), b.doc_topics.tolist(), strict=True))
        assert len(pairs) == N_TOPICS + 1


def test_a_given_number_and_a_given_vocabulary() -> None:
    found = jose_embed.topics(planted(), 3, n_words=5, among=["t0w1", "t1w1", "unknown", "t0w1"])
    assert len(found) == 3
    words = [word for topic in found for word in topic.words]
    assert sorted(words) == ["t0w1", "t1w1"]
    assert len(jose_embed.topics(planted(), 1)) == 1


def test_a_topic_whose_words_are_nearer_to_another_one_is_not_described_by_rare_words() -> None:
    def at(degrees: Sequence[float]) -> np.ndarray:
        return np.column_stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])

    rows = at([0, 1, 24, 24.5, 90]).astype(np.float32)  # two of the first topic, two between both, a rare one
    model = SimpleNamespace(n_words=5, counts=np.array([1000, 1000, 1000, 1000, 1]))
    directions = SimpleNamespace(rows=rows, reliability=lambda shrinkage: np.ones(5, np.float32))
    mixture = Mixture(at([0, 50]), np.full(2, 10.0), np.full(2, 0.5), 0.0)
    first, second = _words(model, directions, mixture, 2, None)  # type: ignore[arg-type]
    assert sorted(first[0]) == [0, 1]
    assert sorted(second[0]) == [2, 3]
    assert second[1] == pytest.approx(np.cos(np.radians([0.25, 0.25])) * 1000 / 1100, rel=1e-4)  # from their mean


def test_texts_are_assigned() -> None:
    found = jose_embed.topics(planted())
    topics, probabilities = found.assign(["t3w1 t3w2", "unknown", "", "t5w1"])
    assert topics[[1, 2]].tolist() == [-1, -1]
    assert not probabilities[[1, 2]].any()
    assert found[topics[0]].words[0].startswith("t3")
    assert found[topics[3]].words[0].startswith("t5")
    np.testing.assert_allclose(probabilities[[0, 3]].sum(1), 1)


@pytest.mark.parametrize("draw", range(3))
def test_the_number_of_many_topics_of_unequal_sizes(draw: int) -> None:
    # The best of independent runs for each number, whose local optima differ, finds 34, 32 and 32 here.
    random = np.random.default_rng(draw)
    centres = unit(random.standard_normal((30, 20)))
    topic = random.choice(30, 900, p=random.dirichlet(np.full(30, 5.0)))
    vectors = unit(centres[topic] + 0.7 / np.sqrt(20) * random.standard_normal((900, 20)))
    assert number_of_topics(vectors) == pytest.approx(30, abs=1)


@pytest.mark.parametrize("n", [1, 2, 3, 41])
def test_few_documents(n: int) -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((n, DIM)))
    assert number_of_topics(vectors) == (3 if n >= 3 else 1)
    model = planted(doc_ids=[str(row) for row in range(n)], doc_vectors=vectors, doc_token_counts=[1] * n)
    found = jose_embed.topics(model)
    assert 1 <= len(found) <= 3
    assert np.isfinite(found.memberships()).all()


def test_equal_documents_are_one_topic_or_more_and_nothing_breaks() -> None:
    vectors = np.repeat(unit(np.ones((1, DIM))), 100, axis=0)
    model = planted(doc_ids=[str(row) for row in range(100)], doc_vectors=vectors, doc_token_counts=[1] * 100)
    found = jose_embed.topics(model)
    assert sum(topic.n_documents for topic in found) == 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_topics": 0}, "n_topics is 0"),
        ({"n_topics": 2.5}, "n_topics is 2.5"),
        ({"n_topics": True}, "n_topics is True"),
        ({"n_topics": 361}, "n_topics is 361; there are 360 documents"),
        ({"n_words": -1}, "n_words is -1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        jose_embed.topics(planted(), **options)


def test_a_model_without_documents_is_refused() -> None:
    with pytest.raises(ConfigError, match="keeps no document vectors"):
        jose_embed.topics(planted(doc_ids=[], doc_vectors=None, doc_token_counts=None, config={"doc_vectors": "none"}))
    with pytest.raises(ConfigError, match="no document with a known word"):
        jose_embed.topics(planted(doc_token_counts=[0] * (N_TOPICS * DOCS_EACH + 1)))


def test_words_near_each_other_come_before_one_that_is_near_the_topic_alone() -> None:
    def direction(along: float, axis: int) -> np.ndarray:
        return along * np.eye(DIM)[0] + np.sqrt(1 - along**2) * np.eye(DIM)[axis]

    # Ten words lie together beside the topic's direction; another one is nearer to it, but far from them.
    rows = np.stack([direction(0.8, 1)] + [direction(0.75, 2) for _ in range(10)]).astype(np.float32)
    words = WordDirections(rows, rows, 0.0, np.empty((0, 0)), np.ones((11, 2)), np.full(11, 1000), mean=np.zeros(DIM))
    model = planted(
        words=["alone", *(f"w{i}" for i in range(10))], counts=[1000] * 11, center_vectors=rows, context_vectors=rows
    )
    topic = Mixture(np.eye(DIM)[:1], np.array([10.0]), np.ones(1), 0.0)
    [(found, scores)] = _words(model, words, topic, 11, None)
    assert [model.words[row] for row in found] == [*(f"w{i}" for i in range(10)), "alone"]
    assert (np.diff(scores) <= 0).all()
    assert scores[0] <= 1
    [(first, _)] = _words(model, words, topic, 3, None)
    assert first.tolist() == found[:3].tolist()


class Phases(SilentReporter):
    """Notes the phases: name, total and what was done."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, int | None, int]] = []
        self._running: list[tuple[str, int | None]] = []
        self._done = 0

    def start(self, phase: str, total: int | None, unit: str, done: int = 0) -> None:
        assert not self._running, "phases do not overlap"
        self._running.append((phase, total))
        self._done = done

    def advance(self, amount: int, **figures: float) -> None:
        self._done += amount

    def finish(self, **figures: float) -> None:
        self.ended.append((*self._running.pop(), self._done))


def test_phases_are_reported_and_their_totals_are_what_is_done() -> None:
    found, given, pairs, none = Phases(), Phases(), Phases(), Phases()
    jose_embed.topics(planted(), reporter=found)
    jose_embed.topics(planted(), 3, reporter=given)
    assert [name for name, _, _ in found.ended] == ["number", "starts", "mixture", "assigning"]
    assert [name for name, _, _ in given.ended] == ["starts", "mixture", "assigning"]
    n = 1300  # more than two blocks of rows
    many = {"doc_ids": [str(row) for row in range(n)], "doc_token_counts": [1] * n}
    near_duplicates(planted(**many, doc_vectors=np.tile(np.eye(DIM, dtype=np.float32), (44, 1))[:n]), reporter=pairs)
    assert pairs.ended == [("comparing", n * (n - 1) // 2, n * (n - 1) // 2)]
    near_duplicates(planted(doc_token_counts=[0] * (N_TOPICS * DOCS_EACH + 1)), reporter=none)
    assert none.ended == [("comparing", 0, 0)]
    for phases in (found, given):
        assert all(total == done > 0 for _, total, done in phases.ended)


# ---- the command line ---------------------------------------------------------------------------------------------


def test_topics_as_table_json_and_csv(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topics", str(model_path)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["topic", "share", "documents", "concentration", "words"]
    assert len(table) == 1 + N_TOPICS + 2 + 3 * N_TOPICS
    assert main(["topics", str(model_path), "-k", "3", "--words", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [topic["topic"] for topic in found] == [0, 1, 2]
    assert all(len(topic["words"]) == 2 and len(topic["documents"]) == 3 for topic in found)
    assert main(["topics", str(model_path), "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert sum(int(row["documents"]) for row in rows) == N_TOPICS * DOCS_EACH


@pytest.mark.parametrize("command", [["topics"], ["near-duplicates", "--above", "0.8"]])
def test_progress_goes_to_standard_error_and_quiet_leaves_it_out(
    command: list[str], model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, str(model_path), "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)
    assert re.search(r"^(assigning: 360 documents|comparing: 64.6 k pairs) in ", shown.err, re.MULTILINE)
    assert main([*command, str(model_path), "--json", "--quiet"]) == 0
    assert capsys.readouterr() == (shown.out, "")


def test_assigned_lines(model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "new.txt").write_text("t3w1 t3w2\nunknown\nt3w4\n", encoding="utf-8")
    assert main(["topics", str(model_path), "--assign", str(tmp_path / "new.txt"), "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["id"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["topic"] == rows[2]["topic"] != ""
    assert rows[1] == {"id": "2", "topic": "", "probability": "0.0000"}
    assert main(["topics", str(model_path), "--assign", str(tmp_path / "new.txt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[1]["topic"] is None
    assert main(["topics", str(model_path), "--assign", str(tmp_path / "new.txt")]) == 0
    assert "(no known word)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-k", "0"], "'0' is not a whole number of at least 1"),
        (["-k", "5000"], "5000; there are 360 documents"),
        (["--by", "year"], "--keep-fields"),
        (["--seed", "-1"], "seed is -1"),
        (["--assign", "no-such-file"], "no-such-file"),
        (["--json", "--csv"], "not allowed with"),
    ],
)
def test_mistakes_are_one_line(
    model_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["topics", str(model_path), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


# ---- near-duplicates ----------------------------------------------------------------------------------------------


def test_near_duplicates_are_those_of_all_pairs() -> None:
    model = planted()
    vectors = model.doc_vectors.astype(np.float64)
    expected = sorted(
        (-cosine, a, b)
        for a in range(len(vectors) - 1)
        for b in range(a + 1, len(vectors) - 1)
        if (cosine := float(vectors[a] @ vectors[b])) >= 0.8
    )
    assert len(expected) > 100
    for k in (7, len(expected), 10**6):
        found = near_duplicates(model, above=0.8, k=k)
        assert [(pair.a, pair.b) for pair in found] == [(f"d{a}", f"d{b}") for _, a, b in expected[:k]]
        np.testing.assert_allclose([pair.cosine for pair in found], [-c for c, _, _ in expected[:k]], atol=1e-6)


def test_equal_documents_come_by_row_and_no_more_than_wanted() -> None:
    vectors = np.repeat(unit(np.ones((1, DIM))), 5000, axis=0)
    model = planted(doc_ids=[str(row) for row in range(5000)], doc_vectors=vectors, doc_token_counts=[1] * 5000)
    assert [(pair.a, pair.b) for pair in near_duplicates(model, above=1, k=3)] == [("0", "1"), ("0", "2"), ("0", "3")]


def test_near_duplicates_on_the_command_line(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["near-duplicates", str(model_path), "--above", "0.8", "-k", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    assert main(["near-duplicates", str(model_path), "--above", "0.8", "-k", "2", "--csv"]) == 0
    assert capsys.readouterr().out.startswith("cosine,document,document\n")
    assert main(["near-duplicates", str(model_path)]) == 0
    assert main(["near-duplicates", str(model_path), "--above", "1.5"]) == 2
    assert "1.5; it must be a cosine" in capsys.readouterr().err
