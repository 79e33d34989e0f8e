"""Layers of torch with the vectors of a model.

They are torch's own classes: a saved module loads without this package. Ids come from
:class:`~jose_embed.adapters.layers.TextToIds`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jose_embed.adapters.layers import PADDING, document_table, word_table
from jose_embed.errors import MissingExtraError
from jose_embed.model.embeddings import Embeddings

if TYPE_CHECKING:
    import torch

__all__ = ["document_bag", "embedding"]


def embedding(model: Embeddings, *, freeze: bool = True) -> torch.nn.Embedding:
    """The word vectors as a layer.

    Args:
        model: The model.
        freeze: Whether training leaves the vectors as they are. Padding (id 0) always stays zero.

    Returns:
        A layer of ``n_words + 2`` rows: int (..., length) to float32 (..., length, dim).

    Example::

        layer = embedding(model)
        vectors = layer(torch.from_numpy(TextToIds(model)(texts)))
    """
    torch = _torch()
    table = torch.from_numpy(word_table(model))
    return torch.nn.Embedding.from_pretrained(table, freeze=freeze, padding_idx=PADDING)


def document_bag(model: Embeddings, *, freeze: bool = True) -> torch.nn.EmbeddingBag:
    """A layer that sums the words of documents by weight; the direction of the sum is the document's vector.

    Args:
        model: The model.
        freeze: Whether training leaves the rows as they are.

    Returns:
        A layer: ids (n_texts, m), ``per_sample_weights`` (n_texts, m) to float32 (n_texts, dim); a text without known
        words gets zeros.

    Example::

        ids, weights = map(torch.from_numpy, TextToIds(model).weighted(texts))
        sums = document_bag(model)(ids, per_sample_weights=weights)
        vectors = torch.nn.functional.normalize(sums)  # as model.infer(texts)
    """
    torch = _torch()
    table = torch.from_numpy(document_table(model))
    return torch.nn.EmbeddingBag.from_pretrained(table, freeze=freeze, mode="sum", padding_idx=PADDING)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise MissingExtraError("the adapter for torch", "torch") from None
    return torch
