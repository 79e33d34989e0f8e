"""Vectors of other programs become models; a file that cannot is refused by name and place."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest

import jose_embed
from jose_embed import ConfigError, Embeddings, JoseError, ModelError, import_vectors
from jose_embed.adapters.static import export_static
from jose_embed.cli.program import main
from jose_embed.model.exchange import export, write_vectors
from jose_embed.progress import SilentReporter

WORDS = ["the", "cat", "naïve", "New_York", "日本語"]
ROWS = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32) * np.float32([[3], [1], [2], [9], [0.1]])


def units(rows: np.ndarray) -> np.ndarray:
    wide = rows.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def trained() -> Embeddings:
    return jose_embed.train(documents=planted.corpus(80).texts, dim=8, epochs=2, workers=1, progress=False)


class Notes(SilentReporter):
    """Keeps the notes."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, message: Any) -> None:
        self.notes.append(str(message))


def glove(path: Path) -> None:
    path.write_text("".join(f"{w} {' '.join(map(repr, r))}\n" for w, r in zip(WORDS, ROWS.tolist(), strict=True)))


@pytest.mark.parametrize("name", ["v.txt", "v.vec", "v.bin", "v.safetensors", "glove.txt", "v.npy", "t.safetensors"])
def test_each_format_becomes_a_model(tmp_path: Path, name: str) -> None:
    path, words = tmp_path / name, None
    if name == "glove.txt":
        glove(path)
    elif name == "v.npy":
        np.save(path, ROWS.astype(np.float64))
        words = tmp_path / "words.txt"
        words.write_text("".join(f"{word}\n" for word in WORDS))
    elif name == "t.safetensors":
        header = json.dumps({"w": {"dtype": "F32", "shape": [5, 4], "data_offsets": [0, 80]}}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + ROWS.tobytes())
        words = tmp_path / "vocab.json"
        words.write_text(json.dumps({word: row for row, word in enumerate(WORDS)}))
    else:
        write_vectors(path, WORDS, ROWS)
    model = import_vectors(path, words=words)
    assert list(model.words) == WORDS
    np.testing.assert_allclose(model.center_vectors, units(ROWS), atol=3e-7)
    assert (np.diff(model.counts) < 0).all()
    model.save(tmp_path / "m.jose")
    loaded = jose_embed.load(tmp_path / "m.jose", verify=True)
    assert [found.word for found in loaded.most_similar("cat", k=4)] != []
    weights = loaded.encoder.word_weights[:2, 1]
    expected = weights @ units(ROWS)[:2]
    np.testing.assert_allclose(loaded.infer(["The cat, unknown"])[0], expected / np.linalg.norm(expected), atol=1e-5)


@pytest.mark.parametrize("format", ["word2vec", "word2vec-binary", "safetensors"])
def test_an_exported_model_comes_back_with_its_bytes(tmp_path: Path, trained: Embeddings, format: str) -> None:
    export(trained, tmp_path / "v", format=format)
    vocabulary = tmp_path / "counts.tsv"
    vocabulary.write_text("".join(f"{w}\t{n}\n" for w, n in zip(trained.words, trained.counts, strict=True)))
    model = import_vectors(tmp_path / "v", format=format, counts=vocabulary)
    assert (list(model.words), model.counts.tolist()) == (list(trained.words), trained.counts.tolist())
    np.testing.assert_array_equal(model.center_vectors, trained.center_vectors)


@pytest.mark.parametrize("format", ["model2vec", "sentence-transformers"])
def test_an_exported_static_model_makes_the_same_text_vectors(tmp_path: Path, trained: Embeddings, format: str) -> None:
    export_static(trained, tmp_path / "folder", format=format)
    model = import_vectors(tmp_path / "folder")
    assert list(model.words) == list(trained.words)
    text = list(trained.words)[::5]  # each word once
    np.testing.assert_allclose(model.infer([text])[0], trained.infer([text])[0], atol=1e-5)


