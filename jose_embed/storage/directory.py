"""A container directory, held open for reading; its files are mapped into memory.

Every file is opened relative to the open directory, so that a reader sees either the old or the new container when it
is replaced. Nothing is unpickled.
"""

from __future__ import annotations

import ast
import json
import math
import mmap
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.errors import JoseError, ModelError
from jose_embed.storage.atomic import BLOCK_BYTES, file_name_is_safe, moved_aside, plain_size, reason


class DirectoryKind(NamedTuple):
    """A kind of container directory.

    Attributes:
        noun: Its name in messages: "model".
        made: How to make one, after "or": "train one with jose-train"; nothing where no user names one.
        advice: What to do about a damaged one.
        error: The error that reading one raises.
        format: The value of ``format`` in its manifest.
        version: The format version that is written, and the newest that is read.
        manifest: The name of its manifest.
    """

    noun: str
    made: str
    advice: str
    error: type[JoseError]
    format: str
    version: int
    manifest: str = "manifest.json"

    @property
    def remedy(self) -> str:
        """What to do where there is none."""
        return f"check the path, or {self.made}" if self.made else self.advice

    @property
    def article(self) -> str:
        """The indefinite article of the noun."""
        return "an" if self.noun[0] in "aeiou" else "a"


#: A model directory; version 1 has no ``text`` and ``blocks`` in its manifest.
MODEL: Final = DirectoryKind(
    noun="model",
    made="train one with jose-train",
    advice="take the model from a good copy or train it again",
    error=ModelError,
    format="jose-embed",
    version=2,
)


class FileState(NamedTuple):
    """A file as it was: if all of this is the same, its contents are. Not the device, which differs between hosts."""

    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> FileState | None:
        """The state of a file, or None if there is none."""
        try:
            found = path.stat()
        except OSError:
            return None
        return cls(found.st_ino, found.st_size, found.st_mtime_ns)

    @classmethod
    def of_directory(cls, path: str | os.PathLike[str]) -> dict[str, FileState | None]:
        """The states of all files of a directory by their names; none if it cannot be read."""
        try:
            return {name: cls.of(Path(path) / name) for name in os.listdir(path)}
        except (OSError, ValueError):
            return {}


