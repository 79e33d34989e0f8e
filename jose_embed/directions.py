"""The directions of a whole corpus's documents and the weights of its words, compiled; inference.py says what they are.

How much a word says about its documents is seen from how well these agree. With z_d the direction of document d, the
mean of all z_d taken away and the rest scaled to norm 1, a word w of n documents has the mean resultant length

    r(w)^2 = (|sum_d z_d|^2 - n) / (n (n - 1)),

the mean cosine of two different documents of the word: near 0 for a word that stands in documents of all kinds, high
for one whose documents point one way. (The plain |sum|/n would be large for every rare word.) With N documents in all,
and means over all words, each as often as it has documents, a word has the weights

    presence  =  (1 - n / (N + 1)) / mean(1 - n / (N + 1))  *  n / (n + 20),
    topic     =  t r^2 / m  *  n / (n + 5),        m = mean(r^2),  t = 4 m^6 / (m^6 + 0.08^6).

That a word stands in a document says the less the more documents have it, and says it once, however often it is
repeated. t is how much the topics count beside that: in a text of many, r^2 decides; in one of a single topic, where no
word's documents agree, all words count alike. The last factors are those of a mean of n documents beside a prior of
twenty or five: what a rare word says is known less well, and least where nothing speaks for it but its presence.

Source: Mardia and Jupp, Directional Statistics, section 9.2, for the resultant length; that words are weighted by it
is our own (DESIGN.md, decision 12).
"""

from __future__ import annotations

import itertools
import mmap
import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from jose_embed.jit import jit
from jose_embed.pages import release
from jose_embed.passages import stretches

__all__ = ["Summands", "concentration_weights", "count_documents", "write_directions"]

_SUMS = 1 << 20  # floats in the table of sums of directions, a row for each word of a slice
_MOST_SLICES = 64
_WORTH_A_THREAD = 1 << 20  # running words
_BLOCK = 1 << 10  # rows that are converted to float64 at a time: what they take fits into the heap's gaps
# DESIGN.md, decisions 12 and 38, has the evidence for all four.
_MOST_TOPIC = 4.0  # what topics count, beside the presence of words, where documents agree very well
_HALF_TOPIC = 0.08  # the mean agreement at which they count half of that
_PRESENCE_PRIOR, _TOPIC_PRIOR = 20, 5  # documents that a word must have to count half of what it says


Number = TypeVar("Number", np.int64, np.float32)


