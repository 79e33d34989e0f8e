"""The engine on a real Ray cluster of two nodes on the loopback: results, losses, object stores, what is left behind.

`make test-ray` runs these with Ray in an environment of its own.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
import simulated
from local_cluster import two_nodes

import jose_embed
from jose_embed.config import TrainConfig
from jose_embed.distributed import cluster as engine
from jose_embed.distributed.embedding import embed_on_ray
from jose_embed.distributed.exchange import Owner
from jose_embed.distributed.forecast import forecast
from jose_embed.distributed.shard import Shard
from jose_embed.errors import ConfigError, CorpusError
from jose_embed.progress import SilentReporter
from jose_embed.text.records import TextOptions
from jose_embed.training.engine import EngineOptions

ray = pytest.importorskip("ray", reason="Ray is not installed (make test-ray)")
pq = pytest.importorskip("pyarrow.parquet")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]  # Ray has many

CONFIG = TrainConfig(dim=16, min_count=2, workers=1, epochs=6, tokenizer="whitespace", backend="cpu")
CORPUS = planted.corpus(480)
KILLS = int(os.environ.get("JOSE_RAY_KILLS", "24"))

#: jose-train; Ray takes 127.0.0.1 in an address for another interface of this machine, where nothing listens.
PROGRAM = """
import functools, sys, ray, ray._private.services
ray._private.services.is_localhost = lambda _: False
ray.init = functools.partial(ray.init, _node_ip_address="127.0.0.1")
from jose_embed.cli.program import train_main
sys.exit(train_main())
"""
TRAIN = [sys.executable, "-W", "ignore", "-c", PROGRAM]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with two_nodes() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated.files(tmp_path_factory.mktemp("planted") / "texts", CORPUS.texts)


@pytest.fixture
def nothing_left(address: str) -> Iterator[None]:
    """After the test no actor and no placement group is left."""
    yield
    state = pytest.importorskip("ray.util.state")
    util = pytest.importorskip("ray.util")
    for _ in range(100):
        groups = [group for group in util.placement_group_table().values() if group["state"] != "REMOVED"]
        alive = [node for node in ray._private.state.actors().values() if node["State"] != "DEAD"]
        if not groups and not alive:
            return
        time.sleep(0.2)
    raise AssertionError((groups, alive, state))


def train(folder: Path, nodes: int, config: TrainConfig = CONFIG, **settings: Any) -> jose_embed.Embeddings:
    return jose_embed.train(str(folder), config=config, engine="ray", nodes=nodes, **settings)


@pytest.mark.usefixtures("nothing_left")
def test_one_node_gives_the_bytes_of_todays_trainer(folder: Path) -> None:
    assert train(folder, 1).manifest["id"] == jose_embed.train(folder, config=CONFIG).manifest["id"]


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("deltas", ["float32", "int8"])
def test_two_nodes_give_the_bytes_of_the_simulation(folder: Path, deltas: str) -> None:
    model = train(folder, 2, deltas=deltas)
    assert model.manifest["id"] == simulated.train(folder, 2, CONFIG, deltas=deltas).manifest["id"]
    assert model.manifest["training"]["engine"]["nodes"] == 2
    assert planted.nearest_agree(model.doc_vectors, CORPUS.topics) > 0.98


@pytest.mark.usefixtures("nothing_left")
def test_errors_of_a_machine_are_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nodes is 3, but the cluster has 2 machines"):
        train(folder, 3)
    broken = simulated.files(tmp_path / "texts", CORPUS.texts[:40], 2)
    (broken / "part-001.txt").write_bytes(b"one\0two\n" * 300)
    with pytest.raises(CorpusError, match=r"part-001\.txt: byte 3 is NUL, so this is binary") as raised:
        train(broken, 2)
    assert type(raised.value) is CorpusError


class Killer(threading.Thread):
    """Kills a random member now and then while a training runs."""

    def __init__(self, seed: int, most: int) -> None:
        super().__init__(daemon=True)
        self.kills, self._random, self._most = 0, random.Random(seed), most
        self._groups: list[engine.RayGroup] = []
        self._ended = threading.Event()

    def run(self) -> None:
        while self.kills < self._most and not self._ended.wait(self._random.uniform(0.3, 2.5)):
            if not self._groups:
                continue
            # All must be there: what is lost with all machines at the same time is in checkpoints only.
            with contextlib.suppress(Exception):
                members = [actor for group in self._groups for actor in group._actors]
                pids = ray.get([member.pid.remote() for member in members], timeout=30)
                os.kill(self._random.choice(pids), signal.SIGKILL)
                self.kills += 1

    def watch(self, group: engine.RayGroup) -> None:
        self._groups.append(group)

    def end(self) -> None:
        self._ended.set()
        self.join()


@pytest.mark.usefixtures("nothing_left")
def test_members_that_are_killed_at_random_moments_cost_time_and_no_quality(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = engine.RayGroup.__init__
    killer = Killer(0, 0)

    def watched(self: engine.RayGroup, *arguments: Any) -> None:
        made(self, *arguments)
        killer.watch(self)

    monkeypatch.setattr(engine.RayGroup, "__init__", watched)
    total, seed = 0, 0
    while total < KILLS:
        seed += 1
        killer = Killer(seed, min(6, KILLS - total))
        killer.start()
        try:
            model = train(folder, 2, TrainConfig(**{**CONFIG.to_dict(), "epochs": 60, "seed": seed}))
        finally:
            killer.end()
        total += killer.kills
        assert planted.nearest_agree(model.doc_vectors, CORPUS.topics) > 0.98
        rows, groups = planted.word_groups(model)
        assert planted.nearest_agree(model.center_vectors[rows], groups) > 0.98
    print(f"{total} kills in {seed} trainings")


def started(folder: Path, address: str, output: Path, *more: str) -> subprocess.Popen[str]:
    options = ["--engine", "ray", "--nodes", "2", "--address", address, "--output", str(output), "--dim", "16"]
    options += ["--min-count", "2", "--workers", "1", "--epochs", "400", "--tokenizer", "whitespace", *more]
    return subprocess.Popen([*TRAIN, str(folder), *options], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def until_checkpoint(run: Path, program: subprocess.Popen[str]) -> None:
    for _ in range(3000):
        if list(run.glob("checkpoint-*")):
            return
        assert program.poll() is None, program.communicate()
        time.sleep(0.1)
    raise AssertionError("no checkpoint")


@pytest.mark.usefixtures("nothing_left")
def test_a_driver_that_is_killed_resumes(folder: Path, address: str, tmp_path: Path) -> None:
    output, kills = tmp_path / "m.jose", 6
    for kill in range(kills):
        program = started(folder, address, output, "--checkpoint-every", "1s", *(["--resume"] if kill else []))
        until_checkpoint(tmp_path / "m.jose.run", program)
        time.sleep(random.Random(kill).uniform(0, 1.5))
        program.kill()
        program.communicate()
    program = started(folder, address, output, "--checkpoint-every", "1s", "--resume")
    _, errors = program.communicate()
    assert program.returncode == 0, errors
    assert "resuming from" in errors
    model = jose_embed.load(output, verify=True)
    assert planted.nearest_agree(np.array(model.doc_vectors), CORPUS.topics) > 0.98
    assert not (tmp_path / "m.jose.run").exists()


@pytest.mark.usefixtures("nothing_left")
def test_ctrl_c_writes_a_checkpoint_and_says_how_to_continue(folder: Path, address: str, tmp_path: Path) -> None:
    output, fewer = tmp_path / "m.jose", ("--epochs", "100")  # long enough for a checkpoint after a second
    program = started(folder, address, output, *fewer, "--checkpoint-every", "1s")
    until_checkpoint(tmp_path / "m.jose.run", program)
    program.send_signal(signal.SIGINT)
    _, errors = program.communicate()
    assert program.returncode == 130
    assert errors.splitlines()[-1].startswith("jose-train: interrupted (epoch ")
    assert errors.splitlines()[-1].endswith("--resume")
    assert "Traceback" not in errors
    program = started(folder, address, output, *fewer, "--resume", "--nodes", "1")
    _, errors = program.communicate()
    assert program.returncode == 2
    assert "ran with --engine ray and --nodes 2; do the same" in errors
    program = started(folder, address, output, *fewer, "--resume")
    _, errors = program.communicate()
    assert program.returncode == 0, errors


@pytest.mark.usefixtures("nothing_left")
def test_a_forecast_measures_exchanges_and_a_trial(folder: Path) -> None:
    options = EngineOptions(engine="ray", nodes=2)
    with engine.job_on_ray(str(folder), CONFIG, options, TextOptions(), SilentReporter()) as job:
        found = forecast(job)
    assert found.seconds[1] == found.one_machine_seconds > 0
    assert found.efficiency(2) < 1
    assert found.fastest == 1  # a text this small
    assert found.exchange.seconds(found.text.n_words) > 0


# ---- object stores ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(address: str) -> Iterator[str]:
    """An S3 server on the loopback: the part of a URI after the bucket's path."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    query = f"?scheme=http&endpoint_override={host}%3A{port}&region=us-east-1"
    fs = pytest.importorskip("pyarrow.fs").FileSystem.from_uri(
        f"s3://key:secret@texts{query}&allow_bucket_creation=true"
    )
    fs[0].create_dir("texts")
    yield query
    server.stop()


