"""Vectors of character n-grams, of which unknown words are composed.

They are learned after the last epoch, from the finished word vectors: the training itself, and so its speed, is the
same with and without them. With G(w) the n-grams of a word, x_g the vector of an n-gram and n(w) the word's count they
minimise

    sum_w  e(w) |u_w - |G(w)|^(-1/2) sum_{g in G(w)} x_g|^2,    e(w) = n(w) / (n(w) + 10),

by some passes of stochastic gradient descent over the words in random order. An unknown word is the direction of the
sum of its n-grams; n-grams that no word of the vocabulary has stay zero and say nothing.

A rare word was moved a few times only. It becomes the direction of

    n(w) u_w + 10 |G(w)|^(-1/2) sum_{g in G(w)} x_g:

its spelling counts as at most 10 occurrences, and less if its n-grams explain little.

Source: Zhao, Mudgal and Liang, Generalizing Word Embeddings using Bag of Subwords, EMNLP 2018, for learning n-grams
from word vectors; the evidence and the step for rare words are this project's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jose_embed.compute.cpu.ngrams import fit_ngrams
from jose_embed.compute.tables import Tables
from jose_embed.config import TrainConfig
from jose_embed.model.parts import SUBWORD_VECTORS
from jose_embed.model.subwords import Subwords
from jose_embed.progress import Reporter
from jose_embed.storage.columns import row_blocks
from jose_embed.text.ngrams import Ngrams
from jose_embed.text.vocabulary import Vocabulary

_PASSES: Final = 5
_RATE: Final = 0.5  # share of a word's difference that the first step closes
_HALF_EVIDENCE: Final = 10  # occurrences
_SPELLING: Final = 10  # occurrences that a word's spelling is worth, at most


def ngrams_of(config: TrainConfig) -> Ngrams | None:
    """The n-grams of a model; None without sub-words."""
    if not config.subwords:
        return None
    return Ngrams(config.subword_shortest, config.subword_longest, config.subword_buckets)


def subword_bytes(config: TrainConfig, words: Iterable[str]) -> int:
    """The memory that learning takes: the vectors of all buckets, and twice the n-grams of the vocabulary."""
    ngrams = ngrams_of(config)
    return 0 if ngrams is None else 4 * config.subword_buckets * config.dim + 8 * ngrams.count(words)


def learn_subwords(
    vocabulary: Vocabulary, vectors: Tables, config: TrainConfig, reporter: Reporter
) -> dict[str, npt.NDArray[Any]]:
    """Learn the vectors of n-grams and move rare words towards their composition.

    Args:
        vocabulary: The words.
        vectors: Float32 center vectors (n_words, dim) of norm 1; rare ones are changed in place.
        config: The settings.
        reporter: Receives the phase "n-grams", in words.

    Returns:
        ``subword_vectors``, float32 (buckets, dim); nothing without sub-words.
    """
    ngrams = ngrams_of(config)
    if ngrams is None:
        return {}
    center, counts = vectors.center, vocabulary.counts
    n_words, dim = center.shape
    rows, offsets = ngrams.rows_of_words(vocabulary.words)
    table = np.zeros((ngrams.buckets, dim), np.float32)
    evidence = (counts / (counts + _HALF_EVIDENCE)).astype(np.float32)
    rest = np.empty(dim, np.float32)
    generator = np.random.default_rng(config.seed)
    reporter.start("n-grams", _PASSES * n_words, "words")
    for number in range(_PASSES):
        first, last = (_RATE * (1 - (number + i) / _PASSES) for i in (0, 1))
        fit_ngrams(center, evidence, generator.permutation(n_words), rows, offsets, table, rest, first, last)
        reporter.advance(n_words)
    reporter.finish()
    subwords = Subwords(table, ngrams)
    for start, block in row_blocks(center):
        for i, word in enumerate(vocabulary.words[start : start + len(block)]):
            mixed = int(counts[start + i]) * block[i].astype(np.float64) + _SPELLING * subwords.prediction(word)
            if 0 < (length := float(np.linalg.norm(mixed))) < np.inf:
                block[i] = mixed / length
    return {SUBWORD_VECTORS: table}
