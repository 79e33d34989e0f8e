"""A model that is trained on with more text.

The vocabulary of the new model has all words of the old one and those that are frequent enough in both texts together.
Old words begin at their vectors.

With the old text, the training is the end of one on both texts: of E epochs at least the last half. The words of an old
document are trained already, so it is visited in E / 5 epochs only. The learning rate begins where that of a training
on both stands when as many running words are left. Rows of documents begin where their words pull them. Then both are
one text: the weights of words, the reliability matrix and all document vectors are made anew.

Without it, the new text is trained for E epochs; an old vector weighs as much as a tenth of the occurrences that made
it, which given.py turns into steps towards it after each epoch. A word that was seen n times before and m times now
therefore moves by about m / (n / 10 + m) of what it would move otherwise. The old documents keep their vectors, which
are in the space of the new words as far as these stayed. Weights and matrix are then means of the old and the new ones:
those of a word by its occurrences in both texts, the matrix by the number of documents.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.compute.backends import directions_writer
from jose_embed.compute.sampling import keep_probability, noise_distribution
from jose_embed.compute.tables import DocumentInputs, Tables, padded_table
from jose_embed.config import TrainConfig
from jose_embed.errors import ConfigError, CorpusError
from jose_embed.model.embeddings import Embeddings, load
from jose_embed.model.inference import NO_MATRIX, TERM_WEIGHTS, topic_alone
from jose_embed.model.parts import CONTEXT_SHARE, DOCUMENT_MATRIX, PHRASES, WORD_WEIGHTS
from jose_embed.model.rare_words import rare_counts
from jose_embed.progress import SilentReporter
from jose_embed.storage.columns import first_repetition, row_blocks
from jose_embed.storage.memory import mapped_table
from jose_embed.text.corpus import EncodedCorpus
from jose_embed.text.encode import TokenSpill
from jose_embed.text.kept import open_encoded
from jose_embed.text.reader import DocumentIds
from jose_embed.text.records import TextOptions
from jose_embed.text.texts import TextStore
from jose_embed.text.vocabulary import EarlierWords, Vocabulary
from jose_embed.text.word_table import Ends, Ids, VocabularyLookup
from jose_embed.training.finish import learn_documents
from jose_embed.training.given import GivenVectors, given_vectors, model_vectors
from jose_embed.training.schedule import LeftOut, epoch_starts, visits_all

#: Settings that the vectors or words of the old model depend on.
_FIXED: Final = (
    "dim", "tokenizer", "normalize", "keep_joined", "keep_prefix", "word_method", "doc_method", "phrases",
)  # fmt: skip
#: Settings of a machine or of one training, which do not follow from the old model.
_OWN: Final = ("backend", "workers", "init", "init_pull", "continue_from", "earlier_text")
#: With the old text, of all epochs: those that are trained at least, and those that visit an old document.
_LAST_EPOCHS: Final = 0.5
_EPOCHS_OF_OLD: Final = 0.2
_SOURCES_NAMED: Final = 1000
_DOCUMENTS_AT_ONCE: Final = 1 << 14
_TEXTS_AT_ONCE: Final = 512


class Documents(NamedTuple):
    """The documents of a model.

    Attributes:
        ids: Their ids.
        vectors: float32 (n_docs, dim).
        token_counts: int64 (n_docs,), known words of each.
        texts: Their texts and fields, if they are kept.
    """

    ids: Sequence[str]
    vectors: npt.NDArray[np.float32]
    token_counts: npt.NDArray[np.int64]
    texts: TextStore | None


class Plan(NamedTuple):
    """What is trained, and how.

    Attributes:
        corpus: The encoded text.
        config: The settled settings; of a model that goes on with its text, those of the last epochs.
        left_out: The documents that an epoch does not visit.
        note: A sentence about the documents of the old text, if they are trained.
    """

    corpus: EncodedCorpus
    config: TrainConfig
    left_out: LeftOut = visits_all
    note: str = ""


class Continued:
    """The model that a training continues.

    Args:
        name: The directory of the model, as it was given.
        model: The model.
        corpus: The encoded text of its documents, if there is one.
    """

    def __init__(self, name: str, model: Embeddings, corpus: EncodedCorpus | None = None) -> None:
        self.name = name
        self.model = model
        self._corpus = corpus

    def config(self, settings: Mapping[str, Any]) -> TrainConfig:
        """The settings of the model, with those that are given.

        Args:
            settings: The given settings by name, ``continue_from`` among them.

        Raises:
            ConfigError: a setting that must be that of the model, or a model without the settings of a training.
        """
        stored = dict(self.model.manifest["config"])
        if not stored.keys() >= set(_FIXED):
            raise ConfigError(
                f"{self.name}: was not trained by this program, so it cannot be continued; use init={self.name!r}"
            )
        for setting in _FIXED:
            if setting in settings and settings[setting] != stored[setting]:
                raise ConfigError(
                    f"{setting} is {settings[setting]!r}, but {self.name} has {stored[setting]!r}; a model is "
                    "continued with its own, so leave it out"
                )
        known = TrainConfig().to_dict().keys()
        kept = {key: value for key, value in stored.items() if key in known and key not in _OWN}
        return TrainConfig.from_dict({**kept, **settings})

    def check(self, config: TrainConfig, options: TextOptions) -> None:
        """Check before the text is read that the model can be continued with these settings.

        Raises:
            ConfigError: it cannot.
        """
        model, name = self.model, self.name
        if config.init:
            raise ConfigError("init and continue_from both say where words begin; leave one of them out")
        if PHRASES in model.extra_json:
            raise ConfigError(f"{name}: has phrases, whose counts cannot be continued; train anew on all text")
        kept = model.texts
        had = (False, ()) if kept is None else (kept.has_texts, tuple(kept.fields))
        if had != (options.keep_text, options.keep_fields) and config.doc_vectors != "none":
            fields = ", ".join(had[1])
            raise ConfigError(
                f"{name}: keeps {'texts' if had[0] else 'no texts'} and "
                f"{f'the fields {fields}' if fields else 'no fields'} of its documents; use the same keep_text and "
                "keep_fields, so that all documents have them"
            )

    @property
    def has_text(self) -> bool:
        """Whether the old documents can be made anew."""
        if self.model.manifest["config"].get("doc_method") == "trained":
            return False
        return self._corpus is not None or (self.model.texts is not None and self.model.texts.has_texts)

    @property
    def words(self) -> EarlierWords:
        """The old words and their counts."""
        return EarlierWords(Vocabulary(self.model.words, self.model.counts), rare_counts(self.model))

    def vectors(self, corpus: EncodedCorpus, config: TrainConfig) -> GivenVectors:
        """The old vectors for the words of the new vocabulary; nothing is held near them if the old text is trained."""
        given = model_vectors(self.model, corpus.vocabulary, config)
        return given._replace(weights=np.zeros(len(given.rows))) if self.has_text else given

    def plan(self, corpus: EncodedCorpus, config: TrainConfig, directory: str | os.PathLike[str] | None) -> Plan:
        """What is trained: the new text, or the last epochs of both.

        Args:
            corpus: The new text.
            config: The settled settings.
            directory: Directory of temporary files.

        Raises:
            CorpusError: an id that old and new documents share.
        """
        if not self.has_text:
            return Plan(corpus, config)
        whole = self._whole(corpus, directory)
        share = max(_LAST_EPOCHS, corpus.n_tokens / max(1, whole.n_tokens))
        epochs = math.ceil(share * config.epochs)
        visits = max(1, round(_EPOCHS_OF_OLD * config.epochs))
        random = np.random.Generator(np.random.PCG64([config.seed, 6]))
        parts = random.permutation(whole.n_documents - corpus.n_documents) % epochs
        note = (
            f"{self.name}: its text is there, so both texts are trained for the last {epochs:,} of {config.epochs:,} "
            f"epochs; each of its {len(parts):,} documents is in {visits:,} of them"
        )

        def left_out(epoch: int) -> npt.NDArray[np.int64]:
            return np.flatnonzero((parts + epoch) % epochs >= visits)

        words = epoch_starts(whole.offsets, epochs, left_out)[-1]
        rate = config.learning_rate * words / max(1, config.epochs * whole.n_tokens)
        return Plan(whole, dataclasses.replace(config, epochs=epochs, learning_rate=rate), left_out, note)

    def facts(self) -> dict[str, Any]:
        """The record in the new model's manifest; the first ``carried_documents`` documents kept their vectors."""
        carried = 0 if self.has_text else self.model.n_docs
        return {
            "model": self.model.id,
            "n_words": self.model.n_words,
            "n_documents": self.model.n_docs,
            "carried_documents": carried,
        }

    def corpus_facts(self, corpus: EncodedCorpus) -> dict[str, Any]:
        """The statistics of both texts together."""
        old, new = self.model.manifest["corpus"], corpus.statistics.to_dict()
        for name in ("n_bytes", "n_documents", "n_empty", "n_tokens_seen", "invalid_utf8_lines", "invalid_utf8_bytes"):
            new[name] += old.get(name, 0)
        new["n_words_seen"] = max(new["n_words_seen"], old.get("n_words_seen", 0))
        new["sources"] = [*old.get("sources", []), *new["sources"]][:_SOURCES_NAMED]
        new["n_sources"] += old.get("n_sources", 0)
        new["sha256"] = hashlib.sha256(f"{old.get('sha256')}{new['sha256']}".encode()).hexdigest()
        return new

    def learned(
        self, corpus: EncodedCorpus, config: TrainConfig, tables: Tables, *, backend: str, threads: int,
        directory: str | os.PathLike[str] | None,
    ) -> tuple[dict[str, npt.NDArray[Any]], Documents]:  # fmt: skip
        """Learn how words make a document vector of new documents, and keep the vectors of the old ones.

        Args:
            corpus: The new text, the old one is not there.
            config: The settled settings.
            tables: As for :func:`~jose_embed.training.finish.learn_documents`, of the new documents.
            backend: "cpu", "gpu" or "auto".
            threads: The most threads that sum.
            directory: Directory of temporary files.

        Returns:
            The learned arrays by name, and the documents.

        Raises:
            CorpusError: an id that old and new documents share.
        """
        table = self._table(corpus.n_documents, tables.document.shape[1], config, directory)
        for start, rows in row_blocks(self.model.doc_vectors):
            table[start : start + len(rows), : config.dim] = rows
        learned = learn_documents(corpus, config, tables, backend=backend, threads=threads)
        learned = self._blended(learned, corpus)
        if config.doc_method == "words":
            inputs = _inputs(learned, tables)
            directions_writer(backend, inputs, threads=threads)(corpus.tokens, corpus.offsets, tables.document)
        table[self.model.n_docs :] = tables.document
        counts = np.concatenate([self.model.doc_token_counts, np.diff(corpus.offsets)])
        ids, texts = self._ids(corpus), self._texts(corpus, directory)
        return learned, Documents(ids, table[:, : config.dim], counts, texts)

    def _table(
        self, n_new: int, width: int, config: TrainConfig, directory: str | os.PathLike[str] | None
    ) -> npt.NDArray[np.float32]:
        rows = self.model.n_docs + n_new
        if config.doc_vectors == "memory":
            return padded_table(rows, config.dim)
        return mapped_table(rows, width, directory, "the document vectors")

    def _blended(self, learned: dict[str, npt.NDArray[Any]], corpus: EncodedCorpus) -> dict[str, npt.NDArray[Any]]:
        """What the new text teaches, beside what the old one taught."""
        old, vocabulary = self.model, corpus.vocabulary
        places = vocabulary_rows(old.words, vocabulary)
        share = (old.counts / vocabulary.counts[places])[:, None]
        weights = learned[WORD_WEIGHTS]
        weights[places] = share * old.encoder.word_weights + (1 - share) * weights[places]
        blended = {WORD_WEIGHTS: weights}
        n_old = max(1, old.manifest["corpus"].get("n_documents", old.n_docs))
        part = n_old / (n_old + corpus.n_documents)
        for name in (CONTEXT_SHARE, DOCUMENT_MATRIX):
            both = [arrays[name] for arrays in (old.extra_arrays, learned) if name in arrays]
            if len(both) == 2:
                blended[name] = np.asarray(part * both[0] + (1 - part) * both[1])
            elif both:
                blended[name] = np.asarray(both[0])
        return blended

    def _whole(self, corpus: EncodedCorpus, directory: str | os.PathLike[str] | None) -> EncodedCorpus:
        """The old and the new documents as one encoded text, with the statistics of the new one."""
        ids = self._ids(corpus)
        with TokenSpill(directory) as spill:
            for tokens, ends in chain(self._old_tokens(corpus.vocabulary), _documents_of(corpus)):
                spill.append(tokens, ends)
            same = np.arange(corpus.vocabulary.n_words, dtype=np.int32)
            tokens, offsets = spill.renumbered(same, SilentReporter())
        return EncodedCorpus(
            tokens, offsets, ids, corpus.vocabulary, corpus.tokenizer, corpus.statistics, corpus.min_count,
            corpus.sources, corpus.options, self._texts(corpus, directory), rare_counts=corpus.rare_counts,
        )  # fmt: skip

    def _old_tokens(self, vocabulary: Vocabulary) -> Iterator[tuple[Ids, Ends]]:
        """The old documents, some at a time, as rows of the new vocabulary."""
        if self._corpus is not None:
            places = vocabulary_rows(self._corpus.vocabulary.words, vocabulary).astype(np.int32)
            for tokens, ends in _documents_of(self._corpus):
                yield places[tokens], ends
            return
        assert self.model.texts is not None
        lookup = VocabularyLookup(self.model.tokenizer, vocabulary.index)
        texts = self.model.texts.every_text()
        while some := list(islice(texts, _TEXTS_AT_ONCE)):
            found = lookup.of_texts([text or "" for text in some])
            yield found.rows, found.offsets[1:]

    def _ids(self, corpus: EncodedCorpus) -> Sequence[str]:
        """The ids of all documents; numbers of lines go on where the old ones ended.

        Raises:
            CorpusError: an id that old and new documents share.
        """
        old, new = list(self.model.doc_ids), list(corpus.doc_ids)
        if isinstance(corpus.doc_ids, DocumentIds) and len(corpus.sources) == 1:
            new = [str(len(old) + number) for number in range(1, len(new) + 1)]
        if (repeated := first_repetition([*old, *new])) is not None:
            raise CorpusError(
                f"the id {repeated[:100]!r} is that of a new document, and of one of the model {self.model.path}; ids "
                "must differ: change it, or name another column by id_field"
            )
        return [*old, *new]

    def _texts(self, corpus: EncodedCorpus, directory: str | os.PathLike[str] | None) -> TextStore | None:
        """The texts and fields of all documents."""
        stores = (self.model.texts, corpus.texts)
        if stores[0] is None or stores[1] is None:
            return None
        joined = TextStore.create(directory, fields=stores[0].fields)
        for store in stores:
            assert store is not None
            for first in range(0, store.n_documents, _TEXTS_AT_ONCE):
                some = store.read(range(first, min(first + _TEXTS_AT_ONCE, store.n_documents)))
                texts = [each.text or "" for each in some] if store.has_texts else None
                joined.append(texts, [each.fields for each in some] if store.fields else None, len(some))
        joined.finish(corpus.tokenizer)
        return joined


