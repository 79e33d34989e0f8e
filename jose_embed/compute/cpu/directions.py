"""Directions of a corpus's documents on the CPU, compiled; model/inference.py defines them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import cache
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from jose_embed.compute.documents import stretches
from jose_embed.compute.jit import Kernel, jit, kernel_from
from jose_embed.compute.tables import LANES, DocumentInputs, padded_table
from jose_embed.storage.memory import anonymous_pages, release

Part = TypeVar("Part")

_WORTH_A_THREAD = 1 << 20  # running words
_SUMMAND_FLOATS = 1 << 22  # 16 MB: the rows of the most frequent words that are ready to be added
_BLOCK_WORDS: Final = 256  # different words of a document that are added at a time


def count_documents(
    tokens: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], n_words: int
) -> npt.NDArray[np.int64]:
    """int64 (n_words,): in how many documents each word occurs."""
    frequencies, last_seen = np.zeros(n_words, np.int64), np.full(n_words, -1, np.int64)
    for first, words, ends in stretches(tokens, offsets):
        _count(words, ends, first, last_seen, frequencies)
    return frequencies


def document_summands(
    center: npt.NDArray[np.float32], context: npt.NDArray[np.float32], share: float
) -> npt.NDArray[np.float32]:
    """The vectors that are weighted and summed to document vectors: center - share * context, in float64, rounded once.

    Args:
        center: float32 (n, dim).
        context: float32 (n, dim), not read if the share is 0.
        share: The context share.

    Returns:
        float32 (n, dim).
    """
    if not share:
        return center
    return (center.astype(np.float64) - share * context.astype(np.float64)).astype(np.float32)


def run_parts(work: Callable[[Part, threading.Event], None], parts: Iterable[Part], threads: int) -> None:
    """Do work part by part in threads.

    Args:
        work: Called with each part and an event; it returns early once the event is set.
        parts: The parts.
        threads: How many work at a time.

    Raises:
        Exception: the first one of a part. It, or an interrupt, does not wait for the rest of the other parts.
    """
    stopped = threading.Event()
    with ThreadPoolExecutor(threads, thread_name_prefix="jose-documents") as pool:
        futures = [pool.submit(work, part, stopped) for part in parts]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stopped.set()
        for future in futures:
            future.result()


class WorkSpace(NamedTuple):
    """Arrays that one thread works in. Kernels that allocate take twice as long to compile."""

    occurrences: npt.NDArray[np.int32]  # (n_words,), zero before and after each document
    rows: npt.NDArray[np.uint32]  # (256,), different words of a document
    weights: npt.NDArray[np.float64]  # (256,), their weights
    rare: npt.NDArray[np.float32]  # (1, width), the summand of a word without a row that is ready
    total: npt.NDArray[np.float64]  # (width,)
    product: npt.NDArray[np.float64]  # (width,), the total times the matrix
    columns: npt.NDArray[np.uint32]  # (n_matrix,), 0, 1, 2 ...


class CpuDirections:
    """Writes the directions of documents: weighted sums of their words' vectors, times a matrix, with norm 1.

    The bytes do not depend on the number of threads.

    Args:
        inputs: The words' vectors and weights.
        threads: The most threads. Each needs four bytes for a word, all together at most an eighth of one table of
            vectors.
    """

    def __init__(self, inputs: DocumentInputs, threads: int = 1) -> None:
        n_words, self._dim = inputs.center_vectors.shape
        # All but the matrix. Read-only, whatever the model is stored in: one type, one compilation.
        self._words, self._threads = tuple(map(_read_only, inputs[:5])), threads
        self._width = -(-self._dim // LANES) * LANES
        n_ready = min(n_words, max(1, _SUMMAND_FLOATS // self._width))
        self._ready = padded_table(n_ready, self._width)
        for start in range(0, n_ready, 1024):
            rows = slice(start, min(n_ready, start + 1024))
            self._ready[rows, : self._dim] = document_summands(
                inputs.center_vectors[rows], inputs.context_vectors[rows], inputs.context_share
            )
        self._matrix = np.zeros((len(inputs.matrix), self._width))
        self._matrix[:, : len(inputs.matrix)] = inputs.matrix
        self._kernel = _kernel(self._width // LANES)
        self._spaces: list[WorkSpace] = []

    def write(
        self, tokens: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], out: npt.NDArray[np.float32]
    ) -> None:
        """Write the direction of every document; a document without a direction keeps its row.

        Args:
            tokens: int32 (n_tokens,).
            offsets: int64 (n_documents + 1,).
            out: float32 (n_documents, as many columns as the vectors), written in place.
        """
        n = max(1, min(self._threads, len(tokens) // _WORTH_A_THREAD, out.shape[1] // 8))

        def write(part: tuple[int, int], stopped: threading.Event) -> None:
            begin, end = part
            space = self._spaces.pop() if self._spaces else self._space()
            for first, words, ends in stretches(tokens, offsets[begin : end + 1], n):
                rows = out[begin + first : begin + first + len(ends) - 1]
                words = words[:]
                words.setflags(write=False)  # one type, one compilation
                self._kernel(words, ends, self._words, self._ready, self._matrix, rows, space)
                release(rows)
                if stopped.is_set():
                    return
            self._spaces.append(space)

        if n == 1:
            write((0, len(out)), threading.Event())
            return
        write((0, 1), threading.Event())  # compiles in this thread: another one would take memory of its own
        # Equal numbers of words, not of documents.
        shares = np.linspace(offsets[0], offsets[-1], n + 1)[1:-1].astype(np.int64)  # else all offsets became float64
        borders = np.searchsorted(offsets, shares).tolist()
        run_parts(write, itertools.pairwise([1, *(max(1, border) for border in borders), len(out)]), n)

    def _space(self) -> WorkSpace:
        return WorkSpace(
            anonymous_pages(len(self._words[0]), np.int32),
            np.empty(_BLOCK_WORDS, np.uint32),
            np.empty(_BLOCK_WORDS),
            padded_table(1, self._width),
            np.empty(self._width),
            np.empty(self._width),
            np.arange(len(self._matrix), dtype=np.uint32),
        )


def _read_only(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    view = value.view()
    view.setflags(write=False)
    return view


@cache
def _kernel(n_chunks: int) -> Kernel:
    return kernel_from("jose_embed.compute.cpu.directions_kernel", "kernel", n_chunks)


@jit
def _count(tokens: Any, offsets: Any, first: Any, last_seen: Any, frequencies: Any) -> None:
    for document in range(offsets.shape[0] - 1):
        for t in range(offsets[document], offsets[document + 1]):
            word = tokens[t]
            if last_seen[word] != first + document:
                last_seen[word] = first + document
                frequencies[word] += 1
