"""The reload of the model directory: load, verify, test, embed the stored texts again, swap."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from jose_embed.errors import ModelError
from service.engine.metrics import Metrics
from service.engine.store import StoreError
from service.engine.writing import DocumentWriter, as_problem
from service.problems import Problem
from service.search.served_model import ServedModel
from service.settings import Settings

__all__ = ["Reloader"]

_log = logging.getLogger("service")


class Reloader:
    """Replaces the served model by the one that is on the disk now, one reload at a time.

    Args:
        settings: The service's settings.
        load: Loads, verifies and tests the model directory.
        writer: Publishes the new model.
        metrics: Counts the reloads.
    """

    def __init__(
        self, settings: Settings, load: Callable[[], ServedModel], writer: DocumentWriter, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._load = load
        self._writer = writer
        self._metrics = metrics
        self._running = threading.Lock()

    async def reload(self) -> dict[str, Any]:
        """Loads the model directory and serves it; a client that leaves does not stop the reload.

        Raises:
            Problem: ``reload-running``, ``model-refused``, ``disk-full``, ``storage-unavailable``: the present model
                is served on.
        """
        return await asyncio.shield(asyncio.to_thread(self._reload))

    def _reload(self) -> dict[str, Any]:
        if not self._running.acquire(blocking=False):
            raise Problem("reload-running", "another reload has not ended yet")
        outcome = "failed"
        try:
            answer = self._swapped()
            outcome = "done"
            return answer
        except ModelError as error:
            outcome = "refused"
            _log.warning("reload refused: %s", error)
            raise Problem("model-refused", str(error)) from None
        except StoreError as error:
            _log.warning("reload failed: %s", error)
            raise as_problem(error) from None
        finally:
            self._metrics.reloads.labels(outcome).inc()
            self._running.release()

    def _swapped(self) -> dict[str, Any]:
        started = time.perf_counter()
        writer = self._writer
        before = writer.snapshot.served
        served = self._load()
        embedded, library = 0, None
        writer.announce(served.id)
        try:
            if served.id != before.id:
                if not self._settings.read_only:
                    embedded = writer.embed_missing(served)
                library = writer.library_of(served)
            writer.run_alone(lambda: writer.swap(served, library))
        finally:
            writer.announce(None)
        _log.info("reloaded %s: model %s, before %s", self._settings.model, served.id, before.id)
        return {
            "model": served.reference,
            "previous": before.reference,
            "changed": served.id != before.id,
            "documents": embedded,
            "seconds": round(time.perf_counter() - started, 6),
        }
