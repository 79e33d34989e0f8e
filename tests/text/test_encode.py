"""Encoding: the corpus is what a dozen lines of plain Python make of the text, and nothing is left behind."""

from __future__ import annotations

import errno
import gc
import gzip
import hashlib
import io
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jose_embed.errors import ConfigError, CorpusError, TrainingError
from jose_embed.text import compression, tokenizers
from jose_embed.text import documents as given_by_python
from jose_embed.text import encode as encoded
from jose_embed.text import reader as corpus
from jose_embed.text import word_table as wordtable
from jose_embed.text.corpus import EncodedCorpus
from jose_embed.text.encode import encode, encode_texts
from jose_embed.text.tokenizers import Tokenizer, get_tokenizer, register_tokenizer

names = pytest.mark.parametrize("name", ["words", "whitespace", "pairs"])


class Pairs:
    """A tokenizer that no table over code points can describe: its words are pairs of neighbours."""

    name = "pairs"

    def settings(self) -> dict[str, Any]:
        return {}

    def __call__(self, text: str) -> list[str]:
        parts = text.split()
        return [f"{a} {b}" for a, b in pairwise(parts)]


@pytest.fixture(autouse=True, scope="module")
def _pairs() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizers, "_FACTORIES", dict(tokenizers._FACTORIES))
        register_tokenizer("pairs", Pairs)
        yield


class Recorder:
    """A reporter that remembers what it was told."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, int | None, str]] = []
        self.amounts: list[int] = []
        self.notes: list[str] = []
        self.figures: list[dict[str, float]] = []

    def start(self, phase: str, total: int | None, unit: str, done: int = 0) -> None:
        self.phases.append((phase, total, unit))
        self.amounts.append(0)

    def advance(self, amount: int, **figures: float) -> None:
        assert amount >= 0
        self.amounts[-1] += amount

    def finish(self, **figures: float) -> None:
        self.figures.append(figures)

    def note(self, message: str) -> None:
        self.notes.append(message)


def naive(
    documents: Sequence[str], tokenizer: Tokenizer, min_count: int
) -> tuple[list[str], list[int], list[list[int]]]:
    """Words, counts and rows of each document, in the plainest way."""
    texts = [tokenizer(document) for document in documents]
    counts = Counter(word for text in texts for word in text)
    kept = sorted((-count, word.encode(), word) for word, count in counts.items() if count >= min_count)
    words = [word for _, _, word in kept]
    row = {word: number for number, word in enumerate(words)}
    return words, [-count for count, _, _ in kept], [[row[word] for word in text if word in row] for text in texts]


def check(found: EncodedCorpus, documents: Sequence[str], name: str, min_count: int) -> None:
    words, counts, rows = naive(documents, get_tokenizer(name), min_count)
    assert list(found.vocabulary.words) == words
    assert found.vocabulary.counts.tolist() == counts
    assert found.vocabulary.counts.dtype == np.int64
    assert found.tokens.dtype == np.int32
    assert found.offsets.dtype == np.int64
    assert found.tokens.tolist() == [row for text in rows for row in text]
    assert found.offsets.tolist() == np.cumsum([0, *map(len, rows)]).tolist()
    assert [found[document].tolist() for document in range(len(found))] == rows
    assert found.n_documents == len(found) == len(found.doc_ids) == len(documents)
    assert found.n_tokens == found.vocabulary.n_tokens == sum(counts)
    assert found.tokenizer.name == name
    seen = [get_tokenizer(name)(document) for document in documents]
    statistics = found.statistics
    assert statistics.n_documents == len(documents)
    assert statistics.n_empty == sum(not text for text in seen)
    assert statistics.n_tokens_seen == sum(map(len, seen))
    assert statistics.n_words_seen == len({word for text in seen for word in text})


lines = st.lists(
    st.text(
        st.one_of(st.sampled_from("aab c\t'İΣé\u2028\u00a0中"), st.characters(exclude_characters="\n\0")), max_size=30
    ),
    min_size=1,
    max_size=12,
)


@names
@settings(max_examples=20)
@given(lines, st.integers(1, 3), st.integers(16, 200), st.integers(1, 9))
def test_a_file_is_encoded_as_plain_python_would(
    tmp_path_factory: pytest.TempPathFactory, name: str, documents: list[str], min_count: int, block: int, chunk: int
) -> None:
    documents = [document.encode("utf-8", "ignore").decode().removesuffix("\r") for document in documents]
    documents[0] = documents[0].removeprefix("\ufeff")
    if not naive(documents, get_tokenizer(name), min_count)[0]:
        documents += ["a b", "a b", "a b"]
    file = tmp_path_factory.getbasetemp() / "encoded"
    content = "\r\n".join(documents).encode()
    file.write_bytes(content + b"\n" * (not documents[-1]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "PIECE", block)
        patch.setattr(corpus, "PIECE", block)
        patch.setattr(corpus, "_SMALLEST_BLOCK", block)
        patch.setattr(encoded, "_CHUNK", chunk)
        with encode(file, tokenizer=name, normalize="none", min_count=min_count) as found:
            check(found, documents, name, min_count)
            assert list(found.doc_ids) == [str(line) for line in range(1, len(documents) + 1)]
            assert found.statistics.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
            assert found.statistics.n_bytes == file.stat().st_size


@names
@settings(max_examples=20)
@given(lines, st.integers(1, 3), st.integers(1, 100))
def test_strings_are_encoded_as_plain_python_would(name: str, documents: list[str], min_count: int, batch: int) -> None:
    documents = [f"{document}\r\nb a\n" for document in documents] + ["b a"] * 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(given_by_python, "_BATCH", batch)
        with encode_texts(iter(documents), tokenizer=name, normalize="none", min_count=min_count) as found:
            clean = [document.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for document in documents]
            check(found, clean, name, min_count)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a file in the current directory, which is empty at first."""
    folder = tmp_path / "texts"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def written(name: str, content: bytes | str) -> Path:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return written


