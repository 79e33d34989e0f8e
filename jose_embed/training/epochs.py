"""The epochs of a training: chunks of documents are trained by the threads of the backend, in order.

A checkpoint is written between two chunks: no new chunk is started, and the running ones are finished first.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt

from jose_embed.compute.backends import Backend
from jose_embed.compute.tables import ChunkResult
from jose_embed.config import TrainConfig
from jose_embed.errors import TrainingError
from jose_embed.progress import Reporter
from jose_embed.training.schedule import (
    Chunk,
    LeftOut,
    RunState,
    chunk_tokens,
    chunks,
    epoch_starts,
    visiting_order,
    visits_all,
)


class Keeper(Protocol):
    """Writes checkpoints during a training, or exchanges vectors with other machines."""

    def wanted(self, state: RunState) -> bool:
        """Whether :meth:`keep` is due after the chunks that are trained."""

    def keep(self, state: RunState) -> None:
        """Write a checkpoint; no chunk is running. The training continues unless this raises."""


def train_epochs(
    backend: Backend,
    offsets: npt.NDArray[np.int64],
    config: TrainConfig,
    reporter: Reporter,
    *,
    state: RunState | None = None,
    keeper: Keeper | None = None,
    after_epoch: Callable[[RunState], None] | None = None,
    left_out: LeftOut = visits_all,
) -> RunState:
    """Train the remaining epochs.

    Args:
        backend: Moves the vectors.
        offsets: int64 (n_documents + 1,), the start of each document in the corpus.
        config: The settled settings.
        reporter: Receives the phase "training", in running words.
        state: How far the run has come; None for the beginning. It is updated after every chunk.
        keeper: Asked between two chunks whether it is due.
        after_epoch: Called with the state after each epoch, when no chunk is running. It may move vectors, add to the
            report of the epoch and set ``state.stopped``.
        left_out: The documents that an epoch does not visit.

    Returns:
        The state after the last epoch.

    Raises:
        TrainingError: the loss became infinite or NaN.
    """
    state = state or RunState()
    starts = epoch_starts(offsets, config.epochs, left_out)
    reporter.start("training", starts[-1], "words", starts[state.epoch] + state.tokens)
    with ThreadPoolExecutor(backend.threads, thread_name_prefix="jose-train") as pool:
        while state.epoch < config.epochs and not state.stopped:
            _train_epoch(pool, backend, offsets, config, reporter, state, keeper, starts, left_out)
            state = state.after_epoch()
            if after_epoch is not None:
                after_epoch(state)
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
    starts: list[int],
    left_out: LeftOut,
) -> None:
    """Train the rest of an epoch; ``state`` is updated after every chunk."""
    started = time.perf_counter() - state.seconds
    epoch = state.epoch
    order = visiting_order(offsets, config.seed, epoch, left_out=left_out(epoch))[state.documents :]
    size = chunk_tokens(starts[epoch + 1] - starts[epoch], backend.threads, backend.chunk_limits)
    coming = chunks(order, offsets, starts[epoch] + state.tokens, size)
    waiting: deque[tuple[Chunk, Future[ChunkResult]]] = deque()
    just_kept = False  # at least one chunk is trained between two checkpoints
    try:
        while True:
            pausing = keeper is not None and not just_kept and keeper.wanted(state)
            # One chunk per thread runs and one waits: no thread idles, and an interrupt waits for few chunks.
            while not pausing and len(waiting) < 2 * backend.threads and (chunk := next(coming, None)) is not None:
                waiting.append((chunk, pool.submit(backend.train_chunk, chunk.documents, epoch, chunk.first_token)))
            if waiting:
                chunk, future = waiting.popleft()
                result = future.result()
                if not math.isfinite(result.loss):
                    raise TrainingError(
                        f"the loss became {result.loss} in epoch {epoch + 1}: the vectors are not finite; "
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
