"""JoseVectorizer against scikit-learn."""

from __future__ import annotations

import pickle
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import planted
import polars as pl
import pytest
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import estimator_checks

from jose_embed import ConfigError, CorpusError, Embeddings, TrainConfig
from jose_embed.adapters.sklearn import JoseVectorizer
from jose_embed.config import TrainSettings

TEXTS, TOPICS = planted.corpus(120)
SMALL: Any = {"dim": 8, "epochs": 3, "workers": 1}

# The library's checks that need no numbers as input. Its automatic choice runs only the first of them for text.
CHECKS = [
    estimator_checks.check_estimator_cloneable,
    estimator_checks.check_estimator_tags_renamed,
    estimator_checks.check_valid_tag_types,
    estimator_checks.check_estimator_repr,
    estimator_checks.check_no_attributes_set_in_init,
    estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
    estimator_checks.check_mixin_order,
    estimator_checks.check_get_params_invariance,
    estimator_checks.check_set_params,
    estimator_checks.check_parameters_default_constructible,
    estimator_checks.check_estimators_unfitted,
    estimator_checks.check_get_feature_names_out_error,
]


@pytest.fixture(scope="module")
def fitted() -> JoseVectorizer:
    return JoseVectorizer(**SMALL).fit(TEXTS)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_check_of_the_library(check: Any) -> None:
    check("JoseVectorizer", JoseVectorizer(**SMALL))


def test_parameters_are_those_of_the_training() -> None:
    parameters = JoseVectorizer().get_params()
    assert parameters.pop("preset") is None
    assert parameters == TrainConfig().to_dict()
    assert typing.get_type_hints(TrainSettings) == typing.get_type_hints(TrainConfig)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: JoseVectorizer(dimm=5), "unknown setting dimm; did you mean dim?"),
        (lambda: JoseVectorizer(n_components=5), r"\(scikit-learn's name\); use dim instead"),
        (lambda: JoseVectorizer(dim=1).fit(TEXTS), "dim is 1; it must be a whole number from 2"),
    ],
)
def test_wrong_settings(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


# ---- the library's checks on input, with texts ----------------------------------------------------------------------


def test_fit_returns_self_and_changes_no_parameter() -> None:
    vectorizer = JoseVectorizer(**SMALL)
    before = dict(vectorizer.__dict__)
    assert vectorizer.fit(TEXTS, TOPICS) is vectorizer
    assert {name: value for name, value in vectorizer.__dict__.items() if name in before} == before
    assert {name for name in vectorizer.__dict__ if name not in before} == {"model_", "_n_features_out"}


def test_fit_is_idempotent_and_equals_fit_transform(fitted: JoseVectorizer) -> None:
    vectors = fitted.transform(TEXTS)
    again = clone(fitted)
    assert again.fit_transform(TEXTS).tobytes() == vectors.tobytes()
    assert again.fit(TEXTS).transform(TEXTS).tobytes() == vectors.tobytes()
    assert again.fit(TEXTS, TOPICS).transform(TEXTS[5:7]).tobytes() == vectors[5:7].tobytes()
    assert (vectors.dtype, vectors.shape) == (np.float32, (120, 8))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_subsets_and_order_of_samples_do_not_matter(fitted: JoseVectorizer) -> None:
    vectors = fitted.transform(TEXTS)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    assert fitted.transform([TEXTS[i] for i in order]).tobytes() == vectors[order].tobytes()
    assert np.concatenate([fitted.transform([text]) for text in TEXTS]).tobytes() == vectors.tobytes()


def test_not_fitted() -> None:
    with pytest.raises(NotFittedError, match="not fitted yet"):
        JoseVectorizer().transform(TEXTS)


@pytest.mark.parametrize(
    "texts",
    [
        tuple(TEXTS),
        np.array(TEXTS, object),
        np.array(TEXTS),
        pd.Series(TEXTS, index=range(1000, 1120)),
        pl.Series(TEXTS),
        [text.split() for text in TEXTS],
    ],
    ids=["tuple", "objects", "strings", "pandas", "polars", "tokens"],
)
def test_kinds_of_texts(texts: Any, fitted: JoseVectorizer) -> None:
    expected = fitted.transform(TEXTS)
    assert clone(fitted).fit_transform(texts).tobytes() == expected.tobytes()
    assert fitted.transform(texts).tobytes() == expected.tobytes()


def test_iterators_of_texts(fitted: JoseVectorizer) -> None:
    expected = fitted.transform(TEXTS)
    assert clone(fitted).fit_transform(iter(TEXTS)).tobytes() == expected.tobytes()
    assert fitted.transform(text for text in TEXTS).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one text", "the documents are one string"),
        ([], "there are no documents"),
        (["a", None], "document 2 is a missing value"),
        ([b"a"], "document 1 is bytes"),
        (np.zeros((3, 2)), "an array of 2 dimensions"),
        (pd.DataFrame({"a": TEXTS}), "give one of its columns"),
        ([1, 2], "document 1 is the number 1"),
    ],
)
def test_what_is_no_text_is_refused(texts: Any, message: str, fitted: JoseVectorizer) -> None:
    with pytest.raises(CorpusError, match=message):
        clone(fitted).fit(texts)
    with pytest.raises(CorpusError, match=message):
        fitted.transform(texts)


