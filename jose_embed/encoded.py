"""The encoded corpus: a text as integers, in two mapped temporary files.

One pass over the text numbers its words in the order of their first appearance and spills these numbers to a temporary
file. Only then is it known how often each word occurs, so which ones are kept and in which order; a pass over the file
replaces the provisional numbers by rows of the vocabulary. Words that are left out leave no gap: the words around them
become neighbours.

The files have no name, or lose it at once where the system allows that, so nothing is left behind however the process
ends.
"""

from __future__ import annotations

import errno
import hashlib
import io
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jose_embed.compression import EXPANSION_LIMIT
from jose_embed.corpus import BlockReader, DocumentIds, SourceReport, Tokenizer, get_tokenizer
from jose_embed.errors import ConfigError, CorpusError, TrainingError
from jose_embed.progress import Reporter, SilentReporter
from jose_embed.sources import Sources, find_sources, printable
from jose_embed.vocabulary import Vocabulary
from jose_embed.wordtable import CompiledWords, Ends, Ids, WordTable, word_table

__all__ = ["CorpusStatistics", "EncodedCorpus", "encode", "encode_texts"]

_CHUNK = 1 << 18  # tokens renumbered at a time
_BATCH = 1 << 20  # characters tokenised at a time


@dataclass(frozen=True)
class CorpusStatistics:
    """What the text was, before rare words were left out.

    Attributes:
        n_bytes: Bytes of text, decompressed.
        n_documents: Documents, which are lines.
        n_empty: Documents without any word.
        n_tokens_seen: Running words.
        n_words_seen: Different words.
        invalid_utf8_lines: Lines that were not UTF-8.
        invalid_utf8_bytes: Bytes in them that were replaced.
        sources: The names of what was read.
        sha256: Hexadecimal SHA-256 of the text.
    """

    n_bytes: int
    n_documents: int
    n_empty: int
    n_tokens_seen: int
    n_words_seen: int
    invalid_utf8_lines: int
    invalid_utf8_bytes: int
    sources: tuple[str, ...]
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {**asdict(self), "sources": list(self.sources)}