def planned(
    corpus: EncodedCorpus, config: TrainConfig, continued: Continued | None, directory: str | os.PathLike[str] | None
) -> tuple[GivenVectors | None, Plan]:
    """Where words begin, None for random points, and what is trained.

    Args:
        corpus: The new text.
        config: The settled settings.
        continued: The model to continue, if there is one.
        directory: Directory of temporary files.

    Raises:
        ConfigError, ModelError: see :func:`~jose_embed.training.given.given_vectors`.
        CorpusError: an id that old and new documents share, if the old text is trained.
    """
    if continued is None:
        return given_vectors(config, corpus), Plan(corpus, config)
    return continued.vectors(corpus, config), continued.plan(corpus, config, directory)


def begin_documents(corpus: EncodedCorpus, config: TrainConfig, tables: Tables, threads: int) -> None:
    """Let the rows of documents begin where their trained words pull them, in place.

    A step of the training adds to the row the center vectors of words that are in the document, less those of random
    words. So a row begins at the direction of the sum over the running words that are kept, of the center vector less
    the mean of random words. (On 20 Newsgroups this has a cosine of .87 to the rows that a training ends with, the
    final vector of a document .48.)

    Args:
        corpus: The encoded text.
        config: The settled settings.
        tables: Padded rows; those of words are trained.
        threads: The most threads that sum.
    """
    counts = corpus.vocabulary.counts
    center = tables.center[: len(counts)]
    centered = center - (noise_distribution(counts, config.noise_exponent) @ center).astype(np.float32)
    weights = topic_alone(keep_probability(counts, config.subsample_threshold))
    tf = np.arange(1 << 16, dtype=np.float64)
    inputs = DocumentInputs(weights, tf, centered, centered, 0.0, NO_MATRIX)
    directions_writer("cpu", inputs, threads=threads)(corpus.tokens, corpus.offsets, tables.document)


