"""Neighbours of words, sums of words and vectors: ``GET`` and ``POST /similar``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl

import numpy as np
import orjson
from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from jose_embed.errors import ConfigError, UnknownWordError
from service.problems import Problem, shown
from service.search.queries import Found, SearchQuery
from service.search.served_model import ServedModel
from service.settings import MAX_ANSWERS
from service.web.route import MOST_PARAMETERS, ReadRoute, answer, calls, engine_of, problems, results
from service.web.schemas import SimilarAnswer, SimilarBatch, SimilarBatchAnswer, SimilarItem, SimilarQuery

__all__ = ["kept_router", "router", "unknown_word"]

_CHUNK: Final = 32  # queries of a batch that go through the search lane together


class KeptRoute(ReadRoute):
    """A call whose answers are kept by their query string for as long as the model is served.

    It is also the call that is asked most often: a query string that fits is read here, and only one that does not fit
    goes the long way through FastAPI, which says what is wrong with it.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def called(request: Request) -> Response:
            state = request.app.state
            query_string = request.scope["query_string"]
            kept = state.engine.snapshot.served.answers.get(query_string)
            if kept is None:
                query = _plain_query(query_string)
                if query is None:
                    return await handle(request)
                state.access.check(request, self.right)
                state.admission.enter()
                try:
                    return await similar(request, query)
                finally:
                    state.admission.leave(0)
            state.access.check(request, self.right)
            state.engine.metrics.cached.inc()
            return answer(kept)

        return called


def _plain_query(query_string: bytes) -> SimilarQuery | None:
    """The parameters of a query string; None where they do not fit."""
    try:
        pairs = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, max_num_fields=MOST_PARAMETERS)
        values = dict(pairs)
        return SimilarQuery.model_validate(values) if len(values) == len(pairs) else None
    except ValueError:  # too many of them, or not what the call takes
        return None


router = calls(ReadRoute, "words")
kept_router = calls(KeptRoute, "words")


@kept_router.get(
    "/similar", response_model=SimilarAnswer, responses=problems("unknown-word"), summary="The neighbours of a word"
)
async def similar(request: Request, query: Annotated[SimilarQuery, Query()]) -> Response:
    """The words nearest to a word by cosine, best first. An unknown word is an error with suggestions, never silently
    another word."""
    engine = engine_of(request)
    snapshot = engine.snapshot
    served = snapshot.served
    row = served.embeddings.index_of(query.word)
    if row is None:
        raise await unknown_word(request, served, query.word)
    question = SearchQuery(
        served.words.vectors[row], query.k, first_rows=query.max_rank, excluded=(row,), least=query.min_score
    )
    head = {"word": query.word}

    def finish(results: list[Found]) -> bytes:
        return orjson.dumps(head | {"neighbors": results[0], "model": served.reference})

    body = await engine.search(snapshot, [question], finish)
    served.answers.put(request.scope["query_string"], body)
    return answer(body)


@router.post(
    "/similar",
    response_model=SimilarBatchAnswer,
    responses=problems(body=True),
    summary="The neighbours of many queries",
)
async def similar_batch(request: Request, batch: SimilarBatch) -> Response:
    """Queries by a word, by words added and subtracted (analogies), or by a vector; `without` projects directions out,
    `among` names the only candidates. Each item has a status of its own: one that fails does not fail the others. The
    words of a query are no answers to it."""
    engine = engine_of(request)
    snapshot = engine.snapshot
    served = snapshot.served
    wanted = sum(item.k for item in batch.queries)
    if wanted > MAX_ANSWERS:
        raise Problem(
            "invalid-request",
            f"the queries' k sum to {wanted}; at most {MAX_ANSWERS} are allowed; send fewer at once",
            errors=[],
        )
    pieces: list[bytes] = []
    for first in range(0, len(batch.queries), _CHUNK):
        items = batch.queries[first : first + _CHUNK]
        prepared = await engine.work(functools.partial(_all_prepared, served, items))
        questions = [item for item in prepared if isinstance(item, SearchQuery)]

        def finish(neighbors: list[Found], prepared: list[SearchQuery | _Failure] = prepared) -> list[bytes]:
            found = iter(neighbors)
            return [
                orjson.dumps(
                    {"status": 200, "neighbors": next(found)}
                    if isinstance(item, SearchQuery)
                    else {"status": item.status, "problem": item.problem}
                )
                for item in prepared
            ]

        pieces += await engine.search(snapshot, questions, finish)
    return answer(await engine.work(lambda: results(pieces, served.reference)))


@dataclass(frozen=True, slots=True)
class _Failure:
    status: int
    problem: dict[str, Any]


def _all_prepared(served: ServedModel, items: Sequence[SimilarItem]) -> list[SearchQuery | _Failure]:
    return [_prepared(served, item) for item in items]


def _prepared(served: ServedModel, item: SimilarItem) -> SearchQuery | _Failure:
    model = served.embeddings
    try:
        direction = model.query(
            item.word, positive=item.positive, negative=item.negative, vector=item.vector, without=item.without
        )
        among = None
        if item.among is not None:
            rows = {_row(served, word) for word in item.among} - set(direction.words)
            among = np.array(sorted(rows), np.int64)
    except UnknownWordError as error:
        problem = Problem(
            "unknown-word", f"{shown(error.word)} is not in the vocabulary", suggestions=list(error.suggestions)
        )
    except ConfigError as error:
        problem = Problem("no-direction", str(error))
    else:
        return SearchQuery(
            direction.vector,
            item.k,
            first_rows=item.max_rank,
            excluded=direction.words,
            among=among,
            least=item.min_score,
        )
    return _Failure(problem.status, problem.document())


def _row(served: ServedModel, word: str) -> int:
    row = served.embeddings.index_of(word)
    if row is None:
        raise UnknownWordError(word, served.suggestions(word))
    return row


async def unknown_word(request: Request, served: ServedModel, word: str) -> Problem:
    """The problem that an unknown word is, with similar spellings."""
    suggestions = await engine_of(request).work(lambda: served.suggestions(word))
    return Problem("unknown-word", f"{shown(word)} is not in the vocabulary", suggestions=suggestions)
