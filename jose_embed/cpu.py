"""The CPU backend: documents of the encoded corpus become moves of rows on the sphere.

The unit of work is a *contrast*: one anchor, up to sixteen positive rows, and negatives that all positives share. With
v the anchor, f_j = u_j.v for the positives u_j and h_e = n_e.v for the negatives n_e, each pair (j, e) has the hinge

    max(0, margin - f_j + h_e)

and, where it is above zero, asks for a step against its gradient. All products are taken before any row moves; then
every row moves once, by the sum of what its active hinges ask for:

    u_j <- R( eta  sum_e (1 - f_j)         (v - f_j u_j) )
    n_e <- R(-eta  sum_j (1 + h_e)         (v - h_e n_e) )         2 h_e in the place of 1 + h_e for "reference"
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
    its positions, so its row would be thrown about the more the longer it is. By default its steps are averaged: scaled
    so that a visit moves the rows of all documents equally far, see :func:`document_step`.

Positions in a row, ``positions_per_draw`` of them, share the negatives that were drawn for them, each without those
that are its own word: a row that is in the nearest cache is contrasted again at a fraction of the price.

One document belongs to one worker within an epoch, so document rows are never shared. Rows of rare words are, without
locks (Hogwild, Recht et al. 2011). The most frequent words, which every worker would write all the time, have rows of
their own for each worker: copied before a chunk, merged after it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import float32, int64, uint32, uint64

from jose_embed import sampling
from jose_embed.config import NegativeStep, Objective, TrainConfig
from jose_embed.jit import jit
from jose_embed.pages import HeldRows
from jose_embed.passages import gathered
from jose_embed.sampling import SamplingTables, draw_below, draw_word, random_bits, stream_key
from jose_embed.simd import LANES, active_bits, lane_sum, population, row_primitives, store_lanes, where_positive
from jose_embed.sphere import normalized

__all__ = [
    "CHUNK_LIMITS",
    "DOCUMENT_BLOCK",
    "PIECE",
    "ChunkResult",
    "CpuBackend",
    "Rules",
    "Scratch",
    "Tables",
    "Text",
    "document_step",
    "kernel",
    "merge_rows",
    "padded_table",
    "spare_rows",
]

#: Words of a document that are contrasted with its row at a time.
DOCUMENT_BLOCK = 8
#: Running words that are thinned out at a time; windows do not reach over the border of two pieces.
PIECE = 1 << 20
#: The fewest and the most running words of a chunk.
CHUNK_LIMITS = (1 << 15, 1 << 19)

#: Words with rows of their own for each worker: at most so many, and only those expected so often in a chunk.
_MOST_PRIVATE, _LEAST_OCCURRENCES = 2_048, 8

#: What a visit moves a document's row by, in pairs for each unit of its weight, and the longest step of the row, in
#: steps of the context row; DESIGN.md, decision 31, has the evidence.
_VISIT_PAIRS, _LONGEST_STEP = 100.0, 4.0

_N = LANES  # where the negatives' slots begin
# As uint64, not int: numba compiles a function anew for every int that it is called with as a constant.
_KEEP, _WINDOW = np.uint64(sampling.KEEP), np.uint64(sampling.WINDOW)
_CONTEXT, _DOCUMENT = np.uint64(sampling.CONTEXT_NEGATIVES), np.uint64(sampling.DOCUMENT_NEGATIVES)


class Tables(NamedTuple):
    """The vectors, written in place: float32, C-contiguous, rows padded with zeros to a multiple of 16 floats.

    The word tables may have spare rows behind those of the words; see :func:`spare_rows`.
    """

    center: npt.NDArray[np.float32]
    context: npt.NDArray[np.float32]
    document: npt.NDArray[np.float32]


class Text(NamedTuple):
    """The encoded corpus, or some documents of it: int32 (n_tokens,), read-only, and int64 (n_documents + 1,)."""

    tokens: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]


class Rules(NamedTuple):
    """The scalars of a run; see :func:`document_step` for ``visit`` and ``longest_step``.

    ``total_tokens`` is that of all epochs together.
    """

    seed: np.uint64
    window: int
    negatives: int
    positions_per_draw: int
    doc_negatives: int
    context_weight: np.float32
    doc_weight: np.float32
    visit: np.float32
    longest_step: np.float32
    margin: np.float32
    learning_rate: np.float32
    total_tokens: float


class Private(NamedTuple):
    """Where a worker's own rows lie: those of the words below ``n_words`` lie ``shift`` rows further on."""

    n_words: np.uint32
    shift: np.uint32


