"""A kept encoding is the corpus that it was written from, is taken only for the same text, and is checked wholly."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jose_embed.cli.program import main
from jose_embed.compute.documents import give_back
from jose_embed.config import TrainConfig
from jose_embed.errors import ConfigError, CorpusError
from jose_embed.storage import columns
from jose_embed.storage.manifest import manifest_checksum
from jose_embed.text import kept as encodedfiles
from jose_embed.text.corpus import EncodedCorpus
from jose_embed.text.encode import encode, encode_texts
from jose_embed.text.kept import is_encoded, kept_encoding, open_encoded, text_for, write_encoded
from jose_embed.text.records import TextOptions

TEXT = "to be or not to be\n\nthat is the question\nto be\n"


class Recorder:
    """A reporter that remembers phases and notes."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.notes: list[str] = []
        self.steps: list[int] = []

    def start(self, phase: str, total: int | None, unit: str, done: int = 0) -> None:
        self.phases.append(phase)

    def advance(self, amount: int, **figures: float) -> None:
        self.steps.append(amount)

    def finish(self, **figures: float) -> None:
        pass

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_a_large_file_is_written_in_sight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "BLOCK_BYTES", 1000)
    reporter = Recorder()
    with encode_texts(["a b"] * 5000, min_count=1) as corpus:
        write_encoded(corpus, tmp_path / "x.encoded", reporter=reporter)
    assert reporter.phases == ["keeping"]
    assert max(reporter.steps) < 4000  # of 80 kB
    assert sum(reporter.steps) > 80_000


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str | bytes], Path]:
    monkeypatch.chdir(tmp_path)

    def _write(name: str, text: str | bytes) -> Path:
        Path(name).write_bytes(text.encode() if isinstance(text, str) else text)
        return Path(name)

    return _write


def same(a: EncodedCorpus, b: EncodedCorpus) -> None:
    assert a.tokens.tolist() == b.tokens.tolist()
    assert a.offsets.tolist() == b.offsets.tolist()
    assert list(a.doc_ids) == list(b.doc_ids)
    assert a.vocabulary.words == b.vocabulary.words
    assert a.vocabulary.counts.tolist() == b.vocabulary.counts.tolist()
    assert (a.tokenizer.name, a.tokenizer.settings()) == (b.tokenizer.name, b.tokenizer.settings())
    assert (a.statistics, a.min_count, list(a.sources)) == (b.statistics, b.min_count, list(b.sources))


def test_what_is_kept_is_what_was_encoded(write: Callable[..., Path]) -> None:
    write("a.txt", TEXT)
    write("b\n.txt.gz", gzip.compress(TEXT.encode()))
    write(os.fsdecode(b"\xff.txt"), TEXT)
    with encode(["a.txt", "b\n.txt.gz", os.fsdecode(b"\xff.txt")], min_count=2) as corpus:
        write_encoded(corpus, "x.encoded")
        with open_encoded("x.encoded") as found:
            same(found, corpus)
            assert found.tokens.dtype == np.int32
            assert found.offsets.dtype == np.int64
            assert not found.tokens.flags.writeable
            assert found.doc_ids[5] == "b\\n.txt.gz:2"
    assert is_encoded("x.encoded")
    assert not is_encoded("a.txt")
    assert not is_encoded("nothing")
    assert sorted(os.listdir()) == sorted(["a.txt", "b\n.txt.gz", os.fsdecode(b"\xff.txt"), "x.encoded"])


def test_strings_can_be_kept(tmp_path: Path) -> None:
    with encode_texts(["a b", "b"], min_count=1, tokenizer="whitespace") as corpus:
        write_encoded(corpus, tmp_path / "x")
        with open_encoded(tmp_path / "x") as found:
            same(found, corpus)


def test_pages_of_a_file_with_a_header_are_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jose_embed.compute.documents._SMALL", 100)
    with encode_texts(["a b c d " * 5000], min_count=1) as corpus:
        write_encoded(corpus, tmp_path / "x")
        with open_encoded(tmp_path / "x") as found:
            for begin, end in [(0, 20000), (0, 1), (19999, 20000), (5000, 7000)]:
                give_back(found.tokens, begin, end)
            assert (found.tokens == corpus.tokens).all()


