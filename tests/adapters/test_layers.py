"""Ids and tables for embedding layers."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import planted
import pytest

import jose_embed
from jose_embed import ConfigError, CorpusError, Embeddings, MissingExtraError
from jose_embed.adapters import bertopic, keras, torch
from jose_embed.adapters.layers import TextToIds, document_table, word_table

TEXTS, _ = planted.corpus(120)


@pytest.fixture(scope="module")
def model() -> Embeddings:
    return jose_embed.train(documents=TEXTS, dim=16, epochs=3, workers=1, progress=False)


def test_ids_are_those_of_the_words(model: Embeddings) -> None:
    to_ids = TextToIds(model)
    ids = to_ids([TEXTS[0].upper() + " unknown", "zzz", "", "c1"])
    words = [*TEXTS[0].split(), "unknown"]
    assert ids.dtype == np.int32
    assert ids.shape == (4, len(words))
    assert ids[0].tolist() == [model.index_of(word) + 2 if word in model else 1 for word in words]
    assert ids[1:, 0].tolist() == [1, 1, model.index_of("c1") + 2]
    assert not ids[1:, 1:].any()
    table = word_table(model)
    assert table.shape == (to_ids.n_ids, model.dim) == (model.n_words + 2, 16)
    assert not table[:2].any()
    assert table[ids[0, :-1]].tobytes() == np.stack([model[word] for word in words[:-1]]).tobytes()
    table += 1  # a copy


def test_length(model: Embeddings) -> None:
    texts = ["c1 c2 c3 c4", "c1"]
    whole = TextToIds(model)(texts)
    assert TextToIds(model, length=2)(texts).tolist() == whole[:, :2].tolist()
    assert TextToIds(model, length=6)(texts).tolist() == np.pad(whole, ((0, 0), (0, 2))).tolist()
    for length in (0, -1, 1.5, True, "3"):
        with pytest.raises(ConfigError, match=r"length is .*; it must be None or a whole number of at least 1"):
            TextToIds(model, length=length)  # type: ignore[arg-type]


def test_tokens_columns_and_mistakes(model: Embeddings) -> None:
    to_ids = TextToIds(model)
    expected = to_ids(TEXTS[:3]).tolist()
    assert to_ids([text.split() for text in TEXTS[:3]]).tolist() == expected
    assert to_ids(pd.Series(TEXTS[:3])).tolist() == expected
    assert to_ids(iter(TEXTS[:3])).tolist() == expected
    with pytest.raises(CorpusError, match="the documents are one string; give a list of strings"):
        to_ids("c1 c2")
    with pytest.raises(CorpusError, match="there are no documents"):
        to_ids.weighted([])
    with pytest.raises(CorpusError):
        to_ids(["c1", None])  # type: ignore[list-item]


def test_weighted_words_make_the_document(model: Embeddings) -> None:
    texts = [TEXTS[0] + " " + TEXTS[0] + " zzz " + TEXTS[1], "c1", "zzz", ""]
    ids, weights = TextToIds(model, length=1).weighted(texts)
    assert (ids.dtype, weights.dtype) == (np.int32, np.float32)
    assert len(set(ids[0])) == ids.shape[1]
    assert not ids[2:].any()
    assert not weights[2:].any()
    sums = (document_table(model)[ids] * weights[:, :, None]).sum(axis=1)
    assert not sums[2:].any()
    made = sums[:2] / np.linalg.norm(sums[:2], axis=1, keepdims=True)
    np.testing.assert_allclose(made, model.infer(texts[:2]), atol=1e-6)


def test_pickled_with_a_saved_model(model: Embeddings, tmp_path: Path) -> None:
    model.save(tmp_path / "m.jose")
    to_ids = pickle.loads(pickle.dumps(TextToIds(jose_embed.load(tmp_path / "m.jose"), length=3)))
    assert to_ids(TEXTS[:2]).tolist() == TextToIds(model, length=3)(TEXTS[:2]).tolist()


@pytest.mark.parametrize(
    ("library", "make", "message"),
    [
        ("torch", torch.embedding, "the adapter for torch needs"),
        ("torch", torch.document_bag, "the adapter for torch needs"),
        ("keras", keras.embedding, "the adapter for Keras needs"),
        ("keras", keras.document_model, "the adapter for Keras needs"),
        ("bertopic", bertopic.embedder, "the embedder for BERTopic needs"),
    ],
)
def test_a_missing_library_is_named(
    model: Embeddings, library: str, make: Callable[[Embeddings], Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (library, f"{library}.backend"):  # a loaded submodule is found without its package
        monkeypatch.setitem(sys.modules, name, None)
    bertopic._embedder_class.cache_clear()
    with pytest.raises(MissingExtraError, match=rf'^{message} packages .*"jose-embed\[{library}\]"$'):
        make(model)
