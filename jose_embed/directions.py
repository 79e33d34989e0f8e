"""The directions of a whole corpus's documents, compiled; inference.py says what they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from jose_embed.jit import jit
from jose_embed.passages import stretches

__all__ = ["count_documents", "write_directions"]


def count_documents(
    tokens: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], n_words: int
) -> npt.NDArray[np.int64]:
    """int64 (n_words,): in how many documents each word occurs."""
    frequencies, last_seen = np.zeros(n_words, np.int64), np.full(n_words, -1, np.int64)
    for first, words, ends in stretches(tokens, offsets):
        _count(words, ends, first, last_seen, frequencies)
    return frequencies


def write_directions(
    tokens: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    word_weights: npt.NDArray[np.float64],
    term_weights: npt.NDArray[np.float64],
    center_vectors: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    """Write the weighted mean direction of every document's words; a document without one keeps its row.

    Args:
        tokens: int32 (n_tokens,).
        offsets: int64 (n_documents + 1,).
        word_weights: float64 (n_words,).
        term_weights: float64: the factor by the number of occurrences, the last for all that are more.
        center_vectors: float32 (n_words, dim), possibly a view of padded rows.
        out: float32 (n_documents, dim), likewise.
    """
    occurrences = np.zeros(len(word_weights), np.int64)
    total = np.zeros(out.shape[1], np.float64)
    for first, words, ends in stretches(tokens, offsets):
        rows = out[first : first + len(ends) - 1]
        _directions(words, ends, word_weights, term_weights, center_vectors, rows, occurrences, total)


@jit
def _count(tokens: Any, offsets: Any, first: Any, last_seen: Any, frequencies: Any) -> None:
    for document in range(offsets.shape[0] - 1):
        for t in range(offsets[document], offsets[document + 1]):
            word = tokens[t]
            if last_seen[word] != first + document:
                last_seen[word] = first + document
                frequencies[word] += 1


@jit  # without fastmath: products are rounded before they are added, as NumPy does
def _directions(
    tokens: Any, offsets: Any, word_weights: Any, term_weights: Any, center: Any, out: Any, occurrences: Any, total: Any
) -> None:
    # occurrences, all zero before and after, and total are work space: allocations would double the time of compiling.
    dim = total.shape[0]
    for document in range(offsets.shape[0] - 1):
        begin, end = offsets[document], offsets[document + 1]
        for t in range(begin, end):
            occurrences[tokens[t]] += 1
        for c in range(dim):
            total[c] = 0.0
        for t in range(begin, end):
            word = tokens[t]
            n = occurrences[word]
            if n:
                occurrences[word] = 0
                weight = word_weights[word] * term_weights[min(n, term_weights.shape[0] - 1)]
                for c in range(dim):
                    total[c] += weight * np.float64(center[word, c])
        square = 0.0
        for c in range(dim):
            square += total[c] * total[c]
        if square > 0.0:
            length = np.sqrt(square)
            for c in range(dim):
                out[document, c] = np.float32(total[c] / length)
