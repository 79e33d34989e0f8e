"""The encoded corpus: a text as integers, in two mapped temporary files.

One pass over the text numbers its words in the order of their first appearance and spills these numbers to a temporary
file. Only then is it known how often each word occurs, so which ones are kept and in which order; a pass over the file
replaces the provisional numbers by rows of the vocabulary. Words that are left out leave no gap: the words around them
become neighbours.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jose_embed.compression import EXPANSION_LIMIT
from jose_embed.corpus import BlockReader, DocumentIds, SourceReport, Tokenizer, complaints, get_tokenizer
from jose_embed.errors import ConfigError, CorpusError
from jose_embed.progress import Reporter, SilentReporter
from jose_embed.sources import Sources, find_sources, printable
from jose_embed.spool import Spool
from jose_embed.tokenizers import valid_text
from jose_embed.vocabulary import Vocabulary
from jose_embed.wordtable import CompiledWords, Ends, Ids, WordTable, word_table

__all__ = ["CorpusStatistics", "EncodedCorpus", "encode", "encode_texts"]

_BATCH = 1 << 20  # characters tokenised at a time
_SOURCES_NAMED = 1000


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
        """The same as plain JSON values; of very many sources the first are named, and ``n_sources`` counts them."""
        named = list(self.sources[:_SOURCES_NAMED])
        return {**asdict(self), "sources": named, "n_sources": len(self.sources)}


class EncodedCorpus:
    """A text as rows of a vocabulary; a context manager that gives its disk space back at the end.

    Attributes:
        tokens: int32 (n_tokens,), read-only, mapped: the row of every kept word, documents one after the other.
        offsets: int64 (n_documents + 1,), read-only, mapped: document d is ``tokens[offsets[d]:offsets[d + 1]]``.
        doc_ids: The id of every document.
        vocabulary: The kept words.
        tokenizer: What split the text.
        statistics: What the text was.
        min_count: Words that occur less often were left out.
        sources: What was found in each source, in order.
    """

    def __init__(
        self,
        tokens: Ids,
        offsets: Ends,
        doc_ids: Sequence[str],
        vocabulary: Vocabulary,
        tokenizer: Tokenizer,
        statistics: CorpusStatistics,
        min_count: int,
        sources: Sequence[SourceReport],
    ) -> None:
        self.tokens = tokens
        self.offsets = offsets
        self.doc_ids = doc_ids
        self.vocabulary = vocabulary
        self.tokenizer = tokenizer
        self.statistics = statistics
        self.min_count = min_count
        self.sources = sources

    @property
    def n_documents(self) -> int:
        """The number of documents, empty ones included."""
        return len(self.offsets) - 1

    @property
    def n_with_words(self) -> int:
        """The number of documents that have a kept word."""
        return int(np.count_nonzero(np.diff(self.offsets)))

    @property
    def n_tokens(self) -> int:
        """The number of running words that were kept."""
        return len(self.tokens)

    def __len__(self) -> int:
        return self.n_documents

    def __getitem__(self, document: int) -> Ids:
        """The rows of one document's words, a view of ``tokens``."""
        row = document + len(self) if document < 0 else document
        if not 0 <= row < len(self):
            raise IndexError(f"document {document} of {len(self)}")
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

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
    found = find_sources(sources, reporter.note)
    table = word_table(chosen)
    with ExitStack() as stack:
        spool = stack.enter_context(Spool(directory))
        reader = stack.enter_context(
            BlockReader(found, whole_lines=not isinstance(table, CompiledWords), max_expansion=max_expansion)
        )
        reporter.start("reading", reader.total, "bytes")
        for block in reader:
            spool.progress += block.consumed / reader.total if reader.total else 0.0
            spool.append(*table.add_lines(block.data))
            reporter.advance(block.consumed, tokens=spool.n_tokens)
        for message in complaints(reader.reports):
            reporter.note(message)
        return _finished(spool, table, chosen, reader.reports, reader.sha256, min_count, reporter)


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
    report = SourceReport("documents")
    sha256 = hashlib.sha256()
    with Spool(directory) as spool:
        reporter.start("reading", len(texts) if isinstance(texts, Sequence) else None, "documents")
        for batch in _batches(texts, report):
            spool.append(*table.add_texts(batch))
            content = "".join(f"{text}\n" for text in batch).encode()
            sha256.update(content)
            report.n_bytes += len(content)
            report.n_lines += len(batch)
            reporter.advance(len(batch), tokens=spool.n_tokens)
        if report.invalid_lines:
            what = "NUL characters or lone surrogates were replaced by U+FFFD"
            reporter.note(f"{report.invalid_lines:,} documents: {what} (the first in document {report.first_invalid})")
        return _finished(spool, table, chosen, [report], sha256.hexdigest(), min_count, reporter)


