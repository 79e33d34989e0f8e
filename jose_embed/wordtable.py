"""The word table: every different word of a text, numbered in the order of first appearance, and counted.

Two tables with one face (:class:`WordTable`): :class:`CompiledWords` runs a tokenizer that is a table over code points
(``words``, ``whitespace``) on bytes, outside the interpreter; :class:`PlainWords` calls any other tokenizer on strings.

The compiled one is an open-addressing hash table. A slot holds 32 bits of hash and the word's number plus one; the
spellings lie end to end in one array of UTF-8 bytes, and a hit is believed only after comparing them. A word is written
behind the last spelling while it is being read: if it turns out to be new, it is already where it belongs.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from jose_embed.errors import CorpusError
from jose_embed.jit import jit
from jose_embed.tokenizers import IGNORED, JOINER, KIND_SHIFT, LETTER, MARK, SIGMA, CodePointTokenizer, Tokenizer

__all__ = ["CompiledWords", "PlainWords", "WordTable", "word_table"]

Ids = npt.NDArray[np.int32]
Ends = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

_FIRST_SLOTS = 1 << 16
_MOST_SLOTS = 1 << 31
_SEED = 0x011C9DC5
_PRIME = 0x01000193  # the prime of the FNV-1a hash; a letter and a hash of 31 bits times it stay below 2^63
_HASH = 0x7FFFFFFF


class WordTable(Protocol):
    """Numbers and counts the words of documents."""

    def add_lines(self, data: bytes) -> tuple[Ids, Ends]:
        """Take the next lines.

        Args:
            data: Valid UTF-8, not empty, ended by a line feed or, inside a line, by a space.

        Returns:
            The number of each word in order, int32 (n,), and for each line feed how many of these words come before
            it, int64 (m,). Both belong to the table and hold until the next call.
        """

    def add_texts(self, texts: Iterable[str]) -> tuple[Ids, Ends]:
        """Take the next documents, line feeds inside them and all; otherwise as :meth:`add_lines`."""

    def counts(self) -> npt.NDArray[np.int64]:
        """How often each word occurred, int64 (n_words,)."""

    def words(self, numbers: npt.NDArray[np.intp]) -> list[str]:
        """The spellings of the words with these numbers."""


def word_table(tokenizer: Tokenizer) -> WordTable:
    """The fastest word table that a tokenizer allows."""
    return CompiledWords(tokenizer.rules()) if isinstance(tokenizer, CodePointTokenizer) else PlainWords(tokenizer)


class PlainWords:
    """The word table of any tokenizer; methods as in :class:`WordTable`.

    Args:
        tokenizer: Called with each line, without its line end.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._numbers: dict[str, int] = {}
        self._counts = np.zeros(0, np.int64)

    def add_lines(self, data: bytes) -> tuple[Ids, Ends]:
        return self.add_texts(line.removesuffix("\r") for line in data.decode().split("\n")[:-1])

    def add_texts(self, texts: Iterable[str]) -> tuple[Ids, Ends]:
        documents = [self._tokenizer(text) for text in texts]
        numbers = self._numbers
        found = [numbers.setdefault(word, len(numbers)) for word in chain.from_iterable(documents)]
        ids = np.array(found, np.int32)
        new = np.bincount(ids, minlength=len(numbers))
        new[: len(self._counts)] += self._counts
        self._counts = new.astype(np.int64)
        return ids, np.cumsum([len(words) for words in documents], dtype=np.int64)

    def counts(self) -> npt.NDArray[np.int64]:
        return self._counts

    def words(self, numbers: npt.NDArray[np.intp]) -> list[str]:
        spellings = list(self._numbers)
        words = [spellings[number] for number in numbers]
        for word in words:
            if not isinstance(word, str) or not word or _BREAKS.intersection(word):
                culprit = f"the tokenizer {self._tokenizer.name!r} gave the word {word!r}"
                raise CorpusError(f"{culprit}; a word must have a character and no tab or line break")
        return words


_BREAKS = frozenset("\t\n\r")


class _Table(NamedTuple):
    """The arrays of a :class:`CompiledWords`.

    Attributes:
        slots: int64 (a power of two,): hash << 32 | number + 1; 0 is free.
        records: int64 (room, 2): where the word's spelling ends, and its count. A spelling starts where the one before
            ends.
        letters: uint8 (room,): the spellings.
    """

    slots: npt.NDArray[np.int64]
    records: npt.NDArray[np.int64]
    letters: Bytes


