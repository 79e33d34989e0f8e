"""The errors that a user can cause.

::

    JoseError                     one line that says what is wrong; the CLI prints it and exits with status 2
    ├── ConfigError (ValueError)  a setting, argument or combination of them that is not allowed
    ├── CorpusError               the text: missing, unreadable, empty, binary, no word frequent enough
    ├── ModelError                the model directory: missing, damaged, of another format, already there
    ├── UnknownWordError (KeyError)      a word that is not in the vocabulary
    ├── NoKnownWordsError (ValueError)   a text without a word of the vocabulary
    ├── TrainingError             the run itself: a NaN or an infinity, a full disk
    ├── DeviceError               the GPU: no device, no driver, not enough memory
    └── MissingExtraError (ImportError)  a feature whose optional packages are not installed

A message says what is wrong, the value, what is allowed and what to do. It writes arguments as in Python
(``overwrite=True``); the command line shows them as options (``--overwrite``).
"""

from __future__ import annotations

import contextlib
import difflib
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, SupportsIndex


class JoseError(Exception):
    """Base class of this package's errors."""

    def __str__(self) -> str:
        # KeyError would print the repr of the message.
        return str(self.args[0]) if self.args else ""


class ConfigError(JoseError, ValueError):
    """A setting outside its range, or settings that contradict each other."""


class CorpusError(JoseError):
    """A text source that cannot be read or holds nothing to train on."""


class ModelError(JoseError):
    """A model directory that is missing, damaged, of another program, or already there."""


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

    def __reduce__(self) -> tuple[type[UnknownWordError], tuple[str, Sequence[str]]]:
        return type(self), (self.word, self.suggestions)  # the message is made again, not given as the word


class NoKnownWordsError(JoseError, ValueError):
    """A text without a word of the vocabulary, for which there is no vector."""


class TrainingError(JoseError):
    """A run that had to stop: numbers that are not finite, or a full disk."""


class DeviceError(JoseError):
    """A GPU that is missing, cannot compile the kernels, or has too little memory."""


class MissingExtraError(JoseError, ImportError):
    """A feature whose optional packages are not installed.

    Args:
        feature: The feature that was asked for.
        extra: The extra that installs its packages.
    """

    def __init__(self, feature: str, extra: str) -> None:
        self.feature, self.extra = feature, extra
        super().__init__(f'{feature} needs packages that are not installed; run: pip install "jose-embed[{extra}]"')

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return type(self), (self.feature, self.extra)


#: Names of other libraries: the library, and the name that this package uses (a name, or what to do instead).
_ELSEWHERE: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        **dict.fromkeys(("vector_size", "size", "layer1_size"), ("gensim", "dim")),
        "negative": ("gensim", "negatives"),
        "neg": ("fastText", "negatives"),
        "alpha": ("gensim", "learning_rate"),
        "lr": ("fastText", "learning_rate"),
        "sample": ("gensim", "subsample_threshold"),
        "t": ("fastText", "subsample_threshold"),
        "iter": ("gensim", "epochs"),
        "epoch": ("fastText", "epochs"),
        "ws": ("fastText", "window"),
        "minCount": ("fastText", "min_count"),
        "ns_exponent": ("gensim", "noise_exponent"),
        "thread": ("fastText", "workers"),
        "n_jobs": ("scikit-learn", "workers"),
        "random_state": ("scikit-learn", "seed"),
        "n_components": ("scikit-learn", "dim"),
        "topn": ("gensim", "k"),
        "restrict_vocab": ("gensim", "max_rank"),
        "sentences": ("gensim", "documents"),
        "corpus_iterable": ("gensim", "documents"),
        "corpus_file": ("gensim", "source"),
    }
)
_NONE_HERE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "sg": "there is one architecture here",
        "cbow_mean": "there is one architecture here",
        "dm": "documents and words are always trained together here",
        "dbow_words": "documents and words are always trained together here",
        "hs": "negative sampling is always used here",
        "loss": "negative sampling is always used here",
        "min_alpha": "the learning rate always falls to zero here",
    }
)


def counterpart(name: str, known: Iterable[str], shown: Callable[[str], str] = str) -> str:
    """The advice for an unknown name, to be put behind it.

    Args:
        name: An unknown name of a setting or argument.
        known: The names that are allowed.
        shown: How a name is written: as it is, or as an option of the command line.

    Example:
        >>> counterpart("topn", ["k", "word"]), counterpart("epohcs", ["epochs", "dim"])
        (" (gensim's name); use k instead", '; did you mean epochs?')
        >>> counterpart("hs", ["dim"]), counterpart("xyz", ["k", "word"])
        ('; negative sampling is always used here, leave it out', '; known are k, word')
    """
    known = sorted(known)
    library, ours = _ELSEWHERE.get(name, ("", ""))
    if ours in known:
        return f" ({library}'s name); use {shown(ours)} instead"
    if name in _NONE_HERE:
        return f"; {_NONE_HERE[name]}, leave it out"
    return did_you_mean(name, known, shown) or f"; known are {', '.join(map(shown, known))}"


def did_you_mean(name: str, known: Iterable[str], shown: Callable[[str], str] = str) -> str:
    """``; did you mean NAME?`` with the known name closest to ``name``; empty if none is close.

    Example:
        >>> did_you_mean("dimension", ["dim", "window"]), did_you_mean("xyz", ["dim", "window"])
        ('; did you mean dim?', '')
    """
    known = list(known)
    longer = [one for one in known if min(len(one), len(name)) >= 3 and (one.startswith(name) or name.startswith(one))]
    close = longer or difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {shown(close[0])}?" if close else ""


def whole_number(name: str, value: object, least: int = 1, most: int | None = None) -> int:
    """An argument that is a whole number, of Python or NumPy, within bounds.

    Args:
        name: The argument, for the message.
        value: What was given.
        least: The smallest number that is allowed.
        most: The largest; None for no bound.

    Raises:
        ConfigError: it is something else.

    Example:
        >>> whole_number("k", 3)
        3
        >>> whole_number("nodes", 0, 1, 1024)
        Traceback (most recent call last):
        ...
        jose_embed.errors.ConfigError: nodes is 0; it must be a whole number from 1 to 1024
    """
    if isinstance(value, SupportsIndex) and not isinstance(value, bool):
        with contextlib.suppress(TypeError):  # an array has the method, too
            number = operator.index(value)
            if number >= least and (most is None or number <= most):
                return number
    bounds = f"from {least} up" if most is None else f"from {least} to {most}"
    raise ConfigError(f"{name} is {value!r}; it must be a whole number {bounds}")
