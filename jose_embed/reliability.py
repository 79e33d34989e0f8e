"""In which directions a document's words agree: what is left of a direction once chance is taken out of it.

A document is a sample of words, and another sample of the same document has another direction. How much of a direction
is the document and how much is the sample is seen by halves: its different words are dealt out to two halves, each gets
its own direction, centered, and along each principal axis of these the two halves of all documents have a correlation
r. That of two whole samples follows by the formula of Spearman and Brown, 2 r / (1 + r), the axis's reliability. The
matrix of :func:`reliability_matrix` scales every axis by a power of it: the first is the best linear guess of what is
behind an observation, higher ones look for what is coarser. Few documents say little about an axis: n of them count as
n beside ``dim`` documents that agree.

Source: Spearman, Correlation calculated from faulty data, and Brown, Some experimental results in the correlation of
mental abilities (both 1910), for the formula; Kelley, Interpretation of educational measurements (1927), for the guess;
DESIGN.md, decisions 33 and 38, for what it does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from jose_embed.passages import gathered
from jose_embed.sampling import GOLDEN, mixed_bits

__all__ = ["reliability_matrix"]

_MOST_DOCUMENTS = 20_000  # that are looked at, about
_AT_ONCE = 256  # of them, so that their halves take little memory
_LEAST = 0.01  # reliability of an axis along which the halves do not agree at all

Writer = Callable[[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.float32]], None]


def reliability_matrix(
    tokens: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], dim: int, width: int, power: float, write: Writer
) -> npt.NDArray[np.float64]:
    """float64 (dim, dim), symmetric: what directions of documents are multiplied with, before they get norm 1.

    Args:
        tokens: int32 (n_tokens,), the words of all documents, possibly mapped.
        offsets: int64 (n_documents + 1,).
        dim: Columns of a direction.
        width: The same with the padding that ``write`` expects.
        power: Of the reliability, from 0 up.
        write: Writes the directions of documents, as :func:`jose_embed.backends.directions_writer` returns it.

    Example::

        write = directions_writer("cpu", summands)  # without a matrix
        matrix = reliability_matrix(corpus.tokens, corpus.offsets, 100, 100, 1.5, write)
    """
    chosen = np.arange(len(offsets) - 1) if len(offsets) <= _MOST_DOCUMENTS else _some(len(offsets) - 1)
    chosen = chosen[offsets[chosen + 1] - offsets[chosen] > 1]
    n, sums = 0, np.zeros((2, dim))
    own, crossed = np.zeros((dim, dim)), np.zeros((dim, dim))
    for start in range(0, len(chosen), _AT_ONCE):
        some = chosen[start : start + _AT_ONCE]
        halves = _halves(*gathered(tokens, offsets, some), some, width, write)[:, :, :dim]
        n += len(halves[0])
        sums += halves.sum(1)
        own += halves[0].T @ halves[0] + halves[1].T @ halves[1]
        crossed += halves[0].T @ halves[1]
    if n < 2:
        return np.eye(dim)
    means = sums / n
    own -= n * means.T @ means
    crossed -= n * np.outer(*means)
    spread, axes = np.linalg.eigh(own / 2)
    agreement = (axes * (crossed @ axes)).sum(0)
    r = np.clip(agreement / np.maximum(spread, 1e-12 * n), _LEAST, 1)
    reliability = (n * 2 * r / (1 + r) + dim) / (n + dim)
    matrix: npt.NDArray[np.float64] = (axes * reliability**power) @ axes.T
    return matrix


def _some(n_documents: int) -> npt.NDArray[np.int64]:
    """Rows by chance, and not every nth: a file may be made of pairs."""
    return np.unique(np.random.default_rng(0).integers(0, n_documents, _MOST_DOCUMENTS))


def _halves(
    words: npt.NDArray[np.int32],
    ends: npt.NDArray[np.int64],
    documents: npt.NDArray[np.int64],
    width: int,
    write: Writer,
) -> npt.NDArray[np.float64]:
    """float64 (2, n, width): the directions of both halves of those documents whose halves both have one."""
    second = _dealt(words, np.repeat(documents, np.diff(ends)))
    directions = np.zeros((2, len(documents), width), np.float32)
    for half, mask in enumerate((~second, second)):
        write(words[mask], np.concatenate(([0], np.cumsum(mask)))[ends], directions[half])
    both = directions.any(axis=2).all(axis=0)
    return directions[:, both].astype(np.float64)


def _dealt(words: npt.NDArray[np.int32], documents: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether each running word belongs to the second half: all occurrences in a document to the same.

    By a hash of both numbers; in NumPy, because compiling it would take longer.
    """
    keys = words.astype(np.uint64) * np.uint64(GOLDEN) + documents.astype(np.uint64)
    second: npt.NDArray[np.bool_] = (mixed_bits(keys) >> np.uint64(63)).astype(np.bool_)
    return second
