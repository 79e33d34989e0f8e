"""Search with a question in words: by meaning, by exact words, or by both.

**Meaning**: the cosine of the question and the documents. Both are compared without the reliability matrix A that
document vectors have been multiplied by: shrinkage helps to compare whole documents, and costs short questions a part
of what they say. With M the inverse of A, a document d counts as M d / |M d|. That is a number for each document beside
the vector that is there: the cosine is d (M' q) / |M d| for q = M (question) / |M (question)|.

**Words**: BM25 over the words of the kept texts, with their inflections (:mod:`jose_embed.text.word_index`,
:mod:`jose_embed.model.inflections`).

**Hybrid**: the weighted mean of both scores, after each was divided by its largest value for this question; the cosine
counts from its mean on. A document that is best in both has the score 1. With a filter, the largest cosine is that of
the documents that fit, and the largest score by words and the mean cosine are those of all, which measured best. Ranks,
the other usual way to join answers, measured lower on every collection (DESIGN.md, decision 38).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ConfigError, whole_number
from jose_embed.model.filters import FieldTable, Filter
from jose_embed.model.inference import DocumentEncoder
from jose_embed.model.inflections import Inflections
from jose_embed.model.nearest import at_least_best, nearest_among, products
from jose_embed.model.passages import Passage, best_passage
from jose_embed.model.query import names_arguments
from jose_embed.model.stored import StoredModel
from jose_embed.text.texts import TextStore
from jose_embed.text.tokenizers import valid_text
from jose_embed.text.word_index import WordIndex

SearchMode = Literal["hybrid", "vector", "words"]

WORDS_SHARE: Final = 0.75  # of the exact words in a hybrid score
_BLOCK_ROWS: Final = 16_384
_LEAST_SPREAD: Final = 0.1  # of the cosines; without a filter they have more
_LEAST_SCALE: Final = 1e-3  # of the largest: axes that the matrix has shrunk away stay away

Ranked = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]


class Facet(NamedTuple):
    """A value of a field, and how many documents have it; the value None stands for a missing one."""

    value: Any
    count: int  # type: ignore[assignment]  # hides tuple.count


class SearchResult(NamedTuple):
    """A document that was found.

    Attributes:
        doc_id: Its id.
        score: How well it fits, for the order of one answer: by vector a cosine; by words the BM25 score; in a hybrid
            search at most 1 (the best in both).
        index: Its row, from 0.
        text: Its text, if texts are kept; else None.
        fields: Its kept fields.
        passage: The part of the text that fits best, if it was asked for.
    """

    doc_id: str
    score: float
    index: int  # type: ignore[assignment]  # hides tuple.index
    text: str | None = None
    fields: Mapping[str, Any] = MappingProxyType({})
    passage: Passage | None = None


class Scales(NamedTuple):
    """What scores are divided by when they are joined.

    Attributes:
        words: The largest score by words, of all documents.
        mean: The mean cosine, of all documents.
        cosine: The largest cosine, of the documents that may be answers.
    """

    words: float
    mean: float
    cosine: float


class Question(NamedTuple):
    """What a question becomes.

    Attributes:
        vector: float32 (dim,), norm 1, as a document vector; None if no word of it is known.
        terms: Its different words with their inflections, and how often each occurs in it.
        composed: Whether no word is known, and the vector is made of n-grams.
    """

    vector: npt.NDArray[np.float32] | None
    terms: tuple[tuple[tuple[str, ...], int], ...]
    composed: bool = False


def chosen_mode(mode: str | None, has_texts: bool) -> SearchMode:
    """The way to search: by default hybrid where texts are kept, else by vectors.

    Raises:
        ConfigError: an unknown way, or one that needs texts where there are none.
    """
    if mode is None:
        return "hybrid" if has_texts else "vector"
    for known in get_args(SearchMode):
        if mode == known:
            if not has_texts and known != "vector":
                raise ConfigError(
                    f"mode is {mode!r}, but the model keeps no texts; search by mode='vector', or train with "
                    "keep_text=True"
                )
            return known  # type: ignore[no-any-return]
    raise ConfigError(f"mode is {mode!r}; it must be one of {', '.join(get_args(SearchMode))}")


class DocumentSearch:
    """Answers questions to the documents of a model; any number of threads may ask.

    Everything is made at first use: a float32 for each document, the index of words, the codes of the fields.

    Args:
        encoder: Makes the vectors of questions.
        vectors: float32 (n_docs, dim), norm 1: the documents.
        counts: int64 (n_docs,), known words of each; those of documents with 0 have no direction.
        texts: The kept texts and fields; None if there are none.

    Attributes:
        n_known: The number of documents with a direction.
    """

    def __init__(
        self,
        encoder: DocumentEncoder,
        vectors: npt.NDArray[np.float32],
        counts: npt.NDArray[np.int64],
        texts: TextStore | None,
    ) -> None:
        self._encoder = encoder
        self._vectors = vectors
        self._known = counts > 0
        self.n_known = int(np.count_nonzero(self._known))
        self._texts = texts

    @property
    def n_documents(self) -> int:
        """The number of documents, those without a direction too."""
        return len(self._vectors)

    @property
    def has_texts(self) -> bool:
        """Whether exact words can be searched."""
        return self._texts is not None and self._texts.has_texts

    def words_of(self, text: str) -> list[str]:
        """The words of a question or a text, in order."""
        return self._encoder.lookup.tokenizer(valid_text(text))

    @cached_property
    def words(self) -> WordIndex:
        """The index of the words of the kept texts."""
        assert self._texts is not None
        return self._texts.word_index(self._encoder.lookup.tokenizer)

    @cached_property
    def inflections(self) -> Inflections:
        """Finds the inflections of words."""
        return Inflections(self._encoder.lookup, self._encoder.center_vectors, self.words.words)

    @cached_property
    def fields(self) -> FieldTable:
        """The kept fields."""
        texts, n = self._texts, len(self._vectors)
        return FieldTable((), lambda: iter(()), n) if texts is None else FieldTable(texts.fields, texts.every_fields, n)

    def question(self, text: str, *, inflected: bool = True) -> Question:
        """A question, taken apart.

        Args:
            text: Any text.
            inflected: Whether its words stand for their inflections, too; only where texts are kept.
        """
        (found,) = self._encoder.infer_detailed([text], most_unknown=0)
        counts: dict[tuple[str, ...], int] = {}
        if self.has_texts:
            for word in self.words_of(text):
                key = self.inflections.of(word) if inflected else (word,)
                counts[key] = counts.get(key, 0) + 1
        return Question(found.vector, tuple(counts.items()), found.composed)

    def best(self, question: Question, k: int, mode: SearchMode, rows: npt.NDArray[np.int64] | None = None) -> Ranked:
        """The best documents, best first, equal ones by row.

        Args:
            question: The question.
            k: At least 1.
            mode: How they are compared.
            rows: int64, rising: the documents that may be answers; all if None.

        Returns:
            Rows, int64, and scores, float64, at most ``k``: cosines by vector; by words, and for a hybrid question
            without a vector, BM25.
        """
        if mode == "vector":
            if question.vector is None:
                return np.empty(0, np.int64), np.empty(0)
            return self._by_vector(question.vector, k, rows)
        found, scores = best_of(self.scores(question, mode, rows), k)
        return (found if rows is None else rows[found]), scores

    def scores(
        self, question: Question, mode: SearchMode, rows: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.float32]:
        """The scores of all documents, or of some rows: float32; minus infinity for those that must not be answers. By
        vector the question must have one."""
        by_words, largest = None, 0.0
        if mode != "vector":
            by_words = self.words.scores(question.terms)
            largest = float(by_words.max(initial=0))
            by_words = by_words if rows is None else by_words[rows]
        known = None
        if self.n_known < len(self._known):
            known = self._known if rows is None else self._known[rows]
        if question.vector is None or mode == "words":
            return joined(by_words, None, known, Scales(largest, 0.0, 0.0))
        query, scale = self.query_of(question.vector)
        cosines = products(self._vectors, query * np.float32(scale), rows, factors=self._factors)
        mean = float(self._sum_of_known @ query) * scale / max(1, self.n_known)
        cosine = float((cosines if known is None else cosines[known]).max(initial=-1))
        return joined(by_words, cosines, known, Scales(largest, mean, cosine))

    def cosines(
        self, vector: npt.NDArray[np.float32], rows: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.float32]:
        """The cosines of a question and all documents, or those of some rows, without the reliability matrix:
        float32."""
        query, scale = self.query_of(vector)
        return products(self._vectors, query * np.float32(scale), rows, factors=self._factors)

    def sum_of_cosines(self, vector: npt.NDArray[np.float32]) -> float:
        """The sum of the cosines of a question and all documents with a direction, see :meth:`cosines`."""
        query, scale = self.query_of(vector)
        return float(self._sum_of_known @ query) * scale

    @cached_property
    def _sum_of_known(self) -> npt.NDArray[np.float64]:
        """float64 (dim,): the sum of all documents with a direction, each times its factor."""
        total = np.zeros(self._vectors.shape[1])
        for first in range(0, len(self._vectors), _BLOCK_ROWS):
            some = slice(first, first + _BLOCK_ROWS)
            total += (self._factors[some] * self._known[some]) @ self._vectors[some]
        return total

    def passage(self, question: Question, text: str, n_words: int) -> Passage:
        """The part of a text that answers a question; windows of ``n_words`` words."""
        weights: dict[str, tuple[int, float]] = {}
        for number, (spellings, _) in enumerate(question.terms):
            weights |= dict.fromkeys(spellings, (number, self.words.rarity(spellings)))
        return best_passage(text, n_words, weights, question.vector, self._encoder)

    def _by_vector(self, vector: npt.NDArray[np.float32], k: int, rows: npt.NDArray[np.int64] | None) -> Ranked:
        query, scale = self.query_of(vector)
        if self.n_known < len(self._known):
            rows = np.flatnonzero(self._known) if rows is None else rows[self._known[rows]]
        factors = self._factors if len(self._inverse) else None
        found, scores = nearest_among(self._vectors, query, k, rows, factors=factors)
        return found, np.clip(scores * scale, -1, 1)

    @cached_property
    def _inverse(self) -> npt.NDArray[np.float64]:
        """float64 (dim, dim): M, symmetric as the reliability matrix is; empty if there is none."""
        matrix = self._encoder.matrix
        if not len(matrix):
            return np.empty((0, 0))
        scales, axes = np.linalg.eigh((matrix + matrix.T) / 2)
        largest = float(np.abs(scales).max())
        kept = np.abs(scales) > _LEAST_SCALE * largest
        inverse = np.divide(1.0, scales, where=kept, out=np.zeros_like(scales))
        return np.asarray((axes * inverse) @ axes.T)

    @cached_property
    def _lengths(self) -> npt.NDArray[np.float64]:
        """float64 (n_docs,): |M d| of each document."""
        return self._lengths_of(self._vectors)

    def _lengths_of(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        out = np.ones(len(vectors))
        for first in range(0, len(out), _BLOCK_ROWS):
            block = vectors[first : first + _BLOCK_ROWS].astype(np.float64) @ self._inverse
            out[first : first + _BLOCK_ROWS] = np.sqrt(np.square(block).sum(axis=1))
        return np.maximum(out, 1e-12)

    @cached_property
    def _least_length(self) -> float:
        return float(self._lengths.min()) if len(self._vectors) else 1.0

    @cached_property
    def _factors(self) -> npt.NDArray[np.float32]:
        """float32 (n_docs,), at most 1: 1 / |M d| times the least of these lengths."""
        return self.factors_of(self._vectors)

    def factors_of(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The factors of some documents, see :meth:`query_of`: float32 (n,).

        Args:
            vectors: float32 (n, dim), norm 1.
        """
        if not len(vectors) or not len(self._inverse):
            return np.ones(len(vectors), np.float32)
        lengths = self._lengths if vectors is self._vectors else self._lengths_of(vectors)
        factors: npt.NDArray[np.float32] = (self._least_length / lengths).astype(np.float32)
        return factors

    def query_of(self, vector: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], float]:
        """A unit vector and a number: its product with a document, times the document's factor and the number, is the
        cosine."""
        if not len(self._inverse):
            return vector, 1.0
        plain = vector.astype(np.float64) @ self._inverse
        again = (plain / max(float(np.linalg.norm(plain)), 1e-12)) @ self._inverse
        length = float(np.linalg.norm(again))
        return (again / max(length, 1e-12)).astype(np.float32), length / self._least_length


