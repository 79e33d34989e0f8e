"""The truth about the added documents: one SQLite file.

A write that :meth:`Store.write` returns from is on the disk (write-ahead log, ``synchronous=FULL``): it survives a kill
and a power cut. Vectors are kept beside the texts, each under the id of the model that made it, so that a start need
not embed again; they can be made again at any time.

One process at a time owns the file (an advisory lock), because the index in memory follows its own writes only. Within
it, writes come one after the other, from whichever thread; any number of threads read, each through a connection of its
own, and see the last committed state.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.errors import JoseError
from service.problems import Problem
from service.search.texts import from_utf8, utf8

__all__ = ["Delete", "Document", "Outcome", "Put", "Store", "StoreError", "StoredVector", "Summary"]

APPLICATION_ID: Final = 0x4A4F5345  # "JOSE"
SCHEMA_VERSION: Final = 1
_ALMOST_FULL: Final = 1 << 20

_SCHEMA: Final = """
CREATE TABLE documents (
    id      TEXT PRIMARY KEY,
    serial  INTEGER NOT NULL UNIQUE,  -- of the present version; rises with every write, never used twice
    text    TEXT NOT NULL,
    characters INTEGER NOT NULL,
    created TEXT NOT NULL,
    updated TEXT NOT NULL
) STRICT;
CREATE TABLE vectors (
    model  TEXT NOT NULL,             -- the id of the model that made it
    serial INTEGER NOT NULL,
    vector BLOB,                      -- float32, little-endian; NULL: the text holds no word that the model knows
    PRIMARY KEY (serial, model)
) STRICT, WITHOUT ROWID;
CREATE TABLE counter (last_serial INTEGER NOT NULL) STRICT;
INSERT INTO counter VALUES (0);
"""


class StoreError(JoseError):
    """A documents file that cannot be opened: foreign, damaged, of a newer format, or owned by another process."""


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


class StoredVector(NamedTuple):
    """A stored version and its vector under a model: None where the text holds no known word."""

    serial: int
    vector: npt.NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Put:
    """A document to be stored.

    Args:
        id: Its id.
        text: Its text.
        model: The id of the model of ``vector``.
        vector: float32 (dim,), or None where no word is known.
        if_serial: The version that must be there; None asks for nothing.
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
    """What a write did: the new version (None after a deletion) and the one it replaced (None where there was none)."""

    id: str
    serial: int | None
    replaced: int | None
    created: str
    updated: str


