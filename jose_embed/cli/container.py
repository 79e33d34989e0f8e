"""The training of ``docker compose up``: ``python -m jose_embed.cli.container TEXT --output MODEL``.

The variable ``TRAIN_OPTIONS`` holds options of ``jose-train``.

A model of the same text is kept, and a training that was stopped goes on. If the text has changed, which its SHA-256
tells, ``ON_CHANGE`` decides: ``stop`` (the default) refuses and says what to type, ``retrain`` trains on the new text,
``keep`` serves the old model.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from jose_embed.cli.command import Command, Parser, reporter_of, run
from jose_embed.cli.text_options import text_settings
from jose_embed.cli.train import TRAIN
from jose_embed.errors import ConfigError, CorpusError, ModelError
from jose_embed.model.embeddings import load
from jose_embed.progress import Reporter
from jose_embed.text.reader import BlockReader
from jose_embed.text.records import TextOptions
from jose_embed.text.sources import Source, find_sources, printable
from jose_embed.training.checkpoints import Checkpoints
from jose_embed.version import __version__

_CHOICES: Final = ("stop", "retrain", "keep")
_RETRAIN: Final = "ON_CHANGE=retrain docker compose up"
_KEEP: Final = "ON_CHANGE=keep docker compose up"


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains if there is a need to; returns the exit status of ``jose-train``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = os.environ.get("TRAIN_OPTIONS", "")
    try:
        given += shlex.split(options)
    except ValueError as error:
        print(f"jose-train: TRAIN_OPTIONS is {options!r}, which cannot be split ({error})", file=sys.stderr)
        return 2
    parser = Parser(prog="jose-train", **_COMMAND.texts())
    _COMMAND.declare(parser)
    return run(parser, given)


def _run(arguments: argparse.Namespace) -> None:
    choice = os.environ.get("ON_CHANGE", "stop") or "stop"
    if choice not in _CHOICES:
        raise ConfigError(f"ON_CHANGE is {choice!r}; it must be one of {', '.join(_CHOICES)}")
    folder, output = arguments.sources[0], Path(arguments.output)
    run_folder = output.with_name(f"{output.name}.run")
    sources = _readable(folder)
    stopped = _stopped_training(run_folder)
    model = output if output.exists() else None
    with reporter_of(arguments) as reporter:
        text = _hash_of(sources, arguments, reporter) if stopped or model else ""

        def retrains(what: str) -> bool:
            """Whether to train on a text that has changed; an error says what to type."""
            if choice == "stop" or (choice == "keep" and model is None):
                keep = "" if model is None else f", and what serves the model as it is: {_KEEP}"
                raise CorpusError(f"{folder}: {what}. Type what trains on this text: {_RETRAIN}{keep}")
            if choice == "keep":
                reporter.note(f"{folder}: {what}; {output} is served as it is (ON_CHANGE=keep)")
            return choice == "retrain"

        if stopped:
            goes_on = _compare_training(stopped, text, retrains, Checkpoints(run_folder))
        elif model:
            goes_on = _compare_model(model, text, retrains)
            if not goes_on and choice != "keep":
                reporter.note(f"{output}: was trained on this text and is kept")
        else:
            goes_on = True
        if not goes_on:
            return
    arguments.resume = run_folder.exists()
    arguments.overwrite = True
    arguments.continued_by = "docker compose up"
    TRAIN.run(arguments)
    if model:
        print("\nA service that is running loads the new model after: docker compose kill -s SIGHUP api")


def _compare_training(
    stopped: dict[str, Any], text: str, retrains: Callable[[str], bool], checkpoints: Checkpoints
) -> bool:
    """Whether to train: on with the training that was stopped, or from the beginning, without its checkpoints."""
    if stopped["sha256"] == text and stopped["version"] == __version__:
        return True
    what = "is not the text of the training that was stopped"
    if stopped["sha256"] == text:
        what = f"the training that was stopped is of jose-embed {printable(stopped['version'])}, not {__version__}"
    if not retrains(what):
        return False
    with checkpoints:
        checkpoints.remove()
    return True


def _compare_model(model: Path, text: str, retrains: Callable[[str], bool]) -> bool:
    """Whether to train although there is a model."""
    try:
        known = load(model).manifest["corpus"].get("sha256")
    except ModelError as error:
        return retrains(f"the model cannot be used ({error})")
    return known != text and retrains(f"is not the text that {model} was trained on")


def _readable(folder: str) -> list[Source]:
    """The files of the text.

    Raises:
        CorpusError: there is none, or one may not be read.
    """
    user = os.geteuid()
    refused = CorpusError(
        f"{folder}: user {user} of the container may not read all of it; type on the host, in the place of FOLDER the "
        "folder that CORPUS names: chmod -R a+rX FOLDER"
    )
    try:
        for place, folders, files in os.walk(folder, onerror=_raised):
            if not os.access(place, os.R_OK | os.X_OK):
                raise refused
            folders[:] = [name for name in folders if not name.startswith(".")]
            names = [name for name in files if not name.startswith(".")]
            if any(not os.access(os.path.join(place, name), os.R_OK) for name in names):
                raise refused
        return find_sources(folder)
    except PermissionError:
        raise refused from None
    except CorpusError as error:
        if error is refused or os.listdir(folder):
            raise
        raise CorpusError(
            f"{error}. If CORPUS names a folder that was not there, the engine has made an empty one: put text into "
            "it, one document per line, or name another, then: docker compose up"
        ) from None


def _raised(error: OSError) -> None:
    raise error


def _hash_of(sources: list[Source], arguments: argparse.Namespace, reporter: Reporter) -> str:
    """The SHA-256 of a text, as the manifest of a model has it."""
    with BlockReader(sources, options=TextOptions(**text_settings(arguments))) as reader:
        reporter.start("comparing", reader.total, "bytes")
        for block in reader:
            reporter.advance(block.consumed)
        reporter.finish()
        return reader.sha256


def _stopped_training(folder: Path) -> dict[str, Any]:
    """Text and version of the newest checkpoint, unchecked; empty if there is none."""
    for file in sorted(folder.glob("checkpoint-*/checkpoint.json"), reverse=True):
        try:
            facts = json.loads(file.read_bytes())
            return {"sha256": str(facts["corpus"]["sha256"]), "version": str(facts["package_version"])}
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return {}


_COMMAND: Final = Command(
    name="container",
    summary="Train for docker compose up: once, continued if it was stopped; ON_CHANGE=stop|retrain|keep.",
    configure=TRAIN.configure,
    run=_run,
)


if __name__ == "__main__":
    sys.exit(main())
