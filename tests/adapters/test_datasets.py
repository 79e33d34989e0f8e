"""Data sets of Hugging Face, with their library: ``make test-adapters``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import jose_embed
from jose_embed.cli.program import main, train_main

TEXTS = [f"the cat number {row % 5} sat\non the mat {row % 3}" for row in range(60)]
IDS = [f"H-{row}" for row in range(60)]
SETTINGS: dict[str, Any] = {"dim": 8, "epochs": 1, "workers": 1, "min_count": 1, "progress": False}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_objects_and_folders_of_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("datasets")
    pa = pytest.importorskip("pyarrow")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    kinds = {
        "string": pa.string(), "large": pa.large_string(), "view": pa.string_view(),
        "dictionary": pa.dictionary(pa.int32(), pa.string()),
    }  # fmt: skip
    for name, kind in kinds.items():
        columns = {
            "id": IDS,
            "text": pa.array(TEXTS, pa.string()).cast(kind),
            "meta": [{"n": row} for row in range(60)],
        }
        data_set = library.Dataset(pa.table(columns))
        data_set.save_to_disk(tmp_path / name, num_shards=3)
        for source in (data_set, data_set.with_format("arrow"), tmp_path / name, data_set.to_iterable_dataset()):
            model = jose_embed.train(source, id_field="id", **SETTINGS)
            assert list(model.doc_ids) == IDS, (name, type(source))
            assert model.doc_token_counts.tolist() == [9] * 60
    assert list(jose_embed.train(data_set, id_field="meta.n", **SETTINGS).doc_ids)[:2] == ["0", "1"]
    part = data_set.shuffle(seed=1).select(range(20))
    model = jose_embed.train(part["text"], ids=part["id"], **SETTINGS)
    assert list(model.doc_ids) == list(part["id"]) != IDS[:20]
    splits = library.DatasetDict(train=data_set, test=part)
    with pytest.raises(jose_embed.CorpusError, match=r"several data sets \(train, test\); give one of them"):
        jose_embed.train(splits, **SETTINGS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_folder_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library = pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    data_set = library.Dataset.from_dict({"id": IDS, "review": TEXTS, "rating": list(range(60))})
    library.DatasetDict(train=data_set, test=data_set.select(range(5))).save_to_disk("both")
    small = ["--dim", "8", "--epochs", "1", "--workers", "1", "--min-count", "1", "--text-field", "review"]
    assert train_main(["both", *small]) == 2
    assert "holds several splits; name one of them: both/train, both/test" in capsys.readouterr().err
    kept = ["--id-field", "id", "--keep-text", "--keep-fields", "rating", "-o", "m.jose"]
    assert train_main(["both/train", *small, *kept]) == 0
    model = jose_embed.load("m.jose")
    assert list(model.doc_ids) == IDS
    assert model.kept_documents([7]) == [(TEXTS[7], {"rating": 7})]
    capsys.readouterr()
    assert main(["embed", "m.jose", "both/test", "-o", "v.jsonl"]) == 0
    assert "text from 'review' as in the training, ids from 'id'" in capsys.readouterr().err
    assert [json.loads(line)["id"] for line in Path("v.jsonl").read_text().splitlines()] == IDS[:5]
