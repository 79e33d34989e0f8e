"""Vectors for texts: ``POST /embed-doc``."""

from __future__ import annotations

import base64
import functools
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
from starlette.requests import Request
from starlette.responses import Response

from jose_embed.model.inference import Inferred
from service.problems import Problem
from service.search.served_model import ServedModel
from service.web.route import ReadRoute, answer, calls, engine_of, problems, results, room_for
from service.web.schemas import EmbedAnswer, EmbedBatchAnswer, EmbedRequest

NUMBER_BYTES: Final = 13  # of a number of a vector in JSON
_SHOWN_CONTRIBUTIONS: Final = 20
_ROWS: Final = 4_096  # of which cosines are computed at a time

router = calls(ReadRoute, "texts")


@router.post(
    "/embed-doc",
    response_model=EmbedAnswer | EmbedBatchAnswer,
    responses=problems("no-known-words", "text-too-long", body=True),
    summary="Vectors for texts",
)
async def embed_doc(request: Request, wanted: EmbedRequest) -> Response:
    """The vector of a text, of norm 1, and what it was made of. The same text and model give the same bytes, in every
    process and in every company. A text without a known word has no vector, unless the model composes one (`composed`):
    that is an error for one text, and a status of its own for one of several."""
    engine = engine_of(request)
    served = engine.snapshot.served
    most = engine.settings.max_text_characters
    if wanted.text is not None:
        text, truncated = within_limit(wanted.text, most, wanted.truncate)
        (made,) = await engine.embed(served, [text])
        if made.vector is None:
            raise no_known_words(made)
        describe = functools.partial(_described, served, made, wanted, truncated)
        return answer((await engine.work(describe) if wanted.explain else describe()) | {"model": served.reference})
    assert wanted.texts is not None
    cut: list[tuple[str, bool] | Problem] = []
    for text in wanted.texts:
        try:
            cut.append(within_limit(text, most, wanted.truncate))
        except Problem as problem:
            cut.append(problem)
    with room_for(request, len(cut) * served.dim * NUMBER_BYTES):
        made_texts = await engine.embed(served, [one[0] for one in cut if not isinstance(one, Problem)])
        body = await engine.work(lambda: results(_items(served, cut, made_texts, wanted), served.reference))
    return answer(body)


def _items(
    served: ServedModel, cut: Sequence[tuple[str, bool] | Problem], made_texts: Sequence[Inferred], wanted: EmbedRequest
) -> list[bytes]:
    pieces: list[bytes] = []
    made_in_turn = iter(made_texts)
    for one in cut:
        problem: Problem | None = None
        item: dict[str, Any] = {}
        if isinstance(one, Problem):
            problem = one
        else:
            made = next(made_in_turn)
            if made.vector is None:
                problem = no_known_words(made)
            else:
                item = {"status": 200} | _described(served, made, wanted, one[1])
        if problem is not None:
            item = {"status": problem.status, "problem": problem.document()}
        pieces.append(orjson.dumps(item, option=orjson.OPT_SERIALIZE_NUMPY))
    return pieces


def _described(served: ServedModel, made: Inferred, wanted: EmbedRequest, truncated: bool) -> dict[str, Any]:
    assert made.vector is not None
    found = {
        "embedding": encoded(made.vector, wanted.encoding_format),
        "tokens": made.n_tokens,
        "known": made.n_known,
        "coverage": round(made.coverage, 6),
        "unknown": list(made.unknown),
        "concentration": round(min(1.0, max(0.0, made.concentration)), 6),
        "truncated": truncated,
    }
    if made.composed:
        found["composed"] = True
    if wanted.explain:
        found["explain"] = _explained(served, made)
    return found


def _explained(served: ServedModel, made: Inferred) -> list[dict[str, Any]]:
    """The words that weigh most: by their count times the cosine between them and the text."""
    assert made.vector is not None
    vector, vectors = made.vector.astype(np.float64), served.words.vectors
    if not len(made.known):
        return []
    blocks = (made.known[first : first + _ROWS] for first in range(0, len(made.known), _ROWS))
    scores = np.clip(np.concatenate([(vectors[rows] * vector).sum(axis=1) for rows in blocks]), -1.0, 1.0)
    order = np.lexsort((made.known, -(scores * made.counts)))[:_SHOWN_CONTRIBUTIONS]
    words = served.embeddings.words
    return [
        {"word": words[row], "count": count, "score": round(score, 7)}
        for row, count, score in zip(
            made.known[order].tolist(), made.counts[order].tolist(), scores[order].tolist(), strict=True
        )
    ]


def encoded(vector: npt.NDArray[np.float32], encoding: str) -> Any:
    """A vector as an answer holds it: an array of numbers, or base64 of little-endian float32."""
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode("ascii")
    return vector


def within_limit(text: str, most: int, truncate: str = "none") -> tuple[str, bool]:
    """A text cut to a number of characters, and whether it was cut.

    Args:
        text: Any text.
        most: Characters.
        truncate: Which part is cut off; "none" refuses instead.

    Raises:
        Problem: ``text-too-long``.

    Example:
        >>> within_limit("abcd", 3, "start")
        ('bcd', True)
    """
    if len(text) <= most:
        return text, False
    if truncate == "none":
        raise Problem("text-too-long", f"the text has {len(text)} characters; at most {most} are allowed")
    return (text[:most], True) if truncate == "end" else (text[-most:], True)


def no_known_words(made: Inferred) -> Problem:
    """The problem for a text without a known word."""
    unknown = ", ".join(repr(word[:40]) for word in made.unknown[:3]) + (" ..." if len(made.unknown) > 3 else "")
    detail = (
        f"none of the {made.n_tokens} words is in the vocabulary ({unknown})"
        if made.n_tokens
        else "the text holds no word at all"
    )
    return Problem("no-known-words", detail)
