"""Tokenizers: how a text becomes words.

A tokenizer is a named, callable value. Two are built in; others join through :func:`register_tokenizer`:

``words``
    Unicode words, lower-cased. A word starts with a letter or digit (``str.isalnum``) and continues with letters,
    digits and combining marks; a single apostrophe, zero-width joiner or non-joiner stays where it stands between two
    letters (``don't``, ``l'homme``). U+2019 becomes an apostrophe, a soft hyphen is dropped, an underscore separates.
    Lower case is taken character by character, so that it depends on nothing around it: U+0130 becomes ``i``, and a
    capital sigma becomes the final form at the end of a word of more than one letter. Characters of ``keep_joined``
    stay between two letters or digits like the apostrophe; ``+`` and ``#`` of it stay at the end of a word, too
    (``c++``). Characters of ``keep_prefix`` stay directly before a word that no letter precedes (``#tag``).
``whitespace``
    The text is already tokenised: split where ``str.split`` splits, nothing else changed.

Both are decided character by character, so one table over all code points (:meth:`CodePointTokenizer.rules`) describes
them completely. The plain-Python call and the compiled reader both follow it and give the same words for every text.
"""

from __future__ import annotations

import codecs
import functools
import importlib
import importlib.metadata
import os
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from jose_embed.config import TrainConfig
from jose_embed.errors import ConfigError, CorpusError
from jose_embed.text.normalization import check_form, normalized

# What a character does. A letter and a sigma may start a word. The last three are kept before a word; inside of one
# they separate, join, or count as marks.
SEPARATOR, IGNORED, JOINER, MARK, LETTER, SIGMA, PREFIX, PREFIX_JOINER, PREFIX_MARK = range(9)
KIND_SHIFT = 24  # a rule is kind << 24 | code point written in its place

#: Of the characters that are kept inside words: those that stay at the end, too.
ALSO_LAST = "+#"

N_CODE_POINTS = 0x110000
_CODED = 65_536  # characters that are encoded or decoded at a time: no other thread gets on meanwhile
_SURROGATES = range(0xD800, 0xE000)
_CAPITAL_SIGMA, _FINAL_SIGMA = "\u03a3", "\u03c2"
_DOTTED_I = "\u0130"  # the one character whose lower case is two characters
_JOINERS = "'\u2019\u200c\u200d"
_SOFT_HYPHEN = "\u00ad"


@runtime_checkable
class Tokenizer(Protocol):
    """A tokenizer: a name, settings that JSON can hold, and a call that splits one text."""

    @property
    def name(self) -> str:
        """The name under which it is registered."""

    def settings(self) -> dict[str, Any]:
        """The settings that :func:`get_tokenizer` needs to make an equal tokenizer."""

    def __call__(self, text: str) -> list[str]:
        """The words of one text, in order. A word is never empty and holds no tab and no line break."""


def valid_text(text: str) -> str:
    """The text as a file could hold it: NUL and lone surrogates become U+FFFD.

    Example:
        >>> valid_text("a" + chr(0) + "b" + chr(0xD800)) == "a" + chr(0xFFFD) + "b" + chr(0xFFFD)
        True
    """
    clean = text.replace("\0", "\ufffd")
    if clean.isascii():
        return clean
    if len(clean) <= _CODED:
        return clean.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    # Two surrogates that make a character may be in two pieces, which this decoder joins.
    pieces = (clean[i : i + _CODED].encode("utf-16-le", "surrogatepass") for i in range(0, len(clean), _CODED))
    return "".join(codecs.iterdecode(pieces, "utf-16-le", "replace"))


@runtime_checkable
class CodePointTokenizer(Tokenizer, Protocol):
    """A tokenizer that is decided by one table over the code points; the compiled reader runs it from the table
    alone."""

    def rules(self) -> npt.NDArray[np.uint32]:
        """The table, uint32 (0x110000,): ``kind << 24 | code point to write``.

        The space and the line feed must be separators.
        """


