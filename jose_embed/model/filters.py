"""Filters: which documents are meant, by their fields.

::

    filter      comparison { "and" comparison }
    comparison  FIELD operator VALUE | FIELD "in" "[" VALUE { "," VALUE } "]" | FIELD "is" ["not"] "missing"
    operator    "=" | "!=" | "<" | "<=" | ">" | ">="
    FIELD       a name of letters, digits, "_", "-" and "." that does not begin with a digit, or any name in quotes
    VALUE       a number, true, false, text in quotes, or a word without quotes such as 2025-01-01

Text in double quotes is a JSON string; in single quotes, as in SQL, it is taken as it stands. A number is compared with
numbers and with text that is a number (fields of CSV are all text), text with text (by code points, so that ISO dates
are in order), a truth value with truth values for equality; a field of another type and a missing one fit no comparison
but ``is missing``; ``is not missing`` is its opposite. Where all kept values of a field are ISO dates, a value that is
neither such a date nor the year or month of one is an error: it would compare as text, and quietly fit nothing or
everything. A dot leads into an object: ``meta.rating`` is the field of that name, or else the member ``rating`` of the
field ``meta``.
"""

from __future__ import annotations

import datetime
import json
import operator
import re
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ConfigError

MOST_CHARACTERS: Final = 10_000
_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\]|\\.)*" | '[^']*'(?=[\s<>=!\[\],]|$))
      | (?P<mark><=|>=|!=|=|<|>|\[|\]|,)
      | (?P<word>[^\s"<>=!\[\],]+)
    )""",
    re.VERBOSE,
)
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_KEPT_FILTERS: Final = 64
_MOST_EXACT: Final = 1 << 53  # integers that float64 holds
_FEW_VALUES: Final = 16  # fewer are compared one by one
_LONGEST_NUMBER: Final = 40  # characters of a number that is kept as text
_SHOWN_NAMES: Final = 50
_DATE: Final = re.compile(r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2})(?:[T ][0-9:.,+Z-]*)?)?)?")
_HINTS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("or", "||", "|"), "there is no or: for values of one field write FIELD in [A, B]"),
    **dict.fromkeys(("and", "&&", "&"), "comparisons are joined by and, in small letters"),
    **dict.fromkeys(("not", "!"), "nothing is negated but by != and is not missing"),
    **dict.fromkeys(("like", "ilike", "contains", "~", "matches"), "values are compared as a whole"),
    "between": "a span is FIELD >= A and FIELD <= B",
}
_NAME: Final = re.compile(r"[^\W\d][\w.-]*")
_OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

Value = str | int | float | bool


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


@dataclass(frozen=True, slots=True)
class _Comparison:
    field: str
    operator: str  # one of _OPERATORS, "in", "missing" or "there"
    values: tuple[Value, ...] = ()

    def fits(self, fields: Mapping[str, Any]) -> bool:
        found = _member(fields, self.field)
        if self.operator in ("missing", "there"):
            return (found is None) == (self.operator == "missing")
        if self.operator == "in":
            return any(_holds("=", found, value) for value in self.values)
        (value,) = self.values
        return _holds(self.operator, found, value)


@dataclass(frozen=True, slots=True)
class Filter:
    """Comparisons that must all fit.

    Example:
        >>> chosen = Filter.parse('date >= 2025-01-01 and rating in [1, 2] and lang = "de"')
        >>> chosen.fits({"date": "2025-06-30", "rating": 2, "lang": "de"})
        True
        >>> chosen.fits({"date": "2024-06-30", "rating": 2, "lang": "de"})
        False
        >>> Filter.parse("author is missing").fits({"lang": "de"})
        True
        >>> Filter.parse("rating > ")
        Traceback (most recent call last):
        ...
        jose_embed.errors.ConfigError: the filter ends where a value is expected; write one such as rating >= 3
    """

    comparisons: tuple[_Comparison, ...]

    @classmethod
    @lru_cache(_KEPT_FILTERS)
    def parse(cls, text: str) -> Filter:
        """The filter that a text says.

        Raises:
            ConfigError: it is not a filter, or is longer than :data:`MOST_CHARACTERS`.
        """
        if len(text) > MOST_CHARACTERS:
            raise ConfigError(f"the filter has {len(text)} characters; at most {MOST_CHARACTERS} are allowed")
        tokens = _Tokens(text)
        found = [_comparison(tokens)]
        while tokens.left:
            tokens.expect("and")
            found.append(_comparison(tokens))
        return cls(tuple(found))

    def fits(self, fields: Mapping[str, Any]) -> bool:
        """Whether a document with these fields is meant."""
        return all(comparison.fits(fields) for comparison in self.comparisons)

    def check(self, known: KnownFields) -> None:
        """Check the filter of documents whose fields differ. A field that none of them has fits no comparison, which is
        no error: the last document with it may be gone.

        Raises:
            ConfigError: something else than a date for a field of dates; a field that no document has is to be missing,
                which would mean all documents.
        """
        for comparison in self.comparisons:
            if comparison.operator == "missing" and len(known) and comparison.field not in known:
                raise no_field(comparison.field, sorted(known))
            if known.has_dates(comparison.field):
                _check_dates(comparison)

    def fitting(self, table: FieldTable, *, elsewhere: KnownFields | None = None) -> npt.NDArray[np.bool_]:
        """Which documents of a table are meant: bool (n_documents,), read-only.

        Each comparison looks at the different values of its field only. Answers are kept: few filters are asked often.

        Args:
            table: The fields.
            elsewhere: Fields of other documents, which are missing here unless the table has them.

        Raises:
            ConfigError: a field that is neither here nor there; something else than a date for a field of dates.
        """
        elsewhere = KnownFields() if elsewhere is None else elsewhere
        columns: list[Column | None] = []  # None: of other documents only
        for comparison in self.comparisons:
            name = comparison.field
            if {name, name.split(".")[0]}.isdisjoint(table.names) and name in elsewhere:
                columns.append(None)
                has_dates = elsewhere.has_dates(name)
            else:
                columns.append(column := table.column(table.column_of(name)))
                has_dates = column.name == name and column.has_dates and elsewhere.has_dates(name) is not False
            if has_dates:
                _check_dates(comparison)
        key = repr(self)  # for Python 1 equals true
        kept = table.kept.get(key)
        if kept is not None:
            return kept
        chosen = np.ones(table.n_documents, np.bool_)
        for comparison, found in zip(self.comparisons, columns, strict=True):
            if found is not None:
                chosen &= found.fitting(comparison)[found.codes]
            elif not comparison.fits({}):
                chosen[:] = False
        chosen.flags.writeable = False
        if len(table.kept) >= _KEPT_FILTERS:
            table.kept.clear()
        table.kept[key] = chosen
        return chosen


class Column:
    """A field of many documents.

    Args:
        name: Its name.
        codes: int32 (n_documents,).
        values: The value of each code, all different; None is a missing one.
    """

    def __init__(self, name: str, codes: npt.NDArray[np.int32], values: Sequence[Any]) -> None:
        self.name, self.codes, self.values = name, codes, values

    @cached_property
    def _numbers(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """float64 and bool (n_values,): the values that are numbers, and which are."""
        found = [_number(value) for value in self.values]
        numbers = np.array([0.0 if number is None else number for number in found], np.float64)
        return numbers, np.array([number is not None for number in found], np.bool_)

    @cached_property
    def _is_exact(self) -> bool:
        """Whether float64 holds all numbers."""
        numbers = map(_number, self.values)
        return not any(isinstance(number, int) and abs(number) > _MOST_EXACT for number in numbers)

    @cached_property
    def _texts(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        """The values that are text, in order, and the place of each value among them, -1 for others."""
        texts = sorted(value for value in self.values if isinstance(value, str))
        places = {text: place for place, text in enumerate(texts)}
        found = (places[value] if isinstance(value, str) else -1 for value in self.values)
        return texts, np.fromiter(found, np.int64, len(self.values))

    @cached_property
    def has_dates(self) -> bool:
        """Whether all values but missing and empty ones are dates, and there are such."""
        found = [value for value in self.values if value not in (None, "")]
        return bool(found) and all(map(_is_day, found))

    def fitting(self, comparison: _Comparison) -> npt.NDArray[np.bool_]:
        """Which values fit a comparison: bool (n_values,)."""
        if comparison.field != self.name or not comparison.values or len(self.values) < _FEW_VALUES:
            return self._fitting_one_by_one(comparison)
        fit = np.zeros(len(self.values), np.bool_)
        for value in comparison.values:
            name = "=" if comparison.operator == "in" else comparison.operator
            if isinstance(value, str):
                texts, places = self._texts
                first, last = bisect_left(texts, value), bisect_right(texts, value)
                # Places of equal text are 1, of smaller one 0, of larger one 2.
                sides = (places >= first).astype(np.int8) + (places >= last)
                fit |= (places >= 0) & _OPERATORS[name](sides, 1)
            elif isinstance(value, bool) or not self._is_exact or abs(value) > _MOST_EXACT:
                fit |= self._fitting_one_by_one(_Comparison(comparison.field, name, (value,)))
            else:
                numbers, are_numbers = self._numbers
                fit |= are_numbers & _OPERATORS[name](numbers, value)
        return fit

    def _fitting_one_by_one(self, comparison: _Comparison) -> npt.NDArray[np.bool_]:
        fit = (comparison.fits({} if value is None else {self.name: value}) for value in self.values)
        return np.fromiter(fit, np.bool_, len(self.values))


def no_field(field: str, names: Sequence[str]) -> ConfigError:
    """The error for a field that is not among the kept ones.

    Example:
        >>> print(no_field("yaer", ["year", "lang"]))
        there is no field 'yaer'; kept are year, lang
    """
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    shown = ", ".join(name[:100] for name in names[:_SHOWN_NAMES])
    kept = f"kept are {shown}{more}" if names else "no fields are kept (--keep-fields)"
    return ConfigError(f"there is no field {field[:100]!r}; {kept}")


class KnownFields:
    """Which fields documents have, and which of them hold dates only.

    Example:
        >>> known = KnownFields()
        >>> known.add({"date": "2025-01-31", "meta": {"stars": 2}})
        >>> known.has_dates("date"), "meta.stars" in known, "lang" in known
        (True, True, False)
    """

    def __init__(self) -> None:
        self._have_dates: dict[str, bool | None] = {}  # None: no value was there yet

    def add(self, fields: Mapping[str, Any]) -> None:
        """Note the fields of a document."""
        for name, value in fields.items():
            before = self._have_dates.setdefault(name, None)
            if before is not False and value not in (None, ""):
                self._have_dates[name] = _is_day(value)

    def has_dates(self, field: str) -> bool | None:
        """Whether all values of a field but missing and empty ones are dates; None if there are no others."""
        return self._have_dates.get(field)

    def __contains__(self, field: str) -> bool:
        return field in self._have_dates or field.split(".")[0] in self._have_dates

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._have_dates))

    def __len__(self) -> int:
        return len(self._have_dates)


class FieldTable:
    """The fields of many documents, by field: codes of their values, made when a field is first asked for.

    Args:
        names: The names of the fields.
        rows: Gives the fields of all documents, in order.
        n_documents: Their number.

    Example:
        >>> rows = [{"lang": "de", "stars": 2}, {"lang": "en", "stars": 2}, {"lang": "de", "stars": None}]
        >>> table = FieldTable(("lang", "stars"), lambda: iter(rows), 3)
        >>> Filter.parse('lang = "de" and stars >= 2').fitting(table).tolist()
        [True, False, False]
        >>> table.facets("stars", np.array([True, True, True]))
        [(2, 2), (None, 1)]
    """

    def __init__(self, names: Sequence[str], rows: Callable[[], Iterator[Mapping[str, Any]]], n_documents: int) -> None:
        self.names = tuple(names)
        self.n_documents = n_documents
        self._rows = rows
        self._lock = threading.Lock()
        self._columns: dict[str, Column] = {}
        self.kept: dict[str, npt.NDArray[np.bool_]] = {}  # which documents fit the filters asked for last

    def column_of(self, field: str) -> str:
        """The column that a field of a filter is in.

        Raises:
            ConfigError: there is none.
        """
        for name in (field, field.split(".")[0]):
            if name in self.names:
                return name
        raise no_field(field, self.names)

    def column(self, name: str) -> Column:
        """A field."""
        with self._lock:
            if not self._columns:
                self._columns = self._read()
            return self._columns[name]

    def facets(self, field: str, chosen: npt.NDArray[np.bool_]) -> list[tuple[Any, int]]:
        """The values of a field and how many of the chosen documents have each, most frequent first.

        Raises:
            ConfigError: there is no such field.
        """
        if field not in self.names:
            self.column_of(field)
            raise ConfigError(f"facets of {field[:100]!r} are not counted; name a field of {', '.join(self.names)}")
        column = self.column(field)
        counts = np.bincount(column.codes[chosen], minlength=len(column.values))
        order = np.argsort(-counts, kind="stable")
        return [(column.values[at], int(counts[at])) for at in order.tolist() if counts[at]]

    def _read(self) -> dict[str, Column]:
        codes = {name: np.zeros(self.n_documents, np.int32) for name in self.names}
        values: dict[str, list[Any]] = {name: [] for name in self.names}
        known: dict[str, dict[Any, int]] = {name: {} for name in self.names}
        for row, fields in enumerate(self._rows()):
            for name in self.names:
                value = fields.get(name)
                # 1, 1.0 and true are equal for Python; lists and objects have no hash
                key = (type(value), value if isinstance(value, str | int | float | None) else json.dumps(value))
                code = known[name].setdefault(key, len(values[name]))
                if code == len(values[name]):
                    values[name].append(value)
                codes[name][row] = code
        for found in values.values():
            if not found:  # no documents
                found.append(None)
        return {name: Column(name, codes[name], values[name]) for name in self.names}


class _Tokens:
    """The tokens of a filter, read one by one."""

    def __init__(self, text: str) -> None:
        self.left = list(_tokens(text))[::-1]

    def next(self, wanted: str) -> _Token:
        if not self.left:
            raise ConfigError(f"the filter ends where {wanted} is expected; write one such as rating >= 3")
        return self.left.pop()

    def expect(self, *words: str) -> str:
        wanted = " or ".join(map(repr, words))
        token = self.next(wanted)
        if token.kind == "text" or token.text not in words:
            raise _unexpected(token, wanted)
        return token.text


def _tokens(text: str) -> Iterator[_Token]:
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise _unexpected(_Token("mark", text[at:].lstrip()[:1], at), "a name, a value or a comparison")
        yield _Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup))
        at = match.end()


def _comparison(tokens: _Tokens) -> _Comparison:
    token = tokens.next("a field")
    negates = token.text.lower() == "not" and tokens.left and tokens.left[-1].text not in (*_OPERATORS, "in", "is")
    if token.kind == "mark" or (token.kind == "word" and (negates or not _NAME.fullmatch(token.text))):
        raise _unexpected(token, "the name of a field")
    field = _string(token) if token.kind == "text" else token.text
    found = tokens.expect(*_OPERATORS, "in", "is")
    if found == "is":
        negated = tokens.expect("missing", "not") == "not"
        if negated:
            tokens.expect("missing")
        return _Comparison(field, "there" if negated else "missing")
    if found != "in":
        value = _value(tokens)
        if isinstance(value, bool) and found not in ("=", "!="):
            raise ConfigError(f"the filter compares {field!r} by {found} with true or false; allowed are = and !=")
        return _Comparison(field, found, (value,))
    tokens.expect("[")
    values = [_value(tokens)]
    while tokens.expect(",", "]") == ",":
        values.append(_value(tokens))
    return _Comparison(field, "in", tuple(values))


def _value(tokens: _Tokens) -> Value:
    token = tokens.next("a value")
    if token.kind == "mark":
        raise _unexpected(token, "a value")
    if token.kind == "text":
        return _string(token)
    if token.text in ("true", "false"):
        return token.text == "true"
    if _NUMBER.fullmatch(token.text):
        try:
            number: int | float = json.loads(token.text)
        except ValueError:  # Python reads no integer of thousands of digits
            raise _unexpected(token, "a number of at most 4,300 digits") from None
        return number
    return token.text


def _string(token: _Token) -> str:
    if token.text.startswith("'"):
        return token.text[1:-1]
    try:
        text: str = json.loads(token.text, strict=False)
    except ValueError:
        raise _unexpected(token, "a JSON string") from None
    return text


def _unexpected(token: _Token, wanted: str) -> ConfigError:
    hint = _HINTS.get(token.text.lower(), "")
    if token.text == "=" and wanted == "a value":
        hint = "equality is a single ="
    elif token.text == ">" and wanted == "a value":
        hint = "unequal is !="
    elif token.text.startswith(("(", ")")):
        hint = "there are no parentheses"
    return ConfigError(
        f"the filter has {token.text[:40]!r} at character {token.at + 1} where {wanted} is expected; "
        f"{hint}{'; ' if hint else ''}"
        'write it as in: date >= 2025-01-01 and lang = "de" and rating in [1, 2] and author is missing'
    )


def _check_dates(comparison: _Comparison) -> None:
    """Check that a field of dates is compared with dates.

    Raises:
        ConfigError: with something else.
    """
    name = comparison.field[:100]
    for value in comparison.values:
        if not (isinstance(value, str) and (_is_date(value) or not value)):
            raise ConfigError(
                f"the field {name!r} holds dates, and the filter compares it with {str(value)[:40]!r}, which is none; "
                f"write YYYY-MM-DD, or YYYY-MM for a month, or a year in quotes, such as {name} >= 2025-01-31"
            )
        if 0 < len(value) < 10 and comparison.operator not in ("<", ">="):
            raise ConfigError(
                f"the field {name!r} holds days, and no day is equal to the month or year {value!r}; write a span, "
                f"such as {name} >= 2025-01 and {name} < 2025-02"
            )


def _is_day(value: Any) -> bool:
    """Whether a value is an ISO date with its day."""
    return isinstance(value, str) and len(value) >= 10 and _is_date(value)


def _is_date(text: str) -> bool:
    """Whether a text is an ISO date, with or without a time, or the year or the month of one."""
    found = _DATE.fullmatch(text.strip())
    if found is None:
        return False
    year, month, day = (int(part or 1) for part in found.groups())
    try:
        datetime.date(year, month, day)
    except ValueError:
        return False
    return True


def _member(fields: Mapping[str, Any], name: str) -> Any:
    if name in fields:
        return fields[name]
    found: Any = fields
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def _holds(comparison: str, found: Any, value: Value) -> bool:
    """Whether a field compares so with a value; False unless both are numbers, both text or both truth values."""
    if isinstance(found, bool) or isinstance(value, bool):
        alike = isinstance(found, bool) and isinstance(value, bool)
    elif isinstance(value, str):
        alike = isinstance(found, str)
    else:
        found = _number(found)
        alike = found is not None
    return alike and _OPERATORS[comparison](found, value)


def _number(found: Any) -> int | float | None:
    """A value as a number, also one that is kept as text; None if it is none."""
    if isinstance(found, str) and len(found) <= _LONGEST_NUMBER and _NUMBER.fullmatch(found.strip()):
        found = json.loads(found)
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None
