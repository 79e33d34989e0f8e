"""Folders for sentence-transformers and model2vec; with the libraries themselves: ``make test-adapters``."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest

import jose_embed
from jose_embed import ConfigError, Embeddings, ModelError
from jose_embed.adapters.static import STATIC_FORMATS, export_static
from jose_embed.cli.program import main
from jose_embed.model.exchange import read_safetensors
from jose_embed.text.tokenizers import get_tokenizer

TEXTS, _ = planted.corpus(120)
GREEK = "ΣΟΦΟΣ ο ΣΟΦΟΣ don’t PANIC: it's l'Hôpital_rule x2 co\u00adop \u0130stanbul 東京 हिन्दी naïve ㎏ Ⅷ a\u200cb"
LAYOUTS = {
    "sentence-transformers": ("config_sentence_transformers.json", "embedding.weight"),
    "model2vec": ("config.json", "embeddings"),
}


@pytest.fixture(scope="module")
def model() -> Embeddings:
    texts = [f"{text} {GREEK}" if row % 8 == 0 else text for row, text in enumerate(TEXTS)]
    return jose_embed.train(documents=texts, dim=16, epochs=3, workers=1, progress=False)


@pytest.mark.parametrize("format", STATIC_FORMATS)
def test_the_mean_of_rows_has_the_direction_of_a_text(model: Embeddings, format: str, tmp_path: Path) -> None:
    export_static(model, tmp_path / "out", format=format)
    config, tensor = LAYOUTS[format]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        config, "model.safetensors", "modules.json", "tokenizer.json",
    }  # fmt: skip
    settings = json.loads((tmp_path / "out" / config).read_text())
    assert (settings["normalize"], settings["max_length"]) == (True, None)
    tensors, _ = read_safetensors(tmp_path / "out" / "model.safetensors")
    rows = tensors[tensor]
    tokenizer = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(len(rows)))
    assert not rows[vocabulary[tokenizer["model"]["unk_token"]]].any()
    words = list(model.words)[::3]  # each once
    mean = np.mean([rows[vocabulary[word]] for word in words], axis=0)
    np.testing.assert_allclose(mean / np.linalg.norm(mean), model.infer([words])[0], atol=1e-5)


def test_refused(model: Embeddings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="format is 'onnx'; it must be one of sentence-transformers, model2vec"):
        export_static(model, tmp_path / "out", format="onnx")
    export_static(model, tmp_path / "out", format="model2vec")
    with pytest.raises(ModelError, match="already exists"):
        export_static(model, tmp_path / "out", format="model2vec")
    export_static(model, tmp_path / "out", format="sentence-transformers", overwrite=True)
    assert not (tmp_path / "out" / "config.json").exists()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match=r"holds 'notes\.txt', which no export made"):
        export_static(model, tmp_path / "out", format="model2vec", overwrite=True)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_a_tokenizer_that_other_libraries_lack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Letters:
        name = "letters"

        def settings(self) -> dict[str, Any]:
            return {}

        def __call__(self, text: str) -> list[str]:
            return list(text)

    monkeypatch.setattr("jose_embed.text.tokenizers._FACTORIES", {"letters": Letters})
    one = Embeddings.from_arrays(
        words=["a"],
        counts=[1],
        center_vectors=np.float32([[1, 0]]),
        context_vectors=np.float32([[1, 0]]),
        tokenizer="letters",
    )
    with pytest.raises(ConfigError, match="its tokenizer is 'letters', which other libraries do not have"):
        export_static(one, tmp_path / "out", format="model2vec")
    assert not (tmp_path / "out").exists()


TRICKY = (
    f"{GREEK} e-mail C++ C# f#+x 3.14 a.b.c .5 #tag ##tag a#b a##b #a#b # #- me@home.org @you a-@b a--b -a- --a "
    "x+ +x a'#b #'a Ὀδυσσεύς ΟΔΟΣ-ΟΔΟΣ #ΟΔΟΣ ΟΔΟΣ# ΣΑΣ.ΣΑΣ. r&d [a]b^c\\d ]a \\a a\u0301#b \u0301#a 東京#京"
)


@pytest.mark.parametrize(
    ("keep_joined", "keep_prefix"), [("", ""), ("-.+", ""), ("", "#@"), ("-._+#&", "#@"), ("-#]^\\", "-+[]^\\")]
)
def test_kept_characters_are_kept_by_the_libraries(keep_joined: str, keep_prefix: str, tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers")
    kept = {"keep_joined": keep_joined, "keep_prefix": keep_prefix}
    words = get_tokenizer("words", kept)(TRICKY)
    settings = {name: characters for name, characters in kept.items() if characters}
    one = one_word_model(list(dict.fromkeys(words)), tokenizer_settings=settings)
    export_static(one, tmp_path / "out", format="model2vec")
    theirs = library.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert theirs.encode(TRICKY, add_special_tokens=False).tokens == words


def one_word_model(words: list[str], **facts: Any) -> Embeddings:
    """A model of words that all have the same vector."""
    vectors = np.tile(np.float32([1, 0]), (len(words), 1))
    counts = [1] * len(words)
    return Embeddings.from_arrays(words=words, counts=counts, center_vectors=vectors, context_vectors=vectors, **facts)


def test_a_model_with_phrases_is_refused(tmp_path: Path) -> None:
    one = one_word_model(["a_b", "a"], text={"phrases": {"number": 1}}, extra_json={"phrases": [["a", "b", 0.9]]})
    with pytest.raises(ConfigError, match="its words are made with phrases, which other libraries do not have"):
        export_static(one, tmp_path / "out", format="model2vec")


def test_the_word_of_unknown_words_may_be_a_word(tmp_path: Path) -> None:
    one = Embeddings.from_arrays(
        words=["[UNK]"],
        counts=[1],
        center_vectors=np.float32([[1, 0]]),
        context_vectors=np.float32([[1, 0]]),
        tokenizer="whitespace",
    )
    export_static(one, tmp_path / "out", format="model2vec")
    tokenizer = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    assert tokenizer["model"]["vocab"] == {"[UNK]": 0, "[[UNK]]": 1}
    assert tokenizer["model"]["unk_token"] == "[[UNK]]"


def test_command(model: Embeddings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model.save(tmp_path / "m.jose")
    folder = str(tmp_path / "out")
    assert main(["export", str(tmp_path / "m.jose"), "--format", "model2vec", "-o", folder]) == 0
    assert f"{folder}: {model.n_words:,} vectors of 16 numbers" in capsys.readouterr().out
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    assert main(["export", str(tmp_path / "m.jose"), "--format", "model2vec", "-o", folder]) == 2
    assert capsys.readouterr().err.endswith("already exists; choose another name, or replace it with --overwrite\n")
    arguments = ["export", str(tmp_path / "m.jose"), "--format", "model2vec", "--table", "documents", "-o", folder]
    assert main(arguments) == 2
    assert "--table" in capsys.readouterr().err


# ---- with the libraries ---------------------------------------------------------------------------------------------


def sentence_transformers(folder: Path, texts: list[str]) -> Any:
    """The vectors of sentence-transformers."""
    library = pytest.importorskip("sentence_transformers")
    return library.SentenceTransformer(str(folder), device="cpu").encode(texts)


def model2vec(folder: Path, texts: list[str]) -> Any:
    """The vectors of model2vec; older versions cut texts at 512 words unless they are told not to."""
    return pytest.importorskip("model2vec").StaticModel.from_pretrained(folder).encode(texts, max_length=None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("format", "encode"),
    [
        ("sentence-transformers", sentence_transformers),
        ("model2vec", sentence_transformers),
        ("model2vec", model2vec),
    ],
)
def test_vectors_of_the_libraries(
    model: Embeddings, format: str, encode: Callable[[Path, list[str]], Any], tmp_path: Path
) -> None:
    if format == "model2vec" and encode is sentence_transformers:
        pytest.importorskip("sentence_transformers", minversion="5")  # older versions read their own layout only
    export_static(model, tmp_path / "out", format=format)
    texts = [" ".join(dict.fromkeys(text.split())) for text in TEXTS]  # no word repeats
    texts += [GREEK.replace("ΣΟΦΟΣ ο ", ""), "zzz " + TEXTS[0].split()[0], "zzz " * 600 + TEXTS[1].split()[0]]
    vectors = np.asarray(encode(tmp_path / "out", [*texts, "", "zzz"]))
    np.testing.assert_allclose(vectors[:-2], model.infer(texts), atol=1e-5)
    assert not vectors[-2:].any()  # nothing known: no direction


@pytest.mark.slow
def test_the_tokenizer_of_the_libraries(model: Embeddings, tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers")
    export_static(model, tmp_path / "out", format="model2vec")
    theirs = library.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    for text in [GREEK, *TEXTS[:9]]:
        encoded = theirs.encode(text, add_special_tokens=False)
        assert encoded.tokens == [word if word in model else "[UNK]" for word in model.tokenizer(text)]
    assert set(model.tokenizer(GREEK)) <= set(model.words)


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.filterwarnings("ignore")
def test_vectors_of_twenty_newsgroups(shared_data: Path, tmp_path: Path) -> None:
    """Mean cosine at least .997, first percentile at least .98, on 1,000 texts."""
    model = jose_embed.train(shared_data / "20news.txt.gz", dim=100, epochs=3, progress=False)
    export_static(model, tmp_path / "out", format="sentence-transformers")
    lines = gzip.decompress((shared_data / "20news.txt.gz").read_bytes()).decode("utf-8").splitlines()
    chosen = [lines[row] for row in np.random.default_rng(0).permutation(len(lines))[:1000]]
    theirs = np.asarray(sentence_transformers(tmp_path / "out", chosen))
    cosines = (theirs * model.infer_flagged(chosen).vectors).sum(axis=1)
    print(f"mean {cosines.mean():.4f}, first percentile {np.percentile(cosines, 1):.4f}")
    assert cosines.mean() >= 0.997
    assert np.percentile(cosines, 1) >= 0.98
