"""A model keeps what it is given, answers as brute force does, and says of a damaged one which file it is."""

from __future__ import annotations

import copy
import hashlib
import io
import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jose_embed
from jose_embed.config import TrainConfig
from jose_embed.errors import (
    ConfigError,
    JoseError,
    MissingExtraError,
    ModelError,
    NoKnownWordsError,
    TrainingError,
    UnknownWordError,
)
from jose_embed.model import files as modelfiles
from jose_embed.model import nearest
from jose_embed.model.embeddings import Embeddings, load
from jose_embed.model.files import check_model_target, model_id
from jose_embed.model.query import DocumentNeighbor, Neighbor
from jose_embed.storage.directory import MODEL
from jose_embed.storage.manifest import manifest_checksum

ROOT = Path(__file__).resolve().parents[2]
DIM = 8
WORDS = ["the", "naïve", "don't", "</s>", "日本語", "a b", "e\u0301", "\u2028", "\x85", "\r", "x", "y", "z", "zebra"]
DOC_IDS = ["1", "2", "news.txt:1", "", "a\tb", "ü", "7"]


def units(n: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def model_of(**changes: Any) -> Embeddings:
    parts: dict[str, Any] = {
        "words": WORDS,
        "counts": np.arange(len(WORDS), 0, -1) * 10,
        "center_vectors": units(len(WORDS), seed=1),
        "context_vectors": units(len(WORDS), seed=2),
        "doc_ids": DOC_IDS,
        "doc_vectors": units(len(DOC_IDS), seed=3),
        "doc_token_counts": [3, 0, 5, 1, 2, 0, 9],
        "config": TrainConfig(dim=DIM),
        "tokenizer": "whitespace",
        "tokenizer_settings": {"lower": True},
        "training": {"epochs": [{"loss": 0.25}], "seconds": np.float64(1.5), "workers": np.int64(2)},
        "corpus": {"n_documents": 7, "sources": ("caf\udce9.txt",)},
        "extra_arrays": {"idf": np.linspace(0, 1, len(WORDS)), "flags": np.array([True, False])},
        "extra_json": {"remarks": {"a": [1, None, "é"]}},
    }
    return Embeddings.from_arrays(**parts | changes)


@pytest.fixture
def model() -> Embeddings:
    return model_of()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return model_of().save(tmp_path / "m.jose")


# ---- kept ---------------------------------------------------------------------------------------------------------


def assert_same(a: Embeddings, b: Embeddings) -> None:
    assert list(a.words) == list(b.words)
    assert list(a.doc_ids) == list(b.doc_ids)
    for name in ("counts", "center_vectors", "context_vectors", "doc_vectors", "doc_token_counts"):
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)
    assert a.extra_arrays.keys() == b.extra_arrays.keys()
    for name in a.extra_arrays:
        np.testing.assert_array_equal(a.extra_arrays[name], b.extra_arrays[name])
    assert a.extra_json == b.extra_json
    assert a.manifest == b.manifest


@pytest.mark.parametrize("verify", [False, True])
def test_what_is_saved_is_loaded(tmp_path: Path, model: Embeddings, verify: bool) -> None:
    unsaved_manifest = model.manifest
    assert model.path is None
    path = model.save(tmp_path / "m.jose")
    assert path == model.path
    loaded = Embeddings.load(path, verify=verify)
    assert_same(loaded, model)
    assert loaded.manifest == unsaved_manifest
    assert (loaded.n_words, loaded.n_docs, loaded.dim, len(loaded)) == (14, 7, 8, 14)
    assert loaded.path == path
    assert loaded.config == TrainConfig(dim=DIM)
    assert repr(loaded) == "<Embeddings of 14 words and 7 documents, dim 8>"
    assert list(loaded) == WORDS
    for array in (loaded.center_vectors, loaded.counts, loaded.doc_token_counts, loaded.extra_arrays["idf"]):
        assert not array.flags.writeable
        assert type(array) is np.ndarray


def test_the_directory_is_plain_files(saved: Path) -> None:
    manifest = json.loads((saved / "manifest.json").read_text(encoding="utf-8"))
    assert sorted(os.listdir(saved)) == sorted([*manifest["files"], "manifest.json"])
    assert (manifest["format"], manifest["format_version"]) == ("jose-embed", MODEL.version)
    assert manifest["counts"] == {"n_words": 14, "n_docs": 7, "n_untrained": 2, "n_tokens": 1050, "dim": 8}
    assert manifest["tokenizer"] == {"name": "whitespace", "settings": {"lower": True}}
    assert manifest["training"] == {"epochs": [{"loss": 0.25}], "seconds": 1.5, "workers": 2}
    assert manifest["config"]["dim"] == 8
    assert manifest["package_version"] == jose_embed.__version__
    assert manifest["created"].endswith("Z")
    assert (saved / "vocabulary.tsv").read_bytes().split(b"\n")[:2] == [b"the\t140", "naïve\t130".encode()]
    assert (saved / "doc_ids.txt").read_bytes() == "\n".join([*DOC_IDS, ""]).encode()
    assert (saved / "remarks.json").read_bytes().endswith(b"\n")
    np.testing.assert_array_equal(np.load(saved / "center_vectors.npy"), units(14, seed=1))
    assert np.load(saved / "doc_token_counts.npy").dtype == np.dtype("<i8")


def test_the_id_is_of_what_answers_depend_on(model: Embeddings) -> None:
    assert model.id == model_of(training={"seconds": 9}, corpus={}, config=None).id
    ids = {model.id, model_of(center_vectors=units(14, seed=9)).id, model_of(tokenizer="words").id}
    ids |= {model_of(tokenizer_settings={}).id, model_of(counts=[9] * 14).id, model_of(extra_json={}).id}
    assert len(ids) == 6
    assert all(len(name) == 64 for name in ids)


def test_a_model_may_have_no_documents(tmp_path: Path) -> None:
    model = model_of(doc_ids=(), doc_vectors=None, doc_token_counts=None)
    loaded = load(model.save(tmp_path / "m"), verify=True)
    assert_same(loaded, model)
    assert (loaded.n_docs, loaded.doc_vectors.shape) == (0, (0, 8))
    assert loaded.similar_documents(vector=np.ones(8)) == []
    assert loaded.document_index("1") is None
    with pytest.raises(ConfigError, match=r"no document '1'.*the model has no documents"):
        loaded.similar_documents("1")


