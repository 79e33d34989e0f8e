"""The combiner of rows that several machines have moved from a common start.

Machine i has moved the row x by d_i. With S = sum_i d_i and Q = sum_i |d_i|^2 the row becomes

    x <- normalise(x + min(1, Q / |S|^2) S).

Equal moves are averaged (Q / |S|^2 = 1 / N), orthogonal ones are added (Q / |S|^2 = 1). The result does not depend on
the order of the machines, and the learning rate stays that of one machine. The mean of the rows, in contrast, divides
the moves of words that few machines have met by their number, and ruins the vectors (DESIGN.md, decision 46).

Source: after the sequential combiner of models of Maleki, Musuvathi and others, arXiv 1909.03359.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]

_BLOCK = 4096  # rows at a time: what fits into a cache


class Moves(NamedTuple):
    """How far rows have moved, as it travels.

    Attributes:
        values: float32 or int8 (n, dim).
        scales: float32 (n,), the unit of each row of int8; None for float32.
    """

    values: npt.NDArray[np.float32] | npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32] | None = None

    @classmethod
    def of(cls, deltas: Rows, *, int8: bool = False) -> Moves:
        """Pack differences of rows, float32 (n, dim); as int8, each row in units of its largest number over 127."""
        if not int8:
            return cls(deltas)
        scales = np.abs(deltas).max(axis=1, initial=0).astype(np.float32) / np.float32(127)
        units = np.divide(deltas, scales[:, None], out=np.zeros_like(deltas), where=scales[:, None] > 0)
        return cls(np.rint(units).astype(np.int8), scales)

    def deltas(self) -> Rows:
        """The differences, float32 (n, dim)."""
        if self.scales is None:
            return np.asarray(self.values, np.float32)
        return np.asarray(self.values * self.scales[:, None], np.float32)

    @property
    def n_bytes(self) -> int:
        """The bytes that travel."""
        return self.values.nbytes + (0 if self.scales is None else self.scales.nbytes)


def combined(rows: Rows, moves: Sequence[Moves]) -> Rows:
    """The common rows after the moves of all machines.

    Args:
        rows: float32 (n, dim), norm 1: the common start.
        moves: The moves of each machine, in the order of their numbers.

    Returns:
        float32 (n, dim), norm 1. A row that nobody has moved keeps its bytes. The same input gives the same bytes.

    Example:
        >>> start = np.float32([[1, 0, 0]])
        >>> north, up = Moves(np.float32([[0, 1, 0]])), Moves(np.float32([[0, 0, 1]]))
        >>> combined(start, [north, north]).round(3).tolist()  # as one of them
        [[0.707..., 0.707..., 0.0]]
        >>> combined(start, [north, up]).round(3).tolist()  # both
        [[0.577..., 0.577..., 0.577...]]
    """
    out = rows.copy()
    for start in range(0, len(rows), _BLOCK):
        some = slice(start, start + _BLOCK)
        total = np.zeros_like(rows[some])
        squares = np.zeros(len(total))
        for one in moves:
            deltas = Moves(one.values[some], None if one.scales is None else one.scales[some]).deltas()
            total += deltas
            squares += _squares(deltas)
        length = _squares(total)
        share = np.minimum(1.0, np.divide(squares, length, out=np.zeros_like(length), where=length > 0))
        total *= share[:, None].astype(np.float32)
        out[some] = moved(rows[some], total)
    return out


def moved(rows: Rows, deltas: Rows) -> Rows:
    """Rows plus differences, with norm 1; a row keeps its bytes where the difference is zero or nothing is left."""
    sums = rows + deltas
    lengths = np.sqrt(_squares(sums))
    stays = ~deltas.any(axis=1) | (lengths < 1e-6)
    sums /= np.where(stays, 1, lengths).astype(np.float32)[:, None]
    sums[stays] = rows[stays]
    return sums


def _squares(rows: Rows) -> npt.NDArray[np.float64]:
    """float64 (n,): the squared lengths of rows."""
    squares: npt.NDArray[np.float64] = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return squares
