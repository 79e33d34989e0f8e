"""Files named by URIs, read through pyarrow's file systems as those of an object store are."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from jose_embed.errors import CorpusError
from jose_embed.text.encode import encode
from jose_embed.text.records import TextOptions
from jose_embed.text.sources import find_sources

pytest.importorskip("pyarrow.fs")

TEXT = "the cat sat on the mat\nthe dog sat on the log\n" * 50


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "texts" / "more").mkdir(parents=True)
    (tmp_path / "texts" / "a.txt").write_text(TEXT)
    (tmp_path / "texts" / "b.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    (tmp_path / "texts" / "more" / "c.txt").write_text(TEXT)
    (tmp_path / "texts" / ".hidden").write_text("no\n")
    return tmp_path / "texts"


def test_folders_globs_and_files_are_found_as_here(folder: Path) -> None:
    names = ["a.txt", "b.txt.gz", "more/c.txt"]
    for pattern, wanted in (
        ("", names),
        ("/*.txt", names[:1]),
        ("/**/*.txt", [names[0], names[2]]),
        ("/a.txt", names[:1]),
    ):
        found = find_sources(f"file://{folder}{pattern}")
        assert [source.name for source in found] == [f"file://{folder}/{name}" for name in wanted]
        assert [source.size() for source in found] == [(folder / name).stat().st_size for name in wanted]


def test_a_remote_text_is_encoded_as_a_local_one(folder: Path) -> None:
    with encode(str(folder), min_count=1) as here, encode(f"file://{folder}", min_count=1) as there:
        assert np.array_equal(here.tokens, there.tokens)
        assert here.vocabulary.words == there.vocabulary.words
        assert there.doc_ids[0] == f"file://{folder}/a.txt:1"
        assert there.sources[0].path == f"file://{folder}/a.txt"
        assert [report.disk_sha256 for report in there.sources] == [report.disk_sha256 for report in here.sources]
    options = TextOptions(one_file_per_document=True)
    with encode(f"file://{folder}", min_count=1, options=options) as there:
        assert list(there.doc_ids) == ["a.txt", "b.txt.gz", "more/c.txt"]


def test_tables_are_read_from_anywhere(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"id": ["x", "y"], "text": ["one two two", "two three"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    with pa.OSFile(str(tmp_path / "b.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    for name in ("a.parquet", "b.arrow"):
        with encode(f"file://{tmp_path}/{name}", min_count=1, options=TextOptions(id_field="id")) as corpus:
            assert list(corpus.doc_ids) == ["x", "y"]
            assert corpus.vocabulary.words == ("two", "one", "three")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/none", "there is no such file or folder"),
        ("/none/*.txt", "no file matches this pattern"),
    ],
)
def test_what_is_not_there_is_one_line(folder: Path, name: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        find_sources(f"file://{folder}{name}")
    with pytest.raises(CorpusError, match="this name is not understood") as raised:
        find_sources("nosuch://key:secret@place/file")
    assert "secret" not in str(raised.value)


def test_a_store_that_cannot_be_asked_is_not_a_wrong_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unreachable:
        @staticmethod
        def from_uri(_: str) -> None:
            raise OSError("When resolving region for bucket 'b': Could not resolve hostname\nmore")

    monkeypatch.setattr("pyarrow.fs.FileSystem", Unreachable)
    with pytest.raises(CorpusError, match=r"the store cannot be asked: .*; check the network .* \?region=") as raised:
        find_sources("s3://key:secret@b/file")
    assert "secret" not in str(raised.value)
    assert "not understood" not in str(raised.value)
