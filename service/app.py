"""The FastAPI application: the calls and what is wrapped around them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jose_embed.version import __version__
from service.calls import bulk, documents, embed, openai, operations, search, similar, words
from service.engine.serving import Engine
from service.problems import Problem, as_response, from_validation, shown
from service.settings import Settings
from service.web import logs
from service.web.access import Access
from service.web.pages import add_pages
from service.web.protocol import GONE, Traffic
from service.web.route import Admission, ReadRoute
from service.web.schemas import OpenAIError, ProblemDocument

OPENAPI_FILE: Final = Path(__file__).with_name("openapi.json")
_OPEN_REQUESTS: Final = 64  # calls without a key and pages in progress at once
_CLIENT_GONE: Final = 499  # in the metrics only
_ANSWER_SLICE: Final = 64 << 10
_LINGER_SECONDS: Final = 1.0  # for the rest of the body of a refused request
_LINGER_BYTES: Final = 16 << 20
# What pages of other origins may send and read; CORS_ORIGINS says which pages.
_CORS_METHODS: Final = ("GET", "POST", "PUT", "DELETE")
_CORS_SENT: Final = ("Authorization", "Content-Type", "If-Match", "If-None-Match", "X-API-Key", "X-Request-Id")
_CORS_READ: Final = ("ETag", "Location", "Retry-After", "Server-Timing", "X-Request-Id")
_POLICY: Final = b"default-src 'none'; frame-ancestors 'none'"
_log = logging.getLogger("service")

_DESCRIPTION: Final = """
Words and documents on the unit sphere: neighbours, analogies, vectors for any text, and search over documents.

* Errors are [problem documents](problems) (RFC 9457); under `/v1` they have OpenAI's shape.
* Where keys are set, send `Authorization: Bearer KEY` or `X-API-Key: KEY`.
* 503 means busy or not ready: ask again after the seconds in `Retry-After`.
"""


def create_app(settings: Settings) -> FastAPI:
    """The application of one model.

    Args:
        settings: What it runs with.

    Returns:
        An application that loads the model when it is started. ``app.state.engine`` is the running service; its
        ``open`` may be called before, to learn of a broken model before anything listens.
    """
    engine = Engine(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(engine.open)
        watching = asyncio.create_task(engine.metrics.watch_the_loop())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.to_thread(engine.close)

    app = FastAPI(
        title="jose-embed",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # No telemetry, whatever the environment says.
        telemetry={
            "auto_configure": False,
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
        },
    )
    app.state.engine = engine
    app.state.access = Access(settings)
    app.state.admission = Admission(settings.max_waiting, settings.max_queued_bytes, engine.advice)
    app.state.transfers = Admission(settings.max_transfers, settings.max_queued_bytes, engine.advice)
    app.state.open_admission = Admission(_OPEN_REQUESTS, 0, lambda: 1)
    app.state.traffic = Traffic(settings)
    _add_calls(app)
    document = OPENAPI_FILE.read_bytes() if OPENAPI_FILE.exists() else orjson.dumps(openapi_document(app))
    add_pages(app, settings, document)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    # The last one that is added is the outermost.
    app.add_middleware(_Unexpected)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=_CORS_METHODS,
            allow_headers=_CORS_SENT,
            expose_headers=_CORS_READ,
        )
    app.add_middleware(_Watch, state=app.state)
    return app


def _add_calls(app: FastAPI) -> None:
    for router in (
        similar.cached_router,
        similar.router,
        embed.router,
        openai.router,
        words.router,
        search.router,
        bulk.write_router,
        bulk.read_router,
        documents.write_router,
        documents.read_router,
        operations.probe_router,
        operations.router,
        operations.card_router,
        operations.admin_router,
        operations.job_router,
    ):
        # The routes themselves, not include_router: that would look through one router after the other at every
        # request.
        app.router.routes.extend(router.routes)


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of an application, as :data:`OPENAPI_FILE` holds it.

    The file is renewed by ``jose-serve openapi`` if a call changes, and is served unchanged.
    """
    app.version = "1"
    document = app.openapi()
    schemas = document["components"]["schemas"]
    for name, model in (("ProblemDocument", ProblemDocument), ("OpenAIError", OpenAIError)):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
        schemas |= schema.pop("$defs", {})
        schemas[name] = schema
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "A read or write key."},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "A read or write key."},
    }
    for route in app.routes:
        if not isinstance(route, ReadRoute) or route.right == "open":
            continue
        for method in route.methods or ():
            document["paths"][route.path_format][method.lower()]["security"] = [{}, {"bearer": []}, {"header": []}]
    return document