def test_strided_and_mapped_arrays_are_saved_as_they_are(tmp_path: Path, model: Embeddings) -> None:
    padded = np.zeros((14, 16), np.float32)
    padded[:, :8] = model.center_vectors
    np.save(tmp_path / "d.npy", model.doc_vectors)
    other = model_of(
        center_vectors=padded[:, :8],
        context_vectors=np.asfortranarray(model.context_vectors),
        doc_vectors=np.load(tmp_path / "d.npy", mmap_mode="r"),
    )
    assert other.id == model.id
    loaded = load(other.save(tmp_path / "m"), verify=True)
    np.testing.assert_array_equal(loaded.center_vectors, model.center_vectors)
    assert loaded.center_vectors.flags.c_contiguous


def test_saving_goes_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Embeddings) -> None:
    monkeypatch.setattr("jose_embed.storage.columns.BLOCK_BYTES", 3 * 4 * DIM)
    monkeypatch.setattr("jose_embed.storage.columns._BATCH", 2)
    blocky = model_of()
    assert_same(load(blocky.save(tmp_path / "m"), verify=True), blocky)
    assert blocky.id == model.id


def test_overwriting_and_saving_again(tmp_path: Path, saved: Path) -> None:
    first = load(saved)
    with pytest.raises(ModelError, match="already exists"):
        first.save(saved)
    row = first["x"]
    model_of(center_vectors=units(14, seed=50)).save(saved, overwrite=True)
    np.testing.assert_array_equal(row, first["x"])  # an open model stays what it was
    second = load(saved)
    assert second.id != first.id
    first.save(saved, overwrite=True)
    assert load(saved, verify=True).id == first.id
    assert load(saved).manifest["created"] == first.manifest["created"]
    assert os.listdir(tmp_path) == ["m.jose"]


