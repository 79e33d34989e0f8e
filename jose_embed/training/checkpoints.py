"""Checkpoints: a training that was stopped can be resumed exactly.

Random choices depend on the seed and on the place they are made for, the learning rate on the number of words trained
before, and chunks are trained in order. The tables and the place between two chunks are therefore the whole state of a
run. With one worker, a run that is stopped anywhere and resumed ends with the same bytes as one that was never stopped.

A run has a directory of its own, usually ``NAME.jose.run`` beside the model ``NAME.jose``:

=================== ===========================================================================================
checkpoint-NNNNNN/  the newest two. In each: checkpoint.json (format, versions, settings, SHA-256 of the text,
                    state, size and SHA-256 of every table) and the tables center.npy, context.npy and
                    document.npy, float32
text/               the encoded text (text/kept.py), so that the text is not read again
=================== ===========================================================================================

Each directory is written under a temporary name, synced and renamed, and so complete whenever it exists. One process at
a time holds the directory of a run. It is removed when the model is saved; files that no run wrote stay.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from jose_embed.config import TEXT_SETTINGS, TrainConfig
from jose_embed.errors import ConfigError, CorpusError, TrainingError
from jose_embed.progress import Reporter, SilentReporter, WarningNote
from jose_embed.storage.atomic import DirectoryWriter, foreign_entry, reason, remove_directory, tidy
from jose_embed.storage.columns import array_chunks, row_blocks
from jose_embed.storage.directory import DirectoryKind, DirectoryReader
from jose_embed.storage.locks import directory_lock
from jose_embed.storage.manifest import (
    MAPPING,
    Rule,
    check_manifest,
    check_sizes,
    json_bytes,
    one_of_pattern,
    open_manifest,
    sealed,
    verify_files,
    whole_number,
)
from jose_embed.storage.memory import release
from jose_embed.text.corpus import CorpusStatistics, EncodedCorpus
from jose_embed.text.kept import ENCODED_FILES, is_encoded, open_encoded, write_encoded
from jose_embed.text.records import TextOptions
from jose_embed.text.sources import Source, SourceReport, Sources, find_sources, printable, sha256_of
from jose_embed.text.vocabulary import Vocabulary
from jose_embed.training.schedule import RunState
from jose_embed.version import __version__

Tables = Sequence[npt.NDArray[np.float32]]

_FACTS: Final = "checkpoint.json"
_KIND: Final = DirectoryKind(
    noun="checkpoint",
    made="",
    advice="it is not used",
    error=TrainingError,
    format="jose-embed-checkpoint",
    version=2,
    manifest=_FACTS,
)
_SECONDS: Final = Rule(
    lambda value: (
        isinstance(value, dict)
        and all(type(seconds) in (int, float) and 0 <= seconds < 2**62 for seconds in value.values())
    ),
    "seconds by name",
)
_FIELDS: Final = {
    "run": one_of_pattern(r"[0-9a-f]{1,64}", "hexadecimal digits"),
    "config": MAPPING,
    "epochs": whole_number(1, 100_000),
    "backend": one_of_pattern(r"[a-z]{1,16}", "a short name"),
    "corpus.sha256": one_of_pattern(r"[0-9a-f]{64}", "64 hexadecimal digits"),
    "corpus.n_documents": whole_number(),
    "corpus.n_words": whole_number(),
    "corpus.n_tokens": whole_number(),
    "state": MAPPING,
    "phases": _SECONDS,
}
_TABLES: Final = ("center", "context", "document")
_NAME: Final = re.compile(r"checkpoint-(\d{6,})")
_OURS: Final = re.compile(r"(?:\.)?(checkpoint-\d{6,}|text)(?:\.tmp-\d+-[0-9a-f]{8})?")
_CHECKPOINT_FILES: Final = frozenset({_FACTS, *(f"{name}.npy" for name in _TABLES)})
_KEPT: Final = 2
_ELSEWHERE: Final = "make it accessible, or choose another name for the model"
# Settings that may differ: the place of the vectors; and the backend, which is compared by what "auto" chose.
_FREE: Final = frozenset({"backend", "doc_vectors"})


class TextFacts(Protocol):
    """What a checkpoint stores of a text, which may be spread over machines; see
    :class:`~jose_embed.text.corpus.EncodedCorpus`."""

    @property
    def statistics(self) -> CorpusStatistics: ...
    @property
    def vocabulary(self) -> Vocabulary: ...
    @property
    def n_documents(self) -> int: ...
    @property
    def n_tokens(self) -> int: ...


@dataclass(frozen=True)
class RunFacts:
    """What checkpoints store of a run besides its state and its vectors.

    Attributes:
        corpus: The encoded text.
        config: The settings, as the user gave them.
        epochs: Epochs of the whole training.
        backend: The name of the backend.
        phases: Seconds spent before the training, by name.
        keep_text: Also store the encoded text, once.
    """

    corpus: TextFacts
    config: TrainConfig
    epochs: int
    backend: str
    phases: Mapping[str, float]
    keep_text: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
        path: Its directory.
        run: The random name of the run.
        config: The settings, as the user gave them.
        epochs: Epochs of the whole training.
        backend: The backend that trained.
        corpus: ``sha256``, ``n_documents``, ``n_words`` and ``n_tokens`` of the text.
        state: How far the run has come.
        phases: Seconds spent, by name.
        shards: How far each machine has come, of a training on several machines.
    """

    path: Path
    run: str
    config: Mapping[str, Any]
    epochs: int
    backend: str
    corpus: Mapping[str, Any]
    state: RunState
    phases: Mapping[str, float]
    shards: Sequence[RunState] = ()

    @property
    def share(self) -> float:
        """The share of the training that is done."""
        done = self.state.epoch * self.corpus["n_tokens"] + self.state.tokens
        return float(done / max(1, self.epochs * self.corpus["n_tokens"]))

    @property
    def place(self) -> str:
        """The epoch and the share of the training, in words."""
        epochs = self.epochs
        return f"epoch {min(self.state.epoch + 1, epochs)} of {epochs}, {100 * self.share:.0f}% of the training"


