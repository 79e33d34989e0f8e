"""An embedder for BERTopic, in which words and documents share the space."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ConfigError, MissingExtraError
from jose_embed.model.embeddings import Embeddings

__all__ = ["embedder"]


def embedder(model: Embeddings) -> Any:
    """The vectors of a model as a ``bertopic.backend.BaseEmbedder``.

    Words are embedded as documents of one word. A text without a known word gets zeros. BERTopic saves its embedder
    only with ``serialization="pickle"``, and then the model's path; otherwise give the embedder again when loading.

    Args:
        model: The model.

    Raises:
        MissingExtraError: BERTopic is not installed.

    Example::

        topic_model = BERTopic(embedding_model=embedder(model)).fit(texts)
        topic_model.save(folder, serialization="safetensors")
        topic_model = BERTopic.load(folder, embedding_model=embedder(model))
        topics, scores = topic_model.find_topics("hockey")
    """
    if not isinstance(model, Embeddings):
        raise ConfigError(f"{type(model).__name__} is not a model; give one of jose_embed.train or jose_embed.load")
    return _embedder_class()(model)


@cache
def _embedder_class() -> Any:
    try:
        from bertopic.backend import BaseEmbedder
    except ImportError:
        raise MissingExtraError("the embedder for BERTopic", "bertopic") from None

    class JoseEmbedder(BaseEmbedder):  # type: ignore[misc]
        """Embeds words and documents."""

        def embed(self, documents: Sequence[str], verbose: bool = False) -> npt.NDArray[np.float32]:
            """The vectors of texts or words: float32 (n, dim), norm 1 or zeros."""
            vectors, known = self.embedding_model.infer_flagged(list(documents))
            return np.where(known[:, None], vectors, np.float32(0))

        def __reduce__(self) -> tuple[Any, ...]:
            return embedder, (self.embedding_model,)

    return JoseEmbedder
