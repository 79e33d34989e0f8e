"""Character n-grams of words, as rows of a table of bounded size."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from zlib import crc32

import numpy as np
import numpy.typing as npt

#: Characters of a word that is composed; a longer one, such as a line of base64, has no n-grams.
LONGEST_WORD: Final = 100


@dataclass(frozen=True, slots=True)
class Ngrams:
    """The n-grams of a word between the marks ``<`` and ``>``, hashed by CRC-32 of their UTF-8 bytes.

    Args:
        shortest: Characters of the shortest n-gram, from 1; the marks count.
        longest: Characters of the longest one.
        buckets: Rows of the table; n-grams whose hashes agree modulo this number share a row.

    Source: Bojanowski et al., Enriching Word Vectors with Subword Information, TACL 2017.

    Example:
        >>> Ngrams(3, 4, 1000).of("cat")
        ['<ca', 'cat', 'at>', '<cat', 'cat>']
        >>> Ngrams(3, 4, 1000).rows("cat")
        [524, 832, 276, 679, 239]
    """

    shortest: int
    longest: int
    buckets: int

    def of(self, word: str) -> list[str]:
        """The n-grams of a word, short ones first; none of a word of more than 100 characters."""
        if len(word) > LONGEST_WORD:
            return []
        marked = f"<{word}>"
        return [
            marked[start : start + n]
            for n in range(self.shortest, min(self.longest, len(marked)) + 1)
            for start in range(len(marked) - n + 1)
        ]

    def rows(self, word: str) -> list[int]:
        """The row of each n-gram of a word; a row may occur more than once."""
        return [crc32(ngram.encode()) % self.buckets for ngram in self.of(word)]

    def rows_of_words(self, words: Iterable[str]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """The rows of many words: int32 (n,), one word after another, and int64 (n_words + 1,), where each begins."""
        rows, offsets = array("i"), array("q", [0])  # an array each, as a list of numbers takes ten times as much
        for word in words:
            rows.extend(self.rows(word))
            offsets.append(len(rows))
        return np.array(rows, np.int32), np.array(offsets, np.int64)

    def count(self, words: Iterable[str]) -> int:
        """How many n-grams words have, all together."""
        lengths = np.fromiter((len(word) + 2 if len(word) <= LONGEST_WORD else 0 for word in words), np.int64)
        return sum(int(np.maximum(lengths + 1 - n, 0).sum()) for n in range(self.shortest, self.longest + 1))
