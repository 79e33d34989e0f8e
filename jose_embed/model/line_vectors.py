"""Vectors for the lines of texts of any size, block by block, on all cores.

The same vectors as :func:`jose_embed.model.inference.infer` gives, byte for byte, by the compiled code of the training:
words are numbered by a :class:`~jose_embed.text.word_table.WordTable`, numbers are translated into rows of the
vocabulary, and the directions of a block's lines are summed in a kernel. Reading, numbering and summing run in threads
of their own; at most a few blocks are in flight. The first megabyte is done by NumPy, before a compiler has started.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.model.inference import infer_detailed, mean_direction, writer
from jose_embed.text.reader import Block
from jose_embed.text.word_table import Rows, VocabularyLookup

if TYPE_CHECKING:
    from jose_embed.model.embeddings import Embeddings

__all__ = ["LineVectors", "line_vectors"]

_PLAIN_BYTES = 1 << 20


class LineVectors(NamedTuple):
    """The vectors of consecutive lines.

    Attributes:
        vectors: float32 (n, dim), norm 1; the mean direction of the training text where no word of the line is known.
        n_tokens: int64 (n,), running words of each line.
        n_known: int64 (n,), those in the vocabulary; 0 flags a line without a direction of its own.
        consumed: Bytes of the source, as it lies on the disk, that this took.
    """

    vectors: npt.NDArray[np.float32]
    n_tokens: npt.NDArray[np.int64]
    n_known: npt.NDArray[np.int64]
    consumed: int


def line_vectors(
    model: Embeddings, blocks: Iterable[Block], *, workers: int = 1, backend: str = "cpu"
) -> Iterator[LineVectors]:
    """The vectors of the lines of blocks of text, in their order.

    Args:
        model: The model.
        blocks: Whole lines, as a :class:`~jose_embed.text.reader.BlockReader` with ``whole_lines`` gives them.
        workers: Threads that sum directions.
        backend: "cpu", "gpu", or "auto" for a CUDA device where there is one: what sums them; the bytes are the same.

    Yields:
        One :class:`LineVectors` per block.
    """
    nowhere = mean_direction(model)
    n_bytes = 0
    lines: _CompiledLines | None = None
    under_way: deque[Future[LineVectors]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="jose-infer") as pool:
        for block in blocks:
            n_bytes += len(block.data)
            if n_bytes <= _PLAIN_BYTES:
                yield _plainly(model, block, nowhere)
                continue
            lines = lines or _CompiledLines(model, nowhere, backend)
            under_way.append(pool.submit(lines.directions, *lines.encoded(block)))
            if len(under_way) > 2 * workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _plainly(model: Embeddings, block: Block, nowhere: npt.NDArray[np.float32]) -> LineVectors:
    found = infer_detailed(model, block.data.decode().split("\n")[:-1])
    return LineVectors(
        np.array([nowhere if line.vector is None else line.vector for line in found], np.float32),
        np.array([line.n_tokens for line in found], np.int64),
        np.array([line.n_known for line in found], np.int64),
        block.consumed,
    )


class _CompiledLines:
    """Blocks of lines as rows of a model's vocabulary, and as vectors."""

    def __init__(self, model: Embeddings, nowhere: npt.NDArray[np.float32], backend: str) -> None:
        self._model = model
        self._nowhere = nowhere
        self._write = writer(model, backend)
        self._word_rows = VocabularyLookup(model.tokenizer, model.index_of)

    def encoded(self, block: Block) -> tuple[Rows, int]:
        """The rows of the block's known words, and what it took."""
        return self._word_rows.of_lines(block.data), block.consumed

    def directions(self, found: Rows, consumed: int) -> LineVectors:
        """The vectors of lines of these words; runs in any thread."""
        vectors = np.full((len(found.n_known), self._model.dim), self._nowhere, np.float32)
        self._write(found.rows, found.offsets, vectors)
        return LineVectors(vectors, found.n_tokens, found.n_known, consumed)