class _Output(NamedTuple):
    """What a scan writes; see :meth:`WordTable.add_lines`."""

    ids: Ids
    ends: Ends


@jit
def _scan(
    text: Bytes, rules: npt.NDArray[np.uint32], table: _Table, output: _Output, state: npt.NDArray[np.int64]
) -> None:
    """Number the words of a text, to its end or up to a new word for which the slots have no room.

    Legend: ``i`` next byte, ``c`` code point, ``letter`` what is written for it, ``base`` and ``w`` start and end of
    the word being written, ``h`` its hash, ``begin`` where it starts in the text; ``joined``: the last letter is a
    joiner, and ``w_kept``, ``h_kept`` are from before it; ``last`` the kind of the last letter that is none, ``h_last``
    from before that; ``e`` entry of a slot.

    Args:
        text: uint8 (n,), as :meth:`WordTable.add_lines` takes it.
        rules: uint32 (0x110000,), see ``CodePointTokenizer.rules``.
        table: With room in ``records`` and ``letters`` for whatever the text may hold; changed in place.
        output: With room for one id per two bytes and one end per byte; written to.
        state: int64 (4,): next byte, number of ids, of ends, of words; changed in place.
    """
    slots, records, letters = table
    ids, ends = output
    i, n_ids, n_ends, n_words = state[0], state[1], state[2], state[3]
    mask = len(slots) - 1
    room = len(slots) // 2
    base = records[n_words - 1, 0] if n_words > 0 else 0
    w = w_kept = base
    h = h_kept = h_last = _SEED
    begin, last, joined = i, 0, False
    while i < len(text):
        at = i
        c = int(text[i])
        i += 1
        if c >= 0x80:
            if c < 0xE0:
                c = (c & 0x1F) << 6 | (int(text[i]) & 0x3F)
                i += 1
            elif c < 0xF0:
                c = (c & 0x0F) << 12 | (int(text[i]) & 0x3F) << 6 | (int(text[i + 1]) & 0x3F)
                i += 2
            else:
                c = (
                    (c & 0x07) << 18
                    | (int(text[i]) & 0x3F) << 12
                    | (int(text[i + 1]) & 0x3F) << 6
                    | (int(text[i + 2]) & 0x3F)
                )
                i += 3
        rule = int(rules[c])
        kind = rule >> KIND_SHIFT
        if kind >= LETTER or (kind in (MARK, JOINER) and w > base and not joined):
            letter = rule & 0x1FFFFF
            if w == base:
                begin, h = at, _SEED
            joined = kind == JOINER
            if joined:
                w_kept, h_kept = w, h
            else:
                last, h_last = kind, h
            h = (h ^ letter) * _PRIME & _HASH
            if letter < 0x80:
                letters[w] = letter
                w += 1
            elif letter < 0x800:
                letters[w] = 0xC0 | letter >> 6
                letters[w + 1] = 0x80 | letter & 0x3F
                w += 2
            elif letter < 0x10000:
                letters[w] = 0xE0 | letter >> 12
                letters[w + 1] = 0x80 | letter >> 6 & 0x3F
                letters[w + 2] = 0x80 | letter & 0x3F
                w += 3
            else:
                letters[w] = 0xF0 | letter >> 18
                letters[w + 1] = 0x80 | letter >> 12 & 0x3F
                letters[w + 2] = 0x80 | letter >> 6 & 0x3F
                letters[w + 3] = 0x80 | letter & 0x3F
                w += 4
            continue
        if kind == IGNORED:
            continue
        if w > base:
            if joined:
                w, h, joined = w_kept, h_kept, False
            if last == SIGMA and w > base + 2:
                letters[w - 1] = 0x82  # U+03C3 becomes U+03C2
                h = (h_last ^ 0x3C2) * _PRIME & _HASH
            h ^= h >> 15
            slot = h & mask
            while True:
                e = slots[slot]
                if e == 0:
                    if n_words == room:
                        state[0], state[1], state[2], state[3] = begin, n_ids, n_ends, n_words
                        return
                    number = n_words
                    slots[slot] = h << 32 | number + 1
                    records[number, 0], records[number, 1] = w, 1
                    n_words += 1
                    base = w
                    break
                if e >> 32 == h:
                    number = (e & 0xFFFFFFFF) - 1
                    a = records[number - 1, 0] if number > 0 else 0
                    if records[number, 0] - a == w - base:
                        b = base
                        while b < w and letters[a] == letters[b]:
                            a += 1
                            b += 1
                        if b == w:
                            records[number, 1] += 1
                            w = base
                            break
                slot = slot + 1 & mask
            ids[n_ids] = number
            n_ids += 1
        if c == 10:
            ends[n_ends] = n_ids
            n_ends += 1
    state[0], state[1], state[2], state[3] = i, n_ids, n_ends, n_words


