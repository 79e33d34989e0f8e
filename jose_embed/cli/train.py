"""``jose-train``: train a model from text files."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jose_embed.cli.command import (
    Command,
    add_log_json,
    add_quiet,
    default_output,
    option_of,
    print_rows,
    reporter_of,
    setting_arguments,
    text_facts,
    text_rows,
    visible,
    workers_text,
)
from jose_embed.cli.engine_options import add_engine_options, engine_settings, show_forecast
from jose_embed.cli.text_options import add_text_options, text_settings
from jose_embed.config import PRESETS, TrainConfig, preset_settings
from jose_embed.errors import ConfigError, ModelError
from jose_embed.progress import Reporter, amount_text, duration_text, log_event
from jose_embed.training.engine import EngineOptions

if TYPE_CHECKING:
    from jose_embed.analysis.comparison import Comparison
    from jose_embed.model.embeddings import Embeddings
    from jose_embed.text.corpus import EncodedCorpus
    from jose_embed.training.checkpoints import Checkpoints


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="TEXT",
        help="text with one document per line: files (also .gz, .bz2, .xz, .zst), globs, directories, or - for standard"
        " input; or one directory written by jose encode",
    )
    first = parser.add_argument_group("main options")
    first.add_argument(
        "-o", "--output", metavar="DIR", help="the model directory to write (default: corpus.jose for corpus.txt)"
    )
    first.add_argument("--overwrite", action="store_true", help="replace an existing model")
    first.add_argument(
        "--dry-run", action="store_true", help="read the text and estimate memory and time, do not train"
    )
    first.add_argument(
        "--preset",
        choices=list(PRESETS),
        default=argparse.SUPPRESS,
        help="settings for a purpose: nearest words are of the same kind and not only of the same topic (words), the"
        " algorithm as published (paper), separate losses for words and documents, as in its authors' program"
        " (pairwise); other options override it",
    )
    groups = {
        "first": first,
        "training": parser.add_argument_group("training"),
        "resources": parser.add_argument_group("files and resources"),
    }
    add_text_options(groups["resources"], keeping=True)
    for option in dataclasses.fields(TrainConfig):
        groups[option.metadata["group"]].add_argument(
            option_of(option.name),
            default=argparse.SUPPRESS,
            **setting_arguments(option, _reader(option.default)),
        )
    _resources(groups["resources"])
    add_engine_options(parser.add_argument_group("several machines"))


def _resources(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--keep-encoded",
        metavar="DIR",
        help="keep the encoded text in this directory; the next training with the same text, tokenizer and --min-count"
        " starts from it",
    )
    group.add_argument(
        "--checkpoint-every",
        type=_duration,
        default=600.0,
        metavar="TIME",
        help="time between checkpoints, such as 30s, 10m or 2h; 0 writes none (default: 10m)",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="continue an interrupted training; give the same text, output and settings",
    )
    group.add_argument(
        "--temporary-directory",
        metavar="DIR",
        help="directory of temporary files; they need 4 bytes for each word of the text, and room for the document"
        " vectors with --doc-vectors mapped",
    )
    add_quiet(group)
    add_log_json(group)


def _reader(default: Any) -> Any:
    """The type of an option. Text that is not a number is passed on to TrainConfig, which says what is allowed."""

    def read(text: str) -> Any:
        try:
            return type(default)(text)
        except ValueError:
            return text

    return read


def _duration(text: str) -> float:
    """The seconds of a duration such as 30s, 10m, 2h or 0."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)|0", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write 30s, 10m or 2h, or 0 for none")
    return float(match[1] or 0) * {"s": 1, "m": 60, "h": 3600}[match[2] or "s"]


def _run(arguments: argparse.Namespace) -> None:
    names = [option.name for option in dataclasses.fields(TrainConfig)]
    given = preset_settings(arguments.preset) if "preset" in arguments else {}
    given |= {name: getattr(arguments, name) for name in names if name in arguments}
    config = TrainConfig.from_dict(given)
    engine = EngineOptions(**engine_settings(arguments))
    if arguments.dry_run:
        with reporter_of(arguments) as reporter:
            if engine.engine == "ray":
                _dry_run_on_ray(arguments, config, engine, reporter)
            else:
                _dry_run(arguments, config, given, reporter)
        return
    output = Path(arguments.output) if arguments.output is not None else default_output(arguments.sources)

    from jose_embed.model.files import check_model_target
    from jose_embed.storage.atomic import check_output
    from jose_embed.text.kept import encoding_settings
    from jose_embed.training.checkpoints import Checkpoints

    # Errors that do not depend on the text are found before the text is read.
    if arguments.keep_encoded is not None and os.path.realpath(arguments.keep_encoded) == os.path.realpath(output):
        raise ConfigError(f"{output}: the model and the encoded text cannot share a directory; name two")
    check_output(output, arguments.sources)
    encoding_settings(config)
    started = time.monotonic()
    checkpoints = None
    if arguments.checkpoint_every or arguments.resume:
        checkpoints = Checkpoints(f"{output}.run", every=arguments.checkpoint_every)
    try:
        with reporter_of(arguments) as reporter, checkpoints or nullcontext():
            if checkpoints is not None:
                checkpoints.begin(arguments.resume, reporter)
                if checkpoints.latest is not None and checkpoints.latest.run == _run_of(output):
                    checkpoints.remove()
                    reporter.note(f"{output}: the model is complete; there is nothing to resume")
                    return
            check_model_target(output, overwrite=arguments.overwrite)
            from jose_embed.model.embeddings import load
            from jose_embed.training.train import train

            # The output may replace the model that is continued, so it is opened before.
            old = load(config.continue_from) if config.continue_from else None
            model = train(
                arguments.sources,
                reporter=reporter,
                keep_encoded=arguments.keep_encoded,
                checkpoint=checkpoints,
                temporary_directory=arguments.temporary_directory,
                **text_settings(arguments),
                **engine_settings(arguments),
                **given,
            )
            compared = None if old is None else _compared(old, model)
            saving_from = time.monotonic()
            model.save(output, overwrite=arguments.overwrite, reporter=reporter)
            if checkpoints is not None:
                checkpoints.remove()
    except KeyboardInterrupt as stop:
        stop.add_note(_how_to_resume(checkpoints, arguments))
        raise
    now = time.monotonic()
    if arguments.quiet:
        return
    show = _log_summary if arguments.log_json else _print_summary
    show(model, output, saving=now - saving_from, total=now - started, compared=compared)


