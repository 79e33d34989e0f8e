"""Every error a user can cause, in one tree.

::

    JoseError                     what went wrong is said in one line; the CLI prints it and exits with status 2
    ├── ConfigError (ValueError)  a hyper-parameter or a combination of options that cannot work
    ├── CorpusError               the text: missing, unreadable, empty, binary, no word frequent enough
    ├── ModelError                the model directory: missing, damaged, of another format, already there
    ├── UnknownWordError (KeyError)      a word that the vocabulary does not hold
    ├── NoKnownWordsError (ValueError)   a text of which no word is in the vocabulary
    ├── TrainingError             the run itself: a NaN or an infinity, no room on the disk
    ├── DeviceError               the GPU: no device, no driver, not enough memory
    └── MissingExtraError (ImportError)  a feature whose optional packages are not installed

A message says what is wrong, the value, what is allowed and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "ConfigError",
    "CorpusError",
    "DeviceError",
    "JoseError",
    "MissingExtraError",
    "ModelError",
    "NoKnownWordsError",
    "TrainingError",
    "UnknownWordError",
]


class JoseError(Exception):
    """Base of every error that this package raises on purpose."""

    def __str__(self) -> str:
        # KeyError would print the repr of its argument; a message is meant to be read.
        return str(self.args[0]) if self.args else ""


class ConfigError(JoseError, ValueError):
    """A setting outside its range, or settings that contradict each other."""


class CorpusError(JoseError):
    """A text source that cannot be read or holds nothing to train on."""


class ModelError(JoseError):
    """A model directory that is missing, damaged, foreign, or in the way."""


class UnknownWordError(JoseError, KeyError):
    """A word that is not in the vocabulary.

    Args:
        word: The word asked for.
        suggestions: Vocabulary words that resemble it, best first.
    """

    def __init__(self, word: str, suggestions: Sequence[str] = ()) -> None:
        self.word = word
        self.suggestions = tuple(suggestions)
        hint = f"; similar spellings: {', '.join(self.suggestions)}" if self.suggestions else ""
        super().__init__(f"{word!r} is not in the vocabulary{hint}")


class NoKnownWordsError(JoseError, ValueError):
    """A text of which the vocabulary holds no word, so that it has no direction."""


class TrainingError(JoseError):
    """A run that had to stop: numbers that are not finite, or a disk without room."""


class DeviceError(JoseError):
    """A GPU that is asked for and not there, cannot compile the kernels, or is too small for the model."""


class MissingExtraError(JoseError, ImportError):
    """An optional feature without its packages.

    Args:
        feature: What was asked for.
        extra: The name of the extra that brings it.
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f'{feature} needs packages that are not installed; run: pip install "jose-embed[{extra}]"')
