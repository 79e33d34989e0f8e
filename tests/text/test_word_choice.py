"""What a word is, and which words a vocabulary has: characters and words that users keep or leave out."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jose_embed
from jose_embed.cli.program import main, train_main
from jose_embed.errors import ConfigError
from jose_embed.text.tokenizers import WordTokenizer, get_tokenizer, normalizing
from jose_embed.text.word_table import PlainWords, word_table

README = Path(__file__).resolve().parents[2] / "jose_embed" / "text" / "README.md"

#: The tokens that people miss, as the text's README shows them.
TABLE = [
    ("e-mail", "e, mail", "e-mail"),
    ("U.S.", "u, s", "u.s"),
    ("C++", "c", "c++"),
    ("COVID-19", "covid, 19", "covid-19"),
    ("3.14", "3, 14", "3.14"),
    ("#tag", "tag", "#tag"),
    ("@name", "name", "@name"),
    ("prime_minister", "prime, minister", "prime_minister"),
]


@pytest.mark.parametrize(("text", "default", "kept"), TABLE)
def test_the_table_of_tokens(text: str, default: str, kept: str) -> None:
    assert ", ".join(WordTokenizer()(text)) == default
    keeping = WordTokenizer("-._+", "#@")
    assert ", ".join(keeping(text)) == kept
    assert get_tokenizer("words", keeping.settings())(f"a {text}, ({text})") == ["a", kept, kept]
    assert f"| {text} | {default} | {kept} |" in README.read_text()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("me@home.org @me", ["me", "home.org", "@me"]),
        ("a@@b ##c #-d -e- f.", ["a", "@b", "#c", "d", "e", "f"]),
        ("a--b a.-b c+++ +d x#y C#", ["a", "b", "a", "b", "c+++", "d", "x#y", "c#"]),
        ("#\u0301x #Σ ΟΔΟΣ# #\u00adtag", ["x", "#ς", "οδοσ#", "#tag"]),
        ("a'#b a#'b don't", ["a", "b", "a#'b", "don't"]),
    ],
)
def test_kept_characters_among_others(text: str, words: list[str]) -> None:
    tokenizer = WordTokenizer("-.+#", "#@")
    assert tokenizer(text) == words
    table = word_table(tokenizer)
    ids, _ = table.add_texts([text])
    assert [table.words(np.array([number]))[0] for number in ids.tolist()] == words


characters = "aZ9é'\u2019-._+#@ \n\u0301\u00adΣσİ\u200d"


@settings(max_examples=25)
@given(
    st.lists(st.text(st.sampled_from(characters), max_size=60), min_size=5).map(" ".join),
    st.text(st.sampled_from("-._+#@'"), max_size=7),
    st.text(st.sampled_from("-._+#@'"), max_size=7),
)
def test_both_readers_keep_the_same_characters(text: str, joined: str, prefix: str) -> None:
    tokenizer = WordTokenizer(joined, prefix)
    table, plain = word_table(tokenizer), PlainWords(tokenizer, "words")
    ids, ends = table.add_lines(f"{text}\n".encode())
    plain_ids, plain_ends = plain.add_lines(f"{text}\n".encode())
    numbers = np.arange(len(plain.counts()))
    assert plain.words(numbers) == table.words(numbers)
    assert (ids.tolist(), ends.tolist()) == (plain_ids.tolist(), plain_ends.tolist())


@pytest.mark.parametrize("character", ["a", "7", " ", "\n", "\u0301", "\x00", "é", "\u3000"])
def test_only_punctuation_can_be_kept(character: str) -> None:
    for name in ("keep_joined", "keep_prefix"):
        with pytest.raises(ConfigError) as refused:
            WordTokenizer(**{name: f"-{character}"})
        assert str(refused.value) == f"{name} holds {character!r}; only punctuation and symbols can be kept"


def test_kept_characters_are_for_words_alone() -> None:
    with pytest.raises(ConfigError, match=r"^tokenizer 'whitespace' does not take the settings {'keep_joined': '-'}"):
        jose_embed.train(["a-b c"], tokenizer="whitespace", keep_joined="-")


TEXT = "The rare e-mail of the U.S. is the one, of all the e-mails\nof the THE of the of\nis is is one\n"


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)
    return "text.txt"


def trained(*options: str) -> jose_embed.Embeddings:
    arguments = ["text.txt", "-o", "m.jose", "--overwrite", "-q", "--dim", "2", "--epochs", "1", "--min-count", "2"]
    assert train_main([*arguments, *options]) == 0
    return jose_embed.load("m.jose")


def test_stop_words_are_left_out(text: str) -> None:
    Path("stop.txt").write_text("Of\n\n  the \n--\nnobody\n")
    model = trained("--stop-words", "stop.txt")
    assert sorted(model.words) == ["e", "is", "one"]
    assert sorted(trained("--stop-words", "none").words) == ["e", "is", "of", "one", "the"]


def test_words_to_keep_may_be_rare(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("keep.txt").write_text("RARE\nall\nu.s\nnowhere\n")
    options = ["--keep-words", "keep.txt", "--keep-joined", "-."]
    assert sorted(trained(*options).words) == ["all", "is", "of", "one", "rare", "the", "u.s"]
    assert sorted(trained(*options, "--max-vocab", "5").words) == ["all", "of", "rare", "the", "u.s"]
    assert main(["encode", text, "-o", "t.encoded", *options]) == 0
    assert "1 of 4 words to keep are not in the text, such as 'nowhere'" in capsys.readouterr().err
    assert train_main([text, *options, "--max-vocab", "2"]) == 2
    assert "--max-vocab is 2, but --keep-words has 3 words; raise it" in capsys.readouterr().err


def test_a_vocabulary_has_a_largest_size(text: str) -> None:
    assert sorted(trained("--max-vocab", "2").words) == ["of", "the"]
    assert len(trained("--max-vocab", "99").words) == 5


@pytest.mark.parametrize(
    ("content", "option", "message"),
    [
        ("of\nNew York\n", "--stop-words", r"list.txt, line 2: 'New York' is 2 words for the tokenizer 'words'; write"),
        ("--\n", "--keep-words", r"list.txt: there is no word in it; write one on each line"),
        (None, "--keep-words", r"list.txt: .*[Nn]o such file"),
        ("of\nthe\nis\none\ne\n", "--stop-words", "no word but stop words occurs 2 times or more"),
    ],
)
def test_lists_that_cannot_be_used(
    text: str, content: str | None, option: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        Path("list.txt").write_text(content)
    assert train_main([text, option, "list.txt", "--min-count", "2"]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error


def test_a_word_cannot_be_kept_and_left_out(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("list.txt").write_text("The\n")
    assert train_main([text, "--stop-words", "list.txt", "--keep-words", "list.txt"]) == 2
    assert "the word 'the' is in stop_words and in keep_words" in capsys.readouterr().err.replace("--", "").replace(
        "stop-words", "stop_words"
    ).replace("keep-words", "keep_words")


def test_a_kept_encoding_belongs_to_its_words(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("stop.txt").write_text("of\n")
    encode = ["encode", text, "-o", "t.encoded", "--min-count", "2", "--stop-words", "stop.txt"]
    assert main(encode) == 0
    assert main(encode) == 0
    assert "this encoding of the same text is used" in capsys.readouterr().err
    Path("stop.txt").write_text("the\n")
    assert main(encode) == 0
    assert "another choice of words; the text is encoded again" in capsys.readouterr().err
    model = ["-o", "m.jose", "-q", "--epochs", "1"]
    assert train_main(["t.encoded", *model, "--max-vocab", "2"]) == 2
    assert "--max-vocab is 2, but t.encoded was encoded with 0" in capsys.readouterr().err
    assert train_main(["t.encoded", *model]) == 0
    assert jose_embed.load("m.jose").config.stop_words == "stop.txt"


def test_words_are_looked_up_as_they_are_kept(text: str) -> None:
    model = trained("--keep-joined", "-.", "--keep-prefix", "#", "--min-count", "1")
    assert model.matched_word("E-Mail") == "e-mail"
    assert model.infer([["e-mail"]]).tolist() == model.infer(["(E-MAIL)"]).tolist()


def test_a_wrapped_tokenizer_is_wrapped_once() -> None:
    tokenizer = normalizing(get_tokenizer("words"), "nfkc")
    assert normalizing(tokenizer, "nfc") is tokenizer
