"""Texts as rows of a vocabulary: unknown words are left out, and remembered only up to a bound."""

from __future__ import annotations

import numpy as np
import pytest

from jose_embed.text import word_table
from jose_embed.text.tokenizers import Tokenizer, get_tokenizer
from jose_embed.text.word_table import VocabularyLookup


class Plain:
    """A tokenizer that is no table over code points."""

    name = "plain"

    def settings(self) -> dict[str, object]:
        return {}

    def __call__(self, text: str) -> list[str]:
        return text.split()


@pytest.mark.parametrize("tokenizer", [get_tokenizer("whitespace"), Plain()])
def test_words_that_were_forgotten_are_found_again(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_table, "_MOST_UNKNOWN", 20)
    asked: list[str] = []

    def index_of(word: str) -> int | None:
        asked.append(word)
        return {"a": 0, "b": 1}.get(word)

    rows = VocabularyLookup(tokenizer, index_of)
    for batch in range(10):
        found = rows.of_texts([f"a x{batch} y{i} b" for i in range(5)] + ["", "b"])
        assert found.rows.tolist() == [0, 1] * 5 + [1]
        assert found.n_tokens.tolist() == [4] * 5 + [0, 1]
        assert np.diff(found.offsets).tolist() == found.n_known.tolist() == [2] * 5 + [0, 1]
    assert asked.count("a") == 1  # the y stay, one x comes with every batch
    for batch in range(10):
        rows.of_texts([f"a z{batch}-{i}" for i in range(10)])
    assert 3 <= asked.count("a") <= 6
