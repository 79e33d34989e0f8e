"""What a service on a network gets to see sooner or later: too large, too slow, too deep, not JSON, not text."""

from __future__ import annotations

import contextlib
import json
import select
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import pytest
from serving import END_SECONDS, Served, start, wait_for

from jose_embed.model.embeddings import Embeddings

JSON = {"content-type": "application/json"}
CALLS = ["/similar", "/embed-doc", "/search", "/v1/embeddings", "/documents:batch"]


@pytest.fixture(scope="module")
def small(model_a: tuple[Path, Embeddings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with small bounds, but none of time."""
    bounds = {"JOSE_MAX_BODY_BYTES": "100000", "JOSE_BODY_SECONDS": "3600", "JOSE_MAX_TEXT_CHARACTERS": "1000"}
    bounds |= {"JOSE_MAX_QUEUED_BYTES": "250000"}
    documents = tmp_path_factory.mktemp("documents") / "documents.sqlite3"
    patient = "import service.app; service.app._LINGER_SECONDS = 3600"
    running = start(model_a[0], "--documents", str(documents), environment=bounds, prelude=patient)
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def hasty(model_a: tuple[Path, Embeddings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that does not wait long for a body."""
    documents = tmp_path_factory.mktemp("documents") / "documents.sqlite3"
    running = start(model_a[0], "--documents", str(documents), environment={"JOSE_BODY_SECONDS": "1"})
    yield running
    assert running.stop() == 0


def connect(served: Served) -> socket.socket:
    """A connection of its own."""
    host, port = urlsplit(served.url).netloc.split(":")
    return socket.create_connection((host, int(port)), timeout=END_SECONDS)


def head(host: str, length: int) -> bytes:
    """The head of a request whose body has so many bytes."""
    lines = ["POST /embed-doc HTTP/1.1", f"Host: {host}", "Content-Type: application/json", f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()


def kind_of(answer: httpx.Response) -> str:
    """The kind of problem, whichever shape it has."""
    body = answer.json()
    return str(body["error"]["code"]).replace("_", "-") if "error" in body else str(body["type"]).partition("#")[2]


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"not json",
        b'{"text": "a"} {}',
        b'{"text": NaN}',
        b'{"text": Infinity}',
        b"\xff\xfe",
        b'{"text": "\xff"}',
        b'{"text": "\\ud800"}',
        b'{"text": "\\ude00\\ud83d"}',
        b'{"text": "a\x00"}',
        b"[" * 100_000,
        b"[" * 1_000 + b"]" * 1_000,
        b"1" * 5_000,
        b'{"text": 1e400}',
        b"\xef\xbb\xbf{}",
        b"null",
        b"[]",
        b'"text"',
    ],
    ids=lambda body: repr(body[:16]),
)
def test_bodies_that_are_no_request(served: Served, path: str, body: bytes) -> None:
    answer = served.client.post(path, content=body, headers=JSON)
    assert answer.status_code in (400, 422)
    assert kind_of(answer) in ("malformed-json", "invalid-request")


@pytest.mark.parametrize("path", CALLS)
def test_large_bodies_are_judged_like_small_ones(served: Served, path: str) -> None:
    padding = b" " * 70_000
    for body in (b"{", b'{"text": "\\ud800"}', b"[" * 300 + b"]" * 300, b'{"text": NaN}', b"{} {}"):
        small, large = (served.client.post(path, content=pad + body, headers=JSON) for pad in (b"", padding))
        assert (small.status_code, kind_of(small)) == (large.status_code, kind_of(large)) == (400, "malformed-json")
    for value in (
        {},
        [],
        None,
        {"text": 5, "texts": ["", 7], "input": "a"},
        {"texts": [], "input": [], "queries": [], "operations": []},
        {"queries": [{"word": "king"}, {"word": ""}], "operations": [{"op": "put", "id": "a"}], "text": ""},
        {"queries": {"a": 1}, "operations": 5, "texts": "a", "input": {"a": 1}, "vector": [1, "2", None]},
        {f"k{i}": i for i in range(300)},
    ):
        body = json.dumps(value).encode()
        small, large = (served.client.post(path, content=pad + body, headers=JSON) for pad in (b"", padding))
        assert (small.status_code, kind_of(small)) == (large.status_code, kind_of(large)) == (422, "invalid-request")
        if "errors" in small.json():  # of a large body, maybe only the first place
            assert small.json()["errors"][:1] == large.json()["errors"][:1]


@pytest.mark.parametrize("path", CALLS)
def test_bodies_of_more_parts_than_any_call_takes(served: Served, path: str) -> None:
    for value in (
        {f"k{i}": i for i in range(100_000)},
        {"queries": [{}] * 40_000},
        {"text": [[]] * 40_000},
        {"text": "king", "more": [{f"k{i}": i for i in range(20_000)}]},
    ):
        answer = served.post(path, value)
        assert (answer.status_code, kind_of(answer)) == (422, "invalid-request")
        assert "lists, objects and members; at most 16,384 are allowed" in answer.text


@pytest.mark.parametrize("query", ["word=king&word=queen", "word=king&k=5&k=5", "word=king&k=5&word=king&k=6"])
def test_a_parameter_that_is_given_twice_is_refused(served: Served, query: str) -> None:
    answer = served.get(f"/similar?{query}")
    assert (answer.status_code, kind_of(answer)) == (422, "invalid-request")
    assert "is given 2 times" in answer.json()["detail"]
    assert served.get("/distance?a=king&b=queen&a=man").status_code == 422
    assert served.get("/words?prefix=a&prefix=b").status_code == 422
    many = "&".join(f"a{i}=1" for i in range(33))
    for path in ("/similar", "/words", "/distance", "/documents/a", "/v1/models"):
        assert "33 parameters were sent" in served.get(f"{path}?{many}").text


@pytest.mark.parametrize(
    "number", ["5_0", " 5", "5 ", "+5", "5.0", "5e0", "0x5", "", "5\n", "\u0665", "\uff15", "\u00b2"]
)
def test_whole_numbers_of_a_query_are_plain_digits(served: Served, number: str) -> None:
    for path, name in (("/similar?word=king", "k"), ("/similar?word=king", "max_rank"),
                       ("/words?prefix=w", "limit"), ("/documents?after=", "limit")):  # fmt: skip
        address = httpx.URL(path)
        answer = served.get(str(address.copy_merge_params({name: number})))
        assert (answer.status_code, kind_of(answer)) == (422, "invalid-request"), (path, name)
        assert answer.json()["errors"][0]["where"] == f"query.{name}"
        assert served.get(str(address.copy_merge_params({name: "5"}))).status_code == 200


@pytest.mark.parametrize("number", ["0_1", " 0.5", "+0.5", "inf", "nan", "\u0660.5", "0x1", ""])
def test_scores_of_a_query_are_plain_numbers(served: Served, number: str) -> None:
    answer = served.get("/similar", params={"word": "king", "min_score": number})
    assert (answer.status_code, kind_of(answer)) == (422, "invalid-request")
    for plain in ("0.5", "-1", "1", ".5", "1e-3"):
        assert served.get("/similar", params={"word": "king", "min_score": plain}).status_code == 200


def test_inputs_that_are_no_texts_are_named_as_a_caller_knows_them(served: Served) -> None:
    for wrong, where in ((5, "body.input"), ([1, 2], "body.input"), (["king", 7], "body.input"), ("", "body.input")):
        message = served.post("/v1/embeddings", {"input": wrong, "model": "a"}).json()["error"]["message"]
        assert message.startswith(where)


def test_of_a_list_the_first_item_that_does_not_fit_is_told(served: Served) -> None:
    answer = served.post("/similar", {"queries": [{"word": "king", "among": list(range(1_000))}, {"word": 5}]})
    assert [error["where"] for error in answer.json()["errors"]] == ["body.queries.0.among.0"]


@pytest.mark.parametrize(
    "kind", [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json"]
)
@pytest.mark.parametrize("path", CALLS)
def test_only_json_is_read(served: Served, path: str, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    answer = served.client.post(path, content=b'{"text": "king"}', headers=headers)
    assert (answer.status_code, kind_of(answer)) == (415, "not-json")


def test_json_has_many_names(served: Served) -> None:
    for kind in ("application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"):
        assert (
            served.client.post("/embed-doc", content=b'{"text": "king"}', headers={"content-type": kind}).status_code
            == 200
        )


@pytest.mark.parametrize("path", CALLS)
def test_a_body_over_the_limit(small: Served, path: str) -> None:
    whole = small.client.post(path, content=b" " * 100_001, headers=JSON)
    assert (whole.status_code, kind_of(whole)) == (413, "body-too-large")
    pieces = small.client.post(path, content=(b" " * 10_000 for _ in range(11)), headers=JSON)
    assert (pieces.status_code, kind_of(pieces)) == (413, "body-too-large")
    just = small.client.post(path, content=b" " * 100_000, headers=JSON)
    assert (just.status_code, kind_of(just)) == (400, "malformed-json")


def answer_to(served: Served, request: bytes) -> str:
    """Everything that comes back for a request."""
    with connect(served) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65_536), b"")).decode()


