"""Documents from Python: all that people have is taken, and the rest is refused with the sentence that helps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import jose_embed
from jose_embed.errors import ConfigError, CorpusError
from jose_embed.text.documents import given_documents, listed_texts, sources_or_documents
from jose_embed.text.encode import encode_texts
from jose_embed.text.records import TextOptions

TEXTS = ["the cat sat", "a dog", "", "the dog sat"]
IDS = ["w", "x", "y", "z"]


class Dataset:
    """What a ``datasets.Dataset`` shows of itself."""

    def __init__(self, **columns: list[Any]) -> None:
        self._columns = columns
        self.column_names = list(columns)
        self.features = dict.fromkeys(columns)

    def __len__(self) -> int:
        return len(self._columns[self.column_names[0]])

    def __getitem__(self, name: str) -> list[Any]:
        return self._columns[name]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in range(len(self)):
            assert row < 200, "not all the rows are needed"
            yield {name: column[row] for name, column in self._columns.items()}


class IterableDataset:
    """What a ``datasets.IterableDataset`` shows of itself."""

    column_names = features = None

    def __init__(self, **columns: list[Any]) -> None:
        self._rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._rows)


@pytest.mark.parametrize(
    "make",
    [
        list, tuple, iter, np.array, lambda texts: np.array(texts, object), pd.Series, pl.Series,
        lambda texts: pd.Series(texts, dtype="string"), lambda texts: pd.Series(texts, index=[9, 8, 7, 6]),
        lambda texts: pd.Series(texts).astype("category"), lambda texts: (text for text in texts),
        lambda texts: dict(enumerate(texts)).values(), lambda texts: Dataset(number=[1, 2, 3, 4], text=texts),
        lambda texts: Dataset(text=[text or None for text in texts]), pa.array, lambda texts: pa.chunked_array([texts]),
        lambda texts: IterableDataset(number=[1, 2, 3, 4], text=[text or None for text in texts]), pd.Index,
        lambda texts: pd.Series(texts, dtype=pd.ArrowDtype(pa.large_string())),
        lambda texts: pl.Series(texts, dtype=pl.Categorical),
    ],
)  # fmt: skip
def test_what_is_taken(make: Callable[[list[str]], Any]) -> None:
    with encode_texts(make(TEXTS), min_count=1) as corpus:
        assert list(corpus.doc_ids) == ["1", "2", "3", "4"]
        assert [[corpus.vocabulary.words[row] for row in corpus[number]] for number in range(4)] == [
            text.split() for text in TEXTS
        ]


@pytest.mark.parametrize("ids", [IDS, tuple(IDS), iter(IDS), pd.Series(IDS), pl.Series(IDS), np.array(IDS)])
def test_ids(ids: Any) -> None:
    with encode_texts(pd.Series(TEXTS), ids=ids, min_count=1) as corpus:
        assert list(corpus.doc_ids) == IDS
    with encode_texts(dict(zip(IDS, TEXTS, strict=True)), min_count=1) as corpus:
        assert list(corpus.doc_ids) == IDS
    for kind in (Dataset, IterableDataset):
        with encode_texts(kind(key=IDS, text=TEXTS), min_count=1, options=TextOptions(id_field="key")) as corpus:
            assert list(corpus.doc_ids) == IDS


def test_columns_of_documents_that_have_none_are_refused() -> None:
    for options in (TextOptions(text_field="a"), TextOptions(id_field="a"), TextOptions(keep_fields="a")):
        with pytest.raises(CorpusError, match="name columns, and these documents have none; leave them out"):
            encode_texts(TEXTS, min_count=1, options=options)
    with pytest.raises(CorpusError, match="keep_fields keeps columns of files; save the data set"):
        encode_texts(Dataset(text=TEXTS, rating=[1, 2, 3, 4]), min_count=1, options=TextOptions(keep_fields="rating"))


def test_whole_numbers_are_ids() -> None:
    with encode_texts(TEXTS, ids=np.array([10, 20, 30, 40]), min_count=1) as corpus:
        assert list(corpus.doc_ids) == ["10", "20", "30", "40"]
    with encode_texts({7: "a b", 8: "a"}, min_count=1) as corpus:
        assert list(corpus.doc_ids) == ["7", "8"]


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ("one text", "the documents are one string; give a list of strings, one for each document"),
        (b"bytes", "the documents are one string; give a list of strings, one for each document"),
        ({"a", "b"}, "the documents are a set, which has no order; give a list, such as sorted(documents)"),
        (7, "the documents are the number 7; give a list of strings, one for each document"),
        ([], "there are no documents; give at least one"),
        ([b"a"], "document 1 is bytes; decode it first, as with document.decode()"),
        (["a", 7], "document 2 is the number 7; every document must be a string or a list of words"),
        (["a", float("nan")], "document 2 is a missing value (None or NaN); replace it by an empty string, as with"),
        (["a", None], "document 2 is a missing value (None or NaN); replace it by an empty string, as with"),
        (pd.Series(["a", None]), "document 2 is a missing value (None or NaN); replace it by an empty string"),
        (pd.Series(["a", pd.NA], dtype="string"), "document 2 is a missing value (None or NaN); replace it by an"),
        (pl.Series(["a", None]), "document 2 is a missing value (None or NaN); replace it by an empty string"),
        ([{"text": "a"}], "document 1 is of type dict; give its text, as in [record['text'] for record in records]"),
        ([["a", "b"], "c"], "document 2 is of type str, and document 1 is a list of words; give lists"),
        (["a", ["b"]], "document 2 is of type list; every document must be a string or a list of words"),
        ([["a", 1]], "document 1 holds the number 1; its words must be strings"),
        (np.zeros(3), "document 1 is the number"),
        (np.zeros((2, 2)), "the documents are an array of 2 dimensions; give one with one dimension"),
        (pd.DataFrame({"t": ["a"]}), "the documents are a table; give one of its columns, such as table['t']"),
        (pl.DataFrame({"t": [1], "Text": ["a"]}), "the documents are a table; give one of its columns, such as table"),
        (pa.table({"t": ["a"]}), "the documents are a table; give one of its columns, such as table['t']"),
        ({"train": Dataset(text=["a"]), "test": 1}, "the documents are several data sets (train, test); give one of"),
        (Dataset(a=["x"], b=["y"]), "the data set: the column of the text is not known; columns: a, b; choose one"),
    ],
)  # fmt: skip
def test_what_is_refused(documents: Any, message: str) -> None:
    with pytest.raises(CorpusError) as refused:
        encode_texts(documents, min_count=1)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ("abcd", "ids is of type str; give a list with an id for each document"),
        (["a"], "there are 4 documents and 1 ids; give one id for each document"),
        (iter("a"), "there are more documents than ids (1); give one id for each"),
        (iter("abcde"), "there are more ids than documents (4); give one id for each"),
        ({"a", "b", "c", "d"}, "ids must be in the order of the documents; give a list"),
        (["a", "b", "c", 1.5], "the id of document 4 is the number 1.5; give strings or whole numbers"),
        (["a", "b", "c", None], "the id of document 4 is a missing value (None or NaN); give strings or whole"),
        (["a", "b", "c", ""], "document 4: the id is empty; give each document an id of one line"),
        (["a", "b", "c", "d\n"], "document 4: the id holds a line break or a NUL; give each document an id of one"),
        (["a", "b", "c", "b"], "the id 'b' is given twice: document 2, and document 4; ids must differ"),
        (["a" * 9000, "b", "c", "a" * 9000], f"the id '{'a' * 100}' is given twice: document 1, and document 4; ids"),
    ],
)
def test_ids_that_are_refused(ids: Any, message: str) -> None:
    with pytest.raises(CorpusError) as refused:
        encode_texts(TEXTS, ids=ids, min_count=1)
    assert str(refused.value).startswith(message)
    with pytest.raises(CorpusError, match="leave ids out"):
        encode_texts({"a": "b"}, ids=ids)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"a", "b"}, "the documents are a set, which has no order; give a list"),
        (7, "the documents are the number 7; give a list of strings"),
        (pd.DataFrame({"t": ["a"]}), "the documents are a table; give one of its columns, such as table['t']"),
        (["a", None], "text 2 is a missing value (None or NaN); replace it by an empty string"),
        (pd.Series(["a", pd.NA], dtype="string"), "text 2 is a missing value (None or NaN); replace it by an empty"),
        ([float("nan")], "text 1 is a missing value (None or NaN)"),
        ([b"a"], "text 1 is bytes; decode it first, as with document.decode()"),
        ([1.5], "text 1 is the number 1.5; every document must be a string or a list of words"),
        ([{"text": "a"}], "text 1 is of type dict; give its text, as in [record['text'] for record in records]"),
        ([["a", 1]], "text 1 holds the number 1; its words must be strings"),
        ([["a", None]], "text 1 holds a missing value (None or NaN); its words must be strings"),
    ],
)
def test_new_texts_that_are_refused(texts: Any, message: str) -> None:
    with pytest.raises(CorpusError) as refused:
        listed_texts(texts)
    assert str(refused.value).startswith(message)


def test_new_texts_that_are_taken() -> None:
    texts = pd.Series(["b a", "c"], index=[1, 0])  # by position, not by label
    assert listed_texts(texts) == ["b a", "c"]
    assert listed_texts(pl.Series(["a"])) == listed_texts(np.array(["a"])) == listed_texts(iter(["a"])) == ["a"]
    assert listed_texts({"x": "a", "y": ["b", "c"]}) == ["a", ["b", "c"]]
    assert listed_texts(Dataset(text=["a", None])) == ["a", ""]
    assert listed_texts([]) == []


def test_the_index_of_a_column_is_said_not_to_be_used() -> None:
    column = pd.Series(["one text", "another"])
    said = "the index of the column is not used"
    for other in (column[1:], column.set_axis(["x", "y"]), column[::-1]):
        assert (given_documents(other).note or "").startswith(said)
        assert given_documents(other, ids=other.index).note is None
    for plain in (column, column[:1], pl.Series(["a"]), ["a"], {"a": "b"}):
        assert given_documents(plain).note is None


def test_lists_of_words_are_taken_as_they_are() -> None:
    documents = [["New York", "IS", "don't"], ["New York"], []]
    with encode_texts(documents, min_count=1) as corpus:
        assert set(corpus.vocabulary.words) == {"New York", "IS", "don't"}
        assert [len(corpus[row]) for row in range(3)] == [3, 1, 0]
    with pytest.raises(CorpusError, match="a word must have a character and no tab or line break"):
        encode_texts([["a\tb"]], min_count=1)


def test_names_and_documents_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my texts.txt").write_text("a\n")
    names: list[Any] = ["a.txt", Path("a.txt"), ["a.txt", "b.txt"], [Path("a.txt")], ["my texts.txt"]]
    for name in names:
        assert sources_or_documents(name) == (name, None)
    assert sources_or_documents(iter([Path("a.txt")])) == ([Path("a.txt")], None)
    documents: list[Any] = [["the cat", "a dog"], [["a"], ["b"]], pd.Series(["a.txt"]), {"a": "b"}, [1, 2], {"a", "b"}]
    for given in documents:
        found = sources_or_documents(given)
        assert found[0] is None
        assert found[1] is given
    _, texts = sources_or_documents(text for text in ["the cat", "a dog"])
    assert list(texts) == ["the cat", "a dog"]
    assert next(given_documents(["a"]).batches()) == (["a"], None)


def test_training_takes_a_column() -> None:
    column = pd.Series(["red green blue"] * 30 + ["salt pepper sugar"] * 30, index=range(100, 160))
    ids = [f"D-{number}" for number in range(60)]
    model = jose_embed.train(column, ids=ids, min_count=1, epochs=2, dim=8, workers=1)
    assert list(model.doc_ids) == ids
    assert model.similar_documents("D-3", k=1)[0].doc_id in ids
    assert model.similar_documents(index=3, k=1) == model.similar_documents("D-3", k=1)
    words = jose_embed.train([text.split() for text in column], min_count=1, epochs=1, dim=8, workers=1)
    assert words.config.tokenizer == words.tokenizer.name == "whitespace"
    assert set(words.words) == set(model.words)
    with pytest.raises(ConfigError, match=r"ids belong to documents=\.\.\."):
        jose_embed.train("corpus.txt", ids=["a"])


def test_files_and_texts_in_one_list_are_refused_with_one_of_each(tmp_path: Path) -> None:
    file = tmp_path / "a b.txt"
    file.write_text("x\n")
    for given in ([str(file), "a text"], ["a text", str(file), "c"], iter([str(file), "a text"])):
        with pytest.raises(CorpusError, match=r"a b\.txt' is a file, but 'a text' is not; give either files or texts"):
            sources_or_documents(given)
    assert sources_or_documents([str(file)]) == ([str(file)], None)


@pytest.mark.parametrize(
    ("given", "says"),
    [(b"one two", "the text is bytes; give the name of a file"), ([], "the list is empty; give names of files")],
)
def test_what_is_neither_a_name_nor_a_document(given: Any, says: str) -> None:
    with pytest.raises(CorpusError, match=says):
        jose_embed.train(given, progress=False)
