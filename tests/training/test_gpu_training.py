"""Whole trainings, inference and the commands on the GPU backend: driver, kernels and trainer together.

The behaviour suite of the CPU (test_train.py) runs here unchanged with ``backend="gpu"``, behind the shim of
fake_cupy.py and, marked ``gpu``, on a device.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_cupy
import numpy as np
import planted
import pytest
import test_inference
import test_train as test_trainer
from fake_cupy import PLACES, FakeCupy, running_on
from hypothesis import given
from hypothesis import strategies as st
from test_line_vectors import blocks_of

import jose_embed
from jose_embed.cli.program import main, train_main
from jose_embed.compute import sphere
from jose_embed.compute.backends import directions_writer
from jose_embed.compute.cpu.directions import CpuDirections
from jose_embed.compute.gpu import backend as gpu
from jose_embed.compute.gpu import directions as gpu_directions
from jose_embed.compute.tables import DocumentInputs, padded_table
from jose_embed.errors import ConfigError, DeviceError, NoKnownWordsError
from jose_embed.model import inference, line_vectors
from jose_embed.model.embeddings import Embeddings
from jose_embed.model.inference import NO_MATRIX, TERM_WEIGHTS
from jose_embed.model.line_vectors import line_vectors as vectors_of_lines
from jose_embed.training import epochs

CONTRACTS = [
    "test_no_trained_row_is_near_its_random_start",
    "test_lines_are_documents_whatever_they_hold",
    "test_samples_do_not_depend_on_the_number_of_workers",
    "test_topics_are_found",
    "test_the_order_of_the_file_does_not_matter",
    "test_the_largest_steps_stay_on_the_sphere",
    "test_a_number_that_is_none_stops_the_run",
    "test_an_interrupt_leaves_no_thread",
    "test_one_word_alone_can_be_trained",
    "test_a_corpus_can_be_closed_after_training",
    "test_text_without_words_is_refused",
]
for contract in CONTRACTS:
    globals()[contract] = getattr(test_trainer, contract)
planted_corpus = test_trainer.planted_corpus


@pytest.fixture(scope="module", autouse=True, params=PLACES)
def where(request: pytest.FixtureRequest) -> Iterator[str]:
    """What runs the kernels: the shim or a device; test_train.py's trainings run on it too."""
    with pytest.MonkeyPatch.context() as patch, running_on(request.param) as place:
        patch.setitem(test_trainer.SETTINGS, "backend", "gpu")
        yield place


SETTINGS: dict[str, Any] = {
    "dim": 16,
    "min_count": 1,
    "epochs": 3,
    "subsample_threshold": 1e-2,
    "tokenizer": "whitespace",
}


# ---- beside the CPU -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["pairwise", "joint"])
@pytest.mark.parametrize("doc_method", ["words", "trained"])
def test_one_document_at_a_time_gives_the_model_of_the_cpu(objective: str, doc_method: str) -> None:
    texts = [*planted.corpus(60).texts, "", "once"]
    settings = {**SETTINGS, "objective": objective, "doc_method": doc_method, "workers": 1}
    on_cpu, on_gpu = (jose_embed.train(documents=texts, backend=name, **settings) for name in ("cpu", "gpu"))
    for name in ("center_vectors", "context_vectors", "doc_vectors"):
        # A hinge near zero is a matter of rounding, and one of them makes a step more.
        apart = np.abs(getattr(on_cpu, name) - getattr(on_gpu, name)).max(axis=1)
        assert np.median(apart) < 1e-4
        assert apart.max() < 0.05
    epochs = [model.manifest["training"]["epochs"] for model in (on_cpu, on_gpu)]
    for one, other in zip(*epochs, strict=True):
        assert (one["pairs"], one["positions"]) == (other["pairs"], other["positions"])
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
    assert on_gpu.manifest["training"]["backend"] == "gpu"
    assert on_gpu.manifest["training"]["workers"] == 1
    assert on_gpu.manifest["config"]["backend"] == "gpu"


