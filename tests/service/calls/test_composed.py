"""Unknown words of a model with sub-words: composed, and marked so."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import openai
import pytest
from serving import Served, start, unit_rows

from jose_embed.model.embeddings import Embeddings
from jose_embed.model.parts import SUBWORD_VECTORS, SUBWORDS
from service.app import OPENAPI_FILE


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Embeddings:
    model = Embeddings.from_arrays(
        words=["walk", "talk", "song", "king"],
        counts=np.arange(4, 0, -1),
        center_vectors=unit_rows(4, 8, 1),
        context_vectors=unit_rows(4, 8, 2),
        doc_ids=["1", "2"],
        doc_vectors=unit_rows(2, 8, 4),
        text={"normalisation": "nfc", SUBWORDS: {"shortest": 3, "longest": 5, "buckets": 100}},
        extra_arrays={SUBWORD_VECTORS: unit_rows(100, 8, 3)},
    )
    model.save(tmp_path_factory.mktemp("composed") / "m.jose")
    return model


@pytest.fixture(scope="module")
def running(model: Embeddings) -> Iterator[Served]:
    assert model.path is not None
    served = start(model.path)
    yield served
    assert served.stop() == 0, "".join(served.lines)


def test_neighbours_of_a_composed_word(running: Served, model: Embeddings) -> None:
    answer = running.get("/similar?word=walking&without=king").json()
    assert answer["composed"] is True
    expected = model.most_similar("walking", without="king")
    assert [found["word"] for found in answer["neighbors"]] == [neighbor.word for neighbor in expected]
    assert "composed" not in running.get("/similar?word=walk").json()
    assert running.get("/similar?word=walk&without=walking").json()["composed"] is True
    assert running.get("/similar", params={"word": "two words"}).status_code == 404
    queries = [{"word": "walking", "k": 2}, {"word": "walk"}, {"word": "walk", "among": ["walking"]}]
    first, second, third = running.post("/similar", {"queries": queries}).json()["results"]
    assert (first["status"], first["composed"], len(first["neighbors"])) == (200, True, 2)
    assert "composed" not in second
    assert third["problem"]["type"] == "/problems#unknown-word", "a composed word is no answer"


def test_a_composed_word_itself(running: Served, model: Embeddings) -> None:
    answer = running.get("/words/walking").json()
    assert (answer["rank"], answer["count"], answer["composed"]) == (None, 0, True)
    np.testing.assert_allclose(answer["embedding"], model["walking"], atol=1e-6)
    assert "composed" not in running.get("/words/walk").json()
    distance = running.get("/distance?a=walking&b=walk").json()
    assert distance["composed"] is True
    assert distance["score"] == pytest.approx(model.similarity("walking", "walk"), abs=1e-6)
    assert "composed" not in running.get("/distance?a=talk&b=walk").json()


def test_texts_of_unknown_words(running: Served, model: Embeddings) -> None:
    answer = running.post("/embed-doc", {"text": "walking singing", "explain": True}).json()
    assert (answer["composed"], answer["known"], answer["coverage"], answer["explain"]) == (True, 0, 0, [])
    np.testing.assert_allclose(answer["embedding"], model.infer(["walking singing"])[0], atol=1e-6)
    assert "composed" not in running.post("/embed-doc", {"text": "walking walk"}).json()
    first, second = running.post("/embed-doc", {"texts": ["walking", "?!"]}).json()["results"]
    assert (first["status"], first["composed"], second["status"]) == (200, True, 422)
    for query in ({"text": "walking"}, {"word": "walking"}, {"word": "walking", "target": "words"}):
        found = running.post("/search", query).json()
        assert (found["composed"], bool(found["neighbors"])) == (True, True), query
    assert "composed" not in running.post("/search", {"text": "walk"}).json()
    assert running.post("/search", {"text": "walking", "mode": "vector"}).json()["composed"] is True
    assert running.put("new", "walking").json()["composed"] is True
    assert running.post("/search", {"text": "walking", "k": 1}).json()["neighbors"][0]["id"] == "new"
    assert "composed" not in running.put("known", "walking walk").json()
    operations = [{"op": "put", "id": "a", "text": "singing"}, {"op": "put", "id": "b", "text": "song"}]
    marked, unmarked = running.post("/documents:batch", {"operations": operations}).json()["results"]
    assert (marked["composed"], "composed" in unmarked) == (True, False)


def test_openai_s_client_shows_which_vectors_are_composed(running: Served, model: Embeddings) -> None:
    texts = ["walking singing", "walk", "walking walk"]  # known words alone make the third
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
        for encoding in ("base64", "float"):
            made = client.embeddings.create(input=texts, model="m", encoding_format=encoding)
            assert [getattr(item, "composed", None) for item in made.data] == [True, None, None]
        np.testing.assert_allclose([item.embedding for item in made.data], model.infer(texts), atol=1e-6)
        with pytest.raises(openai.UnprocessableEntityError, match="input 1: the text holds no word at all"):
            client.embeddings.create(input=["walking", "?!"], model="m")


def test_the_document_requires_no_member_that_is_left_out(running: Served) -> None:
    schemas = json.loads(OPENAPI_FILE.read_text(encoding="utf-8"))["components"]["schemas"]
    texts = {"input": ["walking", "walk"], "model": "m"}
    for name, answer in (
        ("EmbedAnswer", running.post("/embed-doc", {"text": "walk"}).json()),
        ("EmbeddedItem", running.post("/embed-doc", {"texts": ["walk"]}).json()["results"][0]),
        ("SimilarAnswer", running.get("/similar?word=walk").json()),
        ("WordAnswer", running.get("/words/walk").json()),
        ("Distance", running.get("/distance?a=walk&b=talk").json()),
        ("SearchAnswer", running.post("/search", {"text": "walk"}).json()),
        ("DocumentWritten", running.put("written", "walk").json()),
        *(("OpenAIVector", item) for item in running.post("/v1/embeddings", texts).json()["data"]),
    ):
        assert set(schemas[name]["required"]) <= set(answer) <= set(schemas[name]["properties"]), name
