"""Questions in words, filters and facets over trained and added documents together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import Served, Starter, unit_rows
from test_kept_answers import keep, search_text


@pytest.fixture
def served(starter: Starter, tmp_path: Path) -> Served:
    """Thirty trained documents; added are one with a new word and one with the text of a trained one."""
    texts = [f"the king of land{i} sleeps" for i in range(30)]
    running = starter(keep(tmp_path / "q.jose", texts, [{"stars": i % 3} for i in range(30)]))
    put(running, "new", "a zeppelin of the queen", stars=1, moons=2)
    put(running, "same", "the king of land7 sleeps", stars=2)
    return running


def put(served: Served, id: str, text: str, **fields: Any) -> None:
    assert served.client.put(f"/documents/{id}", json={"text": text, "fields": fields}).status_code in (200, 201)


def ids(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["source"], one["id"]) for one in answer["neighbors"]]


def test_words_of_added_documents_are_found_as_they_come_and_go(served: Served) -> None:
    for mode in ("words", "hybrid"):
        assert ids(search_text(served, "zeppelin", k=1, mode=mode)) == [("added", "new")]
    put(served, "new", "a balloon of the queen")
    assert search_text(served, "zeppelin", mode="words")["neighbors"] == []
    (found,) = search_text(served, "Balloon", mode="words", passage_words=3, include=["text"])["neighbors"]
    assert (found["id"], found["score"], found["text"]) == ("new", 1, "a balloon of the queen")
    shown = found["passage"]["text"]
    assert [shown[a:b] for a, b in found["passage"]["highlights"]] == ["balloon"]
    served.client.delete("/documents/new")
    assert search_text(served, "balloon", mode="words")["neighbors"] == []


def test_equal_texts_have_equal_scores_by_words(served: Served) -> None:
    found = search_text(served, "land7", mode="words", k=5)["neighbors"]
    assert [(one["source"], one["id"], one["score"]) for one in found] == [
        ("added", "same", 1.0),
        ("trained", "8", 1.0),
    ]
    for source in ("added", "trained"):
        assert {one["source"] for one in search_text(served, "king", mode="hybrid", source=source)["neighbors"]} == {
            source
        }


def test_filters_hold_for_added_documents_and_every_kind_of_query(served: Served) -> None:
    vector = unit_rows(1, 8, 5)[0].tolist()
    for query in (
        {"text": "king"},
        {"text": "king", "mode": "vector"},
        {"word": "king"},
        {"vector": vector},
        {"document_id": "5"},
    ):
        answer = served.post("/search", {**query, "k": 40, "filter": "stars = 1"})
        assert answer.status_code == 200, answer.text
        found = ids(answer.json())
        expected = {("trained", str(i + 1)) for i in range(30) if i % 3 == 1} | {("added", "new")}
        assert set(found) == expected - {("trained", query.get("document_id", ""))}
        assert len(found) == len(set(found))
        only = served.post("/search", {**query, "filter": "moons >= 2", "include": ["fields"]}).json()["neighbors"]
        assert [one["fields"] for one in only] == [{"stars": 1, "moons": 2}]
        refused = served.post("/search", {**query, "filter": "suns = 1"})
        assert refused.json()["type"] == "/problems#invalid-filter"
    assert served.post("/search", {"word": "king", "target": "words", "filter": "stars = 1"}).status_code == 422
    everything = served.post("/search", {"vector": vector, "k": 40}).json()["neighbors"]
    filtered = served.post("/search", {"vector": vector, "k": 40, "filter": "stars in [0, 1, 2]"}).json()["neighbors"]
    assert [one["id"] for one in filtered] == [one["id"] for one in everything]
    assert [one["score"] for one in filtered] == pytest.approx([one["score"] for one in everything], abs=2e-7)
    assert np.all(np.diff([one["score"] for one in filtered]) <= 0)


def test_facets_count_both(served: Served) -> None:
    facets = search_text(served, "king", facets=["stars", "moons"])["facets"]
    assert {one["value"]: one["count"] for one in facets["stars"]} == {0: 10, 1: 11, 2: 11}
    assert {one["value"]: one["count"] for one in facets["moons"]} == {None: 31, 2: 1}
    facets = search_text(served, "king", facets=["stars"], filter="stars > 1", source="added")["facets"]
    assert facets == {"stars": [{"value": 2, "count": 1}]}
