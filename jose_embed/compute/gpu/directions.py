"""The directions of many documents on a CUDA device: the same bytes as those of cpu/directions.py.

A warp takes a document: it counts its words, then adds their vectors, each lane its share of the columns, in float64
and in the order in which the words first occur.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from jose_embed.compute.documents import stretches
from jose_embed.compute.gpu.device import LINES, WARP, Bundle, Layout, gigabytes, open_device, padded_dim
from jose_embed.compute.tables import DocumentInputs
from jose_embed.errors import DeviceError

_ROWS_AT_ONCE = 1 << 16  # documents copied at a time, at most
_COUNTING_BYTES = 1 << 28  # that the warps' counts of words may take together, if at least one warp has its own


class GpuDirections:
    """A model's words on the device, to sum up documents of them.

    Args:
        inputs: The words' vectors and weights.

    Raises:
        MissingExtraError: CuPy is not installed.
        DeviceError: no device, or one without room for the vectors.

    Example::

        GpuDirections(inputs).write(tokens, offsets, out)
    """

    def __init__(self, inputs: DocumentInputs) -> None:
        self._device = device = open_device()
        self._n_words, self._dim = inputs.center_vectors.shape
        self._row = padded_dim(self._dim)
        self._numbers = {
            "n_words": self._n_words,
            "n_term_weights": len(inputs.term_weights),
            "n_matrix": len(inputs.matrix),
            "context_share": inputs.context_share,
        }
        self._n_warps = max(1, min(16 * device.n_processors, _COUNTING_BYTES // (4 * max(1, self._n_words))))
        n_tables = 2 if inputs.context_share else 1
        n_bytes = 4 * self._n_words * (n_tables * self._row + self._n_warps)
        if n_bytes > device.free_bytes:
            raise DeviceError(
                f"{device.name} has no room for the vectors of {self._n_words:,} words: {gigabytes(n_bytes)} are "
                f"needed, {gigabytes(device.free_bytes)} are free; use backend='cpu'"
            )
        matrix = inputs.matrix
        with device.allocating("the vectors", n_bytes):
            self._there = {
                "center": self._uploaded(inputs.center_vectors),
                "word_weights": device.uploaded(np.ascontiguousarray(inputs.word_weights, np.float64)),
                "term_weights": device.uploaded(np.ascontiguousarray(inputs.term_weights, np.float64)),
                "matrix": device.uploaded(np.ascontiguousarray(matrix if len(matrix) else np.zeros(1), np.float64)),
                # All zero between two documents: a warp takes back what it counted.
                "occurrences": device.cupy.zeros((self._n_warps, self._n_words), np.int32),
            }
            self._there["context"] = (
                self._uploaded(inputs.context_vectors) if inputs.context_share else self._there["center"]
            )
        self._bundle = Bundle(device)
        self._stream = device.cupy.cuda.Stream(non_blocking=True)
        self._kernel = device.kernels(Layout(self._row)).get_function("write_directions")
        self._lock = threading.Lock()
        device.cupy.cuda.runtime.deviceSynchronize()

    def _uploaded(self, table: npt.NDArray[np.float32]) -> Any:
        there = self._device.cupy.empty((self._n_words, self._row), np.float32)
        for start in range(0, self._n_words, _ROWS_AT_ONCE):
            rows = table[start : start + _ROWS_AT_ONCE]
            block = np.zeros((len(rows), self._row), np.float32)
            block[:, : self._dim] = rows
            there[start : start + len(rows)].set(block)
        return there

    def write(
        self, tokens: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], out: npt.NDArray[np.float32]
    ) -> None:
        """Write the direction of every document; one without a direction keeps its row.

        Args:
            tokens: int32 (n_tokens,), possibly mapped.
            offsets: int64 (n_documents + 1,).
            out: float32 (n_documents, as many columns as ``center_vectors``), written in place.
        """
        with self._lock:
            for first, words, ends in stretches(tokens, offsets):
                for start in range(0, len(ends) - 1, _ROWS_AT_ONCE):
                    some = ends[start : start + _ROWS_AT_ONCE + 1]
                    rows = out[first + start : first + start + len(some) - 1]
                    self._write(words[some[0] : some[-1]], some - some[0], rows)

    def _write(
        self, tokens: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], out: npt.NDArray[np.float32]
    ) -> None:
        n_documents = len(out)
        if not n_documents:
            return
        bundle = self._bundle
        bundle.pack(
            LINES,
            {
                **{name: array.data.ptr for name, array in self._there.items()},
                **self._numbers,
                "n_documents": n_documents,
            },
            {
                "next": np.zeros(1, np.int32),
                "offsets": offsets,
                "tokens": tokens,
            },
            {"found": (np.uint8, n_documents), "directions": (np.float32, n_documents * self._row)},
        )
        bundle.send(self._stream)
        with self._stream:
            self._kernel((min(n_documents, self._n_warps),), (WARP,), (bundle.there,))
            bundle.fetch("found", self._stream)
            bundle.fetch("directions", self._stream)
            self._stream.record().synchronize()
        found = bundle.result("found").astype(bool)
        directions = bundle.result("directions").reshape(n_documents, self._row)
        np.copyto(out, directions[:, : self._dim], where=found[:, None])
