"""Trainings on several machines in one process: what comes out, whatever their number, and what is lost on the way."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import signal
import socket
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
import simulated
from local_group import LocalGroup, MeanOwner

import jose_embed
from jose_embed.cli.program import train_main
from jose_embed.config import TrainConfig
from jose_embed.distributed import training
from jose_embed.distributed.cluster import connected
from jose_embed.distributed.dealing import dealt
from jose_embed.errors import ConfigError, CorpusError, TrainingError
from jose_embed.progress import SilentReporter
from jose_embed.text.records import TextOptions
from jose_embed.text.sources import Source, find_sources
from jose_embed.training.checkpoints import Checkpoints

CONFIG = TrainConfig(dim=16, min_count=2, workers=1, epochs=3, tokenizer="whitespace", backend="cpu")
CORPUS = planted.corpus(480)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated.files(tmp_path_factory.mktemp("planted") / "texts", [*CORPUS.texts[:-1], ""])


def test_one_machine_is_todays_trainer_byte_for_byte(folder: Path) -> None:
    for config in (CONFIG, dataclasses.replace(CONFIG, doc_method="trained", objective="pairwise")):
        here = jose_embed.train(folder, config=config)
        there = simulated.train(folder, 1, config)
        # the id is a checksum of all vectors, words, weights and ids
        assert there.manifest["id"] == here.manifest["id"]
        assert there.manifest["corpus"] == here.manifest["corpus"]
        assert [epoch["loss"] for epoch in there.manifest["training"]["epochs"]] == [
            epoch["loss"] for epoch in here.manifest["training"]["epochs"]
        ]


def test_the_same_number_of_machines_gives_the_same_bytes_twice(folder: Path) -> None:
    once, twice = (simulated.train(folder, 3, CONFIG, deltas="int8") for _ in range(2))
    assert once.manifest["id"] == twice.manifest["id"]


def test_text_vocabulary_and_ids_do_not_depend_on_the_number_of_machines(folder: Path) -> None:
    alone = jose_embed.train(folder, config=CONFIG)
    several = simulated.train(folder, 4, CONFIG)
    assert several.words == alone.words
    assert several.counts.tolist() == alone.counts.tolist()
    assert list(several.doc_ids) == list(alone.doc_ids)
    assert several.doc_token_counts.tolist() == alone.doc_token_counts.tolist()
    ours, theirs = several.manifest["corpus"], alone.manifest["corpus"]
    assert {name: value for name, value in ours.items() if name != "sha256"} == {
        name: value for name, value in theirs.items() if name != "sha256"
    }
    # which halves and samples a document falls into follows from its number in the whole text
    text = CORPUS.texts[5]
    assert np.allclose(several.infer([text])[0], several.doc_vectors[5], atol=1e-6)


def test_four_machines_keep_the_quality_that_averaging_loses(tmp_path: Path) -> None:
    # Few epochs: vectors that are averaged have hardly left their start.
    texts = planted.corpus(1600, seed=3)
    folder = simulated.files(tmp_path / "texts", texts.texts)
    config = dataclasses.replace(CONFIG, epochs=2, dim=32)
    found = {}
    for name, nodes in (("one", 1), ("four", 4), ("mean", 4)):
        made = simulated.groups(nodes)
        if name == "mean":
            made = made[0], LocalGroup(lambda _: MeanOwner(False), nodes)
        model = simulated.train(folder, nodes, config, made=made)
        rows, groups = planted.word_groups(model)
        found[name] = (
            planted.nearest_agree(model.doc_vectors, texts.topics),
            _contrast(model.center_vectors[rows], groups),
        )
    assert found["four"][0] >= found["one"][0] - 0.005
    assert found["four"][1] > 0.85 * found["one"][1]
    assert found["mean"][1] < 0.9 * found["four"][1]


def _contrast(vectors: np.ndarray, groups: np.ndarray) -> float:
    """The mean cosine of words of one topic minus that of words of two."""
    cosines, same = vectors @ vectors.T, groups[:, None] == groups
    np.fill_diagonal(same, False)
    return float(cosines[same].mean() - cosines[groups[:, None] != groups].mean())


@pytest.mark.parametrize("method", ["words", "trained"])
def test_reductions_over_three_machines_are_those_of_one(folder: Path, method: Any, monkeypatch: Any) -> None:
    config = dataclasses.replace(CONFIG, doc_method=method).for_text(5000)
    found: list[tuple[dict[str, Any], Any]] = []
    learn = training.learn_documents

    def with_the_same_words(shards: Any, *arguments: Any) -> dict[str, Any]:
        # The same vectors everywhere, documents by their numbers in the whole text.
        generator = np.random.default_rng(1)
        words = generator.normal(size=(2, 4000, 16)).astype(np.float32)
        documents = generator.normal(size=(480, 16)).astype(np.float32)
        first = 0
        for shard in shards._members:
            for table, rows in zip(shard._vectors, words, strict=False):
                table[:] = rows[: len(table)]
            shard._vectors.document[:] = documents[first : first + len(shard._vectors.document)]
            first += len(shard._vectors.document)
        learned = learn(shards, *arguments)
        found.append((learned, np.concatenate([shard._vectors.document for shard in shards._members])))
        return learned

    monkeypatch.setattr(training, "learn_documents", with_the_same_words)
    for nodes in (1, 3):
        simulated.train(folder, nodes, config)
    (one, documents), (three, theirs) = found
    assert one.keys() == three.keys()
    for name, values in one.items():
        assert np.allclose(values, three[name], rtol=1e-5, atol=1e-6), name
    assert np.abs(documents - theirs).max() < 2e-5


# ---- dealing --------------------------------------------------------------------------------------------------------


def test_files_are_dealt_in_their_order_by_bytes(tmp_path: Path) -> None:
    sizes = [40, 10, 10, 10, 10, 30, 10]
    for number, size in enumerate(sizes):
        (tmp_path / f"{number}.txt").write_bytes(b"a" * (size - 1) + b"\n")
    shares = dealt(find_sources(str(tmp_path)), 3)
    assert [[Path(source.name).name for source in share] for share in shares] == [
        ["0.txt"], ["1.txt", "2.txt", "3.txt", "4.txt"], ["5.txt", "6.txt"],
    ]  # fmt: skip


def test_too_few_or_too_unequal_files_say_to_split(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "a.txt").write_text("one two\n" * 1000)
    with pytest.raises(ConfigError, match=r"nodes is 2, but the text has 1 file.*split -n l/8 TEXT part-"):
        simulated.train(tmp_path, 2, CONFIG)
    (tmp_path / "b.txt").write_text("one\n")
    with pytest.raises(ConfigError, match=r"too unequal: one machine would read 8 kB of 8 kB; split them"):
        simulated.train(tmp_path, 2, CONFIG)
    with pytest.raises(ConfigError, match="-: has no size"):
        dealt([Source(None, "-")], 1)


def test_ids_and_kept_fields_stay_with_their_documents(tmp_path: Path) -> None:
    for part in range(4):
        lines = [
            json.dumps({"id": f"r{part}-{i}", "text": CORPUS.texts[part * 100 + i], "stars": part}) for i in range(100)
        ]
        (tmp_path / f"{part}.jsonl").write_text("\n".join(lines))
    options = TextOptions(id_field="id", keep_text=True, keep_fields=("stars",))
    model = simulated.train(tmp_path, 2, CONFIG, text=options)
    assert list(model.doc_ids) == [f"r{part}-{i}" for part in range(4) for i in range(100)]
    (found,) = model.similar_documents("r3-7", k=1)
    part, number = found.doc_id[1:].split("-")
    assert found.text == CORPUS.texts[int(part) * 100 + int(number)]
    assert found.fields == {"stars": int(part)}
    (tmp_path / "3.jsonl").write_text((tmp_path / "0.jsonl").read_text())
    with pytest.raises(CorpusError, match="the id 'r0-0' is given twice, in files of two machines"):
        simulated.train(tmp_path, 2, CONFIG, text=options)


def test_nothing_to_train_on_is_the_usual_error(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("one two three\n")
    with pytest.raises(CorpusError, match="no word occurs 5 times or more"):
        simulated.train(tmp_path, 2, dataclasses.replace(CONFIG, min_count=5))


# ---- losses and checkpoints -----------------------------------------------------------------------------------------


class At(SilentReporter):
    """Calls a function at the n-th sign of life of the training."""

    def __init__(self, n: int, call: Any) -> None:
        self._left, self._call, self._training, self.notes = n, call, False, list[str]()

    def start(self, phase: str, total: int | None, unit: str, done: int = 0) -> None:
        self._training = phase == "training"

    def advance(self, amount: int, **figures: float) -> None:
        if self._training:
            self._left -= 1
            if self._left == 0:
                self._call()

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.mark.parametrize("moment", [1, 5, 20])
def test_a_lost_machine_is_made_anew(folder: Path, moment: int) -> None:
    shards, owners = simulated.groups(3)
    reporter = At(moment, lambda: shards.lose(moment % 3))
    model = simulated.train(folder, 3, CONFIG, made=(shards, owners), reporter=reporter)
    assert planted.nearest_agree(model.doc_vectors[:-1], CORPUS.topics[:-1]) > 0.98
    for member in shards._members[1:]:  # all have the same words
        assert np.array_equal(member.words(), shards._members[0].words())


@pytest.mark.parametrize("moment", [2, 9])
def test_a_lost_owner_is_refilled_and_changes_nothing(folder: Path, moment: int) -> None:
    shards, owners = simulated.groups(2)
    assert owners is not None
    whole = simulated.train(folder, 2, CONFIG)
    model = simulated.train(
        folder, 2, CONFIG, made=(shards, owners), reporter=At(moment, lambda: owners.lose(moment % 2))
    )
    assert model.manifest["id"] == whole.manifest["id"]


@pytest.mark.parametrize("nodes", [1, 2])
def test_ctrl_c_writes_a_checkpoint_and_resume_continues(folder: Path, tmp_path: Path, nodes: int) -> None:
    run = tmp_path / "model.jose.run"
    with Checkpoints(run) as checkpoints:
        checkpoints.begin(False)
        reporter = At(2, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            simulated.train(folder, nodes, CONFIG, checkpoints=checkpoints, reporter=reporter)
    with Checkpoints(run) as checkpoints:
        checkpoints.begin(True)
        assert checkpoints.latest is not None
        assert 0 < checkpoints.latest.share < 1
        with pytest.raises(ConfigError, match=rf"ran with engine='ray' and nodes={nodes}; do the same"):
            simulated.train(folder, 3, CONFIG, checkpoints=checkpoints)
        model = simulated.train(folder, nodes, CONFIG, checkpoints=checkpoints)
    assert planted.nearest_agree(model.doc_vectors[:-1], CORPUS.topics[:-1]) > 0.98
    if nodes == 1:
        assert model.manifest["id"] == jose_embed.train(folder, config=CONFIG).manifest["id"]
    with Checkpoints(run) as checkpoints:
        checkpoints.begin(True)
        with pytest.raises(ConfigError, match=rf"engine='ray' and nodes={nodes}; do the same"):
            jose_embed.train(folder, config=CONFIG, checkpoint=checkpoints)


def test_shards_draw_by_the_number_of_a_document_in_the_whole_text(folder: Path) -> None:
    shards, owners = simulated.groups(2)
    simulated.train(folder, 2, CONFIG, made=(shards, owners))
    assert [member._first for member in shards._members] == [0, 240]
    assert [int(member._backend._rules.first_document) for member in shards._members] == [0, 240]


# ---- arguments ------------------------------------------------------------------------------------------------------


def test_engine_settings_that_cannot_be(folder: Path) -> None:
    for settings, message in (
        ({"engine": "spark"}, "engine is 'spark'; it must be one of local, ray"),
        ({"engine": "ray", "nodes": 0}, "nodes is 0; it must be a whole number from 1 to 1024"),
        ({"nodes": 2}, 'nodes is 2, which needs a cluster; add engine="ray"'),
        ({"engine": "ray", "deltas": "int4"}, "deltas is 'int4'; it must be one of float32, int8"),
    ):
        with pytest.raises(ConfigError, match=message):
            jose_embed.train(str(folder), config=CONFIG, **settings)
    with pytest.raises(ConfigError, match="engine='ray' reads files on its machines"):
        jose_embed.train(documents=["one two"], engine="ray")


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed here")
def test_without_ray_one_line_says_how_to_install_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "m.jose")
    assert train_main([str(folder), "--engine", "ray", "--nodes", "2", "--output", output]) == 2
    install = "engine='ray' needs packages that are not installed; run: pip install \"jose-embed[ray]\""
    assert capsys.readouterr().err.splitlines()[-1].endswith(install.replace("engine='ray'", "--engine ray"))


@pytest.mark.parametrize("found_by", ["address", "variable", "file"])
def test_a_cluster_that_does_not_answer_is_refused_at_once(
    found_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray would try for minutes, also with the file that a cluster left behind when it died."""
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(is_initialized=lambda: False))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    if found_by == "variable":
        monkeypatch.setenv("RAY_ADDRESS", address)
    elif found_by == "file":
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(f"{address}\n")
    with (
        pytest.raises(ConfigError, match=rf"address is '{address}', and no Ray cluster answers there"),
        connected(address if found_by == "address" else "auto"),
    ):
        pass