def test_a_refused_body_that_is_sent_on_gets_its_answer(small: Served) -> None:
    # A reset connection loses the answer, and a proxy makes 502 of it.
    answer = answer_to(small, head("localhost", 1_000_000) + b" " * 1_000_000)
    assert answer.startswith("HTTP/1.1 413 ")
    assert "body-too-large" in answer


def test_a_refused_body_that_never_ends_is_not_awaited(hasty: Served) -> None:
    answer = answer_to(hasty, head("localhost", 3_000_000) + b"{")
    assert answer.startswith("HTTP/1.1 413 ")
    assert hasty.get("/readyz").status_code == 200


def test_a_body_that_does_not_come(hasty: Served) -> None:
    answer = answer_to(hasty, head("localhost", 1_000) + b"{")
    assert answer.startswith("HTTP/1.1 408 ")
    assert "body-too-slow" in answer
    assert hasty.get("/readyz").status_code == 200


def test_bodies_under_way_are_bounded_in_sum(small: Served) -> None:
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(connect(small)) for _ in range(3)]
        for connection in waiting:
            connection.sendall(head("localhost", 99_000) + b" " * 98_000)
        (refused, *more), _, _ = select.select(waiting, [], [], END_SECONDS)
        assert not more
        answer = refused.recv(65_536).decode()
        assert answer.startswith("HTTP/1.1 503 ")
        assert "retry-after" in answer.lower()
        waiting.remove(refused)
        for connection in waiting:  # the others are read to their end
            connection.sendall(b" " * 1_000)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 400 ")
        refused.sendall(b" " * 1_000)


