"""When checkpoints are written: after some time, at an interrupt, at the end."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType

from jose_embed.compute.backends import Backend
from jose_embed.errors import JoseError
from jose_embed.progress import Reporter, WarningNote
from jose_embed.training.checkpoints import Checkpoints, RunFacts, Tables
from jose_embed.training.schedule import RunState


class CheckpointKeeper:
    """A context in which a training writes checkpoints: after every interval, and when a signal arrives.

    Args:
        checkpoints: Writes them.
        tables: Center, context and document vectors, float32 (rows, dim).
        about: What is stored besides.
        backend: Moves the vectors.
        reporter: Receives a note for each checkpoint, and for each that could not be written.

    Raises:
        KeyboardInterrupt: from :meth:`keep`, after the checkpoint is written; or the effect of another signal.
        ConfigError: the run to resume was trained by another backend.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        tables: Tables,
        about: RunFacts,
        backend: Backend,
        reporter: Reporter,
    ) -> None:
        checkpoints.check_backend(backend.name)
        self._checkpoints = checkpoints
        self._tables = tables
        self._about = about
        self._backend = backend
        self._reporter = reporter
        self._interrupts = Interrupts()

    def __enter__(self) -> CheckpointKeeper:
        if self._checkpoints.every:
            self._interrupts.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._interrupts.__exit__(*error)

    def wanted(self, state: RunState) -> bool:
        """Whether a checkpoint is due or a signal waits."""
        return self._checkpoints.due or self._interrupts.number is not None

    def keep(self, state: RunState) -> None:
        """Write a checkpoint. If that fails, the training continues without it."""
        self._backend.collect()
        try:
            written = self._checkpoints.write(self._tables, state, self._about)
        except JoseError as error:
            self._reporter.note(WarningNote(f"no checkpoint could be written: {error}"))
        else:
            self._reporter.note(f"checkpoint: {written.place}")
        self._interrupts.let_through()

    def keep_if_wanted(self, state: RunState) -> None:
        """Write the state after an epoch before an error ends the training, unless no checkpoints are wanted."""
        if self._checkpoints.every:
            self.keep(state)

    def keep_the_end(self, state: RunState) -> None:
        """Write the last state if the run has a checkpoint, so that a failure after this repeats no training."""
        if self._checkpoints.every and self._checkpoints.latest is not None:
            self.keep(state)


_Handler = Callable[[int, FrameType | None], object]


class Interrupts:
    """A context that holds back the first SIGINT, SIGTERM or SIGHUP; a second signal acts at once.

    Only signals with a Python handler are held back, and only in the main thread, where Python runs handlers. A signal
    that ends the process by default still does.

    Attributes:
        number: The signal that is held back, or None.

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
        """Deliver the signal that is held back, if there is one; otherwise the next one is still held back."""
        number, self.number = self.number, None
        if number is not None:
            self._restore()
            self._before[number](number, None)

    def __exit__(self, kind: object, *_: object) -> None:
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
