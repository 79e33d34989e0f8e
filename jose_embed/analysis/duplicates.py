"""Pairs of documents with almost the same vector; exact, block by block, in bounded memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from jose_embed.errors import ConfigError, whole_number
from jose_embed.progress import Reporter, SilentReporter

if TYPE_CHECKING:
    from jose_embed.model.embeddings import Embeddings

_BLOCK: Final = 1 << 9  # if all of them are equal, their pairs take 0.2 GB at 100 dimensions


class NearDuplicate(NamedTuple):
    """Two documents.

    Attributes:
        a: Id of the one with the smaller row.
        b: Id of the other.
        cosine: Of their vectors.
    """

    a: str
    b: str
    cosine: float


def near_duplicates(
    model: Embeddings, *, above: float = 0.98, k: int = 1000, reporter: Reporter | None = None
) -> list[NearDuplicate]:
    """The ``k`` pairs of documents with the largest cosines, largest first, equal ones by row.

    All pairs are compared: n documents take n^2 / 2 products, half a minute for 100,000.

    Args:
        model: A model with document vectors; documents without a known word are left out.
        above: The least cosine, above 0 and at most 1; cosines within 1e-6 of it count as equal to it.
        k: At least 1.
        reporter: Receives the phase "comparing", in pairs.

    Raises:
        ConfigError: a model without document vectors, ``above`` or ``k`` out of range.
    """
    model.require_documents()
    if not (isinstance(above, int | float) and 0 < above <= 1):
        raise ConfigError(f"above is {above!r}; it must be a cosine above 0 and at most 1")
    k = whole_number("k", k)
    rows = np.flatnonzero(model.doc_token_counts)
    found = np.empty((0, 2), np.int64)
    cosines = np.empty(0)
    reporter = reporter or SilentReporter()
    reporter.start("comparing", math.comb(len(rows), 2), "pairs")
    for i in range(0, len(rows), _BLOCK):
        left = model.doc_vectors[rows[i : i + _BLOCK]]
        for j in range(i, len(rows), _BLOCK):
            right = model.doc_vectors[rows[j : j + _BLOCK]]
            first, second = np.nonzero(left @ right.T >= above - 1e-5)
            later = first + i < second + j
            first, second = first[later], second[later]
            exact = np.einsum("ij,ij->i", left[first], right[second], dtype=np.float64)
            kept = exact >= above - 1e-6
            found = np.concatenate([found, np.stack([first[kept] + i, second[kept] + j], axis=1)])
            cosines = np.concatenate([cosines, exact[kept]])
            if len(found) > k:
                order = np.lexsort((found[:, 1], found[:, 0], -cosines))[:k]
                found, cosines = found[order], cosines[order]
            reporter.advance(len(left) * len(right) if i < j else math.comb(len(left), 2))
    reporter.finish()
    order = np.lexsort((found[:, 1], found[:, 0], -cosines))
    return [
        NearDuplicate(model.doc_ids[a], model.doc_ids[b], min(1.0, cosine))
        for (a, b), cosine in zip(rows[found[order]].tolist(), cosines[order].tolist(), strict=True)
    ]