def test_texts_over_the_limit(small: Served) -> None:
    text = "king " * 200 + "queen"
    refused = small.post("/embed-doc", {"text": text})
    assert (refused.status_code, kind_of(refused)) == (413, "text-too-long")
    for truncate, part in (("end", text[:1_000]), ("start", text[-1_000:])):
        cut = small.post("/embed-doc", {"text": text, "truncate": truncate}).json()
        assert cut["truncated"] is True
        assert cut["embedding"] == small.post("/embed-doc", {"text": part}).json()["embedding"]
    items = small.post("/embed-doc", {"texts": ["king", text]}).json()["results"]
    assert [item["status"] for item in items] == [200, 413]
    assert small.put("long", text).status_code == 413
    assert small.post("/v1/embeddings", {"input": text, "model": "a"}).status_code == 413
    assert small.post("/search", {"text": text}).status_code == 413


def test_300_000_words(served: Served, model_a: tuple[Path, Embeddings]) -> None:
    words = [model_a[1].words[i] for i in np.random.default_rng(0).integers(0, 2_000, 300_000)]
    text = " ".join(words)
    answer = served.post("/embed-doc", {"text": text}).json()
    assert answer["tokens"] == 300_000
    assert np.array_equal(np.array(answer["embedding"], np.float32), model_a[1].infer([text])[0])


def test_words_that_are_no_words(served: Served) -> None:
    for word in ("\u0000", "a\u0000b", "\u202e", "x" * 1_000, "\U0001f600", "' OR 1=1 --", "../../etc/passwd", "%s%n"):
        assert served.get("/similar", params={"word": word}).status_code == 404, word
        assert served.post("/similar", {"queries": [{"word": word}]}).json()["results"][0]["status"] == 404
    assert served.get("/similar?word=%ff%fe").status_code == 404
    assert served.get("/similar?word=" + "x" * 1_001).status_code == 422
    assert served.get("/similar?word=").status_code == 422
    assert served.get("/similar").status_code == 422


def test_long_bodies_of_every_shape(served: Served) -> None:
    vectors = np.random.default_rng(0).normal(size=(500, 24)).tolist()
    answer = served.post("/similar", {"queries": [{"vector": vector, "k": 1} for vector in vectors]})
    assert {item["status"] for item in answer.json()["results"]} == {200}
    wrong = served.post("/similar", {"queries": [{"vector": vector, "k": 1} for vector in vectors] + [{"k": 1}]})
    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["where"].startswith("body.queries.500")
    texts = ["w5 " * 300 + "\u00e9\u65e5\U0001f600" + '"\\' for _ in range(200)]
    body = json.dumps({"texts": texts}).encode()
    assert len(body) > 70_000
    items = served.client.post("/embed-doc", content=body, headers=JSON).json()["results"]
    assert {item["status"] for item in items} == {200}
    operations = [{"op": "put", "id": f"long-{i}", "text": "king " * 100} for i in range(300)]
    done = served.post("/documents:batch", {"operations": operations}).json()["results"]
    assert {item["status"] for item in done} == {201}


def test_large_bodies_that_are_refused_leave_nothing_behind(served: Served) -> None:
    """No error keeps a body until the next collection, which may come much later."""
    process = psutil.Process(served.process.pid)
    body = b'{"text": "' + b"x" * 1_900_000 + b'", "more": [1]}'
    resident: list[int] = []
    for _ in range(4):
        for part, status in ((body, 422), (body[:-2], 400)):
            for _ in range(4):
                assert served.client.post("/embed-doc", content=part, headers=JSON).status_code == status
        resident.append(process.memory_info().rss)
    assert resident[-1] < resident[0] + 4 * len(body)


