"""Services that only read: they follow the service that writes to the same documents file."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import time
from pathlib import Path

import pytest
from serving import Served, Starter, make_model, run_cli, wait_for

from jose_embed.model.embeddings import Embeddings

Model = tuple[Path, Embeddings]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    make_model(tmp_path / "own.jose", n_words=300)
    return tmp_path / "own.jose"


def found(served: Served, text: str = "king") -> dict[str, float]:
    answer = served.post("/search", {"text": text, "k": 1_000, "source": "added"})
    assert answer.status_code == 200, answer.text
    return {hit["id"]: hit["score"] for hit in answer.json()["neighbors"]}


def test_a_replica_follows_writes(own: Path, starter: Starter) -> None:
    writer = starter(own)
    writer.put("before", "king")
    replica = starter(own, "--read-only")
    assert set(found(replica)) == {"before"}
    writer.put("a", "king w10")
    wait_for(lambda: "a" in found(replica))
    score = found(replica)["a"]
    writer.put("a", "queen w20")
    wait_for(lambda: found(replica)["a"] != score)
    assert found(replica) == found(writer)
    assert replica.get("/documents/a").json()["text"] == "queen w20"
    writer.client.delete("/documents/before")
    wait_for(lambda: "before" not in found(replica))
    lines = "".join(json.dumps({"id": f"d{i}", "text": f"w{i % 200 + 4}"}) + "\n" for i in range(5_000))
    writer.client.post("/documents:import", content=lines, headers={"content-type": "application/x-ndjson"})
    wait_for(lambda: replica.get("/info").json()["documents"]["searchable"] == 5_001)
    writer.post("/documents:delete", {"all": True})
    wait_for(lambda: not found(replica))
    facts = replica.get("/info").json()["documents"]
    assert (facts["stored"], facts["searchable"], facts["other_model"]) == (0, 0, False)
    wait_for(lambda: replica.get("/info").json()["documents"]["behind_seconds"] < 5)
    figures = replica.get("/metrics").text
    assert "jose_replica_other_model 0.0" in figures
    assert "jose_replica_behind_seconds" in figures
    assert "jose_replica" not in writer.get("/metrics").text
    assert replica.put("b", "king").json()["type"] == "/problems#read-only"
    wait_for(lambda: replica.get("/readyz").json()["warnings"] == [])
    assert replica.stop() == 0
    assert writer.stop() == 0


def test_a_replica_follows_the_model(own: Path, starter: Starter) -> None:
    writer = starter(own)
    writer.put("a", "king w10")
    replica = starter(own, "--read-only")
    new = make_model(own, n_words=300, dim=12, seed=9, overwrite=True)
    time.sleep(1.0)
    assert replica.get("/info").json()["model"]["id"] != new.id, "not before the writer"
    assert writer.post("/admin/reload?wait=3600").status_code == 200
    wait_for(lambda: replica.get("/info").json()["model"]["id"] == new.id)
    wait_for(lambda: found(replica) == found(writer))
    writer.put("b", "queen w20")
    wait_for(lambda: "b" in found(replica))
    assert replica.get("/info").json()["documents"]["other_model"] is False
    assert replica.stop() == 0


def test_a_replica_of_another_model_says_so(own: Path, tmp_path: Path, starter: Starter) -> None:
    """Its directory is a copy that nobody has renewed: it makes the vectors of the new documents by itself."""
    writer = starter(own, "--documents", str(tmp_path / "d.sqlite3"))
    shutil.copytree(own, tmp_path / "copy.jose")
    replica = starter(tmp_path / "copy.jose", "--read-only", "--documents", str(tmp_path / "d.sqlite3"))
    new = make_model(own, n_words=300, dim=12, seed=9, overwrite=True)
    assert writer.post("/admin/reload?wait=3600").status_code == 200
    wait_for(lambda: replica.get("/info").json()["documents"]["other_model"])
    writer.put("a", "king w10")
    wait_for(lambda: "a" in found(replica))
    assert any(new.id in warning for warning in replica.get("/readyz").json()["warnings"])
    assert "jose_replica_other_model 1.0" in replica.get("/metrics").text
    shutil.rmtree(tmp_path / "copy.jose")
    shutil.copytree(own, tmp_path / "copy.jose")
    wait_for(lambda: replica.get("/info").json()["model"]["id"] == new.id)
    wait_for(lambda: found(replica) == found(writer))


def test_a_replica_may_be_there_before_the_writer_and_after_it(own: Path, starter: Starter) -> None:
    replica = starter(own, "--read-only")
    assert found(replica) == {}
    writer = starter(own)
    writer.put("a", "king")
    wait_for(lambda: "a" in found(replica))
    folder = writer.post("/admin/snapshot?wait=3600").json()["result"]["path"]
    writer.process.kill()
    writer.process.wait()
    assert set(found(replica)) == {"a"}
    writer = starter(own)
    writer.put("b", "king")
    wait_for(lambda: set(found(replica)) == {"a", "b"})
    writer.stop()
    documents = str(own.with_name("own.documents.sqlite3"))
    assert run_cli("restore", folder, "--documents", documents, "--overwrite").returncode == 0
    wait_for(lambda: set(found(replica)) == {"a"})
    writer = starter(own)
    writer.put("c", "king")
    wait_for(lambda: set(found(replica)) == {"a", "c"})
    assert replica.get("/readyz").status_code == 200


def test_without_a_writer_the_directory_decides(own: Path, starter: Starter) -> None:
    replica = starter(own, "--read-only")
    whole = (own / "manifest.json").read_bytes()
    (own / "broken.json").write_text("{")
    (own / "broken.json").replace(own / "manifest.json")  # in one step: a refusal for each state that is seen
    wait_for(lambda: 'jose_reloads_total{outcome="refused"} 1.0' in replica.get("/metrics").text)
    time.sleep(1.0)
    assert 'jose_reloads_total{outcome="refused"} 1.0' in replica.get("/metrics").text, "not again and again"
    (own / "manifest.json").write_bytes(whole)
    new = make_model(own, n_words=300, seed=9, overwrite=True)
    wait_for(lambda: replica.get("/info").json()["model"]["id"] == new.id)


def test_a_replica_that_cannot_read_says_how_far_it_is_behind(own: Path, starter: Starter) -> None:
    writer = starter(own)
    writer.put("a", "king")
    assert writer.stop() == 0
    replica = starter(own, "--read-only")
    documents = own.with_name("own.documents.sqlite3")
    with contextlib.closing(sqlite3.connect(documents, isolation_level=None)) as database:
        database.execute("ALTER TABLE counter RENAME TO lost")
    database.close()
    wait_for(lambda: replica.get("/info").json()["documents"]["behind_seconds"] > 5)
    said = "behind the documents file: own.documents.sqlite3 cannot be read"
    wait_for(lambda: any(said in warning for warning in replica.get("/readyz").json()["warnings"]))
    assert set(found(replica)) == {"a"}
    with contextlib.closing(sqlite3.connect(documents, isolation_level=None)) as database:
        database.execute("ALTER TABLE lost RENAME TO counter")
    database.close()
    wait_for(lambda: replica.get("/readyz").json()["warnings"] == [])
    assert not [line for line in replica.lines if "Traceback" in line]
