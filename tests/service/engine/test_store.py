"""The documents file: a state machine against a dictionary, and everything a disk can do to it."""

from __future__ import annotations

import contextlib
import os
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

from service.engine.records import Delete, DiskFullError, Outcome, Put, ReadOnlyError, Refusal, StoredVector, StoreError
from service.engine.store import Store

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
                assert isinstance(outcome, Refusal)
                assert (outcome.reason, outcome.present) == ("changed", present)
            elif text is None and present is None:
                assert isinstance(outcome, Refusal)
                assert outcome.reason == "unknown"
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
    assert [item.serial for item in missing] == [1, 2, 3]
    store.write([Delete("b"), Put("c", "newer", "m1", VECTOR)])
    store.keep_vectors("m2", [StoredVector(1, -VECTOR), StoredVector(2, VECTOR), StoredVector(3, VECTOR)])
    assert [(serial, id) for serial, id, _ in store.vectors("m2")] == [(1, "a")]
    assert store.without_vector("m2") == [(4, "c", "newer")]
    assert store.without_vector("m2", after=4) == []
    assert store.searchable_serials("m2").tolist() == [1]
    store.keep_vectors("m2", [StoredVector(4, None)])
    assert store.vectors("m2")[1][2] is None
    assert store.searchable_serials("m2").tolist() == [1], "4 has no known word"
    assert store.drop_other_models(["m2", "m1"]) == 0
    assert store.drop_other_models(["m2"], most=1) == 1
    assert store.drop_other_models(["m2"]) == 1
    assert store.drop_other_models(["m2"]) == 0
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
    with pytest.raises(ReadOnlyError):
        put(reader, "b")
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
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("CREATE TABLE things (x)")
    database.close()
    with pytest.raises(StoreError, match="another program"):
        Store(path)
    newer = tmp_path / "newer.sqlite3"
    Store(newer).close()
    with contextlib.closing(sqlite3.connect(newer, isolation_level=None)) as database:
        database.execute("PRAGMA user_version = 3")
    database.close()
    with pytest.raises(StoreError, match="has the format 3, but this version reads up to 2"):
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
    with pytest.raises(DiskFullError):
        store.write([Put("b", "small", "m1", VECTOR), Put("c", "x" * 100_000, "m1", VECTOR)])
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
    root = Path(__file__).resolve().parents[3]
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
                store.drop_other_models(["kept"], most=3)
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
    text = "a\u00e9\u6f22\U0001f600\0 " * 60_000
    store = Store(tmp_path / "d.sqlite3")
    store.write([Put("a", text, "m1", VECTOR)])
    found = store.get("a")
    assert found is not None
    assert found.text == text
    assert [item.text for item in store.without_vector("m2")] == [text]
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "d.sqlite3", isolation_level=None)) as database:
        assert database.execute("SELECT typeof(text), text = ?, characters FROM documents", (text,)).fetchone() == (
            "text",
            1,
            len(text),
        )
    database.close()


# ---- the file itself ------------------------------------------------------------------------------------------------


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = Store(tmp_path / "d.sqlite3")
        put(store, "a")
    finally:
        os.umask(before)
    assert modes(tmp_path) == {"0o600"}


def modes(folder: Path) -> set[str]:
    return {oct(file.stat().st_mode & 0o777) for file in folder.iterdir() if not file.is_symlink()}


@pytest.mark.parametrize("killed", [False, True])
def test_a_file_that_others_could_read_becomes_its_owners_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, killed: bool
) -> None:
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "d.sqlite3"
    store = Store(path)
    put(store, "a")
    copies = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    store.close()
    for name, content in copies.items() if killed else ():
        (path.parent / name).write_bytes(content)
    for file in path.parent.iterdir():
        file.chmod(0o644)
    (tmp_path / "link.sqlite3").symlink_to(path)
    reader = Store(path, read_only=True)
    assert "0o644" in modes(path.parent), "a reader changes nothing"
    reader.close()
    store = Store(tmp_path / "link.sqlite3")
    assert store.serial("a") == 1
    put(store, "b")
    assert modes(path.parent) == {"0o600"}
    assert "had the mode 0644; it holds users' texts, so it is 0600" in caplog.text
    store.close()
    caplog.clear()
    Store(path).close()
    assert caplog.text == ""


def test_a_file_that_cannot_be_made_private_is_served_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(tmp_path / "d.sqlite3").close()
    (tmp_path / "d.sqlite3").chmod(0o664)

    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", refuse)
    store = Store(tmp_path / "d.sqlite3")
    put(store, "a")
    store.close()
    assert "can be read by others, and that cannot be changed (Operation not permitted)" in caplog.text
    store.close()


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_another_name_of_a_file_in_use_is_refused(tmp_path: Path, link: Any) -> None:
    path, other = tmp_path / "d.sqlite3", tmp_path / "folder" / "e.sqlite3"
    other.parent.mkdir()
    store = Store(path)
    put(store, "a")
    link(path, other)
    with pytest.raises(StoreError, match="another process serves it"):
        Store(other)
    code = "import sys; from pathlib import Path; from service.engine.store import Store; Store(Path(sys.argv[1]))"
    root = Path(__file__).resolve().parents[3]
    run = subprocess.run(
        [sys.executable, "-c", code, str(other)],
        capture_output=True,
        text=True,
        cwd=root,
        env={"PYTHONPATH": str(root)},
        check=False,
    )
    assert "another process serves it" in run.stderr
    assert put(store, "b")[0].serial == 2
    store.close()


