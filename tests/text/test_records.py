"""Records: every way to write a table gives the same documents, and what is malformed is named with its line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jose_embed.errors import ConfigError, CorpusError
from jose_embed.text import reader
from jose_embed.text.encode import encode
from jose_embed.text.reader import BlockReader
from jose_embed.text.records import (
    Columns,
    Reading,
    RecordBatch,
    TextOptions,
    choose_columns,
    id_fault,
    join_documents,
)
from jose_embed.text.records_csv import _Dialect, _Table, find_dialect, looks_like_table, read_csv
from jose_embed.text.records_json import read_json_lines
from jose_embed.text.sources import find_sources
from jose_embed.text.tokenizers import valid_text

REVIEWS = [
    ("H-1", "2025-01-10", "5", 'We slept well;\nthe room was clean, she said: "never mind".'),
    ("H-2", "2025-02-11", "1", "The shower was cold\r\nand the towels damp."),
    ("H-3", "2025-03-12", "4", ""),
    ("H-4", "2025-04-13", "2", "Nobody answered, nobody came: a \\ backslash and a | bar."),
]
NAMES = ["id", "date", "rating", "text"]


def documents(batches: Any) -> tuple[bytes, list[str], list[dict[str, Any]]]:
    """The lines, ids and fields of all batches."""
    found: list[RecordBatch] = list(batches)
    data = b"".join(batch.data for batch in found)
    assert data.count(b"\n") == sum(batch.n_records for batch in found)
    ids = [id for batch in found for id in batch.ids or ()]
    return data, ids, [each for batch in found for each in batch.fields or ()]


def lines(texts: list[str]) -> bytes:
    return "".join(text.replace("\n", " ") + "\n" for text in texts).encode()


def table(**dialect: Any) -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file, **dialect)
    writer.writerow(NAMES)
    writer.writerows(REVIEWS)
    return file.getvalue()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a file in the current directory, which is empty at first."""
    monkeypatch.chdir(tmp_path)

    def written(name: str, content: bytes | str) -> Path:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return written


def read(path: Path | str, **options: Any) -> tuple[bytes, list[str], list[str], list[Any]]:
    """Lines, ids, notes and fields of a source."""
    with BlockReader(find_sources(path), options=TextOptions(**options)) as found:
        blocks = list(found)
    ids = [id for block in blocks if block.records for id in block.records.ids or ()]
    fields = [each for block in blocks if block.records for each in block.records.fields or ()]
    assert sum(report.n_lines for report in found.reports) == sum(block.data.count(b"\n") for block in blocks)
    return b"".join(block.data for block in blocks), ids, found.notes, fields


def refusal(path: Path | str, **options: Any) -> str:
    with pytest.raises(CorpusError) as refused:
        read(path, **options)
    assert str(refused.value).isprintable()
    return str(refused.value)


# ---- CSV ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"quoting": csv.QUOTE_ALL},
        {"quoting": csv.QUOTE_ALL, "doublequote": False, "escapechar": "\\"},
    ],
)
def test_the_dialect_is_found(
    write: Callable[..., Path], how: dict[str, Any], delimiter: str, end: str, mark: str
) -> None:
    path = write("a.csv", mark + table(delimiter=delimiter, lineterminator=end, **how))
    data, ids, notes, fields = read(path, id_field="id", keep_fields=["rating"])
    assert data == lines([review[3] for review in REVIEWS])
    assert ids == ["H-1", "H-2", "H-3", "H-4"]
    assert fields == [{"rating": review[2]} for review in REVIEWS]
    assert notes == ["a.csv: columns: id, date, rating, text; text from 'text', ids from 'id'"]


def test_tabs_without_quotes(write: Callable[..., Path]) -> None:
    path = write("a.tsv", 'id\ttext\n1\tsay "no\n2\t"yes" they said, "no"\n3\tthe end, or not, or\n')
    assert read(path)[0] == b'say "no\n"yes" they said, "no"\nthe end, or not, or\n'


def test_a_table_of_one_column(write: Callable[..., Path]) -> None:
    assert read(write("a.csv", 'text\nto be, or not\n"to be,\nor not"\n'))[0] == b"to be, or not\nto be, or not\n"


