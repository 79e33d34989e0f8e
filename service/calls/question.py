"""Questions in words to the trained documents: by meaning, exact words or both, with filters, facets and passages."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import orjson
from starlette.requests import Request
from starlette.responses import Response

from jose_embed.errors import ConfigError, ModelError
from jose_embed.model.filters import Filter
from jose_embed.model.search import chosen_mode
from service.calls.embed import within_limit
from service.calls.kept import damaged_texts, found_json
from service.problems import Problem
from service.search.queries import angles
from service.search.served_model import ServedModel
from service.web.route import answer, engine_of
from service.web.schemas import SearchRequest

__all__ = ["answer_to_question"]


async def answer_to_question(request: Request, wanted: SearchRequest) -> Response:
    """Answers a search with a mode, a filter, facets or passages.

    Raises:
        Problem: ``invalid-request``, ``invalid-filter``, ``text-too-long``, ``storage-unavailable``, ``saturated``.
    """
    engine = engine_of(request)
    snapshot = engine.snapshot
    if wanted.source == "added" or (wanted.source == "all" and len(snapshot.library)):
        detail = "mode, filter, facets and passage_words are for the trained documents; give source: trained"
        raise Problem("invalid-request", detail, errors=[])
    assert wanted.text is not None
    text, _ = within_limit(wanted.text, engine.settings.max_text_characters)
    content = await engine.long_work(partial(_answered, snapshot.served, wanted, text))
    if wanted.include:
        content["neighbors"] = await found_json(request, snapshot, content["neighbors"], wanted.include)
    return answer(await engine.work(partial(orjson.dumps, content)))


def _answered(served: ServedModel, wanted: SearchRequest, text: str) -> dict[str, Any]:
    """The answer, without what the request includes of the documents."""
    search = served.embeddings.document_search
    try:
        mode = chosen_mode(wanted.mode, search.has_texts)
        if wanted.passage_words is not None and not search.has_texts:
            raise ConfigError("passages need texts, which the model does not keep; train with --keep-text")
    except ConfigError as error:
        raise Problem("invalid-request", str(error), errors=[]) from None
    try:
        among = np.ones(served.embeddings.n_docs, np.bool_)
        if wanted.filter is not None:
            among = Filter.parse(wanted.filter).fitting(search.fields)
        facets = {
            name: [{"value": value, "count": count} for value, count in search.fields.facets(name, among)]
            for name in wanted.facets
        }
        question = search.question(text)
        rows, scores = search.best(question, wanted.k, mode, among & served.embeddings.known_documents)
    except ConfigError as error:
        raise Problem("invalid-filter", str(error)) from None
    except ModelError as error:
        raise damaged_texts(error) from None
    if mode == "words" and len(scores):
        scores = scores / max(float(scores[0]), 1e-9)
    vectors = served.embeddings.doc_vectors[rows].astype(np.float64)
    if question.vector is None:
        degrees = np.full(len(rows), 90.0)
    else:
        cosines = np.clip((vectors * question.vector).sum(axis=1), -1, 1)
        degrees = angles(question.vector, vectors, cosines)
    neighbors: list[dict[str, Any]] = [
        {"id": served.embeddings.doc_ids[row], "source": "trained", "score": score, "angle_deg": angle}
        for row, score, angle in zip(
            rows.tolist(), np.clip(scores, -1, 1).round(7).tolist(), degrees.round(5).tolist(), strict=True
        )
        if wanted.min_score is None or score >= wanted.min_score
    ]
    if wanted.passage_words is not None:
        try:
            kept = served.embeddings.kept_documents(rows[: len(neighbors)].tolist())
        except ModelError as error:
            raise damaged_texts(error) from None
        for neighbor, (whole, _) in zip(neighbors, kept, strict=True):
            neighbor["passage"] = search.passage(question, whole or "", wanted.passage_words)._asdict()
    content: dict[str, Any] = {"target": "documents", "mode": mode, "neighbors": neighbors}
    return content | ({"facets": facets} if facets else {}) | {"model": served.reference}
