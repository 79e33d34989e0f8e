"""One spelling for one word: in training, in later texts and in look-ups, and only where the model stores it."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jose_embed
from jose_embed.cli.program import main, train_main
from jose_embed.errors import ConfigError, UnknownWordError
from jose_embed.model.embeddings import Embeddings
from jose_embed.text import normalization
from jose_embed.text.encode import encode_texts
from jose_embed.text.normalization import LineNormalizer, normalized
from jose_embed.text.tokenizers import NormalizingTokenizer, get_tokenizer
from jose_embed.text.word_table import PlainWords, word_table

TRICKY = (
    "aJHκϊ Ａﬁ²\n'\u2019\u02bc\u0149\u0301\u030c\u0308\u0323\u0338\u0345Å\u212bçＫｶﾞ가\u1100\u1161\u11a8각ดำ"
    "\u0e4d\u0e32\u0e38\u0e48ΪΣσİẞ\u0958\U0002f800"
)
SPACES = {0x2000: 0x2002, 0x2001: 0x2003}  # which are not looked for
texts = st.text(st.one_of(st.sampled_from(TRICKY), st.characters(exclude_categories=["Cs"])), max_size=40)
forms = st.sampled_from(normalization.FORMS)


@given(texts, forms, st.booleans())
def test_lines_are_normalized_as_texts(text: str, form: str, lower_cases: bool) -> None:
    text = text.replace("\0", "") + "\n"
    lines = text.split("\n")
    wanted = "\n".join(normalized(line, form, lower_cases=lower_cases) for line in lines)
    found = LineNormalizer(form, lower_cases=lower_cases)(text.encode()).decode()
    if lower_cases:  # a line that is in the form already may keep its capitals
        wanted, found = normalization.lowered(wanted), normalization.lowered(found)
    assert found.translate(SPACES) == wanted.translate(SPACES)


@pytest.mark.parametrize("form", ["nfc", "nfkc"])
def test_no_character_is_passed_over(form: str) -> None:
    codes = [code for code in range(0x80, 0x110000) if not 0xD800 <= code < 0xE000]
    changing = [chr(code) for code in codes if normalized(chr(code), form) != chr(code) and code not in SPACES]
    composing = [f"{a}{b}" for a in "eΑk\u09c7か" for b in map(chr, codes) if len(normalized(a + b, form)) == 1]
    assert len(changing) > 1_000
    assert len(composing) > 20
    for before in range(3):
        lines = [f"{'x' * (300 + before)}{character}{'x' * 300}" for character in [*changing, *composing]]
        found = LineNormalizer(form)("".join(f"{line}\n" for line in lines).encode()).decode().split("\n")[:-1]
        assert found == [normalized(line, form) for line in lines]


@given(texts)
def test_the_form_is_unicodes(text: str) -> None:
    plain = normalized(text, "nfc")
    assert plain == unicodedata.normalize("NFC", text).replace("\u02bc", "\u2019")
    assert normalized(plain, "nfc") == plain
    wide = normalized(text, "nfkc")
    assert normalized(wide, "nfkc") == wide
    assert normalized(text, "none") == text


@settings(max_examples=20)
@given(st.lists(texts, min_size=5).map(" ".join), forms)
def test_words_of_the_compiled_reader_are_those_of_the_tokenizer(text: str, form: str) -> None:
    text = text.replace("\0", "").replace("\r", "")
    for name in ("words", "whitespace"):
        tokenizer = NormalizingTokenizer(get_tokenizer(name), form)
        table, plain = word_table(tokenizer), PlainWords(tokenizer, name)
        data = f"{text}\n".encode()
        ids, ends = table.add_lines(data)
        plain_ids, plain_ends = plain.add_lines(data)
        assert (ids.tolist(), ends.tolist()) == (plain_ids.tolist(), plain_ends.tolist())
        numbers = np.arange(len(plain.counts()))
        assert table.words(numbers) == plain.words(numbers)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), forms)
def test_canonically_equal_texts_have_the_same_words(text: str, form: str) -> None:
    if form != "none":
        tokenizer = NormalizingTokenizer(get_tokenizer("words"), form)
        assert tokenizer(unicodedata.normalize("NFD", text)) == tokenizer(unicodedata.normalize("NFC", text))


@pytest.mark.parametrize(
    ("form", "text", "words"),
    [
        ("nfc", "cafe\u0301 CAFE\u0301 caf\u00e9", ["café"] * 3),
        ("nfc", "J\u030c \u01f0", ["\u01f0"] * 2),  # no character is the capital
        ("nfc", "комп\u02bcютер комп\u2019ютер комп'ютер", ["комп'ютер"] * 3),
        ("nfc", "Ｃａｆｅ", ["ｃａｆｅ"]),
        ("nfkc", "Ｃａｆｅ ﬁnd x² ｶﾞ", ["cafe", "find", "x2", "ガ"]),
        ("nfkc", "น้ำ ທຳ", ["น้ำ", "ທຳ"]),  # NFKC alone takes the vowel am apart
        ("none", "cafe\u0301", ["cafe\u0301"]),
    ],
)
def test_known_spellings(form: str, text: str, words: list[str]) -> None:
    assert NormalizingTokenizer(get_tokenizer("words"), form)(text) == words


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^normalize is 'nfd'; it must be one of nfc, nfkc, none$"):
        encode_texts(["a"], normalize="nfd")


LINES = ["Café crème", "cafe\u0301 creme\u0301 l\u2019eau", "café l'eau l\u02bceau"] * 10


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a text in two spellings."""
    path = tmp_path_factory.mktemp("spelling")
    path.joinpath("text.txt").write_text("\n".join(LINES))
    text = str(path / "text.txt")
    assert train_main([text, "-o", str(path / "m.jose"), "--dim", "4", "--workers", "1", "--epochs", "1", "-q"]) == 0
    return path / "m.jose"


