"""The encoded corpus: a text as integers, in two mapped temporary files.

One pass over the text numbers its words in the order of their first appearance and spills these numbers to a temporary
file. Only then is it known how often each word occurs, so which ones are kept and in which order; a pass over the file
replaces the provisional numbers by rows of the vocabulary. Words that are left out leave no gap: the words around them
become neighbours.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing, nullcontext, suppress
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.compute.jit import jit
from jose_embed.errors import ConfigError, CorpusError, TrainingError
from jose_embed.progress import Reporter, SilentReporter, WarningNote
from jose_embed.storage.columns import MappedLines, first_repetition
from jose_embed.text.compression import EXPANSION_LIMIT
from jose_embed.text.corpus import CorpusStatistics, EncodedCorpus
from jose_embed.text.documents import GivenDocuments, given_documents
from jose_embed.text.expectations import notes_about
from jose_embed.text.normalization import normalized
from jose_embed.text.phrases import PairTable, Phrase, count_joined, find_phrases, join_in_place, phrases_of
from jose_embed.text.rare_words import MOST_RARE_WORDS, packed_counts
from jose_embed.text.reader import BlockReader, DocumentIds, complaints
from jose_embed.text.records import Columns, TextOptions
from jose_embed.text.segment_pool import PooledWords, table_for
from jose_embed.text.sources import Source, SourceReport, Sources, find_sources, printable
from jose_embed.text.texts import TextStore
from jose_embed.text.tokenizers import Tokenizer, get_tokenizer, normalizing, valid_text
from jose_embed.text.vocabulary import EarlierWords, Vocabulary
from jose_embed.text.word_lists import VocabularyChoice
from jose_embed.text.word_table import CompiledWords, Ends, Ids, PlainWords, WordTable


def encode(
    sources: Sources,
    *,
    tokenizer: str | Tokenizer = "words",
    normalize: str = "nfc",
    min_count: int = 5,
    reporter: Reporter | None = None,
    directory: str | os.PathLike[str] | None = None,
    max_expansion: float | None = EXPANSION_LIMIT,
    options: TextOptions | None = None,
    choice: VocabularyChoice | None = None,
    workers: int = 1,
    earlier: EarlierWords | None = None,
) -> EncodedCorpus:
    """Read text, one document per line or record, and turn it into rows of the vocabulary that it gives.

    Args:
        sources: A path, a glob, a directory, ``"-"`` for standard input, or several of these; plain or compressed.
        tokenizer: A registered name, or a tokenizer.
        normalize: The Unicode form of the text: ``"nfc"``, ``"nfkc"``, or ``"none"`` to change nothing.
        min_count: Words that occur less often are left out; at least 1.
        reporter: Receives the progress.
        directory: Directory of the temporary files: 4 bytes per running word, 8 per document; the
            system's if ``None``.
        max_expansion: Decompressed bytes allowed per compressed byte, beyond the first GiB of a file; ``None`` for no
            limit.
        options: How tables and records are read, and what is kept of them.
        choice: Which words the vocabulary has, besides the frequent ones.
        workers: Processes of a slow tokenizer.
        earlier: The words of earlier texts; ``min_count`` is for the counts of all texts.

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
    chosen, reporter = _checked(tokenizer, normalize, min_count), reporter or SilentReporter()
    found = find_sources(sources, reporter.note)
    with ExitStack() as stack:
        text = read_text(
            found, chosen, stack, reporter=reporter, directory=directory, max_expansion=max_expansion, options=options,
            workers=workers,
        )  # fmt: skip
        return text.encoded_alone(min_count, choice or VocabularyChoice(), reporter, earlier)


