"""The directions of a whole corpus's documents and the weights of its words, compiled; inference.py says what they are.

How much a word says about its documents is seen from how well these agree. With z_d the direction of document d, the
mean of all z_d taken away and the rest scaled to norm 1, a word w of n documents has the mean resultant length

    r(w)^2 = (|sum_d z_d|^2 - n) / (n (n - 1)),

the mean cosine of two different documents of the word: near 0 for a word that stands in documents of all kinds, high
for one whose documents point one way. (The plain |sum|/n would be large for every rare word.) The first directions are
taken with weights of text retrieval, log(N / n); the weight that is kept is the root of r(w).

Source: Mardia and Jupp, Directional Statistics, section 9.2, for the resultant length; that words are weighted by it
is our own (DESIGN.md, decision 12).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from jose_embed.jit import jit
from jose_embed.passages import stretches
from jose_embed.sphere import normalized

__all__ = ["concentration_weights", "count_documents", "write_directions"]

_TABLE_BYTES = 1 << 26  # of sums of document directions, one row per word, that are kept at a time
_FLOOR = 1e-4  # of r squared: a word of one document still says a little


def count_documents(
    tokens: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], n_words: int
) -> npt.NDArray[np.int64]:
    """int64 (n_words,): in how many documents each word occurs."""
    frequencies, last_seen = np.zeros(n_words, np.int64), np.full(n_words, -1, np.int64)
    for first, words, ends in stretches(tokens, offsets):
        _count(words, ends, first, last_seen, frequencies)
    return frequencies


def concentration_weights(
    tokens: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    n_words: int,
    term_weights: npt.NDArray[np.float64],
    center_vectors: npt.NDArray[np.float32],
) -> npt.NDArray[np.float64]:
    """float64 (n_words,): the root of each word's mean resultant length, from 0.1 to 1.

    Args:
        tokens: int32 (n_tokens,).
        offsets: int64 (n_documents + 1,).
        n_words: Rows of the vocabulary.
        term_weights: float64, see :func:`write_directions`.
        center_vectors: float32 (n_words, dim).
    """
    frequencies = count_documents(tokens, offsets, n_words)
    n_documents = int(np.count_nonzero(np.diff(offsets)))
    first_weights = np.log((n_documents + 1) / np.maximum(frequencies, 1))
    text = (tokens, offsets, first_weights, term_weights, center_vectors)
    mean = np.zeros(center_vectors.shape[1])
    for _, _, directions in _direction_blocks(*text):
        mean += directions.sum(0, dtype=np.float64)
    mean /= max(1, n_documents)
    squares = np.empty(n_words)
    at_once = max(1, _TABLE_BYTES // (4 * center_vectors.shape[1]))
    for begin in range(0, n_words, at_once):
        sums = np.zeros((min(at_once, n_words - begin), center_vectors.shape[1]), np.float32)
        last_seen = np.full(len(sums), -1, np.int64)
        for words, ends, directions in _direction_blocks(*text):
            _add_directions(words, ends, normalized(directions - mean).astype(np.float32), begin, last_seen, sums)
            last_seen[:] = -1
        squares[begin : begin + len(sums)] = np.einsum("ij,ij->i", sums, sums, dtype=np.float64)
    pairs = np.maximum(frequencies * (frequencies - 1), 1)
    root: npt.NDArray[np.float64] = np.clip((squares - frequencies) / pairs, _FLOOR, 1.0) ** 0.25
    return root


def _direction_blocks(
    tokens: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    word_weights: npt.NDArray[np.float64],
    term_weights: npt.NDArray[np.float64],
    center_vectors: npt.NDArray[np.float32],
) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """The text in stretches: its words, where documents end in them, and the documents' directions (0 for none)."""
    occurrences = np.zeros(len(word_weights), np.int64)
    total = np.zeros(center_vectors.shape[1], np.float64)
    for _, words, ends in stretches(tokens, offsets):
        rows = np.zeros((len(ends) - 1, center_vectors.shape[1]), np.float32)
        _directions(words, ends, word_weights, term_weights, center_vectors, rows, occurrences, total)
        yield words, ends, rows


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


@jit
def _add_directions(words: Any, ends: Any, directions: Any, begin: Any, last_seen: Any, sums: Any) -> None:
    # Adds a document's direction to the row of each of its words that is in the table, once.
    n_rows, dim = sums.shape
    for document in range(directions.shape[0]):
        for t in range(ends[document], ends[document + 1]):
            row = words[t] - begin
            if 0 <= row < n_rows and last_seen[row] != document:
                last_seen[row] = document
                for c in range(dim):
                    sums[row, c] += directions[document, c]


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