@jit
def _rehash(old: npt.NDArray[np.int64], new: npt.NDArray[np.int64]) -> None:
    """Put the entries of a table's slots into larger, empty ones."""
    mask = len(new) - 1
    for e in old:
        if e != 0:
            slot = e >> 32 & mask
            while new[slot] != 0:
                slot = slot + 1 & mask
            new[slot] = e


class CompiledWords:
    """The word table of a tokenizer that is a table over code points; methods as in :class:`WordTable`.

    Args:
        rules: uint32 (0x110000,), see ``CodePointTokenizer.rules``.

    Raises:
        ValueError: rules under which a space or a line feed does not separate words.
    """

    def __init__(self, rules: npt.NDArray[np.uint32]) -> None:
        if rules[ord(" ")] >> KIND_SHIFT or rules[ord("\n")] >> KIND_SHIFT:
            raise ValueError("these rules let a space or a line feed be part of a word; both must separate words")
        self._rules = rules
        self._table = _Table(np.zeros(_FIRST_SLOTS, np.int64), np.empty((0, 2), np.int64), np.empty(0, np.uint8))
        self._output = _Output(np.empty(0, np.int32), np.empty(0, np.int64))
        self._state = np.zeros(4, np.int64)

    def add_texts(self, texts: Iterable[str]) -> tuple[Ids, Ends]:
        return self.add_lines("".join(text.replace("\n", " ") + "\n" for text in texts).encode())

    def add_lines(self, data: bytes) -> tuple[Ids, Ends]:
        text = np.frombuffer(data, np.uint8)
        self._make_room(len(text))
        self._state[:3] = 0
        while True:
            _scan(text, self._rules, self._table, self._output, self._state)
            if self._state[0] == len(text):
                return self._output.ids[: self._state[1]], self._output.ends[: self._state[2]]
            self._enlarge()

    def counts(self) -> npt.NDArray[np.int64]:
        return self._table.records[: self._state[3], 1].copy()

    def words(self, numbers: npt.NDArray[np.intp]) -> list[str]:
        ends = self._table.records[: self._state[3], 0]
        starts = np.concatenate(([0], ends[:-1]))
        letters = self._table.letters
        return [
            letters[a:b].tobytes().decode()
            for a, b in zip(starts[numbers].tolist(), ends[numbers].tolist(), strict=True)
        ]

    def _make_room(self, n: int) -> None:
        """Let the arrays hold whatever a text of n bytes can add. Pages that are never written to cost nothing."""
        slots, records, letters = self._table
        n_words = int(self._state[3])
        n_letters = int(records[n_words - 1, 0]) if n_words else 0
        if len(records) < n_words + n // 2 + 1:
            records = _enlarged(records[:n_words], 2 * n_words + n)
        if len(letters) < n_letters + 2 * n:
            letters = _enlarged(letters[:n_letters], 2 * (n_letters + n))
        self._table = _Table(slots, records, letters)
        if len(self._output.ends) < n:
            self._output = _Output(np.empty(n // 2 + 1, np.int32), np.empty(n, np.int64))

    def _enlarge(self) -> None:
        slots = np.zeros(4 * len(self._table.slots), np.int64)
        if len(slots) > _MOST_SLOTS:
            raise CorpusError(
                f"more than {_MOST_SLOTS // 8:,} different words; that is no language; check the text and the tokenizer"
            )
        _rehash(self._table.slots, slots)
        self._table = self._table._replace(slots=slots)


def _enlarged(array: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    larger = np.empty((rows, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger
