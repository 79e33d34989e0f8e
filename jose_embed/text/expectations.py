"""Notes about a text that is not what its tokenizer expects, each with the option that helps."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.text.tokenizers import Tokenizer, code_point_rules
from jose_embed.text.vocabulary import Vocabulary
from jose_embed.text.word_table import WordTable

_SAMPLED_WORDS: Final = 20_000
_MANY_UNKNOWN: Final = 0.2  # share of the documents without a known word
_FEWEST: Final = 10  # documents or words that are worth a note
_LONG: Final = 30  # letters of a word in a script without spaces
_LONG_SHARE: Final = 0.01
_SENTENCES: Final = 6.0  # letters of an average word that is a clause and not a word
_TWO_SPELLINGS: Final = 0.5


class _Script(NamedTuple):
    """A script without spaces between words: its characters, its language, and the tokenizer and extra for it."""

    characters: re.Pattern[str]
    language: str
    tokenizer: str
    extra: str


_SCRIPTS: Final = (
    _Script(re.compile("[\u3040-\u30ff]"), "Japanese", "sudachi", "japanese"),
    _Script(re.compile("[\u3400-\u9fff\U00020000-\U0003ffff]"), "Chinese", "jieba", "chinese"),
    _Script(re.compile("[\u0e00-\u0e7f]"), "Thai", "pythainlp", "thai"),
    _Script(re.compile("[\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff]"), "text without spaces", "MODULE:CALLABLE", ""),
)


def notes_about(
    table: WordTable,
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    offsets: npt.NDArray[np.int64],
    n_empty: int,
    min_count: int,
) -> Iterator[str]:
    """What a user should know about the words of a text; at most one note for each fault.

    Args:
        table: All words of the text.
        tokenizer: What split the text; nothing is said about words of segmenters and tokenizers of one's own.
        vocabulary: The kept words.
        offsets: int64 (n_documents + 1,), where the known words of documents begin.
        n_empty: Documents without any word.
        min_count: Words that occur less often were left out.
    """
    script = None
    if code_point_rules(tokenizer) is not None:
        counts = table.counts()
        sampled = np.unique(np.linspace(0, len(counts) - 1, min(len(counts), _SAMPLED_WORDS)).astype(np.intp))
        script, note = _unsegmented(table.words(sampled), tokenizer.name)
        if note is not None:
            yield note
    n_documents = len(offsets) - 1 - n_empty
    n_unknown = n_documents - int(np.count_nonzero(np.diff(offsets)))
    if n_unknown >= max(_FEWEST, _MANY_UNKNOWN * n_documents):
        helps = f"lower min_count (it is {min_count:,})" if script is None else _advice(script)
        yield f"{n_unknown:,} of {n_documents:,} documents have no word of the vocabulary; {helps}"
    yield from _two_spellings(vocabulary.words[:_SAMPLED_WORDS])


def _unsegmented(words: Sequence[str], tokenizer: str) -> tuple[_Script | None, str | None]:
    """The script without spaces of the words, if clauses of it are words, and the note about them."""
    of_scripts: dict[_Script, list[str]] = {}
    for word in [] if "".join(words).isascii() else words:
        script = next((script for script in _SCRIPTS if script.characters.search(word) is not None), None)
        if script is not None:
            of_scripts.setdefault(script, []).append(word)
    if not of_scripts:
        return None, None
    script = max(of_scripts, key=lambda script: len(of_scripts[script]))
    found = [word for words in of_scripts.values() for word in words]
    long = [word for word in found if len(word) > _LONG]
    is_long = len(long) >= max(1, _LONG_SHARE * len(words))
    is_clauses = len(found) > len(words) / 2 and sum(map(len, found)) > _SENTENCES * len(found)
    if not (is_long or is_clauses):
        return None, None
    longest = max(found, key=len)
    shown = longest[:20] + ("..." if len(longest) > 20 else "")
    what = f"the tokenizer {tokenizer} takes clauses for words ({shown!r} is one of {len(longest):,} letters)"
    return script, f"{what}: {script.language} has no spaces between words; {_advice(script)}"


def _advice(script: _Script) -> str:
    if not script.extra:
        return "name a tokenizer for it (tokenizer=MODULE:CALLABLE)"
    return f"tokenizer={script.tokenizer!r} finds {script.language} words (pip install 'jose-embed[{script.extra}]')"


def _two_spellings(words: Sequence[str]) -> Iterator[str]:
    """The note if half of the words are spelled in two ways, with the option that unites most of them."""
    ways: list[tuple[str, Callable[[str], str]]] = [
        ("normalize='nfc'", lambda word: unicodedata.normalize("NFC", word)),
        ("normalize='nfkc'", lambda word: unicodedata.normalize("NFKC", word)),
        ("tokenizer='words'", str.casefold),
    ]
    joined = "\n".join(words)
    for option, fold in ways:
        folded = fold(joined)
        if folded == joined:
            continue
        keys = folded.split("\n")
        several = Counter(keys)
        doubled = [word for word, key in zip(words, keys, strict=True) if several[key] > 1]
        if len(doubled) >= max(_FEWEST, _TWO_SPELLINGS * len(words)):
            first = doubled[0]
            second = next(word for word in doubled[1:] if fold(word) == fold(first))
            what = f"{len(doubled):,} of {len(words):,} words are in the vocabulary in two spellings"
            yield f"{what}, such as {first[:40]!a} and {second[:40]!a}; {option} makes one word of them"
            return
