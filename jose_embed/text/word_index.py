"""Exact words: an index from the words of kept texts to their documents, and Okapi BM25 over it.

The words are those of the model's tokenizer, so a question and the texts are cut alike, in languages without spaces
too. Rare words that the vocabulary leaves out are in the index. A document is scored by

    sum_w  n_w  log(1 + (N - df_w + 1/2) / (df_w + 1/2))  tf (k1 + 1) / (tf + k1 (1 - b + b L / mean L)),

with n_w and tf the occurrences of the word w in the question and in the document, L the words of the document, df_w the
documents with the word among N.

The index lies in SQLite, in the tables ``lengths`` (part, n) and ``postings`` (word, part, documents, counts) of blobs
of little-endian integers: int32 lengths, int32 rows, uint16 counts. A part is a run of documents, so that building
needs bounded memory. A question reads the rows of its words only.

Source: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond, 2009.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ModelError
from jose_embed.text.tokenizers import Tokenizer, valid_text
from jose_embed.text.word_table import word_table

__all__ = ["MOST_WORDS", "Postings", "WordIndex"]

K1: Final = 1.2  # how soon further occurrences stop to count
B: Final = 0.75  # how much long documents are discounted
_PART_TOKENS: Final = 1 << 22  # running words of a part, some 100 MB while it is built
_BATCH_CHARACTERS: Final = 1 << 22
_MOST_COUNT: Final = (1 << 16) - 1
_NO_ROOM: Final = "the index of words cannot be written ({}); make room in the directory for temporary files"

MOST_WORDS: Final = 10_000
_KEPT_BYTES: Final = 1 << 26  # of the scores of frequent words

Query = Callable[[str, tuple[Any, ...]], list[Any]]


class Postings(NamedTuple):
    """The documents with a word: their ``rows``, integers, rising, and how often each has it, ``counts``."""

    rows: npt.NDArray[Any]
    counts: npt.NDArray[Any]

    @property
    def n_bytes(self) -> int:
        """Their size in memory."""
        return self.rows.nbytes + self.counts.nbytes


class WordIndex:
    """The index of a number of documents; any number of threads may ask it if ``query`` allows that.

    Args:
        query: Runs a statement over the two tables and gives all rows.
        n_documents: Their number.

    Raises:
        ModelError: the tables do not belong to so many documents.

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
        self._kept: dict[tuple[str, ...], Postings] = {}
        self._kept_bytes = 0
        mean = max(1.0, float(lengths.mean())) if n_documents else 1.0
        self._discounts = (K1 * (1 - B + B * lengths / mean)).astype(np.float32)

    @classmethod
    def of_texts(cls, texts: Iterable[str | None], tokenizer: Tokenizer) -> WordIndex:
        """An index in a temporary database.

        Args:
            texts: The texts in the order of the documents.
            tokenizer: Splits them.
        """
        connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=OFF")
        try:
            n_documents = write_index(connection, texts, tokenizer)
        except sqlite3.Error as error:
            raise ModelError(_NO_ROOM.format(error)) from error
        return cls(lambda statement, values: connection.execute(statement, values).fetchall(), n_documents)

    def scores(self, terms: Iterable[tuple[Sequence[str], float]]) -> npt.NDArray[np.float32]:
        """The scores of all documents: float32 (n_documents,), 0 for those without any of the words.

        Args:
            terms: The question's different words and how often each occurs in it. A word may be several spellings,
                which count as one word.

        Raises:
            ModelError: damage.
        """
        total = np.zeros(self.n_documents, np.float32)
        for spellings, weight in terms:
            rows, gains = self._gains(tuple(spellings))
            total[rows] += gains if weight == 1 else gains * np.float32(weight)
        return total

    def _gains(self, spellings: tuple[str, ...]) -> Postings:
        """The documents with a word and the score of each; those asked for last are kept."""
        kept = self._kept.pop(spellings, None)
        if kept is None:
            rows, counts = self._together([self.postings(word) for word in spellings])
            gains = counts.astype(np.float32)
            try:
                gains /= gains + self._discounts[rows]
            except IndexError:
                raise ModelError(f"the index of words is damaged at the word {spellings[0][:40]!r}") from None
            gains *= np.float32(self._idf(len(rows)) * (K1 + 1))
            kept = Postings(rows, gains)
            self._kept_bytes += kept.n_bytes
        self._kept[spellings] = kept
        while self._kept_bytes > _KEPT_BYTES and self._kept:
            try:
                self._kept_bytes -= self._kept.pop(next(iter(self._kept))).n_bytes
            except (KeyError, RuntimeError, StopIteration):  # another thread was faster
                break
        return kept

    def rarity(self, spellings: Sequence[str]) -> float:
        """The weight of a word, by the documents that it is in."""
        found = [self.postings(word) for word in spellings]
        return self._idf(len(self._together(found).rows))

    def _idf(self, n: int) -> float:
        return math.log1p((self.n_documents - n + 0.5) / (n + 0.5))

    def _together(self, found: Sequence[Postings]) -> Postings:
        found = [postings for postings in found if len(postings.rows)]
        if len(found) < 2:
            return found[0] if found else Postings(np.empty(0, np.int32), np.empty(0, np.uint16))
        rows = np.concatenate([postings.rows for postings in found])
        counts = np.concatenate([postings.counts for postings in found])
        if len(rows) * 8 < self.n_documents:
            rows, at = np.unique(rows, return_inverse=True)
            return Postings(rows, np.bincount(at, counts).astype(np.float32))
        sums = np.zeros(self.n_documents, np.float32)
        for postings in found:
            sums[postings.rows] += postings.counts
        rows = np.flatnonzero(sums)
        return Postings(rows, sums[rows])

    def postings(self, word: str) -> Postings:
        """The documents with a word.

        Raises:
            ModelError: damage.
        """
        pieces: list[Postings] = []
        statement = "SELECT documents, counts FROM postings WHERE word = ? ORDER BY part"
        first = 0
        for documents, numbers in self._query(statement, (valid_text(word),)):
            rows, counts = _integers(documents, "<i4"), _integers(numbers, "<u2")
            if not (len(rows) and len(rows) == len(counts) and rows[0] >= first and rows[-1] < self.n_documents):
                raise ModelError(f"the index of words is damaged at the word {word[:40]!r}")
            first = int(rows[-1]) + 1
            pieces.append(Postings(rows, counts))
        if len(pieces) == 1:
            return pieces[0]
        return Postings(
            np.concatenate([np.empty(0, np.int32), *(piece.rows for piece in pieces)]),
            np.concatenate([np.empty(0, np.uint16), *(piece.counts for piece in pieces)]),
        )

    def beginning_with(self, letters: str) -> list[str]:
        """All words that begin with some letters, at most :data:`MOST_WORDS` of them, in order."""
        statement = "SELECT DISTINCT word FROM postings WHERE word >= ? AND word < ? LIMIT ?"
        start = valid_text(letters)
        return [word for (word,) in self._query(statement, (start, start + chr(0x10FFFF), MOST_WORDS))]


