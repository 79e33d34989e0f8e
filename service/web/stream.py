"""Bodies and answers of many lines (NDJSON) that are never whole in memory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Final, NamedTuple

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.problems import Problem, shown

NDJSON: Final = "application/x-ndjson"
_KINDS: Final = frozenset({NDJSON, "application/ndjson", "application/jsonl", "application/jsonlines"})
_TICK_SECONDS: Final = 1.0
_log = logging.getLogger("service")


class Line(NamedTuple):
    """A line of a body, without its end: its number from 1, and its bytes, None if it is too long."""

    number: int
    content: bytes | None


async def lines_of(request: Request, most_bytes: int, quiet_seconds: float) -> AsyncGenerator[list[Line], None]:
    """The lines of a body that are not blank, in runs as they arrive; an empty one at least once a second.

    Args:
        request: The request.
        most_bytes: Of a line.
        quiet_seconds: The longest time without a byte.

    Raises:
        Problem: ``not-json``: the content is of another type; ``body-too-slow``; ``malformed-json``: the connection
            ended.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() not in _KINDS:
        raise Problem("not-ndjson", f"Content-Type is {shown(content_type)}; it must be {NDJSON}")
    number, n_bytes = 0, 0
    rest, skipping = bytearray(), False
    async with contextlib.aclosing(_pieces(request, quiet_seconds)) as pieces:
        async for piece in pieces:
            n_bytes += len(piece)
            *ended, last = piece.split(b"\n")
            found: list[Line] = []
            for part in ended:
                number += 1
                rest += part
                if skipping or len(rest) > most_bytes:
                    found.append(Line(number, None))
                elif rest and not rest.isspace():
                    found.append(Line(number, bytes(rest)))
                rest.clear()
                skipping = False
            if not skipping:
                rest += last
            if len(rest) > most_bytes:
                skipping = True
                rest.clear()
            yield found
    if skipping or (rest and not rest.isspace()):
        yield [Line(number + 1, None if skipping else bytes(rest))]


async def _pieces(request: Request, quiet_seconds: float) -> AsyncGenerator[bytes, None]:
    """The pieces of a body; an empty one if none has arrived for a second.

    Raises:
        Problem: ``body-too-slow``, ``malformed-json``.
    """
    body = request.stream()
    heard, n_bytes = time.monotonic(), 0
    next_piece: asyncio.Task[bytes | None] | None = None
    try:
        while True:
            next_piece = next_piece or asyncio.ensure_future(_next(body))
            await asyncio.wait({next_piece}, timeout=min(_TICK_SECONDS, quiet_seconds))
            if next_piece.done():
                try:
                    piece = next_piece.result()
                except ClientDisconnect:
                    raise Problem("malformed-json", f"the connection ended after {n_bytes} bytes of the body") from None
                if piece is None:
                    return
                next_piece = None
                heard, n_bytes = time.monotonic(), n_bytes + len(piece)
                yield piece
            elif time.monotonic() - heard >= quiet_seconds:
                detail = f"no byte arrived for {quiet_seconds:g} s after {n_bytes} bytes"
                raise Problem("body-too-slow", detail)
            else:
                yield b""
    finally:
        if next_piece is not None and not next_piece.done():
            next_piece.cancel()
            await asyncio.wait({next_piece})


async def _next(body: AsyncIterator[bytes]) -> bytes | None:
    return await anext(body, None)


class StreamedAnswer(Response):
    """An answer whose pieces are made while it is sent.

    An error before its first piece is an answer of its own. One behind it closes the connection without the end of the
    answer, so that no client takes a part for the whole.

    Args:
        pieces: The content.
        closes: Whether the connection is closed behind the answer, because the body of the request may be unread then;
            app.py reads on for a moment.
    """

    media_type = NDJSON

    def __init__(self, pieces: AsyncIterator[bytes], *, closes: bool = False) -> None:
        super().__init__(headers={"Connection": "close"} if closes else None)
        del self.headers["content-length"]
        self._pieces = pieces
        self._at_end: Callable[[], Any] = lambda: None

    def at_end(self, call: Callable[[], Any]) -> None:
        """Has a function called when the answer has been sent, or is given up."""
        self._at_end = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the answer."""
        started = False
        try:
            first = await anext(self._pieces, None)
            started = True
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if first is not None:
                await send({"type": "http.response.body", "body": first, "more_body": True})
                async for piece in self._pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except Problem as problem:
            if not started:
                raise
            _log.warning("%s: the answer was cut off: %s", scope["path"], problem.detail)
        finally:
            self._at_end()