def read_text(
    sources: Sequence[Source],
    tokenizer: Tokenizer,
    stack: ExitStack,
    *,
    reporter: Reporter,
    directory: str | os.PathLike[str] | None = None,
    max_expansion: float | None = EXPANSION_LIMIT,
    options: TextOptions | None = None,
    workers: int = 1,
) -> ReadText:
    """Read text and number its words, before a vocabulary is chosen; see :func:`encode`.

    Args:
        sources: What to read, in this order.
        tokenizer: Splits the text.
        stack: Keeps the temporary files open.
        reporter: Receives the phase "reading".
        directory: Directory of the temporary files.
        max_expansion: Decompressed bytes allowed per compressed byte.
        options: How tables and records are read.
        workers: Processes of a slow tokenizer.
    """
    options = options or TextOptions()
    table = table_for(tokenizer, workers)
    stack.enter_context(closing(table) if isinstance(table, PooledWords) else nullcontext())
    spool = stack.enter_context(TokenSpill(directory, with_ids=options.has_ids))
    texts = TextStore.create(directory, fields=options.keep_fields) if options.keeps else None
    with BlockReader(
        sources, whole_lines=not isinstance(table, CompiledWords), max_expansion=max_expansion, options=options
    ) as reader:
        reporter.start("reading", reader.total, "bytes")
        for block in reader:
            while reader.notes:
                reporter.note(reader.notes.pop(0))
            spool.progress += block.consumed / reader.total if reader.total else 0.0
            numbers, ends = table.add_lines(block.data)
            spool.append(numbers, ends)
            if block.records is not None:
                spool.append_ids(block.records.ids)
                if texts is not None:
                    texts.append(block.records.texts, block.records.fields, block.records.n_records)
            if texts is not None and options.keep_text:
                texts.append_words(table, numbers, ends)
            reporter.advance(block.consumed, tokens=spool.n_tokens)
        for message in [*reader.notes, *complaints(reader.reports)]:
            reporter.note(message)
        reporter.finish(tokens=spool.n_tokens, documents=spool.n_documents)
        return ReadText(spool, table, tokenizer, reader.reports, reader.sha256, options, texts, reader.columns)


def encode_texts(
    documents: Any,
    *,
    ids: Iterable[Any] | None = None,
    tokenizer: str | Tokenizer = "words",
    normalize: str = "nfc",
    min_count: int = 5,
    reporter: Reporter | None = None,
    directory: str | os.PathLike[str] | None = None,
    options: TextOptions | None = None,
    choice: VocabularyChoice | None = None,
    workers: int = 1,
    earlier: EarlierWords | None = None,
) -> EncodedCorpus:
    """The same as :func:`encode` for documents from Python; each string is one document, with any line ends in it.

    Args:
        documents: Strings or sequences of words, as :func:`~jose_embed.text.documents.given_documents` takes them.
        ids: An id for each document: strings or whole numbers; their numbers from 1 if omitted.
        tokenizer: A registered name, or a tokenizer; not called for sequences of words.
        normalize: As for :func:`encode`.
        min_count: Words that occur less often are left out; at least 1.
        reporter: Receives the progress.
        directory: Directory of the temporary files.
        options: The columns of a data set, and whether texts are kept.
        choice: As for :func:`encode`.
        workers: As for :func:`encode`.
        earlier: As for :func:`encode`.

    Raises:
        ConfigError: an unknown tokenizer, or a ``min_count`` below 1.
        CorpusError: something that is not a document or an id, an id that is given twice, no word at all, or none that
            is frequent enough.
        TrainingError: no room for the temporary files.

    Example:
        >>> with encode_texts(["a b a", "b c"], ids=["x", "y"], min_count=2) as corpus:
        ...     print(corpus.vocabulary.words, corpus[0].tolist(), corpus[1].tolist(), list(corpus.doc_ids))
        ('a', 'b') [0, 1, 0] [1] ['x', 'y']
    """
    chosen, reporter = _checked(tokenizer, normalize, min_count), reporter or SilentReporter()
    options = options or TextOptions()
    given = documents if isinstance(documents, GivenDocuments) else given_documents(documents, ids, options)
    table = PlainWords(_normal_words(normalize), chosen.name) if given.are_tokens else table_for(chosen, workers)
    report = SourceReport("documents")
    sha256 = hashlib.sha256()
    texts = TextStore.create(directory) if options.keep_text else None
    with (
        closing(table) if isinstance(table, PooledWords) else nullcontext(),
        TokenSpill(directory, with_ids=given.ids is not None) as spool,
    ):
        if given.note is not None:
            reporter.note(given.note)
        reporter.start("reading", given.n_documents, "documents")
        for batch, batch_ids in given.batches():
            whole = [" ".join(words) for words in batch] if given.are_tokens else batch
            batch = batch if given.are_tokens else _valid(batch, report)
            numbers, ends = table.add_texts(batch)
            spool.append(numbers, ends)
            spool.append_ids(batch_ids)
            plain = whole if given.are_tokens else batch
            if texts is not None:
                texts.append(whole, None, len(batch))
                if not given.are_tokens:  # a question is split by the tokenizer, and so are texts made of tokens
                    texts.append_words(table, numbers, ends)
            content = "".join(f"{text}\n" for text in [*plain, *(batch_ids or ())]).encode(errors="replace")
            sha256.update(content)
            report.n_bytes += len(content)
            report.n_lines += len(batch)
            reporter.advance(len(batch), tokens=spool.n_tokens)
        if report.invalid_lines:
            what = "NUL characters or lone surrogates were replaced by U+FFFD"
            documents = f"{report.invalid_lines:,} documents"
            reporter.note(WarningNote(f"{documents}: {what} (the first in document {report.first_invalid})"))
        reporter.finish(tokens=spool.n_tokens, documents=spool.n_documents)
        text = ReadText(spool, table, chosen, [report], sha256.hexdigest(), options, texts)
        return text.encoded_alone(min_count, choice or VocabularyChoice(), reporter, earlier)


