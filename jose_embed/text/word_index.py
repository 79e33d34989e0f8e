"""Exact words: an index from the words of kept texts to their documents, and Okapi BM25 over it.

The words are those of the model's tokenizer, so a question and the texts are cut alike, in languages without spaces
too. Rare words that the vocabulary leaves out are in the index. A document is scored by

    sum_w  n_w  log(1 + (N - df_w + 1/2) / (df_w + 1/2))  tf (k1 + 1) / (tf + k1 (1 - b + b L / mean L)),

with n_w and tf the occurrences of the word w in the question and in the document, L the words of the document, df_w the
documents with the word among N.

The index lies in SQLite: with the kept texts of a model that was trained with them, else in a temporary file. Tables of
blobs of little-endian integers: ``lengths`` (part, n int32), ``postings`` (number, part, documents int32, counts
uint16) and ``words`` (words, numbers int32, common uint8), one row: all words in order, separated by NUL, the number of
each, and how many letters each has in common with the one before. A part is a run of documents, so that building needs
bounded memory. A question reads the rows of its words only.

Source: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond, 2009.
"""

from __future__ import annotations

import bisect
import contextlib
import math
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jose_embed.compute.jit import jit
from jose_embed.errors import ModelError
from jose_embed.text.tokenizers import Tokenizer, valid_text
from jose_embed.text.word_table import word_table

K1: Final = 1.2  # how soon further occurrences stop to count
B: Final = 0.75  # how much long documents are discounted
_PART_TOKENS: Final = 1 << 22  # running words of a part, some 100 MB while it is built
_BATCH_CHARACTERS: Final = 1 << 22
_MOST_COUNT: Final = (1 << 16) - 1
_MOST_COMMON: Final = 64  # letters that are compared of two words
_BLOCK_WORDS: Final = 1 << 14
_KEY_BYTES: Final = 8  # of a word, to find it
_NO_ROOM: Final = "the index of words cannot be written ({}); make room in the directory for temporary files"
_KEPT_POSTINGS: Final = 8_000_000  # of words asked for last, eight bytes each
_KEPT_OF_A_DOCUMENT: Final = 12  # or so many for each document, where that is more

_MOST_AT_ONCE: Final = 500  # words of one statement

Query = Callable[[str, tuple[Any, ...]], list[Any]]


Spellings = tuple[str, ...]
_Postings = tuple[npt.NDArray[np.int32], npt.NDArray[Any]]  # documents, rising, and a number for each


class SortedWords(Sequence[str]):
    """Different words in the order of their code points.

    Args:
        data: The words in UTF-8, separated by NUL.
        common: uint8 (n,): how many letters each has in common with the one before, at most 64.

    Example:
        >>> words = SortedWords.of(["red", "rod", "ran"])
        >>> list(words), words.position("red"), words.position("rid")
        (['ran', 'red', 'rod'], 1, None)
        >>> words.alike("rode", 1)
        (0, array([1, 1, 3], dtype=uint8))
    """

    def __init__(self, data: bytes, common: npt.NDArray[np.uint8]) -> None:
        self._data = data
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 0)
        self._starts = np.concatenate([[0], ends + 1]) if data else np.empty(0, np.int64)
        self._keys = _first_bytes(data, self._starts)
        self._common = common
        if len(common) != len(self._starts):
            raise ModelError(f"the index of words is damaged: it has {len(self._starts)} words, not {len(common)}")

    @classmethod
    def of(cls, words: Iterable[str]) -> SortedWords:
        """The different ones of some words, none of them empty."""
        ordered = sorted(set(words))
        return cls("\0".join(ordered).encode(), common_letters(ordered))

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, at: Any) -> Any:
        start = int(self._starts[at])
        end = int(self._starts[at + 1]) - 1 if at + 1 < len(self._starts) else len(self._data)
        return self._data[start:end].decode(errors="replace")

    def __iter__(self) -> Iterator[str]:
        return iter(self._data.decode(errors="replace").split("\0") if self._data else [])

    def before(self, word: str) -> int:
        """How many of the words come before a word."""
        key = np.uint64(int.from_bytes(word.encode(errors="replace")[:_KEY_BYTES].ljust(_KEY_BYTES, b"\0")))
        first, last = int(self._keys.searchsorted(key)), int(self._keys.searchsorted(key, "right"))
        return bisect.bisect_left(self, word, first, last)

    def position(self, word: str) -> int | None:
        """The place of a word, or None."""
        at = self.before(word)
        return at if at < len(self) and self[at] == word else None

    def alike(self, word: str, n_common: int) -> tuple[int, npt.NDArray[np.uint8]]:
        """The words that begin with the first ``n_common`` letters of a word, at least 1 and no more than it has.

        Returns:
            The place of the first, and for each how many letters it has in common, at most 64.
        """
        begin = word[:n_common]
        first, last = self.before(begin), self.before(begin + chr(0x10FFFF))
        middle = self.before(word)
        common = np.empty(last - first, np.uint8)
        if middle < last:  # of a word behind: the least of all steps that lead to it
            common[middle - first :] = self._common[middle:last]
            common[middle - first] = min(_MOST_COMMON, _common(word, self[middle]))
            np.minimum.accumulate(common[middle - first :], out=common[middle - first :])
        if middle > first:
            before = common[: middle - first][::-1]
            before[1:] = self._common[first + 1 : middle][::-1]
            before[0] = min(_MOST_COMMON, _common(word, self[middle - 1]))
            np.minimum.accumulate(before, out=before)
        return first, common


