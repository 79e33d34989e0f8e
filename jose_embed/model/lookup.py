"""Words to rows of the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import repeat

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ModelError, UnknownWordError
from jose_embed.model.phrase_joiner import PhraseJoiner
from jose_embed.model.spelling import SpellingIndex
from jose_embed.model.subwords import Subwords
from jose_embed.storage.columns import first_repetition
from jose_embed.text.normalization import lowered, normalized
from jose_embed.text.phrases import Phrase
from jose_embed.text.tokenizers import Tokenizer, valid_text

_LONGEST = 10_000  # characters of a word whose spelling is looked at
_APOSTROPHES = ("\u2019", "'")


class WordLookup:
    """The vocabulary of a model: rows by word, similar spellings, and the tokenizer that splits texts into its words.

    Everything is made at first use.

    Args:
        words: The vocabulary, most frequent first.
        make_tokenizer: Makes the tokenizer of the model.
        normalization: The Unicode form of the training text, if the model stores one; words that are looked up are then
            spelled as the tokenizer spells them. ``None`` finds words only as they are in the vocabulary.
        phrases: Pairs of words that are one.
        subwords: The n-grams of which unknown words are composed, if the model has such.

    Example:
        >>> from jose_embed.text.tokenizers import get_tokenizer
        >>> lookup = WordLookup(["the", "cat"], lambda: get_tokenizer("words"), "nfc")
        >>> lookup.index_of("Cat"), lookup.find("Cat"), lookup.rows_of(["cat", "dog"]).tolist()
        (None, 1, [1, -1])
    """

    def __init__(
        self,
        words: Sequence[str],
        make_tokenizer: Callable[[], Tokenizer],
        normalization: str | None = None,
        phrases: Sequence[Phrase] = (),
        subwords: Subwords | None = None,
    ) -> None:
        self.subwords = subwords
        self._phrases = phrases
        self.words = words
        self.normalization = normalization
        self._make_tokenizer = make_tokenizer

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the training text.

        Raises:
            ConfigError: it is not registered, or does not take its stored settings.
        """
        return self._make_tokenizer()

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of each word.

        Raises:
            ModelError: a word occurs more than once.
        """
        rows = {word: row for row, word in enumerate(self.words)}
        if len(rows) != len(self.words):
            twice = first_repetition(self.words)
            raise ModelError(f"the word {twice!r} is in the vocabulary more than once; make the model again")
        return rows

    @cached_property
    def joiner(self) -> PhraseJoiner | None:
        """Joins phrases; None without any."""
        return PhraseJoiner(self._phrases, self.rows) if self._phrases else None

    @cached_property
    def _spelling(self) -> SpellingIndex:
        return SpellingIndex(self.words)

    def index_of(self, word: str) -> int | None:
        """The row of a word as the tokenizer gives it, or None if it is unknown."""
        return self.rows.get(word)

    def find(self, word: str) -> int | None:
        """The row of a word as somebody may type it, or None if it is unknown.

        If the vocabulary lacks it and the model stores a Unicode form, the spelling is tried that the tokenizer gives
        to a text of this one word.
        """
        row = self.rows.get(word)
        if row is None and self.normalization is not None:
            spelled = self._spelled(word)
            row = None if spelled is None else self.rows.get(spelled)
        return row

    def composed(self, word: str) -> npt.NDArray[np.float32] | None:
        """The vector of an unknown word, composed of its n-grams: float32 (dim,), norm 1; None if they say nothing."""
        if self.subwords is None or not isinstance(word, str) or self.find(word) is not None:
            return None
        spelled = self._spelled(word)
        return None if spelled is None else self.subwords.vector(spelled)

    def _spelled(self, word: str) -> str | None:
        """A word in the spelling that the tokenizer gives it; None if it is not one word."""
        if len(word) > _LONGEST:
            return None
        words = getattr(self.tokenizer, "spelled", self.tokenizer)(valid_text(word))
        if len(words) > 1 and self.joiner is not None:
            words = self.joiner.joined(words)
        return words[0] if len(words) == 1 else None

    def respelled_prefix(self, prefix: str) -> str:
        """The beginning of a word in the spelling of the vocabulary."""
        if self.normalization is None:
            return prefix
        text = normalized(valid_text(prefix), self.normalization)
        return lowered(text).replace(*_APOSTROPHES) if getattr(self.tokenizer, "lower_cases", False) else text

    def rows_of(self, words: Iterable[str]) -> npt.NDArray[np.int32]:
        """int32 (n,): the row of each word, -1 for unknown words."""
        return np.fromiter(map(self.rows.get, words, repeat(-1)), np.int32)

    def known_row(self, word: str) -> int:
        """The row of a word.

        Raises:
            UnknownWordError: the word is unknown; with similar spellings.
        """
        if not isinstance(word, str):
            raise TypeError(f"a word is a str, not {type(word).__name__}")
        row = self.find(word)
        if row is None:
            raise UnknownWordError(word, self.suggestions(word))
        return row

    def suggestions(self, word: str, n: int = 3) -> list[str]:
        """At most ``n`` words of the vocabulary within a few typing mistakes of ``word``, nearest first."""
        return self._spelling.suggestions(word, n)
