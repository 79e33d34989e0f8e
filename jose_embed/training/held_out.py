"""Documents that are kept from the training, to see how well it generalises.

A held-out document is completed: its vector is made of its first half, as that of a new text with the weights of text
retrieval, and the loss is that of its second half. No word is predicted from a vector that it is part of, but for words
that stand in both halves. The samples of the loss are the same in every epoch. Losses of different settings of the
objective, and the loss of the training, are on other scales.

Source: Wallach, Murray, Salakhutdinov and Mimno, Evaluation methods for topic models, ICML 2009 (document completion).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from jose_embed.compute.backends import Backend, directions_writer
from jose_embed.compute.cpu.backend import loss_of
from jose_embed.compute.cpu.directions import count_documents
from jose_embed.compute.documents import gathered
from jose_embed.compute.sampling import SamplingTables
from jose_embed.compute.tables import DocumentInputs, Tables, Text, padded_table
from jose_embed.config import TrainConfig
from jose_embed.errors import ConfigError
from jose_embed.model.inference import NO_MATRIX, TERM_WEIGHTS
from jose_embed.text.corpus import EncodedCorpus
from jose_embed.training.document_weights import retrieval_weights


def held_out_documents(offsets: npt.NDArray[np.int64], config: TrainConfig) -> npt.NDArray[np.int64]:
    """The documents that are kept from the training: a random sample of those of two words and more.

    Args:
        offsets: int64 (n_documents + 1,).
        config: The settled settings; ``held_out`` is the share, ``seed`` the seed.

    Returns:
        int64, ascending; empty without ``held_out``.

    Raises:
        ConfigError: the share is less than one document.
    """
    if not config.held_out:
        return np.empty(0, np.int64)
    suited = np.flatnonzero(np.diff(offsets) > 1)
    n = round(config.held_out * len(suited))
    if not 0 < n < len(suited):
        raise ConfigError(
            f"held_out is {config.held_out}, and the text has {len(suited):,} documents of two words and more; choose a"
            " larger share, or 0"
        )
    random = np.random.Generator(np.random.PCG64([config.seed, 4]))
    return np.sort(random.choice(suited, n, replace=False))


class HeldOut:
    """Measures the loss of held-out documents.

    Args:
        documents: int64, as :func:`held_out_documents` chooses them.
        corpus: The encoded text.
        config: The settled settings.
        tables: The vectors of the training; read, never written.
        backend: Brings the vectors into the tables.
    """

    def __init__(
        self,
        documents: npt.NDArray[np.int64],
        corpus: EncodedCorpus,
        config: TrainConfig,
        tables: Tables,
        backend: Backend,
    ) -> None:
        counts = corpus.vocabulary.counts
        self._config, self._backend, self._threads = config, backend, config.resolved_workers()
        self._tables = tables._replace(document=padded_table(len(documents), config.dim))
        self._samples = SamplingTables.of(counts, config.subsample_threshold, config.noise_exponent)
        words, ends = gathered(corpus.tokens, corpus.offsets, documents)
        lengths = np.diff(ends)
        first = np.arange(len(words)) - np.repeat(ends[:-1], lengths) < np.repeat(lengths // 2, lengths)
        borders = np.concatenate(([0], np.cumsum(lengths // 2)))
        self._known, self._hidden = Text(words[first], borders), Text(words[~first], ends - borders)
        frequencies = count_documents(corpus.tokens, corpus.offsets, len(counts))
        self._weights = retrieval_weights(frequencies, corpus.n_with_words)

    def loss(self) -> float:
        """The mean loss of a pair of the second halves, at the present vectors; no chunk is running."""
        self._backend.collect()
        center, context, documents = self._tables
        inputs = DocumentInputs(self._weights, TERM_WEIGHTS, center, context, 0.0, NO_MATRIX)
        directions_writer("cpu", inputs, threads=self._threads)(*self._known, documents)
        return loss_of(self._hidden, self._samples, self._tables, self._config, self._threads)
