"""JSON bodies: what is parsed, what is refused, and what a refusal costs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from service.problems import Problem
from service.web.body import MOST_PARTS, validated

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=30,
)


class Anything(BaseModel):
    """A body with one member of any kind."""

    model_config = ConfigDict(extra="forbid")

    value: Any


def read(body: bytes) -> Any:
    """The one member of a body that is taken."""
    found = validated(body, Anything)
    assert isinstance(found, Anything)
    return found.value


@given(JSON, st.booleans(), st.sampled_from([None, 1]))
def test_json_is_read_as_python_reads_it(value: Any, ascii: bool, indent: int | None) -> None:
    text = json.dumps({"value": value}, ensure_ascii=ascii, indent=indent).encode("utf-8", "surrogatepass")
    assert read(text) == json.loads(text)["value"]


@given(st.binary(max_size=300), st.integers(0, 300))
def test_no_bytes_break_the_reader(noise: bytes, at: int) -> None:
    text = json.dumps({"value": ["a\u00e9\U0001f600\\", "b", 1, 2.5, None] * 5}).encode()
    for damaged in (noise, text[:at], text[:at] + noise + text[at:], text[:at] + noise[:1] + text[at + 1 :]):
        found = validated(damaged, Anything)
        assert isinstance(found, Anything) or found.kind in ("malformed-json", "invalid-request")


@pytest.mark.parametrize(
    "value",
    [
        [[]] * MOST_PARTS,
        [{}] * MOST_PARTS,
        [{"a": {}}] * (MOST_PARTS // 2),
        {f"k{i}": i for i in range(MOST_PARTS)},
        [{"a": "a" * 50}] * MOST_PARTS,
    ],
    ids=["lists", "objects", "nested", "members", "with texts"],
)
def test_more_parts_than_any_call_takes(value: Any) -> None:
    refused = validated(json.dumps({"value": value}).encode(), Anything)
    assert isinstance(refused, Problem)
    assert refused.kind == "invalid-request"
    assert "lists, objects and members; at most 16,384 are allowed" in refused.detail


def test_thousands_of_wrong_members_are_counted_and_not_described() -> None:
    refused = validated(json.dumps({f"k{i}": i for i in range(10_000)}).encode(), Anything)
    assert isinstance(refused, Problem)
    assert (refused.kind, refused.detail) == ("invalid-request", "10,001 places of the body do not fit")


@pytest.mark.parametrize("mark", ["[", "{", ":", '\\"[', "\\\\", '[\\\\"', '"'])
def test_brackets_inside_a_text_are_no_parts(mark: str) -> None:
    text = mark * 20_000
    assert read(json.dumps({"value": text}).encode()) == text


@pytest.mark.parametrize("body", [b'"a\\' * 500_000, b'""' * 1_000_000, b'["a:",' * 300_000, b"\\" * 2_000_000])
def test_strings_without_an_end_are_refused(body: bytes) -> None:
    assert isinstance(validated(body, Anything), Problem)
