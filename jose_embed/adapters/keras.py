"""Layers of Keras 3 with the vectors of a model, on any of its backends.

They are Keras' own classes: a saved model loads without this package. Ids come from
:class:`~jose_embed.adapters.layers.TextToIds`.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from jose_embed.adapters.layers import document_table, word_table
from jose_embed.errors import ConfigError, MissingExtraError
from jose_embed.model.embeddings import Embeddings

__all__ = ["document_model", "embedding"]


def embedding(model: Embeddings, *, trainable: bool = False, mask_zero: bool = True, **options: Any) -> Any:
    """The word vectors as a ``keras.layers.Embedding``.

    Models that use the same layer share its weights.

    Args:
        model: The model.
        trainable: Whether training changes the vectors.
        mask_zero: Whether later layers skip padding (id 0).
        **options: Further arguments of the layer, such as ``name``.

    Returns:
        A layer of ``n_words + 2`` rows: int (n_texts, length) to float (n_texts, length, dim).

    Example::

        ids = keras.Input((None,), dtype="int32")
        vectors = embedding(model)(ids)
        classes = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling1D()(vectors))
        classifier = keras.Model(ids, classes)
    """
    keras, table = _keras(), word_table(model)
    layer = keras.layers.Embedding(*table.shape, trainable=trainable, mask_zero=mask_zero, **options)
    layer.build((None, None))
    layer.set_weights([table])
    return layer


def document_model(model: Embeddings, *, trainable: bool = False, name: str | None = None) -> Any:
    """A ``keras.Model`` from the ids and weights of documents to their vectors.

    Args:
        model: The model.
        trainable: Whether training changes the rows of words.
        name: The name of the Keras model.

    Returns:
        A model of two inputs, ids int (n_texts, m) and weights float (n_texts, m), as ``TextToIds.weighted`` makes
        them; float (n_texts, dim), norm 1, and zeros for a text without known words.

    Example::

        vectors = document_model(model).predict(TextToIds(model).weighted(texts))  # as model.infer(texts)
    """
    keras, table = _keras(), document_table(model)
    layer = keras.layers.Embedding(*table.shape, trainable=trainable, name="words")
    layer.build((None, None))
    layer.set_weights([table])
    ids, weights = keras.Input((None,), dtype="int32", name="ids"), keras.Input((None,), name="weights")
    sums = keras.layers.Dot(axes=1, name="sums")([weights, layer(ids)])
    return keras.Model([ids, weights], keras.layers.UnitNormalization(name="vectors")(sums), name=name)


def _keras() -> Any:
    try:
        import keras
    except ImportError as error:
        if importlib.util.find_spec("keras") is None:
            raise MissingExtraError("the adapter for Keras", "keras") from None
        raise ConfigError(
            f"Keras does not start ({error}); install tensorflow, torch or jax and set KERAS_BACKEND to its name"
        ) from None
    return keras