def joined(
    by_words: npt.NDArray[np.float32] | None,
    cosines: npt.NDArray[np.float32] | None,
    known: npt.NDArray[np.bool_] | None,
    scales: Scales,
) -> npt.NDArray[np.float32]:
    """The scores of documents by words, by meaning or by both: float32 (n,); minus infinity for those without any.

    Args:
        by_words: float32 (n,): BM25, 0 for documents without a word of the question; None to search by meaning.
        cosines: float32 (n,); None to search by words. One of both is there.
        known: bool (n,): which documents have a direction; None if all have.
        scales: What the scores are divided by.
    """
    nothing = np.float32(-np.inf)
    if cosines is None:
        assert by_words is not None
        return np.where(by_words > 0, by_words, nothing)
    if by_words is None or scales.words <= 0:
        return cosines if known is None else np.where(known, cosines, nothing)
    of_words = by_words * np.float32(WORDS_SHARE / scales.words)
    fused = cosines - np.float32(scales.mean)
    fused *= np.float32((1 - WORDS_SHARE) / spread(scales))
    fused += of_words
    if known is not None:  # documents without a known word are found by other words only
        fused[~known] = np.where(of_words > 0, of_words, nothing)[~known]
    return fused


def spread(scales: Scales) -> float:
    """What cosines, less their mean, are divided by: not little if none of the documents is like the question."""
    return max(scales.cosine - scales.mean, _LEAST_SPREAD)


