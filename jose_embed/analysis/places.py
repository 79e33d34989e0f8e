"""The labels of a map: each topic at its densest place, and smaller places described by their own words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from jose_embed.analysis.topics import WORD_SHRINKAGE, Topics

if TYPE_CHECKING:
    from jose_embed.model.embeddings import Embeddings

_TOPIC_WORDS: Final = 3
_PLACE_WORDS: Final = 2
_PER_PLACE: Final = 90  # documents
_MOST_PLACES: Final = 250
_LEAST_PLACE: Final = 12
_STEPS: Final = 12
_BINS: Final = 20  # the densest place is five of them wide
_PLACE_ZOOM: Final = 1.7


class Label(NamedTuple):
    """A label.

    Attributes:
        text: Its words.
        x: Where it stands.
        y: Where it stands.
        level: 0 for a topic, 1 for a smaller place.
        topic: The topic of most of its documents.
        share: Of the documents, relative to the largest label of its level.
        zoom: From which magnification it is shown.
    """

    text: str
    x: float
    y: float
    level: int
    topic: int
    share: float
    zoom: float


def labels_of(
    model: Embeddings,
    found: Topics,
    rows: npt.NDArray[np.int64],
    vectors: npt.NDArray[np.float32],
    positions: npt.NDArray[np.float32],
    *,
    seed: int = 0,
) -> tuple[Label, ...]:
    """Topics, largest first, then places, largest first.

    Args:
        model: The model.
        found: Its topics.
        rows: int64 (n,): the rows of the points.
        vectors: float32 (n, dim): their vectors.
        positions: float32 (n, 2): their places.
        seed: Of the places.
    """
    numbers = found.doc_topics[rows]
    labels = []
    largest = max((topic.n_documents for topic in found), default=1) or 1
    for topic in found:
        own = positions[numbers == topic.number]
        if len(own) and topic.words:
            x, y = _densest(own)
            text = ", ".join(topic.words[:_TOPIC_WORDS])
            labels.append(Label(text, x, y, 0, topic.number, topic.n_documents / largest, 0.0))
    with threadpool_limits(1):
        labels += _places(model, found, numbers, vectors, positions, seed)
    return tuple(labels)


def _densest(positions: npt.NDArray[np.float32], extent: float = 1.0) -> tuple[float, float]:
    """The place with the most points around it, in cells that are a twentieth of the extent."""
    cells = np.floor((positions - positions.min(0)) / (max(extent, 1e-6) / _BINS)).astype(np.int64) + 2
    counts = np.zeros((_BINS + 5, _BINS + 5))
    np.add.at(counts, (cells[:, 0], cells[:, 1]), 1)
    kernel = np.array([1, 4, 6, 4, 1])
    for axis in (0, 1):
        counts = sum(times * np.roll(counts, shift, axis) for times, shift in zip(kernel, range(-2, 3), strict=True))
    best = np.array(np.unravel_index(np.argmax(counts), counts.shape))
    near = np.abs(cells - best).max(1) <= 2
    x, y = positions[near].mean(0, dtype=np.float64) if near.any() else positions.mean(0, dtype=np.float64)
    return float(x), float(y)


def _places(
    model: Embeddings,
    found: Topics,
    numbers: npt.NDArray[np.int64],
    vectors: npt.NDArray[np.float32],
    positions: npt.NDArray[np.float32],
    seed: int,
) -> list[Label]:
    """Clusters of points on the plane, with the words of the mean of their vectors that are not the topic's."""
    k = min(_MOST_PLACES, len(positions) // _PER_PLACE)
    if k < 2:
        return []
    random = np.random.default_rng(seed)
    sample = positions[random.choice(len(positions), min(len(positions), 200 * k), replace=False)].astype(np.float64)
    centres = sample[random.choice(len(sample), k, replace=False)]
    for _ in range(_STEPS):
        own = _nearest(sample, centres)
        sums = np.stack([np.bincount(own, sample[:, axis], k) for axis in (0, 1)], 1)
        counts = np.bincount(own, minlength=k)
        centres = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
    own = _nearest(positions, centres)
    order = np.argsort(own, kind="stable")
    bounds = np.searchsorted(own[order], np.arange(k + 1))
    places = []
    for place in range(k):
        members = order[bounds[place] : bounds[place + 1]]
        if len(members) < _LEAST_PLACE:
            continue
        mean = vectors[members].mean(0, dtype=np.float64)
        topic = int(np.bincount(np.maximum(numbers[members], 0)).argmax())
        taken = set(found[topic].words[:_TOPIC_WORDS]) if topic < len(found) else set()
        near, _ = model.word_directions.nearest(mean.astype(np.float32), 12, shrinkage=WORD_SHRINKAGE)
        words = [word for word in (model.words[row] for row in near.tolist()) if word not in taken][:_PLACE_WORDS]
        x, y = _densest(positions[members], float(np.ptp(positions[members], axis=0).max()))
        places.append(Label(", ".join(words), x, y, 1, topic, float(len(members)), _PLACE_ZOOM))
    places.sort(key=lambda label: -label.share)
    return [label._replace(share=label.share / places[0].share) for label in places]


def _nearest(positions: npt.NDArray[np.floating], centres: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    out = np.empty(len(positions), np.int64)
    half = (centres**2).sum(1) / 2
    for start in range(0, len(positions), 1 << 14):
        block = positions[start : start + (1 << 14)].astype(np.float64)
        out[start : start + len(block)] = (block @ centres.T - half).argmax(1)
    return out
