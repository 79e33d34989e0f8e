"""Words themselves: by prefix, one, and how far two are apart."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import Path, Query
from starlette.requests import Request
from starlette.responses import Response

from service.calls.similar import spellings, unknown_word
from service.search.queries import angles
from service.web.route import ReadRoute, answer, calls, engine_of, problems
from service.web.schemas import Distance, DistanceQuery, WordAnswer, WordList, WordListQuery

router = calls(ReadRoute, "words")


@router.get("/words", response_model=WordList, responses=problems(), summary="The words of a prefix")
async def words(request: Request, query: Annotated[WordListQuery, Query()]) -> Response:
    """The most frequent words that start with a prefix: autocomplete."""
    engine = engine_of(request)
    served = engine.snapshot.served
    model = served.embeddings
    head: dict[str, Any] = {"prefix": query.prefix}
    found = await engine.work(lambda: served.prefix_index.starting_with(query.prefix, query.limit))
    if not found.total and (prefix := model.respelled_prefix(query.prefix)) != query.prefix:
        found = await engine.work(lambda: served.prefix_index.starting_with(prefix, query.limit))
        head |= {"respelled": [{"asked": query.prefix, "matched": prefix}]} if found.total else {}
    listed = [{"word": model.words[row], "rank": row + 1, "count": int(model.counts[row])} for row in found.rows]
    return answer(head | {"words": listed, "total": found.total, "model": served.reference})


@router.get("/words/{word:path}", response_model=WordAnswer, responses=problems("unknown-word"), summary="One word")
async def word(request: Request, word: Annotated[str, Path(min_length=1, max_length=1_000)]) -> Response:
    """A word's rank, count and vector. Of a word that a model with sub-words composes the rank is null."""
    served = engine_of(request).snapshot.served
    model = served.embeddings
    row = model.index_of(word)
    if row is not None:
        found = {"word": word, "rank": row + 1, "count": int(model.counts[row]), "embedding": served.words.vectors[row]}
    elif model.is_composed(word):
        found = {"word": word, "rank": None, "count": 0, "embedding": model.vector_of(word), "composed": True}
    else:
        raise await unknown_word(request, served, word)
    return answer(found | spellings(served, [word]) | {"model": served.reference})


@router.get(
    "/distance", response_model=Distance, responses=problems("unknown-word"), summary="How far two words are apart"
)
async def distance(request: Request, query: Annotated[DistanceQuery, Query()]) -> Response:
    """The cosine of two words, and the angle between them."""
    served = engine_of(request).snapshot.served
    vectors = []
    for name in (query.a, query.b):
        if not served.embeddings.has_vector(name):
            raise await unknown_word(request, served, name)
        vectors.append(served.embeddings.vector_of(name))
    a, b = vectors[0].astype(np.float64), vectors[1].astype(np.float64)
    score = min(1.0, max(-1.0, float((a * b).sum())))
    angle = float(angles(a, b[None], np.array([score]))[0])
    found = {
        "a": query.a,
        "b": query.b,
        "score": round(score, 7),
        "cosine_distance": round(1.0 - score, 7),
        "angle_deg": round(angle, 5),
    }
    if any(map(served.embeddings.is_composed, (query.a, query.b))):
        found["composed"] = True
    return answer(found | spellings(served, [query.a, query.b]) | {"model": served.reference})
