"""The reporters: what is shown, when, and that nothing about the counts can make them fail."""

from __future__ import annotations

import datetime
import io
import json
import math
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jose_embed.cli.program import main
from jose_embed.progress import (
    BarReporter,
    ClosingReporter,
    JsonReporter,
    LineReporter,
    LogReporter,
    Phase,
    SilentReporter,
    amount_text,
    duration_text,
    is_interactive,
    log_event,
    reporter_for,
)
from jose_embed.text.encode import encode
from jose_embed.text.records import TextOptions
from jose_embed.training.train import train


class HandClock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def test_lines_show_share_rate_figures_and_time_left(clock: HandClock, stream: io.StringIO) -> None:
    reporter = LineReporter(stream, interval=5.0, clock=clock)
    reporter.start("training", 1_000_000, "tokens")
    clock.now += 5.0
    reporter.advance(250_000, loss=0.12345678, active=0.414)
    clock.now += 15.0
    reporter.advance(750_000, loss=0.05)
    reporter.finish(active=0.2)
    assert stream.getvalue().splitlines() == [
        "training: 25%, 250 k of 1 M tokens, 50 k tokens/s, loss 0.1235, active 41%, 15.0 s left",
        "training: 100%, 1 M of 1 M tokens, 50 k tokens/s, loss 0.0500, active 41%, 0.00 s left",
        "training: 1 M tokens in 20.0 s, 50 k tokens/s, loss 0.0500, active 20%",
    ]


def test_a_resumed_phase_begins_where_it_was(clock: HandClock, stream: io.StringIO) -> None:
    reporter = LineReporter(stream, interval=5.0, clock=clock)
    reporter.start("training", 1000, "words", 800)
    clock.now += 5.0
    reporter.advance(100)
    reporter.finish()
    assert stream.getvalue().splitlines() == [
        "training: 90%, 900 of 1 k words, 20 words/s, 5.0 s left",
        "training: 100 words in 5.0 s, 20 words/s",
    ]
    bar = io.StringIO()
    with BarReporter(bar) as shown:
        shown.start("training", 1000, "words", 800)
        shown.advance(100)
    assert "80%" in bar.getvalue()
    assert "90%" in bar.getvalue()


def test_lines_come_at_most_once_per_interval(clock: HandClock, stream: io.StringIO) -> None:
    reporter = LineReporter(stream, interval=5.0, clock=clock)
    reporter.start("reading", 100, "bytes")
    for _ in range(100):
        clock.now += 0.25
        reporter.advance(1)
    reporter.finish()
    assert len(stream.getvalue().splitlines()) == 25 / 5 + 1


def test_lines_without_a_total_show_no_share_and_no_time_left(clock: HandClock, stream: io.StringIO) -> None:
    reporter = LineReporter(stream, interval=1.0, clock=clock)
    reporter.start("encoding", None, "documents")
    clock.now += 2.0
    reporter.advance(10, tokens=123_456, share=0.5)
    assert stream.getvalue() == "encoding: 10 documents, 5 documents/s, tokens 123 k, share 0.5000\n"


def test_a_phase_in_which_no_time_passes_has_no_rate(clock: HandClock, stream: io.StringIO) -> None:
    reporter = LineReporter(stream, interval=0.0, clock=clock)
    reporter.start("saving", 10, "bytes")
    reporter.advance(10)
    reporter.finish()
    assert stream.getvalue().splitlines() == ["saving: 100%, 10 of 10 B", "saving: 10 B in 0.00 s"]


def test_a_total_that_was_too_small_becomes_unknown(clock: HandClock, stream: io.StringIO) -> None:
    reporter = LineReporter(stream, interval=1.0, clock=clock)
    reporter.start("reading", 10, "bytes")
    clock.now += 2.0
    reporter.advance(20)
    assert stream.getvalue() == "reading: 20 B, 10 B/s\n"


@given(
    total=st.one_of(st.none(), st.integers(-1, 100)),
    steps=st.lists(st.tuples(st.integers(0, 60), st.floats(0, 100)), max_size=8),
)
def test_a_phase_never_fails_and_never_lies(total: int | None, steps: list[tuple[int, float]]) -> None:
    clock = HandClock()
    phase = Phase("training", total, "tokens", clock)
    for amount, seconds in steps:
        clock.now += seconds
        phase.add(amount, {})
        assert phase.fraction is None or 0 <= phase.fraction <= 1
        assert phase.rate() is None or phase.rate() >= 0
        assert phase.seconds_left() is None or phase.seconds_left() >= 0
    assert phase.done == sum(amount for amount, _ in steps)