def test_many_documents_at_a_time_find_the_topics(where: str) -> None:
    corpus = planted.corpus(400, n_words=60)
    settings = {**SETTINGS, "negatives": 2, "context_weight": 2.0, "epochs": 20, "learning_rate": 0.1}
    model = jose_embed.train(documents=corpus.texts, backend="gpu", **settings)
    at_a_time = model.manifest["training"]["workers"]
    assert at_a_time == 24 if where == "shim" else at_a_time > 1
    rows, topics = planted.word_groups(model)
    assert planted.nearest_agree(model.center_vectors[rows], topics) > 0.97
    assert planted.nearest_agree(model.doc_vectors, corpus.topics) > 0.97


def test_the_same_bytes_again(where: str) -> None:
    """From one document at a time, and behind the shim, whose warps take turns in order, from many."""
    texts = planted.corpus(60).texts
    for workers in (1, 5) if where == "shim" else (1,):
        models = [
            jose_embed.train(documents=texts, backend="gpu", workers=workers, seed=seed, **SETTINGS)
            for seed in (1, 1, 2)
        ]
        sums = [test_trainer.sums(model) for model in models]
        assert sums[0] == sums[1]
        assert sums[0] != sums[2]


def test_a_device_that_is_full_after_the_training_leaves_the_documents_to_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts, settings = planted.corpus(60).texts, {**SETTINGS, "backend": "gpu", "workers": 1, "doc_method": "words"}
    roomy = jose_embed.train(documents=texts, **settings)

    def full(*_: Any) -> None:
        raise DeviceError("no room")

    monkeypatch.setattr(gpu_directions.GpuDirections, "__init__", full)
    assert test_trainer.sums(jose_embed.train(documents=texts, **settings)) == test_trainer.sums(roomy)


