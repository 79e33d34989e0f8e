"""A training run from text to model.

:func:`train` checks the arguments, opens the checkpoints and encodes the text; :func:`fit` trains on the encoded text.
The steps of ``fit`` are functions of their own: tables (initial.py), epochs (epochs.py), word vectors, weights and
document vectors (finish.py).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import Any, Unpack

import numpy as np

import jose_embed
from jose_embed.compute.backends import Backend, check_backend, choose_backend, is_for_the_cpu
from jose_embed.compute.jit import compilation_noted
from jose_embed.compute.tables import Tables
from jose_embed.config import TrainConfig, TrainSettings, available_workers, preset_settings
from jose_embed.errors import ConfigError, counterpart
from jose_embed.model.embeddings import Embeddings
from jose_embed.model.parts import PHRASES, RARE_COUNTS, SUBWORDS
from jose_embed.progress import Reporter, SilentReporter, reporting, timed
from jose_embed.storage.memory import read_in_order
from jose_embed.text.corpus import EncodedCorpus
from jose_embed.text.documents import GivenDocuments, given_documents, sources_or_documents
from jose_embed.text.encode import encode_texts
from jose_embed.text.kept import encoding_settings, is_encoded, text_for
from jose_embed.text.phrases import THRESHOLD
from jose_embed.text.records import TextOptions, TextSettings
from jose_embed.text.sources import Sources, listed
from jose_embed.text.tokenizers import text_facts
from jose_embed.training.after_epoch import EpochEnd, OnEpoch
from jose_embed.training.checkpoints import Checkpoints, RunFacts
from jose_embed.training.continued import Continued, Documents, Plan, begin_documents, opened, planned
from jose_embed.training.engine import EngineOptions, EngineSettings
from jose_embed.training.epochs import train_epochs
from jose_embed.training.finish import finish_words, learn_documents
from jose_embed.training.given import GivenVectors, check_init
from jose_embed.training.held_out import HeldOut, held_out_documents
from jose_embed.training.initial import allocate_tables, compiled_backend, fill_with_random_points, trained_rows
from jose_embed.training.keeper import CheckpointKeeper
from jose_embed.training.machine import machine_facts
from jose_embed.training.schedule import RunState, also_left_out
from jose_embed.training.subwords import ngrams_of

PathLike = str | os.PathLike[str]
_PHRASES_SHOWN = 12


class Settings(TrainSettings, TextSettings, EngineSettings, total=False):
    """The settings that :func:`train` takes by name."""


def train(
    source: Any = None,
    *,
    documents: Any = None,
    ids: Iterable[Any] | None = None,
    config: TrainConfig | None = None,
    preset: str | None = None,
    progress: bool | None = None,
    reporter: Reporter | None = None,
    keep_encoded: PathLike | None = None,
    checkpoint: PathLike | Checkpoints | None = None,
    checkpoint_every: float = 600.0,
    resume: bool = False,
    temporary_directory: PathLike | None = None,
    on_epoch: OnEpoch | None = None,
    **settings: Unpack[Settings],
) -> Embeddings:
    """Train word and document vectors.

    Args:
        source: A path, a glob, a directory, ``-`` for standard input, or a list of these: plain text with one document
            per line, CSV, TSV, JSON Lines, Parquet; or one encoded corpus, as ``keep_encoded`` and ``jose encode`` make
            them. A column of a table, an iterator of texts or a list of texts with white space are documents.
        documents: Texts or lists of words, instead of a source: any iterable, a mapping of ids to texts, or a
            ``datasets.Dataset``. For lists of words, the default of ``tokenizer`` is ``whitespace``.
        ids: The documents' ids: strings or whole numbers that all differ; their numbers from 1 if omitted, also of a
            column of pandas, whose index is not used: ``similar_documents(...)[0].index`` is a row as by ``iloc``.
        config: The settings; the default recipe if omitted.
        preset: A name of :data:`jose_embed.config.PRESETS`, which overrides ``config``.
        progress: Show progress on standard error; by default in notebooks and interactive sessions.
        reporter: Receives the progress instead.
        keep_encoded: Directory that keeps the encoded text for the next training with the same text and settings.
        checkpoint: Directory for checkpoints, usually ``NAME.jose.run`` for a model ``NAME.jose``; removed at the end
            of the training. Ctrl-C writes a checkpoint first. A begun ``Checkpoints`` object is left to the caller.
        checkpoint_every: Seconds between checkpoints; 0 for none, not even when interrupted.
        resume: Continue from the newest checkpoint, if there is one, with the same text and settings but
            ``doc_vectors``. With one worker the model has the same bytes as without a stop.
        temporary_directory: Directory of temporary files; the system's if omitted.
        on_epoch: Called with the report of each epoch, see :class:`EpochEnd`; False ends the training.
        **settings: Settings of :class:`TrainConfig` by name, which override ``config`` and ``preset``; options of
            :class:`~jose_embed.text.records.TextOptions` and :class:`~jose_embed.training.engine.EngineOptions`.

    Returns:
        The model, in memory; :meth:`Embeddings.save` writes it.

    Raises:
        ConfigError: settings that cannot work or differ from those of the run to resume, or not exactly one of
            ``source`` and ``documents``.
        CorpusError: text that cannot be read, holds nothing to train on, or is not that of the run to resume.
        TrainingError: vectors that became infinite or NaN, a full disk, or checkpoints without ``resume``.

    Example::

        model = jose_embed.train("more.csv", text_field="review", continue_from="reviews.jose")
    """
    options, engine = TextOptions.taken_from(by_name := dict(settings)), EngineOptions.taken_from(by_name)
    config, given, continued = _settings_of(config, preset, by_name)
    source, documents = sources_or_documents(source) if documents is None else (source, documents)
    _check_arguments(source, documents, ids, keep_encoded, checkpoint, resume, config, options, continued)
    if documents is not None:
        documents = given_documents(documents, ids, options)
        if documents.are_tokens and "tokenizer" not in given:
            config = dataclasses.replace(config, tokenizer="whitespace")
    _check_engine(engine, source, keep_encoded, config, on_epoch)
    phases: dict[str, float] = {}
    with (
        reporting(reporter, progress) as reporter,
        compilation_noted(reporter.note),
        _begun(checkpoint, checkpoint_every, resume, reporter) as checkpoints,
    ):
        if engine.engine == "ray":
            return _on_ray(source, config, engine, options, reporter, checkpoints, temporary_directory)
        with timed(phases, "reading"):
            read = (source, documents, config, given, keep_encoded, checkpoints, temporary_directory, reporter, options)
            corpus, config, keep_text = _encoded(*read, continued)
        with corpus:
            return fit(
                corpus, config, reporter=reporter, phases=phases, checkpoints=checkpoints, keep_text=keep_text,
                temporary_directory=temporary_directory, on_epoch=on_epoch, continued=continued,
            )  # fmt: skip


def fit(
    corpus: EncodedCorpus,
    config: TrainConfig,
    *,
    reporter: Reporter | None = None,
    phases: dict[str, float] | None = None,
    checkpoints: Checkpoints | None = None,
    keep_text: bool = False,
    temporary_directory: PathLike | None = None,
    on_epoch: OnEpoch | None = None,
    continued: Continued | None = None,
) -> Embeddings:
    """Train on an encoded corpus.

    Args:
        corpus: The text; it may be closed afterwards.
        config: The settings; ``tokenizer`` and ``min_count`` are ignored, as the text is encoded.
        reporter, on_epoch: As in :func:`train`.
        phases: Seconds already spent, by name; stored with the model.
        checkpoints: Where checkpoints are written, and where the run continues if there is one.
        keep_text: Keep the encoded text beside the checkpoints.
        temporary_directory: Directory of mapped document vectors.
        continued: The model that ``config.continue_from`` names; opened here if omitted.
    """
    reporter = reporter or SilentReporter()
    phases = dict(phases or {})
    settled = config.for_text(corpus.vocabulary.n_tokens)
    with timed(phases, "preparing"):
        continued = continued or opened(settled.continue_from, settled.earlier_text)
        given, plan = planned(corpus, settled, continued, temporary_directory)
        new, corpus = corpus, plan.corpus
        device = choose_backend(settled, corpus.vocabulary.counts, corpus.offsets, reporter)
        tables = allocate_tables(corpus, settled, device, temporary_directory)
        vectors = trained_rows(tables, corpus.vocabulary.n_words, settled.dim)
        if checkpoints is not None and checkpoints.latest is not None:
            state = checkpoints.restore(vectors, corpus, phases, reporter)
        else:
            state = RunState()
            _fill(tables, vectors, settled, given, new, plan, reporter)
        measured = held_out_documents(corpus.offsets, settled)
        left_out = also_left_out(plan.left_out, measured)
        backend = compiled_backend(device, corpus, tables, plan.config, reporter, left_out=left_out)
        held_out = HeldOut(measured, corpus, settled, tables, backend) if len(measured) else None
    after_epoch = EpochEnd(_pull(given, settled, vectors), held_out, settled.patience, on_epoch, reporter)
    train = partial(
        train_epochs, backend, corpus.offsets, plan.config, reporter, after_epoch=after_epoch, left_out=left_out
    )
    if checkpoints is None:
        state = train(state=state)
    else:
        run_facts = RunFacts(corpus, config, plan.config.epochs, backend.name, phases, keep_text)
        with CheckpointKeeper(checkpoints, vectors, run_facts, backend, reporter) as keeper:
            after_epoch.keep = keeper.keep_if_wanted
            state = train(state=state, keeper=keeper)
            keeper.keep_the_end(state)
    backend.collect()
    phases["training"] = sum(epoch["seconds"] for epoch in state.epochs)
    with timed(phases, "documents"):
        subwords = finish_words(corpus.vocabulary, settled, vectors, reporter)
        carried = None if continued is None or continued.has_text else continued
        learned, documents = _learned(corpus, settled, tables, carried, device, temporary_directory, reporter)
    run = checkpoints.run if checkpoints is not None else None
    learned |= subwords
    training = _training_facts(corpus, settled, backend, state, phases, run)
    about = corpus.statistics.to_dict()
    if continued is not None:
        training["continued"] = continued.facts()
        about = continued.corpus_facts(new)
    return _model(corpus, settled, vectors, documents, learned, training, about)


def _fill(
    tables: Tables, vectors: Tables, config: TrainConfig, given: GivenVectors | None, new: EncodedCorpus, plan: Plan,
    reporter: Reporter,
) -> None:  # fmt: skip
    """Fill the tables with the vectors that a training begins with."""
    fill_with_random_points(vectors, config.seed)
    if given is not None:
        reporter.note(given.coverage)
        given.fill(vectors, new)
    if plan.corpus is not new:
        reporter.note(plan.note)
        begin_documents(plan.corpus, config, tables, config.resolved_workers())


def _learned(
    corpus: EncodedCorpus, config: TrainConfig, tables: Tables, carried: Continued | None, device: str,
    directory: PathLike | None, reporter: Reporter,
) -> tuple[dict[str, Any], Documents]:  # fmt: skip
    """Learn how words make document vectors, and make them; those of a model to continue without text are carried."""
    reporter.start("document weights", corpus.n_documents, "documents")
    read_in_order(tables.document)
    # A GPU may be full of the training's tables; "auto" then sums on the CPU, to the same bytes.
    summing, threads = ("cpu", config.resolved_workers()) if device == "cpu" else ("auto", available_workers())
    if carried is None:
        learned = learn_documents(corpus, config, tables, backend=summing, threads=threads)
        rows = trained_rows(tables, corpus.vocabulary.n_words, config.dim).document
        documents = Documents(corpus.doc_ids, rows, np.diff(corpus.offsets), corpus.texts)
    else:
        learned, documents = carried.learned(
            corpus, config, tables, backend=summing, threads=threads, directory=directory
        )
    reporter.advance(corpus.n_documents)
    reporter.finish()
    return learned, documents


def _settings_of(
    config: TrainConfig | None, preset: str | None, settings: dict[str, Any]
) -> tuple[TrainConfig, Collection[str], Continued | None]:
    """The settings, the names of those that differ from the default or were given by name, the model to continue."""
    chosen = {**(preset_settings(preset) if preset is not None else {}), **settings}
    config = config or TrainConfig()
    for name in chosen:
        if name not in TrainSettings.__annotations__:
            known = [*Settings.__annotations__, *list(signature(train).parameters)[:-1]]
            raise ConfigError(f"unknown setting {name}{counterpart(name, known)}")
    settings = {**config.to_dict(), **chosen}
    continued = opened(settings["continue_from"], settings["earlier_text"])
    defaults = TrainConfig().to_dict()
    if continued is not None:
        chosen = {name: value for name, value in config.to_dict().items() if value != defaults[name]} | chosen
        config = continued.config(chosen)
    elif chosen:
        config = TrainConfig.from_dict(settings)
    given = chosen.keys() | {name for name, value in config.to_dict().items() if value != defaults[name]}
    return config, given, continued


def _check_arguments(
    source: Sources | None,
    documents: Any,
    ids: Iterable[Any] | None,
    keep_encoded: PathLike | None,
    checkpoint: PathLike | Checkpoints | None,
    resume: bool,
    config: TrainConfig,
    options: TextOptions,
    continued: Continued | None,
) -> None:
    """Check the arguments of :func:`train` against each other.

    Raises:
        ConfigError: some exclude each other.
        ModelError: ``init`` names no vectors.
    """
    if (source is None) == (documents is None):
        raise ConfigError("train() takes either a source (files) or documents=... (texts); give one of them")
    if source is None and keep_encoded is not None:
        raise ConfigError("keep_encoded needs files; documents=... cannot be found again by a later training")
    if source is not None and ids is not None:
        raise ConfigError("ids belong to documents=...; the ids of files are named by id_field")
    is_for_the_cpu(config)
    if config.init:
        check_init(config.init)
    if config.continue_from and keep_encoded is not None:
        raise ConfigError("keep_encoded keeps a text and its own words; leave it out with continue_from")
    if continued is not None:
        continued.check(config, options)
    if resume and checkpoint is None:
        raise ConfigError("resume needs the directory of the checkpoints; add checkpoint=...")
    if config.patience and not config.held_out:
        raise ConfigError("patience counts epochs without a lower held-out loss; add held_out, such as 0.05")
    if config.held_out and config.doc_method == "trained":
        raise ConfigError("held_out leaves documents untrained, and doc_method='trained' needs all; choose one")
    if options.keeps and config.doc_vectors == "none":
        raise ConfigError("keep_text and keep_fields show texts beside documents, but doc_vectors is none; choose one")


def _check_engine(
    engine: EngineOptions,
    source: Sources | None,
    keep_encoded: PathLike | None,
    config: TrainConfig,
    on_epoch: OnEpoch | None,
) -> None:
    """Check that the engine can train with these arguments.

    Raises:
        ConfigError: several machines with given vectors, with documents from Python, or with an encoding to keep.
        MissingExtraError, DeviceError: a GPU that this machine does not have.
    """
    if engine.engine == "local":
        check_backend(config.backend)
    elif config.isotropy or config.held_out or on_epoch is not None:
        name = "isotropy" if config.isotropy else "held_out" if config.held_out else "on_epoch"
        raise ConfigError(f"{name} is for trainings on one machine; leave it out with engine='ray'")
    elif config.subwords:
        raise ConfigError("subwords are learned on one machine; leave subwords out with engine='ray'")
    elif config.init or config.continue_from:
        name = "init" if config.init else "continue_from"
        raise ConfigError(f"{name} starts trainings on one machine; leave it out with engine='ray'")
    elif source is None:
        raise ConfigError("engine='ray' reads files on its machines; give names of files instead of documents")
    elif keep_encoded is not None:
        raise ConfigError(
            "keep_encoded keeps the text in one place, and engine='ray' spreads it; leave one of them out"
        )


def _on_ray(
    source: Sources,
    config: TrainConfig,
    engine: EngineOptions,
    options: TextOptions,
    reporter: Reporter,
    checkpoints: Checkpoints | None,
    directory: PathLike | None,
) -> Embeddings:
    """Train on the machines of a Ray cluster, by a package above this one."""
    place = None if directory is None else os.fspath(directory)
    model: Embeddings = jose_embed.train_on_ray(source, config, engine, options, reporter, checkpoints, place)
    return model


@contextmanager
def _begun(
    checkpoint: PathLike | Checkpoints | None, every: float, resume: bool, reporter: Reporter
) -> Iterator[Checkpoints | None]:
    """The checkpoints of a run, removed when it succeeds; those that the caller has opened are left as they are."""
    if checkpoint is None or isinstance(checkpoint, Checkpoints):
        yield checkpoint
        return
    with Checkpoints(checkpoint, every=every) as checkpoints:
        checkpoints.begin(resume, reporter)
        yield checkpoints
        checkpoints.remove()


def _encoded(
    source: Sources | None,
    documents: GivenDocuments | None,
    config: TrainConfig,
    given: Collection[str],
    keep_encoded: PathLike | None,
    checkpoints: Checkpoints | None,
    temporary_directory: PathLike | None,
    reporter: Reporter,
    text_options: TextOptions,
    continued: Continued | None,
) -> tuple[EncodedCorpus, TrainConfig, bool]:
    """The encoded text, the settings with its tokenizer and minimal count, and whether checkpoints keep the text."""
    encoded_before = source is not None and _is_encoded(source)
    keep_text = source is not None and keep_encoded is None and not encoded_before and not config.continue_from
    if checkpoints is not None:
        checkpoints.check(config, given=given if encoded_before else None)
        if (
            source is not None
            and keep_text
            and (corpus := checkpoints.kept_text(source, reporter, text_options)) is not None
        ):
            return corpus, config, keep_text
    options: dict[str, Any] = {"reporter": reporter, "directory": temporary_directory, "options": text_options}
    if continued is not None:
        options["earlier"] = earlier = continued.words
        if earlier.rare is None:
            reporter.note(f"{config.continue_from}: has no counts of rare words; they are counted in the new text only")
    if source is None:
        assert documents is not None
        corpus = encode_texts(documents, **encoding_settings(config), **options)
        return corpus, config, keep_text
    return *text_for(source, config, given=given, keep_encoded=keep_encoded, **options), keep_text


def _is_encoded(source: Sources) -> bool:
    """Whether a source is one encoded corpus."""
    names = listed(source)
    return len(names) == 1 and isinstance(names[0], (str, os.PathLike)) and is_encoded(names[0])


def _pull(given: GivenVectors | None, config: TrainConfig, vectors: Tables) -> Callable[[int], None] | None:
    """What holds the words near their given vectors after each epoch; None if nothing does."""
    if given is None or not given.weights.any():
        return None

    def after_epoch(epoch: int) -> None:
        rate = config.learning_rate * (1 - (epoch + 0.5) / config.epochs)
        given.pull(vectors, rate * config.context_weight)

    return after_epoch


def _training_facts(
    corpus: EncodedCorpus, config: TrainConfig, backend: Backend, state: RunState, phases: dict[str, float],
    run: str | None,
) -> dict[str, Any]:  # fmt: skip
    """The record of the training in the model's manifest."""
    return {
        "run": run,
        "backend": backend.name,
        "workers": backend.workers,
        "epochs": state.epochs,
        "phases": phases,
        "words_per_second": sum(epoch["words_per_second"] * epoch["seconds"] for epoch in state.epochs)
        / max(phases["training"], 1e-9),
        "machine": machine_facts(),
    }


