"""uvicorn with a stop that loses no request; SIGHUP reads the keys and the model again.

After SIGTERM the listening socket stays open for a moment, while each answer has ``Connection: close`` and ``/readyz``
is 503. Then the connections in the socket's queue are accepted and the socket is closed. A connection is closed after
a second without a request, so that a slow client still gets its answer. Requests in progress get ``drain_seconds`` to
finish.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import socket
import sys
from collections.abc import Callable, Generator
from typing import Any, Final, cast

import uvicorn
from fastapi import FastAPI

from service.engine.serving import Engine
from service.settings import Settings
from service.web.access import Access
from service.web.protocol import Protocol, Traffic

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_HANGUP: Final = getattr(signal, "SIGHUP", None)  # there is none on Windows
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
# A thread that computes gives the interpreter's lock back after this time.
_SWITCH_SECONDS: Final = 0.0005
_SETTLE_SECONDS: Final = 0.5
# A connection without a request during this number of looks (a second) is idle. Looks are counted and not seconds,
# because on a busy machine the looks are as late as the requests.
_QUIET_LOOKS: Final = 50
_BETWEEN_LOOKS: Final = 0.02
# Longer than clients and proxies keep an idle connection: the service should not be the one that closes first.
_KEEP_ALIVE_SECONDS: Final = 75
_OTHER_FILES: Final = 100  # that the process opens beside its connections
_log = logging.getLogger("service")


class Server(uvicorn.Server):
    """A server for one application, with a drain before its end.

    Args:
        config: uvicorn's.
        engine: Notified when the drain begins.
        traffic: Bounds the connections.
        access: Holds the keys.
        listening: Called when connections are accepted.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        engine: Engine,
        traffic: Traffic,
        access: Access,
        listening: Callable[[], object],
    ) -> None:
        super().__init__(config)
        self._listening = listening
        self._engine = engine
        self._access = access
        self._traffic = traffic
        self._watching: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts as uvicorn does, and looks after the connections from then on."""
        await super().startup(sockets)
        if _HANGUP is not None:
            asyncio.get_running_loop().add_signal_handler(_HANGUP, self._read_again)
        self._watching = asyncio.create_task(self._traffic.watch(self.server_state.connections))
        if self.started:
            self._listening()

    def _read_again(self) -> None:
        self._access.renew_keys()
        self._engine.reload_by_signal()

    def _log_started_message(self, listeners: Any) -> None:
        """Nothing: ``listening`` says it, and uvicorn does not know the address that one can type."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drains, then stops as uvicorn does."""
        self._engine.draining = True
        if self._watching is not None:
            self._watching.cancel()
        n = len(self.server_state.connections)
        _log.info(
            "stopping: %d connections are open, requests in progress get %g s", n, self._engine.settings.drain_seconds
        )
        if not self.force_exit:
            # Busy clients get an answer with Connection: close.
            await asyncio.sleep(min(_SETTLE_SECONDS, self._engine.settings.drain_seconds))
            await self._take_in_the_queue(sockets or [])
            await self._close_the_quiet()
        await super().shutdown(sockets)

    async def _take_in_the_queue(self, sockets: list[socket.socket]) -> None:
        """Accepts what the kernel has accepted already: closing the socket would reset it."""
        loop = asyncio.get_running_loop()
        protocol_class: Any = self.config.http_protocol_class
        protocol = functools.partial(
            protocol_class, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        for listener in sockets:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # nothing waits
                    break
                connection.setblocking(False)
                await loop.connect_accepted_socket(protocol, connection)
        for server in self.servers:
            server.close()

    async def _close_the_quiet(self) -> None:
        """Wait until every connection is closed or has a request in progress, or time is up.

        uvicorn closes a connection without a request in progress at once, even if its first request is arriving.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        allowed = self._engine.settings.drain_seconds
        looks: dict[Any, tuple[Any, int]] = {}  # at a connection that was quiet: its last request, and how many
        while not self.force_exit and loop.time() - began < allowed:
            waiting = False
            connections: list[Any] = list(self.server_state.connections)  # of HTTP alone: ws is "none"
            for connection in connections:
                request = connection.cycle
                if request is not None and not request.response_complete:
                    looks.pop(connection, None)
                    continue
                last, quiet = looks.get(connection, (request, 0))
                quiet = quiet + 1 if last is request else 0
                looks[connection] = (request, quiet)
                if quiet >= _QUIET_LOOKS:
                    connection.shutdown()
                else:
                    waiting = True
            if not waiting:
                return
            await asyncio.sleep(_BETWEEN_LOOKS)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """As in uvicorn, but a requested stop ends the process with status 0."""
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _allow_files(n: int) -> None:
    """Raises the number of files that the process may open, if the system lets it."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < n:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (n if hard == resource.RLIM_INFINITY else min(n, hard), hard))


def serve(app: FastAPI, settings: Settings, sock: socket.socket, listening: Callable[[], object]) -> int:
    """Runs an application until a signal stops it.

    Args:
        app: As :func:`service.app.create_app` makes it.
        settings: What it runs with.
        sock: The bound socket.
        listening: Called when connections are accepted.

    Returns:
        The exit status.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    _allow_files(settings.max_connections + _OTHER_FILES)
    traffic: Traffic = app.state.traffic
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level=settings.log_level,
        access_log=False,  # _Watch in app.py writes it, with the time and the key
        http=cast(Any, functools.partial(Protocol, traffic)),
        lifespan="on",
        ws="none",
        server_header=False,
        headers=[("X-Content-Type-Options", "nosniff")],
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    )
    server = Server(config, app.state.engine, traffic, app.state.access, listening)
    server.run(sockets=[sock])
    return 0 if server.started else 3