def test_the_first_line_of_excel_names_the_delimiter(write: Callable[..., Path]) -> None:
    path = write("a.csv", "sep=;\r\nid;text\r\n1;a, b\r\n2\r\n")
    assert refusal(path) == (
        "1 record is malformed: a.csv, line 4: 1 fields, but 2 columns; correct them, or skip them (on_error='skip')"
    )
    assert read(path, on_error="skip")[0] == b"a, b\n"


def test_fields_of_any_size(write: Callable[..., Path]) -> None:
    long = ("word " * 60_000 + "\n") * 10  # three million characters; Python's csv takes 131,072 by default
    path = write("a.csv", f'id,text\n1,"{long}"\n2,b\n')
    data, _, _, _ = read(path)
    assert data == lines([long, "b"])


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40), st.integers()),
        min_size=1, max_size=20,
    ),
    st.sampled_from([",", ";", "\t", "|"]),
    st.integers(1, 60),
)  # fmt: skip
def test_any_table_is_read_as_it_was_written(records: list[tuple[str, int]], delimiter: str, cut: int) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(["text", "number"])
    writer.writerows(records)
    rows = file.getvalue().split("\n")[:-1]
    blocks = ["".join(row + "\n" for row in rows[at : at + cut]) for at in range(0, len(rows), cut)]
    if cut < 3:  # the sample is the first block
        blocks = ["".join(blocks[:3]), *blocks[3:]]
    options = TextOptions(text_field="text", keep_fields="number", keep_text=True)
    batches = list(read_csv(blocks, Reading("a.csv", options)))
    assert [text for batch in batches for text in batch.texts or ()] == [text for text, _ in records]
    data, _, fields = documents(batches)
    assert data == lines([text for text, _ in records])
    assert fields == [{"number": str(number)} for _, number in records]


@settings(max_examples=200)
@given(
    st.text(st.sampled_from('aaab",;\\\r\n\n'), max_size=60),
    st.sampled_from([
        _Dialect(","), _Dialect(";"), _Dialect(",", doublequote=False, escapechar="\\"),
        _Dialect(",", quoting=csv.QUOTE_NONE),
    ]),
    st.booleans(), st.integers(1, 5),
)  # fmt: skip
def test_records_are_those_of_the_standard_library(text: str, dialect: _Dialect, windows: bool, cut: int) -> None:
    text = text.replace("\r", "").replace("\n", "\r\n") if windows else text
    reader = csv.reader(io.StringIO(text + "\n", newline=""), strict=True, **dialect._asdict())
    wanted: list[Any] = []
    while True:
        try:
            wanted.append(next(reader))
        except csv.Error as error:
            wanted.append(str(error))
        except StopIteration:
            break
    found = [line + "\n" for line in text.split("\n")]
    table = _Table("".join(found[at : at + cut]) for at in range(0, len(found), cut))
    rows = list(table.rows(dialect))
    assert [row if isinstance(row, list) else str(row) for row in rows] == wanted
    assert table.n_lines == reader.line_num


def test_lines_of_malformed_records(write: Callable[..., Path]) -> None:
    path = write("a.csv", 'id,text\n1,"a\nb"\n\n2\n3,c,d\n4,"e" f\n5,g\n')
    assert refusal(path) == (
        "3 records are malformed: a.csv, line 5: 1 fields, but 2 columns; a.csv, line 6: 3 fields, but 2 columns; "
        "a.csv, line 7: not a record of this table (',' expected after '\"'); "
        "correct them, or skip them (on_error='skip')"
    )
    data, ids, notes, _ = read(path, on_error="skip", id_field="id")
    assert data == b"a b\ng\n"
    assert ids == ["1", "5"]
    assert notes[-1].startswith("3 malformed records were skipped: a.csv, line 5: ")


def test_a_quote_without_its_partner(write: Callable[..., Path]) -> None:
    path = write("a.csv", 'id,text\n1,a\n2,"b\n3,c\n')
    assert "a.csv, line 3: a quoted field begins here and never ends" in refusal(path)


