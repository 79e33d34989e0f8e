"""The filters by fields: what fits, what does not, and what is no filter."""

from __future__ import annotations

import contextlib
import json
import operator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jose_embed.errors import ConfigError
from jose_embed.model.filters import MOST_CHARACTERS, FieldTable, Filter, KnownFields

FIELDS = {
    "date": "2025-06-30",
    "rating": 2,
    "price": 1.5,
    "lang": "de",
    "public": True,
    "meta.source": "dotted",
    "meta": {"source": "nested", "page": 7},
    "a b": "spaced",
    "none": None,
    "list": [1],
    "stars": " 4",  # as a field of CSV
    "zip": "01234",
    "long": "9" * 5000,
}


@pytest.mark.parametrize(
    "text",
    [
        "rating = 2",
        "rating=2",
        "rating = 2.0",
        "rating in [1,2 , 3]",
        "price<2 and price>1",
        "price != 2",
        'date >= 2025-01-01 and date < "2026"',
        'lang = "de" and lang = de and lang != en',
        "public = true and public != false",
        'meta.source = "dotted" and meta.page >= 7',
        '"a b" = spaced',
        "'a b' = 'spaced' and lang in ['de','x y']",
        "none is missing and nowhere is missing and meta.nowhere is missing",
        "rating is not missing and meta.page is not missing",
        'lang = "\\u0064e"',
        "stars = 4 and stars < 4.5 and stars in [1, 4] and stars != 5",
        'zip = "01234"',
    ],
)
def test_what_fits(text: str) -> None:
    assert Filter.parse(text).fits(FIELDS)


@pytest.mark.parametrize(
    "text",
    [
        "rating = 3",
        'rating = "2"',  # text is no number
        "lang > 1",
        "date < 2026",
        "public = 1",  # and a truth value is none
        "nowhere != 1",
        "nowhere = 1",
        "none = 0",
        "list = 1",
        "rating in [1, 3]",
        "rating = 2 and lang = en",
        "rating is missing",
        "none is not missing",
        "not = 1 and not in [1] and not is missing and not is not missing",  # the name of a field
        "nowhere is not missing",
        "lang.x = 1",
        "stars = 5",
        "zip = 1234",  # no number
        "long > 1",
    ],
)
def test_what_does_not_fit(text: str) -> None:
    assert not Filter.parse(text).fits(FIELDS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ends where a field"),
        ("rating", "ends where '='"),
        ("rating >", "ends where a value"),
        ("rating = 1 or rating = 2", "'or' at character 12 where 'and'"),
        ("rating == 2", "'=' at character 9"),
        ("rating in 2", "'2' at character 11 where '\\['"),
        ("rating = " + "9" * 5_000, "where a number of at most 4,300 digits"),
        ("rating in []", "'\\]' at character 12"),
        ("rating in [1", "ends where ',' or '\\]'"),
        ("rating is 2", "'2' at character 11 where 'missing'"),
        ("1 = 1", "'1' at character 1 where the name"),
        ('"open', "at character 1"),
        ('lang = "\\x"', "where a JSON string"),
        ("rating = 1 and", "ends where a field"),
        ("public < true", "allowed are = and !="),
        ("(rating = 1)", "where the name of a field is expected; there are no parentheses"),
        ("rating <> 1", "where a value is expected; unequal is !="),
        ("not rating = 1", "nothing is negated but by != and is not missing"),
        ("rating between 1 and 2", "a span is FIELD >= A and FIELD <= B"),
        ("lang like 'd%'", "values are compared as a whole"),
        ("rating is not 1", "has '1' at character 15 where 'missing' is expected"),
        ("rating == 2", "equality is a single =; write it as in"),
        ("rating = 1 or rating = 2", r"there is no or: for values of one field write FIELD in \[A, B\]"),
        ("rating = 1 || rating = 2", "there is no or"),
        ("rating = 1 && lang = de", "comparisons are joined by and, in small letters"),
        ("rating = 1 AND lang = de", "comparisons are joined by and, in small letters"),
        ("x = 1" + " " * MOST_CHARACTERS, "at most 10000"),
    ],
)
def test_what_is_no_filter(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        Filter.parse(text)
    assert "\n" not in str(refused.value)


COMPARE = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
           ">=": operator.ge}  # fmt: skip
NUMBERS = st.integers(-5, 5) | st.floats(-5, 5)
VALUES = st.tuples(st.text(), st.text()) | st.tuples(NUMBERS, NUMBERS)


@given(name=st.text(min_size=1), pair=VALUES, sign=st.sampled_from(sorted(COMPARE)))
def test_any_name_and_value_in_quotes(name: str, pair: tuple[Any, Any], sign: str) -> None:
    found, value = pair
    text = f"{json.dumps(name)} {sign} {json.dumps(value)}"
    assert Filter.parse(text).fits({name: found}) == COMPARE[sign](found, value)


@given(st.text())
def test_any_text_is_a_filter_or_refused_by_name(text: str) -> None:
    with contextlib.suppress(ConfigError):
        Filter.parse(text).fits(FIELDS)


KEPT = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, 2.0, 2**53 + 1, 10**30, -0.0]),
    st.sampled_from(["", "a", "b", "1", " 2 ", "0.5", "2025-01-01", "nan"]), st.just({"inner": 1}), st.just([1]),
)  # fmt: skip
WRITTEN = ["1", "2", "0.5", "-1", "9007199254740993", "1e30", "1e999", "true", "false", '"1"', '"a"', "b", "2025-01-01"]


