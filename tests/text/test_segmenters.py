"""Segmenters, tokenizers of one's own, and their worker processes."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import jose_embed
from jose_embed.cli.program import main, train_main
from jose_embed.errors import ConfigError, CorpusError, MissingExtraError
from jose_embed.storage.manifest import manifest_checksum
from jose_embed.text import segment_pool, segmenters, tokenizers
from jose_embed.text.encode import encode_texts
from jose_embed.text.segment_pool import PooledWords, table_for
from jose_embed.text.segmenters import SEGMENTERS, pieces
from jose_embed.text.tokenizers import get_tokenizer, normalizing
from jose_embed.text.word_table import PlainWords

MODULES = {kind.name: kind.module for kind in SEGMENTERS.values()}


def segmenter(name: str) -> Any:
    """A segmenter, made once; the test is skipped where its library is not installed."""
    if importlib.util.find_spec(MODULES[name]) is None:
        pytest.skip(f"{MODULES[name]} is not installed")
    return made(name)


made = cache(lambda name: normalizing(get_tokenizer(name, {"keep_joined": ".+"}), "nfc"))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("jieba", "质量太差了，ＡＢＣ１２３　3.14元", "质量 太差 了 abc123 3.14 元"),
        ("jieba", "我在卡拉OK穿T恤，iPhone手机 café C++ don’t", "我 在 卡拉 ok 穿 t恤 iphone 手机 café c++ don't"),
        ("jieba", "abc12月 \U0001f600 \u200b\n\t", "abc12 月"),
        (
            "sudachi",
            "東京都に住んでいる。ＡＢＣ ﾃﾚﾋﾞ、caféとC++は3.14",
            "東京都 に 住ん で いる abc テレビ café と c++ は 3.14",
        ),
        ("pythainlp", "ฉันรักภาษาไทย cafe\u0301 3.14\n\u00a0\u3000น้ำ ๆ", "ฉัน รัก ภาษาไทย café 3.14 น้ำ ๆ"),
        ("kiwi", "한글 문서. C++은 3.14%는 café", "한글 문서 c++ 은 3.14 는 café"),
        ("kiwi", "\u1112\u1161\u11ab\u1100\u1173\u11af 문서", "한글 문서"),
    ],
)
def test_words_of_a_language(name: str, text: str, words: str) -> None:
    assert segmenter(name)(text) == words.split()


@pytest.mark.parametrize("name", ["jieba", "sudachi"])
def test_no_text_is_too_long(name: str) -> None:
    found = segmenter(name)("我是東京。" * 1_000 + "京" * 30_000)
    assert "".join(found) == "我是東京" * 1_000 + "京" * 30_000


@pytest.mark.parametrize("text", ["", "a" * 2_500, "ab. " * 900, "字。" * 900, "x\n" + "字" * 3_000])
def test_pieces_are_the_text(text: str) -> None:
    found = list(pieces(text))
    assert "".join(found) == text
    assert max(map(len, found)) <= 1_000


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmenters.importlib.util, "find_spec", lambda name: None)
    for name, kind in SEGMENTERS.items():
        with pytest.raises(MissingExtraError) as missing:
            get_tokenizer(name)
        assert str(missing.value) == (
            f'the tokenizer {name} needs packages that are not installed; run: pip install "jose-embed[{kind.extra}]"'
        )


CHINESE = ["质量太差了，非常失望", "手机很好，质量不错", "酒店的房间很大，服务不错", "衣服的质量很差"] * 8


@pytest.fixture
def chinese(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    segmenter("jieba")
    monkeypatch.chdir(tmp_path)
    Path("zh.txt").write_text("\n".join(CHINESE))
    options = ["--tokenizer", "jieba", "--dim", "4", "--epochs", "1", "-q", "--workers", "1"]
    assert train_main(["zh.txt", *options]) == 0
    return "zh.jose"


def test_a_model_of_a_segmenter_reads_raw_text(chinese: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = jose_embed.load(chinese)
    assert "质量" in model.words
    assert model.infer(["质量太差"]).shape == (1, 4)
    version = importlib.metadata.version("jieba")
    segmented = {"name": "jieba", "settings": {}, "library_version": version}
    assert model.manifest["text"] == {"normalisation": "nfc", "segmenter": segmented, "rare_counts": True}
    assert main(["similar", chinese, "质量", "-k", "1"]) == 0
    assert main(["documents", chinese, "--text", "酒店的房间", "-k", "1"]) == 0
    assert main(["export", chinese, "-o", "folder", "--format", "model2vec"]) == 2
    assert "its tokenizer is 'jieba', which other libraries do not have" in capsys.readouterr().err


def test_jieba_keeps_its_dictionary_in_our_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jieba = pytest.importorskip("jieba")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    small = tmp_path / "words.txt"
    small.write_text("质量 9 n\n太差 9 a\n")
    ours = tmp_path / "cache"

    def split(place: Path | str, dictionary: Path | None = small) -> list[str]:
        monkeypatch.setattr(jieba, "dt", jieba.Tokenizer(dictionary and str(dictionary)))
        monkeypatch.setenv("JOSE_CACHE_DIR", str(place))
        words: list[str] = get_tokenizer("jieba")("质量太差了")
        return words

    for place in ("off", small / "no directory", ours):
        assert split(place) == ["质量", "太差", "了"]
    (kept,) = ours.iterdir()
    assert kept.stat().st_mode & 0o77 == 0
    kept.write_bytes(kept.read_bytes()[:9])
    assert split(ours) == ["质量", "太差", "了"]
    assert split(ours, None) == ["质量", "太差", "了"]
    assert len(list(ours.iterdir())) == 2
    earlier = small.stat().st_mtime - 9
    small.write_text("质量太 9 n\n")
    os.utime(small, (earlier, earlier))
    assert split(ours) == ["质量太", "差", "了"]
    assert jieba.dt.cache_file is None
    version = importlib.metadata.version("jieba")
    assert all(re.fullmatch(rf"jieba-{version}-[0-9a-f]{{16}}\.cache", path.name) for path in ours.iterdir())
    assert not list((tmp_path / "tmp").iterdir())


def test_another_version_of_the_library_is_said_at_load(chinese: str, caplog: pytest.LogCaptureFixture) -> None:
    manifest = json.loads(Path(chinese, "manifest.json").read_text())
    version = manifest["text"]["segmenter"]["library_version"]
    manifest["text"]["segmenter"]["library_version"] = "0.1"
    manifest["checksum"] = manifest_checksum(manifest)
    Path(chinese, "manifest.json").write_text(json.dumps(manifest))
    jose_embed.load(chinese)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{chinese}: the text of this model was split by jieba 0.1, here it is {version}; "
        "some texts may get other words"
    )


# ---- tokenizers of one's own ----------------------------------------------------------------------------------------

OWN = """
class Letters:
    name = "letters"

    def settings(self):
        return {}

    def __call__(self, text):
        if "fail" in text:
            raise KeyError("no such letter")
        if "die" in text:
            import os
            os._exit(3)
        print("words of a library")
        return [letter for letter in text.lower() if letter.isalpha()]


