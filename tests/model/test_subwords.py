"""Unknown words that are composed of n-grams: look-ups, texts, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from jose_embed.cli.program import main
from jose_embed.errors import ConfigError, ModelError, NoKnownWordsError, UnknownWordError
from jose_embed.model.embeddings import Embeddings, load
from jose_embed.model.line_vectors import line_vectors
from jose_embed.model.parts import SUBWORD_VECTORS, SUBWORDS
from jose_embed.model.smaller import smaller
from jose_embed.text.ngrams import Ngrams
from jose_embed.text.reader import Block

DIM, NGRAMS = 6, Ngrams(3, 4, 50)
WORDS = ["walk", "talk", "song", "café"]
FACTS = {"shortest": 3, "longest": 4, "buckets": 50}


def units(n: int, seed: int) -> npt.NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((n, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def model_of(**changes: Any) -> Embeddings:
    parts: dict[str, Any] = {
        "words": WORDS,
        "counts": [9, 8, 7, 6],
        "center_vectors": units(4, 1),
        "context_vectors": units(4, 2),
        "doc_ids": ["1", "2"],
        "doc_vectors": units(2, 3),
        "text": {"normalisation": "nfc", SUBWORDS: FACTS},
        "extra_arrays": {
            SUBWORD_VECTORS: np.random.default_rng(4).standard_normal((50, DIM)).astype(np.float32),
            "document_matrix": np.diag(np.arange(1.0, 1 + DIM)),
        },
    }
    return Embeddings.from_arrays(**parts | changes)


@pytest.fixture
def model() -> Embeddings:
    return model_of()


def composed(model: Embeddings, word: str) -> npt.NDArray[np.float64]:
    """By the definition: the direction of the sum of the rows of the word's n-grams."""
    total = model.extra_arrays[SUBWORD_VECTORS][NGRAMS.rows(word)].astype(np.float64).sum(0)
    return np.asarray(total / np.linalg.norm(total))


def test_unknown_words_are_composed_and_known_ones_are_not(model: Embeddings) -> None:
    assert model.is_composed("walking")
    assert not model.is_composed("walk")
    np.testing.assert_allclose(model["walking"], composed(model, "walking"), atol=1e-6)
    np.testing.assert_array_equal(model["walk"], model.center_vectors[0])
    assert not model["walking"].flags.writeable
    assert "walking" not in model
    assert model.index_of("walking") is None
    assert (model.has_vector("walking"), model.has_vector("walk"), model.has_vector("two words")) == (True, True, False)
    np.testing.assert_array_equal(model["WALKING"], model["walking"])
    np.testing.assert_array_equal(model["CAFE\u0301"], model.center_vectors[3])
    assert model.similarity("walking", "walk") == pytest.approx(float(model["walking"] @ model["walk"]), abs=1e-6)


def test_queries_say_which_words_are_composed(model: Embeddings) -> None:
    query = model.query(positive=["walking", "walk"], negative="singing", without="song")
    assert (query.words, query.composed) == ((0, 2), ("walking", "singing"))
    rest = composed(model, "walking") + model["walk"] - composed(model, "singing")
    rest -= (rest @ model["song"].astype(np.float64)) * model["song"]
    np.testing.assert_allclose(query.vector, rest / np.linalg.norm(rest), atol=1e-5)
    assert model.query("walk").composed == ()
    nearest = model.most_similar("walking", k=4)
    expected = sorted((float(model[word] @ model["walking"]) for word in WORDS), reverse=True)
    assert [neighbor.score for neighbor in nearest] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ConfigError, match="nothing is left of the query without 'walking'"):
        model.query("walking", without="walking")


def test_words_without_ngrams_stay_unknown(model: Embeddings) -> None:
    for word in ("x" * 101, "two words", "", "?!"):
        with pytest.raises(UnknownWordError):
            model.vector_of(word)
    nothing = {SUBWORD_VECTORS: np.zeros((50, DIM), np.float32)}
    nothing[SUBWORD_VECTORS][NGRAMS.rows("walk")] = np.nan
    empty = model_of(extra_arrays=nothing)
    for word in ("walking", "zzz"):
        with pytest.raises(UnknownWordError):
            empty.vector_of(word)
        with pytest.raises(NoKnownWordsError):
            empty.infer([word])


def test_texts_of_unknown_words_alone_are_composed(model: Embeddings) -> None:
    texts = ["walking singing walking", "walk walking", "walk", "?!"]
    found = model.encoder.infer_detailed(texts)
    assert [text.composed for text in found] == [True, False, False, False]
    assert (found[0].n_known, found[0].unknown, found[0].coverage) == (0, ("walking", "singing"), 0)
    total = ((1 + np.log(2)) * composed(model, "walking") + composed(model, "singing")) * np.arange(1.0, 1 + DIM)
    assert found[0].vector is not None
    np.testing.assert_allclose(found[0].vector, total / np.linalg.norm(total), atol=1e-5)
    np.testing.assert_array_equal(found[1].vector, found[2].vector)  # unknown words beside known ones say nothing
    flagged = model.infer_flagged(texts)
    assert flagged.known.tolist() == [False, True, True, False]
    np.testing.assert_array_equal(flagged.vectors[0], found[0].vector)
    np.testing.assert_array_equal(flagged.vectors[3], model.encoder.mean_direction)
    np.testing.assert_array_equal(model.infer(texts[:3])[0], found[0].vector)
    with pytest.raises(NoKnownWordsError, match="text 4"):
        model.infer(texts)
    word, text = model.similar_documents(word="walking"), model.similar_documents(text="walking")
    assert word == text