def _normal_words(form: str) -> Callable[[Sequence[str]], list[str]]:
    """A function that puts each word of a document into a Unicode form."""
    return lambda words: [normalized(word, form) for word in words]


def _valid(batch: list[str], report: SourceReport) -> list[str]:
    """The texts without NUL and lone surrogates, which are counted."""
    clean = [valid_text(text) for text in batch]
    for number, (old, new) in enumerate(zip(batch, clean, strict=True), report.n_lines + 1):
        if old != new:
            report.invalid_lines += 1
            report.first_invalid = report.first_invalid or number
    return clean


def _checked(tokenizer: str | Tokenizer, normalize: str, min_count: int) -> Tokenizer:
    if not isinstance(min_count, int) or isinstance(min_count, bool) or min_count < 1:
        raise ConfigError(f"min_count is {min_count!r}; it must be a whole number from 1 up")
    return normalizing(get_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer, normalize)


class ReadText(NamedTuple):
    """A text whose words have provisional numbers, before a vocabulary is chosen.

    Attributes:
        spool: The numbers.
        table: The words.
        tokenizer: What split the text.
        reports: The report of each source.
        sha256: Hexadecimal SHA-256 of the text.
        options: How it was read.
        texts: The texts and fields to keep.
        columns: The columns of a table that were read.
    """

    spool: TokenSpill
    table: WordTable
    tokenizer: Tokenizer
    reports: Sequence[SourceReport]
    sha256: str
    options: TextOptions
    texts: TextStore | None
    columns: Columns | None = None

    def statistics(self) -> CorpusStatistics:
        """What the text is."""
        reports, columns = self.reports, self.columns
        return CorpusStatistics(
            n_bytes=sum(report.n_bytes for report in reports),
            n_documents=self.spool.n_documents,
            n_empty=self.spool.n_empty,
            n_tokens_seen=self.spool.n_tokens,
            n_words_seen=len(self.table.counts()),
            invalid_utf8_lines=sum(report.invalid_lines for report in reports),
            invalid_utf8_bytes=sum(report.invalid_bytes for report in reports),
            sources=tuple(printable(report.name) for report in reports),
            sha256=self.sha256,
            text_field=columns.text if columns is not None else (),
            id_field=columns.id if columns is not None else None,
        )

    def encoded_alone(
        self, min_count: int, choice: VocabularyChoice, reporter: Reporter, earlier: EarlierWords | None = None
    ) -> EncodedCorpus:
        """The text as rows of the vocabulary that it gives, or that it and earlier texts give.

        Raises:
            CorpusError: no word may be in it.
        """
        if earlier is not None:
            vocabulary, rare_words = self._vocabulary_with(earlier, min_count, choice, reporter)
            tokens, offsets = self.spool.renumbered(self.rows_of(vocabulary), reporter)
            return self._corpus(tokens, offsets, vocabulary, min_count, choice, [], (), rare_words)
        counts = self.table.counts()
        numbers = np.arange(len(counts)) if choice.keep_words else np.flatnonzero(counts >= min_count)
        words = self.table.words(numbers)
        order = chosen_words(words, counts[numbers], min_count, choice, reporter)
        if not len(order):
            raise CorpusError(nothing_to_train_on(self.statistics(), min_count, choice))
        rows = np.full(len(counts), -1, np.int32)
        rows[numbers[order]] = np.arange(len(order), dtype=np.int32)
        vocabulary = Vocabulary(tuple(words[row] for row in order), counts[numbers[order]])
        tokens, offsets = self.spool.renumbered(rows, reporter)
        notes = tuple(notes_about(self.table, self.tokenizer, vocabulary, offsets, self.spool.n_empty, min_count))
        for note in notes:
            reporter.note(note)
        phrases: list[Phrase] = []
        dropped: dict[str, int] = {}
        if choice.phrases:
            tokens, offsets, vocabulary, phrases, dropped = _with_phrases(
                self.spool, tokens, offsets, vocabulary, min_count, choice, reporter
            )
        joined = frozenset(phrase.word for phrase in phrases)
        left_out = np.flatnonzero(rows < 0)
        rare = packed_counts(self.table, left_out, counts[left_out], more=dropped.items(), known=joined)
        return self._corpus(tokens, offsets, vocabulary, min_count, choice, phrases, notes, rare)

    def _vocabulary_with(
        self, earlier: EarlierWords, min_count: int, choice: VocabularyChoice, reporter: Reporter
    ) -> tuple[Vocabulary, bytes | None]:
        """The words of earlier texts and those that are frequent enough in all texts together; counts of the others."""
        own = self.table.counts()
        total = earlier.with_counts(self.table.words(np.arange(len(own))), own)
        words, counts = list(total), np.fromiter(total.values(), np.int64, len(total))
        kept = dataclasses.replace(choice, keep_words=frozenset(earlier.vocabulary.words))
        order = chosen_words(words, counts, min_count, kept, reporter)
        vocabulary = Vocabulary(tuple(words[row] for row in order), counts[order])
        if earlier.rare is None:
            return vocabulary, None
        left_out = np.setdiff1d(np.arange(len(words)), order)
        left_out = left_out[np.argsort(-counts[left_out], kind="stable")[:MOST_RARE_WORDS]]
        rare = [(words[row], int(counts[row])) for row in left_out.tolist()]
        return vocabulary, packed_counts(self.table, left_out[:0], counts[:0], more=rare)

    def rows_of(self, vocabulary: Vocabulary) -> Ids:
        """The row of each provisional number in the vocabulary of a larger text, int32, -1 for none."""
        rows = np.full(len(self.table.counts()), -1, np.int32)
        for start in range(0, len(rows), _CHUNK):
            words = self.table.words(np.arange(start, min(start + _CHUNK, len(rows))))
            found = (vocabulary.index(word) for word in words)
            rows[start : start + len(words)] = [-1 if row is None else row for row in found]
        return rows

    def encoded(
        self, vocabulary: Vocabulary, rows: Ids, min_count: int, choice: VocabularyChoice, reporter: Reporter
    ) -> EncodedCorpus:
        """The text as rows of a vocabulary; ``rows`` has that of each provisional number."""
        tokens, offsets = self.spool.renumbered(rows, reporter)
        return self._corpus(tokens, offsets, vocabulary, min_count, choice, [], ())

    def _corpus(
        self,
        tokens: Ids,
        offsets: Ends,
        vocabulary: Vocabulary,
        min_count: int,
        choice: VocabularyChoice,
        phrases: list[Phrase],
        notes: tuple[str, ...],
        rare_counts: bytes | None = None,
    ) -> EncodedCorpus:
        doc_ids: Sequence[str] | None = self.spool.ids()
        if doc_ids is None:
            doc_ids = DocumentIds([report.name for report in self.reports], [report.n_lines for report in self.reports])
        else:
            _refuse_repetition(doc_ids, self.reports)
        if self.texts is not None:
            self.texts.finish(self.tokenizer)
        statistics = dataclasses.replace(self.statistics(), notes=notes)
        return EncodedCorpus(
            tokens, offsets, doc_ids, vocabulary, self.tokenizer, statistics, min_count, self.reports, self.options,
            self.texts, choice, phrases, rare_counts,
        )  # fmt: skip


