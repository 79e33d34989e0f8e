"""The arguments of the training kernel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.compute.tables import LANES, PIECE, padded_table


class Rules(NamedTuple):
    """The scalars of a run; see :func:`document_step` for ``visit`` and ``longest_step``.

    ``sharpness`` is the temperature of the cross-entropy. ``total_tokens`` is that of all epochs together.
    ``first_document`` is the number of the first document in the whole text, of which this machine may have a part: all
    draws of a document depend on its number there.
    """

    seed: np.uint64
    window: int
    negatives: int
    positions_per_draw: int
    doc_negatives: int
    context_weight: np.float32
    doc_weight: np.float32
    visit: np.float32
    longest_step: np.float32
    margin: np.float32
    sharpness: np.float32
    learning_rate: np.float32
    total_tokens: float
    first_document: np.int64


class Private(NamedTuple):
    """Position of the rows of a worker: those of the words below ``n_words`` lie ``shift`` rows further on."""

    n_words: np.uint32
    shift: np.uint32


class Scratch(NamedTuple):
    """Work space of one call of a kernel, whatever it holds.

    It is made outside: code that allocates arrays takes half a second longer to compile.
    """

    kept: npt.NDArray[np.uint32]  # (longest piece,): the words of a piece that are kept by subsampling
    drawn: npt.NDArray[np.uint32]  # (16,): the negatives of the positions at hand
    coming: npt.NDArray[np.uint32]  # (16,): those of the next positions, on their way into the cache
    rows: npt.NDArray[np.uint32]  # (32,): positives from slot 0, negatives from slot 16
    products: npt.NDArray[np.float32]  # (16,): -f or h, those that are taken one by one
    own: npt.NDArray[np.float32]  # (32,): what a row keeps of itself
    towards: npt.NDArray[np.float32]  # (32,): what it takes of the anchor
    weight: npt.NDArray[np.float32]  # (32,): with what weight it moves the anchor
    moves: npt.NDArray[np.float32]  # (1, row): the weighted sum of rows that the anchor is moved by
    mixed: npt.NDArray[np.float32]  # (1, row): v + d

    @classmethod
    def of(cls, row: int, longest: int) -> Scratch:
        """Work space for rows of ``row`` floats and documents of up to ``longest`` running words."""
        registers = padded_table(7, LANES).reshape(-1)
        numbers = padded_table(4, LANES).reshape(-1).view(np.uint32)
        return cls(
            kept=np.empty(min(longest, PIECE), np.uint32),
            drawn=numbers[:LANES],
            coming=numbers[LANES : 2 * LANES],
            rows=numbers[2 * LANES :],
            products=registers[:LANES],
            own=registers[LANES : 3 * LANES],
            towards=registers[3 * LANES : 5 * LANES],
            weight=registers[5 * LANES : 7 * LANES],
            moves=padded_table(1, row),
            mixed=padded_table(1, row),
        )