class WordTokenizer:
    """Unicode words, lower-cased; the definition stands at the top of this file.

    Args:
        keep_joined: Characters that stay between two letters or digits; ``+`` and ``#`` also at the end of a word.
        keep_prefix: Characters that stay before a word.

    Raises:
        ConfigError: a letter, a digit, a combining mark, white space or a control character among them.

    Example:
        >>> WordTokenizer()("Don\u2019t PANIC: it's the l'Hôpital_rule, x2!")
        ["don't", 'panic', "it's", 'the', "l'hôpital", 'rule', 'x2']
        >>> WordTokenizer("-.+", "#@")("e-mail C++ 3.14 #tag me@home.org.")
        ['e-mail', 'c++', '3.14', '#tag', 'me', 'home.org']
    """

    name = "words"
    lower_cases = True

    def __init__(self, keep_joined: str = "", keep_prefix: str = "") -> None:
        self.keep_joined = _kept_characters("keep_joined", keep_joined)
        self.keep_prefix = _kept_characters("keep_prefix", keep_prefix)

    def settings(self) -> dict[str, Any]:
        """The characters that are kept; nothing where there are none."""
        kept = {"keep_joined": self.keep_joined, "keep_prefix": self.keep_prefix}
        return {name: characters for name, characters in kept.items() if characters}

    def __call__(self, text: str) -> list[str]:
        """The words of one text, in order."""
        text = text.replace(_SOFT_HYPHEN, "").replace("\u2019", "'").replace(_DOTTED_I, "i")
        find = word_pattern(self.keep_joined, self.keep_prefix).findall
        if _CAPITAL_SIGMA not in text:
            return find(text.lower())
        return [_lower_with_sigma(word) for word in find(text)]

    def rules(self) -> npt.NDArray[np.uint32]:
        """The table of the compiled reader, uint32 (0x110000,)."""
        return _word_rules(self.keep_joined, self.keep_prefix)


def _kept_characters(name: str, characters: str) -> str:
    """Characters that are kept, each once, in order.

    Raises:
        ConfigError: something else.
    """
    if not isinstance(characters, str):
        raise ConfigError(f"{name} is {str(characters)[:100]!r}; it must be text, such as '-.'")
    for character in characters:
        if character.isalnum() or unicodedata.category(character)[0] in "MZC":
            raise ConfigError(f"{name} holds {character!r}; only punctuation and symbols can be kept")
    kept = set(characters.replace("\u2019", "'"))
    return "".join(sorted(kept - {"'"} if name == "keep_joined" else kept))


class WhitespaceTokenizer:
    """Splits at white space, as ``str.split`` does.

    Example:
        >>> WhitespaceTokenizer()("New_York  is 3.5h away .")
        ['New_York', 'is', '3.5h', 'away', '.']
    """

    name = "whitespace"

    def settings(self) -> dict[str, Any]:
        """No settings."""
        return {}

    def __call__(self, text: str) -> list[str]:
        """The words of one text, in order."""
        return text.split()

    def rules(self) -> npt.NDArray[np.uint32]:
        """The table of the compiled reader, uint32 (0x110000,)."""
        return _whitespace_rules()


def _lower_with_sigma(word: str) -> str:
    final = len(word) > 1 and word.endswith(_CAPITAL_SIGMA)
    lower = word.replace(_CAPITAL_SIGMA, "\u03c3").lower()
    return lower[:-1] + _FINAL_SIGMA if final else lower


def _every_character() -> str:
    """One string with the code point i at position i; spaces stand where the surrogates would be."""
    codes = np.arange(N_CODE_POINTS, dtype="<u4")
    codes[_SURROGATES.start : _SURROGATES.stop] = ord(" ")
    return codes.tobytes().decode("utf-32-le")


@functools.cache
def _marks() -> npt.NDArray[np.intp]:
    """The code points of every combining mark (general category M), ascending."""
    planes = (range(0x300, 0x20000), range(0xE0000, 0xE0200))  # planes 2 and 3 hold ideographs, the rest nothing
    category = unicodedata.category
    return np.array([code for plane in planes for code in plane if category(chr(code))[0] == "M"], dtype=np.intp)


