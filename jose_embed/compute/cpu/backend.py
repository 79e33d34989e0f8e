"""The CPU backend: documents of the encoded corpus become moves of rows on the sphere.

The unit of work is a *contrast*: one anchor, up to sixteen positive rows, and negatives that all positives share. With
v the anchor, f_j = u_j.v for the positives u_j and h_e = n_e.v for the negatives n_e, each pair (j, e) has the hinge

    max(0, margin - f_j + h_e)

and, if it is above zero, takes a step against its gradient. All products are computed before any row moves; then
every row moves once, by the sum of the steps of its active hinges:

    u_j <- R( eta  sum_e (1 - f_j)         (v - f_j u_j) )
    n_e <- R(-eta  sum_j (1 + h_e)         (v - h_e n_e) )         2 h_e instead of 1 + h_e for "reference"
    v   <- R( eta  sum_je (1 - (f_j - h_e)) (I - v v^T)(u_j - n_e) )

R is the retraction (add, then normalise); the factors before the tangent vectors are the paper's step scales.

What is contrasted:

``pairwise``
    At each position the anchor is the context row of the word that stands there, the positives are the center rows of
    the words around it. For each eight words of a document the anchor is the document's row, the positives are the
    center rows of these words. The two kinds draw negatives of their own. The steps of a pair are averaged over the
    negatives, so that their number changes the noise and not the size of the steps; those of the first kind count
    ``context_weight`` times, those of the second ``doc_weight`` times.
``joint``
    At each position the anchor is v + d, the sum of the context row and the document's row, so that f and h are the
    sums that the paper's hinge over word and document holds. Products with it are between -2 and 2: cosines in the step
    scales are taken to v + d, and the common scale of v and d is 1 - (f - h) / 2. The document is an anchor at all of
    its positions, so without scaling the row of a long document would move much further than that of a short one. By
    default its steps are scaled so that the rows of all documents move equally far, see :func:`document_step`.

``smooth``
    The same with the hinge g = margin - f + h of each pair replaced by log(1 + exp(s g)) / s, s being the sharpness. A
    pair counts by the slope of that, 1 / (1 + exp(-s g)), where the hinge counts as one or not at all.
``cross-entropy``
    The same with a loss that is a sum over the rows of a pair: a row x is a word of the text with the probability
    p(x) = 1 / (1 + exp(-t (x.(v + d) - margin))), t being the temperature, and the loss of a pair is
    -(log p(u) + log(1 - p(n))) / t. The positive counts by 1 - p(u) and has the step scale 1 - f / 2, the negative by
    p(n) and 1 + h / 2. ``active`` counts the pairs whose positive is taken for a random word.

Positions in a row, ``positions_per_draw`` of them, share the negatives that were drawn for them, each without those
that are its own word: a row in the nearest cache is used again at a fraction of the cost.

With ``isotropy``, the loss of an epoch has one more term for each word table W, which pulls its second moment W^T W / n
towards I / dim; a step of it is taken after each chunk, over a sample of words, see :func:`spread_out`.

One document belongs to one worker within an epoch, so document rows are never shared. Rows of rare words are, without
locks (Hogwild, Recht et al. 2011). The most frequent words, which every worker would write all the time, have rows of
their own for each worker: copied before a chunk, merged after it.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.compute.cpu.arguments import Private, Rules, Scratch
from jose_embed.compute.cpu.isotropy import spread_out
from jose_embed.compute.documents import gathered
from jose_embed.compute.jit import Kernel, kernel_from
from jose_embed.compute.sampling import SamplingTables
from jose_embed.compute.sphere import normalized
from jose_embed.compute.tables import (
    LANES,
    ChunkResult,
    Tables,
    Text,
    document_step,
)
from jose_embed.config import NegativeStep, Objective, TrainConfig
from jose_embed.storage.memory import ResidentRows

#: The fewest and the most running words of a chunk.
CHUNK_LIMITS = (1 << 15, 1 << 19)

#: Rows whose second moment is measured, and which are moved, after each chunk of a training with ``isotropy``.
_SPREAD_ROWS = 512

#: Most words that have private rows for each worker, and the occurrences expected in a chunk that a word needs for it.
_MOST_PRIVATE, _LEAST_OCCURRENCES = 2_048, 8


@cache
def kernel(n_chunks: int, objective: Objective, negative_step: NegativeStep, frozen: int = 0) -> Kernel:
    """The training kernel for rows of ``16 * n_chunks`` floats; see :func:`jose_embed.compute.cpu.kernel.kernel`."""
    return kernel_from("jose_embed.compute.cpu.kernel", "kernel", n_chunks, objective, negative_step, frozen)


class _Slot(NamedTuple):
    """The rows of one chunk: positions, and for both word tables the shared rows and the worker's own copies."""

    private: Private
    rows: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]


