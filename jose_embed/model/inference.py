"""Document vectors for new texts, by the same computation as for the documents of the training.

The words of a document are samples of directions. The document's direction minimises its part of the objective with the
word vectors fixed,

    d = argmin_{|d| = 1}  sum_w weight(w) (1 - cos(u_w, d))  =  R / |R|,    R = sum_w weight(w) u_w,

which is the maximum-likelihood mean direction of a von Mises-Fisher distribution (Mardia and Jupp, Directional
Statistics, section 10.3). It has a closed form: nothing is iterated and nothing is random.

Training explains a word by its document and by its neighbours together, so u_w contains both; ``word_method="both"``
also adds a part of the context vector c_w. The neighbours say little about a long document. A model with a context
share s therefore sums u_w - s c_w instead of u_w. The weight of a word is

    weight(w) = presence(w) + topic(w) (1 + log tf(w)),

where tf counts the word in the document. training/document_weights.py defines both parts and the reliability matrix A
of a model, which shrinks the axes along which a sample of words says little about its document: A R replaces R.

Sums run in float64 over the different words in the order of their first occurrence, and each product is rounded before
it is added, both here (NumPy, for few texts) and in the kernels (for a corpus). A text therefore gets the same bytes
alone, in any batch, in any process, and as a line of the training text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from jose_embed.compute.backends import Writer, directions_writer
from jose_embed.compute.cpu.directions import document_summands
from jose_embed.compute.tables import DocumentInputs
from jose_embed.errors import CorpusError, NoKnownWordsError
from jose_embed.model.lookup import WordLookup
from jose_embed.text.documents import listed_texts
from jose_embed.text.tokenizers import Tokenizer, code_point_rules, get_tokenizer, normalizing, valid_text
from jose_embed.text.word_table import Rows, VocabularyLookup, WordTable, word_table

Vectors = npt.NDArray[np.float32]

#: A text: a string for the model's tokenizer, or its tokens.
Text = str | Sequence[str]

#: Stands for "no reliability matrix".
NO_MATRIX: Final = np.empty((0, 0))

#: 1 + log(tf) for tf from 0 (unused) to 65,535; a more frequent word counts as the last.
TERM_WEIGHTS: Final = 1 + np.log(np.maximum(np.arange(1 << 16), 1).astype(np.float64))

_WHITESPACE: Final = get_tokenizer("whitespace")  # of texts that are lists of tokens
_BATCH_CHARACTERS: Final = 1 << 22  # characters of text that the kernel takes at a time
#: Characters of text from which on the compiled path is faster, its compilation included.
WORTH_COMPILING: Final = 1 << 22
_MOST_COMPOSED: Final = 1_000  # different unknown words of a text: each takes some microseconds for each n-gram
_BLOCK_WORDS: Final = 4096  # word vectors converted to float64 at a time


class Inferred(NamedTuple):
    """One text: its vector, and the words that it was made of.

    Attributes:
        vector: float32 (dim,), norm 1; None if no word is known and none can be composed.
        n_tokens: Running words of the text.
        known: int64, the different known words as rows of the vocabulary, in the order of the text.
        counts: int64, occurrences of each known word.
        weights: float64, weight of each known word in the vector.
        unknown: The different unknown words, in the order of the text.
        concentration: Weighted mean resultant length of the known words' vectors: 1 if all point in one direction, near
            0 if they are spread over the sphere.
        composed: Whether no word is known, and the vector is made of words composed of n-grams.
    """

    vector: Vectors | None
    n_tokens: int
    known: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    unknown: tuple[str, ...]
    concentration: float
    composed: bool = False

    @property
    def n_known(self) -> int:
        """Running words that are in the vocabulary."""
        return int(self.counts.sum())

    @property
    def coverage(self) -> float:
        """Share of the running words that are in the vocabulary; 0 for a text without words."""
        return self.n_known / self.n_tokens if self.n_tokens else 0.0


class Flagged(NamedTuple):
    """The vectors of a batch of texts.

    Attributes:
        vectors: float32 (n_texts, dim), norm 1. Where ``known`` is False it is composed of n-grams if the model has
            such, else the mean direction of the training text.
        known: bool (n_texts,): whether the text has a known word.
    """

    vectors: Vectors
    known: npt.NDArray[np.bool_]


@dataclass(eq=False, repr=False)
class DocumentEncoder:
    """Turns texts into document vectors.

    Args:
        center_vectors: float32 (n_words, dim), norm 1.
        context_vectors: float32 (n_words, dim), norm 1; not read if the context share is 0.
        counts: int64 (n_words,), occurrences in the training text; for the mean direction.
        word_weights: float64 (n_words, 2), presence and topic weight of each word.
        context_share: How much of its context vector is subtracted from each word vector.
        matrix: float64 (dim, dim), the reliability matrix, or :data:`NO_MATRIX`.
        lookup: The vocabulary and the tokenizer.

    Example:
        >>> from jose_embed.text.tokenizers import get_tokenizer
        >>> vectors = np.float32([[1, 0], [0, 1]])
        >>> encoder = DocumentEncoder(
        ...     vectors, vectors, np.array([2, 2]), np.ones((2, 2)), 0.0, NO_MATRIX,
        ...     WordLookup(["east", "north"], lambda: get_tokenizer("words")),
        ... )
        >>> encoder.infer(["North", "north and east"]).round(3).tolist()
        [[0.0, 1.0], [0.707..., 0.707...]]
    """

    center_vectors: Vectors
    context_vectors: Vectors
    counts: npt.NDArray[np.int64]
    word_weights: npt.NDArray[np.float64]
    context_share: float
    matrix: npt.NDArray[np.float64]
    lookup: WordLookup

    def __post_init__(self) -> None:
        self.n_words, self.dim = self.center_vectors.shape

    def infer(self, texts: Iterable[Text], *, backend: str = "cpu") -> Vectors:
        """The vectors of texts; see :func:`infer`."""
        listed = _listed(texts, "infer")
        vectors, _ = self._vectors_of_texts(listed, backend)
        nothing = np.isnan(vectors[:, 0])
        if nothing.any():
            row = int(nothing.argmax())
            raise NoKnownWordsError(_no_known_words(row, self._inferred(listed[row])))
        return vectors

    def infer_flagged(self, texts: Iterable[Text], *, backend: str = "cpu") -> Flagged:
        """The vectors of texts, some of which may have no known word; arguments as for :func:`infer`."""
        vectors, known = self._vectors_of_texts(_listed(texts, "infer_flagged"), backend)
        nothing = np.isnan(vectors[:, 0])
        if nothing.any():
            vectors[nothing] = self.mean_direction
        return Flagged(vectors, known)

    def infer_detailed(self, texts: Iterable[Text], *, most_unknown: int | None = None) -> list[Inferred]:
        """The vectors of texts with the words and weights behind them; a text without a known word is not an error.

        Args:
            texts: Strings or lists of tokens.
            most_unknown: Name at most this many unknown words of a text; None for all.
        """
        return [self._inferred(text, most_unknown) for text in _listed(texts, "infer_detailed")]

    def tokens(self, text: Text) -> Sequence[str]:
        """The words of a text, known or not, in order.

        Args:
            text: A string, which the model's tokenizer splits; or tokens, of which those with white space are several.
        """
        if isinstance(text, str):
            words = self.lookup.tokenizer(valid_text(text))
        else:
            words = self.of_tokens(valid_text(" ".join(text)))
        return words if self.lookup.joiner is None else self.lookup.joiner.joined(words)

    def document_rows(self, rows: slice) -> npt.NDArray[np.float64]:
        """float64 (n, dim): what words of the vocabulary add to a document's sum, without their weights: (u - s c) A.

        The document's vector is the direction of the sum of ``weights * document_rows``.
        """
        summands = self._summands(rows)[1]
        return summands @ self.matrix if len(self.matrix) else summands

    def word_as_document(self, row: int) -> Vectors:
        """The document vector of a text that is this one word: float32 (dim,), norm 1.

        Args:
            row: The word's row of the vocabulary.
        """
        return _unit(self._times_matrix(self._summands(slice(row, row + 1))[1][0]))[0]

    @cached_property
    def mean_direction(self) -> Vectors:
        """The vector of the whole training text, for texts of which nothing is known: float32 (dim,), norm 1.

        Each word counts as often as it occurs.
        """
        total = np.zeros(self.dim)
        for start in range(0, self.n_words, _BLOCK_WORDS):
            block = slice(start, start + _BLOCK_WORDS)
            counts = self.counts[block, None].astype(np.float64)
            total += np.add.reduce(counts * self._summands(block)[1], axis=0)
        if not total.any():  # the vectors cancel
            total = self.center_vectors[0].astype(np.float64)
        return _unit(self._times_matrix(total))[0]

    def writer(self, backend: str) -> Writer:
        """The compiled function that writes the vectors of documents given as rows of the vocabulary.

        Args:
            backend: "cpu", "gpu" or "auto"; see :func:`jose_embed.compute.backends.directions_writer`.
        """
        inputs = DocumentInputs(
            self.word_weights, TERM_WEIGHTS, self.center_vectors, self.context_vectors, self.context_share, self.matrix
        )
        return directions_writer(backend, inputs)

    def _vectors_of_texts(self, texts: Sequence[Text], backend: str) -> tuple[Vectors, npt.NDArray[np.bool_]]:
        """The vectors of texts, NaN for those without one, and which texts have a known word."""
        out = np.full((len(texts), self.dim), np.nan, np.float32)
        few = backend in ("cpu", "auto") and sum(map(_size, texts)) < WORTH_COMPILING
        if not few:
            BatchEncoder(self, backend).write(texts, out)
        known = ~np.isnan(out[:, 0])
        if few or self.lookup.subwords is not None:
            for row in np.flatnonzero(~known).tolist():
                found = self._inferred(texts[row])
                if found.vector is not None:
                    out[row], known[row] = found.vector, not found.composed
        return out, known

    def vocabulary_lookup(
        self, tokenizer: Tokenizer, make_table: Callable[[Tokenizer], WordTable] = word_table
    ) -> VocabularyLookup:
        """The compiled way from texts to rows of the vocabulary.

        Args:
            tokenizer: Splits the texts.
            make_table: Makes its word table.
        """
        joiner = self.lookup.joiner
        if joiner is None:
            return VocabularyLookup(tokenizer, self.lookup.index_of, make_table)
        return VocabularyLookup(tokenizer, joiner.row_of, make_table, joiner.joined_rows)

    @cached_property
    def of_tokens(self) -> Tokenizer:
        """The tokenizer of texts that are lists of tokens."""
        return normalizing(_WHITESPACE, self.lookup.normalization)

    def _inferred(self, text: Text, most_unknown: int | None = None) -> Inferred:
        tokens = self.tokens(text)
        index_of = self.lookup.index_of
        rows: list[int] = []
        counts: list[int] = []
        unknown: list[str] = []
        words = _word_counts(tokens)
        for word, count in words.items():
            row = index_of(word)
            if row is not None:
                rows.append(row)
                counts.append(count)
            elif most_unknown is None or len(unknown) < most_unknown:
                unknown.append(word)
        known, known_counts = np.array(rows, np.int64), np.array(counts, np.int64)
        presence, topic = self.word_weights[known].T
        weights = presence + topic * TERM_WEIGHTS[np.minimum(known_counts, len(TERM_WEIGHTS) - 1)]
        vector, concentration, composed = None, 0.0, False
        if not rows and self.lookup.subwords is not None:
            vector = self._composed(words)
            composed = vector is not None
        elif rows:
            total, of_words = np.zeros(self.dim), np.zeros(self.dim)
            for start in range(0, len(rows), _BLOCK_WORDS):
                block = slice(start, start + _BLOCK_WORDS)
                vectors, summands = self._summands(known[block])
                of_words += weights[block] @ vectors
                products = weights[block, None] * summands
                # A sum along the first axis adds row after row, as the kernel does.
                total = np.add.reduce(np.concatenate((total[None], products)), axis=0)
            found, length = _unit(self._times_matrix(total))
            if length > 0:
                vector = found
                concentration = min(1.0, float(np.linalg.norm(of_words)) / float(weights.sum()))
        return Inferred(vector, len(tokens), known, known_counts, weights, tuple(unknown), concentration, composed)

    def _composed(self, words: Mapping[str, int]) -> Vectors | None:
        """The vector of a text of unknown words, composed of their n-grams; None if these say nothing.

        Unknown words have no learned weight: each counts 1 + log tf. They have no context vector either. Leaving it out
        moves the direction of a known word as a document by 2 % of its cosine.
        """
        assert self.lookup.subwords is not None
        total = np.zeros(self.dim)
        for word, count in islice(words.items(), _MOST_COMPOSED):
            vector = self.lookup.subwords.vector(word)
            if vector is not None:
                total += TERM_WEIGHTS[min(count, len(TERM_WEIGHTS) - 1)] * vector.astype(np.float64)
        found, length = _unit(self._times_matrix(total))
        return found if length > 0 else None

    def _summands(self, rows: npt.NDArray[np.int64] | slice) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """float64 (n, dim): the vectors u of words, and u - s c, which are summed."""
        center = self.center_vectors[rows]
        summands = document_summands(center, self.context_vectors[rows], self.context_share)
        return center.astype(np.float64), summands.astype(np.float64)

    def _times_matrix(self, total: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if not len(self.matrix):
            return total
        products = total[:, None] * self.matrix
        # Row after row and from zero, as the kernel does.
        return np.asarray(np.add.reduce(np.concatenate((np.zeros((1, len(total))), products)), axis=0))


class BatchEncoder:
    """The compiled path from texts to vectors, with the kernels of the training: some megabytes of text at a time.

    The vectors have the bytes of :meth:`DocumentEncoder.infer_detailed`. Tables are made at first use and words that
    were looked up are remembered, so one object should serve all batches. One thread at a time may use it; while a
    kernel runs, others have the interpreter.

    Args:
        encoder: The encoder of a model.
        backend: "cpu", "gpu" or "auto", as for :func:`infer`.
        tokenizer: Splits strings; that of the model by default.
    """

    def __init__(self, encoder: DocumentEncoder, backend: str = "cpu", tokenizer: Tokenizer | None = None) -> None:
        self._encoder = encoder
        self._write = encoder.writer(backend)
        self._tokenizer = encoder.lookup.tokenizer if tokenizer is None else tokenizer
        self._compiled = has_compiled_path(self._tokenizer)

    def write(self, texts: Sequence[Text], out: Vectors) -> None:
        """Write the vectors of texts; the row of a text without a direction stays as it is.

        Args:
            texts: Strings or lists of tokens.
            out: float32 (n_texts, dim), written in place.
        """
        ends = np.cumsum([_size(text) for text in texts])
        start = 0
        while start < len(texts):
            end = max(start + 1, int(np.searchsorted(ends, ends[start] + _BATCH_CHARACTERS)))
            found = self._rows(texts[start:end])
            self._write(found.rows, found.offsets, out[start:end])
            start = end

    def _rows(self, texts: Sequence[Text]) -> Rows:
        strings = [text for text in texts if isinstance(text, str)]
        if not strings:
            return self._of_tokens.of_texts([" ".join(tokens) for tokens in texts])
        if self._compiled and len(strings) == len(texts):
            return self._of_strings.of_texts(strings)
        lists = [self._encoder.tokens(text) for text in texts]
        rows = self._encoder.lookup.rows_of(chain.from_iterable(lists))
        return Rows.of(rows, np.cumsum([len(words) for words in lists]))

    # Each takes 20 ms.

    @cached_property
    def _of_strings(self) -> VocabularyLookup:
        return self._encoder.vocabulary_lookup(self._tokenizer)

    @cached_property
    def _of_tokens(self) -> VocabularyLookup:
        return self._encoder.vocabulary_lookup(self._encoder.of_tokens)


def has_compiled_path(tokenizer: Tokenizer) -> bool:
    """Whether :class:`BatchEncoder` splits texts outside the interpreter; otherwise it gains little."""
    return code_point_rules(tokenizer) is not None


class HasEncoder(Protocol):
    """A model that has an encoder, such as :class:`~jose_embed.model.embeddings.Embeddings`."""

    @property
    def encoder(self) -> DocumentEncoder: ...


def infer(model: HasEncoder, texts: Iterable[Text], *, backend: str = "cpu") -> Vectors:
    """The vectors of texts.

    Args:
        model: The model.
        texts: Strings of any length, which the model's own tokenizer splits; or lists of tokens (a token that contains
            white space counts as several).
        backend: "cpu"; "gpu" for a CUDA device, which pays for very many texts; "auto" for the device if there is one
            and the texts are many. The vectors are the same.

    Returns:
        float32 (n_texts, dim), rows of norm 1; a text gets the same bytes in every batch.

    Raises:
        NoKnownWordsError: a text without a known word; ``model.infer_flagged`` accepts such texts.
        MissingExtraError, DeviceError: the backend "gpu" without CuPy, or without a device with enough memory.

    Example::

        model.infer(["the first text", "another"])
        model.infer([["the", "first", "text"], ["another"]])
    """
    return model.encoder.infer(texts, backend=backend)


def default_weights(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The weights of words if a model stores none: the topic weight is the log of the inverse relative frequency.

    Args:
        counts: int64 (n_words,).

    Returns:
        float64 (n_words, 2).
    """
    return topic_alone(np.log((int(counts.sum()) + 1) / counts.astype(np.float64)))


