"""Directories and files that appear complete or not at all.

A writer fills a hidden directory beside the target (``.NAME.tmp-<pid>-<random>``), syncs every file and the directory,
and renames it. An existing directory is exchanged in one step if the system can (Linux), otherwise it is moved aside
first. If anything fails, the name keeps the old directory or none, and the temporary one is removed. A killed process
leaves its temporary directory behind; the next writer of the same name removes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Final, TypedDict

from jose_embed.errors import ModelError, TrainingError
from jose_embed.storage.locks import _lock

BLOCK_BYTES: Final = 1 << 20
Chunk = bytes | memoryview
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_ALLOWED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_SETTLED_SECONDS: Final = 10.0
_RENAME_NEW, _RENAME_EXCHANGE = 1, 2


class FileFacts(TypedDict):
    """Entry of one file in a manifest: its SHA-256 in hex and its size in bytes."""

    sha256: str
    bytes: int


def reason(error: BaseException) -> str:
    """The informative part of an error's text."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def plain_size(n_bytes: int) -> str:
    """A number of bytes as text.

    Example:
        >>> plain_size(999), plain_size(1_500), plain_size(2_000_000_000)
        ('999 bytes', '1.5 kB', '2.0 GB')
    """
    if n_bytes < 1000:
        return f"{n_bytes} bytes"
    size = float(n_bytes)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def file_name_is_safe(name: str) -> bool:
    """Whether a name stays inside its directory on every system.

    Example:
        >>> [file_name_is_safe(name) for name in ("a.npy", "../a.npy", "/a", ".a", "a\\n", "")]
        [True, False, False, False, False, False]
    """
    return _SAFE_NAME.fullmatch(name) is not None


def foreign_entry(path: Path, own: Collection[str]) -> str | None:
    """The first entry of a directory that is not a regular file with one of these names; None if there is none.

    Directories, symbolic links and pipes are foreign whatever their names are.
    """
    with os.scandir(path) as entries:
        foreign = [entry.name for entry in entries if entry.name not in own or not entry.is_file(follow_symlinks=False)]
    return min(foreign, default=None)


def check_output(
    output: str | os.PathLike[str],
    inputs: Iterable[str | os.PathLike[str]],
    containers: Iterable[str | os.PathLike[str]] = (),
) -> None:
    """Check that writing a file or directory replaces no input, under whatever name.

    Args:
        output: The name to be written.
        inputs: Files and directories that are read; ``-`` is standard input.
        containers: Directories that are read as a whole, such as a model: the output may not be inside them.

    Raises:
        ModelError: the output is an input (also by a hard or symbolic link, or in another case), contains one, or is in
            a container.
    """
    target = os.path.realpath(output)
    for name in (*inputs, *containers):
        shown = "standard input" if os.fspath(name) == "-" else os.fspath(name)
        if _same(target, name):
            raise ModelError(f"{os.fspath(output)}: is {shown}, which is read; choose another name for the output")
        if any(_same(target, folder) for folder in Path(os.path.realpath(name)).parents):
            raise ModelError(
                f"{os.fspath(output)}: contains {shown}, which is read; choose another name for the output"
            )
    for name in containers:
        if any(_same(name, folder) for folder in Path(target).parents):
            what = f"is in {os.fspath(name)}, which is read; choose another place for the output"
            raise ModelError(f"{os.fspath(output)}: {what}")


