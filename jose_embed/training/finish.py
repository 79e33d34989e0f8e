"""After the last epoch: word vectors, the weights of words in documents, and document vectors."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jose_embed.compute.backends import directions_writer
from jose_embed.compute.cpu.directions import count_documents
from jose_embed.compute.tables import DocumentInputs, Tables
from jose_embed.config import TrainConfig
from jose_embed.errors import TrainingError
from jose_embed.model.inference import NO_MATRIX, TERM_WEIGHTS
from jose_embed.model.parts import CONTEXT_SHARE, DOCUMENT_MATRIX, WORD_WEIGHTS
from jose_embed.progress import Reporter
from jose_embed.storage.columns import row_blocks
from jose_embed.storage.memory import release
from jose_embed.text.corpus import EncodedCorpus
from jose_embed.text.vocabulary import Vocabulary
from jose_embed.training.document_weights import concentration_weights, reliability_matrix, retrieval_weights
from jose_embed.training.subwords import learn_subwords

#: The weight of the context vector if a word's vector is the sum of both; DESIGN.md, decisions 5 and 34.
CONTEXT_WEIGHT: Final = np.float32(0.3)


def add_context_vectors(vectors: Tables) -> None:
    """Add to each center vector 0.3 times the context vector of the same word, in place.

    Args:
        vectors: float32 (n_words, dim) center and context vectors; the rows get norm 1 by :func:`normalize_rows`.
    """
    for start, rows in row_blocks(vectors.center):
        rows += CONTEXT_WEIGHT * vectors.context[start : start + len(rows)]


def normalize_rows(vectors: Tables, learning_rate: float) -> None:
    """Scale every row to norm 1, computed in float64, in place.

    Args:
        vectors: float32 tables.
        learning_rate: Named in the error.

    Raises:
        TrainingError: a row is zero or not finite.
    """
    for table in vectors:
        for start, rows in row_blocks(table):
            norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
            wrong = ~(np.isfinite(norms) & (norms > 0))[:, 0]
            if wrong.any():
                row = int(wrong.argmax())
                raise TrainingError(
                    f"a vector (row {start + row}) has norm {norms[row, 0]} after training; it must be positive and "
                    f"finite; lower learning_rate (it is {learning_rate})"
                )
            rows[:] = rows / norms
            release(rows)


def finish_words(
    vocabulary: Vocabulary, config: TrainConfig, vectors: Tables, reporter: Reporter
) -> dict[str, npt.NDArray[Any]]:
    """Make the word vectors, in place, and learn those of n-grams.

    Args:
        vocabulary: The words.
        config: The settings.
        vectors: Float32 tables; all rows get norm 1.
        reporter: Receives the progress.

    Returns:
        The learned arrays by name; none without sub-words.

    Raises:
        TrainingError: a row is zero or not finite.
    """
    if config.word_method == "both":
        add_context_vectors(vectors)
    normalize_rows(vectors, config.learning_rate)
    return learn_subwords(vocabulary, vectors, config, reporter)


def learn_documents(
    corpus: EncodedCorpus, config: TrainConfig, tables: Tables, *, backend: str, threads: int
) -> dict[str, npt.NDArray[Any]]:
    """Learn how words make a document vector, and write the document vectors.

    With ``doc_method="words"`` there are two passes: directions by the weights of text retrieval show how much each
    word says about its documents; directions by these learned weights, times the reliability matrix, are the document
    vectors. The rows get exactly the bytes that inference gives the same text. With ``doc_method="trained"`` the
    trained rows stay, and the weights are learned from them.

    Args:
        corpus: The encoded text.
        config: The settled settings.
        tables: Rows of norm 1, padded; the rows of documents are written in place, except those of documents without a
            word.
        backend: "cpu", "gpu" or "auto": what sums the documents; the bytes are the same.
        threads: The most threads that sum, on the CPU.

    Returns:
        The learned arrays by the names under which a model stores them: ``word_weights`` and, if there are such,
        ``context_share`` and ``document_matrix``.
    """
    tokens, offsets, documents = corpus.tokens, corpus.offsets, tables.document
    frequencies = count_documents(tokens, offsets, corpus.vocabulary.n_words)
    if config.doc_method == "trained":
        return {WORD_WEIGHTS: concentration_weights(tokens, offsets, frequencies, documents, threads=threads)}
    writer_of = partial(directions_writer, backend, threads=threads)
    share = config.context_share(corpus.n_tokens / max(1, corpus.n_with_words))
    first_weights = retrieval_weights(frequencies, corpus.n_with_words)
    inputs = DocumentInputs(first_weights, TERM_WEIGHTS, tables.center, tables.context, share, NO_MATRIX)
    writer_of(inputs)(tokens, offsets, documents)
    weights = concentration_weights(tokens, offsets, frequencies, documents, threads=threads)
    inputs = inputs._replace(word_weights=weights)
    learned: dict[str, npt.NDArray[Any]] = {WORD_WEIGHTS: weights}
    if share:
        learned[CONTEXT_SHARE] = np.array(share)
    if config.doc_shrinkage:
        width = tables.center.shape[1]
        matrix = reliability_matrix(tokens, offsets, config.dim, width, config.doc_shrinkage, writer_of(inputs))
        learned[DOCUMENT_MATRIX] = matrix
        inputs = inputs._replace(matrix=matrix)
    if config.doc_vectors != "none":
        writer_of(inputs)(tokens, offsets, documents)
    return learned