def test_saturation_is_said_and_passes(model_a: tuple[Path, Embeddings], tmp_path: Path) -> None:
    bounds = {"JOSE_MAX_WAITING": "2", "JOSE_BODY_SECONDS": "3600"}
    running = start(model_a[0], "--documents", str(tmp_path / "d.sqlite3"), environment=bounds)
    body = b'{"text": "king"}'
    begin = head("localhost", len(body)).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    with connect(running) as first, connect(running) as second:
        for connection in (first, second):
            connection.sendall(begin)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 100 ")  # it is in work, and waits for its body
        refused = running.post("/embed-doc", {"text": "king"})
        assert (refused.status_code, kind_of(refused)) == (503, "saturated")
        assert int(refused.headers["retry-after"]) >= 1
        assert running.get("/readyz").status_code == 200
        for connection in (first, second):
            connection.sendall(body)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
    wait_for(lambda: running.post("/embed-doc", {"text": "king"}).status_code == 200)
    assert running.stop() == 0


def sent_raw(served: Served, pieces: Iterable[bytes]) -> tuple[int, httpx.Headers, bytes, int]:
    """The answer to bytes on a connection of their own, after which it is closed, and how many bytes went out."""
    n_sent = 0
    with connect(served) as connection:
        with contextlib.suppress(ConnectionError):  # the answer may come before all is sent
            for piece in pieces:
                connection.sendall(piece)
                n_sent += len(piece)
        received = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65_536):
                received += piece
    first, _, rest = received.partition(b"\r\n")
    lines, _, body = rest.partition(b"\r\n\r\n")
    headers = httpx.Headers([line.split(b": ", 1) for line in lines.split(b"\r\n")])
    return int(first.split()[1]), headers, body, n_sent


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"KING QUEEN\r\n\r\n",
        b"GET /livez HTTP/9.9\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nNo Header: 1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"POST /embed-doc HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n",
        b"POST /embed-doc HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nking\r\n",
    ],
    ids=lambda request: repr(request[:20]),
)
def test_what_is_not_http_is_told_as_a_problem(served: Served, request_bytes: bytes) -> None:
    status, headers, body, _ = sent_raw(served, [request_bytes])
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert (headers["connection"], headers["content-length"]) == ("close", str(len(body)))
    assert json.loads(body)["type"] == "/problems#malformed-http"


LINE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = (
    b"POST /embed-doc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
)


@pytest.mark.parametrize(
    ("first", "more"),
    [
        (b"GET /livez?", b"a" * 60),
        (LINE + b"A: ", b"a" * 60),
        (LINE, b"a: b\r\n" * 10),
        (CHUNKED + b"0\r\n", b"a: b\r\n" * 10),
        (CHUNKED + b"2;", b"a" * 60),
    ],
    ids=["path", "header", "headers", "trailers", "chunk extension"],
)
def test_a_head_without_an_end_is_refused_and_not_kept(served: Served, first: bytes, more: bytes) -> None:
    process = psutil.Process(served.process.pid)
    before = process.memory_info().rss
    status, _, body, n_sent = sent_raw(served, [first, *[more * 1_000] * 500])
    assert (status, json.loads(body)["type"]) == (431, "/problems#head-too-large")
    assert n_sent < 20_000_000
    assert process.memory_info().rss < before + 20_000_000
    assert served.get("/readyz").status_code == 200


def test_long_heads_and_bodies_in_small_pieces_are_read(served: Served) -> None:
    headers = [b"a%d: %s\r\n" % (i, b"b" * 1_000) for i in range(60)]
    assert sent_raw(served, [LINE, *headers, b"Connection: close\r\n\r\n"])[0] == 200
    body = json.dumps({"text": "king " * 40_000}).encode()
    pieces = [body[i : i + 1_000] for i in range(0, len(body), 1_000)]
    begin = head("localhost", len(body)).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert sent_raw(served, [begin, *pieces])[0] == 200


def test_clients_that_hang_up(served: Served) -> None:
    body = json.dumps({"text": "king " * 20_000}).encode()
    for part in (body, body[:100], b""):
        for _ in range(10):
            with connect(served) as connection:
                connection.sendall(head("localhost", len(body)) + part)
    process = psutil.Process(served.process.pid)
    wait_for(lambda: len(process.net_connections("tcp")) <= 2)  # the one that listens, and that of the tests
    assert served.get("/readyz").status_code == 200
    assert not [line for line in served.lines if "Traceback" in line], "".join(served.lines)
