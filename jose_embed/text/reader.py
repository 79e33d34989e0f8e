"""Reading text: any input becomes blocks of clean UTF-8 lines, one line per document.

::

    sources     a path, several, a glob, a directory, "-"     -> Source, Source, ...      (sources.py)
    bytes       plain, gzip, bzip2, xz, zstd, told by content -> pieces of at most 1 MiB  (compression.py)
    blocks      whole lines of valid UTF-8                    -> Block, Block, ...        (here)

Only ``"\\n"`` ends a line; ``"\\r\\n"`` is one line end. Every line is a document, an empty one too, and so is a last
line without a line end. A byte order mark at the start of a source is dropped, invalid UTF-8 is replaced by U+FFFD and
counted, a NUL byte means that this is no text.

Reading, decompressing, hashing and checking run in a thread of their own (:class:`BlockReader`), a few blocks ahead of
whoever consumes them, so memory stays bounded whatever the size of the input.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import queue
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

from jose_embed.errors import CorpusError
from jose_embed.text.compression import EXPANSION_LIMIT, PIECE, decompressed
from jose_embed.text.sources import Input, Source, Sources, find_sources, printable
from jose_embed.text.tokenizers import Tokenizer, get_tokenizer, register_tokenizer, tokenizer_names

__all__ = [
    "Block",
    "BlockReader",
    "DocumentIds",
    "Source",
    "SourceReport",
    "Sources",
    "Tokenizer",
    "complaints",
    "find_sources",
    "get_tokenizer",
    "register_tokenizer",
    "tokenizer_names",
]

LINE_LIMIT = 16 << 20  # bytes that may have to stay together in memory
_BLOCKS_AHEAD = 3
_SMALLEST_BLOCK = PIECE // 2  # smaller pieces (pipes, zstd) are joined
_BOM = b"\xef\xbb\xbf"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")  # UTF-16 and UTF-32


class Block(NamedTuple):
    """Lines of one source.

    Attributes:
        data: Valid UTF-8, not empty. It ends with a line end, or, inside a line that is longer than a block, with a
            space.
        consumed: Bytes of the source, as it lies on the disk, that were read since the block before.
    """

    data: bytes
    consumed: int


@dataclass
class SourceReport:
    """What was found in one source.

    Attributes:
        name: The source's name.
        path: Where it is, absolute; ``None`` for standard input and for strings.
        n_bytes: Bytes of its text, decompressed.
        n_lines: Its lines, which are its documents.
        invalid_lines: Lines that were not UTF-8.
        invalid_bytes: Bytes in them that were replaced.
        first_invalid: The number of the first such line, from 1; 0 where there is none.
        disk_bytes: Its bytes as they lie on the disk.
        disk_sha256: Hexadecimal SHA-256 of these; empty before all of them were read, and for strings.
        was_replaced: The name stands for another file, or none, since it was opened; what was read is whole.
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