def _checked(tokenizer: str | Tokenizer, min_count: int) -> Tokenizer:
    if not isinstance(min_count, int) or isinstance(min_count, bool) or min_count < 1:
        raise ConfigError(f"min_count is {min_count!r}; it must be a whole number from 1 up")
    return get_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer


def _batches(texts: Iterable[str], report: SourceReport) -> Iterator[list[str]]:
    """Lists of strings of about a million characters together, without NUL and lone surrogates, which are counted."""
    batch: list[str] = []
    size = 0
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise CorpusError(f"document {number} is of type {type(text).__name__}; every document must be a string")
        clean = valid_text(text)
        if clean != text:
            report.invalid_lines += 1
            report.first_invalid = report.first_invalid or number
        batch.append(clean)
        size += len(clean) + 1
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _finished(
    spool: Spool,
    table: WordTable,
    tokenizer: Tokenizer,
    reports: Sequence[SourceReport],
    sha256: str,
    min_count: int,
    reporter: Reporter,
) -> EncodedCorpus:
    """The corpus of what was read: choose the words, then renumber."""
    reporter.finish(tokens=spool.n_tokens, documents=spool.n_documents)
    counts = table.counts()
    statistics = CorpusStatistics(
        n_bytes=sum(report.n_bytes for report in reports),
        n_documents=spool.n_documents,
        n_empty=spool.n_empty,
        n_tokens_seen=spool.n_tokens,
        n_words_seen=len(counts),
        invalid_utf8_lines=sum(report.invalid_lines for report in reports),
        invalid_utf8_bytes=sum(report.invalid_bytes for report in reports),
        sources=tuple(printable(report.name) for report in reports),
        sha256=sha256,
    )
    numbers = np.flatnonzero(counts >= min_count)
    if not len(numbers):
        raise CorpusError(_nothing_to_train_on(statistics, min_count))
    words = table.words(numbers)
    by_spelling = np.array(sorted(range(len(words)), key=words.__getitem__), np.intp)
    order = by_spelling[np.argsort(-counts[numbers[by_spelling]], kind="stable")]
    rows = np.full(len(counts), -1, np.int32)
    rows[numbers[order]] = np.arange(len(numbers), dtype=np.int32)
    tokens, offsets = spool.renumbered(rows, reporter)
    vocabulary = Vocabulary(tuple(words[row] for row in order), counts[numbers[order]])
    doc_ids = DocumentIds([report.name for report in reports], [report.n_lines for report in reports])
    return EncodedCorpus(tokens, offsets, doc_ids, vocabulary, tokenizer, statistics, min_count, reports)


def _nothing_to_train_on(statistics: CorpusStatistics, min_count: int) -> str:
    names = statistics.sources
    where = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"
    if not statistics.n_bytes:
        return f"{where}: the text is empty; one document is expected on each line"
    if not statistics.n_tokens_seen:
        return f"{where}: there is no word in it ({statistics.n_documents:,} lines, {statistics.n_bytes:,} bytes)"
    seen = f"{statistics.n_words_seen:,} words, {statistics.n_tokens_seen:,} tokens"
    return f"{where}: no word occurs {min_count:,} times or more ({seen}); lower --min-count"
