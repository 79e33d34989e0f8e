"""Directions of a corpus's documents on the processor, compiled; model/inference.py says what they are."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import numpy.typing as npt

from jose_embed.compute.documents import stretches
from jose_embed.compute.jit import jit
from jose_embed.compute.tables import DocumentInputs
from jose_embed.storage.memory import anonymous_pages, release

__all__ = ["count_documents", "write_directions"]

_WORTH_A_THREAD = 1 << 20  # running words


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
    inputs: DocumentInputs,
    out: npt.NDArray[np.float32],
    *,
    threads: int = 1,
) -> None:
    """Write the direction of every document, that of the weighted sum of its words times a matrix.

    A document without a direction keeps its row.

    Args:
        tokens: int32 (n_tokens,).
        offsets: int64 (n_documents + 1,).
        inputs: The words' vectors and weights.
        out: float32 (n_documents, dim), padded as the vectors are.
        threads: That work on it at the most; the bytes are the same. Each needs eight bytes for a word, all together no
            more than an eighth of one table of vectors.
    """
    n = max(1, min(threads, len(tokens) // _WORTH_A_THREAD, out.shape[1] // 16))
    stopped = threading.Event()

    def write(begin: int, end: int) -> None:
        occurrences = anonymous_pages(len(inputs.word_weights), np.int64)
        total, turned = np.zeros(out.shape[1], np.float64), np.zeros(len(inputs.matrix), np.float64)
        for first, words, ends in stretches(tokens, offsets[begin : end + 1], n):
            rows = out[begin + first : begin + first + len(ends) - 1]
            _directions(words, ends, inputs, rows, occurrences, total, turned)
            release(rows)
            if stopped.is_set():
                return

    if n == 1:
        write(0, len(out))
        return
    write(0, 1)  # compiled here: in another thread that would take memory of its own
    # Equal numbers of words, not of documents.
    shares = np.linspace(offsets[0], offsets[-1], n + 1)[1:-1].astype(np.int64)  # else all offsets became float64
    borders = np.searchsorted(offsets, shares).tolist()
    with ThreadPoolExecutor(n, thread_name_prefix="jose-directions") as pool:
        parts = [
            pool.submit(write, *part)
            for part in itertools.pairwise([1, *(max(1, border) for border in borders), len(out)])
        ]
        try:
            wait(parts, return_when=FIRST_EXCEPTION)
        finally:
            stopped.set()  # an interrupt, or an error in one part, does not wait for the rest of the others
        for part in parts:
            part.result()


@jit
def _count(tokens: Any, offsets: Any, first: Any, last_seen: Any, frequencies: Any) -> None:
    for document in range(offsets.shape[0] - 1):
        for t in range(offsets[document], offsets[document + 1]):
            word = tokens[t]
            if last_seen[word] != first + document:
                last_seen[word] = first + document
                frequencies[word] += 1


@jit  # without fastmath: products are rounded before they are added, as NumPy does
def _directions(tokens: Any, offsets: Any, inputs: Any, out: Any, occurrences: Any, total: Any, turned: Any) -> None:
    # occurrences, all zero before and after, total and turned are work space: allocations would double the time of
    # compiling.
    dim = total.shape[0]
    word_weights, term_weights, matrix = inputs.word_weights, inputs.term_weights, inputs.matrix
    center, context, share = inputs.center_vectors, inputs.context_vectors, inputs.context_share
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
                weight = word_weights[word, 0] + word_weights[word, 1] * term_weights[min(n, term_weights.shape[0] - 1)]
                if share == 0.0:
                    for c in range(dim):
                        total[c] += weight * np.float64(center[word, c])
                else:
                    for c in range(dim):
                        total[c] += weight * (np.float64(center[word, c]) - share * np.float64(context[word, c]))
        for c in range(turned.shape[0]):
            turned[c] = 0.0
        for c in range(turned.shape[0]):
            for i in range(turned.shape[0]):
                turned[i] += total[c] * matrix[c, i]
        for c in range(turned.shape[0]):
            total[c] = turned[c]
        square = 0.0
        for c in range(dim):
            square += total[c] * total[c]
        if square > 0.0:
            length = np.sqrt(square)
            for c in range(dim):
                out[document, c] = np.float32(total[c] / length)