split = Letters()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of an imported tokenizer, in an installed package with an entry point."""
    site = tmp_path / "site"
    (site / "own_words-1.dist-info").mkdir(parents=True)
    site.joinpath("own_words.py").write_text(OWN)
    points = "[jose_embed.tokenizers]\nletters = own_words:Letters\nbroken = own_words:nothing\n"
    site.joinpath("own_words-1.dist-info", "entry_points.txt").write_text(points)
    site.joinpath("own_words-1.dist-info", "METADATA").write_text(
        "Metadata-Version: 2.1\nName: own_words\nVersion: 1\n"
    )
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(Path(jose_embed.__file__).parents[1])]))
    monkeypatch.setattr(tokenizers, "_FACTORIES", dict(tokenizers._FACTORIES))
    monkeypatch.chdir(tmp_path)
    yield "own_words:split"
    sys.modules.pop("own_words", None)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jose_embed", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def test_an_imported_tokenizer_is_imported_for_a_model_only_if_trusted(own: str) -> None:
    Path("t.txt").write_text("abc cab\nbca\n" * 5)
    jose_embed.train("t.txt", tokenizer=own, dim=2, epochs=1, workers=1, min_count=1).save("m.jose")
    assert sorted(jose_embed.load("m.jose").words) == ["a", "b", "c"]
    asked = ["documents", "m.jose", "--text", "A", "-k", "1"]
    refused = run(*asked)
    assert refused.returncode == 2
    assert refused.stderr == (
        f"jose: the model's tokenizer is '{own}', code that is not part of jose-embed; if you trust it, set the "
        f"environment variable JOSE_TOKENIZERS={own}\n"
    )
    assert run(*asked, JOSE_TOKENIZERS=f"x:y,{own}").returncode == 0


def test_an_entry_point_works_in_every_process(own: str) -> None:
    Path("t.txt").write_text("abc cab\nbca\n" * 5)
    arguments = ["--tokenizer", "letters", "--dim", "2", "--epochs", "1", "--min-count", "1", "-q"]
    assert run("train", "t.txt", *arguments).returncode == 0
    assert run("documents", "t.jose", "--text", "A", "-k", "1").returncode == 0
    broken = run("train", "t.txt", "--tokenizer", "broken")
    assert broken.returncode == 2
    assert "the tokenizer 'broken' cannot be imported (AttributeError" in broken.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody:split", r"the tokenizer 'nobody:split' cannot be imported \(ModuleNotFoundError: "),
        ("math:pi", r"the tokenizer 'math:pi' is not a function; name one that splits a text into words"),
        ("os", r"tokenizer is 'os'; it must be one of .*jieba, .*whitespace, words, MODULE:CALLABLE, or be registered"),
    ],
)
def test_names_that_are_no_tokenizer(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_tokenizer(name)


def test_registering_is_public() -> None:
    assert jose_embed.register_tokenizer is tokenizers.register_tokenizer
    with pytest.raises(ConfigError, match=r"^the tokenizer's name is ''; it must be a name$"):
        jose_embed.register_tokenizer("", str.split)  # type: ignore[arg-type]


# ---- worker processes -----------------------------------------------------------------------------------------------


def test_workers_number_words_as_one_process_does(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_pool, "_PIECE", 10)
    monkeypatch.setattr(segment_pool, "_WORTH_STARTING", 20)
    tokenizer = normalizing(get_tokenizer(own), "nfc")
    table, plain = table_for(tokenizer, 2), PlainWords(tokenizer, own)
    assert isinstance(table, PooledWords)
    for block in ("b\n", "hello world\nélan e\u0301\n\n" * 20, "x\n"):
        ids, ends = table.add_lines(block.encode())
        plain_ids, plain_ends = plain.add_lines(block.encode())
        assert (ids.tolist(), ends.tolist()) == (plain_ids.tolist(), plain_ends.tolist())
    assert table.counts().tolist() == plain.counts().tolist()
    numbers = np.arange(len(plain.counts()))
    assert table.words(numbers) == plain.words(numbers)
    processes = list(table._processes)
    assert processes
    table.close()
    assert all(process.returncode is not None for process in processes)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("fail", r"^the tokenizer 'own_words:split' failed: KeyError: 'no such letter'$"),
        ("die", r"^a worker process of the tokenizer 'own_words:split' ended \(status 3\); try workers=1"),
    ],
)
def test_a_worker_that_fails_is_an_error(own: str, word: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_pool, "_WORTH_STARTING", 20)
    with pytest.raises(CorpusError, match=message):
        encode_texts([f"hello {word} world"] * 10, tokenizer=own, workers=2)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise KeyError('no such letter')", r"^the tokenizer 'faulty:split' failed: KeyError: 'no such letter'$"),
        ("return 5", r"^the tokenizer 'faulty:split' failed: TypeError: 'int' object is not iterable$"),
        ("return text", r"^the tokenizer 'faulty:split' failed: TypeError: it gave str, not a list of words$"),
    ],
)
def test_a_faulty_function_is_an_error(code: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    faulty = ModuleType("faulty")
    exec(f"def split(text):\n    {code}\n", faulty.__dict__)
    monkeypatch.setitem(sys.modules, "faulty", faulty)
    monkeypatch.setattr(tokenizers, "_FACTORIES", dict(tokenizers._FACTORIES))
    with pytest.raises(CorpusError, match=message):
        encode_texts(["one two"] * 10, tokenizer="faulty:split", workers=1)


def test_a_script_needs_no_main_guard(own: str) -> None:
    script = """
        import multiprocessing, jose_embed
        multiprocessing.set_start_method("forkserver")
        with jose_embed.encode("t.txt", tokenizer="own_words:split", workers=2, min_count=1) as corpus:
            print(corpus.vocabulary.words)
    """
    Path("script.py").write_text(textwrap.dedent(script))
    Path("t.txt").write_text("abab b\n" * 20_000)
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "('b', 'a')\n"), done.stderr
