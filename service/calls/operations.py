"""The service about itself: alive, ready, figures, facts, and the reload of its model."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Annotated, Any, Final

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from jose_embed.analysis.card import card
from jose_embed.errors import ModelError
from jose_embed.model.quality import read_quality
from service.engine import jobs as engine_jobs
from service.engine.metrics import CONTENT_TYPE
from service.search.served_model import ServedModel
from service.web.route import OpenRoute, ProbeRoute, ReadRoute, WriteRoute, answer, calls, engine_of, problems
from service.web.schemas import Card, Info, Job, JobList, Ready, Wait

_FREQUENT_WORDS: Final = 12

probe_router = calls(ProbeRoute, "operations")
router = calls(OpenRoute, "operations")
card_router = calls(ReadRoute, "operations")
admin_router = calls(WriteRoute, "operations")
job_router = calls(ReadRoute, "operations")

_LOCATION: Final = {"Location": {"description": "Where to ask for the job.", "schema": {"type": "string"}}}
_LINK: Final = {"job": {"operationId": "job", "parameters": {"id": "$response.body#/id"}}}
_STARTED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"model": Job, "description": "It has ended within the time of wait."},
    202: {"description": "It goes on; ask for the job.", "headers": _LOCATION, "links": _LINK},
}


@probe_router.get("/livez", response_model=Ready, responses=problems(right="open"), summary="Is the process alive?")
async def livez() -> Response:
    """Answers as long as the event loop runs. Needs no key."""
    return answer(b'{"status":"alive","checks":{},"warnings":[]}')


@probe_router.get(
    "/readyz", response_model=Ready, responses=problems("not-ready", right="open"), summary="Does it answer questions?"
)
async def readyz(request: Request) -> Response:
    """Asks the index, the inference and the documents a question each; 503 while loading, while stopping, or when one
    of them is wrong or late. A warning says that the model on the disk is not the served one. Needs no key."""
    checks, warnings = await engine_of(request).probe()
    return answer({"status": "ready", "checks": checks, "warnings": warnings})


@probe_router.get(
    "/healthz", response_model=Ready, responses=problems("not-ready", right="open"), summary="The same as /readyz"
)
async def healthz(request: Request) -> Response:
    """For monitors and load balancers that ask this path. Needs no key."""
    return await readyz(request)


@router.get(
    "/metrics",
    responses=problems(right="open")
    | {200: {"description": "Figures", "content": {"text/plain": {"schema": {"type": "string"}}}}},
    response_class=Response,
    summary="Figures for Prometheus",
)
async def metrics(request: Request) -> Response:
    """Requests, lanes, documents, and the event loop's lag. Needs no key."""
    return Response(engine_of(request).metrics.page(), media_type=CONTENT_TYPE)


@router.get(
    "/info",
    response_model=Info,
    responses=problems("not-ready", right="open"),
    summary="The served model",
)
async def info(request: Request) -> Response:
    """The model, its index and its measured recall, limits, versions. Needs no key."""
    return answer(engine_of(request).info())


@card_router.get("/card", response_model=Card, responses=problems("not-ready"), summary="The card of the served model")
async def model_card(request: Request) -> Response:
    """What ``jose info`` prints: text, settings, training and measured quality of the model, line by line."""
    engine = engine_of(request)
    return answer(await engine.work(partial(_card, engine.snapshot.served)))


def _card(served: ServedModel) -> dict[str, Any]:
    model = served.embeddings
    try:
        quality = read_quality(model.path, model.id) if model.path is not None else []
    except ModelError:  # damaged figures: jose info says so
        quality = []
    lines = card(model.manifest, served.name, frequent=model.words[:_FREQUENT_WORDS], quality=quality)
    return {"name": served.name, "lines": lines, "model": served.reference}


@admin_router.post(
    "/admin/reload",
    response_model=Job,
    status_code=202,
    responses=problems(
        "reload-running",
        "model-refused",
        "storage-unavailable",
        "disk-full",
        "read-only",
        "not-ready",
        right="write",
    )
    | _STARTED,
    summary="Load the model directory again",
)
async def reload(request: Request, query: Annotated[Wait, Query()]) -> Response:
    """Reads the model directory again, verifies every checksum, tests the model, makes vectors of the stored texts
    again if the model has changed, and swaps. Requests in progress finish with the model they began with. If
    a check fails, the previous model stays in use. SIGHUP does the same, and reads the files of keys again."""
    return await _begun(request, engine_of(request).reload(), query.wait)


@admin_router.post(
    "/admin/snapshot",
    response_model=Job,
    status_code=202,
    responses=problems("snapshot-running", "storage-unavailable", "disk-full", "read-only", "not-ready", right="write")
    | _STARTED,
    summary="Copy the documents and the id of the model",
)
async def snapshot(request: Request, query: Annotated[Wait, Query()]) -> Response:
    """Copies the documents file as it is at one moment, while writes go on, into a new directory of `JOSE_SNAPSHOTS`,
    with the id of the model of that moment. `jose-serve restore` puts it back."""
    return await _begun(request, engine_of(request).take_snapshot(), query.wait)


async def _begun(request: Request, job: engine_jobs.Job, seconds: float) -> Response:
    """The answer to a call that began a job, given when it has ended or the time is up.

    Raises:
        Problem: why it failed, in this time.
    """
    if seconds:
        ended = asyncio.wrap_future(job.finished)
        ended.add_done_callback(lambda future: future.cancelled() or future.exception())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(ended), seconds)
    if job.status == "done":
        return answer(job.document())
    return answer(job.document(), 202, {"Location": f"{request.scope['root_path']}/admin/jobs/{job.id}"})


@job_router.get("/admin/jobs", response_model=JobList, responses=problems(), summary="Reloads and snapshots")
async def jobs(request: Request) -> Response:
    """The jobs in progress and the last that have ended, the newest first."""
    return answer({"jobs": [job.document() for job in engine_of(request).jobs.list()]})


@job_router.get(
    "/admin/jobs/{id}", response_model=Job, responses=problems("unknown-job"), summary="One reload or snapshot"
)
async def job(request: Request, id: str) -> Response:
    """How far a job is, and its result or its problem."""
    return answer(engine_of(request).jobs.get(id).document())
