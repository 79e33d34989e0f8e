"""The thread that makes the codes of large indexes while these are searched exactly."""

from __future__ import annotations

import threading
from collections.abc import Callable

from service.engine.lanes import lower_thread_priority
from service.search.index import CosineIndex
from service.search.queries import Snapshot


class CodesMaker:
    """Makes the codes of one index after the other, see :meth:`~service.search.index.CosineIndex.add_codes`.

    Args:
        snapshot: Gives the present state of things.
        post: Runs a function in the write lane, unless the service is stopping.
    """

    def __init__(self, snapshot: Callable[[], Snapshot], post: Callable[[Callable[[], None]], object]) -> None:
        self._snapshot = snapshot
        self._post = post
        self._thread: threading.Thread | None = None
        self._closing = False

    def begin(self) -> None:
        """Begins with an index of the present snapshot that lacks codes, if there is one and none is being worked on;
        to be called in the write lane, or before there is one."""
        if self._closing or self._thread is not None:
            return
        served, library = self._snapshot()
        index = served.index_without_codes()
        if index is None:
            index = library.index_without_codes()
        if index is not None:
            self._thread = threading.Thread(target=self._make, args=(index,), name="codes", daemon=True)
            self._thread.start()

    def _make(self, index: CosineIndex) -> None:
        lower_thread_priority()
        index.add_codes(lambda: self._closing or not any(one is index for one in self._snapshot().indexes))

        def done() -> None:
            self._thread = None
            self.begin()

        self._post(done)

    def close(self) -> None:
        """Ends the work, which takes a fraction of a second."""
        self._closing = True
        thread = self._thread
        if thread is not None:
            thread.join()
