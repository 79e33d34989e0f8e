"""The epochs of a training: chunks of documents go to the backend's threads, in order, and what they report comes back.

A run stands between two chunks or is at work on some. It can be left only where it stands: whoever wants to keep it
waits until the chunks at work are done.
"""

from __future__ import annotations

import math
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt

from jose_embed.compute.backends import Backend
from jose_embed.compute.tables import Result
from jose_embed.config import TrainConfig
from jose_embed.errors import TrainingError
from jose_embed.progress import Reporter
from jose_embed.training.schedule import Chunk, RunState, chunk_tokens, chunks, visiting_order

__all__ = ["Keeper", "train_epochs"]


class Keeper(Protocol):
    """Who may want to keep a run where it stands.

    Attributes:
        wanted: Whether it is time for that.
    """

    @property
    def wanted(self) -> bool: ...

    def keep(self, state: RunState) -> None:
        """Keep it; no chunk is running. The training goes on after that, unless this raises."""


def train_epochs(
    backend: Backend,
    offsets: npt.NDArray[np.int64],
    config: TrainConfig,
    reporter: Reporter,
    *,
    state: RunState | None = None,
    keeper: Keeper | None = None,
) -> RunState:
    """Train all epochs, or those that are left.

    Args:
        backend: Where the vectors move.
        offsets: int64 (n_documents + 1,), the corpus's.
        config: The settings.
        reporter: Told of the phase "training", in running words.
        state: Where the run stands; at its beginning when left out.
        keeper: Asked between any two chunks.

    Returns:
        Where it stands in the end: after the last epoch.

    Raises:
        TrainingError: a loss that is infinite or no number.
    """
    state = state or RunState()
    n_tokens = int(offsets[-1])
    reporter.start("training", (config.epochs - state.epoch) * n_tokens - state.tokens, "words")
    with ThreadPoolExecutor(backend.threads, thread_name_prefix="jose-train") as pool:
        while state.epoch < config.epochs:
            _train_epoch(pool, backend, offsets, config, reporter, state, keeper)
            state = state.after_epoch()
    last = state.epochs[-1]
    reporter.finish(loss=last["loss"], active=last["active"])
    return state


def _train_epoch(
    pool: ThreadPoolExecutor,
    backend: Backend,
    offsets: npt.NDArray[np.int64],
    config: TrainConfig,
    reporter: Reporter,
    state: RunState,
    keeper: Keeper | None,
) -> None:
    """Train the rest of an epoch; ``state`` moves with every chunk."""
    started = time.perf_counter() - state.seconds
    epoch, n_tokens = state.epoch, int(offsets[-1])
    order = visiting_order(offsets, config.seed, epoch)[state.documents :]
    size = chunk_tokens(n_tokens, backend.threads, backend.chunk_limits)
    coming = chunks(order, offsets, epoch * n_tokens + state.tokens, size)
    waiting: deque[tuple[Chunk, Future[Result]]] = deque()
    just_kept = False  # between two checkpoints something is trained, however soon the next one is due
    try:
        while True:
            pausing = keeper is not None and not just_kept and keeper.wanted
            # One chunk per thread runs, one more waits: no thread idles, and an interrupt has little to wait for.
            while not pausing and len(waiting) < 2 * backend.threads and (chunk := next(coming, None)) is not None:
                waiting.append((chunk, pool.submit(backend.train_chunk, chunk.documents, epoch, chunk.first_token)))
            if waiting:
                chunk, future = waiting.popleft()
                result = future.result()
                if not math.isfinite(result.loss):
                    raise TrainingError(
                        f"the loss became {result.loss} in epoch {epoch + 1}: the vectors are no longer numbers; "
                        f"lower learning_rate (it is {config.learning_rate})"
                    )
                just_kept = False
                state.add(chunk, result)
                state.seconds = time.perf_counter() - started
                reporter.advance(chunk.n_tokens, loss=state.mean_loss, active=state.active_share)
            elif keeper is not None and pausing:
                keeper.keep(state)
                just_kept = True
            else:
                return
    finally:
        for _, future in waiting:
            future.cancel()