def _compared(old: Embeddings, new: Embeddings) -> Comparison | None:
    """What a continued training left of the neighbours of frequent old words; None for a single word."""
    from jose_embed.analysis.comparison import compare

    return compare(old, new, n_moved=0) if old.n_words > 1 else None


def _run_of(output: Path) -> str | None:
    """The id of the run that wrote the existing model; None without a model."""
    from jose_embed.model.embeddings import load

    try:
        run = load(output).manifest["training"].get("run")
    except ModelError:
        return None
    return run if isinstance(run, str) else None


def _how_to_resume(checkpoints: Checkpoints | None, arguments: argparse.Namespace) -> str:
    """The note after an interrupted training."""
    if checkpoints is None or checkpoints.latest is None:
        return "(no model was written)"
    command = getattr(arguments, "continued_by", "") or f"{arguments.typed}{'' if arguments.resume else ' --resume'}"
    return f"({checkpoints.latest.place} is kept in {checkpoints.directory}); continue with: {command}"


def _dry_run(arguments: argparse.Namespace, config: TrainConfig, given: Mapping[str, Any], reporter: Reporter) -> None:
    from jose_embed.compute.backends import check_backend, choose_backend, is_for_the_cpu
    from jose_embed.text.kept import text_for
    from jose_embed.text.records import TextOptions
    from jose_embed.training.continued import opened, planned
    from jose_embed.training.estimate import estimate
    from jose_embed.training.given import check_init

    is_for_the_cpu(config)
    check_backend(config.backend)
    text_options = TextOptions(**text_settings(arguments))
    continued = opened(config.continue_from, config.earlier_text)
    if continued is not None:
        config = continued.config(given)
        continued.check(config, text_options)
    if config.init:
        check_init(config.init)
    text, config = text_for(
        arguments.sources,
        config,
        given=given,
        keep_encoded=arguments.keep_encoded,
        reporter=reporter,
        directory=arguments.temporary_directory,
        options=text_options,
        earlier=None if continued is None else continued.words,
    )
    with text as corpus:
        config = config.for_text(corpus.vocabulary.n_tokens)
        chosen = choose_backend(config, corpus.vocabulary.counts, corpus.offsets, reporter)
        begun, plan = planned(corpus, config, continued, arguments.temporary_directory)
        for note in ("" if begun is None else begun.coverage, plan.note):
            if note:
                reporter.note(note)
        need = estimate(plan.corpus, dataclasses.replace(plan.config, backend=chosen), begun, plan.left_out)
        workers = workers_text(config.resolved_workers()) if chosen == "cpu" else "the GPU"
        memory = f"about {amount_text(need['memory_bytes'], 'bytes')}"
        if "device_bytes" in need:
            memory += f", and {amount_text(need['device_bytes'], 'bytes')} on the GPU"
        rows = {
            **text_rows(corpus),
            "epochs": f"{plan.config.epochs:,}",
            "backend": chosen,
            "memory": memory,
            "n-grams": _ngram_row(config, corpus.vocabulary.words),
            "time": f"about {duration_text(need['seconds'])} on {workers}",
            **_first_documents(corpus),
        }
        if arguments.log_json:
            log_event("summary", **text_facts(corpus), backend=chosen, needed=need)
            return
    print_rows(rows)


def _dry_run_on_ray(
    arguments: argparse.Namespace, config: TrainConfig, engine: EngineOptions, reporter: Reporter
) -> None:
    from jose_embed.distributed.cluster import job_on_ray
    from jose_embed.distributed.forecast import forecast
    from jose_embed.text.records import TextOptions

    options = TextOptions(**text_settings(arguments))
    with job_on_ray(arguments.sources, config, engine, options, reporter, arguments.temporary_directory) as job:
        found = forecast(job)
    show_forecast(found, log_json=arguments.log_json)