def put(store: str, name: str, data: bytes) -> None:
    fs, path = pytest.importorskip("pyarrow.fs").FileSystem.from_uri(f"s3://key:secret@texts/{name}{store}")
    with fs.open_output_stream(path) as stream:
        stream.write(data)


@pytest.mark.usefixtures("nothing_left")
def test_training_reads_and_writes_an_object_store(folder: Path, store: str, tmp_path: Path) -> None:
    for file in sorted(folder.iterdir()):
        put(store, f"in/{file.name}", file.read_bytes())
    model = train(f"s3://key:secret@texts/in{store}", 2)
    here = train(folder, 2)
    assert np.array_equal(model.center_vectors, here.center_vectors)
    assert np.array_equal(model.doc_vectors, here.doc_vectors)
    assert model.doc_ids[0] == "s3://texts/in/part-000.txt:1"
    assert "secret" not in str(model.manifest)
    without = train(f"s3://key:secret@texts/in/part-*.txt{store}", 2, doc_output=f"s3://key:secret@texts/out{store}")
    assert without.n_docs == 0
    assert np.array_equal(without.center_vectors, here.center_vectors)
    fs, path = pytest.importorskip("pyarrow.fs").FileSystem.from_uri(f"s3://key:secret@texts/out{store}")
    table = pq.read_table(path, filesystem=fs)
    assert table["id"].to_pylist() == list(model.doc_ids)
    assert np.array_equal(np.array(table["vector"].to_pylist(), np.float32), here.doc_vectors)
    assert table["tokens"].to_pylist() == here.doc_token_counts.tolist()