def test_the_first_ten_are_named(write: Callable[..., Path]) -> None:
    path = write("a.csv", "id,text\n" + "1,a\n" * 100 + "1\n" * 30)
    assert refusal(path).startswith("at least 10 records are malformed: a.csv, line 102: ")
    note = read(path, on_error="skip")[2][-1]
    assert note.startswith("30 malformed records were skipped: a.csv, line 102: ")
    assert note.endswith("; and 20 more")
    assert note.count("line") == 10


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("a,b\n1,2\n", {}, "a.csv: the column of the text is not known; columns: a, b; choose one with text_field=..."),
        ("a,b\n1,2\n", {"text_field": "c"}, "a.csv: there is no column 'c'; columns: a, b"),
        (",ID,Text\n0,1,2\n", {"id_field": "id"}, "'id'; columns: (no name), ID, Text; did you mean 'ID'?"),
        ("ratings,Text\n1,2\n", {"text_field": "rating"}, "columns: ratings, Text; did you mean 'ratings'?"),
        ("text,id,id\na,1,2\n", {"id_field": "id"}, "a.csv: there are 2 columns 'id'; rename them"),
        ("id,text\n,a\n", {"id_field": "id"}, "line 2: the id is empty; "),
        ('id,text\n"1\n2",a\n', {"id_field": "id"}, "line 2: the id holds a line break or a NUL; "),
        ("\0id,text\n", {}, "a.csv: byte 0 is NUL"),
        ("id,text\n", {"format": "parquet"}, "a.csv: cannot be read as Parquet ("),
    ],
)
def test_tables_that_are_refused(
    write: Callable[..., Path], content: str, options: dict[str, Any], message: str
) -> None:
    if options.get("format") == "parquet":
        pytest.importorskip("pyarrow")
    assert message in refusal(write("a.csv", content), **options)


def test_a_column_of_plain_text(write: Callable[..., Path]) -> None:
    path = write("a.json", '[{"text": "a b"},\n{"text": "c"}]\n')
    for column in ({"text_field": "text"}, {"id_field": "id"}, {"keep_fields": ["x"]}):
        with pytest.raises(ConfigError, match=r"a\.json is read as plain text, which has none; say"):
            read(path, **column)
    assert read(write("a.txt", '{"text": "a b"}\n'), text_field="text", format="jsonl")[0] == b"a b\n"


def test_empty_tables(write: Callable[..., Path]) -> None:
    for name, content in {"a.csv": "", "b.csv": "id,text\n", "c.jsonl": "", "d.jsonl": "\n \n"}.items():
        assert read(write(name, content))[0] == b""
        with pytest.raises(CorpusError, match=r"^[abcd]\.(csv|jsonl): (the text is empty|there is no word in it)"):
            encode(name, min_count=1)


def test_an_unknown_dialect_is_not_guessed_wrong() -> None:
    assert find_dialect("id;text\n1;a, b, c\n2;d, e, f\n").delimiter == ";"
    assert find_dialect("a b\nc d\n").delimiter == "\x1f"
    assert looks_like_table("id,name,text\n" + "1,a,b\n" * 9)
    assert not looks_like_table("Well, well, said he.\nNo, said she\nand left, as ever, in haste\nand so on\n" * 3)


# ---- JSON Lines -----------------------------------------------------------------------------------------------------


