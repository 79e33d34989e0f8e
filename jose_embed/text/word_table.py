"""The word table: every different word of a text, numbered in the order of first appearance, and counted.

Two tables with one face (:class:`WordTable`): :class:`CompiledWords` runs a tokenizer that is a table over code points
(``words``, ``whitespace``) on bytes, outside the interpreter; :class:`PlainWords` calls any other tokenizer on strings.

The compiled one is an open-addressing hash table. A slot holds 31 bits of hash, the word's number and its first eight
bytes, so that most words are found in one cache line; a hit is believed only after all bytes were compared. A word is
written behind the last spelling while it is being read: if it turns out to be new, it is already where it belongs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from jose_embed.compute.jit import jit
from jose_embed.errors import CorpusError
from jose_embed.text.normalization import LineNormalizer
from jose_embed.text.tokenizers import (
    IGNORED,
    JOINER,
    KIND_SHIFT,
    LETTER,
    MARK,
    PREFIX,
    SEPARATOR,
    SIGMA,
    NormalizingTokenizer,
    Tokenizer,
    code_point_rules,
    valid_text,
)

Ids = npt.NDArray[np.int32]
Ends = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

Integers = npt.NDArray[np.int64]

_FIRST_SLOTS = 1 << 18  # enough for 157,000 words; smaller texts never compile _rehash
_MOST_SLOTS = 1 << 31  # as far as 31 bits of hash reach
_BATCH = 256  # words read before they are looked up
_FULL = 0.6  # share of the slots in use at which the table is enlarged
_LOW, _HIGH = 0x4F1BBCDD, 0x5851F42D  # multipliers of a hash; 32 bits times either stay below 2^63
_FINAL_SIGMA, _SMALL_SIGMA = 0x3C2, 0x3C3
_BYTE = LETTER << 8 | 8  # upper half of the packed rule of a letter that is written as one byte


class WordTable(Protocol):
    """Numbers and counts the words of documents."""

    def add_lines(self, data: bytes) -> tuple[Ids, Ends]:
        """Take the next lines.

        Args:
            data: Valid UTF-8 without NUL, not empty, ended by a line feed or, inside a line, by a space.

        Returns:
            The number of each word in order, int32 (n,), and for each line feed how many of these words come before
            it, int64 (m,). Both belong to the table and hold until the next call.
        """

    def add_texts(self, texts: Iterable[str]) -> tuple[Ids, Ends]:
        """Take the next documents, line feeds inside them and all; otherwise as :meth:`add_lines`."""

    def counts(self) -> npt.NDArray[np.int64]:
        """How often each word occurred, int64 (n_words,)."""

    def words(self, numbers: npt.NDArray[np.intp]) -> list[str]:
        """The spellings of the words with these numbers.

        Raises:
            CorpusError: a tokenizer gave a word that no file of a model can hold.
        """

    def spellings(self, numbers: npt.NDArray[np.intp]) -> list[str]:
        """The same, with words that no file of a model can hold."""


def word_table(tokenizer: Tokenizer) -> WordTable:
    """The fastest word table that a tokenizer allows."""
    rules = code_point_rules(tokenizer)
    if rules is None:
        return PlainWords(tokenizer, tokenizer.name)
    if isinstance(tokenizer, NormalizingTokenizer):
        return CompiledWords(rules, LineNormalizer(tokenizer.normalization, lower_cases=tokenizer.lower_cases))
    return CompiledWords(rules)


class PlainWords:
    """The word table of any tokenizer; methods as in :class:`WordTable`.

    Args:
        split: Called with each document, without a line end; gives its words.
        name: How messages call it.
    """

    def __init__(self, split: Callable[[Any], list[str]], name: str) -> None:
        self._split = split
        self._name = name
        self._numbers: dict[str, int] = {}
        self._counts = np.zeros(0, np.int64)

    def add_lines(self, data: bytes) -> tuple[Ids, Ends]:
        return self.add_texts(line.removesuffix("\r") for line in data.decode().split("\n")[:-1])

    def add_texts(self, texts: Iterable[Any]) -> tuple[Ids, Ends]:
        documents = [self._split(text) for text in texts]
        numbers = self._numbers
        found = [numbers.setdefault(word, len(numbers)) for word in chain.from_iterable(documents)]
        ids = np.array(found, np.int32)
        self._count(ids)
        return ids, np.cumsum([len(words) for words in documents], dtype=np.int64)

    def _count(self, ids: Ids) -> None:
        new = np.bincount(ids, minlength=len(self._numbers))
        new[: len(self._counts)] += self._counts
        self._counts = new.astype(np.int64)

    def counts(self) -> npt.NDArray[np.int64]:
        return self._counts

    def words(self, numbers: npt.NDArray[np.intp]) -> list[str]:
        words = self.spellings(numbers)
        for word in words:
            if not _is_word(word):
                culprit = f"the tokenizer {self._name!r} gave the word {word!r}"
                raise CorpusError(f"{culprit}; a word must have a character and no tab or line break")
        return words

    def spellings(self, numbers: npt.NDArray[np.intp]) -> list[str]:
        spellings = list(self._numbers)
        return [spellings[number] for number in numbers]


def _is_word(word: object) -> bool:
    if not isinstance(word, str) or not word or not _BREAKS.isdisjoint(word):
        return False
    return word.isascii() or not any("\ud800" <= character <= "\udfff" for character in word)


_BREAKS = frozenset("\t\n\r")


class _Table(NamedTuple):
    """The arrays of a :class:`CompiledWords`; ``room`` in the last three is whatever was reserved.

    Attributes:
        slots: int64 (a power of two, 2): ``hash << 32 | long << 31 | number + 1`` and the word's first eight bytes; the
            first is 0 if the slot is free. ``long`` means that the word has more than eight bytes.
        spellings: int64 (room,): the words' UTF-8 bytes, eight in an element, the last filled up with zeros.
        spelling_ends: int64 (room,): where the elements of a word end; they start where those of the word before end.
        counts: int64 (room,).
    """

    slots: Integers
    spellings: Integers
    spelling_ends: Integers
    counts: Integers


class _Batch(NamedTuple):
    """Words that were read and wait to be looked up; both int64 (_BATCH,)."""

    tags: Integers
    stops: Integers


class _Output(NamedTuple):
    """Output arrays of a scan; see :meth:`WordTable.add_lines`."""

    ids: Ids
    ends: Ends


# Legend: i next byte; c code point; unit, bits the UTF-8 bytes that are written for it and how many bits they are;
# inside whether a word has begun; start, w where its spelling starts and ends; piece the bytes that are not in it yet,
# shift how many bits they are; h its hash. A joiner or a capital sigma is held back, because what follows decides about
# it: held, held_bits the bytes; has_sigma, has_joiner which it is (if both, the sigma comes first). tags, stops hash
# and end of spelling of the words in the batch; a, b position in the spelling of a known word and of such a one; last
# where the spellings of the known words end.
@jit
def _scan(text: Bytes, rules: Integers, table: _Table, batch: _Batch, output: _Output, state: Integers) -> None:
    """Number the words of a text, to its end or until the slots may have no room for the words of another batch.

    Words are read in batches, and then looked up.

    Args:
        text: uint8 (n,), as :meth:`WordTable.add_lines` takes it.
        rules: int64 (0x110000,), see :func:`_packed_rules`.
        table: With room for whatever the text may hold, but for the slots; changed in place.
        batch: Work space.
        output: With room for one id per two bytes and one end per byte; written to.
        state: int64 (5,): next byte, number of ids, of ends, of words, and nothing of interest; changed in place.
    """
    slots, spellings, spelling_ends, counts = table
    tags, stops = batch
    ids, ends = output
    mask, most_words = len(slots) - 1, int(len(slots) * _FULL) - len(tags)
    i, n_ids, n_ends, n_words = state[0], state[1], state[2], state[3]
    last = spelling_ends[n_words - 1] if n_words > 0 else 0
    while i < len(text) and n_words <= most_words:
        n_tags = 0
        start = w = last
        piece, shift, h, inside = 0, 0, 0, False
        held, held_bits, has_sigma, has_joiner = 0, 0, False, False
        while i < len(text) and n_tags < len(tags):
            at = i
            c = int(text[i])
            i += 1
            if c >= 0x80:
                more = 1 + (c >= 0xE0) + (c >= 0xF0)
                c &= 0x3F >> more
                for _ in range(more):
                    c = c << 6 | (int(text[i]) & 0x3F)
                    i += 1
            rule = rules[c]
            kind, unit, bits = rule >> 40, rule & 0xFFFFFFFF, rule >> 32 & 0xFF
            if kind < 0:  # may be kept before a word
                if not inside:
                    held, held_bits = unit, bits
                    continue
                kind = SEPARATOR if has_joiner or kind == -1 else JOINER if kind == -2 else MARK
            if kind >= LETTER or (kind == MARK and inside and not has_joiner):
                inside = True
                if held_bits > 0:  # comes first; this character comes again
                    unit, bits, i = held, held_bits, at
                    held, held_bits, has_sigma, has_joiner = 0, 0, False, False
                elif kind == SIGMA:
                    held, held_bits, has_sigma = unit, bits, True
                    continue
            elif kind == IGNORED:
                continue
            elif kind == JOINER and inside and not has_joiner:
                held |= unit << held_bits
                held_bits += bits
                has_joiner = True
                continue
            elif has_sigma:  # the word ends with it; this character comes again and finds has_joiner as it was
                unit, bits, i = rules[_FINAL_SIGMA if w > start or shift > 0 else _SMALL_SIGMA] & 0xFFFFFFFF, 16, at
                held, held_bits, has_sigma = 0, 0, False
            else:
                if inside:
                    if shift > 0:
                        spellings[w] = piece
                        h ^= piece
                        h = (h & 0xFFFFFFFF) * _LOW ^ (h >> 32 & 0xFFFFFFFF) * _HIGH
                        w += 1
                    tags[n_tags] = (h ^ h >> 32) & 0x7FFFFFFF
                    stops[n_tags] = start = w
                    n_tags += 1
                    piece, shift, h, inside = 0, 0, 0, False
                    has_joiner = False
                held, held_bits = 0, 0
                if c == 10:
                    ends[n_ends] = n_ids + n_tags
                    n_ends += 1
                continue
            piece |= unit << shift
            shift += bits
            if shift >= 64:
                spellings[w] = piece
                h ^= piece
                h = (h & 0xFFFFFFFF) * _LOW ^ (h >> 32 & 0xFFFFFFFF) * _HIGH
                w += 1
                shift -= 64
                piece = unit >> (bits - shift)
            c = int(text[i])  # there is one: no text ends inside a word
            while c < 0x80 and rules[c] >> 32 == _BYTE:  # as above, with less to ask: nothing is held back
                piece |= (rules[c] & 0xFF) << shift
                shift += 8
                i += 1
                if shift == 64:
                    spellings[w] = piece
                    h ^= piece
                    h = (h & 0xFFFFFFFF) * _LOW ^ (h >> 32 & 0xFFFFFFFF) * _HIGH
                    w += 1
                    shift = piece = 0
                c = int(text[i])

        touched = 0
        for k in range(n_tags):  # nothing here waits for anything else: the cache misses of a batch overlap
            touched |= slots[tags[k] & mask, 0]
        state[4] = touched  # so that the loop is not optimised away
        start = last
        for k in range(n_tags):
            tag, stop = tags[k], stops[k]
            head = tag << 1 | (stop > start + 1)
            slot = tag & mask
            while True:
                entry = slots[slot, 0]
                if entry == 0:
                    slots[slot, 0] = head << 31 | n_words + 1
                    slots[slot, 1] = spellings[start]
                    for b in range(start, stop):
                        spellings[last] = spellings[b]
                        last += 1
                    spelling_ends[n_words] = last
                    counts[n_words] = 0
                    number = n_words
                    n_words += 1
                    break
                if entry >> 31 == head and slots[slot, 1] == spellings[start]:
                    number = (entry & 0x7FFFFFFF) - 1
                    if stop == start + 1:
                        break
                    a = spelling_ends[number - 1] if number > 0 else 0
                    if spelling_ends[number] - a == stop - start:
                        b = start + 1
                        while b < stop and spellings[a + b - start] == spellings[b]:
                            b += 1
                        if b == stop:
                            break
                slot = slot + 1 & mask
            counts[number] += 1
            ids[n_ids] = number
            n_ids += 1
            start = stop
    state[0], state[1], state[2], state[3] = i, n_ids, n_ends, n_words


@jit
def _rehash(old: Integers, new: Integers) -> None:
    """Put the entries of a table's slots into larger, empty ones."""
    for k in range(len(old)):
        if old[k, 0] != 0:
            slot = old[k, 0] >> 32 & len(new) - 1
            while new[slot, 0] != 0:
                slot = slot + 1 & len(new) - 1
            new[slot, 0], new[slot, 1] = old[k, 0], old[k, 1]


