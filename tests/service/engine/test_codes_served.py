"""A service with many documents: search by codes through its whole life, against exact search over the same vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import Served, Starter, run_cli, wait_for

import jose_embed
from jose_embed.model.embeddings import Embeddings
from service.calls.question import Documents
from service.search.index import IndexOptions, Reach
from service.search.library import Library
from service.search.queries import Snapshot
from service.search.served_model import ServedModel

N_TRAINED = 2_200
N_ADDED = 2_300
ENVIRONMENT = {"JOSE_EXACT_ROWS": "2000"}
K = 10


def texts(n: int, seed: int) -> list[str]:
    """Texts of one of forty topics each, with a word of their own topic's hundred more or less."""
    random = np.random.default_rng(seed)
    topics = random.integers(0, 40, n)
    words = random.integers(0, 12, (n, 8))
    return [" ".join(f"t{topic}w{word}" for word in row) for topic, row in zip(topics.tolist(), words, strict=True)]


def trained(path: Path, seed: int) -> Embeddings:
    """A saved model that keeps texts and fields."""
    lines = [json.dumps({"text": text, "stars": i % 4}) for i, text in enumerate(texts(N_TRAINED, 1))]
    path.with_suffix(".jsonl").write_text("\n".join(lines))
    made = jose_embed.train(
        path.with_suffix(".jsonl"),
        keep_text=True,
        keep_fields=["stars"],
        dim=16,
        epochs=3,
        min_count=1,
        workers=1,
        seed=seed,
    )
    made.save(path, overwrite=True)
    return jose_embed.load(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Embeddings]:
    path = tmp_path_factory.mktemp("codes") / "m.jose"
    return path, trained(path, 1)


def until_coded(served: Served, n: int) -> None:
    """Waits until so many documents are searched by codes."""
    wait_for(lambda: sum(one["rows"] for one in indexes(served) if one["kind"] == "ivf") >= n)


def indexes(served: Served) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = served.get("/info").json()["index"]["documents"]
    return found


def ask(served: Served, text: str, **more: Any) -> list[dict[str, Any]]:
    # Without a mode it is hybrid, but for a bound on the cosine, or while words are being read.
    plain = {} if "mode" in more else {"min_score": -1.0}
    answer = served.post("/search", {"text": text, "k": K, **plain, **more})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["neighbors"]
    return found


def recall(served: Served, exact: Served, **more: Any) -> float:
    """The share of the answers of a service with exact search that the other gives, too."""
    n = 0
    questions = texts(15, 5)
    for text in questions:
        found, true = ask(served, text, **more), ask(exact, text, **more)
        assert len(found) == len(true) == K
        # Of equal scores another document may be found.
        n += sum(one["score"] >= true[-1]["score"] - 1e-6 for one in found)
    return n / (K * len(questions))


