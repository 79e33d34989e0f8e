"""Kept texts: what results show is what was read; they leave a model without a trace, and damage is named."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
import random
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import jose_embed
from jose_embed.cli.program import main
from jose_embed.errors import ConfigError, ModelError, TrainingError
from jose_embed.model.quality import read_quality, save_quality
from jose_embed.text.texts import TEXTS_NAME, TextStore

ROWS = [("x", 'red "green"\nblue', 5), ("y", "red green", None), ("z", "salt\u2028pepper", 3)] * 1
SETTINGS: dict[str, Any] = {"min_count": 1, "epochs": 3, "dim": 4, "workers": 1}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"id": id, "text": text, "meta": {"stars": stars}}) for id, text, stars in ROWS]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def model(source: Path) -> Path:
    options: dict[str, Any] = {"id_field": "id", "keep_text": True, "keep_fields": ["meta.stars"]}
    trained = jose_embed.train(str(source), **options, **SETTINGS)
    trained.save("a.jose")
    return source.parent / "a.jose"


def test_results_show_texts_and_fields(model: Path) -> None:
    for found in (jose_embed.load(model), jose_embed.load(model, verify=True)):
        assert found.has_texts
        texts = {id: (text, {"meta.stars": stars}) for id, text, stars in ROWS}
        neighbors = found.similar_documents("x", k=2)
        assert {n.doc_id: (n.text, n.fields) for n in neighbors} == {id: texts[id] for id in ("y", "z")}
        assert found.kept_documents([2, 0]) == [texts["z"], texts["x"]]


def test_without_keeping_nothing_is_kept(source: Path) -> None:
    plain = jose_embed.train(str(source), id_field="id", **SETTINGS)
    assert not plain.has_texts
    assert plain.similar_documents("x", k=1)[0][3:] == (None, {})
    plain.save("plain.jose")
    assert not (source.parent / "plain.jose" / TEXTS_NAME).exists()
    with pytest.raises(ConfigError, match="but doc_vectors is none; choose one"):
        jose_embed.train(str(source), keep_text=True, doc_vectors="none", **SETTINGS)


def test_texts_of_documents_from_python(tmp_path: Path) -> None:
    trained = jose_embed.train({"a": "red\ngreen", "b": "red"}, keep_text=True, **SETTINGS)
    assert trained.kept_documents([0, 1]) == [("red\ngreen", {}), ("red", {})]
    trained.save(tmp_path / "b.jose")
    assert jose_embed.load(tmp_path / "b.jose").similar_documents("a", k=1)[0].text == "red"


def test_texts_come_back_with_their_nul_characters(tmp_path: Path) -> None:
    """A NUL is no character of a training text, but SQLite can hold it; half of a surrogate pair it cannot."""
    texts = ["red\0 green", "\0red\0", "half \ud83d red"]
    kept = ["red\0 green", "\0red\0", "half \ufffd red"]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    for trained in (
        jose_embed.train(str(path), keep_text=True, **SETTINGS),
        jose_embed.train(texts, keep_text=True, **SETTINGS),
    ):
        assert [document.text for document in trained.kept_documents([0, 1, 2])] == kept
        trained.save(tmp_path / "a.jose", overwrite=True)
        found = jose_embed.load(tmp_path / "a.jose").search("green", k=1, mode="words", passage_words=9)
        assert [(one.text, one.passage and one.passage.text) for one in found] == [(kept[0], kept[0])]


def test_models_with_texts_are_pickled(model: Path) -> None:
    unsaved = jose_embed.train({"a": "red\ngreen", "b": "red"}, keep_text=True, **SETTINGS)
    for found, text in ((unsaved, "red\ngreen"), (jose_embed.load(model), ROWS[0][1])):
        for again in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
            assert again.kept_documents([0])[0].text == text
            assert again.has_texts


def test_the_command_shows_them(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["documents", str(model), "y", "-k", "1"]) == 0
    titles, row = capsys.readouterr().out.splitlines()
    assert titles.split() == ["score", "document", "meta.stars", "text"]
    assert row.split()[1:] == ["x", "5", "red", '"green"', "blue"]
    assert main(["documents", str(model), "y", "-k", "1", "--json"]) == 0
    [answer] = json.loads(capsys.readouterr().out)
    assert (answer["text"], answer["fields"]) == (ROWS[0][1], {"meta.stars": 5})


def test_strip(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = jose_embed.load(model)
    save_quality(model, before.id, [{"title": "t", "rows": [{"a": 1}]}])
    quality = read_quality(model, before.id)
    assert main(["info", str(model)]) == 0
    assert "contains the texts and fields (meta.stars) of the documents" in capsys.readouterr().out
    assert main(["strip", str(model), "-o", "public.jose"]) == 0
    assert main(["strip", str(model)]) == 0
    assert "the same model without texts and fields" in capsys.readouterr().out
    for path in (model, Path("public.jose")):
        after = jose_embed.load(path, verify=True)
        assert after.id == before.id
        assert list(after.doc_ids) == ["x", "y", "z"]
        assert not after.has_texts
        assert not (path / TEXTS_NAME).exists()
        assert b"pepper" not in b"".join(file.read_bytes() for file in path.iterdir() if file.name != "vocabulary.tsv")
        assert read_quality(path, before.id) == quality
    assert main(["strip", str(model)]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["strip", str(model), "-o", "again.jose"]) == 0  # a script that goes on with it finds it
    assert "again.jose: the same model without texts" in capsys.readouterr().out
    assert jose_embed.load("again.jose", verify=True).id == before.id
    assert before.kept_documents([1])[0].text == "red green"  # the model that is open keeps its file


def test_a_resumed_training_keeps_ids_and_texts(source: Path) -> None:
    options: dict[str, Any] = {"id_field": "id", "keep_text": True, **SETTINGS}

    class Interrupting:
        phase = ""

        def start(self, phase: str, total: int | None, unit: str, done: int = 0) -> None:
            self.phase = phase

        def advance(self, amount: int, **figures: float) -> None:
            if self.phase == "training":
                signal.raise_signal(signal.SIGINT)

        def finish(self, **figures: float) -> None: ...

        def note(self, message: str) -> None: ...

    with pytest.raises(KeyboardInterrupt):
        jose_embed.train(str(source), checkpoint="a.run", reporter=Interrupting(), **options)
    source.unlink()
    resumed = jose_embed.train(str(source), checkpoint="a.run", resume=True, **options)
    assert list(resumed.doc_ids) == ["x", "y", "z"]
    assert [kept.text for kept in resumed.kept_documents(range(3))] == [text for _, text, _ in ROWS]


def test_every_damaged_byte_is_found_or_harmless(model: Path) -> None:
    path = model / TEXTS_NAME
    whole = path.read_bytes()
    rng = random.Random(1)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match=TEXTS_NAME):
            jose_embed.load(model, verify=True)
        with contextlib.suppress(ModelError):
            jose_embed.load(model).kept_documents(range(3))


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE about",
        "UPDATE about SET value = 'x' WHERE name = 'n_documents'",
        "UPDATE about SET value = '{}' WHERE name = 'fields'",
        "DELETE FROM about WHERE name = 'fields'",
        "UPDATE documents SET fields = '['",
        "UPDATE documents SET fields = '[]'",
        "UPDATE documents SET text = x'ff'",
        "UPDATE documents SET text = CAST(x'ff' AS TEXT)",
        "ALTER TABLE documents RENAME TO others",
        "DROP TABLE documents; CREATE VIEW documents AS SELECT 1 AS row, 2 AS text, 3 AS fields",
    ],
)
def test_files_that_are_not_of_texts(model: Path, statement: str) -> None:
    path = model / TEXTS_NAME
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(statement)
    connection.close()
    with pytest.raises(ModelError, match=f"{TEXTS_NAME}: the kept texts are damaged"):
        TextStore.open(path).read([0])


def test_no_directory_and_no_room(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="a temporary file cannot be made"):
        TextStore.create(tmp_path / "none")
    with pytest.raises(ModelError, match="cannot be opened"):
        TextStore.open(tmp_path / "none")
    store = TextStore.create(tmp_path)
    assert list(tmp_path.iterdir()) == []
    store._connection.execute("PRAGMA max_page_count = 8")
    with pytest.raises(TrainingError, match=r"the texts to keep cannot be written \(database or disk is full\)"):
        store.append(["a" * 100_000], None, 1)
