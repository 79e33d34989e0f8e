"""Vectors with ids in files: what other programs read is what was written, bit by bit."""

from __future__ import annotations

import csv
import gc
import json
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jose_embed
from jose_embed.cli.program import main
from jose_embed.errors import ModelError
from jose_embed.model.exchange import export
from jose_embed.model.vector_files import vector_file
from jose_embed.storage.atomic import atomic_file

IDS = ["a", 'b "c", d', "\u4e2d x"]
TEXTS = ["red green", "salt pepper", "red pepper"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trained = jose_embed.train(TEXTS, ids=IDS, min_count=1, epochs=2, dim=5, workers=1)
    return trained.save(tmp_path_factory.mktemp("model") / "a.jose")


def read(path: Path) -> tuple[list[str], Any]:
    """Ids and vectors of a file."""
    if path.suffix == ".npy":
        return IDS, np.load(path)
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            names, *rows = csv.reader(file)
        assert names == ["id", "v0", "v1", "v2", "v3", "v4"]
        return [row[0] for row in rows], np.array([row[1:] for row in rows], np.float32)
    if path.suffix == ".jsonl":
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        records = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    return [record["id"] for record in records], np.array([record["vector"] for record in records], np.float32)


@pytest.mark.parametrize("ending", ["npy", "csv", "jsonl", "parquet"])
def test_documents_are_exported(model: Path, tmp_path: Path, ending: str) -> None:
    loaded = jose_embed.load(model)
    path = tmp_path / f"a.{ending}"
    assert main(["export", str(model), "--table", "documents", "-o", str(path), "-q"]) == 0
    ids, vectors = read(path)
    assert ids == IDS
    assert np.array_equal(vectors, loaded.doc_vectors)
    export(loaded, path, format=ending, overwrite=True)
    assert np.array_equal(read(path)[1], loaded.center_vectors)


@pytest.mark.parametrize("ending", ["npy", "csv", "jsonl", "parquet"])
def test_records_are_embedded(model: Path, tmp_path: Path, ending: str) -> None:
    source = tmp_path / "new.csv"
    with source.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "text"), *zip(IDS, TEXTS, strict=True)])
    path, details = tmp_path / f"a.{ending}", tmp_path / "details.tsv"
    arguments = ["embed", str(model), str(source), "--id-field", "id", "-o", str(path), "--details", str(details), "-q"]
    assert main(arguments) == 0
    ids, vectors = read(path)
    assert ids == IDS
    assert np.array_equal(vectors, jose_embed.load(model).infer(TEXTS))
    assert [line.split("\t")[0] for line in details.read_text(encoding="utf-8").splitlines()] == ["id", *IDS]


def test_an_unknown_ending_is_refused(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.txt").write_text("red\n")
    assert main(["embed", str(model), str(tmp_path / "x.txt"), "-o", str(tmp_path / "a.xlsx")]) == 2
    assert "no format has the ending '.xlsx'; use one of .npy, .csv, .jsonl, " in capsys.readouterr().err
    assert not (tmp_path / "a.xlsx").exists()


@pytest.mark.parametrize("ending", ["npy", "csv", "jsonl", "parquet"])
def test_a_writer_that_is_left_writes_nothing_more(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / f"a.{ending}"
    with suppress(KeyboardInterrupt), atomic_file(path) as write:
        file = vector_file(ending, write, 2)
        file.add(["a"], np.zeros((1, 2), np.float32))
        raise KeyboardInterrupt
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of an exception in the finalizer
        del file
        gc.collect()
    assert not list(tmp_path.iterdir())
    with pytest.raises(ModelError, match="cannot be written"):  # and never to another file with the same descriptor
        write(b"late")


def test_numbers_are_ids_of_lines(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("x.txt", "y.txt"):
        (tmp_path / name).write_text("red\nunknown\n")
    files = [str(tmp_path / name) for name in ("x.txt", "y.txt")]
    assert main(["embed", str(model), *files, "-o", str(tmp_path / "a.jsonl")]) == 0
    assert read(tmp_path / "a.jsonl")[0] == [f"{file}:{line}" for file in files for line in (1, 2)]
    assert f"2 lines hold no word that the model knows ({files[0]}:2, {files[1]}:2)" in capsys.readouterr().err


def test_a_dry_run_shows_the_first_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps({"id": id, "text": text}) + "\n" for id, text in zip(IDS, TEXTS, strict=True)))
    assert main(["train", str(source), "--id-field", "id", "--min-count", "1", "--dry-run"]) == 0
    shown = capsys.readouterr().out.splitlines()[-3:]
    assert shown == [
        "document 1  id a: red green", 'document 2  id b "c", d: salt pepper', "document 3  id \u4e2d x: red pepper",
    ]  # fmt: skip