def test_a_checkpoint_holds_what_moved_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that was interrupted and goes on has the bytes of one that was not."""
    monkeypatch.setattr(epochs, "chunk_tokens", lambda *_: 200)
    text, place = tmp_path / "text.txt", tmp_path / "a.jose.run"
    text.write_text("\n".join(planted.corpus(60).texts))
    settings = {**SETTINGS, "backend": "gpu", "workers": 1}
    whole = jose_embed.train(text, **settings)

    def stop() -> None:
        reporter = test_trainer.Recorder(lambda n: signal.raise_signal(signal.SIGINT) if n == 3 else None)
        with pytest.raises(KeyboardInterrupt):
            jose_embed.train(text, reporter=reporter, checkpoint=place, **settings)

    stop()
    on = jose_embed.train(text, checkpoint=place, resume=True, **settings)
    assert test_trainer.sums(on) == test_trainer.sums(whole)
    stop()
    with pytest.raises(ConfigError, match="began on the gpu and cannot continue on the cpu"):
        jose_embed.train(text, checkpoint=place, resume=True, **{**settings, "backend": "cpu"})


# ---- directions -----------------------------------------------------------------------------------------------------


words = st.lists(st.lists(st.integers(0, 6), max_size=80), min_size=1, max_size=12)


@given(words, st.integers(0, 2**32), st.sampled_from([2, 16, 20]))
def test_directions_are_the_bytes_of_the_cpu(documents: list[list[int]], seed: int, dim: int) -> None:
    random = np.random.default_rng(seed)
    center, context, weights = *np.empty((2, 7, dim), np.float32), random.random((7, 2)) + 0.01
    for table in (center, context):
        sphere.random_points(random, table)
    matrix = random.standard_normal((dim, dim)) if seed % 2 else NO_MATRIX
    tokens = np.array([word for words in documents for word in words], np.int32)
    offsets = np.cumsum([0, *map(len, documents)], dtype=np.int64)
    made = [np.full((len(documents), dim), 7, np.float32) for _ in range(2)]
    inputs = DocumentInputs(weights, TERM_WEIGHTS, center, context, seed % 3 * 0.3, matrix)
    CpuDirections(inputs).write(tokens, offsets, made[0])
    directions_writer("gpu", inputs)(tokens, offsets, made[1])
    assert made[0].tobytes() == made[1].tobytes()


def test_directions_of_32_lanes_are_the_bytes_of_the_cpu(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long documents with repeated words within and between the blocks of a warp, few rows at a time, padded tables."""
    monkeypatch.setattr(gpu_directions, "_ROWS_AT_ONCE", 5)
    random = np.random.default_rng(4)
    lengths = [0, 1, 31, 32, 33, 200, 0, 5, 64, 100, 3, 0]
    tokens = (random.integers(0, 40, sum(lengths)) ** 2 // 40).astype(np.int32)
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    weights = random.random((40, 2))
    for dim in (100, 200):
        center, context = padded_table(40, dim), padded_table(40, dim)
        for table in (center, context):
            sphere.random_points(random, table[:, :dim])
        matrix = random.standard_normal((dim, dim))
        made = [padded_table(len(lengths), dim) for _ in range(2)]
        term_weights = TERM_WEIGHTS[:4]  # so that the last is used
        inputs = DocumentInputs(weights, term_weights, center, context, 0.4, matrix)
        CpuDirections(inputs).write(tokens, offsets, made[0])
        with fake_cupy.installed(FakeCupy(32)) if where == "shim" else pytest.MonkeyPatch.context():
            directions_writer("gpu", inputs)(tokens, offsets, made[1])
        assert made[0].tobytes() == made[1].tobytes()
        assert np.flatnonzero(~made[0].any(axis=1)).tolist() == [0, 6, 11]


@pytest.fixture(scope="module")
def model(where: str) -> Embeddings:
    return jose_embed.train(
        documents=[*planted.corpus(80).texts, "t0w1 " * 3000], backend="cpu", workers=1, **{**SETTINGS, "epochs": 1}
    )


def test_inference_gives_the_bytes_of_the_cpu(model: Embeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*planted.corpus(20, seed=3).texts, "t1w1 nobody t1w1 knows c1", "t0w1 " * 70_000]
    wanted = model.infer(texts)
    monkeypatch.setattr(inference, "WORTH_COMPILING", 0)
    for backend in ("gpu", "auto"):
        assert model.infer(texts, backend=backend).tobytes() == wanted.tobytes()
    vectors, known = model.infer_flagged(["nothing", *texts, ""], backend="gpu")
    assert known.tolist() == [False, *[True] * len(texts), False]
    assert vectors[1:-1].tobytes() == wanted.tobytes()
    assert model.infer([], backend="gpu").shape == (0, 16)
    with pytest.raises(NoKnownWordsError, match=r"^text 2 has no direction: its words are unknown: 'nothing'"):
        model.infer(["t0w1", "nothing"], backend="gpu")
    with pytest.raises(ConfigError, match="backend is 'tpu'; it must be one of auto, cpu, gpu"):
        model.infer(["t0w1"], backend="tpu")


def test_words_that_cancel_have_no_direction_on_the_device_either() -> None:
    with pytest.raises(NoKnownWordsError, match=r"^text 1 has no direction"):
        test_inference.small_model().infer(["east west"], backend="gpu")


def test_lines_of_a_file_give_the_bytes_of_the_cpu(model: Embeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_vectors, "_PLAIN_BYTES", 0)
    lines = [*planted.corpus(300, seed=9).texts, "", "nobody knows", "t0w1"]
    made = []
    for backend, workers in (("cpu", 1), ("gpu", 1), ("gpu", 2)):
        parts = vectors_of_lines(model.encoder, blocks_of(lines, 70), workers=workers, backend=backend)
        made.append(np.concatenate([part.vectors for part in parts]).tobytes())
    assert made[0] == made[1] == made[2]


def test_a_device_without_room_for_the_words_is_refused(
    model: Embeddings, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "device":
        pytest.skip("a device has room for this model")
    monkeypatch.setattr(inference, "WORTH_COMPILING", 0)
    with fake_cupy.installed(FakeCupy(free_bytes=1000)):
        with pytest.raises(DeviceError, match=r"has no room for the vectors of \d+ words: .* GB are needed"):
            model.infer(["t0w1"], backend="gpu")
        assert model.infer(["t0w1"], backend="auto").tobytes() == model.infer(["t0w1"]).tobytes()


# ---- commands -------------------------------------------------------------------------------------------------------


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command; its exit status and what it wrote to both streams."""

    def run(command: Any, *arguments: object) -> tuple[int, str, str]:
        status = command([str(argument) for argument in arguments])
        return (status, *capsys.readouterr())

    return run


def test_the_commands_take_a_backend(said: Callable[..., tuple[int, str, str]], tmp_path: Path, where: str) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(planted.corpus(60).texts))
    small = ("--min-count", 1, "--epochs", 1, "--dim", 16)
    output = tmp_path / "a.jose"
    status, out, _ = said(train_main, text, "--backend", "gpu", "-o", output, *small)
    assert status == 0
    assert " documents at a time" in out
    assert jose_embed.load(output).manifest["training"]["backend"] == "gpu"
    status, out, _ = said(train_main, text, "--backend", "gpu", "--dry-run", *small)
    rows = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert status == 0
    assert rows["backend"] == "gpu"
    assert rows["memory"].endswith(" on the GPU")
    _, _, notes = said(train_main, text, "-o", tmp_path / "b.jose", *small)
    assert "backend gpu, " in notes
    _, _, notes = said(train_main, text, "-o", tmp_path / "c.jose", "--workers", 1, *small)
    assert "backend cpu, 1 worker (--workers 1 counts threads" in notes
    made = []
    for backend in ("cpu", "gpu"):
        vectors = tmp_path / f"{backend}.npy"
        assert said(main, "embed", output, text, "-o", vectors, "--backend", backend)[0] == 0
        made.append(vectors.read_bytes())
    assert made[0] == made[1]


def test_a_gpu_that_is_not_there_is_one_line_and_status_2(
    said: Callable[..., tuple[int, str, str]], tmp_path: Path, where: str
) -> None:
    if where == "device":
        pytest.skip("there is one")
    text = tmp_path / "text.txt"
    text.write_text("a b c\n" * 10)
    model = tmp_path / "a.jose"
    assert said(train_main, text, "-o", model, "--backend", "cpu")[0] == 0
    with fake_cupy.installed(FakeCupy(n_devices=0)):
        for command in (
            (train_main, text, "-o", tmp_path / "b.jose", "--backend", "gpu"),
            (train_main, text, "--dry-run", "--backend", "gpu"),
            (main, "embed", model, text, "-o", tmp_path / "b.npy", "--backend", "gpu"),
        ):
            status, out, complaint = said(*command)
            assert status == 2
            assert out == ""
            assert complaint.count("\n") == 1
            assert "backend is gpu, but CuPy finds no CUDA device; install the driver of a CUDA device" in complaint
    assert not (tmp_path / "b.jose").exists()
    assert not (tmp_path / "b.npy").exists()
    status, _, complaint = said(train_main, text, "-o", tmp_path / "b.jose", "--backend", "tpu")
    assert status == 2
    assert "backend is 'tpu'; it must be one of auto, cpu, gpu" in complaint


def test_a_model_without_room_on_the_device_is_refused_with_numbers(where: str) -> None:
    if where == "device":
        pytest.skip("a device has room for this model")
    with (
        fake_cupy.installed(FakeCupy(free_bytes=1000)),
        pytest.raises(DeviceError, match=r"the training needs 0\.27 GB"),
    ):
        jose_embed.train(documents=planted.corpus(20).texts, backend="gpu", **SETTINGS)
    assert gpu.CHUNK_LIMITS[1] * 32 > 0.26e9


# ---- quality, on a device -------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.shared_data
def test_twenty_newsgroups_on_a_device(shared_data: Path, where: str) -> None:
    """As good as on the CPU: directions .791 / .640, trained rows .715."""
    import gzip

    from jose_embed.analysis.gold_sets import read_labels
    from jose_embed.analysis.measures import classify, cluster

    if where == "shim":
        pytest.skip("a device's work: the shim would need minutes")
    with gzip.open(shared_data / "20news.txt.gz", "rt", encoding="utf-8", newline="\n") as file:
        texts = file.read().removesuffix("\n").split("\n")
    order = np.random.default_rng(0).permutation(len(texts))
    labels = read_labels(shared_data / "20news.label.txt")
    model = jose_embed.train(documents=[texts[row] for row in order], tokenizer="whitespace", backend="gpu")
    vectors = np.empty_like(model.doc_vectors)
    vectors[order] = model.doc_vectors
    assert classify(vectors, labels, n_train=11_314).accuracy.mean > 0.78
    assert cluster(vectors, labels, seeds=(0, 1, 2)).nmi.mean > 0.61