def test_a_clock_that_goes_back_counts_as_standing_still(clock: HandClock) -> None:
    phase = Phase("training", 10, "tokens", clock)
    clock.now -= 5
    phase.add(1, {})
    assert phase.seconds() == 0
    assert phase.rate() is None


@pytest.mark.parametrize("kind", [SilentReporter, LineReporter, BarReporter])
def test_calls_outside_a_phase_are_harmless(kind: type[ClosingReporter]) -> None:
    with kind() as reporter:
        reporter.advance(5, loss=1.0)
        reporter.finish(loss=1.0)
        reporter.note("a line")
        reporter.start("one", 1, "tokens")
        reporter.start("two", 0, "tokens")
        reporter.advance(1)
        reporter.finish()


def test_silence_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with reporter_for(quiet=True) as reporter:
        reporter.start("training", 10, "tokens")
        reporter.advance(10, loss=0.1)
        reporter.note("not shown")
        reporter.finish()
    assert capsys.readouterr() == ("", "")


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with reporter_for() as reporter:
        reporter.start("training", 10, "tokens")
        reporter.advance(10)
        reporter.finish()
        reporter.note("3 lines held invalid UTF-8")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("training: 10 tokens in ")
    assert err.endswith("3 lines held invalid UTF-8\n")


BARS = """
import sys
from jose_embed.progress import reporter_for
with reporter_for(sys.stderr) as reporter:
    reporter.start("reading", 3_020_000, "bytes")
    reporter.advance(3_000_000)
    reporter.finish()
    reporter.start("training", 1000, "tokens")
    reporter.advance(500, loss=0.125, active=0.5)
    reporter.note("a line to see")
    reporter.advance(600, loss=0.25)
    reporter.finish(active=0.25)
    reporter.start("saving", None, "bytes")
    reporter.advance(1)
"""


@pytest.mark.parametrize(("columns", "rows"), [(120, 40), (80, 40), (80, 0), (0, 0)])
def test_bars_on_a_terminal(columns: int, rows: int) -> None:
    """On a real terminal, also on one that does not know its width: each bar ends on a line of its own."""
    fcntl = pytest.importorskip("fcntl")
    termios = pytest.importorskip("termios")
    reading_end, terminal = pty.openpty()
    fcntl.ioctl(
        terminal,
        termios.TIOCSWINSZ,
        rows.to_bytes(2, sys.byteorder) + columns.to_bytes(2, sys.byteorder) + bytes(4),
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    with subprocess.Popen([sys.executable, "-c", BARS], stderr=terminal, env=environment) as process:
        os.close(terminal)
        written = b""
        while True:
            try:
                piece = os.read(reading_end, 65536)
            except OSError:  # Linux says so when the other end is closed
                break
            if not piece:
                break
            written += piece
        assert process.wait() == 0
    os.close(reading_end)
    text = written.decode()
    last_states = [line.split("\r")[-1].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    assert last_states[0].startswith("reading   100%|")
    assert ("3.00M/3.00M" in last_states[0]) == (columns >= 100)
    assert "a line to see" in last_states
    if columns == 80 and rows:
        assert re.search(
            r"training   50%\|[^|]{5,}\| \[\d\d:\d\d<[^,]*, [^,]*tokens/s, loss 0.1250, active 50%\]", text
        )
    assert any(line.startswith("training  1.10k") and line.endswith("loss 0.2500, active 25%]") for line in last_states)
    assert last_states[-2].startswith("saving    1.00 [")
    assert last_states[-1] == ""
    assert " 50%|" in text


@pytest.mark.parametrize(
    ("amount", "unit", "text"),
    [
        (0, "tokens", "0 tokens"),
        (999, "", "999"),
        (999.4, "", "999"),
        (999.5, "", "1 k"),
        (1_000_000, "bytes", "1 MB"),
        (5e15, "", "5 P"),
    ],
)
def test_amounts(amount: float, unit: str, text: str) -> None:
    assert amount_text(amount, unit) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.07, "0.0700"), (0, "0"), (1e-4, "0.0001"), (12.3456, "12.35"), (1234567, "1.23 M"), (float("nan"), "nan")],
)
def test_figures(value: float, text: str, stream: io.StringIO) -> None:
    reporter = LineReporter(stream)
    reporter.start("training", 1, "tokens")
    reporter.finish(loss=value)
    assert stream.getvalue().endswith(f", loss {text}\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.00 s"), (-1, "0.00 s"), (0.94, "0.94 s"), (0.96, "1.0 s"), (59.4, "59.4 s"), (59.6, "1 min 0 s"),
     (3599, "59 min 59 s"), (3599.6, "1 h 0 min"), (90_000, "25 h 0 min")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


