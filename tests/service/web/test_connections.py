"""Clients that connect and do not ask, do not end, do not read, or are gone."""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from serving import END_SECONDS, Served, Starter, start, wait_for

from jose_embed.model.embeddings import Embeddings

GET = b"GET /similar?word=king&k=3 HTTP/1.1\r\nHost: localhost\r\n\r\n"
BOUNDS = {"JOSE_MAX_CONNECTIONS": "40", "JOSE_MAX_ANSWER_BYTES": "2000000", "JOSE_CACHE_BYTES": "0"}
# Times that pass in a test, which waits for what the service does then.
SHORT = {"JOSE_HEAD_SECONDS": "2", "JOSE_BODY_SECONDS": "5", "JOSE_WRITE_SECONDS": "2"}
# Times that pass in no test, however slow the machine is.
LONG = dict.fromkeys(SHORT, "3600")


def serve(model: Path, folder: Path, times: dict[str, str]) -> Iterator[Served]:
    running = start(model, "--documents", str(folder / "documents.sqlite3"), environment=BOUNDS | times)
    yield running
    assert running.stop() == 0
    assert not [line for line in running.lines if "Traceback" in line], "".join(running.lines)


@pytest.fixture(scope="module")
def hasty(model_a: tuple[Path, Embeddings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with small bounds, which it must still keep at the end."""
    yield from serve(model_a[0], tmp_path_factory.mktemp("hasty"), SHORT)


@pytest.fixture(scope="module")
def bounded(model_a: tuple[Path, Embeddings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The same, but it waits for its clients."""
    yield from serve(model_a[0], tmp_path_factory.mktemp("bounded"), LONG)


@contextlib.contextmanager
def stopped(served: Served) -> Iterator[None]:
    """The service does not run: who connects and sends meanwhile has done so when it sees the connection."""
    process = psutil.Process(served.process.pid)
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def connect(served: Served, *, buffer: int | None = None) -> socket.socket:
    """A connection of its own."""
    host, port = urlsplit(served.url).netloc.split(":")
    connection = socket.socket()
    if buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.settimeout(END_SECONDS)
    connection.connect((host, int(port)))
    return connection


def post(path: str, body: object) -> bytes:
    """A request with a JSON body."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def all_of(connection: socket.socket) -> bytes:
    """Everything until the end of a connection."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65_536):
            received += piece
    return received


def statuses(answers: bytes) -> list[bytes]:
    """The statuses of several answers."""
    return re.findall(rb"HTTP/1\.1 (\d+) ", answers)


def n_connections(served: Served) -> int:
    """Sockets of a service, the one that listens included."""
    return len(psutil.Process(served.process.pid).net_connections("tcp"))


# Heads ---------------------------------------------------------------------------------------------------------------


def test_heads_that_never_end_are_closed_and_logged_in_one_line(hasty: Served) -> None:
    before = len(hasty.lines)
    with contextlib.ExitStack() as stack:
        with stopped(hasty):
            clients = [stack.enter_context(connect(hasty)) for _ in range(30)]
            for client in clients[:20]:
                client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nA: b")
        answers = [all_of(client) for client in clients]
    assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers[:20])
    assert all(
        json.loads(answer.partition(b"\r\n\r\n")[2])["type"] == "/problems#head-too-slow" for answer in answers[:20]
    )
    assert answers[20:] == [b""] * 10, "a client that has sent nothing is told nothing"
    told = lambda: [line for line in hasty.lines[before:] if "without a whole request" in line]  # noqa: E731
    wait_for(told)
    assert len(told()) <= 2


@pytest.mark.parametrize(
    "first",
    [
        b"GET /livez HTTP/1.1\r\n",
        b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n",
        GET,
        b"\r\n",
    ],
    ids=["head", "body that nobody reads", "second head", "empty lines"],
)
def test_a_trickle_is_closed(hasty: Served, first: bytes) -> None:
    with connect(hasty) as client:
        client.sendall(first)

        def ended() -> bool:
            try:
                client.sendall(b"\r\n" if first == b"\r\n" else b"a")
                return bool(select.select([client], [], [], 0.2)[0]) and client.recv(65_536) == b""
            except ConnectionError:
                return True

        wait_for(ended)


def test_a_client_that_asks_again_is_kept(hasty: Served) -> None:
    """The time for a head does not go on while a client is idle."""
    with contextlib.ExitStack() as stack:
        with stopped(hasty):
            client = stack.enter_context(connect(hasty))
            client.sendall(GET)
        assert _answered(client) == b"200"
        for _ in range(2):
            time.sleep(2)
            client.sendall(GET)
            assert _answered(client) == b"200"


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez?" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"a" * 70_000 + b": b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nA:" + b" " * 100_000 + b"a\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 20_000,
    ],
    ids=["path", "header", "headers", "name", "blanks", "trailers"],
)
def test_a_large_head_that_ends_is_431_too(bounded: Served, head: bytes) -> None:
    with connect(bounded) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(head)
        answer = all_of(client)
    if b"chunked" in head:  # /livez does not wait for its body
        assert b"200 OK" in answer or b" 431 " in answer
    else:
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["type"] == "/problems#head-too-large"


