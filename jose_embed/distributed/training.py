"""A training on several machines: read, count, train and exchange, sum up, collect.

:func:`train_on` does not know where the machines are: it runs on a :class:`~jose_embed.distributed.group.Group` of
shards and one of owners, which cluster.py makes of actors of Ray, and tests of plain objects.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.config import TrainConfig
from jose_embed.distributed.dealing import dealt
from jose_embed.distributed.exchange import Point, plan
from jose_embed.distributed.group import RESUME, Group, LostResultError
from jose_embed.distributed.reductions import learn_documents
from jose_embed.distributed.shard import ReadFacts, TrainFacts
from jose_embed.errors import ConfigError, CorpusError, TrainingError
from jose_embed.model.embeddings import Embeddings
from jose_embed.progress import Reporter, SilentReporter, amount_text, timed
from jose_embed.storage.memory import mapped_table
from jose_embed.text.corpus import CorpusStatistics
from jose_embed.text.encode import chosen_words, nothing_to_train_on
from jose_embed.text.kept import encoding_settings
from jose_embed.text.reader import DocumentIds
from jose_embed.text.records import TextOptions
from jose_embed.text.sources import Source
from jose_embed.text.texts import TextStore
from jose_embed.text.tokenizers import Tokenizer, text_facts
from jose_embed.text.vocabulary import Vocabulary
from jose_embed.training.checkpoints import Checkpoints, RunFacts
from jose_embed.training.engine import EngineOptions
from jose_embed.training.keeper import Interrupts
from jose_embed.training.machine import machine_facts
from jose_embed.training.schedule import RunState

_MOST_IN_ONE_ARRAY: Final = 8 << 30  # bytes of document vectors
_COLLECTED: Final = 1 << 16  # documents fetched at a time
_TRIES: Final = 5


class SharedText(NamedTuple):
    """A text that is spread over machines; the attributes are those of an encoded corpus.

    Attributes:
        statistics: Counts of the whole text.
        vocabulary: The words.
        shard_documents: Documents of each machine.
        shard_tokens: Running words of each machine.
        n_with_words: Documents that have a word.
        doc_ids: The ids of documents that are numbered.
        tokenizer: What split the text.
    """

    statistics: CorpusStatistics
    vocabulary: Vocabulary
    shard_documents: Sequence[int]
    shard_tokens: Sequence[int]
    n_with_words: int
    doc_ids: DocumentIds
    tokenizer: Tokenizer

    @property
    def n_documents(self) -> int:
        """The number of documents."""
        return sum(self.shard_documents)

    @property
    def n_tokens(self) -> int:
        """The number of running words."""
        return sum(self.shard_tokens)

    @property
    def n_words(self) -> int:
        """The size of the vocabulary."""
        return self.vocabulary.n_words

    @property
    def first_documents(self) -> list[int]:
        """The number of the first document of each machine."""
        return [sum(self.shard_documents[:shard]) for shard in range(len(self.shard_documents))]


@dataclasses.dataclass(frozen=True)
class Job:
    """A text, the machines that read it, and how it is to be trained.

    Attributes:
        shards: A :class:`~jose_embed.distributed.shard.Shard` on each machine.
        owners: As many :class:`~jose_embed.distributed.exchange.Owner`; None for a single machine.
        sources: The files.
        config: The settings, as the user gave them.
        options: The settings of the engine.
        text_options: How the text is read.
        reporter: Receives the progress of all machines together.
        threads: Threads of a machine without a GPU, if ``config.workers`` is 0.
        temporary_directory: Directory of temporary files, here and on the machines.
    """

    shards: Group
    owners: Group | None
    sources: Sequence[Source]
    config: TrainConfig
    options: EngineOptions
    text_options: TextOptions = TextOptions()
    reporter: Reporter = dataclasses.field(default_factory=SilentReporter)
    threads: int = 1
    temporary_directory: str | None = None

    def settled(self, n_tokens: int) -> TrainConfig:
        """The settings for a text of so many running words, with the threads of a machine."""
        settled = self.config.for_text(n_tokens)
        return dataclasses.replace(settled, workers=settled.workers or self.threads)


def train_on(job: Job, checkpoints: Checkpoints | None = None) -> Embeddings:
    """Train on a group of machines.

    Args:
        job: What and where.
        checkpoints: Where checkpoints are written, and where the run continues if there is one.

    Returns:
        The model; without documents if they were written to ``job.options.doc_output``.

    Raises:
        ConfigError, CorpusError, TrainingError: as from :func:`jose_embed.train`.
    """
    phases: dict[str, float] = {}
    if checkpoints is not None:
        checkpoints.check(job.config, nodes=len(job.shards))
    if job.options.doc_output:  # before the work
        job.shards.values(
            "check_output", job.options.doc_output, checkpoints is not None and checkpoints.latest is not None
        )
    with timed(phases, "reading"):
        text = read_shares(job)
    _check_room(text, job.config, job.options)
    run = Run(job, text, checkpoints, phases)
    with timed(phases, "preparing"):
        run.prepare()
    with timed(phases, "training"):
        run.train()
    with timed(phases, "documents"):
        parts = run.finish()
    return run.model(parts)


def read_shares(job: Job) -> SharedText:
    """Deal the files, read them on all machines, choose the vocabulary of the whole text, and encode.

    Raises:
        ConfigError: phrases, which need the whole text in one place.
        CorpusError: text that cannot be read, or no word that is frequent enough.
    """
    shards, config, reporter = job.shards, job.config, job.reporter
    settings = encoding_settings(config)
    tokenizer, choice = settings["tokenizer"], settings["choice"]
    if choice.phrases:
        raise ConfigError(
            "phrases needs the whole text in one place, and engine='ray' spreads it; leave one of them out"
        )
    parts = dealt(job.sources, len(shards))
    n_bytes = sum(source.size() or 0 for source in job.sources)
    with _together(shards, reporter, "reading", n_bytes, "bytes"):
        shared = (tokenizer, job.text_options, job.temporary_directory, settings["workers"])
        each = [(part, *shared) for part in parts]
        facts: list[ReadFacts] = shards.values("read", each=each, keep=True)
    reports = [report for fact in facts for report in fact.reports]
    for note in dict.fromkeys(note for fact in facts for note in fact.notes):
        reporter.note(note)
    counted = shards.handles("counted", returns=len(shards))
    each = [tuple(parts[part] for parts in counted) for part in range(len(shards))]
    merged = shards.values("merged", config.min_count, choice.keep_words, each=each)
    words: list[str] = [word for some, _, _ in merged for word in some]
    statistics = _sum_of(facts, sum(seen for _, _, seen in merged))
    counts = np.concatenate([some for _, some, _ in merged])
    order = chosen_words(words, counts, config.min_count, choice, reporter)
    if not len(order):
        raise CorpusError(nothing_to_train_on(statistics, config.min_count, choice))
    vocabulary, counts = tuple(words[row] for row in order), counts[order]
    with _together(shards, reporter, "encoding", statistics.n_tokens_seen, "tokens"):
        sizes = shards.values("encode", vocabulary, counts, config.min_count, choice, keep=True)
    return SharedText(
        statistics,
        Vocabulary(vocabulary, counts),
        [fact.statistics.n_documents for fact in facts],
        [n_tokens for n_tokens, _ in sizes],
        sum(n for _, n in sizes),
        DocumentIds([report.name for report in reports], [report.n_lines for report in reports]),
        tokenizer,
    )


def _sum_of(facts: Sequence[ReadFacts], n_words_seen: int) -> CorpusStatistics:
    """The counts of the whole text."""
    each = [fact.statistics for fact in facts]
    if len(each) == 1:
        return each[0]
    sums = {
        name: sum(getattr(statistics, name) for statistics in each)
        for name in ("n_bytes", "n_documents", "n_empty", "n_tokens_seen", "invalid_utf8_lines", "invalid_utf8_bytes")
    }
    return CorpusStatistics(
        **sums,
        n_words_seen=n_words_seen,
        sources=tuple(name for statistics in each for name in statistics.sources),
        text_field=each[0].text_field,
        id_field=each[0].id_field,
        sha256=hashlib.sha256(" ".join(statistics.sha256 for statistics in each).encode()).hexdigest(),
    )


class Run:
    """A training whose text is encoded.

    Args:
        job: What and where.
        text: The encoded text.
        checkpoints: As for :func:`train_on`.
        phases: Seconds already spent, by name.
    """

    def __init__(
        self, job: Job, text: SharedText, checkpoints: Checkpoints | None = None, phases: dict[str, float] | None = None
    ) -> None:
        self._shards, self._owners, self._config, self._options = job.shards, job.owners, job.config, job.options
        self._job, self._text, self._reporter, self._temporary = job, text, job.reporter, job.temporary_directory
        self._checkpoints, self._phases = checkpoints, phases if phases is not None else {}
        self._settled = job.config.for_text(text.n_tokens)
        self._states = [RunState() for _ in range(len(job.shards))]
        self._number = 0  # of the last exchange
        self._start: tuple[RunState, npt.NDArray[np.float32]] | None = None  # a single machine's checkpoint
        self._facts: list[TrainFacts] = []

    # ---- training ----------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the tables of all machines, random or those of the checkpoint."""
        on_machine = self._job.settled(self._text.n_tokens)
        each = [(first, self._options.int8) for first in self._text.first_documents]
        with _together(self._shards, self._reporter, "compiling", 1, "kernels"):
            self._facts = self._shards.values("prepare", on_machine, each=each, keep=True)
        for note in dict.fromkeys(note for fact in self._facts for note in fact.notes):
            self._reporter.note(note)
        checkpoints = self._checkpoints
        if checkpoints is not None and checkpoints.latest is not None:
            self._resume(checkpoints)
        self._shards.keep_call("restore", self._restoring)
        if self._owners is not None:
            self._owners.keep_call("fill", self._filling)
            rows = [self._filling(owner) for owner in range(len(self._owners))]
            self._owners.values("fill", each=rows)

    def train(self) -> None:
        """Train and exchange; Ctrl-C writes a checkpoint."""
        points = plan(self._settled.epochs, self._options.exchanges, self._text.n_words)
        n_words = self._settled.epochs * self._text.n_tokens
        interrupts = Interrupts()
        keeping = self._checkpoints is not None and self._checkpoints.every > 0

        def stop_if_interrupted() -> None:
            if interrupts.number is not None:
                self._shards.send("stop")

        done = sum(self._done(shard) for shard in range(len(self._shards)))
        with (
            _together(self._shards, self._reporter, "training", n_words, "words", done, stop_if_interrupted),
            interrupts if keeping else nullcontext(),
        ):
            at = max(0, self._passed(points) - 1)  # the last exchange is made again: it changes nothing
            while at < len(points):
                point = points[at]
                self.exchange(point)
                checkpoints, whole = self._checkpoints, point.limit == self._text.n_words
                stopped = interrupts.number is not None
                if checkpoints is not None and keeping and (stopped or (checkpoints.due and whole)):
                    if not whole:
                        self.exchange(point._replace(limit=self._text.n_words))
                    self._checkpoint(checkpoints)
                    interrupts.let_through()
                at += self._passed([point])  # not if it was stopped

    def _passed(self, points: Sequence[Point]) -> int:
        """How many of the exchanges all machines have trained up to."""
        sizes = list(enumerate(self._text.shard_tokens))
        return sum(all(self._done(shard) >= point.words_before(n) for shard, n in sizes) for point in points)

    def exchange(self, point: Point) -> None:
        """Train all machines up to an exchange, and exchange.

        Raises:
            TrainingError: machines are lost again and again.
        """
        shards, owners = self._shards, self._owners
        number = self._number + 1
        results = shards.handles("interval", point, returns=1 + (len(owners) if owners is not None else 0))
        if owners is None:
            self._states, self._number = [shards.value(result[0]) for result in results], number
            return
        shards.taken_anew()
        answers = self._combined(number, point, results)
        self._states, self._number = [shards.value(result[0]) for result in results], number
        for _ in range(_TRIES):
            try:
                shards.values("apply", number, point.limit, *(answer[0] for answer in answers))
                return
            except LostResultError:  # the machine of an owner was lost with its answer
                owners.values("rows")  # made anew, with the rows of a machine
                for owner in owners.taken_anew():
                    each = [[result[1 + at] for result in results] for at in range(len(owners))]
                    answers[owner] = owners.handles("combine", number, each=each, only=[owner])[owner]
        raise TrainingError("machines are lost again and again; " + RESUME)

    def _combined(self, number: int, point: Point, results: list[list[Any]]) -> list[list[Any]]:
        """The answers of the owners; a machine that was lost with its moves repeats its interval."""
        shards, owners = self._shards, self._owners
        assert owners is not None
        for _ in range(_TRIES):
            each = [[result[1 + owner] for result in results] for owner in range(len(owners))]
            try:
                return owners.handles("combine", number, each=each)
            except LostResultError:
                shards.values("ping")
                anew = shards.taken_anew()
                for shard, result in enumerate(shards.handles("interval", point, returns=1 + len(owners), only=anew)):
                    if result:
                        results[shard] = result
        raise TrainingError("machines are lost again and again; " + RESUME)

    def _done(self, shard: int) -> int:
        state = self._states[shard]
        return state.epoch * self._text.shard_tokens[shard] + state.tokens

    # ---- machines that are lost, and checkpoints ---------------------------------------------------------------------

    def _restoring(self, shard: int) -> Sequence[Any] | None:
        """The arguments of ``Shard.restore`` for a machine that is made anew."""
        if self._owners is not None:
            return (self._number, self._states[shard], *self._owners.values("rows"))
        return None if self._start is None else (0, *self._start)

    def _filling(self, owner: int) -> Sequence[Any]:
        """The arguments of ``Owner.fill``: the common rows of any machine, the newest."""
        found = [self._shards.ask(shard, "common", owner) for shard in range(len(self._shards))]
        # One that is made anew itself is still at the start.
        alive: list[tuple[int, Any]] = [one for one in found if one is not None and one[0] >= self._number - 1]
        if not alive:
            raise TrainingError("all machines were lost at the same time; " + RESUME)
        return max(alive, key=lambda answer: answer[0])

    def _checkpoint(self, checkpoints: Checkpoints) -> None:
        """Write a checkpoint; all word tables are equal. If that fails, the training continues without it."""
        words = self._shards.ask(0, "words")
        documents = np.empty((0, self._settled.dim), np.float32)
        if not self._options.doc_output:
            documents = self._collected()
        try:
            about = RunFacts(self._text, self._config, self._settled.epochs, "ray", self._phases)
            written = checkpoints.write([words[0], words[1], documents], self.state(), about, self._states)
        except TrainingError as error:
            self._reporter.note(f"no checkpoint could be written: {error}")
        else:
            self._reporter.note(f"checkpoint: {written.place}")

    def _resume(self, checkpoints: Checkpoints) -> None:
        """Take the state of the newest checkpoint."""
        found = checkpoints.latest
        assert found is not None
        checkpoints.check_backend("ray")
        n_words, dim = self._text.n_words, self._settled.dim
        center, context = (np.empty((n_words, dim), np.float32) for _ in range(2))
        documents = np.empty((0, dim), np.float32)
        if not self._options.doc_output:
            documents = mapped_table(self._text.n_documents, dim, self._temporary, "the document vectors")
        checkpoints.restore([center, context, documents], self._text, self._phases, self._reporter)
        self._states = [RunState.from_dict(state.to_dict()) for state in found.shards]
        words, n = np.stack((center, context)), len(self._shards)
        parts = [np.ascontiguousarray(words[:, shard::n]) for shard in range(n)]
        if n == 1:
            self._start = self._states[0], words
        self._shards.values("restore", 0, each=[(state, *parts) for state in self._states])
        for shard, (first, number) in enumerate(
            zip(self._text.first_documents, self._text.shard_documents, strict=True)
        ):
            for start in range(0, number if len(documents) else 0, _COLLECTED):
                rows = documents[first + start : first + min(start + _COLLECTED, number)]
                self._shards.ask(shard, "take_document_rows", start, np.array(rows))

    def _collected(self) -> npt.NDArray[np.float32]:
        """The document tables of all machines, in a temporary file here."""
        table = mapped_table(self._text.n_documents, self._settled.dim, self._temporary, "the document vectors")
        for shard, start, stop, first in self._stretches():
            table[first : first + stop - start] = self._fetched(shard, "document_rows", start, stop)
        return table

    def _stretches(self) -> Iterator[tuple[int, int, int, int]]:
        """Shard, first and last row there, and first row of all, of some documents at a time."""
        for shard, (first, number) in enumerate(
            zip(self._text.first_documents, self._text.shard_documents, strict=True)
        ):
            for start in range(0, number, _COLLECTED):
                yield shard, start, min(start + _COLLECTED, number), first + start

    def _fetched(self, shard: int, method: str, *arguments: Any) -> Any:
        """The answer of one machine, which is made anew if it is lost."""
        for _ in range(_TRIES):
            if (answer := self._shards.ask(shard, method, *arguments)) is not None:
                return answer
            self._shards.values("ping")
        raise TrainingError("a machine is lost again and again; " + RESUME)

    # ---- the end -----------------------------------------------------------------------------------------------------

    def state(self) -> RunState:
        """The states of all machines as one: sums, and means weighted by their hinges."""
        states = self._states
        n_epochs = min(state.epoch for state in states)
        epochs = [_mean_report([state.epochs[epoch] for state in states]) for epoch in range(n_epochs)]
        sums = {
            option.name: sum(getattr(state, option.name) for state in states if state.epoch == n_epochs)
            for option in dataclasses.fields(RunState)
            if option.name not in ("epochs", "seconds", "stopped")
        }
        return RunState(epochs, **sums, seconds=max(state.seconds for state in states))

    def finish(self) -> dict[str, Any]:
        """Learn the weights, and collect words and documents, as arguments of ``Embeddings.from_arrays``."""
        text, config = self._text, self._settled
        with _together(self._shards, self._reporter, "document weights", text.n_documents, "documents"):
            learned = learn_documents(
                self._shards, config, text.n_words, text.n_tokens, text.n_documents, text.n_with_words
            )
        words = self._fetched(0, "words")
        documents: dict[str, Any] = {}
        if self._options.doc_output:
            self._write_parts()
        elif config.doc_vectors != "none":
            documents = self._documents()
        return {"center_vectors": words[0], "context_vectors": words[1], "extra_arrays": learned, **documents}

    def model(self, parts: dict[str, Any]) -> Embeddings:
        """The model of what :meth:`finish` has collected."""
        text = self._text
        return Embeddings.from_arrays(
            words=text.vocabulary.words,
            counts=text.vocabulary.counts,
            **parts,
            config=self._settled,
            tokenizer=text.tokenizer.name,
            tokenizer_settings=text.tokenizer.settings(),
            text=text_facts(text.tokenizer) or None,
            training=self._training_facts(),
            corpus=text.statistics.to_dict(),
        )

    def _documents(self) -> dict[str, Any]:
        """What the model stores of documents, collected from all machines in the order of the files."""
        text = self._text
        table = mapped_table(text.n_documents, self._settled.dim, self._temporary, "the document vectors")
        n_tokens = np.empty(text.n_documents, np.int64)
        ids: list[str] = []
        texts, text_options = None, self._job.text_options
        if text_options.keeps:
            texts = TextStore.create(self._temporary, fields=text_options.keep_fields)
        self._reporter.start("collecting", text.n_documents, "documents")
        for shard, start, stop, first in self._stretches():
            some = self._fetched(shard, "documents", start, stop)
            table[first : first + len(some.vectors)] = some.vectors
            n_tokens[first : first + len(some.vectors)] = some.n_tokens
            ids += some.ids or ()
            if texts is not None:
                texts.append(
                    [kept.text for kept in some.kept] if text_options.keep_text else None,
                    [kept.fields for kept in some.kept] if text_options.keep_fields else None,
                    len(some.kept),
                )
            self._reporter.advance(stop - start)
        self._reporter.finish()
        if texts is not None:
            texts.finish(text.tokenizer)
        if ids and len(set(ids)) < len(ids):
            seen: set[str] = set()
            twice = next(one for one in ids if one in seen or seen.add(one))  # type: ignore[func-returns-value]
            raise CorpusError(f"the id {twice!r} is given twice, in files of two machines; ids must differ")
        return {
            "doc_ids": ids or text.doc_ids,
            "doc_vectors": table,
            "doc_token_counts": n_tokens,
            "texts": texts,
        }

    def _write_parts(self) -> None:
        """Let every machine write its documents as Parquet."""
        many = len(self._text.doc_ids) and len(self._text.statistics.sources) > 1
        with _together(self._shards, self._reporter, "writing", self._text.n_documents, "documents"):
            written = self._shards.values("write_documents", self._options.doc_output, bool(many))
        size = amount_text(sum(written), "bytes")
        self._reporter.note(f"{self._options.doc_output}: {len(written)} files of document vectors, {size}")

    def _training_facts(self) -> dict[str, Any]:
        """The record of the training in the model's manifest."""
        checkpoints, state = self._checkpoints, self.state()
        options = {name: value for name, value in dataclasses.asdict(self._options).items() if name != "address"}
        return {
            "run": checkpoints.run if checkpoints is not None else None,
            "backend": self._facts[0].backend,
            "workers": sum(fact.workers for fact in self._facts),
            "engine": {**options, "nodes": len(self._shards)},
            "epochs": state.epochs,
            "phases": self._phases,
            "words_per_second": self._settled.epochs * self._text.n_tokens / max(self._phases["training"], 1e-9),
            "machine": machine_facts(),
        }