# --- taken again, or not


def reused(sources: Any, **settings: Any) -> tuple[bool, EncodedCorpus, str]:
    reporter = Recorder()
    settings = {"min_count": 1, **settings}
    found = kept_encoding(sources, "x.encoded", reporter=reporter, **settings)
    settings.pop("overwrite", None)
    with encode(sources, **settings) as fresh:
        same(found, fresh)
    assert len(reporter.notes) <= 1
    return "encoding" not in reporter.phases, found, "".join(reporter.notes)


def test_the_text_is_read_once(write: Callable[..., Path]) -> None:
    write("a.txt", TEXT)
    write("b.txt", TEXT.upper())
    assert reused(["a.txt", "b.txt"])[::2] == (False, "")
    taken, _, note = reused(["a.txt", "b.txt"])
    assert taken
    assert note == "x.encoded: this encoding of the same text is used"
    os.utime("a.txt")  # times do not matter, bytes do
    assert reused(["a.txt", "b.txt"])[0]
    Path("b.txt").rename("c.txt")  # nor do names, which are those of today
    taken, found, _ = reused(["a.txt", "c.txt"])
    assert taken
    assert found.doc_ids[4] == "c.txt:1"
    assert found.statistics.sources == ("a.txt", "c.txt")


def test_a_stale_encoding_is_never_taken(write: Callable[..., Path]) -> None:
    path = write("a.txt", TEXT)
    reused("a.txt")
    before = path.stat()
    path.write_text(TEXT.replace("or", "ro"))  # as long as before, at the same time
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert reused("a.txt")[::2] == (False, "x.encoded: a.txt has changed since; the text is encoded again")
    path.write_text(TEXT + "more\n")
    assert reused("a.txt")[::2] == (False, "x.encoded: a.txt has changed since; the text is encoded again")
    changed = "x.encoded: another min count (it was 1, and is 2 now); the text is encoded again"
    assert reused("a.txt", min_count=2)[::2] == (False, changed)
    changed = "x.encoded: another tokenizer; the text is encoded again"
    assert reused("a.txt", min_count=2, tokenizer="whitespace")[::2] == (False, changed)
    assert reused("a.txt", min_count=2, tokenizer="whitespace")[0]


