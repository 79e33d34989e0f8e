"""The order in which documents are visited, and how far a run has come.

The order of an epoch depends only on the seed and the number of the epoch, not on the clock or the number of workers.
It is cut into chunks. A run that stops between two chunks can be resumed exactly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.compute.tables import ChunkResult

#: Rows of documents, none of them.
NO_DOCUMENTS: Final = np.empty(0, np.int64)

#: The documents that an epoch (from 0) does not visit: int64, ascending.
LeftOut = Callable[[int], npt.NDArray[np.int64]]

_BLOCK_DOCUMENTS = 1 << 16  # documents cut into chunks at a time
_SHUFFLE_TOKENS = 1 << 28  # running words (4 bytes each) shuffled as one block: 1 GB


class Chunk(NamedTuple):
    """Consecutive documents of an epoch: the unit of work.

    Attributes:
        documents: int64, in the order of training.
        n_tokens: Their running words.
        first_token: Running words trained before them, in all epochs.
    """

    documents: npt.NDArray[np.int64]
    n_tokens: int
    first_token: int


def n_tokens_of(offsets: npt.NDArray[np.int64], documents: npt.NDArray[np.int64]) -> int:
    """The running words of some documents."""
    return int((offsets[documents + 1] - offsets[documents]).sum())


def visits_all(epoch: int) -> npt.NDArray[np.int64]:
    """No document is left out of an epoch."""
    return NO_DOCUMENTS


def also_left_out(left_out: LeftOut, documents: npt.NDArray[np.int64]) -> LeftOut:
    """Some documents are not visited in any epoch."""
    return lambda epoch: np.union1d(documents, left_out(epoch))


def epoch_starts(offsets: npt.NDArray[np.int64], epochs: int, left_out: LeftOut) -> list[int]:
    """The running words that are trained before each epoch, and those of all epochs."""
    starts = [0]
    for epoch in range(epochs):
        starts.append(starts[-1] + int(offsets[-1]) - n_tokens_of(offsets, left_out(epoch)))
    return starts


def visiting_order(
    offsets: npt.NDArray[np.int64],
    seed: int,
    epoch: int,
    block_tokens: int = _SHUFFLE_TOKENS,
    left_out: npt.NDArray[np.int64] = NO_DOCUMENTS,
) -> npt.NDArray[np.int64]:
    """The documents that have a word, in the random order of one epoch.

    A corpus of up to ``block_tokens`` running words is shuffled as a whole. A larger one is cut into stretches of a
    sixteenth of ``block_tokens``; the stretches are shuffled, and the documents of sixteen of them at a time, so that
    the part of the file that is read at any time fits into memory.

    Args:
        offsets: int64 (n_documents + 1,).
        seed: The run's seed.
        epoch: From 0.
        block_tokens: Running words whose documents are shuffled together.
        left_out: int64, ascending: documents that are not visited.

    Returns:
        int64, a permutation of the documents that are not empty.
    """
    random = np.random.Generator(np.random.PCG64([seed, 3, epoch]))
    present = np.flatnonzero(np.diff(offsets))
    if len(left_out):
        present = np.setdiff1d(present, left_out, assume_unique=True)
    if offsets[-1] <= block_tokens:
        return random.permutation(present)
    stretch = offsets[present] // max(1, block_tokens // 16)
    borders = np.flatnonzero(np.diff(stretch)) + 1
    stretches = np.split(present, borders)
    shuffled = [stretches[i] for i in random.permutation(len(stretches))]
    return np.concatenate(
        [random.permutation(np.concatenate(shuffled[i : i + 16])) for i in range(0, len(shuffled), 16)]
    )


def chunk_tokens(n_tokens: int, n_threads: int, limits: tuple[int, int]) -> int:
    """The size of a chunk in running words: 32 chunks per thread and epoch, within the limits of the backend.

    A chunk takes at most about 150 ms, for which an interrupt waits.

    Args:
        n_tokens: Running words of an epoch.
        n_threads: Threads that train chunks.
        limits: The smallest and the largest size.
    """
    least, most = limits
    return min(max(n_tokens // (32 * n_threads), least), most)


def chunks(
    order: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64], first_token: int, chunk_tokens: int
) -> Iterator[Chunk]:
    """Cut the order of an epoch, or the rest of it, into chunks of about equally many words.

    A document is never divided; one that is longer than a chunk is a chunk of its own.

    Args:
        order: int64, documents.
        offsets: int64 (n_documents + 1,).
        first_token: Running words trained before the first document, in all epochs.
        chunk_tokens: The largest size of a chunk in running words.
    """
    begin, n_tokens = 0, 0
    for start in range(0, len(order), _BLOCK_DOCUMENTS):
        some = order[start : start + _BLOCK_DOCUMENTS]
        ends = np.cumsum(offsets[some + 1] - offsets[some])
        past = 0  # words of the block in earlier chunks
        while (end := int(np.searchsorted(ends, past + chunk_tokens - n_tokens, side="right"))) < len(some):
            if not n_tokens and (not end or ends[end - 1] == past):
                end += 1  # a document longer than a chunk
            n_tokens += int(ends[end - 1]) - past if end else 0
            yield Chunk(order[begin : start + end], n_tokens, first_token)
            past, first_token = int(ends[end - 1]) if end else 0, first_token + n_tokens
            begin, n_tokens = start + end, 0
        n_tokens += int(ends[-1]) - past
    if begin < len(order):
        yield Chunk(order[begin:], n_tokens, first_token)


@dataclass
class RunState:
    """How far a run has come, between two chunks, with the figures of the current epoch so far.

    Attributes:
        epochs: The report of each finished epoch.
        documents: Documents of the current epoch that are trained.
        tokens: Their running words.
        loss: Sum of the hinges.
        active: Hinges above zero.
        pairs: Hinges.
        positions: Running words kept by subsampling.
        seconds: Seconds spent.
        stopped: Whether no further epoch is trained, for whatever reason.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    documents: int = 0
    tokens: int = 0
    loss: float = 0.0
    active: int = 0
    pairs: int = 0
    positions: int = 0
    seconds: float = 0.0
    stopped: bool = False

    @property
    def epoch(self) -> int:
        """The number of the current epoch, from 0."""
        return len(self.epochs)

    @property
    def mean_loss(self) -> float:
        """The mean hinge of the current epoch."""
        return self.loss / max(self.pairs, 1)

    @property
    def active_share(self) -> float:
        """The share of hinges above zero in the current epoch."""
        return self.active / max(self.pairs, 1)

    def add(self, chunk: Chunk, result: ChunkResult) -> None:
        """Add a trained chunk."""
        self.documents += len(chunk.documents)
        self.tokens += chunk.n_tokens
        self.loss += result.loss
        self.active += result.active
        self.pairs += result.pairs
        self.positions += result.positions

    def after_epoch(self) -> RunState:
        """The state before the first chunk of the next epoch, with a report of this one."""
        report = {
            "epoch": self.epoch + 1,
            "loss": self.mean_loss,
            "active": self.active_share,
            "pairs": self.pairs,
            "positions": self.positions,
            "seconds": self.seconds,
            "words_per_second": self.tokens / max(self.seconds, 1e-9),
        }
        return RunState([*self.epochs, report])

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunState:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: the values are not a state.
        """
        kinds = {option.name: type(option.default) for option in dataclasses.fields(cls) if option.name != "epochs"}
        if (
            not isinstance(values, Mapping)
            or values.keys() != {"epochs", *kinds}
            or any(type(values[name]) is not kind or not 0 <= values[name] < 2**62 for name, kind in kinds.items())
            or not isinstance(values["epochs"], list)
            or not all(isinstance(report, dict) for report in values["epochs"])
        ):
            raise ValueError("does not describe the state of a training")
        return cls(**values)
