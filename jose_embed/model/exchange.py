"""Vectors for and from other programs: word2vec text, word2vec binary, safetensors.

- ``word2vec`` (``.txt``, ``.vec``): a line ``rows dim``, then per row its name and its numbers with 9 significant
  digits, from which the same float32 is read. The first line may be missing when read (GloVe writes none).
- ``word2vec-binary`` (``.bin``): a line ``rows dim``, then per row its name, a space, float32 numbers, a line end.
- ``safetensors`` (``.safetensors``): a float32 tensor ``vectors`` and, as bytes, a tensor ``names``, a line per row.

Files appear complete or not at all and are written in bounded memory. Reading checks every length before it allocates
memory. Nothing is unpickled, and no package is needed.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ConfigError, ModelError
from jose_embed.model.vector_files import VECTOR_FORMATS, vector_file, vector_format_of
from jose_embed.progress import Reporter, SilentReporter
from jose_embed.storage.atomic import Chunk, atomic_file, plain_size, reason
from jose_embed.storage.columns import MappedLines, encoded_text, first_repetition, line_chunks, row_blocks

if TYPE_CHECKING:
    from jose_embed.model.embeddings import Embeddings

FORMATS: Final = ("word2vec", "word2vec-binary", "safetensors")
_SUFFIXES: Final = {
    ".txt": "word2vec", ".vec": "word2vec", ".bin": "word2vec-binary", ".safetensors": "safetensors",
}  # fmt: skip
_BREAKS: Final = frozenset(" \t\n\v\f\r")  # what programs that read the word2vec formats take for the end of a name
_LARGEST_HEADER: Final = 100_000_000
_LONGEST_NAME: Final = 1 << 16
_LONGEST_LINE: Final = 1 << 24
_LARGEST_COUNT: Final = 1 << 40
_DTYPES: Final = {
    "BOOL": "|b1", "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "U32": "<u4", "I32": "<i4",
    "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
}  # fmt: skip
_TABLES: Final = ("center", "context", "documents")


class NamedVectors(NamedTuple):
    """A table of vectors, of any length: ``names`` (n,), ``vectors`` float32 (n, dim)."""

    names: Sequence[str]
    vectors: npt.NDArray[np.float32]


def format_of(path: str | os.PathLike[str]) -> str:
    """The format of a file by the ending of its name.

    Raises:
        ConfigError: an unknown ending.

    Example:
        >>> format_of("vectors.vec")
        'word2vec'
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        endings = ", ".join([*_SUFFIXES, *VECTOR_FORMATS])
        raise ConfigError(
            f"{os.fspath(path)}: no format has the ending {suffix!r}; use {endings}, or add format=..., "
            f"one of {_known_formats()}"
        )
    return _SUFFIXES[suffix]


def _known_formats() -> str:
    return ", ".join([*FORMATS, *dict.fromkeys(VECTOR_FORMATS.values())])