def chosen_words(
    words: Sequence[str],
    counts: npt.NDArray[np.int64],
    min_count: int,
    choice: VocabularyChoice,
    reporter: Reporter,
) -> npt.NDArray[np.intp]:
    """Which words are in a vocabulary, in its order: most frequent first, equal counts in the order of UTF-8 bytes.

    Args:
        words: Candidates: at least the words that are frequent enough, and those to keep.
        counts: int64 (n_words,), how often each occurs.
        min_count: Words that occur less often are left out, unless they are to be kept.
        choice: Words to leave out or to keep, and the most words.
        reporter: Receives a note about words to keep that are not in the text.

    Raises:
        ConfigError: there are more words to keep than there may be.
    """
    at = np.flatnonzero(counts >= min_count)
    if choice.keep_words or choice.stop_words:
        keep, stop = choice.keep_words, choice.stop_words
        frequent = (counts >= min_count).tolist()
        at = np.array(
            [i for i, word in enumerate(words) if (frequent[i] and word not in stop) or word in keep], np.intp
        )
        if missing := sorted(keep.difference(words[i] for i in at.tolist())):
            reporter.note(
                f"{len(missing):,} of {len(keep):,} words to keep are not in the text, such as {missing[0]!r}"
            )
    by_spelling = np.array(sorted(at.tolist(), key=words.__getitem__), np.intp)
    order = by_spelling[np.argsort(-counts[by_spelling], kind="stable")]
    return _most_frequent(order, words, choice) if choice.max_vocab else order


