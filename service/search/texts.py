"""Vectors of texts, made so that a long text does not block other threads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jose_embed.model.embeddings import Embeddings
from jose_embed.model.inference import WORTH_COMPILING, BatchEncoder, Inferred, has_compiled_path
from service.search.kernels import Kernels

SHOWN_UNKNOWN: Final = 100  # unknown words of a text that an answer names
SLICE: Final = 65_536  # characters; some milliseconds of tokenizing
_MOST_REMEMBERED: Final = 1 << 25  # characters of text whose words are remembered, unknown ones too
_BETWEEN_WORDS: Final = re.compile("[ \n]")  # separators of every tokenizer


class SlicedTokenizer:
    """A tokenizer that splits a long text slice by slice.

    A tokenizer splits a text in one call of C code, which holds the interpreter's lock. Slices end at a space or a line
    end, so the words are the same.

    Args:
        tokenizer: Splits a slice.

    Attributes:
        whole: The same.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = self.whole = tokenizer
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

    @cached_property
    def kernels(self) -> Kernels | None:
        """What :class:`BulkEncoder` needs; None for a model that is not on the disk."""
        return None if self.path is None else Kernels(self.path)

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


class BulkEncoder:
    """The vectors of the texts of an import or a reload, some hundreds at a time.

    The first megabytes are embedded text by text, so that few texts cost no tables. The rest takes the compiled path
    once its kernels are there: a fraction of the time, most of it without the interpreter's lock, and the same bytes.
    One thread at a time may use it.

    Args:
        model: The model.
    """

    def __init__(self, model: ServedEmbeddings) -> None:
        self.model = model
        tokenizer = model.encoder.lookup.tokenizer
        self._tokenizer = tokenizer.whole if isinstance(tokenizer, SlicedTokenizer) else tokenizer
        self._can_compile = has_compiled_path(self._tokenizer)
        self._n_characters = 0
        self._remembered = 0
        self._batches: BatchEncoder | None = None

    def is_compiled(self, texts: Sequence[str]) -> bool:
        """Whether the compiled path is to take the next texts; counts them."""
        due = self._n_characters >= WORTH_COMPILING
        self._n_characters += sum(map(len, texts))
        kernels = self.model.kernels
        return self._can_compile and due and kernels is not None and kernels.ready

    def compiled(self, texts: Sequence[str]) -> list[npt.NDArray[np.float32] | None]:
        """The vectors of texts by the compiled path: float32 (dim,), norm 1; None for a text without a direction."""
        if self._batches is None or self._n_characters > self._remembered + _MOST_REMEMBERED:
            self._remembered = self._n_characters
            self._batches = BatchEncoder(self.model.encoder, tokenizer=self._tokenizer)
        out = np.full((len(texts), self.model.dim), np.nan, np.float32)
        self._batches.write(texts, out)
        made: list[npt.NDArray[np.float32] | None] = list(out)
        can_compose = self.model.subwords is not None
        for row in np.flatnonzero(np.isnan(out[:, 0])).tolist():  # texts of unknown words only
            made[row] = vectors_of(self.model, [texts[row]])[0].vector if can_compose else None
        return made

    def vectors_of(self, texts: Sequence[str]) -> list[npt.NDArray[np.float32] | None]:
        """The vectors of texts, by the path that is due."""
        if self.is_compiled(texts):
            return self.compiled(texts)
        return [made.vector for made in vectors_of(self.model, texts)]
