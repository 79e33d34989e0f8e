"""The parts that all calls share: access, admission, reading of the body within bounds, answers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, get_origin

import orjson
from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from service.engine.serving import Engine
from service.problems import CATALOGUE, MEDIA_TYPE, Problem, shown
from service.web.access import Access, Right
from service.web.body import validated
from service.web.protocol import TASK, Traffic
from service.web.stream import StreamedAnswer

JSON: Final = "application/json"
MOST_PARAMETERS: Final = 32  # of a query string
_SMALL: Final = 16 << 10  # bytes of a body that is parsed in the event loop: a fraction of a millisecond


@contextlib.contextmanager
def room_for(request: Request, n_bytes: int) -> Iterator[None]:
    """Count an answer of about ``n_bytes`` while it is being made.

    Raises:
        Problem: ``saturated``.
    """
    traffic: Traffic = request.app.state.traffic
    if not traffic.take(n_bytes):
        raise Problem(
            "saturated",
            f"the answers in flight hold the memory allowed for them, and this one needs about {n_bytes} bytes more",
        )
    try:
        yield
    finally:
        traffic.give_back(n_bytes)


def engine_of(request: Request) -> Engine:
    """The engine behind a request's application."""
    engine: Engine = request.app.state.engine
    return engine


def calls(route_class: type[ReadRoute], tag: str, prefix: str = "") -> APIRouter:
    """A router for calls of one kind; in the OpenAPI document each has the name of its function."""
    return APIRouter(
        prefix=prefix, route_class=route_class, tags=[tag], generate_unique_id_function=lambda route: str(route.name)
    )


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer in JSON; bytes are JSON already."""
    content = value if isinstance(value, bytes) else orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, status, headers, JSON)


def results(items: Sequence[bytes], model: Mapping[str, str]) -> bytes:
    """The body of an answer with one result per item. Of hundreds of items it is megabytes, and then work for a
    lane."""
    return b"".join((b'{"results":[', b",".join(items), b'],"model":', orjson.dumps(model), b"}"))


def problems(
    *kinds: str, body: bool = False, right: Right = "read", v1: bool = False
) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for the problems of a call: those named, and those of every call of its kind."""
    named = [*kinds, "internal", "host-not-allowed", "saturated"]
    if right != "open":
        named += ["missing-key", "too-many-requests", "invalid-request"]
    if right == "write":
        named.append("foreign-page")
    if body:
        named += ["malformed-json", "body-too-slow", "body-too-large", "not-json"]
    by_status: dict[int, list[str]] = {}
    for name in named:
        by_status.setdefault(CATALOGUE[name].status, []).append(name)
    media = (
        {JSON: {"schema": {"$ref": "#/components/schemas/OpenAIError"}}}
        if v1
        else {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    )
    found: dict[int | str, dict[str, Any]] = {
        status: {"description": "; ".join(CATALOGUE[name].title for name in dict.fromkeys(names)), "content": media}
        for status, names in sorted(by_status.items())
    }
    seconds = {"description": "Seconds after which to ask again.", "schema": {"type": "integer", "minimum": 1}}
    for status in found.keys() & {429, 503}:
        found[status]["headers"] = {"Retry-After": seconds}
    return found


class Admission:
    """Counts the requests in progress and the bytes of their bodies, and refuses more than the bounds allow.

    Args:
        most: Requests.
        most_bytes: Bytes.
        advice: Whole seconds after which one who is refused may try again.
    """

    def __init__(self, most: int, most_bytes: int, advice: Callable[[], int]) -> None:
        self._advice = advice
        self.n = 0
        self.n_bytes = 0
        self._most = most
        self._most_bytes = most_bytes

    def enter(self) -> None:
        """Admit one more request; :meth:`leave` must follow.

        Raises:
            Problem: ``saturated``.
        """
        if self.n >= self._most:
            raise self._full(f"{self.n} requests are being answered; at most {self._most} are allowed at a time")
        self.n += 1

    def leave(self, n_bytes: int) -> None:
        """One request less, and the bytes of its body."""
        self.n -= 1
        self.n_bytes -= n_bytes

    @contextlib.contextmanager
    def entered(self) -> Iterator[list[int]]:
        """Admits one request; the list gets the bytes of its body that were counted, which are given back at the end.

        Raises:
            Problem: ``saturated``.
        """
        self.enter()
        taken: list[int] = []
        try:
            yield taken
        finally:
            self.leave(sum(taken))

    def take(self, n_bytes: int) -> None:
        """Counts bytes of a body as they arrive.

        Raises:
            Problem: ``saturated``.
        """
        if self.n_bytes + n_bytes > self._most_bytes:
            raise self._full(
                f"request bodies in flight hold {self.n_bytes} bytes; at most {self._most_bytes} are allowed"
            )
        self.n_bytes += n_bytes

    def give_back(self, n_bytes: int) -> None:
        """Ends the count of bytes that are done with."""
        self.n_bytes -= n_bytes

    def _full(self, detail: str) -> Problem:
        return Problem("saturated", detail, headers={"Retry-After": str(self._advice())})


class _ReadRequest(Request):
    """A request whose body has been read and validated."""

    def __init__(self, scope: Scope, receive: Receive, value: Any) -> None:
        super().__init__(scope, receive)
        self._value = value

    async def body(self) -> bytes:
        return b"read"  # FastAPI asks only whether there is one

    async def json(self) -> Any:
        return self._value


class ReadRoute(APIRoute):
    """A call that needs the right to read; the class attribute says which right, and subclasses change it."""

    right: ClassVar[Right] = "read"
    probe: ClassVar[bool] = False  # is never refused because of other requests
    streams: ClassVar[bool] = False  # takes long: such calls have an admission of their own

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        right, body_field, dependant = self.right, self.body_field, self.dependant
        body_type: Any = body_field.field_info.annotation if body_field is not None else None
        known = _query_names(dependant)

        async def called(request: Request) -> Response:
            state = request.app.state
            access: Access = state.access
            access.check(request, right)
            if self.probe:
                return await handle(request)
            admission: Admission = state.open_admission if right == "open" else state.admission
            if self.streams:
                admission = state.transfers
            admission.enter()
            if right == "read":  # a change continues if the client disconnects: it may have been made already
                request.scope[TASK] = asyncio.current_task()
            taken: list[int] = []
            streaming = False
            try:
                if request.scope["query_string"] and right != "open":
                    _check_parameters(request, known)
                if body_type is not None:
                    value = await _validated(request, await _read(request, admission, taken), body_type)
                    if isinstance(value, Problem):
                        raise value
                    request = _ReadRequest(request.scope, request.receive, value)
                response = await handle(request)
                if isinstance(response, StreamedAnswer):
                    streaming = True
                    response.at_end(functools.partial(admission.leave, sum(taken)))
                return response
            finally:
                if not streaming:
                    admission.leave(sum(taken))

        return called


class WriteRoute(ReadRoute):
    """A call that changes something."""

    right: ClassVar[Right] = "write"


class StreamReadRoute(ReadRoute):
    """A call that reads, of any length."""

    streams: ClassVar[bool] = True


class StreamWriteRoute(WriteRoute):
    """A call that changes something, of any length."""

    streams: ClassVar[bool] = True


class OpenRoute(ReadRoute):
    """A call without a key; such calls have an admission of their own."""

    right: ClassVar[Right] = "open"


class ProbeRoute(OpenRoute):
    """A call without a key that is never refused because of other requests."""

    probe: ClassVar[bool] = True


async def _read(request: Request, admission: Admission, taken: list[int]) -> bytes:
    """The whole body, which must be JSON.

    Raises:
        Problem: ``not-json``, and those of :func:`read_body`.
    """
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind != JSON and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Problem("not-json", f"Content-Type is {shown(content_type)}; it must be application/json")
    return await read_body(request, admission, taken, engine_of(request).settings.max_body_bytes)


async def read_body(request: Request, admission: Admission, taken: list[int], most: int) -> bytes:
    """The whole body, within the bounds of size, sum and time.

    Args:
        request: The request.
        admission: Counts the bytes.
        taken: Gets the bytes that were counted, for ``admission.leave``.
        most: Bytes.

    Raises:
        Problem: ``body-too-large``, ``body-too-slow``, ``saturated``.
    """
    settings = engine_of(request).settings
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise Problem(
            "body-too-large",
            f"the body has {length} bytes; at most {most} are allowed",
            headers={"Connection": "close"},
        )
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for piece in request.stream():
                size += len(piece)
                if size > most:
                    raise Problem(
                        "body-too-large", f"the body has more than {most} bytes", headers={"Connection": "close"}
                    )
                admission.take(len(piece))
                taken.append(len(piece))
                pieces.append(piece)
    except ClientDisconnect:  # the answer reaches no client, but counts as a client error
        raise Problem("malformed-json", f"the connection ended after {size} bytes of the body") from None
    except TimeoutError:
        raise Problem(
            "body-too-slow",
            f"after {settings.body_seconds:g} s {size} bytes had arrived",
            headers={"Connection": "close"},
        ) from None
    return b"".join(pieces)


async def _validated(request: Request, body: bytes, body_type: type[BaseModel]) -> BaseModel | Problem:
    """The request in a body, or the problem with it; a large body does not occupy the event loop."""
    read = functools.partial(validated, body, body_type)
    return read() if len(body) <= _SMALL else await engine_of(request).long_work(read)


def _query_names(dependant: Any) -> dict[str, bool]:
    """The parameters of a call, and whether each is a list, which a query string states by repeating its name."""
    names: dict[str, bool] = {}
    for field in dependant.query_params:
        annotation = field.field_info.annotation
        if hasattr(annotation, "model_fields"):
            found = annotation.model_fields.items()
            names |= {name: get_origin(inner.annotation) is list for name, inner in found}
        else:
            names[field.alias] = False
    return names


def _check_parameters(request: Request, known: Mapping[str, bool]) -> None:
    """Refuse unknown and wrongly repeated parameters, and thousands of them, which would be parsed in the event loop.

    Raises:
        Problem: ``invalid-request``.
    """
    n = request.scope["query_string"].count(b"&") + 1
    if n > MOST_PARAMETERS:
        raise Problem("invalid-request", f"{n} parameters were sent; at most {MOST_PARAMETERS} are allowed", errors=[])
    names = [name for name, _ in request.query_params.multi_items()]
    listed = ", ".join(map(shown, sorted(set(names))[:5]))
    if not known:
        detail = f"{request.scope['path']} takes no parameters, but {listed or 'a query'} was sent"
        raise Problem("invalid-request", detail, errors=[])
    single = [name for name in names if not known.get(name)]
    if len(set(single)) < len(single):
        twice = max(single, key=single.count)
        detail = f"the parameter {shown(twice)} is given {names.count(twice)} times; give it once"
        raise Problem("invalid-request", detail, errors=[])
