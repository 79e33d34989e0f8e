"""The counts of words that a vocabulary leaves out are stored with the model."""

from __future__ import annotations

import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jose_embed
from jose_embed.cli.program import main
from jose_embed.errors import ModelError
from jose_embed.model.embeddings import Embeddings
from jose_embed.model.parts import RARE_COUNTS
from jose_embed.model.rare_words import rare_counts
from jose_embed.model.smaller import smaller
from jose_embed.text.rare_words import packed_counts, unpacked_counts
from jose_embed.text.tokenizers import KIND_SHIFT, LETTER, get_tokenizer
from jose_embed.text.word_table import PlainWords, word_table

TEXTS = ["apple pear apple plum fig", "pear apple kiwi pear", "apple pear fig lime", "new york new york plum apple"]
COUNTS = Counter(" ".join(TEXTS).split())


def trained(**settings: object) -> Embeddings:
    return jose_embed.train(TEXTS, **{"dim": 4, "workers": 1, "min_count": 3, "epochs": 1, **settings})


@pytest.fixture(scope="module")
def model() -> Embeddings:
    return trained()


def expected(model: Embeddings) -> dict[str, int]:
    return {word: n for word, n in COUNTS.items() if word not in model}


def test_vocabulary_and_rare_words_are_all_words(model: Embeddings, tmp_path: Path) -> None:
    assert rare_counts(model) == expected(model) == {"plum": 2, "fig": 2, "kiwi": 1, "lime": 1, "new": 2, "york": 2}
    model.save(tmp_path / "a.jose")
    assert rare_counts(jose_embed.load(tmp_path / "a.jose", verify=True)) == expected(model)
    assert model.manifest["text"]["rare_counts"] is True


def test_words_beyond_max_vocab_and_stop_words_are_among_them(tmp_path: Path) -> None:
    (tmp_path / "stop.txt").write_text("pear\n")
    cut = trained(max_vocab=1, min_count=2, stop_words=str(tmp_path / "stop.txt"))
    assert rare_counts(cut) == expected(cut)
    assert "pear" in (rare_counts(cut) or {})


def test_with_phrases_words_are_counted_as_joined() -> None:
    texts = ["new york is big", "old york fell"] * 2 + ["new york new york", "is big", "big new"] * 3
    both = jose_embed.train(texts, dim=4, workers=1, min_count=4, epochs=1, phrases=True)
    rare = rare_counts(both)
    assert "new_york" in both
    assert rare == {"old": 2, "york": 2, "fell": 2, "new": 3, "big": 3}


def test_a_kept_encoding_brings_them(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n".join(TEXTS))
    options = {"dim": 4, "workers": 1, "min_count": 3, "epochs": 1}
    for _ in range(2):
        kept = jose_embed.train(tmp_path / "t.txt", keep_encoded=tmp_path / "t.encoded", **options)
        assert rare_counts(kept) == expected(kept)


def test_answers_and_id_do_not_depend_on_them(
    model: Embeddings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save(tmp_path / "a.jose")
    assert main(["strip", str(tmp_path / "a.jose")]) == 0
    assert "counts of rare words" in capsys.readouterr().out
    stripped = jose_embed.load(tmp_path / "a.jose")
    assert rare_counts(stripped) is None
    assert stripped.id == model.id
    assert main(["strip", str(tmp_path / "a.jose")]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_a_smaller_model_has_them_if_it_has_all_words(model: Embeddings) -> None:
    assert rare_counts(smaller(model, dim=2)) == expected(model)
    fewer = smaller(model, words=1)
    assert rare_counts(fewer) is None
    assert "rare_counts" not in fewer.manifest.get("text", {})


@settings(max_examples=40)
@given(st.lists(st.tuples(st.text(), st.integers(1, 2**40)), unique_by=lambda pair: pair[0]), st.data())
def test_any_words_come_back(pairs: list[tuple[str, int]], data: st.DataObject) -> None:
    table = PlainWords(lambda words: list(words), "any")
    table.add_texts([[word for word, _ in pairs]])
    counts = np.array([n for _, n in pairs], np.int64)
    packed = packed_counts(table, np.arange(len(pairs)), counts)
    storable = {w: n for w, n in pairs if w and not set(w) & set("\t\n\r") and w.isprintable()}
    found = unpacked_counts(packed)
    assert {w: found.get(w) for w in storable} == storable
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(ValueError, match="words and their counts"):
        unpacked_counts(packed[:cut])


class TabsInWords:
    """Rules of a tokenizer under which a tab and a carriage return are letters."""

    name = "tabs"

    def settings(self) -> dict[str, object]:
        return {}

    def __call__(self, text: str) -> list[str]:
        return text.split(" ")

    def rules(self) -> np.ndarray:
        rules = get_tokenizer("whitespace").rules().copy()  # type: ignore[attr-defined]
        rules[[9, 13]] = np.array([9, 13], np.uint32) | np.uint32(LETTER << KIND_SHIFT)
        return rules  # type: ignore[no-any-return]


@pytest.mark.parametrize("word", ["a\tb", "a\rb", "中" * 400, "é" * 1001, "12345678", "x" * 1000])
def test_compiled_and_plain_tables_pack_the_same_counts(word: str) -> None:
    tokenizer = TabsInWords()
    packed = []
    for table in (word_table(tokenizer), PlainWords(tokenizer, tokenizer.name)):
        table.add_texts([f"the é {word} 12345678 中 é {word} the the"])
        counts = table.counts() * np.array([1, 10, 10**12, 1, 1])[: len(table.counts())]
        packed.append(unpacked_counts(packed_counts(table, np.arange(len(counts))[::-1], counts[::-1])))
    assert packed[0] == packed[1]
    assert packed[0]["the"] == 3


@pytest.mark.parametrize(
    "content", [b"a\n", b"a\tx\n", b"\t1\n", b"a\t1", b"a\t1\xb2\n", b"a\t" + b"9" * 20 + b"\n", b"\xff\t1\n"]
)
def test_damaged_counts_are_an_error_when_they_are_read(model: Embeddings, content: bytes) -> None:
    parts = {name: getattr(model, name) for name in ("words", "counts", "center_vectors", "context_vectors")}
    damaged = np.frombuffer(zlib.compress(content), np.uint8)
    with pytest.raises(ModelError, match=r"rare_counts\.npy does not hold words and their counts"):
        rare_counts(Embeddings.from_arrays(**parts, extra_arrays={RARE_COUNTS: damaged}))
    with pytest.raises(ModelError, match="does not hold bytes"):
        rare_counts(Embeddings.from_arrays(**parts, extra_arrays={RARE_COUNTS: np.zeros(3)}))