def static_folder(folder: Path, **model: Any) -> None:
    folder.mkdir()
    vocabulary = {"[UNK]": 0, "un": 1, "##happy": 2, "happy": 3, "sad": 4}
    facts = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary,
        } | model,
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(facts))
    header = json.dumps({"embeddings": {"dtype": "F32", "shape": [5, 4], "data_offsets": [0, 80]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + ROWS.tobytes())


def test_words_of_a_static_model_are_averaged_from_their_parts(tmp_path: Path) -> None:
    static_folder(tmp_path / "m")
    assert list(import_vectors(tmp_path / "m").words) == ["un", "happy", "sad"]
    pytest.importorskip("tokenizers")
    model = import_vectors(tmp_path / "m", words=["unhappy", "sad"])
    np.testing.assert_allclose(model["unhappy"], units((ROWS[1:2] + ROWS[2:3]) / 2)[0], atol=3e-7)
    np.testing.assert_allclose(model["sad"], units(ROWS[4:])[0], atol=3e-7)
    with pytest.raises(ModelError, match=r"'qqq'.*rows of zeros"):
        import_vectors(tmp_path / "m", words=["sad", "qqq"])
    model = import_vectors(tmp_path / "m", words=["sad", "qqq"], on_error="skip")
    assert list(model.words) == ["sad"]


def test_damaged_static_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no model\.safetensors"):
        import_vectors(tmp_path)
    static_folder(tmp_path / "ids", vocab={"a": 7})
    with pytest.raises(ModelError, match="5 rows, but its tokenizer 8 tokens"):
        import_vectors(tmp_path / "ids")
    for number, vocabulary in enumerate(({"a": -1}, {"a": "x"}, {}, [1, 2], None)):
        static_folder(tmp_path / str(number), vocab=vocabulary)
        with pytest.raises(ModelError, match="not the tokenizer"):
            import_vectors(tmp_path / str(number))
    static_folder(tmp_path / "m")
    for modules, message in (
        ([{"type": "sentence_transformers.models.Transformer", "path": ""}], "is Transformer; only static"),
        ([{"type": "x.StaticEmbedding", "path": "../m"}], "outside"),
        ([{"type": "x.StaticEmbedding", "path": "absent"}], "holds no model.safetensors"),
    ):
        (tmp_path / "m" / "modules.json").write_text(json.dumps(modules))
        with pytest.raises(ModelError, match=message):
            import_vectors(tmp_path / "m")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"3 2\na 1 0\nb 0 1\n", "has 2 rows, but its first line says 3"),
        (b"1 2\na 1 0\nb 0 1\n", "one line too many"),
        (b"2 3\na 1 0\nb 0 1\n", "line 2 is not a name and 3 numbers"),
        (b"2 2\na 1 0\na 0 1\n", "the name 'a' occurs twice"),
        (b"2 2\na 1 0\nb 0 0\n", "row 2 \\('b'\\) is one of the rows of zeros"),
        (b"2 2\na 1 0\nb 0 nan\n", "row 1 holds a NaN"),
        (b"9999999999999 300\na 1 0\n", "do not fit"),
        (b"2 2\na 1 0\nb 0", "is not a name and 2 numbers"),
        (b"2 2\na\tb 1 0\nc 0 1\n", "empty or hold a tab"),
        (b"\x00\x01\x02", "not a text file of vectors"),
        (b"", "not a text file of vectors"),
        (b"0 2\n", "nothing to import"),
    ],
)  # fmt: skip
def test_wrong_files_are_refused_by_name(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "v.txt").write_bytes(text)
    with pytest.raises(ModelError, match=message) as raised:
        import_vectors(tmp_path / "v.txt")
    assert "v.txt" in str(raised.value)


