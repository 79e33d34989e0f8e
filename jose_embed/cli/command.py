"""The common parts of all commands: their description, their parser, how they report and how they end.

A command is a value: a name, a sentence, a function that declares its options and a function that runs it. Commands
raise; :func:`run` turns an exception into one line on standard error and an exit status:

====  ==================================================================================================
0     success
2     an error of the user or of the machine (:class:`~jose_embed.errors.JoseError`, arguments, disk)
128+n ended by signal n: 130 for Ctrl-C, 143 for SIGTERM, 141 if the reader of the output has gone
====  ==================================================================================================

Errors and notes of the library name arguments as in Python (``overwrite=True``); :func:`as_options` shows them as
options (``--overwrite``).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from jose_embed.config import TrainConfig
from jose_embed.errors import ConfigError, JoseError, counterpart, did_you_mean
from jose_embed.progress import JoinedReporter, Reporter, log_event, reporter_for

if TYPE_CHECKING:
    from jose_embed.text.corpus import EncodedCorpus

_LOG_JSON = "--log-json"


class _Help(argparse.RawDescriptionHelpFormatter):
    """Examples as they were written, and explanations in a column of their own."""

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog, max_help_position=28, **settings)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and which accepts no shortened options."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Help, **settings)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As the base class; an unknown argument is refused by the command that got it, with the nearest option."""
        chosen, unknown = super().parse_known_args(_with_values(sys.argv[1:] if args is None else args), namespace)
        if unknown:
            self.error(_unknown_argument(unknown[0], option_names(self)))
        return chosen, unknown

    def error(self, message: str) -> NoReturn:
        """Raise the message, which :func:`run` prints in one line."""
        if match := re.fullmatch(r"argument (.+?): invalid choice: (.+?) \(choose from (.+)\)", message):
            choices = [choice.strip("'") for choice in match[3].split(", ")]
            what = f"unknown {match[1].lower()} {match[2]}" if match[1].isupper() else f"{match[1]} is {match[2]}"
            message = f"{what}; it must be one of {', '.join(choices)}" + did_you_mean(match[2].strip("'"), choices)
        raise _UsageError(self.prog, f"{message}{' See' if message.endswith('?') else '; see'} {self.prog} --help")


class _UsageError(Exception):
    """Arguments that are not allowed.

    Args:
        program: The program or command.
        message: The error.
    """


_CHARACTERS = frozenset({"--keep-joined", "--keep-prefix"})


