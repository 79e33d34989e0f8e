"""The ONNX file, run by onnxruntime."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest

import jose_embed
from jose_embed import ConfigError, Embeddings, MissingExtraError, ModelError
from jose_embed.adapters.onnx import export_onnx
from jose_embed.cli.program import main

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

TEXTS, _ = planted.corpus(120)
GREEK = "ΣΟΦΟΣ ο ΣΟΦΟΣ don’t PANIC: it's l'Hôpital_rule x2 co\u00adop \u0130stanbul 東京 हिन्दी naïve ㎏ Ⅷ a\u200cb"


@pytest.fixture(scope="module")
def model() -> Embeddings:
    texts = [f"{text} {GREEK}" if row % 8 == 0 else text for row, text in enumerate(TEXTS)]
    return jose_embed.train(documents=texts, dim=16, epochs=3, workers=1, progress=False)


@pytest.fixture(scope="module")
def file(model: Embeddings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "m.onnx"
    export_onnx(model, path)
    return path


def run(file: Path, texts: list[str]) -> list[Any]:
    """The outputs for texts."""
    return onnxruntime.InferenceSession(file).run(None, {"text": np.array(texts, object)})  # type: ignore[no-any-return]


def split_by_spaces(model: Embeddings, text: str) -> str:
    return " ".join(model.tokenizer(text))


def test_vectors_of_texts(model: Embeddings, file: Path) -> None:
    texts = [*TEXTS, GREEK, TEXTS[0] + " " + TEXTS[0] + " " + TEXTS[1], "c1 " * 70_000 + "c2", "c1"]
    vectors, n_known = run(file, [split_by_spaces(model, text) for text in texts])
    assert (vectors.dtype, n_known.dtype) == (np.float32, np.int64)
    np.testing.assert_allclose(vectors, model.infer(texts), atol=1e-5)
    assert n_known.tolist() == [text.n_known for text in model.encoder.infer_detailed(texts)]


def test_unknown_words_are_left_out(model: Embeddings, file: Path) -> None:
    last = model.words[-1]
    texts = [TEXTS[0], f"zzz {TEXTS[0]}  zzz ", "zzz", "", " ", last, f"{last} zzz zzz", f"\0 {last}", f"zzz\t{last}"]
    vectors, n_known = run(file, texts)
    assert vectors[0].tobytes() == vectors[1].tobytes()
    assert n_known.tolist() == [24, 24, 0, 0, 0, 1, 1, 1, 0]
    assert not vectors[[2, 3, 4, 8]].any()
    assert vectors[5].tobytes() == vectors[6].tobytes() == vectors[7].tobytes()
    np.testing.assert_allclose(vectors[5], model.infer([last])[0], atol=1e-5)


@pytest.mark.parametrize("texts", [[], [""], ["", "zzz"]])
def test_nothing_known(file: Path, texts: list[str]) -> None:
    vectors, n_known = run(file, texts)
    assert vectors.shape == (len(texts), 16)
    assert not vectors.any()
    assert n_known.tolist() == [0] * len(texts)


def test_a_text_gets_the_same_in_every_batch(file: Path) -> None:
    together, _ = run(file, TEXTS * 10)
    assert together[:120].tobytes() == together[-120:].tobytes()
    for row in (0, 7):
        assert run(file, [TEXTS[row]])[0].tobytes() == together[row].tobytes()


def test_no_locale_is_needed(model: Embeddings, file: Path) -> None:
    """onnxruntime's own lower-casing fails to load without the locale en_US.UTF-8."""
    code = (
        "import sys, numpy, onnxruntime; session = onnxruntime.InferenceSession(sys.argv[1]);"
        "vectors, _ = session.run(None, {'text': numpy.array([sys.argv[2]], object)}); print(vectors.tobytes().hex())"
    )
    text = split_by_spaces(model, GREEK)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    environment |= {"LC_ALL": "C", "PYTHONUTF8": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", code, file, text], env=environment, capture_output=True, text=True, check=True
    )
    assert np.frombuffer(bytes.fromhex(ended.stdout), np.float32).tobytes() == run(file, [text])[0].tobytes()


def test_command(model: Embeddings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model.save(tmp_path / "m.jose")
    output = str(tmp_path / "out.onnx")
    assert main(["export", str(tmp_path / "m.jose"), "-o", output]) == 0  # by its ending
    assert f"{output}: words separated by spaces to vectors of 16 numbers" in capsys.readouterr().out
    assert run(Path(output), TEXTS[:3])[0].shape == (3, 16)
    assert main(["export", str(tmp_path / "m.jose"), "--format", "onnx", "-o", output]) == 2
    assert capsys.readouterr().err.endswith("already exists; choose another name, or replace it with --overwrite\n")
    assert main(["export", str(tmp_path / "m.jose"), "--table", "documents", "-o", output]) == 2
    assert "--table" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "m.jose"), "-o", output, "--overwrite", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_refused(model: Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken.onnx").write_text("mine")
    with pytest.raises(ModelError, match="already exists"):
        export_onnx(model, tmp_path / "taken.onnx")
    assert (tmp_path / "taken.onnx").read_text() == "mine"
    monkeypatch.setattr("jose_embed.adapters.onnx._LARGEST", 1000)
    with pytest.raises(ConfigError, match=r"an ONNX file holds at most 1\.0 kB, and the model needs .* kB; train it"):
        export_onnx(model, tmp_path / "large.onnx")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r'the export to ONNX needs .*"jose-embed\[onnx\]"'):
        export_onnx(model, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.slow
@pytest.mark.shared_data
def test_vectors_of_twenty_newsgroups(shared_data: Path, tmp_path: Path) -> None:
    model = jose_embed.train(shared_data / "20news.txt.gz", dim=100, epochs=3, progress=False)
    export_onnx(model, tmp_path / "news.onnx")
    lines = gzip.decompress((shared_data / "20news.txt.gz").read_bytes()).decode("utf-8").splitlines()
    chosen = [lines[row] for row in np.random.default_rng(0).permutation(len(lines))[:1000]]
    vectors, n_known = run(tmp_path / "news.onnx", [split_by_spaces(model, text) for text in chosen])
    expected, known = model.infer_flagged(chosen)
    assert ((n_known > 0) == known).all()
    np.testing.assert_allclose(vectors[known], expected[known], atol=1e-5)