def test_several_sources(write: Callable[..., Path]) -> None:
    write("b/two.txt", "b b\n\nc")
    write("a.txt.gz", gzip.compress(b"a b\n"))
    with encode(["b", "a*"], min_count=1) as found:
        assert list(found.doc_ids) == ["b/two.txt:1", "b/two.txt:2", "b/two.txt:3", "a.txt.gz:1"]
        check(found, ["b b", "", "c", "a b"], "words", 1)
        assert found.statistics.sources == ("b/two.txt", "a.txt.gz")
        assert found.statistics.sha256 == hashlib.sha256(b"b b\n\nc\na b\n").hexdigest()
        assert found.statistics.n_bytes == 10
        assert found.statistics.to_dict()["sources"] == ["b/two.txt", "a.txt.gz"]


def test_names_of_documents_are_one_line_each(write: Callable[..., Path]) -> None:
    write("new\nline", "a\n")
    write("tab\t", "a\n")
    with encode(".", min_count=1) as found:
        assert list(found.doc_ids) == [r"./new\nline:1", r"./tab\t:1"]
        assert found.statistics.sources == (r"./new\nline", r"./tab\t")


def test_standard_input_and_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(b"Eins zwei\nzwei"))))
    with encode("-", min_count=1) as found:
        check(found, ["Eins zwei", "zwei"], "words", 1)
        assert list(found.doc_ids) == ["1", "2"]
        assert found.statistics.sources == ("-",)


def run_python(code: str, text: bytes, *arguments: str) -> str:
    """What a process of its own prints that runs the code on this standard input."""
    environment = {**os.environ, "PYTHONPATH": str(Path(encoded.__file__).parent.parent)}
    command = [sys.executable, "-c", code, *arguments]
    run = subprocess.run(command, input=text, capture_output=True, check=False, env=environment)
    assert (run.stderr.decode(), run.returncode) == ("", 0)
    return run.stdout.decode().strip()


def test_a_literal_end_of_sentence_is_a_word(write: Callable[..., Path]) -> None:
    with encode(write("x", "</s> a\n</s>"), tokenizer="whitespace", min_count=1) as found:
        check(found, ["</s> a", "</s>"], "whitespace", 1)


def test_documents_of_any_length(write: Callable[..., Path]) -> None:
    documents = [" ".join(f"w{(k * k) % 97}" for k in range(n)) for n in (0, 1, 5000, 0, 300_000, 3)]
    with encode(write("x", "\n".join(documents)), min_count=1) as found:
        check(found, documents, "words", 1)


