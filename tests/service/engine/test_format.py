"""Documents files of older versions, and what replicas read of a file: states, removals, frozen copies."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from serving import Starter

from jose_embed.model.embeddings import Embeddings
from service.engine.records import Delete, Mark, Outcome, Put, StoreError
from service.engine.store import Store

VECTOR = np.float32([0.6, 0.8])
# As the service before fields made its files.
VERSION_1 = """
CREATE TABLE documents (
    id      TEXT PRIMARY KEY,
    serial  INTEGER NOT NULL UNIQUE,
    text    TEXT NOT NULL,
    characters INTEGER NOT NULL,
    created TEXT NOT NULL,
    updated TEXT NOT NULL
) STRICT;
CREATE TABLE vectors (
    model  TEXT NOT NULL,
    serial INTEGER NOT NULL,
    vector BLOB,
    PRIMARY KEY (serial, model)
) STRICT, WITHOUT ROWID;
CREATE TABLE counter (last_serial INTEGER NOT NULL) STRICT;
INSERT INTO counter VALUES (7);
PRAGMA application_id = 0x4A4F5345;
PRAGMA user_version = 1;
"""


def version_1(path: Path, model: str = "m1", vector: np.ndarray | None = VECTOR, n: int = 3) -> Path:
    """A documents file of version 1 with documents d0, d1 ..."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(VERSION_1)
        for i in range(n):
            values = (f"d{i}", i + 1, f"king w{i + 4}", 7, "2026-01-01T00:00:00.000Z", "2026-01-02T00:00:00.000Z")
            database.execute("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?)", values)
            if vector is not None:
                database.execute("INSERT INTO vectors VALUES (?, ?, ?)", (model, i + 1, vector.tobytes()))
        database.commit()
    return path


def test_a_file_of_version_1_is_brought_to_the_present_one(tmp_path: Path) -> None:
    path = version_1(tmp_path / "d.sqlite3")
    store = Store(path)
    assert store.get("d1") == ("d1", 2, "king w5", "2026-01-01T00:00:00.000Z", "2026-01-02T00:00:00.000Z", "{}")
    assert [(serial, id) for serial, id, _ in store.vectors("m1")] == [(1, "d0"), (2, "d1"), (3, "d2")]
    assert store.mark() == Mark(7, 0, None)
    (outcome,) = store.write([Put("d1", "new", "m1", VECTOR, fields='{"n":1}')])
    assert isinstance(outcome, Outcome)
    assert (outcome.serial, outcome.replaced, outcome.created) == (8, 2, "2026-01-01T00:00:00.000Z")
    store.close()
    again = Store(path)
    found = again.get("d1")
    assert found is not None
    assert (found.text, found.fields, again.mark()) == ("new", '{"n":1}', Mark(8, 1, None))
    again.close()


def test_a_replica_reads_version_1_and_sees_the_change_of_the_format(tmp_path: Path) -> None:
    path = version_1(tmp_path / "d.sqlite3")
    before = path.read_bytes()
    reader = Store(path, read_only=True)
    mark = reader.mark()
    assert (mark, reader.removed(mark)) == (Mark(7, 0, None), None)
    assert [item.fields for item in reader.page("", 10)] == ["{}"] * 3
    assert path.read_bytes() == before
    writer = Store(path)
    writer.write([Put("d0", "new", "m1", VECTOR, fields='{"n":1}')])
    writer.note_model("m1")
    assert reader.mark() == Mark(8, 1, "m1")
    assert reader.page("", 1)[0].fields == '{"n":1}'
    assert reader.removed(Mark(7, 0, None)) == [1]
    writer.close()
    reader.close()


