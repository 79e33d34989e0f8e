"""Words in another spelling than the vocabulary's, and texts that a tokenizer of one's own splits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from serving import Served, start, unit_rows

from jose_embed.model.embeddings import Embeddings

OWN = "def split(text):\n    return text.lower().split('-')\n"


def model(path: Path, tokenizer: str) -> Path:
    """A saved model of a few words."""
    words = ["café", "crème", "l'eau", "king"]
    Embeddings.from_arrays(
        words=words,
        counts=np.arange(4, 0, -1),
        center_vectors=unit_rows(4, 8, 1),
        context_vectors=unit_rows(4, 8, 2),
        tokenizer=tokenizer,
        text={"normalisation": "nfc"},
    ).save(path)
    return path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("spellings")
    served = start(model(folder / "m.jose", "words"))
    yield served
    assert served.stop() == 0, "".join(served.lines)


def test_answers_say_what_was_asked_and_what_matched(running: Served) -> None:
    cafe = {"asked": "CAFE\u0301", "matched": "café"}
    water = {"asked": "L\u2019EAU", "matched": "l'eau"}
    assert running.get("/similar", params={"word": "CAFE\u0301"}).json()["respelled"] == [cafe]
    assert "respelled" not in running.get("/similar", params={"word": "café"}).json()
    assert running.get("/words/CAFE\u0301").json()["respelled"] == [cafe]
    distance = running.get("/distance", params={"a": "L\u2019EAU", "b": "CAFE\u0301"}).json()
    assert distance["respelled"] == [water, cafe]
    found = running.get("/words", params={"prefix": "CAFE\u0301"}).json()
    assert ([entry["word"] for entry in found["words"]], found["respelled"]) == (["café"], [cafe])
    assert "respelled" not in running.get("/words", params={"prefix": "X"}).json()
    batch = {"queries": [{"positive": ["CAFE\u0301", "king"], "negative": ["L\u2019EAU"]}, {"word": "king"}]}
    first, second = running.post("/similar", batch).json()["results"]
    assert first["respelled"] == [cafe, water]
    assert "respelled" not in second
    answer = running.post("/search", {"word": "CAFE\u0301", "target": "words"}).json()
    assert answer["respelled"] == [cafe]
    assert running.get("/similar", params={"word": "thé"}).status_code == 404


def test_a_tokenizer_of_ones_own_has_a_lane(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    site.joinpath("own_lane.py").write_text(OWN)
    path = model(tmp_path / "m.jose", "own_lane:split")
    paths = f"{site}:{Path(__file__).parents[3]}"
    served = start(path, environment={"PYTHONPATH": paths, "JOSE_TOKENIZERS": "own_lane:split"})
    made = served.post("/embed-doc", {"texts": ["King-Café", "x" * 50_000, "king-" * 9_000]}).json()["results"]
    assert [item["status"] for item in made] == [200, 422, 200]
    assert made[0]["tokens"] == 2
    metrics = served.get("/metrics").text
    (jobs,) = [line for line in metrics.splitlines() if line.startswith("jose_segment_jobs_total")]
    assert float(jobs.split()[1]) >= 3
    assert served.stop() == 0, "".join(served.lines)
