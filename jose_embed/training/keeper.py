"""Who keeps a run while it trains: on time, at an interrupt, at the end."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Mapping
from types import FrameType, TracebackType

from jose_embed.compute.backends import Backend
from jose_embed.config import TrainConfig
from jose_embed.errors import JoseError
from jose_embed.progress import Reporter
from jose_embed.text.corpus import EncodedCorpus
from jose_embed.training.checkpoints import Checkpoints, Tables
from jose_embed.training.schedule import RunState

__all__ = ["CheckpointKeeper", "Interrupts"]


class CheckpointKeeper:
    """Keeps a run as checkpoints: when it is time, and when somebody interrupts it. A context of the training.

    Args:
        checkpoints: Where.
        tables: Center, context and document vectors, float32 (rows, dim).
        corpus: The encoded text.
        keep_text: Whether the encoded text is kept too.
        config: The settings, as the user gave them.
        epochs: Epochs of the whole training.
        backend: What trains.
        phases: Seconds spent before the training, by name.
        reporter: Told of every checkpoint, and of those that could not be written.

    Raises:
        KeyboardInterrupt: from :meth:`keep`, once the checkpoint is written, or what the signal means elsewhere.
        ConfigError: the run that goes on was trained by another backend.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        tables: Tables,
        corpus: EncodedCorpus,
        keep_text: bool,
        config: TrainConfig,
        epochs: int,
        backend: Backend,
        phases: Mapping[str, float],
        reporter: Reporter,
    ) -> None:
        checkpoints.check_backend(backend.name)
        self._checkpoints = checkpoints
        self._tables = tables
        self._corpus = corpus
        self._keep_text = keep_text
        self._config = config
        self._epochs = epochs
        self._backend = backend
        self._phases = phases
        self._reporter = reporter
        self._interrupts = Interrupts()

    def __enter__(self) -> CheckpointKeeper:
        if self._checkpoints.every:
            self._interrupts.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interrupts.__exit__(kind, value, trace)

    @property
    def wanted(self) -> bool:
        """Whether it is time, or somebody interrupts."""
        return self._checkpoints.due or self._interrupts.number is not None

    def keep(self, state: RunState) -> None:
        """Write a checkpoint; a run that cannot be kept goes on."""
        self._backend.collect()
        try:
            written = self._checkpoints.write(
                self._tables,
                state,
                corpus=self._corpus,
                keep_text=self._keep_text,
                config=self._config,
                epochs=self._epochs,
                backend=self._backend.name,
                phases=self._phases,
            )
        except JoseError as error:
            self._reporter.note(f"no checkpoint could be written: {error}")
        else:
            self._reporter.note(f"checkpoint: {written.place}")
        self._interrupts.let_through()

    def keep_the_end(self, state: RunState) -> None:
        """A run that has a checkpoint gets one of its end too: then nothing of it is trained twice."""
        if self._checkpoints.every and self._checkpoints.latest is not None:
            self.keep(state)


_Handler = Callable[[int, FrameType | None], object]


class Interrupts:
    """A context in which the first Ctrl-C, SIGTERM or hang-up only leaves its number; a second one acts at once.

    Only signals that something in Python handles are kept back, and only in the main thread, where Python handles them:
    one that would end the process without a word still does.

    Attributes:
        number: The signal that is kept back, or None.

    Example:
        >>> try:
        ...     with Interrupts() as interrupts:
        ...         signal.raise_signal(signal.SIGINT)
        ...         print("still at work")
        ...         interrupts.let_through()
        ... except KeyboardInterrupt:
        ...     print("interrupted")
        still at work
        interrupted
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, _Handler] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                if number is not None and callable(handler := signal.getsignal(number)):
                    self._before[number] = handler
                    signal.signal(number, self._keep)
        return self

    def let_through(self) -> None:
        """Let the signal that was kept back have its effect, if there is one; else the next one is still kept back."""
        number, self.number = self.number, None
        if number is not None:
            self._restore()
            self._before[number](number, None)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if kind is None:
            self.let_through()

    def _keep(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number
            return
        self.number = None
        self._restore()
        self._before[number](number, frame)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            with contextlib.suppress(ValueError, TypeError):
                signal.signal(number, handler)
