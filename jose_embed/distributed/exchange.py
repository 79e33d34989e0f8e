"""The exchange of the rows of words: who owns which rows, which rows are exchanged when, and what travels.

With N machines, owner j keeps the common rows j, j + N, j + 2N ... of both word tables, so that the rows below any
limit are a prefix of what each owner has. In an exchange every machine sends each owner how far its rows have moved;
the owner combines them in the order of the machines and sends the new rows, or how far they have moved, to all.

The vocabulary is sorted by count. If it is large, its most frequent fifth is exchanged four times as often as asked
for; all words as often as asked for in the first epoch, in which they find their places, and a quarter as often later
(DESIGN.md, decision 46).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.compute.tables import Tables
from jose_embed.distributed.combiner import Moves, Rows, combined, moved

#: The size of a vocabulary from which on its most frequent words are exchanged more often: one of so many.
_LARGE, _HOT_PART = 32_768, 5


class Point(NamedTuple):
    """An exchange.

    Attributes:
        number: From 1, over all epochs.
        epoch: From 0.
        part: How many of the ``parts`` of the epoch are trained before it, on each machine by its own words.
        parts: Intervals of an epoch.
        limit: The words below this row are exchanged.
    """

    number: int
    epoch: int
    part: int
    parts: int
    limit: int

    def words_before(self, n_tokens: int) -> int:
        """The running words that a machine trains before this exchange, of ``n_tokens`` an epoch."""
        return self.epoch * n_tokens + -(-self.part * n_tokens // self.parts)


def plan(epochs: int, exchanges: int, n_words: int) -> list[Point]:
    """The exchanges of a training; the last one of each epoch is at its end and exchanges all words.

    Args:
        epochs: Epochs of the training.
        exchanges: Exchanges of an epoch, as asked for.
        n_words: Size of the vocabulary.

    Example:
        >>> [(point.part, point.limit) for point in plan(1, 2, 30_000)]
        [(1, 30000), (2, 30000)]
        >>> [(point.epoch, point.part, point.limit) for point in plan(2, 2, 90_000)][6:10]
        [(0, 7, 18000), (0, 8, 90000), (1, 1, 18000), (1, 2, 18000)]
    """
    large = n_words >= _LARGE and exchanges > 1
    parts, hot = (4 * exchanges, n_words // _HOT_PART) if large else (exchanges, n_words)
    return [
        Point(
            epoch * parts + part,
            epoch,
            part,
            parts,
            hot if part % (16 if epoch else 4) and part < parts else n_words,
        )
        for epoch in range(epochs)
        for part in range(1, parts + 1)
    ]


class Owner:
    """Keeps the common rows of one owner.

    Args:
        int8: Send moves as int8 instead of rows as float32.

    Attributes:
        number: The last exchange whose result the rows hold.
    """

    def __init__(self, int8: bool) -> None:
        self.number = 0
        self._int8 = int8
        self._rows = np.empty((2, 0, 0), np.float32)
        self._answer = Moves(np.empty((0, 0), np.float32))

    def fill(self, number: int, rows: npt.NDArray[np.float32]) -> None:
        """Take the common rows, float32 (2, n, dim), as they are after the exchange ``number``."""
        self.number, self._rows = number, np.array(rows)
        # Asked for this exchange again, the rows themselves are the answer.
        self._answer = Moves(np.concatenate(self._rows))

    def rows(self) -> npt.NDArray[np.float32]:
        """The common rows, float32 (2, n, dim)."""
        return self._rows

    def combine(self, number: int, *moves: Moves) -> tuple[Moves]:
        """Combine the moves of all machines, each of both tables one after the other.

        The second call with the same number changes nothing and gives the same answer.

        Returns:
            The new rows as float32, or how far they have moved as int8; both tables one after the other.
        """
        if number != self.number:
            n = len(moves[0].values) // 2
            before = np.concatenate(self._rows[:, :n])
            after = combined(before, moves)
            self._answer = Moves(after)
            if self._int8:
                self._answer = Moves.of(after - before, int8=True)
                after = moved(before, self._answer.deltas())
            self._rows[:, :n] = after.reshape(2, n, self._rows.shape[2])
            self.number = number
        return (self._answer,)


class SharedRows:
    """The word tables of a machine, and the common rows that they have moved from.

    Args:
        vectors: float32 (n_words, dim) views of the tables, written by :meth:`apply`.
        n_owners: The number of owners.
        int8: Send moves as int8.

    Attributes:
        number: The last exchange that was applied.
    """

    def __init__(self, vectors: Tables, n_owners: int, int8: bool) -> None:
        self.number = 0
        self._tables = (vectors.center, vectors.context)
        self._n_owners, self._int8 = n_owners, int8
        self._common = np.stack(self._tables)

    def moves(self, limit: int) -> list[Moves]:
        """How far the rows of words below ``limit`` have moved, for each owner; both tables one after the other."""
        found = []
        for rows in self._shares(limit):
            deltas = [table[rows] - common[rows] for table, common in zip(self._tables, self._common, strict=True)]
            found.append(Moves.of(np.concatenate(deltas), int8=self._int8))
        return found

    def apply(self, number: int, limit: int, answers: Sequence[Moves]) -> None:
        """Take the new common rows from the answers of all owners; the second time, nothing happens."""
        if number == self.number:
            return
        for rows, answer in zip(self._shares(limit), answers, strict=True):
            if answer.scales is None:
                new: Rows = np.asarray(answer.values, np.float32)
            else:
                new = moved(np.concatenate(self._common[:, rows]), answer.deltas())
            for table, common, part in zip(self._tables, self._common, np.split(new, 2), strict=True):
                table[rows] = common[rows] = part
        self.number = number

    def fill(self, number: int, parts: Sequence[npt.NDArray[np.float32]]) -> None:
        """Take all common rows, float32 (2, n, dim) of each owner, as they are after the exchange ``number``."""
        for owner, rows in enumerate(parts):
            self._common[:, owner :: self._n_owners] = rows
        for table, common in zip(self._tables, self._common, strict=True):
            table[:] = common
        self.number = number

    def of_owner(self, owner: int) -> npt.NDArray[np.float32]:
        """The common rows of an owner, float32 (2, n, dim)."""
        return np.ascontiguousarray(self._common[:, owner :: self._n_owners])

    def _shares(self, limit: int) -> list[slice]:
        return [slice(owner, limit, self._n_owners) for owner in range(self._n_owners)]