def json_lines(**more: Any) -> str:
    records = [
        {"id": id, "text": text, "meta": {"date": date, "rating": int(rating)}, **more}
        for id, date, rating, text in REVIEWS
    ]
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz", "a.txt"])
def test_nested_fields(write: Callable[..., Path], name: str) -> None:
    content = json_lines().encode()
    path = write(name, gzip.compress(content) if name.endswith("gz") else content)
    options: dict[str, Any] = {"format": "jsonl"} if name == "a.txt" else {}
    data, ids, notes, fields = read(path, id_field="id", keep_fields=["meta.rating"], **options)
    assert data == lines([review[3] for review in REVIEWS])
    assert ids == ["H-1", "H-2", "H-3", "H-4"]
    assert fields == [{"meta.rating": 5}, {"meta.rating": 1}, {"meta.rating": 4}, {"meta.rating": 2}]
    assert notes == [f"{name}: columns: id, text, meta.date, meta.rating; text from 'text', ids from 'id'"]


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.text(), json_values), min_size=1, max_size=10), st.booleans())
def test_any_record_is_read_as_it_was_written(records: list[tuple[str, Any]], ascii: bool) -> None:
    values = [{"text": text, "more": more} for text, more in records]
    block = "".join(f"{json.dumps(value, ensure_ascii=ascii)}\r\n" for value in values)
    block = block.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    options = TextOptions(text_field="text")
    data, _, _ = documents(read_json_lines([block], Reading("a.jsonl", options)))
    again = [json.loads(line)["text"] for line in block.split("\n")[:-1]]
    assert data == lines([valid_text(text) for text in again])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("17", "a number instead of an object"),
        ("null", "null instead of an object"),
        ('["a"]', "a list instead of an object"),
        ('{"text": 5}', "'text' is a number instead of a string"),
        ('{"text": ["a"]}', "'text' is a list instead of a string"),
        ('{"other": "a"}', "there is no field 'text'"),
        ('{"text": "a', "not JSON (unterminated string starting at)"),
        ('{"text": "a"} {"text": "b"}', "more than one JSON value"),
        ("", None),
        ("   \t", None),
        ("text", "not JSON (not a value)"),
        ("[" * 100_000, "JSON that is nested too deeply"),
        ('{"text": ' + "9" * 5000 + "}", "not JSON"),
    ],
)
def test_malformed_lines(write: Callable[..., Path], line: str, reason: str | None) -> None:
    path = write("a.jsonl", f'{{"text": null}}\n{line}\n{{"text": "b"}}\n')
    assert read(path, on_error="skip")[0] == b"\nb\n"
    if reason is None:
        assert read(path)[0] == b"\nb\n"
    else:
        assert f"1 record is malformed: a.jsonl, line 2: {reason}" in refusal(path)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ('"a"', None),
        ("7", None),
        ("1.5", "the id 'id' is a number instead of a string or a whole number"),
        ("true", "the id 'id' is a truth value instead"),
        ("null", "the id 'id' is null instead"),
        ('""', "the id is empty"),
        ('"a\\nb"', "the id holds a line break or a NUL"),
        ('"\\ud800"', "the id holds half of a surrogate pair"),
    ],
)
def test_ids_of_records(write: Callable[..., Path], value: str, reason: str | None) -> None:
    path = write("a.jsonl", f'{{"id": {value}, "text": "x"}}\n')
    if reason is None:
        assert read(path, id_field="id")[1] == [str(json.loads(value))]
    else:
        assert reason in refusal(path, id_field="id")


def test_several_text_fields_are_joined(write: Callable[..., Path]) -> None:
    path = write("a.jsonl", '{"title": "A", "body": "b"}\n{"title": null, "body": "c"}\n')
    assert read(path, text_field=["title", "body"])[0] == b"A b\n c\n"
    path = write("a.csv", "title,body\nA,b\n,c\n")
    assert read(path, text_field=["title", "body"])[0] == b"A b\n c\n"


# ---- columns, options, joined texts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        ({"id": 2.0, "Text": 3.0}, "Text"),
        ({"content": 90.0, "body": 5.0}, "body"),
        ({"id": 8.0, "review": 31.0}, "review"),
        ({"id": 8.0, "review": 30.0}, None),
        ({"question": 40.0, "answer": 50.0}, None),
        ({"only": 3.0}, None),
    ],
)
def test_the_text_column(found: dict[str, float], chosen: str | None) -> None:
    if chosen is None:
        with pytest.raises(CorpusError, match="choose one with text_field="):
            choose_columns("a.csv", found, TextOptions())
    else:
        assert choose_columns("a.csv", found, TextOptions()).text == (chosen,)


def test_the_usual_columns_are_taken_where_a_table_has_them() -> None:
    found = {"key": 3.0, "text": 90.0, "review": 5.0}
    options = TextOptions(usual=Columns(("review",), "key"))
    assert choose_columns("a.csv", found, options) == Columns(("review",), "key", usual=True)
    assert choose_columns("a.csv", {"id": 3.0, "text": 90.0}, options) == Columns(("text",), None)
    chosen = TextOptions(text_field="text", id_field="review", usual=options.usual)
    assert choose_columns("a.csv", found, chosen) == Columns(("text",), "review")
    assert options == TextOptions()
    assert options.to_dict() == TextOptions().to_dict()


