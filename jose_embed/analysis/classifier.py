"""A classifier of texts: logistic regression on document vectors, reported by cross-validation and kept as JSON.

scikit-learn fits it (the extra ``eval``); applying a kept one needs NumPy alone,

    p(c | x) = exp(w_c.x + b_c) / sum_j exp(w_j.x + b_j).
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from jose_embed.errors import ConfigError, MissingExtraError, ModelError

Matrix = npt.NDArray[Any]

_FORMAT: Final = "jose-embed classifier"
_INVERSE_PENALTY: Final = 10.0
_LARGEST_FILE: Final = 1 << 30


class ClassReport(NamedTuple):
    """How well one class is found in cross-validation.

    Attributes:
        name: The class.
        n_documents: Its documents.
        precision: Share of the documents assigned to it that belong to it; 0 if none is assigned.
        recall: Share of its documents that are assigned to it.
        f1: Harmonic mean of both.
    """

    name: str
    n_documents: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, eq=False)
class Classifier:
    """A fitted classifier.

    Attributes:
        classes: The names of the classes, sorted.
        weights: float64 (n_classes, dim).
        biases: float64 (n_classes,).
        model_id: The id of the model whose document vectors it was fitted on; it fits no other model.
    """

    classes: tuple[str, ...]
    weights: npt.NDArray[np.float64]
    biases: npt.NDArray[np.float64]
    model_id: str

    def probabilities(self, vectors: Matrix) -> npt.NDArray[np.float64]:
        """float64 (n, n_classes): the probability of each class for each vector; rows sum to 1."""
        scores = vectors.astype(np.float64) @ self.weights.T + self.biases
        scores = np.exp(scores - scores.max(1, keepdims=True))
        return np.asarray(scores / scores.sum(1, keepdims=True))

    def to_bytes(self) -> bytes:
        """The content of its file."""
        value = {
            "format": _FORMAT,
            "model": self.model_id,
            "classes": list(self.classes),
            "weights": self.weights.tolist(),
            "biases": self.biases.tolist(),
        }
        return (json.dumps(value, ensure_ascii=False) + "\n").encode()


def fit_classifier(vectors: Matrix, labels: Sequence[str], model_id: str) -> Classifier:
    """Multinomial logistic regression with an L2 penalty (C = 10).

    Args:
        vectors: Float (n, dim), document vectors.
        labels: The class of each.
        model_id: See :class:`Classifier`.

    Raises:
        ConfigError: lengths differ, or fewer than two classes.
        MissingExtraError: scikit-learn is not installed.
    """
    names, classes = _classes(vectors, labels)
    with threadpool_limits(1):  # the same numbers on any machine
        learner = _learner().fit(vectors, classes)
    weights, biases = learner.coef_.astype(np.float64), learner.intercept_.astype(np.float64)
    if len(names) == 2:  # scikit-learn keeps the difference of the two
        weights, biases = np.concatenate([0 * weights, weights]), np.concatenate([0 * biases, biases])
    return Classifier(names, weights, biases, model_id)


def cross_validation(vectors: Matrix, labels: Sequence[str], *, folds: int = 5) -> tuple[float, list[ClassReport]]:
    """Accuracy and a report for each class, from predictions for documents that the classifier was not fitted on.

    Args:
        vectors: Float (n, dim), document vectors.
        labels: The class of each.
        folds: Stratified folds, shuffled with a fixed seed.

    Raises:
        ConfigError: lengths differ, fewer than two classes, or a class with fewer documents than folds.
        MissingExtraError: scikit-learn is not installed.
    """
    names, classes = _classes(vectors, labels)
    sizes = np.bincount(classes)
    if folds < 2 or sizes.min() < folds:
        raise ConfigError(
            f"{folds} folds, and {int(sizes.min())} documents in the class {names[int(sizes.argmin())]!r}; there must"
            " be at least 2 folds and a document of each class for each fold"
        )
    split = _library("sklearn.model_selection").StratifiedKFold(folds, shuffle=True, random_state=0)
    found = np.empty_like(classes)
    with threadpool_limits(1):
        for train, test in split.split(vectors, classes):
            found[test] = _learner().fit(vectors[train], classes[train]).predict(vectors[test])
    reports = []
    for number, name in enumerate(names):
        right = int(np.sum((found == number) & (classes == number)))
        assigned = int(np.sum(found == number))
        precision, recall = right / assigned if assigned else 0.0, right / int(sizes[number])
        f1 = 2 * precision * recall / (precision + recall) if right else 0.0
        reports.append(ClassReport(name, int(sizes[number]), precision, recall, f1))
    return float(np.mean(found == classes)), reports


def read_classifier(path: str | os.PathLike[str]) -> Classifier:
    """A classifier from its file.

    Raises:
        ModelError: missing, or not such a file.
    """
    try:
        if Path(path).stat().st_size > _LARGEST_FILE:
            raise ValueError("it is larger than 1 GB")
        value = json.loads(Path(path).read_bytes())
        if not isinstance(value, dict) or value.get("format") != _FORMAT:
            raise ValueError("it has another format")
        weights, biases = np.array(value["weights"], np.float64), np.array(value["biases"], np.float64)
        classes, model_id = value["classes"], value["model"]
        if not all(isinstance(name, str) for name in [model_id, *classes]):
            raise ValueError("names of classes are not text")
        if weights.ndim != 2 or biases.shape != (len(classes),) or len(weights) != len(classes) or len(classes) < 2:
            raise ValueError("its numbers have the wrong shape")
        if not (np.isfinite(weights).all() and np.isfinite(biases).all()):
            raise ValueError("it holds a NaN or an infinity")
    except OSError as error:
        raise ModelError(f"{path}: the classifier cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ModelError(f"{path}: no file of jose classify --save ({reason}); make it again") from error
    return Classifier(tuple(classes), weights, biases, model_id)


def _classes(vectors: Matrix, labels: Sequence[str]) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    if len(vectors) != len(labels):
        raise ConfigError(f"{len(labels):,} labels for {len(vectors):,} documents; there must be one for each")
    names = sorted(set(labels))
    if len(names) < 2:
        raise ConfigError(f"the labels are {len(names)} class; a classifier needs at least 2")
    numbers = {name: number for number, name in enumerate(names)}
    return tuple(names), np.array([numbers[label] for label in labels], np.int64)


def _learner() -> Any:
    return _library("sklearn.linear_model").LogisticRegression(C=_INVERSE_PENALTY, max_iter=2000)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError("classification", "eval") from error
