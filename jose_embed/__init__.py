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

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jose_embed.config import TrainConfig
    from jose_embed.embeddings import DocumentNeighbor, Embeddings, Neighbor, load
    from jose_embed.encoded import EncodedCorpus, encode
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
    from jose_embed.inference import infer
    from jose_embed.trainer import train

    __version__: str

__all__ = [
    "ConfigError",
    "CorpusError",
    "DeviceError",
    "DocumentNeighbor",
    "Embeddings",
    "EncodedCorpus",
    "JoseError",
    "MissingExtraError",
    "ModelError",
    "Neighbor",
    "NoKnownWordsError",
    "TrainConfig",
    "TrainingError",
    "UnknownWordError",
    "__version__",
    "encode",
    "infer",
    "load",
    "train",
]

_HOME = {
    "ConfigError": "errors",
    "CorpusError": "errors",
    "DeviceError": "errors",
    "DocumentNeighbor": "embeddings",
    "Embeddings": "embeddings",
    "EncodedCorpus": "encoded",
    "JoseError": "errors",
    "MissingExtraError": "errors",
    "ModelError": "errors",
    "Neighbor": "embeddings",
    "NoKnownWordsError": "errors",
    "TrainConfig": "config",
    "TrainingError": "errors",
    "UnknownWordError": "errors",
    "encode": "encoded",
    "infer": "inference",
    "load": "embeddings",
    "train": "trainer",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value = _installed_version()
    elif name in _HOME:
        from importlib import import_module

        value = getattr(import_module(f"jose_embed.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module 'jose_embed' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("jose-embed")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0+unknown"
