"""A scikit-learn transformer from texts to document vectors."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable
from typing import Any, Final, Self, Unpack

import numpy as np
import numpy.typing as npt

from jose_embed.config import TrainConfig, TrainSettings
from jose_embed.errors import ConfigError, MissingExtraError, counterpart
from jose_embed.model.embeddings import Embeddings
from jose_embed.text.documents import Document, given_documents
from jose_embed.training.train import train

try:
    from joblib.parallel import get_active_backend
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils.validation import check_is_fitted
except ImportError:
    raise MissingExtraError("JoseVectorizer", "eval") from None

__all__ = ["JoseVectorizer"]

_DEFAULTS: Final = {"preset": None, **TrainConfig().to_dict()}


class JoseVectorizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Document vectors as features; ``fit`` trains a model on the texts.

    Texts are strings, or lists of words, in any iterable: a list, an array, a pandas or polars column. A text without a
    known word has no direction: as from scikit-learn's own vectorizers its row is zero, and ``transform`` warns. Before
    clustering or indexing leave such rows out, ``vectors[vectors.any(axis=1)]``. Inside a parallel call of joblib, such
    as a grid search with ``n_jobs``, ``workers=0`` means one thread. Only ``workers=1`` gives the same vectors again.

    Args:
        preset: The name of a preset; settings that differ from their defaults override it.
        **settings: Settings of :class:`~jose_embed.TrainConfig` by name, checked by ``fit``.

    Attributes:
        model_: The trained model, with word queries, ``similar_documents`` and the rest; see
            :class:`~jose_embed.Embeddings`. If it was saved, a pickle of the transformer refers to its directory.

    Raises:
        ConfigError: an unknown setting; by ``fit``, a value outside its range.

    Example:
        >>> texts = ["red apple", "green apple", "red rose", "green leaf"] * 5
        >>> vectorizer = JoseVectorizer(dim=4, min_count=1, workers=1).fit(texts)
        >>> vectorizer.transform(["a green rose", "apple"]).shape
        (2, 4)
        >>> vectorizer.get_feature_names_out().tolist()[:2]
        ['josevectorizer0', 'josevectorizer1']
    """

    def __init__(self, *, preset: str | None = None, **settings: Unpack[TrainSettings]) -> None:
        for name in settings:
            if name not in _DEFAULTS:
                raise ConfigError(f"unknown setting {name}{counterpart(name, _DEFAULTS)}")
        for name, value in {**_DEFAULTS, **settings, "preset": preset}.items():
            setattr(self, name, value)

    # scikit-learn reads the names and defaults of the parameters here.
    __init__.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD),
            *(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS[name]) for name in _DEFAULTS),
        ]
    )

    def fit(self, X: Iterable[Document], y: Any = None) -> Self:
        """Train on texts.

        Args:
            X: The texts.
            y: Ignored.

        Raises:
            ConfigError: a setting outside its range.
            CorpusError: a value that is not a text, or texts with no word of ``min_count`` occurrences.
        """
        del y
        parameters = self.get_params(deep=False)
        preset = parameters.pop("preset")
        config = TrainConfig.from_dict(parameters)
        if config.workers == 0 and get_active_backend()[0].nesting_level > 0:
            parameters["workers"] = 1
        defaults = TrainConfig().to_dict()
        changed: Any = {name: value for name, value in parameters.items() if value != defaults[name]}
        self.model_: Embeddings = train(documents=X, preset=preset, progress=False, **changed)
        self._n_features_out = self.model_.dim
        return self

    def transform(self, X: Iterable[Document]) -> npt.NDArray[np.float32]:
        """The vectors of texts: float32 (n_texts, dim), norm 1, or zero for a text without a known word.

        Warns:
            UserWarning: there are such texts; it counts them.

        Raises:
            sklearn.exceptions.NotFittedError: ``fit`` was not called.
            CorpusError: a value that is not a text.
        """
        check_is_fitted(self)
        texts = [text for batch, _ in given_documents(X).batches() for text in batch]
        vectors, known = self.model_.infer_flagged(texts)
        if not known.all():
            vectors[~known] = 0
            n = len(known) - int(np.count_nonzero(known))
            first = int(known.argmin())
            warnings.warn(
                f"{n:,} of {len(known):,} texts have no known word, so their rows are zero (the first is row {first})",
                stacklevel=3,  # of the caller: scikit-learn wraps this method
            )
        return vectors

    def fit_transform(self, X: Iterable[Document], y: Any = None) -> npt.NDArray[np.float32]:
        """Train on texts; the vectors of the same texts, as ``transform`` makes them."""
        texts = X if hasattr(X, "__len__") else list(X)
        return self.fit(texts, y).transform(texts)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = []
        tags.non_deterministic = self.workers != 1
        return tags
