"""The word table: compiled and plain number the same words alike, whatever the text and however it is cut."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jose_embed.errors import CorpusError
from jose_embed.text import word_table as wordtable
from jose_embed.text.tokenizers import KIND_SHIFT, LETTER, Tokenizer, get_tokenizer
from jose_embed.text.word_table import CompiledWords, PlainWords, WordTable, word_table

# Everything that the scan treats in its own way, more often than chance would bring it.
TRICKY = "aaabZ9_-. \t\r'ßİΣΣσςᾼ中Ⱥ\u2019\u00ad\u200c\u0301\u094d\u2028\u00a0\x1c\x85\u3000\ufffd\U0001d4b3\U0001f600"
characters = st.one_of(st.sampled_from(TRICKY), st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]))
texts = st.lists(st.text(characters, max_size=25), max_size=8)
tokenizers = pytest.mark.parametrize("name", ["words", "whitespace"])

TABLES: dict[str, CompiledWords] = {}


def compiled(name: str) -> CompiledWords:
    """One table per tokenizer for all examples, so that they meet each other's words."""
    if name not in TABLES:
        TABLES[name] = CompiledWords(get_tokenizer(name).rules())  # type: ignore[attr-defined]
    return TABLES[name]


def documents(table: WordTable, found: tuple[np.ndarray, np.ndarray]) -> list[list[str]]:
    """The words of each document, read back from the table."""
    ids, ends = found
    assert ids.dtype == np.int32
    assert ends.dtype == np.int64
    different = np.unique(ids)
    spelling = dict(zip(different.tolist(), table.words(different), strict=True))
    words = [spelling[number] for number in ids.tolist()]
    bounds = [0, *ends.tolist()]
    assert bounds[-1] == len(words)
    return [words[start:end] for start, end in pairwise(bounds)]


@tokenizers
@given(texts=texts)
def test_the_compiled_table_splits_as_the_tokenizer_does(name: str, texts: list[str]) -> None:
    table = compiled(name)
    text = "".join(f"{line}\n" for line in texts)
    expected = [get_tokenizer(name)(line) for line in texts]
    if text:
        assert documents(table, table.add_lines(text.encode())) == expected
    assert documents(table, table.add_texts(texts)) == expected


@tokenizers
def test_code_points_of_every_width(name: str) -> None:
    table, tokenizer = compiled(name), get_tokenizer(name)
    rng = np.random.default_rng(0)
    codes = {*range(1, 0x3000), *rng.integers(0x3000, 0x110000, 3000).tolist()}
    codes |= {code + shift for code in (0x800, 0xD800, 0xE000, 0x10000, 0x20000, 0x110000) for shift in range(-3, 3)}
    characters = [chr(code) for code in sorted(codes) if code < 0x110000 and not 0xD800 <= code < 0xE000 and code != 10]
    lines = [f"a{character}{character}b" for character in characters]
    assert documents(table, table.add_texts(lines)) == [tokenizer(line) for line in lines]


@tokenizers
@settings(max_examples=30)
@given(texts=texts)
def test_compiled_and_plain_agree_on_numbers_and_counts(name: str, texts: list[str]) -> None:
    tokenizer = get_tokenizer(name)
    tables: list[WordTable] = [word_table(tokenizer), PlainWords(tokenizer, tokenizer.name)]
    assert isinstance(tables[0], CompiledWords)
    for part in (texts, texts[::-1]):
        (ids, ends), (plain_ids, plain_ends) = (table.add_texts(part) for table in tables)
        assert ids.tolist() == plain_ids.tolist()
        assert ends.tolist() == plain_ends.tolist()
    counts, plain_counts = (table.counts() for table in tables)
    assert counts.dtype == plain_counts.dtype == np.int64
    assert counts.tolist() == plain_counts.tolist()
    words, plain_words = (table.words(np.arange(len(counts))) for table in tables)
    assert words == plain_words
    assert counts.tolist() == [sum(2 * tokenizer(text).count(word) for text in texts) for word in words]


@tokenizers
def test_a_line_in_pieces(name: str) -> None:
    table = CompiledWords(get_tokenizer(name).rules())  # type: ignore[attr-defined]
    pieces = [b"one two \n", b"three ", b"one ", b"\n\n", b"four \n"]
    found = [table.add_lines(piece) for piece in pieces[:1]]
    assert [(ids.tolist(), ends.tolist()) for ids, ends in found] == [([0, 1], [2])]
    later = [tuple(array.tolist() for array in table.add_lines(piece)) for piece in pieces[1:]]
    assert later == [([2], []), ([0], []), ([], [0, 0]), ([3], [1])]


def test_a_line_end_of_two_bytes_is_no_part_of_a_text() -> None:
    class Whole:
        name = "whole"

        def settings(self) -> dict[str, object]:
            return {}

        def __call__(self, text: str) -> list[str]:
            return [text]

    table = word_table(Whole())
    assert isinstance(table, PlainWords)
    ids, _ = table.add_lines(b"one\r\ntwo\r\r\nx\ry\none\n")
    assert ids.tolist() == [0, 1, 2, 0]
    assert list(table._numbers) == ["one", "two\r", "x\ry"]


