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
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from service.engine.format import SCHEMA_VERSION, prepare
from service.engine.records import (
    Delete,
    DiskFullError,
    Document,
    Mark,
    MissingText,
    Outcome,
    Put,
    ReadOnlyError,
    Refusal,
    StoredVector,
    StoreError,
    Summary,
)
from service.search.added import StoredText

_ALMOST_FULL: Final = 1 << 20
_KEPT_REMOVALS: Final = 100_000  # a replica that is further behind reads everything again
_COPIED_PAGES: Final = 1_024  # of 4 KB, between two reports of progress
_NEXT_TEXTS: Final = "WHERE serial > ? ORDER BY serial LIMIT 256"
_COLUMNS: Final = "id, serial, CAST(text AS BLOB), created, updated"

_log = logging.getLogger("service")

# Files that this process has open for writing, by device and inode. Closing a second descriptor of such a file would
# drop SQLite's own locks on it.
_OPEN: Final[set[tuple[int, int]]] = set()


class Store:
    """The documents file, open.

    Args:
        path: The SQLite file; created if it is missing. Opened for writing, it becomes readable by its owner only.
        read_only: Open it without the right to write; a missing file is then an empty store.
        verify: Check the structure of every page. Vectors on damaged pages are dropped, so that they are made again.

    Attributes:
        absent: Whether there was no file to read when it was opened.

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
        self._version = SCHEMA_VERSION
        self.absent = read_only and not path.exists()
        if self.absent:
            return
        try:
            if not read_only:
                self._lock = locked(path).detach()
                _make_private(path, self._lock)
            self._writer = self._connected(write=not read_only)
            self._version = prepare(path, self._writer, None if read_only else self._transaction, verify=verify)
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
            database.execute(
                "DELETE FROM removed WHERE number <= (SELECT max(number) FROM removed) - ?", (_KEPT_REMOVALS,)
            )
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
            _remove(database, present)
            return Outcome(change.id, None, present, created, now)
        if change.if_absent and present is not None:
            return Refusal("changed", change, present)
        database.execute(
            "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE "
            "SET serial = excluded.serial, text = excluded.text, characters = excluded.characters, "
            "updated = excluded.updated, fields = excluded.fields",
            (change.id, serial, change.text, len(change.text), created, now, change.fields),
        )
        if present is not None:
            _remove(database, present)
        database.execute("INSERT INTO vectors VALUES (?, ?, ?)", (change.model, serial, _blob(change.vector)))
        return Outcome(change.id, serial, present, created, now)

    def keep_vectors(self, model: str, vectors: Sequence[StoredVector]) -> None:
        """Stores vectors of versions under a model; versions that are gone by now are skipped."""
        with self._transaction() as database:
            database.executemany(
                "INSERT OR REPLACE INTO vectors SELECT ?, serial, ? FROM documents WHERE serial = ?",
                [(model, _blob(item.vector), item.serial) for item in vectors],
            )

    def drop_vectors(self, model: str, serials: Sequence[int]) -> None:
        """Deletes the vectors of some versions under a model."""
        with self._transaction() as database:
            database.executemany(
                "DELETE FROM vectors WHERE model = ? AND serial = ?", [(model, serial) for serial in serials]
            )

    def note_model(self, model: str) -> None:
        """Stores the id of the model that is served, which replicas follow."""
        with self._transaction() as database:
            database.execute("UPDATE counter SET model = ?", (model,))

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
        return self.get_many([id]).get(id)

    def get_many(self, ids: Sequence[str]) -> dict[str, Document]:
        """Those of some documents that are stored, by id."""
        statement = f"SELECT {_COLUMNS}, {self._fields} FROM documents WHERE id = ?"
        return {row[0]: _document(row) for id in ids for row in self._read(statement, (id,))}

    def serial(self, id: str) -> int | None:
        """The present version of a document, or None."""
        rows = self._read("SELECT serial FROM documents WHERE id = ?", (id,))
        return int(rows[0][0]) if rows else None

    def page(self, after: str, limit: int) -> list[Summary]:
        """Documents in the order of their ids, after an id; the empty id comes before all."""
        rows = self._read(
            f"SELECT id, serial, characters, created, updated, {self._fields} FROM documents "
            "WHERE id > ? ORDER BY id LIMIT ?",
            (after, limit),
        )
        return [Summary(*row) for row in rows]

    def whole_page(self, after: str, limit: int, most_characters: int) -> list[Document]:
        """As :meth:`page`, with the texts; ends early behind the document that exceeds a number of characters."""
        sizes = self.page(after, limit)
        n = n_characters = 0
        while n < len(sizes) and n_characters < most_characters:
            n_characters += sizes[n].characters + len(sizes[n].fields)
            n += 1
        rows = self._read(
            f"SELECT {_COLUMNS}, {self._fields} FROM documents WHERE id > ? ORDER BY id LIMIT ?", (after, n)
        )
        return [_document(row) for row in rows]

    def count(self) -> int:
        """How many documents are stored."""
        rows = self._read("SELECT count(*) FROM documents", ())
        return int(rows[0][0]) if rows else 0

    def mark(self) -> Mark:
        """The present state, to be compared with an earlier one."""
        if self._version < SCHEMA_VERSION and not self.absent:  # the writer may have changed the format meanwhile
            ((self._version,),) = self._read("PRAGMA user_version", ())
        if self._version < SCHEMA_VERSION:
            rows = self._read("SELECT last_serial, 0, NULL FROM counter", ())
        else:
            number = "(SELECT coalesce(max(number), 0) FROM removed)"
            rows = self._read(f"SELECT last_serial, {number}, model FROM counter", ())
        return Mark(*rows[0]) if rows else Mark(0, 0, None)

    def removed(self, since: Mark) -> list[int] | None:
        """The versions that were replaced or deleted since a state, or None if that is too long ago to tell."""
        if self._version < SCHEMA_VERSION:
            return None
        rows = self._read("SELECT number, serial FROM removed WHERE number >= ? ORDER BY number", (since.removal,))
        if since.removal == 0:
            return [serial for _, serial in rows] if not rows or rows[0][0] == 1 else None
        return [serial for _, serial in rows[1:]] if rows and rows[0][0] == since.removal else None

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """All that this thread reads within it is of one state of the file."""
        if self.absent:
            yield
            return
        connection = self._reader()
        try:
            connection.execute("BEGIN")
            yield
        except sqlite3.Error as error:
            raise self._explained(error) from error
        finally:
            if connection.in_transaction:
                connection.rollback()

    def frozen(self) -> sqlite3.Connection:
        """A connection of its own that sees the present state until it is closed, for :meth:`copy`."""
        connection = self._connected(write=False)
        try:
            connection.execute("BEGIN")
            connection.execute("SELECT last_serial FROM counter").fetchone()
        except sqlite3.Error as error:
            connection.close()
            raise self._explained(error) from error
        return connection

    def copy(self, frozen: sqlite3.Connection, path: Path, report: Callable[[int, int], None]) -> None:
        """Copies the state that a connection of :meth:`frozen` sees into a new file, while writes go on.

        Args:
            frozen: The connection.
            path: The new file, which is on the disk afterwards.
            report: Called with the pages that were copied and the number of all.
        """
        try:
            copy = sqlite3.connect(path, isolation_level=None)
            try:
                frozen.backup(copy, pages=_COPIED_PAGES, progress=lambda _, left, all: report(all - left, all))
                copy.execute("PRAGMA journal_mode = DELETE")  # no second file belongs to it
            finally:
                copy.close()
            with path.open("rb") as file:
                os.fsync(file.fileno())
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, OSError):
                raise StoreError(f"{path}: cannot be written ({error.strerror})") from None
            raise self._explained(error, path) from error

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

    def texts(self, after: int) -> list[StoredText]:
        """Texts and fields of some versions behind a serial, in order."""
        rows = self._read(f"SELECT serial, CAST(text AS BLOB), {self._fields} FROM documents {_NEXT_TEXTS}", (after,))
        return [StoredText(serial, text.decode(errors="replace"), fields) for serial, text, fields in rows]

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

    def stale(self) -> bool:
        """Whether the path leads to another file than the one that is open for reading."""
        now = _identity(self.path)
        return now is not None and now != self._files.get(self.path)

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
            Lock(self._lock).close()
            self._lock = -1

    # ------------------------------------------------------------------------------------------------------------------

    @property
    def _fields(self) -> str:
        return "fields" if self._version >= SCHEMA_VERSION else "'{}'"

    def _connected(self, *, write: bool) -> sqlite3.Connection:
        # isolation_level=None: transactions begin and end where this file says so.
        if not write:
            # On a read-only file system SQLite cannot create its shared memory: if there is none, nobody writes.
            shared = self.path.resolve().with_name(f"{self.path.resolve().name}-shm")
            how = "mode=ro" if os.access(self.path.parent, os.W_OK) or shared.exists() else "immutable=1"
        place = str(self.path) if write else f"{self.path.absolute().as_uri()}?{how}"
        connection = sqlite3.connect(place, uri=not write, isolation_level=None, check_same_thread=False)
        try:
            if not write:
                connection.execute("PRAGMA query_only = ON")
                return connection
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

    def _explained(self, error: sqlite3.Error, path: Path | None = None) -> StoreError:
        path = path or self.path
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        full = code == sqlite3.SQLITE_FULL
        if code == sqlite3.SQLITE_IOERR:
            with contextlib.suppress(OSError):
                full = shutil.disk_usage(path.parent).free < _ALMOST_FULL
        if full:
            return DiskFullError(f"there is no room left for {path.name}")
        return StoreError(f"{path.name} cannot be read or written (SQLite: {error})")

    def _read(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        if self.absent:
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


def _remove(database: sqlite3.Connection, serial: int) -> None:
    """Drops the vectors of a version that was replaced or deleted, and tells the replicas."""
    database.execute("DELETE FROM vectors WHERE serial = ?", (serial,))
    database.execute("INSERT INTO removed (serial) VALUES (?)", (serial,))


def _document(row: tuple[Any, ...]) -> Document:
    return Document(*row)._replace(text=row[2].decode(errors="replace"))


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


class Lock:
    """The lock of a documents file: a descriptor that holds it, until it is closed or the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def detach(self) -> int:
        """The descriptor, which the caller closes."""
        return self._descriptor

    def close(self) -> None:
        """Gives the lock up."""
        _OPEN.discard(_identity_of(os.fstat(self._descriptor)))
        os.close(self._descriptor)


def locked(path: Path) -> Lock:
    """The lock of a documents file, which is created if it is missing.

    Raises:
        StoreError: another process has it, or the file cannot be opened.
    """
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
    return Lock(lock)


def _make_private(path: Path, lock: int) -> None:
    """Let only the owner read the documents file and its companions; a file of another user is reported."""
    real = path.resolve()
    before = stat.S_IMODE(os.fstat(lock).st_mode)
    try:
        if before & 0o077:
            os.fchmod(lock, 0o600)
            _log.warning("%s had the mode %04o; it holds users' texts, so it is 0600 from now on", path, before)
        # SQLite gives new companions the mode of the file. By their names: to close a descriptor would drop its locks.
        for companion in (real.with_name(f"{real.name}{ending}") for ending in ("-wal", "-shm", "-journal")):
            if companion.is_file() and not companion.is_symlink() and stat.S_IMODE(companion.stat().st_mode) & 0o077:
                companion.chmod(0o600)
    except OSError as error:
        _log.warning("%s can be read by others, and that cannot be changed (%s)", path, error.strerror)
