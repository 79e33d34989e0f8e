"""A model's figures as tables, and the command that prints them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jose_embed.analysis import tables as reports
from jose_embed.analysis.measures import ClassificationScore, Spread, unit_rows
from jose_embed.analysis.tables import Table
from jose_embed.cli.program import main
from jose_embed.errors import ConfigError
from jose_embed.model.embeddings import Embeddings
from jose_embed.model.inference import Flagged

pytest.importorskip("sklearn")

WORDS = ["north", "south", "east", "west"]
N_DOCUMENTS = 48


def mean_directions(model: Embeddings, texts: list[str]) -> Flagged:
    """An inference with a known answer; that of the package has its own tests."""
    sums = [np.sum([model[word] for word in text.split() if word in model], axis=0) for text in texts]
    known = np.array([np.shape(row) != () for row in sums])
    rows = [row if np.shape(row) else np.ones(model.dim) for row in sums]
    return Flagged(unit_rows(np.array(rows, dtype=np.float32)), known)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Embeddings:
    """Four words at right angles and documents of two classes, saved as ``map.jose``; document 5 is untrained."""
    monkeypatch.setattr(Embeddings, "infer_flagged", mean_directions)
    rng = np.random.default_rng(1)
    words = np.eye(4, dtype=np.float32)
    documents = words[np.arange(N_DOCUMENTS) % 2] + 0.1 * rng.standard_normal((N_DOCUMENTS, 4)).astype(np.float32)
    made = Embeddings.from_arrays(
        words=WORDS,
        counts=[9, 8, 7, 6],
        center_vectors=words,
        context_vectors=words,
        doc_ids=[str(row) for row in range(N_DOCUMENTS)],
        doc_vectors=unit_rows(documents),
        doc_token_counts=np.where(np.arange(N_DOCUMENTS) == 5, 0, 3),
        tokenizer="whitespace",
    )
    made.save(tmp_path / "map.jose")
    return made


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("even\nodd\n" * (N_DOCUMENTS // 2), encoding="utf-8")
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.tsv"
    path.write_text("north south\tnorth\t4\nnorth east west south\tnorth\t2\nsouth\tnorth\t0\nfog\tnorth\t1\n", "utf-8")
    return path


def test_word_similarity_counts_what_is_covered(model: Embeddings, tmp_path: Path) -> None:
    path = tmp_path / "words.tsv"
    path.write_text("north\tnorth\t9\nnorth\tsouth\t1\nnorth\tfog\t5\n", encoding="utf-8")
    (row,) = reports.word_similarity_table(model, [path]).rows
    assert row == ("words.tsv", pytest.approx(1.0), 3, pytest.approx(2 / 3))


def test_sentences_are_inferred_and_those_without_a_known_word_left_out(model: Embeddings, pairs: Path) -> None:
    (row,) = reports.sentence_table(model, [pairs]).rows
    # Cosines 1/sqrt 2, 1/2 and 0 fall as the scores do.
    assert row == ("pairs.tsv", pytest.approx(1.0), 4, 0.75)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """To the north lie the documents of even number."""
    path = tmp_path / "questions.tsv"
    path.write_text("the north\t" + " ".join(map(str, range(0, N_DOCUMENTS, 2))) + "\nfog\t1\n", encoding="utf-8")
    return path


def test_search_is_scored_by_questions(model: Embeddings, questions: Path) -> None:
    (row,) = reports.search_table(model, [questions]).rows
    assert row == ("questions.tsv", "vector", pytest.approx(1.0), pytest.approx(1.0), 2, 0.5)
    questions.write_text("north\t5\n", encoding="utf-8")  # untrained: behind all others
    assert reports.search_table(model, [questions]).rows[0][2] == pytest.approx(1 / N_DOCUMENTS)
    with pytest.raises(ConfigError, match="the model keeps no texts"):
        reports.search_table(model, [questions], mode="hybrid")


def test_analogies_have_a_row_per_section_and_one_for_all(model: Embeddings, tmp_path: Path) -> None:
    path = tmp_path / "questions.txt"
    path.write_text(": wind\nnorth south east fog\nnorth south north south\n", encoding="utf-8")
    table = reports.analogy_table(model, [path])
    assert [row[0] for row in table.rows] == ["wind", "total"]
    assert table.rows[0][2:] == (2, 0.5)
    # Only the most frequent word takes part: no question is left.
    assert reports.analogy_table(model, [path], max_rank=1).rows[1][3] == 0.0
    assert reports.analogy_table(model, [path, path]).rows[0][0] == "questions.txt: wind"


def test_classes_and_clusters_of_the_trained_vectors(model: Embeddings, labels: Path) -> None:
    documents = reports.labelled_rows(model, labels)
    classification = reports.classification_table(documents, folds=4)
    assert (
        classification.title == "Classification of 47 documents, trained vectors, 4 folds, mean ± deviation over them"
    )
    assert [str(row[1]) for row in classification.rows] == ["1.000 ± .000"] * 2
    assert classification.note == "1 documents without a known word are left out."
    assert "first 24 documents train" in reports.classification_table(documents, n_train=24).title
    clustering = reports.clustering_table(documents)
    assert [str(row[1]) for row in clustering.rows] == ["1.000 ± .000"] * 2
    assert "2 clusters, 2 classes" in clustering.title


def test_classes_of_inferred_vectors(model: Embeddings, labels: Path) -> None:
    texts = ["north fog", "south"] * (N_DOCUMENTS // 2)
    texts[3] = "fog"
    documents = reports.labelled_rows(model, labels, texts)
    assert documents.vectors.shape == (N_DOCUMENTS - 1, 4)
    assert documents.labels.tolist() == [0, 1, 0] + [0, 1] * 22
    assert documents.note == "1 documents without a known word are left out."


def test_documents_that_are_left_out_do_not_move_the_split(
    model: Embeddings, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int | None] = []

    def classify(vectors: object, labels: object, *, n_train: int | None, **_: object) -> ClassificationScore:
        seen.append(n_train)
        return ClassificationScore(Spread((1.0,)), Spread((1.0,)))

    monkeypatch.setattr(reports.evaluation, "classify", classify)
    documents = reports.labelled_rows(model, labels)  # without document 5
    for n_train in (5, 6, 24, 100, None):
        reports.classification_table(documents, methods=["knn"], n_train=n_train)
    assert seen == [5, 5, 23, 99, None]


def test_labels_must_be_as_many_as_documents(model: Embeddings, labels: Path) -> None:
    with pytest.raises(ConfigError, match="48 labels, but there are 2 documents; one line for each"):
        reports.labelled_rows(model, labels, ["north", "south"])
    labels.write_text("a\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="1 labels, but the model has 48 documents"):
        reports.labelled_rows(model, labels)


def test_tables_in_markdown_and_as_values() -> None:
    rows = [("a|b", 0.5, 1234, Spread((0.25, 0.75))), ("c", float("nan"), 0, Spread((1.0,)))]
    table = Table("Title", ("name", "share", "count", "spread"), rows, "A note.")
    assert table.to_markdown().splitlines() == [
        "### Title",
        "",
        "| name | share | count | spread |",
        "|:---|---:|---:|---:|",
        "| a\\|b | .500 | 1,234 | .500 ± .354 |",
        "| c | — | 0 | 1.000 |",
        "",
        "A note.",
    ]
    values = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert values["rows"][0]["spread"] == {"mean": 0.5, "deviation": pytest.approx(0.3535534), "values": [0.25, 0.75]}
    assert values["rows"][1]["share"] is None


# ---- the command --------------------------------------------------------------------------------------------------


def test_report_of_everything(
    model: Embeddings,
    labels: Path,
    pairs: Path,
    questions: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "report.md"
    directory = str(tmp_path / "map.jose")
    arguments = ["--wordsim", str(pairs), "--labels", str(labels), "--sts", str(pairs), "--folds", "3"]
    arguments += ["--search", str(questions)]
    assert main(["eval", "report", directory, *arguments, "-o", str(output)]) == 0
    printed = capsys.readouterr().out
    titles = [line for line in printed.splitlines() if line.startswith("### ")]
    assert [title.split()[1] for title in titles] == ["Word", "Classification", "Clusters", "Sentence", "Search"]
    written = output.read_text(encoding="utf-8")
    assert written.startswith(f"# map.jose\n\nModel {model.id}\n\n")
    assert printed.strip() in written
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.usefixtures("model")
def test_each_figure_has_a_command(
    labels: Path, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = str(tmp_path / "map.jose")
    assert main(["eval", "classify", directory, "--labels", str(labels), "--train", "24", "--method", "knn"]) == 0
    assert capsys.readouterr().out.splitlines()[-3] == "| 3 nearest neighbours | 1.000 | 1.000 |"
    command = ["eval", "cluster", directory, "--labels", str(labels), "--method", "spherical", "--seeds", "2", "--json"]
    assert main(command) == 0
    (table,) = json.loads(capsys.readouterr().out)
    assert table["rows"][0]["NMI"]["values"] == pytest.approx([1.0, 1.0])
    assert main(["eval", "search", directory, str(questions)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "| questions.tsv | vector | 1.000 | 1.000 | 2 | .500 |"


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the measure is missing; name one of wordsim, analogy, classify, cluster, sts, search, isotropy, report"),
        (["report", "map.jose"], "nothing to report on"),
        (["report", "map.jose", "--texts", "labels.txt"], "--texts needs --labels"),
        (["wordsim", "map.jose", "missing.tsv"], "missing.tsv: there is no such file or directory"),
        (["wordsim", "missing.jose", "pairs.tsv"], "missing.jose"),
        (["wordsim", "map.jose", "pairs.tsv", "-o", "nowhere/report.md"], "nowhere does not exist; make it first"),
        (["classify", "map.jose", "--labels", "labels.txt", "--train", "48"], "training part has 47 rows"),
        (["classify", "map.jose", "--labels", "labels.txt", "--folds", "25"], "take from 2 to 23"),
        (["cluster", "map.jose", "--labels", "labels.txt", "--clusters", "0"], "0"),
        (["search", "map.jose", "missing.tsv"], "missing.tsv: there is no such file or directory"),
        (["search", "map.jose", "labels.txt"], "labels.txt:1: 'even'; a question is text<TAB>id id"),
        (["search", "map.jose", "elsewhere.tsv"], "there is no document '48' among the model's 48"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    labels: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert labels.exists()
    (tmp_path / "elsewhere.tsv").write_text("north\t0 48\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["eval", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err
