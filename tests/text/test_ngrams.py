"""Character n-grams and their rows."""

from __future__ import annotations

from itertools import pairwise
from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st

from jose_embed.text.ngrams import LONGEST_WORD, Ngrams

WORDS = st.text(max_size=LONGEST_WORD + 5).filter(lambda text: all(not 0xD800 <= ord(c) < 0xE000 for c in text))


def slow(word: str, shortest: int, longest: int) -> list[str]:
    """Every piece of the marked word, by its definition."""
    marked = "<" + word + ">"
    pieces = {(start, end) for start in range(len(marked)) for end in range(start + 1, len(marked) + 1)}
    return sorted(marked[start:end] for start, end in pieces if shortest <= end - start <= longest)


@given(word=WORDS, shortest=st.integers(1, 8), more=st.integers(0, 8), buckets=st.integers(1, 5000))
def test_ngrams_are_all_pieces_of_the_marked_word(word: str, shortest: int, more: int, buckets: int) -> None:
    ngrams = Ngrams(shortest, shortest + more, buckets)
    expected = slow(word, shortest, shortest + more) if len(word) <= LONGEST_WORD else []
    assert sorted(ngrams.of(word)) == expected
    assert sorted(ngrams.rows(word)) == sorted(crc32(piece.encode()) % buckets for piece in expected)


@given(words=st.lists(WORDS, max_size=5), shortest=st.integers(1, 7))
def test_the_rows_of_many_words_are_those_of_each(words: list[str], shortest: int) -> None:
    ngrams = Ngrams(shortest, 7, 1000)
    rows, offsets = ngrams.rows_of_words(words)
    assert (rows.dtype, offsets.dtype, len(offsets)) == ("int32", "int64", len(words) + 1)
    assert [rows[a:b].tolist() for a, b in pairwise(offsets)] == list(map(ngrams.rows, words))
    assert ngrams.count(words) == len(rows)
