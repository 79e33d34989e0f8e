"""Sources: what a name stands for, and files that change under the reader's hands."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jose_embed.errors import CorpusError
from jose_embed.text.sources import Input, Source, find_sources, printable


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory, the current one, with texts, hidden files and an empty directory."""
    for name in ("b.txt", "a.txt", "sub/c.txt", "sub/deep/d.txt", ".hidden.txt", ".git/config", "odd[1].txt"):
        file = tmp_path / "texts" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x\n")
    (tmp_path / "texts" / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*sources: str) -> list[str]:
    return [source.name for source in find_sources(list(sources))]


@pytest.mark.usefixtures("tree")
def test_what_names_stand_for() -> None:
    assert names("texts/b.txt") == ["texts/b.txt"]
    assert names("texts/b.txt", "texts/a.txt") == ["texts/b.txt", "texts/a.txt"]
    assert names("texts/*.txt") == ["texts/a.txt", "texts/b.txt", "texts/odd[1].txt"]
    assert names("texts/**/[cd].txt") == ["texts/sub/c.txt", "texts/sub/deep/d.txt"]
    below = ["texts/a.txt", "texts/b.txt", "texts/odd[1].txt", "texts/sub/c.txt", "texts/sub/deep/d.txt"]
    assert names("texts") == below
    assert names("-") == ["-"]


@pytest.mark.usefixtures("tree")
def test_an_existing_name_is_no_pattern() -> None:
    assert names("texts/odd[1].txt") == ["texts/odd[1].txt"]


def test_each_file_is_read_once(tree: Path) -> None:
    assert names("texts/a.txt", "texts/*.txt", str(tree / "texts" / "b.txt"), "-", "-") == [
        "texts/a.txt",
        "texts/b.txt",
        "texts/odd[1].txt",
        "-",
    ]


@pytest.mark.usefixtures("tree")
def test_a_pipe_in_a_directory_is_not_waited_for() -> None:
    os.mkfifo("texts/sub/pipe")
    os.symlink("nowhere", "texts/sub/dangling")
    assert names("texts/sub") == ["texts/sub/c.txt", "texts/sub/dangling", "texts/sub/deep/d.txt"]


@pytest.mark.usefixtures("tree")
def test_directories_of_ours_in_a_directory_are_no_text() -> None:
    for name, head in (
        ("texts/a.jose/manifest.json", '{\n  "format": "jose-embed",\n'),
        ("texts/sub/run/text/manifest.json", '{\n  "format": "jose-embed-encoded",\n'),
        ("texts/sub/run/checkpoint-000001/checkpoint.json", '{"format": "jose-embed-checkpoint"'),
        ("texts/site/manifest.json", '{\n  "name": "jose-embed"'),
    ):
        Path(name).parent.mkdir(parents=True)
        Path(name).write_text(head)
        Path(name).with_name("table.npy").write_bytes(bytes(9))
    os.mkfifo("texts/empty/manifest.json")
    notes: list[str] = []
    assert [source.name for source in find_sources(["texts/sub", "texts/site"], notes.append)] == [
        "texts/sub/c.txt",
        "texts/sub/deep/d.txt",
        "texts/site/manifest.json",
        "texts/site/table.npy",
    ]
    assert notes == ["texts/sub/run/checkpoint-000001 and 1 more: written by jose-embed, not read as text"]
    assert len(names("texts")) == 7
    with pytest.raises(
        CorpusError, match=r"^texts/a\.jose: this was written by jose-embed and is not a text; name the text$"
    ):
        find_sources("texts/a.jose")
    with pytest.raises(
        CorpusError, match=r"run: all that it stands for \(texts/sub/run/checkpoint-000001, \.\.\.\) was wri"
    ):
        find_sources("texts/sub/run")
    with pytest.raises(CorpusError, match="there is no file in this directory"):
        find_sources("texts/empty")
    os.unlink("texts/empty/manifest.json")
    notes.clear()
    assert [source.name for source in find_sources("texts/**", notes.append)] == names("texts")
    assert notes == ["texts/a.jose and 2 more: written by jose-embed, not read as text"]
    assert names("texts/*/*.*", "texts/a.jose/table.npy") == [
        "texts/site/manifest.json",
        "texts/site/table.npy",
        "texts/sub/c.txt",
        "texts/a.jose/table.npy",
    ]
    with pytest.raises(CorpusError, match=r"^texts/a\.j\*/\*: all that it stands for \(texts/a\.jose\) was written"):
        find_sources("texts/a.j*/*")
    os.chdir("texts/a.jose")
    with pytest.raises(CorpusError, match=r"^\*\.npy: all that it stands for \(\.\) was written by jose-embed"):
        find_sources("*.npy")


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "no text was named; give a file, a directory, a glob or - for standard input"),
        ([""], "'' is not a path; give a file, a directory, a glob or - for standard input"),
        (["a\0b"], r"'a\\x00b' is not a path; give"),
        ([7], "7 is not a path; give"),
        ([b"texts"], "b'texts' is not a path; give"),
        ("texts/*.md", r"texts/\*\.md: no file matches this pattern; check it and the directory it starts from"),
        ("texts/sub/*", None),
        ("texts/empty", "texts/empty: there is no file in this directory"),
        ("texts/em*", r"texts/em\*: no file matches"),
    ],
)
def test_names_that_stand_for_nothing(sources: object, message: str | None) -> None:
    if message is None:
        assert find_sources(sources)  # type: ignore[arg-type]
        return
    with pytest.raises(CorpusError, match=message):
        find_sources(sources)  # type: ignore[arg-type]


