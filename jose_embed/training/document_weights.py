"""How words make a document vector: the weights of words, and the reliability of the axes of the space.

A word's weights follow from how well its documents agree. With z_d the direction of document d, centered (the mean of
all z_d is subtracted, the rest scaled to norm 1), a word w in n documents has the mean cosine of two of its documents

    r(w)^2 = (|sum_d z_d|^2 - n) / (n (n - 1)),

an unbiased squared mean resultant length: near 0 for a word that occurs in documents of all kinds, high for a word
whose documents point in one direction. (The plain |sum| / n would be large for every rare word.) With N documents in
all, and means over all words weighted by their n, a word has two weights:

    presence  =  (1 - n / (N + 1)) / mean(1 - n / (N + 1))  *  n / (n + 20),
    topic     =  t r^2 / m  *  n / (n + 5),        m = mean(r^2),  t = 4 m^6 / (m^6 + 0.08^6).

The presence weight counts once per document, however often the word is repeated there, and falls with the number of
documents that have the word. The factor t sets the topic weights of the whole text: if documents agree well (m is
large), r^2 decides; in a text on a single topic all words count alike. The last factors shrink the weights of rare
words, as the posterior mean of n documents beside a prior of 20 or 5 documents does.

The reliability of an axis: a document is a sample of words, and another sample of the same document would have another
direction. Split-half correlation measures how much of a direction is due to the sample. The different words of each
document are dealt to two halves, each half gets its own direction, centered, and along each principal axis of these the
halves of all documents have a correlation r. The reliability of the whole sample is 2 r / (1 + r) (Spearman and Brown).
:func:`reliability_matrix` scales each axis by a power of its reliability; the power 1 is the best linear estimate of
the true direction (Kelley). An axis seen in n documents is shrunk towards reliability 1 with the weight of ``dim``
documents.

Source: Mardia and Jupp, Directional Statistics, section 9.2, for the resultant length; the weighting of words by it is
our own (DESIGN.md, decision 12). Spearman, Correlation calculated from faulty data, and Brown, Some experimental
results in the correlation of mental abilities (both 1910); Kelley, Interpretation of educational measurements (1927);
DESIGN.md, decisions 33 and 38, for the measured effect.
"""

from __future__ import annotations

import threading
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.compute.backends import Writer
from jose_embed.compute.cpu.directions import run_parts
from jose_embed.compute.documents import gathered, stretches
from jose_embed.compute.jit import jit
from jose_embed.compute.sampling import GOLDEN, mixed_bits, random_bits
from jose_embed.model.inference import topic_alone
from jose_embed.storage.memory import anonymous_pages, release

# The constants of both weights; DESIGN.md, decisions 12 and 38, has the evidence.
_MOST_TOPIC: Final = 4.0  # the limit of t
_HALF_TOPIC: Final = 0.08  # the m at which t is half of its limit
_PRESENCE_PRIOR: Final = 20  # documents
_TOPIC_PRIOR: Final = 5

_SUM_FLOATS: Final = 1 << 20  # floats in the table of sums: one row for each word of a slice of the vocabulary
_MOST_SLICES: Final = 64
_MOST_SUMMED: Final = 1024  # documents of a word, about
_WORTH_A_THREAD: Final = 1 << 20  # running words
_MOST_THREADS: Final = 4  # with a table of sums each
_BLOCK_ROWS: Final = 1 << 10  # document rows converted to float64 at a time

_MOST_DOCUMENTS: Final = 20_000  # a larger text is sampled for the reliability matrix
_BLOCK_DOCUMENTS: Final = 256  # documents halved at a time
_BLOCKS_MULTIPLIED: Final = 16  # blocks in one product: threads of a linear algebra library cost more than small ones
_LEAST_RELIABILITY: Final = 0.01  # of an axis along which the halves do not agree


def retrieval_weights(frequencies: npt.NDArray[np.int64], n_documents: int) -> npt.NDArray[np.float64]:
    """The weights of text retrieval: presence 0, topic log((N + 1) / n) for a word in n of N documents.

    N + 1 instead of N, so that a text whose words are in every document still has a direction.

    Args:
        frequencies: int64 (n_words,), the number of documents of each word.
        n_documents: N, documents with at least one word.

    Returns:
        float64 (n_words, 2).
    """
    return topic_alone(np.log((n_documents + 1) / np.maximum(frequencies, 1)))