def best_of(scores: npt.NDArray[np.float32], k: int) -> Ranked:
    """The rows with the ``k`` largest scores, best first, equal ones by row; those of minus infinity are left out.

    Args:
        scores: float32 (n,).
        k: At least 1.
    """
    rows = at_least_best(scores, k)
    order = np.lexsort((rows, -scores[rows]))[:k]
    return rows[order], scores[rows[order]].astype(np.float64)


def parsed(filter: str | Filter | None) -> Filter | None:
    """A filter as it may be given.

    Raises:
        ConfigError: it is not a filter.
    """
    return Filter.parse(filter) if isinstance(filter, str) else filter


class SearchableModel(StoredModel):
    """A model whose documents answer questions."""

    @property
    def encoder(self) -> DocumentEncoder:
        """Makes document vectors from texts."""
        raise NotImplementedError

    def require_documents(self) -> None:
        """Check that the model has document vectors."""
        raise NotImplementedError

    @cached_property
    def document_search(self) -> DocumentSearch:
        """Answers questions to the documents; made when first asked for."""
        return DocumentSearch(self.encoder, self.doc_vectors, self.doc_token_counts, self._parts.texts)

    @names_arguments
    def search(
        self,
        text: str,
        *,
        k: int = 10,
        mode: SearchMode | None = None,
        filter: str | Filter | None = None,
        passage_words: int | None = None,
    ) -> list[SearchResult]:
        """The ``k`` documents that best answer a question in words, best first; exact.

        Any text is a question: it has no syntax. Words that are unknown to the vocabulary count as exact words. The
        first call prepares 4 bytes for each document; if texts are kept, it also makes the index of their words unless
        the model has it.

        Args:
            text: The question.
            k: At least 1.
            mode: ``"hybrid"``: by meaning and exact words, the default where texts are kept; ``"vector"``: by meaning
                alone, the default elsewhere; ``"words"``: by exact words alone.
            filter: Only documents whose kept fields fit; see :class:`~jose_embed.model.filters.Filter`.
            passage_words: Also give the part of each text that fits best, of about so many words.

        Returns:
            Fewer than ``k`` if no more documents have a word or direction in common with the question.

        Raises:
            ConfigError: an unknown mode, or one that needs texts that are not kept; a ``k`` below 1; a text
                that is not a filter, or a filter of another field.
            ModelError: the kept texts are damaged.

        Example::

            model = jose_embed.train("corpus.csv", keep_text=True, keep_fields=["date"])
            for found in model.search("wing flutter at mach 2", filter="date >= 2020-01-01", passage_words=30):
                print(found.score, found.doc_id, found.passage.text)
        """
        self.require_documents()
        if not isinstance(text, str):
            raise ConfigError(f"a question is text, not {type(text).__name__}")
        k = whole_number("k", k)
        n_words = None if passage_words is None else whole_number("passage_words", passage_words)
        search = self.document_search
        if n_words is not None and not search.has_texts:
            raise ConfigError("passages need texts, which the model does not keep; train with keep_text=True")
        way, chosen = chosen_mode(mode, search.has_texts), parsed(filter)
        among = None if chosen is None else np.flatnonzero(chosen.fitting(search.fields))
        question = search.question(text)
        rows, scores = search.best(question, k, way, among)
        kept = self.kept_documents(rows.tolist())
        return [
            SearchResult(
                self.doc_ids[row], score, row, whole, fields,
                None if n_words is None or whole is None else search.passage(question, whole, n_words),
            )
            for row, score, (whole, fields) in zip(rows.tolist(), scores.tolist(), kept, strict=True)
        ]  # fmt: skip

    def facets(self, field: str, *, filter: str | Filter | None = None) -> list[Facet]:
        """The values of a kept field and how many documents have each, most frequent first; None is a missing one.

        Args:
            field: The name of a kept field.
            filter: Count only documents that fit.

        Raises:
            ConfigError: no such field; a filter that is none or names another field.
        """
        search, chosen = self.document_search, parsed(filter)
        among = np.ones(self.n_docs, np.bool_) if chosen is None else chosen.fitting(search.fields)
        return [Facet(value, count) for value, count in search.fields.facets(field, among)]
