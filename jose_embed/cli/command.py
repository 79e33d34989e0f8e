"""What all commands share: their shape, their parser, and how they end.

A command is a value: its name, a sentence, how its options are declared, and what it does. It raises; :func:`run` turns
what it raises into one line on standard error and an exit status:

====  =====================================================================================================
0     done
2     a mistake of the user or a limit of the machine (:class:`~jose_embed.errors.JoseError`, the arguments, the disk)
128+n ended by the signal n: 130 for Ctrl-C, 143 for SIGTERM, 141 where the reader of our output went away
====  =====================================================================================================
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from jose_embed.errors import ConfigError, JoseError
from jose_embed.progress import log_event
from jose_embed.version import __version__

if TYPE_CHECKING:
    pass

__all__ = [
    "Command",
    "Parser",
    "Stopped",
    "add_log_json",
    "add_model",
    "add_quiet",
    "add_version",
    "default_output",
    "positive_whole_number",
    "run",
    "visible",
]

_LOG_JSON = "--log-json"


class _Help(argparse.RawDescriptionHelpFormatter):
    """Examples as they were written, and room for long options, so that most explanations take one line."""

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog, max_help_position=32, **settings)


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line and takes no shortened options."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Help, **settings)

    def error(self, message: str) -> NoReturn:
        """One line instead of the usage and a line, told by :func:`run`."""
        raise _UsageError(self.prog, f"{message}; see {self.prog} --help")


class _UsageError(Exception):
    """Arguments that are none: the program or command that they were meant for, and what is wrong."""


@dataclass(frozen=True)
class Command:
    """One command.

    Args:
        name: As it is typed.
        summary: One sentence for the list of commands.
        configure: Declares the arguments.
        run: Does the work; raises :class:`~jose_embed.errors.JoseError` where it cannot.
        examples: Lines that could be typed, shown under the help.
        usage: The usage line where the generated one would be too long to read.
    """

    name: str
    summary: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]
    examples: tuple[str, ...] = ()
    usage: str | None = None

    def texts(self) -> dict[str, Any]:
        """What the help of this command says around its options."""
        lines = "\n".join(f"  {example}" for example in self.examples)
        epilog = f"examples:\n{lines}" if lines else None
        return {"description": self.summary, "epilog": epilog, "usage": self.usage}

    def declare(self, parser: argparse.ArgumentParser) -> None:
        """Make a parser that of this command."""
        self.configure(parser)
        parser.set_defaults(run=self.run)


class _Version(argparse.Action):
    """``--version``; the version is looked up only when asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"{parser.prog} {__version__}")
        parser.exit()


def add_version(parser: argparse.ArgumentParser) -> None:
    """Give a program its ``--version``."""
    parser.add_argument("--version", action=_Version)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Give a command its ``MODEL``."""
    parser.add_argument("model", metavar="MODEL", help="a model directory, as jose-train writes it")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Give a command its ``--quiet``."""
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress and no summary, only errors")


def add_log_json(parser: argparse.ArgumentParser) -> None:
    """Give a command its ``--log-json``."""
    parser.add_argument(
        _LOG_JSON,
        action="store_true",
        help="progress, summary and errors as JSON, one object per line of standard error",
    )


def positive_whole_number(text: str) -> int:
    """An argument type: a whole number from 1 up."""
    with contextlib.suppress(ValueError):
        if (value := int(text)) >= 1:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")


def visible(text: str) -> str:
    """The text with everything escaped that a terminal would obey instead of showing it: control characters, line ends,
    changes of direction. A word may hold them, and so may the name of a file.

    Example:
        >>> visible("no" + chr(27) + "[31m colour")
        'no\\\\x1b[31m colour'
    """
    if text.isprintable():
        return text
    return "".join(repr(c)[1:-1] if c < " " or c in _OBEYED or "\x7f" <= c < "\xa0" else c for c in text)


_OBEYED = frozenset("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """While this lasts, the first Ctrl-C, SIGTERM or hang-up raises :class:`Stopped`; a second one ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: object) -> NoReturn:
        signal.signal(number, signal.SIG_DFL)
        raise Stopped(number)

    before = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup, background jobs
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Parse the arguments, run the command they name, and say in one line what went wrong.

    Args:
        parser: Sets ``run``, the function of the chosen command.
        arguments: What was typed; ``sys.argv[1:]`` by default.

    Returns:
        The exit status.
    """
    typed = sys.argv[1:] if arguments is None else list(arguments)
    failed = functools.partial(_failed, parser.prog, log_json=_LOG_JSON in typed)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a word that the terminal's encoding lacks is shown escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        with _signals_raise():
            chosen = parser.parse_args(arguments)
            chosen.typed = shlex.join([parser.prog, *typed])
            chosen.run(chosen)
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where a full disk or a closed pipe can still be told
        return 0
    except SystemExit as end:  # argparse: --help, --version
        return end.code if isinstance(end.code, int) else 0
    except _UsageError as error:
        return _failed(*error.args, log_json=_LOG_JSON in typed)
    except JoseError as error:
        return failed(str(error))
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, Stopped) else int(signal.SIGINT)
        word = "interrupted" if number == signal.SIGINT else "terminated"
        return failed(" ".join([word, *getattr(stop, "__notes__", ())]), 128 + number)
    except BrokenPipeError:
        _discard_output()
        return 128 + 13
    except MemoryError as error:
        reason = f" ({error})" if str(error) else ""
        return failed(f"out of memory{reason}; jose-train --dry-run tells what a training needs")
    except OSError as error:
        _discard_output()
        place = f"{error.filename}: " if error.filename else ""
        return failed(f"{place}{error.strerror or error}")


def _discard_output() -> None:
    """What is still buffered for standard output goes nowhere: Python would try again at exit, and complain."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _failed(program: str, message: str, status: int = 2, *, log_json: bool = False) -> int:
    with contextlib.suppress(OSError):
        if log_json:
            log_event("error", message=message, status=status)
        else:
            print(visible(f"{program}: {message}"), file=sys.stderr, flush=True)
    return status


_COMPRESSIONS = frozenset({".gz", ".bz2", ".xz", ".zst"})


def default_output(sources: Sequence[str], suffix: str = ".jose") -> Path:
    """The name of what is made where none was given: that of the one source, in the current directory.

    Args:
        sources: The names of the text.
        suffix: What it ends with.

    Raises:
        ConfigError: several sources, a glob or standard input, which have no one name.

    Example:
        >>> default_output(["data/news.txt.gz"]), default_output(["texts/"]), default_output(["corpus"])
        (PosixPath('news.jose'), PosixPath('texts.jose'), PosixPath('corpus.jose'))
    """
    if len(sources) != 1 or sources[0] == "-" or (set("*?[") & set(sources[0]) and not os.path.lexists(sources[0])):
        raise ConfigError(f"the text has no one name to call the result by; name it with --output NAME{suffix}")
    path = Path(os.path.abspath(sources[0]))
    if path.suffix in _COMPRESSIONS:
        path = path.with_suffix("")
    stem = path.name.removesuffix(".encoded") if path.is_dir() else path.stem
    if not stem:
        raise ConfigError(f"{sources[0]}: this gives no name for the result; name it with --output NAME{suffix}")
    return Path(f"{stem}{suffix}")
