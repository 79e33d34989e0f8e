"""The tables of vectors that a training starts with."""

from __future__ import annotations

import os

import numpy as np

from jose_embed.compute.backends import Backend, make_backend
from jose_embed.compute.cpu import backend as cpu
from jose_embed.compute.sampling import SamplingTables
from jose_embed.compute.sphere import random_points
from jose_embed.compute.tables import Tables, Text, padded_table
from jose_embed.config import TrainConfig
from jose_embed.progress import Reporter
from jose_embed.storage.columns import row_blocks
from jose_embed.storage.memory import mapped_table, release
from jose_embed.text.corpus import EncodedCorpus
from jose_embed.training.schedule import LeftOut, chunk_tokens, epoch_starts, visits_all


def allocate_tables(
    corpus: EncodedCorpus, config: TrainConfig, backend: str, temporary_directory: str | os.PathLike[str] | None
) -> Tables:
    """Tables of zeros for a training.

    On the CPU the word tables have spare rows behind those of the words: each worker trains its own copy of the most
    frequent words there. The document table is in memory or in a temporary file (``config.doc_vectors``).

    Args:
        corpus: The encoded text.
        config: The settled settings.
        backend: "cpu" or "gpu".
        temporary_directory: Directory of the temporary file; None for the system's.

    Returns:
        Padded float32 tables, see :class:`~jose_embed.compute.tables.Tables`.

    Raises:
        TrainingError: no room on the disk for the document vectors.
    """
    counts = corpus.vocabulary.counts
    threads = config.resolved_workers() if backend == "cpu" else 1
    spare = cpu.spare_rows(counts, chunk_tokens(corpus.n_tokens, threads, cpu.CHUNK_LIMITS), threads)
    center, context = (padded_table(len(counts) + spare, config.dim) for _ in range(2))
    if config.doc_vectors == "memory":
        document = padded_table(corpus.n_documents, config.dim)
    else:
        document = mapped_table(corpus.n_documents, center.shape[1], temporary_directory, "the document vectors")
    return Tables(center, context, document)


def trained_rows(tables: Tables, n_words: int, dim: int) -> Tables:
    """Views of the tables without padding and spare rows: float32, shapes (n_words, dim) and (n_documents, dim)."""
    return Tables(tables.center[:n_words, :dim], tables.context[:n_words, :dim], tables.document[:, :dim])


def fill_with_random_points(vectors: Tables, seed: int, shard: int = 0) -> None:
    """Fill the tables with independent points, uniform on the sphere.

    Args:
        vectors: Views as :func:`trained_rows` makes them, written in place. Each table has a random stream of its own,
            so its start does not depend on the size of the others.
        seed: The seed of the training.
        shard: The number of the machine; all begin with the same words, and each with documents of its own.
    """
    for number, table in enumerate(vectors):
        entropy = [seed, number, shard] if shard and table is vectors.document else [seed, number]
        generator = np.random.Generator(np.random.PCG64(entropy))
        for _, rows in row_blocks(table):
            random_points(generator, rows)
            release(rows)


def compiled_backend(
    device: str,
    corpus: EncodedCorpus,
    tables: Tables,
    config: TrainConfig,
    reporter: Reporter,
    first_document: int = 0,
    left_out: LeftOut = visits_all,
) -> Backend:
    """The backend that moves the vectors in ``tables``, its kernels compiled.

    Args:
        device: "cpu" or "gpu".
        corpus: The encoded text of this machine.
        tables: As :func:`allocate_tables` makes them.
        config: The settled settings.
        reporter: Receives the phase "compiling".
        first_document: The number of the first document in the whole text.
        left_out: The documents that an epoch does not visit.
    """
    counts = corpus.vocabulary.counts
    samples = SamplingTables.of(counts, config.subsample_threshold, config.noise_exponent)
    total_tokens = epoch_starts(corpus.offsets, config.epochs, left_out)[-1]
    text = Text(corpus.tokens, corpus.offsets)
    backend = make_backend(device, text, samples, tables, config, total_tokens, counts, first_document)
    reporter.start("compiling", 1, "kernels")
    backend.prepare()
    reporter.advance(1)
    reporter.finish()
    return backend
