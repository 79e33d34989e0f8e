"""The header of ``.npy`` files, read without running or unpickling anything that is in them."""

from __future__ import annotations

import ast
import mmap
import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

__all__ = ["array_header", "npy_preamble"]

_MAGIC: Final = b"\x93NUMPY"
_LARGEST_HEADER: Final = 10_000


def array_header(data: bytes | mmap.mmap) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """The dtype, shape and first byte of the numbers of a ``.npy`` file, without running or unpickling anything in it.

    Raises:
        ValueError: what is wrong, as the rest of a sentence about the file.

    Source: the format's description in ``numpy.lib.format``.
    """
    if data[:6] != _MAGIC:
        raise ValueError("is not a NumPy array file")
    major = data[6] if len(data) > 6 else 0
    if major not in (1, 2, 3) or len(data) < 12:
        raise ValueError(f"is a NumPy array file of the unknown version {major}")
    width = 2 if major == 1 else 4
    length = int.from_bytes(data[8 : 8 + width], "little")
    start = 8 + width + length
    if length > _LARGEST_HEADER or start > len(data):
        raise ValueError("has a damaged header")
    try:
        header = ast.literal_eval(data[8 + width : start].decode("latin1" if major < 3 else "utf-8"))
        fields = (header["descr"], header["fortran_order"], header["shape"])
        if len(header) != 3:
            raise ValueError("fields")
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
        raise ValueError("has a damaged header") from None
    described, fortran, shape = fields
    if not isinstance(described, str) or re.fullmatch(r"[<|][biuf]\d{1,2}", described) is None:
        raise ValueError(f"holds values of the kind {str(described)[:50]!r}; only plain little-endian numbers are read")
    if fortran is not False:
        raise ValueError("is stored column by column; it must be row by row")
    if not isinstance(shape, tuple) or not all(type(n) is int and 0 <= n < 2**62 for n in shape) or len(shape) > 8:
        raise ValueError("has a damaged header")
    try:
        return np.dtype(described), shape, start
    except TypeError:
        raise ValueError(f"holds values of the unknown kind {described!r}") from None


def npy_preamble(dtype: np.dtype[Any], shape: Sequence[int], *, least: int = 0) -> bytes:
    """The first bytes of a ``.npy`` file of version 1.0; the numbers begin at a multiple of 64.

    Args:
        dtype: Of the numbers.
        shape: Of the array.
        least: At least so many bytes: two preambles of less have the same length, so one can take the other's place.
    """
    text = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': {tuple(int(n) for n in shape)!r}, }}".encode(
        "latin1"
    )
    length = len(_MAGIC) + 4 + len(text) + 1
    padding = max(-length % 64, least - length)
    header = text + b" " * padding + b"\n"
    return _MAGIC + b"\x01\x00" + len(header).to_bytes(2, "little") + header
