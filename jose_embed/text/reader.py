"""Reading text: any input becomes blocks of clean UTF-8 lines, one line per document.

::

    sources     a path, several, a glob, a directory, "-"     -> Source, Source, ...      (sources.py)
    bytes       plain, gzip, bzip2, xz, zstd, recognized by content -> pieces of at most 1 MiB  (compression.py)
    records     CSV, TSV, JSON Lines, Parquet, Arrow          -> RecordBatch, ...         (records.py)
    blocks      whole lines of valid UTF-8                    -> Block, Block, ...        (here)

In plain text only ``"\\n"`` ends a line; ``"\\r\\n"`` is one line end. Every line is a document, an empty one too, and
so is a last line without a line end. A byte order mark at the start of a source is dropped, invalid UTF-8 is replaced
by U+FFFD and counted, a NUL byte means that this is not text.

Reading, decompressing, hashing and checking run in a thread of their own (:class:`BlockReader`), a few blocks ahead of
the code that consumes them, so memory stays bounded for input of any size.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import queue
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, assert_never, overload

from jose_embed.errors import ConfigError, CorpusError
from jose_embed.progress import WarningNote
from jose_embed.text.compression import EXPANSION_LIMIT, PIECE, decompressed
from jose_embed.text.hints import first_look, last_look
from jose_embed.text.records import (
    RECORD_LIMIT,
    Columns,
    Faults,
    Reading,
    RecordBatch,
    TextOptions,
    columns_note,
    format_of,
)
from jose_embed.text.records_arrow import read_arrow
from jose_embed.text.records_csv import read_csv
from jose_embed.text.records_json import read_json_lines
from jose_embed.text.sources import Format, Input, Source, SourceReport, printable

LINE_LIMIT = 16 << 20  # bytes that may have to stay together in memory
_BLOCKS_AHEAD = 3
_TABLES_SHOWN = 5  # tables with different columns of texts that are named
_SMALLEST_BLOCK = PIECE // 2  # smaller pieces (pipes, zstd) are joined
_BOM = b"\xef\xbb\xbf"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")  # UTF-16 and UTF-32
_MUCH_DAMAGE = 0.01  # share of the lines with invalid UTF-8


class Block(NamedTuple):
    """Lines of one source.

    Attributes:
        data: Valid UTF-8, not empty. It ends with a line end, or, inside a line that is longer than a block, with a
            space.
        consumed: Bytes of the source on disk that were read since the previous block.
        records: The documents of these lines with their ids and fields; ``None`` for plain text, if none are needed.
    """

    data: bytes
    consumed: int
    records: RecordBatch | None = None


class BlockReader:
    """Reads sources in a separate thread and yields their lines in blocks of about a megabyte.

    Args:
        sources: What to read, in this order.
        whole_lines: Never cut a line (for tokenizers that look at a whole text). Otherwise a line longer than a block
            is cut after a space.
        max_expansion: Decompressed bytes allowed per compressed byte, beyond the first GiB of a file; ``None`` for no
            limit.
        options: How tables and records are read, and whether plain texts become records too; ``None`` to read every
            source as plain text.
        with_ids: Let every block have records with ids: the documents' own, or their numbers.

    Attributes:
        reports: One entry per source; complete once the iteration has ended, like ``sha256``.
        sha256: Hexadecimal SHA-256 of all the decompressed text; a line feed is put between sources where one does not
            end with it. Of tables and records the SHA-256 of the file and the options are hashed instead.
        total: Bytes on disk of all sources; ``None`` where one of them has no size.
        notes: Sentences for the user; they grow while the text is read.
        columns: Those of the first table; ``None`` before, and without one.

    Raises:
        CorpusError: a source that is missing or may not be read; from the iteration: one that has vanished, is
            unreadable, binary, damaged or changing, a line beyond every bound, or malformed records.

    Example:
        >>> import tempfile
        >>> from jose_embed.text.sources import find_sources
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(b"one two"), file.flush()
        ...     with BlockReader(find_sources(file.name)) as reader:
        ...         print([block.data for block in reader])
        [b'one two\\n']
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        whole_lines: bool = False,
        max_expansion: float | None = EXPANSION_LIMIT,
        options: TextOptions | None = None,
        with_ids: bool = False,
    ) -> None:
        for source in sources:  # that the last one is missing must not be found out after hours
            source.check()
        sizes = [source.size() for source in sources]
        self.total = None if None in sizes else sum(size for size in sizes if size is not None)
        self.reports: list[SourceReport] = []
        self.notes: list[str] = []
        self.columns: Columns | None = None
        self._shown: set[tuple[str, ...]] = set()  # columns of texts
        self._options = options or TextOptions()
        self._formats = ["text" if options is None else format_of(source, options) for source in sources]
        named = self._options.text_field or self._options.keep_fields or self._options.id_field
        if named and sources and all(format == "text" for format in self._formats):
            raise ConfigError(
                f"a column is named, but {printable(sources[0].name)} is read as plain text, which has none; "
                "say what it is with format=..., or leave text_field, id_field and keep_fields out"
            )
        self._hints = options is not None and options.format is None and not options.one_file_per_document
        self._with_ids = with_ids or self._options.has_ids
        self._faults = Faults(self._options.on_error)
        self._sources = sources
        self._whole_lines = whole_lines or self._options.keep_text
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
        for source, format in zip(self._sources, self._formats, strict=True):
            report = SourceReport(source.name, source.place())
            self.reports.append(report)
            if self._last != b"\n":
                self._hash.update(b"\n")
                self._last = b"\n"
            with Input(source) as file:
                yield from self._read(source, format, file, report)
                report.disk_bytes, report.disk_sha256 = file.consumed, file.sha256
                if format != "text":
                    how = f"{format} {self._options.text_field} {self._options.on_error}"
                    self._hash.update(f"{how} {file.sha256}\n".encode())
                report.was_replaced = file.was_replaced()
        self._faults.check()
        if (skipped := self._faults.note()) is not None:
            self.notes.append(WarningNote(skipped))
        if self._hints:
            plain = [at for at, format in enumerate(self._formats) if format == "text"]
            hints = last_look([self._sources[at] for at in plain], [self.reports[at] for at in plain])
            self.notes += map(WarningNote, hints)

    def _plain(self, source: Source, file: Input, report: SourceReport) -> Iterator[Block]:
        """The blocks of a plain text."""
        pieces = self._pieces(file, report)
        if self._options.one_file_per_document:
            pieces = (piece.replace(b"\n", b" ") for piece in pieces)
        handed_out = 0
        for data in self._cut(pieces, report, LINE_LIMIT):
            n_before = report.n_lines
            data = _clean(data, report)
            records = self._numbered(source, data, n_before, report.n_lines)
            yield Block(data, file.consumed - handed_out, records)
            handed_out = file.consumed
        if self._options.one_file_per_document and not report.n_lines:
            report.n_lines = 1
            yield Block(b"\n", file.consumed - handed_out, self._numbered(source, b"\n", 0, 1))

    def _numbered(self, source: Source, data: bytes, n_before: int, n_after: int) -> RecordBatch | None:
        """The lines of a plain text as records, if ids or texts are needed."""
        options = self._options
        if not (self._with_ids or options.keeps):
            return None
        ids = texts = None
        if options.one_file_per_document:
            ids = [self._file_id(source)] * (n_after - n_before)
        elif self._with_ids:
            ids = self._numbers(source.name, n_before, n_after)
        if options.keep_text:
            texts = [line.removesuffix("\r") for line in data.decode().split("\n")[:-1]]
        return RecordBatch(data, n_after - n_before, ids, texts)

    def _numbers(self, name: str, n_before: int, n_after: int) -> list[str]:
        """The ids of documents without ids of their own."""
        prefix = f"{printable(name)}:" if len(self._sources) > 1 else ""
        return [f"{prefix}{number}" for number in range(n_before + 1, n_after + 1)]

    def _file_id(self, source: Source) -> str:
        """The path of a file, relative to the directory that was named if it was only one."""
        if source.path is not None and source.folder and len({each.folder for each in self._sources}) == 1:
            return printable(os.path.relpath(source.path, source.folder))
        return printable(source.name)

    def _read(self, source: Source, format: Format, file: Input, report: SourceReport) -> Iterator[Block]:
        """The blocks of a source, from the reader of its format."""

        def changed(n_documents: int) -> None:
            report.invalid_lines += n_documents
            report.first_invalid = report.first_invalid or report.n_lines + 1

        def chosen(found: Iterable[str], columns: Columns) -> None:
            self.columns = self.columns or columns
            if columns.text not in self._shown and len(self._shown) < _TABLES_SHOWN:
                self._shown.add(columns.text)
                self.notes.append(columns_note(source.name, found, columns))

        reading = Reading(source.name, self._options, self._faults, chosen, changed, self._hint)
        match format:
            case "text":
                yield from self._plain(source, file, report)
            case "csv" | "tsv":
                lines = self._decoded_lines(file, report)
                batches = read_csv(lines, reading, tabs=format == "tsv")
                yield from self._counted(batches, file, report)
            case "jsonl":
                lines = self._decoded_lines(file, report)
                batches = read_json_lines(lines, reading)
                yield from self._counted(batches, file, report)
            case "parquet" | "arrow":
                size = source.size() or 0
                handed_out = 0
                for batch, share in read_arrow(source, format, reading):
                    consumed = int(share * size)
                    report.n_bytes += len(batch.data)
                    yield self._block(batch, consumed - handed_out, report)
                    handed_out = consumed
                while file.read(PIECE):  # for the checksum, and to notice that the file has changed
                    pass
            case _:
                assert_never(format)

    def _hint(self, message: str) -> None:
        self.notes.append(WarningNote(message))

    def _decoded_lines(self, file: Input, report: SourceReport) -> Iterator[str]:
        return (_decoded(data, report) for data in self._cut(self._pieces(file, report, hashed=False), report, None))

    def _counted(self, batches: Iterator[RecordBatch], file: Input, report: SourceReport) -> Iterator[Block]:
        handed_out = 0
        for batch in batches:
            yield self._block(batch, file.consumed - handed_out, report)
            handed_out = file.consumed

    def _block(self, batch: RecordBatch, consumed: int, report: SourceReport) -> Block:
        if self._with_ids and batch.ids is None:
            numbers = self._numbers(report.name, report.n_lines, report.n_lines + batch.n_records)
            batch = batch._replace(ids=numbers)
        report.n_lines += batch.n_records
        return Block(batch.data, consumed, batch)

    def _pieces(self, file: Input, report: SourceReport, *, hashed: bool = True) -> Iterator[bytes]:
        """The text of a source, counted and (if asked for) hashed, without its byte order mark, in pieces of at least
        ``_SMALLEST_BLOCK`` bytes but for the last."""
        held: list[bytes] = []
        size = 0
        head = b""
        pieces = decompressed(file, self._max_expansion)
        for piece in pieces:
            if hashed:
                self._hash.update(piece)
                self._last = piece[-1:]
            if len(head) < _HEAD:
                head += piece[:_HEAD]
            if (nul := piece.find(b"\0")) >= 0:
                head += next(pieces, b"")[:_HEAD] if len(head) < _HEAD else b""  # a first piece may be very short
                raise CorpusError(f"{file.name}: {_kind(head) or _binary(piece, nul, report.n_bytes)}")
            report.n_bytes += len(piece)
            held.append(piece)
            size += len(piece)
            if size >= _SMALLEST_BLOCK:
                yield self._first(b"".join(held), file, report, plain=hashed)
                held, size = [], 0
        if size:
            yield self._first(b"".join(held), file, report, plain=hashed)

    def _first(self, data: bytes, file: Input, report: SourceReport, *, plain: bool) -> bytes:
        if report.n_bytes > len(data):
            return data
        if data.startswith(_WIDE_MARKS):
            raise CorpusError(f"{file.name}: {_WIDE}")
        data = data.removeprefix(_BOM)
        if plain and self._hints and (hint := first_look(report.name, data)) is not None:
            self._hints = False  # one is enough, also for a thousand such files
            self.notes.append(WarningNote(hint))
        return data

    def _cut(self, pieces: Iterator[bytes], report: SourceReport, limit: int | None) -> Iterator[bytes]:
        """The same text cut after line ends; the last line gets one if it has none.

        Args:
            pieces: The text.
            report: The source, for messages.
            limit: Bytes of a line, or of a word if lines may be cut; ``None`` for records, which are never cut.
        """
        whole_lines = self._whole_lines or limit is None
        held: list[bytes] = []
        size = 0
        complete = True  # the previous piece ends with a line end
        for piece in pieces:
            end = piece.rfind(b"\n") + 1
            if not end and not whole_lines and size + len(piece) > PIECE:
                end = piece.rfind(b" ") + 1
            if end:
                yield b"".join([*held, piece[:end]])
                held, size, complete = [], 0, piece[end - 1 : end] == b"\n"
                piece = piece[end:]
            held.append(piece)
            size += len(piece)
            if limit is None and size > RECORD_LIMIT:
                raise CorpusError(f"{printable(report.name)}: a line of more than {RECORD_LIMIT >> 20} MiB; shorten it")
            if limit is not None and size > limit:
                what = "line" if whole_lines else "word"
                place = f"{printable(report.name)}, line {report.n_lines + 1}"
                raise CorpusError(f"{place}: a {what} of more than {limit >> 20} MiB; put one document on each line")
        if size or not complete:
            yield b"".join([*held, b"\n"])


