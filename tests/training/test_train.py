"""A training run: what is visited and how often, what comes out, and how it ends."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest

import jose_embed
from jose_embed.compute.cpu import backend as cpu
from jose_embed.compute.sphere import normalized, random_points
from jose_embed.compute.tables import ChunkResult
from jose_embed.config import TrainConfig, preset_settings
from jose_embed.errors import ConfigError, CorpusError, TrainingError
from jose_embed.model.embeddings import Embeddings
from jose_embed.progress import SilentReporter
from jose_embed.text.corpus import EncodedCorpus
from jose_embed.text.encode import encode_texts
from jose_embed.training import epochs, initial
from jose_embed.training.estimate import estimate
from jose_embed.training.train import fit, train

ROOT = Path(__file__).resolve().parents[2]

# Small and quick; said here so that no test depends on a default.
SETTINGS: dict[str, Any] = {
    "dim": 16,
    "window": 5,
    "negatives": 2,
    "context_weight": 0.5,
    "doc_weight": 8.0,
    "learning_rate": 0.04,
    "margin": 0.15,
    "subsample_threshold": 1e-2,
    "min_count": 1,
    "epochs": 3,
    "objective": "pairwise",
    "negative_step": "paper",
    "word_method": "center",
    "doc_context_share": 0.0,
    "doc_method": "trained",
    "workers": 1,
    "tokenizer": "whitespace",
}


def training_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("jose-train")]


class Recorder(SilentReporter):
    """A reporter that remembers; ``at`` is called whenever a chunk of training is done."""

    def __init__(self, at: Callable[[int], None] = lambda n: None) -> None:
        self.phases: list[tuple[str, int | None, str]] = []
        self.amounts: Counter[str] = Counter()
        self.finished: list[dict[str, float]] = []
        self.figures: list[dict[str, float]] = []
        self._at = at

    def start(self, phase: str, total: int | None, unit: str, done: int = 0) -> None:
        self.phases.append((phase, total, unit))

    def advance(self, amount: int, **figures: float) -> None:
        phase = self.phases[-1][0]
        self.amounts[phase] += amount
        if phase == "training":
            self.figures.append(figures)
            self._at(len(self.figures))

    def finish(self, **figures: float) -> None:
        self.finished.append(figures)


# ---- which documents are visited, when ------------------------------------------------------------------------------


class RecordingBackend:
    """Moves nothing and remembers what it was asked for."""

    name = "recording"
    chunk_limits = (1 << 15, 1 << 19)

    def __init__(
        self, text: Any, samples: Any, tables: Any, config: TrainConfig, total_tokens: int, first_document: int = 0
    ) -> None:
        self.workers = self.threads = config.resolved_workers()
        self.collected = 0
        self.tables, self.config, self.total_tokens = tables, config, total_tokens
        self.calls: list[tuple[int, int, list[int]]] = []
        self.prepared = 0
        self._lock = threading.Lock()

    def prepare(self) -> None:
        self.prepared += 1

    def collect(self) -> None:
        self.collected += 1

    def train_chunk(self, documents: np.ndarray, epoch: int, first_token: int) -> ChunkResult:
        with self._lock:
            self.calls.append((first_token, epoch, documents.tolist()))
        return ChunkResult(0.5, 1, 2, 3)


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> list[RecordingBackend]:
    """Trainings use the recording backend; the list holds each that was made."""
    made: list[RecordingBackend] = []

    def make(*arguments: Any) -> RecordingBackend:
        made.append(RecordingBackend(*arguments))
        return made[-1]

    monkeypatch.setattr(cpu, "CpuBackend", make)
    return made


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("chunk_tokens", [1, 50, 10**9])
def test_every_document_is_visited_once_per_epoch(
    recording: list[RecordingBackend], monkeypatch: pytest.MonkeyPatch, workers: int, chunk_tokens: int
) -> None:
    monkeypatch.setattr(epochs, "chunk_tokens", lambda *_: chunk_tokens)
    texts = [("a " * (7 * i % 60)).strip() for i in range(100)]
    with encode_texts(texts, tokenizer="whitespace", min_count=1) as corpus:
        lengths = np.diff(corpus.offsets)
        fit(corpus, TrainConfig(**{**SETTINGS, "workers": workers, "epochs": 4}))
    (backend,) = recording
    assert backend.prepared == 1
    assert backend.collected == 1
    assert backend.total_tokens == 4 * lengths.sum()
    present = np.flatnonzero(lengths).tolist()
    orders = []
    for epoch in range(4):
        calls = sorted(call for call in backend.calls if call[1] == epoch)
        order = [document for _, _, documents in calls for document in documents]
        assert sorted(order) == present
        orders.append(order)
        # The learning rate follows the words before, whoever trains them.
        before = epoch * lengths.sum()
        for first_token, _, documents in calls:
            assert first_token == before
            size = lengths[documents].sum()
            assert size <= chunk_tokens or len(documents) == 1
            before += size
        assert before == (epoch + 1) * lengths.sum()
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize("workers", [1, 2])
def test_no_trained_row_is_near_its_random_start(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """Documents of one word and of 1,500, empty ones, ones of rare words only; every one with a word has moved."""
    starts: list[np.ndarray] = []

    def remembered(generator: np.random.Generator, out: np.ndarray) -> None:
        random_points(generator, out)
        starts.append(out.copy())

    monkeypatch.setattr(initial, "random_points", remembered)
    texts = planted.corpus(200).texts
    odd = {0: "", 17: "once only", 50: "t1w1", 51: " ".join(f"t2w{i % 25}" for i in range(1500)), 199: "   "}
    texts = [odd.get(i, text) for i, text in enumerate(texts)]
    model = train(documents=texts, **{**SETTINGS, "min_count": 2, "epochs": 10, "workers": workers})
    cosines = (starts[2] * model.doc_vectors).sum(1)
    untrained = [0, 17, 199]
    assert np.flatnonzero(model.doc_token_counts == 0).tolist() == untrained
    assert np.flatnonzero(cosines > 0.99).tolist() == untrained
    assert np.allclose(cosines[untrained], 1)
    assert model.doc_token_counts[51] == 1500
    assert model.manifest["counts"]["n_untrained"] == 3
    assert len(model.doc_ids) == 200
    found = model.similar_documents(doc_id="51", k=200)
    assert {neighbor.index for neighbor in found} == set(range(200)) - {*untrained, 50}


def test_lines_are_documents_whatever_they_hold(tmp_path: Path) -> None:
    """The end of a file without a line end, a word that other programs take for one, long lines, empty ones."""
    path = tmp_path / "text.txt"
    long = " ".join(["a", "b"] * 1200)
    path.write_bytes(b"a b c\n\n</s> a </s>\n" + long.encode() + b"\n\n a b end")
    model = train(path, **{**SETTINGS, "subsample_threshold": 1.0})
    assert list(model.doc_ids) == ["1", "2", "3", "4", "5", "6"]
    assert model.doc_token_counts.tolist() == [3, 0, 3, 2400, 0, 3]
    assert "</s>" in model
    assert model.counts[model.index_of("</s>")] == 2
    assert "end" in model
    # Without thinning every running word is a position, in every epoch.
    assert [epoch["positions"] for epoch in model.manifest["training"]["epochs"]] == [2409] * 3


# ---- the same samples, the same bytes -------------------------------------------------------------------------------


def sums(model: Embeddings) -> list[str]:
    tables = (model.center_vectors, model.context_vectors, model.doc_vectors)
    return [hashlib.sha256(np.ascontiguousarray(table).tobytes()).hexdigest() for table in tables]


def test_one_worker_and_one_seed_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = planted.corpus(60).texts
    first = train(documents=texts, **SETTINGS)
    assert sums(train(documents=texts, **SETTINGS)) == sums(first)
    assert sums(train(documents=texts, **{**SETTINGS, "seed": 2})) != sums(first)
    path = tmp_path / "text.txt"
    path.write_text("\n".join(texts))
    assert sums(train(path, **SETTINGS)) == sums(first)
    monkeypatch.setattr(epochs, "chunk_tokens", lambda *_: 70)
    assert sums(train(documents=texts, **SETTINGS)) == sums(first)
    code = (
        "import sys; sys.path[:0] = ['tests', 'tests/training']; import test_train as t, jose_embed\n"
        f"print(*t.sums(jose_embed.train({str(path)!r}, **t.SETTINGS)))"
    )
    other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert other.stdout.split() == sums(first)


def test_samples_do_not_depend_on_the_number_of_workers() -> None:
    """Which words are kept and which pairs are made is the same; only the order in which rows move differs."""
    texts = planted.corpus(400).texts
    settings = {**SETTINGS, "subsample_threshold": 1e-3}
    epochs = [
        [
            (epoch["positions"], epoch["pairs"])
            for epoch in train(documents=texts, **{**settings, "workers": workers}).manifest["training"]["epochs"]
        ]
        for workers in (1, 2)
    ]
    assert epochs[0] == epochs[1]
    assert len(set(epochs[0])) == 3  # every epoch draws its own


# ---- a known answer -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted_corpus() -> planted.Planted:
    return planted.corpus(400, n_words=60)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("objective", ["pairwise", "joint"])
@pytest.mark.parametrize("doc_method", ["trained", "words"])
def test_topics_are_found(
    planted_corpus: planted.Planted, monkeypatch: pytest.MonkeyPatch, objective: str, doc_method: str, workers: int
) -> None:
    monkeypatch.setattr(epochs, "chunk_tokens", lambda *_: 500)  # 50 chunks an epoch, for workers to meet in
    settings = {**SETTINGS, "objective": objective, "doc_method": doc_method, "workers": workers}
    model = train(documents=planted_corpus.texts, **{**settings, "epochs": 20, "learning_rate": 0.1})
    rows, topics = planted.word_groups(model)
    assert len(rows) == planted.TOPICS * planted.WORDS
    assert planted.nearest_agree(model.center_vectors[rows], topics) > 0.97
    assert planted.nearest_agree(model.doc_vectors, planted_corpus.topics) > 0.97
    for table in (model.center_vectors, model.context_vectors, model.doc_vectors):
        assert table.dtype == np.float32
        assert np.abs(np.linalg.norm(table.astype(np.float64), axis=1) - 1).max() < 1e-6
    losses = [epoch["loss"] for epoch in model.manifest["training"]["epochs"]]
    assert losses[-1] < 0.7 * losses[0]
    assert [neighbor.word[:2] for neighbor in model.most_similar("t3w7", k=10)].count("t3") >= 6
    if doc_method == "words":
        nearest = model.similar_documents(text="t0w1 t0w2 t0w3 t0w4", k=10)
        assert [planted_corpus.topics[neighbor.index] for neighbor in nearest].count(0) >= 9


def test_a_words_vector_may_be_the_direction_of_both_its_rows(planted_corpus: planted.Planted) -> None:
    center, both = (
        train(documents=planted_corpus.texts, **{**SETTINGS, "doc_method": "words", "word_method": name})
        for name in ("center", "both")
    )
    assert np.array_equal(both.context_vectors, center.context_vectors)
    expected = normalized(center.center_vectors + 0.3 * center.context_vectors)
    assert both.center_vectors == pytest.approx(expected, abs=2e-6)
    assert not np.allclose(both.center_vectors, center.center_vectors, atol=0.01)
    # Documents are directions of the vectors that words have now.
    assert np.array_equal(both.infer(planted_corpus.texts[:5]), both.doc_vectors[:5])


def test_documents_give_back_the_context_share_of_their_length() -> None:
    """The mean is over documents that have a word."""
    for n_words in (8, 50):
        texts = [*planted.corpus(40, n_words=n_words).texts, "", ""]
        model = train(documents=texts, **{**SETTINGS, "doc_method": "words", "doc_context_share": 0.6})
        assert model.encoder.context_share == pytest.approx(0.6 * n_words / (n_words + 100))
        assert model.config.doc_context_share == 0.6
    assert train(documents=texts, **{**SETTINGS, "doc_method": "words"}).encoder.context_share == 0.0


@pytest.mark.parametrize("n_words", [8, 100])
def test_documents_of_any_length_keep_their_topic_by_the_default_recipe(n_words: int) -> None:
    """Where neighbours tell the topic as documents do: a share of 0.4 leaves .94 of the documents of eight words."""
    texts, topics = planted.corpus(400, n_words=n_words)
    model = train(documents=texts, workers=1, tokenizer="whitespace", epochs=10)
    assert planted.nearest_agree(model.doc_vectors, topics) > 0.98


@pytest.mark.parametrize("doc_method", ["trained", "words"])
def test_the_order_of_the_file_does_not_matter(doc_method: str) -> None:
    """Topics that overlap, so that there is something to gain from the order; sorted and shuffled give the same."""
    agreement = {}
    for in_order in (True, False):
        mixed = planted.corpus(400, n_words=8, seed=5, in_order=in_order)
        agreement[in_order] = [
            planted.nearest_agree(
                train(
                    documents=mixed.texts, **{**SETTINGS, "epochs": 8, "seed": seed, "doc_method": doc_method}
                ).doc_vectors,
                mixed.topics,
            )
            for seed in (1, 2)
        ]
    assert abs(np.mean(agreement[True]) - np.mean(agreement[False])) < 0.03


@pytest.mark.parametrize("objective", ["pairwise", "joint"])
def test_the_largest_steps_stay_on_the_sphere(objective: str) -> None:
    texts = planted.corpus(40).texts
    settings = {**SETTINGS, "learning_rate": 1.0, "margin": 2.0, "negatives": 16, "window": 40, "doc_negatives": 16}
    model = train(documents=texts, **{**settings, "objective": objective, "epochs": 20})
    for table in (model.center_vectors, model.context_vectors, model.doc_vectors):
        assert np.abs(np.linalg.norm(table.astype(np.float64), axis=1) - 1).max() < 1e-6


@pytest.mark.shared_data
def test_twenty_newsgroups(shared_data: Path) -> None:
    """Trained rows on the shuffled file: more than the reference program's figures (.635 and .534)."""
    import gzip

    from jose_embed.analysis.gold_sets import read_labels
    from jose_embed.analysis.measures import classify, cluster

    with gzip.open(shared_data / "20news.txt.gz", "rt", encoding="utf-8", newline="\n") as file:
        texts = file.read().removesuffix("\n").split("\n")
    order = np.random.default_rng(0).permutation(len(texts))
    labels = read_labels(shared_data / "20news.label.txt")
    model = train(
        documents=[texts[row] for row in order], tokenizer="whitespace", doc_method="trained", workers=2, seed=1
    )
    vectors = np.empty_like(model.doc_vectors)
    vectors[order] = model.doc_vectors
    assert classify(vectors, labels, n_train=11_314).accuracy.mean > 0.65
    assert cluster(vectors, labels, seeds=(0,)).nmi.mean > 0.535


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell the peak")
@pytest.mark.parametrize("name", ["20news", "wiki"])
def test_memory_is_little_more_than_the_tables(shared_data: Path, tmp_path: Path, name: str) -> None:
    """From start to saved model, with two workers: 250 MB and 1.15 times the bytes of the three tables."""
    code = f"""
import re, jose_embed
model = jose_embed.train({str(shared_data / f"{name}.txt.gz")!r}, tokenizer="whitespace", epochs=1, workers=2)
model.save({str(tmp_path / "a.jose")!r})
tables = model.center_vectors.nbytes + model.context_vectors.nbytes + model.doc_vectors.nbytes
print(1024 * int(re.search(r"VmHWM:\\s*([0-9]+)", open("/proc/self/status").read())[1]), tables)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    peak, tables = map(int, done.stdout.split())
    assert peak < 250e6 + 1.15 * tables


# ---- how it ends ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_number_that_is_none_stops_the_run(monkeypatch: pytest.MonkeyPatch, which: int) -> None:
    """In the first epoch, by the loss."""
    tables = []

    def poisoned(generator: np.random.Generator, out: np.ndarray) -> None:
        random_points(generator, out)
        tables.append(out)
        if len(tables) == which + 1:
            out[5, 3] = np.nan

    monkeypatch.setattr(initial, "random_points", poisoned)
    reporter = Recorder()
    with pytest.raises(TrainingError, match=r"the loss became nan in epoch 1: .*lower learning_rate \(it is 0.04\)"):
        train(documents=planted.corpus(40).texts, reporter=reporter, **SETTINGS)
    assert training_threads() == []


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
@pytest.mark.parametrize("table", ["center", "context", "document"])
def test_a_row_off_the_sphere_never_leaves_the_run(
    recording: list[RecordingBackend], monkeypatch: pytest.MonkeyPatch, table: str, value: float
) -> None:
    """A row that the loss said nothing about."""

    def train_chunk(self: RecordingBackend, *_: Any) -> ChunkResult:
        getattr(self.tables, table)[3] = value
        return ChunkResult(0.5, 1, 2, 3)

    monkeypatch.setattr(RecordingBackend, "train_chunk", train_chunk)
    with pytest.raises(
        TrainingError, match=r"^a vector \(row 3\) has norm (nan|inf|0.0) after training; .*; lower learning_rate"
    ):
        train(documents=planted.corpus(40).texts, **SETTINGS)


def test_an_interrupt_leaves_no_thread() -> None:
    def interrupt(n: int) -> None:
        if n == 3:
            signal.raise_signal(signal.SIGINT)

    reporter = Recorder(interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(documents=planted.corpus(2000, n_words=100).texts, reporter=reporter, **{**SETTINGS, "workers": 2})
    assert training_threads() == []
    assert len(reporter.figures) == 3


def test_an_error_of_a_worker_ends_the_run(recording: list[RecordingBackend], monkeypatch: pytest.MonkeyPatch) -> None:
    def train_chunk(self: RecordingBackend, documents: np.ndarray, epoch: int, first_token: int) -> ChunkResult:
        if epoch == 1:
            raise ZeroDivisionError("broken")
        return ChunkResult(0.5, 1, 2, 3)

    monkeypatch.setattr(RecordingBackend, "train_chunk", train_chunk)
    with pytest.raises(ZeroDivisionError, match="broken"):
        train(documents=planted.corpus(40).texts, **{**SETTINGS, "workers": 3})
    assert training_threads() == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 1}, "dim is 1; it must be a whole number from 2 to 1024"),
        ({"epochs": -1}, "epochs is -1; it must be a whole number from 0 to 100000"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be a number above 0.0 to 1.0"),
        ({"dimension": 5}, "unknown setting dimension; did you mean dim?"),
        ({"text_feild": "x"}, "unknown setting text_feild; did you mean text_field?"),
        ({"tokenizer": "nothing"}, "nothing"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        train(documents=["a b"], **settings)
    assert message in str(refusal.value)


def test_single_settings_come_over_a_preset(recording: list[RecordingBackend]) -> None:
    model = train(documents=["a b c d"] * 5, config=TrainConfig(seed=9, negatives=3), preset="words", window=4, dim=8)
    expected = {**preset_settings("words"), "seed": 9, "negatives": 3, "window": 4, "dim": 8}
    assert model.manifest["config"] == TrainConfig(**expected).for_text(20).to_dict()
    with pytest.raises(ConfigError, match="preset is 'none'"):
        train(documents=["a"], preset="none")


def test_one_source_of_text_is_needed() -> None:
    for arguments in ({}, {"source": "a.txt", "documents": ["a"]}):
        with pytest.raises(ConfigError, match=r"either a source .* or documents=.*; give one"):
            train(**arguments)  # type: ignore[arg-type]


def test_text_without_words_is_refused() -> None:
    with pytest.raises(CorpusError, match="lower min_count"):
        train(documents=["a b c"], **{**SETTINGS, "min_count": 2})


# ---- what is said about it ------------------------------------------------------------------------------------------


def test_progress_and_the_record_of_the_run() -> None:
    reporter = Recorder()
    texts = planted.corpus(40).texts
    model = train(documents=iter(texts), reporter=reporter, config=TrainConfig(**SETTINGS), epochs=2, seed=9)
    n_tokens = model.manifest["counts"]["n_tokens"]
    phases = {phase: (total, unit) for phase, total, unit in reporter.phases}
    assert list(phases) == ["reading", "encoding", "compiling", "training", "document weights"]
    assert phases["training"] == (2 * n_tokens, "words")
    assert phases["document weights"] == (40, "documents")
    assert all(reporter.amounts[phase] == total for phase, (total, _) in phases.items() if total is not None)
    assert len(reporter.finished) == len(phases)
    assert reporter.figures[0].keys() == {"loss", "active"}
    training = model.manifest["training"]
    assert reporter.finished[3] == {name: training["epochs"][-1][name] for name in ("loss", "active")}
    assert training["backend"] == "cpu"
    assert training["workers"] == 1
    assert [epoch["epoch"] for epoch in training["epochs"]] == [1, 2]
    assert training["words_per_second"] > 0
    assert set(training["phases"]) == {"reading", "preparing", "training", "documents"}
    for epoch in training["epochs"]:
        assert 0 < epoch["active"] < 1
        assert 0 < epoch["loss"] < 2
    assert model.config == TrainConfig(**{**SETTINGS, "epochs": 2, "seed": 9})
    assert model.tokenizer.name == "whitespace"
    assert model.manifest["corpus"]["n_documents"] == 40


def test_the_public_entry_is_the_same_function() -> None:
    assert jose_embed.train is train


def test_a_loss_of_nothing_is_zero(recording: list[RecordingBackend]) -> None:
    """One word in all: there is no negative that differs, and nothing to divide by."""
    with encode_texts(["a", "a a"], min_count=1) as corpus:
        model = fit(corpus, TrainConfig(**{**SETTINGS, "epochs": 1}))
    assert model.manifest["training"]["epochs"][0]["loss"] == 0.25


def test_one_word_alone_can_be_trained() -> None:
    model = train(documents=["a", "a a a"], **SETTINGS)
    assert model.words == ("a",)
    assert np.isfinite(model.doc_vectors).all()


def test_an_estimate_is_made_without_touching_anything() -> None:
    with encode_texts(planted.corpus(100).texts, tokenizer="whitespace", min_count=1) as corpus:
        before = corpus.tokens.copy()
        one = estimate(corpus, TrainConfig(**SETTINGS))
        more = estimate(corpus, TrainConfig(**{**SETTINGS, "dim": 100}))
        assert np.array_equal(corpus.tokens, before)
    assert one.keys() == {"memory_bytes", "seconds"}
    assert one["seconds"] > 0
    rows = 2 * corpus.vocabulary.n_words + 100
    assert more["memory_bytes"] - one["memory_bytes"] == pytest.approx(4 * rows * (112 - 16))


def test_a_corpus_can_be_closed_after_training() -> None:
    corpus: EncodedCorpus = encode_texts(["a b", "b a c"], min_count=1)
    model = fit(corpus, TrainConfig(**SETTINGS))
    corpus.close()
    assert list(model.doc_ids) == ["1", "2"]
    assert model.doc_token_counts.tolist() == [2, 3]
