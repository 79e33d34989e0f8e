"""Decompression of text files, with a bound on what a small file may become.

gzip, bzip2, xz and zstd are recognized by their first bytes, never by name, so a renamed file and a compressed pipe
work too. Several streams in a row (``cat a.gz b.gz``) and zero padding between them are read as the tools of these
formats read them.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

try:
    from compression import zstd  # type: ignore[import-not-found, unused-ignore]  # from Python 3.14 on
except ImportError:
    from backports import zstd  # type: ignore[no-redef, import-not-found, unused-ignore]

from jose_embed.errors import CorpusError
from jose_embed.text.sources import Input

PIECE = 1 << 20  # bytes decompressed at a time
EXPANSION_LIMIT = 250.0  # decompressed bytes per compressed byte ...
EXPANSION_FREE = 1 << 30  # ... counted only beyond this many decompressed bytes
_COMPRESSED_PIECE = PIECE // 4
_HEAD = 10  # bytes that tell a format
_LZMA_MEMORY = 256 << 20


class _Decompressor(Protocol):
    """The common interface of the decompressors of bz2, lzma and zstd."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gunzip:
    """zlib's decompressor in the shape of the others."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)
        self._full = False  # the last piece was as long as allowed: more may be waiting inside

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._full and not self._stream.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        piece = self._stream.decompress(self._stream.unconsumed_tail + data, max_length)
        self._full = len(piece) == max_length
        return piece


def _unxz() -> _Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY)


def _unzstd() -> _Decompressor:
    decompressor: _Decompressor = zstd.ZstdDecompressor()
    return decompressor


_DECOMPRESSORS: dict[str, Callable[[], _Decompressor]] = {
    "gzip": _Gunzip,
    "bzip2": bz2.BZ2Decompressor,
    "xz": _unxz,
    "zstd": _unzstd,
}


def compression_format(head: bytes) -> str | None:
    """The compression of data that starts with these (at least ten) bytes; ``None`` for none.

    Example:
        >>> import gzip
        >>> compression_format(gzip.compress(b"text")), compression_format(b"BZh is a prefix")
        ('gzip', None)
    """
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    if head.startswith(b"BZh") and head[4:_HEAD] in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"):
        return "bzip2"
    if head.startswith(b"\xfd7zXZ\x00"):
        return "xz"
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F):
        return "zstd"
    return None


def decompressed(file: Input, max_expansion: float | None = EXPANSION_LIMIT) -> Iterator[bytes]:
    """The text of an open source, plain or compressed, in pieces of at most ``PIECE`` bytes.

    Args:
        file: The source, not yet read from; read to its end.
        max_expansion: Decompressed bytes allowed per compressed byte, beyond the first GiB; ``None`` for no limit.

    Raises:
        CorpusError: damaged or truncated data, or more text than the limit allows.
    """
    method = compression_format(file.peek(_HEAD))
    if method is None:
        while piece := file.read(PIECE):
            yield piece
        return
    data = file.read(_COMPRESSED_PIECE)
    written = 0
    while data:
        stream = _DECOMPRESSORS[method]()
        while not stream.eof:
            if stream.needs_input and not data:
                data = file.read(_COMPRESSED_PIECE)
                if not data:
                    raise CorpusError(f"{file.name}: the {method} data is cut off in the middle; take a whole copy")
            try:
                piece = stream.decompress(data, PIECE)
            except Exception as error:  # each package has an exception of its own
                what = f"the {method} data cannot be decompressed: {error}"
                advice = "take a whole copy, or decompress it first and read the plain file"
                raise CorpusError(f"{file.name}: {what}; {advice}") from error
            data = b""
            written += len(piece)
            if max_expansion is not None and written > max(EXPANSION_FREE, max_expansion * file.consumed):
                what = f"{file.consumed:,} compressed bytes gave more than {written:,}, over {max_expansion:g} to 1"
                advice = "as a decompression bomb does; if it is text, decompress it first and read the plain file"
                raise CorpusError(f"{file.name}: {what}, {advice}")
            if piece:
                yield piece
        data = _next_stream(file, stream.unused_data, method)


def _next_stream(file: Input, data: bytes, method: str) -> bytes:
    """Bytes after a stream, without the zeros that pad it; empty at the end of the file."""
    data = data.lstrip(b"\0")
    while len(data) < _HEAD and (more := file.read(_COMPRESSED_PIECE)):
        data = (data + more).lstrip(b"\0")
    if data and compression_format(data) != method:
        raise CorpusError(f"{file.name}: what follows the compressed text is not {method} data; the file is damaged")
    return data