def write_index(connection: sqlite3.Connection, texts: Iterable[str | None], tokenizer: Tokenizer) -> int:
    """Write the tables of an index.

    Args:
        connection: An open database.
        texts: The texts in the order of the documents.
        tokenizer: Splits them.

    Returns:
        The number of documents.

    Raises:
        sqlite3.Error: no room.
    """
    connection.execute("BEGIN")
    connection.execute("CREATE TABLE lengths (part INTEGER PRIMARY KEY, n BLOB)")
    connection.execute(
        "CREATE TABLE postings (word TEXT, part INTEGER, documents BLOB, counts BLOB, PRIMARY KEY (word, part)) "
        "WITHOUT ROWID"
    )
    table = word_table(tokenizer)
    spellings: list[str] = []
    n_documents, n_tokens, part = 0, 0, 0
    ids: list[npt.NDArray[np.int32]] = []
    lengths: list[npt.NDArray[np.int64]] = []

    def write_part() -> None:
        nonlocal n_documents, n_tokens, part
        if not lengths:
            return
        sizes = np.concatenate(lengths)
        _write_part(connection, part, n_documents, np.concatenate(ids), sizes, spellings)
        n_documents += len(sizes)
        n_tokens, part = 0, part + 1
        ids.clear()
        lengths.clear()

    for batch in _batches(texts):
        numbers, ends = table.add_texts(batch)
        n_seen = max(len(spellings), int(numbers.max(initial=-1)) + 1)
        spellings += table.words(np.arange(len(spellings), n_seen))
        ids.append(numbers.copy())
        lengths.append(np.diff(ends, prepend=0))
        n_tokens += len(numbers)
        if n_tokens >= _PART_TOKENS:
            write_part()
    write_part()
    connection.execute("COMMIT")
    return n_documents


def _write_part(
    connection: sqlite3.Connection,
    part: int,
    first: int,
    ids: npt.NDArray[np.int32],
    sizes: npt.NDArray[np.int64],
    spellings: list[str],
) -> None:
    """Write the postings of a run of documents from row ``first`` on, by word."""
    documents = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)
    pairs, counts = np.unique(ids.astype(np.int64) * len(sizes) + documents, return_counts=True)
    words, rows = np.divmod(pairs, len(sizes))
    rows = (rows + first).astype("<i4")
    counts = np.minimum(counts, _MOST_COUNT).astype("<u2")
    starts = np.flatnonzero(np.diff(words, prepend=-1))
    ends = np.append(starts[1:], len(words))
    present = words[starts].tolist()
    order = sorted(range(len(present)), key=lambda at: spellings[present[at]])
    of_rows, of_counts = memoryview(rows.tobytes()), memoryview(counts.tobytes())
    spans = [(spellings[present[at]], int(starts[at]), int(ends[at])) for at in order]
    connection.executemany(
        "INSERT INTO postings VALUES (?, ?, ?, ?)",
        ((word, part, of_rows[4 * a : 4 * b], of_counts[2 * a : 2 * b]) for word, a, b in spans),
    )
    connection.execute("INSERT INTO lengths VALUES (?, ?)", (part, sizes.astype("<i4").tobytes()))


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