def test_batch_embedding_writes_what_infer_gives_and_goes_on_where_it_was(
    folder: Path, store: str, tmp_path: Path
) -> None:
    model = jose_embed.train(folder, config=CONFIG)
    model.save(tmp_path / "m.jose")
    model = jose_embed.load(tmp_path / "m.jose")
    import pyarrow as pa

    texts = [*CORPUS.texts[:30], "", "nothing that is known"]
    for number in range(3):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"id": [f"{number}-{i}" for i in range(32)], "text": texts}), sink)
        put(store, f"new/{number}.parquet", sink.getvalue().to_pybytes())
    source, out = f"s3://key:secret@texts/new/*.parquet{store}", f"s3://key:secret@texts/vectors{store}"
    options = TextOptions(id_field="id")
    found = embed_on_ray(model, source, out, reporter=SilentReporter(), options=options)
    assert (found.n_files, found.n_lines, found.n_without) == (3, 96, 6)
    fs, path = pytest.importorskip("pyarrow.fs").FileSystem.from_uri(out)
    wanted = model.infer(texts[:30])
    for number in range(3):
        table = pq.read_table(f"{path}/{number}.parquet", filesystem=fs)
        assert table["id"].to_pylist() == [f"{number}-{i}" for i in range(32)]
        vectors = table["vector"].to_pylist()
        assert vectors[30:] == [None, None]
        assert np.array_equal(np.array(vectors[:30], np.float32), wanted)
    fs.delete_file(f"{path}/1.parquet")
    again = embed_on_ray(model, source, out, reporter=SilentReporter(), options=options)
    assert (again.n_files, again.n_skipped) == (1, 2)
    other = jose_embed.train(folder, config=TrainConfig(**{**CONFIG.to_dict(), "seed": 9}))
    with pytest.raises(ConfigError, match=r"0\.parquet holds other vectors"):
        embed_on_ray(other, source, out, reporter=SilentReporter(), options=options)
    put(store, "new/3.parquet", b"not a table")
    with pytest.raises(CorpusError, match=r"3\.parquet: cannot be read as Parquet"):
        embed_on_ray(model, source, out, reporter=SilentReporter(), options=options)
    assert not fs.get_file_info(f"{path}/3.parquet").is_file


def test_members_are_shards_and_owners() -> None:
    assert Shard(0, 1).ping() == os.getpid()
    assert Owner(True).number == 0