def topic_alone(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """float64 (n_words, 2): presence weights of 0 beside these topic weights."""
    return np.stack([np.zeros(len(weights)), weights], axis=1)


def _listed(texts: Iterable[Text], function: str) -> Sequence[Text]:
    if isinstance(texts, str):
        raise TypeError(f"{function}() takes a list of texts; for a single one write {function}([text])")
    try:
        return listed_texts(texts)
    except CorpusError as error:
        raise TypeError(f"{function}(): {error}") from None


def _word_counts(tokens: Sequence[str]) -> Counter[str]:
    """Occurrences by word, in the order of the first occurrences."""
    counts: Counter[str] = Counter()
    for start in range(0, len(tokens), _BLOCK_WORDS):  # each call holds the interpreter's lock
        counts.update(tokens[start : start + _BLOCK_WORDS])
    return counts


def _size(text: Text) -> int:
    """The approximate number of characters."""
    return len(text) if isinstance(text, str) else 6 * len(text)


def _unit(total: npt.NDArray[np.float64]) -> tuple[Vectors, float]:
    """A vector scaled to norm 1, and its norm before; a zero vector stays zero."""
    length = float(np.sqrt(np.cumsum(total * total)[-1]))
    return (total / length if length > 0 else total).astype(np.float32), length


def _no_known_words(row: int, found: Inferred) -> str:
    words = ", ".join(repr(word) for word in found.unknown[:5]) + (", ..." if len(found.unknown) > 5 else "")
    what = f"its words are unknown: {words}" if found.unknown else "it has no words"
    return f"text {row + 1} has no direction: {what}; give a text with words of the training"
