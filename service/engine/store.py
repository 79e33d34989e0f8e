"""The added documents in one SQLite file.

A write that :meth:`Store.write` returns from is on the disk (write-ahead log, ``synchronous=FULL``): it survives a kill
and a power cut. Vectors are stored beside the texts under the id of the model that made them, so that a start does not
embed the texts again. They can be made again at any time.

One process at a time may write to the file. The lock is on the file itself, so two names of one file cannot be opened
twice. Within the process one thread writes at a time; any number of threads read, each through its own connection, and
see the last committed state.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.errors import JoseError

__all__ = [
    "Delete",
    "DiskFullError",
    "Document",
    "MissingText",
    "Outcome",
    "Put",
    "ReadOnlyError",
    "Refusal",
    "Store",
    "StoreError",
    "StoredVector",
    "Summary",
]

APPLICATION_ID: Final = 0x4A4F5345  # "JOSE"
SCHEMA_VERSION: Final = 1
_ALMOST_FULL: Final = 1 << 20
_SKIPPED_SERIALS: Final = 1 << 32  # if the counter is lost: more than any file has used
_log = logging.getLogger("service")

_TABLES: Final = {
    "documents": """CREATE TABLE documents (
    id      TEXT PRIMARY KEY,
    serial  INTEGER NOT NULL UNIQUE,  -- the version; rises with every write and is never used twice
    text    TEXT NOT NULL,
    characters INTEGER NOT NULL,
    created TEXT NOT NULL,
    updated TEXT NOT NULL
) STRICT""",
    "vectors": """CREATE TABLE vectors (
    model  TEXT NOT NULL,             -- the id of the model that made it
    serial INTEGER NOT NULL,
    vector BLOB,                      -- float32, little-endian; NULL: the text has no word of the model
    PRIMARY KEY (serial, model)
) STRICT, WITHOUT ROWID""",
    "counter": "CREATE TABLE counter (last_serial INTEGER NOT NULL) STRICT",
}

# Files that this process has open for writing, by device and inode. Closing a second descriptor of such a file would
# drop SQLite's own locks on it.
_OPEN: Final[set[tuple[int, int]]] = set()


class StoreError(JoseError):
    """A documents file that cannot be used: foreign, damaged, of a newer format, in use, removed or out of reach."""


class DiskFullError(StoreError):
    """The disk is full; nothing of the write was stored."""


class ReadOnlyError(StoreError):
    """A write to a file that is open for reading only."""


class Document(NamedTuple):
    """A stored document; ``serial`` is the version that its ETag names."""

    id: str
    serial: int
    text: str
    created: str
    updated: str


class Summary(NamedTuple):
    """A stored document without its text."""

    id: str
    serial: int
    characters: int
    created: str
    updated: str


class MissingText(NamedTuple):
    """A stored version that has no vector under a model."""

    serial: int
    id: str
    text: str


class StoredVector(NamedTuple):
    """A stored version and its vector under a model: None if the text holds no known word."""

    serial: int
    vector: npt.NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Put:
    """A document to be stored.

    Args:
        id: Its id.
        text: Its text.
        model: The id of the model of ``vector``.
        vector: float32 (dim,), or None if no word is known.
        if_serial: The version that must be stored; None for any.
        if_absent: There must be none.
        if_present: There must be one.
    """

    id: str
    text: str
    model: str
    vector: npt.NDArray[np.float32] | None
    if_serial: int | None = None
    if_absent: bool = False
    if_present: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """A document to be deleted; ``if_serial`` and ``if_present`` as in :class:`Put`."""

    id: str
    if_serial: int | None = None
    if_present: bool = False


class Outcome(NamedTuple):
    """A change that was made: the new version (None after a deletion) and the replaced one (None if there was none)."""

    id: str
    serial: int | None
    replaced: int | None
    created: str
    updated: str


class Refusal(NamedTuple):
    """A change that was not made: there is no such document, or it has another version than the change requires."""

    reason: Literal["unknown", "changed"]
    change: Put | Delete
    present: int | None


class Store:
    """The documents file, open.

    Args:
        path: The SQLite file; created, readable by its owner only, if it is missing.
        read_only: Open it without the right to write; a missing file is then an empty store.
        verify: Check the structure of every page. Vectors on damaged pages are dropped, so that they are made again.

    Raises:
        StoreError: the file cannot be opened, or its texts are damaged.
    """

    def __init__(self, path: Path, *, read_only: bool = False, verify: bool = True) -> None:
        self.path = path
        self.read_only = read_only
        self._lock = -1
        self._writing = threading.Lock()  # SQLite has one transaction per connection
        self._readers = threading.local()
        self._all_readers: list[sqlite3.Connection] = []
        self._registry = threading.Lock()
        self._closed = False
        self._files: dict[Path, tuple[int, int] | None] = {}
        self._real = path
        self._absent = read_only and not path.exists()
        if self._absent:
            return
        try:
            if not read_only:
                self._lock = _locked(path)
            self._writer = self._connected(write=not read_only)
            self._check_format(verify)
        except sqlite3.Error as error:
            self.close()
            raise StoreError(
                f"{path}: cannot be opened as a documents file ({error}); "
                "name another one with JOSE_DOCUMENTS, or restore a backup"
            ) from None
        except BaseException:
            self.close()
            raise
        real = self._real = path.resolve()
        names = [real] if read_only else [real, real.with_name(f"{real.name}-wal")]
        self._files = {path: _identity(path)} | {name: found for name in names if (found := _identity(name))}
        if self._lock >= 0 and self._files[path] != _identity_of(os.fstat(self._lock)):
            self.close()
            raise StoreError(f"{path}: was replaced while it was opened; start the service again")

    # ------------------------------------------------------------------------------------------------------------------

    def write(self, changes: Sequence[Put | Delete]) -> list[Outcome | Refusal]:
        """Makes changes in order, in one transaction, and returns when they are on the disk.

        Args:
            changes: Each is made or refused on its own; a refusal does not undo the others.

        Returns:
            One outcome or refusal per change.

        Raises:
            StoreError: nothing was stored.
        """
        if self.read_only:
            raise ReadOnlyError("the documents are open for reading only")
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with self._transaction() as database:
            (serial,) = database.execute("SELECT last_serial FROM counter").fetchone()
            outcomes: list[Outcome | Refusal] = []
            for change in changes:
                outcome = self._made(database, change, serial + 1, now)
                if isinstance(outcome, Outcome) and outcome.serial is not None:
                    serial = outcome.serial
                outcomes.append(outcome)
            database.execute("UPDATE counter SET last_serial = ?", (serial,))
        return outcomes

    @staticmethod
    def _made(database: sqlite3.Connection, change: Put | Delete, serial: int, now: str) -> Outcome | Refusal:
        row = database.execute("SELECT serial, created FROM documents WHERE id = ?", (change.id,)).fetchone()
        present, created = row if row is not None else (None, now)
        if (change.if_serial is not None and change.if_serial != present) or (change.if_present and present is None):
            return Refusal("changed", change, present)
        if isinstance(change, Delete):
            if present is None:
                return Refusal("unknown", change, None)
            database.execute("DELETE FROM documents WHERE id = ?", (change.id,))
            database.execute("DELETE FROM vectors WHERE serial = ?", (present,))
            return Outcome(change.id, None, present, created, now)
        if change.if_absent and present is not None:
            return Refusal("changed", change, present)
        database.execute(
            "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE "
            "SET serial = excluded.serial, text = excluded.text, characters = excluded.characters, "
            "updated = excluded.updated",
            (change.id, serial, change.text, len(change.text), created, now),
        )
        if present is not None:
            database.execute("DELETE FROM vectors WHERE serial = ?", (present,))
        database.execute("INSERT INTO vectors VALUES (?, ?, ?)", (change.model, serial, _blob(change.vector)))
        return Outcome(change.id, serial, present, created, now)

    def keep_vectors(self, model: str, vectors: Sequence[StoredVector]) -> None:
        """Stores vectors of versions under a model; versions that are gone by now are skipped."""
        with self._transaction() as database:
            database.executemany(
                "INSERT OR REPLACE INTO vectors SELECT ?1, ?2, ?3 "
                "WHERE EXISTS (SELECT 1 FROM documents WHERE serial = ?2)",
                [(model, item.serial, _blob(item.vector)) for item in vectors],
            )

    def drop_vectors(self, model: str, serials: Sequence[int]) -> None:
        """Deletes the vectors of some versions under a model."""
        with self._transaction() as database:
            database.executemany(
                "DELETE FROM vectors WHERE model = ? AND serial = ?", [(model, serial) for serial in serials]
            )

    def drop_other_models(self, models: Sequence[str], most: int = 1_000) -> int:
        """Delete a bounded number of vectors of all but some models, and return their number."""
        marks = ", ".join("?" * len(models))
        with self._transaction() as database:
            return database.execute(
                "DELETE FROM vectors WHERE (serial, model) IN "
                f"(SELECT serial, model FROM vectors WHERE model NOT IN ({marks}) LIMIT ?)",
                (*models, most),
            ).rowcount

    # ------------------------------------------------------------------------------------------------------------------

    def get(self, id: str) -> Document | None:
        """One document, or None."""
        rows = self._read("SELECT id, serial, CAST(text AS BLOB), created, updated FROM documents WHERE id = ?", (id,))
        return Document(*rows[0])._replace(text=rows[0][2].decode(errors="replace")) if rows else None

    def serial(self, id: str) -> int | None:
        """The present version of a document, or None."""
        rows = self._read("SELECT serial FROM documents WHERE id = ?", (id,))
        return int(rows[0][0]) if rows else None

    def page(self, after: str, limit: int) -> list[Summary]:
        """Documents in the order of their ids, after an id; the empty id comes before all."""
        rows = self._read(
            "SELECT id, serial, characters, created, updated FROM documents WHERE id > ? ORDER BY id LIMIT ?",
            (after, limit),
        )
        return [Summary(*row) for row in rows]

    def count(self) -> int:
        """How many documents are stored."""
        rows = self._read("SELECT count(*) FROM documents", ())
        return int(rows[0][0]) if rows else 0

    def vectors(
        self, model: str, *, after: int = 0, limit: int = 4_096
    ) -> list[tuple[int, str, npt.NDArray[np.float32] | None]]:
        """Serial, id and vector (None: no known word) of the versions that have one under a model, in the order of
        serials, from behind one."""
        rows = self._read(
            "SELECT d.serial, d.id, v.vector FROM documents d JOIN vectors v ON v.model = ? AND v.serial = d.serial "
            "WHERE d.serial > ? ORDER BY d.serial LIMIT ?",
            (model, after, limit),
        )
        return [(serial, id, _vector(blob)) for serial, id, blob in rows]

    def searchable_serials(self, model: str) -> npt.NDArray[np.int64]:
        """The versions that have a vector under a model: int64 (n,), rising."""
        rows = self._read(
            "SELECT d.serial FROM documents d JOIN vectors v ON v.model = ? AND v.serial = d.serial "
            "WHERE v.vector IS NOT NULL ORDER BY d.serial",
            (model,),
        )
        return np.fromiter((serial for (serial,) in rows), np.int64, len(rows))

    def without_vector(self, model: str, *, after: int = 0, limit: int = 256) -> list[MissingText]:
        """Versions behind a serial that have no vector under a model yet, in the order of serials."""
        rows = self._read(
            "SELECT d.serial, d.id, CAST(d.text AS BLOB) FROM documents d WHERE d.serial > ? AND NOT EXISTS "
            "(SELECT 1 FROM vectors v WHERE v.model = ? AND v.serial = d.serial) ORDER BY d.serial LIMIT ?",
            (after, model, limit),
        )
        return [MissingText(serial, id, text.decode(errors="replace")) for serial, id, text in rows]

    def check_file(self) -> None:
        """Passes if the path still leads to the file that is open.

        Raises:
            StoreError: it was removed or replaced.
        """
        for path, identity in self._files.items():
            # A link that took the real name's place would be followed by some connections and not by others.
            if _identity(path) != identity or (path == self._real and path.is_symlink()):
                raise StoreError(
                    f"{path.name} was removed or replaced while it was open, so a write would be lost; "
                    "put the file back, or restart the service"
                )

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        with self._registry:
            self._closed = True
            readers, self._all_readers = self._all_readers, []
        for connection in readers:
            connection.close()
        if (writer := self.__dict__.pop("_writer", None)) is not None:
            with contextlib.suppress(sqlite3.Error):
                writer.close()
        if self._lock >= 0:
            _OPEN.discard(_identity_of(os.fstat(self._lock)))
            os.close(self._lock)
            self._lock = -1

    # ------------------------------------------------------------------------------------------------------------------

    def _connected(self, *, write: bool) -> sqlite3.Connection:
        # isolation_level=None: transactions begin and end where this file says so.
        if not write:
            # On a read-only file system SQLite cannot create its shared memory, and nobody else can write.
            how = "mode=ro" if os.access(self.path.parent, os.W_OK) else "immutable=1"
            connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?{how}", uri=True, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA query_only = ON")
            return connection
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise StoreError(
                    f"{self.path}: this file system has no write-ahead log for SQLite (journal mode {mode}); "
                    "choose a local disk"
                )
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA journal_size_limit = 67108864")
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_format(self, verify: bool) -> None:
        (application,) = self._writer.execute("PRAGMA application_id").fetchone()
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in self._writer.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables and application == 0 and not self.read_only:
            with self._transaction() as database:
                for statement in _TABLES.values():
                    database.execute(statement)
                database.execute("INSERT INTO counter VALUES (0)")
                database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            return
        if application != APPLICATION_ID:
            raise StoreError(f"{self.path}: is a database of another program; name another file with JOSE_DOCUMENTS")
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self.path}: has the format {version}, but this version reads up to {SCHEMA_VERSION}; "
                "upgrade jose-embed"
            )
        missing = sorted(_TABLES.keys() - tables)
        fault = f"the table {missing[0]} is missing" if missing else self._fault() if verify else None
        if fault is not None:
            self._repair(fault, "documents" in missing)

    def _fault(self) -> str | None:
        """The first fault in the structure of the file, or None."""
        try:
            (found,) = self._writer.execute("PRAGMA quick_check(1)").fetchone()
            if found == "ok" and self._writer.execute("SELECT last_serial FROM counter").fetchone() is None:
                return "the counter of versions is empty"
        except sqlite3.Error as error:
            return str(error)
        return None if found == "ok" else " ".join(str(found).split())

    def _repair(self, fault: str, lost: bool) -> None:
        """Drops the vectors, which can be made again, and writes all texts into a sound file.

        Raises:
            StoreError: a text cannot be read, or the file is open for reading only. Nothing was changed.
        """
        database = self._writer
        error = StoreError(f"{self.path}: is damaged ({fault}); restore a backup")
        if lost or self.read_only:
            raise error
        try:
            (n_rows, last) = database.execute("SELECT count(text), max(serial) FROM documents NOT INDEXED").fetchone()
            with contextlib.suppress(sqlite3.Error):  # a damaged index is made again, one with more rows is right
                if database.execute("SELECT count(serial) FROM documents").fetchone()[0] != n_rows:
                    raise error
            serial = (last or 0) + _SKIPPED_SERIALS
            with contextlib.suppress(sqlite3.Error, TypeError):
                (serial,) = database.execute("SELECT last_serial FROM counter").fetchone()
            with self._transaction():
                database.execute(_TABLES["documents"].replace("TABLE documents", "TABLE sound"))
                # The condition keeps SQLite from copying the indexes as they are.
                database.execute("INSERT INTO sound SELECT * FROM documents NOT INDEXED WHERE serial > 0")
                # Tables are taken out of the schema, because DROP TABLE would read their damaged pages.
                database.execute("PRAGMA writable_schema = ON")
                database.execute("DELETE FROM sqlite_master WHERE tbl_name IN ('documents', 'vectors', 'counter')")
                database.execute("PRAGMA writable_schema = RESET")
                database.execute("ALTER TABLE sound RENAME TO documents")
                database.execute(_TABLES["vectors"])
                database.execute(_TABLES["counter"])
                database.execute("INSERT INTO counter VALUES (?)", (serial,))
            database.execute("VACUUM")  # drops the pages that no table uses
        except DiskFullError:
            raise
        except (sqlite3.Error, StoreError):
            raise error from None
        if self._fault() is not None:
            raise error
        _log.warning("%s was damaged (%s): %d texts are sound, their vectors are made again", self.path, fault, n_rows)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One write transaction; an error in it, or at the commit, undoes all of it."""
        database = self._writer
        with self._writing:
            try:
                database.execute("BEGIN IMMEDIATE")
                self.check_file()
                yield database
                database.execute("COMMIT")
                self.check_file()  # before the write is acknowledged
            except sqlite3.Error as error:
                raise self._explained(error) from error
            finally:
                if database.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        database.execute("ROLLBACK")

    def _explained(self, error: sqlite3.Error) -> StoreError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        full = code == sqlite3.SQLITE_FULL
        if code == sqlite3.SQLITE_IOERR:
            with contextlib.suppress(OSError):
                full = shutil.disk_usage(self.path.parent).free < _ALMOST_FULL
        if full:
            return DiskFullError(f"there is no room left for {self.path.name}")
        return StoreError(f"{self.path.name} cannot be read or written (SQLite: {error})")

    def _read(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        if self._absent:
            return []
        try:
            return self._reader().execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def _reader(self) -> sqlite3.Connection:
        """This thread's own connection."""
        connection: sqlite3.Connection | None = getattr(self._readers, "connection", None)
        if connection is None:
            self.check_file()
            connection = self._connected(write=False)
            with self._registry:
                if self._closed:
                    connection.close()
                    raise StoreError("the service is stopping")
                self._all_readers.append(connection)
            self._readers.connection = connection
        return connection


def _blob(vector: npt.NDArray[np.float32] | None) -> bytes | None:
    return None if vector is None else vector.astype("<f4", copy=False).tobytes()


def _vector(blob: bytes | None) -> npt.NDArray[np.float32] | None:
    """float32 (n,); a damaged one may have any length."""
    return None if blob is None else np.frombuffer(blob, "<f4", len(blob) // 4)


def _identity(path: Path) -> tuple[int, int] | None:
    """The device and inode behind a path, or None if there is nothing."""
    try:
        return _identity_of(os.stat(path))
    except OSError:
        return None


def _identity_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _locked(path: Path) -> int:
    """A descriptor of a documents file, created if missing, that holds its lock; the lock ends with the process."""
    taken = StoreError(f"{path}: another process serves it; stop that one, or name another file with JOSE_DOCUMENTS")
    if _identity(path) in _OPEN:
        raise taken
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written to ({error.strerror}); "
            "name another place with JOSE_DOCUMENTS, or serve read-only"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise taken from None
    _OPEN.add(_identity_of(os.fstat(lock)))
    return lock
