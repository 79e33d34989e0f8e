"""Sources: the files, globs, directories and pipes that text comes from.

A source keeps the name it was given; messages and document ids show it in a form that fits on one line
(:func:`printable`). An open source (:class:`Input`) counts the bytes that were read of it and notices when its file
changes meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import io
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Literal, TypeAlias, cast, get_args

from jose_embed.errors import CorpusError
from jose_embed.progress import WarningNote
from jose_embed.text.remote import is_remote, remote_files

#: The formats of text that are read; ``BlockReader`` in reader.py has a reader for each.
Format: TypeAlias = Literal["text", "csv", "tsv", "jsonl", "parquet", "arrow"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)

#: What a caller may name: a path, a glob, a directory, ``"-"``, or several of these.
Sources: TypeAlias = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


@dataclass(frozen=True)
class Source:
    """One file, or standard input.

    Attributes:
        path: Where it is; ``None`` for standard input.
        name: How messages and document ids call it: the path as it was given.
        folder: The directory that was named and that it was found below; empty if it matched a glob, ``None`` if it
            was named itself.
        format: The format that its directory declares; ``None`` to choose by its name.
        store: The file system of pyarrow that has it; ``None`` for that of this machine.
    """

    path: str | None
    name: str
    folder: str | None = None
    format: str | None = None
    store: Any = None

    def size(self) -> int | None:
        """Its bytes on disk; ``None`` where that cannot be known (a pipe, standard input)."""
        if self.store is not None:
            with contextlib.suppress(OSError):
                info = self.store.get_file_info(self.path)
                return int(info.size) if info.is_file else None
        elif self.path is not None:
            with contextlib.suppress(OSError):
                status = os.stat(self.path)
                if stat.S_ISREG(status.st_mode):
                    return status.st_size
        return None

    def check(self) -> None:
        """Check that it can be opened, without opening it, because opening a pipe waits.

        Raises:
            CorpusError: there is no such file, or it may not be read.
        """
        if self.store is not None:
            if self.size() is None:
                raise CorpusError(f"{printable(self.name)}: there is no such file")
        elif self.path is not None:
            try:
                os.stat(self.path)
                if not os.access(self.path, os.R_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            except OSError as error:
                raise unreadable(self.name, error) from error

    def place(self) -> str | None:
        """Its absolute path, or the URI of a file of an object store; ``None`` for standard input."""
        if self.store is not None:
            return self.name
        return None if self.path is None else os.path.abspath(self.path)


@dataclass
class SourceReport:
    """The contents of one source.

    Attributes:
        name: The source's name.
        path: Where it is, absolute or a URI; ``None`` for standard input and for strings.
        n_bytes: Bytes of its text, decompressed.
        n_lines: Its documents: lines of plain text, or records.
        invalid_lines: Lines that were not UTF-8, or documents with NUL characters or lone surrogates.
        invalid_bytes: Bytes in them that were replaced.
        first_invalid: The number of the first such line, from 1; 0 if there is none.
        disk_bytes: Its size on disk.
        disk_sha256: Hexadecimal SHA-256 of these; empty before all of them were read, and for strings.
        was_replaced: The name stands for another file, or none, since it was opened; the text that was read is whole.
    """

    name: str
    path: str | None = None
    n_bytes: int = 0
    n_lines: int = 0
    invalid_lines: int = 0
    invalid_bytes: int = 0
    first_invalid: int = 0
    disk_bytes: int = 0
    disk_sha256: str = ""
    was_replaced: bool = False


def listed(sources: Sources) -> list[str | os.PathLike[str]]:
    """The names as a list, also of a single name."""
    return [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)


def find_sources(sources: Sources, note: Callable[[str], object] = lambda _: None) -> list[Source]:
    """Every file that the given names stand for, in the order given, each once.

    A name that exists is that file. Otherwise a name with ``*``, ``?`` or ``[`` is a glob (``**`` crosses
    directories). A directory stands for every file below it, sorted by path; names that start with a dot are skipped.
    Neither reaches into models, encoded corpora and checkpoints. A directory that Hugging Face ``datasets`` has saved
    stands for its data files. ``"-"`` is standard input. Whether a file exists is asked by :meth:`Source.check` or when
    it is opened. A symbolic link to a file that is read already is passed over.

    Args:
        sources: The names.
        note: Receives notes about skipped links and directories that this package has written.

    Raises:
        CorpusError: a glob without a match, a directory without a file, nothing but what this package has written,
            a value that is not a path, or no source.
    """
    names = listed(sources)
    if not names:
        raise CorpusError("no text was named; give a file, a directory, a glob or - for standard input")
    found: dict[str, Source] = {}
    skipped: list[str] = []
    links: list[tuple[Source, Source]] = []
    for name in names:
        for source in _expand(_checked(name), skipped):
            local = source.path is not None and source.store is None
            first = found.setdefault(os.path.realpath(source.path or "") if local else source.name, source)
            if local and source.path and first.path and os.path.abspath(source.path) != os.path.abspath(first.path):
                links.append((source, first))
    if links:
        more = f" (and {len(links) - 1:,} more such links)" if len(links) > 1 else ""
        link, file = (printable(source.name) for source in links[0])
        note(WarningNote(f"{link}: is the same file as {file}, which is read once{more}"))
    if skipped:
        more = f" and {len(skipped) - 1:,} more" if len(skipped) > 1 else ""
        note(WarningNote(f"{printable(skipped[0])}{more}: written by jose-embed, not read as text"))
    return list(found.values())


def _checked(name: object) -> str:
    path = os.fspath(name) if isinstance(name, os.PathLike) else name
    if not isinstance(path, str) or not path or "\0" in path:
        raise CorpusError(f"{path!r} is not a path; give a file, a directory, a glob or - for standard input")
    return path


def _expand(name: str, skipped: list[str]) -> Iterator[Source]:
    if name == "-":
        yield Source(None, "-")
    elif is_remote(name):
        store, paths, folder, begin = remote_files(name)
        yield from (Source(path, begin + path, folder, None, store) for path in paths)
    elif os.path.isdir(name):
        yield from _dataset_files(name) or _files_below(name, skipped)
    elif os.path.lexists(name) or not glob.has_magic(name):
        yield Source(name, name)
    else:
        yield from _matches(name, skipped)


def _matches(pattern: str, skipped: list[str]) -> list[Source]:
    """The files that match a glob; directories in which some were left out are added to ``skipped``."""
    files = [match for match in sorted(glob.glob(pattern, recursive=True)) if not os.path.isdir(match)]
    if not files:
        raise CorpusError(
            f"{printable(pattern)}: no file matches this pattern; check it and the directory it starts from"
        )
    folders = {file: os.path.dirname(file) or os.curdir for file in files}
    ours = [folder for folder in dict.fromkeys(folders.values()) if _is_ours(folder)]
    sources = [Source(file, file, "") for file in files if folders[file] not in ours]
    if not sources:
        raise _no_text(pattern, ours)
    skipped += ours
    return sources


def _files_below(directory: str, skipped: list[str]) -> list[Source]:
    """The files below a directory; directories that were left out are added to ``skipped``."""

    def refuse(error: OSError) -> None:
        raise unreadable(error.filename or directory, error)

    paths: list[str] = []
    ours: list[str] = []
    for folder, folders, files in os.walk(directory, onerror=refuse):
        if _is_ours(folder):
            ours.append(folder)
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        visible = (os.path.join(folder, name) for name in files if not name.startswith("."))
        paths += [path for path in visible if os.path.isfile(path) or not os.path.exists(path)]  # no pipes, no devices
    if not paths and ours:
        raise _no_text(directory, ours)
    skipped += ours
    if not paths:
        raise CorpusError(
            f"{printable(directory)}: there is no file in this directory (names that start with a dot are skipped)"
        )
    return [Source(path, path, directory) for path in sorted(paths)]


def _dataset_files(directory: str) -> list[Source]:
    """The data files of a directory that Hugging Face ``datasets`` has saved, in their order; none of any other."""
    splits = _read_json(os.path.join(directory, "dataset_dict.json")).get("splits")
    if isinstance(splits, list) and splits:
        names = ", ".join(printable(os.path.join(directory, str(split))) for split in splits[:10])
        raise CorpusError(f"{printable(directory)}: holds several splits; name one of them: {names}")
    files = _read_json(os.path.join(directory, "state.json")).get("_data_files")
    if not isinstance(files, list):
        return []
    found = [file.get("filename") if isinstance(file, dict) else None for file in files]
    safe = [name for name in found if isinstance(name, str) and os.path.basename(name) == name]
    paths = [os.path.join(directory, name) for name in safe]
    return [Source(path, path, directory, "arrow") for path in paths]


def _read_json(path: str) -> dict[str, Any]:
    """The object in a small file; an empty one if there is none."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        if os.path.isfile(path) and os.path.getsize(path) < 1 << 20:
            with open(path, "rb") as file:
                value = json.load(file)
            if isinstance(value, dict):
                return value
    return {}


def _no_text(name: str, ours: Sequence[str]) -> CorpusError:
    """The one line for a name that stands for nothing but what this package has written."""
    such = printable(ours[0]) + (", ..." if len(ours) > 1 else "")
    what = "this" if ours == [name] else f"all that it stands for ({such})"
    return CorpusError(f"{printable(name)}: {what} was written by jose-embed and is not a text; name the text")


def _is_ours(folder: str) -> bool:
    """Whether a directory says of itself that it is a model, an encoded corpus or a checkpoint."""
    for name in _SELF_DESCRIPTIONS:
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError):
            if os.path.isfile(path):  # a pipe would wait
                with open(path, "rb") as file:
                    if _OURS.match(file.read(100)):
                        return True
    return False


