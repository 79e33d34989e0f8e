"""The settings of a training run: one frozen value that validates itself."""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

from jose_embed.errors import ConfigError

__all__ = ["PRESETS", "TrainConfig", "available_workers", "preset_settings"]

Objective = Literal["pairwise", "joint"]
NegativeStep = Literal["paper", "reference"]
BackendName = Literal["auto", "cpu", "gpu"]
DocMethod = Literal["words", "trained"]
DocVectors = Literal["memory", "mapped", "none"]
DocStep = Literal["mean", "sum"]
WordMethod = Literal["center", "both"]

# What follows from the size of a text; DESIGN.md, decision 36, has the evidence.
_FEWEST_EPOCHS, _MOST_EPOCHS = 10, 50
_WORDS_TO_TRAIN = 10_000_000  # running words of all epochs
_THINNED_SHARE, _UNTHINNED = 1e-4, 200  # of the text, and occurrences
_HALF_SHARE_LENGTH = 100  # running words of documents that give back half of the context share

#: What the presets set; DESIGN.md, decision 5, and RESULTS.md have the figures of all of them on all corpora.
PRESETS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        # The narrowest window, for words that are alike rather than words that belong together.
        "words": MappingProxyType({"window": 1, "doc_shrinkage": 0.0}),
        # The objective and the settings as published. A step of 2 that is averaged over two negatives is one for each.
        "paper": MappingProxyType(
            {
                "window": 5,
                "epochs": 10,
                "negatives": 2,
                "positions_per_draw": 1,
                "margin": 0.15,
                "context_weight": 2.0,
                "doc_step": "sum",
                "subsample_threshold": 1e-3,
                "word_method": "center",
                "doc_method": "trained",
            }
        ),
        # The two hinges of the reference program, with the paper's settings.
        "pairwise": MappingProxyType(
            {
                "objective": "pairwise",
                "window": 5,
                "negatives": 2,
                "positions_per_draw": 1,
                "margin": 0.15,
                "context_weight": 0.5,
                "subsample_threshold": 1e-3,
                "word_method": "center",
                "doc_context_share": 0.0,
            }
        ),
    }
)


def preset_settings(name: str) -> dict[str, Any]:
    """The settings of a preset, by name; single settings that a user gives come over them.

    Raises:
        ConfigError: an unknown name.

    Example:
        >>> preset_settings("paper")["doc_method"]
        'trained'
    """
    if name not in PRESETS:
        raise ConfigError(f"preset is {name!r}; it must be one of {', '.join(PRESETS)}")
    return dict(PRESETS[name])


