"""Commands read a table as the training read its own."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import planted
import pytest

from jose_embed.cli.program import main, train_main
from jose_embed.cli.query import print_table
from jose_embed.model.embeddings import Embeddings, load


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that was trained on the columns title and review, and with a table of other texts."""
    place = tmp_path_factory.mktemp("tables")
    texts, topics = planted.corpus(120)
    rows = [(f"H-{number}", text[:20], text[20:], "x" * 40) for number, text in enumerate(texts)]
    write(place / "reviews.csv", ["key", "title", "review", "text"], rows)
    write(place / "new.csv", ["text", "review", "key", "title"], [(f[3], f[2], f[0], f[1]) for f in rows[:20]])
    (place / "labels.txt").write_text("".join(f"{topic}\n" for topic in topics[:20]))
    (place / "all-labels.txt").write_text("".join(f"{topic}\n" for topic in topics))
    named = ["--text-field", "title,review", "--id-field", "key"]
    settings = ["--dim", "16", "--epochs", "5", "--workers", "1", "--quiet"]
    assert train_main([str(place / "reviews.csv"), *named, *settings, "-o", str(place / "m.jose")]) == 0
    return place


def write(path: Path, names: list[str], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Embeddings:
    monkeypatch.chdir(folder)
    return load("m.jose")


def test_embed_reads_the_columns_of_the_training(here: Embeddings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "m.jose", "new.csv", "-o", "v.jsonl"]) == 0
    said = capsys.readouterr().err
    assert "text from 'title' and 'review' as in the training, ids from 'key'" in said
    found = [json.loads(line) for line in Path("v.jsonl").read_text().splitlines()]
    assert [each["id"] for each in found] == [f"H-{number}" for number in range(20)]
    assert np.float32([each["vector"] for each in found]).tobytes() == here.doc_vectors[:20].tobytes()


def test_named_columns_win_and_others_are_found(here: Embeddings, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["embed", "m.jose", "new.csv", "--text-field", "review", "-o", "one.npy"]
    assert main(command) == 0
    assert "text from 'review', ids from 'key'" in capsys.readouterr().err
    assert not np.array_equal(np.load("one.npy"), here.doc_vectors[:20])
    write(Path("other.csv"), ["no", "content"], [("1", "t0w1 t0w2"), ("2", "t1w1")])
    assert main(["embed", "m.jose", "other.csv", "-o", "other.npy"]) == 0
    assert "text from 'content', ids are record numbers (change that with --id-field" in capsys.readouterr().err
    assert main(["embed", "m.jose", "new.csv", "--text-field", "none", "-o", "x.npy"]) == 2
    assert "there is no column 'none'" in capsys.readouterr().err
    assert not Path("x.npy").exists()


def test_topics_classify_and_eval_read_it_so_too(here: Embeddings, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        ["topics", "m.jose", "-k", "3", "--assign", "new.csv", "--csv"],
        ["classify", "m.jose", "--labels", "all-labels.txt", "--apply", "new.csv", "--csv"],
    ):
        assert main(command) == 0
        printed = capsys.readouterr()
        assert "text from 'title' and 'review' as in the training, ids from 'key'" in printed.err
        rows = list(csv.DictReader(io.StringIO(printed.out)))
        assert [row["id"] for row in rows] == [f"H-{number}" for number in range(20)]
    pytest.importorskip("sklearn")
    assert main(["eval", "cluster", "m.jose", "--labels", "labels.txt", "--texts", "new.csv"]) == 0
    printed = capsys.readouterr()
    assert "Clusters of 20 documents" in printed.out
    assert "as in the training" in printed.err
    assert main(["eval", "cluster", "m.jose", "--labels", "labels.txt", "--texts", "new.csv", "--format", "text"]) == 2


def test_a_folder_of_files_as_documents(here: Embeddings) -> None:
    texts = Path("texts/deep")
    texts.mkdir(parents=True)
    (texts / "a.txt").write_text("t0w1 t0w2\nt0w3\n")
    (texts.parent / "b.txt").write_text("t1w1\n")
    assert main(["embed", "m.jose", "texts", "--one-file-per-document", "-o", "files.csv", "--quiet"]) == 0
    with open("files.csv", newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["b.txt", "deep/a.txt"]


@pytest.mark.parametrize("facts", [{}, {"text_field": 7}, {"text_field": ["review"], "id_field": 3}])
def test_a_model_that_does_not_say_how_it_was_trained(
    here: Embeddings, facts: dict[str, object], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    about = Embeddings.from_arrays(
        words=here.words, counts=here.counts, center_vectors=here.center_vectors, context_vectors=here.context_vectors,
        corpus=facts,
    )  # fmt: skip
    about.save(tmp_path / "bare.jose")
    assert main(["embed", str(tmp_path / "bare.jose"), "new.csv", "-o", str(tmp_path / "v.npy")]) == 0
    assert "text from 'text', ids are record numbers" in capsys.readouterr().err


def test_columns_of_wide_letters_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name", "n"], [["\u624b\u673a", "1"], ["cafe\u0301", "2"], ["ab", "3"]])
    assert capsys.readouterr().out.split("\n")[:4] == ["name  n", "\u624b\u673a  1", "cafe\u0301  2", "  ab  3"]