class Summands(NamedTuple):
    """What directions of documents are summed up from; inference.py says how.

    Attributes:
        word_weights: float64 (n_words, 2), by presence and for the topic.
        term_weights: float64: the factor of the topic by the number of occurrences, the last for all that are more.
        center_vectors: float32 (n_words, dim), possibly a view of padded rows, or padded with zeros.
        context_vectors: float32 of the same shape; not looked at where the share is 0.
        context_share: How much of its context row is taken from each word's vector.
        matrix: float64 (dim, dim) without padding, see reliability.py; (0, 0) for the sum itself.
    """

    word_weights: npt.NDArray[np.float64]
    term_weights: npt.NDArray[np.float64]
    center_vectors: npt.NDArray[np.float32]
    context_vectors: npt.NDArray[np.float32]
    context_share: float
    matrix: npt.NDArray[np.float64]


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
    frequencies: npt.NDArray[np.int64],
    doc_vectors: npt.NDArray[np.float32],
) -> npt.NDArray[np.float64]:
    """float64 (n_words, 2): the presence and the topic of all words; the first is above 0, the second not below it.

    Some words are taken at a time, so that little is held besides the vectors: the text is passed for each slice of the
    vocabulary, but most of it belongs to the frequent words of the first.

    Args:
        tokens: int32 (n_tokens,).
        offsets: int64 (n_documents + 1,).
        frequencies: int64 (n_words,), see :func:`count_documents`.
        doc_vectors: float32 (n_documents, dim), on the sphere; those of documents without a word are not looked at.
    """
    n_words, dim = len(frequencies), doc_vectors.shape[1]
    mean, scales = _centering(offsets, doc_vectors)
    squares = np.zeros(n_words)
    one = np.zeros(dim, np.float32)
    at_once = min(n_words, max(1, _SUMS // dim, n_words // _MOST_SLICES))
    table = _pages(at_once * dim, np.float32).reshape(at_once, dim)
    for begin in range(0, n_words, at_once):
        sums = table[: n_words - begin]
        sums[:] = 0
        last_seen = np.full(len(sums), -1, np.int64)
        for first, words, ends in stretches(tokens, offsets):
            _add_directions(words, ends, first, begin, doc_vectors, mean, scales, last_seen, one, sums)
            release(doc_vectors[first : first + len(ends) - 1])
        squares[begin : begin + len(sums)] = np.einsum("ij,ij->i", sums, sums, dtype=np.float64)
    pairs = np.maximum(frequencies * (frequencies - 1), 1)
    agreement = np.clip((squares - frequencies) / pairs, 0.0, 1.0)
    m = float(np.average(agreement, weights=frequencies))
    topic = agreement * (_MOST_TOPIC * m**5 / (m**6 + _HALF_TOPIC**6))
    rarity = 1 - frequencies / (np.count_nonzero(np.diff(offsets)) + 1)
    presence = rarity / np.average(rarity, weights=frequencies)
    known = frequencies[:, None] / (frequencies[:, None] + [_PRESENCE_PRIOR, _TOPIC_PRIOR])
    weights: npt.NDArray[np.float64] = np.stack([presence, topic], axis=1) * known
    return weights


def _centering(
    offsets: npt.NDArray[np.int64], doc_vectors: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The mean of the vectors of documents with words, (dim,), and 1 / |z - mean| of all vectors z, (n_documents,)."""
    mean = np.zeros(doc_vectors.shape[1])
    scales = np.empty(len(doc_vectors), np.float32)
    has_words = np.diff(offsets) > 0
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(doc_vectors), _BLOCK)]
    for rows in blocks:
        mean += doc_vectors[rows][has_words[rows]].sum(0, dtype=np.float64)
        release(doc_vectors[rows])
    mean /= max(1, int(np.count_nonzero(has_words)))
    for rows in blocks:
        # A document that points exactly where all do says nothing.
        scales[rows] = 1 / np.maximum(np.linalg.norm(doc_vectors[rows] - mean, axis=1), 1e-6)
        release(doc_vectors[rows])
    return mean.astype(np.float32), scales


def write_directions(
    tokens: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    summands: Summands,
    out: npt.NDArray[np.float32],
    *,
    threads: int = 1,
) -> None:
    """Write the direction of every document, that of the weighted sum of its words times a matrix.

    A document without a direction keeps its row.

    Args:
        tokens: int32 (n_tokens,).
        offsets: int64 (n_documents + 1,).
        summands: The words' vectors and weights.
        out: float32 (n_documents, dim), padded as the vectors are.
        threads: That work on it at the most; the bytes are the same. Each needs eight bytes for a word, all together no
            more than an eighth of one table of vectors.
    """
    n = max(1, min(threads, len(tokens) // _WORTH_A_THREAD, out.shape[1] // 16))
    stopped = threading.Event()

    def write(begin: int, end: int) -> None:
        occurrences = _pages(len(summands.word_weights), np.int64)
        total, turned = np.zeros(out.shape[1], np.float64), np.zeros(len(summands.matrix), np.float64)
        for first, words, ends in stretches(tokens, offsets[begin : end + 1], n):
            rows = out[begin + first : begin + first + len(ends) - 1]
            _directions(words, ends, summands, rows, occurrences, total, turned)
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


def _pages(n: int, kind: type[Number]) -> npt.NDArray[Number]:
    """Zeros in pages of their own: the heap would keep the room to the end of the process."""
    return np.frombuffer(mmap.mmap(-1, max(1, n) * np.dtype(kind).itemsize), kind, n)


@jit
def _count(tokens: Any, offsets: Any, first: Any, last_seen: Any, frequencies: Any) -> None:
    for document in range(offsets.shape[0] - 1):
        for t in range(offsets[document], offsets[document + 1]):
            word = tokens[t]
            if last_seen[word] != first + document:
                last_seen[word] = first + document
                frequencies[word] += 1


@jit
def _add_directions(
    words: Any, ends: Any, first: Any, begin: Any, vectors: Any, mean: Any, scales: Any, last_seen: Any, one: Any,
    sums: Any,
) -> None:  # fmt: skip
    # Adds each document's centered direction to those of its words that have a row in sums, once to each. The first
    # document and the first word are given; one is work space.
    n_rows, dim = last_seen.shape[0], one.shape[0]
    for place in range(ends.shape[0] - 1):
        document = first + place
        ready = False
        for t in range(ends[place], ends[place + 1]):
            row = words[t] - begin
            if 0 <= row < n_rows and last_seen[row] != document:
                last_seen[row] = document
                if not ready:
                    ready = True
                    for c in range(dim):
                        one[c] = (vectors[document, c] - mean[c]) * scales[document]
                for c in range(dim):
                    sums[row, c] += one[c]


@jit  # without fastmath: products are rounded before they are added, as NumPy does
def _directions(tokens: Any, offsets: Any, summands: Any, out: Any, occurrences: Any, total: Any, turned: Any) -> None:
    # occurrences, all zero before and after, total and turned are work space: allocations would double the time of
    # compiling.
    dim = total.shape[0]
    word_weights, term_weights, matrix = summands.word_weights, summands.term_weights, summands.matrix
    center, context, share = summands.center_vectors, summands.context_vectors, summands.context_share
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