class DirectoryReader:
    """A directory held open, whose files are read and mapped relative to it.

    Args:
        path: The directory.
        kind: What it should be; every method raises its ``error``.
        mapped: Map files; False reads them into memory, so that a later change of them on disk has no effect.

    Raises:
        ModelError: there is no such directory or it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], kind: DirectoryKind = MODEL, *, mapped: bool = True) -> None:
        self.path = Path(path)
        self.kind = kind
        self._mapped = mapped
        self._descriptor = -1
        self.vanished = False
        try:
            if os.open in os.supports_dir_fd:
                self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            else:
                os.listdir(path)
        except FileNotFoundError:
            missing = f"{self.path}: there is no {kind.noun} directory of this name"
            raise kind.error(f"{missing}{_where_it_went(self.path, kind)}") from None
        except NotADirectoryError:
            raise kind.error(
                f"{self.path}: is a file, not {kind.article} {kind.noun} directory; {kind.made or kind.advice}"
            ) from None
        except (OSError, ValueError) as error:
            raise kind.error(f"{self.path}: cannot be read ({reason(error)}){_to_be_allowed(error)}") from None

    def __enter__(self) -> DirectoryReader:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def error(self, name: str, what: str, to_do: str | None = None) -> JoseError:
        """An error that names the file."""
        return self.kind.error(f"{self.path / name}: {what}; {to_do or self.kind.advice}")

    def not_one(self, why: str) -> JoseError:
        """An error that the directory is not of the kind; ``why`` says what is found, or not found, in it."""
        kind = self.kind
        what = f"is a directory, but not {kind.article} {kind.noun} ({why})"
        return kind.error(f"{self.path}: {what}; {kind.remedy}")

    def size(self, name: str) -> int:
        """The size of a file in bytes."""
        descriptor = self._open(name)
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def read(self, name: str, *, largest: int | None = None) -> bytes:
        """The contents of a file of at most ``largest`` bytes."""
        descriptor = self._open(name)
        with os.fdopen(descriptor, "rb") as file:
            if largest is not None and os.fstat(descriptor).st_size > largest:
                raise self.error(name, f"is larger than {plain_size(largest)}")
            try:
                return file.read()
            except (OSError, MemoryError) as error:
                raise self.error(name, f"cannot be read ({reason(error)})") from None

    def json(self, name: str) -> Any:
        """The value of a JSON file of at most 256 MB."""
        try:
            return json.loads(self.read(name, largest=256 << 20).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise self.error(name, f"is not JSON ({str(error)[:100]})") from None

    def is_still(self, path: str | os.PathLike[str]) -> bool:
        """Whether the name still stands for the directory that is held open."""
        try:
            return self._descriptor < 0 or os.path.samestat(os.fstat(self._descriptor), os.stat(path))
        except OSError:
            return False

    def blocks(self, name: str) -> Iterator[bytes]:
        """The contents of a file in blocks of at most 1 MB."""
        with os.fdopen(self._open(name), "rb") as file:
            try:
                while block := file.read(BLOCK_BYTES):
                    yield block
            except OSError as error:
                raise self.error(name, f"cannot be read ({reason(error)})") from None

    def map(self, name: str) -> mmap.mmap | bytes:
        """The bytes of a file, mapped read-only or in memory."""
        if not self._mapped:
            return self.read(name)
        descriptor = self._open(name)
        try:
            if os.fstat(descriptor).st_size == 0:
                return b""
            return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise self.error(name, f"cannot be mapped ({reason(error)})") from None
        finally:
            os.close(descriptor)

    def array(
        self, name: str, *, dtype: npt.DTypeLike | None = None, shape: tuple[int, ...] | None = None
    ) -> npt.NDArray[Any]:
        """A ``.npy`` file as a read-only mapped array; its header is checked against what it must be and against the
        file's size.

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
            what = f"names the file {name[:200]!r}, which is not a plain file name"
            raise self.error(self.kind.manifest, what, "do not trust it")
        # O_NONBLOCK: opening a pipe must not block.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        try:
            if self._descriptor >= 0:
                descriptor = os.open(name, flags, dir_fd=self._descriptor)
            else:
                descriptor = os.open(self.path / name, flags)
        except FileNotFoundError:
            self.vanished = True
            if name == self.kind.manifest:
                raise self.not_one(f"it has no {name}") from None
            raise self.error(name, "is missing") from None
        except OSError as error:
            raise self.error(name, f"cannot be read ({reason(error)})", _to_be_allowed(error)[2:] or None) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise self.error(name, "is not a regular file")
        return descriptor


def _to_be_allowed(error: Exception) -> str:
    allowed = "; change its permissions, or run this as a user who may read it"
    return allowed if isinstance(error, PermissionError) else ""


def _where_it_went(path: Path, kind: DirectoryKind) -> str:
    aside = moved_aside(path)
    if aside is None:
        return f"; {kind.remedy}"
    return f", but an interrupted overwrite left the previous one as {aside}; rename it back"


_MAGIC: Final = b"\x93NUMPY"


_LARGEST_HEADER: Final = 10_000


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
        raise ValueError(f"holds values of the kind {str(described)[:50]!r}; only plain little-endian numbers are read")
    if fortran is not False:
        raise ValueError("is stored column by column; it must be row by row")
    if not isinstance(shape, tuple) or not all(type(n) is int and 0 <= n < 2**62 for n in shape) or len(shape) > 8:
        raise ValueError("has a damaged header")
    try:
        return np.dtype(described), shape, start
    except TypeError:
        raise ValueError(f"holds values of the unknown kind {described!r}") from None


def npy_preamble(dtype: np.dtype[Any], shape: Sequence[int], *, least: int = 0) -> bytes:
    """The first bytes of a ``.npy`` file of version 1.0; the numbers begin at a multiple of 64.

    Args:
        dtype: Of the numbers.
        shape: Of the array.
        least: The smallest length in bytes. Shorter preambles get this length, so that one can replace another.
    """
    text = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': {tuple(int(n) for n in shape)!r}, }}".encode(
        "latin1"
    )
    length = len(_MAGIC) + 4 + len(text) + 1
    padding = max(-length % 64, least - length)
    header = text + b" " * padding + b"\n"
    return _MAGIC + b"\x01\x00" + len(header).to_bytes(2, "little") + header
