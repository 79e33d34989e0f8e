"""A corpus with a known answer: topics with words of their own, and words that every topic uses."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.model.embeddings import Embeddings

TOPICS, WORDS, COMMON = 4, 25, 10


class Planted(NamedTuple):
    """Documents and the topic of each."""

    texts: list[str]
    topics: npt.NDArray[np.int64]


def corpus(n_documents: int = 320, *, n_words: int = 24, seed: int = 0, in_order: bool = False) -> Planted:
    """Documents of one topic each, of words drawn from 25 of the topic and, one in five, from 10 common ones."""
    random = np.random.default_rng(seed)
    topics = np.arange(n_documents) * TOPICS // n_documents
    if not in_order:
        topics = random.permutation(topics)
    texts = []
    for topic in topics:
        own = random.integers(0, WORDS, n_words)
        common = random.integers(0, COMMON, n_words)
        is_common = random.random(n_words) < 0.2
        texts.append(
            " ".join(f"c{c}" if both else f"t{topic}w{w}" for w, c, both in zip(own, common, is_common, strict=True))
        )
    return Planted(texts, topics)


def nearest_agree(vectors: npt.NDArray[np.float32], groups: npt.NDArray[np.int64], k: int = 5) -> float:
    """The share of rows' k nearest other rows that are of the same group."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2)
    nearest = np.argsort(-cosines, axis=1)[:, :k]
    return float((groups[nearest] == groups[:, None]).mean())


def word_groups(model: Embeddings) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The rows of the words that belong to a topic, and their topics."""
    rows = np.array([row for row, word in enumerate(model.words) if word.startswith("t")])
    return rows, np.array([int(model.words[row][1]) for row in rows])