def _with_phrases(
    spool: TokenSpill, tokens: Ids, offsets: Ends, vocabulary: Vocabulary, min_count: int, choice: VocabularyChoice,
    reporter: Reporter,
) -> tuple[Ids, Ends, Vocabulary, list[Phrase], dict[str, int]]:  # fmt: skip
    """The same text with its phrases as words, and the counts of words that are too rare without those in phrases."""
    first, second, scores = find_phrases(tokens, offsets, vocabulary.counts, min_count)
    while True:
        pairs = phrases_of(vocabulary.words, first, second, scores)
        words = list(dict.fromkeys([*vocabulary.words, *(pair.word for pair in pairs)]))
        row_of = {word: row for row, word in enumerate(words)}
        rows = np.array([row_of[pair.word] for pair in pairs], np.int32)
        table = PairTable.of(first, second, rows, vocabulary.n_words)
        counts = np.zeros(len(words), np.int64)
        count_joined(tokens, offsets, table, counts)
        if not (rare := counts[rows] < min_count).any():
            break
        first, second, scores = first[~rare], second[~rare], scores[~rare]  # other pairs took their words
    if not pairs:
        return tokens, offsets, vocabulary, [], {}
    spool.join(table, np.zeros(len(words), np.int64))
    is_kept = np.array([word in choice.keep_words for word in words], bool) & (counts > 0)
    numbers = np.flatnonzero((counts >= min_count) | is_kept)
    by_spelling = np.array(sorted(numbers.tolist(), key=words.__getitem__), np.intp)
    order = by_spelling[np.argsort(-counts[by_spelling], kind="stable")]
    if choice.max_vocab:
        order = _most_frequent(order, words, choice)
    renumbering = np.full(len(words), -1, np.int32)
    renumbering[order] = np.arange(len(order), dtype=np.int32)
    tokens, offsets = spool.renumbered(renumbering, reporter)
    dropped = {words[row]: int(counts[row]) for row in np.flatnonzero((renumbering < 0) & (counts > 0)).tolist()}
    return tokens, offsets, Vocabulary(tuple(words[row] for row in order), counts[order]), pairs, dropped