@pytest.mark.parametrize(
    "options",
    [
        {"format": "xml"},
        {"on_error": "ignore"},
        {"text_field": 3},
        {"text_field": [""]},
        {"id_field": ""},
        {"one_file_per_document": True, "id_field": "id"},
    ],
)
def test_impossible_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TextOptions(**options)


@given(st.lists(st.text(), max_size=8))
def test_joined_documents_are_lines(texts: list[str]) -> None:
    data, n_changed = join_documents(texts)
    clean = [valid_text(text) for text in texts]
    assert data == lines(clean)
    assert n_changed == sum(a != b for a, b in zip(clean, texts, strict=True))


@given(st.text())
def test_an_id_without_a_fault_is_one_line_of_a_file(value: str) -> None:
    if id_fault(value) is None:
        assert value.encode().decode().split("\n") == [value] != [""]


# ---- files ----------------------------------------------------------------------------------------------------------


def test_one_file_per_document(write: Callable[..., Path]) -> None:
    write("texts/b/2.txt", "second\r\ndocument\n")
    write("texts/1.txt", "first\n\ndocument")
    write("texts/3.txt", "")
    data, _, notes, _ = read("texts", one_file_per_document=True)
    assert data == b"first  document\n\nsecond\r document \n"
    assert notes == []
    with encode("texts", min_count=1, options=TextOptions(one_file_per_document=True)) as corpus:
        assert list(corpus.doc_ids) == ["1.txt", "3.txt", os.path.join("b", "2.txt")]
        assert [len(corpus[row]) for row in range(3)] == [2, 0, 2]


def test_a_large_file_as_one_document(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "PIECE", 1000)
    monkeypatch.setattr(reader, "_SMALLEST_BLOCK", 500)
    write("book.txt", "a line of words\n" * 1000)
    with encode("book.txt", min_count=1, options=TextOptions(one_file_per_document=True)) as corpus:
        assert list(corpus.doc_ids) == ["book.txt"]
        assert corpus.n_tokens == 4000


def test_a_link_counts_once(write: Callable[..., Path]) -> None:
    write("texts/a.txt", "a\n")
    os.symlink("a.txt", "texts/b.txt")
    notes: list[str] = []
    assert [source.name for source in find_sources("texts", notes.append)] == [os.path.join("texts", "a.txt")]
    assert notes == ["texts/b.txt: is the same file as texts/a.txt, which is read once"]


def test_spreadsheets_are_told_how_to_become_csv(write: Callable[..., Path]) -> None:
    assert refusal(write("a.xlsx", "PK")) == ("a.xlsx: spreadsheets are not read; save the sheet as CSV (UTF-8) first")


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("a\rb\rc\r", "lines end in carriage returns"),
        ('{"a": 1}\n{"a": 2}\n', "looks like JSON Lines"),
        ('[\n {"a": 1},\n {"a": 2}\n]\n', "looks like a JSON list"),
        ("id,name,text\n" + "1,a,b\n" * 9, "looks like a table"),
        ("label\ttext\n" + "1\ta, b\n" * 9, "looks like a table"),
        ("one word after the other " * 1000, "all of it is one line, so it is one document"),
        ("to be, or not to be,\nthat is the question\n" * 9, None),
        ("a short text\n", None),
    ],
)
def test_hints_about_plain_text(write: Callable[..., Path], content: str, hint: str | None) -> None:
    notes = read(write("a.txt", content))[2]
    assert len(notes) == (hint is not None)
    assert hint is None or notes[0].startswith(f"a.txt: {hint}")
    assert read("a.txt", format="text")[2] == []


def test_a_json_list_is_no_text(write: Callable[..., Path]) -> None:
    path = write("a.json", '[{"text": "a b"},\n{"text": "c"}]\n')
    assert "a.json: is a JSON list, which is not read; write one object per line" in refusal(path)
    assert read(path, format="text")[0].count(b"\n") == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"text": "a b"}\n{"text": "c"}\n', "is JSON Lines by its content; format='jsonl' reads its records"),
        ('{\n "data": [1]\n}\n', "is a JSON object, which is not read"),
    ],
)
def test_json_of_other_shapes_is_no_text(write: Callable[..., Path], content: str, says: str) -> None:
    path = write("a.json.gz", gzip.compress(content.encode()))
    assert f"a.json.gz: {says}" in refusal(path)
    assert read(path, format="text")[0].count(b"\n") == content.count("\n")