def _text_facts(corpus: EncodedCorpus, config: TrainConfig) -> dict[str, Any] | None:
    """The manifest's facts about the way from text to words."""
    facts = text_facts(corpus.tokenizer)
    if corpus.phrases:
        first = [phrase.word for phrase in corpus.phrases[:_PHRASES_SHOWN]]
        facts["phrases"] = {"threshold": THRESHOLD, "number": len(corpus.phrases), "first": first}
    if corpus.rare_counts is not None:
        facts[RARE_COUNTS] = True
    if (ngrams := ngrams_of(config)) is not None:
        facts[SUBWORDS] = dataclasses.asdict(ngrams)
    return facts or None


def _model(
    corpus: EncodedCorpus, config: TrainConfig, vectors: Tables, documents: Documents, learned: dict[str, Any],
    training: dict[str, Any], about: dict[str, Any],
) -> Embeddings:  # fmt: skip
    """The model of trained vectors; without documents if ``doc_vectors`` is "none"."""
    of_documents: dict[str, Any] = {}
    if config.doc_vectors != "none":
        of_documents = {
            "doc_ids": documents.ids,
            "doc_vectors": documents.vectors,
            "doc_token_counts": documents.token_counts,
            "texts": documents.texts,
        }
    if corpus.rare_counts is not None:
        learned = {**learned, RARE_COUNTS: np.frombuffer(corpus.rare_counts, np.uint8)}
    return Embeddings.from_arrays(
        words=corpus.vocabulary.words,
        counts=corpus.vocabulary.counts,
        center_vectors=vectors.center,
        context_vectors=vectors.context,
        **of_documents,
        config=config,
        tokenizer=corpus.tokenizer.name,
        tokenizer_settings=corpus.tokenizer.settings(),
        training=training,
        corpus=about,
        text=_text_facts(corpus, config),
        extra_arrays=learned,
        extra_json={PHRASES: list(corpus.phrases)} if corpus.phrases else {},
    )