def concentration_weights(
    tokens: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    frequencies: npt.NDArray[np.int64],
    doc_vectors: npt.NDArray[np.float32],
    *,
    threads: int = 1,
) -> npt.NDArray[np.float64]:
    """The presence and topic weights of all words, from how well the documents of each word agree.

    The formulas are in the module's docstring. The sums of directions are made for one slice of the vocabulary at a
    time, each in one pass over the text, which bounds the memory. Of a frequent word a random sample of about 1,024
    documents is summed, which gives r^2 to .0002.

    Args:
        tokens: int32 (n_tokens,).
        offsets: int64 (n_documents + 1,).
        frequencies: int64 (n_words,), the number of documents of each word, see
            :func:`~jose_embed.compute.cpu.directions.count_documents`.
        doc_vectors: float32 (n_documents, dim), rows of norm 1, padded with zeros or not; rows of documents without a
            word are ignored.
        threads: The most slices that are summed at a time; the bytes are the same.

    Returns:
        float64 (n_words, 2): presence, above 0, and topic, at least 0.
    """
    n_words, dim = len(frequencies), doc_vectors.shape[1]
    total, n_documents = direction_sum(offsets, doc_vectors)
    at_once = words_at_once(n_words, dim)
    n_threads = slice_threads(len(tokens), threads)
    slices = WordSums(
        tokens, offsets, doc_vectors, total / max(1, n_documents), frequencies, readers=n_threads
    )  # fmt: skip
    squares, n_summed = np.zeros(n_words), np.zeros(n_words, np.int64)
    tables: list[npt.NDArray[np.float32]] = []

    def sum_slice(begin: int, stopped: threading.Event) -> None:
        table = tables.pop() if tables else anonymous_pages(at_once * dim, np.float32).reshape(at_once, dim)
        some = slice(begin, min(begin + at_once, n_words))
        sums = table[: some.stop - begin]
        if slices.write(begin, sums, n_summed[some], stopped):
            squares[some] = squared_lengths(sums)
        tables.append(table)

    run_parts(sum_slice, range(0, n_words, at_once), n_threads)
    return weights_of_sums(squares, n_summed, frequencies, n_documents)


