"""Neighbours of words, sums of words and vectors: ``GET`` and ``POST /similar``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl

import numpy as np
import orjson
from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from jose_embed.errors import ConfigError
from service.engine.serving import Engine
from service.problems import Problem, shown
from service.search.queries import Found, SearchQuery
from service.search.served_model import ServedModel
from service.settings import MAX_ANSWERS, MAX_QUERY_WORDS, MAX_SUGGESTIONS
from service.web.route import MOST_PARAMETERS, ReadRoute, answer, calls, engine_of, problems, results, room_for
from service.web.schemas import SimilarAnswer, SimilarBatch, SimilarBatchAnswer, SimilarItem, SimilarQuery

_CHUNK: Final = 16  # queries of a batch that are searched together, beside those of other requests
_LONGEST_WORD: Final = 1_000
_ANSWER_BYTES: Final = 100  # of a neighbour


class CachedRoute(ReadRoute):
    """A call whose answers are cached by their query string for as long as the model is served.

    It is also the most frequent call: a valid query string is parsed here. Only an invalid one goes through FastAPI,
    which reports what is wrong with it.
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
                with state.admission.entered():
                    return await similar(request, query)
            state.access.check(request, self.right)
            state.engine.metrics.cached.inc()
            return answer(kept)

        return called


def _plain_query(query_string: bytes) -> SimilarQuery | None:
    """The parameters of a query string; None if they are invalid."""
    try:
        pairs = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, max_num_fields=MOST_PARAMETERS)
        values: dict[str, Any] = {name: value for name, value in pairs if name != "without"}
        without = [value for name, value in pairs if name == "without"]
        if len(values) + len(without) != len(pairs):
            return None
        return SimilarQuery.model_validate(values | ({"without": without} if without else {}))
    except ValueError:  # too many, or invalid values
        return None


router = calls(ReadRoute, "words")
cached_router = calls(CachedRoute, "words")


