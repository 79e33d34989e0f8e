"""A training run: text in, unit vectors out.

The plan, from top to bottom: encode the text; scatter random points on the sphere; visit every document once per epoch,
in an order that is drawn anew for each epoch; turn the words into document vectors; hand over the model. What happens
to the vectors in between is the backend's business.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from jose_embed.config import TrainConfig
from jose_embed.embeddings import Embeddings
from jose_embed.encoded import EncodedCorpus, encode_texts
from jose_embed.encodedfiles import text_for
from jose_embed.errors import ConfigError, TrainingError
from jose_embed.progress import Reporter, SilentReporter
from jose_embed.sources import Sources
from jose_embed.sphere import random_points

__all__ = ["Backend", "estimate", "fit", "train", "visiting_order"]

_SHUFFLE_TOKENS = 1 << 28  # running words (4 bytes each) that are shuffled as one block: what memory surely holds


class _Result(Protocol):
    """What a chunk reports; cpu.ChunkResult and its likes."""

    @property
    def loss(self) -> float: ...
    @property
    def active(self) -> int: ...
    @property
    def pairs(self) -> int: ...
    @property
    def positions(self) -> int: ...


class Backend(Protocol):
    """Where the vectors move.

    Attributes:
        name: "cpu" or "gpu".
        workers: Documents that are trained at a time; what the model remembers.
        threads: Threads of this process that may call :meth:`train_chunk` at a time.
        chunk_limits: The fewest and the most running words that are worth a call, see :func:`_chunk_tokens`.
    """

    name: str
    workers: int
    threads: int
    chunk_limits: tuple[int, int]

    def prepare(self) -> None:
        """Do what has to be done once, such as compiling."""

    def collect(self) -> None:
        """Bring the vectors into the tables that the backend was given, wherever they moved; no chunk is running."""

    def train_chunk(self, documents: npt.NDArray[np.int64], epoch: int, first_token: int) -> _Result:
        """Train these documents in this order. ``first_token``: the running words of all epochs that came before."""


class Chunk(NamedTuple):
    """A run of documents of one epoch, the unit of work.

    Attributes:
        documents: int64, in the order of their training.
        n_tokens: Their running words.
        first_token: Running words of all epochs before them.
    """

    documents: npt.NDArray[np.int64]
    n_tokens: int
    first_token: int


def train(
    source: Sources | None = None,
    *,
    documents: Iterable[str] | None = None,
    config: TrainConfig | None = None,
    reporter: Reporter | None = None,
    keep_encoded: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Embeddings:
    """Train word and document vectors.

    Args:
        source: A path, a glob, a directory, ``-`` for standard input, or a list of these; one document per line. Or one
            encoded corpus, as ``keep_encoded`` and ``jose encode`` make them.
        documents: Texts, in the place of a source.
        config: The settings; the paper's when left out.
        reporter: Who is told about progress; nobody when left out.
        keep_encoded: A directory that keeps the encoded text of ``source``; the next training with the same text,
            tokenizer and ``min_count`` takes it from there.
        **settings: Single settings by name, over those of ``config``; see :class:`TrainConfig`.

    Returns:
        The model, in memory; :meth:`Embeddings.save` keeps it.

    Raises:
        ConfigError: settings that cannot work, or both or none of ``source`` and ``documents``.
        CorpusError: text that cannot be read or holds nothing to train on.
        TrainingError: vectors that became infinite or no numbers, or a disk without room.

    Example::

        model = jose_embed.train("corpus.txt", dim=100, epochs=10)
        model = jose_embed.train(documents=["one text", "another"], min_count=1)
    """
    config = _configured(config or TrainConfig(), settings)
    defaults = TrainConfig().to_dict()
    given = settings.keys() | {name for name, value in config.to_dict().items() if value != defaults[name]}
    if (source is None) == (documents is None):
        raise ConfigError("train() takes either a source (files) or documents=... (texts); give one of them")
    reporter = reporter or SilentReporter()
    started = time.perf_counter()
    if source is not None:
        corpus, config = text_for(source, config, given=given, keep_encoded=keep_encoded, reporter=reporter)
    else:
        assert documents is not None
        if keep_encoded is not None:
            raise ConfigError("keep_encoded keeps the text of files; documents=... are gone when the program ends")
        corpus = encode_texts(documents, tokenizer=config.tokenizer, min_count=config.min_count, reporter=reporter)
    with corpus:
        return fit(corpus, config, reporter=reporter, phases={"reading": time.perf_counter() - started})


def fit(
    corpus: EncodedCorpus,
    config: TrainConfig,
    *,
    reporter: Reporter | None = None,
    phases: dict[str, float] | None = None,
) -> Embeddings:
    """Train on a corpus that is already encoded.

    Args:
        corpus: The text; it may be closed once this returns.
        config: The settings; ``tokenizer`` and ``min_count`` are the corpus's affair.
        reporter: Who is told about progress.
        phases: Seconds already spent, by name; kept with the model.

    Returns:
        The model, in memory.
    """
    from jose_embed import cpu
    from jose_embed.inference import (
        WORD_WEIGHTS,
        document_directions,
        document_frequencies,
        learned_weights,
        retrieval_weights,
    )
    from jose_embed.sampling import SamplingTables

    reporter = reporter or SilentReporter()
    phases = dict(phases or {})
    started = time.perf_counter()
    vocabulary, dim = corpus.vocabulary, config.dim
    threads = config.resolved_workers()
    chunk_tokens = _chunk_tokens(corpus.n_tokens, threads, cpu.CHUNK_LIMITS)
    spare = cpu.spare_rows(vocabulary.counts, chunk_tokens, threads)
    tables = cpu.Tables(
        cpu.padded_table(vocabulary.n_words + spare, dim),
        cpu.padded_table(vocabulary.n_words + spare, dim),
        cpu.padded_table(corpus.n_documents, dim),
    )
    vectors = tables.center[: vocabulary.n_words], tables.context[: vocabulary.n_words], tables.document
    for number, table in enumerate(vectors):
        random_points(np.random.Generator(np.random.PCG64([config.seed, number])), table[:, :dim])
    samples = SamplingTables.of(vocabulary, config.subsample_threshold, config.noise_exponent)
    text = cpu.Text(corpus.tokens, corpus.offsets)
    backend = cpu.CpuBackend(text, samples, tables, config, config.epochs * corpus.n_tokens)
    reporter.start("compiling", 1, "kernels")
    backend.prepare()
    reporter.advance(1)
    reporter.finish()
    phases["preparing"] = time.perf_counter() - started

    started = time.perf_counter()
    epochs = _train_epochs(backend, corpus, config, reporter)
    backend.collect()
    phases["training"] = time.perf_counter() - started

    started = time.perf_counter()
    reporter.start("weighing", corpus.n_documents, "documents")
    center_vectors, context_vectors, doc_vectors = (_on_the_sphere(table[:, :dim], config) for table in vectors)
    frequencies = document_frequencies(corpus)
    if config.doc_method == "words":
        document_directions(corpus, retrieval_weights(corpus, frequencies), tables.center, out=tables.document)
    weights = learned_weights(corpus, frequencies, tables.document)
    if config.doc_method == "words":
        # Nothing is done to the rows after that: they have the bytes that the same text is given later.
        document_directions(corpus, weights, tables.center, out=tables.document)
    reporter.advance(corpus.n_documents)
    reporter.finish()
    phases["documents"] = time.perf_counter() - started
    return Embeddings.from_arrays(
        words=vocabulary.words,
        counts=vocabulary.counts,
        center_vectors=center_vectors,
        context_vectors=context_vectors,
        doc_ids=corpus.doc_ids,
        doc_vectors=doc_vectors,
        doc_token_counts=np.diff(corpus.offsets),
        config=config,
        tokenizer=corpus.tokenizer.name,
        tokenizer_settings=corpus.tokenizer.settings(),
        training={
            "backend": backend.name,
            "workers": backend.workers,
            "epochs": epochs,
            "phases": phases,
            "words_per_second": config.epochs * corpus.n_tokens / max(phases["training"], 1e-9),
        },
        corpus=corpus.statistics.to_dict(),
        extra_arrays={WORD_WEIGHTS: weights},
    )


def estimate(corpus: EncodedCorpus, config: TrainConfig) -> dict[str, float]:
    """What a training would take: ``memory_bytes`` and ``seconds``, the latter from a short trial on this machine."""
    rows = 2 * corpus.vocabulary.n_words + corpus.n_documents
    n_bytes = 4 * rows * math.ceil(config.dim / 16) * 16 + 150 * corpus.vocabulary.n_words
    trial = replace(config, epochs=1, workers=1)
    tokens = _trial_tokens(corpus, 100_000)
    seconds = _trial_seconds(corpus, trial, tokens)
    runs = config.epochs * corpus.n_tokens / max(1, int(np.diff(corpus.offsets)[tokens].sum()))
    return {"memory_bytes": 2.2e8 + n_bytes, "seconds": runs * seconds / config.resolved_workers()}


def visiting_order(
    offsets: npt.NDArray[np.int64], seed: int, epoch: int, block_tokens: int = _SHUFFLE_TOKENS
) -> npt.NDArray[np.int64]:
    """The documents that have a word, in the random order of one epoch.

    A corpus of up to ``block_tokens`` running words is shuffled as a whole. A larger one is cut into stretches of the
    file of a sixteenth of that; the stretches are shuffled, and documents are shuffled among sixteen of them at a time,
    so that what is read from the disk at any time fits into memory.

    Args:
        offsets: int64 (n_documents + 1,).
        seed: The run's seed.
        epoch: From 0.
        block_tokens: Running words whose documents are shuffled together.

    Returns:
        int64, a permutation of the documents that are not empty.
    """
    random = np.random.Generator(np.random.PCG64([seed, 3, epoch]))
    present = np.flatnonzero(np.diff(offsets))
    if offsets[-1] <= block_tokens:
        return random.permutation(present)
    stretch = offsets[present] // max(1, block_tokens // 16)
    borders = np.flatnonzero(np.diff(stretch)) + 1
    stretches = np.split(present, borders)
    shuffled = [stretches[i] for i in random.permutation(len(stretches))]
    return np.concatenate(
        [random.permutation(np.concatenate(shuffled[i : i + 16])) for i in range(0, len(shuffled), 16)]
    )


def _configured(config: TrainConfig, settings: dict[str, Any]) -> TrainConfig:
    return TrainConfig.from_dict({**config.to_dict(), **settings}) if settings else config


def _chunk_tokens(n_tokens: int, n_threads: int, limits: tuple[int, int]) -> int:
    """Running words that a thread takes at a time: few enough that none waits long for the last one of an epoch.

    At the most some 150 ms of work, which is what an interrupt waits for. The vectors do not depend on it.
    """
    least, most = limits
    return min(max(n_tokens // (32 * n_threads), least), most)


def _chunks(
    order: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64], first_token: int, chunk_tokens: int
) -> Iterator[Chunk]:
    """The order of an epoch in pieces of about equally many running words.

    A document is never divided; one that is as long as a piece is a piece of its own.
    """
    block = 1 << 16
    begin, n_tokens = 0, 0
    for start in range(0, len(order), block):
        some = order[start : start + block]
        for i, length in enumerate((offsets[some + 1] - offsets[some]).tolist(), start):
            if n_tokens and n_tokens + length > chunk_tokens:
                yield Chunk(order[begin:i], n_tokens, first_token)
                first_token += n_tokens
                begin, n_tokens = i, 0
            n_tokens += length
    if begin < len(order):
        yield Chunk(order[begin:], n_tokens, first_token)


def _train_epochs(
    backend: Backend, corpus: EncodedCorpus, config: TrainConfig, reporter: Reporter
) -> list[dict[str, Any]]:
    reporter.start("training", config.epochs * corpus.n_tokens, "words")
    with ThreadPoolExecutor(backend.threads, thread_name_prefix="jose-train") as pool:
        report = [_train_epoch(pool, backend, corpus, config, epoch, reporter) for epoch in range(config.epochs)]
    reporter.finish(loss=report[-1]["loss"], active=report[-1]["active"])
    return report


def _train_epoch(
    pool: ThreadPoolExecutor,
    backend: Backend,
    corpus: EncodedCorpus,
    config: TrainConfig,
    epoch: int,
    reporter: Reporter,
) -> dict[str, Any]:
    started = time.perf_counter()
    order = visiting_order(corpus.offsets, config.seed, epoch)
    loss = active = pairs = positions = n_tokens = 0.0
    waiting: deque[tuple[Chunk, Future[_Result]]] = deque()
    chunk_tokens = _chunk_tokens(corpus.n_tokens, backend.threads, backend.chunk_limits)
    chunks = _chunks(order, corpus.offsets, epoch * corpus.n_tokens, chunk_tokens)
    try:
        while True:
            # One chunk per thread runs, one more waits: no thread idles, and an interrupt has little to wait for.
            while len(waiting) < 2 * backend.threads and (chunk := next(chunks, None)) is not None:
                waiting.append((chunk, pool.submit(backend.train_chunk, chunk.documents, epoch, chunk.first_token)))
            if not waiting:
                break
            chunk, future = waiting.popleft()
            result = future.result()
            if not math.isfinite(result.loss):
                raise TrainingError(
                    f"the loss became {result.loss} in epoch {epoch + 1}: the vectors are no longer numbers; "
                    f"lower --learning-rate (it is {config.learning_rate})"
                )
            loss += result.loss
            active += result.active
            pairs += result.pairs
            positions += result.positions
            n_tokens += chunk.n_tokens
            reporter.advance(chunk.n_tokens, loss=loss / max(pairs, 1), active=active / max(pairs, 1))
    finally:
        for _, future in waiting:
            future.cancel()
    seconds = time.perf_counter() - started
    return {
        "epoch": epoch + 1,
        "loss": loss / max(pairs, 1),
        "active": active / max(pairs, 1),
        "pairs": int(pairs),
        "positions": int(positions),
        "seconds": seconds,
        "words_per_second": n_tokens / max(seconds, 1e-9),
    }


def _on_the_sphere(table: npt.NDArray[np.float32], config: TrainConfig) -> npt.NDArray[np.float32]:
    """The table, every row of it scaled to norm 1 in float64; block by block, in place."""
    for start in range(0, len(table), 8192):
        rows = table[start : start + 8192]
        norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        if not (np.isfinite(norms) & (norms > 0)).all():
            row = start + int(np.flatnonzero(~(np.isfinite(norms) & (norms > 0))[:, 0])[0])
            raise TrainingError(
                f"row {row} has the norm {norms[row - start, 0]} after training; "
                f"lower --learning-rate (it is {config.learning_rate})"
            )
        rows[:] = rows / norms
    return table


def _trial_tokens(corpus: EncodedCorpus, n_tokens: int) -> npt.NDArray[np.int64]:
    """Documents of about ``n_tokens`` running words, from all over the text."""
    order = visiting_order(corpus.offsets, 0, 0)
    ends = np.cumsum(np.diff(corpus.offsets)[order])
    return order[: 1 + int(np.searchsorted(ends, n_tokens))]


def _trial_seconds(corpus: EncodedCorpus, config: TrainConfig, documents: npt.NDArray[np.int64]) -> float:
    """Seconds that one worker needs for these documents, on tables that are thrown away."""
    from jose_embed import cpu
    from jose_embed.sampling import SamplingTables

    vocabulary, dim = corpus.vocabulary, config.dim
    tables = cpu.Tables(
        cpu.padded_table(vocabulary.n_words, dim), cpu.padded_table(vocabulary.n_words, dim),
        cpu.padded_table(corpus.n_documents, dim),
    )  # fmt: skip
    for number, table in enumerate(tables[:2]):
        random_points(np.random.default_rng(number), table[:, :dim])
    tables.document[:, 0] = 1
    samples = SamplingTables.of(vocabulary, config.subsample_threshold, config.noise_exponent)
    backend = cpu.CpuBackend(cpu.Text(corpus.tokens, corpus.offsets), samples, tables, config, corpus.n_tokens)
    backend.prepare()
    started = time.perf_counter()
    backend.train_chunk(documents, 0, 0)
    return time.perf_counter() - started