@functools.cache
def word_pattern(keep_joined: str = "", keep_prefix: str = "") -> re.Pattern[str]:
    """The words of a text as a regular expression; its first group is the word if something is kept before words."""
    marks = _marks()
    first = marks[np.diff(marks, prepend=-2) > 1]
    last = marks[np.diff(marks, append=N_CODE_POINTS) > 1]
    spans = "".join(f"{chr(a)}-{chr(b)}" for a, b in zip(first, last, strict=True))
    spans += re.escape("".join(character for character in keep_joined if character in ALSO_LAST))
    joiners = _JOINERS + re.escape("".join(character for character in keep_joined if character not in ALSO_LAST))
    letter, more = r"[^\W_]", rf"(?:[^\W_]|[{spans}])*"
    word = f"{letter}{more}(?:[{joiners}]{letter}{more})*"
    if keep_prefix:
        # A joiner and a character like the prefix behind a word belong to no other word.
        prefix = f"[{re.escape(keep_prefix)}]"
        word = f"({prefix}?{word})[{joiners}]?{prefix}?"
    return re.compile(word)


@functools.cache
def _word_rules(keep_joined: str, keep_prefix: str) -> npt.NDArray[np.uint32]:
    characters = _every_character()
    plain = characters.replace(_DOTTED_I, "i").replace(_CAPITAL_SIGMA, "\u03c3")
    rules = np.frombuffer(plain.lower().encode("utf-32-le"), dtype="<u4").astype(np.uint32)
    kinds = np.zeros(N_CODE_POINTS, np.uint32)
    for span in re.finditer(r"[^\W_]+", characters):
        kinds[span.start() : span.end()] = LETTER
    kinds[_marks()] = MARK
    kinds[[ord(joiner) for joiner in _JOINERS]] = JOINER
    kinds[ord(_SOFT_HYPHEN)] = IGNORED
    kinds[ord(_CAPITAL_SIGMA)] = SIGMA
    for character in keep_joined:
        kinds[ord(character)] = MARK if character in ALSO_LAST else JOINER
    for character in keep_prefix:
        inside = int(kinds[ord(character)])
        kinds[ord(character)] = {JOINER: PREFIX_JOINER, MARK: PREFIX_MARK}.get(inside, PREFIX)
    kinds[0x2019] = kinds[ord("'")]
    rules[0x2019] = ord("'")
    rules |= kinds << np.uint32(KIND_SHIFT)
    rules.setflags(write=False)
    return rules


@functools.cache
def _whitespace_rules() -> npt.NDArray[np.uint32]:
    rules = np.arange(N_CODE_POINTS, dtype=np.uint32) | np.uint32(LETTER << KIND_SHIFT)
    for span in re.finditer(r"\s+", _every_character()):
        rules[span.start() : span.end()] = SEPARATOR
    rules.setflags(write=False)
    return rules


class NormalizingTokenizer:
    """A tokenizer of texts in a Unicode form; otherwise it is the tokenizer that it was made of.

    Args:
        tokenizer: Splits the text.
        normalization: One of :data:`~jose_embed.text.normalization.FORMS`.

    Raises:
        ConfigError: an unknown form.

    Example:
        >>> NormalizingTokenizer(WordTokenizer(), "nfc")("cafe" + chr(0x301)) == ["caf" + chr(0xE9)]
        True
    """

    def __init__(self, tokenizer: Tokenizer, normalization: str) -> None:
        self.tokenizer = tokenizer
        self.normalization = check_form(normalization)
        self.lower_cases: bool = getattr(tokenizer, "lower_cases", False)

    @property
    def name(self) -> str:
        """The name of the tokenizer."""
        return self.tokenizer.name

    def settings(self) -> dict[str, Any]:
        """The settings of the tokenizer."""
        return self.tokenizer.settings()

    def normalized(self, text: str) -> str:
        """The text in the form."""
        return normalized(text, self.normalization, lower_cases=self.lower_cases)

    def __call__(self, text: str) -> list[str]:
        """The words of one text, in order."""
        return self.tokenizer(self.normalized(text))

    def spelled(self, word: str) -> list[str]:
        """A word that somebody has typed as the tokenizer would find it in a text; several words if it is none.

        A tokenizer that cannot judge a word without its context may have such a method of its own.
        """
        own: Callable[[str], list[str]] = getattr(self.tokenizer, "spelled", self.tokenizer)
        return own(self.normalized(word))


def normalizing(tokenizer: Tokenizer, normalization: str | None) -> Tokenizer:
    """The tokenizer with a Unicode form before it; unchanged for ``None``, or if it has one."""
    if normalization is None or isinstance(tokenizer, NormalizingTokenizer):
        return tokenizer
    return NormalizingTokenizer(tokenizer, normalization)