def test_only_a_model_is_ever_overwritten(tmp_path: Path, model: Embeddings, saved: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    check_model_target(precious, overwrite=True)  # empty: nothing to lose
    (precious / "notes.txt").write_text("x")
    with pytest.raises(ModelError, match="is a directory, but not a model; only a model is ever overwritten"):
        model.save(precious, overwrite=True)
    for text in ('{"format": "other", "files": {}}', "[]", "nonsense", '{"format": "jose-embed", "files": 3}'):
        (precious / "manifest.json").write_text(text)
        with pytest.raises(ModelError, match="is a directory, but not a model"):
            check_model_target(precious, overwrite=True)
    with open(saved / "manifest.json") as file:
        manifest = json.load(file)
    manifest["files"]["notes.txt"] = {"bytes": 1, "sha256": ""}  # a manifest may claim anything
    (saved / "manifest.json").write_text(json.dumps(manifest))
    (saved / "notes.txt").write_text("x")
    with pytest.raises(ModelError, match=r"holds 'notes\.txt', which is not part of the model"):
        model.save(saved, overwrite=True)
    assert (precious / "notes.txt").read_text() == (saved / "notes.txt").read_text() == "x"
    (saved / "notes.txt").unlink()
    (saved / "idf.npy").rename(precious / "idf.npy")
    for replace in (lambda: (saved / "idf.npy").symlink_to(precious / "idf.npy"), (saved / "idf.npy").mkdir):
        replace()
        with pytest.raises(ModelError, match=r"holds 'idf\.npy', which is not part of the model"):
            model.save(saved, overwrite=True)
        (saved / "idf.npy").unlink() if (saved / "idf.npy").is_symlink() else (saved / "idf.npy").rmdir()
    (precious / "idf.npy").rename(saved / "idf.npy")
    model.save(saved, overwrite=True)


class Recorder:
    """A reporter that notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.amount = 0

    def start(self, phase: str, total: int | None, unit: str, done: int = 0) -> None:
        self.calls.append((phase, unit))
        self.total = total

    def advance(self, amount: int, **figures: float) -> None:
        self.amount += amount

    def finish(self, **figures: float) -> None:
        self.calls.append("finish")

    def note(self, message: str) -> None:
        self.calls.append(message)


def test_progress_is_reported(tmp_path: Path, model: Embeddings) -> None:
    saving, verifying = Recorder(), Recorder()
    model.save(tmp_path / "m", reporter=saving)
    Embeddings.load(tmp_path / "m", verify=True, reporter=verifying)
    assert saving.calls == [("saving", "bytes"), "finish"]
    assert verifying.calls == [("verifying", "bytes"), "finish"]
    assert saving.amount == verifying.amount == verifying.total


# ---- refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"center_vectors": units(14).astype(np.float64)},
            r"center_vectors is float64 of shape \(14, 8\); it must be a",
        ),
        ({"center_vectors": units(14)[0]}, r"must be a float32 array of shape \(rows, dim\)"),
        ({"center_vectors": [[1.0]]}, "center_vectors is list"),
        ({"center_vectors": units(0)}, "needs at least one word and axis"),
        ({"context_vectors": units(13)}, r"context_vectors has the shape \(13, 8\); .* must be \(14, 8\)"),
        ({"doc_vectors": units(7, 9)}, r"doc_vectors has the shape \(7, 9\)"),
        ({"words": WORDS[1:]}, r"words has the shape \(13,\)"),
        ({"doc_ids": ["1"]}, r"doc_ids has the shape \(1,\)"),
        ({"counts": [1.5] * 14}, "counts holds float64 values"),
        ({"counts": list(range(1, 15))}, "must be at least 1 and descending"),
        ({"counts": [0] * 14}, "must be at least 1 and descending"),
        ({"counts": [1] * 13}, "counts has the shape"),
        ({"doc_token_counts": [-1] * 7}, "must not be negative"),
        ({"extra_arrays": {"doc_vectors": np.zeros(1)}}, "cannot name an extra file"),
        ({"extra_arrays": {"../a": np.zeros(1)}}, "cannot name an extra file"),
        ({"extra_json": {"manifest": 1}}, "cannot name an extra file"),
        ({"extra_arrays": {"a": np.array(["x"])}}, "only numbers and booleans"),
        ({"extra_arrays": {"a": np.array([object()])}}, "only numbers and booleans"),
        ({"training": {"loss": float("nan")}}, "'training' of the manifest cannot be written as JSON"),
        ({"corpus": {"x": object()}}, "a object is not a JSON value"),
        ({"extra_json": {"x": {1, 2}}}, r"x\.json cannot be written as JSON"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        model_of(**changes)


def spoilt(row: int, value: float) -> np.ndarray:
    rows = units(14).copy()
    rows[row] *= np.float32(value)
    return rows


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"center_vectors": spoilt(3, np.nan)},
            TrainingError,
            r"center_vectors\.npy: row 3 holds a NaN or an infinity",
        ),
        ({"context_vectors": spoilt(0, np.inf)}, TrainingError, r"context_vectors\.npy: row 0 holds"),
        (
            {"center_vectors": spoilt(13, 1.00001)},
            TrainingError,
            r"row 13 has norm 1\.0000.*; every row must have norm 1",
        ),
        ({"doc_vectors": np.zeros((7, 8), np.float32)}, TrainingError, r"doc_vectors\.npy: row 0 has norm 0"),
        ({"words": ["", *WORDS[1:]]}, ModelError, "word 0 is ''"),
        ({"words": [*WORDS[:-1], "a\tb"]}, ModelError, r"word 13 is 'a\\tb'"),
        ({"words": [*WORDS[:-1], "a\nb"]}, ModelError, "no tab or line end"),
        ({"words": [*WORDS[:-1], "\ud800"]}, ModelError, "lone surrogate"),
        ({"words": [*WORDS[:-1], "the"]}, ModelError, "the word 'the' is in the vocabulary more than once"),
        ({"doc_ids": [*DOC_IDS[:-1], DOC_IDS[0]]}, ModelError, r"document id '.*' is there more than once"),
        ({"doc_ids": ["a\nb", *DOC_IDS[1:]]}, ModelError, r"document id 'a\\nb' holds a line end"),
        ({"doc_ids": ["\udfff", *DOC_IDS[1:]]}, ModelError, "a document id holds a lone surrogate"),
    ],
)
def test_what_cannot_be_kept_is_not_saved(
    tmp_path: Path, changes: dict[str, Any], error: type[JoseError], message: str
) -> None:
    model = model_of(**changes)
    with pytest.raises(error, match=message) as caught:
        model.save(tmp_path / "m")
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_embeddings_are_not_made_by_hand() -> None:
    with pytest.raises(TypeError, match="from_arrays"):
        Embeddings()


# ---- damaged ------------------------------------------------------------------------------------------------------


def loaded_or_refusal(path: Path, verify: bool) -> Embeddings | str:
    """The model, or the one line that refuses it."""
    try:
        return Embeddings.load(path, verify=verify)
    except ModelError as error:
        message = str(error)
    assert "\n" not in message
    assert "; " in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("verify", [False, True])
def test_each_missing_cut_or_longer_file_is_named(saved: Path, verify: bool) -> None:
    for file in sorted(saved.iterdir()):
        data = file.read_bytes()
        file.unlink()
        missing = f"{file.name}: is missing; take the model from a good copy"
        if file.name == "manifest.json":
            missing = r"m\.jose: is a directory, but not a model .it has no manifest.json.; check the path, or train"
        with pytest.raises(ModelError, match=missing):
            Embeddings.load(saved, verify=verify)
        for damaged in (b"", data[: len(data) // 2], data[:-1], data + b"\0"):
            file.write_bytes(damaged)
            refusal = loaded_or_refusal(saved, verify)
            assert isinstance(refusal, str) == (file.name != "manifest.json" or damaged != data[:-1])
            assert not isinstance(refusal, str) or file.name in refusal
        file.write_bytes(data)
    Embeddings.load(saved, verify=verify)


def test_each_flipped_byte_is_found(saved: Path, model: Embeddings) -> None:
    choose = np.random.default_rng(0)
    good = load(saved).manifest
    for file in sorted(saved.iterdir()):
        data = file.read_bytes()
        for position in sorted({0, 6, len(data) - 1, *choose.integers(0, len(data), 40).tolist()}):
            flipped = bytearray(data)
            flipped[position] ^= 1 << int(choose.integers(8))
            file.write_bytes(flipped)
            loaded_or_refusal(saved, verify=False)
            found = loaded_or_refusal(saved, verify=True)
            if isinstance(found, str):
                assert file.name in found
            else:  # white space between the manifest's values
                assert file.name == "manifest.json"
                assert found.manifest == good
        file.write_bytes(data)


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the manifest as a hostile hand would: so that its sums agree."""
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    change(manifest)
    if manifest["id"] is not None and isinstance(manifest["files"].get("idf.npy"), dict):
        manifest["id"] = model_id(manifest["files"], manifest)
    manifest["checksum"] = manifest_checksum(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def setting(*keys: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            setting("format", to="other"),
            'not a model .its manifest.json lacks "format": "jose-embed", but has \'other\'',
        ),
        (setting("format_version", to=3), "has the format version 3, newer than 2, .*; update jose-embed"),
        (setting("format_version", to=0), "format version 0; it must be a whole number from 1"),
        (setting("format_version", to="1"), "format version '1'"),
        (setting("format_version", to=True), "format version True"),
        (setting("counts", to=[]), r"has \[\] as counts; it must be a mapping"),
        (setting("counts", "n_words", to=-1), r"-1 as counts\.n_words"),
        (setting("counts", "n_words", to=0), r"0 as counts\.n_words; it must be a whole number from 1"),
        (setting("counts", "dim", to=1.0), r"1\.0 as counts\.dim"),
        (setting("counts", "n_docs", to=10**18 * 9), r"as counts\.n_docs"),
        (
            setting("counts", "n_docs", to=8),
            r"doc_ids\.txt: has 7 lines, but the manifest says 8 documents",
        ),
        (setting("counts", "dim", to=9), r"center_vectors\.npy: has the shape"),
        (setting("counts", "n_words", to=15), r"vocabulary\.tsv: has 14 whole lines, but the manifest says 15 words"),
        (setting("counts", "n_tokens", to=1), r"vocabulary\.tsv: counts 1050 tokens, but the manifest says 1"),
        (setting("tokenizer", to={"name": 3}), r"has 3 as tokenizer\.name; it must be text"),
        (setting("id", to=None), "has None as id; it must be text"),
        (
            setting("files", "../../etc/passwd", to={"bytes": 1, "sha256": ""}),
            "lists the file '../../etc/passwd', which",
        ),
        (setting("files", "/etc/passwd", to={"bytes": 1, "sha256": ""}), "not a plain file name"),
        (setting("files", "manifest.json", to={"bytes": 1, "sha256": ""}), "not a plain file name"),
        (setting("files", "more.npy", to={"bytes": 1, "sha256": ""}), r"more\.npy: is missing"),
        (setting("files", "idf.npy", to=[]), r"has \[\] for the file idf\.npy"),
        (setting("files", "idf.npy", to={"bytes": "1", "sha256": ""}), r"for the file idf\.npy"),
        (setting("files", "idf.npy", "bytes", to=1), r"idf\.npy: is 240 bytes long, but the manifest says 1"),
        (setting("created", to="2026-02-30T10:00:00Z"), "as created; it must be a time such as"),
        (setting("created", to="yesterday"), "as created; it must be a time such as"),
        (setting("training", to={"seconds": 10**40}), r"is not JSON \(the number 10000000000000000000\.\.\. is out of"),
        (setting("training", to={"seconds": 2**64}), "is out of range"),
        (setting("corpus", to={"sources": ["a\ud800"]}), "holds a lone surrogate, which is not a character"),
        (setting("text", to={"normalisation": 5}), r"has 5 as text\.normalisation; it must be text"),
        (setting("text", to={"segmenter": []}), r"as text\.segmenter; it must be a mapping"),
        (setting("text", to={"rare_counts": 1}), r"as text\.rare_counts; it must be true or false"),
        (setting("blocks", to="a"), "has 'a' as blocks; it must be a list of names"),
        (lambda manifest: manifest["files"].pop("doc_ids.txt"), r"does not list doc_ids\.txt"),
        (lambda manifest: manifest.pop("training"), "has None as training; it must be a mapping"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(saved: Path, change: Any, message: str) -> None:
    rewrite(saved, change)
    for verify in (False, True):
        with pytest.raises(ModelError, match=message) as caught:
            Embeddings.load(saved, verify=verify)
        assert "\n" not in str(caught.value)


def test_a_changed_manifest_is_refused_by_its_checksum(saved: Path) -> None:
    path = saved / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"workers": 2', b'"workers": 3'))
    with pytest.raises(ModelError, match=r"manifest\.json: is damaged: its checksum does not match its contents"):
        load(saved)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("word_weights", np.full((14, 2), np.nan), "holds a NaN or an infinity"),
        ("document_matrix", np.full((8, 8), np.inf), "holds a NaN or an infinity"),
        ("document_matrix", np.eye(7), r"has the shape \(7, 7\)"),
        ("context_share", np.array(-np.inf), "holds a NaN or an infinity"),
        ("document_matrix", np.zeros((8, 8)), "holds numbers up to 0, so every document would be zero; the largest"),
        ("document_matrix", np.eye(8) * 1e200, "holds numbers up to 1e.200, so sums would overflow; the largest"),
        ("word_weights", np.zeros((14, 2)), "holds numbers up to 0, so every document would be zero"),
    ],
)
def test_learned_arrays_that_cannot_be_used_are_refused_at_load(
    tmp_path: Path, name: str, array: np.ndarray, message: str
) -> None:
    good = {"word_weights": np.ones((14, 2)), "document_matrix": np.eye(8), "context_share": np.array(0.5)}
    path = model_of(extra_arrays=good).save(tmp_path / "m.jose")
    assert load(path).encoder.context_share == 0.5
    reseal(path, f"{name}.npy", npy(array))
    with pytest.raises(ModelError, match=f"{name}.npy: {message}") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_saved_model_is_pickled_as_its_path(
    model: Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model.save("m.jose")
    loaded = load("m.jose")
    monkeypatch.chdir("/")
    for one in (model, loaded):
        pickled = pickle.dumps(one)
        assert len(pickled) < 1000
        for again in (pickle.loads(pickled), copy.deepcopy(one), copy.copy(one)):
            assert again.id == model.id
            assert again.most_similar("the") == model.most_similar("the")
    joblib.dump({"model": loaded}, tmp_path / "kept")
    assert joblib.load(tmp_path / "kept")["model"].id == model.id
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).similar_documents('1')[0].doc_id)"
    other = subprocess.run([sys.executable, "-c", code], input=pickled, capture_output=True, check=True, cwd=ROOT)
    assert other.stdout.decode().split("\n")[0] == model.similar_documents("1")[0].doc_id


