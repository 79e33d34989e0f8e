"""``jose-train``: from text files to a model directory."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shlex
import sys
import time
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jose_embed.cli.command import Command, add_log_json, add_quiet, default_output, visible
from jose_embed.config import PRESETS, TrainConfig, preset_settings
from jose_embed.errors import ConfigError, ModelError
from jose_embed.progress import Reporter, amount_text, duration_text, log_event, reporter_for

if TYPE_CHECKING:
    from jose_embed.model.embeddings import Embeddings
    from jose_embed.training.checkpoints import Checkpoints

__all__ = ["TRAIN"]


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="TEXT",
        help="files (plain, .gz, .bz2, .xz, .zst), globs, directories, or - for standard input; a line is a document;"
        " or one directory that jose encode made",
    )
    parser.add_argument(
        "-o", "--output", metavar="DIR", help="the model directory to write (default: corpus.jose for corpus.txt)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the model that is there")
    parser.add_argument(
        "--keep-encoded",
        metavar="DIR",
        help="keep the text in its encoded form, and take it from there while text, tokenizer and minimal count stay",
    )
    parser.add_argument("--dry-run", action="store_true", help="count, estimate memory and time, write no model")
    add_quiet(parser)
    add_log_json(parser)
    long = parser.add_argument_group("long runs")
    long.add_argument(
        "--checkpoint-every",
        type=_duration,
        default=600.0,
        metavar="TIME",
        help="time between two checkpoints of the training, such as 30s, 10m or 2h; 0 for none (default: 10m)",
    )
    long.add_argument(
        "--resume", action="store_true", help="go on with a training that was stopped; same text, output and settings"
    )
    long.add_argument(
        "--temporary-directory",
        metavar="DIR",
        help="where temporary files lie: 4 bytes per word of the text, and mapped document vectors",
    )
    settings = parser.add_argument_group("settings of the training")
    settings.add_argument(
        "--preset",
        choices=list(PRESETS),
        default=argparse.SUPPRESS,
        help="settings for one purpose, over which single ones can be given: "
        + "; ".join(f"{name} ({_settings_text(values)})" for name, values in PRESETS.items()),
    )
    for option in dataclasses.fields(TrainConfig):
        choices = option.metadata["choices"]
        settings.add_argument(
            f"--{option.name.replace('_', '-')}",
            type=_reader(option.default),
            default=argparse.SUPPRESS,
            metavar="{" + ",".join(choices) + "}" if choices else _METAVARS[type(option.default)],
            help=f"{option.metadata['help']} (default: {option.default})".replace("%", "%%"),
        )


def _settings_text(settings: Mapping[str, Any]) -> str:
    """Settings for a person to read: ``window 3, doc-weight 4``."""
    return ", ".join(f"{name.replace('_', '-')} {value}" for name, value in settings.items())


_METAVARS = {int: "N", float: "X", str: "NAME"}


def _reader(default: Any) -> Any:
    """The type of an option. What is no number passes as it is: TrainConfig refuses it and says what is allowed."""

    def read(text: str) -> Any:
        try:
            return type(default)(text)
        except ValueError:
            return text

    return read


def _duration(text: str) -> float:
    """Seconds of a time such as 30s, 10m, 2h or 0."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)|0", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write 30s, 10m or 2h, or 0 for none")
    return float(match[1] or 0) * {"s": 1, "m": 60, "h": 3600}[match[2] or "s"]


