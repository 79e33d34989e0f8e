"""Parquet and Arrow files, also those of Hugging Face ``datasets``; read by pyarrow, of the extra ``parquet``.

Texts stay in pyarrow's buffers: line breaks are replaced and line ends are added for a whole column at a time.
"""

from __future__ import annotations

import contextlib
import datetime
import decimal
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from jose_embed.errors import CorpusError, MissingExtraError
from jose_embed.text.records import (
    SAMPLED_RECORDS,
    Columns,
    Reading,
    RecordBatch,
    choose_columns,
    id_fault,
    join_documents,
    lines_of,
)
from jose_embed.text.sources import Source, printable

_BATCH_BYTES = 2 << 20
_MOST_ROWS = 1 << 16
_TOP_MAGIC = b"ARROW1"


class _Arrow(NamedTuple):
    """The modules of pyarrow; they are loaded for the first file that needs them."""

    pa: Any
    compute: Any
    parquet: Any

    @classmethod
    def load(cls, name: str) -> _Arrow:
        try:
            return cls(*(import_module(part) for part in ("pyarrow", "pyarrow.compute", "pyarrow.parquet")))
        except ImportError:
            raise MissingExtraError(f"{printable(name)}: this format", "parquet") from None


def read_arrow(source: Source, format: str, reading: Reading) -> Iterator[tuple[RecordBatch, float]]:
    """Read a Parquet or Arrow file (the stream or the file format).

    Args:
        source: The file.
        format: ``"parquet"`` or ``"arrow"``.
        reading: The columns to read (``a.b`` is the field b of the struct a), and what is called.

    Yields:
        A batch, and the share of the file's records that were read so far.

    Raises:
        CorpusError: no such file, standard input, damage, or columns that are not there or of another type.
        MissingExtraError: pyarrow is not installed.
    """
    if source.path is None:
        raise CorpusError("standard input cannot be read as Parquet or Arrow, which are not read in order; name a file")
    arrow = _Arrow.load(source.name)
    try:
        opened = _parquet(arrow, source) if format == "parquet" else _ipc(arrow, source)
        lengths = _column_lengths(arrow, opened)
        columns = choose_columns(source.name, lengths, reading.options)
        reading.chosen(lengths, columns)
        _check_types(arrow, opened.schema, columns, source.name)
        n_read = 0
        wanted = list(dict.fromkeys([*columns.text, *([columns.id] if columns.id else []), *columns.kept]))
        for table in opened.tables(wanted):
            batch = _batch(arrow, _flattened(table), columns, reading, n_read)
            n_read += table.num_rows
            yield batch, n_read / max(1, opened.n_rows)
    except (arrow.pa.ArrowException, OSError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CorpusError(
            f"{printable(source.name)}: cannot be read as {format.capitalize()} ({printable(what)[:200]}); "
            "take a whole copy, or choose another format=..."
        ) from error


class _Opened(NamedTuple):
    """An open file: its flat schema, its number of rows, and a function that reads some of its columns."""

    schema: dict[str, Any]
    n_rows: int
    tables: Callable[[Iterable[str] | None], Iterator[Any]]


def _parquet(arrow: _Arrow, source: Source) -> _Opened:
    file = arrow.parquet.ParquetFile(_file(arrow, source))
    facts = file.metadata
    groups = [facts.row_group(number) for number in range(min(facts.num_row_groups, 8))]
    n_bytes, n_rows = sum(group.total_byte_size for group in groups), sum(group.num_rows for group in groups)
    at_once = _rows_at_once(n_bytes, n_rows)

    def tables(columns: Iterable[str] | None) -> Iterator[Any]:
        names = list(columns) if columns is not None else None
        for batch in file.iter_batches(at_once, columns=names, use_threads=False):
            yield arrow.pa.Table.from_batches([batch])

    return _Opened(_flat_schema(arrow, file.schema_arrow), facts.num_rows, tables)


def _file(arrow: _Arrow, source: Source) -> Any:
    if source.store is not None:
        return source.store.open_input_file(source.path)
    return arrow.pa.memory_map(source.path)


def _ipc(arrow: _Arrow, source: Source) -> _Opened:
    mapped = _file(arrow, source)
    is_file = mapped.read(len(_TOP_MAGIC)) == _TOP_MAGIC
    mapped.seek(0)
    ipc = arrow.pa.ipc
    if is_file:
        reader = ipc.open_file(mapped)
        n_batches = reader.num_record_batches

        def batches() -> Iterator[Any]:
            return (reader.get_batch(number) for number in range(n_batches))
    else:
        reader = ipc.open_stream(mapped)

        def batches() -> Iterator[Any]:
            mapped.seek(0)
            return iter(ipc.open_stream(mapped))

    def tables(columns: Iterable[str] | None) -> Iterator[Any]:
        for batch in batches():
            batch.validate(full=True)  # else damage would be read from beyond the buffers
            at_once = _rows_at_once(batch.nbytes, batch.num_rows)
            for first in range(0, batch.num_rows, at_once):
                yield arrow.pa.Table.from_batches([batch.slice(first, at_once)])

    return _Opened(_flat_schema(arrow, reader.schema), sum(batch.num_rows for batch in batches()), tables)


def _rows_at_once(n_bytes: int, n_rows: int) -> int:
    return min(max(1, _BATCH_BYTES * n_rows // max(1, n_bytes)), _MOST_ROWS)


def _flattened(table: Any) -> Any:
    """The same table with the fields of structs as columns ``a.b``."""
    while any(column.type.id == _STRUCT for column in table.columns):
        table = table.flatten()
    return table


_STRUCT = 26  # the number of the type struct in the Arrow format's library


def _flat_schema(arrow: _Arrow, schema: Any) -> dict[str, Any]:
    return {field.name: field.type for field in _flattened(schema.empty_table()).schema}


def _is_text(arrow: _Arrow, kind: Any) -> bool:
    """Whether a column of this type holds strings: plain, large, views, or a dictionary of these."""
    types = arrow.pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _column_lengths(arrow: _Arrow, opened: _Opened) -> dict[str, float]:
    """The average number of characters of each column of strings, of the first records."""
    lengths = dict.fromkeys(opened.schema, 0.0)
    texts = [name for name, kind in opened.schema.items() if _is_text(arrow, kind)]
    head = next(opened.tables(texts), None) if texts else None
    if head is not None and head.num_rows:
        head = _flattened(head.slice(0, SAMPLED_RECORDS))
        for name in texts:
            characters = arrow.compute.sum(arrow.compute.utf8_length(_strings(arrow, head[name])))
            lengths[name] = (characters.as_py() or 0) / head.num_rows
    return lengths


def _check_types(arrow: _Arrow, schema: dict[str, Any], columns: Columns, name: str) -> None:
    types = arrow.pa.types
    for column in columns.text:
        if not _is_text(arrow, schema[column]) and not types.is_null(schema[column]):
            raise CorpusError(f"{printable(name)}: the column {column!r} holds {schema[column]}, not strings")
    if columns.id is not None:
        kind = schema[columns.id]
        if not _is_text(arrow, kind) and not types.is_integer(kind):
            raise CorpusError(
                f"{printable(name)}: the id column {columns.id!r} holds {kind}; it must hold strings or whole numbers"
            )


def _strings(arrow: _Arrow, column: Any) -> Any:
    """A column of any kind of strings as one array of plain or large strings."""
    types = arrow.pa.types
    if not (types.is_string(column.type) or types.is_large_string(column.type)):
        column = column.cast(arrow.pa.large_string())
    return column.combine_chunks() if isinstance(column, arrow.pa.ChunkedArray) else column


def _batch(arrow: _Arrow, table: Any, columns: Columns, reading: Reading, n_before: int) -> RecordBatch:
    ids = None
    if columns.id is not None:
        ids = _strings(arrow, table[columns.id]).to_pylist()
        reasons = ["the id is null" if value is None else id_fault(value) for value in ids]
        if any(reasons):
            for row, reason in enumerate(reasons, n_before + 1):
                if reason:
                    reading.fault(f"row {row:,}", reason)
            table = table.filter(arrow.pa.array([reason is None for reason in reasons]))
            ids = [value for value, reason in zip(ids, reasons, strict=True) if reason is None]
    texts = [_strings(arrow, table[column]) for column in columns.text]
    texts = [arrow.compute.fill_null(text, "") if text.null_count else text for text in texts]
    if len(texts) > 1:
        large = arrow.pa.large_string()
        texts = [
            arrow.compute.binary_join_element_wise(*(text.cast(large) for text in texts), arrow.pa.scalar("\n", large))
        ]
    text = texts[0]
    fields = None
    if columns.kept:
        values = [[_json_value(value) for value in table[column].to_pylist()] for column in columns.kept]
        fields = [dict(zip(columns.kept, row, strict=True)) for row in zip(*values, strict=True)]
    kept = _texts(arrow, text) if reading.options.keep_text else None
    return RecordBatch(_lines(arrow, text, reading.changed), table.num_rows, ids, kept, fields)


def _lines(arrow: _Arrow, text: Any, changed: Callable[[int], object]) -> bytes:
    """Texts as lines, as :func:`~jose_embed.text.records.join_documents` makes them of strings."""
    if not len(text):
        return b""
    held = text.buffers()[2]
    if held is None or np.frombuffer(held, np.uint8).min(initial=1):  # without a NUL
        empty, end = (arrow.pa.scalar(value, text.type) for value in ("", "\0"))
        data: bytes = arrow.compute.binary_join_element_wise(text, empty, end).buffers()[2].to_pybytes()
        with contextlib.suppress(UnicodeDecodeError):
            data.decode()
            return lines_of(data)
    values = text.cast(arrow.pa.large_binary()).to_pylist()
    data, n_changed = join_documents([value.decode(errors="replace") for value in values])
    n_changed += sum(not _is_utf8(value) for value in values)
    if n_changed:
        changed(n_changed)
    return data


def _texts(arrow: _Arrow, text: Any) -> list[str]:
    return [value.decode(errors="replace") for value in text.cast(arrow.pa.large_binary()).to_pylist()]


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _json_value(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, datetime.timedelta)):
        return str(value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list):
        return [_json_value(part) for part in value]
    if isinstance(value, dict):
        return {str(name): _json_value(part) for name, part in value.items()}
    return value
