"""Input that no text is: a gigabyte without a line end, archives that become a hundred gigabytes. Refused or read, but
within a bound of memory."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from jose_embed.text.compression import zstd
from jose_embed.text.reader import LINE_LIMIT

ROOT = Path(__file__).resolve().parents[2]
BOUND = 350e6  # bytes: Python, NumPy, Numba and its compiler take 170 MB of them

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not hasattr(os, "wait4"), reason="needs a system that tells what a child used"),
]


def jose(folder: Path, *arguments: str, standard_input: Iterable[bytes] = ()) -> tuple[int, str, float]:
    """Runs the program; its status, the last line that it said, and the largest memory that it had, in bytes."""
    said = folder / "said.txt"
    with said.open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "jose_embed", *arguments],
            stdin=subprocess.PIPE,
            bufsize=0,
            stdout=subprocess.DEVNULL,
            stderr=err,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # where it has refused
            for piece in standard_input:
                process.stdin.write(piece)
        process.stdin.close()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    memory = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"jose {' '.join(arguments)}: {memory / 1e6:.0f} MB", file=sys.__stderr__)
    return process.returncode, said.read_text().rstrip().rpartition("\n")[2], memory


def gigabyte(of: bytes) -> Iterator[bytes]:
    piece = of * ((1 << 20) // len(of))
    return (piece for _ in range(1000))


def test_one_line_of_a_gigabyte_is_a_document(tmp_path: Path) -> None:
    words = b" ".join(b"word%d" % number for number in range(5000)) + b" "
    status, said, memory = jose(tmp_path, "encode", "-", "-o", "x", standard_input=gigabyte(words))
    assert status == 0, said
    assert memory < BOUND


@pytest.mark.parametrize("of", [b"x", b"\xe4\xb8\xad", b"\xff"], ids=["ascii", "wide", "invalid"])
def test_one_word_of_a_gigabyte_is_refused(tmp_path: Path, of: bytes) -> None:
    status, said, memory = jose(tmp_path, "encode", "-", "-o", "x", standard_input=gigabyte(of))
    assert status == 2
    assert f"-, line 1: a word of more than {LINE_LIMIT >> 20} MiB; put one document on each line" in said
    assert memory < BOUND


def test_a_line_of_a_gigabyte_has_no_vector(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two three four\n" * 20)
    assert jose(tmp_path, "train", "a.txt", "--dim", "4", "--epochs", "1")[0] == 0
    status, said, memory = jose(tmp_path, "embed", "a.jose", "-", "-o", "x.npy", standard_input=gigabyte(b"one two "))
    assert status == 2
    assert f"-, line 1: a line of more than {LINE_LIMIT >> 20} MiB" in said
    assert memory < BOUND
    assert not (tmp_path / "x.npy").exists()


def test_a_gigabyte_of_line_ends_is_a_billion_empty_documents(tmp_path: Path) -> None:
    status, said, memory = jose(tmp_path, "encode", "-", "-o", "x", standard_input=gigabyte(b"\n"))
    assert status == 2
    assert "there is no word in it (1,048,576,000 lines, 1,048,576,000 bytes)" in said
    assert memory < BOUND


def _bombs() -> dict[str, Callable[[bytes], bytes]]:
    """Compressors of the formats; each gives whole streams, which may stand in a row."""
    return {
        "gzip": lambda data: gzip.compress(data, 9),
        "bzip2": lambda data: bz2.compress(data, 9),
        "xz": lambda data: lzma.compress(data),
        "zstd": lambda data: bytes(zstd.compress(data)),
    }


@pytest.mark.parametrize("format", sorted(_bombs()))
def test_a_bomb_is_refused(tmp_path: Path, format: str) -> None:
    stream = _bombs()[format](b"word " * (20 << 20))  # 100 MiB
    (tmp_path / "bomb").write_bytes(stream * 1000)  # 100 GiB
    status, said, memory = jose(tmp_path, "encode", "bomb", "-o", "x")
    assert status == 2, said
    assert "to 1, as a decompression bomb does; if it is text, decompress it first and read the plain file" in said
    assert memory < BOUND
    assert not (tmp_path / "x").exists()
