"""Clients that connect and do not ask, do not end, do not read, or are gone."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from serving import Served, start

from jose_embed.model.embeddings import Embeddings

GET = b"GET /similar?word=king&k=3 HTTP/1.1\r\nHost: localhost\r\n\r\n"
BOUNDS = {
    "JOSE_HEAD_SECONDS": "1",
    "JOSE_BODY_SECONDS": "5",
    "JOSE_WRITE_SECONDS": "2",
    "JOSE_MAX_CONNECTIONS": "40",
    "JOSE_MAX_ANSWER_BYTES": "2000000",
    "JOSE_CACHE_BYTES": "0",
}


@pytest.fixture(scope="module")
def bounded(model_a: tuple[Path, Embeddings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with small bounds, which it must still keep at the end."""
    documents = tmp_path_factory.mktemp("documents") / "documents.sqlite3"
    running = start(model_a[0], "--documents", str(documents), environment=BOUNDS)
    yield running
    assert running.stop() == 0
    assert not [line for line in running.lines if "Traceback" in line], "".join(running.lines)


def connect(served: Served, *, buffer: int | None = None) -> socket.socket:
    """A connection of its own."""
    host, port = urlsplit(served.url).netloc.split(":")
    connection = socket.socket()
    if buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.settimeout(20)
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


def eventually(holds: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether something becomes true."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(0.05)
    return False


# Heads ---------------------------------------------------------------------------------------------------------------


def test_heads_that_never_end_are_closed_and_logged_in_one_line(bounded: Served) -> None:
    before = len(bounded.lines)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(bounded)) for _ in range(30)]
        for client in clients[:20]:
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nA: b")
        answers = [all_of(client) for client in clients]
    assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers[:20])
    assert all(
        json.loads(answer.partition(b"\r\n\r\n")[2])["type"] == "/problems#head-too-slow" for answer in answers[:20]
    )
    assert answers[20:] == [b""] * 10, "a client that has sent nothing is told nothing"
    told = lambda: [line for line in bounded.lines[before:] if "without a whole request" in line]  # noqa: E731
    assert eventually(lambda: bool(told()))
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
def test_a_trickle_is_closed(bounded: Served, first: bytes) -> None:
    with connect(bounded) as client:
        client.sendall(first)
        until = time.monotonic() + 20
        ended = False
        while not ended and time.monotonic() < until:
            time.sleep(0.2)
            try:
                client.sendall(b"\r\n" if first == b"\r\n" else b"a")
                client.settimeout(0.01)
                with contextlib.suppress(TimeoutError):
                    ended = client.recv(65_536) == b""
            except ConnectionError:
                ended = True
    assert ended


def test_a_client_that_asks_again_is_kept(bounded: Served) -> None:
    with connect(bounded) as client:
        for _ in range(3):
            assert _answered(client, GET) == b"200"
            time.sleep(0.8)


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


def test_requests_before_a_wrong_head_are_answered_first(bounded: Served) -> None:
    for wrong, status in (
        (b"GET /livez HTTP/1.1\r\nA: " + b"a" * 100_000 + b"\r\n\r\n", b"431"),
        (b"GET /livez HTTP/1.1\r\nA: ", b"408"),
        (b"no http\r\n\r\n", b"400"),
    ):
        with connect(bounded) as client:
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
        assert eventually(lambda: len(psutil.Process(bounded.process.pid).net_connections("tcp")) <= 42)
        assert all_of(idle[0]) == b""


def test_where_all_are_busy_one_more_is_refused(bounded: Served) -> None:
    begun = post("/embed-doc", {"text": "king"})[:-1]
    assert eventually(lambda: len(psutil.Process(bounded.process.pid).net_connections("tcp")) <= 3)
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(connect(bounded)) for _ in range(40)]
        for client in busy:
            client.sendall(begun)
        time.sleep(0.3)
        with connect(bounded) as client:
            answer = all_of(client)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in answer
        for client in busy:
            client.sendall(b"}")
        assert all(client.recv(65_536).startswith(b"HTTP/1.1 200") for client in busy)


# Answers -------------------------------------------------------------------------------------------------------------


def test_clients_that_do_not_read_hold_bounded_memory_and_are_disconnected(bounded: Served) -> None:
    process = psutil.Process(bounded.process.pid)
    before = process.memory_info().rss
    large = post("/similar", {"queries": [{"vector": [1.0] * 24, "k": 1_000}] * 100})
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(bounded, buffer=4_096)) for _ in range(30)]
        for client in clients:
            client.sendall(large)
        time.sleep(1.5)
        assert bounded.get("/similar?word=king").status_code == 200
        assert process.memory_info().rss < before + 100_000_000  # of 240 MB of answers
        starts = [client.recv(12) for client in clients]
        assert {b"HTTP/1.1 200", b"HTTP/1.1 503"} == set(starts)
        assert starts.count(b"HTTP/1.1 200") < 10
        with connect(bounded) as patient:  # a client that reads is not taken for one that does not
            assert eventually(lambda: _answered(patient, large) == b"200")
    assert eventually(lambda: len(process.net_connections("tcp")) <= 3)
    assert eventually(lambda: any("did not read" in line or "do not read" in line for line in bounded.lines))


def _answered(client: socket.socket, request: bytes) -> bytes:
    """The status of an answer that is read to its end, with a pause in it."""
    client.sendall(request)
    received = client.recv(65_536)
    while b"\r\n\r\n" not in received:
        received += client.recv(65_536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    time.sleep(0.5)
    while len(body) < length:
        body += client.recv(1 << 20)
    return head.split()[1]


def test_a_client_that_does_not_read_is_disconnected(bounded: Served) -> None:
    large = post("/similar", {"queries": [{"vector": [1.0] * 24, "k": 1_000}] * 100})
    with connect(bounded, buffer=4_096) as client:
        client.sendall(large)
        assert client.recv(12) == b"HTTP/1.1 200"
        time.sleep(6)
        n_bytes = len(all_of(client))
    assert n_bytes < 8_000_000, "the rest was never sent"


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


@pytest.mark.parametrize("reset", [True, False])
def test_work_stops_when_the_client_is_gone(bounded: Served, reset: bool) -> None:
    gone = 'jose_requests_total{method="POST",path="/similar",status="499"}'
    before = _figure(bounded, gone)
    request = post("/similar", {"queries": [{"vector": [1.0] * 24, "k": 100}] * 1_000})
    for _ in range(8):
        client = connect(bounded)
        client.sendall(request)
        time.sleep(0.1)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    if reset:
        assert eventually(lambda: _figure(bounded, gone) > before)
    assert eventually(lambda: _figure(bounded, "jose_search_waiting ") == 0), bounded.get("/metrics").text
    assert bounded.get("/readyz").status_code == 200