def test_kernels_compose_as_numpy_does(model: Embeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["walking", "walk", "", "singing song"]
    expected = model.infer_flagged(texts)
    monkeypatch.setattr("jose_embed.model.inference.WORTH_COMPILING", 0)
    found = model.infer_flagged(texts)
    assert found.known.tolist() == expected.known.tolist() == [False, True, False, True]
    assert found.vectors.tobytes() == expected.vectors.tobytes()
    monkeypatch.setattr("jose_embed.model.line_vectors._PLAIN_BYTES", 0)
    data = "".join(f"{text}\n" for text in texts).encode()
    (lines,) = line_vectors(model.encoder, [Block(data, len(data))])
    assert lines.vectors.tobytes() == expected.vectors.tobytes()
    assert lines.n_known.tolist() == [0, 1, 0, 1]


def test_a_text_of_very_many_unknown_words_costs_little(model: Embeddings) -> None:
    many = [f"w{number:05}" for number in range(3000)]
    np.testing.assert_array_equal(model.infer([" ".join(many)])[0], model.infer([" ".join(many[:1000])])[0])


def test_ngrams_are_saved_and_belong_to_the_id(model: Embeddings, tmp_path: Path) -> None:
    model.save(tmp_path / "m.jose")
    read = load(tmp_path / "m.jose", verify=True)
    np.testing.assert_array_equal(read["walking"], model["walking"])
    assert read.manifest["text"][SUBWORDS] == FACTS
    assert model_of(text={SUBWORDS: FACTS | {"longest": 5}}).id != read.id
    plain = model_of(text=None, extra_arrays={})
    assert plain.subwords is None
    with pytest.raises(UnknownWordError):
        plain.vector_of("walking")


@pytest.mark.parametrize(
    ("facts", "array", "message"),
    [
        (FACTS, None, "one is missing"),
        (None, np.ones((50, DIM), np.float32), "one is missing"),
        (FACTS | {"buckets": 49}, np.ones((50, DIM), np.float32), r"shape \(50, 6\); to fit .* \(49, 6\)"),
        (FACTS, np.ones((50, DIM)), "float64 numbers, not float32"),
    ],
)
def test_ngrams_that_do_not_fit_are_refused(
    facts: dict[str, int] | None, array: npt.NDArray[Any] | None, message: str
) -> None:
    text = {} if facts is None else {SUBWORDS: facts}
    arrays = {} if array is None else {SUBWORD_VECTORS: array}
    with pytest.raises(ModelError, match=message):
        model_of(text=text, extra_arrays=arrays)


@pytest.mark.parametrize("facts", [{"shortest": 3}, FACTS | {"buckets": 0}, FACTS | {"longest": "6"}, 7])
def test_facts_that_are_none_are_refused(facts: Any) -> None:
    with pytest.raises(ModelError, match="must be shortest, longest, buckets, whole numbers from 1"):
        model_of(text={SUBWORDS: facts})


def test_a_damaged_file_is_refused(model: Embeddings, tmp_path: Path) -> None:
    path = model.save(tmp_path / "m.jose")
    (path / "subword_vectors.npy").unlink()
    with pytest.raises(ModelError, match="subword_vectors"):
        load(path)


def test_a_smaller_model_composes_in_its_own_axes(model: Embeddings) -> None:
    small = smaller(model, dim=3, words=3)
    axes = np.linalg.lstsq(model.center_vectors[:3], small.center_vectors, rcond=None)[0]
    assert small["walking"].shape == (3,)
    assert axes.shape == (DIM, 3)
    assert small.is_composed("café"), "a word that was cut off"
    assert small.similarity("walking", "walked") == pytest.approx(model.similarity("walking", "walked"), abs=0.7)


def test_commands_say_what_is_composed(model: Embeddings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(model.save(tmp_path / "m.jose"))
    nearest = model.most_similar("walking", k=1)[0].word
    assert main(["similar", path, "walking", "-k", "1", "--json"]) == 0
    shown = capsys.readouterr()
    assert [(found["word"], found["composed"]) for found in json.loads(shown.out)] == [(nearest, True)]
    assert "walking, which is unknown: composed of its n-grams" in shown.err
    assert main(["export", path, "-o", str(tmp_path / "m.vec")]) == 0
    assert "unknown words stay unknown there" in capsys.readouterr().err
    assert main(["info", path]) == 0
    assert "of 3 to 4 characters, 50 vectors" in capsys.readouterr().out
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("walk\twalking\t9\nsinging\tsong\t5\nwalk\tsong\t1\n")
    pytest.importorskip("scipy")
    assert main(["eval", "wordsim", path, str(pairs)]) == 0
    assert "| 3 | 1.000 |" in capsys.readouterr().out, "all pairs count"


def test_embed_says_what_texts_without_a_known_word_got(
    model: Embeddings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save(tmp_path / "m.jose")
    (tmp_path / "new.txt").write_text("walk\nwalked\n")
    assert main(["embed", str(tmp_path / "m.jose"), str(tmp_path / "new.txt"), "-o", str(tmp_path / "v.npy")]) == 0
    assert "(2); their vectors are composed of n-grams" in capsys.readouterr().err
    assert not np.allclose(*np.load(tmp_path / "v.npy"))
