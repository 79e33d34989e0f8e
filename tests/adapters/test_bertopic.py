"""The lines of the page for BERTopic, with BERTopic: ``make test-adapters``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest

import jose_embed

PAGE = Path(__file__).parents[2] / "jose_embed" / "adapters" / "README.md"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_words_and_documents_share_the_space_also_after_loading(tmp_path: Path) -> None:
    library = pytest.importorskip("bertopic")
    section = PAGE.read_text(encoding="utf-8").split("## BERTopic")[1].split("\n## ")[0]
    texts, topics = planted.corpus(160)
    model = jose_embed.train(documents=texts, dim=16, epochs=10, workers=1, progress=False)
    names: dict[str, Any] = {"model": model, "texts": texts, "folder": tmp_path / "topics"}
    for block in re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL):
        exec(block, names)
    found = names["topic_model"]
    assert isinstance(found, library.BERTopic)
    assert found.embedding_model.embed(texts[:3]).tobytes() == model.infer(texts[:3]).tobytes()
    of_texts, _ = found.transform(texts)
    for topic in range(planted.TOPICS):
        own = np.array(of_texts)[topics == topic]
        assert (own == np.bincount(own).argmax()).mean() > 0.95
        (nearest,), _ = found.find_topics(f"t{topic}w1", top_n=1)
        assert nearest == np.bincount(own).argmax()