def export(
    model: Embeddings,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    table: str = "center",
    int8: bool = False,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> None:
    """Write one table of a model for another program.

    Args:
        model: The model.
        path: The file.
        format: ``word2vec`` (text), ``word2vec-binary``, ``safetensors``, ``csv``, ``jsonl``, ``parquet`` or ``npy``
            (without names); by the file's ending if omitted.
        table: ``center`` (the word vectors), ``context``, or ``documents``, whose rows are named by their ids. Rows of
            documents without a known word are random; ``model.known_documents`` says which.
        int8: Write whole numbers from -127 to 127, each row scaled by its largest number; safetensors only. The rows
            are directions: scale them to norm 1 to use them.
        overwrite: Replace the file if it exists.
        reporter: Receives the phase "exporting", in rows.

    Raises:
        ConfigError: an unknown format or table, ``int8`` in another format, or a model without document vectors.
        ModelError: a name that the format cannot express, or a file that exists or cannot be written.
        TrainingError: a full disk.
    """
    if table not in _TABLES:
        raise ConfigError(f"table is {table!r}; it must be one of {', '.join(_TABLES)}")
    if table == "documents":
        model.require_documents()
    names, vectors = {
        "center": (model.words, model.center_vectors),
        "context": (model.words, model.context_vectors),
        "documents": (model.doc_ids, model.doc_vectors),
    }[table]
    chosen = vector_format_of(path) if format is None else format
    if int8 and (format or (chosen is None and format_of(path))) != "safetensors":
        raise ConfigError("int8 is written in the format safetensors only; name a file .safetensors, or leave int8 out")
    if chosen is not None and chosen in VECTOR_FORMATS.values():
        _write_rows(path, names, vectors, chosen, overwrite, reporter or SilentReporter())
        return
    write_vectors(
        path,
        names,
        vectors,
        format=format,
        overwrite=overwrite,
        reporter=reporter,
        about={"table": table, "model": model.id},
        int8=int8,
    )


def _write_rows(
    path: str | os.PathLike[str],
    names: Sequence[str],
    vectors: npt.NDArray[np.float32],
    format: str,
    overwrite: bool,
    reporter: Reporter,
) -> None:
    reporter.start("exporting", len(vectors), "rows")
    remaining = iter(names)
    with atomic_file(path, overwrite=overwrite) as write:
        file = vector_file(format, write, vectors.shape[1])
        for first, block in row_blocks(vectors):
            write.share = (first + len(block)) / len(vectors)
            file.add(list(islice(remaining, len(block))), block)
            reporter.advance(len(block))
        file.finish()
    reporter.finish()


def write_vectors(
    path: str | os.PathLike[str],
    names: Sequence[str],
    vectors: npt.NDArray[np.float32],
    *,
    format: str | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    about: Mapping[str, str] | None = None,
    int8: bool = False,
) -> None:
    """Write a table of vectors.

    Args:
        path: The file.
        names: One per row.
        vectors: float32 (n, dim); may be mapped.
        format: As in :func:`export`.
        overwrite: Replace the file if it exists.
        reporter: Receives the phase "exporting", in rows.
        about: Metadata; stored in safetensors files only.
        int8: As in :func:`export`.

    Raises:
        ConfigError, ModelError, TrainingError: as in :func:`export`.
    """
    reporter = reporter or SilentReporter()
    format = format_of(path) if format is None else format
    if format not in FORMATS:
        raise ConfigError(f"format is {format!r}; it must be one of {_known_formats()}")
    if vectors.ndim != 2 or vectors.dtype != np.float32 or len(names) != len(vectors):
        raise ModelError(
            f"{len(names)} names and {vectors.dtype} vectors of shape {vectors.shape} are not a table; "
            "it must have one name for each float32 row"
        )
    reporter.start("exporting", len(vectors), "rows")
    with atomic_file(path, overwrite=overwrite) as write:
        if format == "safetensors":
            _write_safetensors(write, names, vectors, about or {}, reporter, int8)
        else:
            write(b"%d %d\n" % vectors.shape)
            row_bytes = _text_row if format == "word2vec" else _binary_row
            remaining = iter(names)
            for first, block in row_blocks(vectors):
                write.share = (first + len(block)) / len(vectors)
                write(b"".join(row_bytes(_unbroken(next(remaining), format), row) for row in block))
                reporter.advance(len(block))
    reporter.finish()


def _unbroken(name: str, format: str) -> bytes:
    if not name or not _BREAKS.isdisjoint(name):
        raise ModelError(
            f"the name {name[:100]!r} is empty or contains a space or line end, which ends a name in the {format} "
            "format; export to safetensors instead"
        )
    return encoded_text(name, "name")


def _text_row(name: bytes, row: npt.NDArray[np.float32]) -> bytes:
    return name + (" %.9g" * len(row) % tuple(row.tolist())).encode("ascii") + b"\n"


def _binary_row(name: bytes, row: npt.NDArray[np.float32]) -> bytes:
    return name + b" " + row.astype("<f4").tobytes() + b"\n"


def _write_safetensors(
    write: Callable[[Chunk], int],
    names: Sequence[str],
    vectors: npt.NDArray[np.float32],
    about: Mapping[str, str],
    reporter: Reporter,
    int8: bool,
) -> None:
    """Layout: 8 bytes length of the JSON header, the header padded to a multiple of 8, the tensors without gaps.

    Source: the format's description at https://github.com/huggingface/safetensors.
    """
    n_name_bytes = sum(len(chunk) for chunk in line_chunks(names, "name"))  # read twice instead of stored
    n_bytes = vectors.size if int8 else vectors.nbytes
    header = {
        "__metadata__": {"format": "jose-embed", **about},
        "vectors": {"dtype": "I8" if int8 else "F32", "shape": list(vectors.shape), "data_offsets": [0, n_bytes]},
        "names": {
            "dtype": "U8",
            "shape": [n_name_bytes],
            "data_offsets": [n_bytes, n_bytes + n_name_bytes],
        },
    }
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    write(len(text).to_bytes(8, "little") + text)
    for _, block in row_blocks(vectors):
        write(_whole_numbers(block).data if int8 else np.ascontiguousarray(block, "<f4").data)
        reporter.advance(len(block))
    for chunk in line_chunks(names, "name"):
        write(chunk)


def _whole_numbers(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    """Rows as whole numbers, the largest of each row as 127."""
    largest = np.maximum(np.abs(rows).max(axis=1, keepdims=True, initial=0.0), np.finfo(np.float32).tiny)
    return np.asarray(np.rint(rows / largest * 127), np.int8)


# ------------------------------------------------------------------------------------------------------------------


def read_vectors(path: str | os.PathLike[str], *, format: str | None = None, distinct: bool = True) -> NamedVectors:
    """Read a table of vectors written by this or another program; vectors are not normalized.

    Args:
        path: The file.
        format: As in :func:`export`. A safetensors file must have the tensors ``vectors`` and ``names``.
        distinct: Refuse a name that occurs twice.

    Returns:
        Names and float32 vectors, (n, dim).

    Raises:
        ConfigError: an unknown format.
        ModelError: not such a file, damaged, a name twice, or a number that is not finite; names the line or row.
    """
    format = format_of(path) if format is None else format
    if format not in FORMATS:
        raise ConfigError(f"format is {format!r}; it must be one of {', '.join(FORMATS)}")
    if format == "safetensors":
        table = _read_named_tensors(path)
    else:
        with _opened(path) as file:
            table = _read_text(file, path) if format == "word2vec" else _read_binary(file, path)
    for first, block in row_blocks(table.vectors):
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            raise _damaged(path, f"row {first + int(finite.argmin())} holds a NaN or an infinity")
    repetition = first_repetition(table.names) if distinct else None
    if repetition is not None:
        raise _damaged(path, f"the name {repetition[:100]!r} occurs twice")
    return table


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """The tensors of a safetensors file, mapped read-only, and its metadata.

    Raises:
        ModelError: not such a file: a header that is not JSON, a dtype that NumPy lacks, or offsets that overlap, leave
            gaps or exceed the file.
    """
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        data: mmap.mmap | bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    length = int.from_bytes(data[:8], "little")
    if size < 8 or length > min(size - 8, _LARGEST_HEADER):
        raise _damaged(path, "is not a safetensors file")
    start = 8 + length
    try:
        header = json.loads(data[8:start].decode("utf-8"), object_pairs_hook=_distinct)
        if not isinstance(header, dict):
            raise ValueError
        about = header.pop("__metadata__", {})
        if not isinstance(about, dict) or not all(isinstance(text, str) for text in about.values()):
            raise ValueError
        tensors, ends = {}, [(0, 0)]
        for name, facts in header.items():
            first, last = facts["data_offsets"]
            shape = tuple(facts["shape"])
            dtype = np.dtype(_DTYPES[facts["dtype"]])
            if not all(type(n) is int and 0 <= n < _LARGEST_COUNT for n in (*shape, first, last)) or len(shape) > 8:
                raise ValueError
            if last - first != math.prod(shape) * dtype.itemsize or last > size - start:
                raise ValueError
            ends.append((first, last))
            n = math.prod(shape)
            array = np.frombuffer(data, dtype, n, start + first) if n else np.empty(0, dtype)
            array = array.reshape(shape)
            array.flags.writeable = False
            tensors[name] = array
        ends.sort()
        if any(last != first for (_, last), (first, _) in pairwise(ends)) or ends[-1][1] != size - start:
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _damaged(path, "has a damaged safetensors header, or tensors of a kind that is not read") from None
    return tensors, about


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name occurs twice")
    return values


def _read_named_tensors(path: str | os.PathLike[str]) -> NamedVectors:
    tensors, _ = read_safetensors(path)
    vectors, names = tensors.get("vectors"), tensors.get("names")
    if vectors is None or names is None or vectors.ndim != 2 or names.dtype != np.uint8:
        raise _damaged(path, "lacks a tensor 'vectors' of two dimensions or a byte tensor 'names'")
    if vectors.dtype not in (np.float32, np.int8):
        raise _damaged(path, f"has vectors of {vectors.dtype}; they must be float32 or int8")
    column = list(MappedLines(names.tobytes(), os.fspath(path)))
    if len(column) != len(vectors):
        raise _damaged(path, f"has {len(column)} names for {len(vectors)} vectors")
    return NamedVectors(column, vectors.astype(np.float32, copy=False))


def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        if not os.path.isfile(path):
            what = "is a directory" if os.path.isdir(path) else "there is no such file"
            raise ModelError(f"{os.fspath(path)}: {what}; name a file of vectors")
        return open(path, "rb")
    except (OSError, ValueError) as error:
        raise ModelError(f"{os.fspath(path)}: cannot be read ({reason(error)})") from None


def _damaged(path: str | os.PathLike[str], what: str) -> ModelError:
    return ModelError(f"{os.fspath(path)}: {what}; export it again, or name its format: {', '.join(FORMATS)}")


def _shape_line(path: str | os.PathLike[str], line: bytes, size: int, number_bytes: int) -> tuple[int, int] | None:
    """Rows and dim of a first line, None if it is not such a line; the claimed numbers must fit into the file."""
    fields = line.split()
    if len(fields) != 2 or not all(field.isdigit() and len(field) <= 13 for field in fields):
        return None
    rows, dim = int(fields[0]), int(fields[1])
    if dim < 1 or rows * (dim * number_bytes + 1) > size:
        raise _damaged(path, f"its first line says {rows} rows of {dim} numbers, which do not fit into {size} bytes")
    return rows, dim


def _read_text(file: BinaryIO, path: str | os.PathLike[str]) -> NamedVectors:
    size = os.fstat(file.fileno()).st_size
    lines = _lines_of(file, path)
    first = next(lines, b"")
    shape = _shape_line(path, first, size, 2)
    if shape is None:  # as written by GloVe: the first row has the dimension
        shape, lines = (0, len(first.rstrip(b" \r").split(b" ")) - 1), chain([first], lines)
        if shape[1] < 1:
            raise _damaged(path, "is not a text file of vectors: its first line is not a name and numbers")
    said, dim = shape
    vectors = np.empty((said or 1024, dim), np.float32)
    names: list[str] = []
    for row, line in enumerate(lines):
        name, *numbers = line.rstrip(b" \r").rsplit(b" ", dim)
        if not name or len(numbers) != dim or 0 < said <= row:
            raise _damaged(path, f"line {row + 1 + bool(said)} is not a name and {dim} numbers, or one line too many")
        if row == len(vectors):
            vectors = np.concatenate([vectors, np.empty_like(vectors)])
        try:
            with np.errstate(over="ignore"):  # an infinity is refused with the others
                vectors[row] = [float(number) for number in numbers]
            names.append(name.decode("utf-8"))
        except ValueError:
            raise _damaged(path, f"line {row + 1 + bool(said)} holds no number or text that is not UTF-8") from None
    if said and len(names) != said:
        raise _damaged(path, f"has {len(names)} rows, but its first line says {said}")
    return NamedVectors(names, vectors[: len(names)])


def _lines_of(file: BinaryIO, path: str | os.PathLike[str]) -> Iterator[bytes]:
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise _damaged(path, f"has a line of {plain_size(_LONGEST_LINE)} and so is not a text file of vectors")
        yield line.removesuffix(b"\n")


def _read_binary(file: BinaryIO, path: str | os.PathLike[str]) -> NamedVectors:
    size = os.fstat(file.fileno()).st_size
    first = file.readline(64)
    shape = _shape_line(path, first, size, 4)
    if shape is None:
        raise _damaged(path, "is not a binary word2vec file: its first line is not a number of rows and of dimensions")
    rows, dim = shape
    vectors = np.empty((rows, dim), np.float32)
    names: list[str] = []
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = len(first)
        for row in range(rows):
            end = data.find(b" ", start, start + _LONGEST_NAME)
            if end < 0 or end + 1 + 4 * dim > size:
                raise _damaged(path, f"ends or is damaged in row {row} of {rows}")
            try:
                names.append(data[start:end].lstrip(b"\n").decode("utf-8"))
            except UnicodeDecodeError:
                raise _damaged(path, f"row {row} has a name that is not UTF-8") from None
            start = end + 1 + 4 * dim
            vectors[row] = np.frombuffer(data[end + 1 : start], "<f4")
        if data[start : start + 2].strip(b"\n"):
            raise _damaged(path, f"continues after its {rows} rows")
    return NamedVectors(names, vectors)
