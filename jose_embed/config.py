"""The settings of a training run: a frozen dataclass that validates itself."""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, TypedDict

from jose_embed.errors import ConfigError, counterpart, did_you_mean

Objective = Literal["pairwise", "joint", "smooth", "cross-entropy"]
NegativeStep = Literal["paper", "reference"]
BackendName = Literal["auto", "cpu", "gpu"]
DocMethod = Literal["words", "trained"]
DocVectors = Literal["memory", "mapped", "none"]
DocStep = Literal["mean", "sum"]
WordMethod = Literal["center", "both"]
Normalize = Literal["nfc", "nfkc", "none"]

# Settings that follow from the size of a text; DESIGN.md, decision 36, has the evidence.
_FEWEST_EPOCHS, _MOST_EPOCHS = 10, 50
_WORDS_TO_TRAIN = 10_000_000  # running words of all epochs
_THINNED_SHARE, _UNTHINNED = 1e-4, 200  # of the text, and occurrences
_HALF_SHARE_LENGTH = 100  # running words of documents that leave out half of doc_context_share

#: The settings of each preset; DESIGN.md, decision 5, says why, and tests/benchmarks/evidence/quality.md has the
#: figures of all of them on all corpora.
PRESETS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        # The narrowest window: neighbours are words of the same kind rather than of the same topic.
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


#: The settings that an encoded text depends on.
TEXT_SETTINGS: Final = (
    "tokenizer", "normalize", "keep_joined", "keep_prefix", "min_count", "stop_words", "keep_words", "max_vocab",
    "phrases",
)  # fmt: skip


def preset_settings(name: str) -> dict[str, Any]:
    """The settings of a preset, by name; settings that a user gives override them.

    Raises:
        ConfigError: an unknown name.

    Example:
        >>> preset_settings("paper")["doc_method"]
        'trained'
    """
    if name not in PRESETS:
        raise ConfigError(f"preset is {name!r}; it must be one of {', '.join(PRESETS)}{did_you_mean(name, PRESETS)}")
    return dict(PRESETS[name])