def _most_frequent(order: npt.NDArray[np.intp], words: Sequence[str], choice: VocabularyChoice) -> npt.NDArray[np.intp]:
    """The first positions, in order, of as many words as a vocabulary may have; words to keep are among them.

    Raises:
        ConfigError: there are more words to keep.
    """
    is_kept = np.array([words[at] in choice.keep_words for at in order.tolist()], bool)
    room = choice.max_vocab - int(np.count_nonzero(is_kept))
    if room < 0:
        n_kept = choice.max_vocab - room
        raise ConfigError(f"max_vocab is {choice.max_vocab}, but keep_words has {n_kept:,} words; raise it")
    return order[is_kept | (np.cumsum(~is_kept) <= room)]


def _refuse_repetition(ids: Sequence[str], reports: Sequence[SourceReport]) -> None:
    """Passes if all ids differ; else names the two places."""
    repeated = first_repetition(ids)
    if repeated is None:
        return
    rows = islice((row for row, each in enumerate(ids) if each == repeated), 2)
    first, second = (_place(row, reports) for row in rows)
    raise CorpusError(f"the id {repeated[:100]!r} is given twice: {first}, and {second}; ids must differ")


def _place(row: int, reports: Sequence[SourceReport]) -> str:
    """The place of a document, from 1, in its source."""
    for report in reports:
        if row < report.n_lines:
            break
        row -= report.n_lines
    return f"document {row + 1:,} of {printable(report.name)}" if report.path is not None else f"document {row + 1:,}"


def nothing_to_train_on(statistics: CorpusStatistics, min_count: int, choice: VocabularyChoice) -> str:
    """The error for a text without a word that may be in a vocabulary."""
    names = statistics.sources
    where = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"
    if not statistics.n_bytes:
        return f"{where}: the text is empty; one document is expected on each line"
    if not statistics.n_tokens_seen:
        return f"{where}: there is no word in it ({statistics.n_documents:,} lines, {statistics.n_bytes:,} bytes)"
    seen = f"{statistics.n_words_seen:,} words, {statistics.n_tokens_seen:,} tokens"
    if choice.stop_words:
        return f"{where}: no word but stop words occurs {min_count:,} times or more ({seen}); lower min_count"
    return f"{where}: no word occurs {min_count:,} times or more ({seen}); lower min_count"


@jit
def _renumber(numbers: Ids, rows: Ids, offsets: Ends, read: int, written: int, document: int) -> tuple[int, int]:
    """Replace numbers by their rows, in place and without those that have none, and the offsets that lie among them.

    Args:
        numbers: int32 (n,), the next ones.
        rows: int32 (n_words_seen,), -1 for none.
        offsets: int64 (n_documents + 1,), from ``document`` on those of the numbers.
        read: How many numbers came before these.
        written: How many of them were kept.
        document: The first offset that is not replaced yet.

    Returns:
        How many of these numbers were kept, and the first offset that is not replaced yet.
    """
    n_kept = 0
    for i in range(len(numbers) + 1):
        while document < len(offsets) and offsets[document] == read + i:
            offsets[document] = written + n_kept
            document += 1
        if i < len(numbers):
            row = rows[numbers[i]]
            numbers[n_kept] = row
            n_kept += row >= 0
    return n_kept, document


_CHUNK = 1 << 18  # numbers replaced at a time


