"""Vectors of texts, made so that a long text does not block other threads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jose_embed.model.embeddings import Embeddings
from jose_embed.model.inference import Inferred

__all__ = ["SHOWN_UNKNOWN", "Inferred", "ServedEmbeddings", "vectors_of"]

SHOWN_UNKNOWN: Final = 100  # unknown words of a text that an answer names
SLICE: Final = 65_536  # characters; some milliseconds of tokenizing
_BETWEEN_WORDS: Final = re.compile("[ \n]")  # separators of every tokenizer


class SlicedTokenizer:
    """A tokenizer that splits a long text slice by slice.

    A tokenizer splits a text in one call of C code, which holds the interpreter's lock. Slices end at a space or a line
    end, so the words are the same.

    Args:
        tokenizer: Splits a slice.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.name = tokenizer.name
        self.settings = tokenizer.settings
        self.normalization = getattr(tokenizer, "normalization", None)
        self.spelled = getattr(tokenizer, "spelled", tokenizer)
        self.lower_cases: bool = getattr(tokenizer, "lower_cases", False)

    def __call__(self, text: str) -> list[str]:
        """The words of one text, in order."""
        words: list[str] = []
        start = 0
        while start < len(text):
            found = _BETWEEN_WORDS.search(text, start + SLICE)
            end = len(text) if found is None else found.end()
            words += self._tokenizer(text[start:end])
            start = end
        return words


class ServedEmbeddings(Embeddings):
    """A model whose tokenizer splits long texts slice by slice."""

    @staticmethod
    def _make_tokenizer(name: str, settings: Mapping[str, Any], text: Mapping[str, Any]) -> SlicedTokenizer:
        return SlicedTokenizer(Embeddings._make_tokenizer(name, settings, text))

    def with_vectors(
        self, center_vectors: npt.NDArray[np.float32], doc_vectors: npt.NDArray[np.float32]
    ) -> ServedEmbeddings:
        """The same model over equal vectors that are in memory already."""
        parts = replace(self._parts, center_vectors=center_vectors, doc_vectors=doc_vectors)
        return self._of(parts, self._manifest, self.path)

    def respelled(self, words: Iterable[str]) -> list[dict[str, str]]:
        """The words that the vocabulary has in another spelling: what was asked, and what matched."""
        found = ((word, self.matched_word(word)) for word in dict.fromkeys(words))
        return [
            {"asked": asked, "matched": matched} for asked, matched in found if matched is not None and matched != asked
        ]

    @property
    def is_segmented(self) -> bool:
        """Whether a library or foreign code splits texts, which is slow."""
        return self._parts.about["tokenizer"]["name"] not in ("words", "whitespace")

    @property
    def keeps_documents(self) -> bool:
        """Whether texts or fields of the documents are kept."""
        return self._parts.texts is not None

    @property
    def n_bytes(self) -> int:
        """Bytes of the arrays."""
        parts = self._parts
        tables: list[npt.NDArray[Any]] = [parts.center_vectors, parts.context_vectors, parts.doc_vectors]
        tables += [parts.counts, parts.doc_token_counts, *parts.extra_arrays.values()]
        return sum(table.nbytes for table in tables)


def vectors_of(model: Embeddings, texts: Sequence[str]) -> list[Inferred]:
    """One :class:`~jose_embed.model.inference.Inferred` per text, with at most ``SHOWN_UNKNOWN`` unknown words.

    A text gets the same bytes in every batch.
    """
    return model.encoder.infer_detailed(texts, most_unknown=SHOWN_UNKNOWN)
