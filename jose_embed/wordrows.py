"""Texts as rows of a vocabulary, by the compiled tokenizers of the training: for many texts at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.tokenizers import Tokenizer, valid_text
from jose_embed.wordtable import Ends, Ids, word_table

__all__ = ["Rows", "WordRows"]


class Rows(NamedTuple):
    """The known words of consecutive texts.

    Attributes:
        rows: int32 (n,), of every known running word of all texts, one text after the other.
        n_tokens: int64 (n_texts,), running words of each text.
        n_known: int64 (n_texts,), how many of them are known.
    """

    rows: npt.NDArray[np.int32]
    n_tokens: npt.NDArray[np.int64]
    n_known: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: npt.NDArray[np.int32], ends: npt.NDArray[np.int64]) -> Rows:
        """Leave the unknown words out.

        Args:
            rows: int32 (n_words,), of every running word, -1 for an unknown one.
            ends: int64 (n_texts,), where the words of each text end.
        """
        known = rows >= 0
        n_before = np.concatenate(([0], np.cumsum(known)))
        starts = np.concatenate(([0], ends[:-1]))
        return cls(rows[known], ends - starts, n_before[ends] - n_before[starts])

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """int64 (n_texts + 1,): the rows of text i are ``rows[offsets[i]:offsets[i + 1]]``."""
        return np.concatenate(([0], np.cumsum(self.n_known)))


_MOST_UNKNOWN = 1 << 20  # different words, some 100 MB


class WordRows:
    """A tokenizer before a vocabulary.

    It remembers the words that it has met, unknown ones too. When these are a million it forgets them all and begins
    anew: text without an end, such as numbers, costs no more memory than that.

    Args:
        tokenizer: What splits a text.
        index_of: The row of a word, None for an unknown one; asked once for each word that is not remembered.
    """

    def __init__(self, tokenizer: Tokenizer, index_of: Callable[[str], int | None]) -> None:
        self._tokenizer = tokenizer
        self._index_of = index_of
        self._table = word_table(tokenizer)
        self._rows = np.empty(0, np.int32)  # of each number of the table; -1 for an unknown word
        self._n_unknown = 0

    def of_lines(self, data: bytes) -> Rows:
        """The rows of lines: valid UTF-8, not empty, ended by a line feed."""
        return self._found(*self._table.add_lines(data))

    def of_texts(self, texts: Sequence[str]) -> Rows:
        """The rows of any texts, at least one, line feeds inside them and all."""
        return self._found(*self._table.add_texts(valid_text(text) for text in texts))

    def _found(self, numbers: Ids, ends: Ends) -> Rows:
        n_seen = int(numbers.max(initial=-1)) + 1
        if n_seen > len(self._rows):
            words = self._table.words(np.arange(len(self._rows), n_seen))
            found = [self._index_of(word) for word in words]
            self._rows = np.append(self._rows, np.array([-1 if row is None else row for row in found], np.int32))
            self._n_unknown += found.count(None)
        rows = Rows.of(self._rows[numbers], ends)
        if self._n_unknown > _MOST_UNKNOWN:
            self._table, self._rows, self._n_unknown = word_table(self._tokenizer), np.empty(0, np.int32), 0
        return rows
