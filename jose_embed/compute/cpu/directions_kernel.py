"""The kernel that sums documents, compiled for one row length.

This module imports Numba; cpu/directions.py imports it at the first call only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import uint64

from jose_embed.compute.cpu.simd import row_primitives
from jose_embed.compute.jit import jit
from jose_embed.compute.tables import LANES


def kernel(n_chunks: int) -> Any:
    """The kernel for rows of ``16 * n_chunks`` floats.

    Args:
        n_chunks: Row length in units of 16 floats.

    Returns:
        ``directions(tokens, offsets, of_words, ready, matrix, out, space)``: see
        :class:`~jose_embed.compute.cpu.directions.CpuDirections`. ``of_words`` are all inputs but the matrix,
        ``ready`` holds the summands of the first words, ``matrix`` has padded rows.
    """
    primitives = row_primitives(n_chunks)
    add_weighted_rows, prefetch_row = primitives.add_weighted_rows, primitives.prefetch_row
    width = n_chunks * LANES

    @jit  # without fastmath: products are rounded before they are added, as NumPy does
    def directions(
        tokens: Any, offsets: Any, of_words: Any, ready: Any, matrix: Any, out: Any, space: Any
    ) -> None:  # fmt: skip
        word_weights, term_weights, center, context, share = of_words
        occurrences, rows, weights, rare = space.occurrences, space.rows, space.weights, space.rare
        total, product = space.total, space.product
        dim, n_ready, most = out.shape[1], uint64(ready.shape[0]), rows.shape[0]
        for document in range(offsets.shape[0] - 1):
            begin, end = offsets[document], offsets[document + 1]
            for t in range(begin, end):
                occurrences[uint64(tokens[t])] += 1
            for c in range(width):
                total[c] = 0.0
            n = 0
            for t in range(begin, end):
                word = uint64(tokens[t])
                count = occurrences[word]
                if count == 0:  # it was seen before
                    continue
                occurrences[word] = 0
                term = term_weights[min(count, term_weights.shape[0] - 1)]
                weight = word_weights[word, 0] + word_weights[word, 1] * term
                if word < n_ready:
                    prefetch_row(ready, word)
                    rows[n] = word
                    weights[n] = weight
                    n += 1
                    if n == most:
                        add_weighted_rows(total, ready, rows, weights, n)
                        n = 0
                else:
                    add_weighted_rows(total, ready, rows, weights, n)
                    n = 0
                    for c in range(dim):
                        if share == 0.0:
                            rare[0, c] = center[word, c]
                        else:
                            rare[0, c] = np.float32(np.float64(center[word, c]) - share * np.float64(context[word, c]))
                    rows[0] = 0
                    weights[0] = weight
                    add_weighted_rows(total, rare, rows, weights, 1)
            add_weighted_rows(total, ready, rows, weights, n)
            if matrix.shape[0]:
                for c in range(width):
                    product[c] = 0.0
                add_weighted_rows(product, matrix, space.columns, total, matrix.shape[0])
                for c in range(width):
                    total[c] = product[c]
            square = 0.0
            for c in range(dim):
                square += total[c] * total[c]
            if square > 0.0:
                length = np.sqrt(square)
                for c in range(dim):
                    out[document, c] = np.float32(total[c] / length)

    return directions
