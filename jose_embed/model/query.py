"""Queries: a direction from words or numbers, and the nearest words or documents."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ConfigError, counterpart
from jose_embed.model.lookup import WordLookup
from jose_embed.model.nearest import nearest_among, nearest_rows

Words = str | Sequence[str]
P = ParamSpec("P")
R = TypeVar("R")

_NOTHING_LEFT: Final = 1e-5  # a shorter difference of unit vectors in float32 is rounding error
_ONE_KIND: Final = "a query is one of: a word, positive and negative words, or a vector; give exactly one of these"


def names_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """The function; its error for an unknown argument names the nearest one, or that of another library.

    Example:
        >>> names_arguments(lambda word, k=10: k)("x", topn=5)
        Traceback (most recent call last):
        ...
        TypeError: <lambda>() has no argument topn (gensim's name); use k instead
    """
    known = [name for name in inspect.signature(function).parameters if name != "self"]

    @functools.wraps(function)
    def called(*args: P.args, **named: P.kwargs) -> R:
        for name in named:
            if name not in known:
                raise TypeError(f"{function.__name__}() has no argument {name}{counterpart(name, known)}")
        return function(*args, **named)

    return called


class Neighbor(NamedTuple):
    """A word near a direction: ``score`` is the cosine, ``index`` the row, which is the rank by frequency from 0."""

    word: str
    score: float
    index: int  # type: ignore[assignment]  # hides tuple.index


class DocumentNeighbor(NamedTuple):
    """A document near a direction: ``score`` is the cosine, ``index`` the row from 0.

    ``text`` and ``fields`` are those of a model that keeps them (``keep_text``, ``keep_fields``); else None and empty.
    """

    doc_id: str
    score: float
    index: int  # type: ignore[assignment]  # hides tuple.index
    text: str | None = None
    fields: Mapping[str, Any] = MappingProxyType({})


class Query(NamedTuple):
    """A direction.

    Attributes:
        vector: float32 (dim,), norm 1.
        words: Rows of the words in the query, which are not among the answers.
        composed: Words of the query that the vocabulary lacks, whose vectors are composed of n-grams.
    """

    vector: npt.NDArray[np.float32]
    words: tuple[int, ...]
    composed: tuple[str, ...] = ()


def word_query(
    lookup: WordLookup,
    center_vectors: npt.NDArray[np.float32],
    word: str | None,
    positive: Words,
    negative: Words,
    vector: npt.ArrayLike | None,
    without: Words,
) -> Query:
    """The direction of a query; the arguments after the first two are those of :meth:`Embeddings.query`.

    Args:
        lookup: The vocabulary.
        center_vectors: float32 (n_words, dim).

    Raises:
        UnknownWordError, ConfigError: as :meth:`Embeddings.query`.
    """
    plus, minus = listed_words("positive", positive), listed_words("negative", negative)
    out = listed_words("without", without)
    vectors = {name: word_vector(lookup, center_vectors, name) for name in [*plus, *minus, *out]}
    if (word is not None) + (vector is not None) + bool(plus or minus) != 1:
        raise ConfigError(_ONE_KIND)
    if vector is not None:
        direction = unit_direction(vector, center_vectors.shape[1])
    else:
        if word is not None:
            plus = [word]
            vectors[word] = word_vector(lookup, center_vectors, word)
        if len(plus) == 1 and not minus and not out:
            return Query(vectors[plus[0]], *_named(lookup, plus))
        direction = np.zeros(center_vectors.shape[1])
        for sign, listed in ((1, plus), (-1, minus)):
            for name in listed:
                direction += sign * vectors[name].astype(np.float64)
        length = float(np.linalg.norm(direction))
        if not length > _NOTHING_LEFT:
            raise ConfigError("the positive and negative words cancel each other; choose others")
        direction /= length
    direction = _projected_out(direction, [vectors[name].astype(np.float64) for name in out])
    length = float(np.linalg.norm(direction))
    if not length > _NOTHING_LEFT:
        names = ", ".join(map(repr, out))
        raise ConfigError(
            f"nothing is left of the query without {names}: it is one of these words or parallel to them; leave out "
            "fewer or other words"
        )
    unit = (direction / length).astype(np.float32)
    unit.flags.writeable = False
    return Query(unit, *_named(lookup, [*plus, *minus, *out]))


def word_vector(lookup: WordLookup, center_vectors: npt.NDArray[np.float32], word: str) -> npt.NDArray[np.float32]:
    """The vector of a word: its row, or composed of n-grams if the vocabulary lacks it and the model can.

    Raises:
        UnknownWordError: neither; with similar spellings.
    """
    composed = lookup.composed(word)
    if composed is not None:
        return composed
    vector: npt.NDArray[np.float32] = center_vectors[lookup.known_row(word)]
    return vector


def _named(lookup: WordLookup, words: Sequence[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The rows of words, and those that have none; each once."""
    rows = {word: lookup.find(word) for word in words}
    known = dict.fromkeys(row for row in rows.values() if row is not None)
    return tuple(known), tuple(word for word, row in rows.items() if row is None)


def unit_direction(vector: npt.ArrayLike, dim: int) -> npt.NDArray[np.float64]:
    """A vector scaled to norm 1.

    Args:
        vector: Finite numbers of shape (dim,), not all zero.
        dim: Dimension of the model.

    Raises:
        ConfigError: it is something else.
    """
    try:
        array = np.asarray(vector)
    except (TypeError, ValueError):
        array = np.empty(0, object)
    if array.dtype.kind not in "iuf":
        raise ConfigError(f"vector is not an array of numbers; it must be {dim} of them")
    array = array.astype(np.float64)
    if array.shape != (dim,):
        raise ConfigError(f"vector has the shape {array.shape}; it must be ({dim},)")
    largest = float(np.abs(array).max())
    if not math.isfinite(largest):
        raise ConfigError("vector holds a NaN or an infinity; all its numbers must be finite")
    if largest == 0:
        raise ConfigError("vector is zero and has no direction; it must hold a number other than 0")
    array /= largest  # so that squares neither overflow nor underflow
    return np.asarray(array / np.linalg.norm(array))


def unit_directions(vectors: npt.ArrayLike, dim: int) -> npt.NDArray[np.float64]:
    """One vector or several, scaled to norm 1: float64 (n, dim).

    Raises:
        ConfigError: one is not a vector of ``dim`` finite numbers, not all zero.
    """
    try:
        rows = np.atleast_2d(np.asarray(vectors))
    except ValueError:
        raise ConfigError(f"the vectors have different lengths; each must be {dim} numbers") from None
    return np.array([unit_direction(row, dim) for row in rows]).reshape(-1, dim)


def nearest_words(
    words: Sequence[str],
    vectors: npt.NDArray[np.float32],
    query: npt.NDArray[np.float32],
    k: int,
    excluded: Iterable[int],
) -> list[Neighbor]:
    """The ``k`` words nearest to a unit vector, without those of the excluded rows.

    Args:
        words: The vocabulary.
        vectors: float32 (n, dim), the vectors of the first n words.
        query: float32 (dim,), norm 1.
        k: At least 1.
        excluded: Rows.
    """
    rows, cosines = nearest_rows(vectors, query, k, excluded=np.array(sorted(excluded), np.int64))
    scores = np.clip(cosines, -1, 1).tolist()
    return [Neighbor(words[row], score, row) for row, score in zip(rows.tolist(), scores, strict=True)]


def nearest_documents(
    doc_ids: Sequence[str],
    vectors: npt.NDArray[np.float32],
    token_counts: npt.NDArray[np.int64],
    query: npt.NDArray[np.float32],
    k: int,
    excluded: Iterable[int],
    among: npt.NDArray[np.bool_] | None = None,
) -> list[DocumentNeighbor]:
    """The ``k`` documents nearest to a unit vector, without the excluded rows and those without a known word.

    Args:
        doc_ids: The ids of the documents.
        vectors: float32 (n_docs, dim).
        token_counts: int64 (n_docs,), known words of each document.
        query: float32 (dim,), norm 1.
        k: At least 1.
        excluded: Rows.
        among: bool (n_docs,): the documents that may be answers; all if None.
    """
    may, gone = token_counts > 0, np.array(sorted(excluded), np.int64)
    if among is None:
        rows, cosines = nearest_rows(vectors, query, k, excluded=gone, may=may)
    else:
        rows, cosines = nearest_among(vectors, query, k, np.setdiff1d(np.flatnonzero(among & may), gone))
    scores = np.clip(cosines, -1, 1).tolist()
    return [DocumentNeighbor(doc_ids[row], score, row) for row, score in zip(rows.tolist(), scores, strict=True)]


def listed_words(name: str, words: Words) -> list[str]:
    """One word or several as a list.

    Raises:
        ConfigError: something that is not a word; ``name`` names the argument.
    """
    names = [words] if isinstance(words, str) else list(words)
    for word in names:
        if not isinstance(word, str):
            raise ConfigError(f"{name} holds {word!r}; it must be a word or a list of words")
    return names


def _projected_out(
    direction: npt.NDArray[np.float64], others: Sequence[npt.NDArray[np.float64]]
) -> npt.NDArray[np.float64]:
    """The part of a direction that is orthogonal to all ``others`` (Gram-Schmidt)."""
    axes: list[npt.NDArray[np.float64]] = []
    for other in others:
        rest = _orthogonal_part(other, axes)
        length = float(np.linalg.norm(rest))
        if length > _NOTHING_LEFT:  # else it is in the span of the rows before it
            axes.append(rest / length)
    return _orthogonal_part(direction, axes)


def _orthogonal_part(
    vector: npt.NDArray[np.float64], axes: Sequence[npt.NDArray[np.float64]]
) -> npt.NDArray[np.float64]:
    """The part of a vector orthogonal to orthonormal axes; projected twice, because once leaves rounding errors."""
    rest = vector.copy()
    for axis in [*axes, *axes]:
        rest -= (rest @ axis) * axis
    return rest
