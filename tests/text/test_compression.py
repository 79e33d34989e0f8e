"""Decompression: what the formats' own tools wrote comes back, and nothing else gets through."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jose_embed.errors import CorpusError
from jose_embed.text import compression
from jose_embed.text.compression import compression_format, decompressed
from jose_embed.text.sources import Input, Source

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
}
formats = pytest.mark.parametrize("method", COMPRESS)

TEXT = "".join(f"line {number} of Größe {number * number}\n" for number in range(20_000)).encode()


@pytest.fixture
def text_of(tmp_path: Path) -> Callable[..., bytes]:
    """Writes bytes to a file, reads it as a source, and gives what came out."""

    def read(content: bytes, **options: Any) -> bytes:
        file = tmp_path / "text"
        file.write_bytes(content)
        with Input(Source(str(file), "text")) as source:
            pieces = list(decompressed(source, **options))
            assert source.consumed == len(content)
        assert all(0 < len(piece) <= compression.PIECE for piece in pieces)
        return b"".join(pieces)

    return read


def refusal(read: Callable[..., bytes], content: bytes, **options: Any) -> str:
    with pytest.raises(CorpusError) as refused:
        read(content, **options)
    return str(refused.value)


@formats
def test_what_was_compressed_comes_back(text_of: Callable[..., bytes], method: str) -> None:
    for text in (b"", b"x", TEXT, b"a" * 5_000_000):
        assert text_of(COMPRESS[method](text)) == text


@formats
@pytest.mark.parametrize("piece", [1, 7, 64])
def test_pieces_of_any_size(
    text_of: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, method: str, piece: int
) -> None:
    monkeypatch.setattr(compression, "PIECE", piece)
    monkeypatch.setattr(compression, "_COMPRESSED_PIECE", piece)
    text = TEXT[:500] + b"a" * 1500
    assert text_of(COMPRESS[method](text) * 2) == text * 2


def test_plain_text_stays_as_it_is(text_of: Callable[..., bytes]) -> None:
    for text in (b"", b"x", TEXT, b"BZh is a prefix\n", b"\x1f", b"\x28\xb5"):
        assert text_of(text) == text


@formats
def test_several_streams_and_the_padding_between_them(text_of: Callable[..., bytes], method: str) -> None:
    one, two = COMPRESS[method](b"one\n"), COMPRESS[method](b"two\n")
    assert text_of(one + two) == b"one\ntwo\n"
    assert text_of(one + bytes(8) + two + bytes(600_000)) == b"one\ntwo\n"
    assert text_of(COMPRESS[method](b"") + two) == b"two\n"


def test_zstd_frames_to_skip(text_of: Callable[..., bytes]) -> None:
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"note"
    assert text_of(skippable + zstd.compress(b"text\n") + skippable) == b"text\n"


@formats
def test_a_stream_that_is_cut_off(text_of: Callable[..., bytes], method: str) -> None:
    whole = COMPRESS[method](TEXT)
    for length in (10, 30, len(whole) // 2, len(whole) - 1):
        message = f"text: the {method} data is cut off in the middle; take a whole copy"
        assert refusal(text_of, whole[:length]) == message


@formats
def test_a_damaged_stream(text_of: Callable[..., bytes], method: str) -> None:
    whole = bytearray(COMPRESS[method](TEXT))
    for position in range(100, len(whole) - 100, 100):
        whole[position] ^= 0xFF
    assert refusal(text_of, bytes(whole)).startswith(f"text: the {method} data cannot be decompressed: ")


@formats
def test_something_after_the_stream(text_of: Callable[..., bytes], method: str) -> None:
    message = f"text: what follows the compressed text is not {method} data; the file is damaged"
    assert refusal(text_of, COMPRESS[method](b"text\n") + b"garbage") == message
    other = gzip.compress(b"x") if method != "gzip" else bz2.compress(b"x")
    assert refusal(text_of, COMPRESS[method](b"text\n") + other) == message


@formats
def test_a_decompression_bomb(text_of: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    bomb = COMPRESS[method](bytes(8_000_000))
    assert len(text_of(bomb)) == 8_000_000  # small enough to be let through, whatever the ratio
    monkeypatch.setattr(compression, "EXPANSION_FREE", 2_000_000)
    message = refusal(text_of, bomb)
    assert message.startswith("text: ")
    assert " compressed bytes gave more than " in message
    assert message.endswith(
        ", over 250 to 1, as a decompression bomb does; if it is text, decompress it first and read the plain file"
    )
    assert len(text_of(bomb, max_expansion=None)) == 8_000_000


def test_the_limit_itself_is_allowed(text_of: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    content = gzip.compress(bytes(1_000_000))
    monkeypatch.setattr(compression, "EXPANSION_FREE", 0)
    assert text_of(content, max_expansion=1_000_000 / len(content))
    assert refusal(text_of, content, max_expansion=999_999 / len(content))


def test_an_xz_stream_that_wants_too_much_memory(
    text_of: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "_LZMA_MEMORY", 1 << 20)
    message = refusal(text_of, lzma.compress(TEXT))
    assert message == (
        "text: the xz data cannot be decompressed: Memory usage limit exceeded; "
        "take a whole copy, or decompress it first and read the plain file"
    )


def test_the_formats_are_told_apart() -> None:
    for method, compress in COMPRESS.items():
        assert compression_format(compress(b"text")[:10]) == method
        assert compression_format(compress(b"")[:10]) == method
    assert compression_format(b"") is None
    assert compression_format(b"\x50*M") is None


@given(st.sampled_from(list(COMPRESS)), st.binary(max_size=200), st.data())
def test_no_bytes_break_the_reader(
    tmp_path_factory: pytest.TempPathFactory, method: str, text: bytes, data: st.DataObject
) -> None:
    content = bytearray(COMPRESS[method](text))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content += data.draw(st.binary(max_size=20))
    file = tmp_path_factory.getbasetemp() / "fuzz"
    file.write_bytes(content)
    with Input(Source(str(file), "text")) as source:
        message = "text: "
        try:
            b"".join(decompressed(source))
        except CorpusError as error:
            message = str(error)
    assert message.startswith("text: ")
    assert "\n" not in message
