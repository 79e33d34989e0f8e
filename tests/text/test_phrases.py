"""Phrases: found by their score, joined in training and in every later text alike."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jose_embed
from jose_embed.cli.program import main, train_main
from jose_embed.errors import CorpusError, ModelError
from jose_embed.model.line_vectors import line_vectors
from jose_embed.storage.manifest import manifest_checksum
from jose_embed.text import phrases
from jose_embed.text.encode import encode_texts
from jose_embed.text.kept import open_encoded, write_encoded
from jose_embed.text.phrases import PairTable, find_phrases, join_in_place
from jose_embed.text.reader import Block
from jose_embed.text.word_lists import VocabularyChoice

documents = st.lists(st.lists(st.integers(0, 4), max_size=12), min_size=1, max_size=8)


def arrays(texts: list[list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tokens = np.array([row for text in texts for row in text], np.int32)
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return tokens, offsets, np.bincount(tokens, minlength=5).astype(np.int64)


@settings(max_examples=60)
@given(documents, st.sampled_from([-1.0, 0.2, 0.5]), st.booleans())
def test_pairs_are_scored_as_defined(texts: list[list[int]], threshold: float, crowded: bool) -> None:
    tokens, offsets, counts = arrays(texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phrases, "_RAREST", 2)
        patch.setattr(phrases, "_FIRST_SLOTS", 4 if crowded else 1 << 8)
        first, second, scores = find_phrases(tokens, offsets, counts, 1, threshold)
    total = max(2, len(tokens))
    wanted = {}
    for (a, b), n in Counter(pair for text in texts for pair in pairwise(text)).items():
        if n >= 2 and n < total:
            score = math.log(n * total / (int(counts[a]) * int(counts[b]))) / -math.log(n / total)
            if score >= threshold:
                wanted[a, b] = min(score, 1.0)
    found = dict(zip(zip(first.tolist(), second.tolist(), strict=True), scores.tolist(), strict=True))
    assert found == pytest.approx(wanted)
    assert list(scores) == sorted(scores, reverse=True)


@settings(max_examples=60)
@given(documents, st.dictionaries(st.tuples(st.integers(0, 4), st.integers(0, 4)), st.just(0), max_size=6))
def test_pairs_are_joined_from_left_to_right(texts: list[list[int]], pairs: dict[tuple[int, int], int]) -> None:
    pairs = {pair: 5 + number for number, pair in enumerate(pairs)}
    wanted = []
    for text in texts:
        joined, at = [], 0
        while at < len(text):
            row = pairs.get(tuple(text[at : at + 2]))
            joined.append(text[at] if row is None else row)
            at += 1 if row is None else 2
        wanted.append(joined)
    tokens, offsets, _ = arrays(texts)
    keys = np.array(list(pairs), np.int64).reshape(-1, 2)
    table = PairTable.of(keys[:, 0], keys[:, 1], np.array(list(pairs.values()), np.int32), 5)
    counts = np.zeros(11, np.int64)
    n = join_in_place(tokens, offsets, table, counts)
    assert [tokens[a:b].tolist() for a, b in pairwise(offsets.tolist())] == wanted
    assert n == offsets[-1] == counts.sum()


TEXTS = ["we live in New York now", "New York is big", "the new car in York", "is the big car now"] * 6 + [
    "new york new"
] * 6


def choice() -> VocabularyChoice:
    return VocabularyChoice(phrases=True)


def test_the_vocabulary_has_phrases_in_place_of_their_words() -> None:
    with encode_texts(TEXTS, min_count=5, choice=choice()) as corpus:
        words, counts = corpus.vocabulary.words, corpus.vocabulary.counts
        assert "new_york" in [phrase.word for phrase in corpus.phrases]
        seen = Counter(words[row] for row in corpus.tokens.tolist())
        assert dict(seen) == dict(zip(words, counts.tolist(), strict=True))
        texts = [" ".join(words[row] for row in corpus[number]) for number in range(len(TEXTS))]
        assert texts[1].startswith("new_york")
        assert min(counts) >= 5
    with encode_texts(TEXTS, min_count=5) as corpus:
        assert not [word for word in corpus.vocabulary.words if "_" in word]


def test_a_kept_encoding_keeps_its_phrases(tmp_path: Path) -> None:
    with encode_texts(TEXTS, min_count=5, choice=choice()) as corpus:
        write_encoded(corpus, tmp_path / "x.encoded")
        with open_encoded(tmp_path / "x.encoded") as found:
            assert list(found.phrases) == list(corpus.phrases)
            assert found.tokens.tolist() == corpus.tokens.tolist()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phrases")
    folder.joinpath("t.txt").write_text("\n".join(TEXTS))
    options = ["--phrases", "--dim", "4", "--epochs", "2", "--workers", "1", "-q"]
    assert train_main([str(folder / "t.txt"), "-o", str(folder / "m.jose"), *options]) == 0
    return folder / "m.jose"


def test_later_texts_are_joined_as_the_training_text(model: Path) -> None:
    found = jose_embed.load(model)
    assert found.config.phrases is True
    again = found.infer(TEXTS)
    assert np.array_equal(again, found.doc_vectors)
    blocks = [Block("".join(f"{text}\n" for text in TEXTS).encode() * 5_000, 0)]  # more than a megabyte: compiled
    (lines,) = line_vectors(found.encoder, blocks)
    assert np.array_equal(lines.vectors[: len(TEXTS)], again)
    assert np.array_equal(lines.n_known[: len(TEXTS)], found.doc_token_counts)
    (inferred,) = found.encoder.infer_detailed(["in nowhere New unknown York"])
    assert [found.words[row] for row in inferred.known] == ["in", "new_york"]
    assert (inferred.n_tokens, inferred.n_known, inferred.unknown) == (4, 2, ("nowhere", "unknown"))


def test_a_phrase_is_looked_up_as_it_is_typed(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["similar", str(model), "New York", "-k", "1"]) == 0
    assert capsys.readouterr().err == "asked: New York, matched: new_york\n"
    assert jose_embed.load(model).matched_word("new_york") == "new_york"


def test_the_card_shows_the_first_phrases(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(model)]) == 0
    shown = capsys.readouterr().out
    (line,) = [line for line in shown.splitlines() if ", such as " in line]
    assert line.split()[0] == "phrases"
    assert "new_york" in line


@pytest.mark.parametrize("content", ["{}", "[1]", '[["a", "b"]]', '[["a", 1, 0.5]]', '[["", "b", 0.5]]', "null"])
def test_damaged_phrases_are_refused(model: Path, tmp_path: Path, content: str) -> None:
    shutil.copytree(model, tmp_path / "m.jose")
    data = content.encode()
    (tmp_path / "m.jose" / "phrases.json").write_bytes(data)
    manifest = json.loads((tmp_path / "m.jose" / "manifest.json").read_text())
    manifest["files"]["phrases.json"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest["checksum"] = manifest_checksum(manifest)
    (tmp_path / "m.jose" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises((ModelError, CorpusError), match=r"phrases.json"):
        jose_embed.load(tmp_path / "m.jose")
