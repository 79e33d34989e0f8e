"""The page's lines for libraries without an adapter, with these libraries: ``make test-adapters``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import page
import planted
import pytest

import jose_embed
from jose_embed import Embeddings

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

TEXTS, TOPICS = planted.corpus(400)
QUESTION = "t2w1 t2w2 t2w3"


@pytest.fixture(scope="module")
def model() -> Embeddings:
    return jose_embed.train(documents=TEXTS, dim=16, epochs=10, workers=1, progress=False)


def same_topic(texts: list[str]) -> bool:
    """Whether all texts are of the question's topic."""
    return len(texts) == 3 and all(TOPICS[TEXTS.index(text)] == 2 for text in texts)


def pure(topics: list[list[str]]) -> bool:
    """Whether the first words of topics are each of one planted topic, and all four topics are found."""
    owners = [{word[:2] for word in words[:4] if word[0] == "t"} for words in topics]
    return all(len(owner) == 1 for owner in owners) and len(set().union(*owners)) == planted.TOPICS


CHECKS: dict[str, tuple[str, Callable[[dict[str, Any]], bool]]] = {
    "Top2Vec": ("top2vec", lambda names: pure([list(words) for words in names["words"]])),
    "KeyBERT": ("keybert", lambda names: all(word in TEXTS[0].split() for word, _ in names["keywords"])),
    "turftopic": (
        "turftopic",
        lambda names: pure([[str(word) for word, _ in words] for _, words in names["program"].get_topics(4)]),
    ),
    "LangChain": ("langchain_core", lambda names: same_topic([found.page_content for found in names["found"]])),
    "LlamaIndex": ("llama_index.core", lambda names: same_topic([found.text for found in names["found"]])),
    "Haystack": ("haystack", lambda names: same_topic([found.content for found in names["found"]])),
    "qdrant": ("qdrant_client", lambda names: same_topic([found.payload["text"] for found in names["found"]])),
    "LanceDB": ("lancedb", lambda names: same_topic([found["text"] for found in names["found"]])),
    "DuckDB": ("duckdb", lambda names: same_topic([TEXTS[int(id) - 1] for id, _ in names["found"]])),
}


@pytest.mark.parametrize("title", CHECKS)
def test_lines(title: str, model: Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, is_right = CHECKS[title]
    pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    names = page.run_section(title, model=model, texts=TEXTS, question=QUESTION, folder=str(tmp_path))
    assert is_right(names)
    if "found" in names and title != "LlamaIndex":
        best = model.similar_documents(text=QUESTION, k=3)
        scores = {
            "qdrant": lambda: [found.score for found in names["found"]],
            "Haystack": lambda: [found.score for found in names["found"]],
            "LanceDB": lambda: [1 - found["_distance"] for found in names["found"]],
            "DuckDB": lambda: [score for _, score in names["found"]],
        }
        if title in scores:
            np.testing.assert_allclose(scores[title](), [found.score for found in best], atol=1e-5)