def _mean_report(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The reports of one epoch of all machines as one."""
    pairs = sum(report["pairs"] for report in reports)
    seconds = max(report["seconds"] for report in reports)
    words = sum(report["words_per_second"] * report["seconds"] for report in reports)

    def mean(name: str) -> float:
        if len(reports) == 1:
            return float(reports[0][name])
        return float(sum(report[name] * report["pairs"] for report in reports) / max(pairs, 1))

    return {
        "epoch": reports[0]["epoch"],
        "loss": mean("loss"),
        "active": mean("active"),
        "pairs": pairs,
        "positions": sum(report["positions"] for report in reports),
        "seconds": seconds,
        "words_per_second": words / max(seconds, 1e-9),
    }


def _check_room(text: SharedText, config: TrainConfig, options: EngineOptions) -> None:
    n_bytes = 4 * text.n_documents * config.dim
    if n_bytes > _MOST_IN_ONE_ARRAY and not options.doc_output and config.doc_vectors != "none":
        raise ConfigError(
            f"the vectors of {text.n_documents:,} documents take {amount_text(n_bytes, 'bytes')}, too much for one "
            'array; let the machines write them with doc_output="FOLDER", or leave them out with doc_vectors="none"'
        )


@contextmanager
def _together(
    group: Group,
    reporter: Reporter,
    phase: str,
    total: int,
    unit: str,
    done: int = 0,
    also: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Show the work of all members as one phase; ``also`` is called as often as it is looked at."""
    reporter.start(phase, total, unit, done)
    shown, figures = done, dict[str, float]()

    def look() -> None:
        nonlocal shown
        if also is not None:
            also()
        answers = [answer for answer in group.poll("progress") if answer is not None]
        if len(answers) < len(group):
            return
        now = min(sum(amount for amount, _ in answers), total)
        for name in answers[0][1]:
            values = [found[name] for _, found in answers if name in found]
            figures[name] = sum(values) if name in ("tokens", "documents") else sum(values) / len(values)
        if now > shown and total > 1:
            reporter.advance(now - shown, **figures)
            shown = now

    group.on_wait = look
    try:
        yield
        if total > shown:
            reporter.advance(total - shown)
        reporter.finish(**(figures if total > 1 else {}))
    finally:
        group.on_wait = None
