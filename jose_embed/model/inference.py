"""Vectors for documents: the same computation for those of the training and for new ones.

A document is a sample of directions, the vectors of its known words. With a weight for each word, its direction
is the point of the sphere that minimises the document's objective with the word table frozen,

    d = argmin_{|d| = 1}  sum_w weight(w) (1 - cos(u_w, d))  =  R / |R|,    R = sum_w weight(w) u_w,

which is the maximum-likelihood mean direction of a von Mises-Fisher distribution (Mardia and Jupp, Directional
Statistics, section 10.3). There is nothing to iterate and nothing random.

In training a word is explained by its document and by the words around it together, so that u_w holds of both, and a
model may have given it some of its context vector c_w on top. For documents that is taken away again: where a model has
a context share s, u_w - s c_w takes the place of u_w. The weight of a word is

    weight(w) = presence(w) + topic(w) (1 + log tf(w)),

tf the word's occurrences in the document. What a word says by standing there at all it says once, and words of few
documents say more of it; what it says of the topic grows with its occurrences, and with how well the training documents
agree that hold the word. directions.py has both parts.

The words of a document are a sample, and along some axes of the space chance moves R more than what the document is
about. Where a model has a matrix A of the axes' reliability (reliability.py), A R takes the place of R.

Sums run in float64 over the words in the order of their first occurrence, each product rounded before it is added, in
both implementations: NumPy for a few texts, a kernel for a corpus. So a text has the same bytes alone, in any batch, in
any process, and as a line of the training file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from jose_embed.compute.backends import Writer, directions_writer
from jose_embed.compute.tables import DocumentInputs
from jose_embed.errors import ModelError, NoKnownWordsError
from jose_embed.text.tokenizers import CodePointTokenizer, get_tokenizer, valid_text
from jose_embed.text.word_table import Rows, VocabularyLookup

if TYPE_CHECKING:
    from jose_embed.model.embeddings import Embeddings

__all__ = [
    "CONTEXT_SHARE",
    "DOCUMENT_MATRIX",
    "NO_MATRIX",
    "TERM_WEIGHTS",
    "WORD_WEIGHTS",
    "Flagged",
    "Inferred",
    "context_share",
    "document_matrix",
    "infer",
    "infer_detailed",
    "infer_flagged",
    "mean_direction",
    "word_as_document",
    "word_weights",
    "writer",
]

Vectors = npt.NDArray[np.float32]

#: In the place of a matrix where there is none.
NO_MATRIX = np.empty((0, 0))

#: A text: a string for the model's tokenizer, or its tokens.
Text = str | Sequence[str]


class Inferred(NamedTuple):
    """What is known of one text.

    Attributes:
        vector: float32 (dim,), norm 1; None where no word is known.
        n_tokens: Running words of the text.
        known: int64, the different known words as rows of the vocabulary, in the order of the text.
        counts: int64, how often each of them occurs.
        weights: float64, the weight of each of them in the vector.
        unknown: The different unknown words, in the order of the text.
        concentration: Mean resultant length of the known words, weighted: 1 when they all point one way, 0 when they
            lie all over the sphere.
    """

    vector: Vectors | None
    n_tokens: int
    known: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    unknown: tuple[str, ...]
    concentration: float

    @property
    def n_known(self) -> int:
        """Running words that the vocabulary holds."""
        return int(self.counts.sum())

    @property
    def coverage(self) -> float:
        """The share of the running words that is known; 0 for a text without words."""
        return self.n_known / self.n_tokens if self.n_tokens else 0.0


class Flagged(NamedTuple):
    """The directions of a batch of texts.

    Attributes:
        vectors: float32 (n_texts, dim), norm 1; the :func:`mean_direction` where ``known`` is False.
        known: bool (n_texts,): whether the text has a direction of its own.
    """

    vectors: Vectors
    known: npt.NDArray[np.bool_]


def infer(model: Embeddings, texts: Iterable[Text], *, backend: str = "cpu") -> Vectors:
    """The directions of texts.

    Args:
        model: The model.
        texts: Any texts, of any length, to which the model's own tokenizer is applied; or lists of tokens, texts that
            are split already (a token with whitespace in it is several).
        backend: "cpu"; "gpu" for a CUDA device, which pays for very many texts; "auto" for the device where there is
            one and the texts are many. The vectors are the same.

    Returns:
        float32 (len(texts), dim), rows of norm 1; the same bytes for the same text, whatever stands beside it.

    Raises:
        NoKnownWordsError: a text without a known word; :func:`infer_flagged` takes such ones.
        MissingExtraError, DeviceError: the backend "gpu" without CuPy, or without a device that has room for the words.

    Example::

        model.infer(["the first text", "another"])
        model.infer([["the", "first", "text"], ["another"]])
    """
    listed = _listed(texts, "infer")
    vectors, known = _directions_of(model, listed, backend)
    if not known.all():
        row = int(known.argmin())
        raise NoKnownWordsError(_no_known_words(row, _inferred(model, listed[row])))
    return vectors


def infer_flagged(model: Embeddings, texts: Iterable[Text], *, backend: str = "cpu") -> Flagged:
    """The directions of texts of which some may have no known word; arguments as for :func:`infer`.

    Example::

        vectors, known = model.infer_flagged(texts)
    """
    vectors, known = _directions_of(model, _listed(texts, "infer_flagged"), backend)
    if not known.all():
        vectors[~known] = mean_direction(model)
    return Flagged(vectors, known)


def infer_detailed(model: Embeddings, texts: Iterable[Text], *, most_unknown: int | None = None) -> list[Inferred]:
    """The directions of texts and what they were made of; never an error: see :class:`Inferred`.

    Args:
        model: The model.
        texts: Any texts, or lists of tokens.
        most_unknown: Name only so many of a text's unknown words, the first ones; None for all.
    """
    return [_inferred(model, text, most_unknown) for text in _listed(texts, "infer_detailed")]


def word_weights(model: Embeddings) -> npt.NDArray[np.float64]:
    """float64 (n_words, 2): how much each word counts in the direction of a text, by its presence and for its topic.

    The first column is for a word that stands in the text, the second goes with 1 + log tf. The sum of both is above 0.
    A model that was made without such weights takes the logarithm of the inverse frequency of its words for the second.

    Raises:
        ModelError: the model's weights are of another shape.
    """
    kept = model.extra_arrays.get(WORD_WEIGHTS)
    if kept is None:
        return topic_alone(np.log((int(model.counts.sum()) + 1) / model.counts.astype(np.float64)))
    if kept.shape != (model.n_words, 2):
        raise ModelError(
            f"{WORD_WEIGHTS} has the shape {kept.shape}; to fit the words it must be {(model.n_words, 2)}; train again"
        )
    return np.asarray(kept, np.float64)


def document_matrix(model: Embeddings) -> npt.NDArray[np.float64]:
    """float64 (dim, dim): what sums of word vectors are multiplied with to be documents; (0, 0) where that is nothing.

    Raises:
        ModelError: the model's matrix is of another shape.
    """
    kept = model.extra_arrays.get(DOCUMENT_MATRIX)
    if kept is None:
        return NO_MATRIX
    if kept.shape != (model.dim, model.dim):
        raise ModelError(
            f"{DOCUMENT_MATRIX} has the shape {kept.shape}; to fit the vectors it must be {(model.dim, model.dim)}"
        )
    return np.asarray(kept, np.float64)


def context_share(model: Embeddings) -> float:
    """How much of its context vector is taken from each word's vector where words make a document.

    Raises:
        ModelError: the model has no such number where it should.
    """
    kept = model.extra_arrays.get(CONTEXT_SHARE)
    if kept is None:
        return 0.0
    if kept.shape != () or not np.isfinite(kept):
        raise ModelError(f"{CONTEXT_SHARE} is {kept!r}; it must be one finite number; train again")
    return float(kept)


def word_as_document(model: Embeddings, row: int) -> npt.NDArray[np.float32]:
    """The direction among documents of a word, that of a text of it alone: float32 (dim,), norm 1.

    Args:
        model: The model.
        row: The word's row of the vocabulary.

    Example::

        word_as_document(model, model.index_of("film"))
    """
    _, given = _vectors_of(model, slice(row, row + 1))
    return _unit(_turned(document_matrix(model), given[0]))[0]


def writer(model: Embeddings, backend: str) -> Writer:
    """What writes the directions of documents by a model; see :func:`jose_embed.compute.backends.directions_writer`."""
    return directions_writer(
        backend,
        DocumentInputs(
            _weights_of(model),
            TERM_WEIGHTS,
            model.center_vectors,
            model.context_vectors,
            context_share(model),
            document_matrix(model),
        ),
    )


def mean_direction(model: Embeddings) -> npt.NDArray[np.float32]:
    """The direction of all running words of the training text: what a document is like of which nothing is known.

    The mean direction over what the words give to documents, each as often as it occurs: float32 (dim,), norm 1.
    """
    total = np.zeros(model.dim)
    for start in range(0, model.n_words, _BLOCK):
        counts = model.counts[start : start + _BLOCK, None].astype(np.float64)
        total += np.add.reduce(counts * _vectors_of(model, slice(start, start + _BLOCK))[1], axis=0)
    if not total.any():  # opposite vectors in equal numbers
        total = model.center_vectors[0].astype(np.float64)
    return _unit(_turned(document_matrix(model), total))[0]


_WHITESPACE = get_tokenizer("whitespace")  # of lists of tokens
_AT_ONCE = 1 << 22  # characters of text that are taken at a time
_WORTH_COMPILING = 1 << 22  # so many of them take longer than the compiler does
_BLOCK = 4096  # different words of a text whose vectors are converted to float64 at a time
_COUNTED = 8192  # words that are counted at a time, a millisecond
_TABLES = 64  # that the different words of a long text are spread over

#: The names under which a model keeps its words' weights, its documents' matrix and its context share.
WORD_WEIGHTS, DOCUMENT_MATRIX, CONTEXT_SHARE = "word_weights", "document_matrix", "context_share"

#: 1 + log(tf) for tf from 0 (unused) to 65,535; a word that occurs more often counts as the last.
TERM_WEIGHTS = 1 + np.log(np.maximum(np.arange(1 << 16), 1).astype(np.float64))


def _listed(texts: Iterable[Text], function: str) -> Sequence[Text]:
    if isinstance(texts, str):
        raise TypeError(f"{function}() takes a list of texts; for a single one write {function}([text])")
    listed: Sequence[Text] = texts if hasattr(texts, "__getitem__") else list(texts)  # type: ignore[assignment]
    for number, text in enumerate(listed, 1):
        if not isinstance(text, str) and (isinstance(text, bytes) or not isinstance(text, Collection)):
            kind = type(text).__name__
            raise TypeError(f"{function}(): text {number} is of type {kind}; it must be a string or a list of tokens")
    return listed


def _directions_of(model: Embeddings, texts: Sequence[Text], backend: str) -> tuple[Vectors, npt.NDArray[np.bool_]]:
    """The directions of texts, anything where there is none, and which have one."""
    out = np.full((len(texts), model.dim), np.nan, np.float32)
    if backend in ("cpu", "auto") and sum(map(_size, texts)) < _WORTH_COMPILING:
        for row, text in enumerate(texts):
            found = _inferred(model, text)
            if found.vector is not None:
                out[row] = found.vector
    else:
        _write_together(model, texts, backend, out)
    return out, ~np.isnan(out[:, 0])


def _size(text: Text) -> int:
    """Characters, about."""
    return len(text) if isinstance(text, str) else 6 * len(text)


def _write_together(model: Embeddings, texts: Sequence[Text], backend: str, out: Vectors) -> None:
    """Write the directions of many texts by the compiled ways of the training, some megabytes at a time."""
    write = writer(model, backend)
    compiled = isinstance(model.tokenizer, CodePointTokenizer)
    # Made where they are needed: each takes 20 ms.
    of_strings = cache(lambda: VocabularyLookup(model.tokenizer, model.index_of))
    of_tokens = cache(lambda: VocabularyLookup(_WHITESPACE, model.index_of))
    ends = np.cumsum([_size(text) for text in texts])
    start = 0
    while start < len(texts):
        end = max(start + 1, int(np.searchsorted(ends, ends[start] + _AT_ONCE)))
        some = texts[start:end]
        strings = [text for text in some if isinstance(text, str)]
        if not strings:
            found = of_tokens().of_texts([" ".join(tokens) for tokens in some])
        elif compiled and len(strings) == len(some):
            found = of_strings().of_texts(strings)
        else:
            lists = [_tokens(model, text) for text in some]
            found = Rows.of(model.rows_of(chain.from_iterable(lists)), np.cumsum([len(tokens) for tokens in lists]))
        write(found.rows, found.offsets, out[start:end])
        start = end


def _tokens(model: Embeddings, text: Text) -> Sequence[str]:
    if isinstance(text, str):
        return model.tokenizer(valid_text(text))
    return _WHITESPACE(valid_text(" ".join(text)))


def _word_counts(tokens: Sequence[str]) -> Iterable[tuple[str, int]]:
    """The different words, each with the number of its occurrences, in the order of the first ones."""
    return Counter(tokens).items() if len(tokens) <= _COUNTED else _many_word_counts(tokens)


def _many_word_counts(tokens: Sequence[str]) -> Iterator[tuple[str, int]]:
    """The same in pieces, and in many small tables: one that holds a million words holds the interpreter's lock for 14
    ms when it grows, and for 5 when it is let go."""
    tables: list[dict[str, int]] = [{} for _ in range(_TABLES)]
    order: list[str] = []
    for first in range(0, len(tokens), _COUNTED):
        for word, count in Counter(tokens[first : first + _COUNTED]).items():
            table = tables[_table(word)]
            if word in table:
                table[word] += count
            else:
                table[word] = count
                order.append(word)
    for word in order:
        yield word, tables[_table(word)][word]
    while order:
        del order[-_COUNTED:]
    while tables:
        tables.pop()


def _table(word: str) -> int:
    return (hash(word) >> 32) % _TABLES  # the table itself looks at the lower bits


def _inferred(model: Embeddings, text: Text, most_unknown: int | None = None) -> Inferred:
    tokens = _tokens(model, text)
    rows: list[int] = []
    counts: list[int] = []
    unknown: list[str] = []
    for word, count in _word_counts(tokens):
        row = model.index_of(word)
        if row is None:
            if most_unknown is None or len(unknown) < most_unknown:
                unknown.append(word)
        else:
            rows.append(row)
            counts.append(count)
    known, known_counts = np.array(rows, np.int64), np.array(counts, np.int64)
    presence, topic = _weights_of(model)[known].T
    weights = presence + topic * TERM_WEIGHTS[np.minimum(known_counts, len(TERM_WEIGHTS) - 1)]
    vector, concentration = None, 0.0
    if rows:
        total, of_words = np.zeros(model.dim), np.zeros(model.dim)
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            vectors, given = _vectors_of(model, known[block])
            of_words += weights[block] @ vectors
            products = weights[block, None] * given
            # Row after row, as the kernel does: a sum along the first axis takes no other order.
            total = np.add.reduce(np.concatenate((total[None], products)), axis=0)
        found, length = _unit(_turned(document_matrix(model), total))
        if length > 0:
            vector = found
            concentration = min(1.0, float(np.linalg.norm(of_words)) / float(weights.sum()))
    return Inferred(vector, len(tokens), known, known_counts, weights, tuple(unknown), concentration)


def _vectors_of(
    model: Embeddings, rows: npt.NDArray[np.int64] | slice
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The vectors of words, and what they give to a document before it is weighed."""
    vectors, share = model.center_vectors[rows].astype(np.float64), context_share(model)
    return vectors, vectors - share * model.context_vectors[rows].astype(np.float64) if share else vectors


