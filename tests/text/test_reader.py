"""Reading: from any bytes to lines of valid UTF-8, the same whatever the size of the blocks."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jose_embed.errors import CorpusError
from jose_embed.text import compression
from jose_embed.text import reader as corpus
from jose_embed.text.compression import compression_format
from jose_embed.text.reader import BlockReader, DocumentIds, complaints
from jose_embed.text.sources import Source, SourceReport, find_sources

Read = Callable[..., tuple[bytes, BlockReader]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Writes each content to a file ``0``, ``1``, ..., reads them all and gives the joined blocks and the reader."""

    def joined(*contents: bytes, **options: Any) -> tuple[bytes, BlockReader]:
        sources = []
        for number, content in enumerate(contents):
            file = tmp_path / str(number)
            file.write_bytes(content)
            sources.append(Source(str(file), str(number)))
        return drained(sources, **options)

    return joined


def drained(sources: Sequence[Source], **options: Any) -> tuple[bytes, BlockReader]:
    with BlockReader(sources, **options) as reader:
        blocks = list(reader)
    assert all(block.data for block in blocks)
    assert reader.total is None or sum(block.consumed for block in blocks) <= reader.total
    return b"".join(block.data for block in blocks), reader


def refusal(read: Read, *contents: bytes, **options: Any) -> str:
    with pytest.raises(CorpusError) as refused:
        read(*contents, **options)
    return str(refused.value)


