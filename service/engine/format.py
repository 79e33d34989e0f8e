"""The format of the documents file: its tables, the steps from older versions, and the repair of a damaged file.

Version 2 added ``documents.fields``, ``counter.model`` and ``removed``, all of which a version 1 file gets when a
service that may write opens it. A service that only reads reads both.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from service.engine.records import DiskFullError, StoreError

APPLICATION_ID: Final = 0x4A4F5345  # "JOSE"
SCHEMA_VERSION: Final = 2
_SKIPPED_SERIALS: Final = 1 << 32  # if the counter is lost: more than any file has used
_log = logging.getLogger("service")

_TABLES: Final = {
    "documents": """CREATE TABLE documents (
    id      TEXT PRIMARY KEY,
    serial  INTEGER NOT NULL UNIQUE,  -- the version; rises with every write and is never used twice
    text    TEXT NOT NULL,
    characters INTEGER NOT NULL,
    created TEXT NOT NULL,
    updated TEXT NOT NULL,
    fields  TEXT NOT NULL DEFAULT '{}'  -- an object in JSON
) STRICT""",
    "vectors": """CREATE TABLE vectors (
    model  TEXT NOT NULL,             -- the id of the model that made it
    serial INTEGER NOT NULL,
    vector BLOB,                      -- float32, little-endian; NULL: the text has no word of the model
    PRIMARY KEY (serial, model)
) STRICT, WITHOUT ROWID""",
    "counter": """CREATE TABLE counter (
    last_serial INTEGER NOT NULL,
    model TEXT                        -- the id of the model that the writer serves, for its replicas
) STRICT""",
    "removed": """CREATE TABLE removed (  -- the last versions that were replaced or deleted, for replicas
    number INTEGER PRIMARY KEY,       -- rises with every removal and is never used twice
    serial INTEGER NOT NULL
) STRICT""",
}
_STEPS: Final = {
    1: (
        "ALTER TABLE documents ADD COLUMN fields TEXT NOT NULL DEFAULT '{}'",
        "ALTER TABLE counter ADD COLUMN model TEXT",
        _TABLES["removed"],
    )
}
_V1_TABLES: Final = ("documents", "vectors", "counter")

Transaction = Callable[[], AbstractContextManager[sqlite3.Connection]]


def prepare(path: Path, database: sqlite3.Connection, transaction: Transaction | None, *, verify: bool) -> int:
    """Makes the tables of a new file, brings an older one to the present version, and checks the file.

    Args:
        path: For messages.
        database: A connection to the file.
        transaction: Makes a write transaction; None if the file is open for reading only.
        verify: Check the structure of every page. Vectors on damaged pages are dropped, so that they are made again.

    Returns:
        The version of the file now.

    Raises:
        StoreError: the file is of another program or a newer version, or its texts are damaged.
    """
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables and application == 0 and transaction is not None:
        _create(transaction)
        return SCHEMA_VERSION
    if not tables and application == 0:
        raise StoreError(f"{path}: has no tables yet; start the service that writes to it first")
    if application != APPLICATION_ID:
        raise StoreError(f"{path}: is a database of another program; name another file with JOSE_DOCUMENTS")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path}: has the format {version}, but this version reads up to {SCHEMA_VERSION}; upgrade jose-embed"
        )
    expected = _V1_TABLES if version == 1 else tuple(_TABLES)
    missing = sorted(set(expected) - tables)
    if version < SCHEMA_VERSION and transaction is not None and not missing:
        _migrate(path, transaction, version)
        version = SCHEMA_VERSION
    fault = f"the table {missing[0]} is missing" if missing else _fault(database) if verify else None
    if fault is not None:
        _repair(path, database, transaction, fault, lost="documents" in missing, version=version)
        version = SCHEMA_VERSION
    return int(version)


def _create(transaction: Transaction) -> None:
    with transaction() as database:
        for statement in _TABLES.values():
            database.execute(statement)
        database.execute("INSERT INTO counter VALUES (0, NULL)")
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _migrate(path: Path, transaction: Transaction, version: int) -> None:
    """Takes all steps to the present version in one transaction: after a kill the file has the old one or the new."""
    with transaction() as database:
        for step in range(version, SCHEMA_VERSION):
            for statement in _STEPS[step]:
                database.execute(statement)
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    _log.info("%s: brought from format %d to %d", path, version, SCHEMA_VERSION)


def _fault(database: sqlite3.Connection) -> str | None:
    """The first fault in the structure of the file, or None."""
    try:
        (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if found == "ok" and database.execute("SELECT last_serial FROM counter").fetchone() is None:
            return "the counter of versions is empty"
    except sqlite3.Error as error:
        return str(error)
    return None if found == "ok" else " ".join(str(found).split())


def _repair(
    path: Path, database: sqlite3.Connection, transaction: Transaction | None, fault: str, *, lost: bool, version: int
) -> None:
    """Drops the vectors, which can be made again, and writes all texts into a sound file.

    Raises:
        StoreError: a text cannot be read, or the file is open for reading only. Nothing was changed.
    """
    error = StoreError(f"{path}: is damaged ({fault}); restore a backup")
    if lost or transaction is None:
        raise error
    try:
        (n_rows, last) = database.execute("SELECT count(text), max(serial) FROM documents NOT INDEXED").fetchone()
        with contextlib.suppress(sqlite3.Error):  # a damaged index is made again, one with more rows is right
            if database.execute("SELECT count(serial) FROM documents").fetchone()[0] != n_rows:
                raise error
        serial = (last or 0) + _SKIPPED_SERIALS
        with contextlib.suppress(sqlite3.Error, TypeError):
            (serial,) = database.execute("SELECT last_serial FROM counter").fetchone()
        fields = "fields" if version > 1 else "'{}'"
        with transaction():
            database.execute(_TABLES["documents"].replace("TABLE documents", "TABLE sound"))
            # The condition keeps SQLite from copying the indexes as they are.
            database.execute(
                f"INSERT INTO sound SELECT id, serial, text, characters, created, updated, {fields} "
                "FROM documents NOT INDEXED WHERE serial > 0"
            )
            # Tables are taken out of the schema, because DROP TABLE would read their damaged pages.
            database.execute("PRAGMA writable_schema = ON")
            names = ", ".join(f"'{name}'" for name in _TABLES)
            database.execute(f"DELETE FROM sqlite_master WHERE tbl_name IN ({names})")
            database.execute("PRAGMA writable_schema = RESET")
            database.execute("ALTER TABLE sound RENAME TO documents")
            for name in ("vectors", "counter", "removed"):
                database.execute(_TABLES[name])
            database.execute("INSERT INTO counter VALUES (?, NULL)", (serial,))
            # Above all numbers before: a replica sees a gap and reads everything again.
            database.execute("INSERT INTO removed VALUES (?, 0)", (time.time_ns() // 1_000,))
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        database.execute("VACUUM")  # drops the pages that no table uses
    except DiskFullError:
        raise
    except (sqlite3.Error, StoreError):
        raise error from None
    if _fault(database) is not None:
        raise error
    _log.warning("%s was damaged (%s): %d texts are sound, their vectors are made again", path, fault, n_rows)