def test_a_kill_within_the_step_leaves_the_old_version(tmp_path: Path) -> None:
    path = version_1(tmp_path / "d.sqlite3", n=50)
    code = """
import os, sys
from pathlib import Path
from service.engine import format
from service.engine.store import Store
format._STEPS[1] = (*format._STEPS[1], "SELECT dies()")
made = Store._connected
def connected(self, *, write):
    connection = made(self, write=write)
    connection.create_function("dies", 0, lambda: os.kill(os.getpid(), 9))
    return connection
Store._connected = connected
Store(Path(sys.argv[1]))
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
        assert database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'removed'").fetchone() == (0,)
    store = Store(path)
    assert (store.count(), store.mark()) == (50, Mark(7, 0, None))
    store.close()


def test_a_damaged_file_of_version_1_is_repaired_too(tmp_path: Path) -> None:
    path = version_1(tmp_path / "d.sqlite3", n=200)
    with contextlib.closing(sqlite3.connect(path)) as database:
        (page,) = database.execute("SELECT max(rootpage) FROM sqlite_master WHERE name = 'vectors'").fetchone()
    with open(path, "r+b") as file:
        file.seek((page - 1) * 4_096)
        file.write(b"\xa5" * 4_096)
    with pytest.raises(StoreError, match="is damaged"):
        Store(path, read_only=True)
    store = Store(path)
    assert (store.count(), len(store.without_vector("m1", limit=500))) == (200, 200)
    store.close()


def test_a_service_serves_a_file_of_version_1(
    model_a: tuple[Path, Embeddings], tmp_path: Path, starter: Starter
) -> None:
    path = version_1(tmp_path / "d.sqlite3", vector=None)
    running = starter(model_a[0], "--documents", str(path))
    hits = running.post("/search", {"text": "king w4", "k": 1, "source": "added", "include": ["text", "fields"]}).json()
    assert [(hit["id"], hit["text"], hit["fields"]) for hit in hits["neighbors"]] == [("d0", "king w4", {})]
    assert running.client.put("/documents/d0", json={"text": "queen", "fields": {"n": 1}}).status_code == 200
    assert running.get("/documents/d0").json()["created"] == "2026-01-01T00:00:00.000Z"
    assert running.stop() == 0


def put(store: Store, *ids: str) -> None:
    store.write([Put(id, "text", "m1", VECTOR) for id in ids])


def test_what_was_removed_since_a_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.store._KEPT_REMOVALS", 5)
    store = Store(tmp_path / "d.sqlite3")
    reader = Store(tmp_path / "d.sqlite3", read_only=True)
    put(store, "a", "b")
    start = reader.mark()
    assert reader.removed(start) == []
    put(store, "a")
    store.write([Delete("b")])
    assert reader.mark() == Mark(3, 2, None)
    assert reader.removed(start) == [1, 2]
    assert reader.removed(Mark(3, 1, None)) == [2]
    assert reader.removed(Mark(3, 2, None)) == []
    for _ in range(10):
        put(store, "a")
    assert reader.removed(start) is None
    assert reader.removed(Mark(3, 2, None)) is None, "too long ago"
    assert reader.removed(reader.mark()) == []
    assert reader.removed(Mark(3, 10**6, None)) is None, "of another file"
    reader.close()
    store.close()


def test_reading_is_of_one_state_and_a_frozen_copy_too(tmp_path: Path) -> None:
    store = Store(tmp_path / "d.sqlite3")
    put(store, *(f"d{i:04}" for i in range(2_000)))
    stop = threading.Event()
    seen: list[tuple[int, int]] = []

    def write() -> None:
        while not stop.is_set():
            put(store, "a", "zzz")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for i in range(20):
            with store.reading():
                first, last, mark = store.get("a"), store.get("zzz"), store.mark()
                assert (first is None) == (last is None)
                assert first is None or last is None or mark.serial == last.serial == first.serial + 1
            if i % 5 == 0:
                with contextlib.closing(store.frozen()) as frozen:
                    store.copy(frozen, tmp_path / f"copy{i}", lambda done, all: seen.append((done, all)))
                assert seen[-1][0] == seen[-1][1] > 0
                copy = Store(tmp_path / f"copy{i}")
                a, zzz = copy.serial("a"), copy.serial("zzz")
                assert (a is None and zzz is None) or (a is not None and zzz == a + 1)
                copy.close()
    finally:
        stop.set()
        writer.join()
    with contextlib.closing(store.frozen()) as frozen, pytest.raises(StoreError, match="cannot be read or written"):
        store.copy(frozen, tmp_path / "nowhere" / "copy", lambda done, all: None)
    store.close()
