"""The reload of the model directory: load, verify, test, embed the stored texts again, swap."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

from jose_embed.errors import ModelError
from service.engine.jobs import Job, Jobs
from service.engine.metrics import Metrics
from service.engine.records import StoreError
from service.engine.writing import DocumentWriter, as_problem
from service.problems import Problem
from service.search.served_model import ServedModel
from service.settings import Settings

_log = logging.getLogger("service")


class Reloader:
    """Replaces the served model by the one that is on the disk now, one reload at a time.

    Args:
        settings: The service's settings.
        load: Loads, verifies and tests the model directory.
        writer: Publishes the new model.
        metrics: Counts the reloads.
        jobs: Where reloads are listed.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], ServedModel],
        writer: DocumentWriter,
        metrics: Metrics,
        jobs: Jobs,
    ) -> None:
        self._settings = settings
        self._load = load
        self._writer = writer
        self._metrics = metrics
        self._jobs = jobs

    def start(self) -> Job:
        """Begins to load the model directory; if a check fails, the present model is served on.

        Raises:
            Problem: ``reload-running``.
        """
        return self._jobs.start("reload", self._reload)

    def _reload(self, job: Job) -> dict[str, Any]:
        """The work of the job.

        Raises:
            Problem: ``model-refused``, ``disk-full``, ``storage-unavailable``.
        """
        outcome = "failed"
        try:
            answer = self._swapped(job)
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

    def _swapped(self, job: Job) -> dict[str, Any]:
        started = time.perf_counter()
        writer = self._writer
        before = writer.snapshot.served
        job.report("loading the model")
        served = self._load()
        embedded = 0
        swap = functools.partial(writer.swap, served, None)
        writer.announce(served.id)
        try:
            if served.id != before.id:
                n_stored = writer.n_stored

                def report(n: int) -> None:
                    job.report("embedding documents", n, max(n, n_stored))

                if not self._settings.read_only:
                    embedded = writer.embed_missing(served, report)
                job.report("indexing documents", 0, n_stored)
                library, mark = writer.built(served, report)
                swap = functools.partial(writer.swap, served, library, mark)
            job.report("swapping")
            writer.run_alone(swap)
        finally:
            writer.announce(None)
        job.report("finished")
        _log.info("reloaded %s: model %s, before %s", self._settings.model, served.id, before.id)
        return {
            "model": served.reference,
            "previous": before.reference,
            "changed": served.id != before.id,
            "documents": embedded,
            "seconds": round(time.perf_counter() - started, 6),
        }
