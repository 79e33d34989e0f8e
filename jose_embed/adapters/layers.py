"""Ids of texts and tables of vectors for embedding layers of any framework; NumPy only.

    id 0        padding; its row is zero
    id 1        every unknown word, and a text without words; its row is zero
    id row + 2  the word in this row of ``model.words``

jose_embed.adapters.torch and jose_embed.adapters.keras make layers of the tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ConfigError
from jose_embed.model.embeddings import Embeddings
from jose_embed.text.documents import Document, given_documents

__all__ = ["FIRST_WORD", "PADDING", "UNKNOWN", "TextToIds", "document_table", "word_table"]

PADDING: Final = 0
UNKNOWN: Final = 1
FIRST_WORD: Final = 2
_BLOCK_WORDS: Final = 4096
Number = TypeVar("Number", np.int32, np.float32)


class TextToIds:
    """Turns texts into ids, by the tokenizer and the vocabulary of a model.

    It can be pickled with a saved model, for the worker processes of a data loader.

    Args:
        model: The model.
        length: Words of a text from this number on are left out, and all texts get this length. None: as long as the
            longest text of a call.

    Attributes:
        n_ids: The number of ids, ``n_words + 2``.

    Raises:
        ConfigError: a length below 1.

    Example:
        >>> model = Embeddings.from_arrays(
        ...     words=["east", "north"], counts=[2, 1], center_vectors=np.eye(2, dtype=np.float32),
        ...     context_vectors=np.eye(2, dtype=np.float32),
        ... )
        >>> TextToIds(model)(["North or east", "east", ""]).tolist()
        [[3, 1, 2], [2, 0, 0], [1, 0, 0]]
        >>> ids, weights = TextToIds(model).weighted(["North or east, east"])
        >>> ids.tolist(), weights.astype(float).round(2).tolist()
        ([[3, 2]], [[1.39, 1.17]])
    """

    def __init__(self, model: Embeddings, *, length: int | None = None) -> None:
        if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
            raise ConfigError(f"length is {length!r}; it must be None or a whole number of at least 1")
        self.model = model
        self.length = length
        self.n_ids = model.n_words + FIRST_WORD

    def __call__(self, texts: Iterable[Document]) -> npt.NDArray[np.int32]:
        """The ids of the words of texts, in order: int32 (n_texts, length), padded with 0.

        A text without words is one unknown word, so that no row is padding alone (means over such a row are NaN).

        Args:
            texts: Strings, or lists of words, in any iterable.

        Raises:
            CorpusError: a value that is not a text.
        """
        encoder = self.model.encoder
        found = [self.model.rows_of(encoder.tokens(text)[: self.length]) for text in _listed(texts)]
        ids = _padded([np.where(rows < 0, UNKNOWN, rows + FIRST_WORD) for rows in found], np.int32, self.length)
        ids[ids[:, 0] == PADDING, 0] = UNKNOWN
        return ids

    def weighted(self, texts: Iterable[Document]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """The different known words of texts with their weights in the document vectors, as ``model.infer`` takes them.

        The direction of ``sum(weights * document_table(model)[ids])`` is the document's vector. ``length`` is ignored.

        Args:
            texts: As for a call.

        Returns:
            int32 (n_texts, m), padded with 0; float32 (n_texts, m), 0 at the padding.

        Raises:
            CorpusError: a value that is not a text.
        """
        found = self.model.encoder.infer_detailed(_listed(texts), most_unknown=0)
        ids = _padded([text.known + FIRST_WORD for text in found], np.int32)
        return ids, _padded([text.weights for text in found], np.float32)


def word_table(model: Embeddings) -> npt.NDArray[np.float32]:
    """The word vectors by id: float32 (n_words + 2, dim); rows 0 and 1 are zero. A copy, which may be changed."""
    table = np.zeros((model.n_words + FIRST_WORD, model.dim), np.float32)
    table[FIRST_WORD:] = model.center_vectors
    return table


def document_table(model: Embeddings) -> npt.NDArray[np.float32]:
    """What words add to documents, by id, for :meth:`TextToIds.weighted`; shape and zero rows as :func:`word_table`."""
    table = np.zeros((model.n_words + FIRST_WORD, model.dim), np.float32)
    for start in range(0, model.n_words, _BLOCK_WORDS):
        rows = model.encoder.document_rows(slice(start, start + _BLOCK_WORDS))
        table[FIRST_WORD + start : FIRST_WORD + start + len(rows)] = rows
    return table


def _listed(texts: Iterable[Document]) -> list[Document]:
    return [text for batch, _ in given_documents(texts).batches() for text in batch]


def _padded(lists: list[npt.NDArray[Any]], dtype: type[Number], length: int | None = None) -> npt.NDArray[Number]:
    longest = max(1, *map(len, lists)) if length is None else length
    padded = np.zeros((len(lists), longest), dtype)
    for row, values in zip(padded, lists, strict=True):
        row[: len(values)] = values
    return padded
