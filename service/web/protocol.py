"""Connections within bounds: their number, the size and time of a request's head, and clients that do not read.

uvicorn keeps heads of any size for any time, and answers for clients that never read them. :class:`Protocol` adds the
bounds to a connection, :class:`Traffic` those over all connections.
"""

from __future__ import annotations

import asyncio
import collections
import http
import logging
import time
from collections.abc import Iterable
from typing import Any, Final, cast

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.problems import MEDIA_TYPE, Problem
from service.settings import Settings

MOST_HEAD_BYTES: Final = 64 << 10
#: The name in a request's scope of the task to cancel if the client is gone.
TASK: Final = "jose.task"
#: The name in a request's scope that says that it was cancelled for this reason.
GONE: Final = "jose.gone"
_PIECE: Final = 1 << 14  # bytes parsed at a time: the parser does not report the blanks that it skips
_LOOK_SECONDS: Final = 1.0
_LOG_SECONDS: Final = 10.0
_FREE_ANSWER: Final = 16 << 10  # bytes of an answer that is never refused: errors, probes
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_log = logging.getLogger("service")


class _HeadTooLargeError(Exception):
    """Ends the parsing of a head."""


class Traffic:
    """All connections of a server and the bytes of their answers.

    Args:
        settings: The bounds.

    Attributes:
        settings: The same.
        idle: Connections without a request in progress, the longest idle first.
        n_answer_bytes: Bytes of the answers that are being sent.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.idle: dict[Protocol, None] = {}
        self.n_answer_bytes = 0
        self._n_buffered = 0  # bytes that idle connections have not read yet, at the last look
        self._closed: collections.Counter[str] = collections.Counter()
        self._logged = -_LOG_SECONDS

    def take(self, n_bytes: int) -> bool:
        """Counts an answer that is about to be sent, unless it exceeds the bound; :meth:`give_back` must follow."""
        n_under_way = self.n_answer_bytes + self._n_buffered
        if n_bytes > _FREE_ANSWER and n_under_way and n_under_way + n_bytes > self.settings.max_answer_bytes:
            self.count("answers refused because those in progress are too many bytes")
            return False
        self.n_answer_bytes += n_bytes
        return True

    def give_back(self, n_bytes: int) -> None:
        """Ends the count of an answer that has been sent."""
        self.n_answer_bytes -= n_bytes

    def make_room(self) -> bool:
        """Closes the connection that is idle for longest; False if there is none."""
        for connection in self.idle:
            connection.end("idle connections closed for new ones")
            return True
        return False

    def count(self, event: str) -> None:
        """Counts something that the log will report."""
        self._closed[event] += 1

    def look(self, connections: Iterable[Protocol], now: float) -> None:
        """Closes connections that are over a limit of time, and writes at most one log line in ten seconds."""
        n_buffered = 0
        for connection in list(connections):
            n_buffered += connection.look(now)
        self._n_buffered = n_buffered
        if self._closed and now - self._logged >= _LOG_SECONDS:
            events = ", ".join(f"{n} {event}" for event, n in self._closed.items())
            _log.warning("connections: %s", events)
            self._closed.clear()
            self._logged = now

    async def watch(self, connections: Iterable[Any]) -> None:
        """Looks at all connections once a second for as long as it runs."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                self.look(connections, time.monotonic())
            except Exception:
                _log.exception("looking at the connections failed")