def test_bad_rows_can_be_skipped(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("5 2\na 1 0\na 0 1\nz 0 0\nNew 0 2\nb 1e-30 1e-30\n")
    reporter = Notes()
    model = import_vectors(tmp_path / "v.txt", on_error="skip", reporter=reporter)
    assert list(model.words) == ["a", "New", "b"]
    np.testing.assert_allclose(model.center_vectors, [[1, 0], [0, 1], [0.5**0.5] * 2], atol=1e-7)
    assert any("1 repeated words left out" in note for note in reporter.notes)
    assert any("1 of 3 words, such as New" in note for note in reporter.notes)


def test_weights(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("a 2 0\nb 0 1\n")
    at = lambda **given: import_vectors(tmp_path / "v.txt", **given).infer(["a b"])[0]  # noqa: E731
    np.testing.assert_allclose(at(weights="equal"), [0.5**0.5] * 2, atol=1e-6)
    np.testing.assert_allclose(at(weights="norms"), np.array([2, 1]) / 5**0.5, atol=1e-6)
    np.testing.assert_allclose(at(weights={"a": 0, "b": 3}), [0, 1], atol=1e-6)
    assert at()[1] > at()[0] > 0  # the second word is rarer
    assert list(import_vectors(tmp_path / "v.txt", counts={"b": 9}).words) == ["b", "a"]
    for given, error, message in (
        ({"weights": {"a": 1}}, ModelError, "lack the word 'b'"),
        ({"weights": {"a": 0, "b": 0}}, ModelError, "all weights are 0"),
        ({"weights": "norm"}, ConfigError, "must be one of counts, norms, equal"),
        ({"counts": {"a": -1}}, ModelError, "the counts of 'a' is '-1'"),
        ({"counts": {"a": float("nan")}}, ModelError, "from 0 to"),
        ({"words": ["a", "b"]}, ConfigError, "holds its words"),
        ({"tokenizer": "word"}, ConfigError, "tokenizer"),
        ({"format": "glove"}, ConfigError, "must be one of word2vec"),
        ({"on_error": "ignore"}, ConfigError, "stop or skip"),
    ):
        with pytest.raises(error, match=message):
            import_vectors(tmp_path / "v.txt", **given)


def test_arrays_that_are_no_table_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", ROWS)
    with pytest.raises(ConfigError, match="holds no words"):
        import_vectors(tmp_path / "v.npy")
    with pytest.raises(ModelError, match="has 5 rows, but there are 1 words"):
        import_vectors(tmp_path / "v.npy", words=["a"])
    np.save(tmp_path / "flat.npy", ROWS[0])
    np.save(tmp_path / "text.npy", np.array([["a"]]))
    np.save(tmp_path / "pickle.npy", np.array([[None]], dtype=object), allow_pickle=True)
    whole = (tmp_path / "v.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-3])
    (tmp_path / "huge.npy").write_bytes(whole.replace(b"(5, 4)", b"(5555555555555, 444)"[:6].ljust(6)))
    (tmp_path / "none.npy").write_bytes(b"")
    for name in ("flat", "text", "pickle", "cut", "huge", "none"):
        with pytest.raises(ModelError, match=f"{name}.npy: (holds|cannot be read)"):
            import_vectors(tmp_path / f"{name}.npy", words=["a"])


def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    glove(tmp_path / "g.txt")
    assert main(["import", "g.txt"]) == 0
    assert "g.jose: 5 words of 4 numbers" in capfd.readouterr().out
    for command in (["similar", "g.jose", "the"], ["info", "g.jose"], ["info", "g.jose", "--json"]):
        assert main(command) == 0, capfd.readouterr().err
    capfd.readouterr()
    assert main(["import", "g.txt"]) == 2
    assert "already exists" in capfd.readouterr().err
    assert main(["import", "g.txt", "-o", "g.txt", "--overwrite"]) == 2
    assert main(["import", "absent.vec"]) == 2
    assert capfd.readouterr().err.count("\n") == 2
    assert not Path("absent.jose").exists()


def test_errors_are_ours() -> None:
    with pytest.raises(JoseError):
        import_vectors("no-such-file.xyz")
