"""Suggestions are those of the textbook's edit distance, and come quickly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jose_embed.model.spelling import SpellingIndex


def textbook_distance(a: str, b: str) -> int:
    """Optimal string alignment: insertions, deletions, replacements, exchanges of neighbours."""
    d = [[i + j if i * j == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            d[i][j] = min(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                d[i][j] = min(d[i][j], d[i - 2][j - 2] + 1)
    return d[len(a)][len(b)]


letters = st.text("abcdé日", min_size=1, max_size=10)


@given(word=letters, words=st.lists(letters, max_size=60, unique=True), n=st.integers(1, 5))
def test_suggestions_are_the_nearest_words(word: str, words: list[str], n: int) -> None:
    mistakes = 1 if len(word) <= 3 else 2 if len(word) <= 7 else 3
    near = sorted((textbook_distance(word, other), rank) for rank, other in enumerate(words))
    expected = [words[rank] for distance, rank in near if distance <= mistakes][:n]
    assert SpellingIndex(words).suggestions(word, n) == expected


@pytest.mark.parametrize(
    ("word", "suggestion"),
    [
        ("recieve", "receive"),
        ("THE", "the"),
        ("teh", "the"),
        ("berlin", "Berlin"),
        ("colour", "color"),
        ("naive", "naïve"),
        ("straße", "strasse"),
    ],
)
def test_usual_mistakes_are_understood(word: str, suggestion: str) -> None:
    words = ["the", "of", "receive", "Berlin", "color", "naïve", "strasse", "zebra"]
    assert SpellingIndex(words).suggestions(word)[0] == suggestion


def test_odd_words_have_no_suggestions() -> None:
    index = SpellingIndex(["the", "of"])
    for word in ("", "\ud800", "x" * 10**6, "\0", "\n"):
        assert index.suggestions(word) == []
    assert SpellingIndex([]).suggestions("the") == []
    assert SpellingIndex(["a\nb", "the"]).suggestions("a\nbc") == ["a\nb"]
    assert SpellingIndex(["\ud800bcde", "the"]).suggestions("\ud800bcdx") == ["\ud800bcde"]


def test_many_words_go_in_blocks_and_the_frequent_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [f"word{i}" for i in range(5000)]
    whole = SpellingIndex(words)
    monkeypatch.setattr("jose_embed.model.spelling._BLOCK_WORDS", 7)
    parts = SpellingIndex(words)
    for word in ("word", "wrod12", "wordd4999", "xyzzy"):
        assert parts.suggestions(word, 9) == whole.suggestions(word, 9)
    assert whole.suggestions("word", 3) == ["word0", "word1", "word2"]
