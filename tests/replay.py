"""A training replayed without the kernel: its samples drawn again with NumPy, its contrasts taken to the oracle.

Written from the documentation of sampling.py and cpu/backend.py, not from their code. The samples do not depend on the
vectors, so there are two halves: :func:`contrasts` says what is contrasted with what, :func:`train` moves the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import oracle

from jose_embed.compute.sampling import CONTEXT_NEGATIVES, DOCUMENT_NEGATIVES, KEEP, WINDOW, SamplingTables
from jose_embed.compute.tables import DOCUMENT_BLOCK, PIECE, Tables, Text
from jose_embed.config import TrainConfig

Bits = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]

GOLDEN = 0x9E3779B97F4A7C15


# ---- the samples ----------------------------------------------------------------------------------------------------


def mixed(z: Bits) -> Bits:
    """The finaliser of SplitMix64; numbers wrap around at 2^64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def stream_key(seed: int, epoch: int, document: int, stream: int) -> Bits:
    """The key of one kind of decision in one document and epoch: uint64 (1,)."""

    def times_golden(x: int) -> Bits:
        return np.array([x * GOLDEN % 2**64], np.uint64)

    key = mixed(np.array([(seed + GOLDEN) % 2**64], np.uint64))
    key = mixed(key ^ times_golden(epoch + 1))
    return mixed(key ^ times_golden(8 * document + stream))


def random_bits(key: Bits, index: npt.ArrayLike) -> Bits:
    """64 bits for the decisions of a stream with these numbers."""
    return mixed(key + (np.asarray(index).astype(np.uint64) + np.uint64(1)) * np.uint64(GOLDEN))