@pytest.mark.parametrize("address", ["nonsense", "ray://x:1", "x:0", "x:65536", ":6379"])
def test_an_address_is_auto_or_host_and_port(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(is_initialized=lambda: False))
    with pytest.raises(ConfigError, match=r"it must be auto or HOST:PORT"), connected(address):
        pass


def test_document_vectors_too_many_for_one_array_need_a_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_MOST_IN_ONE_ARRAY", 1000)
    with pytest.raises(ConfigError, match="the vectors of 480 documents take 30"):
        simulated.train(folder, 2, CONFIG)


def test_machines_write_their_documents_as_parquet(folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    model = simulated.train(folder, 2, CONFIG)
    without = simulated.train(folder, 2, CONFIG, doc_output=str(tmp_path / "out"))
    assert without.n_docs == 0
    assert np.array_equal(without.center_vectors, model.center_vectors)
    table = parquet.read_table(tmp_path / "out")
    assert table["id"].to_pylist() == list(model.doc_ids)
    assert np.array_equal(np.array(table["vector"].to_pylist(), np.float32), model.doc_vectors)
    assert table["tokens"].to_pylist() == model.doc_token_counts.tolist()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["part-00000.parquet", "part-00001.parquet"]


def test_a_place_for_documents_is_refused_before_the_text_is_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(training, "read_shares", lambda _: pytest.fail("the text is read"))
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"file/\.check-\w+: cannot be written"):
        simulated.train(folder, 2, CONFIG, doc_output=str(tmp_path / "file"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "part-00003.parquet").write_text("")
    with pytest.raises(ConfigError, match=r"out: holds part-00003\.parquet of another training; remove it"):
        simulated.train(folder, 2, CONFIG, doc_output=str(tmp_path / "out"))