def test_a_pickled_model_whose_files_are_gone_or_changed_says_so(model: Embeddings, tmp_path: Path) -> None:
    path = model.save(tmp_path / "m.jose")
    pickled = pickle.dumps(model)
    model_of(center_vectors=units(14, seed=50)).save(path, overwrite=True)
    with pytest.raises(
        ModelError, match=r"m\.jose: holds another model than when it was pickled \(id .*; load it inst"
    ):
        pickle.loads(pickled)
    shutil.rmtree(path)
    with pytest.raises(
        ModelError, match=r"pickled model is read from its directory again, and that failed: .*no model"
    ):
        pickle.loads(pickled)


@pytest.mark.parametrize("made", ["saved", "loaded"])
def test_a_pickled_model_notices_bytes_that_changed_in_place(model: Embeddings, tmp_path: Path, made: str) -> None:
    path = model.save(tmp_path / "m.jose")
    pickled = pickle.dumps(model if made == "saved" else load(path))
    other = model_of(center_vectors=units(14, seed=50)).save(tmp_path / "other.jose") / "center_vectors.npy"
    good = (path / "center_vectors.npy").read_bytes()
    (path / "center_vectors.npy").write_bytes(other.read_bytes())
    with pytest.raises(ModelError, match=r"and that failed: .*center_vectors.npy: .*SHA-256"):
        pickle.loads(pickled)
    (path / "center_vectors.npy").write_bytes(good)
    assert pickle.loads(pickled).id == model.id, "the same bytes, written again"
    shutil.move(path, tmp_path / "aside")
    shutil.copytree(tmp_path / "aside", path)
    assert pickle.loads(pickled).id == model.id, "a copy"
    (path / "quality.json").write_text("{}")  # not a part of the model
    assert pickle.loads(pickled).id == model.id


def test_a_model_in_memory_is_pickled_with_its_arrays(saved: Path) -> None:
    parts = load(saved)
    mapped = {"doc_ids": parts.doc_ids, "doc_vectors": parts.doc_vectors}
    model = model_of(**mapped, tokenizer_settings={})
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert (again.id, again.path, list(again.doc_ids)) == (model.id, None, DOC_IDS)
        assert again.infer(["the x"]).tobytes() == model.infer(["the x"]).tobytes()
        assert not again.center_vectors.flags.writeable


def test_documents_without_a_known_word_are_masked(saved: Path, model: Embeddings) -> None:
    for one in (model, load(saved)):
        assert one.known_documents.tolist() == [True, False, True, True, True, False, True]
        assert {found.index for found in one.similar_documents(word="the", k=9)} == {0, 2, 3, 4, 6}


