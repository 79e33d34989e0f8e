"""The embedder for BERTopic, with BERTopic: ``make test-adapters``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import page
import planted
import pytest

import jose_embed
from jose_embed import ConfigError, Embeddings
from jose_embed.adapters.bertopic import embedder
from jose_embed.adapters.static import export_static

bertopic = pytest.importorskip("bertopic")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

BERTopic: Any = bertopic.BERTopic
TEXTS, TOPICS = planted.corpus(400)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Embeddings:
    path = tmp_path_factory.mktemp("bertopic") / "m.jose"
    jose_embed.train(documents=TEXTS, dim=16, epochs=10, workers=1, progress=False).save(path)
    return jose_embed.load(path)


def small(embedding_model: Any) -> Any:
    """A BERTopic of four topics, without UMAP's minutes of compilation."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    clusters = KMeans(planted.TOPICS, random_state=0)
    return BERTopic(embedding_model=embedding_model, umap_model=PCA(5), hdbscan_model=clusters)


def check(found: Any) -> None:
    """Words and documents of a planted topic are in one topic."""
    of_texts, _ = found.transform(TEXTS)
    for topic in range(planted.TOPICS):
        own = np.array(of_texts)[topic == TOPICS]
        most = np.bincount(own).argmax()
        assert (own == most).mean() > 0.95
        assert found.find_topics(f"t{topic}w1", top_n=1)[0] == [most]


def test_the_page(model: Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Small:
        """BERTopic with the smaller steps."""

        load = BERTopic.load

        def __new__(cls, embedding_model: Any) -> Any:
            return small(embedding_model)

    monkeypatch.setattr(bertopic, "BERTopic", Small)
    names = page.run_section("BERTopic", model=model, texts=TEXTS, folder=str(tmp_path / "topics"))
    check(names["topic_model"])


@pytest.mark.parametrize("serialization", ["safetensors", "pytorch", "pickle"])
def test_saved_and_loaded(model: Embeddings, serialization: str, tmp_path: Path) -> None:
    fitted = small(embedder(model)).fit(TEXTS)
    check(fitted)
    fitted.save(tmp_path / "topics", serialization=serialization)
    given = {} if serialization == "pickle" else {"embedding_model": embedder(model)}
    loaded = BERTopic.load(str(tmp_path / "topics"), **given)
    assert loaded.embedding_model.embed(TEXTS[:3]).tobytes() == model.infer(TEXTS[:3]).tobytes()
    check(loaded)


def test_an_exported_folder_is_loaded_by_its_path(model: Embeddings, tmp_path: Path) -> None:
    export_static(model, tmp_path / "folder", format="sentence-transformers")
    fitted = small(embedder(model)).fit(TEXTS)
    fitted.save(str(tmp_path / "topics"), serialization="safetensors", save_embedding_model=str(tmp_path / "folder"))
    check(BERTopic.load(str(tmp_path / "topics")))


def test_embeddings(model: Embeddings) -> None:
    made = embedder(model)
    assert isinstance(made, bertopic.backend.BaseEmbedder)
    expected = np.concatenate([model.infer(["t0w1"]), np.zeros((2, 16), np.float32)])
    assert made.embed_words(["t0w1", "zzz", ""]).tobytes() == expected.tobytes()
    assert made.embed_documents(np.array(["t0w1", "zzz", ""])).tobytes() == expected.tobytes()
    with pytest.raises(ConfigError, match="str is not a model; give one of jose_embed"):
        embedder("all-MiniLM-L6-v2")  # type: ignore[arg-type]
