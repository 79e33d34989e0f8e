"""Vectors of texts and the vocabulary by prefix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jose_embed.model.embeddings import Embeddings
from jose_embed.text.tokenizers import get_tokenizer
from service.search import prefix_index, texts
from service.search.kernels import Kernels
from service.search.prefix_index import PrefixIndex
from service.search.texts import BulkEncoder, ServedEmbeddings, SlicedTokenizer, vectors_of


@given(st.text(st.sampled_from("aé日ß .,'\u2019\u0301\u00ad_\n\t\r\u2028-Σ\u200d9"), max_size=200))
def test_texts_read_in_slices_have_the_same_words(text: str) -> None:
    for name in ("words", "whitespace"):
        tokenizer = get_tokenizer(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(texts, "SLICE", 7)
            assert SlicedTokenizer(tokenizer)(text) == tokenizer(text)


def test_a_served_model_answers_as_the_model(model_a: tuple[Path, Embeddings]) -> None:
    path, model = model_a
    served = ServedEmbeddings.load(path, mapped=False)
    assert (served.tokenizer.name, served.tokenizer.settings()) == ("words", {})
    text = "king w5 nobody " * 20_000
    assert np.array_equal(vectors_of(served, [text])[0].vector, model.infer([text])[0])
    assert served.id == model.id


TEXTS = ["king w5 nobody", "", "nobody", "W7 king\nking w5's w9", "w5 " * 3_000 + "caf\u00e9 queen", "\r\n\t w8"] * 3


@pytest.mark.parametrize("text", [{}, {"normalisation": "nfc"}])
def test_many_texts_get_the_bytes_that_they_get_alone(
    model_a: tuple[Path, Embeddings], monkeypatch: pytest.MonkeyPatch, text: dict[str, str]
) -> None:
    monkeypatch.setattr(texts, "SLICE", 64)
    monkeypatch.setattr(texts, "WORTH_COMPILING", 9_000)
    served = ServedEmbeddings.load(model_a[0], mapped=False)
    make = served._make_tokenizer
    served.encoder.lookup.tokenizer = make("words", {}, text)
    alone = [None if made.vector is None else made.vector.tobytes() for made in vectors_of(served, TEXTS)]
    assert alone.count(None) == 6
    bulk, found, paths = BulkEncoder(served), [], []
    monkeypatch.setattr(Kernels, "ready", True)
    compiled = bulk.compiled
    monkeypatch.setattr(bulk, "compiled", lambda some: [paths.append(len(some)), compiled(some)][1])
    for size in (4, 2, 5, 7):
        found += bulk.vectors_of(TEXTS[len(found) : len(found) + size])
    assert [None if vector is None else vector.tobytes() for vector in found] == alone
    assert paths == [5, 7], "the first 9,000 characters go one by one"


def test_kernels_are_compiled_elsewhere(
    model_a: tuple[Path, Embeddings], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JOSE_CACHE_DIR", "off")
    kernels = Kernels(model_a[0])
    assert not kernels.ready
    kernels._thread.join()
    assert not kernels.ready
    assert "embedded one by one, which takes longer: no compiled kernels are kept (JOSE_CACHE_DIR)" in caplog.text
    monkeypatch.delenv("JOSE_CACHE_DIR")
    there = Kernels(model_a[0])
    assert not there.ready, "nobody waits"
    there._thread.join()
    assert there.ready


def test_texts_that_a_library_splits_have_no_compiled_path(model_a: tuple[Path, Embeddings]) -> None:
    served = ServedEmbeddings.load(model_a[0], mapped=False)
    served.encoder.lookup.tokenizer = lambda text: text.upper().lower().split()
    bulk = BulkEncoder(served)
    assert not any(bulk.is_compiled(["king " * 1_000_000]) for _ in range(3))
    assert bulk.vectors_of(["king"])[0].tobytes() == vectors_of(served, ["king"])[0].vector.tobytes()


def test_an_answer_knows_only_the_unknown_words_that_it_names(model_a: tuple[Path, Embeddings]) -> None:
    (made,) = vectors_of(model_a[1], [" ".join(f"nobody{i}" for i in range(200))])
    assert made.unknown == tuple(f"nobody{i}" for i in range(100))
    assert made.n_tokens == 200


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), unique=True), st.data())
def test_words_by_prefix(words: list[str], data: st.DataObject) -> None:
    prefix = data.draw(st.sampled_from([word[:n] for word in words for n in range(3)] or [""]) | st.text(max_size=2))
    limit = data.draw(st.integers(1, 5))
    expected = [row for row, word in enumerate(words) if word.startswith(prefix)]
    for many in (0, 1_000):  # by going through the words, and by the sorted rows
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(prefix_index, "_MANY", many)
            found = PrefixIndex(words).starting_with(prefix, limit)
        assert (found.rows, found.total) == (expected[:limit], len(expected))