def test_requests_before_a_wrong_head_are_answered_first(bounded: Served, hasty: Served) -> None:
    for served, wrong, status in (
        (bounded, b"GET /livez HTTP/1.1\r\nA: " + b"a" * 100_000 + b"\r\n\r\n", b"431"),
        (hasty, b"GET /livez HTTP/1.1\r\nA: ", b"408"),
        (bounded, b"no http\r\n\r\n", b"400"),
    ):
        with contextlib.ExitStack() as stack:
            with stopped(served) if served is hasty else contextlib.nullcontext():
                client = stack.enter_context(connect(served))
                with contextlib.suppress(ConnectionError):  # the service closes it without reading all
                    client.sendall(GET + GET + wrong)
            answer = all_of(client)
        assert statuses(answer) == [b"200", b"200", status]


# Connections ---------------------------------------------------------------------------------------------------------


def test_new_clients_take_the_place_of_idle_ones(bounded: Served) -> None:
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(bounded)) for _ in range(60)]
        with connect(bounded) as client:
            client.sendall(GET)
            assert client.recv(65_536).startswith(b"HTTP/1.1 200")
        wait_for(lambda: n_connections(bounded) <= 42)
        assert all_of(idle[0]) == b""


def test_where_all_are_busy_one_more_is_refused(bounded: Served) -> None:
    head, body = post("/embed-doc", {"text": "king"}).split(b"\r\n\r\n")
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(connect(bounded)) for _ in range(40)]
        for client in busy:
            client.sendall(head + b"\r\nExpect: 100-continue\r\n\r\n")
        for client in busy:  # it waits for the body
            assert client.recv(65_536).startswith(b"HTTP/1.1 100 ")
        with connect(bounded) as client:
            answer = all_of(client)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in answer
        for client in busy:
            client.sendall(body)
        assert all(client.recv(65_536).startswith(b"HTTP/1.1 200") for client in busy)


# Answers -------------------------------------------------------------------------------------------------------------

LARGE = post("/similar", {"queries": [{"vector": [1.0] * 24, "k": 1_000}] * 100})  # 8 MB of answer


def test_clients_that_do_not_read_hold_bounded_memory(bounded: Served) -> None:
    process = psutil.Process(bounded.process.pid)
    before = process.memory_info().rss
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(bounded, buffer=4_096)) for _ in range(30)]
        for client in clients:
            client.sendall(LARGE)
        starts = [client.recv(12) for client in clients]
        assert {b"HTTP/1.1 200", b"HTTP/1.1 503"} == set(starts)
        assert starts.count(b"HTTP/1.1 200") < 10
        assert bounded.get("/similar?word=king").status_code == 200
        assert process.memory_info().rss < before + 100_000_000  # of 240 MB of answers


