"""The classifier: its report and probabilities against scikit-learn, its file, and the command line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_fscore_support
from sklearn.model_selection import StratifiedKFold, cross_val_predict

import jose_embed
from jose_embed.analysis.classifier import Classifier, cross_validation, fit_classifier, read_classifier
from jose_embed.cli.program import main
from jose_embed.errors import ConfigError, ModelError
from jose_embed.model.embeddings import Embeddings
from jose_embed.text.texts import TEXTS_NAME, TextStore

DIM, N_DOCS = 8, 90


def data(n_classes: int) -> tuple[np.ndarray, list[str]]:
    """Overlapping classes, so that no figure of a report is 0 or 1."""
    random = np.random.default_rng(0)
    classes = np.arange(N_DOCS) % n_classes
    vectors = np.eye(DIM)[classes] + 0.5 * random.standard_normal((N_DOCS, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), [f"class {number}" for number in classes]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose last document is untrained, with the classes as a kept field of all documents but the first."""
    vectors, labels = data(3)
    words = np.eye(DIM, dtype=np.float32)[:3]
    path = Embeddings.from_arrays(
        words=["a", "b", "c"],
        counts=[30, 20, 10],
        center_vectors=words,
        context_vectors=words,
        doc_ids=[str(row) for row in range(N_DOCS)],
        doc_vectors=vectors,
        doc_token_counts=[1] * (N_DOCS - 1) + [0],
    ).save(tmp_path_factory.mktemp("classifier") / "m.jose")
    store = TextStore.create()
    fields = [{"kind": label} if row else {} for row, label in enumerate(labels)]
    store.append([f"text {row}" for row in range(N_DOCS)], fields, N_DOCS)
    store.finish()
    (path / TEXTS_NAME).write_bytes(b"".join(store.chunks()))
    (path.parent / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    return path


@pytest.mark.parametrize("n_classes", [2, 3])
def test_probabilities_are_those_of_scikit_learn(n_classes: int) -> None:
    vectors, labels = data(n_classes)
    classifier = fit_classifier(vectors, labels, "id")
    learner = LogisticRegression(C=10.0, max_iter=2000).fit(vectors, labels)
    assert classifier.classes == tuple(learner.classes_)
    np.testing.assert_allclose(classifier.probabilities(vectors), learner.predict_proba(vectors), atol=1e-6)


def test_the_report_is_that_of_scikit_learn() -> None:
    vectors, labels = data(3)
    accuracy, reports = cross_validation(vectors, labels, folds=5)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    predicted = cross_val_predict(LogisticRegression(C=10.0, max_iter=2000), vectors, labels, cv=folds)
    assert accuracy == np.mean(predicted == np.array(labels))
    assert accuracy < 1
    expected = precision_recall_fscore_support(labels, predicted)
    np.testing.assert_allclose([(r.precision, r.recall, r.f1, r.n_documents) for r in reports], np.transpose(expected))


@pytest.mark.parametrize(
    ("labels", "folds", "message"),
    [
        (["a"] * 90, 5, "1 class; a classifier needs at least 2"),
        (["a"] * 88 + ["b"] * 2, 5, "5 folds, and 2 documents in the class 'b'"),
        (["a", "b"] * 45, 1, "at least 2 folds"),
        (["a", "b"], 5, "2 labels for 90 documents"),
    ],
)
def test_labels_that_are_refused(labels: list[str], folds: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cross_validation(data(3)[0], labels, folds=folds)


def test_a_kept_classifier_is_the_same(tmp_path: Path) -> None:
    vectors, labels = data(3)
    classifier = fit_classifier(vectors, labels, "id")
    (tmp_path / "c.json").write_bytes(classifier.to_bytes())
    read = read_classifier(tmp_path / "c.json")
    assert (read.classes, read.model_id) == (classifier.classes, "id")
    np.testing.assert_array_equal(read.probabilities(vectors), classifier.probabilities(vectors))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{}", b"[1]", b"\xff", b'{"format": "jose-embed classifier"}', b"[" * 100_000,
        Classifier(("a", "b"), np.ones((2, 8)), np.ones(3), "id").to_bytes(),
        Classifier(("a", "b"), np.full((2, 8), np.nan), np.ones(2), "id").to_bytes(),
        Classifier(("a",), np.ones((1, 8)), np.ones(1), "id").to_bytes(),
    ],
)  # fmt: skip
def test_files_that_are_no_classifier(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(ModelError, match="no file of jose classify --save"):
        read_classifier(tmp_path / "c.json")
    with pytest.raises(ModelError, match="cannot be read"):
        read_classifier(tmp_path / "missing.json")


def test_report_save_and_apply(model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels, kept = model_path.parent / "labels.txt", tmp_path / "c.json"
    assert main(["classify", str(model_path), "--labels", str(labels), "--save", str(kept)]) == 0
    table = capsys.readouterr().out
    assert table.splitlines()[0].split() == ["documents", "precision", "recall", "f1", "class"]
    assert "5-fold cross-validation" in table
    assert main(["classify", str(model_path), "--labels", str(labels), "--save", str(kept)]) == 2  # it is there
    capsys.readouterr()
    (tmp_path / "new.txt").write_text("b\nunknown\na\n", encoding="utf-8")
    assert main(["classify", str(model_path), "--load", str(kept), "--apply", str(tmp_path / "new.txt"), "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["class"] for row in rows] == ["class 1", "", "class 0"]


def test_classes_of_a_kept_field(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", str(model_path), "--field", "kind", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    # Neither the document without the field nor the untrained one.
    assert [each["n_documents"] for each in report["classes"]] == [29, 30, 29]
    assert main(["classify", str(model_path), "--field", "nothing"]) == 2
    assert "there is no field 'nothing'; no fields are kept (--keep-fields)" in capsys.readouterr().err


def test_topics_by_a_kept_field_and_with_texts(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topics", str(model_path), "-k", "3", "--by", "kind", "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["kind"] for row in rows} == {"class 0", "class 1", "class 2", "(none)"}
    assert sum(int(row["documents"]) for row in rows) == N_DOCS - 1
    assert main(["topics", str(model_path), "-k", "3", "--by", "nothing"]) == 2
    assert "there is no field 'nothing'; no fields are kept (--keep-fields)" in capsys.readouterr().err
    assert main(["topics", str(model_path), "-k", "3", "--json"]) == 0
    for topic in json.loads(capsys.readouterr().out):
        assert all(document["text"] == f"text {document['id']}" for document in topic["documents"])
    assert main(["topics", str(model_path), "-k", "3"]) == 0
    assert "text " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give exactly one of: --labels, --field"),
        (["--labels", "x", "--field", "y"], "give exactly one of"),
        (["--load", "c.json"], "give it texts with --apply"),
        (["--labels", "no-such-file"], "no-such-file"),
        (["--load", "no-such-file", "--apply", "x"], "no-such-file"),
    ],
)
def test_mistakes_are_one_line(
    model_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", str(model_path), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_labels_of_another_number_or_model_are_refused(
    model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "few.txt").write_text("a\nb\n", encoding="utf-8")
    assert main(["classify", str(model_path), "--labels", str(tmp_path / "few.txt")]) == 2
    assert "2 lines for 90 documents" in capsys.readouterr().err
    (tmp_path / "empty.txt").write_text("a\n" * 88 + "\nb\n", encoding="utf-8")
    assert main(["classify", str(model_path), "--labels", str(tmp_path / "empty.txt")]) == 2
    assert "line 89 is empty" in capsys.readouterr().err
    (tmp_path / "c.json").write_bytes(fit_classifier(*data(2), "another").to_bytes())
    assert (
        main(["classify", str(model_path), "--load", str(tmp_path / "c.json"), "--apply", str(tmp_path / "few.txt")])
        == 2
    )
    assert "fitted on another model" in capsys.readouterr().err


def test_kept_fields_are_named_and_numbers_are_sorted_by_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"a text of some words about {'stars' if n % 2 else 'wine'},{n % 12},x\n" for n in range(60))
    (tmp_path / "a.csv").write_text(f"text,rating,kind\n{rows}", encoding="utf-8")
    settings: Any = {"min_count": 1, "epochs": 1, "dim": 5, "progress": False, "keep_fields": ("rating", "kind")}
    path = jose_embed.train(tmp_path / "a.csv", **settings).save(tmp_path / "m.jose")
    assert main(["topics", str(path), "-k", "1", "--by", "rating", "--csv"]) == 0
    found = [int(row["rating"]) for row in csv.DictReader(io.StringIO(capsys.readouterr().out))]
    assert found == list(range(12))
    for command in (["topics", str(path), "--by", "kin"], ["classify", str(path), "--field", "kin"]):
        assert main(command) == 2
        assert "there is no field 'kin'; kept are rating, kind" in capsys.readouterr().err
    assert main(["search", str(path), "stars", "--mode", "words"]) == 2
    assert "or train with --keep-text" in capsys.readouterr().err
