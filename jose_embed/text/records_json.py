"""JSON Lines: one object per line, parsed by the standard library."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

from jose_embed.errors import CorpusError
from jose_embed.text.records import (
    SAMPLED_RECORDS,
    TEXT_NAMES,
    BatchBuilder,
    Columns,
    Reading,
    RecordBatch,
    choose_columns,
    id_fault,
)
from jose_embed.text.sources import printable

ONE_PER_LINE: Final = "write one object per line (jq -c '.[]')"
_MISSING: Final = object()


def is_json_list(head: str) -> bool:
    """Whether a text begins as a list of objects.

    Example:
        >>> is_json_list('[ {"a": 1},'), is_json_list('["a"]')
        (True, False)
    """
    start = head.lstrip()
    return start[:1] == "[" and start[1:].lstrip()[:1] == "{"


def read_json_lines(blocks: Iterable[str], reading: Reading) -> Iterator[RecordBatch]:
    """Read one JSON object per line; blank lines are passed over.

    Args:
        blocks: The text; each block ends at a line end.
        reading: The fields to read (``a.b`` is the field b of the object a), and what is called.

    Raises:
        CorpusError: a field that no record of the first block has, or a list of records in place of lines.

    Example:
        >>> from jose_embed.text.records import TextOptions
        >>> reading = Reading("a.jsonl", TextOptions(keep_fields="n.m"))
        >>> [batch] = read_json_lines(['{"text": "a", "n": {"m": 1}}\\n'], reading)
        >>> batch.data, batch.fields
        (b'a\\n', [{'n.m': 1}])
    """
    scan: Any = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
    name, options, blocks = reading.name, reading.options, iter(blocks)
    first = next(blocks, "")
    if is_json_list(first):
        raise CorpusError(f"{printable(name)}: is a JSON list, which is not read; {ONE_PER_LINE}")
    lengths = _field_lengths(first)
    if not lengths:
        columns = Columns(options.text_field or TEXT_NAMES[:1], options.id_field, options.keep_fields)
    else:
        columns = choose_columns(name, lengths, options)
        reading.chosen(lengths, columns)
    batch = BatchBuilder(columns, reading)
    texts_alone = columns.text[0] if len(columns.text) == 1 and columns.id is None and not columns.kept else None
    n_lines = 0
    for block in chain([first], blocks):
        batch.may_hold_nul = "\\u0000" in block
        for number, line in enumerate(block.split("\n"), n_lines + 1):
            try:
                record, end = scan(line, 0)
                if end != len(line) and line[end:].strip():
                    raise ValueError
            except (ValueError, StopIteration, RecursionError):
                record, reason = _parsed_again(scan, line)
                if record is None:
                    if reason:
                        reading.fault(f"line {number}", reason)
                    continue
            if texts_alone is not None and type(record) is dict and type(text := record.get(texts_alone)) is str:
                batch.texts.append(text)  # by far the most frequent case
            elif (fault := _take(record, columns, batch)) is not None:
                reading.fault(f"line {number}", fault)
        n_lines += block.count("\n")
        if batch.texts:
            yield batch.taken()


def _parsed_again(scan: Any, line: str) -> tuple[Any, str]:
    """The value of a line with white space around it; else ``None`` and the reason, empty for a blank line."""
    stripped = line.strip(" \t\r\n")
    if not stripped:
        return None, ""
    try:
        value, end = scan(stripped, 0)
    except (ValueError, StopIteration) as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else "no value" if not error.args else "not a value"
        return None, f"not JSON ({what[:1].lower()}{what[1:]})"
    except RecursionError:
        return None, "JSON that is nested too deeply"
    if end != len(stripped):
        return None, "more than one JSON value"
    return (value, "") if value is not None else (None, "null instead of an object")


def _take(record: Any, columns: Columns, batch: BatchBuilder) -> str | None:
    """Add a record to a batch; gives back why it is malformed, or ``None``."""
    if type(record) is not dict:
        return f"{_kind(record)} instead of an object"
    texts = []
    for field in columns.text:
        text = record.get(field, _MISSING)
        if type(text) is not str:
            text = _field(record, field)
            if text is None:
                text = ""
            elif text is _MISSING:
                return f"there is no field {field!r}"
            elif type(text) is not str:
                return f"{field!r} is {_kind(text)} instead of a string"
        texts.append(text)
    if columns.id is not None:
        value = _field(record, columns.id)
        if type(value) is int:
            value = str(value) if abs(value) < 1 << 200 else ""
        if type(value) is not str:
            what = "missing" if value is _MISSING else _kind(value)
            return f"the id {columns.id!r} is {what} instead of a string or a whole number"
        if (reason := id_fault(value)) is not None:
            return reason
        batch.ids.append(value)
    if columns.kept:
        batch.fields.append({field: _kept(_field(record, field)) for field in columns.kept})
    batch.texts.append(texts[0] if len(texts) == 1 else "\n".join(texts))
    return None


def _field(record: dict[str, Any], name: str) -> Any:
    """A field of a record, or of an object in it (``a.b``)."""
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):
        if type(value) is not dict or part not in value:
            return _MISSING
        value = value[part]
    return value


def _kept(value: Any) -> Any:
    return None if value is _MISSING else value


def _kind(value: Any) -> str:
    kinds = {bool: "a truth value", int: "a number", float: "a number", str: "a string", list: "a list"}
    return "null" if value is None else kinds.get(type(value), "an object")


def _field_lengths(block: str) -> dict[str, float]:
    """The fields of the first records, and the average number of characters of each that holds strings."""
    sums: dict[str, int] = {}
    n_records = 0
    for line in block.split("\n"):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            n_records += 1
            for name, value in _flat(record):
                sums[name] = sums.get(name, 0) + (len(value) if isinstance(value, str) else 0)
        if n_records == SAMPLED_RECORDS:
            break
    return {name: total / n_records for name, total in sums.items()}


def _flat(record: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The fields of a record and of the objects in it, as ``a.b``."""
    todo = [("", record, 0)]
    while todo:
        prefix, part, depth = todo.pop(0)
        for name, value in part.items():
            if isinstance(value, dict) and value and depth < 5:
                todo.append((f"{prefix}{name}.", value, depth + 1))
            else:
                yield f"{prefix}{name}", value
