"""Texts and fields that a model keeps, in answers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import Served, Starter, unit_rows

from jose_embed.model.embeddings import Embeddings
from jose_embed.text.texts import TEXTS_NAME, TextStore

N_DOCS = 400
Fields = list[dict[str, Any]]


def keep(path: Path, texts: list[str] | None, fields: Fields | None, *, seed: int = 1, n_unknown: int = 0) -> Path:
    """A saved model of random directions that keeps these texts and fields of documents 1, 2, 3 ...; the first ones may
    have no known word."""
    n_docs = len(texts or fields or ())
    store = TextStore.create(fields=sorted(fields[0]) if fields else ())
    store.append(texts, fields, n_docs)
    store.finish()
    is_known = np.arange(n_docs) >= n_unknown
    model = Embeddings.from_arrays(
        words=["king", "queen", "man"],
        counts=[9, 8, 7],
        center_vectors=unit_rows(3, 8, seed),
        context_vectors=unit_rows(3, 8, seed + 1),
        doc_ids=[str(i + 1) for i in range(n_docs)],
        doc_vectors=unit_rows(n_docs, 8, seed + 2),
        doc_token_counts=np.where(is_known, 5, 0),
        texts=store,
    )
    model.save(path, overwrite=True)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    texts = [f"the text of {i + 1} " + "x" * 500 for i in range(N_DOCS)]
    return keep(tmp_path / "a.jose", texts, [{"stars": i} for i in range(N_DOCS)])


def search(served: Served, **body: Any) -> list[dict[str, Any]]:
    answer = served.post("/search", {"word": "king", **body})
    assert answer.status_code == 200, answer.text
    neighbors: list[dict[str, Any]] = answer.json()["neighbors"]
    return neighbors


def test_search_shows_what_the_request_includes(starter: Starter, model: Path) -> None:
    served = starter(model)
    plain = search(served, k=N_DOCS)
    assert len(plain) == N_DOCS
    assert all(set(hit) == {"id", "source", "score", "angle_deg"} for hit in plain)
    expected = [
        hit | {"text": f"the text of {hit['id']} " + "x" * 500, "fields": {"stars": int(hit["id"]) - 1}}
        for hit in plain
    ]
    assert search(served, k=N_DOCS, include=["text", "fields"]) == expected
    assert search(served, k=1, include=["fields"]) == [{k: v for k, v in expected[0].items() if k != "text"}]
    assert search(served, k=3, include=["text"], target="words") == search(served, k=3, target="words")
    for wrong in (["texts"], "text", ["text"] * 3):
        assert served.post("/search", {"word": "king", "include": wrong}).status_code == 422


def test_added_documents_show_their_text_and_come_first(starter: Starter, model: Path) -> None:
    served = starter(model)
    assert served.put("2", "king").status_code == 201
    hit = search(served, k=1, source="added", include=["text", "fields"])[0]
    assert (hit["id"], hit["text"], hit["fields"]) == ("2", "king", {})
    added, trained = served.get("/documents/2").json(), served.get("/documents/2?source=trained")
    assert (added["source"], added["text"]) == ("added", "king")
    assert (trained.json()["source"], trained.json()["fields"]) == ("trained", {"stars": 1})
    assert trained.json()["text"].startswith("the text of 2 ")
    assert "etag" not in trained.headers
    assert served.get("/documents/3").json()["text"].startswith("the text of 3 ")
    assert served.get("/documents/3?source=added").status_code == 404
    assert served.get("/documents/nowhere").status_code == 404
    assert served.get("/documents/3?source=both").status_code == 422


def test_a_model_without_texts_names_the_option(served: Served) -> None:
    hit = search(served, k=1, source="trained", include=["text", "fields"])[0]
    assert (hit["text"], hit["fields"]) == (None, {})
    answer = served.get(f"/documents/{hit['id']}")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems#unknown-document")
    assert "--keep-text" in answer.json()["detail"]


def test_fields_that_other_json_parsers_would_refuse(starter: Starter, tmp_path: Path) -> None:
    fields = {"huge": 10**30, "nan": float("nan"), "half": "a\ud800b", "deep": {"x": [1, None]}}
    served = starter(keep(tmp_path / "a.jose", None, [fields]))
    expected = {"huge": 10**30, "nan": None, "half": "a?b", "deep": {"x": [1, None]}}
    read = served.get("/documents/1")
    assert "NaN" not in read.text
    assert (read.json()["text"], read.json()["fields"]) == (None, expected)
    assert search(served, k=1, include=["fields"])[0]["fields"] == expected


def test_answers_that_are_too_large_are_refused(starter: Starter, model: Path) -> None:
    served = starter(model, environment={"JOSE_MAX_ANSWER_BYTES": "400000"})
    answer = served.post("/search", {"word": "king", "k": N_DOCS, "include": ["text"]})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems#invalid-request")
    assert "smaller k" in answer.json()["detail"]
    assert len(search(served, k=100, include=["text"])) == 100


def test_texts_survive_a_removed_file_and_change_with_the_model(starter: Starter, model: Path) -> None:
    served = starter(model)
    os.unlink(model / TEXTS_NAME)
    assert served.get("/documents/400").json()["text"].startswith("the text of 400 ")
    keep(model, ["another"], None, seed=7)
    assert served.get("/documents/399").json()["text"].startswith("the text of 399 ")
    assert served.post("/admin/reload?wait=60").status_code == 200
    assert served.get("/documents/1").json()["text"] == "another"
    assert served.get("/documents/399").status_code == 404


def test_damaged_texts_are_a_problem_and_the_rest_is_answered(starter: Starter, model: Path) -> None:
    served = starter(model)
    os.truncate(model / TEXTS_NAME, 20_000)
    for answer in (
        served.get("/documents/400"),
        served.post("/search", {"document_id": "400", "k": N_DOCS, "include": ["text"]}),
    ):
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems#storage-unavailable")
        assert "the texts that the model keeps are damaged" in answer.json()["detail"]
        assert str(model) not in json.dumps(answer.json())
    assert len(search(served, k=5)) == 5


def test_questions_by_words_meaning_and_filter(starter: Starter, tmp_path: Path) -> None:
    texts = [f"the king of land{i} sleeps" for i in range(30)]
    fields = [{"stars": i % 3, "date": f"2025-01-{i + 1:02}"} for i in range(30)]
    served = starter(keep(tmp_path / "q.jose", texts, fields))
    (hit, *_) = search_text(served, "LAND7 king?", k=2, mode="hybrid", passage_words=2)["neighbors"]
    assert hit["id"] == "8"
    shown = hit["passage"]["text"]
    assert "land7" in [shown[a:b] for a, b in hit["passage"]["highlights"]]
    answer = search_text(served, "king", k=30, filter="stars = 1 and date < 2025-01-15", facets=["stars"])
    assert answer["mode"] == "hybrid"
    assert {int(hit["id"]) % 3 for hit in answer["neighbors"]} == {2}
    assert answer["facets"] == {"stars": [{"value": 1, "count": 5}]}
    assert len(answer["neighbors"]) == 5
    for question in ('"', "a AND (", "x:y*", " "):
        for mode in ("hybrid", "vector", "words"):
            search_text(served, question, mode=mode)
    unfit = served.post("/search", {"text": "king", "filter": "moons = 1"})
    assert unfit.status_code == 422
    assert unfit.json()["type"].endswith("invalid-filter")
    assert served.post("/search", {"word": "king", "mode": "words"}).status_code == 422


def test_a_text_is_compared_by_words_too_where_texts_are_kept(starter: Starter, tmp_path: Path) -> None:
    """Without a mode; every answer says which one it used, and an answer is that of the mode that it names."""
    texts = [f"the king of land{i} sleeps" for i in range(30)]
    served = starter(keep(tmp_path / "q.jose", texts, [{"stars": i} for i in range(30)]))
    assert served.client.put("/documents/new", json={"text": "a zeppelin of the king"}).status_code == 201
    answer = search_text(served, "LAND7 king zeppelin", k=40)
    assert answer == search_text(served, "LAND7 king zeppelin", k=40, mode="hybrid")
    assert {hit["id"] for hit in answer["neighbors"][:2]} == {"8", "new"}
    assert search_text(served, "zeppelin")["neighbors"][0]["id"] == "new"  # no word is known
    vector = served.post("/embed-doc", {"text": "king"}).json()["embedding"]
    by_vector = served.post("/search", {"vector": vector, "k": 40}).json()
    bounded = search_text(served, "king", k=40, min_score=-1)
    assert bounded["mode"] == "vector"
    assert_same(bounded, by_vector)
    for mode in ("hybrid", "words"):
        first, second, *_ = search_text(served, "land7 king", mode=mode)["neighbors"]
        least = (first["score"] + second["score"]) / 2
        assert search_text(served, "land7 king", mode=mode, min_score=least)["neighbors"] == [first]
    assert search_text(served, "king", filter="stars > 3", min_score=0)["mode"] == "vector"
    for query in ({"vector": vector}, {"word": "king"}, {"document_id": "8"}, {"text": "king", "target": "words"}):
        for more in ({}, {"include": ["text"]}, {"target": "words"}):
            assert served.post("/search", {**query, **more}).json()["mode"] == "vector"


@pytest.mark.parametrize("mode", ["hybrid", "words"])
def test_a_trained_document_without_a_known_word_is_never_found(starter: Starter, tmp_path: Path, mode: str) -> None:
    served = starter(keep(tmp_path / "a.jose", ["zyx", "king abc"], None, n_unknown=1))
    assert search_text(served, "zyx", mode=mode)["neighbors"] == []
    assert [hit["id"] for hit in search_text(served, "zyx king", mode=mode)["neighbors"]] == ["2"]


def test_a_text_is_compared_by_vectors_where_no_texts_are_kept(served: Served) -> None:
    answer = search_text(served, "king w9", k=7)
    assert answer["mode"] == "vector"
    vector = served.post("/embed-doc", {"text": "king w9"}).json()["embedding"]
    assert_same(answer, served.post("/search", {"vector": vector, "k": 7}).json())


def test_exact_words_need_kept_texts(starter: Starter, tmp_path: Path) -> None:
    served = starter(keep(tmp_path / "f.jose", None, [{"stars": i} for i in range(30)]))
    refused = served.post("/search", {"text": "king", "mode": "hybrid"})
    assert refused.status_code == 422
    assert "keeps no texts" in refused.json()["detail"]
    assert len(search_text(served, "king", filter="stars >= 20")["neighbors"]) == 10


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert [hit["id"] for hit in found["neighbors"]] == [hit["id"] for hit in expected["neighbors"]]
    scores = [hit["score"] for hit in expected["neighbors"]]
    assert [hit["score"] for hit in found["neighbors"]] == pytest.approx(scores, abs=1e-6)


def search_text(served: Served, text: str, **body: Any) -> dict[str, Any]:
    answer = served.post("/search", {"text": text, **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found
