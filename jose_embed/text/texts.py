"""Kept texts: the texts and fields of a model's documents, in one SQLite file.

The file has the tables ``about`` (name, value) and ``documents`` (row, text, fields), where ``row`` is the document's
row from 0 and ``fields`` is a JSON object. With texts it also has the tables of their index of words
(:mod:`jose_embed.text.word_index`); ``about`` then says which tokenizer has split them.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ModelError, TrainingError
from jose_embed.text.sources import printable
from jose_embed.text.tokenizers import Tokenizer, normalization_of, valid_text
from jose_embed.text.word_index import IndexWriter, WordIndex, write_index
from jose_embed.text.word_table import WordTable

TEXTS_NAME: Final = "texts.sqlite3"
_PIECE = 1 << 20
_READ_ROWS: Final = 256
_APPLICATION: Final = 0x6A6F7365  # "jose"


class KeptDocument(NamedTuple):
    """The kept text and fields of one document.

    Attributes:
        text: Its text; ``None`` if texts are not kept.
        fields: Its fields by name; empty if none are kept.
    """

    text: str | None
    fields: Mapping[str, Any]


class TextStore:
    """Texts and fields by row; any number of threads may read.

    Made by :meth:`create` or :meth:`open`.

    Attributes:
        has_texts: Whether it holds texts.
        fields: The names of the fields that it holds.
        n_documents: The number of documents.
    """

    def __init__(self, connection: sqlite3.Connection, descriptor: int, place: str) -> None:
        self._connection = connection
        self._descriptor = descriptor
        self._place = place
        self._lock = threading.Lock()
        self.has_texts = False
        self.fields: tuple[str, ...] = ()
        self.n_documents = 0
        self._words: IndexWriter | None = None
        self._split_by: str | None = None

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # at the exit the module may be empty
        self._connection.close()
        close(self._descriptor)

    def __reduce__(self) -> tuple[Any, ...]:
        return _stored_again, (b"".join(self.chunks()),)

    @classmethod
    def create(cls, directory: str | os.PathLike[str] | None = None, *, fields: Sequence[str] = ()) -> TextStore:
        """An empty store in a nameless temporary file.

        Args:
            fields: The names of the fields that it will hold.
            directory: Directory of the temporary file; the system's if ``None``.

        Raises:
            TrainingError: no file can be made there.
        """
        place = os.fspath(directory) if directory is not None else tempfile.gettempdir()
        try:
            descriptor, path = tempfile.mkstemp(dir=place)
        except OSError as error:
            reason = error.strerror or error
            raise TrainingError(f"{printable(place)}: a temporary file cannot be made: {reason}") from error
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            # Without a journal, so that the file needs no name; until it is saved nobody else reads it.
            connection.executescript(
                "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA locking_mode=EXCLUSIVE;"
                f"PRAGMA application_id={_APPLICATION}; BEGIN;"
                "CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;"
                "CREATE TABLE documents (row INTEGER PRIMARY KEY, text TEXT, fields TEXT);"
            )
        finally:
            os.unlink(path)
        store = cls(connection, descriptor, place)
        store.fields = tuple(fields)
        return store

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> TextStore:
        """A store that was written with a model.

        Raises:
            ModelError: no such file, or not a store.
        """
        name = os.fspath(path)
        try:
            descriptor = os.open(name, os.O_RDONLY)
            uri = f"file:{quote(os.path.abspath(name))}?mode=ro&immutable=1"
            store = cls(sqlite3.connect(uri, uri=True, check_same_thread=False), descriptor, name)
        except (OSError, sqlite3.Error) as error:
            raise ModelError(f"{printable(name)}: the kept texts cannot be opened: {error}") from error
        store._query("PRAGMA trusted_schema=OFF")
        tables = store._query("SELECT name FROM sqlite_schema WHERE type = 'table' AND name IN ('about', 'documents')")
        about = dict(store._query("SELECT name, value FROM about")) if len(tables) == 2 else {}
        if about.get("has_texts") not in ("0", "1") or not str(about.get("n_documents")).isdigit():
            raise store._damaged("it does not hold texts of documents")
        store.has_texts, store.n_documents = about["has_texts"] == "1", int(about["n_documents"])
        try:
            names = json.loads(about["fields"])
        except (KeyError, TypeError, ValueError, RecursionError):
            names = None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise store._damaged("it does not name its fields")
        store.fields = tuple(names)
        store._split_by = about.get("split_by")
        return store

    def append(self, texts: Sequence[str] | None, fields: Sequence[Mapping[str, Any]] | None, n_documents: int) -> None:
        """Add the next documents.

        Args:
            texts: Their texts, if texts are kept.
            fields: Their fields, if fields are kept.
            n_documents: Their number.

        Raises:
            TrainingError: no room on the disk.
        """
        self.has_texts = self.has_texts or texts is not None
        values: Sequence[str | None] = [None] * n_documents
        if texts is not None:
            values = [_storable(text) for text in texts]
        facts: Sequence[str | None] = [None] * n_documents
        if fields is not None:
            facts = [json.dumps(each, ensure_ascii=True) for each in fields]
        rows = range(self.n_documents, self.n_documents + n_documents)
        try:
            self._connection.executemany(
                "INSERT INTO documents VALUES (?, ?, ?)", zip(rows, values, facts, strict=True)
            )
        except sqlite3.Error as error:
            raise self._full(error) from error
        self.n_documents += n_documents

    def append_words(self, table: WordTable, numbers: npt.NDArray[np.int32], ends: npt.NDArray[np.int64]) -> None:
        """Add the words of the next documents to their index, in the order of the documents.

        Args:
            table: Has numbered them.
            numbers: As it gave them.
            ends: For each document that ends among them, after how many it does.

        Raises:
            TrainingError: no room on the disk.
        """
        try:
            if self._words is None:
                self._words = IndexWriter(self._connection, table.words)
            self._words.add(numbers, ends)
        except sqlite3.Error as error:
            raise self._full(error) from error

    def finish(self, tokenizer: Tokenizer | None = None) -> None:
        """Write everything to the file; nothing can be added afterwards.

        Args:
            tokenizer: Has split the texts, or splits them now; None writes no index of words unless there were words.

        Raises:
            TrainingError: no room on the disk.
        """
        about = [
            ("has_texts", str(int(self.has_texts))),
            ("n_documents", str(self.n_documents)),
            ("fields", json.dumps(self.fields)),
        ]
        try:
            if tokenizer is not None and self.has_texts:
                if self._words is not None:
                    self._words.finish()
                else:
                    write_index(self._connection, self.every_text(), tokenizer)
                self._split_by = _facts(tokenizer)
                about.append(("split_by", self._split_by))
            self._connection.executemany("INSERT INTO about VALUES (?, ?)", about)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._full(error) from error

    def read(self, rows: Sequence[int]) -> list[KeptDocument]:
        """The documents of these rows, in this order.

        Raises:
            ModelError: damage.
        """
        return [self._one(row) for row in rows]

    def _one(self, row: int) -> KeptDocument:
        found = self._query("SELECT text, fields FROM documents WHERE row = ?", (int(row),))
        return self._document(*found[0]) if found else KeptDocument(None, {})

    def _document(self, text: Any, facts: Any) -> KeptDocument:
        try:
            fields = json.loads(facts) if facts is not None else {}
        except (TypeError, ValueError, RecursionError) as error:
            raise self._damaged("the fields of a document are not JSON") from error
        if not isinstance(fields, dict) or not (text is None or isinstance(text, str)):
            raise self._damaged("a text or the fields of a document are of another type")
        return KeptDocument(text, fields)

    def every_text(self) -> Iterator[str | None]:
        """The texts of all documents, in order.

        Raises:
            ModelError: damage.
        """
        for first in range(0, self.n_documents, _READ_ROWS):
            rows = range(first, min(first + _READ_ROWS, self.n_documents))
            yield from (document.text for document in self._run(rows))

    def every_fields(self) -> Iterator[Mapping[str, Any]]:
        """The fields of all documents, in order.

        Raises:
            ModelError: damage.
        """
        for first in range(0, self.n_documents, _READ_ROWS):
            rows = range(first, min(first + _READ_ROWS, self.n_documents))
            yield from (document.fields for document in self._run(rows, texts=False))

    def _run(self, rows: range, *, texts: bool = True) -> list[KeptDocument]:
        wanted = "text, fields" if texts else "NULL, fields"
        statement = f"SELECT {wanted}, row FROM documents WHERE row >= ? AND row < ? ORDER BY row"
        found = self._query(statement, (rows.start, rows.stop))
        if [row for *_, row in found] != list(rows):
            raise self._damaged("documents are missing")
        return [self._document(text, facts) for text, facts, _ in found]

    def word_index(self, tokenizer: Tokenizer) -> WordIndex:
        """The index of the words of all texts: that of the file, or else a new one in a temporary file.

        Args:
            tokenizer: Splits the texts.

        Raises:
            ModelError: damage, or no room.
        """
        if self._split_by == _facts(tokenizer):
            return WordIndex(self._query, self.n_documents)
        return WordIndex.of_texts(self.every_text(), tokenizer)

    def chunks(self) -> Iterator[bytes]:
        """The bytes of the file."""
        at = 0
        while piece := os.pread(self._descriptor, _PIECE, at):
            yield piece
            at += len(piece)

    @property
    def n_bytes(self) -> int:
        """The size of the file."""
        return os.fstat(self._descriptor).st_size

    def _query(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        try:
            with self._lock:
                return self._connection.execute(statement, values).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, reason: str) -> ModelError:
        return ModelError(
            f"{printable(self._place)}: the kept texts are damaged ({reason}); take the model from a good copy, or "
            "leave the texts out (jose strip)"
        )

    def _full(self, error: sqlite3.Error) -> TrainingError:
        return TrainingError(
            f"{printable(self._place)}: the texts to keep cannot be written ({error}); make room or name another "
            "directory"
        )


def _storable(text: str) -> str:
    """The text with its NUL characters, which SQLite can hold; lone surrogates become U+FFFD."""
    return "\0".join(map(valid_text, text.split("\0")))


def _facts(tokenizer: Tokenizer) -> str:
    """What a tokenizer is, to be compared."""
    facts = {"name": tokenizer.name, "settings": tokenizer.settings(), "normalization": normalization_of(tokenizer)}
    return json.dumps(facts, sort_keys=True, default=str)


def _stored_again(data: bytes) -> TextStore:
    """The store of a file with these bytes, in a nameless temporary file."""
    descriptor, path = tempfile.mkstemp()
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        store = TextStore.open(path)
        store.read([0])  # the file is opened at the first query
        return store
    finally:
        os.unlink(path)
