"""Directories and files of plain arrays that appear whole or not at all.

A writer fills a hidden directory beside the target (``.NAME.tmp-<pid>-<random>``), syncs every file and the directory, and renames it. An
existing model is exchanged in one step where the system can (Linux), and moved aside first where it cannot. Whatever fails on the way, the
name holds the old model or none, and the temporary is removed. A killed process leaves its temporary behind; the next writer of the same name
removes it once its process is gone.

A reader opens the directory once and every file relative to it, so that a model that is replaced meanwhile is read wholly old or wholly new.
Nothing is ever unpickled.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import hashlib
import json
import math
import mmap
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ModelError, TrainingError

__all__ = [
    "BLOCK_BYTES",
    "DirectoryReader",
    "DirectoryWriter",
    "FileFacts",
    "array_header",
    "atomic_file",
    "check_target",
    "file_name_is_safe",
    "npy_preamble",
    "plain_size",
]

BLOCK_BYTES: Final = 4 << 20
Chunk = bytes | memoryview
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_ALLOWED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_TEMPORARY: Final = re.compile(r"(tmp|old)-(\d{1,10})-[0-9a-f]{8}")
_MAGIC: Final = b"\x93NUMPY"
_LARGEST_HEADER: Final = 10_000
_RENAME_NEW, _RENAME_EXCHANGE = 1, 2


class FileFacts(dict[str, Any]):
    """What the manifest says of one file: ``{"sha256": hex, "bytes": size}``."""


def plain_size(n_bytes: int) -> str:
    """A number of bytes for people.

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


# --------------------------------------------------------------------------------------------------------------------------------- writing


def check_target(path: str | os.PathLike[str], *, overwrite: bool = False, known: Callable[[Path], None] | None = None) -> Path:
    """The absolute place that a new directory will take, found fit before any work is done.

    Args:
        path: The name to be written; a symbolic link stands for what it points at.
        overwrite: Whether something may be there already.
        known: Called with an existing directory that is about to be replaced; raises where it must stay.

    Raises:
        ModelError: the place is taken, its parent is missing or cannot be written, or what is there is not ours to replace.
    """
    shown = os.fspath(path)
    try:
        target = Path(os.path.realpath(path))
        if not target.name:
            raise ModelError(f"{shown}: the root of a file system cannot become a model; name a directory in it")
        if not target.parent.is_dir():
            raise ModelError(f"{shown}: the directory {target.parent} does not exist; make it first")
        if os.path.lexists(target):
            if not overwrite:
                raise ModelError(f"{shown}: already exists; choose another name or overwrite it (--overwrite)")
            if not target.is_dir():
                raise ModelError(f"{shown}: is a file, not a model directory; it will not be overwritten, choose another name")
            if known is not None and any(target.iterdir()):
                known(target)
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise ModelError(f"{target.parent}: this directory cannot be written to; choose another place for {target.name}")
    except (OSError, ValueError) as error:
        raise ModelError(f"{shown}: cannot be written here ({_reason(error)}); choose another place") from None
    return target