@cached_router.get(
    "/similar",
    response_model=SimilarAnswer,
    responses=problems("unknown-word", "no-direction"),
    summary="The neighbours of a word",
)
async def similar(request: Request, query: Annotated[SimilarQuery, Query()]) -> Response:
    """The words nearest to a word by cosine, best first, or to what remains of it `without` other words. An unknown
    word is an error with suggestions, never silently another word; a word in another spelling, such as with capitals,
    is said in `respelled`."""
    engine = engine_of(request)
    snapshot = engine.snapshot
    served = snapshot.served
    asked = [query.word, *query.without]
    for word in asked:
        if not served.embeddings.has_vector(word):
            raise await unknown_word(request, served, word)
    try:
        direction = served.embeddings.query(query.word, without=query.without)
    except ConfigError as error:
        raise Problem("no-direction", str(error)) from None
    question = SearchQuery(
        direction.vector, query.k, first_rows=query.max_rank, excluded=direction.words, least=query.min_score
    )
    head = {"word": query.word} | ({"without": query.without} if query.without else {}) | spellings(served, asked)
    head |= {"composed": True} if direction.composed else {}

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
    words of a query are not among its answers."""
    engine = engine_of(request)
    snapshot = engine.snapshot
    served = snapshot.served
    _check_sums(batch)
    pieces: list[bytes] = []
    suggestions = _Suggestions(engine, served)
    with room_for(request, sum(item.k for item in batch.queries) * _ANSWER_BYTES):
        for first in range(0, len(batch.queries), _CHUNK):
            items = batch.queries[first : first + _CHUNK]
            found = await engine.work(functools.partial(_all_prepared, served, items))
            prepared = [await suggestions.problem(item) if isinstance(item, str) else item for item in found]
            queries = [item for item in prepared if isinstance(item, SearchQuery)]
            pieces += await engine.search(snapshot, queries, functools.partial(_written, served, items, prepared))
        body = await engine.work(lambda: results(pieces, served.reference))
    return answer(body)


def spellings(served: ServedModel, words: Iterable[str]) -> dict[str, Any]:
    """The member of an answer that says which words matched in another spelling; empty if none did."""
    found = served.embeddings.respelled(words)
    return {"respelled": found} if found else {}


def _check_sums(batch: SimilarBatch) -> None:
    """Refuses what only the items together exceed.

    Raises:
        Problem: ``invalid-request``.
    """
    n_answers = sum(item.k for item in batch.queries)
    lists = ((item.positive, item.negative, item.without, item.among or ()) for item in batch.queries)
    n_words = sum(len(words) for item in lists for words in item)
    for name, n, most in (
        ("k", n_answers, MAX_ANSWERS),
        ("words of positive, negative, without and among", n_words, MAX_QUERY_WORDS),
    ):
        if n > most:
            detail = f"the queries' {name} sum to {n}; at most {most} are allowed; send fewer at once"
            raise Problem("invalid-request", detail, errors=[])


def _written(
    served: ServedModel,
    items: Sequence[SimilarItem],
    prepared: Sequence[SearchQuery | Problem],
    neighbors: list[Found],
) -> list[bytes]:
    """One result per item of a batch, as JSON."""
    found = iter(neighbors)
    return [
        orjson.dumps(
            {"status": query.status, "problem": query.document()}
            if isinstance(query, Problem)
            else {"status": 200, "neighbors": next(found)}
            | spellings(served, _named(item))
            | ({"composed": True} if query.composed else {})
        )
        for item, query in zip(items, prepared, strict=True)
    ]


def _named(item: SimilarItem) -> list[str]:
    """All words of an item."""
    word = [item.word] if item.word is not None else []
    return [*word, *item.positive, *item.negative, *item.without, *(item.among or ())]


class _Suggestions:
    """Similar spellings for the unknown words of one batch, up to a bound.

    A look-up takes some milliseconds of computing for each 100,000 words, so each is a job of its own, apart from the
    work that others wait for.
    """

    def __init__(self, engine: Engine, served: ServedModel) -> None:
        self._engine = engine
        self._served = served
        self._n_looked_up = 0
        self._n_given = 0

    async def problem(self, word: str) -> Problem:
        """The problem for an unknown word."""
        found: list[str] = []
        if max(self._n_looked_up, self._n_given) < MAX_SUGGESTIONS:
            found = await self._engine.long_work(functools.partial(self._served.suggestions, word))
            found = found[: MAX_SUGGESTIONS - self._n_given]
            self._n_looked_up += 1
            self._n_given += len(found)
        return _unknown(word, found)


def _all_prepared(served: ServedModel, items: Sequence[SimilarItem]) -> list[SearchQuery | Problem | str]:
    """A query for each item, or the problem with it, or an unknown word of it."""
    return [_prepared(served, item) for item in items]


def _prepared(served: ServedModel, item: SimilarItem) -> SearchQuery | Problem | str:
    index_of = served.embeddings.index_of
    in_query = len(_named(item)) - len(item.among or ())
    for number, word in enumerate(_named(item)):
        if not 1 <= len(word) <= _LONGEST_WORD:
            detail = f"a word has {len(word)} characters; it must have 1 to {_LONGEST_WORD}"
            return Problem("invalid-request", detail, errors=[])
        known = index_of(word) is not None if number >= in_query else served.embeddings.has_vector(word)
        if not known:
            return str(word)
    try:
        direction = served.embeddings.query(
            item.word, positive=item.positive, negative=item.negative, vector=item.vector, without=item.without
        )
    except ConfigError as error:
        return Problem("no-direction", str(error))
    among = None
    if item.among is not None:
        rows = {row for word in item.among if (row := index_of(word)) is not None}
        among = np.array(sorted(rows - set(direction.words)), np.int64)
    return SearchQuery(
        direction.vector,
        item.k,
        first_rows=item.max_rank,
        excluded=direction.words,
        among=among,
        least=item.min_score,
        composed=bool(direction.composed),
    )


def _unknown(word: str, suggestions: Sequence[str]) -> Problem:
    return Problem("unknown-word", f"{shown(word)} is not in the vocabulary", suggestions=list(suggestions))


async def unknown_word(request: Request, served: ServedModel, word: str) -> Problem:
    """The problem for an unknown word, with similar spellings."""
    suggestions = await engine_of(request).long_work(lambda: served.suggestions(word))
    return _unknown(word, suggestions)
