"""A training run: text in, unit vectors out.

The plan, from top to bottom: encode the text; scatter random points on the sphere; visit every document once per epoch,
in an order that is drawn anew for each epoch; turn the words into document vectors; hand over the model. What happens
to the vectors in between is the backend's business.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from jose_embed.compute.backends import check_backend, choose_backend, directions_writer, make_backend
from jose_embed.compute.cpu import backend as cpu
from jose_embed.compute.sampling import SamplingTables
from jose_embed.compute.sphere import random_points
from jose_embed.compute.tables import DocumentInputs, Tables, Text, padded_table
from jose_embed.config import TrainConfig, available_workers, preset_settings
from jose_embed.errors import ConfigError, TrainingError
from jose_embed.model.embeddings import Embeddings
from jose_embed.model.inference import CONTEXT_SHARE, DOCUMENT_MATRIX, NO_MATRIX, TERM_WEIGHTS, WORD_WEIGHTS
from jose_embed.progress import Reporter, SilentReporter
from jose_embed.storage.columns import row_blocks
from jose_embed.storage.memory import mapped_table, read_in_order, release
from jose_embed.text.corpus import EncodedCorpus
from jose_embed.text.encode import encode_texts
from jose_embed.text.kept import is_encoded, text_for
from jose_embed.text.sources import Sources, listed
from jose_embed.training.checkpoints import Checkpoints
from jose_embed.training.document_weights import (
    document_directions,
    document_frequencies,
    learned_weights,
    reliability_matrix,
    retrieval_weights,
)
from jose_embed.training.epochs import train_epochs
from jose_embed.training.keeper import CheckpointKeeper
from jose_embed.training.machine import machine_facts
from jose_embed.training.schedule import RunState, chunk_tokens

if TYPE_CHECKING:
    pass

__all__ = ["fit", "train"]


def train(
    source: Sources | None = None,
    *,
    documents: Iterable[str] | None = None,
    config: TrainConfig | None = None,
    preset: str | None = None,
    reporter: Reporter | None = None,
    keep_encoded: str | os.PathLike[str] | None = None,
    checkpoint: str | os.PathLike[str] | Checkpoints | None = None,
    checkpoint_every: float = 600.0,
    resume: bool = False,
    temporary_directory: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Embeddings:
    """Train word and document vectors.

    Args:
        source: A path, a glob, a directory, ``-`` for standard input, or a list of these; one document per line. Or one
            encoded corpus, as ``keep_encoded`` and ``jose encode`` make them.
        documents: Texts, in the place of a source.
        config: The settings; the default recipe when left out.
        preset: The name of some settings that serve one purpose better, over those of ``config``; see
            :data:`jose_embed.config.PRESETS`.
        reporter: Who is told about progress; nobody when left out.
        keep_encoded: A directory that keeps the encoded text of ``source``; the next training with the same text,
            tokenizer and ``min_count`` takes it from there.
        checkpoint: A directory for checkpoints, by custom ``NAME.jose.run`` for a model ``NAME.jose``. Ctrl-C then
            raises ``KeyboardInterrupt`` after one was written. The directory is removed when the training has come to
            its end. A :class:`~jose_embed.training.checkpoints.Checkpoints` that the caller has opened and begun is the
            caller's to remove, once the model is saved; it knows its own ``every`` and what to go on from.
        checkpoint_every: Seconds between two checkpoints; 0 for none, also not when interrupted.
        resume: Go on from the newest checkpoint, with the same text and settings (``doc_vectors`` alone may differ);
            from the beginning where there is none. With one worker the model has the same bytes as one whose training
            never stopped.
        temporary_directory: Where temporary files lie: the encoded text, and document vectors that are mapped. The
            system's directory for such files when left out.
        **settings: Single settings by name, over those of ``config`` and ``preset``; see :class:`TrainConfig`.

    Returns:
        The model, in memory; :meth:`Embeddings.save` keeps it.

    Raises:
        ConfigError: settings that cannot work, or both or none of ``source`` and ``documents``.
            Also: settings that are not those of the training that is to go on.
        CorpusError: text that cannot be read or holds nothing to train on, or is not that of the training that is to
            go on.
        TrainingError: vectors that became infinite or no numbers, a disk without room, or checkpoints that nobody
            asked to go on from.

    Example::

        model = jose_embed.train("corpus.txt", dim=100)
        model = jose_embed.train(documents=["one text", "another"], min_count=1)
        model = jose_embed.train("corpus.txt", checkpoint="corpus.jose.run", resume=True)
    """
    if preset is not None:
        settings = {**preset_settings(preset), **settings}
    config = _configured(config or TrainConfig(), settings)
    defaults = TrainConfig().to_dict()
    given = settings.keys() | {name for name, value in config.to_dict().items() if value != defaults[name]}
    if (source is None) == (documents is None):
        raise ConfigError("train() takes either a source (files) or documents=... (texts); give one of them")
    if source is None and keep_encoded is not None:
        raise ConfigError("keep_encoded keeps the text of files; documents=... are gone when the program ends")
    if resume and checkpoint is None:
        raise ConfigError("resume goes on from checkpoints; name their directory (checkpoint=...)")
    if source is not None and not isinstance(source, (str, os.PathLike)):
        source = list(source)
    check_backend(config.backend)
    reporter = reporter or SilentReporter()
    started = time.perf_counter()
    with _begun(checkpoint, checkpoint_every, resume, reporter) as checkpoints:
        keep_text = source is not None and keep_encoded is None and not _is_encoded(source)
        corpus = None
        if checkpoints is not None:
            checkpoints.check(config, given=given if source is not None and _is_encoded(source) else None)
            corpus = checkpoints.kept_text(source, reporter) if source is not None and keep_text else None
        if corpus is None and source is not None:
            options: dict[str, Any] = {"given": given, "keep_encoded": keep_encoded}
            corpus, config = text_for(source, config, reporter=reporter, directory=temporary_directory, **options)
        elif corpus is None:
            assert documents is not None
            options = {"tokenizer": config.tokenizer, "min_count": config.min_count}
            corpus = encode_texts(documents, reporter=reporter, directory=temporary_directory, **options)
        with corpus:
            model = fit(
                corpus,
                config,
                reporter=reporter,
                phases={"reading": time.perf_counter() - started},
                checkpoints=checkpoints,
                keep_text=keep_text,
                temporary_directory=temporary_directory,
            )
        if checkpoints is not None and checkpoints is not checkpoint:
            checkpoints.remove()
    return model


def fit(
    corpus: EncodedCorpus,
    config: TrainConfig,
    *,
    reporter: Reporter | None = None,
    phases: dict[str, float] | None = None,
    checkpoints: Checkpoints | None = None,
    keep_text: bool = False,
    temporary_directory: str | os.PathLike[str] | None = None,
) -> Embeddings:
    """Train on a corpus that is already encoded.

    Args:
        corpus: The text; it may be closed once this returns.
        config: The settings; ``tokenizer`` and ``min_count`` are the corpus's affair.
        reporter: Who is told about progress.
        phases: Seconds already spent, by name; kept with the model.
        checkpoints: Where the run is kept while it goes on, and from where it goes on if something was found there.
        keep_text: Keep the encoded text beside the checkpoints.
        temporary_directory: Where mapped document vectors lie.

    Returns:
        The model, in memory.
    """
    reporter = reporter or SilentReporter()
    phases = dict(phases or {})
    started = time.perf_counter()
    asked, config = config, config.for_text(corpus.n_tokens)
    vocabulary, dim = corpus.vocabulary, config.dim
    chosen = choose_backend(config, vocabulary.counts, corpus.offsets, reporter)
    tables = _tables(corpus, config, chosen, temporary_directory)
    vectors = tuple(
        table[:n_rows, :dim]
        for table, n_rows in zip(tables, (vocabulary.n_words, vocabulary.n_words, corpus.n_documents), strict=True)
    )
    if checkpoints is not None and checkpoints.latest is not None:
        standing = checkpoints.restore(vectors, corpus, phases, reporter)
    else:
        standing = RunState()
        for number, table in enumerate(vectors):
            _scatter(table, np.random.Generator(np.random.PCG64([config.seed, number])))
    samples = SamplingTables.of(vocabulary.counts, config.subsample_threshold, config.noise_exponent)
    text = Text(corpus.tokens, corpus.offsets)
    total_tokens = config.epochs * corpus.n_tokens
    backend = make_backend(chosen, text, samples, tables, config, total_tokens, vocabulary.counts)
    reporter.start("compiling", 1, "kernels")
    backend.prepare()
    reporter.advance(1)
    reporter.finish()
    phases["preparing"] = phases.get("preparing", 0.0) + time.perf_counter() - started

    if checkpoints is None:
        standing = train_epochs(backend, corpus.offsets, config, reporter, standing=standing)
    else:
        with CheckpointKeeper(checkpoints, vectors, corpus, keep_text, asked, backend, phases, reporter) as keeper:
            standing = train_epochs(backend, corpus.offsets, config, reporter, standing=standing, keeper=keeper)
            keeper.keep_the_end(standing)
    backend.collect()
    phases["training"] = sum(epoch["seconds"] for epoch in standing.epochs)

    started = time.perf_counter()
    reporter.start("weighing", corpus.n_documents, "documents")
    read_in_order(tables.document)
    if config.word_method == "both":
        for start, rows in row_blocks(vectors[0]):
            rows += _OF_CONTEXT * vectors[1][start : start + len(rows)]
    center_vectors, context_vectors, doc_vectors = (_on_the_sphere(table, config) for table in vectors)
    frequencies = document_frequencies(corpus)
    # A device that is full of the training leaves the sums to the processor, which makes the same bytes.
    summing = "cpu" if chosen == "cpu" else "auto"
    threads = config.resolved_workers() if chosen == "cpu" else available_workers()
    if config.doc_method == "words":
        share = config.context_share(corpus.n_tokens / max(1, corpus.n_with_words))
        first = retrieval_weights(corpus, frequencies)
        inputs = DocumentInputs(first, TERM_WEIGHTS, tables.center, tables.context, share, NO_MATRIX)
        document_directions(corpus, inputs, tables.document, backend=summing, threads=threads)
    learned = {WORD_WEIGHTS: learned_weights(corpus, frequencies, tables.document)}
    if config.doc_method == "words":
        inputs = inputs._replace(word_weights=learned[WORD_WEIGHTS])
        if share:
            learned[CONTEXT_SHARE] = np.array(share)
        if config.doc_shrinkage:
            write, width = directions_writer(summing, inputs, threads=threads), tables.center.shape[1]
            matrix = reliability_matrix(corpus.tokens, corpus.offsets, dim, width, config.doc_shrinkage, write)
            learned[DOCUMENT_MATRIX] = matrix
            inputs = inputs._replace(matrix=matrix)
        if config.doc_vectors != "none":
            # Nothing is done to the rows after that: they have the bytes that the same text is given later.
            document_directions(corpus, inputs, tables.document, backend=summing, threads=threads)
    reporter.advance(corpus.n_documents)
    reporter.finish()
    phases["documents"] = time.perf_counter() - started
    documents: dict[str, Any] = {
        "doc_ids": corpus.doc_ids,
        "doc_vectors": doc_vectors,
        "doc_token_counts": np.diff(corpus.offsets),
    }
    return Embeddings.from_arrays(
        words=vocabulary.words,
        counts=vocabulary.counts,
        center_vectors=center_vectors,
        context_vectors=context_vectors,
        **(documents if config.doc_vectors != "none" else {}),
        config=config,
        tokenizer=corpus.tokenizer.name,
        tokenizer_settings=corpus.tokenizer.settings(),
        training={
            "run": checkpoints.run if checkpoints is not None else None,
            "backend": backend.name,
            "workers": backend.workers,
            "epochs": standing.epochs,
            "phases": phases,
            "words_per_second": config.epochs * corpus.n_tokens / max(phases["training"], 1e-9),
            "machine": machine_facts(),
        },
        corpus=corpus.statistics.to_dict(),
        extra_arrays=learned,
    )


#: How much of its context row a word's vector takes where it has both; DESIGN.md, decisions 5 and 34.
_OF_CONTEXT = np.float32(0.3)


def _configured(config: TrainConfig, settings: dict[str, Any]) -> TrainConfig:
    return TrainConfig.from_dict({**config.to_dict(), **settings}) if settings else config


@contextmanager
def _begun(
    checkpoint: str | os.PathLike[str] | Checkpoints | None, every: float, resume: bool, reporter: Reporter
) -> Iterator[Checkpoints | None]:
    """The checkpoints of a run; those that the caller has opened are the caller's to close."""
    if checkpoint is None or isinstance(checkpoint, Checkpoints):
        yield checkpoint
        return
    with Checkpoints(checkpoint, every=every) as checkpoints:
        checkpoints.begin(resume, reporter)
        yield checkpoints


