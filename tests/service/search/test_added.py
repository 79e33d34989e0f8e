"""Words and fields of added documents: whatever comes and goes, the answers are those of the documents that live."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import unit_rows

import jose_embed
from jose_embed.model.embeddings import Embeddings
from jose_embed.model.filters import Filter
from service.search import library as libraries
from service.search.added import AddedTexts, StoredText
from service.search.index import IndexOptions
from service.search.library import Entry, Library

TEXTS = ["red fox red", "green fox", "blue whale whale", "red whale", "green green apple", "blue"]


@pytest.fixture(scope="module")
def model() -> Embeddings:
    return jose_embed.train(documents=TEXTS * 3, keep_text=True, dim=6, epochs=2, min_count=1, workers=1)


@dataclass
class Source:
    """The documents file: serial, text, fields."""

    stored: dict[int, tuple[str, str]] = field(default_factory=dict)

    def texts(self, after: int) -> list[StoredText]:
        return [StoredText(serial, *self.stored[serial]) for serial in sorted(self.stored) if serial > after][:2]


CHANGES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.booleans()), max_size=25)


@given(changes=CHANGES, look=st.integers(1, 5))
def test_answers_are_those_of_the_living_documents(
    model: Embeddings, changes: list[tuple[int, int, bool]], look: int
) -> None:
    search = model.document_search
    question = search.question("red whale zebra", inflected=False)
    filter = Filter.parse("stars >= 2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(libraries, "TAIL_ROWS", 3)
        library, source, texts = Library(6, IndexOptions()), Source(), AddedTexts(search)
        now: dict[str, tuple[int, str]] = {}
        for serial, (id, which, deleted) in enumerate(changes, 1):
            name = f"n{id}"
            dead = [now.pop(name)[0]] if name in now else []
            for gone in dead:
                del source.stored[gone]
            added = []
            if not deleted:
                text = f"{TEXTS[which]} zebra"
                source.stored[serial] = (text, json.dumps({"stars": which}))
                now[name] = (serial, text)
                added = [Entry(serial, name, unit_rows(1, 6, which)[0])]
            library = library.changed(added, dead)
            if serial % look == 0 and (merge := library.merge()) is not None:
                library = library.merged(merge, merge.run())
            if serial % look == 0:
                texts.of(library, source)
        found = texts.of(library, source)
    expected = sorted((serial, id, text) for id, (serial, text) in now.items())
    assert [found.id(place) for place in range(len(found))] == [id for _, id, _ in expected]
    stars = [json.loads(source.stored[serial][1])["stars"] for serial, *_ in expected]
    assert found.fitting(filter).tolist() == [n >= 2 for n in stars]
    assert [fields["stars"] for fields in found.fields(np.arange(len(found)))] == stars
    vectors = found.vectors(range(len(found)))
    assert np.array_equal(vectors, np.array([unit_rows(1, 6, n)[0] for n in stars]).reshape(-1, 6))
    # The texts were those of trained documents but for one word, which no trained document has.
    by_words = found.by_words(question)
    for at, (_, _, text) in enumerate(expected):
        words, index = text.split(), search.words
        discount = index.discounts(np.array([len(words)]))[0]
        counts = {word: words.count(word) for word in ("red", "whale", "zebra")}
        score = sum(index.idf(_n(word)) * 2.2 * n / (n + discount) for word, n in counts.items())
        assert by_words[at] == pytest.approx(score, rel=1e-5)
    vector = model.infer(["red whale"])[0]
    at, scores = found.nearest(vector, 2, np.ones(len(found), np.bool_), as_question=True)
    cosines = found.cosines(vector, np.arange(len(found)))
    assert found.cosines(vector, np.arange(0, len(found), 2)).tolist() == pytest.approx(cosines[::2].tolist(), abs=1e-6)
    assert found.sum_of_cosines(vector) == pytest.approx(float(cosines.sum()), abs=1e-5)
    assert scores == pytest.approx(sorted(cosines.tolist(), reverse=True)[:2], abs=1e-5)
    assert found.nearest(vector, 2, np.zeros(len(found), np.bool_), as_question=False) == ([], [])


def _n(word: str) -> int:
    return 3 * sum(word in text.split() for text in TEXTS)


def test_another_file_is_read_anew(model: Embeddings) -> None:
    texts = AddedTexts(model.document_search)
    library = Library(6, IndexOptions()).changed([Entry(1, "a", unit_rows(1, 6, 1)[0])], [])
    question = model.document_search.question("zebra")
    for text in ("zebra", "apple"):
        found = texts.of(library, Source({1: (text, "{}")}))
        assert (found.by_words(question) > 0).tolist() == [text == "zebra"]


def test_a_question_goes_on_with_what_it_began_with(model: Embeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may find that most versions are dead, and read all anew, before it is answered."""
    monkeypatch.setattr("service.search.added._DEAD", 2)
    source, texts, library = Source(), AddedTexts(model.document_search), Library(6, IndexOptions())
    for serial in range(1, 7):
        source.stored[serial] = ("green apple" if serial == 6 else "red fox", json.dumps({"n": serial}))
        library = library.changed([Entry(serial, f"n{serial}", unit_rows(1, 6, serial)[0])], [])
    found, question = texts.of(library, source), model.document_search.question("apple")
    assert len(texts.of(library.changed([], [1, 2, 3, 4, 5]), source)) == 1
    assert (found.by_words(question) > 0).tolist() == [False] * 5 + [True]
    assert [fields["n"] for fields in found.fields(np.arange(6))] == [1, 2, 3, 4, 5, 6]
    assert found.fitting(Filter.parse("n >= 6")).tolist() == [False] * 5 + [True]