class ChunkResult(NamedTuple):
    """What a piece of work reports.

    Attributes:
        loss: Sum of the hinges.
        active: Hinges above zero.
        pairs: Hinges.
        positions: Kept running words.
    """

    loss: float
    active: int
    pairs: int
    positions: int


class Scratch(NamedTuple):
    """Work space of one call of a kernel, whatever it holds.

    It is made outside: code that allocates arrays takes half a second longer to compile.
    """

    kept: npt.NDArray[np.uint32]  # (longest piece,): the words of a piece that are not thinned out
    coming: npt.NDArray[np.uint32]  # (16,): the negatives of the next positions, on their way into the cache
    rows: npt.NDArray[np.uint32]  # (32,): positives from slot 0, negatives from slot 16
    products: npt.NDArray[np.float32]  # (16,): -f or h, those that are taken one by one
    own: npt.NDArray[np.float32]  # (32,): what a row keeps of itself
    towards: npt.NDArray[np.float32]  # (32,): what it takes of the anchor
    weight: npt.NDArray[np.float32]  # (32,): with what weight it moves the anchor
    moves: npt.NDArray[np.float32]  # (1, row): the weighted sum of rows that the anchor is moved by
    mixed: npt.NDArray[np.float32]  # (1, row): v + d

    @classmethod
    def of(cls, row: int, longest: int) -> Scratch:
        """Work space for rows of ``row`` floats and documents of up to ``longest`` running words."""
        registers = padded_table(7, LANES).reshape(-1)
        numbers = padded_table(3, LANES).reshape(-1).view(np.uint32)
        return cls(
            kept=np.empty(min(longest, PIECE), np.uint32),
            coming=numbers[:LANES],
            rows=numbers[LANES:],
            products=registers[:LANES],
            own=registers[LANES : 3 * LANES],
            towards=registers[3 * LANES : 5 * LANES],
            weight=registers[5 * LANES : 7 * LANES],
            moves=padded_table(1, row),
            mixed=padded_table(1, row),
        )