def _is_encoded(source: Sources) -> bool:
    """Whether a source is one encoded corpus."""
    names = listed(source)
    return len(names) == 1 and isinstance(names[0], (str, os.PathLike)) and is_encoded(names[0])


def _tables(
    corpus: EncodedCorpus, config: TrainConfig, backend: str, temporary_directory: str | os.PathLike[str] | None
) -> Tables:
    """The tables of a run, zeroed; those of words with spare rows for the workers."""
    threads, counts = config.resolved_workers() if backend == "cpu" else 1, corpus.vocabulary.counts
    spare = cpu.spare_rows(counts, chunk_tokens(corpus.n_tokens, threads, cpu.CHUNK_LIMITS), threads)
    center, context = (padded_table(len(counts) + spare, config.dim) for _ in range(2))
    if config.doc_vectors == "memory":
        return Tables(center, context, padded_table(corpus.n_documents, config.dim))
    width, what = center.shape[1], "the document vectors"
    return Tables(center, context, mapped_table(corpus.n_documents, width, temporary_directory, what))


def _scatter(table: npt.NDArray[np.float32], generator: np.random.Generator) -> None:
    """Fill a table with random points, block by block."""
    for _, rows in row_blocks(table):
        random_points(generator, rows)
        release(rows)


def _on_the_sphere(table: npt.NDArray[np.float32], config: TrainConfig) -> npt.NDArray[np.float32]:
    """The table, every row of it scaled to norm 1 in float64; block by block, in place."""
    for start, rows in row_blocks(table):
        norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        if not (np.isfinite(norms) & (norms > 0)).all():
            row = start + int(np.flatnonzero(~(np.isfinite(norms) & (norms > 0))[:, 0])[0])
            raise TrainingError(
                f"row {row} has the norm {norms[row - start, 0]} after training; "
                f"lower --learning-rate (it is {config.learning_rate})"
            )
        rows[:] = rows / norms
        release(rows)
    return table