def test_a_library_that_is_replaced_is_not_kept(model: Embeddings) -> None:
    source, texts = Source({1: ("red fox", "{}")}), AddedTexts(model.document_search)
    library = Library(6, IndexOptions()).changed([Entry(1, "a", unit_rows(1, 6, 1)[0])], [])
    documents = texts.of(library, source)
    assert texts.of(library, source) is documents
    library_ref, documents_ref = weakref.ref(library), weakref.ref(documents)
    del library, documents
    assert (library_ref(), documents_ref()) == (None, None)


def test_many_texts_are_read_behind_the_questions(model: Embeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions that name no mode do not wait for it, and ask words afterwards, whatever was deleted meanwhile."""
    monkeypatch.setattr("service.search.added._AT_ONCE", 3)
    texts, source, jobs = AddedTexts(model.document_search), Source(), list[Callable[[], None]]()

    def post(job: Callable[[], None]) -> bool:
        jobs.append(job)
        return True

    library = Library(6, IndexOptions())
    assert texts.is_ready(library, source, post)
    for serial in range(1, 9):
        source.stored[serial] = ("red fox", "{}")
        library = library.changed([Entry(serial, f"n{serial}", unit_rows(1, 6, serial)[0])], [])
        if serial == 3:
            assert texts.is_ready(library, source, post)
    for _ in range(2):  # it begins once
        assert not texts.is_ready(library, source, post)
    assert len(jobs) == 1
    while jobs:
        jobs.pop()()
    assert texts.is_ready(library, source, post)
    assert texts._read_to == 8
    assert len(texts.of(library, source)) == 8
    for gone in (7, 8):
        del source.stored[gone]
        library = library.changed([], [gone])
    assert texts.is_ready(library, source, post)
    assert len(texts.of(library, source)) == 6
    assert not jobs


def test_a_large_index_of_words_is_made_by_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.search.added._SMALL", 3)
    made = jose_embed.train(documents=TEXTS, keep_text=True, dim=4, epochs=1, min_count=1, workers=1)
    for search in (made.document_search, made.without_texts().document_search):
        texts, library, source, jobs = AddedTexts(search), Library(4, IndexOptions()), Source(), list[object]()
        assert not texts.is_ready(library, source, jobs.append)
        assert texts._preparing is not None
        texts._preparing.join()
        assert texts.is_ready(library, source, jobs.append)
        assert not jobs
        assert ("words" in vars(search)) == search.has_texts