def _same(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    """Whether two names, of which the second may be ``-``, stand for one file or directory that exists."""
    try:
        return os.path.samestat(os.stat(first), os.fstat(0) if os.fspath(second) == "-" else os.stat(second))
    except (OSError, ValueError):
        return False


def remove_directory(path: Path, own: Collection[str]) -> None:
    """Remove the regular files with these names from a directory, and the directory if nothing else is in it."""
    with contextlib.suppress(OSError):
        with os.scandir(path) as entries:
            files = [entry.path for entry in entries if entry.name in own and entry.is_file(follow_symlinks=False)]
        for file in files:
            os.unlink(file)
        os.rmdir(path)


def check_target(
    path: str | os.PathLike[str], *, overwrite: bool = False, known: Callable[[Path], None] | None = None
) -> Path:
    """The absolute path of a directory to be written, checked before any work is done.

    Temporary directories of killed writers of the same name are removed first.

    Args:
        path: The name to be written; symbolic links are followed.
        overwrite: Whether an existing directory may be replaced.
        known: Called with an existing directory that is not empty; raises if it must not be replaced.

    Raises:
        ModelError: the path is taken, its parent is missing or cannot be written to, or ``known`` refuses.
    """
    shown = os.fspath(path)
    try:
        target = Path(os.path.realpath(path))
        if not target.name:
            raise ModelError(f"{shown}: the root of a file system cannot be replaced; name a directory in it")
        if not target.parent.is_dir():
            raise ModelError(f"{shown}: the directory {target.parent} does not exist; make it first")
        tidy(target)
        if os.path.lexists(target):
            if not overwrite:
                raise ModelError(f"{shown}: already exists; choose another name, or replace it with overwrite=True")
            if not target.is_dir():
                raise ModelError(
                    f"{shown}: is a file, not a directory; it will not be overwritten, choose another name"
                )
            if known is not None and any(target.iterdir()):
                known(target)
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise ModelError(
                f"{target.parent}: this directory cannot be written to; choose another place for {target.name}"
            )
    except (OSError, ValueError) as error:
        raise ModelError(f"{shown}: cannot be written here ({reason(error)}); choose another place") from None
    return target


class DirectoryWriter:
    """A context that fills a temporary directory and renames it at the end; after an exception nothing remains.

    Args:
        path: The name of the directory.
        overwrite: Replace an existing directory.
        known: As in :func:`check_target`.
        needed_bytes: The expected size, compared with the free space before anything is written; None if unknown.

    Attributes:
        files: :class:`FileFacts` by name, for every file written so far.

    Raises:
        ModelError: the path is taken or cannot be written.
        TrainingError: a full disk; names the needed and the free space.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        known: Callable[[Path], None] | None = None,
        needed_bytes: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.files: dict[str, FileFacts] = {}
        self._overwrite = overwrite
        self._known = known
        self._needed = needed_bytes
        self._written = 0
        self._target = Path()
        self._temporary: Path | None = None
        self._lock = -1

    def __enter__(self) -> DirectoryWriter:
        self._target = check_target(self.path, overwrite=self._overwrite, known=self._known)
        try:
            if self._needed is not None:
                free = shutil.disk_usage(self._target.parent).free
                if self._needed > free:
                    raise self._no_room(free)
            self._temporary = self._target.parent / _temporary_name(self._target.name, "tmp")
            os.mkdir(self._temporary)
            self._lock = os.open(self._temporary, os.O_RDONLY)
            _lock(self._lock)
        except OSError as error:
            self._remove()
            raise self._explained(error) from error
        except BaseException:
            self._remove()
            raise
        return self

    def write(self, name: str, chunks: Iterable[Chunk]) -> FileFacts:
        """Write and sync one file of the directory, and record its size and SHA-256.

        Args:
            name: A plain file name.
            chunks: The contents in blocks; arrays must be C-contiguous.
        """
        assert self._temporary is not None
        if not file_name_is_safe(name) or name in self.files:
            raise ModelError(
                f"{name!r} cannot name a file of a model: it must be new, and of letters, digits, '_', '-' and '.'"
            )
        try:
            facts = _write_file(self._temporary / name, chunks, self._count)
        except OSError as error:
            raise self._explained(error) from error
        self.files[name] = facts
        return facts

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                assert self._temporary is not None
                _sync_directory(self._temporary)
                self._publish(self._temporary)
        except OSError as error:
            raise self._explained(error) from error
        finally:
            self._remove()

    def _publish(self, temporary: Path) -> None:
        """Rename the filled directory; undone if the rename cannot be synced."""
        target = self._target
        if not os.path.lexists(target):
            if not _renamed_by_kernel(temporary, target, _RENAME_NEW):
                os.rename(temporary, target)
            self._make_last(lambda: os.rename(target, temporary))
            return
        check_target(self.path, overwrite=self._overwrite, known=self._known)
        if _renamed_by_kernel(temporary, target, _RENAME_EXCHANGE):
            self._make_last(lambda: _renamed_by_kernel(temporary, target, _RENAME_EXCHANGE))
            return
        aside = target.parent / _temporary_name(target.name, "old")
        guard = os.open(target, os.O_RDONLY)
        try:
            _lock(guard)
            try:
                os.rename(target, aside)
                os.rename(temporary, target)
            except BaseException:
                if os.path.lexists(aside) and not os.path.lexists(target):
                    os.rename(aside, target)
                raise

            def put_back() -> None:
                os.rename(target, temporary)
                os.rename(aside, target)

            self._make_last(put_back)
            shutil.rmtree(aside, ignore_errors=True)
        finally:
            os.close(guard)

    def _make_last(self, undo: Callable[[], object]) -> None:
        """Sync the parent directory after a rename, or undo the rename."""
        try:
            _sync_directory(self._target.parent)
        except BaseException:
            undo()
            raise

    def _count(self, n_bytes: int) -> None:
        self._written += n_bytes

    def _remove(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _no_room(self, free: int, why: str = os.strerror(errno.ENOSPC)) -> TrainingError:
        needed = plain_size(max(self._needed or 0, self._written + 1))
        return TrainingError(
            f"{self.path}: no room on the disk ({why}): {needed} are needed, {plain_size(free)} were free; nothing was "
            "changed; make room or choose another place"
        )

    def _explained(self, error: OSError) -> Exception:
        if error.errno in _NO_ROOM:
            return self._no_room(shutil.disk_usage(self._target.parent).free + self._written, reason(error))
        return _explained(error, self.path)


class FileWriter:
    """Writes one file sequentially.

    Args:
        descriptor: The open file.
        path: Its name in messages.
        folder: Its directory.

    Attributes:
        written: Bytes written so far.
        share: The share of the work that they are, 0 if unknown; used to estimate the space that a full disk lacks.
        closed: Whether the file was closed, so that nothing more may be written.
    """

    def __init__(self, descriptor: int, path: str, folder: Path) -> None:
        self.written = 0
        self.share = 0.0
        self.closed = False
        self._descriptor = descriptor
        self._path = path
        self._folder = folder

    def __call__(self, chunk: Chunk) -> int:
        """Append bytes and return their number.

        Raises:
            ModelError, TrainingError: as :func:`atomic_file`.
        """
        wanted = self.written + memoryview(chunk).nbytes
        try:
            if self.closed:  # its descriptor may be that of another file by now
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            return _write_all(self._descriptor, chunk, self._count)
        except OSError as error:
            raise self.explained(error, wanted) from error

    def rewrite_head(self, data: bytes) -> None:
        """Replace the first ``len(data)`` bytes."""
        try:
            if len(data) > self.written or os.pwrite(self._descriptor, data, 0) != len(data):
                raise OSError(errno.EIO, "its beginning could not be written again")
        except OSError as error:
            raise self.explained(error) from error

    def explained(self, error: OSError, wanted: int = 0) -> Exception:
        """The error to raise for a system error, after ``wanted`` bytes were to be written."""
        if error.errno not in _NO_ROOM:
            return _explained(error, self._path)
        known = 0.0 < self.share <= 1.0
        needed = f"about {plain_size(int(wanted / self.share))}" if known else f"more than {plain_size(wanted)}"
        free = plain_size(shutil.disk_usage(self._folder).free + self.written)
        return TrainingError(
            f"{self._path}: no room on the disk ({reason(error)}): {needed} are needed, {free} were free; nothing was "
            "changed; make room or choose another place"
        )

    def _count(self, n_bytes: int) -> None:
        self.written += n_bytes


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[FileWriter]:
    """A context that yields the writer of a temporary file, which is synced and renamed at the end.

    Raises:
        ModelError: the file exists (and ``overwrite`` is False), is a directory, or cannot be written.
        TrainingError: a full disk; names the needed and the free space.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise ModelError(f"{path}: is a directory; name a file")
    if target.exists() and not target.is_file():
        raise ModelError(f"{path}: is not a regular file, so it is not replaced; name a file")
    if os.path.lexists(target) and not overwrite:
        raise ModelError(f"{path}: already exists; choose another name, or replace it with overwrite=True")
    if not target.parent.is_dir():
        raise ModelError(f"{path}: the directory {target.parent} does not exist; make it first")
    temporary = target.parent / _temporary_name(target.name, "tmp")
    try:
        tidy(target)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        _lock(descriptor)
        writer = FileWriter(descriptor, os.fspath(path), target.parent)
        try:
            try:
                yield writer
                os.fsync(descriptor)
            finally:
                writer.closed = True
                os.close(descriptor)
            if overwrite:
                os.replace(temporary, target)
            elif not _renamed_by_kernel(temporary, target, _RENAME_NEW):
                os.rename(temporary, target)
            with contextlib.suppress(OSError):  # the file is complete; only its name may be lost in a crash
                _sync_directory(target.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise FileWriter(-1, os.fspath(path), target.parent).explained(error) from error


def _write_file(path: Path, chunks: Iterable[Chunk], count: Callable[[int], None]) -> FileFacts:
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        for chunk in chunks:
            digest.update(chunk)
            size += _write_all(descriptor, chunk, count)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return FileFacts(sha256=digest.hexdigest(), bytes=size)


def _write_all(descriptor: int, chunk: Chunk, count: Callable[[int], None] | None = None) -> int:
    view = memoryview(chunk)
    if view.nbytes == 0:
        return 0
    view = view.cast("B")
    done = 0
    while done < view.nbytes:
        step = os.write(descriptor, view[done : done + (256 << 20)])
        done += step
        if count is not None:
            count(step)
    return done


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary_name(name: str, kind: str) -> str:
    # A file name may have 255 bytes, so a long one is replaced by a hash.
    return f".{_short(name)}.{kind}-{os.getpid()}-{secrets.token_hex(4)}"


def _short(name: str) -> str:
    encoded = os.fsencode(name)
    return name if len(encoded) <= 200 else hashlib.sha256(encoded).hexdigest()


def _renamed_by_kernel(source: Path, target: Path, flags: int) -> bool:
    """Linux ``renameat2``: exchange two names in one step, or rename to a free name; False if it is not supported."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    here = -100  # AT_FDCWD
    if call(here, os.fsencode(source), here, os.fsencode(target), ctypes.c_uint(flags)) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM):  # an old kernel, file system or sandbox
        return False
    raise OSError(number, os.strerror(number), os.fspath(target))


def _writer_is_gone(temporary: Path, pid: int) -> bool:
    """Whether the writer of a temporary directory or file has ended.

    A writer holds a lock, which also works across containers, where process numbers differ. A new temporary may not be
    locked yet: then, and on systems without locks, the process must have ended.
    """
    try:
        descriptor = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        unlocked = _lock(descriptor)
        age = time.time() - os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
    if unlocked is False:
        return False
    try:
        os.kill(pid, 0)
        process_is_gone = False
    except ProcessLookupError:
        process_is_gone = True
    except (OSError, OverflowError):
        process_is_gone = False
    return process_is_gone or (unlocked is True and age > _SETTLED_SECONDS)


def tidy(target: Path) -> None:
    """Remove what killed writers of this name left; restore a directory that was moved aside and not replaced."""
    for name in _leftovers(target, "tmp|old"):
        leftover = target.parent / name
        if not _writer_is_gone(leftover, int(name.split("-")[-2])):
            continue
        if name.rpartition(".")[2].startswith("old") and not os.path.lexists(target):
            os.rename(leftover, target)
        elif leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def moved_aside(path: Path) -> str | None:
    """The name of the old directory that a killed writer had moved aside from ``path``, if there is one."""
    try:
        found = _leftovers(path, "old")
    except (OSError, ValueError):
        return None
    return found[-1] if found else None


def _leftovers(target: Path, kinds: str) -> list[str]:
    pattern = re.compile(re.escape(f".{_short(target.name)}.") + rf"({kinds})-\d{{1,10}}-[0-9a-f]{{8}}")
    return sorted(name for name in os.listdir(target.parent) if pattern.fullmatch(name))


def _explained(error: OSError, path: str | os.PathLike[str]) -> ModelError:
    shown = os.fspath(path)
    if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
        return ModelError(
            f"{shown}: was made meanwhile by another program; choose another name, or replace it with overwrite=True"
        )
    if error.errno in _NOT_ALLOWED:
        where = os.path.dirname(os.path.realpath(path))
        return ModelError(
            f"{shown}: the directory {where} cannot be written to ({reason(error)}); choose another place"
        )
    return ModelError(f"{shown}: cannot be written ({reason(error)}); nothing was changed")
