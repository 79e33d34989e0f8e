"""Models that are replaced on disk: good ones are taken, damaged ones are refused by name while the old one goes on."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import Served, Starter, make_model, run_cli, wait_for

from jose_embed.model.embeddings import Embeddings


@pytest.fixture
def own(tmp_path: Path, starter: Starter) -> tuple[Path, Embeddings, Served]:
    """A model that the test may damage, and a service of it with three documents."""
    path = tmp_path / "own.jose"
    model = make_model(path, n_words=500)
    running = starter(path)
    for id, text in (("one", "king w10"), ("two", "queen w20"), ("three", "man w499")):
        assert running.put(id, text).status_code == 201
    return path, model, running


def flip(path: Path, at: int) -> None:
    """Turns one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def damage_bytes(path: Path) -> str:
    flip(path / "center_vectors.npy", 5_000)
    return "center_vectors.npy"


def damage_missing(path: Path) -> str:
    (path / "vocabulary.tsv").unlink()
    return "vocabulary.tsv"


def damage_cut(path: Path) -> str:
    data = (path / "doc_vectors.npy").read_bytes()
    (path / "doc_vectors.npy").write_bytes(data[:-10])
    return "doc_vectors.npy"


def damage_newer(path: Path) -> str:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["format_version"] = 99
    (path / "manifest.json").write_text(json.dumps(manifest))
    return "99"


def damage_manifest(path: Path) -> str:
    (path / "manifest.json").write_text("{")
    return "manifest.json"


def damage_all(path: Path) -> str:
    path.rename(path.with_name("elsewhere.jose"))
    return "own.jose"


DAMAGES = [damage_bytes, damage_missing, damage_cut, damage_newer, damage_manifest, damage_all]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_refused_by_name_and_the_old_one_goes_on(
    own: tuple[Path, Embeddings, Served], damage: Any
) -> None:
    path, model, running = own
    before = running.get("/similar?word=king").content
    named = damage(path)
    refused = running.post("/admin/reload?wait=3600")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems#model-refused")
    assert named in refused.json()["detail"]
    assert running.get("/similar?word=king").content == before
    assert running.get("/info").json()["model"]["id"] == model.id
    assert running.get("/readyz").status_code == 200
    running.stop()
    done = run_cli(str(path), "--port", "0")
    assert (done.returncode, named in done.stderr.splitlines()[-1]) == (2, True), done.stderr
    assert "Traceback" not in done.stderr


def test_the_same_model_again(own: tuple[Path, Embeddings, Served]) -> None:
    _, model, running = own
    answer = running.post("/admin/reload?wait=3600").json()["result"]
    assert (answer["changed"], answer["documents"], answer["model"]["id"]) == (False, 0, model.id)
    assert len(running.post("/search", {"text": "king w10", "source": "added"}).json()["neighbors"]) == 3


def test_another_model_makes_vectors_of_the_stored_texts_again(own: tuple[Path, Embeddings, Served]) -> None:
    path, old, running = own
    new = make_model(path, n_words=400, dim=12, seed=9, overwrite=True)  # another dimension, and no w499
    answer = running.post("/admin/reload?wait=3600").json()["result"]
    assert (answer["changed"], answer["documents"]) == (True, 3)
    assert (answer["model"]["id"], answer["previous"]["id"]) == (new.id, old.id)
    check_new(running, new)
    assert running.post("/embed-doc", {"text": "w450"}).status_code == 422
    assert running.stop() == 0


def check_new(running: Served, new: Embeddings) -> None:
    """All answers are the new model's, those about stored documents too."""
    found = running.post("/search", {"text": "queen w20", "k": 3, "source": "added"}).json()["neighbors"]
    expected = {id: float(new.infer([text])[0] @ new.infer(["queen w20"])[0]) for id, text in
                (("one", "king w10"), ("two", "queen w20"), ("three", "man"))}  # fmt: skip
    assert {hit["id"]: pytest.approx(hit["score"], abs=1e-5) for hit in found} == expected
    assert [neighbor["word"] for neighbor in running.get("/similar?word=king&k=5").json()["neighbors"]] == [
        neighbor.word for neighbor in new.most_similar("king", k=5)
    ]


