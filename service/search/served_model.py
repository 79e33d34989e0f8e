"""One model with everything that is derived from it: loaded, checked, never changed, replaced as a whole."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ModelError
from jose_embed.model.embeddings import Embeddings
from service.search.index import CosineIndex, Hits, IndexOptions
from service.search.library import DocumentHit
from service.search.prefix_index import PrefixIndex
from service.search.texts import ServedEmbeddings, vectors_of

__all__ = ["Answers", "ServedModel"]

_TESTED_WORDS: Final = 64
_ENTRY_BYTES: Final = 400  # what an entry of the cache costs beside its key and its value


class Answers:
    """Kept answers, the least recently used forgotten first, bounded by their bytes.

    Example:
        >>> answers = Answers(2_000)
        >>> for key in (b"a", b"b", b"c"):
        ...     answers.put(key, bytes(500))
        >>> answers.get(b"a"), len(answers.get(b"c"))
        (None, 500)
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()
        self.n_bytes = 0

    def get(self, key: bytes) -> bytes | None:
        """The answer to a question, or None."""
        answer = self._entries.get(key)
        if answer is not None:
            self._entries.move_to_end(key)
        return answer

    def put(self, key: bytes, answer: bytes) -> None:
        """Keeps an answer, unless it is out of proportion to the cache."""
        size = len(key) + len(answer) + _ENTRY_BYTES
        if size > self._most // 2 or key in self._entries:
            return
        self._entries[key] = answer
        self.n_bytes += size
        while self.n_bytes > self._most:
            old, value = self._entries.popitem(last=False)
            self.n_bytes -= len(old) + len(value) + _ENTRY_BYTES


class ServedModel:
    """A model as it is served.

    Args:
        embeddings: The model.
        options: How words and trained documents are indexed.
        cache_bytes: For kept answers.

    Attributes:
        embeddings: The model.
        id: Its id: equal models have equal ids.
        name: Its directory's name without the ending.
        words: The index of the center vectors; a row is a rank by frequency, from 0.
        table: The vocabulary by spelling.
        recall: Share of the true 10 nearest words that the index finds; 1.0 for exact search.
        answers: Kept answers of this model.
    """

    def __init__(self, embeddings: Embeddings, options: IndexOptions, cache_bytes: int) -> None:
        self.embeddings = embeddings
        self.id = embeddings.id
        self.name = (embeddings.path.name if embeddings.path is not None else "model").removesuffix(".jose")
        self.dim = embeddings.dim
        self.words = CosineIndex(embeddings.center_vectors, options)
        self.prefix_index = PrefixIndex(embeddings.words)
        trained = np.flatnonzero(embeddings.doc_token_counts)
        self._document_rows = None if len(trained) == embeddings.n_docs else trained
        self._documents = CosineIndex(
            embeddings.doc_vectors if self._document_rows is None else embeddings.doc_vectors[trained], options
        )
        self.recall = self.words.recall()
        self.answers = Answers(cache_bytes)
        self._lock = threading.Lock()
        self.reference = {"id": self.id, "version": str(embeddings.manifest["created"])}

    @classmethod
    def load(cls, path: Path, options: IndexOptions, cache_bytes: int, *, verify: bool) -> ServedModel:
        """The model of a directory, indexed and tested.

        Args:
            path: The directory.
            options: How it is indexed.
            cache_bytes: For kept answers.
            verify: Read every byte and compare its checksum.

        Raises:
            ModelError: it is missing, damaged, of a newer format, or fails its test.
        """
        served = cls(ServedEmbeddings.load(path, verify=verify), options, cache_bytes)
        served.test()
        return served

    def test(self) -> None:
        """Asks the model what it must know: words find themselves, and a text of its words has a direction.

        Raises:
            ModelError: it does not.
        """
        n = self.embeddings.n_words
        rows = np.unique(np.linspace(0, n - 1, min(n, _TESTED_WORDS)).astype(np.int64))
        vectors = self.words.vectors[rows]
        with np.errstate(invalid="ignore", over="ignore"):
            norms = np.sqrt(np.square(vectors.astype(np.float64)).sum(axis=1))
        if not (np.abs(norms - 1.0) < 1e-5).all():
            raise ModelError(
                f"{self._where}: word vectors of norm {norms.min():.6g} to {norms.max():.6g}, which must be 1; "
                "train the model again"
            )
        for row, hits in zip(rows.tolist(), self.words.search(vectors, 1), strict=True):
            if self.words.kind == "exact" and not (len(hits.rows) and hits.scores[0] > 0.999):
                raise ModelError(
                    f"{self._where}: the index does not find the word {self.embeddings.words[row]!r} by its own "
                    "vector; install faiss-cpu anew, or train the model again"
                )
        words = [self.embeddings.words[row] for row in rows.tolist()]
        (made,) = vectors_of(self.embeddings, [" ".join(words)])
        if made.vector is not None:
            norm = float(np.linalg.norm(made.vector.astype(np.float64)))
            if not abs(norm - 1.0) < 1e-5:
                raise ModelError(
                    f"{self._where}: a text of its words gets a vector of norm {norm}, which must be 1; "
                    "train the model again"
                )

    @property
    def _where(self) -> str:
        return str(self.embeddings.path or "the model")

    @property
    def n_searchable(self) -> int:
        """Trained documents that a search can find."""
        return len(self._documents)

    def search_documents(self, queries: npt.NDArray[Any], k: int) -> list[list[DocumentHit]]:
        """The ``k`` trained documents nearest to each query, shape (q, dim); untrained ones are never found."""
        return [self._named(hits) for hits in self._documents.search(queries, k)]

    def _named(self, hits: Hits) -> list[DocumentHit]:
        ids, rows, vectors = self.embeddings.doc_ids, hits.rows, self._documents.vectors
        originals = rows if self._document_rows is None else self._document_rows[rows]
        pairs = zip(originals.tolist(), rows.tolist(), hits.scores.tolist(), strict=True)
        return [DocumentHit(ids[original], score, vectors[row]) for original, row, score in pairs]

    def document(self, id: str) -> npt.NDArray[np.float32] | None:
        """The vector of a trained document: float32 (dim,).

        Raises:
            KeyError: there is no document of this id.

        Returns:
            None where it holds no known word and so was not trained.
        """
        with self._lock:  # the first look-up prepares a table
            row = self.embeddings.document_index(id)
        if row is None:
            raise KeyError(id)
        return self.embeddings.doc_vectors[row] if self.embeddings.doc_token_counts[row] else None

    def suggestions(self, word: str) -> list[str]:
        """Words of the vocabulary within a few typing mistakes."""
        with self._lock:
            return self.embeddings.suggestions(word)