def normalization_of(tokenizer: Tokenizer) -> str | None:
    """The Unicode form that a tokenizer gives to texts; ``None`` if it has none, not even "none"."""
    return getattr(tokenizer, "normalization", None)


def code_point_rules(tokenizer: Tokenizer) -> npt.NDArray[np.uint32] | None:
    """The table of a tokenizer that is decided by one, whatever the Unicode form before it; else ``None``."""
    inner = tokenizer.tokenizer if isinstance(tokenizer, NormalizingTokenizer) else tokenizer
    return inner.rules() if isinstance(inner, CodePointTokenizer) else None


def configured_tokenizer(config: TrainConfig) -> Tokenizer:
    """The tokenizer that the settings of a training name, with the Unicode form before it.

    Raises:
        ConfigError: as :func:`get_tokenizer`, or the tokenizer cannot keep characters.
    """
    kept = {name: characters for name in ("keep_joined", "keep_prefix") if (characters := getattr(config, name))}
    return normalizing(get_tokenizer(config.tokenizer, kept), config.normalize)


def stored_tokenizer(name: str, settings: Mapping[str, Any], text: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a manifest describes.

    Args:
        name: Its name.
        settings: Its settings.
        text: The manifest's entry ``text``, as :func:`text_facts` makes it.

    Raises:
        ConfigError: as :func:`get_tokenizer`.
    """
    return normalizing(get_tokenizer(name, settings, stored=True), text.get("normalisation"))


def text_facts(tokenizer: Tokenizer) -> dict[str, Any]:
    """The facts about a tokenizer that a manifest stores under ``text``."""
    form = normalization_of(tokenizer)
    inner = tokenizer.tokenizer if isinstance(tokenizer, NormalizingTokenizer) else tokenizer
    facts: dict[str, Any] = {} if form is None else {"normalisation": form}
    if (versions := getattr(inner, "versions", None)) is not None:
        facts["segmenter"] = {"name": inner.name, "settings": inner.settings(), **versions()}
    return facts


def other_versions(text: Mapping[str, Any]) -> str | None:
    """A sentence about libraries of the model's tokenizer that have another version here; ``None`` without any.

    Args:
        text: The manifest's entry ``text``. No library is imported.
    """
    stored = text.get("segmenter") or {}
    if (name := stored.get("name")) not in _SEGMENTERS:
        return None
    from jose_embed.text.segmenters import SEGMENTERS

    distributions = SEGMENTERS[name].distributions
    differing = []
    for what, distribution in zip(("library_version", "dictionary_version"), distributions, strict=False):
        try:
            here = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue  # the first text says what to install
        if (was := stored.get(what)) not in (None, here):
            differing.append(f"{distribution} {was}, here it is {here}")
    if not differing:
        return None
    return f"the text of this model was split by {' and by '.join(differing)}; some texts may get other words"


class ImportedTokenizer:
    """A function of another module as a tokenizer: ``MODULE:CALLABLE``.

    Args:
        name: The module and the name in it, such as ``my_package.words:split``. The function takes a text and returns
            its words; a class is called first, without arguments.

    Raises:
        ConfigError: no such module, or nothing in it that can be called.
    """

    in_processes = True

    def __init__(self, name: str) -> None:
        module, _, attribute = name.partition(":")
        try:
            split = functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
            split = split() if isinstance(split, type) else split
        except Exception as error:  # of any kind, as it is foreign code
            reason = f"{type(error).__name__}: {str(error)[:200]}"
            raise ConfigError(f"the tokenizer {name[:100]!r} cannot be imported ({reason})") from error
        if not callable(split):
            raise ConfigError(f"the tokenizer {name[:100]!r} is not a function; name one that splits a text into words")
        self.name = name
        self._split: Callable[[str], list[str]] = split

    def settings(self) -> dict[str, Any]:
        """No settings."""
        return {}

    def __call__(self, text: str) -> list[str]:
        """The words of one text, in order.

        Raises:
            CorpusError: the function fails, or gives something else than words.
        """
        try:
            words = self._split(text)
            if isinstance(words, (str, bytes)):
                raise TypeError(f"it gave {type(words).__name__}, not a list of words")
            return list(words)
        except Exception as error:  # of any kind, as it is foreign code
            raise CorpusError(
                f"the tokenizer {self.name!r} failed: {type(error).__name__}: {str(error)[:500]}"
            ) from error


_FACTORIES: dict[str, Callable[..., Tokenizer]] = {"words": WordTokenizer, "whitespace": WhitespaceTokenizer}
_SEGMENTERS = ("jieba", "kiwi", "pythainlp", "sudachi")
_ENTRY_POINTS = "jose_embed.tokenizers"
_IMPORTED = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")
_TRUSTED = "JOSE_TOKENIZERS"


def tokenizer_names() -> tuple[str, ...]:
    """The names of every tokenizer that can be used here, sorted; not those of ``MODULE:CALLABLE``."""
    others = importlib.metadata.entry_points(group=_ENTRY_POINTS).names
    return tuple(sorted({*_FACTORIES, *_SEGMENTERS, *others}))


def register_tokenizer(name: str, factory: Callable[..., Tokenizer]) -> None:
    """Make a tokenizer known by name in this process, so that a training and a stored model can ask for it.

    A package makes its tokenizers known to every process, the commands and the service, by entry points of the group
    ``jose_embed.tokenizers``: the name, and the same factory.

    Args:
        name: Its name; registering a name again replaces it.
        factory: Called with the stored settings as keyword arguments.

    Raises:
        ConfigError: an empty name.

    Example::

        class Syllables:
            name = "syllables"

            def settings(self):
                return {}

            def __call__(self, text):
                return text.split("-")

        jose_embed.register_tokenizer("syllables", Syllables)
        model = jose_embed.train("corpus.txt", tokenizer="syllables")
    """
    if not isinstance(name, str) or not name:
        raise ConfigError(f"the tokenizer's name is {name!r}; it must be a name")
    _FACTORIES[name] = factory


def get_tokenizer(name: str, settings: Mapping[str, Any] | None = None, *, stored: bool = False) -> Tokenizer:
    """The tokenizer of that name with those settings.

    Args:
        name: A registered name, that of a segmenter or an entry point, or ``MODULE:CALLABLE``.
        settings: Keyword arguments of its factory.
        stored: Whether a model names it. Then ``MODULE:CALLABLE`` is only imported if this process has used it for a
            training, or if the environment variable ``JOSE_TOKENIZERS`` names it: a model must not choose code to run.

    Raises:
        ConfigError: an unknown name, or settings that its factory does not take.
        MissingExtraError: the library of a segmenter is not installed.

    Example:
        >>> get_tokenizer("words")("Ab, c")
        ['ab', 'c']
    """
    factory = _factory(name, stored)
    try:
        return factory(**(settings or {}))
    except TypeError as error:
        shown = f"{dict(settings or {})!r}"[:200]
        raise ConfigError(f"tokenizer {name[:100]!r} does not take the settings {shown}: {str(error)[:200]}") from error


def _factory(name: str, stored: bool) -> Callable[..., Tokenizer]:
    """What makes the tokenizer of a name; arguments as for :func:`get_tokenizer`."""
    if name in _FACTORIES:
        return _FACTORIES[name]
    if name in _SEGMENTERS:
        from jose_embed.text.segmenters import SEGMENTERS

        return SEGMENTERS[name]
    for entry in importlib.metadata.entry_points(group=_ENTRY_POINTS, name=name):
        try:
            found: Callable[..., Tokenizer] = entry.load()
        except Exception as error:  # of any kind, as it is foreign code
            reason = f"{type(error).__name__}: {str(error)[:200]}"
            raise ConfigError(f"the tokenizer {name[:100]!r} cannot be imported ({reason})") from error
        return found
    if not _IMPORTED.fullmatch(name):
        known = ", ".join(tokenizer_names())
        raise ConfigError(
            f"tokenizer is {name[:100]!r}; it must be one of {known}, MODULE:CALLABLE, or be registered first "
            "(register_tokenizer)"
        )
    if stored and name not in os.environ.get(_TRUSTED, "").split(","):
        raise ConfigError(
            f"the model's tokenizer is {name[:100]!r}, code that is not part of jose-embed; if you trust it, set the "
            f"environment variable {_TRUSTED}={name[:100]}"
        )
    made = ImportedTokenizer(name)

    def factory() -> Tokenizer:
        return made

    _FACTORIES[name] = factory
    return factory
