"""A model with all that is derived from it: loaded, tested, never changed, replaced as a whole."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ModelError
from jose_embed.model.stored import FileState
from service.search.added import AddedTexts
from service.search.index import NEAREST, CosineIndex, Hits, IndexOptions, Reach
from service.search.library import DocumentHit, Segment
from service.search.prefix_index import PrefixIndex
from service.search.texts import ServedEmbeddings, vectors_of

_TESTED_WORDS: Final = 64
_ATTEMPTS: Final = 3
_ENTRY_BYTES: Final = 400  # overhead of an entry beside its key and its value
_MOST_UNKNOWN: Final = 1 / 8  # of the documents, that are in the index; with more, the others are copied


class Answers:
    """Kept answers, bounded by their bytes; the least recently used are dropped first.

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
        """Keeps an answer, unless it takes more than half of the cache."""
        size = len(key) + len(answer) + _ENTRY_BYTES
        if size > self._most // 2 or key in self._entries:
            return
        self._entries[key] = answer
        self.n_bytes += size
        while self.n_bytes > self._most:
            old, value = self._entries.popitem(last=False)
            self.n_bytes -= len(old) + len(value) + _ENTRY_BYTES


class ServedModel:
    """The served model.

    Args:
        embeddings: The model; its vectors are held once.
        options: How words and trained documents are indexed.
        cache_bytes: For kept answers.

    Attributes:
        embeddings: The model.
        id: Its id: equal models have equal ids.
        name: Its directory's name without the ending.
        words: The index of the center vectors; a row is a rank by frequency, from 0.
        prefix_index: The vocabulary by spelling.
        documents: The index of the trained documents; a serial is a row of the model. Documents without a known word
            are dead.
        answers: Kept answers of this model.
        added: Words and fields of the added documents.
        reported: Names of changed files that the log has already.
    """

    def __init__(self, embeddings: ServedEmbeddings, options: IndexOptions, cache_bytes: int) -> None:
        self.id = embeddings.id
        self.name = (embeddings.path.name if embeddings.path is not None else "model").removesuffix(".jose")
        self.dim = embeddings.dim
        self._options = options
        self.words = CosineIndex(embeddings.center_vectors, options)
        self.documents = _segment_of(embeddings, options)
        indexed = self.documents.index.vectors  # a graph has a copy of its own
        doc_vectors = indexed if len(indexed) == embeddings.n_docs else embeddings.doc_vectors
        self.embeddings = embeddings.with_vectors(self.words.vectors, doc_vectors)
        self.prefix_index = PrefixIndex(embeddings.words)
        self._words_recall = self.words.recall()
        self.answers = Answers(cache_bytes)
        self._lock = threading.Lock()
        self._files: dict[Path, FileState | None] = {}
        self.reported: list[str] = []
        self.added = AddedTexts(self.embeddings.document_search)
        self.reference = {"id": self.id, "version": str(embeddings.manifest["created"])}

    @classmethod
    def load(
        cls, path: Path, options: IndexOptions, cache_bytes: int, *, verify: bool, mapped: bool = False
    ) -> ServedModel:
        """The model of a directory, indexed and tested.

        Args:
            path: The directory.
            options: How it is indexed.
            cache_bytes: For kept answers.
            verify: Read every byte and compare its checksum.
            mapped: Map the files instead of reading them into memory.

        Raises:
            ModelError: it is missing, damaged, of a newer format, changes while it is read, or fails its test.
        """
        for _ in range(_ATTEMPTS):
            before = FileState.of_directory(path)
            embeddings = ServedEmbeddings.load(path, verify=verify, mapped=mapped)
            files = FileState.of_directory(path)
            if before == files:
                break
        else:
            raise ModelError(f"{path}: was changed while it was loaded; load it again when it is complete")
        served = cls(embeddings, options, cache_bytes)
        names = {"manifest.json", *embeddings.manifest["files"]}
        served._files = {path / name: state for name, state in files.items() if name in names}
        served.test()
        return served

    def changed_files(self) -> list[str]:
        """Names of the model's files that are not on the disk as they were loaded: by inode, size and time."""
        return [path.name for path, state in self._files.items() if FileState.of(path) != state]

    def disk_state(self) -> object:
        """What identifies the present contents of the model directory, to be compared."""
        return [FileState.of(path) for path in self._files]

    def changed_in_place(self) -> list[str]:
        """Names of changed or removed files, if the model is mapped and so shows the change."""
        return [
            path.name
            for path, state in self._files.items()
            if (now := FileState.of(path)) != state
            and now is not None
            and state is not None
            and now.inode == state.inode
        ]

    def test(self) -> None:
        """Tests the model: words find themselves, and a text of its words has a direction.

        Raises:
            ModelError: a test fails.
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
        return len(self.documents.index) - self.documents.n_dead

    @property
    def recall(self) -> float:
        """Share of the true 10 nearest that the worse of both indexes finds; 1.0 for exact search."""
        return min(self._words_recall, self.documents.index.codes_recall)

    def index_without_codes(self) -> CosineIndex | None:
        """The index of the trained documents, if it has so many rows that it should be searched by codes."""
        index, options = self.documents.index, self._options
        return index if options.kind == "auto" and index.wants_codes(options.exact_rows) else None

    @property
    def n_bytes(self) -> int:
        """Bytes of the arrays and indexes."""
        index, model = self.documents.index, self.embeddings
        copied = 0 if len(index) == model.n_docs else index.vectors.nbytes
        return model.n_bytes + copied + index.codes_bytes

    def candidates(
        self, query: npt.NDArray[np.float32], k: int, may: npt.NDArray[np.bool_], reach: Reach = NEAREST
    ) -> npt.NDArray[np.int64] | None:
        """The documents among which are the ``k`` nearest to a direction, from codes.

        Args:
            query: float32 (dim,), norm 1.
            k: At least 1.
            may: bool (n_docs,): the documents that may be answers; all of them have a known word.
            reach: See :meth:`~service.search.index.CosineIndex.candidates`.

        Returns:
            int64, rising: their rows; None if all that may be answers have to be scored.
        """
        index, serials = self.documents.index, self.documents.serials
        if index.kind != "ivf":
            return None
        rows = index.candidates(query, k, may if len(index) == len(may) else may[serials], reach)
        return rows if rows is None else serials[rows]

    def search_documents(self, queries: npt.NDArray[Any], k: int) -> list[list[DocumentHit]]:
        """The ``k`` trained documents nearest to each query, shape (q, dim); untrained ones are never found."""
        return [self._named(hits) for hits in self.documents.search(queries, k)]

    def _named(self, hits: Hits) -> list[DocumentHit]:
        ids, rows, vectors = self.embeddings.doc_ids, hits.rows, self.documents.index.vectors
        pairs = zip(self.documents.serials[rows].tolist(), rows.tolist(), hits.scores.tolist(), strict=True)
        return [DocumentHit(ids[serial], score, vectors[row]) for serial, row, score in pairs]

    def document(self, id: str) -> npt.NDArray[np.float32] | None:
        """The vector of a trained document: float32 (dim,).

        Raises:
            KeyError: there is no document of this id.

        Returns:
            None if it has no known word.
        """
        row = self.document_row(id)
        if row is None:
            raise KeyError(id)
        return self.embeddings.doc_vectors[row] if self.embeddings.known_documents[row] else None

    def kept_document(self, id: str) -> tuple[str | None, dict[str, Any]] | None:
        """The kept text and fields of a trained document, or None if there is no document of this id.

        Reads the disk. The file stays open for as long as the model is served, also if its name is removed.

        Raises:
            ModelError: the kept texts are damaged.
        """
        row = self.document_row(id)
        return None if row is None else self.kept_documents([row])[0]

    def kept_documents(self, rows: Sequence[int]) -> list[tuple[str | None, dict[str, Any]]]:
        """The kept texts and fields of trained documents, by row; as :meth:`kept_document`."""
        return [(text, dict(fields)) for text, fields in self.embeddings.kept_documents(rows)]

    def document_row(self, id: str) -> int | None:
        """The row of a trained document, or None."""
        with self._lock:  # the first look-up builds a table
            return self.embeddings.document_index(id)

    def suggestions(self, word: str) -> list[str]:
        """Words of the vocabulary within a few typing mistakes."""
        with self._lock:
            return self.embeddings.suggestions(word)


def _segment_of(embeddings: ServedEmbeddings, options: IndexOptions) -> Segment:
    """The index of the trained documents, over the model's rows if nearly all have a known word."""
    known = embeddings.known_documents
    serials = np.arange(len(known))
    n_unknown = len(known) - int(np.count_nonzero(known))
    if n_unknown <= _MOST_UNKNOWN * len(known):
        return Segment(CosineIndex(embeddings.doc_vectors, options), serials, embeddings.doc_ids, ~known, n_unknown)
    serials = np.flatnonzero(known)
    ids = [embeddings.doc_ids[row] for row in serials.tolist()]
    vectors = embeddings.doc_vectors[serials]
    return Segment(CosineIndex(vectors, options), serials, ids, np.zeros(len(serials), np.bool_))
