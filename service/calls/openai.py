"""OpenAI's embeddings API, so that its clients work unchanged: ``/v1/embeddings`` and ``/v1/models``."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from starlette.requests import Request
from starlette.responses import Response

from service.calls.embed import NUMBER_BYTES, encoded, no_known_words, within_limit
from service.engine.serving import Engine
from service.problems import Problem, shown
from service.search.served_model import ServedModel
from service.web.route import ReadRoute, answer, calls, engine_of, problems, room_for
from service.web.schemas import OpenAIEmbeddings, OpenAIModel, OpenAIModels, OpenAIRequest

router = calls(ReadRoute, "OpenAI", prefix="/v1")


@router.post(
    "/embeddings",
    response_model=OpenAIEmbeddings,
    responses=problems("unknown-model", "no-known-words", "text-too-long", body=True, v1=True),
    summary="Vectors for texts",
)
async def embeddings(request: Request, wanted: OpenAIRequest) -> Response:
    """As OpenAI's call of this name. Token ids are an error: the model's own tokenizer reads the texts. So is a text
    without a known word, unless the model composes its vector (`composed`) or the service's setting
    `JOSE_V1_UNKNOWN_TEXT` says which vector it gets."""
    engine = engine_of(request)
    served = engine.snapshot.served
    _check_name(served, wanted.model)
    if wanted.dimensions not in (None, served.dim):
        raise Problem(
            "invalid-request", f"dimensions is {wanted.dimensions}; this model has {served.dim}", param="dimensions"
        )
    texts = [wanted.input] if isinstance(wanted.input, str) else wanted.input
    for text in texts:
        within_limit(text, engine.settings.max_text_characters)
    with room_for(request, len(texts) * served.dim * NUMBER_BYTES):
        body = await _vectors(engine, served, texts, wanted)
    return answer(body)


async def _vectors(engine: Engine, served: ServedModel, texts: Sequence[str], wanted: OpenAIRequest) -> bytes:
    """The answer's body.

    Raises:
        Problem: ``no-known-words``.
    """
    made = await engine.embed(served, texts)
    for i, item in enumerate(made):
        if item.vector is None and engine.settings.v1_unknown_text == "error":
            problem = no_known_words(item)
            raise Problem(problem.kind, f"input {i}: {problem.detail}", param="input")
    unknown = None
    if any(item.vector is None for item in made):
        unknown = await engine.work(functools.partial(_vector_of_nothing, engine, served))
    vectors = [unknown if item.vector is None else item.vector for item in made]
    n_tokens = sum(item.n_tokens for item in made)

    def written() -> bytes:
        pieces = [
            orjson.dumps(
                {
                    "object": "embedding",
                    "index": i,
                    "embedding": None if vector is None else encoded(vector, wanted.encoding_format),
                }
                | ({"composed": True} if item.composed else {}),  # OpenAI's clients keep members they do not know
                option=orjson.OPT_SERIALIZE_NUMPY,
            )
            for i, (item, vector) in enumerate(zip(made, vectors, strict=True))
        ]
        tail = orjson.dumps({"model": wanted.model, "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens}})
        return b'{"object":"list","data":[' + b",".join(pieces) + b"]," + tail[1:]

    return written() if len(made) == 1 else await engine.work(written)


def _vector_of_nothing(engine: Engine, served: ServedModel) -> npt.NDArray[np.float32] | None:
    """What stands for a text without a known word, by the setting."""
    if engine.settings.v1_unknown_text == "mean":
        return served.embeddings.encoder.mean_direction
    return np.zeros(served.dim, np.float32) if engine.settings.v1_unknown_text == "zeros" else None


@router.get("/models", response_model=OpenAIModels, responses=problems(v1=True), summary="The served models")
async def models(request: Request) -> Response:
    """As OpenAI's call of this name: the one model that is served."""
    return answer({"object": "list", "data": [_described(engine_of(request).snapshot.served)]})


@router.get(
    "/models/{model:path}",
    response_model=OpenAIModel,
    responses=problems("unknown-model", v1=True),
    summary="One served model",
)
async def model(request: Request, model: str) -> Response:
    """As OpenAI's call of this name; the model may be asked for by its name or its id."""
    served = engine_of(request).snapshot.served
    _check_name(served, model)
    return answer(_described(served))


def _described(served: ServedModel) -> dict[str, Any]:
    created = int(datetime.datetime.fromisoformat(served.reference["version"]).timestamp())
    return {"id": served.name, "object": "model", "created": created, "owned_by": "jose-embed"}


def _check_name(served: ServedModel, name: str) -> None:
    if name not in (served.name, served.id):
        raise Problem("unknown-model", f"the model {shown(name)} is not served; {served.name!r} is", param="model")