def _answered(client: socket.socket) -> bytes:
    """The status of an answer that is read to its end, with a pause in it."""

    def piece() -> bytes:
        if received := client.recv(1 << 20):
            return received
        raise ConnectionError("the answer has no end")

    received = piece()
    while b"\r\n\r\n" not in received:
        received += piece()
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    time.sleep(0.5)
    while len(body) < length:
        body += piece()
    return head.split()[1]


def test_a_client_that_does_not_read_is_disconnected(hasty: Served) -> None:
    wait_for(lambda: n_connections(hasty) <= 2)  # the one that listens, and that of the tests
    with connect(hasty, buffer=4_096) as client:
        client.sendall(LARGE)
        assert client.recv(12) == b"HTTP/1.1 200"
        wait_for(lambda: n_connections(hasty) <= 2)
        n_bytes = len(all_of(client))
    assert n_bytes < 8_000_000, "the rest was never sent"
    wait_for(lambda: any("did not read" in line or "do not read" in line for line in hasty.lines))


def test_a_client_that_reads_is_not_taken_for_one_that_does_not(hasty: Served) -> None:
    def has_read() -> bool:
        """A machine on which this takes longer than the service waits is given another try."""
        with connect(hasty) as client, contextlib.suppress(ConnectionError):
            client.sendall(LARGE)
            return _answered(client) == b"200"
        return False

    wait_for(has_read)


# Clients that are gone -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requests", "n"),
    [
        ([GET], 1),
        ([GET] * 3, 3),
        ([post("/embed-doc", {"text": "w5 w6 w7 " * 100_000})], 1),
        ([GET, b"GET /similar?wo"], 1),
    ],
    ids=["one", "three", "long work", "and a part"],
)
def test_a_half_closed_client_gets_its_answers(bounded: Served, requests: list[bytes], n: int) -> None:
    with connect(bounded) as client:
        client.sendall(b"".join(requests))
        client.shutdown(socket.SHUT_WR)
        answer = all_of(client)
    assert [status for status in statuses(answer) if status != b"100"] == [b"200"] * n


def test_half_a_body_is_no_request(bounded: Served) -> None:
    with connect(bounded) as client:
        client.sendall(post("/embed-doc", {"text": "king"})[:-3])
        client.shutdown(socket.SHUT_WR)
        assert b"200" not in all_of(client)[:20]


def _figure(served: Served, name: str) -> float:
    line = next((line for line in served.get("/metrics").text.splitlines() if line.startswith(name)), f"{name} 0")
    return float(line.split()[-1])


# A search is held for as long as there is a file.
HELD = """
import os, time
from service.engine import serving
run_jobs = serving.run_jobs
def held(jobs):
    while os.path.exists(os.environ["HOLD"]):
        time.sleep(0.01)
    return run_jobs(jobs)
serving.run_jobs = held
"""


@pytest.mark.parametrize("reset", [True, False])
def test_work_stops_when_the_client_is_gone(
    model_a: tuple[Path, Embeddings], tmp_path: Path, starter: Starter, reset: bool
) -> None:
    hold = tmp_path / "hold"
    served = starter(
        model_a[0], "--documents", str(tmp_path / "d.sqlite3"), environment={"HOLD": str(hold)}, prelude=HELD
    )
    gone = 'jose_requests_total{method="POST",path="/similar",status="499"}'
    assert _figure(served, gone) == 0
    hold.touch()
    with connect(served) as client:
        client.sendall(post("/similar", {"queries": [{"vector": [1.0] * 24, "k": 100}]}))
        wait_for(lambda: _figure(served, "jose_search_waiting ") == 1)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_for(lambda: _figure(served, gone) == 1)
    hold.unlink()
    wait_for(lambda: _figure(served, "jose_search_waiting ") == 0)
    assert served.get("/readyz").status_code == 200
    assert served.stop() == 0
