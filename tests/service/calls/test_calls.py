"""The table of calls, asked over a real port and held against NumPy and the library itself."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import Served, Starter, make_model

from jose_embed.model.embeddings import Embeddings

Model = tuple[Path, Embeddings]


def nearest(model: Embeddings, query: Any, k: int, excluded: set[int]) -> tuple[list[int], list[float]]:
    """The oracle: all cosines in float64, sorted."""
    scores = model.center_vectors.astype(np.float64) @ np.asarray(query, np.float64)
    order = [row for row in np.lexsort((np.arange(len(scores)), -scores)).tolist() if row not in excluded][:k]
    return order, scores[order].tolist()


# ------------------------------------------------------------------------------------------------------------- similar


def test_neighbours_equal_brute_force_for_1000_words(served: Served, model_a: Model) -> None:
    model = model_a[1]
    for first in range(0, 1_000, 100):
        rows = range(first, first + 100)
        queries = [{"word": model.words[row], "k": 10} for row in rows]
        results = served.post("/similar", {"queries": queries}).json()["results"]
        for row, result in zip(rows, results, strict=True):
            order, scores = nearest(model, model.center_vectors[row], 10, {row})
            assert [neighbor["word"] for neighbor in result["neighbors"]] == [model.words[i] for i in order]
            np.testing.assert_allclose([neighbor["score"] for neighbor in result["neighbors"]], scores, atol=1e-6)


def test_one_word_alone_and_in_a_batch_are_the_same(served: Served) -> None:
    alone = served.get("/similar", params={"word": "w77", "k": 7}).json()
    batch = served.post("/similar", {"queries": [{"word": f"w{i}", "k": 7} for i in range(50, 110)]}).json()
    assert batch["results"][27]["neighbors"] == alone["neighbors"]
    assert alone["word"] == "w77"
    assert set(alone["model"]) == {"id", "version"}


def test_facts_of_a_neighbour(served: Served, model_a: Model) -> None:
    model = model_a[1]
    neighbor = served.get("/similar?word=king&k=1").json()["neighbors"][0]
    row = neighbor["rank"] - 1
    assert model.words[row] == neighbor["word"]
    assert int(model.counts[row]) == neighbor["count"]
    assert neighbor["angle_deg"] == pytest.approx(np.degrees(np.arccos(neighbor["score"])), abs=1e-3)


def test_max_rank_and_min_score(served: Served, model_a: Model) -> None:
    model = model_a[1]
    found = served.get("/similar?word=king&k=5&max_rank=100").json()["neighbors"]
    scores = model.center_vectors[:100].astype(np.float64) @ model.center_vectors[0].astype(np.float64)
    assert [neighbor["rank"] - 1 for neighbor in found] == np.argsort(-scores)[1:6].tolist()
    least = found[2]["score"] - 1e-6
    assert served.get(f"/similar?word=king&k=5&max_rank=100&min_score={least}").json()["neighbors"] == found[:3]
    assert served.get("/similar?word=king&k=5&max_rank=1").json()["neighbors"] == []


def test_k_has_its_bounds(served: Served) -> None:
    assert len(served.get("/similar?word=king&k=1000").json()["neighbors"]) == 1_000
    for k in ("0", "-1", "1001", "1000000000", "1e3", "", "ten", str(10**30)):
        answer = served.get("/similar", params={"word": "king", "k": k})
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems#invalid-request"), k


def test_an_unknown_word_gets_suggestions(served: Served) -> None:
    for _ in range(2):  # an error is never kept as an answer
        answer = served.get("/similar?word=kimg")
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "/problems#unknown-word"
        assert "king" in answer.json()["suggestions"]
    assert served.get("/similar?word=King").status_code == 404, "another spelling is another word"


def test_kept_answers_are_the_same_bytes(served: Served) -> None:
    before = served.get("/metrics").text
    first, second = (served.get("/similar?word=w123&k=9") for _ in range(2))
    assert first.content == second.content
    assert metric(served.get("/metrics").text, "jose_similar_cached_total") == 1 + metric(
        before, "jose_similar_cached_total"
    )


def metric(page: str, name: str) -> float:
    """One figure of a Prometheus page."""
    return float(next(line.split()[-1] for line in page.splitlines() if line.startswith(name + " ")))


def test_analogies(served: Served, model_a: Model) -> None:
    model = model_a[1]
    query = {"positive": ["king", "woman"], "negative": ["man"], "k": 6}
    found = served.post("/similar", {"queries": [query]}).json()["results"][0]["neighbors"]
    expected = model.most_similar(positive=["king", "woman"], negative=["man"], k=6)
    assert [neighbor["word"] for neighbor in found] == [neighbor.word for neighbor in expected]
    assert not {"king", "woman", "man"} & {neighbor["word"] for neighbor in found}


def test_without_leaves_a_query_orthogonal_to_every_word(served: Served, model_a: Model) -> None:
    model = model_a[1]
    words = ["queen", "man", "woman"]
    query = {"word": "king", "without": words, "k": 1_000}
    found = served.post("/similar", {"queries": [query]}).json()["results"][0]["neighbors"]
    basis = np.linalg.qr(model.center_vectors[1:4].astype(np.float64).T)[0]
    rest = model.center_vectors[0] - basis @ (basis.T @ model.center_vectors[0])
    rest /= np.linalg.norm(rest)
    order, scores = nearest(model, rest, 1_000, {0, 1, 2, 3})
    assert [neighbor["word"] for neighbor in found[:20]] == [model.words[i] for i in order[:20]]
    np.testing.assert_allclose([neighbor["score"] for neighbor in found], scores, atol=1e-6)
    among = {"word": "king", "without": words, "among": words}
    assert served.post("/similar", {"queries": [among]}).json()["results"][0]["neighbors"] == []
    nothing = served.post("/similar", {"queries": [{"word": "king", "without": ["king"]}]}).json()["results"][0]
    assert (nothing["status"], nothing["problem"]["type"]) == (422, "/problems#no-direction")


def test_a_word_without_others_is_the_same_query_alone_and_in_a_batch(served: Served) -> None:
    alone = served.get("/similar?word=king&without=queen&without=man&k=9")
    batch = served.post("/similar", {"queries": [{"word": "king", "without": ["queen", "man"], "k": 9}]}).json()
    assert alone.json()["neighbors"] == batch["results"][0]["neighbors"]
    assert alone.json()["without"] == ["queen", "man"]
    assert served.get("/similar?word=king&without=queen&without=man&k=9").content == alone.content, "the kept answer"
    assert "without" not in served.get("/similar?word=king").json()
    for query, status, kind in (
        ("word=king&without=king", 422, "no-direction"),
        ("word=king&without=kimg", 404, "unknown-word"),
        ("word=king&without=", 422, "invalid-request"),
        ("word=king&word=king&without=queen", 422, "invalid-request"),
        ("word=king" + "&without=queen" * 21, 422, "invalid-request"),
        ("word=king" + "&without=queen" * 40, 422, "invalid-request"),
    ):
        refused = served.get(f"/similar?{query}")
        assert (refused.status_code, refused.json()["type"]) == (status, f"/problems#{kind}"), query


def test_among(served: Served, model_a: Model) -> None:
    model = model_a[1]
    words = ["w9", "w1500", "queen", "w9"]
    found = served.post("/similar", {"queries": [{"word": "king", "among": words, "k": 2}]}).json()["results"][0]
    scores = {word: model.similarity("king", word) for word in set(words)}
    assert [neighbor["word"] for neighbor in found["neighbors"]] == sorted(scores, key=lambda word: -scores[word])[:2]
    ranked = {"queries": [{"word": "king", "among": words, "max_rank": 100}]}
    assert {n["word"] for n in served.post("/similar", ranked).json()["results"][0]["neighbors"]} == {"w9", "queen"}


def test_a_batch_has_a_status_per_item(served: Served) -> None:
    vector = [0.5] * 24
    queries: list[dict[str, Any]] = [
        {"word": "nowhere"},
        {"vector": vector, "k": 3},
        {"vector": [1.0, 2.0]},
        {"positive": ["king"], "negative": ["king"]},
        {"word": "king", "among": ["nowhere"]},
        {"word": "king"},
        {"vector": [0.0] * 24},
    ]
    answer = served.post("/similar", {"queries": queries})
    assert answer.status_code == 200
    assert [result["status"] for result in answer.json()["results"]] == [404, 200, 422, 422, 404, 200, 422]


def test_a_vector_may_have_any_length(served: Served) -> None:
    results = [
        served.post("/similar", {"queries": [{"vector": [scale] * 24}]}).json()["results"][0]["neighbors"]
        for scale in (1e-300, 1.0, 1e299)
    ]
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"word": "king", "vector": [1.0]},
        {"word": "king", "positive": ["king"]},
        {"vector": ["1"] * 24},
        {"word": 7},
        {"word": "king", "k": 0},
        {"word": "king", "k": -1},
        {"word": "king", "k": 10**9},
        {"word": "king", "k": True},
        {"word": "king", "colour": "red"},
    ],
)
def test_a_query_that_does_not_fit_is_refused(served: Served, query: dict[str, Any]) -> None:
    answer = served.post("/similar", {"queries": [query]})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems#invalid-request")
    assert answer.json()["errors"]


def test_a_batch_has_its_bounds(served: Served) -> None:
    assert served.post("/similar", {"queries": []}).status_code == 422
    assert served.post("/similar", {"queries": [{"word": "king", "k": 1}] * 1_000}).status_code == 200
    assert served.post("/similar", {"queries": [{"word": "king", "k": 1}] * 1_001}).status_code == 422
    assert served.post("/similar", {"queries": [{"word": "king", "k": 1_000}] * 101}).status_code == 422


# ----------------------------------------------------------------------------------------------------------- embed-doc


def test_embed_doc_is_what_the_library_infers(served: Served, model_a: Model) -> None:
    model = model_a[1]
    text = "King w5 w5 nothing QUEEN w6 nowhere nothing"
    answer = served.post("/embed-doc", {"text": text, "explain": True}).json()
    expected = model.infer([text])[0]
    assert np.array_equal(np.array(answer["embedding"], np.float32), expected)
    assert np.linalg.norm(np.array(answer["embedding"])) == pytest.approx(1.0, abs=1e-6)
    assert (answer["tokens"], answer["known"], answer["coverage"]) == (8, 5, 0.625)
    assert answer["unknown"] == ["nothing", "nowhere"]
    assert 0 <= answer["concentration"] <= 1
    assert answer["truncated"] is False
    parts = {part["word"]: part for part in answer["explain"]}
    assert set(parts) == {"king", "w5", "queen", "w6"}
    assert parts["w5"]["count"] == 2
    assert parts["king"]["score"] == pytest.approx(float(model["king"] @ expected), abs=1e-6)
    coded = served.post("/embed-doc", {"text": text, "encoding_format": "base64"}).json()
    assert base64.b64decode(coded["embedding"]) == expected.tobytes()
    assert "explain" not in coded


def test_the_same_text_has_the_same_bytes_in_any_company(served: Served) -> None:
    texts = [f"w{i} w{i + 1} king" for i in range(4, 200)]
    alone = [served.post("/embed-doc", {"text": text}).json()["embedding"] for text in texts[:20]]
    batch = served.post("/embed-doc", {"texts": texts}).json()["results"]
    assert [item["embedding"] for item in batch[:20]] == alone


def test_a_text_without_a_known_word(served: Served) -> None:
    for text in ("nothing here", "...", " ", "\u0000", "\U0001f600"):
        answer = served.post("/embed-doc", {"text": text})
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems#no-known-words"), text
    results = served.post("/embed-doc", {"texts": ["king", "nothing here", "queen"]}).json()["results"]
    assert [item["status"] for item in results] == [200, 422, 200]
    assert "embedding" not in results[1]


@pytest.mark.parametrize(
    "body", [{}, {"text": "a", "texts": ["a"]}, {"texts": []}, {"text": ""}, {"text": 5}, {"texts": "king"}, []]
)
def test_embed_doc_wants_one_of_both(served: Served, body: Any) -> None:
    assert served.post("/embed-doc", body).status_code == 422


# --------------------------------------------------------------------------------------------------------------- words


def test_prefixes(served: Served, model_a: Model) -> None:
    words = model_a[1].words
    for prefix in ("", "w", "w1", "w19", "w1999", "king", "kingdom", "W", "\U0010ffff"):
        matching = [word for word in words if word.startswith(prefix)]
        answer = served.get("/words", params={"prefix": prefix, "limit": 30}).json()
        assert [entry["word"] for entry in answer["words"]] == matching[:30]
        assert answer["total"] == len(matching)


def test_one_word(served: Served, model_a: Model) -> None:
    model = model_a[1]
    answer = served.get("/words/w10").json()
    assert (answer["rank"], answer["count"]) == (11, int(model.counts[10]))
    assert np.array_equal(np.array(answer["embedding"], np.float32), model["w10"])
    assert served.get("/words/qeen").json()["suggestions"] == ["queen"]
    assert served.get("/words/no/where").status_code == 404


def test_distance(served: Served, model_a: Model) -> None:
    answer = served.get("/distance?a=king&b=queen").json()
    assert answer["score"] == pytest.approx(model_a[1].similarity("king", "queen"), abs=1e-6)
    assert answer["cosine_distance"] == pytest.approx(1 - answer["score"], abs=1e-6)
    same = served.get("/distance?a=king&b=king").json()
    assert (same["score"], same["angle_deg"]) == (pytest.approx(1.0, abs=1e-6), 0.0)
    assert served.get("/distance?a=king&b=nowhere").status_code == 404
    assert served.get("/distance?a=king").status_code == 422


# -------------------------------------------------------------------------------------------------------------- search


def test_search_over_trained_documents(served: Served, model_a: Model) -> None:
    model = model_a[1]
    answer = served.post("/search", {"word": "king", "k": 1_000, "source": "trained"}).json()
    expected = model.similar_documents(word="king", k=1_000)
    assert [hit["id"] for hit in answer["neighbors"]] == [hit.doc_id for hit in expected]
    np.testing.assert_allclose(
        [hit["score"] for hit in answer["neighbors"]], [hit.score for hit in expected], atol=1e-6
    )
    assert len(answer["neighbors"]) == 108, "untrained documents are never found"
    by_id = served.post("/search", {"document_id": "2", "k": 5, "source": "trained"}).json()["neighbors"]
    assert [hit["id"] for hit in by_id] == [hit.doc_id for hit in model.similar_documents("2", k=5)]
    untrained = served.post("/search", {"document_id": "1", "source": "trained"})
    assert (untrained.status_code, untrained.json()["type"]) == (422, "/problems#not-searchable")


def test_search_for_words(served: Served, model_a: Model) -> None:
    model = model_a[1]
    text = "king queen w5"
    vector = model.infer([text])[0]
    assert served.put("keywords", text).status_code == 201
    for query, expected in (
        ({"text": text}, model.words_of(text=text, k=5)),
        ({"vector": vector.tolist()}, model.words_of(text=text, k=5)),
        ({"document_id": "keywords"}, model.words_of(text=text, k=5)),
        ({"document_id": "2", "source": "trained"}, model.words_of("2", k=5)),
        ({"vector": vector.tolist(), "space": "words"}, model.most_similar(vector=vector, k=5)),
    ):
        found = served.post("/search", {**query, "target": "words", "k": 5}).json()["neighbors"]
        assert [hit["word"] for hit in found] == [hit.word for hit in expected]
        np.testing.assert_allclose([hit["score"] for hit in found], [hit.score for hit in expected], atol=1e-5)
    query = {"text": text, "target": "words", "k": 1_000, "min_score": 0.05}
    assert all(hit["score"] >= 0.05 for hit in served.post("/search", query).json()["neighbors"])
    assert served.client.delete("/documents/keywords").status_code == 204
    by_word = served.post("/search", {"word": "king", "target": "words", "k": 3}).json()["neighbors"]
    assert by_word == served.get("/similar?word=king&k=3").json()["neighbors"]


def test_a_document_of_one_source_has_neighbours_of_all(served: Served) -> None:
    """Under an id that an added document has, too."""
    trained = served.post("/search", {"document_id": "2", "source": "trained", "k": 5}).json()["neighbors"]
    assert served.put("2", "w1990 w1991").status_code == 201
    body = {"document_id": "2", "document_source": "trained", "k": 1_000}
    found = served.post("/search", body).json()["neighbors"]
    assert [one for one in found if one["source"] == "trained"][:5] == trained
    assert ("2", "added") in {(one["id"], one["source"]) for one in found}
    assert ("2", "trained") not in {(one["id"], one["source"]) for one in found}
    assert served.client.delete("/documents/2").status_code == 204


def test_an_added_document_is_found_at_once_and_gone_at_once(served: Served) -> None:
    text = "w100 w200 w300"
    assert served.put("found/at once", text).status_code == 201
    hit = served.post("/search", {"text": text, "k": 1}).json()["neighbors"][0]
    assert (hit["id"], hit["source"], hit["score"]) == ("found/at once", "added", pytest.approx(1.0, abs=1e-6))
    others = served.post("/search", {"document_id": "found/at once", "k": 1_000}).json()["neighbors"]
    assert ("added", "found/at once") not in {(other["source"], other["id"]) for other in others}
    assert served.client.delete("/documents/found/at once").status_code == 204
    hits = served.post("/search", {"text": text, "k": 1_000}).json()["neighbors"]
    assert "found/at once" not in {hit["id"] for hit in hits}
    gone = served.post("/search", {"document_id": "found/at once"})
    assert (gone.status_code, gone.json()["type"]) == (404, "/problems#unknown-document")


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"word": "nowhere"}, 404, "unknown-word"),
        ({"document_id": "nowhere"}, 404, "unknown-document"),
        ({"text": "nowhere"}, 422, "no-known-words"),
        ({"vector": [1.0]}, 422, "no-direction"),
        ({"vector": [0.0] * 24}, 422, "no-direction"),
        ({}, 422, "invalid-request"),
        ({"word": "king", "k": 0}, 422, "invalid-request"),
        ({"word": "king", "k": 10**9}, 422, "invalid-request"),
        ({"word": "king", "target": "both"}, 422, "invalid-request"),
    ],
)
def test_searches_that_do_not_fit(served: Served, body: dict[str, Any], status: int, kind: str) -> None:
    answer = served.post("/search", body)
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems#{kind}")


# ----------------------------------------------------------------------------------------------------------- documents


def test_a_document_s_life(served: Served) -> None:
    added = served.put("life", "king queen unknown")
    assert added.status_code == 201
    assert (added.json()["tokens"], added.json()["known"]) == (3, 2)
    tag = added.headers["etag"]
    read = served.get("/documents/life")
    assert (read.json()["text"], read.json()["searchable"], read.headers["etag"]) == ("king queen unknown", True, tag)
    replaced = served.put("life", "man woman")
    assert (replaced.status_code, replaced.json()["created"]) == (200, added.json()["created"])
    assert replaced.json()["revision"] > added.json()["revision"]
    assert served.client.delete("/documents/life").status_code == 204
    assert served.client.delete("/documents/life").status_code == 404
    assert served.get("/documents/life").status_code == 404


def test_conditional_writes(served: Served) -> None:
    tag = served.put("cond", "king").headers["etag"]
    assert served.put("cond", "queen", headers={"If-None-Match": "*"}).status_code == 412
    assert served.put("cond", "queen", headers={"If-Match": '"999999"'}).status_code == 412
    newer = served.put("cond", "queen", headers={"If-Match": tag}).headers["etag"]
    assert served.client.delete("/documents/cond", headers={"If-Match": tag}).status_code == 412
    assert served.get("/documents/cond").json()["text"] == "queen"
    assert served.client.delete("/documents/cond", headers={"If-Match": newer}).status_code == 204
    assert served.put("cond", "king", headers={"If-Match": "*"}).status_code == 412
    assert served.put("cond", "king", headers={"If-None-Match": "*"}).status_code == 201
    assert served.put("cond", "king", headers={"If-Match": "yesterday"}).status_code == 422


def test_a_text_without_a_known_word_is_not_stored(served: Served) -> None:
    assert served.put("unknown", "nothing here").json()["type"] == "/problems#no-known-words"
    assert served.get("/documents/unknown").status_code == 404


def test_listing_page_by_page(served: Served) -> None:
    ids = sorted(f"list-{i:02}" for i in range(25))
    operations = [{"op": "put", "id": id, "text": "king"} for id in reversed(ids)]
    assert {
        item["status"] for item in served.post("/documents:batch", {"operations": operations}).json()["results"]
    } == {201}
    seen: list[str] = []
    after: str | None = "list-"
    while after is not None and len(seen) < 25:
        page = served.get("/documents", params={"after": after, "limit": 7}).json()
        seen += [item["id"] for item in page["documents"]]
        after = page["next"]
    assert seen[:25] == ids


def test_a_batch_of_changes(served: Served) -> None:
    operations = [
        {"op": "put", "id": "b1", "text": "king"},
        {"op": "put", "id": "b2", "text": "nothing here"},
        {"op": "put", "id": "b1", "text": "queen"},
        {"op": "delete", "id": "b3"},
        {"op": "put", "id": "b3", "text": "man"},
        {"op": "delete", "id": "b3"},
    ]
    results = served.post("/documents:batch", {"operations": operations}).json()["results"]
    assert [item["status"] for item in results] == [201, 422, 200, 404, 201, 204]
    assert served.get("/documents/b1").json()["text"] == "queen"
    found = served.post("/search", {"text": "queen", "k": 1, "source": "added"}).json()["neighbors"][0]
    assert (found["id"], found["score"]) == ("b1", pytest.approx(1.0, abs=1e-6))
    assert served.get("/documents/b3").status_code == 404


@pytest.mark.parametrize("id", ["%00", "a%0Ab", "%7F", "..%2Fetc", "a%2F.%2Fb", "x" * 513])
def test_ids_that_cannot_be(served: Served, id: str) -> None:
    answer = served.client.put(f"/documents/{id}", json={"text": "king"})
    # A line end does not even match the path.
    assert answer.status_code == (404 if "%0A" in id else 422), answer.text


@pytest.mark.parametrize(
    "id", ["a b", "ä/ö?#%", "日本語", "a..b", "...", "'; DROP TABLE documents; --", "x" * 512, ":batch"]
)
def test_ids_that_can_be(served: Served, id: str) -> None:
    from urllib.parse import quote

    path = f"/documents/{quote(id, safe='')}"
    assert served.client.put(path, json={"text": "king"}).status_code == 201
    assert served.get(path).json()["id"] == id
    assert served.client.delete(path).status_code == 204


# ---------------------------------------------------------------------------------------------------------- operations


def test_the_service_tells_about_itself(served: Served, model_a: Model) -> None:
    assert served.get("/livez").json() == {"status": "alive", "checks": {}, "warnings": []}
    assert set(served.get("/readyz").json()["checks"]) == {"index", "inference", "documents"}
    info = served.get("/info").json()
    assert info["model"]["id"] == model_a[1].id
    of_trained = {"rows": 120, "kind": "exact", "recall_at_10": 1.0, "bytes": 120 * 24 * 4}
    assert info["index"].pop("documents")[0] == of_trained
    assert info["index"] == {"kind": "exact", "recall_at_10": 1.0, "searchable_trained_documents": 108}
    page = served.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert metric(page.text, "jose_words") == 2_000
    assert 'jose_requests_total{method="GET",path="/info",status="200"}' in page.text


def test_an_approximate_index_by_setting(tmp_path: Path, starter: Starter) -> None:
    model = make_model(tmp_path / "many.jose", n_words=11_000, dim=16)
    running = starter(tmp_path / "many.jose", "--index", "hnsw", environment={"JOSE_HNSW_BUILD_WIDTH": "60"})
    index = running.get("/info").json()["index"]
    assert index["kind"] == "hnsw"
    assert 0.8 < index["recall_at_10"] <= 1.0
    found = running.get("/similar?word=king&k=10").json()["neighbors"]
    expected = model.most_similar("king", k=10)
    assert len({neighbor["word"] for neighbor in found} & {neighbor.word for neighbor in expected}) >= 8


def test_every_answer_tells_its_time(served: Served) -> None:
    for path in ("/livez", "/similar?word=king", "/nowhere"):
        assert served.get(path).headers["server-timing"].startswith("total;dur=")


def test_a_long_document_comes_back_as_it_was(served: Served) -> None:
    text = "king " + 'a"\\\n\u00e9\U0001f600' * 40_000
    assert served.put("long-text", text).status_code == 201
    assert served.get("/documents/long-text").json()["text"] == text
    assert served.client.delete("/documents/long-text").status_code == 204


LONG = "x" * 1_001


def test_each_query_of_a_batch_has_a_status(served: Served) -> None:
    wrong: list[tuple[dict[str, Any], int, str]] = [
        ({"word": ""}, 422, "invalid-request"),
        ({"word": LONG}, 422, "invalid-request"),
        ({"positive": ["king", ""]}, 422, "invalid-request"),
        ({"word": "king", "without": [LONG]}, 422, "invalid-request"),
        ({"word": "king", "among": ["queen", ""]}, 422, "invalid-request"),
        ({"word": "kingg"}, 404, "unknown-word"),
        ({"word": "king", "among": ["kingg"]}, 404, "unknown-word"),
        ({"vector": [0.0] * 24}, 422, "no-direction"),
        ({"vector": [1.0] * 23}, 422, "no-direction"),
        ({"positive": ["king"], "negative": ["king"]}, 422, "no-direction"),
    ]
    queries = [query for query, _, _ in wrong]
    results = served.post("/similar", {"queries": [{"word": "king"}, *queries, {"word": "queen"}]}).json()["results"]
    assert [item["status"] for item in results] == [200, *(status for _, status, _ in wrong), 200]
    assert [item["problem"]["type"] for item in results[1:-1]] == [f"/problems#{kind}" for _, _, kind in wrong]
    assert served.get("/similar?word=").status_code == 422
    assert served.get("/similar", params={"word": LONG}).status_code == 422


def test_each_text_and_operation_of_a_batch_has_a_status(served: Served) -> None:
    results = served.post("/embed-doc", {"texts": ["king", "", " ", "queen"]}).json()["results"]
    assert [item["status"] for item in results] == [200, 422, 422, 200]
    assert results[1]["problem"]["type"] == "/problems#no-known-words"
    assert served.post("/embed-doc", {"text": ""}).status_code == 422
    ids = ["", "x" * 513, "a\nb", "a/../b"]
    operations: list[dict[str, Any]] = [{"op": "put", "id": "mixed", "text": "king"}]
    operations += [{"op": "put", "id": id, "text": "king"} for id in ids]
    operations += [{"op": "delete", "id": id} for id in ids]
    operations += [{"op": "put", "id": "empty", "text": ""}, {"op": "delete", "id": "mixed"}]
    results = served.post("/documents:batch", {"operations": operations}).json()["results"]
    assert [item["status"] for item in results] == [201, *[422] * 9, 204]
    assert [item["id"] for item in results] == [operation["id"] for operation in operations]
    assert results[1]["problem"]["type"] == "/problems#invalid-request"
    assert served.put("empty", "").status_code == 422


@pytest.mark.parametrize("name", ["positive", "negative", "without", "among"])
def test_the_words_of_a_batch_are_bounded(served: Served, name: str) -> None:
    def status(n: int) -> tuple[int, str]:
        base = {} if name in ("positive", "negative") else {"word": "king"}
        items = [base | {name: ["queen"] * 40}] * (n // 40) + [base | {name: ["queen"] * (n % 40)}] * (n % 40 > 0)
        answer = served.post("/similar", {"queries": items})
        return answer.status_code, answer.text

    assert status(200)[0] == 200
    refused, text = status(201)
    assert refused == 422
    assert "sum to 201; at most 200 are allowed" in text
    item = {"positive": ["queen"]} if name in ("positive", "negative") else {"word": "king"}
    assert served.post("/similar", {"queries": [item | {name: ["queen"] * 201}]}).status_code == 422


def test_the_suggestions_of_a_batch_are_bounded(served: Served) -> None:
    answer = served.post("/similar", {"queries": [{"word": f"w1{i}x"} for i in range(100, 500)]}).json()
    assert {item["status"] for item in answer["results"]} == {404}
    given = [item["problem"]["suggestions"] for item in answer["results"]]
    assert given[0] != []
    assert given[399] == []
    assert 90 <= sum(map(len, given)) <= 100


def test_paths_and_methods_that_are_none(served: Served) -> None:
    nowhere = served.get("/nowhere")
    assert (nowhere.status_code, nowhere.json()["type"]) == (404, "/problems#unknown-path")
    wrong = served.client.delete("/similar")
    assert (wrong.status_code, wrong.json()["type"]) == (405, "/problems#method-not-allowed")
    assert wrong.headers["allow"]
    assert served.get("/similar/").status_code == 404
    assert served.get("/info?x=1").status_code == 200
    assert served.client.post("/admin/reload?x=1").status_code == 422
