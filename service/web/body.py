"""JSON read in slices.

A C parser holds the interpreter's lock for as long as it parses, and a large body then stops every other request,
whatever thread does the work. So a body above :data:`SLICE` bytes is taken apart here: structure by structure in
Python, which gives the lock back, and only slices of bounded size go to the C parser. Both ways accept the same texts
and give the same values.

Refused in both: anything but one JSON value in UTF-8, the literals NaN and Infinity, lone surrogates, values nested
deeper than :data:`DEEPEST`. (A number beyond float64 is read as infinity; the schemas refuse it where it matters.)

Refused too: more members, structures or values than any call takes. Each is a Python object, and to free a million of
them, to look through a hundred thousand lists for cycles, or to say of a hundred thousand members that no call knows
them, is again one call of C code.
"""

from __future__ import annotations

import re
from typing import Any, Final

import pydantic_core

__all__ = [
    "DEEPEST",
    "MOST_MEMBERS",
    "MOST_STRUCTURES",
    "MOST_VALUES",
    "SLICE",
    "ExcessiveJSONError",
    "MalformedJSONError",
    "parsed",
]

SLICE: Final = 64 << 10
DEEPEST: Final = 32
MOST_MEMBERS: Final = 256  # of one object
MOST_STRUCTURES: Final = SLICE // 2  # lists and objects of a body; one slice cannot hold more
MOST_VALUES: Final = 400_000  # of a body

_SPACE: Final = re.compile(rb"[ \t\n\r]{0,65536}")
_SCALAR: Final = re.compile(rb"[-+0-9.eE]{1,5000}|true|false|null")
# What a string is made of; the two halves of a surrogate pair are one escape.
_STRING_RUN: Final = re.compile(
    rb'(?:[^"\\\x00-\x1f]++|\\u[dD][89aAbB][0-9a-fA-F]{2}\\u[0-9a-fA-F]{4}|\\u(?![dD][89aAbB])[0-9a-fA-F]{4}|\\[^u])*+'
)
_NESTING: Final = re.compile(rb'["\[\]{}]')


class MalformedJSONError(ValueError):
    """A text that is not one JSON value; the message says why and at which byte."""


class ExcessiveJSONError(ValueError):
    """A JSON value of more parts than any call takes; the message says of what."""


def parsed(body: bytes) -> Any:
    """The value that a JSON text stands for.

    Args:
        body: UTF-8.

    Raises:
        MalformedJSONError: a text that is no JSON value, or is nested too deep.
        ExcessiveJSONError: more members in an object, or more structures or values, than any call takes.

    Example:
        >>> parsed(b'{"texts": ["a", "b"]}')
        {'texts': ['a', 'b']}
        >>> parsed(b'[NaN]')
        Traceback (most recent call last):
        ...
        service.web.body.MalformedJSONError: expected value at line 1 column 2
    """
    if len(body) <= SLICE:
        return _small(body)
    value, end = _Reader(body).value(_spaces(body, 0), DEEPEST)
    end = _spaces(body, end)
    if end != len(body):
        raise MalformedJSONError(f"the JSON value ends at byte {end}, but more follows")
    return value


def _small(text: bytes) -> Any:
    if _depth(text) > DEEPEST:
        raise MalformedJSONError(f"values are nested more than {DEEPEST} deep")
    value = _parsed_in_c(text)
    if text.count(b":") > MOST_MEMBERS:
        _check_members(value)
    return value


def _check_members(value: Any) -> None:
    waiting = [value]
    while waiting:
        structure = waiting.pop()
        if isinstance(structure, dict):
            if len(structure) > MOST_MEMBERS:
                raise _too_many_members()
            structure = structure.values()
        waiting += [item for item in structure if isinstance(item, (dict, list))]


def _too_many_members() -> ExcessiveJSONError:
    return ExcessiveJSONError(f"an object has more than {MOST_MEMBERS} members; no call takes so many")