def test_paths_of_every_kind(tree: Path) -> None:
    assert find_sources(Path("texts/a.txt")) == [Source("texts/a.txt", "texts/a.txt")]
    assert find_sources(iter([tree / "texts" / "a.txt", "texts/b.txt"]))[1] == Source("texts/b.txt", "texts/b.txt")


@pytest.mark.usefixtures("tree")
def test_sizes() -> None:
    assert Source("texts/a.txt", "a").size() == 2
    assert Source("texts/none", "none").size() is None
    assert Source(None, "-").size() is None
    os.mkfifo("pipe")
    assert Source("pipe", "pipe").size() is None


@given(st.text(st.characters(), max_size=20))
def test_a_printable_name_is_one_clean_line(name: str) -> None:
    line = printable(name)
    assert line.isprintable()
    line.encode()
    assert printable(name + "x") == line + "x"


def test_what_printable_names_look_like() -> None:
    assert printable("plain ä.txt") == "plain ä.txt"
    assert printable("a\nb\t\\c\x07\u2028") == r"a\nb\t\\c\x07\u2028"
    assert printable(os.fsdecode(b"caf\xe9")) == r"caf\xe9"
    assert printable("\U000e0001\ud800") == r"\U000e0001\ud800"


@given(st.text(max_size=8), st.text(max_size=8))
def test_different_names_stay_different(a: str, b: str) -> None:
    assert (printable(a) == printable(b)) == (a == b)


def read_all(source: Input) -> bytes:
    content = b""
    while data := source.read(100):
        content += data
    return content


def test_reading_and_peeking(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_bytes(b"0123456789")
    with Input(Source(str(file), "text")) as source:
        assert source.peek(4) == b"0123"
        assert source.consumed == 0
        assert source.read(3) + read_all(source) == b"0123456789"
        assert source.consumed == 10


@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite"])
def test_a_file_that_changes_is_noticed(tmp_path: Path, change: str) -> None:
    file = tmp_path / "text"
    file.write_bytes(b"x" * 1000)
    with Input(Source(str(file), "text")) as source:
        source.read(10)
        if change == "grow":
            with file.open("ab") as more:
                more.write(b"y" * 1000)
        elif change == "shrink":
            os.truncate(file, 500)
        else:
            file.write_bytes(b"y" * 1000)
            os.utime(file, ns=(1, 1))
        with pytest.raises(CorpusError) as refused:
            read_all(source)
    sizes = {"grow": "1,000 bytes at first, now 2,000", "shrink": "1,000 bytes at first, now 500"}
    expected = f"({sizes.get(change, '1,000 bytes at first, now 1,000')}); start again when nothing writes to it"
    assert str(refused.value) == f"text: the file changed while it was read {expected}"


def test_a_growing_file_does_not_hold_the_reader_for_ever(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_bytes(b"x")
    with Input(Source(str(file), "text")) as source, file.open("ab", buffering=0) as more:
        while source.consumed < 100:
            more.write(b"y")
            try:
                source.read(1)
            except CorpusError:
                break
        assert source.consumed == 2


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's /proc")
def test_a_file_of_the_system_that_claims_to_be_empty_is_read() -> None:
    with Input(Source("/proc/self/status", "status")) as source:
        assert source.read(1 << 20)
        assert not source.read(1 << 20)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"^no\\nfile: there is no such file or directory$"):
        Input(Source(str(tmp_path / "none"), "no\nfile"))
    with pytest.raises(CorpusError, match=r"^long: it cannot be read: File name too long$"):
        Input(Source("x" * 5000, "long"))


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs Linux's /proc")
def test_what_cannot_be_read() -> None:
    with (
        Input(Source("/proc/self/mem", "memory")) as source,
        pytest.raises(CorpusError, match=r"^memory: it cannot be read: Input/output error$"),
    ):
        source.read(10)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is forbidden to this user")
def test_what_may_not_be_read(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.touch(mode=0)
    with pytest.raises(CorpusError, match=r"^secret: it cannot be read: Permission denied$"):
        Input(Source(str(file), "secret"))


def test_standard_input_that_was_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from a test")))
    with Input(Source(None, "-")) as source:
        assert source.read(100) == b"from a test"


def test_standard_input_that_begins_inside_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").write_text("a heading\nthe text\n")
    with (tmp_path / "text").open() as file:
        os.lseek(file.fileno(), 10, os.SEEK_SET)
        monkeypatch.setattr(sys, "stdin", file)
        with Input(Source(None, "-")) as source:
            assert read_all(source) == b"the text\n"


@pytest.mark.parametrize("stdin", [None, io.StringIO("text")])
def test_standard_input_that_is_closed(monkeypatch: pytest.MonkeyPatch, stdin: object) -> None:
    monkeypatch.setattr(sys, "stdin", stdin)
    with pytest.raises(CorpusError, match=r"^standard input is closed; name a file instead of -$"):
        Input(Source(None, "-"))
