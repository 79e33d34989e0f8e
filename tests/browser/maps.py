"""Models with a known answer, for tests of the map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jose_embed.model.embeddings import Embeddings
from jose_embed.text.texts import TextStore

THEMES = ("sea", "music", "bread")
#: Texts, ids and values that must stay data.
HOSTILE = (
    "</script><script>window.attacked = 1</script>",
    "<img src=http://example.org/a.png onerror=window.attacked=1>",
    "<!--<script>",
    "\u202eright to left\u202c \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "long" * 400,
    "two\u2028lines\u2029and more",
    "@script@ @parts@ @policy@ ${window.attacked = 1} `a`",
    "&lt;b&gt; &amp; \\u003cscript\\u003e ]]>",
)


def planted_model(
    n: int = 600,
    *,
    dim: int = 24,
    seed: int = 0,
    texts: bool = True,
    words: tuple[str, ...] = (),
    hostile: bool = False,
) -> Embeddings:
    """A model of three themes; document i is about theme i % 3, its id is ``THEME-i``.

    Args:
        n: Documents; every hundredth has no known word.
        dim: At least 6.
        seed: Of the noise.
        texts: Keep texts, and the fields ``theme``, ``year`` and ``title``.
        hostile: Some texts, ids and values are of :data:`HOSTILE`.
    """
    random = np.random.default_rng(seed)
    vocabulary = [f"{theme}{i}" for i in range(12) for theme in THEMES]
    kinds = [i % 3 for i in range(36)]
    center = unit(np.eye(dim)[kinds] + 0.25 * random.standard_normal((len(vocabulary), dim)))
    themes = np.arange(n) % 3
    vectors = unit(np.eye(dim)[themes] + 0.12 * random.standard_normal((n, dim)))
    ids = [f"{THEMES[theme]}-{i}" for i, theme in enumerate(themes)]
    store = None
    if hostile:
        lines = [" ".join(text.split()) for text in HOSTILE]  # an id is one line
        ids[1 : 1 + len(HOSTILE)] = [f"{line} {i}" for i, line in enumerate(lines)]
    if texts:
        store = TextStore.create(fields=("theme", "year", "title"))
        written = [
            f"A text about {THEMES[theme]}, number {i}. It speaks of {THEMES[theme]}{i % 12} and needle{i}."
            for i, theme in enumerate(themes)
        ]
        fields: list[dict[str, Any]] = [
            {"theme": THEMES[theme], "year": 1990 + i % 30, "title": f"title {i}"} for i, theme in enumerate(themes)
        ]
        if hostile:
            for i, text in enumerate(HOSTILE):
                written[i + 1], fields[i + 1] = f"{text} hostile", {"theme": text, "year": 2000, "title": text}
                fields[i + 40]["theme"] = text
        store.append(written, fields, n)
        store.finish()
    return Embeddings.from_arrays(
        words=vocabulary,
        counts=np.arange(len(vocabulary), 0, -1) * 20 + 100,
        center_vectors=center,
        context_vectors=center,
        doc_ids=ids,
        doc_vectors=vectors,
        doc_token_counts=np.where(np.arange(n) % 100 == 99, 0, 9),
        texts=store,
    )


def unit(rows: np.ndarray) -> np.ndarray:
    """The rows with norm 1, in float32."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def large_map(path: Path, n: int, *, seed: int = 0) -> Path:
    """The map of n documents without texts, at random places instead of a layout."""
    from jose_embed.analysis.map import DocumentMap
    from jose_embed.analysis.places import labels_of
    from jose_embed.analysis.product_codes import ProductCodes
    from jose_embed.analysis.topics import topics

    random = np.random.default_rng(seed)
    small = planted_model(3_000, texts=False)
    find = topics(small, 3)
    model = planted_model(n, texts=False)
    rows = np.flatnonzero(model.known_documents)
    object.__setattr__(find, "doc_topics", np.where(model.known_documents, np.arange(n) % 3, -1))
    angle = (np.arange(n)[rows] % 3) * 2.1 + 0.7 * random.standard_normal(len(rows))
    radius = 0.15 + 0.3 * random.random(len(rows))
    positions = np.float32(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1))
    vectors = model.doc_vectors[rows]
    drawn = DocumentMap(
        model, find, rows, positions, len(rows), 0.4, 0.5, labels_of(model, find, rows, vectors, positions),
        ProductCodes(vectors, model.word_directions.mean), {}, 0,
    )  # fmt: skip
    return drawn.save(path, overwrite=True)