def remove(path: Path) -> None:
    path.unlink()


def remove_log(path: Path) -> None:
    path.with_name(path.name + "-wal").unlink()


def move(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replace(path: Path) -> None:
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").rename(path)


def remove_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def move_and_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


@pytest.mark.parametrize("loss", [remove, remove_log, move, move_and_link, replace, remove_folder])
def test_a_file_that_is_gone_is_written_no_more(tmp_path: Path, loss: Any) -> None:
    path = tmp_path / "folder" / "d.sqlite3"
    path.parent.mkdir()
    store = Store(path)
    put(store, "a")
    store.check_file()
    loss(path)
    with pytest.raises(StoreError, match="was removed or replaced while it was open"):
        put(store, "b")
    with pytest.raises(StoreError, match="was removed or replaced"):
        store.check_file()
    store.close()


def test_a_file_that_goes_during_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there when the transaction begins and gone when it ends: the write is not acknowledged."""
    path = tmp_path / "d.sqlite3"
    store = Store(path)
    made = Store._made

    def removed(*arguments: Any) -> Any:
        path.unlink()
        return made(*arguments)

    monkeypatch.setattr(Store, "_made", staticmethod(removed))
    with pytest.raises(StoreError, match="was removed or replaced"):
        put(store, "a")
    store.close()


# ---- damage ---------------------------------------------------------------------------------------------------------


def filled(path: Path, n: int = 400) -> None:
    """A file of documents with texts and vectors of many pages."""
    store = Store(path)
    vector = np.full(200, 200**-0.5, np.float32)
    store.write([Put(f"d{i}", f"text {i} " * 20, "m1", vector) for i in range(n)])
    store.write([Delete(f"d{n - 1}")])
    store.close()


def pages_of(path: Path, table: str) -> list[int]:
    """The pages of a table or index, the first is its root."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        try:
            rows = database.execute("SELECT pageno FROM dbstat WHERE name = ? ORDER BY pageno", (table,)).fetchall()
        except sqlite3.OperationalError:
            pytest.skip("this SQLite was built without dbstat")
    database.close()
    return [page for (page,) in rows]


def overwrite(path: Path, page: int, pattern: bytes = b"\xa5") -> None:
    with open(path, "r+b") as file:
        file.seek((page - 1) * 4_096)
        file.write(pattern * 4_096)


@pytest.mark.parametrize(
    "table", ["vectors", "counter", "sqlite_autoindex_documents_1", "sqlite_autoindex_documents_2"]
)
@pytest.mark.parametrize("which", [0, -1])
def test_pages_that_can_be_made_again(tmp_path: Path, table: str, which: int) -> None:
    path = tmp_path / "d.sqlite3"
    filled(path)
    overwrite(path, pages_of(path, table)[which])
    with pytest.raises(StoreError, match=r"is damaged .*; restore a backup"):
        Store(path, read_only=True)
    store = Store(path)
    assert store.count() == 399
    assert [item.text for item in store.without_vector("m1", limit=1_000)] == [f"text {i} " * 20 for i in range(399)]
    (new,) = put(store, "new")
    assert new.serial is not None
    assert new.serial > 400, "a version is never used twice"
    assert (new.serial == 401) == (table != "counter")
    store.close()
    Store(path).close()


def test_a_damaged_text_is_one_line_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "d.sqlite3"
    filled(path)
    for page in pages_of(path, "documents")[1:3]:
        overwrite(path, page)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"is damaged \([^\n]*\); restore a backup$"):
        Store(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("table", ["documents", "vectors", "counter"])
def test_a_missing_table(tmp_path: Path, table: str) -> None:
    path = tmp_path / "d.sqlite3"
    filled(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"DROP TABLE {table}")
    database.close()
    if table == "documents":
        with pytest.raises(StoreError, match="the table documents is missing"):
            Store(path)
        return
    store = Store(path)
    assert len(store.without_vector("m1", limit=1_000)) == 399
    assert (put(store, "new")[0].serial == 401) == (table == "vectors")
    store.close()


def test_a_counter_without_a_row(tmp_path: Path) -> None:
    path = tmp_path / "d.sqlite3"
    filled(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("DELETE FROM counter")
    database.close()
    store = Store(path)
    assert put(store, "new")[0].serial > 401
    store.close()


def test_every_flipped_page_is_served_or_refused(tmp_path: Path) -> None:
    """Each page of a file overwritten in turn: the file opens with all texts, or one line says why not."""
    path = tmp_path / "d.sqlite3"
    filled(path, 60)
    whole = path.read_bytes()
    refused = 0
    for page in range(1, len(whole) // 4_096 + 1):
        for pattern in (b"\x00", b"\xa5"):
            for name in tmp_path.iterdir():
                name.unlink()
            path.write_bytes(whole)
            overwrite(path, page, pattern)
            try:
                store = Store(path)
            except StoreError:
                refused += 1
                continue
            assert store.count() == 59
            assert store.get("d58") is not None
            store.close()
    assert 0 < refused < len(whole) // 2_048