def test_words_that_are_left_out_leave_no_gap(write: Callable[..., Path]) -> None:
    with encode(write("x", "a rare1 b\nrare2\nrare3 b a"), min_count=2) as found:
        assert found.vocabulary.words == ("a", "b")
        assert found.tokens.tolist() == [0, 1, 1, 0]
        assert found.offsets.tolist() == [0, 2, 2, 4]
        assert found.statistics.n_empty == 0


def test_equal_counts_are_ordered_by_their_bytes() -> None:
    words = ["\U0001d4b3", "\uffed", "z", "Z", "é", "a", "中"]
    with encode_texts([" ".join(words)], tokenizer="whitespace", min_count=1) as found:
        assert list(found.vocabulary.words) == sorted(words, key=str.encode)


def test_rows_from_the_end_and_beyond(write: Callable[..., Path]) -> None:
    with encode(write("x", "a\na b\n"), min_count=1) as found:
        assert found[-1].tolist() == [0, 1]
        for outside in (2, -3):
            with pytest.raises(IndexError, match=f"document {outside} of 2"):
                found[outside]


def test_what_the_reporter_hears(write: Callable[..., Path]) -> None:
    reporter = Recorder()
    path = write("x", "a b\n" * 1000)
    with encode(path, min_count=1, reporter=reporter):
        assert reporter.phases == [("reading", 4000, "bytes"), ("encoding", 2000, "tokens")]
        assert reporter.amounts == [4000, 2000]
        assert reporter.figures == [{"tokens": 2000, "documents": 1000}, {"tokens": 2000}]
        assert reporter.notes == []
    reporter = Recorder()
    with encode_texts(["a", "a"], min_count=1, reporter=reporter):
        assert reporter.phases[0] == ("reading", 2, "documents")
        assert reporter.amounts == [2, 2]
    reporter = Recorder()
    with encode_texts(iter(["a"]), min_count=1, reporter=reporter):
        assert reporter.phases[0] == ("reading", None, "documents")


def test_invalid_utf8_is_reported(write: Callable[..., Path]) -> None:
    reporter = Recorder()
    with encode(
        write("x", b"fine\nna\xefve \xff\n\xe2\x82"), tokenizer="whitespace", min_count=1, reporter=reporter
    ) as c:
        assert c.statistics.invalid_utf8_lines == 2
        assert c.statistics.invalid_utf8_bytes == 4
        assert set(c.vocabulary.words) == {"fine", "na\ufffdve", "\ufffd"}
    message = (
        "invalid UTF-8: 4 bytes in 2 lines were replaced by U+FFFD (the first in x, line 2); if the text is in another "
        "encoding, convert it first (iconv -f WINDOWS-1252 -t UTF-8)"
    )
    assert reporter.notes == [message]
    write("y", b"\xff\n")
    with encode(["x", "y"], min_count=1, reporter=reporter):
        assert reporter.notes[1] == message.replace("4 bytes in 2 lines", "5 bytes in 3 lines in 2 files")


def test_a_damaged_line_among_many_is_no_other_encoding(write: Callable[..., Path]) -> None:
    reporter = Recorder()
    with encode(write("x", b"fine\n" * 100 + b"\xff\n"), min_count=1, reporter=reporter):
        assert reporter.notes == [
            "invalid UTF-8: 1 bytes in 1 lines were replaced by U+FFFD (the first in x, line 101)"
        ]
    with encode(write("a.jsonl", b'{"text": "a\\u0000b"}\n'), min_count=1, reporter=reporter):
        assert reporter.notes[2].startswith("NUL characters or halves of surrogate pairs in 1 documents were replaced")


def test_characters_that_are_none_are_reported() -> None:
    reporter = Recorder()
    texts = ["fine", "nul\0 a", "half \ud83d pair", "whole \ud83d\ude00 pair"]
    with encode_texts(texts, tokenizer="whitespace", min_count=1, reporter=reporter) as found:
        clean = ["fine", "nul\ufffd a", "half \ufffd pair", "whole \U0001f600 pair"]
        check(found, clean, "whitespace", 1)
        assert found.statistics.invalid_utf8_lines == 3
    what = "NUL characters or lone surrogates were replaced by U+FFFD"
    assert reporter.notes == [f"3 documents: {what} (the first in document 2)"]


# --- what cannot be encoded