def test_texts_without_known_words(fitted: JoseVectorizer) -> None:
    with pytest.warns(UserWarning, match=r"2 of 3 texts have no known word, .* zero \(the first is row 1\)") as caught:
        vectors = fitted.transform([TEXTS[0], "", "zzz"])
    assert caught[0].filename == __file__
    assert vectors.any(axis=1).tolist() == [True, False, False]
    assert vectors[0].tobytes() == fitted.transform(TEXTS[:1]).tobytes()
    with pytest.warns(UserWarning, match="1 of 121 texts"):
        assert not clone(fitted).fit_transform([*TEXTS, "zzz"])[-1].any()


# ---- with the rest of the library -----------------------------------------------------------------------------------


class Zeros(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """What the library itself does with texts."""

    def fit(self, X: Any, y: Any = None) -> Zeros:
        return self

    def transform(self, X: Any) -> Any:
        return np.zeros((len(X), 1))

    def get_feature_names_out(self, input_features: Any = None) -> list[str]:
        return ["zero"]


def test_set_output_and_names(fitted: JoseVectorizer) -> None:
    names = [f"josevectorizer{i}" for i in range(8)]
    assert fitted.get_feature_names_out().tolist() == names
    for library, frame_type in (("pandas", pd.DataFrame), ("polars", pl.DataFrame)):
        made = clone(fitted).set_output(transform=library)
        for frame in (made.fit_transform(TEXTS), made.transform(TEXTS)):
            assert isinstance(frame, frame_type)
            assert list(frame.columns) == names
            assert frame.to_numpy().tobytes() == fitted.transform(TEXTS).tobytes()
    series = pd.Series(TEXTS, index=range(7, 127))
    framed = clone(fitted).set_output(transform="pandas").fit_transform(series)
    # Old versions of the library keep the labels of frames, and not those of a series.
    assert framed.index.equals(Zeros().set_output(transform="pandas").fit_transform(series).index)


def test_pickle_and_joblib(fitted: JoseVectorizer, tmp_path: Path) -> None:
    expected = fitted.transform(TEXTS).tobytes()
    assert pickle.loads(pickle.dumps(fitted)).transform(TEXTS).tobytes() == expected
    joblib.dump(fitted, tmp_path / "fitted.joblib")
    assert joblib.load(tmp_path / "fitted.joblib").transform(TEXTS).tobytes() == expected
    assert joblib.load(tmp_path / "fitted.joblib", mmap_mode="r").transform(TEXTS).tobytes() == expected


def test_presets_yield_to_settings() -> None:
    vectorizer = JoseVectorizer(preset="words", doc_shrinkage=0.5, **SMALL).fit(TEXTS)
    assert (vectorizer.model_.config.window, vectorizer.model_.config.doc_shrinkage) == (1, 0.5)


def test_grid_search_in_parallel_processes() -> None:
    pipeline = Pipeline([("vectors", JoseVectorizer(**SMALL)), ("classes", LogisticRegression())])
    search = GridSearchCV(pipeline, {"vectors__dim": [2, 8]}, cv=2, n_jobs=2)
    search.fit(np.array(TEXTS), TOPICS)
    assert not np.isnan(search.cv_results_["mean_test_score"]).any()
    assert search.best_score_ > 0.9
    pipeline = make_pipeline(JoseVectorizer(**SMALL), LogisticRegression())
    assert cross_val_score(pipeline, TEXTS, TOPICS, cv=2).min() > 0.9


def workers_of(vectorizer: JoseVectorizer) -> int:
    """The threads that a training used."""
    model: Embeddings = clone(vectorizer).fit(TEXTS).model_
    return int(model.manifest["training"]["workers"])


@pytest.mark.parametrize("prefer", ["processes", "threads"])
def test_one_thread_each_in_parallel_calls(prefer: str) -> None:
    automatic = JoseVectorizer(dim=8, epochs=1, workers=0)
    assert joblib.Parallel(2, prefer=prefer)(joblib.delayed(workers_of)(automatic) for _ in range(2)) == [1, 1]
    given = JoseVectorizer(dim=8, epochs=1, workers=2)
    assert joblib.Parallel(2, prefer=prefer)(joblib.delayed(workers_of)(given) for _ in range(2)) == [2, 2]


def test_all_cores_outside_of_parallel_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jose_embed.config.available_workers", lambda: 2)
    assert workers_of(JoseVectorizer(dim=8, epochs=1, workers=0)) == 2
    assert joblib.Parallel(1)([joblib.delayed(workers_of)(JoseVectorizer(dim=8, epochs=1))]) == [2]


def test_a_missing_library_is_named() -> None:
    code = "import sys; sys.modules['sklearn'] = None; import jose_embed.adapters.sklearn"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stderr.splitlines()[-1].endswith(
        'JoseVectorizer needs packages that are not installed; run: pip install "jose-embed[eval]"'
    )
