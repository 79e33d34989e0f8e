"""uvicorn's side of a connection, with a bound for what is read before a request is known, and with the service's own
answer to what is no request."""

from __future__ import annotations

import http
from typing import Final

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.problems import MEDIA_TYPE, Problem

__all__ = ["MOST_HEAD_BYTES", "Protocol"]

MOST_HEAD_BYTES: Final = 64 << 10


class Protocol(HttpToolsProtocol):
    """A connection.

    uvicorn keeps a request line and headers of any size until they end, before anybody asks for a key: 200 MB of short
    headers took 4 GB of memory. Here a head ends after :data:`MOST_HEAD_BYTES`, and so do headers behind a body.

    Both answers are made without the application, which has not been asked: they are not counted, and have the same
    shape under ``/v1``, because the path may be what could not be read.
    """

    _n_unread = 0  # bytes since the last whole head or piece of a body

    def data_received(self, data: bytes) -> None:
        """Takes what has arrived."""
        self._n_unread += len(data)
        super().data_received(data)
        if self._n_unread > MOST_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(Problem("head-too-large", f"the request line and headers exceed {MOST_HEAD_BYTES} bytes"))

    def on_headers_complete(self) -> None:
        """A head has been read."""
        self._n_unread = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body has been read."""
        self._n_unread = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """What uvicorn does where its parser gives up."""
        self._refuse(Problem("malformed-http", "the request line, a header or the framing of the body is not HTTP/1.1"))

    def _refuse(self, problem: Problem) -> None:
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = orjson.dumps(problem.document())
            head = [b"HTTP/1.1 %d %s" % (problem.status, http.HTTPStatus(problem.status).phrase.encode())]
            head += [name + b": " + value for name, value in self.server_state.default_headers]
            head += [b"content-type: " + MEDIA_TYPE.encode(), b"content-length: %d" % len(body), b"connection: close"]
            self.transport.write(b"\r\n".join([*head, b"", body]))
        self.transport.close()