def _with_values(arguments: Sequence[str]) -> list[str]:
    """The arguments with characters such as ``-.`` joined to their option, which argparse would take for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in _CHARACTERS and argument.startswith("-") and not argument[2:3].isalpha():
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def option_names(parser: argparse.ArgumentParser) -> frozenset[str]:
    """The options of a parser by their Python names, ``doc_vectors`` for ``--doc-vectors``."""
    return frozenset(action.dest for action in parser._actions if action.option_strings)


def option_of(name: str) -> str:
    """The option of a Python name, ``--doc-vectors`` for ``doc_vectors``."""
    return f"--{name.replace('_', '-')}" if len(name) > 1 else f"-{name}"


def _unknown_argument(argument: str, names: Collection[str]) -> str:
    """The error for an argument that the parser does not know."""
    if not argument.startswith("-"):
        comma = "; several columns are written with commas, as in: a,b" if "text_field" in names else ""
        return f"unexpected argument {argument!r}{comma}"
    option = argument.split("=")[0]
    return f"unknown option {option}" + counterpart(option.lstrip("-").replace("-", "_"), names, option_of)


def as_options(message: str, names: Collection[str]) -> str:
    """A message of the library with arguments as they are typed on the command line.

    Args:
        message: Names arguments as in Python: ``workers is 1`` at its start, ``backend="cpu"`` anywhere, and names that
            are not English words (``min_count``, ``dim``) anywhere. A part of a path stays as it is.
        names: The options of the command, by their Python names.

    Example:
        >>> as_options("m.jose: already exists; overwrite=True replaces it", {"overwrite"})
        'm.jose: already exists; --overwrite replaces it'
        >>> as_options('dim is 1; take backend="cpu" or raise min_count', {"dim", "backend", "min_count"})
        '--dim is 1; take --backend cpu or raise --min-count'
    """

    def typed(match: re.Match[str]) -> str:
        name, value = match["name"], match["value"]
        leads = match.start() == 0 and message.startswith(" is ", match.end())
        if name not in names or not (value or leads or "_" in name or name == "dim"):
            return match[0]
        if value in (None, "True"):
            return option_of(name)
        return f"{option_of(name)} {name.upper() if value == '...' else value.strip(_QUOTES)}"

    return _ARGUMENT.sub(typed, message)


_TRAINED_WITH: Final = frozenset({"keep_text", "keep_fields", "doc_vectors"})  # all commands may miss what these leave
_QUOTES = "\"'"
_ARGUMENT = re.compile(
    r"""(?<![\w./'"-])(?P<name>[a-z]\w*)(?:=(?P<value>"[^"]*"|'[^']*'|\.\.\.|[\w.]*\w)|(?![\w/'"=:-]|\.\w))"""
)


@dataclass(frozen=True)
class Command:
    """One command.

    Args:
        name: The name, as typed.
        summary: One sentence for the list of commands.
        configure: Declares the arguments.
        run: Does the work; raises :class:`~jose_embed.errors.JoseError` if it cannot.
        examples: Command lines, shown below the help.
        usage: The usage line; generated if omitted.
    """

    name: str
    summary: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]
    examples: tuple[str, ...] = ()
    usage: str | None = None

    def texts(self) -> dict[str, Any]:
        """The texts of the help before and after the options."""
        lines = "\n".join(f"  {example}" for example in self.examples)
        epilog = f"examples:\n{lines}" if lines else None
        return {"description": self.summary, "epilog": epilog, "usage": self.usage}

    def declare(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments of this command."""
        self.configure(parser)
        parser.set_defaults(run=self.run, options=option_names(parser))


class _Version(argparse.Action):
    """The option ``--version``."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from jose_embed.version import __version__  # asks the installed package, which takes as long as the rest

        print(f"{parser.prog} {__version__}")
        parser.exit()


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--version``."""
    parser.add_argument("--version", action=_Version)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the argument ``MODEL``."""
    parser.add_argument("model", metavar="MODEL", help="a model directory written by jose-train")


def add_quiet(parser: argparse._ActionsContainer) -> None:
    """Add the option ``--quiet``."""
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors only")


def add_log_json(parser: argparse._ActionsContainer) -> None:
    """Add the option ``--log-json``."""
    parser.add_argument(
        _LOG_JSON,
        action="store_true",
        help="write progress, summary and errors to standard error as JSON lines",
    )


def setting_help(setting: dataclasses.Field[Any]) -> str:
    """The help of the option of a setting of :class:`~jose_embed.config.TrainConfig`."""
    names = TrainConfig.__dataclass_fields__
    default = "none" if setting.default == "" else setting.default
    return f"{as_options(setting.metadata['help'], names)} (default: {default})".replace("%", "%%")


_METAVARS = {int: "N", float: "X", str: "NAME"}


def metavar_of(setting: dataclasses.Field[Any]) -> str:
    """What stands for the value of a setting's option in the help."""
    choices = setting.metadata["choices"]
    own = setting.metadata["metavar"] or _METAVARS[type(setting.default)]
    return "{" + ",".join(choices) + "}" if choices else str(own)


def setting_arguments(setting: dataclasses.Field[Any], read: Callable[[str], Any]) -> dict[str, Any]:
    """The arguments of ``add_argument`` for the option of a setting.

    Args:
        setting: The setting.
        read: The type of the option, if it has a value.
    """
    if isinstance(setting.default, bool):
        return {"action": "store_true", "help": as_options(setting.metadata["help"], TrainConfig.__dataclass_fields__)}
    return {"type": read, "metavar": metavar_of(setting), "help": setting_help(setting)}


def positive_whole_number(text: str) -> int:
    """The type of an argument that is a whole number, 1 or larger."""
    with contextlib.suppress(ValueError):
        if (value := int(text)) >= 1:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")


def add_number(parser: argparse._ActionsContainer, option: str, help: str, default: int | None = None) -> None:
    """Add an option that is a whole number, 1 or larger; its help names the default."""
    help += "" if default is None else f" (default: {default})"
    parser.add_argument(option, type=positive_whole_number, default=default, metavar="N", help=help)


def visible(text: str) -> str:
    """The text with control characters, line ends and changes of direction escaped, so that a terminal shows them.

    A word or a file name may hold them.

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
        number: The number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """In this context the first Ctrl-C, SIGTERM or SIGHUP raises :class:`Stopped`; a second one ends the process."""
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
    """Parse the arguments, run the command that they name, and print any error in one line.

    Args:
        parser: Sets ``run``, the function of the chosen command, and ``options``, the names of its options.
        arguments: The arguments; ``sys.argv[1:]`` if None.

    Returns:
        The exit status.
    """
    typed = sys.argv[1:] if arguments is None else list(arguments)
    failed = functools.partial(_failed, parser.prog, log_json=_LOG_JSON in typed)
    chosen = argparse.Namespace(options=frozenset())
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # characters that the terminal's encoding lacks are escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        with _signals_raise():
            chosen = parser.parse_args(arguments)
            chosen.typed = shlex.join([parser.prog, *typed])
            chosen.run(chosen)
            if sys.stdout is not None:
                sys.stdout.flush()  # here, so that a full disk or a closed pipe is an error like any other
        return 0
    except SystemExit as end:  # argparse: --help, --version
        return end.code if isinstance(end.code, int) else 0
    except _UsageError as error:
        return _failed(*error.args, log_json=_LOG_JSON in typed)
    except JoseError as error:
        return failed(as_options(str(error), chosen.options | _TRAINED_WITH))
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, Stopped) else int(signal.SIGINT)
        word = "interrupted" if number == signal.SIGINT else "terminated"
        return failed(" ".join([word, *getattr(stop, "__notes__", ())]), 128 + number)
    except BrokenPipeError:
        _discard_output()
        return 128 + 13
    except MemoryError as error:
        reason = f" ({error})" if str(error) else ""
        return failed(f"out of memory{reason}; jose-train --dry-run estimates how much a training needs")
    except OSError as error:
        _discard_output()
        place = f"{error.filename}: " if error.filename else ""
        return failed(f"{place}{error.strerror or error}")


@contextlib.contextmanager
def reporter_of(arguments: argparse.Namespace) -> Iterator[Reporter]:
    """The reporter of a command, as ``--quiet`` and ``--log-json`` say; its notes name options."""
    from jose_embed.compute.jit import compilation_noted

    reporter = reporter_for(quiet=getattr(arguments, "quiet", False), log_json=getattr(arguments, "log_json", False))
    shown = functools.partial(as_options, names=arguments.options)
    with JoinedReporter(reporter, shown=shown) as joined, compilation_noted(joined.note):
        yield joined


@contextlib.contextmanager
def nothing_written() -> Iterator[None]:
    """In this context an interrupt is reported with the note that no output was written."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note("(nothing was written)")
        raise


def text_rows(corpus: EncodedCorpus) -> dict[str, str]:
    """The rows of a summary that describe the text."""
    statistics, vocabulary = corpus.statistics, corpus.vocabulary
    empty = f" ({statistics.n_empty:,} empty)" if statistics.n_empty else ""
    return {
        "documents": f"{statistics.n_documents:,}{empty}",
        "words": f"{vocabulary.n_tokens:,} of {statistics.n_tokens_seen:,} in the text",
        "vocabulary": f"{vocabulary.n_words:,} of {statistics.n_words_seen:,} different words"
        f" (those that occur {corpus.min_count:,} times or more)",
    }


def text_facts(corpus: EncodedCorpus) -> dict[str, Any]:
    """The facts of a JSON summary that describe the text."""
    counts = {"n_documents": corpus.n_documents, "n_tokens": corpus.n_tokens, "n_words": len(corpus.vocabulary)}
    return {"counts": counts, "corpus": corpus.statistics.to_dict()}


def print_rows(rows: Mapping[str, str]) -> None:
    """Print a summary; rows without text are left out."""
    print("\n".join(f"{name:<11} {text}" for name, text in rows.items() if text))


def workers_text(n: int) -> str:
    """``1 worker``, ``2 workers``."""
    return f"{n} workers" if n != 1 else "1 worker"


def _discard_output() -> None:
    """Drop the buffered output, which Python would try to write again at exit."""
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
    """The default name of an output: the name of the source with another suffix, in the current directory.

    Args:
        sources: The sources of the text.
        suffix: The suffix of the output.

    Raises:
        ConfigError: several sources, a glob or standard input.

    Example:
        >>> default_output(["data/news.txt.gz"]), default_output(["texts/"]), default_output(["corpus"])
        (PosixPath('news.jose'), PosixPath('texts.jose'), PosixPath('corpus.jose'))
    """
    if len(sources) != 1 or sources[0] == "-" or (set("*?[") & set(sources[0]) and not os.path.lexists(sources[0])):
        raise ConfigError(f"the output has no default name for several files or a pipe; add --output NAME{suffix}")
    path = Path(os.path.abspath(sources[0]))
    if path.suffix in _COMPRESSIONS:
        path = path.with_suffix("")
    stem = path.name.removesuffix(".encoded") if path.is_dir() else path.stem
    if not stem:
        raise ConfigError(f"{sources[0]}: the output has no default name; add --output NAME{suffix}")
    return Path(f"{stem}{suffix}")
