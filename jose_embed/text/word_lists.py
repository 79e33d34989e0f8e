"""Lists of words in files: words to leave out of a vocabulary, and words to keep in it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jose_embed.config import TrainConfig
from jose_embed.errors import ConfigError, CorpusError
from jose_embed.text.reader import BlockReader
from jose_embed.text.records import TextOptions
from jose_embed.text.sources import find_sources, printable
from jose_embed.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class VocabularyChoice:
    """Which words a vocabulary has, besides those that occur often enough.

    Attributes:
        stop_words: Words that are left out.
        keep_words: Words that are kept even if they are rare.
        max_vocab: The vocabulary has at most this number of words, the most frequent ones; 0 for no bound.
        phrases: Whether pairs of words become words.
        names: The settings of these names, as they were given.
    """

    stop_words: frozenset[str] = frozenset()
    keep_words: frozenset[str] = frozenset()
    max_vocab: int = 0
    phrases: bool = False
    names: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The settings and a checksum of the words, as JSON values; empty if there is no choice."""
        if not (self.stop_words or self.keep_words or self.max_vocab or self.phrases):
            return dict(self.names)  # those of a kept encoding, whose words are not needed any more
        words = "\n".join([*sorted(self.stop_words), "", *sorted(self.keep_words)])
        checksum = hashlib.sha256(words.encode()).hexdigest()
        return {**self.names, "max_vocab": self.max_vocab, "phrases": self.phrases, "sha256": checksum}


def vocabulary_choice(config: TrainConfig, tokenizer: Tokenizer) -> VocabularyChoice:
    """The choice that the settings of a training make.

    Args:
        config: The settings.
        tokenizer: Spells the words as it spells those of the text.

    Raises:
        ConfigError: a word is in both lists.
        CorpusError: a file that is not a list of words.
    """
    stop, keep = (
        read_word_list(path, tokenizer) if path not in ("", "none") else frozenset()
        for path in (config.stop_words, config.keep_words)
    )
    if both := sorted(stop & keep):
        raise ConfigError(f"the word {both[0]!r} is in stop_words and in keep_words; remove it from one of the files")
    names = {name: getattr(config, name) for name in ("stop_words", "keep_words")}
    names = {name: path for name, path in names.items() if path not in ("", "none")}
    return VocabularyChoice(stop, keep, config.max_vocab, config.phrases, names)


def read_word_list(path: str | os.PathLike[str], tokenizer: Tokenizer) -> frozenset[str]:
    """The words of a file, one on each line, as a tokenizer spells them; lines without a word are passed over.

    Raises:
        CorpusError: the file cannot be read, has no word, or a line that the tokenizer splits into several words.
    """
    words: set[str] = set()
    number = 0
    with BlockReader(find_sources(path), whole_lines=True, options=TextOptions(format="text")) as reader:
        for block in reader:
            for line in block.data.decode().split("\n")[:-1]:
                number += 1
                found = getattr(tokenizer, "spelled", tokenizer)(line)
                if len(found) > 1:
                    what = f"{line.strip()[:100]!r} is {len(found)} words for the tokenizer {tokenizer.name!r}"
                    raise CorpusError(f"{printable(os.fspath(path))}, line {number:,}: {what}; write one on each line")
                words.update(found)
    if not words:
        raise CorpusError(f"{printable(os.fspath(path))}: there is no word in it; write one on each line")
    return frozenset(words)
