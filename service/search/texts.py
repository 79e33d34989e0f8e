"""Texts of any length, read in slices.

A tokenizer works in one call of C code (a regular expression, ``str.split``), and so does what counts its words: on a
text of megabytes each would hold the interpreter's lock for a tenth of a second and stop every other request. Here a
long text is cut between two words, the pieces are tokenised one by one, and the words are handed on through a Python
generator, which gives the lock back.
"""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from jose_embed.model.embeddings import Embeddings
from jose_embed.model.inference import Inferred

if TYPE_CHECKING:
    from jose_embed.text.reader import Tokenizer

__all__ = ["SHOWN_UNKNOWN", "Inferred", "ServedEmbeddings", "SlicedTokenizer", "from_utf8", "utf8", "vectors_of"]

_CODED: Final = 65_536  # characters or bytes that are encoded or decoded at a time
SHOWN_UNKNOWN: Final = 100  # a text's unknown words that an answer names
SLICE: Final = 8_192  # about a millisecond of tokenising
_JOINERS: Final = "'\u2019\u200c\u200d\u00ad"


class ServedEmbeddings(Embeddings):
    """A model whose tokenizer reads long texts in slices."""

    @staticmethod
    def _make_tokenizer(name: str, settings: Mapping[str, Any] | None = None) -> SlicedTokenizer:
        return SlicedTokenizer(Embeddings._make_tokenizer(name, settings))


class SlicedTokenizer:
    """A tokenizer with the same words for every text, made slice by slice.

    A run of more than 8,192 characters without a place between two words is cut where the slice ends: no vocabulary
    holds a word of that length.

    Args:
        tokenizer: The one that makes words of a slice.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._between: Callable[[str], bool] = _between_unicode_words if tokenizer.name == "words" else str.isspace

    @property
    def name(self) -> str:
        """The wrapped tokenizer's name."""
        return self._tokenizer.name

    def settings(self) -> dict[str, Any]:
        """The wrapped tokenizer's settings."""
        return self._tokenizer.settings()

    def __call__(self, text: str) -> list[str]:
        """The words of one text, in order."""
        if len(text) <= SLICE:
            return self._tokenizer(text)
        words = _Words()
        first = 0
        while first < len(text):
            last = self._end(text, first)
            words.extend(self._tokenizer(text[first:last]))
            first = last
        return words

    def _end(self, text: str, first: int) -> int:
        """The end of the slice that starts at ``first``: between two words if there is such a place."""
        limit = first + SLICE
        if limit >= len(text):
            return len(text)
        for end in range(limit, first, -1):
            if self._between(text[end - 1]):
                return end
        return limit


class _Words(list[str]):
    """A list that is walked through, and in the end taken down, in Python, whoever does it."""

    def __iter__(self) -> Iterator[str]:
        for i in range(0, len(self), 4_096):
            yield from self[i : i + 4_096]

    def __del__(self) -> None:
        while self:
            del self[-4_096:]


def _between_unicode_words(character: str) -> bool:
    """Whether a character is part of no word of the tokenizer ``words``."""
    return not character.isalnum() and character not in _JOINERS and not unicodedata.category(character).startswith("M")


def utf8(text: str) -> bytes:
    """A text in UTF-8.

    Example:
        >>> utf8("a\u00e9")
        b'a\\xc3\\xa9'
    """
    return b"".join(text[i : i + _CODED].encode() for i in range(0, len(text), _CODED))


def from_utf8(encoded: bytes) -> str:
    """The text that :func:`utf8` encoded.

    Example:
        >>> from_utf8(utf8("a\u00e9"))
        'a\u00e9'
    """
    pieces = (encoded[i : i + _CODED] for i in range(0, len(encoded), _CODED))
    return "".join(codecs.iterdecode(pieces, "utf-8"))


def vectors_of(model: Embeddings, texts: Sequence[str]) -> list[Inferred]:
    """One :class:`~jose_embed.model.inference.Inferred` per text, with at most ``SHOWN_UNKNOWN`` unknown words.

    Equal texts give equal bytes, whatever other texts are in the batch.
    """
    return model.encoder.infer_detailed(texts, most_unknown=SHOWN_UNKNOWN)
