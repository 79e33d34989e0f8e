"""Replicas: services that only read, and follow the service that writes to the same documents file.

Four times a second the state of the file is compared with the state that is served. What was added, replaced or deleted
is brought into the index. When the writer serves another model, and the model directory has changed, it is loaded too.
Without a writer the directory alone decides.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from service.engine.records import Mark, StoreError
from service.engine.writing import DocumentWriter
from service.problems import Problem

_SECONDS: Final = 0.25
_LATE_SECONDS: Final = 5.0  # behind the writer; then the readiness probe warns
_log = logging.getLogger("service")


class Follower:
    """The thread that brings a replica to the state of the documents file.

    Args:
        writer: The replica's documents and index.
        reload: Begins a reload of the model directory.
    """

    def __init__(self, writer: DocumentWriter, reload: Callable[[], Any]) -> None:
        self._writer = writer
        self._reload = reload
        self._stop = threading.Event()
        self._agreed = time.monotonic()
        self._model: str | None = None  # the writer's
        self._tried: object = None
        self._error = ""
        self._thread = threading.Thread(target=self._run, name="follow", daemon=True)

    def start(self) -> None:
        """Follows from now on."""
        self._agreed = time.monotonic()
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def behind_seconds(self) -> float:
        """The time since the replica had all that the documents file holds; below a second if all is well."""
        return time.monotonic() - self._agreed

    @property
    def other_model(self) -> bool:
        """Whether the writer serves another model."""
        return self._model not in (None, self._writer.snapshot.served.id)

    def warnings(self) -> list[str]:
        """What the operator of the replica should know."""
        found: list[str] = []
        if self.behind_seconds > _LATE_SECONDS:
            why = f": {self._error}" if self._error else ""
            found.append(f"the replica is {self.behind_seconds:.0f} s behind the documents file{why}")
        if self.other_model:
            found.append(f"the writer serves the model {self._model}, and this replica another one")
        return found

    def _run(self) -> None:
        while not self._stop.wait(_SECONDS):
            try:
                self._step()
                self._error = ""
            except (StoreError, Problem) as error:
                if str(error) != self._error:
                    _log.warning("following the documents file failed: %s", error)
                self._error = str(error)
            except Exception:
                _log.exception("following the documents file failed")

    def _step(self) -> None:
        writer = self._writer
        if writer.store.stale():
            writer.reopen()
        mark = writer.store.mark()
        if writer.mark is None or mark[:2] != writer.mark[:2]:
            writer.run_alone(writer.catch_up)
        self._agreed = time.monotonic()
        self._model = mark.model
        self._follow_the_model(mark)

    def _follow_the_model(self, mark: Mark) -> None:
        served = self._writer.snapshot.served
        if mark.model == served.id or not served.changed_files():
            return
        state = (mark.model, served.disk_state())
        if state != self._tried:  # one that was refused is not tried again until it changes
            with contextlib.suppress(Problem):  # a reload is in progress
                self._reload()
                self._tried = state