def small_blocks(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(compression, "PIECE", size)
    monkeypatch.setattr(corpus, "PIECE", size)
    monkeypatch.setattr(corpus, "_SMALLEST_BLOCK", max(1, size // 2))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", b""),
        (b"\n", b"\n"),
        (b"one", b"one\n"),
        (b"one\n", b"one\n"),
        (b"one\r\n\r\n\ntwo", b"one\r\n\r\n\ntwo\n"),
        (b"\n\n", b"\n\n"),
        (b"\xef\xbb\xbfone\n\xef\xbb\xbftwo", b"one\n\xef\xbb\xbftwo\n"),
        (b"\xef\xbb\xbf", b""),
        ("a\u2028b\x0bc\x0cd\x1ce\x85f\r".encode(), "a\u2028b\x0bc\x0cd\x1ce\x85f\r\n".encode()),
    ],
)
def test_lines(read: Read, tmp_path: Path, content: bytes, expected: bytes) -> None:
    text, reader = read(content)
    assert text == expected
    digest = hashlib.sha256(content).hexdigest()
    assert reader.reports == [
        SourceReport("0", str(tmp_path / "0"), len(content), expected.count(b"\n"), 0, 0, 0, len(content), digest)
    ]
    assert reader.total == len(content)


@pytest.mark.parametrize("whole_lines", [False, True])
@given(st.lists(st.binary(max_size=40), max_size=3), st.integers(1, 50))
def test_any_bytes_become_valid_lines(
    tmp_path_factory: pytest.TempPathFactory, whole_lines: bool, contents: list[bytes], size: int
) -> None:
    contents = [content.replace(b"\0", b" ") for content in contents]
    assume(not any(content.startswith((b"\xff\xfe", b"\xfe\xff")) for content in contents))
    assume(not any(compression_format(content[:10]) for content in contents))
    folder = tmp_path_factory.getbasetemp()
    sources = []
    for number, content in enumerate(contents):
        (folder / f"source{number}").write_bytes(content)
        sources.append(Source(str(folder / f"source{number}"), str(number)))
    with pytest.MonkeyPatch.context() as patch:
        small_blocks(patch, size)
        text, reader = drained(sources, whole_lines=whole_lines)
    expected, raw = "", b""
    for content in contents:
        lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        lines = lines[:-1] if not lines[-1] else lines
        expected += "".join(line.decode(errors="replace") + "\n" for line in lines)
        raw += (b"\n" if raw and not raw.endswith(b"\n") else b"") + content
    assert text.decode() == expected
    assert sum(report.n_lines for report in reader.reports) == expected.count("\n")
    assert reader.sha256 == hashlib.sha256(raw).hexdigest()


def test_blocks_are_whole_lines(read: Read, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"".join(b"%d " % number * 9 + b"\n" for number in range(200_000)))
    with BlockReader([Source(str(tmp_path / "text"), "text")]) as reader:
        blocks = list(reader)
    assert len(blocks) > 5
    assert all(block.data.endswith(b"\n") and len(block.data) <= 2 << 20 for block in blocks)
    assert sum(block.consumed for block in blocks) == reader.total


def test_a_long_line_is_cut_after_a_space_only(read: Read, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small_blocks(monkeypatch, 10)
    (tmp_path / "text").write_bytes(b"one\n" + b"wordwordword " * 20)
    with BlockReader([Source(str(tmp_path / "text"), "text")]) as reader:
        blocks = [block.data for block in reader]
    assert b"".join(blocks) == b"one\n" + b"wordwordword " * 20 + b"\n"
    assert len(blocks) > 10
    assert all(block.endswith((b" ", b"\n")) for block in blocks)
    assert reader.reports[0].n_lines == 2


def test_a_tokenizer_that_wants_whole_lines_gets_them(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch, 10)
    content = b"wordwordword " * 20 + b"\nend"
    with BlockReader([], whole_lines=True) as reader:
        assert not list(reader)
    text, _ = read(content, whole_lines=True)
    assert text == content + b"\n"


def test_a_line_beyond_every_bound(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "LINE_LIMIT", 2 << 20)
    word, line = b"one\n" + b"x" * (3 << 20), b"one\ntwo\n" + b"x " * (2 << 20)
    advice = "of more than 2 MiB; put one document on each line"
    assert refusal(read, word) == f"0, line 2: a word {advice}"
    assert refusal(read, line, whole_lines=True) == f"0, line 3: a line {advice}"
    assert read(line)[0] == line + b"\n"
    at_the_limit = b"x" * (2 << 20)
    assert read(at_the_limit)[0] == at_the_limit + b"\n"
    assert refusal(read, at_the_limit + b"x") == f"0, line 1: a word {advice}"


def test_invalid_utf8_is_replaced_and_counted(read: Read) -> None:
    text, reader = read("fünf".encode("latin-1") + b"\nok\n\xe2\x82 and \xff\xfe\n", b"fine\n", b"\xed\xa0\x80")
    assert text.decode() == "f\ufffdnf\nok\n\ufffd and \ufffd\ufffd\nfine\n\ufffd\ufffd\ufffd\n"
    broken, fine, surrogate = reader.reports
    assert (broken.invalid_lines, broken.invalid_bytes, broken.first_invalid) == (2, 5, 1)
    assert (fine.invalid_lines, fine.invalid_bytes, fine.first_invalid) == (0, 0, 0)
    assert (surrogate.invalid_lines, surrogate.invalid_bytes, surrogate.first_invalid) == (1, 3, 1)


def test_binary_data_is_refused(read: Read) -> None:
    expected = (
        "so this is binary data and not text; give text in UTF-8, plain or as .gz, .bz2, .xz, .zst, without NUL "
        "(tr -d '\\0')"
    )
    assert refusal(read, b"PK\x03\x05\x00\x00") == f"0: byte 4 is NUL, {expected}"
    assert refusal(read, b"fine\n", b"x" * (3 << 20) + b"\0") == f"1: byte {3 << 20:,} is NUL, {expected}"
    assert refusal(read, gzip.compress(b"a\0")) == f"0: byte 1 is NUL, {expected}"


def test_wide_text_is_refused_with_the_remedy(read: Read) -> None:
    expected = "0: this is UTF-16 or UTF-32 text; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)"
    assert refusal(read, "中文".encode("utf-16")) == expected
    assert refusal(read, "中文".encode("utf-16-be").join([b"\xfe\xff", b""])) == expected


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"^none: there is no such file or directory$"):
        drained([Source(str(tmp_path / "none"), "none")])


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_compressed_text_hashes_like_plain_text(read: Read, suffix: str) -> None:
    text = b"one\ntwo\n"
    _, reader = read(gzip.compress(text) if suffix else text)
    assert reader.sha256 == hashlib.sha256(text).hexdigest()
    assert reader.reports[0].n_bytes == len(text)


def test_progress_of_a_source_without_a_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"x y\n" * 100_000,))
    writer.start()
    text, reader = drained([Source(str(tmp_path / "pipe"), "pipe")])
    writer.join()
    assert text == b"x y\n" * 100_000
    assert reader.total is None


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_standard_input(compress: Callable[[bytes], bytes]) -> None:
    code = (
        "from jose_embed.text.reader import BlockReader\n"
        "from jose_embed.text.sources import find_sources\n"
        "with BlockReader(find_sources('-')) as reader:\n"
        "    print(b''.join(block.data for block in reader), reader.reports[0].name, reader.total)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], input=compress(b"one\ntwo"), capture_output=True, check=True)
    assert run.stdout.decode().strip() == r"b'one\ntwo\n' - None"
    assert not run.stderr


def test_nobody_waits_for_a_reader_that_waits_for_a_pipe() -> None:
    code = (
        "from jose_embed.text.reader import BlockReader\n"
        "from jose_embed.text.sources import find_sources\n"
        "with BlockReader(find_sources('-')):\n"
        "    raise SystemExit(3)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.wait(60) == 3
        assert process.stderr is not None
        assert not process.stderr.read()


def test_the_thread_ends_when_nobody_reads_on(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"some words\n" * 1_000_000)
    with BlockReader([Source(str(tmp_path / "text"), "text")]) as reader:
        next(iter(reader))
    assert not reader._thread.is_alive()


@given(st.lists(st.integers(0, 5), max_size=6))
def test_document_ids_of_several_sources(line_counts: list[int]) -> None:
    names = [f"file{number}" for number in range(len(line_counts))]
    ids = DocumentIds(names, line_counts)
    prefix = "{}:" if len(names) > 1 else ""
    expected = [f"{prefix.format(n)}{k + 1}" for n, c in zip(names, line_counts, strict=True) for k in range(c)]
    assert list(ids) == expected
    assert len(ids) == len(expected)
    assert [ids[row] for row in range(len(ids))] == expected
    assert [ids[row - len(ids)] for row in range(len(ids))] == expected
    assert ids[1:-1] == expected[1:-1]
    assert ids[::-2] == expected[::-2]
    for outside in (len(ids), -len(ids) - 1):
        with pytest.raises(IndexError, match=f"document {outside} of {len(ids)}"):
            ids[outside]


def test_document_ids_are_one_line_each() -> None:
    assert list(DocumentIds(["a\nb", "c\\d"], [1, 1])) == [r"a\nb:1", r"c\\d:1"]


def test_millions_of_document_ids_cost_nothing() -> None:
    ids = DocumentIds(["a", "b"], [2**40, 1])
    assert ids[2**40 - 1] == f"a:{2**40}"
    assert ids[-1] == "b:1"


def test_a_missing_file_is_noticed_before_the_first_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").write_text("text\n")
    Path("link").symlink_to("nowhere")
    for missing in ("b", "link"):
        with pytest.raises(CorpusError, match=f"^{missing}: there is no such file or directory$"):
            BlockReader(find_sources(["a", missing]))
    Path("b").write_text("text\n")
    if os.geteuid() != 0:
        Path("b").chmod(0)
        with pytest.raises(CorpusError, match=r"^b: it cannot be read: Permission denied$"):
            BlockReader(find_sources(["a", "b"]))


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_file_that_is_replaced_is_read_whole_and_that_is_said(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a"
    content = b"text\n" * 1_000_000
    path.write_bytes(content)
    with BlockReader([Source(str(path), "a")]) as reader:
        blocks = iter(reader)
        found = next(blocks).data
        path.unlink()
        if how == "replaced":
            path.write_bytes(b"other")
        found += b"".join(block.data for block in blocks)
    assert found == content
    assert reader.reports[0].was_replaced
    assert reader.reports[0].disk_sha256 == hashlib.sha256(content).hexdigest()
    assert list(complaints(reader.reports)) == [
        "a: removed or replaced while it was read; the old content was read to its end"
    ]
    two = [SourceReport("a", was_replaced=True), SourceReport("b"), SourceReport("c", was_replaced=True)]
    assert next(complaints(two)).startswith("a and 1 more: removed or replaced while they were read; ")


def test_a_file_that_vanishes_before_its_turn_is_named(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"text\n" * 1_000_000)
    second.write_bytes(b"text\n")
    with BlockReader([Source(str(first), "a"), Source(str(second), "b")]) as reader:
        blocks = iter(reader)
        next(blocks)
        second.unlink()
        with pytest.raises(CorpusError, match=r"^b: there is no such file or directory$"):
            list(blocks)