def _inputs(learned: Mapping[str, npt.NDArray[Any]], tables: Tables) -> DocumentInputs:
    share, matrix = float(learned.get(CONTEXT_SHARE, 0.0)), learned.get(DOCUMENT_MATRIX, NO_MATRIX)
    return DocumentInputs(learned[WORD_WEIGHTS], TERM_WEIGHTS, tables.center, tables.context, share, matrix)


def _documents_of(corpus: EncodedCorpus) -> Iterator[tuple[Ids, Ends]]:
    """The documents of an encoded text, some at a time: their tokens, and where each ends among these."""
    offsets = corpus.offsets
    for first in range(0, corpus.n_documents, _DOCUMENTS_AT_ONCE):
        ends = offsets[first : first + _DOCUMENTS_AT_ONCE + 1]
        yield corpus.tokens[ends[0] : ends[-1]], ends[1:] - ends[0]


def vocabulary_rows(words: Sequence[str], vocabulary: Vocabulary) -> npt.NDArray[np.int64]:
    """int64 (n,): the row of each word, all of which are in the vocabulary."""
    return np.array([vocabulary.index(word) for word in words], np.int64)


def opened(continue_from: str, earlier_text: str = "") -> Continued | None:
    """The model to continue, with its encoded text if one is named; None if there is none to continue.

    Args:
        continue_from: The setting of this name.
        earlier_text: The setting of this name.

    Raises:
        ConfigError: a text without a model, or one that is not the model's.
        ModelError, CorpusError: they cannot be read.
    """
    if not continue_from:
        if earlier_text:
            raise ConfigError("earlier_text is the text of the model to continue; add continue_from, or leave it out")
        return None
    model = load(continue_from)
    corpus = None
    if earlier_text:
        corpus = open_encoded(earlier_text)
        if corpus.statistics.sha256 != model.manifest["corpus"].get("sha256") or corpus.n_documents != model.n_docs:
            raise ConfigError(
                f"earlier_text is {earlier_text!r}, which is not the text of {continue_from}; name the encoding that "
                "the model was trained on, or leave it out"
            )
    return Continued(continue_from, model, corpus)