def put_all(served: Served, first: int, n: int, seed: int) -> None:
    lines = [
        json.dumps({"id": f"a{first + i}", "text": text, "fields": {"stars": i % 4}})
        for i, text in enumerate(texts(n, seed))
    ]
    answer = served.client.post(
        "/documents:import", content="\n".join(lines), headers={"content-type": "application/x-ndjson"}
    )
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_no_document_with_enough_of_the_words_is_missed(
    model: tuple[Path, Embeddings], monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """With hardly any candidates from the codes: only documents nearer than those may be missing."""
    served = ServedModel.load(model[0], IndexOptions(exact_rows=2_000), 0, verify=False)
    search, nothing = served.embeddings.document_search, np.empty(0, np.bool_)
    may = served.embeddings.known_documents & (np.random.default_rng(7).random(N_TRAINED) < share)
    documents = Documents(Snapshot(served, Library(served.dim, IndexOptions())), None, may, nothing)
    questions = [search.question(text) for text in [*texts(15, 5), "t1w1 t2w2 t3w3 t4w4", "t5w1", "t6w2 t6w2 t7w1"]]
    exact = [dict(documents.best(question, K, "hybrid")) for question in questions]
    served.documents.index.add_codes(bool)
    monkeypatch.setattr("service.calls.question.HYBRID", Reach(1, 0.0))
    n_compared = n_candidates = 0
    for question, true in zip(questions, exact, strict=True):
        assert question.vector is not None
        near = documents._nearest(question.vector, K, may)
        assert near is not None
        cosines = search.cosines(question.vector)
        found = dict(documents.best(question, K, "hybrid"))
        assert may[[*found]].all()
        if cosines[near].max() < cosines[may].max():
            continue  # other scores
        n_compared += 1
        assert all(found[place] == pytest.approx(true[place], abs=1e-6) for place in found if place in true)
        floor = np.sort(cosines[near])[-K]
        worst = min(found.values())
        assert all(
            cosines[place] > floor - 1e-6
            for place, score in true.items()
            if score > worst + 1e-6 and place not in found
        )
        n_candidates += len(set(found) - set(near.tolist()))
    assert n_compared > 5
    assert n_candidates > 0, "some answers are found by their words only"


def test_the_best_by_words_is_found_where_the_codes_miss_the_nearest(
    model: tuple[Path, Embeddings], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = ServedModel.load(model[0], IndexOptions(exact_rows=2_000), 0, verify=False)
    search = served.embeddings.document_search
    may = served.embeddings.known_documents
    documents = Documents(Snapshot(served, Library(served.dim, IndexOptions())), None, may, np.empty(0, np.bool_))
    for text in texts(15, 5):
        question = search.question(text)
        ((place, score),) = documents.best(question, 1, "hybrid")
        assert question.vector is not None
        far = np.sort(np.argsort(np.where(may, search.cosines(question.vector), 2))[:10])
        by_words = documents.best(question, 1, "words")[0][0]
        with monkeypatch.context() as patched:
            patched.setattr(Documents, "_nearest", lambda *_, far=far: far)
            found = dict(documents.best(question, 1, "hybrid"))
        assert place in found or by_words in found
        assert max(found.values()) >= score - 0.26  # a cosine is a quarter of a score


def test_many_documents_are_found_by_codes(model: tuple[Path, Embeddings], tmp_path: Path, starter: Starter) -> None:
    path, _ = model
    served = starter(path, "--documents", str(tmp_path / "d.sqlite3"), environment=ENVIRONMENT)
    exact = starter(path, "--index", "exact", "--documents", str(tmp_path / "e.sqlite3"), environment=ENVIRONMENT)
    until_coded(served, N_TRAINED)
    assert recall(served, exact) >= 0.97
    for one in (served, exact):
        put_all(one, 0, N_ADDED, 2)
    until_coded(served, N_TRAINED + 2_000)
    assert [one["kind"] for one in indexes(exact)] == ["exact"] * len(indexes(exact))
    assert recall(served, exact) >= 0.97
    assert recall(served, exact, source="added") >= 0.97
    assert recall(served, exact, filter="stars in [1, 2]") >= 0.97
    assert recall(served, exact, filter="stars = 1", source="trained") >= 0.97
    for mode in ("vector", "hybrid"):
        assert recall(served, exact, mode=mode) >= 0.97
        assert recall(served, exact, mode=mode, filter="stars >= 1") >= 0.97
        assert recall(served, exact, mode=mode, source="added", filter="stars = 3") >= 0.97
    facets = served.post("/search", {"text": "t1w1", "mode": "hybrid", "facets": ["stars"]}).json()["facets"]
    assert sum(value["count"] for value in facets["stars"]) == N_TRAINED + N_ADDED
    info = served.get("/info").json()["index"]
    assert (info["kind"], info["searchable_trained_documents"]) == ("exact", N_TRAINED)
    assert 0.99 <= info["recall_at_10"] <= 1.0
    told = lambda: f"jose_documents_by_codes {float(sum(one['rows'] for one in indexes(served)))}"  # noqa: E731
    wait_for(lambda: told() in served.get("/metrics").text)
    wait_for(lambda: any("documents are searched by codes of" in line for line in served.lines))
    # Added, replaced, deleted: right at once.
    text = texts(1, 9)[0]
    nearest = ask(served, text, source="added")
    assert served.put("new", text).status_code == 201
    assert ask(served, text, source="added")[0]["id"] == "new"
    for one in nearest[:5]:
        assert served.client.delete(f"/documents/{one['id']}").status_code == 204
    assert served.put(nearest[5]["id"], "t39w1 t39w2").status_code == 200
    after = [one["id"] for one in ask(served, text, source="added")]
    assert after[:5] == ["new", *(one["id"] for one in nearest[6:])]
    assert len(after) == K
    # A restart, and one that ends at once.
    assert served.stop() == 0
    assert starter(path, "--documents", str(tmp_path / "d.sqlite3"), environment=ENVIRONMENT).stop() == 0
    served = starter(path, "--documents", str(tmp_path / "d.sqlite3"), environment=ENVIRONMENT)
    replica = starter(path, "--read-only", "--documents", str(tmp_path / "d.sqlite3"), environment=ENVIRONMENT)
    for one in (served, replica):
        until_coded(one, N_TRAINED + N_ADDED - 5)
        assert [hit["id"] for hit in ask(one, text, source="added")] == after


def test_a_snapshot_of_documents_that_are_found_by_codes(
    model: tuple[Path, Embeddings], tmp_path: Path, starter: Starter
) -> None:
    """Codes are not part of a snapshot: after it is restored they are made again, over the documents of its moment."""
    path, _ = model
    served = starter(path, "--documents", str(tmp_path / "d.sqlite3"), environment=ENVIRONMENT)
    put_all(served, 0, N_ADDED, 2)
    until_coded(served, N_TRAINED + 2_000)
    questions = [{}, {"mode": "hybrid"}, {"mode": "vector", "filter": "stars >= 1"}, {"source": "added"}]
    text = texts(1, 9)[0]
    before = [ask(served, text, **more) for more in questions]
    folder = served.post("/admin/snapshot?wait=3600").json()["result"]["path"]
    assert not [item for item in Path(folder).iterdir() if item.name not in ("documents.sqlite3", "snapshot.json")]
    assert served.post("/documents:delete", {"all": True}).json()["deleted"] == N_ADDED
    assert ask(served, text, source="added") == []
    assert served.stop() == 0
    done = run_cli("restore", folder, "--documents", str(tmp_path / "again.sqlite3"))
    assert done.returncode == 0, done.stderr
    again = starter(path, "--documents", str(tmp_path / "again.sqlite3"), environment=ENVIRONMENT)
    until_coded(again, N_TRAINED + N_ADDED)
    for more, found in zip(questions, before, strict=True):
        # Segments that were merged at the start have other codes, so the last of the answers may differ.
        same = [one["score"] for one in ask(again, text, **more)]
        assert sum(score in same for score in (one["score"] for one in found)) >= K - 1
    assert again.get("/info").json()["documents"]["searchable"] == N_ADDED
    assert again.stop() == 0


def test_a_reload_of_another_model(tmp_path: Path, starter: Starter) -> None:
    path = tmp_path / "m.jose"
    trained(path, 1)
    served = starter(path, environment=ENVIRONMENT)
    put_all(served, 0, N_ADDED, 2)
    until_coded(served, N_TRAINED + 2_000)
    model = trained(path, 2)
    assert served.post("/admin/reload?wait=3600").status_code == 200
    assert served.get("/info").json()["model"]["id"] == model.id
    until_coded(served, N_TRAINED + N_ADDED)
    exact = starter(path, "--read-only", "--index", "exact", environment=ENVIRONMENT)
    assert recall(served, exact) >= 0.97
    assert recall(served, exact, source="added") >= 0.97
    assert served.stop() == 0