def test_format_1_is_read(tmp_path: Path) -> None:
    """A directory of format version 1, made by hand."""
    vectors, path = np.eye(3, dtype=np.float32), tmp_path / "old.jose"
    files = {
        "center_vectors.npy": npy(vectors),
        "context_vectors.npy": npy(vectors[::-1].copy()),
        "doc_vectors.npy": npy(vectors[:2]),
        "doc_token_counts.npy": npy(np.array([2, 1])),
        "vocabulary.tsv": b"a\t2\nb\t1\nc\t1\n",
        "doc_ids.txt": b"first\nsecond\n",
        "word_weights.npy": npy(np.ones((3, 2))),
    }
    path.mkdir()
    for name, data in files.items():
        (path / name).write_bytes(data)
    listed = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()}
    tokenizer = {"name": "whitespace", "settings": {}}
    identity = {"files": {name: facts["sha256"] for name, facts in listed.items()}, "tokenizer": tokenizer}
    manifest = {
        "format": "jose-embed",
        "format_version": 1,
        "package_version": "0.1.0",
        "created": "2026-01-31T23:59:00Z",
        "id": canonical_sum(identity),
        "config": {},
        "tokenizer": tokenizer,
        "counts": {"n_words": 3, "n_docs": 2, "n_untrained": 0, "n_tokens": 4, "dim": 3},
        "files": listed,
        "training": {},
        "corpus": {},
    }
    (path / "manifest.json").write_text(json.dumps(manifest | {"checksum": canonical_sum(manifest)}, indent=2))
    model = Embeddings.load(path, verify=True)
    assert model.most_similar("a", k=1)[0].word == "b"
    assert model.infer(["b b"]).tolist() == [[0, 1, 0]]
    assert [found.doc_id for found in model.similar_documents(word="b")] == ["second", "first"]
    again = load(model.save(tmp_path / "new.jose"), verify=True)
    assert (again.id, again.manifest["format_version"]) == (manifest["id"], 2)
    assert model.save(path, overwrite=True) == path


def canonical_sum(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def test_the_manifest_has_a_place_for_facts_about_the_text(tmp_path: Path) -> None:
    text = {
        "normalisation": "NFC",
        "segmenter": {"name": "x", "settings": {"a": 1}, "library_version": "1.0", "dictionary_version": "2"},
        "phrases": {"n": 3},
        "rare_counts": True,
        "texts": "texts.sqlite3",
        "fields": ["title"],
        "of a later version": 5,
    }
    loaded = load(model_of(text=text).save(tmp_path / "m.jose"), verify=True)
    assert loaded.manifest["text"] == text
    again = load(loaded.save(tmp_path / "again.jose"), verify=True)
    assert again.id == loaded.id != model_of().id


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"format": "jose-embed", "format_version": NaN}',
        b'{"format": "jose-embed", "format_version": ' + b"9" * 5000 + b"}",
        b'{"format": "jose-embed", "format_version": 1}',
        b" " * (17 << 20),
    ],
)
def test_a_manifest_that_is_no_manifest_is_refused(saved: Path, text: bytes) -> None:
    (saved / "manifest.json").write_bytes(text)
    with pytest.raises(ModelError, match=r"manifest\.json.*; "):
        load(saved)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=80)
@given(data=st.data())
def test_any_value_in_the_manifest_loads_or_is_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.jose"
    if not path.exists():
        model_of().save(path)
        shutil.copy(path / "manifest.json", path / "original")
    manifest = json.loads((path / "original").read_text())
    place = manifest
    key = data.draw(st.sampled_from(sorted(manifest)))
    while isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(json_values)
    (path / "manifest.json").write_text(json.dumps(manifest))
    for verify in (False, True):
        loaded_or_refusal(path, verify)


def reseal(path: Path, name: str, data: bytes) -> None:
    """Other contents, and sums that agree with them."""
    (path / name).write_bytes(data)
    facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    rewrite(path, lambda manifest: manifest["files"].update({name: facts}))


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("center_vectors.npy", npy(units(14).astype("<f8")), "holds <f8 numbers, but must hold <f4"),
        ("center_vectors.npy", npy(np.asfortranarray(units(14))), "column by column"),
        ("center_vectors.npy", npy(np.array([{}], object)), "only plain little-endian numbers"),
        ("center_vectors.npy", b"PK\x03\x04", "is not a NumPy array file"),
        ("doc_token_counts.npy", npy(np.ones(7, np.int32)), "holds <i4 numbers, but must hold <i8"),
        ("idf.npy", npy(np.array([{}], object)), "only plain little-endian numbers"),
        ("remarks.json", b"{", "is not JSON"),
        ("vocabulary.tsv", b"the\t1\n", "has 1 whole lines, but the manifest says 14 words"),
        ("vocabulary.tsv", b"\n" * 14, "line 1 is '', but must be a word, a tab and a count"),
        ("vocabulary.tsv", b"w\t-5\n" * 14, "line 1 is"),
        ("vocabulary.tsv", b"w\t5\n" * 13 + b"\t5\n", "line 14 is"),
        ("vocabulary.tsv", "w\t٣\n".encode() * 14, "line 1 is"),
        ("vocabulary.tsv", b"\xff\t5\n" * 14, "is not UTF-8 at byte 0"),
        (
            "vocabulary.tsv",
            b"".join(b"w%d\t%d\n" % (i, i + 1) for i in range(14)),
            "counts of at least 1 in desc",
        ),
        ("vocabulary.tsv", b"w\t999999999999999999\n" * 14, "counts of at least 1 in desc"),
        ("center_vectors.npy", npy(spoilt(3, np.nan)), "has norm nan in row 3; every row must have norm 1"),
        ("center_vectors.npy", npy(np.zeros((14, 8), np.float32)), "has norm 0 in row 0"),
        ("context_vectors.npy", npy(spoilt(2, 1.00001)), "in row 2"),
        ("doc_vectors.npy", npy(spoilt(6, np.inf)[:7]), "has norm inf in row 6"),
        ("doc_token_counts.npy", npy(np.array([-1, 0, 0, 1, 1, 1, 1])), "holds a negative count"),
        ("doc_token_counts.npy", npy(np.ones(7, np.int64)), "has 0 untrained documents"),
        ("doc_ids.txt", b"1\n", "has 1 lines, but the manifest says 7 documents"),
        ("doc_ids.txt", b"1\n2\n3\n4\n5\n6\n7", "its last line is cut off"),
    ],
)
def test_a_resealed_file_that_cannot_be_is_refused(saved: Path, name: str, data: bytes, message: str) -> None:
    reseal(saved, name, data)
    for verify in (False, True):
        with pytest.raises(ModelError, match=f"{name}: .*{message}"):
            Embeddings.load(saved, verify=verify)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("vocabulary.tsv", b"w\t75\n" * 14, "has the word 'w' more than once"),
        ("doc_ids.txt", b"1\n2\n3\n4\n2\n6\n7\n", "has the id '2' more than once"),
        ("doc_ids.txt", b"1\n2\n3\n\xff\n5\n6\n7\n", "is not UTF-8 at byte 6"),
    ],
)
def test_verifying_looks_inside(saved: Path, name: str, data: bytes, message: str) -> None:
    reseal(saved, name, data)
    Embeddings.load(saved)
    with pytest.raises(ModelError, match=f"{name}: .*{message}"):
        Embeddings.load(saved, verify=True)


