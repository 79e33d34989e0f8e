"""One machine's part of the text and its training; what an actor of Ray does, without Ray.

The methods are called in this order: ``read``, ``counted`` and ``merged``, ``encode``, ``prepare``, then ``interval``
and ``apply`` in turn, ``finish_words``, the steps of the reductions (reductions.py), and ``documents`` or
``write_documents``.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.compute.backends import Writer, check_backend, choose_backend, directions_writer
from jose_embed.compute.cpu.directions import count_documents, run_parts
from jose_embed.compute.tables import DocumentInputs
from jose_embed.config import TrainConfig
from jose_embed.distributed.combiner import Moves
from jose_embed.distributed.exchange import Point, SharedRows
from jose_embed.distributed.part_files import PartFile, check_folder
from jose_embed.model.inference import NO_MATRIX, TERM_WEIGHTS
from jose_embed.storage.memory import read_in_order
from jose_embed.text.corpus import CorpusStatistics, EncodedCorpus
from jose_embed.text.encode import ReadText, read_text
from jose_embed.text.reader import DocumentIds
from jose_embed.text.records import TextOptions
from jose_embed.text.sources import Source, SourceReport
from jose_embed.text.texts import KeptDocument
from jose_embed.text.tokenizers import Tokenizer
from jose_embed.text.vocabulary import Vocabulary
from jose_embed.text.word_lists import VocabularyChoice
from jose_embed.training.document_weights import (
    HalfSums,
    WordSums,
    direction_sum,
    half_sums,
    retrieval_weights,
    sampled_documents,
    slice_threads,
    words_at_once,
)
from jose_embed.training.epochs import train_epochs
from jose_embed.training.estimate import estimate
from jose_embed.training.finish import add_context_vectors, normalize_rows
from jose_embed.training.initial import allocate_tables, compiled_backend, fill_with_random_points, trained_rows
from jose_embed.training.schedule import RunState

_WRITTEN: Final = 1 << 14  # documents written at a time


@dataclass(frozen=True)
class ReadFacts:
    """What a machine has read.

    Attributes:
        reports: The report of each source.
        statistics: Counts of the text.
        notes: Sentences for the user.
    """

    reports: Sequence[SourceReport]
    statistics: CorpusStatistics
    notes: Sequence[str]


@dataclass(frozen=True)
class TrainFacts:
    """How a machine trains.

    Attributes:
        backend: "cpu" or "gpu".
        workers: Documents that it trains at a time.
        notes: Sentences for the user.
    """

    backend: str
    workers: int
    notes: Sequence[str]


class Documents(NamedTuple):
    """Consecutive documents of a machine, with what a model stores of them.

    Attributes:
        vectors: float32 (n, dim), norm 1.
        n_tokens: int64 (n,).
        ids: Their ids; None if they are numbered.
        kept: Their texts and fields; None if none are kept.
    """

    vectors: npt.NDArray[np.float32]
    n_tokens: npt.NDArray[np.int64]
    ids: list[str] | None
    kept: list[KeptDocument] | None


class _Watched:
    """A reporter whose figures another thread may read; methods as in ``progress.Reporter``."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.done, self.figures, self._phase = 0, dict[str, float](), ""

    def start(self, phase: str, total: int | None, unit: str, done: int = 0) -> None:
        if phase != self._phase:
            self._phase, self.done, self.figures = phase, 0, {}

    def advance(self, amount: int, **figures: float) -> None:
        self.done += amount
        self.figures = figures

    def finish(self, **figures: float) -> None:
        self.figures = {**self.figures, **figures}

    def note(self, message: str) -> None:
        self.notes.append(message)

    def taken_notes(self) -> list[str]:
        notes, self.notes = self.notes, []
        return notes


class _IntervalEndedError(Exception):
    """Leaves the epochs between two chunks."""


class _Until:
    """Ends an interval after a number of running words, or when told to; methods as in ``epochs.Keeper``.

    An epoch ends before its interval does, so that the last one is complete.
    """

    def __init__(self, n_words: int, n_tokens: int, stopped: threading.Event) -> None:
        self._n_words, self._n_tokens, self._stopped = n_words, n_tokens, stopped
        self.state = RunState()

    def wanted(self, state: RunState) -> bool:
        done = state.epoch * self._n_tokens + state.tokens
        return (done >= self._n_words or self._stopped.is_set()) and state.tokens < self._n_tokens

    def keep(self, state: RunState) -> None:
        self.state = state
        raise _IntervalEndedError