def _packed_rules(rules: npt.NDArray[np.uint32]) -> Integers:
    """The rules in the form that the scan reads: ``kind << 40 | bits << 32 | UTF-8 bytes, the first one lowest``.

    What is kept before a word has the kind -1, -2 as a joiner, -3 as a mark.
    """
    packed = np.zeros(len(rules), np.int64)
    for start in range(0, len(rules), 1 << 16):
        part = rules[start : start + (1 << 16)].astype(np.int64)
        if (part >> KIND_SHIFT).any():  # a separator is written nowhere
            c = part & (1 << KIND_SHIFT) - 1
            tail = 0x80 | c & 0x3F
            second, third = 0x80 | c >> 6 & 0x3F, 0x80 | c >> 12 & 0x3F
            units = [
                c,
                0xC0 | c >> 6 | tail << 8,
                0xE0 | c >> 12 | second << 8 | tail << 16,
                0xF0 | c >> 18 | third << 8 | second << 16 | tail << 24,
            ]
            width = np.searchsorted([0x80, 0x800, 0x10000], c, side="right")
            kind = part >> KIND_SHIFT
            kind[kind >= PREFIX] = PREFIX - 1 - kind[kind >= PREFIX]
            packed[start : start + (1 << 16)] = kind << 40 | width + 1 << 35 | np.choose(width, units)
    return packed


