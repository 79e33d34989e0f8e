"""Filters: which documents are meant, by their fields.

::

    filter      comparison { "and" comparison }
    comparison  FIELD operator VALUE | FIELD "in" "[" VALUE { "," VALUE } "]" | FIELD "is" "missing"
    operator    "=" | "!=" | "<" | "<=" | ">" | ">="
    FIELD       a name of letters, digits, "_", "-" and "." that does not begin with a digit, or any name in quotes
    VALUE       a number, true, false, text in quotes, or a word without quotes such as 2025-01-01

Text in quotes is a JSON string. A number is compared with numbers and with text that is a number (fields of CSV are all
text), text with text (by code points, so that ISO dates are in order), a truth value with truth values for equality; a
field of another type and a missing one fit no comparison but ``is missing``. A dot leads into an object:
``meta.rating`` is the field of that name, or else the member ``rating`` of the field ``meta``.
"""

from __future__ import annotations

import json
import operator
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ConfigError

__all__ = ["MOST_CHARACTERS", "FieldTable", "Filter"]

MOST_CHARACTERS: Final = 10_000
_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\]|\\.)*")
      | (?P<mark><=|>=|!=|=|<|>|\[|\]|,)
      | (?P<word>[^\s"<>=!\[\],]+)
    )""",
    re.VERBOSE,
)
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LONGEST_NUMBER: Final = 40  # characters of a number that is kept as text
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
    operator: str  # one of _OPERATORS, "in" or "missing"
    values: tuple[Value, ...] = ()

    def fits(self, fields: Mapping[str, Any]) -> bool:
        found = _member(fields, self.field)
        if self.operator == "missing":
            return found is None
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
    def parse(cls, text: str) -> Filter:
        """The filter that a text says.

        Raises:
            ConfigError: it is no filter, or longer than :data:`MOST_CHARACTERS`.
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

    def fitting(self, table: FieldTable) -> npt.NDArray[np.bool_]:
        """Which documents of a table are meant: bool (n_documents,).

        Each comparison looks at the different values of its field only.

        Raises:
            ConfigError: a field that the table does not have.
        """
        chosen = np.ones(table.n_documents, np.bool_)
        for comparison in self.comparisons:
            name = table.column_of(comparison.field)
            codes, values = table.column(name)
            fit = [comparison.fits({} if value is None else {name: value}) for value in values]
            chosen &= np.array(fit, np.bool_)[codes]
        return chosen


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
        self._columns: dict[str, tuple[npt.NDArray[np.int32], list[Any]]] = {}

    def column_of(self, field: str) -> str:
        """The column that a field of a filter is in.

        Raises:
            ConfigError: there is none.
        """
        for name in (field, field.split(".")[0]):
            if name in self.names:
                return name
        kept = f"kept are {', '.join(self.names)}" if self.names else "no fields are kept (--keep-fields)"
        raise ConfigError(f"there is no field {field[:100]!r}; {kept}")

    def column(self, name: str) -> tuple[npt.NDArray[np.int32], list[Any]]:
        """The codes of the documents, int32 (n_documents,), and the value of each code; None is a missing one."""
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
        codes, values = self.column(field)
        counts = np.bincount(codes[chosen], minlength=len(values))
        order = np.argsort(-counts, kind="stable")
        return [(values[at], int(counts[at])) for at in order.tolist() if counts[at]]

    def _read(self) -> dict[str, tuple[npt.NDArray[np.int32], list[Any]]]:
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
        return {name: (codes[name], values[name]) for name in self.names}


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
    if token.kind == "mark" or (token.kind == "word" and not _NAME.fullmatch(token.text)):
        raise _unexpected(token, "the name of a field")
    field = _string(token) if token.kind == "text" else token.text
    found = tokens.expect(*_OPERATORS, "in", "is")
    if found == "is":
        tokens.expect("missing")
        return _Comparison(field, "missing")
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
        number: int | float = json.loads(token.text)
        return number
    return token.text


def _string(token: _Token) -> str:
    try:
        text: str = json.loads(token.text, strict=False)
    except ValueError:
        raise _unexpected(token, "a JSON string") from None
    return text


def _unexpected(token: _Token, wanted: str) -> ConfigError:
    return ConfigError(
        f"the filter has {token.text[:40]!r} at character {token.at + 1} where {wanted} is expected; "
        'write it as in: date >= 2025-01-01 and lang = "de" and rating in [1, 2] and author is missing'
    )


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
        if isinstance(found, str) and len(found) <= _LONGEST_NUMBER and _NUMBER.fullmatch(found.strip()):
            found = json.loads(found)
        alike = isinstance(found, int | float)
    return alike and _OPERATORS[comparison](found, value)