def slice_threads(n_tokens: int, threads: int) -> int:
    """How many slices of the vocabulary are worth summing at a time, at most ``threads``."""
    return max(1, min(threads, _MOST_THREADS, n_tokens // _WORTH_A_THREAD))


def words_at_once(n_words: int, dim: int) -> int:
    """The size of a slice of the vocabulary whose sums of directions are made in one pass over the text."""
    return min(n_words, max(1, _SUM_FLOATS // dim, n_words // _MOST_SLICES))


def squared_lengths(sums: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """float64 (n,): the squared lengths of rows, float32 (n, dim)."""
    squares: npt.NDArray[np.float64] = np.einsum("ij,ij->i", sums, sums, dtype=np.float64)
    return squares


def weights_of_sums(
    squares: npt.NDArray[np.float64],
    n_summed: npt.NDArray[np.int64],
    frequencies: npt.NDArray[np.int64],
    n_documents: int,
) -> npt.NDArray[np.float64]:
    """The presence and topic weights of all words, from the sums of their documents' directions.

    Args:
        squares: float64 (n_words,), squared lengths of the sums.
        n_summed: int64 (n_words,), directions in each sum.
        frequencies: int64 (n_words,), the number of documents of each word.
        n_documents: Documents with at least one word.

    Returns:
        float64 (n_words, 2), as :func:`concentration_weights`.
    """
    pairs = np.maximum(n_summed * (n_summed - 1), 1)
    agreement = np.clip((squares - n_summed) / pairs, 0.0, 1.0)
    m = float(np.average(agreement, weights=frequencies))
    topic = agreement * (_MOST_TOPIC * m**5 / (m**6 + _HALF_TOPIC**6))
    rarity = 1 - frequencies / (n_documents + 1)
    presence = rarity / np.average(rarity, weights=frequencies)
    known = frequencies[:, None] / (frequencies[:, None] + [_PRESENCE_PRIOR, _TOPIC_PRIOR])
    weights: npt.NDArray[np.float64] = np.stack([presence, topic], axis=1) * known
    return weights


def direction_sum(
    offsets: npt.NDArray[np.int64], doc_vectors: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float64], int]:
    """The sum of the vectors of documents with words, float64 (dim,), and the number of these documents."""
    total = np.zeros(doc_vectors.shape[1])
    has_words = np.diff(offsets) > 0
    for start in range(0, len(doc_vectors), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        total += doc_vectors[rows][has_words[rows]].sum(0, dtype=np.float64)
        release(doc_vectors[rows])
    return total, int(np.count_nonzero(has_words))


class WordSums:
    """Sums of the centered directions of the documents of each word, of a text or of one machine's part of it.

    Args:
        tokens: int32 (n_tokens,).
        offsets: int64 (n_documents + 1,).
        doc_vectors: float32 (n_documents, dim).
        mean: float64 (dim,), the mean vector of all documents with words of the whole text.
        frequencies: int64 (n_words,), the number of documents of each word in the whole text.
        first_document: The number of the first document in the whole text.
        readers: How many slices are summed at the same time.
    """

    def __init__(
        self,
        tokens: npt.NDArray[np.int32],
        offsets: npt.NDArray[np.int64],
        doc_vectors: npt.NDArray[np.float32],
        mean: npt.NDArray[np.float64],
        frequencies: npt.NDArray[np.int64],
        *,
        first_document: int = 0,
        readers: int = 1,
    ) -> None:
        self._text, self._vectors, self._first, self._readers = (tokens, offsets), doc_vectors, first_document, readers
        self._mean = mean.astype(np.float32)
        self._scales = np.empty(len(doc_vectors), np.float32)  # 1 / |z - mean| of all vectors z
        for start in range(0, len(doc_vectors), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            # A document in the mean direction has no centered direction; the bound keeps its scale finite.
            self._scales[rows] = 1 / np.maximum(np.linalg.norm(doc_vectors[rows] - mean, axis=1), 1e-6)
            release(doc_vectors[rows])
        self._limits = np.minimum(_MOST_SUMMED / np.maximum(frequencies, 1) * 2.0**32, 2.0**32).astype(np.uint64)

    def write(
        self,
        begin: int,
        sums: npt.NDArray[np.float32],
        n_summed: npt.NDArray[np.int64],
        stopped: threading.Event | None = None,
    ) -> bool:
        """Sum the directions for a slice of the vocabulary, in one pass over the text.

        Args:
            begin: The first word.
            sums: float32 (n, dim), written in place.
            n_summed: int64 (n,), zeros; receives the number of directions in each sum.
            stopped: Ends the pass early if it is set.

        Returns:
            Whether the pass was complete.
        """
        sums[:] = 0
        one = np.zeros(sums.shape[1], np.float32)
        limits, last_seen = self._limits[begin : begin + len(sums)], np.full(len(sums), -1, np.int64)
        for first, words, ends in stretches(*self._text, self._readers):
            if stopped is not None and stopped.is_set():
                return False
            _add_directions(
                words, ends, first, begin, self._first, self._vectors, self._mean, self._scales, limits, last_seen,
                one, sums, n_summed,
            )  # fmt: skip
            release(self._vectors[first : first + len(ends) - 1])
        return True


@jit
def _add_directions(
    words: Any, ends: Any, first: Any, begin: Any, first_document: Any, vectors: Any, mean: Any, scales: Any,
    limits: Any, last_seen: Any, one: Any, sums: Any, n_summed: Any,
) -> None:  # fmt: skip
    # Adds the centered direction of each document to the sums of its different words, those with limits above 32 random
    # bits of the document. first is the row of the first document, which is number first + first_document of the whole
    # text; begin is the word of the first row of sums; one is work space for one direction.
    n_rows, dim = np.uint64(last_seen.shape[0]), one.shape[0]
    for place in range(ends.shape[0] - 1):
        document = first + place
        bits = random_bits(np.uint64(0), document + first_document) >> np.uint64(32)
        ready = False
        for t in range(ends[place], ends[place + 1]):
            row = np.uint64(words[t] - begin)  # a huge number for a word before the slice
            if row < n_rows and bits < limits[row] and last_seen[row] != document:
                last_seen[row] = document
                n_summed[row] += 1
                if not ready:
                    ready = True
                    for c in range(dim):
                        one[c] = (vectors[document, c] - mean[c]) * scales[document]
                for c in range(dim):
                    sums[row, c] += one[c]


def reliability_matrix(
    tokens: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], dim: int, width: int, power: float, write: Writer
) -> npt.NDArray[np.float64]:
    """The matrix that scales each axis of document directions by a power of its reliability.

    Args:
        tokens: int32 (n_tokens,), may be mapped.
        offsets: int64 (n_documents + 1,).
        dim: Dimension of the vectors.
        width: Columns, padding included, of the rows that ``write`` fills.
        power: Exponent of the reliability, at least 0.
        write: Writes the directions of documents without a matrix, as
            :func:`~jose_embed.compute.backends.directions_writer` returns it.

    Returns:
        float64 (dim, dim), symmetric; the identity if fewer than two documents have two different words.

    Example::

        write = directions_writer("cpu", inputs)  # without a matrix
        matrix = reliability_matrix(corpus.tokens, corpus.offsets, 100, 100, 1.5, write)
    """
    chosen = sampled_documents(len(offsets) - 1)
    return reliability_of(half_sums(tokens, offsets, chosen, dim, width, write), power)


class HalfSums(NamedTuple):
    """Sums over documents of which both halves have a direction: what the reliability of axes is computed from.

    Attributes:
        n: The number of these documents.
        sums: float64 (2, dim), the sum of the directions of each half.
        own: float64 (dim, dim), products of the halves with themselves, both added.
        crossed: float64 (dim, dim), products of the first halves with the second.
    """

    n: int
    sums: npt.NDArray[np.float64]
    own: npt.NDArray[np.float64]
    crossed: npt.NDArray[np.float64]


def half_sums(
    tokens: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    chosen: npt.NDArray[np.int64],
    dim: int,
    width: int,
    write: Writer,
    first_document: int = 0,
) -> HalfSums:
    """Halve the chosen documents of a text, or of one machine's part of it, and sum what their halves are.

    Args:
        tokens: int32 (n_tokens,), may be mapped.
        offsets: int64 (n_documents + 1,).
        chosen: int64, rows of documents, ascending.
        dim: Dimension of the vectors.
        width: Columns, padding included, of the rows that ``write`` fills.
        write: Writes the directions of documents without a matrix.
        first_document: The number of the first document in the whole text.
    """
    chosen = chosen[offsets[chosen + 1] - offsets[chosen] > 1]
    n, sums = 0, np.zeros((2, dim))
    own, crossed = np.zeros((dim, dim)), np.zeros((dim, dim))
    blocks = [chosen[start : start + _BLOCK_DOCUMENTS] for start in range(0, len(chosen), _BLOCK_DOCUMENTS)]
    for some in (blocks[start : start + _BLOCKS_MULTIPLIED] for start in range(0, len(blocks), _BLOCKS_MULTIPLIED)):
        halves = np.concatenate(
            [
                _halves(*gathered(tokens, offsets, block), block + first_document, width, write)[:, :, :dim]
                for block in some
            ],
            axis=1,
        )
        n += len(halves[0])
        sums += halves.sum(1)
        own += halves[0].T @ halves[0] + halves[1].T @ halves[1]
        crossed += halves[0].T @ halves[1]
    return HalfSums(n, sums, own, crossed)


def reliability_of(halves: HalfSums, power: float) -> npt.NDArray[np.float64]:
    """The matrix of :func:`reliability_matrix`, from the sums over all documents of the sample."""
    n, sums, dim = halves.n, halves.sums, len(halves.own)
    if n < 2:
        return np.eye(dim)
    means = sums / n
    own = halves.own - n * means.T @ means
    crossed = halves.crossed - n * np.outer(*means)
    spread, axes = np.linalg.eigh(own / 2)
    agreement = (axes * (crossed @ axes)).sum(0)
    r = np.clip(agreement / np.maximum(spread, 1e-12 * n), _LEAST_RELIABILITY, 1)
    reliability = (n * 2 * r / (1 + r) + dim) / (n + dim)
    matrix: npt.NDArray[np.float64] = (axes * reliability**power) @ axes.T
    return matrix


def sampled_documents(n_documents: int) -> npt.NDArray[np.int64]:
    """The documents of a whole text that are halved, ascending: all, or a random sample of a large text."""
    return np.arange(n_documents) if n_documents < _MOST_DOCUMENTS else _sample(n_documents)


def _sample(n_documents: int) -> npt.NDArray[np.int64]:
    """A random sample of rows, ascending; every nth row could fall in step with the structure of a file."""
    return np.unique(np.random.default_rng(0).integers(0, n_documents, _MOST_DOCUMENTS))


def _halves(
    words: npt.NDArray[np.int32],
    ends: npt.NDArray[np.int64],
    documents: npt.NDArray[np.int64],
    width: int,
    write: Writer,
) -> npt.NDArray[np.float64]:
    """float64 (2, n, width): the directions of both halves, for the documents of which both halves have one."""
    second = _in_second_half(words, np.repeat(documents, np.diff(ends)))
    directions = np.zeros((2, len(documents), width), np.float32)
    for half, mask in enumerate((~second, second)):
        write(words[mask], np.concatenate(([0], np.cumsum(mask)))[ends], directions[half])
    both = directions.any(axis=2).all(axis=0)
    return directions[:, both].astype(np.float64)


def _in_second_half(words: npt.NDArray[np.int32], documents: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """bool (n_tokens,): which running words belong to the second half; all occurrences of a word in a document agree.

    The half is one bit of a hash of word and document.
    """
    keys = words.astype(np.uint64) * np.uint64(GOLDEN) + documents.astype(np.uint64)
    second: npt.NDArray[np.bool_] = (mixed_bits(keys) >> np.uint64(63)).astype(np.bool_)
    return second