_WIDE = "this is UTF-16 or UTF-32 text; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)"
_HEAD = 512  # bytes that tell the format of a file
_KINDS: Final = (  # files that people take for text: where their mark is, the mark, what they are
    (
        0,
        b"PK\x03\x04",
        "this is a ZIP archive or an Office document; unpack it, or save it as text, a sheet as CSV (UTF-8)",
    ),
    (0, b"\xd0\xcf\x11\xe0", "this is an old Office document; save it as text, a sheet as CSV (UTF-8)"),
    (0, b"%PDF-", "this is a PDF; extract its text first (pdftotext)"),
    (0, b"PAR1", "this is a Parquet file; format='parquet' reads it"),
    (257, b"ustar", "this is a tar archive; unpack it and give the folder"),
)


def _kind(head: bytes) -> str | None:
    """What a binary source is, if its first bytes are those of a well-known format."""
    return next((what for at, mark, what in _KINDS if head.startswith(mark, at)), None)


def _binary(piece: bytes, nul: int, n_before: int) -> str:
    """The reason why a NUL makes a source unreadable."""
    head = piece[:1000]
    looks_wide = nul < 2 and max(head[::2].count(0), head[1::2].count(0)) > max(3, len(head) // 4)
    if n_before == 0 and (piece.startswith(_WIDE_MARKS) or looks_wide):
        return _WIDE
    what = f"byte {n_before + nul:,} is NUL, so this is binary data and not text"
    return f"{what}; give text in UTF-8, plain or as .gz, .bz2, .xz, .zst, without NUL (tr -d '\\0')"


def _decoded(data: bytes, report: SourceReport) -> str:
    """Lines of records as text; counts and replaces invalid UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        lines = [_repaired(line, report.n_lines + 1, report) for line in data.split(b"\n")]
        return b"\n".join(lines).decode()


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
    """Notes about the sources for the user: invalid UTF-8, files that were replaced while they were read."""
    broken = [report for report in reports if report.invalid_lines]
    if broken:
        n_lines = sum(report.invalid_lines for report in broken)
        n_bytes = sum(report.invalid_bytes for report in broken)
        files = f" in {len(broken):,} files" if len(broken) > 1 else ""
        where = f"{printable(broken[0].name)}, line {broken[0].first_invalid}"
        what = f"invalid UTF-8: {n_bytes:,} bytes in {n_lines:,} lines{files} were"
        if not n_bytes:  # records of escaped characters
            what = f"NUL characters or halves of surrogate pairs in {n_lines:,} documents{files} were"
        # Damage is rare; a text in another encoding has it wherever a letter is not of ASCII.
        foreign = n_lines > _MUCH_DAMAGE * sum(report.n_lines for report in broken) and n_bytes
        remedy = (
            "; if the text is in another encoding, convert it first (iconv -f WINDOWS-1252 -t UTF-8)" if foreign else ""
        )
        yield WarningNote(f"{what} replaced by U+FFFD (the first in {where}){remedy}")
    replaced = [report for report in reports if report.was_replaced]
    if replaced:
        more = f" and {len(replaced) - 1:,} more" if len(replaced) > 1 else ""
        what = "removed or replaced while it was read" if not more else "removed or replaced while they were read"
        yield WarningNote(f"{printable(replaced[0].name)}{more}: {what}; the old content was read to its end")


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
