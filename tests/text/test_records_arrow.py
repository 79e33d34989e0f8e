"""Parquet and Arrow files: every kind of string column gives the same documents."""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Callable
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from jose_embed.errors import CorpusError, MissingExtraError
from jose_embed.text import records_arrow
from jose_embed.text.encode import encode
from jose_embed.text.reader import BlockReader
from jose_embed.text.records import TextOptions
from jose_embed.text.sources import find_sources

pa = pytest.importorskip("pyarrow")
parquet = import_module("pyarrow.parquet")

TEXTS = ["We slept\nwell.", None, "", 'Noise, "they" said', "We slept\nwell."]
LINES = b'We slept well.\n\n\nNoise, "they" said\nWe slept well.\n'
IDS = ["a", "b", "c", "d", "e"]


def read(path: Path | str, **options: Any) -> tuple[bytes, list[str], list[Any], list[str]]:
    """Lines, ids, fields and notes of a source."""
    with BlockReader(find_sources(path), options=TextOptions(**options)) as reader:
        blocks = list(reader)
    ids = [id for block in blocks if block.records for id in block.records.ids or ()]
    fields = [each for block in blocks if block.records for each in block.records.fields or ()]
    if reader.total:
        assert sum(block.consumed for block in blocks) == reader.total
    return b"".join(block.data for block in blocks), ids, fields, reader.notes


def write_stream(path: Path, table: Any) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def write_file(path: Path, table: Any) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def write_parquet(path: Path, table: Any) -> None:
    parquet.write_table(table, path, row_group_size=2)


FORMATS: dict[str, Callable[[Path, Any], None]] = {
    "a.parquet": write_parquet, "a.arrow": write_stream, "b.arrow": write_file,
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "kind",
    [
        "string", "large_string", "string_view",
        *(f"dictionary {bits}" for bits in ("int8", "int16", "int32")),
    ],
)  # fmt: skip
def test_every_kind_of_strings(tmp_path: Path, name: str, kind: str) -> None:
    if kind.startswith("dictionary"):
        column_type = pa.dictionary(getattr(pa, kind.split()[1])(), pa.string())
    else:
        column_type = getattr(pa, kind)()
    if kind == "string_view" and name == "a.parquet":
        column_type = pa.large_string()  # not written by every version of pyarrow
    table = pa.table({"id": IDS, "text": pa.array(TEXTS, pa.string()).cast(column_type)})
    FORMATS[name](tmp_path / name, table)
    data, ids, _, notes = read(tmp_path / name, id_field="id")
    assert data == LINES
    assert ids == IDS
    assert notes == [f"{tmp_path / name}: columns: id, text; text from 'text', ids from 'id'"]


@pytest.mark.parametrize("name", FORMATS)
def test_nested_and_other_fields(tmp_path: Path, name: str) -> None:
    meta = [{"day": datetime.date(2025, 1, day), "price": Decimal("1.50"), "deep": {"n": day}} for day in range(1, 6)]
    table = pa.table({"number": pa.array(range(10, 15), pa.int32()), "body": TEXTS, "meta": meta})
    FORMATS[name](tmp_path / name, table)
    keep = ["meta.day", "meta.price", "meta.deep.n", "number"]
    data, ids, fields, _ = read(tmp_path / name, id_field="number", keep_fields=keep)
    assert data == LINES
    assert ids == ["10", "11", "12", "13", "14"]
    assert fields[1] == {"meta.day": "2025-01-02", "meta.price": "1.50", "meta.deep.n": 2, "number": 11}
    json.dumps(fields)


def test_a_batch_is_small_whatever_the_groups_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_arrow, "_BATCH_BYTES", 1000)
    texts = [f"text number {number} " * 5 for number in range(1000)]
    table = pa.table({"text": texts})
    parquet.write_table(table, tmp_path / "a.parquet")
    write_file(tmp_path / "a.arrow", table)
    for name in ("a.parquet", "a.arrow"):
        with BlockReader(find_sources(tmp_path / name), options=TextOptions()) as reader:
            blocks = [block.data for block in reader]
        assert b"".join(blocks).decode().split("\n")[:-1] == texts
        assert max(map(len, blocks)) < 5000


def test_characters_that_no_text_has(tmp_path: Path) -> None:
    wrong = pa.array([b"a\xff", b"b", b"c\0d"], pa.binary()).view(pa.string())
    parquet.write_table(pa.table({"text": wrong}), tmp_path / "a.parquet")
    with encode(tmp_path / "a.parquet", min_count=1, tokenizer="whitespace") as corpus:
        assert sorted(corpus.vocabulary.words) == ["a\ufffd", "b", "c\ufffdd"]
        assert corpus.statistics.invalid_utf8_lines == 2


def test_several_columns_and_the_longest(tmp_path: Path) -> None:
    long = ["a review of more than thirty characters"] * 2
    parquet.write_table(pa.table({"key": ["x", "y"], "review": long}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")[0] == f"{long[0]}\n{long[1]}\n".encode()
    assert read(tmp_path / "a.parquet", text_field=["key", "review"])[0] == f"x {long[0]}\ny {long[1]}\n".encode()


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"text": [1, 2]}, {}, "the column 'text' holds int64, not strings"),
        ({"text": ["a", "b"], "id": [1.5, 2.5]}, {"id_field": "id"}, "the id column 'id' holds double; it must hold"),
        ({"text": ["a", "b"], "id": ["1", None]}, {"id_field": "id"}, "a.parquet, row 2: the id is null"),
        ({"text": ["a", "b"]}, {"id_field": "id"}, "there is no column 'id'; columns: text"),
        ({"a": ["x"], "b": ["y"]}, {}, "the column of the text is not known; columns: a, b; choose one with"),
    ],
)
def test_tables_that_are_refused(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(CorpusError) as refused:
        read(tmp_path / "a.parquet", **options)
    assert message in str(refused.value)


def test_null_ids_can_be_skipped(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"text": ["a", "b", "c"], "id": ["1", None, "3"]}), tmp_path / "a.parquet")
    data, ids, _, notes = read(tmp_path / "a.parquet", id_field="id", on_error="skip")
    assert (data, ids) == (b"a\nc\n", ["1", "3"])
    assert notes[-1] == f"1 malformed record was skipped: {tmp_path / 'a.parquet'}, row 2: the id is null"


def test_a_folder_of_a_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "reviews"
    folder.mkdir()
    files = [{"filename": f"data-0000{number}-of-00002.arrow"} for number in range(2)]
    for number, file in enumerate(files):
        write_stream(folder / file["filename"], pa.table({"text": [f"text {number}", "more"]}))
    (folder / "state.json").write_text(json.dumps({"_data_files": files}))
    (folder / "dataset_info.json").write_text("{}")
    assert read(folder)[0] == b"text 0\nmore\ntext 1\nmore\n"
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["reviews", "test"]}))
    with pytest.raises(CorpusError, match=r"holds several splits; name one of them: .*/reviews, .*/test$"):
        find_sources(tmp_path)


def test_damage_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet.write_table(pa.table({"text": TEXTS}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[:-20])
    with pytest.raises(CorpusError, match="cannot be read as Parquet"):
        read(tmp_path / "a.parquet")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(whole)))
    with pytest.raises(CorpusError, match="standard input cannot be read as Parquet or Arrow"):
        read("-", format="parquet")


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(records_arrow, "import_module", missing)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtraError, match=r'pip install "jose-embed\[parquet\]"$'):
        read(tmp_path / "a.parquet")