_SELF_DESCRIPTIONS = ("manifest.json", "checkpoint.json")
_OURS = re.compile(rb'\{\s*"format": "jose-embed')


def printable(name: str) -> str:
    """A name on one line that any file can hold: control characters, backslashes and undecodable bytes are escaped.

    Example:
        >>> len(printable("two" + chr(10) + "lines"))
        10
    """
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(c if c.isprintable() and c != "\\" else _ESCAPES.get(c) or _escaped(ord(c)) for c in name)


_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escaped(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, as os.fsdecode carries it
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def unreadable(name: str, error: OSError) -> CorpusError:
    """The one line for a source that the system refuses to open or read."""
    if isinstance(error, FileNotFoundError):
        return CorpusError(f"{printable(name)}: there is no such file or directory")
    return CorpusError(f"{printable(name)}: it cannot be read: {error.strerror or error}")


class Input:
    """An open source.

    Attributes:
        name: The source's name, on one line.
        consumed: Bytes on disk read so far.
        sha256: Hexadecimal SHA-256 of the bytes on disk read so far.

    Raises:
        CorpusError: it cannot be opened or read; while reading: its file changed.
    """

    def __init__(self, source: Source) -> None:
        self.name = printable(source.name)
        self.consumed = 0
        self._ahead = b""
        self._digest = hashlib.sha256()
        self._path, self._store = source.path, source.store
        try:
            self._file = _opened(source)
        except OSError as error:
            raise unreadable(source.name, error) from error
        self._before = self._state() if source.path is not None else None  # standard input may begin anywhere in a file

    def __enter__(self) -> Input:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end of the file."""
        data, self._ahead = self._ahead, b""
        if not data:
            try:
                data = self._file.read(size) or b""
            except OSError as error:
                raise unreadable(self.name, error) from error
            self._digest.update(data)
        self.consumed += len(data)
        if self._before is not None and (not data or self.consumed > self._before[0]):
            self._check_unchanged(self._before)
        return data

    def peek(self, size: int) -> bytes:
        """The first ``size`` bytes, fewer only if the file ends; they can be read again. For use before
        :meth:`read`."""
        head = b""
        while len(head) < size and (data := self.read(size - len(head))):
            head += data
        self._ahead, self.consumed = head, 0
        return head

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def was_replaced(self) -> bool:
        """Whether the name no longer stands for the file that is open: it was removed, or another one put there."""
        if self._before is None or self._path is None or self._store is not None:
            return False
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno()))
        except OSError:
            return True

    def _state(self) -> tuple[int, int] | None:
        """Size and time of a regular file; ``None`` for anything else, and for files of the system that claim to be
        empty."""
        if self._store is not None:
            info = self._store.get_file_info(self._path)
            return (int(info.size), int(info.mtime_ns or 0)) if info.is_file else (0, 0)
        with contextlib.suppress(OSError):  # an object that stands for standard input may have no descriptor
            status = os.fstat(self._file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_size:
                return status.st_size, status.st_mtime_ns
        return None

    def _check_unchanged(self, before: tuple[int, int]) -> None:
        after = self._state()
        if after != before or self.consumed != before[0]:
            size = after[0] if after else 0
            raise CorpusError(
                f"{self.name}: the file changed while it was read ({before[0]:,} bytes at first, now {size:,}); "
                "start again when nothing writes to it"
            )


def sha256_of(source: Source, advance: Callable[[int], object]) -> str:
    """Hexadecimal SHA-256 of a source on disk; ``advance`` receives the number of bytes of every piece.

    Raises:
        CorpusError: it cannot be read, or changes meanwhile.
    """
    with Input(source) as file:
        while piece := file.read(1 << 20):
            advance(len(piece))
        return file.sha256


def _opened(source: Source) -> BinaryIO:
    if source.store is not None:
        return cast(BinaryIO, source.store.open_input_stream(source.path, compression=None))
    return _standard_input() if source.path is None else cast(BinaryIO, open(source.path, "rb", buffering=0))


def _standard_input() -> BinaryIO:
    """Standard input without Python's buffer: its lock must not be held by a reading thread that an interrupt leaves
    behind."""
    try:
        return cast(BinaryIO, open(os.dup(sys.stdin.fileno()), "rb", buffering=0))
    except (OSError, ValueError, AttributeError):  # closed, or replaced by an object without a descriptor
        content = getattr(sys.stdin, "buffer", None)
        if content is None or content.closed:
            raise CorpusError("standard input is closed; name a file instead of -") from None
        return io.BytesIO(content.read())
