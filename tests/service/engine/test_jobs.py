"""Reloads and snapshots as jobs: begun, asked for, ended; SIGHUP; a snapshot restored."""

from __future__ import annotations

import gc
import json
import signal
import threading
import weakref
from pathlib import Path
from typing import Any

import psutil
import pytest
from serving import Served, Starter, make_model, run_cli, wait_for

from jose_embed.errors import ModelError
from jose_embed.model.embeddings import Embeddings
from service.engine.jobs import Job
from service.problems import Problem

Model = tuple[Path, Embeddings]
NDJSON = {"content-type": "application/x-ndjson"}


def add(served: Served, names: range, text: str = "king") -> None:
    lines = "".join(json.dumps({"id": f"d{i:05}", "text": f"{text} w{i % 90 + 4}"}) + "\n" for i in names)
    answer = served.client.post("/documents:import", content=lines, headers=NDJSON)
    assert json.loads(answer.text.splitlines()[-1])["status"] == "done"


def ended(served: Served, answer: Any) -> dict[str, Any]:
    """The job that an answer began, when it has ended."""
    assert answer.status_code == 202
    place = answer.headers["location"]
    assert place == f"/admin/jobs/{answer.json()['id']}"
    wait_for(lambda: served.get(place).json()["status"] != "running")
    job: dict[str, Any] = served.get(place).json()
    return job


