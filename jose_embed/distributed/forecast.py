"""The time of a training on 1, 2, 4 ... machines, from a measured exchange and a short trial on each machine.

An exchange of n words takes a + b n seconds; a (the calls) and b (bytes, and the work of the combiner) are measured
with the real members. With another number N of machines, a grows with N, and b with (N - 1) / N, the share of a
machine's rows that other machines own.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jose_embed.config import TrainConfig
from jose_embed.distributed.exchange import Point, plan
from jose_embed.distributed.group import Group
from jose_embed.distributed.training import Run, SharedText, read_shares
from jose_embed.errors import ConfigError
from jose_embed.progress import Reporter
from jose_embed.text.records import TextOptions
from jose_embed.text.sources import Source
from jose_embed.training.engine import EngineOptions

_NODES = (1, 2, 4, 8, 16, 32, 64)
_FEW, _MANY, _REPEATS = 5_000, 100_000, 5


@dataclass(frozen=True)
class Exchange:
    """The time of an exchange with a number of machines.

    Attributes:
        nodes: The machines that were measured.
        call_seconds: a, the time of an exchange of no words.
        word_seconds: b, the time of each word.
    """

    nodes: int
    call_seconds: float
    word_seconds: float

    def seconds(self, n_words: int, nodes: int | None = None) -> float:
        """The time of an exchange of so many words, with so many machines.

        Example:
            >>> Exchange(2, 0.02, 1e-6).seconds(100_000), Exchange(2, 0.02, 1e-6).seconds(100_000, 1)
            (0.12, 0.0)
        """
        n = nodes or self.nodes
        if n == 1:
            return 0.0
        shares = ((n - 1) / n) / ((self.nodes - 1) / self.nodes)
        return self.call_seconds * n / self.nodes + self.word_seconds * n_words * shares


@dataclass(frozen=True)
class Forecast:
    """What a training will take.

    Attributes:
        text: The text.
        config: The settled settings.
        exchange: The measured exchange.
        one_machine_seconds: The time of a training on one machine.
        seconds: The time of a training by number of machines.
    """

    text: SharedText
    config: TrainConfig
    exchange: Exchange
    one_machine_seconds: float
    seconds: Mapping[int, float]

    def efficiency(self, nodes: int) -> float:
        """The share of the machines' time that is not spent on exchanges."""
        return self.one_machine_seconds / (nodes * self.seconds[nodes])

    @property
    def fastest(self) -> int:
        """The number of machines with the shortest time."""
        return min(self.seconds, key=lambda n: (self.seconds[n], n))


def forecast(
    shards: Group,
    owners: Group | None,
    sources: Sequence[Source],
    config: TrainConfig,
    options: EngineOptions,
    text_options: TextOptions,
    reporter: Reporter,
    *,
    threads: int = 1,
    temporary_directory: str | None = None,
) -> Forecast:
    """Read the text, measure an exchange and a trial, and compute; arguments as for :func:`~.training.train_on`.

    Raises:
        ConfigError: a single machine, which exchanges nothing.
    """
    if owners is None:
        raise ConfigError("nodes is 1; a forecast measures an exchange, so it needs 2 or more")
    text = read_shares(shards, sources, config, text_options, reporter, temporary_directory)
    run = Run(shards, owners, text, config, options, reporter, None, {}, temporary_directory)
    run.prepare(threads)
    settled = config.for_text(text.n_tokens)
    trial = dataclasses.replace(settled, workers=settled.workers or threads)
    alone = sum(shards.values("trial_seconds", trial))
    exchange = measured_exchange(run, len(shards), text.n_words)
    points = plan(settled.epochs, options.exchanges, text.n_words)
    seconds = {
        n: alone / n + sum(exchange.seconds(point.limit, n) for point in points) for n in sorted({*_NODES, len(shards)})
    }
    return Forecast(text, settled, exchange, alone, seconds)


def measured_exchange(run: Run, nodes: int, n_words: int) -> Exchange:
    """Measure exchanges of few and of many words, in which no row has moved."""
    few, many = min(_FEW, n_words // 2), min(_MANY, n_words)
    times = {limit: exchange_seconds(run, limit, _REPEATS) for limit in (few, many)}
    per_word = max(0.0, (times[many] - times[few]) / max(1, many - few))
    return Exchange(nodes, max(0.0, times[few] - few * per_word), per_word)


def exchange_seconds(run: Run, limit: int, repeats: int) -> float:
    """The median time of some exchanges of the words below ``limit``, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        run.exchange(Point(0, 0, 0, 1, limit))
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])