def available_workers() -> int:
    """The number of processor cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity call
        return os.cpu_count() or 1


Group = Literal["first", "training", "resources"]


def _option(
    default: Any,
    help: str,
    *,
    group: Group = "training",
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] | None = None,
    empty: bool = False,
    metavar: str | None = None,
) -> Any:
    """A field with the facts that the validator and the command line both read."""
    facts = {"help": help, "group": group, "low": low, "high": high, "above": above, "choices": choices}
    facts |= {"empty": empty, "metavar": metavar}  # whether text may be empty, and what stands for it in the help
    return field(default=default, metadata=facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Settings of one training run; the defaults are those that measured best (the paper's are a preset).

    Each field carries its one-line help, its group and its allowed range in ``field.metadata``; the options of the
    command line are made from it. Help texts and errors write an argument as in Python (``doc_method="words"``); the
    command line translates it into an option.

    Raises:
        ConfigError: a value outside its range; the message has the name, the value and the range.

    Example:
        >>> TrainConfig(dim=50).dim
        50
        >>> TrainConfig(window=0)
        Traceback (most recent call last):
        ...
        jose_embed.errors.ConfigError: window is 0; it must be a whole number from 1 to 1000
    """

    dim: int = _option(100, "numbers in each vector", group="first", low=2, high=1024)
    window: int = _option(
        2, "words on each side of a word that count as its context, at most", group="first", low=1, high=1000
    )
    negatives: int = _option(
        16, "random words (negative samples) that the context of each word is compared with", low=1, high=16
    )
    positions_per_draw: int = _option(
        2, "words in a row that share their negative samples; 1 is slowest and draws anew for each word", low=1, high=64
    )
    doc_negatives: int = _option(
        16,
        'objective="pairwise" only: negative samples for every 8 words that a document is compared with',
        low=1,
        high=16,
    )
    context_weight: float = _option(
        4.0,
        'factor on the step size; with objective="pairwise", on the step size between words only',
        low=0.0,
        high=1000.0,
    )
    doc_weight: float = _option(
        8.0,
        'factor on how far document vectors move; no effect with objective="joint" and doc_step="sum"',
        low=0.0,
        high=1000.0,
    )
    doc_step: DocStep = _option(
        "mean",
        'objective="joint" only: a document vector moves by the mean of the steps of its words, or by their sum as in'
        " the paper",
        choices=("mean", "sum"),
    )
    margin: float = _option(
        0.3,
        "how much more similar (in cosine) a word must be to its context than to a negative sample before it stops"
        " moving",
        above=0.0,
        high=2.0,
    )
    learning_rate: float = _option(0.04, "step size at the start; it falls linearly to zero", above=0.0, high=1.0)
    subsample_threshold: float = _option(
        0.0,
        "words that make up more than this share of the text are skipped at random; 1 skips none, 0 chooses by the size"
        " of the text",
        low=0.0,
        high=1.0,
    )
    min_count: int = _option(5, "ignore words that occur less often than this", group="first", low=1)
    epochs: int = _option(
        0,
        "passes over the text; 0 chooses by its size: 10, and up to 50 for less than a million words",
        group="first",
        low=0,
        high=100_000,
    )
    objective: Objective = _option(
        "joint",
        "loss function: word, context and document in one term as in the paper (joint), or a term for words and one for"
        " documents (pairwise); the joint one with a smooth hinge (smooth), or as cross-entropy of real and random"
        " pairs (cross-entropy)",
        choices=("pairwise", "joint", "smooth", "cross-entropy"),
    )
    sharpness: float = _option(
        8.0,
        'objective="smooth" only: how sharply its hinge bends; a large number is the hinge of joint',
        above=0.0,
        high=1000.0,
    )
    temperature: float = _option(
        4.0,
        'objective="cross-entropy" only: factor on cosines, less margin, before the sigmoid',
        above=0.0,
        high=1000.0,
    )
    isotropy: float = _option(
        0.0,
        "how strongly words are spread over all directions, as a number of steps of each word in an epoch; 0 does not",
        low=0.0,
        high=1000.0,
    )
    negative_step: NegativeStep = _option(
        "paper",
        "step away from a negative sample at cosine c: proportional to 1 + c (paper) or 2 c (the authors' program)",
        choices=("paper", "reference"),
    )
    noise_exponent: float = _option(
        0.75, "a word is drawn as a negative sample in proportion to its count to this power", low=0.0, high=2.0
    )
    doc_method: DocMethod = _option(
        "words",
        "how document vectors are made: from the words of the document after training, or trained with them",
        choices=("words", "trained"),
    )
    word_method: WordMethod = _option(
        "both",
        "a word's vector: the one it has as center of a window, or that plus 0.3 times the one it has as neighbor",
        choices=("center", "both"),
    )
    doc_context_share: float = _option(
        0.6,
        "share of its context vector that is subtracted from a word before a document's words are summed; half of it"
        " at 100 words a document",
        low=0.0,
        high=1.0,
    )
    doc_shrinkage: float = _option(
        1.5,
        'doc_method="words" only: how strongly to shrink the dimensions in which two halves of a document disagree by'
        " chance; 0 does not",
        low=0.0,
        high=16.0,
    )
    held_out: float = _option(
        0.0,
        "share of the documents that is kept from training, to measure the loss on them after each epoch",
        low=0.0,
        high=0.9,
    )
    patience: int = _option(
        0,
        "stop after this many epochs without a lower loss of the held-out documents; 0 trains all epochs",
        low=0,
        high=100_000,
    )
    doc_vectors: DocVectors = _option(
        "memory",
        "where document vectors are kept during training: in memory, in a temporary file (mapped), or in such a file"
        " and not in the model (none)",
        group="resources",
        choices=("memory", "mapped", "none"),
    )
    seed: int = _option(
        1,
        "seed of the random numbers; only workers=1 gives the same vectors again, several workers differ slightly",
        group="first",
        low=0,
        high=2**63 - 1,
    )
    backend: BackendName = _option(
        "auto",
        "train on the CPU, on an NVIDIA GPU, or on the GPU if there is one (auto)",
        group="resources",
        choices=("auto", "cpu", "gpu"),
    )
    workers: int = _option(
        0,
        "threads on the CPU, or documents at a time on the GPU; 0 uses all cores, or as many as the GPU has room for",
        group="resources",
        low=0,
        high=1024,
    )
    tokenizer: str = _option(
        "words",
        "how a line is split: words (runs of letters and digits, lower-cased; an apostrophe stays between two letters,"
        " all else separates, so e-mail is e, mail), whitespace (text that is already split), jieba (Chinese), sudachi"
        " (Japanese), pythainlp (Thai), kiwi (Korean), or MODULE:CALLABLE",
        group="first",
    )
    normalize: Normalize = _option(
        "nfc",
        "Unicode form of the text and of all later texts and words: composed letters (nfc), also plain ones for"
        " full-width letters and ligatures (nfkc), or as it is (none)",
        group="first",
        choices=("nfc", "nfkc", "none"),
    )
    keep_joined: str = _option(
        "",
        "characters that stay between two letters or digits, such as '-._'; + and # of them stay at the end of a word,"
        " too",
        empty=True,
        metavar="CHARS",
    )
    keep_prefix: str = _option("", "characters that stay before a word, such as '#@'", empty=True, metavar="CHARS")
    stop_words: str = _option("none", "file with words to leave out, one on each line; or none", metavar="FILE")
    keep_words: str = _option(
        "",
        "file with words to keep even if they are rarer than min_count, one on each line",
        empty=True,
        metavar="FILE",
    )
    max_vocab: int = _option(0, "words in the vocabulary, at most: the most frequent ones; 0 for no bound", low=0)
    phrases: bool = _option(False, "make one word, such as new_york, of two that occur mostly together")

    subwords: bool = _option(
        False,
        "also learn vectors of character n-grams, of which unknown words are composed",
        group="first",
    )
    subword_shortest: int = _option(
        3, "with subwords: characters of the shortest n-gram, the marks at both ends of a word counted", low=1, high=20
    )
    subword_longest: int = _option(6, "with subwords: characters of the longest n-gram", low=1, high=20)
    subword_buckets: int = _option(
        100_000, "with subwords: vectors of n-grams, at most; n-grams share one by their hash", low=1, high=2**31 - 1
    )
    init: str = _option(
        "",
        "vectors that words begin at: a model, or a file in the word2vec, GloVe, fastText or safetensors format",
        group="first",
        empty=True,
        metavar="FILE",
    )
    init_pull: float = _option(
        20.0,
        "with init: how strongly words are held near the given vectors, as a number of occurrences in the text; 0 lets"
        " go after the start, a million freezes",
        low=0.0,
        high=1e6,
    )
    continue_from: str = _option(
        "",
        "a model to continue with this text: its settings, words and documents stay, and words move by as much as the"
        " text adds to what is known of them",
        group="first",
        empty=True,
        metavar="MODEL",
    )
    earlier_text: str = _option(
        "",
        "with a model to continue: the encoded text that it was trained on, so that words go on with both texts,"
        " which is better, and all document vectors are made anew; not needed if the model keeps its texts",
        empty=True,
        metavar="DIR",
    )

    def __post_init__(self) -> None:
        for option in dataclasses.fields(self):
            object.__setattr__(self, option.name, _checked(option.name, getattr(self, option.name), option))
        if self.subwords and self.subword_shortest > self.subword_longest:
            raise ConfigError(
                f"subword_shortest is {self.subword_shortest}, above subword_longest, which is {self.subword_longest};"
                " it must be at most that"
            )

    def for_text(self, n_tokens: int) -> TrainConfig:
        """The settings with ``epochs`` and ``subsample_threshold`` chosen for the text if they are 0.

        ``epochs`` becomes 10, or as many as make 10 million running words, at most 50. ``subsample_threshold`` becomes
        0.0001, or the share of 200 occurrences if that is larger, so that rare words are never skipped.

        Args:
            n_tokens: Running words of the text that are in the vocabulary.

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
        """The share of its context vector that is left out of each word of a document vector.

        The share is ``doc_context_share * L / (L + 100)`` for documents of L words on average. A word's neighbours say
        little about the topic of a long document, and much about a short one.

        Example:
            >>> TrainConfig().context_share(100.0)
            0.3
        """
        return self.doc_context_share * words_per_document / (words_per_document + _HALF_SHARE_LENGTH)

    def resolved_workers(self) -> int:
        """The number of threads to start: ``workers``, or every available core if it is 0."""
        return self.workers or available_workers()

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The inverse of :meth:`to_dict`.

        Raises:
            ConfigError: an unknown name, or a value outside its range.

        Example:
            >>> TrainConfig.from_dict({"vector_size": 50})
            Traceback (most recent call last):
            ...
            jose_embed.errors.ConfigError: unknown setting vector_size (gensim's name); use dim instead
        """
        known = [option.name for option in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise ConfigError(f"unknown setting {name}{counterpart(name, known)}")
        return cls(**values)


class TrainSettings(TypedDict, total=False):
    """Some settings of :class:`TrainConfig` by name, for type checkers."""

    dim: int
    window: int
    negatives: int
    positions_per_draw: int
    doc_negatives: int
    context_weight: float
    doc_weight: float
    doc_step: DocStep
    margin: float
    learning_rate: float
    subsample_threshold: float
    min_count: int
    epochs: int
    objective: Objective
    sharpness: float
    temperature: float
    isotropy: float
    negative_step: NegativeStep
    noise_exponent: float
    doc_method: DocMethod
    word_method: WordMethod
    doc_context_share: float
    doc_shrinkage: float
    held_out: float
    patience: int
    doc_vectors: DocVectors
    seed: int
    backend: BackendName
    workers: int
    tokenizer: str
    normalize: Normalize
    keep_joined: str
    keep_prefix: str
    stop_words: str
    keep_words: str
    max_vocab: int
    phrases: bool
    subwords: bool
    subword_shortest: int
    subword_longest: int
    subword_buckets: int
    init: str
    init_pull: float
    continue_from: str
    earlier_text: str


def _checked(name: str, value: Any, option: dataclasses.Field[Any]) -> Any:
    """The value as a plain str, int or float; NumPy's numbers are accepted."""
    facts = option.metadata
    if isinstance(option.default, bool):
        if not isinstance(value, bool):
            raise ConfigError(f"{name} is {value!r}; it must be True or False")
        return value
    if isinstance(option.default, str):
        if facts["choices"] is not None and value not in facts["choices"]:
            raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(facts['choices'])}")
        if not isinstance(value, str) or not (value or facts["empty"]):
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