@tokenizers
def test_words_around_every_length(name: str) -> None:
    """The slot holds eight bytes of a word, so the lengths around multiples of eight are where it could go wrong."""
    letters = ["a", "é", "中", "𝒳"]
    words = [letter * n for letter in letters for n in range(1, 40)]
    words += [f"{'x' * n}{last}" for n in range(1, 40) for last in "yzΩ"]
    words += ["Σ", *("a" * n + "Σ" for n in range(1, 20)), *("a" * n + "Σ'b" for n in range(1, 20))]
    tokenizer = get_tokenizer(name)
    table = CompiledWords(tokenizer.rules())  # type: ignore[attr-defined]
    for _ in range(2):
        assert documents(table, table.add_texts(words)) == [tokenizer(word) for word in words]
    assert len(table.counts()) == len({word for text in words for word in tokenizer(text)})


def test_an_ascii_letter_that_is_written_as_another_one() -> None:
    rules = get_tokenizer("words").rules().copy()  # type: ignore[attr-defined]
    rules[ord("b")] = LETTER << KIND_SHIFT | ord("中")
    table = CompiledWords(rules)
    words = ["b" * n + "a" * m for n in range(9) for m in range(1, 9)]
    assert documents(table, table.add_texts(words)) == [[word.replace("b", "中")] for word in words]


def test_one_very_long_word() -> None:
    table = compiled("words")
    word = "ab" * 1_000_000
    assert documents(table, table.add_texts([f"x {word} y {word}"])) == [["x", word, "y", word]]


def test_hundreds_of_thousands_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table grows several times within one call, and words with equal hashes stay apart."""
    monkeypatch.setattr(wordtable, "_FIRST_SLOTS", 1 << 10)
    table = CompiledWords(get_tokenizer("words").rules())  # type: ignore[attr-defined]
    words = [f"w{number}" for number in range(300_000)]
    text = " ".join(words).encode()
    ids, ends = table.add_lines(text + b"\n" + text + b"\n")
    assert ids.tolist() == [*range(300_000), *range(300_000)]
    assert ends.tolist() == [300_000, 600_000]
    assert table.counts().tolist() == [2] * 300_000
    numbers = np.array([299_999, 0, 5])
    assert table.words(numbers) == ["w299999", "w0", "w5"]
    heads = table._table.slots[:, 0]
    tags = heads[heads != 0] >> 32
    assert len(np.unique(tags)) < len(tags)  # there are equal hashes among them
    assert len(tags) - len(np.unique(tags)) < 100  # and not more than chance brings


def test_a_language_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordtable, "_FIRST_SLOTS", 1 << 10)
    monkeypatch.setattr(wordtable, "_MOST_SLOTS", 1 << 12)
    table = CompiledWords(get_tokenizer("words").rules())  # type: ignore[attr-defined]
    fits = " ".join(f"w{number}" for number in range(2000))
    table.add_texts([fits])
    with pytest.raises(CorpusError, match=r"^more than 2,\d\d\d different words, as no language has; check text and"):
        table.add_texts([" ".join(f"w{number}" for number in range(5000))])


@pytest.mark.parametrize("separator", [" ", "\n"])
def test_rules_must_let_spaces_and_line_ends_separate(separator: str) -> None:
    rules = get_tokenizer("words").rules().copy()  # type: ignore[attr-defined]
    rules[ord(separator)] = LETTER << KIND_SHIFT | ord(separator)
    with pytest.raises(ValueError, match="let a space or a line feed be part of a word; both must separate words"):
        CompiledWords(rules)


class Fixed:
    """A tokenizer that gives the same words for every text."""

    name = "fixed"

    def __init__(self, *words: object) -> None:
        self.words = list(words)

    def settings(self) -> dict[str, object]:
        return {}

    def __call__(self, text: str) -> list[str]:
        return self.words  # type: ignore[return-value]


@pytest.mark.parametrize("word", ["", "a\tb", "a\nb", "a\r", 7, None, "\ud800"])
def test_what_no_word_can_be(word: object) -> None:
    table = word_table(Fixed("fine", word))
    table.add_texts(["x", "y"])
    assert table.words(np.array([0])) == ["fine"]
    with pytest.raises(CorpusError) as refused:
        table.words(np.array([0, 1]))
    assert str(refused.value) == (
        f"the tokenizer 'fixed' gave the word {word!r}; a word must have a character and no tab or line break"
    )


def test_a_word_may_hold_a_space() -> None:
    table = word_table(Fixed("new york"))
    table.add_texts(["x"])
    assert table.words(np.array([0])) == ["new york"]


def test_no_text_at_all() -> None:
    for table in (word_table(get_tokenizer("words")), word_table(Fixed())):
        ids, ends = table.add_texts([""])
        assert (ids.tolist(), ends.tolist()) == ([], [0])
        assert table.counts().tolist() == []
        assert table.words(np.array([], np.intp)) == []


def test_the_tokenizer_protocol() -> None:
    assert isinstance(Fixed(), Tokenizer)


def test_texts_may_come_from_an_iterator() -> None:
    def lines() -> Iterator[str]:
        yield "a b"
        yield "b\nc"

    for table in (word_table(get_tokenizer("words")), PlainWords(get_tokenizer("words"), "words")):
        ids, ends = table.add_texts(lines())
        assert ids.tolist() == [0, 1, 1, 2]
        assert ends.tolist() == [2, 4]
