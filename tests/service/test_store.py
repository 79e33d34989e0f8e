"""The documents file: a state machine against a dictionary, and everything a disk can do to it."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from service.engine.store import Delete, Outcome, Put, Store, StoredVector, StoreError
from service.problems import Problem

VECTOR = np.float32([0.6, 0.8])
IDS = st.sampled_from(["a", "b", "c/d", "日本", "'"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


class StoreMachine(RuleBasedStateMachine):
    """Writes of every kind, alone and together, with reopening between them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store(self.folder / "d.sqlite3")
        self.texts: dict[str, str] = {}
        self.serials: dict[str, int] = {}
        self.used: set[int] = set()

    @rule(
        changes=st.lists(
            st.tuples(IDS, st.none() | TEXTS, st.sampled_from(["any", "same", "other", "absent"])), max_size=5
        )
    )
    def write(self, changes: list[tuple[str, str | None, str]]) -> None:
        made: list[Put | Delete] = []
        expected: list[str] = []
        for id, text, condition in changes:
            present = self.serials.get(id)
            wanted = {"same": present, "other": 10**9}.get(condition)
            refused = (wanted is not None and wanted != present) or (
                text is not None and condition == "absent" and present is not None
            )
            if text is None:
                made.append(Delete(id, wanted))
            else:
                made.append(Put(id, text, "m1", VECTOR, wanted, if_absent=condition == "absent"))
            (outcome,) = self.store.write(made[-1:])
            if refused:
                expected.append("precondition-failed")
                assert isinstance(outcome, Problem)
                assert outcome.kind == "precondition-failed"
            elif text is None and present is None:
                assert isinstance(outcome, Problem)
                assert outcome.kind == "unknown-document"
            else:
                assert isinstance(outcome, Outcome)
                assert outcome.replaced == present
                if text is None:
                    del self.texts[id], self.serials[id]
                else:
                    assert outcome.serial is not None
                    assert outcome.serial > max(self.used, default=0)
                    self.used.add(outcome.serial)
                    self.texts[id], self.serials[id] = text, outcome.serial

    @rule(texts=st.lists(st.tuples(IDS, TEXTS), min_size=1, max_size=8))
    def write_together(self, texts: list[tuple[str, str]]) -> None:
        for outcome in self.store.write([Put(id, text, "m1", VECTOR) for id, text in texts]):
            assert isinstance(outcome, Outcome)
            assert outcome.serial is not None
            self.serials[outcome.id] = outcome.serial
            self.used.add(outcome.serial)
        self.texts |= dict(texts)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = Store(self.folder / "d.sqlite3")

    @invariant()
    def agrees(self) -> None:
        assert self.store.count() == len(self.texts)
        assert {item.id: item.serial for item in self.store.page("", 100)} == self.serials
        assert [item.id for item in self.store.page("", 100)] == sorted(self.texts, key=lambda id: id.encode())
        for id, text in self.texts.items():
            found = self.store.get(id)
            assert found is not None
            assert (found.text, found.serial) == (text, self.serials[id])
        stored = self.store.vectors("m1")
        assert [(serial, id) for serial, id, _ in stored] == sorted((serial, id) for id, serial in self.serials.items())
        assert self.store.without_vector("m1") == []

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)


class TestStore(StoreMachine.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=25, stateful_step_count=15)


def put(store: Store, *ids: str, text: str = "text") -> list[Any]:
    return store.write([Put(id, text, "m1", VECTOR) for id in ids])


def test_vectors_of_two_models_stay_apart(tmp_path: Path) -> None:
    store = Store(tmp_path / "d.sqlite3")
    put(store, "a", "b", "c")
    assert store.vectors("m2") == []
    missing = store.without_vector("m2")
    assert [serial for serial, _ in missing] == [1, 2, 3]
    store.write([Delete("b"), Put("c", "newer", "m1", VECTOR)])
    store.keep_vectors("m2", [StoredVector(1, -VECTOR), StoredVector(2, VECTOR), StoredVector(3, VECTOR)])
    assert [(serial, id) for serial, id, _ in store.vectors("m2")] == [(1, "a")]
    assert store.without_vector("m2") == [(4, "newer")]
    store.keep_vectors("m2", [StoredVector(4, None)])
    assert store.vectors("m2")[1][2] is None
    assert store.forget_other_models("m2", most=1) == 1
    assert store.forget_other_models("m2") == 1
    assert store.forget_other_models("m2") == 0
    assert store.vectors("m1") == []
    store.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "d.sqlite3"
    store = Store(path)
    with pytest.raises(StoreError, match="another process serves it"):
        Store(path)
    put(store, "a")
    reader = Store(path, read_only=True)
    assert reader.get("a") is not None
    with pytest.raises(Problem) as refused:
        put(reader, "b")
    assert refused.value.kind == "read-only"
    reader.close()
    store.close()
    store.close()
    Store(path).close()


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough to look at" * 100, b"SQLite format 3\0" + b"\xff" * 5_000]
)
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "d.sqlite3"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"cannot be opened as a documents file|another program"):
        Store(path)
    assert path.read_bytes() == content
    with pytest.raises(StoreError):
        Store(path, read_only=True)


