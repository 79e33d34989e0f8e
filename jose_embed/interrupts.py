"""Interrupts that wait until the work is at a place where it can be left."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

__all__ = ["Interrupts"]

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