def refusal(sources: Any, error: type[Exception] = CorpusError, **options: Any) -> str:
    reporter = Recorder()
    with pytest.raises(error) as refused:
        encode(sources, reporter=reporter, **options)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_no_word_is_frequent_enough(write: Callable[..., Path]) -> None:
    write("news.txt", "a b c\n" * 4)
    write("more.txt", "")
    seen = "no word occurs 5 times or more (3 words, 12 tokens); lower min_count"
    assert refusal("news.txt") == f"news.txt: {seen}"
    assert refusal(["news.txt", "more.txt"]) == f"news.txt and 1 more: {seen}"
    with encode("news.txt", min_count=4) as found:
        assert found.n_tokens == 12


def test_text_without_words(write: Callable[..., Path]) -> None:
    write("empty", "")
    write("mark", b"\xef\xbb\xbf")
    write("blank", "\n \n...\n")
    assert refusal("empty") == "empty: the text is empty; one document is expected on each line"
    assert refusal("blank") == "blank: there is no word in it (3 lines, 7 bytes)"
    assert refusal("mark") == "mark: there is no word in it (0 lines, 3 bytes)"
    assert refusal(["empty", "blank"]) == "empty and 1 more: there is no word in it (3 lines, 7 bytes)"
    with pytest.raises(CorpusError, match=r"^there are no documents; give at least one$"):
        encode_texts([])


def test_sources_that_cannot_be_read(write: Callable[..., Path]) -> None:
    write("binary", b"\x7fELF\0")
    Path("hollow").mkdir()
    assert refusal("none") == "none: there is no such file or directory"
    assert refusal("no*") == "no*: no file matches this pattern; check it and the directory it starts from"
    assert refusal("hollow").startswith("hollow: there is no file in this directory")
    assert refusal("binary").startswith("binary: byte 4 is NUL, so this is binary data and not text")


def test_a_file_that_changes_is_refused(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("x", "a b\n" * 2_000_000)

    class Meddler(Recorder):
        def advance(self, amount: int, **figures: float) -> None:
            with path.open("ab") as file:
                file.write(b"c\n")

    with pytest.raises(CorpusError, match="x: the file changed while it was read"):
        encode(path, reporter=Meddler())


@pytest.mark.parametrize("min_count", [0, -1, 1.5, True, "5"])
def test_impossible_minimal_counts(min_count: Any) -> None:
    with pytest.raises(ConfigError, match=r"^min_count is .*; it must be a whole number from 1 up$"):
        encode("x", min_count=min_count)
    with pytest.raises(ConfigError, match=r"^min_count is .*; it must be a whole number from 1 up$"):
        encode_texts([], min_count=min_count)


def test_documents_that_are_no_strings() -> None:
    with pytest.raises(CorpusError, match=r"^document 2 is bytes; decode it first, as with document.decode\(\)$"):
        encode_texts(["a", b"b"], min_count=1)  # type: ignore[list-item]
    for text in ("abc", b"abc"):
        with pytest.raises(
            CorpusError, match=r"^the documents are one string; give a list of strings, one for each doc"
        ):
            encode_texts(text)  # type: ignore[arg-type]


def test_a_tokenizer_that_gives_what_no_word_can_be() -> None:
    class Odd(Pairs):
        def __call__(self, text: str) -> list[str]:
            return ["a\tb"]

    with pytest.raises(CorpusError, match="the tokenizer 'pairs' gave the word"):
        encode_texts(["x"] * 5, tokenizer=Odd())


def test_a_bomb_is_refused_and_can_be_forced(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "EXPANSION_FREE", 0)
    path = write("x.gz", gzip.compress(b"a b\n" * 500_000))
    assert "as a decompression bomb does" in refusal(path)
    with encode(path, max_expansion=None) as found:
        assert found.n_documents == 500_000


# --- nothing is left behind


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def test_the_arrays_are_read_only_and_outlive_the_corpus(write: Callable[..., Path], scratch: Path) -> None:
    found = encode(write("x", "a b\nc\n"), min_count=1, directory=scratch)
    assert list(scratch.iterdir()) == []
    tokens, offsets = found.tokens, found.offsets
    for array in (tokens, offsets):
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    found.close()
    found.close()
    assert found.n_tokens == 0
    assert tokens.tolist() == [0, 1, 2]
    assert offsets.tolist() == [0, 2, 3]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux's /proc")
def test_no_file_stays_open(write: Callable[..., Path], scratch: Path) -> None:
    path = write("x", "a b\nc\n")

    def open_files() -> list[str]:
        gc.collect()
        maps = Path("/proc/self/maps").read_text().splitlines()
        files = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path)]
        return [line for line in [*maps, *files] if str(scratch.parent) in line]

    with encode(path, min_count=1, directory=scratch):
        assert open_files()
    assert not open_files()
    refusal(path, min_count=3, directory=scratch)
    assert not open_files()
    refusal("none", directory=scratch)
    assert not open_files()