def padded_table(n_rows: int, dim: int) -> npt.NDArray[np.float32]:
    """A zeroed float32 table whose rows are whole cache lines; its first ``dim`` columns count.

    Returns:
        float32 (n_rows, dim rounded up to a multiple of 16). The memory is reserved when it is first written to.
    """
    width = -(-dim // LANES) * LANES
    raw = np.zeros(n_rows * width + LANES, np.float32)
    skipped = -raw.ctypes.data % (LANES * 4) // 4
    return raw[skipped : skipped + n_rows * width].reshape(n_rows, width)


@cache
def kernel(
    n_chunks: int, objective: Objective, negative_step: NegativeStep
) -> Callable[..., tuple[float, int, int, int]]:
    """The compiled trainer for one row length and one set of rules.

    Args:
        n_chunks: Row length in units of 16 floats.
        objective: "pairwise" or "joint".
        negative_step: "paper" (1 + h) or "reference" (2 h).

    Returns:
        ``train(tables, text, sampling_tables, rules, private, scratch, documents, epoch, first_token)``, which trains
        documents in the order of ``text``, which holds them alone, and returns (loss, active, pairs, positions).
        ``documents`` are their rows, int64. ``first_token`` is how many running words, counted over all epochs, come
        before the first of them: the learning rate follows from it.
    """
    primitives = row_primitives(n_chunks)
    gather_products, step_rows, move_row, add_rows, prefetch_row = primitives
    joint = objective == "joint"
    paper = negative_step == "paper"
    zero, half, one, two = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
    far = np.float32(1e9)  # from every product

    @jit(fastmath=True, inline=True)
    def pull(y: Any, count: Any, sign: Any, inverse_norm: Any, rate: Any) -> Any:
        # Towards the anchor for a positive (y = -f, sign 1), away from it for a negative (y = h, sign -1).
        if paper or sign > zero:
            return rate * count * (one + inverse_norm * y)
        return rate * count * (two * (inverse_norm * y))

    @jit(fastmath=True)
    def contrast(
        s: Any, table: Any, n_positives: Any, n_negatives: Any, anchors: Any, anchor: Any,
        inverse_norm: Any, scale: Any, margin: Any, rate: Any,
    ) -> Any:  # fmt: skip
        # f, h: products of positives and negatives with the anchor, -f and h of absent ones so small that no hinge is
        # active; g: the hinge, in which -f and h stand alike; q: the step scale of the anchor. The loop is over the
        # fewer of the two kinds, those of the other kind are side by side in a register.
        f = gather_products(table, s.rows, 0, n_positives, anchors, anchor, far)
        h = gather_products(table, s.rows, _N, n_negatives, anchors, anchor, -far)
        rest = one - scale * margin
        if n_positives < n_negatives:
            store_lanes(s.products, 0, zero - f)
            n, first, beside, others, sign = uint64(n_positives), uint64(0), h, uint64(_N), one
        else:
            store_lanes(s.products, 0, h)
            n, first, beside, others, sign = uint64(n_negatives), uint64(_N), zero - f, uint64(0), -one
        count = weight = losses = zero * beside
        moving = active = uint64(0)
        for i in range(n):
            y = s.products[i]
            g = (margin + y) + beside
            bits = active_bits(g)
            q = where_positive(g, scale * g + rest)  # 1 - scale (f - h)
            count = count + where_positive(g, one)
            weight = weight + q
            losses = losses + where_positive(g, g)
            n_active = population(bits)
            active += n_active
            slot = first + i
            moving |= (bits << others) | (uint64(bits != uint64(0)) << slot)
            strength = pull(y, float32(n_active), sign, inverse_norm, rate)
            s.own[slot] = one + strength * y
            s.towards[slot] = sign * strength
            s.weight[slot] = sign * rate * lane_sum(q)
        if moving != uint64(0):
            strengths = pull(beside, count, -sign, inverse_norm, rate)
            store_lanes(s.own, int64(others), one + strengths * beside)
            store_lanes(s.towards, int64(others), -sign * strengths)
            store_lanes(s.weight, int64(others), -sign * rate * weight)
            step_rows(table, s.rows, moving, anchors, anchor, s.own, s.towards, s.weight, s.moves)
        return lane_sum(losses), active

    @jit(inline=True)
    def row_of(private: Any, word: Any) -> Any:
        return word + (private.shift if word < private.n_words else uint32(0))

    @jit(inline=True)
    def draw_negatives(
        s: Any, center: Any, private: Any, samples: Any, key: Any, draw: Any, n_negatives: Any
    ) -> Any:  # fmt: skip
        for e in range(n_negatives):
            drawn = row_of(private, draw_word(samples, random_bits(key, draw * n_negatives + e)))
            s.coming[e] = drawn
            prefetch_row(center, uint64(drawn))

    @jit(fastmath=True)
    def train(
        tables: Any, text: Any, samples: Any, rules: Any, private: Any, s: Any, documents: Any, epoch: Any,
        first_token: Any,
    ) -> Any:  # fmt: skip
        # From here on a word is its row, the worker's own where it has one.
        center, context, document_table = tables.center, tables.context, tables.document
        window, n_negatives, n_doc_negatives = rules.window, rules.negatives, rules.doc_negatives
        row = n_chunks * LANES
        rows, coming, kept = s.rows, s.coming, s.kept
        loss = 0.0
        active = uint64(0)
        pairs = positions = int64(0)  # int64(0), not 0: see _KEEP
        for place in range(documents.shape[0]):
            document = documents[place]
            anchor = uint64(document)
            prefetch_row(document_table, anchor)
            keep_key = stream_key(rules.seed, epoch, document, _KEEP)
            window_key = stream_key(rules.seed, epoch, document, _WINDOW)
            context_key = stream_key(rules.seed, epoch, document, _CONTEXT)
            document_key = stream_key(rules.seed, epoch, document, _DOCUMENT)
            begin, end = text.offsets[place], text.offsets[place + 1]
            step_of_document = min(rules.longest_step, rules.visit / float32(max(end - begin, 1)))
            number = int64(0)  # of the kept word, counted over the whole document
            for piece in range(begin, end, PIECE):
                n = int64(0)
                for t in range(piece, min(end, piece + PIECE)):
                    word = uint32(text.tokens[t])
                    kept[n] = row_of(private, word)
                    n += int64(uint32(random_bits(keep_key, t - begin) >> uint64(32)) <= samples.keep[word])
                past = (first_token + piece) / rules.total_tokens
                rate = rules.learning_rate * float32(max(1.0 - past, 1e-4))
                context_rate = rate * rules.context_weight / float32(n_negatives)
                document_rate = rate * rules.doc_weight / float32(n_doc_negatives)
                for i in range(min(n, window + 1)):
                    prefetch_row(center, uint64(kept[i]))
                draw = number // rules.positions_per_draw
                draw_negatives(s, center, private, samples, context_key, draw, n_negatives)
                for i in range(n):
                    word = kept[i]
                    k = int64(0)
                    for e in range(n_negatives):
                        rows[_N + k] = coming[e]
                        k += int64(coming[e] != word)
                    if number + 1 == (draw + 1) * rules.positions_per_draw:
                        draw += 1
                        draw_negatives(s, center, private, samples, context_key, draw, n_negatives)
                    if i + 1 < n:
                        prefetch_row(context, uint64(kept[i + 1]))
                    if i + 1 + window < n:
                        prefetch_row(center, uint64(kept[i + 1 + window]))
                    reach = 1 + int64(draw_below(random_bits(window_key, number), uint64(window)))
                    low, high = max(0, i - reach), min(n, i + reach + 1)
                    # A window of more than sixteen words is contrasted sixteen at a time.
                    at = low
                    while at < high:
                        m = int64(0)
                        while at < high and m < LANES:
                            rows[m] = kept[at]
                            m += int64(at != i)
                            at += 1
                        if m == 0 or k == 0:
                            continue
                        if joint:
                            add_rows(s.mixed, context, uint64(word), document_table, anchor)
                            cosine = zero
                            for c in range(row):
                                cosine += context[word, c] * document_table[anchor, c]
                            norm = np.sqrt(max(two + two * cosine, float32(1e-6)))
                            step = contrast(
                                s, center, m, k, s.mixed, uint64(0), one / norm, half, rules.margin, context_rate
                            )
                            if step[1] != uint64(0):
                                move_row(context, uint64(word), s.moves, uint64(0), one)
                                move_row(document_table, anchor, s.moves, uint64(0), step_of_document)
                        else:
                            step = contrast(
                                s, center, m, k, context, uint64(word), one, one, rules.margin, context_rate
                            )
                            if step[1] != uint64(0):
                                move_row(context, uint64(word), s.moves, uint64(0), one)
                        loss += step[0]
                        active += step[1]
                        pairs += m * k
                    number += 1
                    if not joint and (number % DOCUMENT_BLOCK == 0 or i == n - 1):
                        m = (number - 1) % DOCUMENT_BLOCK + 1
                        m = min(m, i + 1)
                        for j in range(m):
                            rows[j] = kept[i + 1 - m + j]
                        for e in range(n_doc_negatives):
                            bits = random_bits(document_key, (number - 1) // DOCUMENT_BLOCK * n_doc_negatives + e)
                            rows[_N + e] = row_of(private, draw_word(samples, bits))
                        step = contrast(
                            s, center, m, n_doc_negatives, document_table, anchor, one, one, rules.margin, document_rate
                        )
                        if step[1] != uint64(0):
                            move_row(document_table, anchor, s.moves, uint64(0), one)
                        loss += step[0]
                        active += step[1]
                        pairs += m * n_doc_negatives
                positions += n
        return loss, int64(active), pairs, positions

    compiled: Callable[..., tuple[float, int, int, int]] = train
    return compiled


class _Slot(NamedTuple):
    """Rows for one chunk at a time: where they lie, and of both word tables the shared ones and the worker's own."""

    private: Private
    rows: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]


class CpuBackend:
    """Trains on the processor's cores; one call of :meth:`train_chunk` per worker at a time.

    Args:
        text: The encoded corpus.
        samples: The sampling tables of its vocabulary.
        tables: The vectors, moved in place; spare rows behind those of the words are shared out to the workers.
        config: The settings.
        total_tokens: Running words of all epochs together.
    """

    name = "cpu"
    chunk_limits = CHUNK_LIMITS

    def __init__(
        self, text: Text, samples: SamplingTables, tables: Tables, config: TrainConfig, total_tokens: int
    ) -> None:
        self.workers = self.threads = config.resolved_workers()
        self._text, self._samples, self._tables = text, samples, tables
        self._rules = Rules(
            np.uint64(config.seed),
            config.window,
            config.negatives,
            config.positions_per_draw,
            config.doc_negatives,
            np.float32(config.context_weight),
            np.float32(config.doc_weight),
            *document_step(config),
            np.float32(config.margin),
            np.float32(config.learning_rate),
            float(total_tokens),
        )
        self._train = kernel(tables.center.shape[1] // LANES, config.objective, config.negative_step)
        self._n_words = len(samples.keep)
        self._n_private = (len(tables.center) - self._n_words) // self.threads
        self._slots = [self._slot(number) for number in range(self.threads)]
        self._gate = threading.Lock()
        self._n_merges = 0
        self._held = HeldRows(tables.document)

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
            self._slots.append(slot)
        return ChunkResult(float(result[0]), int(result[1]), int(result[2]), int(result[3]))

    def _slot(self, number: int) -> _Slot:
        n, begin = self._n_private, self._n_words + number * self._n_private
        rows = [(table[:n], table[begin : begin + n]) for table in self._tables[:2]]
        return _Slot(Private(np.uint32(n), np.uint32(begin)), rows)

    def prepare(self) -> None:
        """Compile, by training no document."""
        self.train_chunk(np.empty(0, np.int64), 0, 0)

    def collect(self) -> None:
        """Nothing to do: the vectors move where they lie."""


def document_step(config: TrainConfig) -> tuple[np.float32, np.float32]:
    """How far the joint objective moves a document's row, in steps of the context row that moves with it.

    Returns:
        (visit, longest): a document of n running words takes min(longest, visit / n) steps. With ``doc_step`` "mean"
        the visit is 100 ``doc_weight`` pairs, of which a position has window + 1 on the average; with "sum" every step
        is one of the context row, as published.
    """
    if config.doc_step == "sum":
        return np.float32(1e30), np.float32(1)
    return np.float32(_VISIT_PAIRS * config.doc_weight / (config.window + 1)), np.float32(_LONGEST_STEP)


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
    """Put the mean direction of rows, which count ``weight`` times, and others in the place of the rows.

    Args:
        rows: float32 (n, dim), on the sphere, written in place.
        others: The same shape, on the sphere.
        weight: Not negative. With 0 the others are taken as they are.
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