class Checkpoints:
    """The directory of a run; a context that locks it for this process.

    Args:
        directory: Usually ``NAME.jose.run``; it is made when the first checkpoint is written.
        every: Seconds between two checkpoints; 0 for none.
        clock: A monotonic clock, in seconds.

    Attributes:
        directory: The directory.
        run: The name of the run.
        latest: The newest complete checkpoint, or None.

    Raises:
        TrainingError: the directory cannot be read, belongs to a running training, or holds files that no run wrote.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        every: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not every >= 0.0:
            raise ConfigError(f"checkpoint_every is {every!r}; it must be a number of seconds, 0 for no checkpoints")
        self.directory = Path(directory)
        self.every = every
        self.run = secrets.token_hex(8)
        self.latest: Checkpoint | None = None
        self._clock = clock
        self._next = clock() + every
        self._lock = -1
        self._text_is_kept = False
        self._damaged: list[int] = []

    def __enter__(self) -> Checkpoints:
        if self.directory.parent.is_dir():
            with contextlib.suppress(OSError):
                tidy(self.directory)
        if os.path.lexists(self.directory):
            self._hold()
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    # ------------------------------------------------------------------------------------------------------------------

    def begin(self, resume: bool, reporter: Reporter | None = None) -> None:
        """Look for the checkpoints of an earlier process.

        Args:
            resume: Resume from the newest complete checkpoint, which becomes ``latest``.
            reporter: Receives a note for each damaged checkpoint, and the phase "verifying", in bytes.

        Raises:
            TrainingError: there are checkpoints although ``resume`` is False, or they are of another version of this
                package.
        """
        reporter = reporter or SilentReporter()
        numbers = self._numbers()
        if numbers and not resume:
            raise TrainingError(
                f"{self.directory}: holds the checkpoints of a training that was interrupted; "
                "continue it with resume=True, or remove the directory"
            )
        for number in reversed(numbers):
            try:
                self.latest = _opened(self.directory / f"checkpoint-{number:06d}", reporter)
            except _OtherVersionError:
                raise
            except TrainingError as error:
                reporter.note(WarningNote(error))
                self._damaged.append(number)
                continue
            self.run = self.latest.run
            break
        else:
            if resume:
                none = f"{self.directory}: there is no checkpoint, so the training starts from its beginning"
                reporter.note(WarningNote(none))

    def check(self, config: TrainConfig, given: Collection[str] | None = None, nodes: int = 0) -> None:
        """Check that the settings are those of the run to resume.

        Args:
            config: The settings.
            given: The names of the settings that were given, if the text is an encoded corpus, which sets the tokenizer
                and the minimal count otherwise; None if it is not.
            nodes: Machines that train; 0 for this process alone.

        Raises:
            ConfigError: a setting differs.
        """
        if self.latest is None:
            return
        if (n := len(self.latest.shards)) != nodes:
            ran = f"ran with engine='ray' and nodes={n}" if n else "ran without engine='ray'"
            raise ConfigError(
                f"{self.directory}: the training to resume {ran}; do the same, or remove the directory to start from"
                " the beginning"
            )
        before = self.latest.config
        for name, value in config.to_dict().items():
            if name in _FREE or (given is not None and name in TEXT_SETTINGS and name not in given):
                continue
            if before.get(name) != value:
                had = printable(str(before.get(name)))[:80]
                raise ConfigError(
                    f"{self.directory}: {name} is {value}, but the training to resume has {had}; "
                    "use the same settings, or remove the directory to start from the beginning"
                )

    def kept_text(
        self, sources: Sources, reporter: Reporter, options: TextOptions | None = None
    ) -> EncodedCorpus | None:
        """The encoded text of the run to resume; None if there is none or the sources have changed.

        Files are compared by SHA-256. Standard input and files that are gone are not compared.

        Args:
            sources: The sources of the text.
            reporter: Receives the progress, and a note for each source that is not compared.
            options: How the text is read.
        """
        if self.latest is None or not is_encoded(self.text):
            return None
        try:
            corpus = open_encoded(self.text, reporter=reporter)
        except CorpusError as error:
            reporter.note(WarningNote(error))
            return None
        same_options = corpus.options == (options or TextOptions())
        if same_options and _unchanged(corpus.sources, find_sources(sources), reporter):
            reporter.note(f"{self.text}: the encoded text is read from here")
            self._text_is_kept = True
            return corpus
        return None

    def restore(self, tables: Tables, corpus: TextFacts, phases: dict[str, float], reporter: Reporter) -> RunState:
        """Fill the tables from the newest checkpoint.

        Args:
            tables: Center, context and document vectors, float32 (rows, dim), written in place.
            corpus: The text.
            phases: Seconds by name; those of the checkpoint are added.
            reporter: Receives the phase "restoring", in bytes, and a note.

        Returns:
            The state of the run.

        Raises:
            CorpusError: the checkpoint belongs to another text.
        """
        found = self.latest
        assert found is not None
        if _facts_of(corpus) != found.corpus:
            raise CorpusError(
                f"{self.directory}: the text is not that of the training to resume (SHA-256 "
                f"{corpus.statistics.sha256[:12]}, not {found.corpus['sha256'][:12]}); "
                "use the same text, or remove the directory to start from the beginning"
            )
        with DirectoryReader(found.path, _KIND) as directory:
            reporter.start("restoring", sum(table.nbytes for table in tables), "bytes")
            for name, table in zip(_TABLES, tables, strict=True):
                kept = directory.array(f"{name}.npy", dtype="<f4", shape=table.shape)
                for first, rows in row_blocks(kept):
                    table[first : first + len(rows)] = rows
                    release(rows)
                    release(table[first : first + len(rows)])
                    reporter.advance(rows.nbytes)
            reporter.finish()
        for name, seconds in found.phases.items():
            phases[name] = phases.get(name, 0.0) + seconds
        reporter.note(f"resuming from {found.path}: {found.place}")
        return RunState.from_dict(found.state.to_dict())

    def check_backend(self, name: str) -> None:
        """Check that the run to resume was trained by this backend.

        Raises:
            ConfigError: it was not.
        """
        if self.latest is not None and self.latest.backend != name:
            raise ConfigError(
                f"{self.directory}: the training began on the {self.latest.backend} and cannot continue on the {name}; "
                "use the same backend, or remove the directory to start from the beginning"
            )

    @property
    def text(self) -> Path:
        """The directory of the encoded text."""
        return self.directory / "text"

    # ------------------------------------------------------------------------------------------------------------------

    @property
    def due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        return self.every > 0.0 and self._clock() >= self._next

    def write(self, tables: Tables, state: RunState, about: RunFacts, shards: Sequence[RunState] = ()) -> Checkpoint:
        """Write a checkpoint, which becomes ``latest``, and remove all but the newest two.

        Args:
            tables: Center, context and document vectors, float32 (rows, dim).
            state: How far the run has come.
            about: What is stored besides.
            shards: How far each machine has come, of a training on several machines.

        Raises:
            TrainingError: a full disk, or a directory that cannot be written to; older checkpoints are unchanged.
        """
        self._next = self._clock() + self.every
        try:
            if self._lock < 0:
                os.makedirs(self.directory, exist_ok=True)
                self._hold()
            if about.keep_text and not self._text_is_kept and isinstance(about.corpus, EncodedCorpus):
                remove_directory(self.text, ENCODED_FILES)  # of a run that had no checkpoint yet, or damaged
                write_encoded(about.corpus, self.text)
                self._text_is_kept = True
            written = self._written(tables, state, about, shards)
        except OSError as error:
            raise TrainingError(f"{self.directory}: cannot be written to ({reason(error)}); {_ELSEWHERE}") from error
        self.latest = written
        whole = [number for number in self._numbers() if number not in self._damaged]
        for number in [*whole[:-_KEPT], *self._damaged]:
            remove_directory(self.directory / f"checkpoint-{number:06d}", _CHECKPOINT_FILES)
        self._next = self._clock() + self.every
        return written

    def remove(self) -> None:
        """Remove the directory of a finished run; files that no run wrote stay."""
        if self._lock < 0:
            return
        if _foreign(self.directory) is None:
            # Renamed first: a process that is killed here leaves no half of a run under this name.
            aside = self.directory.with_name(f".{self.directory.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
            with contextlib.suppress(OSError):
                os.rename(self.directory, aside)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            for entry in os.scandir(self.directory):
                if (name := _OURS.fullmatch(entry.name)) is not None:
                    remove_directory(Path(entry.path), ENCODED_FILES if name[1] == "text" else _CHECKPOINT_FILES)
        self.latest = None
        self._release()

    # ------------------------------------------------------------------------------------------------------------------

    def _written(self, tables: Tables, state: RunState, about: RunFacts, shards: Sequence[RunState]) -> Checkpoint:
        number = (self._numbers() or [0])[-1] + 1
        path = self.directory / f"checkpoint-{number:06d}"
        needed = sum(table.size * 4 for table in tables) + 200 * len(state.epochs) + 8192
        facts: dict[str, Any] = {
            "package_version": __version__,
            "run": self.run,
            "config": about.config.to_dict(),
            "epochs": about.epochs,
            "backend": about.backend,
            "corpus": _facts_of(about.corpus),
            "state": state.to_dict(),
            "phases": dict(about.phases),
            **({"shards": [each.to_dict() for each in shards]} if shards else {}),
        }
        with DirectoryWriter(path, needed_bytes=needed) as directory:
            for name, table in zip(_TABLES, tables, strict=True):
                directory.write(f"{name}.npy", array_chunks(table, f"{name}.npy"))
            directory.write(_FACTS, [json_bytes(sealed(_KIND, facts, directory.files), _FACTS)])
        return _checkpoint(path, facts, state, shards)

    def _numbers(self) -> list[int]:
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise TrainingError(f"{self.directory}: cannot be read ({reason(error)}); {_ELSEWHERE}") from error
        return sorted(int(match[1]) for name in names if (match := _NAME.fullmatch(name)))

    def _hold(self) -> None:
        """Lock the directory for this process, and check that it holds only files of a run."""
        try:
            foreign = _foreign(self.directory)
            held = None if foreign is not None else directory_lock(self.directory)
        except OSError as error:
            raise TrainingError(f"{self.directory}: cannot be read ({reason(error)}); {_ELSEWHERE}") from error
        if foreign is not None:
            raise TrainingError(
                f"{self.directory}: holds {foreign!r}, which is not part of a checkpoint; choose another name for "
                "the model, or remove it"
            )
        if held is None:
            raise TrainingError(f"{self.directory}: belongs to a running training; wait until it ends")
        self._lock = held

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _foreign(directory: Path) -> str | None:
    """The first entry in the directory of a run that no run wrote, or None."""
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = _OURS.fullmatch(entry.name)
            if name is None or not entry.is_dir(follow_symlinks=False):
                return entry.name
            inner = foreign_entry(Path(entry.path), ENCODED_FILES if name[1] == "text" else _CHECKPOINT_FILES)
            if inner is not None:
                return f"{entry.name}/{inner}"
    return None


class _OtherVersionError(TrainingError):
    """A complete checkpoint that this version cannot resume."""


def _unchanged(reports: Sequence[SourceReport], found: Sequence[Source], reporter: Reporter) -> bool:
    """Whether the sources have the bytes of the reports, as far as they can be read."""
    if len(reports) != len(found):
        return False
    reporter.start("checking", sum(report.disk_bytes for report in reports), "bytes")
    for report, source in zip(reports, found, strict=True):
        if source.path is None:
            reporter.note("standard input is not read: the stored text is used")
        elif source.store is None and not os.path.lexists(source.path):
            reporter.note(WarningNote(f"{printable(source.name)} is gone: the stored text is used"))
        elif source.size() != report.disk_bytes or sha256_of(source, reporter.advance) != report.disk_sha256:
            return False
    reporter.finish()
    return True


def _facts_of(corpus: TextFacts) -> dict[str, Any]:
    return {
        "sha256": corpus.statistics.sha256,
        "n_documents": corpus.n_documents,
        "n_words": corpus.vocabulary.n_words,
        "n_tokens": corpus.n_tokens,
    }


def _opened(path: Path, reporter: Reporter) -> Checkpoint:
    """Open a checkpoint and verify every byte.

    Raises:
        TrainingError: it is damaged.
    """
    with DirectoryReader(path, _KIND) as directory:
        facts = open_manifest(directory)
        way_on = f"resume with the version that began the training, or remove {path.parent} to start from the beginning"
        if (version := facts.get("package_version")) != __version__ or facts.get("format_version") != _KIND.version:
            writer = printable(str(version)[:40])
            raise _OtherVersionError(f"{path}: was written by jose-embed {writer}, and this is {__version__}; {way_on}")
        check_manifest(directory, facts, _FIELDS)
        config, files = facts["config"], facts["files"]
        # Settings come and go between two releases; a run must not continue with a default that it did not begin with.
        if differing := sorted(TrainConfig().to_dict().keys() ^ config.keys()):
            shown = printable(", ".join(differing)[:200])
            raise _OtherVersionError(f"{path}: records other settings than this jose-embed has ({shown}); {way_on}")
        try:
            if files.keys() != {f"{name}.npy" for name in _TABLES} or TrainConfig.from_dict(config).to_dict() != config:
                raise ValueError("a table or a setting is not what it must be")
            state = RunState.from_dict(facts["state"])
            shards = tuple(RunState.from_dict(each) for each in facts.get("shards", []))
        except (TypeError, ValueError) as error:  # ConfigError is one
            raise directory.error(_FACTS, str(error)) from None
        check_sizes(directory, files)
        verify_files(directory, files, reporter)
    return _checkpoint(path, facts, state, shards)


def _checkpoint(path: Path, facts: Mapping[str, Any], state: RunState, shards: Sequence[RunState]) -> Checkpoint:
    names = ("run", "config", "epochs", "backend", "corpus", "phases")
    return Checkpoint(path, **{name: facts[name] for name in names}, state=state, shards=shards)