_SHOWN_DOCUMENTS, _SHOWN_WORDS = 3, 12


def _first_documents(corpus: EncodedCorpus) -> dict[str, str]:
    """The ids and the first words of the first documents, as rows of a summary."""
    rows = {}
    for number in range(min(_SHOWN_DOCUMENTS, corpus.n_documents)):
        words = [corpus.vocabulary.words[row] for row in corpus[number][:_SHOWN_WORDS].tolist()]
        more = " ..." if len(corpus[number]) > _SHOWN_WORDS else ""
        found = " ".join(words) + more if words else "no word of the vocabulary"
        rows[f"document {number + 1}"] = visible(f"id {corpus.doc_ids[number]}: {found}")
    return rows


def _log_summary(model: Embeddings, output: Path, *, saving: float, total: float, compared: Comparison | None) -> None:
    """Write the facts of the summary as JSON."""
    manifest = model.manifest
    training = {**manifest["training"], "phases": {**manifest["training"]["phases"], "saving": saving}}
    facts = {name: manifest[name] for name in ("id", "counts", "config", "corpus")}
    if compared is not None:
        facts["neighbors_kept"] = compared.overlap
    log_event("summary", output=str(output), seconds=total, peak_memory_bytes=_peak_bytes(), training=training, **facts)


def _print_summary(
    model: Embeddings, output: Path, *, saving: float, total: float, compared: Comparison | None
) -> None:
    counts: Mapping[str, Any] = model.manifest["counts"]
    training: Mapping[str, Any] = model.manifest["training"]
    epochs = training["epochs"]
    phases = {**training["phases"], "saving": saving}
    untrained = counts["n_untrained"]
    spans = ", ".join(f"{name} {duration_text(span)}" for name, span in phases.items())
    speed = amount_text(training["words_per_second"], "words")
    workers = training["workers"]
    where = workers_text(workers) if training["backend"] == "cpu" else f"the GPU, {workers:,} documents at a time"
    size = sum(file["bytes"] for file in model.manifest["files"].values())
    documents = f"{counts['n_docs']:,}" + (f", {untrained:,} without a word of the vocabulary" if untrained else "")
    if not counts["n_docs"]:
        documents = f"{model.manifest['corpus']['n_documents']:,}; their vectors are not in the model"
    rows = {
        "documents": documents,
        "words": f"{counts['n_tokens']:,}",
        "vocabulary": f"{counts['n_words']:,} different words",
        "time": f"{duration_text(max(total, sum(phases.values())))} ({spans})",  # with the time before --resume
        "speed": f"{speed}/s on {where}",
        "loss": f"{epochs[0]['loss']:.4g} in epoch 1, {epochs[-1]['loss']:.4g} in epoch {len(epochs)}",
        "memory": _peak_memory(),
        "neighbors": "" if compared is None else _kept_neighbors(compared),
        "n-grams": _ngram_row(model.config, model.words),
        "model": f"{output} ({amount_text(size, 'bytes')})",
    }
    place = shlex.quote(str(output))
    word = shlex.quote(visible(_word_to_try(model)))
    print()
    print_rows(rows)
    print(f"\nNext: jose similar {place} {word}\n      jose info {place}")


def _kept_neighbors(found: Comparison) -> str:
    return f"{found.overlap:.3f} of the {found.neighbors} nearest words of {found.n_compared:,} frequent words stayed"


def _ngram_row(config: TrainConfig, words: Sequence[str]) -> str:
    """The memory of sub-words; empty without them."""
    from jose_embed.training.subwords import subword_bytes

    if not config.subwords:
        return ""
    size = amount_text(subword_bytes(config, words), "bytes")
    return f"{config.subword_buckets:,} vectors, {size} of the memory while they are learned"


def _word_to_try(model: Embeddings) -> str:
    """A word for the first query: of the 500 most frequent words, the one whose documents are most alike."""
    weights = model.encoder.word_weights[:, 1]
    rows = range(min(500, len(model.words)))
    for shortest in (5, 2, 1):
        if words := [row for row in rows if len(model.words[row]) >= shortest and model.words[row].isalpha()]:
            return model.words[max(words, key=weights.__getitem__)]
    return model.words[0]


def _peak_memory() -> str:
    """The peak resident memory of this process; empty if unknown."""
    peak = _peak_bytes()
    return "" if peak is None else f"{amount_text(peak, 'bytes')} at its peak"


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
    usage="%(prog)s TEXT ... [--output NAME.jose] [options]",
    examples=(
        "jose-train corpus.txt              writes corpus.jose",
        "jose-train corpus.txt --dry-run    estimates memory and time",
        "jose-train corpus.txt --resume     continues after Ctrl-C or a crash",
        "jose-train more.txt --continue-from corpus.jose -o both.jose",
        "jose-train 'news/*.txt.gz' --output news.jose --dim 200 --epochs 20",
        "zcat big.gz | jose-train - --output big.jose --tokenizer whitespace",
    ),
)
