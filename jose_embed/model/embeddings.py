"""A model: word and document vectors, stored as a directory of plain arrays, and the queries they answer."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ConfigError, ModelError, NoKnownWordsError, whole_number
from jose_embed.model.filters import Filter
from jose_embed.model.inference import NO_MATRIX, DocumentEncoder, Flagged, default_weights
from jose_embed.model.lookup import WordLookup
from jose_embed.model.parts import CONTEXT_SHARE, DOCUMENT_MATRIX, PHRASES, WORD_WEIGHTS
from jose_embed.model.query import (
    DocumentNeighbor,
    Neighbor,
    Query,
    Words,
    listed_words,
    names_arguments,
    nearest_documents,
    nearest_words,
    unit_direction,
    unit_directions,
    word_query,
    word_vector,
)
from jose_embed.model.search import SearchableModel, parsed
from jose_embed.model.words_of import SHRINKAGE, WordDirections, mean_of_documents
from jose_embed.storage.columns import RowFinder
from jose_embed.text.phrases import phrases_from
from jose_embed.text.tokenizers import Tokenizer, other_versions, stored_tokenizer

_log = logging.getLogger("jose_embed")


class Embeddings(SearchableModel):
    """Word and document vectors on the unit sphere.

    Made by :func:`jose_embed.train`, :func:`jose_embed.load` or :meth:`from_arrays`. All arrays are read-only. Those of
    a loaded model are mapped files, read when they are used. Any number of threads may use a model.

    Attributes:
        words: The vocabulary, most frequent first.
        counts: int64 (n_words,), occurrences of each word.
        center_vectors: float32 (n_words, dim), norm 1: the word vectors; with ``config.word_method`` "both" they
            contain a part of the context vectors.
        context_vectors: float32 (n_words, dim), norm 1.
        doc_ids: The ids of the documents; read from disk at each access if the model was loaded.
        doc_vectors: float32 (n_docs, dim), norm 1; random rows for documents without a known word, see
            ``known_documents``.
        doc_token_counts: int64 (n_docs,), known words of each document; documents with 0 are never search results.
        extra_arrays: Further arrays by name.
        extra_json: Further JSON values by name.
        path: The directory that the model was loaded from or last saved to, or None.

    Example:
        >>> model = Embeddings.from_arrays(
        ...     words=["up", "down", "left"],
        ...     counts=[3, 2, 1],
        ...     center_vectors=np.float32([[0, 1], [0, -1], [-1, 0]]),
        ...     context_vectors=np.float32([[0, 1], [0, -1], [-1, 0]]),
        ... )
        >>> model.most_similar("up", k=1)
        [Neighbor(word='left', score=0.0, index=2)]
        >>> model["left"]
        array([-1.,  0.], dtype=float32)
    """

    #: Makes the tokenizer from its stored name, its settings and the facts about the text.
    _make_tokenizer = staticmethod(stored_tokenizer)

    def _prepare(self) -> None:
        super()._prepare()
        stored, text = self._parts.about["tokenizer"], self._parts.about.get("text") or {}
        make = partial(self._make_tokenizer, stored["name"], stored["settings"], text)
        try:
            phrases = phrases_from(self.extra_json.get(PHRASES, []))
        except ValueError as error:
            raise ModelError(f"{PHRASES}.json {error}; make the model again") from None
        self._lookup = WordLookup(self.words, make, text.get("normalisation"), phrases, self.subwords)
        if self.path is not None and (difference := other_versions(text)) is not None:
            _log.warning("%s: %s", self.path, difference)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the training text."""
        return self._lookup.tokenizer

    @cached_property
    def encoder(self) -> DocumentEncoder:
        """Makes document vectors from texts; holds the weights that the training learned."""
        weights, matrix = self.extra_arrays.get(WORD_WEIGHTS), self.extra_arrays.get(DOCUMENT_MATRIX, NO_MATRIX)
        return DocumentEncoder(
            self.center_vectors,
            self.context_vectors,
            self.counts,
            default_weights(self.counts) if weights is None else np.asarray(weights, np.float64),
            float(self.extra_arrays.get(CONTEXT_SHARE, 0.0)),
            np.asarray(matrix, np.float64),
            self._lookup,
        )

    # ---- words -------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.n_words

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and self._lookup.find(word) is not None

    def __getitem__(self, word: str) -> npt.NDArray[np.float32]:
        return self.vector_of(word)

    def index_of(self, word: str) -> int | None:
        """The row of a word, or None if it is unknown.

        If the vocabulary lacks the word as written, it is spelled as the tokenizer spells words: ``Café`` finds
        ``café``. Models without a stored Unicode form, those of earlier versions, find words only as written.
        """
        return self._lookup.find(word)

    def matched_word(self, word: str) -> str | None:
        """The spelling under which the vocabulary has a word, or None if it is unknown."""
        row = self._lookup.find(word)
        return None if row is None else self.words[row]

    def respelled_prefix(self, prefix: str) -> str:
        """The beginning of a word in the spelling of the vocabulary."""
        return self._lookup.respelled_prefix(prefix)

    def rows_of(self, words: Iterable[str]) -> npt.NDArray[np.int32]:
        """int32 (n,): the row of each word, as :meth:`index_of` finds it; -1 for unknown words."""
        return np.array([-1 if (row := self._lookup.find(word)) is None else row for word in words], np.int32)

    def vector_of(self, word: str) -> npt.NDArray[np.float32]:
        """The vector of a word: float32 (dim,), norm 1, read-only.

        A model with sub-words composes those of unknown words; :meth:`is_composed` tells which.

        Raises:
            UnknownWordError: the word is unknown; with similar spellings.
        """
        return word_vector(self._lookup, self.center_vectors, word)

    def is_composed(self, word: str) -> bool:
        """Whether the vocabulary lacks a word, and its vector is composed of n-grams (``subwords=True``)."""
        return self._lookup.composed(word) is not None

    def has_vector(self, word: str) -> bool:
        """Whether :meth:`vector_of` answers: the word is known or can be composed."""
        return self._lookup.find(word) is not None or self.is_composed(word)

    def similarity(self, a: str, b: str) -> float:
        """The cosine of two words.

        Raises:
            UnknownWordError: a word is unknown; with similar spellings.
        """
        x, y = self.vector_of(a).astype(np.float64), self.vector_of(b)
        return min(1.0, max(-1.0, float((x * y).sum())))

    def suggestions(self, word: str, n: int = 3) -> list[str]:
        """At most ``n`` words of the vocabulary within a few typing mistakes of ``word``, nearest first."""
        return self._lookup.suggestions(word, n)

    def query(
        self,
        word: str | None = None,
        *,
        positive: Words = (),
        negative: Words = (),
        vector: npt.ArrayLike | None = None,
        without: Words = (),
    ) -> Query:
        """The direction of a word, of words added and subtracted, or of a vector.

        With P the ``positive`` and N the ``negative`` words it is the direction of ``sum P - sum N`` over unit vectors
        (3CosAdd). Then it is made orthogonal to the vectors of all ``without`` words.

        Args:
            word: One word.
            positive: A word or several.
            negative: A word or several.
            vector: Finite numbers of shape (dim,), not all zero, in the space of the word vectors; any length.
            without: A word or several.

        Returns:
            The direction and the rows of all words named.

        Raises:
            UnknownWordError: a word is unknown.
            ConfigError: not exactly one kind of query, a vector without a direction, or nothing left of the query.

        Source: Levy and Goldberg, Linguistic Regularities in Sparse and Explicit Word Representations, CoNLL 2014.
        """
        return word_query(self._lookup, self.center_vectors, word, positive, negative, vector, without)

    @names_arguments
    def most_similar(
        self,
        word: str | npt.ArrayLike | None = None,
        *,
        positive: Words = (),
        negative: Words = (),
        vector: npt.ArrayLike | None = None,
        without: Words = (),
        k: int = 10,
        max_rank: int | None = None,
        exclude: Words = (),
    ) -> list[Neighbor]:
        """The ``k`` words with the largest cosine to a query, best first, equal ones by frequency; exact.

        Args:
            word: A word; or a vector, as ``vector``.
            positive: See :meth:`query`.
            negative: See :meth:`query`.
            vector: A direction of the word space, such as a mean of word vectors; see :meth:`query`. For a document
                vector or a mean of such use :meth:`words_of`: its nearest word vectors are those of random rare words.
            without: See :meth:`query`.
            k: At least 1.
            max_rank: Return only words among the ``max_rank`` most frequent.
            exclude: Words to leave out besides those of the query; unknown words are ignored.

        Raises:
            UnknownWordError: a word of the query is unknown.
            ConfigError: a query that :meth:`query` refuses, or a ``k`` or ``max_rank`` below 1.
        """
        k = whole_number("k", k)
        rows = self.n_words if max_rank is None else whole_number("max_rank", max_rank)
        if word is not None and not isinstance(word, str):
            if vector is not None:
                raise ConfigError("vector is given twice, as the first argument and as vector=; give it once")
            word, vector = None, word
        query = self.query(word, positive=positive, negative=negative, vector=vector, without=without)
        excluded = {row for name in listed_words("exclude", exclude) if (row := self.index_of(name)) is not None}
        return nearest_words(self.words, self.center_vectors[:rows], query.vector, k, excluded.union(query.words))

    # ---- documents ---------------------------------------------------------------------------------------------------

    def infer(self, texts: Iterable[str | Sequence[str]], **options: Any) -> npt.NDArray[np.float32]:
        """The vectors of new texts: float32 (n_texts, dim); arguments and errors as for :func:`jose_embed.infer`."""
        return self.encoder.infer(texts, **options)

    def infer_flagged(self, texts: Iterable[str | Sequence[str]], **options: Any) -> Flagged:
        """The same for texts that may have no known word; see :class:`~jose_embed.model.inference.Flagged`."""
        return self.encoder.infer_flagged(texts, **options)

    @names_arguments
    def similar_documents(
        self,
        doc_id: str | None = None,
        *,
        index: int | None = None,
        text: str | None = None,
        word: str | None = None,
        vector: npt.ArrayLike | None = None,
        k: int = 10,
        filter: str | Filter | None = None,
    ) -> list[DocumentNeighbor]:
        """The ``k`` documents with the largest cosine to a document, text, word or vector, best first; exact.

        Args:
            doc_id: A document of the model; it is not among the results.
            index: The same by row, from 0: the document at ``iloc[index]`` of a pandas column that was trained on; ids
                without ``ids=`` count from 1.
            text: A text; its vector is inferred.
            word: A word, as a text of this one word.
            vector: Finite numbers of shape (dim,), not all zero, in the space of the document vectors; any length.
            k: At least 1.
            filter: Only documents whose kept fields fit; see :class:`~jose_embed.model.filters.Filter`.

        Raises:
            UnknownWordError: ``word`` is unknown.
            NoKnownWordsError: the text or the document has no known word.
            ConfigError: not exactly one query, an unknown document, a vector without a direction, a ``k`` below 1, a
                filter that is none or names another field, or a model without document vectors.

        Example:
            >>> model = Embeddings.from_arrays(
            ...     words=["up"],
            ...     counts=[3],
            ...     center_vectors=np.float32([[0, 1]]),
            ...     context_vectors=np.float32([[0, 1]]),
            ...     doc_ids=["1", "2", "3"],
            ...     doc_vectors=np.float32([[0, 1], [0.6, 0.8], [0, 1]]),
            ...     doc_token_counts=[2, 5, 0],
            ... )
            >>> [neighbor.doc_id for neighbor in model.similar_documents("2")]
            ['1']
        """
        self.require_documents()
        k = whole_number("k", k)
        if sum(value is not None for value in (doc_id, index, text, word, vector)) != 1:
            raise ConfigError("a query is one of: doc_id, index, text, word, vector; give exactly one of these")
        excluded: tuple[int, ...] = ()
        if word is not None:
            if self.is_composed(word):
                unit = self.infer([word])[0]
            else:
                unit = self.encoder.word_as_document(self._lookup.known_row(word))
        elif text is not None:
            unit = self.infer([text])[0]
        elif vector is not None:
            unit = unit_direction(vector, self.dim).astype(np.float32)
        else:
            row = self._trained_row(doc_id, index)
            unit, excluded = self.doc_vectors[row], (row,)
        chosen = parsed(filter)
        among = None if chosen is None else chosen.fitting(self.document_search.fields)
        found = nearest_documents(self.doc_ids, self.doc_vectors, self.doc_token_counts, unit, k, excluded, among)
        kept = self.kept_documents([neighbor.index for neighbor in found])
        return [
            neighbor._replace(text=text, fields=fields) for neighbor, (text, fields) in zip(found, kept, strict=True)
        ]

    @names_arguments
    def words_of(
        self,
        document: str | None = None,
        *,
        text: str | None = None,
        vector: npt.ArrayLike | None = None,
        against: npt.ArrayLike | None = None,
        k: int = 10,
        shrinkage: float = SHRINKAGE,
    ) -> list[Neighbor]:
        """The ``k`` words that describe a document, a text or a direction of the document space; exact, best first.

        Words are compared by their directions as documents, and rare words are shrunk; see
        :mod:`jose_embed.model.words_of`. The first call computes the directions of all words and keeps them (n_words x
        dim float32 values).

        Args:
            document: The id of a document of the model.
            text: Any text; its vector is inferred.
            vector: Any finite vector of shape (dim,) but zero, of the document space: a document vector, or a mean of
                such.
            against: Other vectors of the document space, of shape (n, dim): words that are as near to one of these
                count less. For the centre of a class, the centres of other classes.
            k: At least 1; all are returned if there are fewer.
            shrinkage: Occurrences at which a word's squared score is halved, from 0 (rare words count in full) up.

        Returns:
            Words with ``score``, the cosine multiplied by the word's reliability, which is at most 1.

        Raises:
            NoKnownWordsError: the text or the document has no word of the vocabulary.
            ConfigError: not exactly one query, an unknown document, a vector without a direction, a ``k`` below 1, a
                ``shrinkage`` below 0, or a document of a model that keeps no document vectors.
        """
        k = whole_number("k", k)
        if not (isinstance(shrinkage, int | float) and 0 <= shrinkage < math.inf):
            raise ConfigError(f"shrinkage is {shrinkage!r}; it must be a number from 0 up")
        if sum(value is not None for value in (document, text, vector)) != 1:
            raise ConfigError("a query is one of: document, text, vector; give exactly one of these")
        if document is not None:
            self.require_documents()
            unit = self.doc_vectors[self._trained_row(document, None)]
        elif text is not None:
            unit = self.infer([text])[0]
        else:
            assert vector is not None
            unit = unit_direction(vector, self.dim).astype(np.float32)
        others = None if against is None else unit_directions(against, self.dim)
        indices, scores = self.word_directions.nearest(unit, k, against=others, shrinkage=shrinkage)
        return [
            Neighbor(self.words[index], score, index)
            for index, score in zip(indices.tolist(), np.clip(scores, -1, 1).tolist(), strict=True)
        ]

    @cached_property
    def word_directions(self) -> WordDirections:
        """The directions of all words in the document space, made when first asked for."""
        return WordDirections(
            self.center_vectors,
            self.context_vectors,
            self.encoder.context_share,
            self.encoder.matrix,
            self.encoder.word_weights,
            self.counts,
            mean_of_documents(self.doc_vectors, self.doc_token_counts),
        )

    def require_documents(self) -> None:
        """Check that the model has document vectors.

        Raises:
            ConfigError: it was trained with ``doc_vectors="none"``.
        """
        if self.n_docs == 0 and self._parts.about["config"].get("doc_vectors") == "none":
            raise ConfigError(
                "this model keeps no document vectors (it was trained with doc_vectors='none'); query words or new "
                "texts, or train with doc_vectors='mapped'"
            )

    def document_index(self, doc_id: str) -> int | None:
        """The row of a document (the first with that id), or None; the first call prepares 16 bytes per document."""
        return self._row_finder.find(doc_id)

    @cached_property
    def _row_finder(self) -> RowFinder:
        return RowFinder(self.doc_ids)

    def _trained_row(self, doc_id: str | None, index: int | None) -> int:
        row = self._document_row(doc_id, index)
        if self.doc_token_counts[row] == 0:
            raise NoKnownWordsError(f"document {self.doc_ids[row]!r} has no known word; ask for another one")
        return row

    def _document_row(self, doc_id: str | None, index: int | None) -> int:
        if index is not None:
            if not isinstance(index, int | np.integer) or not 0 <= index < self.n_docs:
                raise ConfigError(f"document row {index!r} does not exist; there are {self.n_docs}, counted from 0")
            return int(index)
        if not isinstance(doc_id, str):
            raise ConfigError(f"document id {doc_id!r} is not text; ids are text such as '1' (use index= for a row)")
        row = self.document_index(doc_id)
        if row is None:
            example = f"ids are such as {self.doc_ids[0]!r}" if self.n_docs else "the model has no documents"
            raise ConfigError(f"there is no document {doc_id!r}; {example}")
        return row


def load(path: str | os.PathLike[str], *, verify: bool = False) -> Embeddings:
    """Open a model directory; see :meth:`Embeddings.load`.

    If the text was split by a library of which another version is installed here, a warning is logged.
    """
    return Embeddings.load(path, verify=verify)
