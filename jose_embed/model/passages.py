"""Passages: the part of a found document that answers a question.

A text is cut at white space, and long runs without any, as in Chinese or Thai, into short pieces. Windows of a number
of words, each beginning in the middle of the one before, are scored by the share of the question's words in them,
weighted by rarity, and by a third of the cosine of their vectors with the question's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.model.inference import DocumentEncoder
from jose_embed.text.tokenizers import Tokenizer, valid_text

_PIECE: Final = re.compile(r"\S+")
_LONGEST_PIECE: Final = 40  # characters: longer ones are cut
_CUT: Final = 10
_MOST_VECTORS: Final = 64  # windows of a document whose vectors are made: those with most words of the question
_EDGES: Final = re.compile(r"^\W+|\W+$")


class Passage(NamedTuple):
    """A part of a text.

    Attributes:
        text: The part.
        start: Where it begins in the whole text, in characters.
        end: Where it ends.
        highlights: Where words of the question stand in the part: starts and ends in characters, in order.
    """

    text: str
    start: int
    end: int
    highlights: tuple[tuple[int, int], ...]


class _Piece(NamedTuple):
    start: int
    end: int
    words: list[str]


def best_passage(
    text: str,
    n_words: int,
    weights: Mapping[str, tuple[int, float]],
    vector: npt.NDArray[np.float32] | None,
    encoder: DocumentEncoder,
) -> Passage:
    """The passage of a text that answers a question.

    Args:
        text: The text.
        n_words: Words of a passage, at least 1; the last one may have fewer.
        weights: For each spelling of a word of the question the word's number and weight.
        vector: The question's vector; None if it has none.
        encoder: Makes the vectors of passages.
    """
    pieces = _pieces(text, encoder.lookup.tokenizer)
    if not pieces:
        return Passage(text[:0], 0, 0, ())
    windows = _windows(pieces, n_words)
    total = sum(dict(weights.values()).values()) or 1.0
    scores = np.array([_found(pieces[a:b], weights) / total for a, b in windows])
    if vector is not None and len(windows) > 1:
        some = np.sort(np.argsort(-scores, kind="stable")[:_MOST_VECTORS])
        made = encoder.infer_detailed(
            [text[slice(*_span(pieces, windows[at]))] for at in some.tolist()], most_unknown=0
        )
        cosines = [0.0 if one.vector is None else float(one.vector @ vector) for one in made]
        scores[some] += np.array(cosines) / 3 + 1  # before all others
    first, last = windows[int(scores.argmax())]
    start, end = _span(pieces, (first, last))
    marks = [mark for piece in pieces[first:last] for mark in _marks(text, piece, weights)]
    return Passage(text[start:end], start, end, tuple((a - start, b - start) for a, b in marks))


def _pieces(text: str, tokenizer: Tokenizer) -> list[_Piece]:
    found: list[_Piece] = []
    for match in _PIECE.finditer(text):
        step = _CUT if match.end() - match.start() > _LONGEST_PIECE else _LONGEST_PIECE
        for start in range(match.start(), match.end(), step):
            end = min(start + step, match.end())
            found.append(_Piece(start, end, tokenizer(valid_text(text[start:end]))))
    return found


def _windows(pieces: Sequence[_Piece], n_words: int) -> list[tuple[int, int]]:
    """Windows as first and last piece: the next begins when half of the words are over."""
    ends = np.cumsum([len(piece.words) for piece in pieces])
    windows: list[tuple[int, int]] = []
    first = 0
    while True:
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + n_words, side="left")) + 1)
        windows.append((first, min(last, len(pieces))))
        if last >= len(pieces):
            return windows
        first = max(first + 1, int(np.searchsorted(ends, before + max(1, n_words // 2), side="left")) + 1)


def _found(pieces: Sequence[_Piece], weights: Mapping[str, tuple[int, float]]) -> float:
    """The weight of the question's different words in a window."""
    return sum(dict(weights[word] for piece in pieces for word in piece.words if word in weights).values())


def _span(pieces: Sequence[_Piece], window: tuple[int, int]) -> tuple[int, int]:
    return pieces[window[0]].start, pieces[window[1] - 1].end


def _marks(text: str, piece: _Piece, weights: Mapping[str, tuple[int, float]]) -> list[tuple[int, int]]:
    """Where words of the question stand in a piece: found as they are spelled, or else the piece without its edges."""
    words = [word for word in dict.fromkeys(piece.words) if word in weights]
    if not words:
        return []
    shown = text[piece.start : piece.end]
    lower = shown.lower() if len(shown.lower()) == len(shown) else shown
    marks: set[tuple[int, int]] = set()
    for word in words:
        at = lower.find(word)
        if at < 0:
            left = _EDGES.match(shown)
            start = left.end() if left is not None and left.end() < len(shown) else 0
            marks.add((piece.start + start, piece.end - len(shown) + len(shown.rstrip(".,;:!?)]}\"'"))))
        while at >= 0:
            marks.add((piece.start + at, piece.start + at + len(word)))
            at = lower.find(word, at + len(word))
    return _joined(sorted(marks))


def _joined(marks: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Marks without overlaps, and none that is empty."""
    joined: list[tuple[int, int]] = []
    for start, end in marks:
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        elif end > start:
            joined.append((start, end))
    return joined