@given(
    kept=st.lists(KEPT, max_size=12),
    operator=st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    value=st.sampled_from(WRITTEN),
)
def test_columns_decide_as_single_documents_do(kept: list[Any], operator: str, value: str) -> None:
    """Many different values are compared as arrays, few one by one; both must agree."""
    operator = "!=" if value in ("true", "false") and operator not in ("=", "!=") else operator
    others: list[Any] = [*range(10, 30), *("cdefghijklmnopqrst")]
    rows = [{"x": one, "y": 1} for one in [*kept, *others]] + [{}]
    table = FieldTable(("x", "y"), lambda: iter(rows), len(rows))
    for text in (
        f"x {operator} {value}",
        f"x in [{value}, 3, a]",
        "x is missing",
        "x is not missing",
        f"x.inner {operator} {value} and y = 1",
    ):
        filter = Filter.parse(text)
        for _ in range(2):  # the second time it is kept
            assert filter.fitting(table).tolist() == [filter.fits(row) for row in rows]
    assert Filter.parse("y = 1").fitting(table).tolist() != Filter.parse("y = true").fitting(table).tolist()


def known(*documents: dict[str, Any]) -> KnownFields:
    found = KnownFields()
    for fields in documents:
        found.add(fields)
    return found


def test_a_field_that_no_document_has_fits_no_comparison_but_is_not_missing_in_all() -> None:
    fields = known({"lang": "de", "meta": {"stars": 2}}, {"lang": None})
    for text in ("rating = 3", "rating != 3", "lang is missing", "meta.stars is missing", "lang = de"):
        Filter.parse(text).check(fields)
    with pytest.raises(ConfigError, match=r"there is no field 'rating'; kept are lang, meta"):
        Filter.parse("lang = de and rating is missing").check(fields)
    Filter.parse("rating is missing").check(known())  # without documents nothing can be lost


def test_an_error_names_some_fields_of_many() -> None:
    """Clients choose the names of the fields of documents that they add."""
    with pytest.raises(ConfigError, match=r"kept are f{100}, .* and 2 more$") as refused:
        Filter.parse("nowhere is missing").check(known({"f" * 5_000: 1} | {f"g{i}": 1 for i in range(51)}))
    assert len(str(refused.value)) < 1_000


@pytest.mark.parametrize("value", ["2025-13-01", "2025-02-30", "01.02.2025", "2025", "yesterday", "true", "2025-1-1"])
@pytest.mark.parametrize("form", ["date >= {}", "date = {}", "rating > 0 and date in [2025-01-01, {}]"])
def test_what_is_no_date_is_no_value_of_a_field_of_dates(value: str, form: str) -> None:
    """It would compare as text, and quietly fit nothing or everything."""
    if value == "true" and ">" in form:
        form = "date = {}"
    rows = [{"date": "2025-06-30", "rating": 2}, {"date": "", "rating": 1}, {"date": "2024-01-31T10:00:00Z"}, {}]
    table = FieldTable(("date", "rating"), lambda: iter(rows), 4)
    filter = Filter.parse(form.format(value))
    with pytest.raises(ConfigError, match=r"the field 'date' holds dates, .* write YYYY-MM-DD, or YYYY-MM"):
        filter.fitting(table)
    nothing = FieldTable((), lambda: iter(()), 0)
    for there, has_dates in (("2024-12-31", True), ("soon", False), (None, None)):
        others = known({"date": there, "rating": 1})
        assert others.has_dates("date") is has_dates
        with contextlib.nullcontext() if has_dates is False else pytest.raises(ConfigError, match="holds dates"):
            filter.fitting(table, elsewhere=others)
        for check in (partial(filter.check, others), partial(filter.fitting, nothing, elsewhere=others)):
            with pytest.raises(ConfigError, match="holds dates") if has_dates else contextlib.nullcontext():
                check()
    mixed = FieldTable(("date", "rating"), lambda: iter([*rows, {"date": "soon"}]), 5)
    filter.fitting(mixed)


@pytest.mark.parametrize(
    "form", ["date = 2025-06", "date <= 2025-06", "date > 2025-06", "date in [2024-01, 2025-06-30]"]
)
def test_a_month_is_compared_as_a_span(form: str) -> None:
    """No day is equal to a month, and all of its days are above it."""
    table = FieldTable(("date",), lambda: iter([{"date": "2025-06-30"}, {"date": "2024-01-31"}]), 2)
    with pytest.raises(ConfigError, match=r"write a span, such as date >= 2025-01 and date < 2025-02"):
        Filter.parse(form).fitting(table)


def test_a_year_a_month_a_day_and_a_time_are_dates() -> None:
    rows = [{"date": "2025-06-30"}, {"date": "2025-07-01"}, {"date": "2026-01-01"}]
    table = FieldTable(("date",), lambda: iter(rows), 3)
    for text, expected in {
        "date >= 2025-07": [False, True, True],
        'date >= "2026"': [False, False, True],
        "date < 2025-07-01T00:00": [True, True, False],
        'date != ""': [True, True, True],
        "date is missing": [False, False, False],
    }.items():
        assert Filter.parse(text).fitting(table).tolist() == expected
