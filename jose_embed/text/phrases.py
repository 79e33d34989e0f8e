"""Phrases: pairs of neighbouring words that occur together far more often than by chance become one word.

The score of a pair is its normalized pointwise mutual information,

    npmi(a, b) = log(p(ab) / (p(a) p(b))) / -log p(ab),

which is 1 for words that occur only together and 0 for independent ones. One pass over the encoded text counts the
pairs, a second one joins them, from left to right, into the words ``a_b``. Words outside of the vocabulary are no
neighbours: they are left out before. Later texts are joined by the same pairs and the same rule.

Source: Bouma, Normalized (Pointwise) Mutual Information in Collocation Extraction, GSCL 2009.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.compute.jit import jit

THRESHOLD: Final = 0.5  # the least score of a phrase
_RAREST: Final = 5  # occurrences that a pair needs at least
_FIRST_SLOTS, _MOST_SLOTS = 1 << 20, 1 << 24
_FULL: Final = 0.6

Tokens = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]


class Phrase(NamedTuple):
    """Two words that are one.

    Attributes:
        first: The first word.
        second: The second word.
        score: The score of the pair, at most 1.
    """

    first: str
    second: str
    score: float

    @property
    def word(self) -> str:
        """The word that the pair becomes."""
        return f"{self.first}_{self.second}"


class PairTable(NamedTuple):
    """A hash table of pairs of rows.

    Attributes:
        keys: int64 (a power of two,): ``first << 32 | second``, or -1 for a free slot.
        values: int32 (the same,): a count, or the row that the pair becomes.
        starts: uint8 (n_words,): whether a word may be the first of a pair.
    """

    keys: npt.NDArray[np.int64]
    values: npt.NDArray[np.int32]
    starts: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], values: Tokens, n_words: int) -> PairTable:
        """The table of some pairs.

        Args:
            first: int64 (n,), rows.
            second: int64 (n,), rows.
            values: int32 (n,).
            n_words: Above all rows.
        """
        size = 1 << max(4, int(4 * len(first)).bit_length())
        starts = np.zeros(n_words, np.uint8)
        starts[first] = 1
        table = cls(np.full(size, -1, np.int64), np.zeros(size, np.int32), starts)
        _insert(table.keys, table.values, first << 32 | second, values)
        return table


def find_phrases(
    tokens: Tokens, offsets: Offsets, counts: npt.NDArray[np.int64], min_count: int, threshold: float = THRESHOLD
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The pairs of neighbours whose score reaches a threshold, the highest first.

    Args:
        tokens: int32 (n_tokens,), rows of the vocabulary.
        offsets: int64 (n_documents + 1,), where documents begin.
        counts: int64 (n_words,), occurrences of each word.
        min_count: Pairs that occur less often, or less often than five times, are not phrases.
        threshold: The least score.

    Returns:
        First and second row of each pair, int64 (n,), and scores, float64 (n,).
    """
    least = max(min_count, _RAREST)
    frequent = (counts >= least).astype(np.uint8)
    size = _FIRST_SLOTS
    keys, values = np.full(size, -1, np.int64), np.zeros(size, np.int32)
    state = np.zeros(3, np.int64)  # the next document, the next token, pairs in the table
    rarest = 0
    while not _count(tokens, offsets, frequent, keys, values, state):
        if size < _MOST_SLOTS:
            size *= 4
        else:  # so many different pairs: forget the rarest
            rarest += 1
        kept = np.flatnonzero(values > rarest)
        old_keys, old_values = keys[kept], values[kept]
        keys, values = np.full(size, -1, np.int64), np.zeros(size, np.int32)
        _insert(keys, values, old_keys, old_values)
        state[2] = len(old_keys)
    found = np.flatnonzero(values >= least)
    pairs, n_pairs = keys[found], values[found].astype(np.float64)
    first, second = pairs >> 32, pairs & 0xFFFFFFFF
    total = float(max(2, len(tokens)))
    share = n_pairs / total
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.log(share * total * total / (counts[first] * counts[second].astype(np.float64))) / -np.log(share)
    chosen = np.flatnonzero(scores >= threshold)
    chosen = chosen[np.lexsort((second[chosen], first[chosen], -n_pairs[chosen], -scores[chosen]))]
    return first[chosen], second[chosen], np.minimum(scores[chosen], 1.0)


def join_in_place(tokens: Tokens, offsets: Offsets, pairs: PairTable, counts: npt.NDArray[np.int64]) -> int:
    """Join the pairs of all documents, from left to right.

    Args:
        tokens: int32 (n_tokens,), rows; the joined ones are written to its beginning.
        offsets: int64 (n_documents + 1,); changed to those of the joined documents.
        pairs: The row of each pair.
        counts: int64, occurrences of each row; added to.

    Returns:
        The number of joined tokens.

    Example:
        >>> tokens, offsets = np.int32([0, 1, 1, 0, 1]), np.int64([0, 3, 5])
        >>> counts = np.zeros(3, np.int64)
        >>> n = join_in_place(tokens, offsets, PairTable.of(np.int64([0]), np.int64([1]), np.int32([2]), 2), counts)
        >>> tokens[:n].tolist(), offsets.tolist(), counts.tolist()
        ([2, 1, 2], [0, 2, 3], [0, 1, 2])
    """
    return int(_join(tokens, offsets, pairs.keys, pairs.values, pairs.starts, counts))