def _parsed_in_c(text: bytes) -> Any:
    try:
        return pydantic_core.from_json(text, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise MalformedJSONError(str(error)) from None


def _depth(text: bytes) -> int:
    """An upper bound of the nesting, exact where no string holds a bracket."""
    if text.count(b"[") + text.count(b"{") <= DEEPEST:
        return 0
    depth = deepest = 0
    in_string = False
    position = 0
    for found in _NESTING.finditer(text):
        mark = found.group()
        if in_string or mark == b'"':
            if mark == b'"':
                backslashes = 0
                position = found.start() - 1
                while in_string and position >= 0 and text[position] == 0x5C:
                    backslashes += 1
                    position -= 1
                if backslashes % 2 == 0:
                    in_string = not in_string
        elif mark in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def _spaces(text: bytes, position: int) -> int:
    """The position behind any white space."""
    while True:
        found = _SPACE.match(text, position)
        assert found is not None
        if found.end() - position < 65536:
            return found.end()
        position = found.end()


class _Reader:
    """A descent over one text; every method takes a position and returns what it read and the position behind it."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self._n_structures = 0
        self._n_values = 0

    def count(self, n_values: int, *, structure: bool = False) -> None:
        """Counts what was read, and refuses what is too much."""
        self._n_values += n_values
        self._n_structures += structure
        if self._n_values > MOST_VALUES:
            raise ExcessiveJSONError(f"the body holds more than {MOST_VALUES:,} values; send fewer at once")
        if self._n_structures > MOST_STRUCTURES:
            raise ExcessiveJSONError(f"the body holds more than {MOST_STRUCTURES:,} lists and objects; send fewer")

    def value(self, at: int, depth: int) -> tuple[Any, int]:
        mark = self.text[at : at + 1]
        if mark == b'"':
            return self.string(at)
        if mark == b"[":
            return self.array(at, depth)
        if mark == b"{":
            return self.object(at, depth)
        found = _SCALAR.match(self.text, at)
        if found is None:
            raise MalformedJSONError(f"expected value at byte {at}")
        return _parsed_in_c(found.group()), found.end()

    def array(self, at: int, depth: int) -> tuple[list[Any], int]:
        if not depth:
            raise MalformedJSONError(f"values are nested more than {DEEPEST} deep")
        self.count(0, structure=True)
        flat = self.flat_array(at)
        if flat is not None:
            self.count(len(flat[0]))
            return flat
        items: list[Any] = []
        at = _spaces(self.text, at + 1)
        if self.text[at : at + 1] == b"]":
            return items, at + 1
        while True:
            if (run := self.scalars(at)) is not None:
                self.count(len(run[0]))
                items += run[0]
                at = run[1]
                continue
            self.count(1)
            item, at = self.value(at, depth - 1)
            items.append(item)
            at = _spaces(self.text, at)
            mark = self.text[at : at + 1]
            if mark == b"]":
                return items, at + 1
            if mark != b",":
                raise MalformedJSONError(f"expected ',' or ']' at byte {at}")
            at = _spaces(self.text, at + 1)

    def flat_array(self, at: int) -> tuple[list[Any], int] | None:
        """A short array of numbers and literals, in one slice; None for any other."""
        end = self.text.find(b"]", at, at + SLICE)
        if (
            end < 0
            or self.text.find(b'"', at, end) >= 0
            or self.text.find(b"[", at + 1, end) >= 0
            or self.text.find(b"{", at, end) >= 0
        ):
            return None
        return _parsed_in_c(self.text[at : end + 1]), end + 1

    def scalars(self, at: int) -> tuple[list[Any], int] | None:
        """The next few thousand numbers of a long array, up to and with a comma; None where a string or a structure
        comes first."""
        window = self.text[at : at + SLICE // 4]
        structure = _NESTING.search(window)
        end = window.rfind(b",", 0, structure.start() if structure else len(window))
        if end <= 0:
            return None
        return _parsed_in_c(b"[" + window[:end] + b"]"), _spaces(self.text, at + end + 1)

    def object(self, at: int, depth: int) -> tuple[dict[str, Any], int]:
        if not depth:
            raise MalformedJSONError(f"values are nested more than {DEEPEST} deep")
        self.count(0, structure=True)
        members: dict[str, Any] = {}
        at = _spaces(self.text, at + 1)
        if self.text[at : at + 1] == b"}":
            return members, at + 1
        while True:
            if self.text[at : at + 1] != b'"':
                raise MalformedJSONError(f"expected a name in quotes at byte {at}")
            name, at = self.string(at)
            at = _spaces(self.text, at)
            if self.text[at : at + 1] != b":":
                raise MalformedJSONError(f"expected ':' at byte {at}")
            self.count(1)
            members[name], at = self.value(_spaces(self.text, at + 1), depth - 1)
            if len(members) > MOST_MEMBERS:
                raise _too_many_members()
            at = _spaces(self.text, at)
            mark = self.text[at : at + 1]
            if mark == b"}":
                return members, at + 1
            if mark != b",":
                raise MalformedJSONError(f"expected ',' or '}}' at byte {at}")
            at = _spaces(self.text, at + 1)

    def string(self, at: int) -> tuple[str, int]:
        """A string, slice by slice; a slice ends before a character or an escape that it would cut in two."""
        pieces: list[str] = []
        first = at + 1
        while True:
            limit = min(first + SLICE, len(self.text))
            run = _STRING_RUN.match(self.text, first, limit)
            assert run is not None
            end = run.end()
            mark = self.text[end : end + 1]
            if mark == b'"':
                pieces.append(
                    _parsed_in_c(self.text[at : end + 1] if not pieces else b'"' + self.text[first : end + 1])
                )
                return "".join(pieces), end + 1
            if limit == len(self.text) and end >= limit - 12:
                raise MalformedJSONError(f"the string that starts at byte {at} does not end")
            if end < limit - 12:
                what = (
                    "an invalid escape, or half of a surrogate pair"
                    if mark == b"\\"
                    else "a control character, which must be escaped"
                )
                raise MalformedJSONError(f"the string that starts at byte {at} holds {what} at byte {end}")
            while end > first and self.text[end] & 0xC0 == 0x80:
                end -= 1
            if end == first:
                raise MalformedJSONError(
                    f"the string that starts at byte {at} holds bytes that are not UTF-8 at byte {first}"
                )
            pieces.append(_parsed_in_c(b'"' + self.text[first:end] + b'"'))
            first = end
