"""The card of a model, and what it is made of: the machine, and figures that are kept beside the model."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jose_embed.analysis.card import card
from jose_embed.cli.program import main
from jose_embed.errors import ModelError
from jose_embed.model import quality as qualityfile
from jose_embed.model.embeddings import Embeddings
from jose_embed.model.quality import QUALITY_NAME, read_quality, save_quality
from jose_embed.training.machine import machine_facts

TABLE: dict[str, Any] = {
    "title": "Words",
    "rows": [{"set": "ws353", "Spearman": 0.64321, "pairs": 353}, {"set": "all", "Spearman": None, "pairs": 1000}],
    "note": "A note.",
}
SPREAD: dict[str, Any] = {"title": "Clusters", "rows": [{"method": "k-means", "NMI": {"mean": 0.5, "deviation": 0.01}}]}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.jose"
    (tmp_path / "a.txt").write_text("one two three four\n" * 20)
    assert main(["train", str(tmp_path / "a.txt"), "--dim", "4", "--epochs", "2", "-q", "-o", str(path)]) == 0
    return path


def shown(path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert main(["info", str(path)]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_a_training_leaves_a_whole_card(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(model, capsys)
    for section in ("text", "settings", "training", "time", "machine", "epochs"):
        assert section in lines
    assert "quality" not in lines
    assert "running words 80" in lines
    assert "sources " + str(model.parent / "a.txt") in lines
    manifest = Embeddings.load(model).manifest
    assert f"SHA-256 {manifest['corpus']['sha256']}" in lines
    assert manifest["training"]["machine"] == machine_facts()
    assert f"numpy {np.__version__}" in lines
    for epoch in manifest["training"]["epochs"]:
        assert epoch.keys() >= {"epoch", "loss", "active", "seconds", "words_per_second"}
    assert sum(line.startswith(("reading", "training", "total")) and line.count(" ") >= 2 for line in lines) == 3


def test_figures_are_kept_beside_the_model_and_go_with_it(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = Embeddings.load(model)
    before = {file.name: file.read_bytes() for file in model.iterdir()}
    save_quality(model, found.id, [TABLE, SPREAD])
    save_quality(model, found.id, [{**TABLE, "rows": TABLE["rows"][:1]}])
    assert {file.name: file.read_bytes() for file in model.iterdir() if file.name != QUALITY_NAME} == before
    assert Embeddings.load(model, verify=True).id == found.id
    lines = shown(model, capsys)
    start = lines.index("quality")
    assert lines[start + 1].startswith("Words (measured 20")
    assert lines[start + 2 : start + 6] == ["set Spearman pairs", "ws353 0.643 353", "A note.", ""]
    assert lines[-1] == "k-means 0.500 ± 0.010"
    assert main(["info", str(model), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [table["title"] for table in told.pop("evaluation")] == ["Words", "Clusters"]
    assert told == found.manifest
    found.save(model, overwrite=True)  # takes the figures away: nothing says that they hold for what is there now
    assert not (model / QUALITY_NAME).exists()


def test_evaluations_that_end_at_the_same_time_lose_no_table(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(path: Path, model_id: str) -> list[dict[str, Any]]:
        tables = read_quality(path, model_id)
        time.sleep(0.05)
        return tables

    monkeypatch.setattr(qualityfile, "read_quality", slowly)
    titles = ["one", "two", "three", "four"]
    with ThreadPoolExecutor(len(titles)) as pool:
        list(pool.map(lambda title: save_quality(model, "id", [{**TABLE, "title": title}]), titles))
    assert sorted(table["title"] for table in read_quality(model, "id")) == sorted(titles)


def test_figures_without_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"quality\.json: the directory .*none does not exist; make it first"):
        save_quality(tmp_path / "none", "id", [TABLE])


def test_what_a_killed_evaluation_left_in_a_model_does_not_keep_it_from_being_replaced(model: Path) -> None:
    found = Embeddings.load(model)
    (model / ".quality.json.tmp-99999999-0123abcd").write_text("{")
    found.save(model, overwrite=True)
    assert not any(file.name.startswith(".") for file in model.iterdir())


def test_figures_of_another_model_do_not_count(model: Path) -> None:
    save_quality(model, "another", [TABLE])
    assert read_quality(model, Embeddings.load(model).id) == []
    assert read_quality(model, "another")[0]["title"] == "Words"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"[]", 'lacks "format": "jose-embed-evaluation"'),
        (b'{"format": "jose-embed-evaluation", "format_version": 2}', "has the format version 2, newer than 1"),
        (
            b'{"format": "jose-embed-evaluation", "format_version": 1, "model": "x", "tables": [1]}',
            r"has \[1\] as tables; it must be a list of tables",
        ),
    ],
)
def test_a_damaged_file_of_figures_is_named(
    model: Path, content: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (model / QUALITY_NAME).write_bytes(content)
    with pytest.raises(ModelError, match=f"{QUALITY_NAME}: {message}.*; .*evaluate again"):
        read_quality(model, "x")
    assert main(["info", str(model)]) == 2


def test_the_command_keeps_its_figures(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("scipy")
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("one\ttwo\t1\none\tthree\t2\ntwo\tfour\t3\n")
    assert main(["eval", "wordsim", str(model), str(pairs), "--save"]) == 0
    lines = shown(model, capsys)
    assert any(line.startswith("pairs.tsv ") for line in lines[lines.index("quality") :])


@pytest.mark.parametrize(
    ("corpus", "row"),
    [
        ({"sources": ["a", "b"], "n_sources": 2}, "sources a, b"),
        ({"sources": list("abcde"), "n_sources": 5}, "sources a, b, c, d, e"),
        ({"sources": list("abcdef"), "n_sources": 6}, "sources a, b, c, d, e, and 1 more"),
        ({"sources": list("abcdef"), "n_sources": 12000}, "sources a, b, c, d, e, and 11,995 more"),
        ({"sources": list("abcdef")}, "sources a, b, c, d, e, and 1 more"),
        ({"sources": ["a"], "n_sources": "many"}, "sources a"),
    ],
)
def test_the_list_of_sources_is_cut_off_with_the_right_count(corpus: dict[str, Any], row: str) -> None:
    assert row in [" ".join(line.split()) for line in card({"corpus": corpus}, "x")]


def test_a_strange_manifest_is_shown_as_it_is() -> None:
    for value in (None, 1, "x", [], {"epochs": 1}, {"epochs": [None, {"epoch": 1, "loss": float("nan")}]}):
        manifest = dict.fromkeys(["counts", "training", "corpus", "config", "tokenizer", "files", "id"], value)
        assert card(manifest | {"files": {}}, "name")[:2] == ["name", "===="]
    epochs = [{"epoch": 1, "loss": 0.0}, {"epoch": 2, "loss": 10**400}]
    assert card({"training": {"epochs": epochs}}, "x")[-1].split() == ["1", "0.0000", "?", "?", "?"]
