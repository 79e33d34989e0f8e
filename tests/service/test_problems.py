"""The catalogue of problems."""

from __future__ import annotations

import json

from service.problems import CATALOGUE, Problem, catalogue_page, from_validation


def test_problems_say_what_is_wrong_and_what_to_do() -> None:
    for kind, facts in CATALOGUE.items():
        document = Problem(kind, "why").document()
        assert document["status"] == facts.status
        assert facts.advice.endswith(".")
        assert f'id="{kind}"' in catalogue_page()
    assert from_validation([{"loc": ("body", "k"), "input": 10**5000, "msg": "too large"}]).detail.startswith(
        "body.k: too large, not a number of"
    )
    known = ["text", "filter", "k"]
    for loc, kind, said in (
        ("filtre", "extra_forbidden", "body.filtre: is no known name; did you mean filter?"),
        ("topn", "extra_forbidden", "body.topn: is no known name (gensim's name); use k instead"),
        ("zzz", "extra_forbidden", "body.zzz: is no known name; known are filter, k, text"),
        ("text", "missing", "body.text: is missing"),
    ):
        error = {"loc": ("body", loc), "input": {"k": 3}, "type": kind, "msg": "of the validator", "known": known}
        assert from_validation([error]).detail == said
    many = from_validation([{"loc": ("body",), "input": "\ud800" * 300, "msg": "no"}] * 50)
    assert len(many.members["errors"]) == 20
    assert "(and 30 more)" in many.detail
    long = from_validation([{"loc": ("body", "x" * 100_000), "input": 1, "type": "extra_forbidden", "known": known}])
    assert len(json.dumps(long.document())) < 2_000