def test_a_row_that_is_not_finite_is_no_neighbor() -> None:
    spoilt_model = model_of(center_vectors=spoilt(3, np.nan))
    all_of_them = spoilt_model.most_similar("the", k=100)
    assert len(all_of_them) == 12
    assert WORDS[3] not in {neighbor.word for neighbor in all_of_them}
    assert spoilt_model.most_similar("the", k=5) == all_of_them[:5]


def test_of_a_large_table_some_places_are_looked_at(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelfiles, "_CHECKED_BYTES", 0)
    monkeypatch.setattr("jose_embed.storage.columns._PLACES", 2)
    monkeypatch.setattr("jose_embed.storage.columns._PLACE_BYTES", 2 * 8 * 4)
    for row in range(14):
        reseal(saved, "center_vectors.npy", npy(spoilt(row, np.nan)))
        for options in ({"verify": True}, {"mapped": False}, *([{}] if row in (0, 1, 12, 13) else [])):
            with pytest.raises(ModelError, match=f"center_vectors.npy: has norm nan in row {row};"):
                Embeddings.load(saved, **options)
        if row not in (0, 1, 12, 13):
            load(saved)


def test_a_model_replaced_in_the_middle_of_loading_is_loaded_anew(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = model_of(center_vectors=units(14, seed=50))
    read_manifest = modelfiles.read_manifest
    replacements = [other]

    def read_and_replace(*args: Any, **options: Any) -> dict[str, Any]:
        manifest = read_manifest(*args, **options)
        if replacements:
            replacements.pop().save(saved, overwrite=True)
        return manifest

    monkeypatch.setattr(modelfiles, "read_manifest", read_and_replace)
    assert Embeddings.load(saved, verify=True).id == other.id
    replacements.extend([other] * 9)
    with pytest.raises(ModelError, match="is missing"):  # replaced again and again: not for ever
        Embeddings.load(saved)
    assert len(replacements) == 6


def test_loading_while_the_model_is_replaced_gives_one_or_the_other(tmp_path: Path) -> None:
    models = [model_of(center_vectors=units(14, seed=seed)) for seed in (10, 11)]
    models[0].save(tmp_path / "m")
    wanted, stop = threading.Event(), threading.Event()

    def replace() -> None:
        for number in itertools.count(1):
            wanted.wait()
            wanted.clear()
            if stop.is_set():
                return
            models[number % 2].save(tmp_path / "m", overwrite=True)

    writer = threading.Thread(target=replace)
    writer.start()
    ids = set()
    try:
        for _ in range(60):
            wanted.set()  # two at most while one is loaded: more than five are an error, see above
            ids.add(Embeddings.load(tmp_path / "m", verify=True).id)
    finally:
        stop.set()
        wanted.set()
        writer.join()
    assert ids <= {model.id for model in models}


# ---- asked --------------------------------------------------------------------------------------------------------


def brute_force(
    matrix: np.ndarray, query: np.ndarray, k: int, allowed: Callable[[int], bool]
) -> list[tuple[int, float]]:
    """The formula: every cosine in float64, sorted by it and then by index."""
    scores = (matrix.astype(np.float64) * np.asarray(query, np.float64)).sum(axis=1)
    rows = sorted((row for row in range(len(matrix)) if allowed(row)), key=lambda row: (-scores[row], row))
    return [(row, float(scores[row])) for row in rows[:k]]


def answers(neighbors: Sequence[Neighbor | DocumentNeighbor]) -> tuple[list[int], list[float]]:
    return [neighbor.index for neighbor in neighbors], [neighbor.score for neighbor in neighbors]


def assert_brute_force(
    neighbors: Sequence[Neighbor | DocumentNeighbor],
    matrix: np.ndarray,
    query: np.ndarray,
    k: int,
    allowed: Callable[[int], bool],
) -> None:
    expected = brute_force(matrix, query, k, allowed)
    rows, scores = answers(neighbors)
    assert rows == [row for row, _ in expected]
    np.testing.assert_allclose(scores, [score for _, score in expected], atol=1e-12)


@given(
    n=st.integers(1, 200),
    distinct=st.integers(1, 200),
    k=st.integers(1, 210),
    block=st.integers(1, 210),
    excluded=st.sets(st.integers(0, 199), max_size=5),
    made_of_nothing=st.sets(st.integers(0, 199)),
    seed=st.integers(0, 2**32),
)
def test_nearest_rows_are_those_of_brute_force(
    n: int, distinct: int, k: int, block: int, excluded: set[int], made_of_nothing: set[int], seed: int
) -> None:
    """Whatever the blocks; rows that are equal (many of them, here) come by index."""
    random = np.random.default_rng(seed)
    matrix = units(distinct, 5, seed)[random.integers(0, distinct, n)]
    query = units(1, 5, seed + 1)[0]
    may = np.array([row not in made_of_nothing for row in range(n)])
    rows, scores = nearest.nearest_rows(
        matrix, query, k, excluded=np.array(sorted(excluded), np.int64), may=may, block_rows=block
    )
    expected = brute_force(matrix, query, k, lambda row: row not in excluded | made_of_nothing)
    assert list(zip(rows.tolist(), scores.tolist(), strict=True)) == expected


@given(
    n=st.integers(1, 200),
    distinct=st.integers(1, 200),
    k=st.integers(1, 210),
    allowed=st.none() | st.sets(st.integers(0, 199)),
    weighted=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_nearest_among_some_rows_are_those_of_brute_force(
    n: int, distinct: int, k: int, allowed: set[int] | None, weighted: bool, seed: int
) -> None:
    """Few rows, which are read one by one, and many, for which all between them are read."""
    random = np.random.default_rng(seed)
    matrix = units(distinct, 5, seed)[random.integers(0, distinct, n)]
    factors = random.choice(np.array([0.25, 0.5, 1], np.float32), n) if weighted else np.ones(n, np.float32)
    query = units(1, 5, seed + 1)[0]
    rows = None if allowed is None else np.array(sorted(row for row in allowed if row < n), np.int64)
    found, scores = nearest.nearest_among(matrix, query, k, rows, factors=factors if weighted else None)
    expected = brute_force(
        matrix * factors[:, None].astype(np.float64), query, k, lambda row: allowed is None or row in allowed
    )
    assert list(zip(found.tolist(), scores.tolist(), strict=True)) == expected


@given(
    numbers=st.lists(st.sampled_from([-np.inf, 0.0, 0.25, 0.5, 1.0, 2.0]), max_size=30),
    k=st.integers(1, 40),
    slack=st.sampled_from([0.0, 0.25]),
    above=st.sampled_from([-np.inf, 0.0, 0.5]),
)
def test_numbers_that_are_among_the_largest(numbers: list[float], k: int, slack: float, above: float) -> None:
    found = nearest.at_least_best(np.array(numbers, np.float32), k, slack, above)
    some = sorted((number for number in numbers if number > above), reverse=True)
    least = some[k - 1] - slack if k <= len(some) else -np.inf
    assert found.tolist() == [at for at, number in enumerate(numbers) if number > above and number >= least]


@given(n=st.integers(2, 300), k=st.integers(1, 20), block=st.integers(1, 310), seed=st.integers(0, 2**32))
def test_rows_closer_than_float32_can_tell_are_told_apart(n: int, k: int, block: int, seed: int) -> None:
    """Rows around one direction: their order is decided beyond the digits of a product in float32."""
    random = np.random.default_rng(seed)
    center = units(1, 40, seed).astype(np.float64)
    matrix = (center + random.standard_normal((n, 40)) * 1e-7).astype(np.float32)
    query = units(1, 40, seed + 1)[0]
    rows, scores = nearest.nearest_rows(matrix, query, k, block_rows=block)
    expected = brute_force(matrix, query, k, lambda _: True)
    assert list(zip(rows.tolist(), scores.tolist(), strict=True)) == expected


def test_a_large_table_goes_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = units(3000, 50)
    query = units(1, 50, seed=1)[0]
    whole = nearest.nearest_rows(matrix, query, 10)
    for block in (1, 7, 1024, 2999):
        part = nearest.nearest_rows(matrix, query, 10, block_rows=block)
        np.testing.assert_array_equal(whole, part)


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("k", [1, 3, 13, 10**9])
def test_neighbors_of_each_word_are_those_of_brute_force(
    model: Embeddings, tmp_path: Path, loaded: bool, k: int
) -> None:
    if loaded:
        model = load(model.save(tmp_path / "m"))
    for row, word in enumerate(WORDS):
        neighbors = model.most_similar(word, k=k)
        assert_brute_force(neighbors, model.center_vectors, model[word], k, lambda other, row=row: other != row)
        assert [neighbor.word for neighbor in neighbors] == [WORDS[neighbor.index] for neighbor in neighbors]
    assert type(neighbors[0].score) is float
    assert type(neighbors[0].index) is int


def test_analogies_are_brute_force_over_sums(model: Embeddings) -> None:
    a, b, c = (model[word].astype(np.float64) for word in ("x", "y", "the"))
    query = (a + b - c) / np.linalg.norm(a + b - c)
    neighbors = model.most_similar(positive=["x", "y"], negative="the", k=20)
    expected = brute_force(model.center_vectors, query, 20, lambda row: WORDS[row] not in {"x", "y", "the"})
    rows, scores = answers(neighbors)
    assert rows == [row for row, _ in expected]
    np.testing.assert_allclose(scores, [score for _, score in expected], atol=1e-6)
    assert model.most_similar(positive="x") == model.most_similar("x")
    opposite = model.most_similar(negative=["x"], k=20)
    assert [n.index for n in opposite] == [n.index for n in model.most_similar("x", k=20)][::-1]


def test_vectors_of_any_length_are_directions(model: Embeddings) -> None:
    vector = units(1, seed=8)[0]
    expected = model.most_similar(vector=vector)
    assert len(expected) == 10
    for other in (vector * np.float32(7), vector.astype(np.float64) * 1e300, vector.astype(np.float64) * 1e-300):
        rows, scores = answers(model.most_similar(vector=other))
        assert rows == [neighbor.index for neighbor in expected]
        np.testing.assert_allclose(scores, [neighbor.score for neighbor in expected], atol=1e-6)
    assert model.most_similar(vector.tolist()) == expected
    assert model.most_similar(vector=model["x"], k=1)[0].word == "x"  # a vector is no word: nothing is left out


def test_answers_can_be_restricted(model: Embeddings) -> None:
    for max_rank in (1, 5, 14, 99):
        neighbors = model.most_similar("zebra", k=99, max_rank=max_rank)
        assert {n.index for n in neighbors} == set(range(min(max_rank, 13)))
    words = {n.word for n in model.most_similar("zebra", k=99, exclude=["x", "y", "unknown"])}
    assert words == set(WORDS) - {"zebra", "x", "y"}


@given(rows=st.lists(st.integers(0, 13), min_size=1, max_size=7), word=st.integers(0, 13))
def test_what_remains_without_words_is_orthogonal_to_them(rows: list[int], word: int) -> None:
    model = model_of()
    without = [WORDS[row] for row in rows]
    if word in rows:
        with pytest.raises(ConfigError, match="nothing is left of the query without"):
            model.query(WORDS[word], without=without)
        return
    query = model.query(WORDS[word], without=without)
    assert np.abs(model.center_vectors[rows] @ query.vector).max() < 1e-5
    assert abs(np.linalg.norm(query.vector.astype(np.float64)) - 1) < 1e-6
    assert set(query.words) == {word, *rows}
    assert not {n.index for n in model.most_similar(WORDS[word], without=without, k=20)} & {word, *rows}
    # The same by least squares: the residual of the best approximation by those words.
    basis = model.center_vectors[sorted(set(rows))].astype(np.float64).T
    target = model.center_vectors[word].astype(np.float64)
    residual = target - basis @ np.linalg.lstsq(basis, target, rcond=None)[0]
    np.testing.assert_allclose(query.vector, residual / np.linalg.norm(residual), atol=1e-5)


def test_without_takes_each_kind_of_query(model: Embeddings) -> None:
    for query in ({"positive": ["x", "y"]}, {"vector": np.ones(8)}, {"word": "x"}):
        rest = model.query(**query, without="the").vector
        assert abs(rest @ model["the"]) < 1e-6
    with pytest.raises(ConfigError, match="nothing is left"):
        model.query("x", without=WORDS[:9])  # eight directions fill the space


def test_the_query_of_a_word_is_its_row(model: Embeddings) -> None:
    query = model.query("x")
    np.testing.assert_array_equal(query.vector, model["x"])
    assert query.words == (10,)
    assert not query.vector.flags.writeable
    assert not model.query(vector=np.ones(8)).vector.flags.writeable


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give exactly one"),
        ({"word": "x", "positive": "y"}, "give exactly one"),
        ({"word": "x", "vector": np.ones(8)}, "give exactly one"),
        ({"word": np.ones(8), "vector": np.ones(8)}, "vector is given twice"),
        ({"vector": np.ones(8), "negative": ["x"]}, "give exactly one"),
        ({"without": ["x"]}, "give exactly one"),
        ({"positive": ["x"], "negative": ["x"]}, "cancel each other"),
        ({"vector": np.zeros(8)}, "vector is zero"),
        ({"vector": np.ones(7)}, r"shape \(7,\); it must be \(8,\)"),
        ({"vector": [[1.0] * 8]}, r"shape \(1, 8\)"),
        ({"vector": [np.nan] * 8}, "NaN or an infinity"),
        ({"vector": [1.0] * 7 + [np.inf]}, "NaN or an infinity"),
        ({"vector": ["1"] * 8}, "not an array of numbers"),
        ({"vector": [1j] * 8}, "not an array of numbers"),
        ({"vector": [[1], [1, 2]]}, "not an array of numbers"),
        ({"vector": [10**400] * 8}, "not an array of numbers"),
        ({"positive": [3]}, "positive holds 3; it must be a word or a list of words"),
        ({"word": "x", "k": 0}, "k is 0; it must be a whole number from 1 up"),
        ({"word": "x", "k": -1}, "k is -1"),
        ({"word": "x", "k": 1.5}, "k is 1.5"),
        ({"word": "x", "k": True}, "k is True"),
        ({"word": "x", "k": "3"}, "k is '3'"),
        ({"word": "x", "max_rank": 0}, "max_rank is 0"),
    ],
)
def test_questions_without_an_answer_are_refused(model: Embeddings, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model.most_similar(**arguments)


def test_words_look_themselves_up(model: Embeddings) -> None:
    for row, word in enumerate(WORDS):
        assert word in model
        assert model.index_of(word) == row
        np.testing.assert_array_equal(model[word], model.center_vectors[row])
    assert not model["x"].flags.writeable
    assert "nothing" not in model
    assert 3 not in model
    assert model.index_of("nothing") is None
    assert model.similarity("x", "x") == pytest.approx(1, abs=1e-6)
    assert model.similarity("x", "y") == pytest.approx(float(model["x"] @ model["y"]), abs=1e-6)
    with pytest.raises(TypeError, match="a word is a str, not int"):
        _ = model[3]  # type: ignore[index]


def test_an_unknown_word_is_named_with_its_like(model: Embeddings) -> None:
    for ask in (model.__getitem__, model.most_similar, model.vector_of, lambda word: model.query("x", without=word)):
        with pytest.raises(
            UnknownWordError, match=r"^'zebar' is not in the vocabulary; similar spellings: zebra$"
        ) as caught:
            ask("zebar")
        assert caught.value.suggestions == ("zebra",)
    with pytest.raises(UnknownWordError, match=r"^'qqqqqq' is not in the vocabulary$"):
        model.vector_of("qqqqqq")
    for odd in ("", "\ud800", "x" * 10**6):
        with pytest.raises(UnknownWordError):
            model.vector_of(odd)


def trained(row: int) -> bool:
    return row not in (1, 5)


def test_documents_are_those_of_brute_force_and_never_untrained(model: Embeddings, tmp_path: Path) -> None:
    for asked in (model, load(model.save(tmp_path / "m"))):
        for row in range(7):
            if not trained(row):
                continue
            for neighbors in (asked.similar_documents(DOC_IDS[row], k=9), asked.similar_documents(index=row, k=9)):
                allowed = lambda other, row=row: trained(other) and other != row  # noqa: E731
                assert_brute_force(neighbors, model.doc_vectors, model.doc_vectors[row], 9, allowed)
                assert [n.doc_id for n in neighbors] == [DOC_IDS[n.index] for n in neighbors]
        assert_brute_force(asked.similar_documents(word="x", k=9), model.doc_vectors, model["x"], 9, trained)
        direction = units(1, seed=20)[0]
        rows, _ = answers(asked.similar_documents(vector=direction * np.float32(3), k=9))
        assert rows == [row for row, _ in brute_force(model.doc_vectors, direction, 9, trained)]
        assert len(asked.similar_documents(word="x", k=2)) == 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ConfigError, "give exactly one"),
        ({"doc_id": "1", "word": "x"}, ConfigError, "give exactly one"),
        ({"doc_id": "none"}, ConfigError, "no document 'none'; ids are such as '1'"),
        ({"doc_id": 1}, ConfigError, r"document id 1 is not text; ids are text such as '1' \(use index= for a row"),
        ({"index": 7}, ConfigError, "row 7 does not exist; there are 7, counted from 0"),
        ({"index": -1}, ConfigError, "row -1 does not exist"),
        ({"index": "0"}, ConfigError, "row '0' does not exist"),
        ({"doc_id": "2"}, NoKnownWordsError, "document '2' has no known word"),
        ({"index": 5}, NoKnownWordsError, "document 'ü' has no known word"),
        ({"word": "none"}, UnknownWordError, "'none' is not in the vocabulary"),
        ({"vector": np.zeros(8)}, ConfigError, "vector is zero"),
        ({"word": "x", "k": 0}, ConfigError, "k is 0"),
    ],
)
def test_document_questions_without_an_answer_are_refused(
    model: Embeddings, arguments: dict[str, Any], error: type[JoseError], message: str
) -> None:
    with pytest.raises(error, match=message):
        model.similar_documents(**arguments)