def test_an_interrupt_leaves_nothing(write: Callable[..., Path], scratch: Path) -> None:
    class Impatient(Recorder):
        def advance(self, amount: int, **figures: float) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(write("x", "a b\n" * 2_000_000), directory=scratch, reporter=Impatient())
    assert list(scratch.iterdir()) == []
    assert not any(thread.name == "jose-reader" for thread in threading.enumerate())


@pytest.mark.parametrize("place", ["none", "file"])
def test_a_directory_that_takes_no_files(write: Callable[..., Path], scratch: Path, place: str) -> None:
    path = write("x", "a b\n")
    (scratch / "file").touch()
    message = refusal(path, TrainingError, directory=scratch / place)
    assert message.startswith(f"{scratch / place}: no temporary file can be made there: ")
    assert message.endswith("; name another directory")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("moment", ["write", "flush"])
def test_a_disk_without_room(
    write: Callable[..., Path], scratch: Path, monkeypatch: pytest.MonkeyPatch, code: int, moment: str
) -> None:
    made = encoded._nameless_file

    class Full:
        """A file that takes its first bytes only."""

        def __init__(self, directory: str) -> None:
            self._file = made(directory)
            self._left = 2

        def write(self, data: Any) -> None:
            self._left -= 1
            if moment == "write" and self._left < 0:
                raise OSError(code, os.strerror(code))
            self._file.write(data)

        def flush(self) -> None:
            raise OSError(code, os.strerror(code))

        def fileno(self) -> int:
            return int(self._file.fileno())

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

    monkeypatch.setattr(encoded, "_nameless_file", Full)
    path = write("x", "a b\n" * 1_000_000)
    message = refusal(path, TrainingError, directory=scratch)
    if code == errno.EIO:
        assert message == f"{scratch}: the temporary file cannot be written: {os.strerror(code)}"
    else:
        assert message.startswith(
            f"{scratch}: no room for the encoded text ({os.strerror(code)}; needed: about 16.0 MB, "
        )
        assert message.endswith(" MB); make room or name another directory")
    assert list(scratch.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_a_file_that_may_not_grow(write: Callable[..., Path], scratch: Path) -> None:
    write("x", "a b\n" * 1_000_000)
    code = (
        "import resource, sys\n"
        "from jose_embed.text.encode import encode\n"
        "from jose_embed.errors import TrainingError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "try:\n"
        "    encode('x', directory=sys.argv[1])\n"
        "except TrainingError as error:\n"
        "    print(error)\n"
    )
    message = run_python(code, b"", str(scratch))
    assert message.startswith(
        f"{scratch}: no room for the encoded text (File too large; needed: about 16.0 MB, there was: "
    )
    assert list(scratch.iterdir()) == []


def test_the_first_words_numbers_are_not_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table grows while it is read, the file is renumbered in many chunks, and the ends fall everywhere."""
    monkeypatch.setattr(wordtable, "_FIRST_SLOTS", 1 << 10)
    monkeypatch.setattr(encoded, "_CHUNK", 1000)
    rng = np.random.default_rng(5)
    documents = [" ".join(f"w{word}" for word in rng.zipf(1.2, rng.integers(0, 60)) % 5000) for _ in range(3000)]
    with encode_texts(documents, min_count=3) as found:
        check(found, documents, "words", 3)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["words", "whitespace"])
def test_chinese_reviews(shared_data: Path, name: str) -> None:
    documents = gzip.decompress((shared_data / "zh.txt.gz").read_bytes()).decode().split("\n")[:-1]
    with encode(shared_data / "zh.txt.gz", tokenizer=name, min_count=5) as found:
        check(found, [document.removesuffix("\r") for document in documents], name, 5)