def metric(served: Served, name: str) -> float:
    (line,) = [line for line in served.get("/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


def test_a_job_that_failed_holds_nothing_of_its_work() -> None:
    class Model:
        """Something large."""

    models: list[weakref.ref[Model]] = []

    def work(job: Job) -> dict[str, Any]:
        model = Model()
        models.append(weakref.ref(model))
        try:
            raise ModelError("damaged")
        except ModelError as error:
            raise Problem("model-refused", str(error), headers={"Retry-After": "1"}, file="a") from None

    job = Job("reload")
    job.run(work)
    gc.collect()
    assert [model() for model in models] == [None]
    told = job.document()["problem"]
    assert (job.status, told["detail"], told["file"]) == ("failed", "damaged", "a")


# A reload waits for a file before each of its steps, or for one that stands for all.
STEP_BY_STEP = """
import itertools, os, threading, time
from service.engine.store import Store
without_vector, numbers = Store.without_vector, itertools.count()
def stepping(*arguments, **named):
    if threading.current_thread().name == "reload":
        number = next(numbers)
        while not any(os.path.exists(f"{os.environ['STEPS']}/{name}") for name in (number, "all")):
            time.sleep(0.01)
    return without_vector(*arguments, **named)
Store.without_vector = stepping
"""


def test_a_reload_answers_at_once_and_tells_how_far_it_is(tmp_path: Path, starter: Starter) -> None:
    path = tmp_path / "own.jose"
    make_model(path, n_words=100)
    (tmp_path / "steps").mkdir()
    running = starter(path, environment={"STEPS": str(tmp_path / "steps")}, prelude=STEP_BY_STEP)
    add(running, range(2_500))
    new = make_model(path, n_words=100, seed=9, overwrite=True)
    begun = running.post("/admin/reload")
    job = begun.json()
    assert (begun.status_code, job["status"], job["result"], job["problem"]) == (202, "running", None, None)
    refused = running.post("/admin/reload")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems#reload-running")
    assert refused.json()["job"] == job["id"]
    embedding: list[tuple[int, int]] = []
    progress: list[float] = []
    (tmp_path / "steps" / "0").touch()
    while (now := running.get(begun.headers["location"]).json())["status"] == "running":
        if now["stage"] == "embedding documents" and (now["done"], now["total"]) not in embedding:
            embedding.append((now["done"], now["total"]))
            progress.append(metric(running, "jose_reload_progress"))
            if len(embedding) == 1:
                assert running.put("meanwhile", "king").status_code == 201
            (tmp_path / "steps" / str(len(embedding))).touch()
        elif embedding and now["stage"] != "embedding documents":
            (tmp_path / "steps" / "all").touch()
    assert (now["status"], now["result"]["changed"], now["result"]["model"]["id"]) == ("done", True, new.id)
    assert now["result"]["documents"] >= 2_500
    assert embedding == sorted(embedding)
    assert len(embedding) > 2
    assert all(done <= total for done, total in embedding)
    assert min(progress) > 0
    assert (metric(running, "jose_reload_running"), metric(running, "jose_reload_progress")) == (0, 0)
    assert metric(running, "jose_reload_seconds") == pytest.approx(now["seconds"], abs=0.01)
    assert running.get("/admin/jobs").json()["jobs"] == [now]
    assert running.get("/info").json()["documents"]["searchable"] == 2_501


def test_jobs_leave_no_file_open(tmp_path: Path, starter: Starter) -> None:
    path = tmp_path / "own.jose"
    models = [make_model(tmp_path / f"{seed}.jose", n_words=100, seed=seed) for seed in (1, 2)]
    models[0].save(path)
    running = starter(path)
    running.put("a", "king")
    counts: list[int] = []
    for n in range(8):
        models[1 - n % 2].save(path, overwrite=True)
        assert running.post("/admin/reload?wait=3600").json()["result"]["changed"] is True
        assert running.post("/admin/snapshot?wait=3600").status_code == 200
        counts.append(psutil.Process(running.process.pid).num_fds())
    assert max(counts[3:]) <= counts[2] + 1


def test_a_refused_model_is_the_job_s_problem(tmp_path: Path, starter: Starter) -> None:
    path = tmp_path / "own.jose"
    make_model(path, n_words=100)
    running = starter(path)
    whole = (path / "manifest.json").read_bytes()
    (path / "manifest.json").write_text("{")
    job = ended(running, running.post("/admin/reload"))
    assert (job["status"], job["result"], job["problem"]["type"]) == ("failed", None, "/problems#model-refused")
    waited = running.post("/admin/reload?wait=3600")
    assert (waited.status_code, waited.json()["type"]) == (409, "/problems#model-refused")
    running.process.send_signal(signal.SIGHUP)
    wait_for(lambda: 'jose_reloads_total{outcome="refused"} 3.0' in running.get("/metrics").text)
    (path / "manifest.json").write_bytes(whole)
    new = make_model(path, n_words=100, seed=9, overwrite=True)
    running.process.send_signal(signal.SIGHUP)
    wait_for(lambda: running.get("/info").json()["model"]["id"] == new.id)
    assert running.get("/admin/jobs/nothing").json()["type"] == "/problems#unknown-job"
    assert running.post("/admin/reload?wait=-1").status_code == 422
    assert running.stop() == 0


def test_a_snapshot_is_of_one_moment_and_is_restored(tmp_path: Path, starter: Starter) -> None:
    """Two documents are always written together, the one after the other: in every snapshot they agree."""
    path = tmp_path / "own.jose"
    model = make_model(path, n_words=100)
    running = starter(path, "--documents", str(tmp_path / "d.sqlite3"))
    add(running, range(3_000))
    stop = threading.Event()
    written = [0]

    def write() -> None:
        while not stop.is_set():
            n = written[0] + 1
            put = [{"op": "put", "id": id, "text": f"king n{n}", "fields": {"n": n}} for id in ("a", "zzz")]
            assert running.post("/documents:batch", {"operations": put}).status_code == 200
            written[0] = n

    writer = threading.Thread(target=write)
    writer.start()
    facts: list[dict[str, Any]] = []
    lowest: list[int] = []
    try:
        wait_for(lambda: written[0])
        for _ in range(3):
            lowest.append(written[0])
            facts.append(ended(running, running.post("/admin/snapshot"))["result"])
    finally:
        stop.set()
        writer.join()
    assert running.post("/documents:delete", {"all": True}).json()["deleted"] == 3_002
    assert running.stop() == 0
    for fact, least in zip(facts, lowest, strict=True):
        folder = Path(fact["path"])
        assert sorted(item.name for item in folder.iterdir()) == ["documents.sqlite3", "snapshot.json"]
        assert json.loads((folder / "snapshot.json").read_text()) == fact
        assert fact["created"].endswith("Z")
        assert (fact["documents"], fact["model"]["id"]) == (3_002, model.id)
        restored = tmp_path / f"{folder.name}.sqlite3"
        done = run_cli("restore", str(folder), "--documents", str(restored))
        assert (done.returncode, "3,002 documents" in done.stderr) == (0, True), done.stderr
        again = starter(path, "--documents", str(restored))
        ns = {again.get(f"/documents/{id}").json()["fields"]["n"] for id in ("a", "zzz")}
        assert len(ns) == 1
        assert ns.pop() >= least
        assert again.get("/info").json()["documents"]["searchable"] == 3_002
        assert again.stop() == 0


def test_a_restore_replaces_nothing_by_accident(model_a: Model, tmp_path: Path, starter: Starter) -> None:
    documents = tmp_path / "d.sqlite3"
    running = starter(model_a[0], "--documents", str(documents))
    running.put("before", "king")
    folder = running.post("/admin/snapshot?wait=3600").json()["result"]["path"]
    running.put("after", "queen")
    environment = {"JOSE_MODEL": str(model_a[0]), "JOSE_DOCUMENTS": str(documents)}

    def restore(*arguments: str, folder: str = folder) -> tuple[int, str]:
        done = run_cli("restore", folder, *arguments, environment=environment)
        assert len(done.stderr.splitlines()) == 1
        return done.returncode, done.stderr

    status, message = restore()
    assert (status, "is there already" in message) == (2, True)
    status, message = restore("--overwrite")
    assert (status, "another process serves it" in message) == (2, True)
    running.process.kill()  # leaves a write-ahead log, which must not be taken for the restored file's
    running.process.wait()
    assert documents.with_name("d.sqlite3-wal").exists()
    assert restore("--overwrite")[0] == 0
    again = starter(model_a[0], "--documents", str(documents))
    assert [item["id"] for item in again.get("/documents").json()["documents"]] == ["before"]
    again.stop()
    old = starter(model_a[0], "--documents", str(tmp_path / "d.sqlite3.before-restore"))
    assert [item["id"] for item in old.get("/documents").json()["documents"]] == ["after", "before"]
    old.stop()
    data = bytearray((Path(folder) / "documents.sqlite3").read_bytes())
    data[-1] ^= 1
    (Path(folder) / "documents.sqlite3").write_bytes(data)
    assert "another checksum" in restore("--overwrite")[1]
    assert "is not a snapshot" in restore("--overwrite", folder=str(tmp_path))[1]


def test_a_snapshot_that_cannot_be_written_leaves_nothing(model_a: Model, tmp_path: Path, starter: Starter) -> None:
    (tmp_path / "taken").write_text("a file")
    running = starter(
        model_a[0], "--documents", str(tmp_path / "d.sqlite3"), environment={"JOSE_SNAPSHOTS": str(tmp_path / "taken")}
    )
    job = ended(running, running.post("/admin/snapshot"))
    assert (job["status"], job["problem"]["type"]) == ("failed", "/problems#storage-unavailable")
    assert running.post("/admin/snapshot?wait=3600").status_code == 503