def test_a_text_asks_as_its_vector_does() -> None:
    model = model_of(tokenizer_settings={})
    vectors = model.infer(["x y", "y"])
    assert [n.doc_id for n in model.similar_documents(text="x y")] == [
        n.doc_id for n in model.similar_documents(vector=vectors[0])
    ]


def test_the_tokenizer_is_made_once() -> None:
    model = model_of(tokenizer_settings={})
    assert model.tokenizer is model.tokenizer
    assert model.tokenizer.name == "whitespace"


def test_threads_may_ask_together(saved: Path) -> None:
    model = load(saved)
    answers_of = [None] * 8

    def ask(i: int) -> None:
        answers_of[i] = [model.most_similar("x"), model.document_index("7"), model.suggestions("zebar")]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(answer == answers_of[0] != None for answer in answers_of)  # noqa: E711


# ---- the package --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import jose_embed; jose_embed.__version__; dir(jose_embed)", "numpy numba faiss tqdm cupy"),
        ("import jose_embed; jose_embed.load, jose_embed.Embeddings", "numba faiss tqdm cupy"),
    ],
)
def test_importing_is_light(code: str, absent: str) -> None:
    check = f"{code}\nimport sys\nfound = set({absent.split()!r}) & set(sys.modules)\nassert not found, found"
    subprocess.run([sys.executable, "-W", "error", "-c", check], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"word_weights": np.full((len(WORDS), 2), -1.0)},
            "word_weights holds a negative number; a weight is 0 or more",
        ),
        ({"context_share": np.array(1e30)}, "context_share is 1e\\+30; it must be from 0 to 1"),
    ],
)
def test_learned_arrays_out_of_range_are_refused(arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        model_of(tokenizer_settings={}, extra_arrays=arrays)


def test_errors_survive_a_pool() -> None:
    for error in (UnknownWordError("wrod", ["word"]), MissingExtraError("a map", "map")):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
