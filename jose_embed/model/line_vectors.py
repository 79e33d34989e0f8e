"""Document vectors of the lines of texts of any size, block by block, on all cores.

The vectors have the same bytes as those of :meth:`DocumentEncoder.infer`. The compiled reader turns the words of a
block into rows of the vocabulary, and a kernel sums the word vectors. Reading, looking up and summing run in different
threads; a bounded number of blocks is in flight. NumPy computes the first megabyte, so that small inputs do not wait
for the compiler.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.model.inference import DocumentEncoder
from jose_embed.text.reader import Block
from jose_embed.text.segment_pool import table_for
from jose_embed.text.word_table import Rows

_PLAIN_BYTES = 1 << 20


class LineVectors(NamedTuple):
    """The vectors of consecutive lines.

    Attributes:
        vectors: float32 (n, dim), norm 1. Where no word of the line is known they are composed of n-grams if the model
            has such, else the mean direction of the training text.
        n_tokens: int64 (n,), running words of each line.
        n_known: int64 (n,), those in the vocabulary; 0 flags a line without a direction of its own.
        consumed: Bytes of the source on disk that this took.
    """

    vectors: npt.NDArray[np.float32]
    n_tokens: npt.NDArray[np.int64]
    n_known: npt.NDArray[np.int64]
    consumed: int


def line_vectors(
    encoder: DocumentEncoder, blocks: Iterable[Block], *, workers: int = 1, backend: str = "cpu"
) -> Iterator[LineVectors]:
    """The vectors of the lines of blocks of text, in their order.

    Args:
        encoder: The encoder of a model.
        blocks: Whole lines, as a :class:`~jose_embed.text.reader.BlockReader` with ``whole_lines`` yields them.
        workers: Threads that sum word vectors.
        backend: "cpu", "gpu", or "auto" for a CUDA device if there is one; the bytes are the same.

    Yields:
        One :class:`LineVectors` per block.
    """
    n_bytes = 0
    lines: _CompiledLines | None = None
    under_way: deque[Future[LineVectors]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="jose-infer") as pool:
        for block in blocks:
            n_bytes += len(block.data)
            if n_bytes <= _PLAIN_BYTES:
                yield _plain_vectors(encoder, block)
                continue
            lines = lines or _CompiledLines(encoder, backend, workers)
            under_way.append(pool.submit(lines.directions, *lines.encoded(block), block))
            if len(under_way) > 2 * workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _plain_vectors(encoder: DocumentEncoder, block: Block) -> LineVectors:
    found = encoder.infer_detailed(block.data.decode().split("\n")[:-1])
    default = encoder.mean_direction
    return LineVectors(
        np.array([default if line.vector is None else line.vector for line in found], np.float32),
        np.array([line.n_tokens for line in found], np.int64),
        np.array([line.n_known for line in found], np.int64),
        block.consumed,
    )


class _CompiledLines:
    """Blocks of lines as rows of the vocabulary, and as vectors."""

    def __init__(self, encoder: DocumentEncoder, backend: str, workers: int) -> None:
        self._encoder, self._default = encoder, encoder.mean_direction
        self._write = encoder.writer(backend)
        make_table = partial(table_for, workers=workers)
        self._word_rows = encoder.vocabulary_lookup(encoder.lookup.tokenizer, make_table)

    def encoded(self, block: Block) -> tuple[Rows, int]:
        """The rows of the block's known words, and the bytes of the source that the block took."""
        return self._word_rows.of_lines(block.data), block.consumed

    def directions(self, found: Rows, consumed: int, block: Block) -> LineVectors:
        """The vectors of the lines; may run in any thread."""
        vectors = np.tile(self._default, (len(found.n_known), 1))
        self._write(found.rows, found.offsets, vectors)
        unknown = np.flatnonzero((found.n_known == 0) & (found.n_tokens > 0))
        if self._encoder.lookup.subwords is not None and len(unknown):
            lines = block.data.split(b"\n")
            for row, line in zip(
                unknown.tolist(), self._encoder.infer_detailed([lines[row].decode() for row in unknown]), strict=True
            ):
                if line.vector is not None:
                    vectors[row] = line.vector
        return LineVectors(vectors, found.n_tokens, found.n_known, consumed)