def _rules(config: TrainConfig, total_tokens: int, first_document: int) -> Rules:
    return Rules(
        np.uint64(config.seed),
        config.window,
        config.negatives,
        config.positions_per_draw,
        config.doc_negatives,
        np.float32(config.context_weight),
        np.float32(config.doc_weight),
        *document_step(config),
        np.float32(config.margin),
        np.float32(config.temperature if config.objective == "cross-entropy" else config.sharpness),
        np.float32(config.learning_rate),
        float(total_tokens),
        np.int64(first_document),
    )


def loss_of(text: Text, samples: SamplingTables, tables: Tables, config: TrainConfig, threads: int) -> float:
    """The mean loss of a pair in a text that is not trained; no row moves.

    Args:
        text: Some documents.
        samples: The sampling tables of the vocabulary.
        tables: The vectors, those of the documents in the order of the text.
        config: The settings. Every call with the same ones draws the same samples.
        threads: Threads that share the documents.
    """
    measure = kernel(tables.center.shape[1] // LANES, config.objective, config.negative_step, 1)
    rules, private = _rules(config, 1, 0), Private(np.uint32(0), np.uint32(0))

    def part(documents: npt.NDArray[np.int64]) -> ChunkResult:
        some = Text(*gathered(*text, documents))
        scratch = Scratch.of(tables.center.shape[1], int(np.diff(some.offsets).max(initial=0)))
        return ChunkResult(*measure(tables, some, samples, rules, private, scratch, documents, 0, 0.0))

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(part, np.array_split(np.arange(len(text.offsets) - 1), threads)))
    return float(sum(result.loss for result in results) / max(1, sum(result.pairs for result in results)))


