"""Word and document vectors on the unit sphere: train them, keep them as plain files, ask them.

Importing the package is cheap: every name below is loaded when it is first used, so that neither a compiler nor a
search library nor NumPy is on the path of ``--help``.

Example::

    import jose_embed

    model = jose_embed.train("corpus.txt", dim=100)
    model.save("corpus.jose")
    model = jose_embed.load("corpus.jose")
    model.most_similar("word", k=10)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jose_embed.interrupts import interrupts_held

if TYPE_CHECKING:
    from jose_embed.adapters.importing import import_vectors
    from jose_embed.analysis.comparison import Comparison, compare
    from jose_embed.analysis.map import DocumentMap, map
    from jose_embed.analysis.topics import Topic, Topics, topics
    from jose_embed.config import TrainConfig
    from jose_embed.errors import (
        ConfigError,
        CorpusError,
        DeviceError,
        JoseError,
        MissingExtraError,
        ModelError,
        NoKnownWordsError,
        TrainingError,
        UnknownWordError,
    )
    from jose_embed.model.embeddings import Embeddings, load
    from jose_embed.model.inference import infer
    from jose_embed.model.query import DocumentNeighbor, Neighbor
    from jose_embed.text.corpus import EncodedCorpus
    from jose_embed.text.encode import encode
    from jose_embed.text.tokenizers import register_tokenizer
    from jose_embed.training.train import train
    from jose_embed.version import __version__

__all__ = [
    "Comparison",
    "ConfigError",
    "CorpusError",
    "DeviceError",
    "DocumentMap",
    "DocumentNeighbor",
    "Embeddings",
    "EncodedCorpus",
    "JoseError",
    "MissingExtraError",
    "ModelError",
    "Neighbor",
    "NoKnownWordsError",
    "Topic",
    "Topics",
    "TrainConfig",
    "TrainingError",
    "UnknownWordError",
    "__version__",
    "compare",
    "encode",
    "import_vectors",
    "infer",
    "load",
    "map",
    "register_tokenizer",
    "topics",
    "train",
]

_HOME = {
    "__version__": "version",
    "Comparison": "analysis.comparison",
    "ConfigError": "errors",
    "CorpusError": "errors",
    "DeviceError": "errors",
    "DocumentMap": "analysis.map",
    "DocumentNeighbor": "model.query",
    "Embeddings": "model.embeddings",
    "EncodedCorpus": "text.corpus",
    "JoseError": "errors",
    "MissingExtraError": "errors",
    "ModelError": "errors",
    "Neighbor": "model.query",
    "NoKnownWordsError": "errors",
    "Topic": "analysis.topics",
    "Topics": "analysis.topics",
    "TrainConfig": "config",
    "TrainingError": "errors",
    "UnknownWordError": "errors",
    "compare": "analysis.comparison",
    "encode": "text.encode",
    "import_vectors": "adapters.importing",
    "infer": "model.inference",
    "load": "model.embeddings",
    "map": "analysis.map",
    "register_tokenizer": "text.tokenizers",
    "topics": "analysis.topics",
    "train": "training.train",
    "train_on_ray": "distributed.cluster",  # called by train
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'jose_embed' has no attribute {name!r}")
    with interrupts_held():  # NumPy that was imported by half stays so for the whole process
        value = getattr(import_module(f"jose_embed.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
