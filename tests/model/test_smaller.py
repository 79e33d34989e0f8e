"""Smaller models answer nearly as the whole one; sizes that cannot be are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import planted
import pytest

import jose_embed
from jose_embed import ConfigError, Embeddings, import_vectors
from jose_embed.cli.program import main
from jose_embed.model.exchange import export
from jose_embed.model.smaller import smaller

CORPUS = planted.corpus(160)


@pytest.fixture(scope="module")
def model() -> Embeddings:
    return jose_embed.train(documents=CORPUS.texts, dim=24, epochs=4, workers=1, min_count=1, progress=False)


def test_fewer_words_keep_their_vectors(model: Embeddings, tmp_path: Path) -> None:
    few = smaller(model, words=50)
    assert (few.n_words, few.n_docs, few.dim) == (50, model.n_docs, model.dim)
    np.testing.assert_array_equal(few.center_vectors, model.center_vectors[:50])
    np.testing.assert_array_equal(few.doc_vectors, model.doc_vectors)
    text = [" ".join(model.words[:5])]
    np.testing.assert_allclose(few.infer(text), model.infer(text), atol=1e-6)
    few.save(tmp_path / "few.jose")
    assert jose_embed.load(tmp_path / "few.jose", verify=True).words[49] == model.words[49]


def test_fewer_dimensions_keep_the_topics(model: Embeddings) -> None:
    low = smaller(model, dim=6)
    assert low.doc_vectors.shape == (model.n_docs, 6)
    rows, groups = planted.word_groups(low)
    assert planted.nearest_agree(low.center_vectors[rows], groups) > 0.95
    assert planted.nearest_agree(low.doc_vectors, CORPUS.topics) > 0.95
    inferred = low.infer(CORPUS.texts)
    assert np.einsum("ij,ij->i", inferred, low.doc_vectors).mean() > 0.95


def test_all_dimensions_and_words_are_the_same_model(model: Embeddings) -> None:
    whole = smaller(model, dim=model.dim, words=model.n_words)
    assert whole.id == model.id


def test_bytes_keep_directions(model: Embeddings, tmp_path: Path) -> None:
    export(model, tmp_path / "v.safetensors", int8=True)
    export(model, tmp_path / "whole.safetensors")
    assert (tmp_path / "v.safetensors").stat().st_size < 0.45 * (tmp_path / "whole.safetensors").stat().st_size
    back = import_vectors(tmp_path / "v.safetensors")
    assert list(back.words) == list(model.words)
    assert np.einsum("ij,ij->i", back.center_vectors, model.center_vectors).min() > 0.999
    with pytest.raises(ConfigError, match="safetensors only"):
        export(model, tmp_path / "v.vec", int8=True)


@pytest.mark.parametrize(("given", "message"), [
    ({"dim": 1}, "dim is 1; it must be a whole number from 2 to 24"),
    ({"dim": 25}, "dim is 25"),
    ({"words": 0}, "words is 0"),
    ({"words": 10_000}, "words is 10000; it must be a whole number from 1 to"),
])  # fmt: skip
def test_impossible_sizes_are_refused(model: Embeddings, given: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        smaller(model, **given)


def test_the_command(model: Embeddings, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = str(model.save(tmp_path / "m.jose"))
    assert main(["export", path, "-o", str(tmp_path / "s.jose"), "--dim", "8", "--words", "60"]) == 0
    assert "60 words and 160 documents of 8 numbers" in capfd.readouterr().out
    assert main(["similar", str(tmp_path / "s.jose"), model.words[0]]) == 0
    assert main(["export", path, "-o", str(tmp_path / "s.vec"), "--dim", "8"]) == 0
    assert (tmp_path / "s.vec").read_text().startswith(f"{model.n_words} 8\n")
    assert main(["export", path, "-o", str(tmp_path / "s.safetensors"), "--int8"]) == 0
    capfd.readouterr()
    assert main(["export", path, "-o", str(tmp_path / "t.jose"), "--int8"]) == 2
    assert main(["export", path, "-o", str(tmp_path / "t.jose"), "--dim", "99"]) == 2
    assert capfd.readouterr().err.count("\n") == 2