class CpuBackend:
    """Trains on the processor's cores; one call of :meth:`train_chunk` per worker at a time.

    Args:
        text: The encoded corpus.
        samples: The sampling tables of its vocabulary.
        tables: The vectors, moved in place; spare rows behind those of the words are shared out to the workers.
        config: The settings.
        total_tokens: Running words of all epochs together.
        first_document: The number of the first document in the whole text, of which this machine may have a part.
    """

    name = "cpu"
    chunk_limits = CHUNK_LIMITS

    def __init__(
        self,
        text: Text,
        samples: SamplingTables,
        tables: Tables,
        config: TrainConfig,
        total_tokens: int,
        first_document: int = 0,
    ) -> None:
        self.workers = self.threads = config.resolved_workers()
        self._text, self._samples, self._tables = text, samples, tables
        self._rules = _rules(config, total_tokens, first_document)
        self._train = kernel(tables.center.shape[1] // LANES, config.objective, config.negative_step)
        self._config, self._total_tokens = config, total_tokens
        self._n_words = len(samples.keep)
        self._n_private = (len(tables.center) - self._n_words) // self.threads
        self._slots = [self._slot(number) for number in range(self.threads)]
        self._gate = threading.Lock()
        self._n_merges = 0
        self._held = ResidentRows(tables.document)

    def train_chunk(self, documents: npt.NDArray[np.int64], epoch: int, first_token: int) -> ChunkResult:
        """Train these documents in this order; see :func:`kernel`. Runs without the interpreter's lock."""
        text = Text(*gathered(*self._text, documents))
        longest = int(np.diff(text.offsets).max(initial=0))
        scratch = Scratch.of(self._tables.center.shape[1], longest)
        with self._gate:
            slot = self._slots.pop()
            n_merges = self._n_merges
            for shared, own in slot.rows:
                own[:] = shared
        with self._held.rows(documents):
            result = self._train(
                self._tables,
                text,
                self._samples,
                self._rules,
                slot.private,
                scratch,
                documents,
                epoch,
                float(first_token),
            )
        with self._gate:
            # The mean direction of what was reached from the same start: of one alone, its own.
            others = np.float32(self._n_merges - n_merges)
            for shared, own in slot.rows:
                merge_rows(shared, own, others)
            self._n_merges += 1
            if self._config.isotropy and len(text.tokens):
                self._spread_out(epoch, first_token, len(text.tokens))
            self._slots.append(slot)
        return ChunkResult(float(result[0]), int(result[1]), int(result[2]), int(result[3]))

    def _spread_out(self, epoch: int, first_token: int, n_tokens: int) -> None:
        """Spread out a sample of the words after a chunk, so that in an epoch each word takes ``isotropy`` steps."""
        config, n_words = self._config, self._n_words
        random = np.random.Generator(np.random.PCG64([config.seed, 5, epoch, first_token]))
        rows = np.unique(random.integers(0, n_words, min(n_words, _SPREAD_ROWS)))
        rate = config.learning_rate * max(1 - first_token / self._total_tokens, 1e-4) * config.context_weight
        share = n_tokens / max(1, int(self._text.offsets[-1]))  # of an epoch
        for table in self._tables[:2]:
            spread_out(table, rows, config.dim, config.isotropy * rate * share * n_words / len(rows))

    def _slot(self, number: int) -> _Slot:
        n, begin = self._n_private, self._n_words + number * self._n_private
        rows = [(table[:n], table[begin : begin + n]) for table in self._tables[:2]]
        return _Slot(Private(np.uint32(n), np.uint32(begin)), rows)

    def prepare(self) -> None:
        """Compile, by training no document."""
        self.train_chunk(np.empty(0, np.int64), 0, 0)

    def collect(self) -> None:
        """No effect: the vectors are trained in place."""

    def load(self) -> None:
        """No effect: the vectors are trained in place."""


def spare_rows(counts: npt.NDArray[np.int64], chunk_tokens: int, threads: int) -> int:
    """How many rows each word table should have behind those of the words, for the workers.

    Args:
        counts: int64 (n_words,), falling.
        chunk_tokens: Running words of a chunk.
        threads: Chunks that are trained at a time.
    """
    if threads == 1:
        return 0
    often = int(np.count_nonzero(counts * chunk_tokens >= _LEAST_OCCURRENCES * int(counts.sum())))
    return threads * min(often, _MOST_PRIVATE)


def merge_rows(rows: npt.NDArray[np.float32], others: npt.NDArray[np.float32], weight: np.float32) -> None:
    """Replace rows by the mean direction of the rows, weighted by ``weight``, and of others, weighted by 1.

    Args:
        rows: float32 (n, dim), on the sphere, written in place.
        others: The same shape, on the sphere.
        weight: Not negative. With 0 the rows become the others.
    """
    if weight == 0:
        rows[:] = others
        return
    for start in range(0, len(rows), 256):  # what fits into the nearest cache
        block = rows[start : start + 256]
        other = others[start : start + 256]
        block *= weight
        block += other
        np.copyto(block, other, where=np.abs(block).max(1, keepdims=True) < 1e-6)  # opposite: no mean direction
        block[:] = normalized(block)