class _Unexpected:
    """Answers an unexpected error; the answer passes what is wrapped around it, which Starlette's own would not.

    An error behind the beginning of an answer is raised again: the server logs it and closes the connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            if started or scope["type"] != "http":
                raise
            _log.exception("%s %s failed", scope["method"], shown(scope["path"]))
            problem = Problem("internal", "an unexpected error; it has been logged")
            await as_response(Request(scope), problem)(scope, receive, send)


class _Watch:
    """Around everything: gives each request its id, checks the host, counts, times and logs, bounds the bytes of
    answers, and asks clients to go while the service is stopping.

    The header ``Server-Timing`` holds the milliseconds until the answer began, including the wait. Below a root path,
    proxies that take it off the path and proxies that leave it are right.
    """

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._engine: Engine = state.engine
        self._access: Access = state.access
        self._traffic: Traffic = state.traffic
        self._logs = self._engine.settings.access_log
        self._root = self._engine.settings.root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sending = _Sending(scope, send, self._traffic, self._engine, logs.begin(scope))

        async def receiving() -> Message:
            message = await receive()
            sending.body_unread = message.get("more_body", False)
            return message

        try:
            try:
                self._access.check_host(scope)
                if self._root:
                    self._enter_root(scope)
            except Problem as problem:
                await as_response(Request(scope), problem)(scope, receiving, sending)
            else:
                at_root = self._root and scope["path"] == self._root  # the page's links are relative
                app = RedirectResponse(f"{self._root}/") if at_root else self._app
                await app(scope, receiving, sending)
            await sending.linger(receive)
        except asyncio.CancelledError:
            if GONE not in scope:
                raise
            if not sending.ended:
                sending.status = _CLIENT_GONE
        finally:
            self._traffic.give_back(sending.n_counted)
            path = getattr(scope.get("route"), "path", "other")
            seconds = sending.seconds
            self._engine.metrics.observe(scope["method"] if path != "other" else "", path, sending.status, seconds)
            if self._logs:
                logs.log_request(scope, sending.status, seconds, sending.n_bytes)

    def _enter_root(self, scope: Scope) -> None:
        scope["root_path"] = self._root
        if not f"{scope['path']}/".startswith(f"{self._root}/"):
            scope["path"] = self._root + scope["path"]


class _Sending:
    """One answer on its way: gets further headers, is counted, and is handed on in slices, so that a client that does
    not read has few bytes in the connection's buffer."""

    def __init__(self, scope: Scope, send: Send, traffic: Traffic, engine: Engine, request_id: bytes) -> None:
        self.status = 500
        self.n_counted = 0
        self.n_bytes = 0
        self.body_unread = _has_body(scope)
        self._lingers = False
        self._request_id = request_id
        self._scope = scope
        self._send = send
        self._traffic = traffic
        self._engine = engine
        self._began = time.perf_counter()
        self.ended: float | None = None
        self._refused = False

    @property
    def seconds(self) -> float:
        """From the beginning to the last piece of the answer, or to now."""
        return (self.ended or time.perf_counter()) - self._began

    async def linger(self, receive: Receive) -> None:
        """Ends an answer that came before the whole body, when the rest of the body has been read and thrown away.

        A connection that is closed with bytes unread is reset, and the client or the proxy before it may lose the
        answer with it (nginx makes 502 of it). The bytes and the time are bounded.
        """
        if not self._lingers:
            return
        n_read = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while self.body_unread and n_read < _LINGER_BYTES:
                    message = await receive()
                    self.body_unread = message.get("more_body", False)
                    n_read += len(message.get("body", b""))
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def __call__(self, message: Message) -> None:
        if self._refused:
            return
        if message["type"] == "http.response.start":
            await self._start(message)
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        self.n_bytes += len(body)
        if not more:
            self.ended = time.perf_counter()
            # Behind an exception, which is a 500, nobody calls linger().
            self._lingers = more = self.body_unread and self.status < 500
        for first in range(0, max(1, len(body)), _ANSWER_SLICE):
            last = first + _ANSWER_SLICE
            piece = {"type": message["type"], "body": body[first:last], "more_body": more or last < len(body)}
            await self._send(piece)

    async def _start(self, message: Message) -> None:
        headers = list(message.get("headers", ()))
        length = next((int(value) for name, value in headers if name == b"content-length"), 0)
        if not self._traffic.take(length):
            problem = Problem(
                "saturated",
                f"the answers in flight hold the memory allowed for them, and this one needs {length} bytes more",
            )
            response = as_response(Request(self._scope), problem)
            await self({"type": message["type"], "status": problem.status, "headers": response.raw_headers})
            await self({"type": "http.response.body", "body": response.body})
            self._refused = True
            return
        self.n_counted = length
        self.status = message["status"]
        headers.append((b"x-request-id", self._request_id))
        headers.append((b"server-timing", b"total;dur=%.2f" % ((time.perf_counter() - self._began) * 1e3)))
        if all(name != b"content-security-policy" for name, _ in headers):
            headers.append((b"content-security-policy", _POLICY))
        if self._engine.draining:
            headers.append((b"connection", b"close"))
        await self._send({**message, "headers": headers})


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return as_response(request, error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return as_response(request, from_validation(error.errors()))


async def _http_error(request: Request, error: Exception) -> Response:
    """The response to an error that Starlette raises."""
    assert isinstance(error, HTTPException)
    path, headers = shown(request.scope["path"]), dict(error.headers or {})
    if error.status_code == 405:
        # Starlette names the methods of the first route that has this path; there may be others.
        routes = [route for route in request.app.routes if isinstance(route, Route)]
        fitting = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
        headers["Allow"] = ", ".join(sorted({method for route in fitting for method in route.methods or ()}))
        return as_response(
            request, Problem("method-not-allowed", f"{path} does not allow {request.method}", headers=headers)
        )
    if error.status_code == 404:
        return as_response(request, Problem("unknown-path", f"this service has no path {path}", headers=headers))
    return as_response(request, Problem("malformed-json", str(error.detail), headers=headers))