def _first_bytes(data: bytes, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """uint64 (n,): the first bytes of each word as a number, so that numbers are in the order of the words."""
    padded = np.frombuffer(data + bytes(_KEY_BYTES), np.uint8)
    keys = np.zeros(len(starts), np.uint64)
    inside = np.ones(len(starts), np.bool_)
    for at in range(_KEY_BYTES):
        letters = padded[starts + at]
        inside &= letters != 0
        keys <<= np.uint64(8)
        keys += np.where(inside, letters, 0).astype(np.uint64)
    return keys


def _common(a: str, b: str) -> int:
    """How many letters two words have in common at their beginning."""
    n = min(len(a), len(b))
    return next((at for at in range(n) if a[at] != b[at]), n)


def common_letters(words: Sequence[str]) -> npt.NDArray[np.uint8]:
    """uint8 (n_words,): how many letters each word has in common with the one before, at most 64; 0 for the first."""
    common = np.zeros(len(words), np.uint8)
    for first in range(0, len(words) - 1, _BLOCK_WORDS):
        some = [word[:_MOST_COMMON] for word in words[first : first + _BLOCK_WORDS + 1]]
        lengths = np.fromiter(map(len, some), np.int64, len(some))
        letters = np.array(some, f"U{_MOST_COMMON}").view(np.uint32).reshape(len(some), _MOST_COMMON)
        differ = letters[1:] != letters[:-1]
        found = np.where(differ.any(axis=1), differ.argmax(axis=1), _MOST_COMMON)
        common[first + 1 : first + len(some)] = np.minimum(found, np.minimum(lengths[1:], lengths[:-1]))
    return common


class WordIndex:
    """The index of a number of documents; any number of threads may ask it if ``query`` allows that.

    Args:
        query: Runs a statement over the tables and gives all rows.
        n_documents: Their number.

    Attributes:
        n_documents: The same.
        mean_length: The mean number of words of a document, at least 1.

    Raises:
        ModelError: the tables do not belong to so many documents, or are damaged.

    Example:
        >>> from jose_embed.text.tokenizers import get_tokenizer
        >>> index = WordIndex.of_texts(["a red fox", "a dog", "red red"], get_tokenizer("words"))
        >>> index.scores([(["red"], 1), (["cat"], 1)]).argsort().tolist()
        [1, 0, 2]
    """

    def __init__(self, query: Query, n_documents: int) -> None:
        self._query = query
        blobs = [blob for (blob,) in query("SELECT n FROM lengths ORDER BY part", ())]
        lengths = np.concatenate([np.empty(0, np.int32), *(_integers(blob, "<i4") for blob in blobs)])
        if len(lengths) != n_documents or lengths.min(initial=0) < 0:
            raise ModelError(f"the index of words has {len(lengths)} documents where there are {n_documents}")
        self.n_documents = n_documents
        self._lock = threading.Lock()
        self._kept: dict[Spellings, _Postings] = {}  # of the words asked for last, the newest behind
        self._n_kept = 0
        self.mean_length = max(1.0, float(lengths.mean())) if n_documents else 1.0
        self._discounts = self.discounts(lengths)

    @classmethod
    def of_texts(cls, texts: Iterable[str | None], tokenizer: Tokenizer) -> WordIndex:
        """An index in a temporary database.

        Args:
            texts: The texts in the order of the documents.
            tokenizer: Splits them.
        """
        with contextlib.ExitStack() as undone:
            connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            undone.callback(connection.close)
            try:
                connection.execute("PRAGMA journal_mode=OFF")
                connection.execute("BEGIN")
                n_documents = write_index(connection, texts, tokenizer)
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise ModelError(_NO_ROOM.format(error)) from error
            index = cls(lambda statement, values: connection.execute(statement, values).fetchall(), n_documents)
            weakref.finalize(index, undone.pop_all().close)
        return index

    @cached_property
    def words(self) -> SortedWords:
        """All words of the texts."""
        return self._words_and_numbers[0]

    @cached_property
    def _words_and_numbers(self) -> tuple[SortedWords, npt.NDArray[np.int32]]:
        found = self._query("SELECT words, numbers, common FROM words", ())
        if len(found) != 1 or not isinstance(found[0][0], bytes):
            raise ModelError("the index of words is damaged: its words are missing")
        data, numbers, common = found[0]
        words = SortedWords(data, _integers(common, "u1"))
        of_words = _integers(numbers, "<i4")
        if len(of_words) != len(words):
            raise ModelError(f"the index of words is damaged: it numbers {len(of_words)} of {len(words)} words")
        return words, of_words

    def discounts(self, lengths: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """float32: what is added below the fraction of a document of so many words."""
        return (K1 * (1 - B + B * lengths / self.mean_length)).astype(np.float32)

    def scores(self, terms: Sequence[tuple[Sequence[str], float]]) -> npt.NDArray[np.float32]:
        """The scores of all documents: float32 (n_documents,), 0 for those without any of the words.

        Args:
            terms: The question's different words and how often each occurs in it. A word may be several spellings,
                which count as one word.

        Raises:
            ModelError: damage.
        """
        found = self._postings([tuple(spellings) for spellings, _ in terms])
        total = np.zeros(self.n_documents, np.float32)
        for (rows, fractions), (_, weight) in zip(found, terms, strict=True):
            add_scores(rows, fractions, self._factor(len(rows), weight), total)
        return total

    def gains(
        self,
        spellings: Sequence[str],
        weight: float,
        counts: npt.NDArray[np.float32],
        discounts: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float32]:
        """The scores of documents that are not in the index for one word, as if they were: float32 (n,).

        Args:
            spellings: The word.
            weight: How often it is in the question.
            counts: float32 (n,): how often each has it.
            discounts: float32 (n,): :meth:`discounts` of their lengths.
        """
        ((rows, _),) = self._postings([tuple(spellings)])
        return counts / (counts + discounts) * np.float32(self._factor(len(rows), weight))

    def _factor(self, n: int, weight: float) -> float:
        """What the fraction of a word that is in ``n`` documents is multiplied by."""
        return self.idf(n) * (K1 + 1) * weight

    def rarity(self, spellings: Sequence[str]) -> float:
        """The weight of a word, by the documents that it is in."""
        ((rows, _),) = self._postings([tuple(spellings)])
        return self.idf(len(rows))

    def idf(self, n: int) -> float:
        """The weight of a word that is in ``n`` documents."""
        return math.log1p((self.n_documents - n + 0.5) / (n + 0.5))

    def _postings(self, wanted: Sequence[Spellings]) -> list[_Postings]:
        """The documents with each word and the fractions of the formula; those of words asked for last are kept.

        Raises:
            ModelError: damage.
        """
        with self._lock:
            new = self._read([key for key in dict.fromkeys(wanted) if key not in self._kept])
            self._n_kept += sum(len(rows) for rows, _ in new.values())
            self._kept |= new
            for key in wanted:
                self._kept[key] = self._kept.pop(key)
            found = [self._kept[key] for key in wanted]
            while self._n_kept > max(_KEPT_POSTINGS, _KEPT_OF_A_DOCUMENT * self.n_documents):
                rows, _ = self._kept.pop(next(iter(self._kept)))
                self._n_kept -= len(rows)
            return found

    def _read(self, wanted: Sequence[Spellings]) -> dict[Spellings, _Postings]:
        """The documents with each word, and the fractions of the formula: float32."""
        words, numbers = self._words_and_numbers
        every = dict.fromkeys(word for spellings in wanted for word in spellings)
        asked = {int(numbers[at]): word for word in every if (at := words.position(valid_text(word))) is not None}
        parts: dict[int, list[_Postings]] = {}
        statement = "SELECT number, documents, counts FROM postings WHERE number IN ({}) ORDER BY number, part"
        some = list(asked)
        for first in range(0, len(some), _MOST_AT_ONCE):
            values = tuple(some[first : first + _MOST_AT_ONCE])
            for number, rows, counts in self._query(statement.format(", ".join("?" * len(values))), values):
                parts.setdefault(number, []).append((_integers(rows, "<i4"), _integers(counts, "<u2")))
        found = {word: self._checked(word, _together(parts.get(number, []))) for number, word in asked.items()}
        made: dict[Spellings, _Postings] = {}
        for spellings in wanted:
            rows, counts = _added([found[word] for word in dict.fromkeys(spellings) if word in found])
            fractions = counts.astype(np.float32)
            fractions /= fractions + self._discounts[rows]
            made[spellings] = rows, fractions
        return made

    def _checked(self, word: str, postings: _Postings) -> _Postings:
        """Postings that are in order; kernels check no bounds."""
        rows, counts = postings
        if (
            not (len(rows) and len(rows) == len(counts) and rows[0] >= 0 and rows[-1] < self.n_documents)
            or (rows[1:] <= rows[:-1]).any()
        ):
            raise ModelError(f"the index of words is damaged at the word {word[:40]!r}")
        return postings


def _together(parts: Sequence[_Postings]) -> _Postings:
    """Postings one after the other."""
    rows = np.concatenate([np.empty(0, np.int32), *(rows for rows, _ in parts)])
    return rows, np.concatenate([np.empty(0, np.uint16), *(numbers for _, numbers in parts)])


def _added(spellings: Sequence[_Postings]) -> _Postings:
    """The postings of several words as one, whose counts are the sums."""
    rows, counts = _together(spellings)
    if len(spellings) < 2:
        return rows, counts
    order = rows.argsort(kind="stable")
    rows = rows[order]
    firsts = np.flatnonzero(np.diff(rows, prepend=-1))
    return rows[firsts], np.add.reduceat(counts[order], firsts, dtype=np.int64)


@jit
def add_scores(
    rows: npt.NDArray[np.int32], fractions: npt.NDArray[np.float32], factor: float, total: npt.NDArray[np.float32]
) -> None:
    """Add the scores of all documents for one word of a question.

    Args:
        rows: int32 (n,), within ``total``: the documents with the word.
        fractions: float32 (n,): the fraction of the formula for each.
        factor: What it is multiplied by.
        total: float32 (n_documents,), changed in place.
    """
    for at in range(len(rows)):
        total[np.uint64(rows[at])] += fractions[at] * np.float32(factor)


class IndexWriter:
    """Writes the tables of an index, some documents after the other.

    Args:
        connection: An open database, in a transaction.
        words: Gives the words of some numbers.

    Raises:
        sqlite3.Error: no room; so do the methods.
    """

    def __init__(self, connection: sqlite3.Connection, words: Callable[[npt.NDArray[np.intp]], list[str]]) -> None:
        self._connection = connection
        self._words = words
        self._n_words = self.n_documents = self._n_tokens = self._part = 0
        self._ids: list[npt.NDArray[np.int32]] = []
        self._ends: list[npt.NDArray[np.int64]] = []
        connection.execute("CREATE TABLE lengths (part INTEGER PRIMARY KEY, n BLOB)")
        connection.execute(
            "CREATE TABLE postings (number INTEGER, part INTEGER, documents BLOB, counts BLOB, "
            "PRIMARY KEY (number, part)) WITHOUT ROWID"
        )
        connection.execute("CREATE TABLE words (words BLOB, numbers BLOB, common BLOB)")

    def add(self, numbers: npt.NDArray[np.int32], ends: npt.NDArray[np.int64]) -> None:
        """Add words, and for each document that ends among them, after how many it does.

        Args:
            numbers: int32: the number of each word; copied.
            ends: int64, rising.
        """
        self._ids.append(numbers.copy())
        self._ends.append(ends + self._n_tokens)
        self._n_tokens += len(numbers)
        if self._n_tokens >= _PART_TOKENS and len(ends):
            self._write_part()

    def finish(self) -> int:
        """Write the rest; returns the number of documents."""
        self._write_part()
        words = self._words(np.arange(self._n_words))
        if any("\0" in word for word in words):
            words = [word.replace("\0", "\ufffd") for word in words]
        order = sorted((number for number, word in enumerate(words) if word), key=words.__getitem__)
        ordered = [words[number] for number in order]
        self._connection.execute(
            "INSERT INTO words VALUES (?, ?, ?)",
            (
                "\0".join(ordered).encode(errors="replace"),
                np.array(order, "<i4").tobytes(),
                common_letters(ordered).tobytes(),
            ),
        )
        return self.n_documents

    def _write_part(self) -> None:
        """Write the postings of the documents that have ended; the words behind them stay."""
        if not self._ends:
            return
        ids, ends = np.concatenate(self._ids), np.concatenate(self._ends)
        rest = ids[ends[-1] :] if len(ends) else ids
        self._ids, self._ends, self._n_tokens = [rest], [], len(rest)
        if not len(ends):
            return
        sizes = np.diff(ends, prepend=0)
        ids = ids[: ends[-1]]
        self._n_words = max(self._n_words, int(ids.max(initial=-1)) + 1)
        pairs = ids.astype(np.int64) * len(sizes)
        pairs += np.repeat(np.arange(len(sizes)), sizes)
        pairs.sort()
        at = np.flatnonzero(np.diff(pairs, prepend=-1))
        counts = np.minimum(np.diff(at, append=len(pairs)), _MOST_COUNT).astype("<u2")
        words, rows = np.divmod(pairs[at], len(sizes))
        of_rows = memoryview((rows + self.n_documents).astype("<i4").tobytes())
        of_counts = memoryview(counts.tobytes())
        starts = np.flatnonzero(np.diff(words, prepend=-1))
        spans = zip(words[starts].tolist(), starts.tolist(), np.append(starts, len(words))[1:].tolist(), strict=True)
        part = self._part
        self._connection.executemany(
            "INSERT INTO postings VALUES (?, ?, ?, ?)",
            ((word, part, of_rows[4 * a : 4 * b], of_counts[2 * a : 2 * b]) for word, a, b in spans),
        )
        self._connection.execute("INSERT INTO lengths VALUES (?, ?)", (part, sizes.astype("<i4").tobytes()))
        self.n_documents += len(sizes)
        self._part += 1


def write_index(connection: sqlite3.Connection, texts: Iterable[str | None], tokenizer: Tokenizer) -> int:
    """Write the tables of an index.

    Args:
        connection: An open database, in a transaction.
        texts: The texts in the order of the documents.
        tokenizer: Splits them.

    Returns:
        The number of documents.

    Raises:
        sqlite3.Error: no room.
    """
    table = word_table(tokenizer)
    writer = IndexWriter(connection, table.words)
    for batch in _batches(texts):
        writer.add(*table.add_texts(batch))
    return writer.finish()


def _batches(texts: Iterable[str | None]) -> Iterator[list[str]]:
    batch: list[str] = []
    n_characters = 0
    for text in texts:
        batch.append("" if text is None else valid_text(text))
        n_characters += len(batch[-1]) + 1
        if n_characters >= _BATCH_CHARACTERS:
            yield batch
            batch, n_characters = [], 0
    if batch:
        yield batch


def _integers(blob: Any, kind: str) -> npt.NDArray[Any]:
    """The numbers of a blob.

    Raises:
        ModelError: it is none.
    """
    try:
        return np.frombuffer(blob, kind)
    except (TypeError, ValueError):
        raise ModelError("the index of words is damaged: it holds something that is not a list of numbers") from None