class EncodedCorpus:
    """A text as rows of a vocabulary; a context manager that gives its disk space back at the end.

    Attributes:
        tokens: int32 (n_tokens,), read-only, mapped: the row of every kept word, documents one after the other.
        offsets: int64 (n_documents + 1,), read-only, mapped: document d is ``tokens[offsets[d]:offsets[d + 1]]``.
        doc_ids: The id of every document.
        vocabulary: The kept words.
        tokenizer: What split the text.
        statistics: What the text was.
    """

    def __init__(
        self,
        tokens: Ids,
        offsets: Ends,
        doc_ids: Sequence[str],
        vocabulary: Vocabulary,
        tokenizer: Tokenizer,
        statistics: CorpusStatistics,
    ) -> None:
        self.tokens = tokens
        self.offsets = offsets
        self.doc_ids = doc_ids
        self.vocabulary = vocabulary
        self.tokenizer = tokenizer
        self.statistics = statistics

    @property
    def n_documents(self) -> int:
        """The number of documents, empty ones included."""
        return len(self.offsets) - 1

    @property
    def n_tokens(self) -> int:
        """The number of running words that were kept."""
        return len(self.tokens)

    def __len__(self) -> int:
        return self.n_documents

    def __getitem__(self, document: int) -> Ids:
        """The rows of one document's words, a view of ``tokens``."""
        return self.tokens[self.offsets[document] : self.offsets[document + 1]]

    def __enter__(self) -> EncodedCorpus:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the mapped files; their disk space is free once no view of ``tokens`` or ``offsets`` is left."""
        self.tokens = np.empty(0, np.int32)
        self.offsets = np.zeros(1, np.int64)


def encode(
    sources: Sources,
    *,
    tokenizer: str | Tokenizer = "words",
    min_count: int = 5,
    reporter: Reporter | None = None,
    directory: str | os.PathLike[str] | None = None,
    max_expansion: float | None = EXPANSION_LIMIT,
) -> EncodedCorpus:
    """Read text, one document per line, and turn it into rows of the vocabulary that it gives.

    Args:
        sources: A path, a glob, a directory, ``"-"`` for standard input, or several of these; plain or compressed.
        tokenizer: A registered name, or a tokenizer.
        min_count: Words that occur less often are left out; at least 1.
        reporter: Told about the progress.
        directory: Where the temporary files lie: 4 bytes per running word, 8 per document. The system's directory for
            such files where it is ``None``.
        max_expansion: Decompressed bytes allowed per compressed byte, beyond the first GiB of a file; ``None`` for no
            limit.

    Raises:
        ConfigError: an unknown tokenizer, or a ``min_count`` below 1.
        CorpusError: a source that is missing, unreadable, binary, damaged or empty, or no word that is frequent enough.
        TrainingError: no room for the temporary files.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(b"To be, or not to be\\n\\nthat is not it"), file.flush()
        ...     with encode(file.name, min_count=2) as corpus:
        ...         print(corpus.vocabulary.words, corpus.tokens.tolist(), corpus.offsets.tolist())
        ('be', 'not', 'to') [2, 0, 1, 2, 0, 1] [0, 5, 5, 6]
    """
    chosen, reporter = _checked(tokenizer, min_count), reporter or SilentReporter()
    found = find_sources(sources)
    table = word_table(chosen)
    with ExitStack() as stack:
        spool = stack.enter_context(_Spool(directory))
        reader = stack.enter_context(
            BlockReader(found, whole_lines=not isinstance(table, CompiledWords), max_expansion=max_expansion)
        )
        reporter.start("reading", reader.total, "bytes")
        for block in reader:
            spool.append(*table.add_lines(block.data))
            reporter.advance(block.consumed, tokens=spool.n_tokens)
            spool.progress += block.consumed / reader.total if reader.total else 0.0
        reporter.finish(tokens=spool.n_tokens, documents=spool.n_documents)
        for message in _complaints(reader.reports):
            reporter.note(message)
        statistics = spool.statistics(
            n_bytes=sum(report.n_bytes for report in reader.reports),
            n_words_seen=len(table.counts()),
            invalid_utf8_lines=sum(report.invalid_lines for report in reader.reports),
            invalid_utf8_bytes=sum(report.invalid_bytes for report in reader.reports),
            sources=tuple(printable(report.name) for report in reader.reports),
            sha256=reader.sha256,
        )
        doc_ids = DocumentIds([report.name for report in reader.reports], [report.n_lines for report in reader.reports])
        return _finished(spool, table, chosen, doc_ids, statistics, min_count, reporter)


def encode_texts(
    texts: Iterable[str],
    *,
    tokenizer: str | Tokenizer = "words",
    min_count: int = 5,
    reporter: Reporter | None = None,
    directory: str | os.PathLike[str] | None = None,
) -> EncodedCorpus:
    """The same as :func:`encode` for strings; each is one document, line ends in it and all.

    Args:
        texts: The documents; any iterable, taken once.
        tokenizer: A registered name, or a tokenizer.
        min_count: Words that occur less often are left out; at least 1.
        reporter: Told about the progress.
        directory: Where the temporary files lie.

    Raises:
        ConfigError: an unknown tokenizer, or a ``min_count`` below 1.
        CorpusError: something that is no string, no word at all, or none that is frequent enough.
        TrainingError: no room for the temporary files.

    Example:
        >>> with encode_texts(["a b a", "b c"], min_count=2) as corpus:
        ...     print(corpus.vocabulary.words, corpus[0].tolist(), corpus[1].tolist())
        ('a', 'b') [0, 1, 0] [1]
    """
    chosen, reporter = _checked(tokenizer, min_count), reporter or SilentReporter()
    if isinstance(texts, (str, bytes)):
        raise CorpusError("the documents are one string; give a list of strings, one for each document")
    table = word_table(chosen)
    sha256, n_bytes = hashlib.sha256(), 0
    with _Spool(directory) as spool:
        reporter.start("reading", len(texts) if isinstance(texts, Sequence) else None, "documents")
        for batch in _batches(texts):
            spool.append(*table.add_texts(batch))
            text = "".join(f"{document}\n" for document in batch).encode(errors="replace")
            sha256.update(text)
            n_bytes += len(text)
            reporter.advance(len(batch), tokens=spool.n_tokens)
        reporter.finish(tokens=spool.n_tokens, documents=spool.n_documents)
        statistics = spool.statistics(
            n_bytes=n_bytes,
            n_words_seen=len(table.counts()),
            invalid_utf8_lines=0,
            invalid_utf8_bytes=0,
            sources=("documents",),
            sha256=sha256.hexdigest(),
        )
        doc_ids = DocumentIds(["documents"], [spool.n_documents])
        return _finished(spool, table, chosen, doc_ids, statistics, min_count, reporter)


def _checked(tokenizer: str | Tokenizer, min_count: int) -> Tokenizer:
    if not isinstance(min_count, int) or isinstance(min_count, bool) or min_count < 1:
        raise ConfigError(f"min_count is {min_count!r}; it must be a whole number from 1 up")
    return get_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer


def _complaints(reports: Sequence[SourceReport]) -> Iterator[str]:
    """One line about invalid UTF-8, if there was any."""
    broken = [report for report in reports if report.invalid_lines]
    if broken:
        n_lines = sum(report.invalid_lines for report in broken)
        n_bytes = sum(report.invalid_bytes for report in broken)
        files = f" in {len(broken):,} files" if len(broken) > 1 else ""
        where = f"{printable(broken[0].name)}, line {broken[0].first_invalid}"
        what = f"invalid UTF-8: {n_bytes:,} bytes in {n_lines:,} lines{files} were replaced by U+FFFD"
        yield f"{what} (the first in {where})"


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of strings of about a million characters together, without lone surrogates."""
    batch: list[str] = []
    size = 0
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise CorpusError(f"document {number} is of type {type(text).__name__}; every document must be a string")
        batch.append(
            text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        )
        size += len(text) + 1
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _finished(
    spool: _Spool,
    table: WordTable,
    tokenizer: Tokenizer,
    doc_ids: Sequence[str],
    statistics: CorpusStatistics,
    min_count: int,
    reporter: Reporter,
) -> EncodedCorpus:
    """The corpus of what was spooled: choose the words, then renumber."""
    counts = table.counts()
    numbers = np.flatnonzero(counts >= min_count)
    if not len(numbers):
        raise CorpusError(_nothing_to_train_on(statistics, min_count))
    words = table.words(numbers)
    by_spelling = np.array(sorted(range(len(words)), key=words.__getitem__), np.intp)
    order = by_spelling[np.argsort(-counts[numbers[by_spelling]], kind="stable")]
    vocabulary = Vocabulary(tuple(words[row] for row in order), counts[numbers[order]])
    rows = np.full(len(counts), -1, np.int32)
    rows[numbers[order]] = np.arange(len(numbers), dtype=np.int32)
    tokens, offsets = spool.renumbered(rows, reporter)
    return EncodedCorpus(tokens, offsets, doc_ids, vocabulary, tokenizer, statistics)