def topic_alone(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """float64 (n_words, 2): weights of words by their topic only; their presence has the weight 0."""
    return np.stack([np.zeros(len(weights)), weights], axis=1)


def _weights_of(model: Embeddings) -> npt.NDArray[np.float64]:
    kept = _kept_weights.get(model)
    if kept is None:
        kept = _kept_weights[model] = word_weights(model)
    return kept


def _turned(matrix: npt.NDArray[np.float64], total: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if not len(matrix):
        return total
    products = total[:, None] * matrix
    # Row after row and from zero, as the kernel does.
    turned: npt.NDArray[np.float64] = np.add.reduce(np.concatenate((np.zeros((1, len(total))), products)), axis=0)
    return turned


def _unit(total: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float32], float]:
    """A vector with norm 1, and the norm it had; where that is 0, the vector itself."""
    length = float(np.sqrt(np.cumsum(total * total)[-1]))
    return (total / length if length > 0 else total).astype(np.float32), length


_kept_weights: WeakKeyDictionary[Embeddings, npt.NDArray[np.float64]] = WeakKeyDictionary()


def _no_known_words(row: int, found: Inferred) -> str:
    words = ", ".join(repr(word) for word in found.unknown[:5])
    what = (
        f"its words are unknown: {words}" + (", ..." if len(found.unknown) > 5 else "") if words else "it has no words"
    )
    return f"text {row + 1} has no direction: {what}; give a text with words of the training"
