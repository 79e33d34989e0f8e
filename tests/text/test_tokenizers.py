"""Tokenizers: every character does what the definition says, whatever stands around it."""

from __future__ import annotations

import codecs
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jose_embed.errors import ConfigError
from jose_embed.text import tokenizers
from jose_embed.text.tokenizers import (
    KIND_SHIFT,
    CodePointTokenizer,
    Tokenizer,
    WhitespaceTokenizer,
    WordTokenizer,
    get_tokenizer,
    register_tokenizer,
    tokenizer_names,
    valid_text,
)

# Characters that a definition can stumble over, more often than chance would bring them.
TRICKY = (
    "aZ9_-. \t\n\r'ßİıΣσςᾼ中ǅȺẞ½²Ⅷ"
    "\u2019\u00ad\u200c\u200d\u0301\u0308\u094d\u0939\u2028\u00a0\x1c\x85\u3000\ufffd\ufeff\U0001d4b3\U0001f600"
)
texts = st.text(st.one_of(st.sampled_from(TRICKY), st.characters(exclude_categories=["Cs"])), max_size=30)


def words_by_definition(text: str) -> list[str]:
    """The definition of ``words``, one character at a time, with nothing shared with the package."""
    found: list[str] = []
    word, joiner = "", ""
    for character in [*text, " "]:
        if character == "\u00ad":
            continue
        if character.isalnum() or (unicodedata.category(character).startswith("M") and word and not joiner):
            word, joiner = word + joiner + character, ""
        elif character in "'’\u200c\u200d" and word and not joiner:
            joiner = "'" if character == "’" else character
        else:
            found += [word] if word else []
            word, joiner = "", ""
    return [lower_by_definition(word) for word in found]


def lower_by_definition(word: str) -> str:
    special = {"İ": "i", "Σ": "σ"}
    lower = "".join(special.get(character) or character.lower() for character in word)
    return lower[:-1] + "ς" if word.endswith("Σ") and len(word) > 1 else lower


@given(texts)
def test_words_follow_the_definition(text: str) -> None:
    assert WordTokenizer()(text) == words_by_definition(text)


@given(texts)
def test_words_of_words_are_the_same_words(text: str) -> None:
    words = WordTokenizer()(text)
    assert WordTokenizer()(" ".join(words)) == words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("The QUICK brown fox.", ["the", "quick", "brown", "fox"]),
        ("don't DON’T 'tis dogs' rock''n'roll", ["don't", "don't", "tis", "dogs", "rock", "n'roll"]),
        ("snake_case __init__ x-1 3.5e10", ["snake", "case", "init", "x", "1", "3", "5e10"]),
        ("l'Hôpital aujourd’hui Straße ẞ", ["l'hôpital", "aujourd'hui", "straße", "ß"]),
        ("İstanbul DIŞI", ["istanbul", "dişi"]),
        ("ΟΔΟΣ Σ ΣΑΣ ΑΣ' ΑΣ'Α", ["οδος", "σ", "σας", "ας", "ασ'α"]),
        ("Москва́ не СРАЗУ", ["москва́", "не", "сразу"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("Donau\u00addampf\u00adschiff", ["donaudampfschiff"]),
        ("中文，没有空格。", ["中文", "没有空格"]),
        ("cafe\u0301 \u0301x a'\u0301b", ["cafe\u0301", "x", "a", "b"]),
        ("½ x² Ⅷ ٣٤", ["½", "x²", "ⅷ", "٣٤"]),
        ("a\u2028b\u00a0c\x1cd\x85e", ["a", "b", "c", "d", "e"]),
    ],
)
def test_words_of_known_texts(text: str, expected: list[str]) -> None:
    assert WordTokenizer()(text) == expected


def test_whitespace_changes_nothing_but_the_spaces() -> None:
    words = WhitespaceTokenizer()("  New_York's \t(naïve)\u3000</s>\u2028ΟΔΟΣ ")
    assert words == ["New_York's", "(naïve)", "</s>", "ΟΔΟΣ"]


