"""Records: documents with ids and fields of their own, in tables, JSON Lines and Arrow files.

The readers are in ``records_csv.py``, ``records_json.py`` and ``records_arrow.py``. A reader takes decoded blocks of
whole lines and yields one :class:`RecordBatch` for about each block, so memory does not depend on the size of the file.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple, TypedDict, cast

from jose_embed.errors import ConfigError, CorpusError, did_you_mean
from jose_embed.text.sources import FORMATS, Format, Source, printable
from jose_embed.text.tokenizers import valid_text

RECORD_LIMIT: Final = 64 << 20  # characters of one field, bytes of one line
_SUFFIXES: Final[dict[str, Format]] = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet",
    ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow",
}  # fmt: skip
_COMPRESSED: Final = (".gz", ".bz2", ".xz", ".zst")
_SHEETS: Final = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers")
TEXT_NAMES: Final = ("text", "body", "content")
_LONG_TEXT = 30  # characters that a column of texts has on average
SAMPLED_RECORDS = 200
_FAULTS_NAMED = 10
_COLUMNS_NAMED = 20


@dataclass(frozen=True)
class TextOptions:
    """How text is read.

    Attributes:
        text_field: The columns that hold the text, joined by a line break if there are several; empty to find it.
        id_field: The column of the documents' ids; ``None`` for the records' numbers.
        format: One of :data:`~jose_embed.text.sources.FORMATS`; ``None`` to choose by the ending of each file's name.
        on_error: ``"stop"`` to refuse malformed records, ``"skip"`` to leave them out.
        keep_text: Keep the texts with the model.
        keep_fields: Columns to keep with the model.
        one_file_per_document: Every file is one document, and its path is the id.
        usual: The columns of another text, as a model was trained on: they are taken where none are named and a table
            has them. It is not a part of :meth:`to_dict`.

    Raises:
        ConfigError: a value that is not allowed.

    Example:
        >>> TextOptions(text_field="title").text_field
        ('title',)
    """

    text_field: tuple[str, ...] = ()
    id_field: str | None = None
    format: str | None = None
    on_error: str = "stop"
    keep_text: bool = False
    keep_fields: tuple[str, ...] = ()
    one_file_per_document: bool = False
    usual: Columns | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in ("text_field", "keep_fields"):
            value: Any = getattr(self, name)
            names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (value,)
            if not all(isinstance(part, str) and part for part in names):
                raise ConfigError(f"{name} is {value!r}; it must be the name of a column, or a list of names")
            object.__setattr__(self, name, names)
        if self.id_field is not None and (not isinstance(self.id_field, str) or not self.id_field):
            raise ConfigError(f"id_field is {self.id_field!r}; it must be the name of a column")
        if self.format is not None and self.format not in FORMATS:
            raise ConfigError(f"format is {self.format!r}; it must be one of {', '.join(FORMATS)}")
        if self.on_error not in ("stop", "skip"):
            raise ConfigError(f"on_error is {self.on_error!r}; it must be stop or skip")
        if self.one_file_per_document and (self.text_field or self.id_field or self.keep_fields or self.format):
            raise ConfigError(
                "one_file_per_document reads whole files; leave text_field, id_field, keep_fields and format out"
            )

    @classmethod
    def taken_from(cls, settings: dict[str, Any]) -> TextOptions:
        """The options among some settings, which are removed from there."""
        names = TextSettings.__annotations__
        return cls(**{name: settings.pop(name) for name in names if name in settings})

    def to_dict(self) -> dict[str, Any]:
        """The options as plain JSON values."""
        values = {option.name: getattr(self, option.name) for option in fields(self) if option.name != "usual"}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @property
    def has_ids(self) -> bool:
        """Whether documents have ids other than their numbers."""
        return self.id_field is not None or self.one_file_per_document

    @property
    def keeps(self) -> bool:
        """Whether texts or fields are kept."""
        return self.keep_text or bool(self.keep_fields)


class TextSettings(TypedDict, total=False):
    """Some options of :class:`TextOptions` by name, for type checkers."""

    text_field: str | Sequence[str]
    id_field: str | None
    format: str | None
    on_error: str
    keep_text: bool
    keep_fields: str | Sequence[str]
    one_file_per_document: bool


class RecordBatch(NamedTuple):
    """Consecutive documents of one source.

    Attributes:
        data: Their texts, valid UTF-8 without NUL, one per line.
        n_records: Their number.
        ids: Their ids, if an id field was named.
        texts: Their texts as they were found, if they are to be kept.
        fields: The fields to keep of each, if any were named.
    """

    data: bytes
    n_records: int
    ids: list[str] | None = None
    texts: list[str] | None = None
    fields: list[dict[str, Any]] | None = None


class Columns(NamedTuple):
    """The columns that are read.

    Attributes:
        text: Those of the text, at least one.
        id: That of the id.
        kept: Those of the fields to keep.
        usual: Whether those of the text are known from another text.
    """

    text: tuple[str, ...]
    id: str | None
    kept: tuple[str, ...] = ()
    usual: bool = False


class Faults:
    """The malformed records of a text.

    Args:
        on_error: ``"stop"`` or ``"skip"``.

    Attributes:
        count: How many there are.
        first: The first ten, each with file and line.
    """

    def __init__(self, on_error: str = "stop") -> None:
        self.count = 0
        self.first: list[str] = []
        self._stops = on_error == "stop"

    def add(self, name: str, place: str, reason: str) -> None:
        """Note a malformed record.

        Raises:
            CorpusError: it is the tenth, and malformed records are refused.
        """
        self.count += 1
        if len(self.first) < _FAULTS_NAMED:
            self.first.append(f"{printable(name)}, {place}: {reason}")
        if self._stops and self.count >= _FAULTS_NAMED:
            self.check(more=True)

    def check(self, *, more: bool = False) -> None:
        """Passes if no record is malformed, or if malformed records are skipped.

        Raises:
            CorpusError: the records are named.
        """
        if self.count and self._stops:
            n = f"{self.count:,} records are" if self.count > 1 else "1 record is"
            n = f"at least {n}" if more else n
            raise CorpusError(f"{n} malformed: {'; '.join(self.first)}; correct them, or skip them (on_error='skip')")

    def note(self) -> str | None:
        """The sentence about skipped records; ``None`` without any."""
        if not self.count:
            return None
        more = f"; and {self.count - len(self.first):,} more" if self.count > len(self.first) else ""
        n = f"{self.count:,} malformed records were" if self.count > 1 else "1 malformed record was"
        return f"{n} skipped: {'; '.join(self.first)}{more}"


@dataclass(frozen=True)
class Reading:
    """How the records of one source are read, and who is told of them.

    Attributes:
        name: The source, for messages.
        options: The columns to read.
        faults: Takes the malformed records.
        chosen: Called with all columns and those that are read.
        changed: Called with numbers of documents that had characters which no file of a model can hold: NUL, lone
            surrogates, invalid UTF-8.
        hint: Called with a sentence for the user.
    """

    name: str
    options: TextOptions
    faults: Faults = field(default_factory=Faults)
    chosen: Callable[[Iterable[str], Columns], object] = lambda *_: None
    changed: Callable[[int], object] = lambda _: None
    hint: Callable[[str], object] = lambda _: None

    def fault(self, place: str, reason: str) -> None:
        """Note a malformed record; raises as :meth:`Faults.add`."""
        self.faults.add(self.name, place, reason)


def format_of(source: Source, options: TextOptions) -> Format:
    """The format of a source: the one that was chosen, or that of its name's ending.

    Raises:
        CorpusError: a spreadsheet, which is not read.

    Example:
        >>> format_of(Source("a.CSV.gz", "a.CSV.gz"), TextOptions()), format_of(Source(None, "-"), TextOptions())
        ('csv', 'text')
    """
    if options.one_file_per_document:
        return "text"
    if options.format is not None or source.format is not None:
        return cast("Format", options.format or source.format)
    if source.path is None:
        return "text"
    stem, ending = os.path.splitext(source.path.lower())
    if ending in _SHEETS:
        raise CorpusError(f"{printable(source.name)}: spreadsheets are not read; save the sheet as CSV (UTF-8) first")
    if ending in _COMPRESSED:
        ending = os.path.splitext(stem)[1]
    return _SUFFIXES.get(ending, "text")


# ------------------------------------------------------------------------------------------------------------- columns


def choose_columns(name: str, found: Mapping[str, float], options: TextOptions) -> Columns:
    """The columns of text, id and kept fields.

    The text is the column that was chosen, else the usual one, else the one called text, body or content, else the only
    one whose strings have more than 30 characters on average.

    Args:
        name: The source, for messages.
        found: The columns; the average number of characters of each, 0 if it does not hold strings.
        options: The choice.

    Raises:
        CorpusError: a column that is not there, or no choice between several.

    Example:
        >>> choose_columns("a.csv", {"id": 3.0, "Body": 17.0}, TextOptions(id_field="id"))
        Columns(text=('Body',), id='id', kept=(), usual=False)
    """
    for column in dict.fromkeys([*options.text_field, *filter(None, [options.id_field]), *options.keep_fields]):
        if column not in found:
            same = next((other for other in found if other.lower() == column.lower()), None)
            asked = f"; did you mean {same!r}?" if same is not None else did_you_mean(column, found, repr)
            raise CorpusError(f"{printable(name)}: there is no column {column!r}; {_listed_columns(found)}{asked}")
    text, id, usual = options.text_field, options.id_field, options.usual
    is_usual = bool(usual and not text and usual.text and found.keys() >= set(usual.text))
    if usual is not None:
        text = usual.text if is_usual else text
        id = usual.id if id is None and usual.id in found else id
    if not text:
        by_name = {column.lower(): column for column in reversed(list(found))}
        text = tuple(by_name[known] for known in TEXT_NAMES if known in by_name)[:1]
    if not text:
        text = tuple(column for column in found if column != id and found[column] > _LONG_TEXT)
        if len(text) > 1:
            text = tuple(column for column in text if column not in options.keep_fields)
        if len(text) != 1:
            raise CorpusError(
                f"{printable(name)}: the column of the text is not known; {_listed_columns(found)}; "
                "choose one with text_field=..."
            )
    return Columns(text, id, options.keep_fields, is_usual)


def columns_note(name: str, found: Iterable[str], columns: Columns) -> str:
    """A sentence about the columns that a table is read by."""
    text = " and ".join(repr(column) for column in columns.text) + (" as in the training" if columns.usual else "")
    ids = (
        f"ids from {columns.id!r}"
        if columns.id is not None
        else "ids are record numbers (change that with id_field=...)"
    )
    return f"{printable(name)}: {_listed_columns(found)}; text from {text}, {ids}"


def _listed_columns(found: Iterable[str]) -> str:
    names = list(found)
    shown = ", ".join(printable(name)[:50] or "(no name)" for name in names[:_COLUMNS_NAMED])
    more = f" and {len(names) - _COLUMNS_NAMED:,} more" if len(names) > _COLUMNS_NAMED else ""
    return f"columns: {shown}{more}"


def join_documents(texts: Sequence[str], *, may_hold_nul: bool = True) -> tuple[bytes, int]:
    """Documents as lines: line breaks inside a text become spaces, NUL and lone surrogates become U+FFFD.

    Args:
        texts: The documents.
        may_hold_nul: Whether a text may hold a NUL, if that is not known already.

    Returns:
        UTF-8 with a line feed after each document, and the number of documents that had such characters.

    Example:
        >>> join_documents(["one" + chr(10) + "two", ""])[0].split(chr(10).encode())
        [b'one two', b'', b'']
    """
    # NUL marks the ends of documents, so that each step is one pass over all the texts.
    joined = "\0".join([*texts, ""])
    if not may_hold_nul or joined.count("\0") == len(texts):
        with contextlib.suppress(UnicodeEncodeError):
            return lines_of(joined.encode()), 0
    clean = [valid_text(text) for text in texts]
    changed = sum(a != b for a, b in zip(clean, texts, strict=True))
    return lines_of("\0".join([*clean, ""]).encode()), changed


def lines_of(data: bytes) -> bytes:
    """Documents that end with NUL as lines; line breaks inside them become spaces."""
    if b"\n" in data:
        data = data.replace(b"\n", b" ")
    return data.replace(b"\0", b"\n")


class BatchBuilder:
    """Texts, ids and fields that wait to become a :class:`RecordBatch`.

    Args:
        columns: The columns that are read.
        reading: Says whether the texts are kept, and is told of changed documents.

    Attributes:
        may_hold_nul: Whether a text may hold a NUL.
        texts: The texts.
        ids: The ids, if there is an id column.
        fields: The fields to keep, if there are any.
    """

    def __init__(self, columns: Columns, reading: Reading) -> None:
        self._columns = columns
        self._reading = reading
        self.may_hold_nul = False
        self.texts: list[str] = []
        self.ids: list[str] = []
        self.fields: list[dict[str, Any]] = []

    def taken(self) -> RecordBatch:
        """Return the collected records, and start an empty batch. The texts must not be empty."""
        texts, ids, kept = self.texts, self.ids, self.fields
        data, n_changed = join_documents(texts, may_hold_nul=self.may_hold_nul)
        if n_changed:
            self._reading.changed(n_changed)
        batch = RecordBatch(
            data,
            len(texts),
            ids.copy() if self._columns.id is not None else None,
            texts.copy() if self._reading.options.keep_text else None,
            kept.copy() if self._columns.kept else None,
        )
        for part in (texts, ids, kept):
            part.clear()
        return batch


def id_fault(value: str) -> str | None:
    """The reason why a string cannot be an id; ``None`` for one that can.

    Example:
        >>> id_fault("H-1"), id_fault("")
        (None, 'the id is empty')
    """
    if not value:
        return "the id is empty"
    if "\n" in value or "\0" in value:
        return "the id holds a line break or a NUL"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "the id holds half of a surrogate pair"
    return None