# --- lines for machines


def events(text: str) -> list[dict[str, Any]]:
    found = [
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) for line in text.splitlines()
    ]
    for event in found:
        datetime.datetime.fromisoformat(event.pop("time"))
    return found


def test_lines_for_machines() -> None:
    stream, clock = io.StringIO(), HandClock()
    with JsonReporter(stream, interval=2.0, clock=clock) as reporter:
        reporter.start("training", 100, "words")
        clock.now += 1.0
        reporter.advance(10, loss=0.5)
        clock.now += 1.0
        reporter.advance(10, loss=0.25, active=math.nan)
        reporter.note("a\nnote\u2028")
        clock.now += 2.0
        reporter.finish(loss=math.inf)
        reporter.start("reading", None, "bytes")
        reporter.advance(1)
        reporter.finish()
        reporter.advance(1)
        reporter.finish()
    log_event("summary", stream, rows=[1, (2.5, math.nan)])
    training: dict[str, Any] = {"phase": "training", "total": 100, "unit": "words"}
    reading: dict[str, Any] = {"phase": "reading", "total": None, "unit": "bytes"}
    assert events(stream.getvalue()) == [
        {"event": "start", **training},
        {"event": "progress", **training, "done": 20, "seconds": 2.0, "rate": 10.0, "seconds_left": 8.0,
         "figures": {"loss": 0.25, "active": None}},
        {"event": "note", "message": "a\nnote\u2028"},
        {"event": "finish", **training, "done": 20, "seconds": 4.0, "rate": 5.0, "seconds_left": 0.0,
         "figures": {"loss": None, "active": None}},
        {"event": "start", **reading},
        {"event": "finish", **reading, "done": 1, "seconds": 0.0, "rate": None, "seconds_left": 0.0, "figures": {}},
        {"event": "summary", "rows": [1, [2.5, None]]},
    ]  # fmt: skip
    assert isinstance(reporter_for(stream, log_json=True), JsonReporter)
    assert not isinstance(reporter_for(stream, quiet=True, log_json=True), JsonReporter)


def test_one_step_has_a_time_and_no_rate() -> None:
    stream, clock = io.StringIO(), HandClock()
    reporter = LineReporter(stream, clock=clock)
    reporter.start("compiling", 1, "kernels")
    clock.now += 1.5
    reporter.advance(1)
    reporter.finish()
    assert stream.getvalue() == "compiling: 1.5 s\n"


@pytest.mark.parametrize(
    ("arguments", "last"),
    [
        (["encode", "a.txt"], "summary"),
        (["train", "a.txt", "--dim", "4", "--epochs", "1"], "summary"),
        (["train", "a.txt", "--dry-run"], "summary"),
        (["embed", "m.jose", "a.txt", "-o", "v.npy"], "summary"),
        (["encode", "none.txt"], "error"),
        (["encode"], "error"),
        (["train", "a.txt", "--dim", "0"], "error"),
    ],
    ids=" ".join,
)
def test_programs_log_for_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], last: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_bytes(b"one two \xff\n" * 20)
    if "m.jose" in arguments:
        assert main(["train", "a.txt", "--dim", "4", "--epochs", "1", "-q", "-o", "m.jose"]) == 0
        capsys.readouterr()
    status = main([*arguments, "--log-json"])
    out, err = capsys.readouterr()
    found = events(err)
    assert out == ""
    assert found[-1]["event"] == last
    assert (status == 0) == (last == "summary")
    if last == "error":
        assert found[-1].keys() == {"event", "message", "status"}
        assert found[-1]["status"] == status
    else:
        assert any("invalid UTF-8" in event.get("message", "") for event in found)
        phases = [event["phase"] for event in found if event["event"] == "finish"]
        assert phases == [event["phase"] for event in found if event["event"] == "start"]