def test_databases_of_others(tmp_path: Path) -> None:
    path = tmp_path / "d.sqlite3"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE things (x)")
    database.close()
    with pytest.raises(StoreError, match="another program"):
        Store(path)
    newer = tmp_path / "newer.sqlite3"
    Store(newer).close()
    with sqlite3.connect(newer) as database:
        database.execute("PRAGMA user_version = 2")
    database.close()
    with pytest.raises(StoreError, match="has the format 2, but this version reads up to 1"):
        Store(newer)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written to"):
        Store(tmp_path / "nowhere" / "d.sqlite3")
    assert Store(tmp_path / "nowhere" / "d.sqlite3", read_only=True).count() == 0


def test_a_full_database_undoes_the_whole_batch(tmp_path: Path) -> None:
    store = Store(tmp_path / "d.sqlite3")
    put(store, "a")
    (pages,) = store._writer.execute("PRAGMA page_count").fetchone()
    store._writer.execute(f"PRAGMA max_page_count = {pages + 4}")
    with pytest.raises(Problem) as refused:
        store.write([Put("b", "small", "m1", VECTOR), Put("c", "x" * 100_000, "m1", VECTOR)])
    assert refused.value.kind == "disk-full"
    assert [item.id for item in store.page("", 10)] == ["a"]
    store._writer.execute("PRAGMA max_page_count = 1000000")
    assert put(store, "b")[0].serial == 2
    store.close()


def test_a_write_is_synced_before_it_returns(tmp_path: Path) -> None:
    store = Store(tmp_path / "d.sqlite3")
    assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    store.close()


def test_killed_in_the_middle_of_a_transaction(tmp_path: Path) -> None:
    """What was committed is there, what was not is not, and the file opens."""
    code = """
import os, sys, numpy as np
from pathlib import Path
from service.engine.store import Put, Store
store = Store(Path(sys.argv[1]))
store.write([Put("a", "committed", "m", np.float32([1, 0]))])
with store._transaction() as database:
    store._made(database, Put("b", "x" * 5_000_000, "m", np.float32([1, 0])), 2, "now")
    os.kill(os.getpid(), 9)
"""
    path = tmp_path / "d.sqlite3"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=root, env={"PYTHONPATH": str(root)}, check=False)
    assert done.returncode == -9
    store = Store(path)
    assert [item.id for item in store.page("", 10)] == ["a"]
    assert put(store, "b")[0].serial == 2
    store.close()


def test_writes_from_several_threads_come_one_after_the_other(tmp_path: Path) -> None:
    """While a model changes, its vectors are kept and those before are dropped beside the clients' writes."""
    store = Store(tmp_path / "d.sqlite3")
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            for i in range(60):
                outcomes = store.write([Put(f"{number}-{i}", "text", f"m{number}", VECTOR)])
                assert isinstance(outcomes[0], Outcome)
                assert outcomes[0].serial is not None
                store.keep_vectors("kept", [StoredVector(outcomes[0].serial, VECTOR)])
                store.forget_other_models("kept", most=3)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    assert store.count() == 240
    assert len(store.vectors("kept")) == 240
    store.close()


def test_texts_of_megabytes_are_stored_as_any_text(tmp_path: Path) -> None:
    """They pass the sqlite3 module slice by slice; what lies in the file is a text all the same."""
    text = "a\u00e9\u6f22\U0001f600\0 " * 60_000
    store = Store(tmp_path / "d.sqlite3")
    store.write([Put("a", text, "m1", VECTOR)])
    found = store.get("a")
    assert found is not None
    assert found.text == text
    assert [stored for _, stored in store.without_vector("m2")] == [text]
    store.close()
    with sqlite3.connect(tmp_path / "d.sqlite3") as database:
        assert database.execute("SELECT typeof(text), text = ?, characters FROM documents", (text,)).fetchone() == (
            "text",
            1,
            len(text),
        )
    database.close()