def test_a_model_finds_words_by_every_spelling(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = jose_embed.load(model)
    assert sorted(found.words) == ["café", "cremé", "crème", "l'eau"]
    for word in ("café", "cafe\u0301", "CAFÉ", "CAFE\u0301", "(café)"):
        assert found.index_of(word) == found.words.index("café")
        assert word in found
        assert found.matched_word(word) == "café"
    assert found.rows_of(["L\u2019EAU", "thé"]).tolist() == [found.words.index("l'eau"), -1]
    assert found.matched_word("café crème") is None
    assert np.array_equal(found["CAFÉ"], found["café"])
    assert np.array_equal(found.infer(["CAFE\u0301"]), found.infer([["café"]]))
    assert np.array_equal(found.infer([["cafe\u0301"]]), found.infer([["café"]]))
    assert found.manifest["text"] == {"normalisation": "nfc", "rare_counts": True}
    for command in (["similar", str(model), "CAFE\u0301"], ["documents", str(model), "--word", "CAFE\u0301"]):
        for more in ([], ["--json"]):
            assert main([*command, "-k", "1", *more]) == 0
            captured = capsys.readouterr()
            assert captured.err == "asked: CAFE\u0301, matched: café\n"
        assert json.loads(captured.out)[0]["respelled"] == [{"asked": "CAFE\u0301", "matched": "café"}]
    assert main(["similar", str(model), "café", "-k", "1", "--json"]) == 0
    assert "respelled" not in capsys.readouterr().out


def test_a_model_without_a_stored_form_answers_as_before(model: Path, tmp_path: Path) -> None:
    found = jose_embed.load(model)
    old = Embeddings.from_arrays(
        words=found.words,
        counts=found.counts,
        center_vectors=found.center_vectors,
        context_vectors=found.context_vectors,
    )
    old.save(tmp_path / "old.jose")
    old = jose_embed.load(tmp_path / "old.jose")
    assert "text" not in old.manifest
    assert [word in old for word in ("café", "cafe\u0301", "Café")] == [True, False, False]
    assert old.infer_flagged(["cafe\u0301 Café", "cafe\u0301"]).known.tolist() == [True, False]
    with pytest.raises(UnknownWordError):
        old.most_similar("Café")


def test_gold_words_are_found_by_every_spelling(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("cafe\u0301\tL\u2019eau\t3\nCafé\tcreme\u0301\t2\ncrème\tcafe\u0301\t1\n")
    assert main(["eval", "wordsim", str(model), str(pairs), "--json"]) == 0
    assert '"coverage": 1.0' in capsys.readouterr().out


def test_a_kept_encoding_belongs_to_its_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(LINES))
    encoded = str(tmp_path / "text.encoded")
    for form, n_words in (("none", "6"), ("nfc", "4")):
        assert main(["encode", str(text), "-o", encoded, "--normalize", form]) == 0
        captured = capsys.readouterr()
        assert f"{n_words} of" in captured.out
    assert "another text; the text is encoded again" in captured.err
    assert train_main([encoded, "-o", str(tmp_path / "m.jose"), "--normalize", "none", "--epochs", "1", "-q"]) == 2
    assert "--normalize is 'none', but" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["Cafe\u0301", "x"], ["Café", "x"]])
def test_lists_of_words_have_one_spelling(words: list[str]) -> None:
    with encode_texts([words] * 3, min_count=1, tokenizer="whitespace") as corpus:
        assert corpus.vocabulary.words == ("Café", "x")
