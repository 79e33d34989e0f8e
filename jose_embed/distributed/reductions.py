"""After the last exchange: what training/finish.py learns from all documents, from sums over the machines.

The sums of machines are added in the order of their numbers. Whole numbers are exact; sums of directions differ from
those of one machine by the rounding of float32 alone, and with one machine not at all.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from jose_embed.config import TrainConfig
from jose_embed.distributed.group import Group
from jose_embed.model.parts import CONTEXT_SHARE, DOCUMENT_MATRIX, WORD_WEIGHTS
from jose_embed.training.document_weights import HalfSums, reliability_of, squared_lengths, weights_of_sums


def learn_documents(
    shards: Group, config: TrainConfig, n_words: int, n_tokens: int, n_documents: int, n_with_words: int
) -> dict[str, npt.NDArray[Any]]:
    """Learn how words make a document vector, and let every machine write its document vectors.

    Args:
        shards: The machines, which have trained.
        config: The settled settings.
        n_words: Size of the vocabulary.
        n_tokens: Running words of the whole text.
        n_documents: Documents of the whole text.
        n_with_words: Those that have a word.

    Returns:
        The learned arrays by the names under which a model stores them, as ``finish.learn_documents`` does.
    """
    frequencies = reduce(np.add, shards.values("finish_words", keep=True))
    trained = config.doc_method == "trained"
    share = 0.0 if trained else config.context_share(n_tokens / max(1, n_with_words))
    if not trained:
        shards.values("first_directions", frequencies, n_with_words, share, keep=True)
    weights = _weights(shards, frequencies, n_words, n_with_words)
    learned: dict[str, npt.NDArray[Any]] = {WORD_WEIGHTS: weights}
    if trained:
        return learned
    shards.values("take_weights", weights, keep=True)
    matrix = None
    if share:
        learned[CONTEXT_SHARE] = np.array(share)
    if config.doc_shrinkage:
        halves = shards.values("halves", n_documents)
        total = HalfSums(*(reduce(np.add, parts) for parts in zip(*halves, strict=True)))
        matrix = learned[DOCUMENT_MATRIX] = reliability_of(total, config.doc_shrinkage)
    shards.values("final_directions", matrix, keep=True)
    return learned


def _weights(
    shards: Group, frequencies: npt.NDArray[np.int64], n_words: int, n_with_words: int
) -> npt.NDArray[np.float64]:
    """The weights of words; the sums of directions travel a few slices of the vocabulary at a time."""
    sums = shards.values("direction_sum")
    total = reduce(np.add, [part for part, _ in sums])
    sizes = shards.values("center", total / max(1, n_with_words), frequencies, keep=True)
    at_once, n_threads = sizes[0][0], max(threads for _, threads in sizes)
    squares, n_summed = np.zeros(n_words), np.zeros(n_words, np.int64)
    for begin in range(0, n_words, at_once * n_threads):
        end = min(begin + at_once * n_threads, n_words)
        parts = shards.values("word_sums", begin, end, at_once)
        directions = np.array(parts[0][0])
        for other, _ in parts[1:]:
            directions += other
        squares[begin:end] = squared_lengths(directions)
        n_summed[begin:end] = sum(n for _, n in parts)
    return weights_of_sums(squares, n_summed, frequencies, n_with_words)
