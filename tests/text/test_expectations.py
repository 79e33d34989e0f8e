"""Notes about text that is not what its tokenizer expects: one for each fault, with the option that helps."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from jose_embed.cli.program import main, train_main
from jose_embed.text.encode import encode_texts

JAPANESE = "駅の近くの静かな宿で、朝食がとても豊かでしたのでまた泊まりたいと思います"
THAI = "ห้องพักสะอาดและเงียบสงบมากพนักงานบริการดีเยี่ยม"
CHINESE = ["质量太差了非常失望", "酒店的房间很大服务不错", "手机很好质量也不错的"]
ENGLISH = ["the cat sat on the mat with an exceptionallylongwordthatisnotsplitbyanything", "a dog and the cat"]


class Notes:
    """A reporter that remembers its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self, phase: str, total: int | None, unit: str) -> None:
        pass

    advance = finish = lambda self, *_, **__: None

    def note(self, message: str) -> None:
        self.notes.append(message)


def notes(texts: list[str], **settings: object) -> list[str]:
    reporter = Notes()
    with encode_texts(texts, reporter=reporter, **{"min_count": 1, **settings}) as corpus:
        assert corpus.statistics.notes == tuple(reporter.notes)
    return reporter.notes


@pytest.mark.parametrize(
    ("texts", "language", "tokenizer", "extra"),
    [
        ([JAPANESE] * 3, "Japanese", "'sudachi'", "japanese"),
        ([THAI] * 3, "Thai", "'pythainlp'", "thai"),
        (CHINESE, "Chinese", "'jieba'", "chinese"),
        ([*ENGLISH * 20, JAPANESE.replace("、", "")], "Japanese", "'sudachi'", "japanese"),
    ],
)
@pytest.mark.parametrize("name", ["words", "whitespace"])
def test_clauses_are_no_words(texts: list[str], language: str, tokenizer: str, extra: str, name: str) -> None:
    (note,) = notes(texts, tokenizer=name)
    assert note.startswith(f"the tokenizer {name} takes clauses for words ('")
    assert f"{language} has no spaces between words; tokenizer={tokenizer} finds {language} words" in note
    assert note.endswith(f"(pip install 'jose-embed[{extra}]')")


def test_documents_without_a_known_word_are_counted() -> None:
    texts = ["same words here"] * 5 + [f"rare{number}" for number in range(20)] + [""] * 30
    assert notes(texts, min_count=5) == ["20 of 25 documents have no word of the vocabulary; lower min_count (it is 5)"]
    assert notes(texts) == []


def test_a_vocabulary_in_two_spellings() -> None:
    letters = "éèêëîïôöùûüñç"
    composed = [f"mot{letter}{number}" for letter in letters for number in range(2)]
    decomposed = [word.replace(letter, letters_of(letter)) for word in composed for letter in letters if letter in word]
    (note,) = notes([" ".join(composed), " ".join(decomposed)], normalize="none")
    assert note.startswith("52 of 52 words are in the vocabulary in two spellings, such as 'mot")
    assert note.endswith("; normalize='nfc' makes one word of them")
    assert notes([" ".join(composed), " ".join(decomposed)]) == []
    wide = [f"ｗｏｒｄ{number}" for number in range(20)]
    assert "normalize='nfkc'" in notes([" ".join(wide), " ".join(f"word{number}" for number in range(20))])[0]
    upper = [f"Word{number}" for number in range(20)]
    cased = [" ".join(upper), " ".join(upper).lower()]
    assert "tokenizer='words'" in notes(cased, tokenizer="whitespace")[0]
    assert notes(cased) == []


def letters_of(letter: str) -> str:
    """The letter and its accent."""
    return unicodedata.normalize("NFD", letter)


@pytest.mark.parametrize(
    "texts",
    [
        ENGLISH * 20,
        ["질량이 너무 나쁩니다 매우 실망했습니다", "호텔 방이 아주 큽니다"] * 10,
        ["质量 太 差 了 非常 失望", "酒店 的 房间 很 大 服务 不错"] * 10,
        ["Привет, мир", "это обычный текст"] * 10,
        ["हिन्दी भाषा का पाठ", "यह एक वाक्य है"] * 10,
    ],
)
def test_nothing_is_said_about_good_text(texts: list[str]) -> None:
    assert notes(texts) == []


def test_the_note_is_on_the_screen_and_in_the_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "ja.txt"
    text.write_text("\n".join([JAPANESE] * 5))
    model = str(tmp_path / "m.jose")
    assert train_main([str(text), "-o", model, "--dim", "2", "--epochs", "1"]) == 0
    assert "--tokenizer sudachi finds Japanese words" in capsys.readouterr().err
    assert main(["info", model]) == 0
    assert "Japanese has no spaces between words" in capsys.readouterr().out