class Store:
    """The documents file, open.

    Args:
        path: The SQLite file; made where it is missing.
        read_only: Open it without the right to write; a missing file is then an empty store.

    Raises:
        StoreError: it cannot be opened; nothing was changed.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        self._lock = -1
        self._writing = threading.Lock()  # one connection writes, and SQLite has one transaction per connection
        self._readers = threading.local()
        self._all_readers: list[sqlite3.Connection] = []
        self._registry = threading.Lock()
        self._closed = False
        self._absent = read_only and not path.exists()
        if self._absent:
            return
        try:
            if not read_only:
                self._lock = _locked(path)
            self._writer = self._connected(write=not read_only)
            self._check_format()
        except sqlite3.Error as error:
            self.close()
            raise StoreError(
                f"{path}: cannot be opened as a documents file ({error}); "
                "name another one with JOSE_DOCUMENTS, or restore a backup"
            ) from None
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------------------------------------------------------

    def write(self, changes: Sequence[Put | Delete]) -> list[Outcome | Problem]:
        """Makes changes in order, in one transaction, and returns when they are on the disk.

        Args:
            changes: Each is made or refused on its own; a refusal does not undo the others.

        Returns:
            One outcome per change, or the problem that refused it: ``unknown-document``, ``precondition-failed``.

        Raises:
            Problem: ``disk-full``, ``storage-unavailable``, ``read-only``: nothing of it was stored.
        """
        if self.read_only:
            raise Problem("read-only", "the documents are open for reading only")
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with self._transaction() as database:
            (serial,) = database.execute("SELECT last_serial FROM counter").fetchone()
            outcomes: list[Outcome | Problem] = []
            for change in changes:
                outcome = self._made(database, change, serial + 1, now)
                if isinstance(outcome, Outcome) and outcome.serial is not None:
                    serial = outcome.serial
                outcomes.append(outcome)
            database.execute("UPDATE counter SET last_serial = ?", (serial,))
        return outcomes

    @staticmethod
    def _made(database: sqlite3.Connection, change: Put | Delete, serial: int, now: str) -> Outcome | Problem:
        row = database.execute("SELECT serial, created FROM documents WHERE id = ?", (change.id,)).fetchone()
        present, created = row if row is not None else (None, now)
        if change.if_serial is not None and change.if_serial != present:
            is_now = "is not there" if present is None else f'has the ETag "{present}"'
            return Problem(
                "precondition-failed", f'document {change.id!r} {is_now}, but If-Match asks for "{change.if_serial}"'
            )
        if change.if_present and present is None:
            return Problem("precondition-failed", f"document {change.id!r} is not there, but If-Match asks for one")
        if isinstance(change, Delete):
            if present is None:
                return Problem("unknown-document", f"there is no added document {change.id!r}")
            database.execute("DELETE FROM documents WHERE id = ?", (change.id,))
            database.execute("DELETE FROM vectors WHERE serial = ?", (present,))
            return Outcome(change.id, None, present, created, now)
        if change.if_absent and present is not None:
            return Problem(
                "precondition-failed", f"document {change.id!r} is there already, but If-None-Match asks for none"
            )
        # As bytes: the sqlite3 module would encode and decode a text of megabytes in one call.
        database.execute(
            "INSERT INTO documents VALUES (?, ?, CAST(? AS TEXT), ?, ?, ?) ON CONFLICT (id) DO UPDATE "
            "SET serial = excluded.serial, text = excluded.text, characters = excluded.characters, "
            "updated = excluded.updated",
            (change.id, serial, utf8(change.text), len(change.text), created, now),
        )
        if present is not None:
            database.execute("DELETE FROM vectors WHERE serial = ?", (present,))
        database.execute("INSERT INTO vectors VALUES (?, ?, ?)", (change.model, serial, _blob(change.vector)))
        return Outcome(change.id, serial, present, created, now)

    def keep_vectors(self, model: str, vectors: Sequence[StoredVector]) -> None:
        """Stores vectors made again under another model; those of versions that are gone by now are passed over."""
        with self._transaction() as database:
            database.executemany(
                "INSERT OR REPLACE INTO vectors SELECT ?1, ?2, ?3 "
                "WHERE EXISTS (SELECT 1 FROM documents WHERE serial = ?2)",
                [(model, item.serial, _blob(item.vector)) for item in vectors],
            )

    def forget_other_models(self, model: str, most: int = 1_000) -> int:
        """Deletes vectors of other models, at most so many at a time; returns how many."""
        with self._transaction() as database:
            return database.execute(
                "DELETE FROM vectors WHERE (serial, model) IN "
                "(SELECT serial, model FROM vectors WHERE model <> ? LIMIT ?)",
                (model, most),
            ).rowcount

    # ------------------------------------------------------------------------------------------------------------------

    def get(self, id: str) -> Document | None:
        """One document, or None."""
        rows = self._read("SELECT id, serial, CAST(text AS BLOB), created, updated FROM documents WHERE id = ?", (id,))
        return Document(*rows[0])._replace(text=from_utf8(rows[0][2])) if rows else None

    def serial(self, id: str) -> int | None:
        """The present version of a document, or None."""
        rows = self._read("SELECT serial FROM documents WHERE id = ?", (id,))
        return int(rows[0][0]) if rows else None

    def page(self, after: str, limit: int) -> list[Summary]:
        """Documents in the order of their ids, from behind an id; the empty id is before all."""
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
        return [(serial, id, None if blob is None else np.frombuffer(blob, "<f4")) for serial, id, blob in rows]

    def without_vector(self, model: str, limit: int = 256) -> list[tuple[int, str]]:
        """Serial and text of versions that have no vector under a model yet, at most so many."""
        rows = self._read(
            "SELECT d.serial, CAST(d.text AS BLOB) FROM documents d WHERE NOT EXISTS "
            "(SELECT 1 FROM vectors v WHERE v.model = ? AND v.serial = d.serial) ORDER BY d.serial LIMIT ?",
            (model, limit),
        )
        return [(serial, from_utf8(text)) for serial, text in rows]

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
            os.close(self._lock)
            self._lock = -1

    # ------------------------------------------------------------------------------------------------------------------

    def _connected(self, *, write: bool) -> sqlite3.Connection:
        # autocommit: transactions are begun and ended in plain sight
        if not write:
            # On a read-only file system SQLite cannot keep its shared memory beside the file, and nobody else can write
            # either.
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

    def _check_format(self) -> None:
        (application,) = self._writer.execute("PRAGMA application_id").fetchone()
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        (tables,) = self._writer.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables == 0 and application == 0 and not self.read_only:
            with self._transaction() as database:
                for statement in _SCHEMA.split(";\n"):
                    database.execute(statement)
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

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One write transaction; what fails on the way, or at the commit, undoes all of it."""
        database = self._writer
        with self._writing:
            try:
                database.execute("BEGIN IMMEDIATE")
                yield database
                database.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._explained(error) from error
            finally:
                if database.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        database.execute("ROLLBACK")

    def _explained(self, error: sqlite3.Error) -> Problem:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        full = code == sqlite3.SQLITE_FULL
        if code == sqlite3.SQLITE_IOERR:
            with contextlib.suppress(OSError):
                full = shutil.disk_usage(self.path.parent).free < _ALMOST_FULL
        if full:
            return Problem("disk-full", f"there is no room left for {self.path.name}")
        return Problem("storage-unavailable", f"SQLite says of {self.path.name}: {error}")

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
            connection = self._connected(write=False)
            with self._registry:
                if self._closed:
                    connection.close()
                    raise Problem("not-ready", "the service is stopping")
                self._all_readers.append(connection)
            self._readers.connection = connection
        return connection


def _blob(vector: npt.NDArray[np.float32] | None) -> bytes | None:
    return None if vector is None else vector.astype("<f4", copy=False).tobytes()


def _locked(path: Path) -> int:
    """A file descriptor that holds the lock of a documents file; the lock ends with the process, however that ends."""
    name = path.with_name(path.name + ".lock")
    try:
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(
            f"{path}: its directory cannot be written to ({error.strerror}); "
            "name another place with JOSE_DOCUMENTS, or serve read-only"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StoreError(
            f"{path}: another process serves it; stop that one, or name another file with JOSE_DOCUMENTS"
        ) from None
    return lock
