"""Progress of a long run: a bar on a terminal, lines elsewhere, JSON lines for programs, or nothing.

The code that does the work names its phases and counts what is done; percentages, rates and the time left are computed
here. A reporter writes to its stream only (standard error for the command line). It accepts totals that are unknown,
wrong or zero.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

Clock = Callable[[], float]

_PERCENTAGES = frozenset({"active", "coverage"})
"""Figures that are shares: 0.41 is shown as 41%."""


class Reporter(Protocol):
    """Receives the progress of a run; phases follow each other and do not overlap."""

    def start(self, phase: str, total: int | None, unit: str, done: int = 0) -> None:
        """Begin a phase.

        Args:
            phase: Its name: reading, encoding, training, saving, inferring, ...
            total: The amount of work in ``unit``; None if unknown.
            unit: The unit of work, in the plural: tokens, documents, bytes.
            done: How much of it an interrupted run has done.
        """

    def advance(self, amount: int, **figures: float) -> None:
        """Add ``amount`` units of work; ``figures`` (``loss=``, ``active=``) are shown beside them."""

    def finish(self, **figures: float) -> None:
        """End the phase, with its last figures."""

    def note(self, message: str) -> None:
        """Show one line to the user; a :class:`WarningNote` if it may need attention."""


class WarningNote(str):
    """A note about something that may be wrong with the input or was not done as asked; logged at level WARNING."""

    __slots__ = ()


class ClosingReporter(Reporter, Protocol):
    """A reporter that is a context manager: at its end, no half-drawn line is left on the screen."""

    def __enter__(self) -> ClosingReporter: ...

    def __exit__(self, *_: object) -> None: ...


class Phase:
    """The state of one phase.

    Args:
        name: The name of the phase.
        total: The amount of work, or None; a negative total counts as unknown.
        unit: The unit of work.
        clock: A monotonic clock, in seconds.
        done: The work that was done before.

    Example:
        >>> moments = iter([0.0, 2.0, 2.0])
        >>> phase = Phase("training", 400, "tokens", lambda: next(moments))
        >>> phase.add(100, {"loss": 0.25})
        >>> phase.fraction, phase.rate(), phase.seconds_left()
        (0.25, 50.0, 6.0)
    """

    def __init__(self, name: str, total: int | None, unit: str, clock: Clock, done: int = 0) -> None:
        self.name = name
        self.total = total if total is not None and total >= 0 else None
        self.unit = unit
        self.done = self.done_before = done
        self.figures: dict[str, float] = {}
        self._clock = clock
        self._started = clock()

    def add(self, amount: int, figures: dict[str, float]) -> None:
        """Add ``amount`` units and replace the given figures."""
        self.done += amount
        self.figures.update(figures)

    @property
    def is_one_step(self) -> bool:
        """Whether the phase is a single step, of which only the time is shown."""
        return self.total == 1 and self.done <= 1

    @property
    def fraction(self) -> float | None:
        """The share done, in [0, 1]; None if the total is unknown or too small."""
        if self.total is None or self.done > self.total:
            return None
        return self.done / self.total if self.total else 1.0

    def seconds(self) -> float:
        """Seconds since the phase began, never negative."""
        return max(0.0, self._clock() - self._started)

    def rate(self) -> float | None:
        """Units per second since the phase began; None at its very beginning."""
        seconds = self.seconds()
        return (self.done - self.done_before) / seconds if seconds > 0 else None

    def seconds_left(self) -> float | None:
        """The time left at this rate; None if the total or the rate is unknown."""
        rate = self.rate()
        if self.fraction is None or self.total is None or not rate:
            return None
        return (self.total - self.done) / rate


def amount_text(amount: float, unit: str = "") -> str:
    """A count with three significant digits and its unit.

    Example:
        >>> amount_text(5_361_234, "tokens"), amount_text(999, "documents"), amount_text(2_500_000, "bytes")
        ('5.36 M tokens', '999 documents', '2.5 MB')
        >>> amount_text(999_700), amount_text(0.25)
        ('1 M', '0.25')
    """
    value = float(amount)
    prefix = ""
    for larger in ("k", "M", "G", "T", "P"):
        if abs(value) < 999.5:
            break
        value /= 1000
        prefix = larger
    text = f"{value:.3g}"
    if unit == "bytes":
        return f"{text} {prefix}B"
    return " ".join(part for part in (text, prefix, unit) if part)


@contextlib.contextmanager
def timed(phases: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds that the context takes to a phase."""
    started = time.perf_counter()
    yield
    phases[name] = phases.get(name, 0.0) + time.perf_counter() - started


