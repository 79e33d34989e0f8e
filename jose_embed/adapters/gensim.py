"""Vectors to and from gensim."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ConfigError, MissingExtraError, ModelError
from jose_embed.model.embeddings import Embeddings

try:
    from gensim.models import Doc2Vec, KeyedVectors, Word2Vec
except ImportError:
    raise MissingExtraError("the exchange with gensim", "gensim") from None

__all__ = ["from_gensim", "to_gensim"]


def to_gensim(model: Embeddings, table: str = "center") -> Any:
    """One table of a model as ``gensim.models.KeyedVectors``, copied.

    Args:
        model: The model.
        table: ``center`` (the word vectors), ``context``, or ``documents``, whose keys are the documents' ids.
            Documents without a known word have no direction and are left out.

    Returns:
        Keys in our order, float32 vectors of norm 1. The attribute ``count`` is the number of occurrences of a word, or
        of known words in a document.

    Raises:
        ConfigError: an unknown table, or a model that keeps no document vectors.
        ModelError: an id that occurs twice, which gensim cannot hold.

    Example::

        vectors = to_gensim(jose_embed.load("corpus.jose"))
        vectors.get_vecattr("word", "count")
    """
    if table == "documents":
        model.require_documents()
        known = model.known_documents
        keys: Sequence[str] = list(itertools.compress(model.doc_ids, known))
        counts, vectors = model.doc_token_counts[known], model.doc_vectors[known]
    elif table in ("center", "context"):
        vectors = model.center_vectors if table == "center" else model.context_vectors
        keys, counts = model.words, model.counts
    else:
        raise ConfigError(f"table is {table!r}; it must be one of center, context, documents")
    names = list(keys)
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ModelError(f"the id {twice!r} occurs twice, and KeyedVectors hold a key once; give documents ids")
    keyed = KeyedVectors(model.dim)
    keyed.add_vectors(names, np.array(vectors))
    keyed.allocate_vecattrs(["count"], [np.int64])  # add_vectors(extras=...) fails in gensim 4.4
    keyed.expandos["count"][:] = counts
    return keyed


def from_gensim(source: Any, *, tokenizer: str = "whitespace") -> Embeddings:
    """A model of vectors from gensim, scaled to norm 1.

    Words are sorted by count. Vectors of new texts are weighted means of word vectors with weights from the counts:
    near gensim's document vectors only if ``dbow_words=1`` or ``dm=1`` trained words and documents together.

    Args:
        source: ``KeyedVectors``; ``Word2Vec`` or ``FastText``, of which the output vectors become the context vectors;
            or ``Doc2Vec``, whose tags become the documents' ids, as text.
        tokenizer: How texts become the words of the vocabulary.

    Raises:
        ConfigError: another object.
        ModelError: a key that is not text, a row without a key, or a vector that is zero or not finite.
    """
    if not isinstance(source, KeyedVectors | Word2Vec):
        raise ConfigError(f"{type(source).__name__} is not of gensim; give KeyedVectors, Word2Vec, FastText or Doc2Vec")
    keyed = source if isinstance(source, KeyedVectors) else source.wv
    words, vectors = list(keyed.index_to_key), keyed.vectors[: len(keyed.index_to_key)]
    if not words or not all(isinstance(word, str) for word in words):
        unusable = next((word for word in words if not isinstance(word, str)), None)
        raise ModelError(f"the key {unusable!r} is not a word; make KeyedVectors whose keys are distinct strings")
    counts = keyed.expandos.get("count", np.arange(len(words), 0, -1))
    order = np.argsort(-np.asarray(counts, np.int64), kind="stable")
    center = _unit_rows(vectors, words)
    context = getattr(source, "syn1neg", None)
    documents: dict[str, Any] = {}
    if isinstance(source, Doc2Vec):
        tags = [str(tag) for tag in source.dv.index_to_key]
        documents = {"doc_ids": tags, "doc_vectors": _unit_rows(source.dv.vectors[: len(tags)], tags)}
    return Embeddings.from_arrays(
        words=[words[row] for row in order],
        counts=np.maximum(np.asarray(counts, np.int64)[order], 1),
        center_vectors=center[order],
        context_vectors=center[order] if context is None else _unit_rows(context, words, center)[order],
        **documents,
        tokenizer=tokenizer,
    )


def _unit_rows(
    vectors: npt.NDArray[np.float32], names: Sequence[str], instead: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """The rows scaled to norm 1; rows of ``instead`` for those that are zero.

    Raises:
        ModelError: a row that has no direction.
    """
    rows = np.array(vectors, np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if instead is not None and len(instead) == len(rows):
        rows = np.where(norms == 0, instead, rows)
        norms[norms == 0] = 1
    wrong = ~(np.isfinite(norms) & (norms > 0))[:, 0]
    if wrong.any():
        raise ModelError(f"the vector of {names[int(wrong.argmax())]!r} is zero or not finite; leave it out")
    return np.asarray(rows / norms, np.float32)