def test_a_json_list_is_no_json_lines(write: Callable[..., Path]) -> None:
    path = write("a.jsonl", '[\n{"text": "a b"},\n{"text": "c"}\n]\n')
    assert refusal(path) == "a.jsonl: is a JSON list, which is not read; write one object per line (jq -c '.[]')"


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"PK\x03\x04\x14\x00", "a ZIP archive or an Office document; unpack it"),
        (b"\xd0\xcf\x11\xe0\xa1\x00", "an old Office document; save it as text"),
        (b"%PDF-1.4\n" + b"x" * 600 + b"\0", "a PDF; extract its text first"),
        (b"PAR1\x15\x00", "a Parquet file; format='parquet' reads it"),
        (b"a.txt".ljust(257, b"\0") + b"ustar", "a tar archive; unpack it"),
        (gzip.compress(b"a.txt".ljust(257, b"\0") + b"ustar", mtime=0), "a tar archive; unpack it"),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_files_of_other_programs_are_named(write: Callable[..., Path], name: str, head: bytes, says: str) -> None:
    assert refusal(write(name, head)).startswith(f"{name}: this is {says}")


@pytest.mark.parametrize(
    "table",
    [
        "".join(f"{n},the text of the document number {n} which is long\n" for n in range(9)),
        "".join(f"{'good' if n % 2 else 'bad'},the text of the document number {n} which is long\n" for n in range(9)),
        "a text " * 30 + "\n" + "another text " * 30 + "\n",
    ],
)
def test_a_table_without_column_names_is_noticed(write: Callable[..., Path], table: str) -> None:
    notes = read(write("a.csv", table))[2]
    assert [note.startswith("a.csv: the first line looks like a record") for note in notes] == [False, True]
    assert len(read(write("b.csv", f"id{(',' in table and ',text') or ''}\n{table}"))[2]) == 1


def test_a_long_question_is_a_column_name(write: Callable[..., Path]) -> None:
    name = "What did you like most about the product that you bought from us?"
    assert (
        len(read(write("a.csv", f'"When","{name}"\n' + '2024-01-01,"the colour of it and also the smell"\n' * 5))[2])
        == 1
    )


def test_tables_with_other_columns_are_named_too(write: Callable[..., Path]) -> None:
    for name in ("a", "b"):
        write(f"tables/{name}.csv", "id,text\n1,one\n")
    for name in ("c", "d"):
        write(f"tables/{name}.csv", "id,body\n1,one\n")
    notes = read("tables")[2]
    assert [note.split(": ")[0] for note in notes] == [os.path.join("tables", "a.csv"), os.path.join("tables", "c.csv")]
    assert "text from 'body'" in notes[1]


def test_the_only_text_may_be_kept_as_a_field(write: Callable[..., Path]) -> None:
    path = write("a.csv", "id,review\n" + "1,a review with more than thirty characters in it\n")
    assert read(path, keep_fields="review")[0].startswith(b"a review")


def test_a_hint_about_small_files(write: Callable[..., Path]) -> None:
    for number in range(6):
        write(f"texts/{number}.txt", "two\nlines\n")
    assert read("texts")[2] == [
        "6 files were read as 12 documents, one per line; one_file_per_document=True makes each file one document"
    ]


def test_wide_text_without_a_mark(write: Callable[..., Path]) -> None:
    assert "this is UTF-16 or UTF-32 text" in refusal(write("a.txt", "the quick brown fox".encode("utf-16-le")))
    assert "this is UTF-16 or UTF-32 text" in refusal(write("a.csv", "id,text\n1,a b\n".encode("utf-16")))


def test_invalid_utf8_in_records_is_counted(write: Callable[..., Path]) -> None:
    write("a.csv", b"id,text\n1,a\xff\n2,b\n")
    with encode("a.csv", min_count=1) as corpus:
        assert corpus.statistics.invalid_utf8_lines == 1
        assert corpus.statistics.n_documents == 2
