"""Layers of Keras 3, with Keras and the backend that KERAS_BACKEND names: ``make test-adapters``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import page
import planted
import pytest

import jose_embed
from jose_embed import Embeddings
from jose_embed.adapters.keras import document_model, embedding
from jose_embed.adapters.layers import TextToIds

keras = pytest.importorskip("keras", exc_type=ImportError)
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

TEXTS, TOPICS = planted.corpus(160)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Embeddings:
    """A loaded model: its arrays are mapped and read-only."""
    path = tmp_path_factory.mktemp("keras") / "m.jose"
    jose_embed.train(documents=TEXTS, dim=16, epochs=3, workers=1, progress=False).save(path)
    return jose_embed.load(path)


def classifier(layer: Any, n_classes: int = planted.TOPICS) -> Any:
    """Means of word vectors, then classes."""
    ids = keras.Input((None,), dtype="int32")
    means = keras.layers.GlobalAveragePooling1D(name="means")(layer(ids))
    made = keras.Model(ids, keras.layers.Dense(n_classes, activation="softmax", name="classes")(means))
    made.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return made


def rows(layer: Any) -> np.ndarray:
    return np.array(layer.get_weights()[0])


def test_the_page(model: Embeddings) -> None:
    names = page.run_section("Keras 3", model=model, texts=TEXTS, labels=TOPICS)
    assert (names["classifier"].predict(TextToIds(model)(TEXTS), verbose=0).argmax(1) == TOPICS).mean() > 0.95
    np.testing.assert_allclose(names["vectors"], model.infer(TEXTS), atol=1e-5)


def test_rows_padding_and_unknown_words(model: Embeddings) -> None:
    layer = embedding(model)
    ids = TextToIds(model)([TEXTS[0] + " zzz", "c1", ""])
    vectors = np.array(keras.ops.convert_to_numpy(layer(ids)))
    assert vectors[0, :-1].tobytes() == np.stack([model[word] for word in TEXTS[0].split()]).tobytes()
    assert not vectors[0, -1].any()
    assert vectors[1, 0].tobytes() == model["c1"].tobytes()
    assert not vectors[1, 1:].any()
    means = keras.Sequential([layer, keras.layers.GlobalAveragePooling1D()]).predict(ids, verbose=0)
    np.testing.assert_allclose(means[1], model["c1"], atol=1e-6)  # padding is masked
    assert not means[2].any()  # and a text without words is not NaN


def test_documents(model: Embeddings) -> None:
    texts = [TEXTS[0] + " zzz " + TEXTS[0] + " " + TEXTS[1], "c1", "zzz", ""]
    vectors = document_model(model).predict(TextToIds(model).weighted(texts), verbose=0)
    np.testing.assert_allclose(vectors[:2], model.infer(texts[:2]), atol=1e-5)
    assert not vectors[2:].any()


def test_frozen_or_free(model: Embeddings) -> None:
    ids = TextToIds(model, length=40)([*TEXTS, "zzz"])
    labels = np.array([*TOPICS, 0])
    frozen, free = embedding(model), embedding(model, trainable=True)
    before = rows(frozen)
    classifier(frozen).fit(ids, labels, epochs=2, verbose=0)
    assert rows(frozen).tobytes() == before.tobytes()
    classifier(free).fit(ids, labels, epochs=2, verbose=0)
    after = rows(free)
    assert np.isfinite(after).all()
    assert not after[0].any()  # padding is masked, so nothing trains it
    assert after[1].any()  # the unknown word learns
    assert (after[2:] != before[2:]).any()
    assert np.array_equal(before[2:], model.center_vectors)  # the model's own did not change


def test_one_layer_in_several_models(model: Embeddings) -> None:
    layer = embedding(model, trainable=True)
    first, second = classifier(layer), classifier(layer, 2)
    ids = TextToIds(model)(TEXTS)
    before = second.predict(ids, verbose=0)
    first.fit(ids, TOPICS, epochs=1, verbose=0)
    assert np.abs(second.predict(ids, verbose=0) - before).max() > 1e-3
    second.fit(ids, TOPICS % 2, epochs=1, verbose=0)
    assert np.array_equal(rows(first.layers[1]), rows(second.layers[1]))


def test_a_model_taken_apart_shares_weights_also_after_loading(model: Embeddings, tmp_path: Path) -> None:
    ids = TextToIds(model)(TEXTS)
    whole = classifier(embedding(model, trainable=True, name="words"))
    whole.save(tmp_path / "m.keras")
    for one in (whole, keras.models.load_model(tmp_path / "m.keras")):
        texts_to_means = keras.Model(one.input, one.get_layer("means").output)
        means = keras.Input((model.dim,))
        means_to_classes = keras.Model(means, one.get_layer("classes")(means))
        before = texts_to_means.predict(ids, verbose=0)
        one.fit(ids, TOPICS, epochs=1, verbose=0)
        after = texts_to_means.predict(ids, verbose=0)
        assert np.abs(after - before).max() > 1e-3
        np.testing.assert_allclose(means_to_classes.predict(after, verbose=0), one.predict(ids, verbose=0), atol=1e-5)


def test_saved_models_load_without_this_package(model: Embeddings, tmp_path: Path) -> None:
    ids, (known, weights) = TextToIds(model)(TEXTS), TextToIds(model).weighted(TEXTS)
    made, documents = classifier(embedding(model)), document_model(model)
    made.save(tmp_path / "classes.keras")
    documents.save(tmp_path / "documents.keras")
    np.savez(tmp_path / "in.npz", ids=ids, known=known, weights=weights)
    code = (
        "import sys, keras, numpy as np; sys.modules['jose_embed'] = None; given = np.load('in.npz');"
        "classes = keras.models.load_model('classes.keras').predict(given['ids'], verbose=0);"
        "vectors = keras.models.load_model('documents.keras').predict([given['known'], given['weights']], verbose=0);"
        "np.savez('out.npz', classes=classes, vectors=vectors)"
    )
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, env=environment, check=True)
    found = np.load(tmp_path / "out.npz")
    assert np.array_equal(found["classes"], made.predict(ids, verbose=0))
    assert np.array_equal(found["vectors"], documents.predict([known, weights], verbose=0))


def test_a_missing_backend_is_named() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import jose_embed, numpy as np\n"
        "from jose_embed.adapters.keras import embedding\n"
        "eye = {name: np.eye(2, dtype=np.float32) for name in ('center_vectors', 'context_vectors')}\n"
        "embedding(jose_embed.Embeddings.from_arrays(words=['a', 'b'], counts=[1, 1], **eye))"
    )
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    said = ended.stderr.splitlines()[-1]
    assert said.startswith("jose_embed.errors.ConfigError: Keras does not start (")
    assert said.endswith("; install tensorflow, torch or jax and set KERAS_BACKEND to its name")
