"""A model with fewer words or dimensions.

The dimensions that stay are the first principal axes P (dim columns) of the word vectors, not centered. Word, context
and document vectors are turned by P and scaled to norm 1. The weight of a word in texts is multiplied by the length |P
u| that its vector kept, and the reliability matrix A becomes P^T A P, so that texts get about the turned sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from jose_embed.compute.sphere import principal_axes, turned
from jose_embed.errors import ConfigError
from jose_embed.model.embeddings import Embeddings
from jose_embed.model.parts import DOCUMENT_MATRIX, RARE_COUNTS, SUBWORD_VECTORS, WORD_WEIGHTS


def smaller(model: Embeddings, *, dim: int | None = None, words: int | None = None) -> Embeddings:
    """A model with fewer dimensions, fewer words or both; documents keep their vectors, turned like those of words.

    Args:
        model: The model.
        dim: Dimensions of the new model, from 2; those of the model if omitted.
        words: The most frequent words are kept; all if omitted. Document vectors are still those of all words.

    Raises:
        ConfigError: a number that is too small, or larger than that of the model.

    Example::

        smaller(model, dim=64, words=50_000).save("small.jose")
    """
    for name, value, low, most in (("dim", dim, 2, model.dim), ("words", words, 1, model.n_words)):
        if value is not None and not low <= value <= most:
            raise ConfigError(f"{name} is {value}; it must be a whole number from {low} to {most}, as the model has")
    rows = slice(words)
    center, context, documents = model.center_vectors[rows], model.context_vectors[rows], model.doc_vectors
    extra: dict[str, npt.NDArray[Any]] = {
        name: array[rows] if name == WORD_WEIGHTS else array
        for name, array in model.extra_arrays.items()
        if name != RARE_COUNTS or words is None  # they would lack the words that are cut off
    }
    if WORD_WEIGHTS not in extra:
        extra[WORD_WEIGHTS] = model.encoder.word_weights[rows]
    if dim is not None and dim < model.dim:
        axes = principal_axes(model.center_vectors, dim)
        assert axes is not None
        (center, lengths), (context, _), (documents, _) = (
            turned(table, axes) for table in (center, context, documents)
        )
        extra[WORD_WEIGHTS] = extra[WORD_WEIGHTS] * lengths[:, None]
        if DOCUMENT_MATRIX in extra:
            extra[DOCUMENT_MATRIX] = axes.T @ extra[DOCUMENT_MATRIX] @ axes
        if SUBWORD_VECTORS in extra:  # not scaled: words are composed of them by sums
            extra[SUBWORD_VECTORS] = (extra[SUBWORD_VECTORS] @ axes).astype(np.float32)
    parts = model.manifest
    facts: dict[str, Mapping[str, Any]] = {name: parts[name] for name in ("training", "corpus")}
    text = {name: value for name, value in parts.get("text", {}).items() if name not in ("texts", "fields")}
    if RARE_COUNTS not in extra:
        text.pop(RARE_COUNTS, None)
    return Embeddings.from_arrays(
        words=list(model.words[:words]),
        counts=model.counts[rows],
        center_vectors=center,
        context_vectors=context,
        doc_ids=model.doc_ids,
        doc_vectors=documents,
        doc_token_counts=model.doc_token_counts,
        config={**parts["config"], **({} if dim is None else {"dim": dim})},
        tokenizer=parts["tokenizer"]["name"],
        tokenizer_settings=parts["tokenizer"]["settings"],
        training=facts["training"],
        corpus=facts["corpus"],
        text=text or None,
        extra_arrays=extra,
        extra_json=model.extra_json,
        texts=model.texts,
    )