class Shard:
    """The text and the training of one machine.

    Args:
        number: Its number, from 0.
        n_shards: The number of machines.
    """

    def __init__(self, number: int, n_shards: int) -> None:
        self._number, self._n_shards = number, n_shards
        self._watched = _Watched()
        self._stack = ExitStack()
        self._stopped = threading.Event()

    def ping(self) -> int:
        """The process's number."""
        return os.getpid()

    def progress(self) -> tuple[int, dict[str, float]]:
        """The work done in the current phase, and its figures; may be called while another method runs."""
        return self._watched.done, self._watched.figures

    def stop(self) -> None:
        """End the current interval at the next chunk; may be called while it runs."""
        self._stopped.set()

    def check_output(self, folder: str, resumed: bool) -> None:
        """Refuse a folder to which :meth:`write_documents` could not write; see ``part_files.check_folder``."""
        check_folder(folder, resumed=resumed)

    # ---- text --------------------------------------------------------------------------------------------------------

    def read(
        self,
        sources: Sequence[Source],
        tokenizer: Tokenizer,
        options: TextOptions,
        directory: str | None,
        workers: int = 1,
    ) -> ReadFacts:
        """Read the sources and number their words, in temporary files of this machine."""
        self._text: ReadText = read_text(
            sources, tokenizer, self._stack, reporter=self._watched, directory=directory, options=options,
            workers=workers,
        )  # fmt: skip
        self._directory = directory
        return ReadFacts(self._text.reports, self._text.statistics(), self._watched.taken_notes())

    def counted(self) -> list[tuple[list[str], npt.NDArray[np.int64]]]:
        """The words and their counts in one part for each machine, by a hash of the word."""
        counts = self._text.table.counts()
        words = self._text.table.words(np.arange(len(counts)))
        parts = np.array([zlib.crc32(word.encode()) % self._n_shards for word in words], np.int64)
        places = [np.flatnonzero(parts == part) for part in range(self._n_shards)]
        return [([words[i] for i in some], counts[some]) for some in places]

    def merged(
        self, min_count: int, keep: Collection[str], *parts: tuple[list[str], npt.NDArray[np.int64]]
    ) -> tuple[list[str], npt.NDArray[np.int64], int]:
        """The words of one part that occur so often in the parts of all machines, or are to be kept; their counts; and
        how many words there are in the part."""
        sums: dict[str, int] = {}
        for words, counts in parts:
            for word, count in zip(words, counts.tolist(), strict=True):
                sums[word] = sums.get(word, 0) + count
        kept = {word: count for word, count in sums.items() if count >= min_count or word in keep}
        return list(kept), np.fromiter(kept.values(), np.int64, len(kept)), len(sums)

    def encode(
        self, words: Sequence[str], counts: npt.NDArray[np.int64], min_count: int, choice: VocabularyChoice
    ) -> tuple[int, int]:
        """Turn the text into rows of the vocabulary of the whole text.

        Returns:
            Its running words, and its documents that have one.
        """
        vocabulary = Vocabulary(words, np.array(counts))
        text = self._text
        self._corpus: EncodedCorpus = text.encoded(
            vocabulary, text.rows_of(vocabulary), min_count, choice, self._watched
        )
        del self._text
        self._stack.close()  # the mapped files last as long as their arrays
        return self._corpus.n_tokens, self._corpus.n_with_words

    # ---- training ----------------------------------------------------------------------------------------------------

    def prepare(self, config: TrainConfig, first_document: int, int8: bool) -> TrainFacts:
        """Make the tables at their random start and compile.

        Args:
            config: The settled settings of the whole training.
            first_document: The number of the first document in the whole text.
            int8: Send moves as int8.
        """
        corpus, self._first, self._config, self._int8 = self._corpus, first_document, config, int8
        check_backend(config.backend)
        device = choose_backend(config, corpus.vocabulary.counts, corpus.offsets, self._watched)
        self._tables = allocate_tables(corpus, config, device, self._directory)
        self._vectors = trained_rows(self._tables, corpus.vocabulary.n_words, config.dim)
        fill_with_random_points(self._vectors, config.seed, self._number)
        self._backend = compiled_backend(device, corpus, self._tables, config, self._watched, first_document)
        self.restart()
        return TrainFacts(device, self._backend.workers, self._watched.taken_notes())

    def trial_seconds(self, config: TrainConfig) -> float:
        """The estimated time of a training on this machine's part of the text alone."""
        return estimate(self._corpus, config)["seconds"]

    def restart(self) -> None:
        """Begin the training with the words as they are."""
        self._state = RunState()
        self._watched.done = 0
        self._shared = SharedRows(self._vectors, self._n_shards, self._int8) if self._n_shards > 1 else None

    def restore(self, number: int, state: RunState, *parts: npt.NDArray[np.float32]) -> None:
        """Continue as after an exchange.

        Args:
            number: The exchange.
            state: How far this machine had come.
            parts: The common rows of each owner, float32 (2, n, dim).
        """
        self._state = RunState.from_dict(state.to_dict())
        self._watched.start("training", None, "words")
        self._watched.done = state.epoch * self._corpus.n_tokens + state.tokens
        if self._shared is not None:
            self._shared.fill(number, parts)
        else:
            for table, rows in zip(self._vectors, parts[0], strict=False):
                table[:] = rows
        self._backend.load()

    def interval(self, point: Point) -> tuple[RunState | Moves, ...]:
        """Train up to an exchange.

        Returns:
            How far this machine has come, and its moves for each owner, if there are several machines.
        """
        corpus, backend = self._corpus, self._backend
        if self._n_shards > 1:  # a chunk is much shorter than an interval
            most = max(4096, corpus.n_tokens // (4 * point.parts * backend.threads))
            backend.chunk_limits = (min(backend.chunk_limits[0], most), min(backend.chunk_limits[1], most))
        until = _Until(point.words_before(corpus.n_tokens), corpus.n_tokens, self._stopped)
        try:
            self._state = train_epochs(
                backend, corpus.offsets, self._config, self._watched, state=self._state, keeper=until
            )
        except _IntervalEndedError:
            self._state = until.state
        self._stopped.clear()
        backend.collect()
        return self._state, *(() if self._shared is None else self._shared.moves(point.limit))

    def apply(self, number: int, limit: int, *answers: Moves) -> None:
        """Take the rows that the owners have combined."""
        assert self._shared is not None
        self._shared.apply(number, limit, answers)
        self._backend.load()

    def common(self, owner: int) -> tuple[int, npt.NDArray[np.float32]] | None:
        """The last exchange that was applied here, and the common rows of an owner after it; None before training."""
        shared: SharedRows | None = getattr(self, "_shared", None)
        return None if shared is None else (shared.number, shared.of_owner(owner))

    def words(self) -> npt.NDArray[np.float32]:
        """The word tables, float32 (2, n_words, dim)."""
        return np.stack((self._vectors.center, self._vectors.context))

    # ---- after training (reductions.py) ------------------------------------------------------------------------------

    def finish_words(self) -> npt.NDArray[np.int64]:
        """Make the word vectors; returns in how many documents here each word occurs, int64 (n_words,)."""
        self._backend.collect()
        read_in_order(self._tables.document)
        if self._config.word_method == "both":
            add_context_vectors(self._vectors)
        normalize_rows(self._vectors, self._config.learning_rate)
        corpus = self._corpus
        return count_documents(corpus.tokens, corpus.offsets, corpus.vocabulary.n_words)

    def first_directions(self, frequencies: npt.NDArray[np.int64], n_documents: int, share: float) -> None:
        """Write the directions of documents by the weights of text retrieval."""
        weights = retrieval_weights(frequencies, n_documents)
        tables = self._tables
        self._inputs = DocumentInputs(weights, TERM_WEIGHTS, tables.center, tables.context, share, NO_MATRIX)
        self._write_documents_here()

    def direction_sum(self) -> tuple[npt.NDArray[np.float64], int]:
        """The sum of document vectors, and the number of documents with words."""
        return direction_sum(self._corpus.offsets, self._tables.document)

    def center(self, mean: npt.NDArray[np.float64], frequencies: npt.NDArray[np.int64]) -> tuple[int, int]:
        """Take the mean of all document vectors; returns the words of a slice, and how many slices to sum at a time."""
        corpus, table = self._corpus, self._tables.document
        threads = slice_threads(corpus.n_tokens, self._threads)
        self._sums = WordSums(
            corpus.tokens, corpus.offsets, table, mean, frequencies, first_document=self._first, readers=threads
        )
        return words_at_once(corpus.vocabulary.n_words, table.shape[1]), threads

    def word_sums(self, begin: int, end: int, at_once: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The sums of the directions of the words from ``begin`` to ``end``, and how many are in each."""
        sums = np.zeros((end - begin, self._tables.document.shape[1]), np.float32)
        n_summed = np.zeros(end - begin, np.int64)
        slices = [slice(start, min(start + at_once, len(sums))) for start in range(0, len(sums), at_once)]

        def write(some: slice, stopped: threading.Event) -> None:
            self._sums.write(begin + some.start, sums[some], n_summed[some], stopped)

        run_parts(write, slices, len(slices))
        return sums, n_summed

    def take_weights(self, weights: npt.NDArray[np.float64]) -> None:
        """Take the learned weights of the words."""
        self._inputs = self._inputs._replace(word_weights=weights)

    def halves(self, n_documents: int) -> HalfSums:
        """What the halves of the sampled documents are; ``n_documents`` counts those of the whole text."""
        corpus, table = self._corpus, self._tables.document
        chosen = sampled_documents(n_documents) - self._first
        chosen = chosen[(chosen >= 0) & (chosen < corpus.n_documents)]
        writer = self._writer()
        return half_sums(corpus.tokens, corpus.offsets, chosen, self._config.dim, table.shape[1], writer, self._first)

    def final_directions(self, matrix: npt.NDArray[np.float64] | None) -> None:
        """Write the document vectors."""
        if matrix is not None:
            self._inputs = self._inputs._replace(matrix=matrix)
        if self._config.doc_vectors != "none":
            self._write_documents_here()

    # ---- documents ---------------------------------------------------------------------------------------------------

    def document_rows(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """The rows of the document table, float32 (n, dim)."""
        return self._vectors.document[start:stop].copy()

    def take_document_rows(self, start: int, rows: npt.NDArray[np.float32]) -> None:
        """Take rows of the document table."""
        self._vectors.document[start : start + len(rows)] = rows

    def documents(self, start: int, stop: int) -> Documents:
        """Some documents with their vectors."""
        corpus = self._corpus
        ids = None if isinstance(corpus.doc_ids, DocumentIds) else list(corpus.doc_ids[start:stop])
        kept = None if corpus.texts is None else corpus.texts.read(range(start, stop))
        return Documents(
            self._vectors.document[start:stop].copy(), np.diff(corpus.offsets[start : stop + 1]), ids, kept
        )

    def write_documents(self, folder: str, several: bool) -> int:
        """Write ids, vectors, numbers of words, and what is kept of the documents as a Parquet file.

        Args:
            folder: The folder, also of an object store.
            several: Whether the whole text has several files, so that ids begin with their names.

        Returns:
            The bytes of the file.
        """
        corpus = self._corpus
        doc_ids: Sequence[str] = corpus.doc_ids
        if isinstance(doc_ids, DocumentIds) and several and len(corpus.sources) == 1:
            report = corpus.sources[0]
            doc_ids = DocumentIds([report.name, ""], [report.n_lines, 0])  # with the name, as in the whole text
        with PartFile(folder, f"part-{self._number:05}.parquet", self._config.dim, corpus.options) as file:
            self._watched.start("writing", corpus.n_documents, "documents")
            for start in range(0, corpus.n_documents, _WRITTEN):
                some = self.documents(start, min(start + _WRITTEN, corpus.n_documents))
                file.add(list(doc_ids[start : start + _WRITTEN]), some.vectors, some.n_tokens, some.kept)
                self._watched.advance(len(some.vectors))
        return file.n_bytes

    def close(self) -> None:
        """Remove the temporary files."""
        if hasattr(self, "_corpus"):
            self._corpus.close()
        self._stack.close()

    @property
    def _threads(self) -> int:
        return self._config.resolved_workers()

    def _writer(self) -> Writer:
        # As in training/train.py: a GPU may be full of the tables; "auto" then sums on the CPU, to the same bytes.
        return directions_writer("cpu" if self._backend.name == "cpu" else "auto", self._inputs, threads=self._threads)

    def _write_documents_here(self) -> None:
        corpus = self._corpus
        self._writer()(corpus.tokens, corpus.offsets, self._tables.document)
