"""Figures for Prometheus: requests, lanes, documents, the event loop's lag."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_BEAT: Final = 0.05


class Metrics:
    """The figures of one service; it has its own registry, so one process can have several.

    Args:
        gauges: Name to (help, function) of values that are read at each scrape.
        counters: The same for values that only rise; the names end in ``_total``.
    """

    def __init__(
        self,
        gauges: Mapping[str, tuple[str, Callable[[], float]]],
        counters: Mapping[str, tuple[str, Callable[[], float]]],
    ) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Read(gauges, counters))
        self.requests = Counter(
            "jose_requests", "Answered requests.", ["method", "path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "jose_request_seconds",
            "Time from a request's head to its answer's end.",
            ["path"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.cached = Counter(
            "jose_similar_cached", "Answers to GET /similar that were kept from before.", registry=self.registry
        )
        self.reloads = Counter("jose_reloads", "Reloads of the model.", ["outcome"], registry=self.registry)
        self.lag = Histogram(
            "jose_event_loop_lag_seconds",
            "How late the event loop wakes a sleeper.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.longest_lag = Gauge(
            "jose_event_loop_longest_lag_seconds", "The longest lag since the start.", registry=self.registry
        )
        self._longest = 0.0
        # Children of labelled metrics by what they were asked with: looking them up costs more than counting.
        self._children: dict[tuple[str, str, int], tuple[Any, Any]] = {}

    def observe(self, method: str, path: str, status: int, seconds: float) -> None:
        """Counts one answered request; ``path`` is the route's template, so that the number of series is bounded."""
        key = (method, path, status)
        children = self._children.get(key)
        if children is None:
            children = self._children[key] = (
                self.requests.labels(method, path, str(status)),
                self.seconds.labels(path),
            )
        children[0].inc()
        children[1].observe(seconds)

    async def watch_the_loop(self) -> None:
        """Measures the event loop's lag for as long as it runs."""
        while True:
            started = time.perf_counter()
            await asyncio.sleep(_BEAT)
            lag = max(0.0, time.perf_counter() - started - _BEAT)
            self.lag.observe(lag)
            if lag > self._longest:
                self._longest = lag
                self.longest_lag.set(lag)

    def page(self) -> bytes:
        """All figures in Prometheus's text format."""
        return generate_latest(self.registry)


class _Read(Collector):
    def __init__(
        self,
        gauges: Mapping[str, tuple[str, Callable[[], float]]],
        counters: Mapping[str, tuple[str, Callable[[], float]]],
    ) -> None:
        self._gauges = gauges
        self._counters = counters

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Any:
        for name, (help, read) in self._gauges.items():
            yield GaugeMetricFamily(name, help, value=read())
        for name, (help, read) in self._counters.items():
            yield CounterMetricFamily(name, help, value=read())
