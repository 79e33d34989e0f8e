"""Tokenizers of scripts without spaces, by libraries that know the words of a language.

============  ========  ===========================================  ========
name          language  library                                      extra
============  ========  ===========================================  ========
``jieba``     Chinese   jieba                                        chinese
``sudachi``   Japanese  SudachiPy with SudachiDict core, mode C      japanese
``pythainlp`` Thai      PyThaiNLP, newmm                             thai
``kiwi``      Korean    kiwipiepy: morphemes                         korean
============  ========  ===========================================  ========

A text is put into NFC, and full-width letters become plain ones, because the libraries take them apart. The library
decides about words that hold a character of its scripts. Everything between them, such as Latin letters and digits, is
split as the tokenizer ``words`` does it, so that the libraries cannot tear ``café``. White space and punctuation are no
words. Long texts are cut at the ends of sentences.

A library is imported at the first text. Its version and that of its dictionary are stored with a model.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import logging
import re
import threading
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Final

from jose_embed.errors import MissingExtraError
from jose_embed.text.tokenizers import WordTokenizer, word_pattern

_LONGEST: Final = 1_000  # characters that a library gets at once, some milliseconds; Sudachi takes 49,149 bytes
_SENTENCE_END: Final = re.compile("[。！？!?…\n]|\\. ")
_SPACE: Final = re.compile(r"\s")
_WIDE: Final = re.compile("[\uff01-\uffee\u3000]+")
_HAN: Final = "\u3005-\u3007\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_SOFT_HYPHEN: Final = "\u00ad"

#: A word of a library: where it starts and ends in the text, and its form.
Found = tuple[int, int, str]


class Segmenter:
    """A tokenizer by a library; the base of those below.

    Args:
        keep_joined: As for the tokenizer ``words``, for what is not of the library's scripts.
        keep_prefix: The same.

    Raises:
        MissingExtraError: the library is not installed.
    """

    name: ClassVar[str]
    #: The module of the library, the distributions of library and dictionary, and the extra that installs them.
    module: ClassVar[str]
    distributions: ClassVar[tuple[str, ...]]
    extra: ClassVar[str]
    #: The characters of the library's scripts, for a set of a regular expression.
    script: ClassVar[str]
    #: Whether every thread needs a library object of its own.
    per_thread: ClassVar[bool] = False
    lower_cases = True
    in_processes = True

    def __init__(self, keep_joined: str = "", keep_prefix: str = "") -> None:
        if importlib.util.find_spec(self.module) is None:
            raise MissingExtraError(f"the tokenizer {self.name}", self.extra)
        self._words = WordTokenizer(keep_joined, keep_prefix)
        self._pattern = word_pattern(self._words.keep_joined, self._words.keep_prefix)
        self._native = re.compile(f"[{self.script}]")
        self._lock = threading.Lock()
        self._local = threading.local()
        self._shared: Any = None

    def settings(self) -> dict[str, Any]:
        """The characters that are kept; nothing where there are none."""
        return self._words.settings()

    def versions(self) -> dict[str, str]:
        """The versions of the library and, if it is a distribution of its own, of the dictionary."""
        names = ("library_version", "dictionary_version")
        return {
            name: importlib.metadata.version(distribution)
            for name, distribution in zip(names, self.distributions, strict=False)
        }

    def __call__(self, text: str) -> list[str]:
        """The words of one text, in order."""
        words: list[str] = []
        for piece in pieces(self._prepared(text)):
            words += self._split(piece)
        return words

    def spelled(self, word: str) -> list[str]:
        """A word that somebody has typed, in the spelling of the vocabulary; the library is not asked."""
        return self._words(self._prepared(word))

    def _prepared(self, text: str) -> str:
        if text.isascii():
            return text
        text = unicodedata.normalize("NFC", text).replace(_SOFT_HYPHEN, "")
        return _WIDE.sub(lambda wide: unicodedata.normalize("NFKC", wide[0]), text)

    def _split(self, text: str) -> list[str]:
        """The words of a short text."""
        if self._native.search(text) is None:
            return self._words(text)
        group = 1 if self._words.keep_prefix else 0
        runs = [match.span(group) for match in self._pattern.finditer(self._native.sub(" ", text))]
        words: list[str] = []
        at = 0  # the first run that is not among the words yet
        for start, end, form in self._found(text, runs):
            if self._native.search(form) is None:
                continue
            while at < len(runs) and runs[at][1] <= start:
                words += self._words(text[slice(*runs[at])])
                at += 1
            if at < len(runs) and runs[at][0] < start:  # the library tears this run: its end is not of the word
                words += self._words(text[slice(*runs[at])])
                start, at = runs[at][1], at + 1
                form = text[start:end]
            while at < len(runs) and runs[at][1] <= end:
                at += 1  # the run is a part of the word
            if at < len(runs) and runs[at][0] < end:
                form = text[start : runs[at][0]]
            words += [form] if form.isalpha() and form.islower() == form.isupper() else self._words(form)
        for run in runs[at:]:
            words += self._words(text[slice(*run)])
        return words

    def _found(self, text: str, runs: list[tuple[int, int]]) -> Iterable[Found]:
        """The words of the library.

        Args:
            text: The text.
            runs: Start and end of what is split without the library.
        """
        return self._segment(self._library(), text)

    def _library(self) -> Any:
        """The library's object, made at the first call."""
        if self.per_thread:
            if not hasattr(self._local, "library"):
                self._local.library = self._quietly_loaded()
            return self._local.library
        with self._lock:
            if self._shared is None:
                self._shared = self._quietly_loaded()
        return self._shared

    def _quietly_loaded(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries about themselves
            return self._loaded(importlib.import_module(self.module))

    def _loaded(self, module: Any) -> Any:
        raise NotImplementedError

    def _segment(self, library: Any, text: str) -> Iterable[Found]:
        raise NotImplementedError


def pieces(text: str) -> Iterator[str]:
    """A text in pieces of at most 1,000 characters, cut behind a sentence, else at white space, else anywhere.

    Example:
        >>> [len(piece) for piece in pieces("a" * 700 + "。" + "b" * 600)]
        [701, 600]
    """
    start = 0
    while len(text) - start > _LONGEST:
        window = text[start : start + _LONGEST]
        ends = [match.end() for match in _SENTENCE_END.finditer(window)]
        ends = ends or [match.end() for match in _SPACE.finditer(window)]
        end = start + (ends[-1] if ends else _LONGEST)
        yield text[start:end]
        start = end
    yield text[start:]


class Jieba(Segmenter):
    """Chinese, by jieba.

    Its parsed dictionary is kept beside our compiled kernels: in the shared temporary directory, where jieba puts it,
    any user could have written it. jieba renames a new file into its place, so many processes may start at once.
    """

    name, module, distributions, extra = "jieba", "jieba", ("jieba",), "chinese"
    script = _HAN

    def _loaded(self, module: Any) -> Any:
        module.setLogLevel(logging.CRITICAL)  # a file that cannot be written is not an error
        tokenizer, place = module.dt, importlib.import_module("jose_embed.compute.kernel_cache").usable_directory()
        if tokenizer.initialized:  # by the program, perhaps with words of its own
            return tokenizer
        if not tokenizer.tmp_dir and place is None:
            tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
            tokenizer.initialized = True
            return tokenizer
        tokenizer.tmp_dir = tokenizer.tmp_dir or str(place)
        named = tokenizer.cache_file
        if not named:  # jieba compares at most times of change, so an exchanged dictionary could have no effect
            with tokenizer.get_dict_file() as dictionary:
                digest = hashlib.sha256(dictionary.read()).hexdigest()
            tokenizer.cache_file = f"jieba-{self.versions()['library_version']}-{digest[:16]}.cache"
        tokenizer.initialize()
        tokenizer.cache_file = named  # another dictionary of the program is another file
        return tokenizer

    def _segment(self, library: Any, text: str) -> Iterable[Found]:
        return ((start, end, word) for word, start, end in library.tokenize(text))


class Sudachi(Segmenter):
    """Japanese, by SudachiPy; its objects must not be shared by threads."""

    name, module, distributions, extra = "sudachi", "sudachipy", ("sudachipy", "sudachidict_core"), "japanese"
    script = f"{_HAN}\u3040-\u30ff\u31f0-\u31ff"
    per_thread = True

    def __init__(self, keep_joined: str = "", keep_prefix: str = "") -> None:
        super().__init__(keep_joined, keep_prefix)
        if importlib.util.find_spec("sudachidict_core") is None:
            raise MissingExtraError("the tokenizer sudachi", "japanese")

    def _loaded(self, module: Any) -> Any:
        return module.Dictionary(dict="core").create(module.SplitMode.C)

    def _segment(self, library: Any, text: str) -> Iterable[Found]:
        return [(found.begin(), found.end(), found.surface()) for found in library.tokenize(text)]


class PyThaiNlp(Segmenter):
    """Thai, by PyThaiNLP's newmm."""

    name, module, distributions, extra = "pythainlp", "pythainlp", ("pythainlp",), "thai"
    script = "\u0e00-\u0e7f"

    def _loaded(self, module: Any) -> Any:
        return importlib.import_module("pythainlp.tokenize").word_tokenize

    def _segment(self, library: Any, text: str) -> Iterable[Found]:
        start = 0
        for word in library(text, engine="newmm"):
            at = text.find(word, start)
            if at >= 0:
                start = at + len(word)
                yield at, start, word


class Kiwi(Segmenter):
    """Korean morphemes, by kiwipiepy.

    What is not Korean is shown to the library as letters, because symbols such as ``C++`` or ``%`` change how it reads
    the particle behind them.
    """

    name, module, distributions, extra = "kiwi", "kiwipiepy", ("kiwipiepy", "kiwipiepy_model"), "korean"
    script = f"{_HAN}\u1100-\u11ff\u3131-\u318e\ua960-\ua97f\uac00-\ud7ff"
    _FOREIGN: Final = re.compile(rf"[^\W_{script}](?:[^\s{script}]*[^\W_{script}])?[%+#°℃]*")

    def _loaded(self, module: Any) -> Any:
        return module.Kiwi(num_workers=1)

    def _found(self, text: str, runs: list[tuple[int, int]]) -> Iterable[Found]:
        shown = self._FOREIGN.sub(lambda run: "A" * len(run[0]), text)
        found = sorted(self._segment(self._library(), shown), key=lambda word: word[0])
        return ((start, end, text[start:end] if "A" in form else form) for start, end, form in found)

    def _segment(self, library: Any, text: str) -> Iterable[Found]:
        return [(word.start, word.start + word.len, word.form) for word in library.tokenize(text)]


SEGMENTERS: Final[dict[str, type[Segmenter]]] = {kind.name: kind for kind in (Jieba, Sudachi, PyThaiNlp, Kiwi)}
