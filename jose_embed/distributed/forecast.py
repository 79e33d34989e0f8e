"""The time of a training on 1, 2, 4 ... machines, from a measured exchange and a short trial on each machine.

An exchange of n words takes a + b n seconds; a (the calls) and b (bytes, and the work of the combiner) are measured
with the real members. With another number N of machines, a grows with N, and b with (N - 1) / N, the share of a
machine's rows that other machines own.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

from jose_embed.config import TrainConfig
from jose_embed.distributed.exchange import Point, plan
from jose_embed.distributed.training import Job, Run, SharedText, read_shares
from jose_embed.errors import ConfigError

_NODES = (1, 2, 4, 8, 16, 32, 64)
_FEW, _MANY, _REPEATS = 5_000, 200_000, 5


@dataclass(frozen=True)
class Exchange:
    """The time of an exchange with a number of machines.

    Attributes:
        nodes: The machines that were measured.
        call_seconds: a, the time of an exchange of no words.
        word_seconds: b, the time of each word.
        most_words: The most words that were measured; the time of more is extrapolated.
    """

    nodes: int
    call_seconds: float
    word_seconds: float
    most_words: int

    def seconds(self, n_words: int, nodes: int | None = None) -> float:
        """The time of an exchange of so many words, with so many machines.

        Example:
            >>> exchange = Exchange(2, 0.02, 1e-6, 50_000)
            >>> exchange.seconds(100_000), exchange.seconds(100_000, 1)
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


def forecast(job: Job) -> Forecast:
    """Read the text, measure an exchange and a trial, and compute.

    Raises:
        ConfigError: a single machine, which exchanges nothing.
    """
    if job.owners is None:
        raise ConfigError("nodes is 1; a forecast measures an exchange, so it needs 2 or more")
    nodes, text = len(job.shards), read_shares(job)
    run = Run(job, text)
    run.prepare()
    settled = job.config.for_text(text.n_tokens)
    alone = sum(job.shards.values("trial_seconds", job.settled(text.n_tokens)))
    exchange = measured_exchange(run, nodes, text.n_words)
    points = plan(settled.epochs, job.options.exchanges, text.n_words)
    seconds = {
        n: alone / n + sum(exchange.seconds(point.limit, n) for point in points) for n in sorted({*_NODES, nodes})
    }
    return Forecast(text, settled, exchange, alone, seconds)


def measured_exchange(run: Run, nodes: int, n_words: int) -> Exchange:
    """Measure exchanges of few and of many words, in which no row has moved: medians, the first is not counted."""
    few, many = min(_FEW, n_words // 2), min(_MANY, n_words)
    times: dict[int, list[float]] = {few: [], many: []}
    for _ in range(_REPEATS + 1):  # in turn: other programs on the machines then slow both
        for limit, found in times.items():
            started = time.perf_counter()
            run.exchange(Point(0, 0, 0, 1, limit))
            found.append(time.perf_counter() - started)
    seconds = {limit: statistics.median(found[1:]) for limit, found in times.items()}
    per_word = max(0.0, (seconds[many] - seconds[few]) / max(1, many - few))
    return Exchange(nodes, max(0.0, seconds[few] - few * per_word), per_word, many)
