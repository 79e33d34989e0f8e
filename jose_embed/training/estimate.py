"""Estimate the memory and the time of a training."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from jose_embed.compute.backends import choose_backend, make_backend
from jose_embed.compute.cpu.backend import CHUNK_LIMITS, spare_rows
from jose_embed.compute.documents import gathered
from jose_embed.compute.gpu.backend import needed_bytes
from jose_embed.compute.sampling import SamplingTables
from jose_embed.compute.tables import Tables, Text, padded_table
from jose_embed.config import TrainConfig
from jose_embed.progress import SilentReporter
from jose_embed.text.corpus import EncodedCorpus
from jose_embed.training.given import GivenVectors
from jose_embed.training.initial import fill_with_random_points, trained_rows
from jose_embed.training.schedule import LeftOut, chunk_tokens, chunks, epoch_starts, visiting_order, visits_all
from jose_embed.training.subwords import subword_bytes

_CHUNKS: Final = 8  # that each worker trains in the trial; a second or two
_DEVICE_TOKENS: Final = 1 << 21  # running words that a CUDA device trains in the trial


def estimate(
    corpus: EncodedCorpus, config: TrainConfig, given: GivenVectors | None = None, left_out: LeftOut = visits_all
) -> dict[str, float]:
    """Estimate memory and time of a training by a short trial on this machine.

    Args:
        corpus: The encoded text.
        config: The settled settings, see :meth:`TrainConfig.for_text`.
        given: Where words begin, with the setting ``init``.
        left_out: The documents that an epoch does not visit.

    Returns:
        ``memory_bytes``, ``seconds`` and, on a CUDA device, ``device_bytes`` of its memory.
    """
    chosen = choose_backend(config, corpus.vocabulary.counts, corpus.offsets, SilentReporter())
    rows = 2 * corpus.vocabulary.n_words + (corpus.n_documents if config.doc_vectors == "memory" else 0)
    n_bytes = 4 * rows * math.ceil(config.dim / 16) * 16 + 150 * corpus.vocabulary.n_words
    n_bytes += subword_bytes(config, corpus.vocabulary.words)
    if given is not None:
        lacking = corpus.vocabulary.n_words - len(given.rows)
        n_bytes = max(n_bytes + given.held_bytes + 16 * lacking * config.dim, given.reading_bytes)
    on_cpu = chosen == "cpu"
    threads = config.resolved_workers() if on_cpu else 1
    size = chunk_tokens(corpus.n_tokens, threads, CHUNK_LIMITS) if on_cpu else _DEVICE_TOKENS
    documents = _trial_documents(corpus, _CHUNKS * threads * size if on_cpu else size)
    seconds = _trial_seconds(corpus, replace(config, epochs=1), documents, chosen, threads, size)
    n_tokens = epoch_starts(corpus.offsets, config.epochs, left_out)[-1]
    runs = n_tokens / max(1, int(np.diff(corpus.offsets)[documents].sum()))
    need = {"memory_bytes": 2.2e8 + n_bytes, "seconds": runs * seconds}
    if not on_cpu:
        longest = int(np.diff(corpus.offsets).max(initial=0))
        n_words = corpus.vocabulary.n_words
        need["device_bytes"] = needed_bytes(config, n_words, corpus.n_documents, longest, corpus.n_tokens)
    return need


def _trial_documents(corpus: EncodedCorpus, n_tokens: int) -> npt.NDArray[np.int64]:
    """A random sample of documents with about ``n_tokens`` running words."""
    order = visiting_order(corpus.offsets, 0, 0)
    ends = np.cumsum(np.diff(corpus.offsets)[order])
    return order[: 1 + int(np.searchsorted(ends, n_tokens))]


def _trial_seconds(
    corpus: EncodedCorpus, config: TrainConfig, documents: npt.NDArray[np.int64], chosen: str, threads: int, size: int
) -> float:
    """Seconds that all workers together, or a CUDA device, need to train these documents once, in chunks of ``size``
    running words.

    Workers share caches and memory, so that two are not twice as fast as one: they run at the same time here, too.
    """
    vocabulary, dim = corpus.vocabulary, config.dim
    n_rows = vocabulary.n_words + (spare_rows(vocabulary.counts, size, threads) if chosen == "cpu" else 0)
    tables = Tables(padded_table(n_rows, dim), padded_table(n_rows, dim), padded_table(len(documents), dim))
    fill_with_random_points(trained_rows(tables, vocabulary.n_words, dim), config.seed)
    samples = SamplingTables.of(vocabulary.counts, config.subsample_threshold, config.noise_exponent)
    # Only these documents: the whole text would be copied to the device.
    text = Text(*gathered(corpus.tokens, corpus.offsets, documents))
    backend = make_backend(chosen, text, samples, tables, config, corpus.n_tokens, vocabulary.counts)
    backend.prepare()
    parts = list(chunks(np.arange(len(documents)), text.offsets, 0, size))
    with ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        list(pool.map(lambda part: backend.train_chunk(part.documents, 0, part.first_token), parts))
        return time.perf_counter() - started