def _nothing_to_train_on(statistics: CorpusStatistics, min_count: int) -> str:
    names = statistics.sources
    where = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"
    if not statistics.n_bytes:
        return f"{where}: the text is empty; one document is expected on each line"
    if not statistics.n_tokens_seen:
        return f"{where}: there is no word in it ({statistics.n_documents:,} lines, {statistics.n_bytes:,} bytes)"
    seen = f"{statistics.n_words_seen:,} words, {statistics.n_tokens_seen:,} tokens"
    return f"{where}: no word occurs {min_count:,} times or more ({seen}); lower --min-count"


class _Spool:
    """Numbers of words and ends of documents in two nameless files, which become the mapped arrays of a corpus.

    Args:
        directory: Where the files lie; the system's directory for such files where it is ``None``.

    Attributes:
        n_tokens: How many numbers were written.
        n_documents: How many documents were written.
        n_empty: How many of them are empty.
        progress: The share of the text that was written, as far as it is known; it tells how much room a full disk
            lacks.
    """

    def __init__(self, directory: str | os.PathLike[str] | None) -> None:
        self.n_tokens = self.n_documents = self.n_empty = 0
        self.progress = 0.0
        self._directory = os.fspath(directory) if directory is not None else None
        self._last_end = 0
        with ExitStack() as stack:
            try:
                self._directory = self._directory or tempfile.gettempdir()
                self._tokens = stack.enter_context(_nameless_file(self._directory))
                self._ends = stack.enter_context(_nameless_file(self._directory))
            except OSError as error:
                place = printable(self._directory or "the system's temporary directory")
                reason = error.strerror or error
                raise TrainingError(
                    f"{place}: no temporary file can be made there: {reason}; name another directory"
                ) from error
            self._files = stack.pop_all()
        self._write(self._ends, np.zeros(1, np.int64))

    def __enter__(self) -> _Spool:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # a buffer that still finds no room; the error that matters is on its way
            self._files.close()

    def append(self, ids: Ids, ends: Ends) -> None:
        """Write the numbers of more words, and for each document that ends among them, after how many it does."""
        self._write(self._tokens, ids)
        if len(ends):
            ends = ends + self.n_tokens
            self.n_empty += int(np.count_nonzero(np.diff(ends, prepend=self._last_end) == 0))
            self._last_end = int(ends[-1])
            self._write(self._ends, ends)
        self.n_tokens += len(ids)
        self.n_documents += len(ends)

    def statistics(self, **more: Any) -> CorpusStatistics:
        """What was counted here, together with what was counted elsewhere."""
        return CorpusStatistics(n_documents=self.n_documents, n_empty=self.n_empty, n_tokens_seen=self.n_tokens, **more)

    def renumbered(self, rows: Ids, reporter: Reporter) -> tuple[Ids, Ends]:
        """Replace every number by its row, drop those without one, and map the files.

        Args:
            rows: int32 (n_words_seen,): the row of each number; -1 for none.
            reporter: Told about the progress.

        Returns:
            ``tokens`` int32 and ``offsets`` int64, both read-only; they keep the files alive.
        """
        reporter.start("encoding", self.n_tokens, "tokens")
        self._flush()
        offsets = np.frombuffer(mmap.mmap(self._ends.fileno(), 0), np.int64)
        chunk = np.empty(_CHUNK, np.int32)
        read = written = 0
        document = 1
        while read < self.n_tokens:
            self._tokens.seek(4 * read)
            numbers = chunk[: min(_CHUNK, self.n_tokens - read)]
            numbers = numbers[: self._tokens.readinto(numbers.data) // 4]
            kept = rows[numbers]
            is_kept = kept >= 0
            before = np.concatenate(([0], np.cumsum(is_kept)))
            beyond = document + int(np.searchsorted(offsets[document:], read + len(numbers), side="right"))
            offsets[document:beyond] = written + before[offsets[document:beyond] - read]
            self._tokens.seek(4 * written)
            self._write(self._tokens, kept[is_kept])
            document = beyond
            read += len(numbers)
            written += int(before[-1])
            reporter.advance(len(numbers))
        self._flush()
        self._tokens.truncate(4 * written)
        reporter.finish(tokens=written)
        tokens = np.frombuffer(mmap.mmap(self._tokens.fileno(), 0, access=mmap.ACCESS_READ), np.int32)
        offsets.setflags(write=False)
        return tokens, offsets

    def _write(self, file: io.BufferedRandom, array: npt.NDArray[Any]) -> None:
        try:
            file.write(np.ascontiguousarray(array).data)
        except OSError as error:
            raise self._full(error) from error

    def _flush(self) -> None:
        try:
            self._tokens.flush()
            self._ends.flush()
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> Exception:
        assert self._directory is not None
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return TrainingError(
                f"{printable(self._directory)}: the temporary file cannot be written: {error.strerror or error}"
            )
        size = 4 * self.n_tokens + 8 * self.n_documents
        needed = f"about {_megabytes(size / self.progress)}" if self.progress > 0.0 else f"more than {_megabytes(size)}"
        free = _megabytes(shutil.disk_usage(self._directory).free)
        return TrainingError(
            f"{printable(self._directory)}: no room for the encoded text (needed: {needed}, free: {free}); "
            "make room or name another directory"
        )


def _nameless_file(directory: str) -> io.BufferedRandom:
    return tempfile.TemporaryFile(dir=directory)


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"