def duration_text(seconds: float) -> str:
    """A duration with its unit.

    Example:
        >>> duration_text(0.04), duration_text(7.25), duration_text(75), duration_text(8100)
        ('0.04 s', '7.2 s', '1 min 15 s', '2 h 15 min')
    """
    if seconds < 0.95:
        return f"{max(0.0, seconds):.2f} s"
    if seconds < 59.5:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def _figure_texts(figures: dict[str, float]) -> list[str]:
    return [f"{name} {_figure_text(name, value)}" for name, value in figures.items()]


def _figure_text(name: str, value: float) -> str:
    if name in _PERCENTAGES:
        return f"{100 * value:.0f}%"
    if isinstance(value, float) and 1e-3 <= abs(value) < 10:
        return f"{value:.4f}"  # always as wide, so that a bar keeps its length
    return amount_text(value) if abs(value) >= 1000 else f"{value:.4g}"


def _columns(stream: TextIO) -> int:
    """The width of the terminal in columns; 0 if unknown, as in some containers."""
    try:
        size = os.get_terminal_size(stream.fileno())
        return size.columns if size.lines > 0 else 0
    except (AttributeError, OSError, ValueError):
        return 0


class _WritingReporter:
    """Calls ``_begun``, ``_moved`` and ``_ended`` when a line is due: at the ends of a phase and every ``interval``
    seconds. A phase that is not finished when the next one begins is dropped.
    """

    _INTERVAL: float

    def __init__(
        self, stream: TextIO | None = None, *, interval: float | None = None, clock: Clock = time.monotonic
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._interval = self._INTERVAL if interval is None else interval
        self._clock = clock
        self._phase: Phase | None = None
        self._next_time = 0.0

    def start(self, phase: str, total: int | None, unit: str, done: int = 0) -> None:
        self._phase = Phase(phase, total, unit, self._clock, done)
        self._next_time = self._interval
        self._begun(self._phase)

    def advance(self, amount: int, **figures: float) -> None:
        phase = self._phase
        if phase is None:
            return
        phase.add(amount, figures)
        seconds = phase.seconds()
        if seconds >= self._next_time:
            self._next_time = seconds + self._interval
            self._moved(phase)

    def finish(self, **figures: float) -> None:
        phase, self._phase = self._phase, None
        if phase is not None:
            phase.add(0, figures)
            self._ended(phase)

    def _begun(self, phase: Phase) -> None:
        pass

    def _moved(self, phase: Phase) -> None:
        raise NotImplementedError

    def _ended(self, phase: Phase) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._phase = None


class LineReporter(_WritingReporter):
    """Lines for files, pipes and logs: one every few seconds during a phase, one at its end.

    Args:
        stream: The stream to write to; standard error by default.
        interval: Seconds between two lines of one phase; 5 by default.
        clock: A monotonic clock, in seconds.
    """

    _INTERVAL = 5.0

    def _moved(self, phase: Phase) -> None:
        fraction, rate, left = phase.fraction, phase.rate(), phase.seconds_left()
        parts = [amount_text(phase.done, phase.unit)]
        if fraction is not None and phase.total is not None:
            parts = [f"{100 * fraction:.0f}%", f"{amount_text(phase.done)} of {amount_text(phase.total, phase.unit)}"]
        if rate is not None:
            parts.append(f"{amount_text(rate, phase.unit)}/s")
        parts += _figure_texts(phase.figures)
        if left is not None:
            parts.append(f"{duration_text(left)} left")
        self._write(f"{phase.name}: {', '.join(parts)}")

    def _ended(self, phase: Phase) -> None:
        if phase.is_one_step:
            self._write(", ".join([f"{phase.name}: {duration_text(phase.seconds())}", *_figure_texts(phase.figures)]))
            return
        done = phase.done - phase.done_before
        parts = [f"{amount_text(done, phase.unit)} in {duration_text(phase.seconds())}"]
        rate = phase.rate()
        if done and rate is not None:
            parts.append(f"{amount_text(rate, phase.unit)}/s")
        self._write(f"{phase.name}: {', '.join(parts + _figure_texts(phase.figures))}")

    def note(self, message: str) -> None:
        """Write the line."""
        self._write(message)

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class LogReporter(LineReporter):
    """The lines of :class:`LineReporter` to the logger ``jose_embed``, at level INFO; warnings at level WARNING."""

    def _write(self, line: str) -> None:
        import logging

        logger = logging.getLogger("jose_embed")
        if not logger.handlers:  # else a program without handlers would get warnings on standard error
            logger.addHandler(logging.NullHandler())
        logger.log(logging.WARNING if isinstance(line, WarningNote) else logging.INFO, "%s", line)


class BarReporter:
    """A tqdm bar for each phase, drawn at most ten times a second; its last state stays on the screen.

    In a notebook the bar is a widget.

    Args:
        stream: The terminal; standard error by default.
    """

    _KNOWN = "{desc:<9} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
    _NARROW = "{desc:<9} {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
    _UNKNOWN = "{desc:<9} {n_fmt} [{elapsed}, {rate_fmt}{postfix}]"
    _ONE_STEP = "{desc:<9} [{elapsed}{postfix}]"

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        columns = _columns(self._stream)
        self._has_width = columns > 0
        self._known = self._NARROW if columns < 100 else self._KNOWN  # figures are worth more than counts
        self._bar: tqdm[None] | None = None
        self._figures: dict[str, float] = {}

    def start(self, phase: str, total: int | None, unit: str, done: int = 0) -> None:
        """Begin a phase with a new bar; an unfinished bar stays as it is."""
        notebook = in_notebook()
        if notebook:
            from tqdm.auto import tqdm
        else:
            from tqdm import tqdm

        self._close_bar()
        known = total is not None and total > 0
        self._figures = {}
        self._bar = tqdm(
            desc=phase,
            total=total if known else None,
            initial=done,
            unit="B" if unit == "bytes" else f" {unit}",
            unit_scale=True,
            file=self._stream,
            ncols=None if self._has_width or notebook else 80,
            nrows=None if self._has_width or notebook else 24,
            dynamic_ncols=self._has_width,
            smoothing=0.1,
            bar_format=self._ONE_STEP if total == 1 else self._known if known else self._UNKNOWN,
            leave=True,
        )

    def advance(self, amount: int, **figures: float) -> None:
        """Add work, and redraw the bar if a tenth of a second has passed."""
        bar = self._bar
        if bar is None:
            return
        self._figures.update(figures)
        if figures:
            bar.set_postfix_str(", ".join(_figure_texts(self._figures)), refresh=False)
        if bar.total is not None and bar.n + amount > bar.total:
            bar.total = None
            bar.bar_format = self._UNKNOWN
        bar.update(amount)

    def finish(self, **figures: float) -> None:
        """Draw the last state and leave it on the screen."""
        self.advance(0, **figures)
        if self._bar is not None and self._bar.total is not None:
            self._bar.total = self._bar.n  # 100 %, also if the total was an estimate
        self._close_bar()

    def note(self, message: str) -> None:
        """Write the line above the bar."""
        if self._bar is not None:
            self._bar.write(message, file=self._stream)
        else:
            self._stream.write(message + "\n")
            self._stream.flush()

    def _close_bar(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.refresh()
            bar.close()

    def __enter__(self) -> BarReporter:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_bar()


class JsonReporter(_WritingReporter):
    """JSON lines for programs. Every object has ``time`` (ISO 8601, UTC) and ``event``, and:

    ========== ==================================================================================================
    start      phase, total (null if unknown), unit
    progress   phase, total, unit, done, seconds (since the phase began), rate (units per second), seconds_left
               (null if unknown), figures (an object: loss, active, tokens, ...)
    finish     the same as progress, for the whole phase
    note       message
    error      message, status (the exit status); the last line of a program that failed
    summary    the result; the last line of a program that succeeded
    ========== ==================================================================================================

    Keys and events may be added but not removed. A share such as ``active`` is a number from 0 to 1; a figure that is
    not finite is null.

    Args:
        stream: The stream to write to; standard error by default.
        interval: Seconds between two progress lines of one phase; 1 by default.
        clock: A monotonic clock, in seconds.
    """

    _INTERVAL = 1.0

    def _begun(self, phase: Phase) -> None:
        log_event("start", self._stream, phase=phase.name, total=phase.total, unit=phase.unit)

    def _moved(self, phase: Phase) -> None:
        self._log("progress", phase)

    def _ended(self, phase: Phase) -> None:
        self._log("finish", phase)

    def note(self, message: str) -> None:
        """Log the message."""
        log_event("note", self._stream, message=message)

    def _log(self, event: str, phase: Phase) -> None:
        log_event(
            event,
            self._stream,
            phase=phase.name,
            total=phase.total,
            unit=phase.unit,
            done=phase.done,
            seconds=round(phase.seconds(), 3),
            rate=phase.rate(),
            seconds_left=phase.seconds_left() if event == "progress" else 0.0,
            figures=phase.figures,
        )


def log_event(event: str, stream: TextIO | None = None, **facts: Any) -> None:
    """Write one event as :class:`JsonReporter` does; to standard error by default."""
    stream = stream if stream is not None else sys.stderr
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = json.dumps(_finite({"time": now, "event": event, **facts}), allow_nan=False)
    stream.write(line + "\n")
    stream.flush()


def _finite(value: Any) -> Any:
    """The value with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {str(name): _finite(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if isinstance(value, (str, int)) or value is None:
        return value
    return float(value) if math.isfinite(value) else None


class JoinedReporter:
    """Several reporters as one; methods as in :class:`Reporter`.

    Args:
        reporters: Each receives everything.
        shown: How a note is worded.
    """

    _reporters: tuple[ClosingReporter, ...] = ()  # also of a subclass that has a constructor of its own

    def __init__(self, *reporters: ClosingReporter, shown: Callable[[str], str] = str) -> None:
        self._reporters = reporters
        self._shown = shown

    def start(self, phase: str, total: int | None, unit: str, done: int = 0) -> None:
        for reporter in self._reporters:
            reporter.start(phase, total, unit, done)

    def advance(self, amount: int, **figures: float) -> None:
        for reporter in self._reporters:
            reporter.advance(amount, **figures)

    def finish(self, **figures: float) -> None:
        for reporter in self._reporters:
            reporter.finish(**figures)

    def note(self, message: str) -> None:
        for reporter in self._reporters:
            reporter.note(type(message)(self._shown(message)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for reporter in self._reporters:
            reporter.__exit__(*error)


class SilentReporter(JoinedReporter):
    """Shows nothing."""


def reporter_for(stream: TextIO | None = None, quiet: bool = False, log_json: bool = False) -> ClosingReporter:
    """The reporter for a stream: a bar on a terminal, lines elsewhere.

    Args:
        stream: Where progress is shown; standard error by default.
        quiet: Show nothing.
        log_json: Write JSON lines, see :class:`JsonReporter`.

    Example:
        >>> import io
        >>> type(reporter_for(io.StringIO())).__name__, type(reporter_for(quiet=True)).__name__
        ('LineReporter', 'SilentReporter')
    """
    if quiet:
        return SilentReporter()
    stream = stream if stream is not None else sys.stderr
    if log_json:
        return JsonReporter(stream)
    return BarReporter(stream) if stream.isatty() or in_notebook() else LineReporter(stream)


@contextlib.contextmanager
def reporting(reporter: Reporter | None, progress: bool | None) -> Iterator[Reporter]:
    """The reporter of a function called from Python.

    Args:
        reporter: A reporter of the caller, which is used alone.
        progress: Whether to show progress on standard error; None shows it in notebooks and interactive sessions. The
            logger ``jose_embed`` receives it in any case.
    """
    if reporter is not None:
        yield reporter
        return
    with JoinedReporter(
        LogReporter(), reporter_for(quiet=not (is_interactive() if progress is None else progress))
    ) as own:
        yield own


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and "IPKernelApp" in shell.config


def is_interactive() -> bool:
    """Whether a person at a notebook or an interactive interpreter reads standard error."""
    return in_notebook() or (hasattr(sys, "ps1") and sys.stderr is not None and sys.stderr.isatty())