@given(text=st.text(st.sampled_from("a\0é中\ud83d\ude00\U0001f600"), max_size=20), piece=st.integers(1, 6))
def test_a_text_is_valid_in_pieces_as_in_one(text: str, piece: int) -> None:
    wanted = text.replace("\0", "\ufffd").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tokenizers, "_CODED", piece)
        assert valid_text(text) == wanted


def test_no_step_of_making_a_text_valid_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    whole = codecs.iterdecode

    def decoded(pieces: Iterable[bytes], *arguments: Any) -> Iterator[str]:
        for piece in pieces:
            taken.append(len(piece))
            yield from whole([piece], *arguments)

    monkeypatch.setattr(codecs, "iterdecode", decoded)
    assert valid_text("é" * 200_000) == "é" * 200_000
    assert taken == [131_072] * 3 + [6_784]


def test_the_rules_of_words_for_every_code_point() -> None:
    rules = WordTokenizer().rules()
    assert rules.dtype == np.uint32
    assert len(rules) == sys.maxunicode + 1
    kinds = (rules >> KIND_SHIFT).tolist()
    letters = (rules & 0xFFFFFF).tolist()
    wrong = []
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if character in "'’\u200c\u200d":
            kind, letter = tokenizers.JOINER, "'" if character == "’" else character
        elif character == "\u00ad":
            kind, letter = tokenizers.IGNORED, None
        elif character.isalnum():
            kind, letter = tokenizers.SIGMA if character == "Σ" else tokenizers.LETTER, lower_by_definition(character)
        elif unicodedata.category(character).startswith("M"):
            kind, letter = tokenizers.MARK, character.lower()
        else:
            kind, letter = tokenizers.SEPARATOR, None
        if kinds[code] != kind or (letter is not None and chr(letters[code]) != letter):
            wrong.append(hex(code))
    assert not wrong


def test_the_rules_of_whitespace_for_every_code_point() -> None:
    rules = WhitespaceTokenizer().rules()
    for code, rule in enumerate(rules.tolist()):
        separates = chr(code).isspace() or 0xD800 <= code < 0xE000  # surrogates are in no UTF-8
        assert rule == (0 if separates else tokenizers.LETTER << KIND_SHIFT | code), hex(code)


def test_rules_cannot_be_changed() -> None:
    for name in ("words", "whitespace"):
        tokenizer = get_tokenizer(name)
        assert isinstance(tokenizer, CodePointTokenizer)
        assert not tokenizer.rules().flags.writeable


class Letters:
    """A tokenizer with a setting."""

    name = "letters"

    def __init__(self, upper: bool = False) -> None:
        self.upper = upper

    def settings(self) -> dict[str, Any]:
        return {"upper": self.upper}

    def __call__(self, text: str) -> list[str]:
        return re.findall(r"\w", text.upper() if self.upper else text)


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizers, "_FACTORIES", dict(tokenizers._FACTORIES))
    register_tokenizer("letters", Letters)


@pytest.mark.usefixtures("letters")
def test_a_registered_tokenizer_is_made_from_its_settings() -> None:
    assert {"letters", "jieba", "whitespace", "words"} <= set(tokenizer_names())
    tokenizer = get_tokenizer("letters", {"upper": True})
    assert isinstance(tokenizer, Tokenizer)
    assert not isinstance(tokenizer, CodePointTokenizer)
    assert tokenizer("ab") == ["A", "B"]
    assert get_tokenizer(tokenizer.name, tokenizer.settings())("ab") == ["A", "B"]


@pytest.mark.usefixtures("letters")
def test_settings_that_a_tokenizer_does_not_take_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"tokenizer 'letters' does not take the settings \{'lower': 1\}"):
        get_tokenizer("letters", {"lower": 1})
    with pytest.raises(ConfigError, match="tokenizer 'words' does not take the settings"):
        get_tokenizer("words", {"lower": 1})


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"tokenizer is 'wrods'; it must be one of .*whitespace, words, "):
        get_tokenizer("wrods")


def test_a_tokenizer_needs_a_name() -> None:
    with pytest.raises(ConfigError, match="the tokenizer's name is ''; it must be a name"):
        register_tokenizer("", Letters)
