"""Where does the event loop's lateness come from? ``jose-serve`` with a sleeper inside its loop, for service_load.py.

The sleeper asks to be woken after a millisecond, again and again. How much later it is woken is shared out by what the
kernel has counted meanwhile:

- in the run queue: the loop's thread could run, and something else, of this process or of another, had the core;
- lock: the rest, but no more than the processor time that this process used. That is the loop's own work and its
  waiting for the interpreter's lock, also while the lock's holder stands behind another thread of this process, but not
  while it stands behind another process;
- process: all processor time that this process used, so the same with whatever the loop stood behind in the run queue
  that is of this process: at the most so much is the service's own doing.

The millisecond of sleep is counted along, so that "lock" may be too low by that much. Linux only.

    python tests/benchmarks/loop_watch.py FILE MODEL [options of jose-serve]
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

SLEEP = 0.001


def summary(wakes: npt.NDArray[np.float64]) -> dict[str, Any]:
    """A row of the table.

    Args:
        wakes: Seconds, shape (n, 4): late, and of that the three parts.
    """
    row: dict[str, Any] = {"wakes": len(wakes)}
    for column, name in enumerate(("late", "lock", "process", "run queue")):
        p99, p999, most = np.percentile(wakes[:, column], [99, 99.9, 100]) * 1e3
        row[f"{name}: p99 / p99.9 / max ms"] = f"{p99:.2f} / {p999:.2f} / {most:.2f}"
    return row


async def watch(file: BinaryIO) -> None:
    """Sleeps for as long as it runs, and writes four float64 per wake: see :func:`summary`."""
    statistics = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)

    def queued() -> float:
        return int(os.pread(statistics, 100, 0).split()[1]) * 1e-9

    while True:
        before = time.perf_counter(), queued(), time.process_time()
        await asyncio.sleep(SLEEP)
        wall, waited, used = time.perf_counter() - before[0], queued() - before[1], time.process_time() - before[2]
        late = max(0.0, wall - SLEEP)
        waited = min(late, waited)
        file.write(np.array([late, min(late - waited, used), min(late, used), waited]).tobytes())


def main() -> int:
    from service import cli
    from service.web import server

    class Watched(server.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            self.watching = asyncio.create_task(watch(file))

    server.Server = Watched  # type: ignore[misc]
    with Path(sys.argv[1]).open("wb", buffering=0) as file:
        return cli.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