class TokenSpill:
    """Numbers of words and ends of documents in two nameless files, which become the mapped arrays of a corpus.

    Args:
        directory: Directory of the temporary files; the system's if ``None``.
        with_ids: Whether ids are written too.

    Attributes:
        n_tokens: How many numbers were written.
        n_documents: How many documents were written.
        n_empty: How many of them are empty.
        progress: The share of the text that was written, as far as it is known; it shows how much room a full disk
            lacks.
    """

    def __init__(self, directory: str | os.PathLike[str] | None, *, with_ids: bool = False) -> None:
        self.n_tokens = self.n_documents = self.n_empty = 0
        self.progress = 0.0
        self._directory = os.fspath(directory) if directory is not None else None
        self._last_end = 0
        with ExitStack() as stack:
            try:
                self._directory = self._directory or tempfile.gettempdir()
                self._tokens = stack.enter_context(_nameless_file(self._directory))
                self._ends = stack.enter_context(_nameless_file(self._directory))
                self._ids = stack.enter_context(_nameless_file(self._directory)) if with_ids else None
            except OSError as error:
                place = printable(self._directory or "the system's temporary directory")
                reason = error.strerror or error
                raise TrainingError(
                    f"{place}: no temporary file can be made there: {reason}; name another directory"
                ) from error
            self._files = stack.pop_all()
        self._write(self._ends, np.zeros(1, np.int64))

    def __enter__(self) -> TokenSpill:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # a buffer that still finds no room; the error that matters is on its way
            self._files.close()

    def append(self, ids: Ids, ends: Ends) -> None:
        """Write the numbers of more words, and for each document that ends among them, after how many it does."""
        ends = ends + self.n_tokens
        self.n_tokens += len(ids)
        self.n_documents += len(ends)
        self._write(self._tokens, ids)
        self._write(self._ends, ends)
        if len(ends):
            self.n_empty += int(np.count_nonzero(np.diff(ends, prepend=self._last_end) == 0))
            self._last_end = int(ends[-1])

    def append_ids(self, ids: Sequence[str] | None) -> None:
        """Write the ids of more documents, if ids are written; none of them may hold a line feed."""
        if self._ids is not None and ids:
            self._write(self._ids, "\n".join([*ids, ""]).encode())

    def ids(self) -> Sequence[str] | None:
        """The ids, mapped; ``None`` if none are written."""
        if self._ids is None:
            return None
        self._flush()
        return MappedLines(mmap.mmap(self._ids.fileno(), 0, access=mmap.ACCESS_READ), "ids")

    def renumbered(self, rows: Ids, reporter: Reporter) -> tuple[Ids, Ends]:
        """Replace every number by its row, drop those without one, and map the files.

        Args:
            rows: int32 (n_words_seen,): the row of each number; -1 for none.
            reporter: Receives the progress.

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
            n_kept, document = _renumber(numbers, rows, offsets, read, written, document)
            self._tokens.seek(4 * written)
            self._write(self._tokens, numbers[:n_kept])
            read += len(numbers)
            written += n_kept
            reporter.advance(len(numbers))
        self._flush()
        self._tokens.truncate(4 * written)
        reporter.finish(tokens=written)
        tokens = np.frombuffer(mmap.mmap(self._tokens.fileno(), 0, access=mmap.ACCESS_READ), np.int32)
        offsets.setflags(write=False)
        return tokens, offsets

    def join(self, pairs: PairTable, counts: npt.NDArray[np.int64]) -> None:
        """Join pairs of rows after :meth:`renumbered`, which may be called again."""
        tokens = np.frombuffer(mmap.mmap(self._tokens.fileno(), 0), np.int32)
        offsets = np.frombuffer(mmap.mmap(self._ends.fileno(), 0), np.int64)
        self.n_tokens = join_in_place(tokens, offsets, pairs, counts)
        # Opened again: the buffer of the file may hold what was there before.
        self._tokens = self._files.enter_context(os.fdopen(os.dup(self._tokens.fileno()), "r+b"))

    def _write(self, file: io.BufferedRandom, data: npt.NDArray[Any] | bytes) -> None:
        try:
            file.write(data if isinstance(data, bytes) else np.ascontiguousarray(data).data)
        except OSError as error:
            raise self._full(error) from error

    def _flush(self) -> None:
        try:
            for file in filter(None, (self._tokens, self._ends, self._ids)):
                file.flush()
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> Exception:
        assert self._directory is not None
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return TrainingError(
                f"{printable(self._directory)}: the temporary file cannot be written: {error.strerror or error}"
            )
        size = 4 * self.n_tokens + 8 * self.n_documents
        needed = f"about {size / self.progress / 1e6:,.1f}" if self.progress > 0.0 else f"more than {size / 1e6:,.1f}"
        ours = sum(os.fstat(file.fileno()).st_size for file in (self._tokens, self._ends))
        free = f"{(shutil.disk_usage(self._directory).free + ours) / 1e6:,.1f}"
        return TrainingError(
            f"{printable(self._directory)}: no room for the encoded text ({error.strerror}; needed: {needed} MB, "
            f"there was: {free} MB); make room or name another directory"
        )


def _nameless_file(directory: str) -> io.BufferedRandom:
    return tempfile.TemporaryFile(dir=directory)