def draw_below(bits: Bits, limit: int) -> Rows:
    """Whole numbers below a limit, from the upper halves."""
    return (((bits >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32)).astype(np.int64)


def draw_words(samples: SamplingTables, bits: Bits) -> Rows:
    """Words of the noise distribution."""
    column = draw_below(bits, len(samples.threshold))
    stays = (bits & np.uint64(0xFFFFFFFF)) < samples.threshold[column]
    return np.where(stays, column, samples.alias[column]).astype(np.int64)


def kept_positions(samples: SamplingTables, words: npt.NDArray[np.int32], key: Bits) -> Rows:
    """The places of a document whose words are not thinned out."""
    bits = random_bits(key, np.arange(len(words))) >> np.uint64(32)
    return np.flatnonzero(bits <= samples.keep[words])


class Contrast(NamedTuple):
    """One update: rows of the center table against one or two anchors.

    Attributes:
        context: The row of the context word that is an anchor, or None.
        document: The row of the document that is an anchor, or None.
        positives: Rows of the center table.
        negatives: Rows of the center table.
        rate: The learning rate.
        document_step: How far the document's row moves, in steps of the context row.
    """

    context: int | None
    document: int | None
    positives: Sequence[int]
    negatives: Sequence[int]
    rate: float
    document_step: float = 1.0

    @property
    def anchor_steps(self) -> list[float]:
        """How far each anchor moves."""
        steps = ((self.context, 1.0), (self.document, self.document_step))
        return [step for row, step in steps if row is not None]


def contrasts(
    text: Text,
    samples: SamplingTables,
    config: TrainConfig,
    documents: Iterable[int],
    *,
    epoch: int,
    first_token: int,
    total_tokens: int,
) -> Iterator[Contrast]:
    """What is contrasted in one epoch when these documents are visited in this order."""
    done = first_token
    for document in documents:
        keys = [stream_key(config.seed, epoch, document, kind) for kind in range(5)]
        words = text.tokens[text.offsets[document] : text.offsets[document + 1]]
        kept = kept_positions(samples, words, keys[KEEP])
        document_step = 1.0
        if config.objective != "pairwise" and config.doc_step == "mean":
            document_step = min(4.0, 100 * config.doc_weight / (config.window + 1) / max(1, len(words)))
        number = 0  # of the kept word, counted over the whole document
        for piece in range(0, len(words), PIECE):
            here = words[kept[(kept >= piece) & (kept < piece + PIECE)]].tolist()
            rate = config.learning_rate * max(1 - (done + piece) / total_tokens, 1e-4)
            for i, word in enumerate(here):
                reach = 1 + int(draw_below(random_bits(keys[WINDOW], [number]), config.window)[0])
                around = list(range(max(0, i - reach), min(len(here), i + reach + 1)))
                draw = number // config.positions_per_draw
                drawn = np.arange(draw * config.negatives, (draw + 1) * config.negatives)
                negatives = draw_words(samples, random_bits(keys[CONTEXT_NEGATIVES], drawn)).tolist()
                negatives = [negative for negative in negatives if negative != word]
                while around:
                    some = [j for j in around if j != i][:16]
                    around = [j for j in around if some and j > some[-1]]
                    if some and negatives:
                        anchors = (word, document if config.objective != "pairwise" else None)
                        yield Contrast(
                            *anchors,
                            [here[j] for j in some],
                            negatives,
                            rate * config.context_weight / config.negatives,
                            document_step,
                        )
                number += 1
                if config.objective == "pairwise" and (number % DOCUMENT_BLOCK == 0 or i == len(here) - 1):
                    block = (number - 1) // DOCUMENT_BLOCK
                    size = min(number - block * DOCUMENT_BLOCK, i + 1)
                    drawn = np.arange(block * config.doc_negatives, (block + 1) * config.doc_negatives)
                    negatives = draw_words(samples, random_bits(keys[DOCUMENT_NEGATIVES], drawn)).tolist()
                    document_rate = rate * config.doc_weight / config.doc_negatives
                    yield Contrast(None, document, here[i + 1 - size : i + 1], negatives, document_rate)
        done += len(words)


# ---- the moves ------------------------------------------------------------------------------------------------------


class Totals(NamedTuple):
    """What a replay saw: the sum of the hinges, the active ones, all of them."""

    loss: float
    active: int
    pairs: int


def train(tables: Tables, some: Iterable[Contrast], config: TrainConfig) -> Totals:
    """Take contrasts one after the other, moving the rows of float64 tables in place."""
    loss, active, pairs = 0.0, 0, 0
    for contrast in some:
        places = [
            (table, row)
            for table, row in ((tables.context, contrast.context), (tables.document, contrast.document))
            if row is not None
        ]
        anchors = np.stack([table[row] for table, row in places])
        rows = [*contrast.positives, *contrast.negatives]
        if len(set(rows)) == len(rows):
            moved = oracle.contrast(
                tables.center[contrast.positives],
                tables.center[contrast.negatives],
                anchors,
                margin=config.margin,
                rate=contrast.rate,
                negative_step=config.negative_step,
                anchor_steps=contrast.anchor_steps,
                objective=config.objective,
                sharpness=config.temperature if config.objective == "cross-entropy" else config.sharpness,
            )
            tables.center[rows] = np.concatenate([moved.positives, moved.negatives])
            found = Totals(moved.loss, moved.active, 0)
            anchors = moved.anchors
        else:
            anchors, found = contrast_in_slots(tables.center, contrast, anchors, config)
        for (table, row), anchor in zip(places, anchors, strict=True):
            table[row] = anchor
        loss += found.loss
        active += found.active
        pairs += len(contrast.positives) * len(contrast.negatives)
    return Totals(loss, active, pairs)


def contrast_in_slots(
    center: oracle.Matrix, contrast: Contrast, anchors: oracle.Matrix, config: TrainConfig
) -> tuple[oracle.Matrix, Totals]:
    """The same update where a row may stand several times: it is moved once for each place it stands in, in turn.

    All products are taken before. For distinct rows this is :func:`oracle.contrast`, which a test asserts.

    Returns:
        The moved anchors, and the totals.
    """
    rate, k = contrast.rate, len(contrast.negatives)
    mixed_anchor = anchors.sum(0)
    norm = float(np.linalg.norm(mixed_anchor))
    f, h = center[contrast.positives] @ mixed_anchor, center[contrast.negatives] @ mixed_anchor
    separate = config.objective == "cross-entropy"
    rules = config.objective, config.margin, config.temperature if separate else config.sharpness
    losses, by_positive, by_negative = oracle.slopes(f[:, None], h[None, :], *rules)
    active = by_positive > 0
    counted = config.margin - f[:, None] + (0 if separate else h[None, :]) + np.zeros((len(f), k)) > 0
    share = 1 / len(anchors)
    scale = 1 - share * (f[:, None] - h[None, :])
    x = h / norm
    steps = np.concatenate([
        by_positive.sum(1) * (1 - f / norm),
        -by_negative.sum(0) * (1 + x if config.negative_step == "paper" else 2 * x),
    ])  # fmt: skip
    weights = np.concatenate([
        (by_positive * (1 - share * f[:, None] if separate else scale)).sum(1),
        -(by_negative * (1 + share * h[None, :] if separate else scale)).sum(0),
    ])  # fmt: skip
    some_active = np.concatenate([active.any() | np.zeros(len(f), bool), active.any(0)])
    asked = np.zeros_like(mixed_anchor)
    for slot, row in enumerate([*contrast.positives, *contrast.negatives]):
        if some_active[slot]:
            asked += rate * weights[slot] * center[row]
            product = (f if slot < len(f) else h)[slot if slot < len(f) else slot - len(f)]
            moved = (1 - rate * steps[slot] * product) * center[row] + rate * steps[slot] * mixed_anchor
            center[row] = moved / np.linalg.norm(moved)
    along = [step * (asked - (a @ asked) * a) for step, a in zip(contrast.anchor_steps, anchors, strict=True)]
    moved_anchors = anchors + along if active.any() else anchors
    moved_anchors = moved_anchors / np.linalg.norm(moved_anchors, axis=1, keepdims=True)
    return moved_anchors, Totals(float(losses.sum()), int(counted.sum()), len(f) * k)
