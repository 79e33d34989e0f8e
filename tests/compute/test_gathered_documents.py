"""Documents read in any order and pieces: always the same words, and little of the file in memory."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jose_embed.compute import documents as passages
from jose_embed.text.encode import encode, encode_texts


@given(st.lists(st.integers(0, 9), max_size=30), st.data())
def test_documents_are_gathered_in_any_order(lengths: list[int], data: st.DataObject) -> None:
    offsets = np.cumsum([0, *lengths])
    tokens = np.arange(offsets[-1], dtype=np.int32)
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=20) if lengths else st.just([]))
    words, ends = passages.gathered(tokens, offsets, np.array(rows, np.int64))
    assert [words[a:b].tolist() for a, b in itertools.pairwise(ends)] == [
        tokens[offsets[row] : offsets[row + 1]].tolist() for row in rows
    ]
    assert not words.flags.writeable
    assert words.dtype == np.int32


@pytest.mark.parametrize("small", [0, 10**9])
@pytest.mark.parametrize("at_once", [1, 1000, 1 << 30])
def test_a_mapped_text_is_read_piece_by_piece(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at_once: int, small: int
) -> None:
    monkeypatch.setattr(passages, "_AT_ONCE", at_once)
    monkeypatch.setattr(passages, "_SMALL", small)
    (tmp_path / "a.txt").write_text("".join("a b c d\n" * (i % 3) + "\n" + "b " * i + "\n" for i in range(120)))
    with encode(tmp_path / "a.txt", tokenizer="whitespace", min_count=1) as corpus:
        plain = [corpus[d].tolist() for d in range(corpus.n_documents)]
        seen = []
        for first, words, ends in passages.stretches(corpus.tokens, corpus.offsets):
            assert first == len(seen)
            assert len(words) <= at_once or len(ends) == 2
            seen += [words[a:b].tolist() for a, b in itertools.pairwise(ends)]
        assert seen == plain
        rows = np.random.default_rng(1).permutation(corpus.n_documents)
        words, ends = passages.gathered(corpus.tokens, corpus.offsets, rows)
        assert [words[a:b].tolist() for a, b in itertools.pairwise(ends)] == [plain[row] for row in rows]


def resident(name: str) -> int:
    """Bytes of this process that are resident, of mapped files ("RssFile") or of its own ("RssAnon")."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    pytest.skip("this system does not tell")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell what is resident")
def test_what_was_read_does_not_stay_in_memory() -> None:
    """80 MB of text; passing it and gathering from all over it leaves little of it behind."""
    words = " ".join(f"w{i}" for i in range(20_000))
    with encode_texts((words for _ in range(1000)), tokenizer="whitespace", min_count=1) as corpus:
        assert corpus.tokens.nbytes == 80_000_000
        before = resident("RssFile")
        corpus.tokens.sum()
        assert resident("RssFile") - before > 60e6
        rows = np.random.default_rng(1).permutation(1000)
        for start in range(0, 1000, 100):
            passages.gathered(corpus.tokens, corpus.offsets, rows[start : start + 100])
        assert resident("RssFile") - before < 20e6
        for _, some, _ in passages.stretches(corpus.tokens, corpus.offsets):
            some.sum()
            assert resident("RssFile") - before < 20e6
