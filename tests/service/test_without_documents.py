"""A model that keeps no document vectors: words are answered, and documents that are added are found."""

from __future__ import annotations

from pathlib import Path

from serving import Starter

import jose_embed


def test_words_and_added_documents_are_enough(tmp_path: Path, starter: Starter) -> None:
    texts = [f"king queen man woman w{i} w{i + 1}" for i in range(40)]
    model = jose_embed.train(documents=texts, min_count=1, dim=16, epochs=1, workers=1, doc_vectors="none")
    model.save(tmp_path / "words.jose")
    served = starter(tmp_path / "words.jose", "--documents", str(tmp_path / "documents.sqlite3"))
    assert [hit["word"] for hit in served.get("/similar?word=king&k=3").json()["neighbors"]] == [
        neighbor.word for neighbor in model.most_similar("king", k=3)
    ]
    for source in ("trained", "all"):
        answer = served.post("/search", {"word": "king", "k": 5, "source": source})
        assert (answer.status_code, answer.json()["neighbors"]) == (200, [])
    assert served.post("/search", {"document_id": "1", "source": "trained"}).status_code == 404
    assert served.put("one", "king queen").status_code == 201
    (hit,) = served.post("/search", {"word": "king", "k": 5}).json()["neighbors"]
    assert (hit["id"], hit["source"]) == ("one", "added")
    assert served.stop() == 0
