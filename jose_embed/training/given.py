"""Training that starts from given vectors and is held near them.

The loss of one epoch gets a term for every word w that has a given direction a_w,

    pull (1 - cos(x_w, a_w)),

next to the terms of the n_w occurrences of the word in the text. The given vector weighs as much as ``pull``
occurrences, so a frequent word follows the text and a rare one stays. The term is applied by one proximal step after
each epoch, with the learning rate of that epoch,

    x_w <- (x_w + step a_w) / |x_w + step a_w|,    step = pull * learning_rate * context_weight,

which moves along the great circle towards a_w and is stable for any ``pull``. 0 only starts from the vectors; a large
number freezes them. The kernel is unchanged.

A table of other dimensions is turned into its principal axes (of the words of the text, not centered) if it has more
than the training, and padded with zeros if it has fewer. A word without a given vector begins at the mean of the given
vectors around it in the text, less the mean of all such contexts; it is not pulled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.compute.sphere import principal_axes, turned
from jose_embed.compute.tables import Tables
from jose_embed.config import TrainConfig
from jose_embed.errors import ConfigError, ModelError
from jose_embed.model.embeddings import Embeddings, load
from jose_embed.model.exchange import format_of, read_vectors
from jose_embed.storage.columns import row_blocks
from jose_embed.text.corpus import EncodedCorpus
from jose_embed.text.vocabulary import Vocabulary
from jose_embed.training.finish import CONTEXT_WEIGHT

_REACH: Final = 5  # words on each side that count as context of a word without a vector
_BLOCK_TOKENS: Final = 1 << 16
_BYTES_PER_WORD: Final = 200  # of a word and its place, while vectors are read
#: Of a model that goes on. A chain of ten parts of Wikipedia falls from .703 to .634 (MEN) with 1 and to .690 with .1
#: (evidence/53): vectors that little text made would be held as if they were good.
_WEIGHT_OF_AN_OCCURRENCE: Final = 0.1
_MOST_CONTEXTS: Final = 2000  # occurrences of a word whose contexts are read, about

Rows = npt.NDArray[np.float32]


class GivenVectors(NamedTuple):
    """Where the words of a text begin.

    Attributes:
        rows: int64 (n,), the words that have a given vector, as rows of the vocabulary.
        center: float32 (n, dim), norm 1: their center vectors.
        context: float32 (n, dim), norm 1: their context vectors.
        weights: float64 (n,): how many occurrences in the text each given vector weighs as much as.
        coverage: A sentence about how much of the text they cover.
        reading_bytes: The most memory that reading them took, about.
    """

    rows: npt.NDArray[np.int64]
    center: Rows
    context: Rows
    weights: npt.NDArray[np.float64]
    coverage: str
    reading_bytes: int

    @property
    def held_bytes(self) -> int:
        """The memory that they take during the training."""
        return self.rows.nbytes + self.center.nbytes + self.context.nbytes + self.weights.nbytes

    def fill(self, vectors: Tables, corpus: EncodedCorpus) -> None:
        """Let the words begin at their given vectors, and the others at the direction of their contexts, in place.

        Args:
            vectors: float32 (n_words, dim) tables, filled with random points; a word without a context keeps its own.
            corpus: The encoded text.
        """
        vectors.center[self.rows] = self.center
        vectors.context[self.rows] = self.context
        lacking = np.ones(len(vectors.center), bool)
        lacking[self.rows] = False
        if lacking.any():
            missing = np.flatnonzero(lacking)
            means = _context_means(vectors.center, lacking, missing, corpus)
            norms = np.linalg.norm(means, axis=1, keepdims=True)
            found = norms[:, 0] > 1e-6
            starts = (means[found] / norms[found]).astype(np.float32)
            vectors.center[missing[found]] = starts
            vectors.context[missing[found]] = starts

    def pull(self, vectors: Tables, rate: float) -> None:
        """Move the words towards their given vectors, in place.

        Args:
            vectors: float32 (n_words, dim) tables.
            rate: Weight of one occurrence beside the present vector.
        """
        for table, anchors in ((vectors.center, self.center), (vectors.context, self.context)):
            for first, anchor in row_blocks(anchors):
                rows = self.rows[first : first + len(anchor)]
                steps = rate * self.weights[first : first + len(anchor), None]
                moved = table[rows].astype(np.float64) + steps * anchor
                norms = np.linalg.norm(moved, axis=1, keepdims=True)
                # A vector opposite to its given one, with step 1, has no direction left: it goes to the given one.
                table[rows] = np.where(norms > 1e-9, moved / np.maximum(norms, 1e-9), anchor)


def check_init(name: str) -> None:
    """Check before the text is read that there are vectors of this name.

    Raises:
        ConfigError: an unknown ending.
        ModelError: no such file, or a directory that is not a model.
    """
    if os.path.isdir(name):
        load(name)
    elif not os.path.isfile(name):
        raise ModelError(f"{name}: there is no such file; init must name a model or a file of vectors")
    else:
        format_of(name)


def given_vectors(config: TrainConfig, corpus: EncodedCorpus) -> GivenVectors | None:
    """The vectors that the setting ``init`` names, for the words of a text; None without such a setting.

    Args:
        config: The settled settings.
        corpus: The encoded text.

    Raises:
        ConfigError: no word of the text has a given vector.
        ModelError: a file or model that cannot be read.
    """
    if not config.init:
        return None
    words, center, context = _tables(config.init)
    places = {word: row for row, word in enumerate(words)}
    rows, taken = _matches(corpus.vocabulary.words, places)
    if len(rows):
        norms = np.linalg.norm(center[taken].astype(np.float64), axis=1)
        rows, taken = rows[norms > 0], taken[norms > 0]
    if not len(rows):
        raise ConfigError(f"init is {config.init!r}, which has no word of the text; check how its words are spelled")
    first = _unit(center[taken])
    axes = principal_axes(first, config.dim)
    first = _fitted(first, axes, config.dim)
    second = first if context is None else _fitted(_unit(context[taken]), axes, config.dim)
    counts = corpus.vocabulary.counts
    share = int(counts[rows].sum()) / max(1, corpus.vocabulary.n_tokens)
    coverage = (
        f"{config.init}: {len(rows):,} of {len(counts):,} words, {share:.1%} of the text, begin at given vectors; "
        "the others at the direction of their contexts"
    )
    if center.shape[1] != config.dim:
        what = "principal axes" if center.shape[1] > config.dim else "zeros added"
        coverage += f" ({center.shape[1]} dimensions became {config.dim}: {what})"
    reading = center.nbytes + _BYTES_PER_WORD * len(words) + 24 * len(rows) * center.shape[1]
    weights = np.full(len(rows), config.init_pull)
    return GivenVectors(rows, _center_of(first, second, config), second, weights, coverage, reading)


def model_vectors(model: Embeddings, vocabulary: Vocabulary, config: TrainConfig) -> GivenVectors:
    """The vectors of a model for a vocabulary; each weighs as much as a tenth of the occurrences that made it.

    Args:
        model: A model with words of the vocabulary, and as many dimensions as the settings say.
        vocabulary: The words of the training.
        config: The settled settings.
    """
    rows, taken = _matches(vocabulary.words, {word: row for row, word in enumerate(model.words)})
    center, context = model.center_vectors[taken], model.context_vectors[taken]
    counts = model.counts[taken]
    n_new = vocabulary.n_tokens - int(counts.sum())
    coverage = (
        f"{model.path}: continued, {len(rows):,} words seen {int(counts.sum()):,} times; {n_new:,} running words and "
        f"{vocabulary.n_words - len(rows):,} words are new"
    )
    weights = _WEIGHT_OF_AN_OCCURRENCE * counts.astype(np.float64)
    reading = center.nbytes + context.nbytes + _BYTES_PER_WORD * model.n_words
    return GivenVectors(rows, _center_of(center, context, config), context, weights, coverage, reading)


def _tables(name: str) -> tuple[Sequence[str], Rows, Rows | None]:
    """Words, center vectors and, of a model, context vectors."""
    if not os.path.isdir(name):
        return *read_vectors(name), None
    model: Embeddings = load(name)
    return model.words, model.center_vectors, model.context_vectors


def _matches(words: Sequence[str], places: Mapping[str, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    found = [(row, place) for row, word in enumerate(words) if (place := places.get(word)) is not None]
    pairs = np.array(found, np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _unit(rows: Rows) -> Rows:
    wide = rows.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.where(norms == 0, 1, norms), np.float32)


def _fitted(rows: Rows, axes: npt.NDArray[np.float64] | None, dim: int) -> Rows:
    """Rows of norm 1 in ``dim`` dimensions; a row that is orthogonal to all axes becomes the first axis."""
    if axes is not None:
        return turned(rows, axes)[0]
    if rows.shape[1] == dim:
        return rows
    padded = np.zeros((len(rows), dim), np.float32)
    padded[:, : rows.shape[1]] = rows
    return padded


def _center_of(words: Rows, context: Rows, config: TrainConfig) -> Rows:
    """The center vectors x of norm 1 with which the trained words, x + 0.3 c if ``word_method`` is "both", are given.

    With u the word's vector and c its context vector, x = t u - 0.3 c has norm 1 for t = 0.3 u.c + sqrt(0.09 (u.c)^2 +
    0.91).
    """
    if config.word_method != "both" or context is words:
        return words
    weight = float(CONTEXT_WEIGHT)
    cosines = np.einsum("ij,ij->i", words, context, dtype=np.float64)[:, None]
    t = weight * cosines + np.sqrt((weight * cosines) ** 2 + 1 - weight**2)
    return _unit((t * words - weight * context).astype(np.float32))


def _context_means(
    vectors: Rows, lacking: npt.NDArray[np.bool_], missing: npt.NDArray[np.int64], corpus: EncodedCorpus
) -> npt.NDArray[np.float64]:
    """For each missing word, the sum of the given vectors near its occurrences less that of as many mean contexts."""
    number = np.full(len(lacking), -1, np.int64)
    number[missing] = np.arange(len(missing))
    sums = np.zeros((len(missing), vectors.shape[1]))
    n_near = np.zeros(len(missing), np.int64)
    tokens, offsets = corpus.tokens, corpus.offsets
    for start in range(0, len(tokens), _BLOCK_TOKENS):
        stop = min(start + _BLOCK_TOKENS, len(tokens))
        low, high = max(0, start - _REACH), min(len(tokens), stop + _REACH)
        words = np.asarray(tokens[low:high], np.int64)
        document = np.searchsorted(offsets, np.arange(low, high), side="right")
        places = np.arange(start, stop)[lacking[words[start - low : stop - low]]] - low
        places = places[n_near[number[words[places]]] < _MOST_CONTEXTS * 2 * _REACH]
        for shift in (*range(-_REACH, 0), *range(1, _REACH + 1)):
            near = places + shift
            inside = (near >= 0) & (near < len(words))
            own, near = places[inside], near[inside]
            known = (document[own] == document[near]) & ~lacking[words[near]]
            own, near = own[known], near[known]
            if not len(own):
                continue
            order = np.argsort(number[words[own]], kind="stable")
            which = number[words[own]][order]
            starts = np.flatnonzero(np.diff(which, prepend=-1))
            sums[which[starts]] += np.add.reduceat(vectors[words[near][order]], starts, axis=0)
            n_near += np.bincount(which, minlength=len(missing))
    counts = corpus.vocabulary.counts * ~lacking
    mean = np.zeros(vectors.shape[1])
    for first, block in row_blocks(vectors):
        mean += counts[first : first + len(block)] @ block.astype(np.float64)
    return sums - n_near[:, None] * (mean / max(1, int(counts.sum())))
