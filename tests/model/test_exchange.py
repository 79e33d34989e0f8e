"""Other programs read our vectors and we read theirs; a damaged file is refused by name and place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jose_embed.errors import ConfigError, JoseError, ModelError
from jose_embed.model import exchange as formats
from jose_embed.model.embeddings import Embeddings
from jose_embed.model.exchange import FORMATS, export, format_of, read_safetensors, read_vectors, write_vectors

SUFFIX = {"word2vec": ".txt", "word2vec-binary": ".bin", "safetensors": ".safetensors"}
NAMES = ["the", "naïve", "</s>", "日本語", "\u2028"]


def rows(n: int, dim: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


@pytest.fixture
def model() -> Embeddings:
    def units(n: int, seed: int) -> np.ndarray:
        table = rows(n, seed=seed)
        return (table / np.linalg.norm(table.astype(np.float64), axis=1, keepdims=True)).astype(np.float32)

    return Embeddings.from_arrays(
        words=NAMES,
        counts=[5, 4, 3, 2, 1],
        center_vectors=units(5, 1),
        context_vectors=units(5, 2),
        doc_ids=["1", "2"],
        doc_vectors=units(2, 3),
    )


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("table", ["center", "context", "documents"])
def test_a_model_is_exported(tmp_path: Path, model: Embeddings, format: str, table: str) -> None:
    path = tmp_path / f"v{SUFFIX[format]}"
    export(model, path, table=table)
    names, vectors = read_vectors(path)
    expected = {"center": model.center_vectors, "context": model.context_vectors, "documents": model.doc_vectors}[table]
    assert names == (["1", "2"] if table == "documents" else NAMES)
    np.testing.assert_array_equal(vectors, expected)
    assert vectors.dtype == np.float32
    with pytest.raises(ModelError, match="already exists"):
        export(model, path, table=table)
    export(model, path, table=table, overwrite=True)
    assert os.listdir(tmp_path) == [path.name]


def test_the_text_format_is_what_it_is_known_to_be(tmp_path: Path) -> None:
    write_vectors(tmp_path / "v.vec", ["a", "b"], np.float32([[1, -0.5], [0.1, 1e-30]]))
    assert (tmp_path / "v.vec").read_bytes() == b"2 2\na 1 -0.5\nb 0.100000001 1e-30\n"


def test_the_binary_format_is_what_it_is_known_to_be(tmp_path: Path) -> None:
    write_vectors(tmp_path / "v.bin", ["a", "é"], np.float32([[1, 2], [3, 4]]))
    numbers = np.array([1, 2, 3, 4], "<f4").tobytes()
    assert (tmp_path / "v.bin").read_bytes() == b"2 2\na " + numbers[:8] + b"\n\xc3\xa9 " + numbers[8:] + b"\n"


def test_the_safetensors_format_is_what_it_is_known_to_be(tmp_path: Path, model: Embeddings) -> None:
    export(model, tmp_path / "v.safetensors")
    data = (tmp_path / "v.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    header = json.loads(data[8 : 8 + length])
    assert header["__metadata__"] == {"format": "jose-embed", "table": "center", "model": model.id}
    assert header["vectors"] == {"dtype": "F32", "shape": [5, 3], "data_offsets": [0, 60]}
    assert data[8 + length : 68 + length] == model.center_vectors.tobytes()
    assert data[68 + length :].decode().split("\n") == [*NAMES, ""]
    tensors, about = read_safetensors(tmp_path / "v.safetensors")
    assert about == header["__metadata__"]
    assert not tensors["vectors"].flags.writeable


def test_the_safetensors_package_agrees(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    table = rows(4)
    write_vectors(tmp_path / "v.safetensors", list("abcd"), table)
    np.testing.assert_array_equal(safetensors.load_file(tmp_path / "v.safetensors")["vectors"], table)
    theirs = {"a": np.arange(6, dtype=np.int64).reshape(2, 3), "b": np.array(1.5, np.float16), "c": np.zeros((0, 2))}
    safetensors.save_file(theirs, tmp_path / "theirs.safetensors", {"k": "v"})
    tensors, about = read_safetensors(tmp_path / "theirs.safetensors")
    assert about == {"k": "v"}
    assert tensors.keys() == theirs.keys()
    for name in theirs:
        np.testing.assert_array_equal(tensors[name], theirs[name])


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.filterwarnings("ignore")  # gensim's imports
def test_gensim_agrees(tmp_path: Path, binary: bool) -> None:
    models = pytest.importorskip("gensim.models")
    table = rows(4)
    ours, theirs = tmp_path / "ours.bin", tmp_path / "theirs.bin"
    names = ["the", "naïve", "</s>", "日本語"]
    write_vectors(ours, names, table, format="word2vec-binary" if binary else "word2vec")
    vectors = models.KeyedVectors.load_word2vec_format(str(ours), binary=binary)
    assert vectors.index_to_key == names
    np.testing.assert_array_equal(vectors.vectors, table)
    vectors.save_word2vec_format(str(theirs), binary=binary)
    back = read_vectors(theirs, format="word2vec-binary" if binary else "word2vec")
    assert back.names == names
    np.testing.assert_array_equal(back.vectors, table)


names_of_words = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=" \t\n\v\f\r"), min_size=1, max_size=8
)


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=40)
@given(data=st.data())
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, format: str, data: st.DataObject) -> None:
    names = data.draw(st.lists(names_of_words, max_size=6, unique=True))
    dim = data.draw(st.integers(1, 5))
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    table = data.draw(hnp.arrays(np.float32, (len(names), dim), elements=finite))
    path = tmp_path_factory.getbasetemp() / f"again{SUFFIX[format]}"
    write_vectors(path, names, table, overwrite=True)
    read = read_vectors(path)
    assert list(read.names) == names
    np.testing.assert_array_equal(read.vectors, table)


@pytest.mark.parametrize("format", FORMATS)
def test_rows_go_block_by_block(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jose_embed.storage.columns.BLOCK_BYTES", 5 * 12)
    names, table = [f"w{i}" for i in range(103)], rows(103)
    write_vectors(tmp_path / "v", names, table, format=format)
    read = read_vectors(tmp_path / "v", format=format)
    assert list(read.names) == names
    np.testing.assert_array_equal(read.vectors, table)


def test_text_of_other_programs_is_read(tmp_path: Path) -> None:
    for text in (
        b"a 1 2\nb 3 4\n",  # GloVe: no first line
        b"a 1 2\nb 3 4",  # no last line end
        b"2 2\na 1 2 \nb 3 4 \n",  # fastText: a space at the end
        b"2 2\r\na 1 2\r\nb 3 4\r\n",
        b"2 2\na 1.0 2e0\nb +3 4.\n",
    ):
        (tmp_path / "v.txt").write_bytes(text)
        names, vectors = read_vectors(tmp_path / "v.txt")
        assert names == ["a", "b"], text
        np.testing.assert_array_equal(vectors, [[1, 2], [3, 4]])
    many = b"".join(b"w%d %d 1\n" % (i, i) for i in range(3000))
    (tmp_path / "v.txt").write_bytes(many)
    np.testing.assert_array_equal(read_vectors(tmp_path / "v.txt").vectors[:, 0], np.arange(3000))
    (tmp_path / "v.txt").write_bytes(b"1 2\nnew york 1 2\n")
    assert read_vectors(tmp_path / "v.txt").names == ["new york"]


def test_binary_of_the_first_program_is_read(tmp_path: Path) -> None:
    numbers = np.array([1, 2, 3, 4], "<f4").tobytes()
    (tmp_path / "v.bin").write_bytes(b"2 2\na " + numbers[:8] + b"b " + numbers[8:])  # GoogleNews: no line ends
    names, vectors = read_vectors(tmp_path / "v.bin")
    assert names == ["a", "b"]
    np.testing.assert_array_equal(vectors, [[1, 2], [3, 4]])


@pytest.mark.parametrize("name", ["", "a b", "a\tb", "a\nb", "\r", "\ud800"])
def test_names_that_a_format_cannot_express_are_refused(tmp_path: Path, name: str) -> None:
    for format in ("word2vec", "word2vec-binary"):
        with pytest.raises(ModelError, match=r"export to safetensors instead|lone surrogate"):
            write_vectors(tmp_path / "v", ["ok", name], rows(2), format=format)
    assert os.listdir(tmp_path) == []
    if name not in ("a\nb", "\ud800"):
        write_vectors(tmp_path / "v.safetensors", ["ok", name], rows(2))
        assert read_vectors(tmp_path / "v.safetensors").names == ["ok", name]


def test_what_is_no_table_or_format_is_refused(tmp_path: Path, model: Embeddings) -> None:
    with pytest.raises(ConfigError, match=r"v\.xml: no format has the ending '\.xml'; use \.txt, \.vec"):
        export(model, tmp_path / "v.xml")
    with pytest.raises(ConfigError, match="format is 'xml'; it must be one of word2vec, word2vec-binary, safetensors"):
        export(model, tmp_path / "v", format="xml")
    with pytest.raises(ConfigError, match="format is 'csv'"):
        read_vectors(tmp_path / "v", format="csv")
    with pytest.raises(ConfigError, match="table is 'words'; it must be one of center, context, documents"):
        export(model, tmp_path / "v.txt", table="words")
    for names, table in [(["a"], rows(2)), (["a", "b"], rows(2).astype(np.float64)), (["a", "b"], rows(2)[0])]:
        with pytest.raises(ModelError, match="are not a table; it must have one name for each float32 row"):
            write_vectors(tmp_path / "v.txt", names, table)
    assert format_of("A.VEC") == "word2vec"
    assert os.listdir(tmp_path) == []


TEXTS: list[tuple[bytes, str]] = [
    (b"", "its first line is not a name and numbers"),
    (b"word\n", "its first line is not a name and numbers"),
    (b"2 2\na 1 2\n", "has 1 rows, but its first line says 2"),
    (b"1 2\na 1 2\nb 3 4\n", "line 3 is not a name and 2 numbers, or one line too many"),
    (b"1 2\na 1\n", "line 2 is not a name and 2 numbers"),
    (b"1 2\n 1 2\n", "line 2 is not a name and 2 numbers"),
    (b"a 1 2\nb 1\n", "line 2 is not a name and 2 numbers"),
    (b"1 2\na 1 x\n", "line 2 holds no number or text that is not UTF-8"),
    (b"1 2\n\xff 1 2\n", "line 2 holds no number or text that is not UTF-8"),
    (b"1 2\na 1 nan\n", "row 0 holds a NaN or an infinity"),
    (b"1 2\na 1 1e99\n", "row 0 holds a NaN or an infinity"),
    (b"2 2\na 1 2\na 1 2\n", "the name 'a' occurs twice"),
    (b"999999999999 100\na 1 2\n", "its first line says 999999999999 rows of 100 numbers, which do not fit"),
    (b"1 0\na\n", "its first line says 1 rows of 0 numbers"),
]
NUMBER = np.array([1], "<f4").tobytes()
BINARIES: list[tuple[bytes, str]] = [
    (b"", "its first line is not a number of rows and of dimensions"),
    (b"x y\n", "its first line is not"),
    (b"\xff" * 100, "its first line is not"),
    (b"2 1\na " + NUMBER + b"\nbcdef", "ends or is damaged in row 1 of 2"),
    (b"2 1\na " + NUMBER + b"\nb " + NUMBER[:3], "ends or is damaged in row 1 of 2"),
    (b"1 1\na " + NUMBER + b"\nb " + NUMBER, "continues after its 1 rows"),
    (b"1 1\n\xff " + NUMBER + b"\n", "row 0 has a name that is not UTF-8"),
    (b"99999999 100\na " + NUMBER, "which do not fit into 19 bytes"),
    (b"2 1\na " + NUMBER + b"\na " + NUMBER, "the name 'a' occurs twice"),
    (b"1 1\na " + np.array([np.nan], "<f4").tobytes(), "row 0 holds a NaN"),
]


@pytest.mark.parametrize(("data", "message"), TEXTS)
def test_damaged_text_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "v.txt").write_bytes(data)
    with pytest.raises(ModelError, match=r"v\.txt: .*" + message):
        read_vectors(tmp_path / "v.txt")


@pytest.mark.parametrize(("data", "message"), BINARIES)
def test_damaged_binary_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "v.bin").write_bytes(data)
    with pytest.raises(ModelError, match=r"v\.bin: .*" + message):
        read_vectors(tmp_path / "v.bin")


def test_a_line_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_LONGEST_LINE", 1000)
    (tmp_path / "v.txt").write_bytes(b"x" * 5000)
    with pytest.raises(ModelError, match=r"has a line of 1.0 kB"):
        read_vectors(tmp_path / "v.txt")


def safetensors_of(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        safetensors_of({}, length=3),
        safetensors_of({}, length=2**63),
        safetensors_of(b"[]"),
        safetensors_of(b"{" * 9),
        safetensors_of(b"[" * 100_000),
        safetensors_of(b"\xff"),
        safetensors_of({"a": 1}),
        safetensors_of({"a": {}}),
        safetensors_of({"__metadata__": {"a": 1}}),
        safetensors_of({"a": tensor("BF16")}, NUMBER),
        safetensors_of({"a": tensor(["F32"])}, NUMBER),
        safetensors_of({"a": tensor(shape=[2])}, NUMBER),
        safetensors_of({"a": tensor(shape=[-1])}, NUMBER),
        safetensors_of({"a": tensor(shape=[1.0])}, NUMBER),
        safetensors_of({"a": tensor(shape=[True])}, NUMBER),
        safetensors_of({"a": tensor(shape=None)}, NUMBER),
        safetensors_of({"a": tensor(offsets=[0])}, NUMBER),
        safetensors_of({"a": tensor(offsets=[-4, 0])}, NUMBER),
        safetensors_of({"a": tensor(shape=[2**40, 2**40], offsets=[0, 2**82])}, NUMBER),
        safetensors_of({"a": tensor(offsets=[0, 8], shape=[2])}, NUMBER),
        safetensors_of({"a": tensor(offsets=[4, 8])}, NUMBER * 2),
        safetensors_of({"a": tensor(), "b": tensor()}, NUMBER),
        safetensors_of({"a": tensor()}, NUMBER + b"x"),
        safetensors_of(
            b'{"a":' + json.dumps(tensor()).encode() + b',"a":' + json.dumps(tensor()).encode() + b"}", NUMBER
        ),
    ],
)
def test_damaged_safetensors_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "v.safetensors").write_bytes(data)
    with pytest.raises(
        ModelError, match=r"v\.safetensors: (is not a safetensors file|has a damaged safetensors header)"
    ):
        read_safetensors(tmp_path / "v.safetensors")


def test_safetensors_without_our_tensors_are_refused(tmp_path: Path) -> None:
    for header, data, message in [
        ({"a": tensor()}, NUMBER, "lacks a tensor 'vectors'"),
        (
            {"vectors": tensor(shape=[1, 1]), "names": tensor("U8", [4], [4, 8])},
            NUMBER + b"a\nb\n",
            "has 2 names for 1 vectors",
        ),
        (
            {"vectors": tensor(shape=[1, 1]), "names": tensor("U8", [4], [4, 8])},
            NUMBER + b"a\xffb\n",
            "is not UTF-8 at byte 1",
        ),
    ]:
        (tmp_path / "v.safetensors").write_bytes(safetensors_of(header, data))
        with pytest.raises(ModelError, match=message):
            read_vectors(tmp_path / "v.safetensors")


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=40)
@given(data=st.data())
def test_no_bytes_break_a_reader(tmp_path_factory: pytest.TempPathFactory, format: str, data: st.DataObject) -> None:
    """A good file with a piece of it replaced, or anything at all: vectors, or one line about it."""
    path = tmp_path_factory.getbasetemp() / f"fuzzed{SUFFIX[format]}"
    if data.draw(st.booleans()):
        write_vectors(path, NAMES, rows(5), overwrite=True)
        good = path.read_bytes()
        at = data.draw(st.integers(0, len(good)))
        end = data.draw(st.integers(at, min(len(good), at + 20)))
        path.write_bytes(good[:at] + data.draw(st.binary(max_size=20)) + good[end:])
    else:
        path.write_bytes(data.draw(st.binary(max_size=100)))
    try:
        names, vectors = read_vectors(path)
    except JoseError as error:
        message = str(error)
        assert "\n" not in message
        assert path.name in message
    else:
        assert len(names) == len(vectors)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.txt: there is no such file; name a file of vectors"):
        read_vectors(tmp_path / "none.txt")
    (tmp_path / "d.bin").mkdir()
    with pytest.raises(ModelError, match=r"d\.bin: is a directory"):
        read_vectors(tmp_path / "d.bin")


@pytest.mark.parametrize("suffix", [".vec", ".bin", ".safetensors", ".parquet", ".npy"])
@pytest.mark.parametrize(
    "view",
    [lambda a: a.T, np.asfortranarray, lambda a: a[:, 2:7], lambda a: a[::-1], lambda a: a[::3, ::-2]],
    ids=["transposed", "fortran", "columns", "reversed", "both"],
)
def test_views_keep_their_values(suffix: str, view: Callable[[Any], Any], tmp_path: Path) -> None:
    """The library safetensors 0.8.0 writes other values for such arrays."""
    vectors = view(np.random.default_rng(0).normal(size=(12, 12)).astype(np.float32))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)  # in place: a view stays one
    names = [f"w{row}" for row in range(len(vectors))]
    path = tmp_path / f"vectors{suffix}"
    counts = np.ones(len(names), np.int64)
    model = Embeddings.from_arrays(words=names, counts=counts, center_vectors=vectors, context_vectors=vectors)
    export(model, path)
    if suffix == ".npy":
        np.testing.assert_array_equal(np.load(path), vectors)
    elif suffix == ".parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table(path)
        assert table.column_names == ["id", "vector"]
        np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), vectors)
    else:
        np.testing.assert_array_equal(read_vectors(path).vectors, vectors)