def _run(arguments: argparse.Namespace) -> None:
    names = [option.name for option in dataclasses.fields(TrainConfig)]
    given = preset_settings(arguments.preset) if "preset" in arguments else {}
    given |= {name: getattr(arguments, name) for name in names if name in arguments}
    config = TrainConfig.from_dict(given)
    if arguments.dry_run:
        with reporter_for(quiet=arguments.quiet, log_json=arguments.log_json) as reporter:
            _dry_run(arguments, config, given, reporter)
        return
    output = Path(arguments.output) if arguments.output is not None else default_output(arguments.sources)

    from jose_embed.model.embeddings import check_target
    from jose_embed.storage.atomic import check_output
    from jose_embed.text.tokenizers import get_tokenizer
    from jose_embed.training.checkpoints import Checkpoints

    # All that can be refused without reading the text is refused first.
    if arguments.keep_encoded is not None and os.path.realpath(arguments.keep_encoded) == os.path.realpath(output):
        raise ConfigError(f"{output}: the model and the encoded text cannot be one directory; name two")
    check_output(output, arguments.sources)
    get_tokenizer(config.tokenizer)
    started = time.monotonic()
    checkpoints = None
    if arguments.checkpoint_every or arguments.resume:
        checkpoints = Checkpoints(f"{output}.run", every=arguments.checkpoint_every)
    try:
        log_json = arguments.log_json
        with reporter_for(quiet=arguments.quiet, log_json=log_json) as reporter, checkpoints or nullcontext():
            if checkpoints is not None:
                checkpoints.begin(arguments.resume, reporter)
                if checkpoints.latest is not None and checkpoints.latest.run == _run_of(output):
                    checkpoints.remove()
                    reporter.note(f"{output}: this training has come to its end, and the model is there")
                    return
            check_target(output, overwrite=arguments.overwrite)
            from jose_embed.training.train import train

            model = train(
                arguments.sources,
                reporter=reporter,
                keep_encoded=arguments.keep_encoded,
                checkpoint=checkpoints,
                temporary_directory=arguments.temporary_directory,
                **given,
            )
            saving_from = time.monotonic()
            model.save(output, overwrite=arguments.overwrite, reporter=reporter)
            if checkpoints is not None:
                checkpoints.remove()
    except KeyboardInterrupt as stop:
        stop.add_note(_way_on(checkpoints, arguments))
        raise
    now = time.monotonic()
    if arguments.log_json and not arguments.quiet:
        _log_summary(model, output, saving=now - saving_from, total=now - started)
    elif not arguments.quiet:
        print("\n".join(summary(model, output, saving=now - saving_from, total=now - started)))


def _run_of(output: Path) -> str | None:
    """The run that wrote the model which is there; None where there is none."""
    from jose_embed.model.embeddings import load

    try:
        run = load(output).manifest["training"].get("run")
    except ModelError:
        return None
    return run if isinstance(run, str) else None


def _way_on(checkpoints: Checkpoints | None, arguments: argparse.Namespace) -> str:
    """What a person whose training was interrupted should know."""
    if checkpoints is None or checkpoints.latest is None:
        return "(no model was written)"
    command = arguments.typed if arguments.resume else f"{arguments.typed} --resume"
    return f"({checkpoints.latest.place} is kept in {checkpoints.directory}); go on with: {command}"


def _dry_run(arguments: argparse.Namespace, config: TrainConfig, given: Collection[str], reporter: Reporter) -> None:
    from jose_embed.compute.backends import check_backend, choose_backend
    from jose_embed.text.kept import text_for
    from jose_embed.training.estimate import estimate

    check_backend(config.backend)
    text, config = text_for(
        arguments.sources,
        config,
        given=given,
        keep_encoded=arguments.keep_encoded,
        reporter=reporter,
        directory=arguments.temporary_directory,
    )
    with text as corpus:
        config = config.for_text(corpus.n_tokens)
        chosen = choose_backend(config, corpus.vocabulary.counts, corpus.offsets, reporter)
        need = estimate(corpus, dataclasses.replace(config, backend=chosen))
        workers = _workers_text(config.resolved_workers()) if chosen == "cpu" else "the device"
        memory = f"about {amount_text(need['memory_bytes'], 'bytes')}"
        if "device_bytes" in need:
            memory += f", and {amount_text(need['device_bytes'], 'bytes')} of the device"
        rows = {
            "documents": f"{corpus.statistics.n_documents:,} ({corpus.statistics.n_empty:,} empty)",
            "tokens": f"{corpus.statistics.n_tokens_seen:,}, of which {corpus.vocabulary.n_tokens:,} are kept",
            "vocabulary": f"{corpus.vocabulary.n_words:,} of {corpus.statistics.n_words_seen:,} words"
            f" (those that occur {config.min_count:,} times or more)",
            "epochs": f"{config.epochs:,}",
            "backend": chosen,
            "memory": memory,
            "time": f"about {duration_text(need['seconds'])} on {workers}",
        }
        if arguments.log_json:
            counts = {"n_documents": corpus.n_documents, "n_tokens": corpus.n_tokens, "n_words": len(corpus.vocabulary)}
            log_event("summary", counts=counts, corpus=corpus.statistics.to_dict(), backend=chosen, needed=need)
            return
    print("\n".join(f"{name:<11} {value}" for name, value in rows.items()))