def test_another_model_at_start(own: tuple[Path, Embeddings, Served], starter: Starter) -> None:
    path, _, running = own
    running.stop()
    new = make_model(path, n_words=400, dim=12, seed=9, overwrite=True)
    again = starter(path)
    check_new(again, new)
    # A document without a known word under this model stays stored, and comes back with a model that knows it.
    assert again.put("only", "w399").status_code == 201
    again.stop()
    make_model(path, n_words=300, seed=3, overwrite=True)
    third = starter(path)
    assert third.get("/documents/only").json()["searchable"] is False
    assert third.post("/search", {"document_id": "only"}).json()["type"] == "/problems#not-searchable"
    assert "only" not in {hit["id"] for hit in third.post("/search", {"word": "king", "k": 1_000}).json()["neighbors"]}
    assert third.get("/info").json()["documents"] == {"stored": 4, "searchable": 3, "segments": 1, "read_only": False}
    third.stop()
    make_model(path, n_words=500, seed=4, overwrite=True)
    assert starter(path).get("/documents/only").json()["searchable"] is True


def test_reload_under_load_fails_no_request_and_mixes_no_models(own: tuple[Path, Embeddings, Served]) -> None:
    path, old, running = own
    models = [old, make_model(path.with_name("b.jose"), n_words=500, dim=24, seed=50)]
    texts = [" ".join(f"w{i + j}" for j in range(5)) for i in range(4, 60)]
    expected = [{text: model.infer([text])[0] for text in texts} for model in models]
    by_id = {model.id: known for model, known in zip(models, expected, strict=True)}
    failures: list[str] = []
    done = [0]
    stop = threading.Event()

    def ask(seed: int) -> None:
        random = np.random.default_rng(seed)
        n = 0
        while not stop.is_set():
            n += 1
            text = texts[int(random.integers(len(texts)))]
            id = f"load-{seed}-{int(random.integers(20))}"
            kind = n % 4
            if kind == 0:
                answer = running.put(id, text)
                ok = answer.status_code in (200, 201)
            elif kind == 1:
                answer = running.post("/embed-doc", {"text": text})
                body = answer.json()
                vector = np.array(body.get("embedding"), np.float32)
                ok = answer.status_code == 200 and np.array_equal(vector, by_id[body["model"]["id"]][text])
            elif kind == 2:
                answer = running.get(f"/similar?word=w{int(random.integers(4, 500))}")
                ok = answer.status_code == 200
            else:
                answer = running.post("/search", {"text": text, "k": 50})
                scores = [hit["score"] for hit in answer.json()["neighbors"]] if answer.status_code == 200 else []
                ok = answer.status_code == 200 and scores == sorted(scores, reverse=True)
            if not ok:
                failures.append(f"{answer.status_code} {answer.text[:200]}")
            done[0] += 1

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for turn in range(6):
        wait_for(lambda least=10 * (turn + 1): done[0] >= least)
        models[1 - turn % 2].save(path, overwrite=True)
        answer = running.post("/admin/reload?wait=3600")
        assert answer.status_code == 200, answer.text
        assert answer.json()["result"]["changed"] is True
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures, failures[:5]
    # Every stored text now has the vector of the present model, and none of another.
    present = by_id[running.get("/info").json()["model"]["id"]]
    for id in [
        item["id"]
        for item in running.get("/documents?limit=1000").json()["documents"]
        if item["id"].startswith("load-")
    ]:
        text = running.get(f"/documents/{id}").json()["text"]
        hits = running.post("/search", {"vector": present[text].tolist(), "k": 1_000, "source": "added"}).json()[
            "neighbors"
        ]
        assert {hit["id"]: hit["score"] for hit in hits}[id] == pytest.approx(1.0, abs=1e-6)


def test_one_reload_at_a_time(own: tuple[Path, Embeddings, Served]) -> None:
    running = own[2]
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(running.post("/admin/reload?wait=3600").status_code))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 409}
    assert 200 in statuses
