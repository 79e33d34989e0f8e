"""Snapshots: copies of the documents file with the id of the model, of one moment, made while writes go on.

A snapshot is a directory of ``documents.sqlite3`` and ``snapshot.json``. It is complete or not there: it is made under
another name and renamed. :func:`restore` puts its documents in the place of a documents file.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any, Final

from jose_embed.errors import ConfigError
from service.engine.jobs import Job
from service.engine.records import StoreError
from service.engine.store import Store, locked
from service.engine.writing import DocumentWriter, as_problem
from service.settings import Settings

_DOCUMENTS: Final = "documents.sqlite3"
_FACTS: Final = "snapshot.json"
_PARTIAL: Final = ".partial-"
_FORMAT: Final = 1


def take(settings: Settings, writer: DocumentWriter, job: Job) -> dict[str, Any]:
    """Makes a snapshot: the work of its job.

    Returns:
        The contents of ``snapshot.json``, and the path of the snapshot.

    Raises:
        Problem: ``storage-unavailable``, ``disk-full``.
    """
    folder = settings.snapshots_path
    partial: Path | None = None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in folder.glob(f"{_PARTIAL}*"):  # of a process that was killed
            shutil.rmtree(old, ignore_errors=True)
        now = datetime.datetime.now(datetime.UTC)
        created = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        name = now.strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"
        partial = folder / f"{_PARTIAL}{name}"
        partial.mkdir(mode=0o700)
        facts = _copied(writer, partial / _DOCUMENTS, job)
        head = {"format": _FORMAT, "created": created, "path": str(folder / name)}
        facts = head | facts
        _write(partial / _FACTS, facts)
        partial.rename(folder / name)
        _sync(folder)
    except OSError as error:
        raise as_problem(StoreError(f"{folder}: the snapshot cannot be written ({error.strerror})")) from None
    except StoreError as error:
        raise as_problem(error) from None
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
    job.report("finished")
    return facts


def _copied(writer: DocumentWriter, path: Path, job: Job) -> dict[str, Any]:
    """Copies the documents file and says what is in the copy."""
    frozen, served = writer.freeze()
    with contextlib.closing(frozen):
        writer.store.copy(frozen, path, lambda done, total: job.report("copying pages", done, total))
    job.report("verifying")
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as copy:
        (found,) = copy.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise StoreError(f"the copy is damaged ({' '.join(str(found).split())})")
        (n,) = copy.execute("SELECT count(*) FROM documents").fetchone()
        (last,) = copy.execute("SELECT last_serial FROM counter").fetchone()
    return {
        "model": served.reference,
        "documents": n,
        "last_revision": last,
        "bytes": path.stat().st_size,
        "sha256": _sha256(path),
    }


def restore(snapshot: Path, documents: Path, *, overwrite: bool) -> dict[str, Any]:
    """Puts the documents of a snapshot in the place of a documents file that no service has open.

    Args:
        snapshot: The directory.
        documents: The documents file.
        overwrite: Replace an existing one; it is kept under the name ``FILE.before-restore``.

    Returns:
        The contents of ``snapshot.json``.

    Raises:
        ConfigError: the snapshot is not one, or is damaged, or there is a documents file.
        StoreError: a service has the documents file open.
    """
    source = snapshot / _DOCUMENTS
    try:
        facts: dict[str, Any] = json.loads((snapshot / _FACTS).read_text(encoding="utf-8"))
        fitting = facts["format"] == _FORMAT and facts["sha256"] == _sha256(source)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{snapshot}: is not a snapshot ({error}); name a directory that holds {_FACTS}") from None
    if not fitting:
        raise ConfigError(f"{source}: is not as it was written (another checksum or format); take another snapshot")
    if documents.exists() and not overwrite:
        raise ConfigError(f"{documents}: is there already; --overwrite keeps it as {documents.name}.before-restore")
    documents = documents.resolve()
    endings = ("-wal", "-shm", *([""] if documents.exists() else []))
    lock = locked(documents)
    new = documents.with_name(f"{documents.name}.restoring")
    try:
        shutil.copyfile(source, new)
        new.chmod(0o600)
        Store(new).close()  # brings it to the present format, and checks it
        _sync(new)
        for ending in endings:  # the log of the old file must not be taken for one of the new file
            with contextlib.suppress(FileNotFoundError):
                documents.with_name(documents.name + ending).rename(
                    documents.with_name(f"{documents.name}.before-restore{ending}")
                )
        new.rename(documents)
        _sync(documents.parent)
    except OSError as error:
        raise ConfigError(f"{documents}: cannot be written ({error.strerror}); see {documents.parent}") from None
    finally:
        new.unlink(missing_ok=True)
        lock.close()
        if documents.exists() and documents.stat().st_size == 0:  # it was made for its lock
            documents.unlink()
    return facts


def _write(path: Path, facts: dict[str, Any]) -> None:
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    _sync(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
