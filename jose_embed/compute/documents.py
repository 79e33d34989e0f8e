"""Documents of the encoded corpus, read in any order without the whole text staying in memory.

The pages of a mapped file that were read count as memory of the process, and the system maps megabytes around each of
them. So documents are copied in the order of the file, and the pages already passed are released: the text itself stays
in the system's page cache, which is not counted. Mapping it again costs about 1.5 ms per 100 MB, which is why
many documents should be asked for at a time, and why a small text is not given back.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from jose_embed.compute.jit import jit
from jose_embed.storage.memory import mapped_file

Tokens = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]

_AT_ONCE = 1 << 19  # running words between two times that memory is given back: 2 MB
_FOLIO = 1 << 21  # bytes: the largest piece of a file that the system maps as one
_SMALL = 6_000_000  # running words, 24 MB, that may stay


def gathered(tokens: Tokens, offsets: Offsets, documents: npt.NDArray[np.int64]) -> tuple[Tokens, Offsets]:
    """The words of some documents, one document after the other: a copy, or a view if it is one document.

    Args:
        tokens: int32 (n_tokens,), possibly mapped.
        offsets: int64 (n_documents + 1,).
        documents: int64 (n,), rows in any order.

    Returns:
        int32, read-only, and int64 (n + 1,): what ``tokens`` and ``offsets`` would be for a text of these documents.

    Example:
        >>> words, ends = gathered(np.arange(10, dtype=np.int32), np.array([0, 4, 4, 10]), np.array([2, 1, 0]))
        >>> words.tolist(), ends.tolist()
        ([4, 5, 6, 7, 8, 9, 0, 1, 2, 3], [0, 6, 6, 10])
    """
    starts = offsets[documents]
    ends = np.concatenate(([0], np.cumsum(offsets[documents + 1] - starts)))
    if len(documents) == 1:  # which may be of any length
        view = tokens[starts[0] : starts[0] + ends[1]]
        view.setflags(write=False)
        return view, ends
    out = np.empty(int(ends[-1]), np.int32)
    in_file_order = np.argsort(starts)
    borders = np.flatnonzero(np.diff(starts[in_file_order] // _AT_ONCE)) + 1
    for some in np.split(in_file_order, borders):
        _copy(tokens, starts, ends, some, out)
        if len(some):
            last = some[-1]
            give_back(tokens, int(starts[some[0]]), int(starts[last] + ends[last + 1] - ends[last]))
    out.setflags(write=False)
    return out, ends


def stretches(tokens: Tokens, offsets: Offsets, readers: int = 1) -> Iterator[tuple[int, Tokens, Offsets]]:
    """The whole text in the order of the file, some documents at a time; what was passed is given back.

    Args:
        tokens: int32 (n_tokens,), possibly mapped.
        offsets: int64 (n_documents + 1,).
        readers: How many pass through a text at the same time: each has the smaller a part of it in memory.

    Yields:
        The first document's row, the words of the stretch as a view of ``tokens``, and the offsets of its documents in
        them, int64 (n + 1,).
    """
    first, n_documents = 0, len(offsets) - 1
    while first < n_documents:
        begin = int(offsets[first])
        end = max(first + 1, int(np.searchsorted(offsets, begin + _AT_ONCE // readers, side="right")) - 1)
        yield first, tokens[begin : offsets[end]], offsets[first : end + 1] - begin
        give_back(tokens, begin, int(offsets[end]))
        first = end


def give_back(tokens: Tokens, begin: int, end: int) -> None:
    """Tell the system that this part of a mapped array need not stay in memory; it comes back when it is looked at.

    No effect on small arrays, on arrays that are not mapped, and on some systems.
    """
    if len(tokens) <= _SMALL or end <= begin or not hasattr(mmap, "MADV_DONTNEED"):
        return
    mapping = mapped_file(tokens)
    if mapping is None:
        return
    first = tokens.ctypes.data - np.frombuffer(mapping, np.uint8).ctypes.data  # a file may have a header
    # What is looked at is mapped together with its neighbours, up to the borders of _FOLIO: else those would remain.
    start = (first + begin * tokens.itemsize) // _FOLIO * _FOLIO
    stop = -(-(first + end * tokens.itemsize) // _FOLIO) * _FOLIO
    mapping.madvise(mmap.MADV_DONTNEED, start, min(stop, len(mapping)) - start)


@jit
def _copy(tokens: Any, starts: Any, ends: Any, documents: Any, out: Any) -> None:
    for document in documents:
        begin, to = starts[document], ends[document]
        for i in range(ends[document + 1] - to):
            out[to + i] = tokens[begin + i]