class DirectoryWriter:
    """A context that fills a directory beside its place and puts it there on leaving; on an exception nothing remains.

    Args:
        path: Where the directory shall appear.
        overwrite: Replace what is there.
        known: As in :func:`check_target`.
        needed_bytes: What will be written, when known: compared with the free room before the first byte.

    Attributes:
        files: Name to :class:`FileFacts` of every file written so far.

    Raises:
        ModelError: the place is taken or cannot be written.
        TrainingError: no room on the disk, with what was needed and what there was.
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
            _remove_dead_temporaries(self._target)
            if self._needed is not None:
                free = shutil.disk_usage(self._target.parent).free
                if self._needed > free:
                    raise self._no_room(free)
            temporary = self._target.parent / _temporary_name(self._target.name, "tmp")
            os.mkdir(temporary)
            self._temporary = temporary
            self._lock = _locked(temporary)
        except OSError as error:
            self._remove()
            raise self._explained(error) from error
        except BaseException:
            self._remove()
            raise
        return self

    def write(self, name: str, chunks: Iterable[Chunk]) -> FileFacts:
        """Writes one file of the directory, syncs it, and notes its size and SHA-256.

        Args:
            name: A plain file name.
            chunks: The contents, piece by piece; arrays must be C-contiguous.
        """
        assert self._temporary is not None
        if not file_name_is_safe(name) or name in self.files:
            raise ModelError(f"{name!r} cannot name a file of a model: it must be new, and of letters, digits, '_', '-' and '.'")
        try:
            facts = _write_file(self._temporary / name, chunks, self._count)
        except OSError as error:
            raise self._explained(error) from error
        self.files[name] = facts
        return facts

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
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
        """Puts the filled directory under its name; undone again if that cannot be made to last."""
        target, aside = self._target, None
        if os.path.lexists(target):
            check_target(self.path, overwrite=self._overwrite, known=self._known)
            if not _renamed_by_kernel(temporary, target, _RENAME_EXCHANGE):
                aside = target.parent / _temporary_name(target.name, "old")
                os.rename(target, aside)
                try:
                    os.rename(temporary, target)
                except BaseException:
                    os.rename(aside, target)
                    raise
            undo: Callable[[], object] = lambda: self._swap_back(temporary, target, aside)  # noqa: E731
        else:
            if not _renamed_by_kernel(temporary, target, _RENAME_NEW):
                os.rename(temporary, target)
            undo = lambda: os.rename(target, temporary)  # noqa: E731
        try:
            _sync_directory(target.parent)
        except BaseException:
            undo()
            raise
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)

    @staticmethod
    def _swap_back(temporary: Path, target: Path, aside: Path | None) -> None:
        if aside is None:
            _renamed_by_kernel(temporary, target, _RENAME_EXCHANGE)
        else:
            os.rename(target, temporary)
            os.rename(aside, target)

    def _count(self, n_bytes: int) -> None:
        self._written += n_bytes

    def _remove(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _no_room(self, free: int | None) -> TrainingError:
        needed = f"{plain_size(self._needed)} are needed" if self._needed is not None else "the model does not fit"
        there = f", {plain_size(free)} are free" if free is not None else ""
        return TrainingError(f"{self.path}: no room on the disk: {needed}{there}; make room or choose another place (nothing was changed)")

    def _explained(self, error: OSError) -> Exception:
        if error.errno in _NO_ROOM:
            free: int | None = None
            with contextlib.suppress(OSError):
                free = shutil.disk_usage(self._target.parent).free + self._written
            return self._no_room(free)
        return _explained(error, self.path)


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Callable[[Chunk], int]]:
    """A context that yields the ``write`` of one file, which appears under its name on leaving, synced, or not at all.

    Raises:
        ModelError: the file exists (and ``overwrite`` is false), is a directory, or cannot be written.
        TrainingError: no room on the disk.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise ModelError(f"{path}: is a directory; name a file")
    if os.path.lexists(target) and not overwrite:
        raise ModelError(f"{path}: already exists; choose another name or overwrite it (--overwrite)")
    if not target.parent.is_dir():
        raise ModelError(f"{path}: the directory {target.parent} does not exist; make it first")
    temporary = target.parent / _temporary_name(target.name, "tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            try:
                yield lambda chunk: _write_all(descriptor, chunk)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if overwrite:
                os.replace(temporary, target)
            elif not _renamed_by_kernel(temporary, target, _RENAME_NEW):
                os.rename(temporary, target)
            _sync_directory(target.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        if error.errno in _NO_ROOM:
            free = shutil.disk_usage(target.parent).free
            raise TrainingError(f"{path}: no room on the disk ({plain_size(free)} are free); make room or choose another place") from error
        raise _explained(error, path) from error


def _write_file(path: Path, chunks: Iterable[Chunk], count: Callable[[int], None]) -> FileFacts:
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
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
    if os.name == "nt":  # a directory cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary_name(name: str, kind: str) -> str:
    # A file name may hold 255 bytes: a long one is cut, at the cost of sharing its temporaries' prefix with its like.
    return f".{_short(name)}.{kind}-{os.getpid()}-{secrets.token_hex(4)}"


def _short(name: str) -> str:
    encoded = os.fsencode(name)
    return name if len(encoded) <= 200 else hashlib.sha256(encoded).hexdigest()


def _renamed_by_kernel(source: Path, target: Path, flags: int) -> bool:
    """Linux ``renameat2``: exchange two names in one step, or rename only onto a free name; False where there is no such call."""
    import ctypes  # not needed by readers

    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if call is None:
        return False
    here = -100  # AT_FDCWD
    if call(here, os.fsencode(source), here, os.fsencode(target), ctypes.c_uint(flags)) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):  # an old kernel, or a file system without it
        return False
    raise OSError(number, os.strerror(number), os.fspath(target))


def _locked(directory: Path) -> int:
    """A descriptor that holds the lock of a temporary while its writer lives; -1 where the file system has no locks."""
    try:
        import fcntl
    except ImportError:
        return -1
    descriptor = os.open(directory, os.O_RDONLY)
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def _writer_is_gone(directory: Path, pid: int) -> bool:
    """Whether the writer of a temporary has ended: its process is not there, and nobody (of another container, say) holds the lock."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
        return False
    except ProcessLookupError:
        pass
    except (OSError, OverflowError):
        return False
    try:
        import fcntl
    except ImportError:
        return True
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    finally:
        os.close(descriptor)
    return True


def _remove_dead_temporaries(target: Path) -> None:
    prefix = f".{_short(target.name)}."
    with os.scandir(target.parent) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False)]
    for name in sorted(names):
        match = _TEMPORARY.fullmatch(name[len(prefix) :])
        leftover = target.parent / name
        if match is None or not _writer_is_gone(leftover, int(match[2])):
            continue
        if match[1] == "old" and not os.path.lexists(target):
            os.rename(leftover, target)  # killed between moving the old model aside and putting the new one there
        else:
            shutil.rmtree(leftover, ignore_errors=True)


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _explained(error: OSError, path: str | os.PathLike[str]) -> ModelError:
    shown = os.fspath(path)
    if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
        return ModelError(f"{shown}: something of this name appeared meanwhile; choose another name or overwrite it (--overwrite)")
    if error.errno in _NOT_ALLOWED:
        where = os.path.dirname(os.path.realpath(path))
        return ModelError(f"{shown}: the directory {where} cannot be written to ({_reason(error)}); choose another place")
    return ModelError(f"{shown}: cannot be written ({_reason(error)}); nothing was changed")


# --------------------------------------------------------------------------------------------------------------------------------- reading


class DirectoryReader:
    """A directory held open, whose files are read and mapped relative to it.

    Args:
        path: The directory.

    Raises:
        ModelError: there is no such directory or it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._descriptor = -1
        self.vanished = False
        try:
            if os.open in os.supports_dir_fd:
                self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            else:
                os.listdir(path)
        except FileNotFoundError:
            raise ModelError(f"{self.path}: there is no model directory of this name{_aside_hint(self.path)}") from None
        except NotADirectoryError:
            raise ModelError(f"{self.path}: is a file; a model is a directory that jose-train writes") from None
        except (OSError, ValueError) as error:
            raise ModelError(f"{self.path}: cannot be read ({_reason(error)})") from None

    def __enter__(self) -> DirectoryReader:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def error(self, name: str, what: str, to_do: str = "take the model from a good copy or train it again") -> ModelError:
        """A :class:`ModelError` that names the file."""
        return ModelError(f"{self.path / name}: {what}; {to_do}")

    def size(self, name: str) -> int:
        """The size of a file in bytes."""
        descriptor = self._open(name)
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def read(self, name: str, *, largest: int) -> bytes:
        """The contents of a file of at most ``largest`` bytes."""
        descriptor = self._open(name)
        with os.fdopen(descriptor, "rb") as file:
            if os.fstat(descriptor).st_size > largest:
                raise self.error(name, f"is larger than {plain_size(largest)}")
            try:
                return file.read()
            except OSError as error:
                raise self.error(name, f"cannot be read ({_reason(error)})") from None

    def json(self, name: str) -> Any:
        """The value of a JSON file of at most 256 MB."""
        try:
            return json.loads(self.read(name, largest=256 << 20).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise self.error(name, f"is not JSON ({str(error)[:100]})") from None

    def is_still(self, path: str | os.PathLike[str]) -> bool:
        """Whether the name still stands for the directory that is held open."""
        return self._descriptor < 0 or os.path.samestat(os.fstat(self._descriptor), os.stat(path))

    def sha256(self, name: str, advance: Callable[[int], None] | None = None) -> str:
        """The SHA-256 of a file in hex, read block by block."""
        digest = hashlib.sha256()
        with os.fdopen(self._open(name), "rb", buffering=0) as file:
            try:
                while block := file.read(BLOCK_BYTES):
                    digest.update(block)
                    if advance is not None:
                        advance(len(block))
            except OSError as error:
                raise self.error(name, f"cannot be read ({_reason(error)})") from None
        return digest.hexdigest()

    def map(self, name: str) -> mmap.mmap | bytes:
        """The bytes of a file, mapped read-only."""
        descriptor = self._open(name)
        try:
            if os.fstat(descriptor).st_size == 0:
                return b""
            return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise self.error(name, f"cannot be mapped ({_reason(error)})") from None
        finally:
            os.close(descriptor)

    def array(
        self, name: str, *, dtype: npt.DTypeLike | None = None, shape: tuple[int, ...] | None = None
    ) -> npt.NDArray[Any]:
        """A ``.npy`` file as a read-only mapped array; its header is checked against what it must be and against the file's size.

        Raises:
            ModelError: not an array file, objects inside, another dtype, shape or order, or a size that does not match.
        """
        data = self.map(name)
        try:
            found, found_shape, start = array_header(data)
        except ValueError as error:
            raise self.error(name, str(error)) from None
        if dtype is not None and found != np.dtype(dtype):
            raise self.error(name, f"holds {found.str} numbers, but must hold {np.dtype(dtype).str}")
        if shape is not None and found_shape != shape:
            raise self.error(name, f"has the shape {found_shape}, but the manifest says {shape}")
        n_bytes = math.prod(found_shape) * found.itemsize
        if len(data) != start + n_bytes:
            raise self.error(name, f"is {len(data)} bytes long, but its header says {start + n_bytes}")
        if n_bytes == 0:
            array = np.empty(found_shape, found)
        else:
            array = np.frombuffer(data, found, math.prod(found_shape), start).reshape(found_shape)
        array.flags.writeable = False
        return array

    def _open(self, name: str) -> int:
        if not file_name_is_safe(name):
            raise self.error("manifest.json", f"names the file {name[:200]!r}, which is no plain file name", "do not trust it")
        # O_NONBLOCK: a pipe in the place of a file must not keep us waiting.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        try:
            if self._descriptor >= 0:
                descriptor = os.open(name, flags, dir_fd=self._descriptor)
            else:
                descriptor = os.open(self.path / name, flags)
        except FileNotFoundError:
            self.vanished = True
            raise self.error(name, "is missing") from None
        except OSError as error:
            raise self.error(name, f"cannot be read ({_reason(error)})") from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise self.error(name, "is not a regular file")
        return descriptor


def array_header(data: bytes | mmap.mmap) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """The dtype, shape and first byte of the numbers of a ``.npy`` file, without running or unpickling anything in it.

    Raises:
        ValueError: what is wrong, as the rest of a sentence about the file.

    Source: the format's description in ``numpy.lib.format``.
    """
    if data[:6] != _MAGIC:
        raise ValueError("is not a NumPy array file")
    major = data[6] if len(data) > 6 else 0
    if major not in (1, 2, 3) or len(data) < 12:
        raise ValueError(f"is a NumPy array file of the unknown version {major}")
    width = 2 if major == 1 else 4
    length = int.from_bytes(data[8 : 8 + width], "little")
    start = 8 + width + length
    if length > _LARGEST_HEADER or start > len(data):
        raise ValueError("has a damaged header")
    try:
        header = ast.literal_eval(data[8 + width : start].decode("latin1" if major < 3 else "utf-8"))
        fields = (header["descr"], header["fortran_order"], header["shape"])
        if len(header) != 3:
            raise ValueError("fields")
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
        raise ValueError("has a damaged header") from None
    described, fortran, shape = fields
    if not isinstance(described, str) or re.fullmatch(r"[<|][biuf]\d{1,2}", described) is None:
        raise ValueError(f"holds values of the kind {str(described)[:50]!r}; only plain little-endian numbers are read, never objects")
    if fortran is not False:
        raise ValueError("is stored column by column; it must be row by row")
    if not isinstance(shape, tuple) or not all(type(n) is int and 0 <= n < 2**62 for n in shape) or len(shape) > 8:
        raise ValueError("has a damaged header")
    try:
        return np.dtype(described), shape, start
    except TypeError:
        raise ValueError(f"holds values of the unknown kind {described!r}") from None


def npy_preamble(dtype: np.dtype[Any], shape: Sequence[int]) -> bytes:
    """The first bytes of a ``.npy`` file of version 1.0; the numbers begin at a multiple of 64."""
    text = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': {tuple(int(n) for n in shape)!r}, }}".encode("latin1")
    padding = -(len(_MAGIC) + 4 + len(text) + 1) % 64
    header = text + b" " * padding + b"\n"
    return _MAGIC + b"\x01\x00" + len(header).to_bytes(2, "little") + header


def _aside_hint(path: Path) -> str:
    """Where an interrupted overwrite left the old model, if it did."""
    try:
        prefix = f".{_short(path.name)}.old-"
        found = sorted(name for name in os.listdir(path.parent) if name.startswith(prefix))
    except (OSError, ValueError):
        found = []
    if not found:
        return "; check the path, or train one with jose-train"
    return f", but an interrupted overwrite left the previous one as {found[-1]}; rename it back"
