"""Vectors with ids as .npy, CSV, JSON Lines and Parquet files, written piece by piece."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from jose_embed.errors import MissingExtraError
from jose_embed.storage.atomic import FileWriter
from jose_embed.storage.directory import npy_preamble

#: The formats by the endings of their files.
VECTOR_FORMATS: Final = {".npy": "npy", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_PREAMBLE = 128  # bytes before the vectors of a .npy file, for any number of them


class VectorFile(Protocol):
    """Writes rows to a file."""

    def add(self, ids: Sequence[str], vectors: npt.NDArray[np.float32]) -> None:
        """Write the next rows.

        Args:
            ids: n ids; not written to .npy files.
            vectors: float32 (n, dim).
        """

    def finish(self) -> None:
        """Write the end of the file."""


def vector_format_of(path: str | os.PathLike[str]) -> str | None:
    """The format of a file by the ending of its name; ``None`` for another ending.

    Example:
        >>> vector_format_of("a.PARQUET"), vector_format_of("a.vec")
        ('parquet', None)
    """
    return VECTOR_FORMATS.get(Path(path).suffix.lower())


def vector_file(format: str, write: FileWriter, dim: int) -> VectorFile:
    """The writer of a format.

    Args:
        format: ``npy`` (vectors only), ``csv`` (id, v0, v1, ...), ``jsonl`` (id, vector) or ``parquet`` (id, vector).
        write: Takes the bytes.
        dim: The dimension of the vectors.

    Raises:
        MissingExtraError: Parquet without pyarrow.
    """
    kinds: dict[str, Any] = {"npy": _Npy, "csv": _Csv, "jsonl": _JsonLines, "parquet": _Parquet}
    file: VectorFile = kinds[format](write, dim)
    return file


class _Npy:
    """float32 (n, dim), without ids."""

    def __init__(self, write: FileWriter, dim: int) -> None:
        self._write, self._dim, self._n = write, dim, 0
        write(self._preamble())  # the number of rows is not known yet

    def add(self, ids: Sequence[str], vectors: npt.NDArray[np.float32]) -> None:
        self._n += len(vectors)
        self._write(np.ascontiguousarray(vectors, "<f4").data)

    def finish(self) -> None:
        self._write.rewrite_head(self._preamble())

    def _preamble(self) -> bytes:
        return npy_preamble(np.dtype("<f4"), (self._n, self._dim), least=_PREAMBLE)


class _Csv:
    """A column of ids and one for each number, with a line of names."""

    def __init__(self, write: FileWriter, dim: int) -> None:
        self._write = write
        self._rows([["id", *(f"v{axis}" for axis in range(dim))]])

    def add(self, ids: Sequence[str], vectors: npt.NDArray[np.float32]) -> None:
        # As strings float32 numbers have the fewest digits that give the same number again.
        self._rows([[id, *numbers] for id, numbers in zip(ids, vectors.astype(str).tolist(), strict=True)])

    def finish(self) -> None:
        pass

    def _rows(self, rows: Sequence[Sequence[str]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._write(text.getvalue().encode())


class _JsonLines:
    """An object with ``id`` and ``vector`` per line."""

    def __init__(self, write: FileWriter, dim: int) -> None:
        self._write = write

    def add(self, ids: Sequence[str], vectors: npt.NDArray[np.float32]) -> None:
        rows = zip(ids, vectors.astype(str).tolist(), strict=True)
        lines = [f'{{"id": {json.dumps(id)}, "vector": [{", ".join(numbers)}]}}\n' for id, numbers in rows]
        self._write("".join(lines).encode())

    def finish(self) -> None:
        pass


class _Parquet:
    """The columns ``id`` (string) and ``vector`` (lists of float32 with a fixed length)."""

    def __init__(self, write: FileWriter, dim: int) -> None:
        try:
            self._arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
        except ImportError:
            raise MissingExtraError("writing Parquet", "parquet") from None
        pa = self._arrow
        self._schema = pa.schema([("id", pa.string()), ("vector", pa.list_(pa.float32(), dim))])
        self._file = parquet.ParquetWriter(pa.PythonFile(_Sink(write), mode="w"), self._schema)

    def add(self, ids: Sequence[str], vectors: npt.NDArray[np.float32]) -> None:
        pa = self._arrow
        numbers = pa.array(np.ascontiguousarray(vectors).reshape(-1), pa.float32())
        column = pa.FixedSizeListArray.from_arrays(numbers, type=self._schema.field("vector").type)
        self._file.write_table(pa.table([pa.array(ids, pa.string()), column], schema=self._schema))

    def finish(self) -> None:
        self._file.close()


class _Sink:
    """A :class:`FileWriter` as the file object that pyarrow writes to."""

    closed = False

    def __init__(self, write: FileWriter) -> None:
        self._write = write

    def write(self, data: Any) -> int:
        if self._write.closed:  # an error ended the file; pyarrow still writes its end when its writer is collected
            return len(data)
        return self._write(bytes(data))

    def tell(self) -> int:
        return self._write.written

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True
