"""The phrases of a model: the pairs of its training text, joined in later texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jose_embed.text.phrases import PairTable, Phrase, join_in_place
from jose_embed.text.word_table import Rows


class PhraseJoiner:
    """Joins the words of texts as those of the training text were joined.

    A word whose occurrences were nearly all in phrases is no longer in the vocabulary, but still a neighbour. Such
    words get rows behind the vocabulary.

    Args:
        phrases: The phrases.
        rows: The row of each word of the vocabulary.

    Example:
        >>> joiner = PhraseJoiner([Phrase("new", "york", 0.9)], {"in": 0, "new_york": 1, "new": 2})
        >>> joiner.joined(["in", "old", "new", "york", "york"])
        ['in', 'old', 'new_york', 'york']
        >>> joiner.row_of("york"), joiner.row_of("old")
        (3, None)
    """

    def __init__(self, phrases: Sequence[Phrase], rows: Mapping[str, int]) -> None:
        self._n_words = len(rows)
        self._rows = dict(rows)
        for phrase in phrases:
            for word in (phrase.first, phrase.second):
                self._rows.setdefault(word, len(self._rows))
        known = [phrase for phrase in phrases if phrase.word in rows]
        self._pairs = {(phrase.first, phrase.second): phrase.word for phrase in known}
        first = np.array([self._rows[phrase.first] for phrase in known], np.int64)
        second = np.array([self._rows[phrase.second] for phrase in known], np.int64)
        of_phrases = np.array([rows[phrase.word] for phrase in known], np.int32)
        self._table = PairTable.of(first, second, of_phrases, len(self._rows))
        self._counts = np.zeros(len(self._rows), np.int64)

    def row_of(self, word: str) -> int | None:
        """The row of a word that may be a neighbour; from the size of the vocabulary on if it is not in it."""
        return self._rows.get(word)

    def joined(self, words: Iterable[str]) -> list[str]:
        """The words of a text with phrases as one word each; unknown words are not joined and stay."""
        found: list[str] = []
        before = -1  # the place of the neighbour in what was found
        for word in words:
            if word not in self._rows:
                found.append(word)
            elif before >= 0 and (phrase := self._pairs.get((found[before], word))) is not None:
                found[before], before = phrase, -1
            else:
                before = len(found)
                found.append(word)
        return found

    def joined_rows(self, texts: Rows) -> Rows:
        """The same for texts as rows of :meth:`row_of`; the rows are those of the vocabulary."""
        rows, offsets = texts.rows.copy(), texts.offsets
        n = join_in_place(rows, offsets, self._table, self._counts)
        rows = rows[:n]
        known = rows < self._n_words
        n_before = np.concatenate(([0], np.cumsum(known)))
        n_known = n_before[offsets[1:]] - n_before[offsets[:-1]]
        n_joined = texts.n_known - np.diff(offsets)
        return Rows(rows[known], texts.n_tokens - n_joined, n_known)
