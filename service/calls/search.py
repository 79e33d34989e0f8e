"""Search over documents and words: ``POST /search``."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from starlette.requests import Request
from starlette.responses import Response

from jose_embed.errors import ConfigError
from service.calls.embed import no_known_words, within_limit
from service.calls.kept import found_json
from service.calls.question import answer_to_question, filtered_neighbors, is_hybrid
from service.calls.similar import spellings, unknown_word
from service.engine.serving import Engine
from service.problems import Problem, shown
from service.search.queries import Found, SearchQuery, Snapshot
from service.search.served_model import ServedModel
from service.web.route import ReadRoute, answer, calls, engine_of, problems
from service.web.schemas import SearchAnswer, SearchRequest

router = calls(ReadRoute, "documents")


@router.post(
    "/search",
    response_model=SearchAnswer,
    responses=problems(
        "unknown-word",
        "unknown-document",
        "no-known-words",
        "no-direction",
        "not-searchable",
        "text-too-long",
        "storage-unavailable",
        "invalid-filter",
        body=True,
    ),
    summary="The documents or words beside a query",
)
async def search(request: Request, wanted: SearchRequest) -> Response:
    """Searches the trained documents and those that were added, or the words, by a text, a word, a vector or a
    document. An acknowledged document is found at once. A document without a known word is never found. `mode` says how
    a text was compared: by meaning and exact words where the model keeps texts, otherwise by meaning.

    The words beside a text or a document are those that describe it; rare words are shrunk: `score` is the cosine times
    a factor below 1 that grows with a word's count."""
    engine = engine_of(request)
    snapshot = engine.snapshot
    if wanted.is_question or is_hybrid(engine, snapshot, wanted):
        return await answer_to_question(request, wanted)
    excluded: tuple[int, ...] = ()
    excluded_id: tuple[str, str] | None = None
    composed = False
    if wanted.word is not None:
        row = snapshot.served.embeddings.index_of(wanted.word)
        composed = row is None and snapshot.served.embeddings.is_composed(wanted.word)
        if composed and wanted.target == "words":
            vector = snapshot.served.embeddings.vector_of(wanted.word)
        elif composed:
            vector = (await engine.work(partial(snapshot.served.embeddings.infer, [wanted.word])))[0]
        elif row is None:
            raise await unknown_word(request, snapshot.served, wanted.word)
        elif wanted.target == "words":
            vector, excluded = snapshot.served.words.vectors[row], (row,)
        else:
            # A product with a matrix of dim rows and columns: not in the event loop.
            vector = await engine.work(partial(snapshot.served.embeddings.encoder.word_as_document, row))
    elif wanted.vector is not None:
        try:
            vector = snapshot.served.embeddings.query(vector=wanted.vector).vector
        except ConfigError as error:
            raise Problem("no-direction", str(error)) from None
    elif wanted.text is not None:
        text, _ = within_limit(wanted.text, engine.settings.max_text_characters)
        (made,) = await engine.embed(snapshot.served, [text])
        if made.vector is None:
            raise no_known_words(made)
        vector, composed = made.vector, made.composed
    else:
        assert wanted.document_id is not None
        source, vector = await _document(engine, snapshot, wanted.document_id, wanted.document_source or wanted.source)
        excluded_id = (source, wanted.document_id) if wanted.target == "documents" else None
    asked = [wanted.word] if wanted.word is not None else []
    head = (
        {"target": wanted.target, "mode": "vector"}
        | spellings(snapshot.served, asked)
        | ({"composed": True} if composed else {})
    )
    of_words = wanted.word is not None or (wanted.vector is not None and wanted.space == "words")
    if wanted.target == "words" and not of_words:
        describing = partial(_describing_words, snapshot.served, vector, wanted.k, wanted.min_score)
        neighbors = await engine.long_work(describing)
        return answer(head | {"neighbors": neighbors, "model": snapshot.served.reference})
    if wanted.filter is not None:
        filtering = partial(filtered_neighbors, snapshot, engine.store, wanted, vector, excluded_id)
        fitting = await engine.long_work(filtering)
        shown = await found_json(request, snapshot, fitting, wanted.include) if wanted.include else fitting
        content = head | {"neighbors": shown, "model": snapshot.served.reference}
        return answer(await engine.work(partial(orjson.dumps, content)))
    question = SearchQuery(
        vector,
        wanted.k,
        wanted.target,
        excluded=excluded,
        source=wanted.source,
        excluded_id=excluded_id,
        least=wanted.min_score,
    )

    if wanted.include and wanted.target == "documents":
        (found,) = await engine.search(snapshot, [question], list)
        pieces = await found_json(request, snapshot, found, wanted.include)
        content = head | {"neighbors": pieces, "model": snapshot.served.reference}
        return answer(await engine.work(partial(orjson.dumps, content)))

    def finish(results: list[Found]) -> bytes:
        return orjson.dumps(head | {"neighbors": results[0], "model": snapshot.served.reference})

    return answer(await engine.search(snapshot, [question], finish))


def _describing_words(
    served: ServedModel, vector: npt.NDArray[np.float32], k: int, min_score: float | None
) -> list[dict[str, Any]]:
    """The words that describe a direction of the space of documents, as an answer holds them."""
    model = served.embeddings
    directions = model.word_directions
    rows, scores = directions.nearest(vector, k)
    cosines = np.clip(scores / directions.reliability()[rows], -1.0, 1.0)
    least = -np.inf if min_score is None else min_score
    return [
        {"word": model.words[row], "score": score, "angle_deg": angle, "rank": row + 1, "count": count}
        for row, score, angle, count in zip(
            rows.tolist(),
            np.clip(np.round(scores, 7), -1.0, 1.0).tolist(),
            np.round(np.degrees(np.arccos(cosines)), 5).tolist(),
            model.counts[rows].tolist(),
            strict=True,
        )
        if score >= least
    ]


async def _document(engine: Engine, snapshot: Snapshot, id: str, source: str) -> tuple[str, npt.NDArray[np.float32]]:
    """The place of a document, and its vector.

    Raises:
        Problem: ``unknown-document``, ``not-searchable``.
    """
    if source != "trained":
        serial = await engine.work(lambda: engine.store.serial(id))
        if serial is not None:
            vector = snapshot.library.vector(serial)
            if vector is None:  # written after this request took its look at things, or without a known word
                vector = engine.snapshot.library.vector(serial)
            if vector is None:
                raise Problem("not-searchable", f"no word of the added document {shown(id)} is known")
            return "added", vector
    if source != "added":
        try:
            vector = await engine.work(lambda: snapshot.served.document(id))
        except KeyError:
            pass
        else:
            if vector is None:
                raise Problem("not-searchable", f"no word of the trained document {shown(id)} is known")
            return "trained", vector
    where = {"all": "added or trained ", "added": "added ", "trained": "trained "}[source]
    raise Problem("unknown-document", f"there is no {where}document {shown(id)}")
