"""Queries: a direction from words or vectors, and the answers to it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ConfigError

if TYPE_CHECKING:
    pass
__all__ = ["DocumentNeighbor", "Neighbor", "Query"]

Words = str | Sequence[str]

_NOTHING_LEFT: Final = 1e-5  # a direction shorter than this (of unit vectors in float32) is rounding error


class Neighbor(NamedTuple):
    """A word near to a direction: ``score`` is the cosine, ``index`` the row and so the rank by frequency, from 0."""

    word: str
    score: float
    index: int  # type: ignore[assignment]  # hides tuple.index


class DocumentNeighbor(NamedTuple):
    """A document near to a direction: ``score`` is the cosine, ``index`` the row."""

    doc_id: str
    score: float
    index: int  # type: ignore[assignment]  # hides tuple.index


class Query(NamedTuple):
    """A direction and what it was made of.

    Attributes:
        vector: float32 (dim,), norm 1.
        words: The rows of the words that made it, which are no answers to it.
    """

    vector: npt.NDArray[np.float32]
    words: tuple[int, ...]


def _projected_out(direction: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What remains of a direction orthogonal to all rows of ``others`` (Gram-Schmidt)."""
    axes: list[npt.NDArray[np.float64]] = []
    for other in others:
        rest = _orthogonal_part(other, axes)
        length = float(np.linalg.norm(rest))
        if length > _NOTHING_LEFT:  # else it lies in the span of those before it
            axes.append(rest / length)
    return _orthogonal_part(direction, axes)


def _orthogonal_part(
    vector: npt.NDArray[np.float64], axes: Sequence[npt.NDArray[np.float64]]
) -> npt.NDArray[np.float64]:
    """The part of a vector orthogonal to orthonormal axes; taken out twice, as once leaves rounding errors behind."""
    rest = vector.copy()
    for axis in [*axes, *axes]:
        rest -= (rest @ axis) * axis
    return rest


def _listed(name: str, words: Words) -> list[str]:
    names = [words] if isinstance(words, str) else list(words)
    for word in names:
        if not isinstance(word, str):
            raise ConfigError(f"{name} holds {word!r}; it must be a word or a list of words")
    return names


def _at_least_one(name: str, value: int) -> int:
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number from 1 up")
    return number