class BlockReader:
    """Reads sources in a thread of its own and hands out their lines in blocks of about a megabyte.

    Args:
        sources: What to read, in this order.
        whole_lines: Never cut a line (for tokenizers that look at a whole text). Otherwise a line longer than a block
            is cut after a space.
        max_expansion: Decompressed bytes allowed per compressed byte, beyond the first GiB of a file; ``None`` for no
            limit.

    Attributes:
        reports: One entry per source; complete once the iteration has ended, like ``sha256``.
        sha256: Hexadecimal SHA-256 of all the decompressed text; a line feed is put between sources where one does not
            end with it.
        total: Bytes on disk of all sources; ``None`` where one of them has no size.

    Raises:
        CorpusError: a source that is missing or may not be read; from the iteration: one that has vanished, is
            unreadable, binary, damaged or changing, or a line beyond every bound.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(b"one two"), file.flush()
        ...     with BlockReader(find_sources(file.name)) as reader:
        ...         print([block.data for block in reader])
        [b'one two\\n']
    """

    def __init__(
        self, sources: Sequence[Source], *, whole_lines: bool = False, max_expansion: float | None = EXPANSION_LIMIT
    ) -> None:
        for source in sources:  # that the last one is missing must not be found out after hours
            source.check()
        sizes = [source.size() for source in sources]
        self.total = None if None in sizes else sum(size for size in sizes if size is not None)
        self.reports: list[SourceReport] = []
        self._sources = sources
        self._whole_lines = whole_lines
        self._max_expansion = max_expansion
        self._hash = hashlib.sha256()
        self._last = b"\n"  # the last byte that was hashed
        self._ready: queue.SimpleQueue[Block | BaseException | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(_BLOCKS_AHEAD)
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="jose-reader", daemon=True)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def __enter__(self) -> BlockReader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._room.release()
        self._thread.join(timeout=0.3)  # it may wait for a pipe for ever; as a daemon it does not keep the process

    def __iter__(self) -> Iterator[Block]:
        while (item := self._ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
            self._room.release()

    def _run(self) -> None:
        end: BaseException | None = None
        try:
            for block in self._blocks():
                self._room.acquire()
                if self._stopped:
                    return
                self._ready.put(block)
        except BaseException as error:  # raised again where the blocks are consumed
            end = error
        self._ready.put(end)

    def _blocks(self) -> Iterator[Block]:
        for source in self._sources:
            report = SourceReport(source.name, None if source.path is None else os.path.abspath(source.path))
            self.reports.append(report)
            if self._last != b"\n":
                self._hash.update(b"\n")
                self._last = b"\n"
            with Input(source) as file:
                handed_out = 0
                for data in self._cut(self._pieces(file, report), report):
                    yield Block(_clean(data, report), file.consumed - handed_out)
                    handed_out = file.consumed
                report.disk_bytes, report.disk_sha256 = file.consumed, file.sha256
                report.was_replaced = file.was_replaced()

    def _pieces(self, file: Input, report: SourceReport) -> Iterator[bytes]:
        """The text of a source, hashed and counted, without its byte order mark, in pieces of at least
        ``_SMALLEST_BLOCK`` bytes but for the last."""
        held: list[bytes] = []
        size = 0
        for piece in decompressed(file, self._max_expansion):
            self._hash.update(piece)
            self._last = piece[-1:]
            if (nul := piece.find(b"\0")) >= 0:
                raise CorpusError(f"{file.name}: {_binary(report.n_bytes + nul)}")
            report.n_bytes += len(piece)
            held.append(piece)
            size += len(piece)
            if size >= _SMALLEST_BLOCK:
                yield self._first(b"".join(held), file, report)
                held, size = [], 0
        if size:
            yield self._first(b"".join(held), file, report)

    def _first(self, data: bytes, file: Input, report: SourceReport) -> bytes:
        if report.n_bytes > len(data):
            return data
        if data.startswith(_WIDE_MARKS):
            raise CorpusError(
                f"{file.name}: this is UTF-16 or UTF-32 text; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)"
            )
        return data.removeprefix(_BOM)

    def _cut(self, pieces: Iterator[bytes], report: SourceReport) -> Iterator[bytes]:
        """The same text cut after line ends; the last line gets one where it has none."""
        held: list[bytes] = []
        size = 0
        complete = True  # what was handed out ends with a line end
        for piece in pieces:
            end = piece.rfind(b"\n") + 1
            if not end and not self._whole_lines and size + len(piece) > PIECE:
                end = piece.rfind(b" ") + 1
            if end:
                yield b"".join([*held, piece[:end]])
                held, size, complete = [], 0, piece[end - 1 : end] == b"\n"
                piece = piece[end:]
            held.append(piece)
            size += len(piece)
            if size > LINE_LIMIT:
                what = "line" if self._whole_lines else "word"
                place = f"{printable(report.name)}, line {report.n_lines + 1}"
                raise CorpusError(
                    f"{place}: a {what} of more than {LINE_LIMIT >> 20} MiB; put one document on each line"
                )
        if size or not complete:
            yield b"".join([*held, b"\n"])


def _binary(position: int) -> str:
    what = f"byte {position:,} is NUL, so this is binary data and no text"
    return f"{what}; give text in UTF-8, plain or as .gz, .bz2, .xz, .zst"


def _clean(data: bytes, report: SourceReport) -> bytes:
    """The same lines in valid UTF-8; counts them and what had to be replaced."""
    try:
        data.decode()
    except UnicodeDecodeError:
        data = b"\n".join(
            _repaired(line, number, report) for number, line in enumerate(data.split(b"\n"), report.n_lines + 1)
        )
    report.n_lines += data.count(b"\n")
    return data


def _repaired(line: bytes, number: int, report: SourceReport) -> bytes:
    try:
        line.decode()
    except UnicodeDecodeError:
        report.invalid_lines += 1
        report.invalid_bytes += len(line) - len(line.decode(errors="ignore").encode())
        report.first_invalid = report.first_invalid or number
        return line.decode(errors="replace").encode()
    return line


def complaints(reports: Sequence[SourceReport]) -> Iterator[str]:
    """What a person should know about the sources that were read: invalid UTF-8, files that were replaced meanwhile."""
    broken = [report for report in reports if report.invalid_lines]
    if broken:
        n_lines = sum(report.invalid_lines for report in broken)
        n_bytes = sum(report.invalid_bytes for report in broken)
        files = f" in {len(broken):,} files" if len(broken) > 1 else ""
        where = f"{printable(broken[0].name)}, line {broken[0].first_invalid}"
        what = f"invalid UTF-8: {n_bytes:,} bytes in {n_lines:,} lines{files} were replaced by U+FFFD"
        yield f"{what} (the first in {where})"
    replaced = [report for report in reports if report.was_replaced]
    if replaced:
        more = f" and {len(replaced) - 1:,} more" if len(replaced) > 1 else ""
        what = "removed or replaced while it was read" if not more else "removed or replaced while they were read"
        yield f"{printable(replaced[0].name)}{more}: {what}; the text is that of before"


class DocumentIds(Sequence[str]):
    """The ids of all documents, made when asked for: ``"7"`` for line 7 of a single source, ``"name:7"`` where there
    are several.

    Args:
        names: The sources' names, in order.
        line_counts: How many lines each has.

    Example:
        >>> ids = DocumentIds(["a.txt", "b.txt"], [2, 1])
        >>> list(ids), ids[-1]
        (['a.txt:1', 'a.txt:2', 'b.txt:1'], 'b.txt:1')
    """

    def __init__(self, names: Sequence[str], line_counts: Sequence[int]) -> None:
        self._prefixes = [f"{printable(name)}:" for name in names] if len(names) > 1 else [""] * len(names)
        self._ends = list(itertools.accumulate(line_counts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        source = bisect_right(self._ends, row)
        start = self._ends[source - 1] if source else 0
        return f"{self._prefixes[source]}{row - start + 1}"

    def __iter__(self) -> Iterator[str]:
        start = 0
        for prefix, end in zip(self._prefixes, self._ends, strict=True):
            for line in range(1, end - start + 1):
                yield f"{prefix}{line}"
            start = end