def _log_summary(model: Embeddings, output: Path, *, saving: float, total: float) -> None:
    """The same as :func:`summary` for machines."""
    manifest = model.manifest
    training = {**manifest["training"], "phases": {**manifest["training"]["phases"], "saving": saving}}
    facts = {name: manifest[name] for name in ("id", "counts", "config", "corpus")}
    log_event("summary", output=str(output), seconds=total, peak_memory_bytes=_peak_bytes(), training=training, **facts)


def summary(model: Embeddings, output: Path, *, saving: float, total: float) -> list[str]:
    """What a person should know after a training, as lines."""
    counts: Mapping[str, Any] = model.manifest["counts"]
    training: Mapping[str, Any] = model.manifest["training"]
    epochs = training["epochs"]
    phases = {**training["phases"], "saving": saving}
    untrained = counts["n_untrained"]
    spans = ", ".join(f"{name} {duration_text(span)}" for name, span in phases.items())
    speed = amount_text(training["words_per_second"], "words")
    workers = training["workers"]
    where = _workers_text(workers) if training["backend"] == "cpu" else f"the GPU, {workers:,} documents at a time"
    size = sum(file["bytes"] for file in model.manifest["files"].values())
    documents = f"{counts['n_docs']:,}" + (f", {untrained:,} untrained (no known word)" if untrained else "")
    if not counts["n_docs"]:
        documents = f"{model.manifest['corpus']['n_documents']:,}, whose vectors are not kept"
    rows = {
        "documents": documents,
        "tokens": f"{counts['n_tokens']:,}",
        "vocabulary": f"{counts['n_words']:,} words",
        "time": f"{duration_text(max(total, sum(phases.values())))} ({spans})",  # some of it before a --resume
        "speed": f"{speed}/s in training on {where}",
        "loss": f"{epochs[0]['loss']:.4g} in the first epoch, {epochs[-1]['loss']:.4g} in the last",
        "memory": _peak_memory(),
        "model": f"{output} ({amount_text(size, 'bytes')})",
    }
    lines = [f"{name:<11} {value}" for name, value in rows.items() if value]
    place = shlex.quote(str(output))
    word = shlex.quote(visible(_word_to_try(model)))
    return ["", *lines, "", f"Next: jose similar {place} {word}", f"      jose info {place}"]


def _word_to_try(model: Embeddings) -> str:
    """A frequent word with a meaning of its own: the one whose documents agree best among the 500 most frequent."""
    weights = model.encoder.word_weights[:, 1]
    rows = range(min(500, len(model.words)))
    for shortest in (5, 2, 1):
        if words := [row for row in rows if len(model.words[row]) >= shortest and model.words[row].isalpha()]:
            return model.words[max(words, key=weights.__getitem__)]
    return model.words[0]


def _workers_text(n: int) -> str:
    return f"{n} workers" if n != 1 else "1 worker"


def _peak_memory() -> str:
    """The largest resident size of this process so far; empty where the system does not tell."""
    peak = _peak_bytes()
    return "" if peak is None else f"{amount_text(peak, 'bytes')} at the most"


def _peak_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


TRAIN = Command(
    name="train",
    summary="Train word and document vectors from text, one document per line.",
    configure=_configure,
    run=_run,
    usage="%(prog)s TEXT ... [--output NAME.jose] [--dry-run] [settings]",
    examples=(
        "jose-train corpus.txt                               writes corpus.jose",
        "jose-train 'news/*.txt.gz' --output news.jose --window 10 --epochs 20",
        "zcat big.gz | jose-train - --output big.jose --tokenizer whitespace",
        "jose-train corpus.txt --keep-encoded corpus.encoded --dim 200   reads the text at the first time only",
        "jose-train corpus.txt --dry-run                     what would it take?",
        "jose-train corpus.txt --resume                      goes on where Ctrl-C or a crash has stopped it",
    ),
)