class CompiledWords:
    """The word table of a tokenizer that is a table over code points; methods as in :class:`WordTable`.

    Args:
        rules: uint32 (0x110000,), see ``CodePointTokenizer.rules``.
        normalize: Puts lines into a Unicode form first; ``None`` to take them as they are.

    Raises:
        ValueError: rules under which a space, a line feed or a NUL does not separate words.
    """

    def __init__(self, rules: npt.NDArray[np.uint32], normalize: LineNormalizer | None = None) -> None:
        if any(rules[ord(separator)] >> KIND_SHIFT != SEPARATOR for separator in " \n"):
            raise ValueError("these rules let a space or a line feed be part of a word; both must separate words")
        self._rules = _packed_rules(rules)
        self._normalize = normalize
        self._table = _Table(np.zeros((_FIRST_SLOTS, 2), np.int64), *(np.empty(0, np.int64) for _ in range(3)))
        self._output = _Output(np.empty(0, np.int32), np.empty(0, np.int64))
        self._batch = _Batch(np.empty(_BATCH, np.int64), np.empty(_BATCH, np.int64))
        self._state = np.zeros(5, np.int64)

    def add_texts(self, texts: Iterable[str]) -> tuple[Ids, Ends]:
        return self.add_lines("".join(text.replace("\n", " ") + "\n" for text in texts).encode())

    def add_lines(self, data: bytes) -> tuple[Ids, Ends]:
        if self._normalize is not None:
            data = self._normalize(data)
        text = np.frombuffer(data, np.uint8)
        self._reserve(len(text))
        self._state[:3] = 0
        while True:
            _scan(text, self._rules, self._table, self._batch, self._output, self._state)
            if self._state[0] == len(text):
                return self._output.ids[: self._state[1]], self._output.ends[: self._state[2]]
            self._enlarge()

    def counts(self) -> npt.NDArray[np.int64]:
        return self._table.counts[: self._state[3]].copy()

    def words(self, numbers: npt.NDArray[np.intp]) -> list[str]:
        return self._spelled(numbers, np.full((len(numbers), 1), ord("\n"))).decode().split("\n")[:-1]

    spellings = words  # what the rules make can be held

    def lines(self, numbers: npt.NDArray[np.intp], counts: Integers) -> bytes:
        """Lines ``word<TAB>count`` in UTF-8 of the words with these numbers, ordered by their first eight bytes."""
        order = np.argsort(self._table.spellings[self._starts(numbers)].byteswap(), kind="stable")
        different, which = np.unique(counts[order], return_inverse=True)
        tails = np.array([b"\t%d\n" % count for count in different.tolist()], "S24")
        return self._spelled(numbers[order], tails.view("<i8").reshape(-1, 3)[which])

    def _spelled(self, numbers: npt.NDArray[np.intp], tails: Integers) -> bytes:
        """The UTF-8 bytes of words, each followed by its tail: int64 (n, k), eight bytes in an element. Zeros, which
        fill up elements, are left out."""
        starts = self._starts(numbers)
        sizes = self._table.spelling_ends[numbers] - starts
        stops = np.cumsum(sizes)
        elements = self._table.spellings[np.repeat(starts - stops + sizes, sizes) + np.arange(sizes.sum())]
        elements = np.insert(elements, np.repeat(stops, tails.shape[1]), tails.ravel())
        return elements.astype("<i8", copy=False).tobytes().translate(None, b"\0")

    def _starts(self, numbers: npt.NDArray[np.intp]) -> Integers:
        """Where the elements of words start."""
        return np.where(numbers > 0, self._table.spelling_ends[numbers - 1], 0)

    def _reserve(self, n: int) -> None:
        """Let the arrays hold whatever a text of n bytes can add. Memory that is never written to costs nothing."""
        slots, spellings, spelling_ends, counts = self._table
        n_words = int(self._state[3])
        n_spellings = int(spelling_ends[n_words - 1]) if n_words else 0
        if len(counts) < n_words + n // 2 + 1:
            spelling_ends = _enlarged(spelling_ends[:n_words], 2 * n_words + n)
            counts = _enlarged(counts[:n_words], 2 * n_words + n)
        if len(spellings) < n_spellings + n:
            spellings = _enlarged(spellings[:n_spellings], 2 * (n_spellings + n))
        self._table = _Table(slots, spellings, spelling_ends, counts)
        if len(self._output.ends) < n:
            self._output = _Output(np.empty(n // 2 + 1, np.int32), np.empty(n, np.int64))

    def _enlarge(self) -> None:
        n_slots = 2 * len(self._table.slots)
        if n_slots > _MOST_SLOTS:
            n_words = f"{int(self._state[3]):,}"
            raise CorpusError(f"more than {n_words} different words, as no language has; check text and tokenizer")
        slots = np.zeros((n_slots, 2), np.int64)
        _rehash(self._table.slots, slots)
        self._table = self._table._replace(slots=slots)


def _enlarged(array: Integers, room: int) -> Integers:
    larger = np.empty(room, array.dtype)
    larger[: len(array)] = array
    return larger


class Rows(NamedTuple):
    """The known words of consecutive texts.

    Attributes:
        rows: int32 (n,), of every known running word of all texts, one text after the other.
        n_tokens: int64 (n_texts,), running words of each text.
        n_known: int64 (n_texts,), how many of them are known.
    """

    rows: npt.NDArray[np.int32]
    n_tokens: npt.NDArray[np.int64]
    n_known: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: npt.NDArray[np.int32], ends: npt.NDArray[np.int64]) -> Rows:
        """Leave the unknown words out.

        Args:
            rows: int32 (n_words,), of every running word, -1 for an unknown one.
            ends: int64 (n_texts,), where the words of each text end.
        """
        known = rows >= 0
        n_before = np.concatenate(([0], np.cumsum(known)))
        starts = np.concatenate(([0], ends[:-1]))
        return cls(rows[known], ends - starts, n_before[ends] - n_before[starts])

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """int64 (n_texts + 1,): the rows of text i are ``rows[offsets[i]:offsets[i + 1]]``."""
        return np.concatenate(([0], np.cumsum(self.n_known)))


_MOST_UNKNOWN = 1 << 20  # different words, some 100 MB


class VocabularyLookup:
    """A tokenizer before a vocabulary.

    It remembers the words that it has met, unknown ones too. When these are a million it forgets them all and begins
    anew: text without an end, such as numbers, costs no more memory than that.

    Args:
        tokenizer: What splits a text.
        index_of: The row of a word, None for an unknown one; asked once for each word that is not remembered.
        make_table: Makes the word table of a tokenizer.
        join: Makes one word of several.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        index_of: Callable[[str], int | None],
        make_table: Callable[[Tokenizer], WordTable] = word_table,
        join: Callable[[Rows], Rows] | None = None,
    ) -> None:
        self._join = join
        self._make_table = functools.partial(make_table, tokenizer)
        self._index_of = index_of
        self._table = self._make_table()
        self._rows = np.empty(0, np.int32)  # of each number of the table; -1 for an unknown word
        self._n_unknown = 0

    def of_lines(self, data: bytes) -> Rows:
        """The rows of lines: valid UTF-8, not empty, ended by a line feed."""
        return self._found(*self._table.add_lines(data))

    def of_texts(self, texts: Sequence[str]) -> Rows:
        """The rows of any texts, at least one, line feeds inside them and all."""
        return self._found(*self._table.add_texts(valid_text(text) for text in texts))

    def _found(self, numbers: Ids, ends: Ends) -> Rows:
        n_seen = int(numbers.max(initial=-1)) + 1
        if n_seen > len(self._rows):
            words = self._table.words(np.arange(len(self._rows), n_seen))
            found = [self._index_of(word) for word in words]
            self._rows = np.append(self._rows, np.array([-1 if row is None else row for row in found], np.int32))
            self._n_unknown += found.count(None)
        rows = Rows.of(self._rows[numbers], ends)
        if self._join is not None:
            rows = self._join(rows)
        if self._n_unknown > _MOST_UNKNOWN:
            self._table, self._rows, self._n_unknown = self._make_table(), np.empty(0, np.int32), 0
        return rows
