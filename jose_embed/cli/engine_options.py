"""The options of commands that can run on several machines."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from jose_embed.cli.command import add_number, print_rows
from jose_embed.progress import amount_text, duration_text, log_event
from jose_embed.training.engine import EngineOptions

if TYPE_CHECKING:
    from jose_embed.distributed.forecast import Forecast


def add_cluster_options(group: argparse._ActionsContainer) -> None:
    """Declare the engine and the address of its cluster."""
    group.add_argument(
        "--engine",
        choices=("local", "ray"),
        help="this process alone, or the machines of a Ray cluster (default: local)",
    )
    group.add_argument(
        "--address",
        metavar="auto|HOST:PORT",
        help="the Ray cluster (default: one on this machine, which ends with the command)",
    )


def add_engine_options(group: argparse._ActionsContainer) -> None:
    """Declare the options of a training on several machines."""
    add_cluster_options(group)
    add_number(group, "--nodes", "machines that train (default: 1)")
    add_number(group, "--exchanges", "how often in an epoch the machines exchange their word vectors (default: 8)")
    group.add_argument(
        "--deltas",
        choices=("float32", "int8"),
        help="how vectors travel; int8 takes a quarter of the bytes (default: float32)",
    )
    group.add_argument(
        "--doc-output",
        metavar="DIR|s3://...",
        help="let the machines write the document vectors there as Parquet, instead of into the model",
    )


def engine_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, as :class:`EngineOptions` takes them."""
    given = {one.name: getattr(arguments, one.name, None) for one in fields(EngineOptions)}
    return {name: value for name, value in given.items() if value is not None}


def show_forecast(found: Forecast, *, log_json: bool) -> None:
    """Print the time of a training by number of machines, and say when one machine is faster."""
    text, exchange, measured = found.text, found.exchange, found.exchange.nodes
    whole = exchange.seconds(text.n_words)
    fewer = f", measured on {exchange.most_words:,} words" if text.n_words > exchange.most_words else ""
    if log_json:
        log_event(
            "summary",
            counts={"n_documents": text.n_documents, "n_tokens": text.n_tokens, "n_words": text.n_words},
            exchange={"nodes": measured, "call_seconds": exchange.call_seconds, "word_seconds": exchange.word_seconds},
            forecast={str(n): {"seconds": found.seconds[n], "efficiency": found.efficiency(n)} for n in found.seconds},
            fastest=found.fastest,
        )
        return
    rows = {
        "documents": f"{text.n_documents:,}",
        "words": f"{text.n_tokens:,}",
        "vocabulary": f"{text.n_words:,} different words",
        "epochs": f"{found.config.epochs:,}",
        "exchange": f"{duration_text(whole)} of all words with {measured} machines{fewer}",
    }
    rows |= {
        f"{n} machine{'s' if n > 1 else ''}": f"about {duration_text(seconds)}, efficiency {found.efficiency(n):.2f}"
        for n, seconds in found.seconds.items()
    }
    print_rows(rows)
    fastest = found.fastest
    if fastest == 1:
        print("\nOne machine is fastest for this text: leave --engine and --nodes out.")
    elif found.seconds[1] <= found.seconds[measured]:
        print(f"\nOne machine is faster than {measured}.")
    else:
        times = found.seconds[1] / found.seconds[measured]
        print(f"\n{measured} machines are {times:.1f} times as fast as one ({amount_text(text.n_tokens, 'words')}).")
