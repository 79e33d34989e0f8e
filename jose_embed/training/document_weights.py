"""What a training learns about its documents: the weights of words, and the reliability of the space's axes.

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

A document is a sample of words, and another sample of the same document has another direction. How much of a direction
is the document and how much is the sample is seen by halves: its different words are dealt out to two halves, each gets
its own direction, centered, and along each principal axis of these the two halves of all documents have a correlation
r. That of two whole samples follows by the formula of Spearman and Brown, 2 r / (1 + r), the axis's reliability. The
matrix of :func:`reliability_matrix` scales every axis by a power of it: the first is the best linear guess of what is
behind an observation, higher ones look for what is coarser. Few documents say little about an axis: n of them count as
n beside ``dim`` documents that agree.

Source: Mardia and Jupp, Directional Statistics, section 9.2, for the resultant length; that words are weighted by it is
our own (DESIGN.md, decision 12).
Spearman, Correlation calculated from faulty data, and Brown, Some experimental results in the correlation of
mental abilities (both 1910), for the formula; Kelley, Interpretation of educational measurements (1927), for the guess;
DESIGN.md, decisions 33 and 38, for what it does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from jose_embed.compute.backends import directions_writer
from jose_embed.compute.cpu.directions import count_documents
from jose_embed.compute.documents import gathered, stretches
from jose_embed.compute.jit import jit
from jose_embed.compute.sampling import GOLDEN, mixed_bits
from jose_embed.compute.tables import DocumentInputs
from jose_embed.model.inference import Vectors, _topic_alone
from jose_embed.storage.memory import anonymous_pages, release

if TYPE_CHECKING:
    from jose_embed.compute.tables import DocumentInputs
    from jose_embed.text.corpus import EncodedCorpus

__all__ = [
    "concentration_weights",
    "document_directions",
    "document_frequencies",
    "learned_weights",
    "reliability_matrix",
    "retrieval_weights",
]

_SUMS = 1 << 20  # floats in the table of sums of directions, a row for each word of a slice


_MOST_SLICES = 64


_BLOCK = 1 << 10  # rows that are converted to float64 at a time: what they take fits into the heap's gaps


# DESIGN.md, decisions 12 and 38, has the evidence for all four.
_MOST_TOPIC = 4.0  # what topics count, beside the presence of words, where documents agree very well


_HALF_TOPIC = 0.08  # the mean agreement at which they count half of that


_PRESENCE_PRIOR, _TOPIC_PRIOR = 20, 5  # documents that a word must have to count half of what it says


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
    table = anonymous_pages(at_once * dim, np.float32).reshape(at_once, dim)
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


def retrieval_weights(corpus: EncodedCorpus, frequencies: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """float64 (n_words, 2): 0 and log(N / n), the weights of text retrieval, for words of n of N documents.

    N + 1 stands in the place of N: a word of every document counts next to nothing, but a text of such words has a
    direction.
    """
    return _topic_alone(np.log((corpus.n_with_words + 1) / np.maximum(frequencies, 1)))


def learned_weights(
    corpus: EncodedCorpus, frequencies: npt.NDArray[np.int64], doc_vectors: Vectors
) -> npt.NDArray[np.float64]:
    """float64 (n_words, 2): the weights of a corpus's words, see :func:`word_weights`, as directions.py has them.

    Args:
        corpus: The encoded text.
        frequencies: int64 (n_words,), see :func:`document_frequencies`.
        doc_vectors: float32 (n_documents, dim or more), on the sphere: trained, or directions by other weights. Columns
            of zeros beyond dim change nothing.
    """
    return concentration_weights(corpus.tokens, corpus.offsets, frequencies, doc_vectors)


def document_frequencies(corpus: EncodedCorpus) -> npt.NDArray[np.int64]:
    """int64 (n_words,): the number of documents that each word of the vocabulary occurs in."""
    return count_documents(corpus.tokens, corpus.offsets, corpus.vocabulary.n_words)


def document_directions(
    corpus: EncodedCorpus, inputs: DocumentInputs, out: Vectors, *, backend: str = "cpu", threads: int = 1
) -> None:
    """Write the directions of a corpus's documents; a document without a word keeps its row.

    Args:
        corpus: The encoded text.
        inputs: The words' weights (:func:`learned_weights`) and vectors. Columns of zeros beyond dim change nothing;
            contiguous rows are twice as fast as a view of padded ones.
        out: float32 (n_documents, as many columns as the vectors), written in place.
        backend: "cpu", "gpu" or "auto"; the bytes are the same.
        threads: That work on it at the most, on the processor.
    """
    directions_writer(backend, inputs, threads=threads)(corpus.tokens, corpus.offsets, out)


_MOST_DOCUMENTS = 20_000  # that are looked at, about


_AT_ONCE = 256  # of them, so that their halves take little memory


_LEAST = 0.01  # reliability of an axis along which the halves do not agree at all


Writer = Callable[[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.float32]], None]


def reliability_matrix(
    tokens: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], dim: int, width: int, power: float, write: Writer
) -> npt.NDArray[np.float64]:
    """float64 (dim, dim), symmetric: what directions of documents are multiplied with, before they get norm 1.

    Args:
        tokens: int32 (n_tokens,), the words of all documents, possibly mapped.
        offsets: int64 (n_documents + 1,).
        dim: Columns of a direction.
        width: The same with the padding that ``write`` expects.
        power: Of the reliability, from 0 up.
        write: Writes the directions of documents, as :func:`jose_embed.compute.backends.directions_writer` returns it.

    Example::

        write = directions_writer("cpu", inputs)  # without a matrix
        matrix = reliability_matrix(corpus.tokens, corpus.offsets, 100, 100, 1.5, write)
    """
    chosen = np.arange(len(offsets) - 1) if len(offsets) <= _MOST_DOCUMENTS else _some(len(offsets) - 1)
    chosen = chosen[offsets[chosen + 1] - offsets[chosen] > 1]
    n, sums = 0, np.zeros((2, dim))
    own, crossed = np.zeros((dim, dim)), np.zeros((dim, dim))
    for start in range(0, len(chosen), _AT_ONCE):
        some = chosen[start : start + _AT_ONCE]
        halves = _halves(*gathered(tokens, offsets, some), some, width, write)[:, :, :dim]
        n += len(halves[0])
        sums += halves.sum(1)
        own += halves[0].T @ halves[0] + halves[1].T @ halves[1]
        crossed += halves[0].T @ halves[1]
    if n < 2:
        return np.eye(dim)
    means = sums / n
    own -= n * means.T @ means
    crossed -= n * np.outer(*means)
    spread, axes = np.linalg.eigh(own / 2)
    agreement = (axes * (crossed @ axes)).sum(0)
    r = np.clip(agreement / np.maximum(spread, 1e-12 * n), _LEAST, 1)
    reliability = (n * 2 * r / (1 + r) + dim) / (n + dim)
    matrix: npt.NDArray[np.float64] = (axes * reliability**power) @ axes.T
    return matrix


def _some(n_documents: int) -> npt.NDArray[np.int64]:
    """Rows by chance, and not every nth: a file may be made of pairs."""
    return np.unique(np.random.default_rng(0).integers(0, n_documents, _MOST_DOCUMENTS))


def _halves(
    words: npt.NDArray[np.int32],
    ends: npt.NDArray[np.int64],
    documents: npt.NDArray[np.int64],
    width: int,
    write: Writer,
) -> npt.NDArray[np.float64]:
    """float64 (2, n, width): the directions of both halves of those documents whose halves both have one."""
    second = _dealt(words, np.repeat(documents, np.diff(ends)))
    directions = np.zeros((2, len(documents), width), np.float32)
    for half, mask in enumerate((~second, second)):
        write(words[mask], np.concatenate(([0], np.cumsum(mask)))[ends], directions[half])
    both = directions.any(axis=2).all(axis=0)
    return directions[:, both].astype(np.float64)


def _dealt(words: npt.NDArray[np.int32], documents: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether each running word belongs to the second half: all occurrences in a document to the same.

    By a hash of both numbers; in NumPy, because compiling it would take longer.
    """
    keys = words.astype(np.uint64) * np.uint64(GOLDEN) + documents.astype(np.uint64)
    second: npt.NDArray[np.bool_] = (mixed_bits(keys) >> np.uint64(63)).astype(np.bool_)
    return second
