"""Raw text of scripts without spaces, from training to the service.

The texts are sentences of this file. ``JOSE_LANGUAGE_TEXTS`` names a folder with larger ones:
``ja.txt``, ``th.txt`` and ``ko.txt``, a document on each line.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from serving import Starter

import jose_embed

SENTENCES = {
    "ja": (
        "sudachi",
        "sudachipy",
        ["東京の天気は晴れです。", "明日は雨が降るでしょう。", "気温が高く、風が強いです。", "大阪の天気は曇りです。"],
        ["ファイルを開いて読み込みます。", "コマンドを実行してください。", "設定ファイルを保存します。"],
    ),
    "th": (
        "pythainlp",
        "pythainlp",
        ["วันนี้อากาศร้อนมาก", "พรุ่งนี้ฝนจะตกหนัก", "อากาศเย็นและลมแรง", "ฝนตกที่กรุงเทพ"],
        ["เปิดแฟ้มเอกสาร", "บันทึกแฟ้มลงในเครื่อง", "เลือกข้อความในเอกสาร"],
    ),
    "ko": (
        "kiwi",
        "kiwipiepy",
        [
            "오늘은 날씨가 맑습니다.",
            "내일은 비가 내립니다.",
            "바람이 강하고 기온이 낮습니다.",
            "서울의 날씨는 흐립니다.",
        ],
        ["파일을 열고 문서를 저장합니다.", "명령을 실행하세요.", "문서의 글꼴을 선택합니다."],
    ),
}


def texts_of(language: str) -> list[str]:
    """Documents of one language, a line each."""
    if folder := os.environ.get("JOSE_LANGUAGE_TEXTS"):
        return Path(folder, f"{language}.txt").read_text("utf-8").split("\n")[:-1]
    random = np.random.default_rng(0)
    return ["".join(random.choice(topic, 4)) for topic in SENTENCES[language][2:] * 60]


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("language", SENTENCES)
def test_raw_text_from_training_to_the_service(language: str, tmp_path: Path, starter: Starter) -> None:
    tokenizer, module = SENTENCES[language][:2]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    texts = texts_of(language)
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in texts), "utf-8")
    model = jose_embed.train(tmp_path / "texts.txt", tokenizer=tokenizer, keep_text=True, epochs=5, progress=False)
    model.save(tmp_path / "m.jose")
    print(f"{language}: {model.n_docs:,} documents, {model.n_words:,} words, {(~model.known_documents).sum()} unknown")
    running = starter(tmp_path / "m.jose", "--documents", str(tmp_path / "documents.sqlite3"))
    running.client.timeout = 300  # the first text loads the dictionary, the first question by words makes an index
    word = next(word for word in model.words if len(word) > 1 and not word.isascii())
    found = running.get("/similar", params={"word": word, "k": 5}).json()["neighbors"]
    assert [each["word"] for each in found] == [each.word for each in model.most_similar(word, k=5)]
    rows = [row for row in np.flatnonzero(model.known_documents)[:2_000] if 20 <= len(texts[row]) <= 2_000][::100]
    assert rows
    for row in rows:
        made = running.post("/embed-doc", {"text": texts[row]}).json()
        np.testing.assert_allclose(made["embedding"], model.infer([texts[row]])[0], atol=1e-6)
        for mode in ({}, {"mode": "hybrid"}, {"mode": "words"}):
            nearest = running.post("/search", {"text": texts[row], "k": 10, "include": ["text"], **mode}).json()
            found_texts = [sorted(each["text"]) for each in nearest["neighbors"]]  # sentences in any order
            assert sorted(texts[row]) in found_texts or (mode == {"mode": "words"} and found_texts), (mode, texts[row])
    assert running.stop() == 0, "".join(running.lines)