class Protocol(HttpToolsProtocol):
    """One connection.

    A head has at most :data:`MOST_HEAD_BYTES` and arrives within ``head_seconds``; the same bounds hold for what
    follows a body. A client that reads nothing for ``write_seconds`` while there is something to read is disconnected.
    A client that has closed its sending side still gets the answers to its whole requests.

    The refusals here are written without the application. They have the same shape under ``/v1``, because the path may
    be unknown, and are not counted in the metrics.

    Args:
        traffic: The bounds over all connections.
        options: uvicorn's.
    """

    def __init__(self, traffic: Traffic, **options: Any) -> None:
        super().__init__(**options)
        self._traffic = traffic
        self._serving: RequestResponseCycle | None = None  # self.cycle is the last one that was parsed
        self._refusal: Problem | None = None  # to be sent when the requests before it have been answered
        self._n_unread = 0  # bytes since the last whole head or piece of a body
        self._n_head = 0  # bytes of the present head
        self._in_head = False
        self._head_since: float | None = None
        self._half_closed_since: float | None = None
        self._n_unsent = 0
        self._unsent_since = 0.0

    # Events of the transport -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._head_since = time.monotonic()
        most = self._traffic.settings.max_connections
        n_open = sum(not other.transport.is_closing() for other in self.connections) if self._crowded() else 0
        if n_open > most and not self._traffic.make_room():
            self._traffic.count("connections refused")
            self._refuse(Problem("saturated", f"{most} connections are open; no more are accepted"))
            return
        self._traffic.idle[self] = None

    def _crowded(self) -> bool:
        return len(self.connections) > self._traffic.settings.max_connections

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has disconnected: its request is cancelled."""
        super().connection_lost(exc)
        self._traffic.idle.pop(self, None)
        serving = self._serving
        if serving is not None and not serving.response_complete:
            serving.disconnected = True
            serving.message_event.set()
            scope: dict[str, Any] = cast(Any, serving.scope)
            if TASK in scope:
                scope[GONE] = True
                scope[TASK].cancel()

    def data_received(self, data: bytes) -> None:
        """Reads what has arrived."""
        if self._refusal is not None or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        for start in range(0, len(data), _PIECE):
            if not self._parse(data[start : start + _PIECE]):
                return
        if not self._busy and self._head_since is None:
            self._head_since = time.monotonic()

    def _parse(self, piece: bytes) -> bool:
        """Parses a piece of what has arrived; False if the connection is refused."""
        self._n_unread += len(piece)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:  # no other protocol is supported: the request gets a normal answer
            pass
        except httptools.HttpParserError:
            if self._n_head > MOST_HEAD_BYTES:
                self._refuse(_head_too_large())
            else:
                self.send_400_response("")
            return False
        if self._n_unread > MOST_HEAD_BYTES:
            self._refuse(_head_too_large())
            return False
        return not self.transport.is_closing()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """The client will send no more; True keeps the connection for the answers to whole requests."""
        if not self._busy or self.cycle.more_body or self.transport.is_closing():
            return None
        self._half_closed_since = time.monotonic()
        return True

    # Events of the parser --------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A head begins."""
        self._n_head = 0
        self._in_head = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the path."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or one behind the body."""
        self._count_head(len(name) + len(value) + 4)
        super().on_header(name, value)

    def _count_head(self, n_bytes: int) -> None:
        self._n_head += n_bytes
        if self._n_head > MOST_HEAD_BYTES:
            raise _HeadTooLargeError

    def on_headers_complete(self) -> None:
        """A head has been read."""
        self._n_unread = 0
        self._in_head = False
        self._head_since = None
        super().on_headers_complete()
        self._traffic.idle.pop(self, None)

    def on_body(self, body: bytes) -> None:
        """A piece of a body has been read."""
        self._n_unread = 0
        super().on_body(body)

    # Answers ---------------------------------------------------------------------------------------------------------

    @property
    def _busy(self) -> bool:
        """Whether a request is in progress."""
        return self._serving is not None and not self._serving.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._serving = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """An answer has been written, and the next request, if it has arrived, is begun."""
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._refusal is not None:
            problem, self._refusal = self._refusal, None
            self._refuse(problem)
        elif self._busy:
            return
        elif self._half_closed_since is not None:
            self.transport.close()
        else:
            self._traffic.idle[self] = None
            if self._in_head:
                self._head_since = time.monotonic()

    def send_400_response(self, msg: str) -> None:
        """Refuses what is not HTTP."""
        self._refuse(Problem("malformed-http", "the request line, a header or the framing of the body is not HTTP/1.1"))

    def _refuse(self, problem: Problem) -> None:
        """Sends a problem behind the answers to the requests before it, then closes the connection."""
        serving = self._serving
        if serving is not None and not serving.response_complete:
            if serving is not self.cycle or not serving.more_body:
                self._refusal = problem
                return
            if serving.response_started:  # the problem is in the body of a request that is being answered already
                self.transport.close()
                return
        body = orjson.dumps(problem.document())
        head = [b"HTTP/1.1 %d %s" % (problem.status, http.HTTPStatus(problem.status).phrase.encode())]
        head += [name + b": " + value for name, value in self.server_state.default_headers]
        head += [b"content-type: " + MEDIA_TYPE.encode(), b"content-length: %d" % len(body), b"connection: close"]
        if problem.status == 503:
            head.append(b"retry-after: 1")
        self.transport.write(b"\r\n".join([*head, b"", body]))
        self.transport.close()

    # Limits of time --------------------------------------------------------------------------------------------------

    def end(self, event: str) -> None:
        """Ends the connection at once, and counts why."""
        self._traffic.count(event)
        self._traffic.idle.pop(self, None)
        self.transport.abort()

    def look(self, now: float) -> int:
        """Closes the connection if a limit of time is exceeded; returns the bytes of whole answers in its buffer."""
        settings = self._traffic.settings
        n_unsent = int(self.transport.get_write_buffer_size())
        if not n_unsent or n_unsent != self._n_unsent:
            self._n_unsent, self._unsent_since = n_unsent, now
        elif now - self._unsent_since >= settings.write_seconds:
            self.end("clients disconnected that did not read")
            return 0
        if self.transport.is_closing():
            return n_unsent
        if self._head_since is not None and now - self._head_since >= settings.head_seconds:
            self._head_since = None
            self._traffic.count("connections closed without a whole request")
            if self._in_head:
                self._refuse(Problem("head-too-slow", f"after {settings.head_seconds:g} s the head had not ended"))
            else:
                self.transport.close()
        elif self._half_closed_since is not None and now - self._half_closed_since >= _LOOK_SECONDS:
            self._ask_whether_gone()
        return 0 if self._busy else n_unsent

    def _ask_whether_gone(self) -> None:
        """Writes an interim answer: it resets a connection of which the client has closed both sides."""
        serving = self._serving
        if serving is not None and not serving.response_started and serving.scope["http_version"] == "1.1":
            self.transport.write(_CONTINUE)


def _head_too_large() -> Problem:
    return Problem("head-too-large", f"the request line and headers exceed {MOST_HEAD_BYTES} bytes")
