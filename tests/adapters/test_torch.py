"""The lines of the page for torch, with torch: ``make test-adapters``."""

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
def test_layers_hold_words_and_make_documents() -> None:
    pytest.importorskip("torch")
    section = PAGE.read_text(encoding="utf-8").split("## torch")[1].split("\n## ")[0]
    texts, _ = planted.corpus(160)
    model = jose_embed.train(documents=texts, dim=16, epochs=3, workers=1, progress=False)
    text = texts[0] + " unknown " + texts[0] + " " + texts[1]
    names: dict[str, Any] = {"model": model, "text": text}
    for block in re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL):
        exec(block, names)
    known = [word for word in model.tokenizer(text) if word in model]
    assert len(known) == len(text.split()) - 1
    assert names["vectors"].numpy().tobytes() == np.stack([model[word] for word in known]).tobytes()
    np.testing.assert_allclose(names["document"].numpy(), model.infer([text])[0], atol=1e-6)
