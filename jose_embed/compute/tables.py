"""Types and constants that both backends use: the vectors, the encoded text, the result of a chunk."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.config import TrainConfig

#: Floats in one register.
LANES = 16


#: Words of a document that are contrasted with its row at a time.
DOCUMENT_BLOCK = 8


#: Running words that are subsampled at a time; windows do not cross the border of two pieces.
PIECE = 1 << 20


#: Two constants of the joint objective (DESIGN.md, decision 31). In an epoch, the steps of a document's row sum to
#: ``_VISIT_PAIRS * doc_weight`` average steps of a (positive, negative) pair, however many words the document has. One
#: step of the row is at most ``_LONGEST_STEP`` times that of the context row which moves with it.
_VISIT_PAIRS, _LONGEST_STEP = 100.0, 4.0


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


class ChunkResult(NamedTuple):
    """Sums over a chunk of documents.

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


def padded_table(n_rows: int, dim: int) -> npt.NDArray[np.float32]:
    """A zeroed float32 table whose rows are whole cache lines; its first ``dim`` columns count.

    Returns:
        float32 (n_rows, dim rounded up to a multiple of 16). The memory is reserved when it is first written to.
    """
    width = -(-dim // LANES) * LANES
    raw = np.zeros(n_rows * width + LANES, np.float32)
    skipped = -raw.ctypes.data % (LANES * 4) // 4
    return raw[skipped : skipped + n_rows * width].reshape(n_rows, width)


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


class DocumentInputs(NamedTuple):
    """Inputs of the directions of documents; model/inference.py has the formula.

    Attributes:
        word_weights: float64 (n_words, 2), by presence and for the topic.
        term_weights: float64: the factor of the topic by the number of occurrences, the last for all that are more.
        center_vectors: float32 (n_words, dim), possibly a view of padded rows, or padded with zeros.
        context_vectors: float32 of the same shape; not read if the share is 0.
        context_share: How much of its context row is taken from each word's vector.
        matrix: float64 (dim, dim) without padding, see training/document_weights.py; (0, 0) to use the sum as it is.
    """

    word_weights: npt.NDArray[np.float64]
    term_weights: npt.NDArray[np.float64]
    center_vectors: npt.NDArray[np.float32]
    context_vectors: npt.NDArray[np.float32]
    context_share: float
    matrix: npt.NDArray[np.float64]
