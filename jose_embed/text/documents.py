"""Documents from Python: lists, iterators, dicts, columns of tables, data sets, lists of tokens."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, KeysView, Mapping, Sequence, Set, Sized
from dataclasses import dataclass
from itertools import chain, islice
from numbers import Integral, Real
from typing import Any, Final, TypeAlias

from jose_embed.errors import CorpusError
from jose_embed.text.records import SAMPLED_RECORDS, TEXT_NAMES, TextOptions, choose_columns, id_fault

#: A text, or its words.
Document: TypeAlias = str | Sequence[str]

_BATCH = 1 << 20  # characters
_END: Final = object()


@dataclass
class GivenDocuments:
    """Documents that a caller has given.

    Attributes:
        documents: The documents; iterated once.
        ids: Their ids; ``None`` for their numbers.
        n_documents: Their number, if it is known.
        are_tokens: Whether each is a sequence of words.
        note: A sentence for the user; ``None`` if there is nothing to say.
    """

    documents: Iterable[Any]
    ids: Iterable[Any] | None
    n_documents: int | None
    are_tokens: bool
    note: str | None = None

    def batches(self) -> Iterator[tuple[list[Any], list[str] | None]]:
        """The documents and their ids in lists of about a million characters.

        Raises:
            CorpusError: something that is not a document or an id, or another number of ids than documents.
        """
        check = _tokens if self.are_tokens else _text
        ids = iter(self.ids) if self.ids is not None else None
        batch: list[Any] = []
        batch_ids: list[str] | None = [] if ids is not None else None
        size = number = 0
        for number, document in enumerate(self.documents, 1):
            batch.append(check(document, number))
            size += sum(map(len, document)) + len(document) if self.are_tokens else len(document) + 1
            if ids is not None and batch_ids is not None:
                batch_ids.append(_id(next(ids, _END), number))
            if size >= _BATCH:
                yield batch, batch_ids
                batch, batch_ids, size = [], [] if ids is not None else None, 0
        if batch:
            yield batch, batch_ids
        if ids is not None and next(ids, _END) is not _END:
            raise CorpusError(f"there are more ids than documents ({number:,}); give one id for each")


def given_documents(
    documents: Any, ids: Iterable[Any] | None = None, options: TextOptions | None = None
) -> GivenDocuments:
    """Understand what a caller has given as documents.

    Args:
        documents: An iterable of strings or of sequences of words (lists, iterators, NumPy arrays, columns of pandas
            and polars), a mapping of ids to documents, or a ``datasets.Dataset``.
        ids: An id for each document: strings or whole numbers.
        options: The columns of a data set.

    Raises:
        CorpusError: anything else, with the sentence that helps.

    Example:
        >>> next(given_documents({"a": "one", "b": "two"}).batches())
        (['one', 'two'], ['a', 'b'])
    """
    note = _index_note(documents) if ids is None else None
    documents, ids = _unpacked(documents, ids, options or TextOptions())
    n_documents = len(documents) if isinstance(documents, Sized) else None
    if n_documents is not None and isinstance(ids, Sized) and len(ids) != n_documents:
        raise CorpusError(f"there are {n_documents:,} documents and {len(ids):,} ids; give one id for each document")
    iterator = iter(documents)
    first = next(iterator, _END)
    if first is _END:
        raise CorpusError("there are no documents; give at least one")
    return GivenDocuments(chain([first], iterator), ids, n_documents, isinstance(first, (list, tuple)), note)


def listed_texts(texts: Any) -> Sequence[Any]:
    """New texts as a list of strings and of sequences of words, in any mixture.

    Args:
        texts: As :func:`given_documents` takes documents; there may be none.

    Raises:
        CorpusError: anything else, with the sentence that helps.

    Example:
        >>> listed_texts({"a": "one", "b": ["two", "words"]})
        ['one', ['two', 'words']]
    """
    found, _ = _unpacked(texts, None, TextOptions())
    listed: Sequence[Any] = found if isinstance(found, (list, tuple)) else list(found)
    for number, text in enumerate(listed, 1):
        if isinstance(text, str):
            continue
        if isinstance(text, (bytes, bytearray, Mapping, Set)) or not isinstance(text, Collection):
            raise CorpusError(f"text {number:,} is {_described(text)}; {_remedy(text)}")
        if odd := [word for word in text if not isinstance(word, str)][:1]:
            raise CorpusError(f"text {number:,} holds {_described(odd[0])}; its words must be strings")
    return listed


def _index_note(documents: Any) -> str | None:
    """The note for a column of pandas whose index is not that of its rows; ``None`` for anything else."""
    if not hasattr(documents, "iloc") or getattr(documents, "ndim", 0) != 1:
        return None
    if all(label == row for row, label in enumerate(documents.index)):
        return None
    return (
        "the index of the column is not used: ids are numbers from 1, and index=0 is the first row, as with iloc; "
        "ids=column.index makes the index the ids"
    )


def _unpacked(documents: Any, ids: Any, options: TextOptions) -> tuple[Any, Any]:
    """The documents and ids as iterables."""
    if isinstance(documents, (str, bytes, bytearray)):
        raise CorpusError("the documents are one string; give a list of strings, one for each document")
    if isinstance(documents, Set) and not isinstance(documents, KeysView):
        raise CorpusError("the documents are a set, which has no order; give a list, such as sorted(documents)")
    if hasattr(documents, "column_names") and hasattr(documents, "features"):
        return _data_set(documents, ids, options)
    if options.text_field or options.id_field or options.keep_fields:
        raise CorpusError(
            "text_field, id_field and keep_fields name columns, and these documents have none; leave them out, or save "
            "the table to a file and name that"
        )
    if hasattr(documents, "columns") and hasattr(documents, "shape"):
        columns = [str(name) for name in getattr(documents, "column_names", documents.columns)]
        first = next((name for name in columns if name.lower() in TEXT_NAMES), next(iter(columns), "text"))
        raise CorpusError(f"the documents are a table; give one of its columns, such as table[{first[:50]!r}]")
    if hasattr(documents, "to_pylist"):  # of pyarrow, which would give scalars of its own
        documents = documents.to_pylist()
    if isinstance(documents, Mapping):
        if ids is not None:
            raise CorpusError("the documents are a mapping, whose keys are their ids; leave ids out")
        if any(hasattr(value, "column_names") for value in documents.values()):
            names = ", ".join(str(name)[:50] for name in documents)
            raise CorpusError(f"the documents are several data sets ({names}); give one of them")
        return documents.values(), documents.keys()
    if getattr(documents, "ndim", 1) != 1:
        raise CorpusError(f"the documents are an array of {documents.ndim} dimensions; give one with one dimension")
    if not isinstance(documents, Iterable):
        raise CorpusError(f"the documents are {_described(documents)}; give a list of strings, one for each document")
    if isinstance(ids, (str, bytes)) or (ids is not None and not isinstance(ids, Iterable)):
        raise CorpusError(f"ids is {_described(ids)}; give a list with an id for each document")
    if isinstance(ids, (Set, Mapping)):
        raise CorpusError("ids must be in the order of the documents; give a list")
    return documents, ids


def _data_set(documents: Any, ids: Any, options: TextOptions) -> tuple[Any, Any]:
    """The columns of text and id of a ``datasets.Dataset`` or ``IterableDataset``."""
    if options.keep_fields:
        raise CorpusError(
            "keep_fields keeps columns of files; save the data set (save_to_disk) and train on its folder, or leave "
            "keep_fields out"
        )
    is_stream = not hasattr(documents, "__len__")
    if not is_stream:
        for plain in ("flatten", "with_format"):  # fields of structs as a.b, values of Python
            documents = getattr(documents, plain, lambda: documents)()  # noqa: B023  # called at once

    def column(name: str) -> Iterable[Any]:
        values: Iterable[Any] = (row.get(name) for row in documents) if is_stream else documents[name]
        return values

    head = list(islice(documents, SAMPLED_RECORDS))
    names = list(documents.column_names or dict.fromkeys(chain.from_iterable(head)))
    lengths = {
        name: sum(len(row[name]) for row in head if isinstance(row.get(name), str)) / max(1, len(head))
        for name in names
    }
    columns = choose_columns("the data set", lengths, options)
    if columns.id is not None and ids is None:
        ids = column(columns.id)
    if len(columns.text) == 1:
        return (value if value is not None else "" for value in column(columns.text[0])), ids
    parts = zip(*(column(name) for name in columns.text), strict=True)
    return ("\n".join(part or "" for part in row) for row in parts), ids


def _text(document: Any, number: int) -> str:
    if not isinstance(document, str):
        raise CorpusError(f"document {number:,} is {_described(document)}; {_remedy(document)}")
    return document


def _tokens(document: Any, number: int) -> Sequence[str]:
    if not isinstance(document, (list, tuple)):
        raise CorpusError(
            f"document {number:,} is {_described(document)}, and document 1 is a list of words; give lists"
        )
    for word in document:
        if not isinstance(word, str):
            raise CorpusError(f"document {number:,} holds {_described(word)}; its words must be strings")
    return document


def _id(value: Any, number: int) -> str:
    if value is _END:
        raise CorpusError(f"there are more documents than ids ({number - 1:,}); give one id for each")
    if isinstance(value, Integral) and not isinstance(value, bool) and abs(int(value)) < 1 << 200:
        value = str(int(value))
    if not isinstance(value, str):
        raise CorpusError(f"the id of document {number:,} is {_described(value)}; give strings or whole numbers")
    if (reason := id_fault(value)) is not None:
        raise CorpusError(f"document {number:,}: {reason}; give each document an id of one line")
    return value


def _described(value: Any) -> str:
    """A value that is not a document, for messages."""
    if _is_missing(value):
        return "a missing value (None or NaN)"
    if isinstance(value, (bytes, bytearray)):
        return "bytes"
    if isinstance(value, Real):
        with contextlib.suppress(OverflowError):
            return f"the number {float(value):g}"
        return "a large number"
    return f"of type {type(value).__name__}"


def _is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, or a missing value of pandas."""
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )


def _remedy(document: Any) -> str:
    if isinstance(document, (bytes, bytearray)):
        return "decode it first, as with document.decode()"
    if isinstance(document, Mapping):
        return "give its text, as in [record['text'] for record in records]"
    if _is_missing(document):
        return "replace it by an empty string, as with column.fillna('') (pandas) or column.fill_null('') (polars)"
    return "every document must be a string or a list of words"


def sources_or_documents(given: Any) -> tuple[Any, Any]:
    """Tell names of files from documents in the first argument of ``train``.

    A string, a path and paths in an iterable are names. Strings in an iterable are documents if one of the first has
    white space and none is the name of a file. Everything else holds documents.

    Returns:
        The names and ``None``, or ``None`` and the documents.

    Raises:
        CorpusError: names of files and strings with white space that are not.

    Example:
        >>> sources_or_documents(["a.txt", "b.txt"]), sources_or_documents(("the cat", "a dog"))
        ((['a.txt', 'b.txt'], None), (None, ('the cat', 'a dog')))
    """
    if isinstance(given, (bytes, bytearray)):
        raise CorpusError("the text is bytes; give the name of a file, or a list of strings, as in [text.decode()]")
    if given is None or isinstance(given, (str, os.PathLike)):
        return given, None
    if isinstance(given, (list, tuple)) and not given:
        raise CorpusError("the list is empty; give names of files, or one string for each document")
    if isinstance(given, Iterator):
        head = list(islice(given, _NAMES_LOOKED_AT))
        given = chain(head, given)
    elif isinstance(given, (list, tuple)):
        head = list(given[:_NAMES_LOOKED_AT])
    else:
        return None, given
    if any(not isinstance(name, (str, os.PathLike)) for name in head):
        return None, given
    texts = [name for name in head if isinstance(name, str)]
    files = [text for text in texts if _is_file(text)]
    other = next((text for text in texts if len(text.split()) > 1 and text not in files), None)
    if files and other is not None:
        raise CorpusError(f"{files[0][:100]!r} is a file, but {other[:100]!r} is not; give either files or texts")
    if len(texts) == len(head) and other is not None:
        return None, given
    return list(given), None


_NAMES_LOOKED_AT = 1000


def _is_file(text: str) -> bool:
    return len(text) < 4096 and "\0" not in text and os.path.lexists(text)