def test_another_version_of_unicode_is_another_encoding(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("a.txt", TEXT)
    reused("a.txt")
    monkeypatch.setattr(encodedfiles.unicodedata, "unidata_version", "1.0")
    assert reused("a.txt")[::2] == (False, "x.encoded: another unicode; the text is encoded again")


def test_the_encoding_of_another_text_is_not_replaced(write: Callable[..., Path]) -> None:
    write("a.txt", TEXT)
    write("b.txt", TEXT + TEXT)
    kept_encoding("a.txt", "x.encoded", min_count=1)
    before = {file.name: file.read_bytes() for file in Path("x.encoded").iterdir()}
    for sources in ("b.txt", ["a.txt", "b.txt"]):
        with pytest.raises(
            CorpusError, match=r"^x.encoded: holds the encoding of another text \(a.txt\); name another"
        ):
            kept_encoding(sources, "x.encoded", min_count=1)
    with pytest.raises(ConfigError):
        kept_encoding("a.txt", "x.encoded", min_count=0)
    assert {file.name: file.read_bytes() for file in Path("x.encoded").iterdir()} == before


def test_compressed_text_is_compared_as_it_lies_on_the_disk(write: Callable[..., Path]) -> None:
    write("a", bz2.compress(TEXT.encode()))
    reused("a")
    assert reused("a")[0]
    write("a", bz2.compress(TEXT.encode(), 1))
    assert not reused("a")[0]


@pytest.mark.parametrize("name", ["file", "folder", "x.encoded"])
def test_nothing_else_is_ever_replaced(write: Callable[..., Path], name: str) -> None:
    write("a.txt", TEXT)
    write("file", "mine")
    Path("folder").mkdir()
    write("folder/mine", "mine")
    kept_encoding("a.txt", "x.encoded", min_count=1)
    write("x.encoded/mine", "mine")
    with pytest.raises(
        CorpusError, match=r"is a file, not a directory|is a directory, but no|which is not part of the"
    ):
        kept_encoding("a.txt", name, min_count=2)
    with encode("a.txt", min_count=1) as corpus, pytest.raises(CorpusError):
        write_encoded(corpus, name, overwrite=True)
    assert Path("file").read_text() == Path("folder/mine").read_text() == Path("x.encoded/mine").read_text() == "mine"


# --- damage


@pytest.fixture
def encoding(tmp_path: Path) -> Path:
    with encode_texts(["a b c a", "", "b c"], min_count=1) as corpus:
        write_encoded(corpus, tmp_path / "x")
    return tmp_path / "x"


def refusal(path: Path) -> str:
    with pytest.raises(CorpusError) as refused:
        open_encoded(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", ["tokens.npy", "offsets.npy", "vocabulary.tsv", "sources.json", "manifest.json"])
def test_every_damaged_byte_is_found(encoding: Path, name: str) -> None:
    file = encoding / name
    data = file.read_bytes()
    for position in range(0, len(data), 1 + len(data) // 60):
        changed = bytearray(data)
        changed[position] ^= 0x11
        file.write_bytes(changed)
        assert str(encoding) in refusal(encoding)
    for wrong in (b"", data[:-2], data[: len(data) // 2], data + b"\0"):
        file.write_bytes(wrong)
        assert refusal(encoding).startswith(f"{encoding}/")
    file.unlink()
    if name == "manifest.json":
        what = "is a directory, but not an encoded corpus (it has no manifest.json)"
        assert refusal(encoding) == f"{encoding}: {what}; check the path, or make one with jose encode"
    else:
        assert refusal(encoding) == f"{file}: is missing; remove it and encode the text again"


def test_what_is_no_encoding(encoding: Path, tmp_path: Path) -> None:
    made = "make one with jose encode"
    assert refusal(tmp_path / "no") == (
        f"{tmp_path}/no: there is no encoded corpus directory of this name; check the path, or {made}"
    )
    assert refusal(encoding / "tokens.npy").endswith(f": is a file, not an encoded corpus directory; {made}")


def forged(encoding: Path, change: Callable[[dict[str, Any]], None]) -> str:
    """The refusal of an encoding whose manifest was changed and given a sum that fits."""
    path = encoding / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    manifest["checksum"] = manifest_checksum(manifest)
    path.write_text(json.dumps(manifest))
    return refusal(encoding)


def test_a_newer_format_is_named(encoding: Path) -> None:
    message = forged(encoding, lambda manifest: manifest.update(format_version=2))
    assert "has the format version 2, newer than 1" in message
    assert message.endswith("update jose-embed, or encode the text again")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("tokens.npy", np.array([0, 1, 2, 0, 1, 3], np.int32), "holds a row outside of the vocabulary of 3 words"),
        ("tokens.npy", np.array([0, 1, 2, 0, 1, -1], np.int32), "holds a row outside of the vocabulary of 3 words"),
        ("tokens.npy", np.array([0, 1, 2, 0, 1, 2], np.int64), "holds <i8 numbers, but must hold <i4"),
        ("offsets.npy", np.array([0, 5, 4, 6]), "must rise from 0 to 6"),
        ("offsets.npy", np.array([1, 4, 4, 6]), "must rise from 0 to 6"),
        ("offsets.npy", np.array([0, 4, 4, 7]), "must rise from 0 to 6"),
    ],
)
def test_numbers_that_would_lead_astray_are_refused_though_the_sums_fit(
    encoding: Path, name: str, array: np.ndarray[Any, Any], message: str
) -> None:
    import hashlib

    np.save(encoding / name, array)
    data = (encoding / name).read_bytes()
    facts = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    assert message in forged(encoding, lambda manifest: manifest["files"].update({name: facts}))


# --- as the text of a training


def test_the_text_of_a_training(write: Callable[..., Path]) -> None:
    write("a.txt", TEXT)
    for keep in (None, "x.encoded", "x.encoded"):
        corpus, config = text_for("a.txt", TrainConfig(min_count=2), keep_encoded=keep)
        with corpus, encode("a.txt", min_count=2) as fresh:
            same(corpus, fresh)
            assert config == TrainConfig(min_count=2)
    reporter = Recorder()
    corpus, config = text_for(Path("x.encoded"), TrainConfig(dim=7), given=["dim"], reporter=reporter)
    with corpus:
        assert (corpus.n_documents, config) == (4, TrainConfig(dim=7, min_count=2))
        assert reporter.phases == ["verifying"]
    assert text_for(["x.encoded"], TrainConfig(min_count=2), given=["min_count"])[1].min_count == 2


def test_an_encoded_text_stands_alone_and_for_its_own_settings(write: Callable[..., Path]) -> None:
    write("a.txt", TEXT)
    kept_encoding("a.txt", "x.encoded", min_count=2)
    with pytest.raises(
        ConfigError, match=r"^min_count is 5, but x.encoded was encoded with 2; leave out min_count=5, or"
    ):
        text_for("x.encoded", TrainConfig(), given=["min_count"])
    with pytest.raises(ConfigError, match=r"^tokenizer is 'words', but|^tokenizer is 'whitespace', but"):
        text_for("x.encoded", TrainConfig(tokenizer="whitespace"), given=["tokenizer"])
    with pytest.raises(CorpusError, match=r"^x.encoded: is an encoded corpus, which cannot be joined with other text"):
        text_for(["a.txt", "x.encoded"], TrainConfig())
    with pytest.raises(ConfigError, match=r"^x.encoded: is an encoded corpus already, there is nothing to keep"):
        text_for("x.encoded", TrainConfig(), keep_encoded="y.encoded")
    with pytest.raises(CorpusError, match=r"^x.encoded: is an encoded corpus already; name the text"):
        kept_encoding("x.encoded", "y.encoded")


def test_overwriting_replaces_the_encoding_of_any_text(write: Callable[..., Path]) -> None:
    write("a.txt", TEXT)
    write("b.txt", TEXT + TEXT)
    kept_encoding("a.txt", "x.encoded", min_count=1)
    assert reused("b.txt", overwrite=True)[0] is False
    Path("x.encoded/tokens.npy").write_bytes(b"")
    with pytest.raises(CorpusError, match=r"tokens.npy: is 0 bytes long"):
        kept_encoding("b.txt", "x.encoded", min_count=1)
    assert reused("b.txt", overwrite=True)[0] is False
    assert reused("b.txt")[0]


def test_a_model_of_a_kept_text_is_that_of_the_text(write: Callable[..., Path]) -> None:
    from jose_embed.training.train import train

    write("a.txt", TEXT * 50)
    settings: dict[str, Any] = {"dim": 8, "epochs": 2, "workers": 1, "min_count": 1}
    models = [
        train("a.txt", **settings),
        train("a.txt", keep_encoded="x.encoded", **settings),
        train("a.txt", keep_encoded="x.encoded", **settings),
        train("x.encoded", **settings),
    ]
    assert len({model.id for model in models}) == 1
    assert all(model.manifest["corpus"] == models[0].manifest["corpus"] for model in models)
    with pytest.raises(ConfigError, match=r"^keep_encoded needs files"):
        train(documents=["a"], keep_encoded="y")


def test_the_command(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    write("a.txt", TEXT * 50)
    assert main(["encode", "a.txt"]) == 0
    out = capsys.readouterr().out
    assert "vocabulary  8 of 8 different words (those that occur 5 times or more)" in out
    assert out.endswith("Next: jose-train a.encoded\n")
    assert main(["encode", "a.txt"]) == 0
    assert "is used" in capsys.readouterr().err
    assert main(["info", "a.encoded", "--verify"]) == 0
    card = capsys.readouterr().out
    assert "  8 words that occur at least 5 times\n" in card
    assert "\n  sources               a.txt\n" in card
    assert card.endswith("\nverified: all files match their checksums\n")
    assert main(["info", "a.encoded", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sources"][0]["path"] == os.path.abspath("a.txt")
    assert main(["train", "a.encoded", "--dim", "4", "--epochs", "1", "-q"]) == 0
    assert Path("a.jose").is_dir()
    assert main(["train", "a.encoded", "--min-count", "4", "--overwrite"]) == 2
    assert main(["train", "a.txt", "--keep-encoded", "b", "-o", "b"]) == 2
    assert capsys.readouterr().err.endswith("b: the model and the encoded text cannot share a directory; name two\n")
    assert main(["encode", "a.txt", "-q", "-o", "a.jose"]) == 2
    assert "a.jose: is a directory, but not an encoded corpus" in capsys.readouterr().err
    assert main(["encode", "a.txt", "-q", "-o", "no/x"]) == 2
    assert main(["encode", "a.txt", "--min-count", "many"]) == 2
    assert main(["train", "a.encoded", "--dry-run", "-q"]) == 0


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that nobody can catch")
def test_a_killed_encoding_leaves_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    """Twenty kills over all phases; then one that comes to its end, after which nothing of the killed ones is left."""
    rng = random.Random(5)
    words = [f"w{number}" for number in range(20_000)]
    (tmp_path / "a.txt").write_text("\n".join(" ".join(rng.choices(words, k=200)) for _ in range(10_000)))
    command = [sys.executable, "-m", "jose_embed", "encode", "a.txt", "-q", "-o", "x", "--min-count"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    started = time.monotonic()
    subprocess.run([*command, "1"], cwd=tmp_path, env=environment, check=True)
    whole = time.monotonic() - started
    for kill in range(20):
        min_count = 2 + kill % 2
        with subprocess.Popen([*command, str(min_count)], cwd=tmp_path, env=environment) as process:
            time.sleep(rng.uniform(0.3, 1.05) * whole)
            process.kill()
        with open_encoded(tmp_path / "x") as corpus:
            assert corpus.min_count in (1, 2, 3)
            assert corpus.statistics.n_tokens_seen == 2_000_000
    subprocess.run([*command, "1"], cwd=tmp_path, env=environment, check=True)
    with open_encoded(tmp_path / "x") as corpus:
        assert (corpus.min_count, corpus.n_tokens) == (1, 2_000_000)
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "x"]


def test_ids_and_texts_are_kept(write: Callable[..., Path], tmp_path: Path) -> None:
    write("a.csv", 'id,text,stars\nx,"red\ngreen",5\ny,red,4\n')
    options = TextOptions(id_field="id", keep_text=True, keep_fields="stars")
    for _ in range(2):
        with kept_encoding("a.csv", "a.encoded", min_count=1, options=options) as corpus:
            assert list(corpus.doc_ids) == ["x", "y"]
            assert corpus.options == options
            assert corpus.texts is not None
            assert corpus.texts.read([1, 0]) == [("red", {"stars": "4"}), ("red\ngreen", {"stars": "5"})]
    with open_encoded("a.encoded") as corpus:
        assert list(corpus.doc_ids) == ["x", "y"]
        assert corpus.texts is not None
        assert corpus.texts.n_documents == 2
    notes: list[str] = []
    silent = dict.fromkeys(("start", "advance", "finish"), lambda *_, **__: None)
    recorder: Any = SimpleNamespace(note=notes.append, **silent)
    with kept_encoding("a.csv", "a.encoded", min_count=1, reporter=recorder) as corpus:
        assert list(corpus.doc_ids) == ["1", "2"]
        assert corpus.texts is None
    assert "a.encoded: another way of reading; the text is encoded again" in notes
    with pytest.raises(ConfigError, match="was encoded with other options of the text"):
        text_for("a.encoded", TrainConfig(), options=options)
