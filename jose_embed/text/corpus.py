"""An encoded corpus and the statistics of its text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jose_embed.text.phrases import Phrase
from jose_embed.text.records import TextOptions
from jose_embed.text.sources import SourceReport
from jose_embed.text.texts import TextStore
from jose_embed.text.tokenizers import Tokenizer
from jose_embed.text.vocabulary import Vocabulary
from jose_embed.text.word_lists import VocabularyChoice
from jose_embed.text.word_table import Ends, Ids

_SOURCES_NAMED = 1000


@dataclass(frozen=True)
class CorpusStatistics:
    """Counts and checksum of the text before rare words were dropped.

    Attributes:
        n_bytes: Bytes of text, decompressed.
        n_documents: Documents, which are lines.
        n_empty: Documents without any word.
        n_tokens_seen: Running words.
        n_words_seen: Different words.
        invalid_utf8_lines: Lines that were not UTF-8.
        invalid_utf8_bytes: Bytes in them that were replaced.
        sources: The names of what was read.
        sha256: Hexadecimal SHA-256 of the text.
        text_field: The columns of the text, of tables; empty for plain text.
        id_field: The column of the ids; ``None`` without one.
        notes: What the text has that its tokenizer does not expect.
    """

    n_bytes: int
    n_documents: int
    n_empty: int
    n_tokens_seen: int
    n_words_seen: int
    invalid_utf8_lines: int
    invalid_utf8_bytes: int
    sources: tuple[str, ...]
    sha256: str
    text_field: tuple[str, ...] = ()
    id_field: str | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values; of very many sources the first are named, and ``n_sources`` counts them."""
        named = list(self.sources[:_SOURCES_NAMED])
        facts = {name: value for name, value in asdict(self).items() if name != "notes" or value}
        return {**facts, "sources": named, "n_sources": len(self.sources)}


class EncodedCorpus:
    """A text as rows of a vocabulary; a context manager that gives its disk space back at the end.

    Attributes:
        tokens: int32 (n_tokens,), read-only, mapped: the row of every kept word, documents one after the other.
        offsets: int64 (n_documents + 1,), read-only, mapped: document d is ``tokens[offsets[d]:offsets[d + 1]]``.
        doc_ids: The id of every document.
        vocabulary: The kept words.
        tokenizer: What split the text.
        statistics: What the text was.
        min_count: Words that occur less often were left out.
        sources: The report of each source, in order.
        options: How the text was read.
        texts: The texts and fields to keep with a model; ``None`` if none are kept.
        choice: Which words the vocabulary has, besides the frequent ones.
        phrases: The pairs of words that are one, the highest score first.
        rare_counts: The words that are not in the vocabulary, and their counts (rare_words.py); ``None`` if unknown.
    """

    def __init__(
        self,
        tokens: Ids,
        offsets: Ends,
        doc_ids: Sequence[str],
        vocabulary: Vocabulary,
        tokenizer: Tokenizer,
        statistics: CorpusStatistics,
        min_count: int,
        sources: Sequence[SourceReport],
        options: TextOptions | None = None,
        texts: TextStore | None = None,
        choice: VocabularyChoice | None = None,
        phrases: Sequence[Phrase] = (),
        rare_counts: bytes | None = None,
    ) -> None:
        self.tokens = tokens
        self.offsets = offsets
        self.doc_ids = doc_ids
        self.vocabulary = vocabulary
        self.tokenizer = tokenizer
        self.statistics = statistics
        self.min_count = min_count
        self.sources = sources
        self.options = options or TextOptions()
        self.texts = texts
        self.choice = choice or VocabularyChoice()
        self.phrases = phrases
        self.rare_counts = rare_counts

    @property
    def n_documents(self) -> int:
        """The number of documents, empty ones included."""
        return len(self.offsets) - 1

    @property
    def n_with_words(self) -> int:
        """The number of documents that have a kept word."""
        return int(np.count_nonzero(np.diff(self.offsets)))

    @property
    def n_tokens(self) -> int:
        """The number of running words that were kept."""
        return len(self.tokens)

    def __len__(self) -> int:
        return self.n_documents

    def __getitem__(self, document: int) -> Ids:
        """The rows of one document's words, a view of ``tokens``."""
        row = document + len(self) if document < 0 else document
        if not 0 <= row < len(self):
            raise IndexError(f"document {document} of {len(self)}")
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

    def __enter__(self) -> EncodedCorpus:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the mapped files; their disk space is free once no view of ``tokens`` or ``offsets`` is left."""
        self.tokens = np.empty(0, np.int32)
        self.offsets = np.zeros(1, np.int64)
