"""Reloads beside writes: after every swap, stored with a vector and searchable are the same."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from serving import Served, Starter, make_model, run_cli

from jose_embed.model.embeddings import Embeddings
from service.engine.records import Delete, Put
from service.engine.serving import Engine
from service.engine.store import Store
from service.engine.writing import StaleModelError
from service.problems import Problem
from service.search.library import Library
from service.search.queries import Snapshot
from service.settings import Settings

Models = list[tuple[Path, Embeddings]]


@pytest.fixture(scope="module")
def two_models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Two tiny models of other vocabularies."""
    folder = tmp_path_factory.mktemp("two")
    return [
        (folder / name, make_model(folder / name, n_words=n_words, dim=8, n_docs=10, seed=seed))
        for name, n_words, seed in (("a.jose", 300, 1), ("b.jose", 200, 50))
    ]


@pytest.fixture
def engine(tmp_path: Path, two_models: Models, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine of the first model, as ``served.jose``."""
    monkeypatch.setattr("service.engine.status._PROBE_SECONDS", 3600)
    shutil.copytree(two_models[0][0], tmp_path / "served.jose")
    running = Engine(Settings(model=tmp_path / "served.jose"))
    running.open()
    yield running
    running.close()


def serve_next(engine: Engine, models: Models, number: int) -> None:
    """Puts another model where the engine loads it from."""
    path = engine.settings.model
    shutil.rmtree(path)
    shutil.copytree(models[number % 2][0], path)


async def put(engine: Engine, texts: dict[str, str]) -> None:
    """Writes documents, as the calls do."""
    while True:
        served = engine.snapshot.served
        made = await engine.embed(served, list(texts.values()))
        changes = [Put(id, text, served.id, one.vector) for (id, text), one in zip(texts.items(), made, strict=True)]
        try:
            outcomes = await engine.write(served.id, changes)
        except StaleModelError:
            continue
        assert not [outcome for outcome in outcomes if isinstance(outcome, Problem)]
        return


async def delete(engine: Engine, ids: list[str]) -> None:
    """Deletes documents, as the calls do."""
    while True:
        try:
            await engine.write(engine.snapshot.served.id, [Delete(id) for id in ids])
        except StaleModelError:
            continue
        return


def check(engine: Engine, texts: dict[str, str], models: Models) -> None:
    """The documents are stored, and exactly those with a known word are in the index, with the right vectors."""
    served, library = engine.snapshot
    (model,) = [model for _, model in models if model.id == served.id]
    stored = engine.store.vectors(served.id, limit=1_000_000)
    assert {id for _, id, _ in stored} == texts.keys()
    expected = {serial for serial, _, vector in stored if vector is not None}
    assert set(library.serials().tolist()) == expected
    assert len(library) == len(expected)
    assert engine.store.searchable_serials(served.id).tolist() == sorted(expected)
    for serial, id, vector in random.Random(0).sample(stored, min(20, len(stored))):
        words = [word for word in texts[id].split() if word in model]
        assert (vector is not None) == bool(words)
        if vector is not None:
            assert np.array_equal(vector, model.infer([texts[id]])[0])
            assert np.array_equal(library.vector(serial), vector)


async def reload_beside_writers(engine: Engine, models: Models, *, documents: int, reloads: int, swaps: int) -> None:
    dice = random.Random(0)
    texts = {f"d{i}": f"w{i % 296 + 4} w{i * 7 % 150 + 4}" for i in range(documents)}
    for first in range(0, documents, 500):
        await put(engine, dict(list(texts.items())[first : first + 500]))
    stop = False

    async def write(writer: int) -> None:
        while not stop:
            some = {f"x{writer}-{dice.randrange(40)}": f"w{dice.randrange(4, 300)}" for _ in range(5)}
            await put(engine, some)
            texts.update(some)
            gone = next(iter(some))
            await delete(engine, [gone])
            del texts[gone]
            await asyncio.sleep(0.002)

    writers = [asyncio.create_task(write(i)) for i in range(2)]
    number = 0
    for _ in range(reloads // swaps):
        for _ in range(swaps):  # one close upon the other
            number += 1
            serve_next(engine, models, number)
            assert (await asyncio.wrap_future(engine.reload().finished))["changed"] is True
            now = engine.snapshot
            serials = await engine.work(lambda now=now: engine.store.searchable_serials(now.served.id))
            if now is engine.snapshot:
                assert serials.tolist() == now.library.serials().tolist()
            await engine.probe()
    stop = True
    await asyncio.gather(*writers)
    while engine.writer.lane.depth:
        await asyncio.sleep(0.001)
    check(engine, texts, models)
    # Nothing was wrong that a check would have had to repair.
    engine.writer.run_alone(engine.writer.check)
    assert (engine.writer.n_repairs, engine.writer.n_unsearchable) == (0, 0)
    check(engine, texts, models)


def test_reloads_close_together_hide_no_document(engine: Engine, two_models: Models) -> None:
    asyncio.run(reload_beside_writers(engine, two_models, documents=4_000, reloads=12, swaps=3))


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_many_reloads_close_together_hide_no_document(engine: Engine, two_models: Models) -> None:
    asyncio.run(reload_beside_writers(engine, two_models, documents=12_000, reloads=200, swaps=4))


def test_vectors_of_the_next_model_are_not_dropped_with_those_of_replaced_ones(
    engine: Engine, two_models: Models
) -> None:
    """The chain that deletes old vectors runs while a reload makes vectors of a model that is old for it."""

    writer = engine.writer
    asyncio.run(put(engine, {f"d{i}": "w5 w6" for i in range(50)}))
    serve_next(engine, two_models, 1)
    served = engine._load(verify=False)
    writer.announce(served.id)
    assert writer.embed_missing(served) == 50
    writer.run_alone(writer._drop_other_models)
    assert len(engine.store.searchable_serials(served.id)) == 50
    writer.announce(None)
    writer.run_alone(writer._drop_other_models)
    assert len(engine.store.searchable_serials(served.id)) == 0


def without_some(engine: Engine) -> None:
    """Takes documents out of the index behind the writer's back."""
    served, library = engine.snapshot
    engine.writer._snapshot = Snapshot(served, library.changed([], library.serials()[:7].tolist()))


def without_all(engine: Engine) -> None:
    """An index that has forgotten everything, its own serials too."""
    served, library = engine.snapshot
    engine.writer._snapshot = Snapshot(served, Library(library.dim, library.options))


def without_vectors(engine: Engine) -> None:
    """Drops vectors in the documents file."""
    engine.store.drop_vectors(engine.snapshot.served.id, [1, 2, 3])


@pytest.mark.parametrize("harm", [without_some, without_all, without_vectors])
@pytest.mark.parametrize("by_reload", [True, False])
def test_an_index_that_differs_from_the_file_is_repaired(
    engine: Engine, two_models: Models, harm: Any, by_reload: bool
) -> None:
    texts = {f"d{i}": f"w{i + 4}" for i in range(30)}

    async def main() -> None:
        await put(engine, texts)
        harm(engine)
        if by_reload:
            assert (await asyncio.wrap_future(engine.reload().finished))["changed"] is False
            assert engine.writer.n_repairs == 0, "the swap has done it"
            check(engine, texts, two_models)
        else:
            await engine.probe()  # has the check done
            engine.writer.run_alone(lambda: None)
            assert (engine.writer.n_repairs, engine.writer.n_unsearchable) == (1, 0)
            assert b"jose_index_repairs_total 1.0" in engine.metrics.page()
        await engine.probe()

    asyncio.run(main())
    check(engine, texts, two_models)


def test_the_probe_says_so_while_an_index_cannot_be_repaired(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        await put(engine, {"a": "w5", "b": "w6"})
        without_all(engine)
        monkeypatch.setattr(engine.writer, "_agreeing", lambda *_: 1 // 0)
        await engine.probe()
        engine.writer.run_alone(lambda: None)
        with pytest.raises(Problem, match="2 stored documents differ from the index"):
            await engine.probe()
        assert b"jose_unsearchable_documents 2.0" in engine.metrics.page()

    asyncio.run(main())


@pytest.mark.parametrize("blob", [b"", b"abc", bytes(32), b"\xff" * 32, bytes(400)])
def test_damaged_vectors_are_made_again_at_start(engine: Engine, two_models: Models, blob: bytes) -> None:
    texts = {f"d{i}": f"w{i + 4}" for i in range(10)}
    asyncio.run(put(engine, texts))
    engine.close()
    store = Store(engine.settings.documents_path)
    with store._transaction() as database:
        database.execute("UPDATE vectors SET vector = ? WHERE serial IN (2, 5)", (blob,))
    store.close()
    again = Engine(engine.settings)
    again.open()
    check(again, texts, two_models)
    again.close()


def test_a_read_only_service_of_another_model_finds_all_documents(
    engine: Engine, two_models: Models, tmp_path: Path
) -> None:
    texts = {f"d{i}": f"w{i + 4}" for i in range(300)}
    asyncio.run(put(engine, texts))
    path = engine.settings.documents_path
    reader = Engine(Settings(model=two_models[1][0], documents=path, read_only=True))
    reader.open()
    known = [id for id, text in texts.items() if text in two_models[1][1]]
    assert 0 < len(known) < len(texts)
    assert len(reader.snapshot.library) == len(known)
    assert reader.reload().finished.result(60)["changed"] is False
    assert len(reader.snapshot.library) == len(known)
    reader.close()


def test_one_reload_at_a_time_and_its_job_says_how_far_it_is(engine: Engine, two_models: Models) -> None:
    begun, gate, load = threading.Event(), threading.Event(), engine._reloader._load

    def slow() -> Any:
        begun.set()
        gate.wait()
        return load()

    async def main() -> None:
        engine._reloader._load = slow
        serve_next(engine, two_models, 1)
        job = engine.reload()
        await asyncio.to_thread(begun.wait)
        assert (job.document()["status"], job.document()["stage"]) == ("running", "loading the model")
        with pytest.raises(Problem, match=f"another reload has not ended yet: {job.id}"):
            engine.reload()
        gate.set()
        while engine.snapshot.served.id != two_models[1][1].id:
            await asyncio.sleep(0.01)

    asyncio.run(main())


# ---- readiness ------------------------------------------------------------------------------------------------------


def test_the_probe_does_not_wait_behind_the_work_of_users(engine: Engine) -> None:
    begun, gate = threading.Semaphore(0), threading.Event()

    def blocks(*_: Any) -> None:
        begun.release()
        gate.wait()

    async def main() -> None:
        lanes = [engine.work_lane, engine.work_lane, engine.long_lane]
        blocked = [asyncio.create_task(lane.submit(lambda: blocks())) for lane in lanes]
        blocked.append(asyncio.create_task(engine.search(engine.snapshot, [], blocks)))
        for _ in blocked:
            await asyncio.to_thread(begun.acquire)
        checks, warnings = await engine.probe()
        assert (set(checks), warnings) == ({"index", "inference", "documents"}, [])
        gate.set()
        await asyncio.gather(*blocked)

    asyncio.run(main())


def test_a_lane_that_does_not_end_its_batch_is_not_ready(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.status._STUCK_SECONDS", 0.0)
    begun, gate = threading.Event(), threading.Event()

    def blocks(*_: Any) -> None:
        begun.set()
        gate.wait()

    async def main() -> None:
        blocked = asyncio.create_task(engine.search(engine.snapshot, [], blocks))
        await asyncio.to_thread(begun.wait)
        with pytest.raises(Problem, match="the search lane has worked on one batch"):
            await engine.probe()
        gate.set()
        await blocked

    asyncio.run(main())


def ask_all(running: Served) -> list[int]:
    """Calls that touch every array of the model; their statuses."""
    return [
        running.get("/readyz").status_code,
        running.get("/similar?word=w5&k=50").status_code,
        running.post("/embed-doc", {"text": "w5 w7 w100", "explain": True}).status_code,
        running.post("/search", {"text": "w6", "k": 10}).status_code,
        running.post("/search", {"document_id": "9"}).status_code,
        running.post("/search", {"document_id": "9", "target": "words"}).status_code,
        running.put("new", "w5 w6").status_code,
    ]


def copy_over(other: Path, path: Path) -> None:
    for file in other.iterdir():
        (path / file.name).write_bytes(file.read_bytes())


def cut(other: Path, path: Path) -> None:
    for file in path.iterdir():
        with open(file, "r+b") as opened:
            opened.truncate(0)


def remove(other: Path, path: Path) -> None:
    shutil.rmtree(path)


@pytest.mark.parametrize("change", [copy_over, cut, remove])
def test_a_model_changed_in_place_is_served_on_and_reported(
    two_models: Models, tmp_path: Path, starter: Starter, change: Any
) -> None:
    path = tmp_path / "served.jose"
    shutil.copytree(two_models[0][0], path)
    running = starter(path)
    assert [line for line in running.lines if "MB of memory" in line]
    assert running.get("/readyz").json()["warnings"] == []
    before = running.get("/similar?word=w9").content
    change(two_models[1][0], path)
    assert set(ask_all(running)) <= {200, 201}
    assert running.get("/similar?word=w9").content == before
    assert "not on the disk as it was loaded" in running.get("/readyz").json()["warnings"][0]
    answer = running.post("/admin/reload?wait=3600")
    assert answer.status_code == (200 if change is copy_over else 409)
    assert bool(running.get("/readyz").json()["warnings"]) == (change is not copy_over)
    assert set(ask_all(running)) <= {200, 201}
    assert running.stop() == 0


def test_a_mapped_model_changed_in_place_is_not_ready(two_models: Models, tmp_path: Path, starter: Starter) -> None:
    path = tmp_path / "served.jose"
    shutil.copytree(two_models[0][0], path)
    running = starter(path, environment={"JOSE_MAP_MODEL": "true"})
    assert [line for line in running.lines if "JOSE_MAP_MODEL" in line and "ends the process" in line]
    with open(path / "context_vectors.npy", "r+b") as file:
        file.seek(2_000)
        file.write(b"\0" * 100)
    answer = running.get("/readyz")
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems#not-ready")
    assert "context_vectors.npy of the mapped model was changed in place" in answer.json()["detail"]


def test_a_documents_file_that_was_removed_is_told(two_models: Models, tmp_path: Path, starter: Starter) -> None:
    documents = tmp_path / "d.sqlite3"
    running = starter(two_models[0][0], "--documents", str(documents))
    assert running.put("a", "w5").status_code == 201
    documents.rename(tmp_path / "moved")
    refused = running.put("b", "w6")
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems#storage-unavailable")
    assert "was removed or replaced" in refused.json()["detail"]
    assert running.get("/readyz").status_code == 503
    (tmp_path / "moved").rename(documents)
    assert running.put("b", "w6").status_code == 201
    assert running.get("/readyz").status_code == 200


@pytest.mark.parametrize("table", ["documents", "vectors"])
def test_a_damaged_documents_file_at_start(two_models: Models, tmp_path: Path, starter: Starter, table: str) -> None:
    documents = tmp_path / "d.sqlite3"
    running = starter(two_models[0][0], "--documents", str(documents))
    assert running.put("a", "w5").status_code == 201
    assert running.stop() == 0
    with contextlib.closing(sqlite3.connect(documents, isolation_level=None)) as database:
        database.execute(f"DROP TABLE {table}")
    database.close()
    if table == "documents":
        ended = run_cli(str(two_models[0][0]), "--documents", str(documents), "--port", "0")
        assert ended.returncode == 2
        assert "Traceback" not in ended.stderr
        assert "is damaged (the table documents is missing); restore a backup" in ended.stderr.splitlines()[-1]
    else:
        again = starter(two_models[0][0], "--documents", str(documents))
        assert [hit["id"] for hit in again.post("/search", {"text": "w5", "source": "added"}).json()["neighbors"]] == [
            "a"
        ]


@pytest.mark.parametrize(
    "seed", [0, 1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_killed_during_reloads_and_writes(two_models: Models, tmp_path: Path, starter: Starter, seed: int) -> None:
    """What was acknowledged is stored and found after the next start, whichever model was being swapped in."""
    path, dice = tmp_path / "served.jose", random.Random(seed)
    shutil.copytree(two_models[0][0], path)
    running = starter(path)
    acknowledged: set[str] = set()

    def write() -> None:
        with contextlib.suppress(httpx.TransportError):
            for i in range(10_000):
                operations = [{"op": "put", "id": f"d{i}-{j}", "text": f"w{j + 4}"} for j in range(20)]
                if running.post("/documents:batch", {"operations": operations}).status_code == 200:
                    acknowledged.update(operation["id"] for operation in operations)

    def reload() -> None:
        with contextlib.suppress(httpx.TransportError):
            for number in range(1, 10_000):
                two_models[number % 2][1].save(path, overwrite=True)
                assert running.post("/admin/reload?wait=3600").status_code == 200

    threads = [threading.Thread(target=write), threading.Thread(target=reload)]
    for thread in threads:
        thread.start()
    time.sleep(dice.uniform(0.5, 2.0))
    running.process.kill()
    for thread in threads:
        thread.join()
    again = starter(path)
    facts = again.get("/info").json()["documents"]
    assert len(acknowledged) <= facts["stored"] == facts["searchable"]
    assert {id for id in acknowledged if again.get(f"/documents/{id}").status_code != 200} == set()