def count_joined(tokens: Tokens, offsets: Offsets, pairs: PairTable, counts: npt.NDArray[np.int64]) -> None:
    """Add the counts that :func:`join_in_place` would, and change nothing else."""
    _count_joined(tokens, offsets, pairs.keys, pairs.values, pairs.starts, counts)


def phrases_of(
    words: Sequence[str], first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], scores: npt.NDArray[np.float64]
) -> list[Phrase]:
    """The pairs as words."""
    columns = (first.tolist(), second.tolist(), scores.round(6).tolist())
    return [Phrase(words[a], words[b], score) for a, b, score in zip(*columns, strict=True)]


def phrases_from(stored: Any) -> list[Phrase]:
    """The pairs of a JSON file.

    Raises:
        ValueError: it holds something else.
    """
    if not isinstance(stored, list):
        raise ValueError("does not hold pairs of words")
    for entry in stored:
        if not (
            isinstance(entry, list)
            and len(entry) == 3
            and all(isinstance(word, str) and word for word in entry[:2])
            and isinstance(entry[2], int | float)
        ):
            raise ValueError("holds something else than two words and a score")
    return [Phrase(first, second, float(score)) for first, second, score in stored]


@jit(inline=True)
def _slot(keys: npt.NDArray[np.int64], key: int) -> int:
    """The slot of a key, or the free one where it belongs."""
    mask = len(keys) - 1
    h = (key ^ key >> 32) * 0x9E3779B1
    slot = (h ^ h >> 15) & mask
    while keys[slot] != -1 and keys[slot] != key:
        slot = slot + 1 & mask
    return slot


@jit
def _insert(
    keys: npt.NDArray[np.int64],
    values: npt.NDArray[np.int32],
    new: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int32],
) -> None:
    for i in range(len(new)):
        slot = _slot(keys, int(new[i]))
        keys[slot] = new[i]
        values[slot] = counts[i]


@jit
def _count(
    tokens: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    frequent: npt.NDArray[np.uint8],
    keys: npt.NDArray[np.int64],
    values: npt.NDArray[np.int32],
    state: npt.NDArray[np.int64],
) -> bool:
    """Count pairs until the table is full; True at the end of the text."""
    most = int(len(keys) * _FULL)
    document, i, n = state[0], state[1], state[2]
    while document < len(offsets) - 1:
        end = offsets[document + 1]
        i = max(i, offsets[document])
        while i + 1 < end:
            a, b = int(tokens[i]), int(tokens[i + 1])
            if frequent[a] and frequent[b]:
                if n >= most:
                    state[0], state[1], state[2] = document, i, n
                    return False
                key = a << 32 | b
                slot = _slot(keys, key)
                if keys[slot] == -1:
                    keys[slot] = key
                    n += 1
                values[slot] += 1
            i += 1
        document += 1
    state[0], state[1], state[2] = document, i, n
    return True


@jit
def _row_and_step(
    tokens: npt.NDArray[np.int32],
    read: int,
    end: int,
    keys: npt.NDArray[np.int64],
    values: npt.NDArray[np.int32],
    starts: npt.NDArray[np.uint8],
) -> tuple[int, int]:
    """The row of the word or phrase that begins at ``read``, and how many tokens it takes."""
    row = int(tokens[read])
    if starts[row] and read + 1 < end:
        slot = _slot(keys, row << 32 | int(tokens[read + 1]))
        if keys[slot] != -1:
            return int(values[slot]), 2
    return row, 1


@jit
def _join(
    tokens: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    keys: npt.NDArray[np.int64],
    values: npt.NDArray[np.int32],
    starts: npt.NDArray[np.uint8],
    counts: npt.NDArray[np.int64],
) -> int:
    read, write = 0, 0
    for document in range(len(offsets) - 1):
        end = offsets[document + 1]
        while read < end:
            row, step = _row_and_step(tokens, read, end, keys, values, starts)
            tokens[write] = row
            counts[row] += 1
            write += 1
            read += step
        offsets[document + 1] = write
    return write


@jit
def _count_joined(
    tokens: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    keys: npt.NDArray[np.int64],
    values: npt.NDArray[np.int32],
    starts: npt.NDArray[np.uint8],
    counts: npt.NDArray[np.int64],
) -> None:
    read = 0
    for document in range(len(offsets) - 1):
        end = offsets[document + 1]
        while read < end:
            row, step = _row_and_step(tokens, read, end, keys, values, starts)
            counts[row] += 1
            read += step