# ---- called from Python -------------------------------------------------------------------------------------------


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A process that looks like a notebook's kernel; the settings of every bar are given back."""
    bars: list[dict[str, Any]] = []

    class Bar:
        total, n = None, 0

        def __init__(self, **settings: Any) -> None:
            bars.append(settings)

        def __getattr__(self, name: str) -> Any:
            return lambda *_, **__: None

    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "tqdm.auto", SimpleNamespace(tqdm=Bar))
    return bars


TEXTS = ["a cat and a dog", "a ship at sea"] * 20
SMALL = {"dim": 16, "epochs": 1, "workers": 1, "min_count": 1, "backend": "cpu"}


def test_a_notebook_gets_widgets_unless_switched_off(notebook: list[dict[str, Any]]) -> None:
    train(documents=TEXTS, **SMALL)
    assert [bar["desc"] for bar in notebook][:2] == ["reading", "encoding"]
    assert all(bar["ncols"] is None for bar in notebook)
    notebook.clear()
    train(documents=TEXTS, progress=False, **SMALL)
    assert notebook == []


def test_a_script_is_silent_unless_switched_on(capsys: pytest.CaptureFixture[str]) -> None:
    train(documents=TEXTS, **SMALL)
    assert capsys.readouterr() == ("", "")
    train(documents=TEXTS, progress=True, **SMALL)
    assert "training: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "terminal", "shown"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_an_interactive_session_has_a_prompt_and_a_terminal(
    typed: bool, terminal: bool, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    if typed:
        monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    assert is_interactive() is shown


def test_an_interpreter_without_standard_error_is_not_interactive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    monkeypatch.setattr(sys, "stderr", None)
    assert not is_interactive()


def test_the_logger_gets_what_the_screen_gets(
    caplog: pytest.LogCaptureFixture, clock: HandClock, stream: io.StringIO
) -> None:
    with caplog.at_level("INFO", logger="jose_embed"):
        for reporter in (LogReporter(interval=1.0, clock=clock), LineReporter(stream, interval=1.0, clock=clock)):
            reporter.note("backend cpu")
            reporter.start("training", 2, "words")
            clock.now += 2.0
            reporter.advance(1, loss=0.25)
            reporter.finish()
    assert len(caplog.messages) == 3
    assert caplog.messages == stream.getvalue().splitlines()
    caplog.clear()
    with caplog.at_level("INFO", logger="jose_embed"):
        train(documents=TEXTS, **SMALL)
    assert any(line.startswith("training: ") for line in caplog.messages)


def test_notes_that_warn_are_warnings_of_the_logger(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(b"".join(line.encode() + b"\n" for line in TEXTS) + b"red \xff\n")
    (tmp_path / "again.txt").symlink_to(text)
    records = tmp_path / "records.jsonl"
    records.write_text('{"text": "red green"}\n{"text"\n' + '{"text": "red blue"}\n' * 20)
    looks = tmp_path / "looks.txt"
    looks.write_text('{"text": "red green"}\n' * 20)
    with caplog.at_level("INFO", logger="jose_embed"):
        train([str(text), str(tmp_path / "again.txt")], **SMALL)
        encode(str(records), reporter=LogReporter(), options=TextOptions(on_error="skip"), min_count=1).close()
        encode(str(looks), reporter=LogReporter(), min_count=1).close()
        train(documents=[*TEXTS, "red \ud800"], **SMALL)
        train(str(text), checkpoint=tmp_path / "run", resume=True, **SMALL)
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    told = [record.message for record in caplog.records if record.levelname == "INFO"]
    for part in (
        "is the same file as", "invalid UTF-8", "1 malformed record was skipped", "looks like JSON Lines",
        "were replaced by U+FFFD", "there is no checkpoint",
    ):  # fmt: skip
        assert any(part in message for message in warned), (part, warned)
    assert not [message for message in warned if message.startswith(("training", "reading"))]
    assert any(message.startswith("training: ") for message in told)


def test_a_program_that_set_up_no_logging_sees_no_warnings() -> None:
    code = f"from jose_embed import train; train(documents=['red \\ud800', 'red blue'] * 9, **{SMALL})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert ended.stderr == ""


def test_a_reporter_of_the_caller_is_used_alone(stream: io.StringIO, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="jose_embed"):
        train(documents=TEXTS, reporter=LineReporter(stream), progress=True, **SMALL)
    assert "training: " in stream.getvalue()
    assert caplog.messages == []