def available_workers() -> int:
    """The number of processor cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity call
        return os.cpu_count() or 1


def _option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A field with the facts that the validator and the command line both read."""
    return field(default=default, metadata={"help": help, "low": low, "high": high, "above": above, "choices": choices})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Hyper-parameters of one training run; the defaults are those that measured best (the paper's are a preset).

    Each field carries its one-line help and its allowed range in ``field.metadata``; the options are made of it.

    Raises:
        ConfigError: a value outside its range, with the value, the range and the option's name.

    Example:
        >>> TrainConfig(dim=50).dim
        50
        >>> TrainConfig(window=0)
        Traceback (most recent call last):
        ...
        jose_embed.errors.ConfigError: window is 0; it must be a whole number from 1 to 1000
    """

    dim: int = _option(100, "dimension of the vectors", low=2, high=1024)
    window: int = _option(2, "largest distance between a center word and its context", low=1, high=1000)
    negatives: int = _option(16, "negative words of a position, shared by the pairs of its window", low=1, high=16)
    positions_per_draw: int = _option(
        2, "positions in a row that share their negatives; more is faster, 1 draws anew for each", low=1, high=64
    )
    doc_negatives: int = _option(
        16, "pairwise: negative words of eight words of a document, shared by them", low=1, high=16
    )
    context_weight: float = _option(
        4.0, "weight of the hinges at a position; pairwise: of those between words", low=0.0, high=1000.0
    )
    doc_weight: float = _option(
        8.0,
        "weight of the hinges between words and documents; joint: how far documents move, unless --doc-step sum",
        low=0.0,
        high=1000.0,
    )
    doc_step: DocStep = _option(
        "mean",
        "joint: steps of a document's row, averaged over its words (mean) or added up as published (sum)",
        choices=("mean", "sum"),
    )
    margin: float = _option(0.3, "margin of the hinge, in units of cosine", above=0.0, high=2.0)
    learning_rate: float = _option(0.04, "step size at the start; falls linearly towards zero", above=0.0, high=1.0)
    subsample_threshold: float = _option(
        0.0,
        "words above this share of the text are thinned out; 1 keeps all; 0: 0.0001, but never below 200 occurrences",
        low=0.0,
        high=1.0,
    )
    min_count: int = _option(5, "words that occur less often are left out", low=1)
    epochs: int = _option(
        0,
        "passes over the text; 0: 10, or as many as make 10 million words of a shorter text, 50 at most",
        low=0,
        high=100_000,
    )
    objective: Objective = _option(
        "joint",
        "the loss: the paper's hinge over word and document (joint) or two hinges apart (pairwise)",
        choices=("pairwise", "joint"),
    )
    negative_step: NegativeStep = _option(
        "paper", "step of a negative: 1 + h (paper) or 2 h (reference program)", choices=("paper", "reference")
    )
    noise_exponent: float = _option(0.75, "negatives are drawn by count to this power", low=0.0, high=2.0)
    doc_method: DocMethod = _option(
        "words",
        "what a document's vector is: the direction of its words, or the row trained with them",
        choices=("words", "trained"),
    )
    word_method: WordMethod = _option(
        "both",
        "what a word's vector is: its center row, or the direction of both its rows, the context row for 0.3 (both)",
        choices=("center", "both"),
    )
    doc_context_share: float = _option(
        0.6,
        "how much of its context row is taken from each word's vector in very long documents; half of it at 100 words",
        low=0.0,
        high=1.0,
    )
    doc_shrinkage: float = _option(
        1.5,
        "how much axes are shrunk along which halves of a document disagree, if doc_method is words; 0: not at all",
        low=0.0,
        high=16.0,
    )
    doc_vectors: DocVectors = _option(
        "memory",
        "where document vectors lie while training: memory, mapped (a temporary file), none (mapped, not in the model)",
        choices=("memory", "mapped", "none"),
    )
    seed: int = _option(1, "seed of every random choice", low=0, high=2**63 - 1)
    backend: BackendName = _option(
        "auto",
        "what trains: the processor (cpu), a CUDA device (gpu), or the device where there is one (auto)",
        choices=("auto", "cpu", "gpu"),
    )
    workers: int = _option(
        0,
        "documents trained at a time: threads on cpu, warps on gpu; 0 takes every core, or what a device can bear",
        low=0,
        high=1024,
    )
    tokenizer: str = _option("words", "how a line becomes words: words, whitespace")

    def __post_init__(self) -> None:
        for option in dataclasses.fields(self):
            object.__setattr__(self, option.name, _checked(option.name, getattr(self, option.name), option))

    def for_text(self, n_tokens: int) -> TrainConfig:
        """The settings for a text of so many running words: what was left to the text becomes a number.

        ``epochs`` are 10, or as many as make 10 million running words, but no more than 50: a word moves only where it
        occurs. ``subsample_threshold`` is 0.0001, or the share that 200 occurrences are: fewer are not thinned out.

        Args:
            n_tokens: Running words of the text that the vocabulary holds.

        Example:
            >>> settled = TrainConfig(window=5).for_text(400_000)
            >>> settled.window, settled.epochs, settled.subsample_threshold
            (5, 25, 0.0005)
        """
        needed = math.ceil(_WORDS_TO_TRAIN / max(1, n_tokens))
        return dataclasses.replace(
            self,
            epochs=self.epochs or min(max(_FEWEST_EPOCHS, needed), _MOST_EPOCHS),
            subsample_threshold=self.subsample_threshold
            or min(max(_THINNED_SHARE, _UNTHINNED / max(1, n_tokens)), 1.0),
        )

    def context_share(self, words_per_document: float) -> float:
        """How much of its context row each word gives back in documents of so many words on average.

        The share is ``doc_context_share * L / (L + 100)`` for L words. A word's neighbours say little about the topic
        of a long document; a short one is hardly more than a word and its neighbours.

        Example:
            >>> TrainConfig().context_share(100.0)
            0.3
        """
        return self.doc_context_share * words_per_document / (words_per_document + _HALF_SHARE_LENGTH)

    def resolved_workers(self) -> int:
        """The number of threads to start: ``workers``, or every available core where it is 0."""
        return self.workers or available_workers()

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The inverse of :meth:`to_dict`.

        Raises:
            ConfigError: a name that is no setting, or a value outside its range.
        """
        known = {option.name for option in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"unknown setting {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        return cls(**values)


def _checked(name: str, value: Any, option: dataclasses.Field[Any]) -> Any:
    """The value as a plain str, int or float; numbers of NumPy are numbers too."""
    facts = option.metadata
    if isinstance(option.default, str):
        if facts["choices"] is not None and value not in facts["choices"]:
            raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(facts['choices'])}")
        if not isinstance(value, str) or not value:
            raise ConfigError(f"{name} is {value!r}; it must be a name")
        return value
    whole = isinstance(option.default, int)
    kind = "a whole number" if whole else "a number"
    low, high, above = facts["low"], facts["high"], facts["above"]
    if (
        not isinstance(value, numbers.Integral if whole else numbers.Real)
        or isinstance(value, bool)
        or (isinstance(value, float) and not math.isfinite(value))
        or (low is not None and value < low)
        or (above is not None and value <= above)
        or (high is not None and value > high)
    ):
        bounds = f"above {above}" if above is not None else f"from {low}"
        bounds += f" to {high}" if high is not None else " up"
        raise ConfigError(f"{name} is {value!r}; it must be {kind} {bounds}")
    number: Any = value
    return int(number) if whole else float(number)
