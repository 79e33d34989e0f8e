"""CSV and TSV files: the delimiter and the quoting are found, the records are parsed by the standard library."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from itertools import chain, islice
from typing import Final, NamedTuple

from jose_embed.errors import CorpusError
from jose_embed.text.records import (
    RECORD_LIMIT,
    SAMPLED_RECORDS,
    BatchBuilder,
    Columns,
    Reading,
    RecordBatch,
    choose_columns,
    id_fault,
)
from jose_embed.text.sources import printable

_SAMPLE = 1 << 16  # characters that the dialect and the columns are found in
_LONGEST_NAME = 120  # characters of a column's name; questions of a survey are names, too


class _Dialect(NamedTuple):
    """How a table is written, as :func:`csv.reader` takes it."""

    delimiter: str
    quoting: int = csv.QUOTE_MINIMAL
    doublequote: bool = True
    escapechar: str | None = None


_NO_DELIMITER: Final = "\x1f"  # for a table of one column


def find_dialect(sample: str, *, tabs: bool = False) -> _Dialect:
    """Delimiter and quoting of a table.

    Every delimiter of the first line is tried with quotes that are doubled, quotes after a backslash and no quotes. The
    one under which most records have as many fields as the first line wins.

    Args:
        sample: The beginning of the table.
        tabs: Whether a tab is expected.

    Example:
        >>> find_dialect("id;text\\n1;a, b\\n").delimiter
        ';'
    """
    best, best_score = _Dialect(_NO_DELIMITER), (0.0, 0)
    for delimiter in "\t,;|" if tabs else ",;\t|":
        quoted_share = 0.0
        for dialect in _ways_to_quote(delimiter, sample):
            widths = _widths(dialect, sample)
            if widths and widths[0] > 1:
                share = sum(width == widths[0] for width in widths) / len(widths)
                if dialect.quoting != csv.QUOTE_NONE:
                    quoted_share = max(quoted_share, share)
                elif share < _REGULAR or share <= quoted_share:
                    continue
                if (share, widths[0]) > best_score:
                    best, best_score = dialect, (share, widths[0])
    return best


_REGULAR = 0.95  # share of records with as many fields as the first line, in a table without quotes


def _ways_to_quote(delimiter: str, sample: str) -> Iterator[_Dialect]:
    yield _Dialect(delimiter)
    if '\\"' in sample:  # this way takes almost anything for a record
        yield _Dialect(delimiter, doublequote=False, escapechar="\\")
    if delimiter in "\t|":  # tables with commas or semicolons are always quoted
        yield _Dialect(delimiter, quoting=csv.QUOTE_NONE)


def _widths(dialect: _Dialect, sample: str) -> list[int]:
    """The number of fields of each record, without the last one if it may be cut off; 0 for a malformed one."""
    rows = [row for row in _Table([sample]).rows(dialect) if row]
    widths = [len(row) if isinstance(row, list) else 0 for row in rows]
    return widths[: max(1, len(widths) - 1)] if len(sample) >= _SAMPLE else widths


def read_csv(blocks: Iterable[str], reading: Reading, *, tabs: bool = False) -> Iterator[RecordBatch]:
    """Read a table with a line of column names.

    Args:
        blocks: The text; each block ends at a line end.
        reading: The columns to read, and what is called; there is a hint if there seem to be no column names.
        tabs: Whether a tab is expected between fields.

    Raises:
        CorpusError: a column that is not there, or one that is there twice.

    Example:
        >>> from jose_embed.text.records import TextOptions
        >>> reading = Reading("a.csv", TextOptions(id_field="id"))
        >>> [batch] = read_csv(['id,text\\n1,"a\\nb"\\n2,c\\n'], reading)
        >>> batch.data, batch.ids
        (b'a b\\nc\\n', ['1', '2'])
    """
    name, options = reading.name, reading.options
    csv.field_size_limit(max(csv.field_size_limit(), RECORD_LIMIT))  # 131,072 characters by default
    table = _Table(blocks)
    sample = table.head[:_SAMPLE]
    dialect = find_dialect(sample, tabs=tabs)
    if table.delimiter:
        dialect = dialect._replace(delimiter=table.delimiter)
    rows = table.rows(dialect)
    first = next(rows, [])
    if isinstance(first, csv.Error):
        raise CorpusError(f"{printable(name)}, line 1: {_csv_reason(first)}; it must name the columns")
    header = [column.strip() for column in first]
    if not header:
        return
    records = _first_records(dialect, sample, len(header))
    columns = choose_columns(name, _column_lengths(records, header), options)
    for column in [*columns.text, *filter(None, [columns.id]), *columns.kept]:
        if header.count(column) > 1:
            raise CorpusError(f"{printable(name)}: there are {header.count(column)} columns {column!r}; rename them")
    reading.chosen(header, columns)
    if not options.text_field and not columns.usual and _is_record(header, records):
        reading.hint(
            f"{printable(name)}: the first line looks like a record, but is taken for the names of the columns; "
            "if the table has no names, put a line with names before it, such as: id,text"
        )
    yield from _csv_batches(rows, table, header, columns, reading)


def _csv_batches(
    rows: Iterator[list[str] | csv.Error],
    table: _Table,
    header: list[str],
    columns: Columns,
    reading: Reading,
) -> Iterator[RecordBatch]:
    width, text_at = len(header), [header.index(column) for column in columns.text]
    only_text = text_at[0] if len(text_at) == 1 else None
    id_at = header.index(columns.id) if columns.id is not None else None
    kept_at = [(column, header.index(column)) for column in columns.kept]
    batch = BatchBuilder(columns, reading)
    texts = batch.texts
    begun, line = table.n_blocks, table.n_lines + 1  # the line on which the next record starts
    for row in rows:
        if isinstance(row, csv.Error):
            reading.fault(f"line {line}", _csv_reason(row))
        elif len(row) != width:
            if row:
                reading.fault(f"line {line}", f"{len(row)} fields, but {width} columns")
        elif id_at is not None and (reason := id_fault(row[id_at])) is not None:
            reading.fault(f"line {line}", reason)
        else:
            texts.append(row[only_text] if only_text is not None else "\n".join([row[at] for at in text_at]))
            if id_at is not None:
                batch.ids.append(row[id_at])
            if kept_at:
                batch.fields.append({column: row[at] for column, at in kept_at})
        line = table.n_lines + 1
        if table.n_blocks != begun:
            begun = table.n_blocks
            if texts:
                yield batch.taken()
    if texts:
        yield batch.taken()


class _Table:
    """Blocks of text as records.

    Args:
        blocks: The text.

    Attributes:
        head: The first block.
        n_blocks: How many blocks were begun.
        n_lines: How many lines were read.
        delimiter: The one that a first line ``sep=;`` names, as Excel writes and hides it.
    """

    def __init__(self, blocks: Iterable[str]) -> None:
        self._blocks = iter(blocks)
        self.head = next(self._blocks, "")
        self.n_blocks = self.n_lines = 0
        self.delimiter = self._end = ""
        self._again = False
        first, _, rest = self.head.partition("\n")
        if first.lower().startswith("sep=") and len(first.rstrip("\r")) == 5:
            self.delimiter, self.n_lines, self.head = first[4], 1, rest

    def rows(self, dialect: _Dialect) -> Iterator[list[str] | csv.Error]:
        """The records; an error in place of a malformed one.

        Most lines have no quotes. They are split here, because :func:`csv.reader`, which parses the others, takes
        several times as long.
        """
        lines = self._lines()
        parser = csv.reader((line + self._end for line in lines), strict=True, **dialect._asdict())
        quote, escape = '"' if dialect.quoting != csv.QUOTE_NONE else None, dialect.escapechar
        for line in lines:
            if self._end and not (quote and quote in line) and not (escape and escape in line):
                line = line.removesuffix("\r")
                yield line.split(dialect.delimiter) if line else []
                continue
            self._again = True
            try:
                row = next(parser, [])
            except csv.Error as error:
                yield error
            else:
                yield row

    def _lines(self) -> Iterator[str]:
        """The lines, without the line feeds at their ends if ``_end`` is one; a line again if ``_again`` is set."""
        for block in chain([self.head], self._blocks):
            self.n_blocks += 1
            self._end = "\n" if block.count("\r") == block.count("\r\n") else ""
            for line in block.removesuffix("\n").split("\n") if self._end else StringIO(block, newline=""):
                self.n_lines += 1
                yield line
                while self._again:
                    self._again = False
                    yield line


def _first_records(dialect: _Dialect, sample: str, width: int) -> list[list[str]]:
    rows = islice(_Table([sample]).rows(dialect), 1, SAMPLED_RECORDS)
    return [row for row in rows if isinstance(row, list) and len(row) == width]


def _column_lengths(records: Sequence[Sequence[str]], header: Sequence[str]) -> dict[str, float]:
    """The average number of characters of each column."""
    return {
        column: sum(len(row[at]) for row in records) / max(1, len(records)) for at, column in enumerate(header)
    }  # fmt: skip


def _is_record(header: Sequence[str], records: Sequence[Sequence[str]]) -> bool:
    """Whether the line of column names looks like one more record.

    A name is a value if other records have it in its column, too, if it is a number as all values of the column are, or
    if it is longer than names are.
    """
    for at, name in enumerate(header):
        values = [row[at] for row in records]
        is_common = bool(name) and values.count(name) > len(values) / 100
        if len(name) > _LONGEST_NAME or is_common or (_is_number(name) and values and all(map(_is_number, values))):
            return True
    return False


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).removeprefix("-").isdecimal()


def _csv_reason(error: csv.Error) -> str:
    message = str(error)
    if "unexpected end of data" in message:
        return "a quoted field begins here and never ends"
    if "field larger than" in message:
        return f"a field of more than {RECORD_LIMIT >> 20} MiB; a quote that is opened and never closed causes this"
    return f"not a record of this table ({message})"


def looks_like_table(head: str) -> bool:
    """Whether plain text has the same delimiter equally often in every line.

    Example:
        >>> looks_like_table("a\\tb\\n" * 5), looks_like_table("to be, or not,\\nto be\\n" * 5)
        (True, False)
    """
    dialect = find_dialect(head)
    widths = _widths(dialect, head)[:200]
    least = 2 if dialect.delimiter == "\t" else 3  # a tab is rare in prose, a comma is not
    return (
        dialect.delimiter != _NO_DELIMITER
        and len(widths) >= 4
        and widths[0] >= least
        and sum(width == widths[0] for width in widths) >= _REGULAR * len(widths)
    )
