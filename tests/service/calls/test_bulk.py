"""Many documents in one call: import and export as NDJSON, deletion by filter, and lists of them while others write."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from serving import END_SECONDS, Served, Starter, make_model, wait_for
from test_kept_answers import keep

from jose_embed.model.embeddings import Embeddings
from service.app import create_app
from service.search import texts
from service.search.kernels import Kernels
from service.settings import Settings

Model = tuple[Path, Embeddings]
NDJSON = {"content-type": "application/x-ndjson"}


def line(id: str, text: str = "king", **fields: Any) -> bytes:
    return json.dumps({"id": id, "text": text, "fields": fields}).encode() + b"\n"


def send(served: Served, content: Iterable[bytes] | bytes) -> list[dict[str, Any]]:
    """The lines of the answer to an import, without those of progress, which come once a second."""
    answer = served.client.post("/documents:import", content=content, headers=NDJSON)
    assert answer.status_code == 200, answer.text
    lines = [json.loads(text) for text in answer.text.splitlines()]
    return [line for line in lines if line["status"] != "progress"]


def exported(served: Served, **parameters: Any) -> list[dict[str, Any]]:
    answer = served.get("/documents:export", params=parameters)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(text) for text in answer.text.splitlines()]


@pytest.fixture
def running(served: Served) -> Served:
    """The service of this file, without documents."""
    assert served.post("/documents:delete", {"all": True}).status_code == 200
    return served


def counts(last: dict[str, Any]) -> list[int]:
    return [last[name] for name in ("added", "replaced", "unchanged", "refused")]


def test_import_then_export_is_the_same(running: Served) -> None:
    documents = [
        {"id": f"d{i:04}", "text": f"w{i + 4} king\n日本", "fields": {"n": i, "é": [1.5, None, "x"], "big": 2**70}}
        for i in range(1_234)
    ]
    body = "".join(json.dumps(document) + "\n" for document in documents).encode()
    *_, last = send(running, (body[i : i + 1_000] for i in range(0, len(body), 1_000)))
    assert (last["status"], last["line"], last["id"], counts(last)) == ("done", 1_234, "d1233", [1_234, 0, 0, 0])
    found = exported(running)
    assert [{name: item[name] for name in ("id", "text", "fields")} for item in found] == documents
    # What an export wrote is an import; what is there already is not written again.
    again = b"".join(json.dumps(item).encode() + b"\n" for item in found)
    *_, last = send(running, again)
    assert counts(last) == [0, 0, 1_234, 0]
    assert exported(running) == found
    assert exported(running, after="d1231") == found[-2:]
    assert [item["id"] for item in exported(running, filter="n >= 10 and n < 13")] == ["d0010", "d0011", "d0012"]
    hits = running.post("/search", {"text": "w1237 king", "k": 1, "source": "added", "include": ["fields"]}).json()
    assert hits["neighbors"][0]["id"] == "d1233"
    assert hits["neighbors"][0]["fields"]["n"] == 1_233


def test_lines_that_are_refused_do_not_hinder_the_others(running: Served) -> None:
    bad = [
        b"not json\n",
        b'{"id": "x"}\n',
        b'{"id": "x", "text": "king", "more": 1}\n',
        b'{"id": "a\\u0000", "text": "king"}\n',
        line("unknown", "nowhere"),
        line("empty", ""),
        b'{"id": "x", "text": "king", "fields": {"n": 1e999}}\n',
        b'{"id": "x", "text": "king", "fields": {"n": "' + b"x" * 70_000 + b'"}}\n',
        b'{"id": "x", "text": "' + b"king " * 500_000 + b'"}\n',  # longer than a body may be
        b"\xff\xfe\n",
        b"[" * 5_000 + b"\n",
    ]
    body = b"\xef\xbb\xbf" + line("first") + b"\n  \r\n" + b"".join(bad) + line("last").rstrip()
    *refused, last = send(running, body)
    assert (last["status"], counts(last), last["line"], last["id"]) == ("done", [2, 0, 0, len(bad)], 15, "last")
    assert [item["line"] for item in refused if item["status"] == "refused"] == list(range(4, 4 + len(bad)))
    kinds = [item["problem"]["type"].partition("#")[2] for item in refused]
    assert kinds == ["malformed-json", *["invalid-request"] * 3, *["no-known-words"] * 2, *["invalid-request"] * 2,
                     "body-too-large", "malformed-json", kinds[-1]]  # fmt: skip
    told = [item["problem"]["detail"] for item in refused if item.get("id") == "unknown"]
    assert told == ["none of the 1 words is in the vocabulary ('nowhere')"]
    assert [item["id"] for item in exported(running)] == ["first", "last"]


def test_import_and_reload_store_the_bytes_of_texts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from starlette.testclient import TestClient

    monkeypatch.setattr(texts, "WORTH_COMPILING", 0)
    monkeypatch.setattr(Kernels, "ready", True)  # all texts take the compiled path
    path = tmp_path / "own.jose"
    models = [make_model(path, n_words=300)]
    words = {f"d{i}": f"king w{i} nobody w{i * 7 % 299}" if i % 9 else "nobody" for i in range(1, 700)}
    app = create_app(Settings(model=path))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        body = b"".join(line(id, text) for id, text in words.items())
        *refused, last = map(
            json.loads, client.post("/documents:import", content=body, headers=NDJSON).text.splitlines()
        )
        assert (last["status"], last["added"], last["refused"]) == ("done", 622, 77)
        assert {item["problem"]["type"] for item in refused if item["status"] == "refused"} == {
            "/problems#no-known-words"
        }
        models.append(make_model(path, n_words=300, seed=9, overwrite=True))
        stored = [app.state.engine.store.vectors(models[0].id)]
        job = client.post("/admin/reload?wait=3600").json()
        assert (job["status"], job["result"]["documents"]) == ("done", 622)
        stored.append(app.state.engine.store.vectors(models[1].id))
    for model, rows in zip(models, stored, strict=True):
        wanted = model.infer([words[id] for _, id, _ in rows])
        assert len(rows) == 622
        assert [vector.tobytes() for *_, vector in rows if vector is not None] == [row.tobytes() for row in wanted]


def test_of_two_lines_with_one_id_the_last_counts(running: Served) -> None:
    send(running, line("a", "king"))
    *_, last = send(running, line("a", "queen") + line("a", "king"))
    assert counts(last) == [0, 2, 0, 0]
    assert running.get("/documents/a").json()["text"] == "king"


def test_refusals_are_counted_and_the_first_ones_shown(running: Served) -> None:
    *refused, last = send(running, b"x\n" * 1_500)
    assert (len(refused), counts(last)) == (100, [0, 0, 0, 1_500])


@pytest.mark.parametrize(
    ("headers", "body", "status", "kind"),
    [
        ({"content-type": "application/json"}, b"{}", 415, "not-ndjson"),
        ({}, b"", 415, "not-ndjson"),
        (NDJSON | {"origin": "http://elsewhere"}, b"", 403, "foreign-page"),
    ],
)
def test_what_is_no_import(running: Served, headers: dict[str, str], body: bytes, status: int, kind: str) -> None:
    answer = running.client.post("/documents:import", content=body, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems#{kind}")


def test_an_empty_import_is_done(running: Served) -> None:
    (last,) = send(running, b"")
    assert (last["status"], last["line"], last["id"]) == ("done", 0, None)


class Upload:
    """An import that is sent piece by piece, the first one with the head, and its answer."""

    def __init__(self, served: Served, content: bytes) -> None:
        url = httpx.URL(served.url)
        self.connection = http.client.HTTPConnection(url.host, url.port, timeout=END_SECONDS)
        self.connection.putrequest("POST", "/documents:import")
        self.connection.putheader("Content-Type", "application/x-ndjson")
        self.connection.putheader("Transfer-Encoding", "chunked")
        self.connection.endheaders(self._chunk(content))

    def send(self, content: bytes) -> None:
        self.connection.send(self._chunk(content))

    @staticmethod
    def _chunk(content: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(content), content)

    def end(self) -> None:
        self.connection.send(b"0\r\n\r\n")

    def answer(self) -> tuple[int, list[dict[str, Any]]]:
        """Status and lines of the answer."""
        with contextlib.closing(self.connection), http.client.HTTPResponse(self.connection.sock) as answer:
            answer.begin()
            return answer.status, [json.loads(text) for text in answer.read().splitlines()]


def stored(served: Served) -> int:
    n: int = served.get("/info").json()["documents"]["stored"]
    return n


def test_what_arrived_is_stored_before_the_rest_is_sent(running: Served) -> None:
    upload = Upload(running, b"".join(line(f"d{i}") for i in range(1_100)))
    wait_for(lambda: stored(running) == 1_100)
    upload.send(line("end"))
    upload.end()
    status, lines = upload.answer()
    assert (status, lines[-1]["status"]) == (200, "done")
    assert stored(running) == 1_101


def test_a_client_that_leaves_loses_only_what_was_not_stored(running: Served) -> None:
    upload = Upload(running, b"".join(line(f"d{i}") for i in range(1_100)) + b'{"id": "half')
    wait_for(lambda: stored(running) == 1_100)
    upload.connection.close()
    *_, last = send(running, b"".join(line(f"d{i}") for i in range(1_200)))
    assert counts(last) == [100, 0, 1_100, 0]
    assert not [text for text in running.lines if "Traceback" in text]


def test_an_import_that_stays_open_is_stored_and_ends_with_the_service(
    model_a: Model, tmp_path: Path, starter: Starter
) -> None:
    running = starter(model_a[0], "--documents", str(tmp_path / "d.sqlite3"))
    upload = Upload(running, line("a") + line("b") + b'{"id": "half')
    wait_for(lambda: stored(running) == 2)
    upload.send(b'", "text": "queen"}\n')
    wait_for(lambda: stored(running) == 3)
    running.process.terminate()
    status, lines = upload.answer()
    assert (status, lines[-1]["status"], lines[-1]["id"]) == (200, "stopped", "half")
    assert running.process.wait(END_SECONDS) == 0


def test_an_import_says_where_it_was_stopped(model_a: Model, tmp_path: Path, starter: Starter) -> None:
    running = starter(model_a[0], "--documents", str(tmp_path / "d.sqlite3"))
    upload = Upload(running, b"".join(line(f"d{i}") for i in range(1_000)))
    wait_for(lambda: stored(running) == 1_000)
    running.process.terminate()
    wait_for(lambda: any("stopping: " in text for text in running.lines))
    with contextlib.suppress(OSError):  # it may have ended already
        upload.send(b"".join(line(f"d{i}") for i in range(1_000, 2_000)))
    last = upload.answer()[1][-1]
    assert (last["status"], last["line"], last["id"]) == ("stopped", 1_000, "d999")
    assert last["problem"]["type"] == "/problems#not-ready"
    assert running.process.wait(END_SECONDS) == 0


def test_a_slow_client_is_stopped(model_a: Model, tmp_path: Path, starter: Starter) -> None:
    """Its line is stored a second after it has come, long before the service has waited for long enough."""
    running = starter(
        model_a[0], "--documents", str(tmp_path / "d.sqlite3"), environment={"JOSE_BODY_SECONDS": "6"}
    )  # fmt: skip
    status, (*_, last) = Upload(running, line("a")).answer()
    assert (status, last["status"], last["line"]) == (200, "stopped", 1)
    assert last["problem"]["type"] == "/problems#body-too-slow"


def test_few_may_import_at_once(model_a: Model, tmp_path: Path, starter: Starter) -> None:
    running = starter(
        model_a[0], "--documents", str(tmp_path / "d.sqlite3"),
        environment={"JOSE_BODY_SECONDS": "3600", "JOSE_MAX_TRANSFERS": "1"},
    )  # fmt: skip
    upload = Upload(running, line("a"))
    wait_for(lambda: stored(running) == 1)  # the import has the only place
    refused = running.get("/documents:export")
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems#saturated")
    upload.end()
    assert upload.answer()[1][-1]["status"] == "done"
    wait_for(lambda: running.get("/documents:export").status_code == 200)


def test_memory_does_not_grow_with_the_import(model_a: Model, tmp_path: Path, starter: Starter) -> None:
    # Without kernels: to load them takes memory, once.
    running = starter(
        model_a[0], "--documents", str(tmp_path / "d.sqlite3"), environment={"JOSE_CACHE_DIR": "off"}, ready=False
    )

    def lines(n: int) -> Iterator[bytes]:
        for i in range(n):
            yield line(f"d{i % 50}", "king " + "x" * 20_000, n=i)

    process = psutil.Process(running.process.pid)
    send(running, lines(200))
    before = process.memory_info().rss
    *_, last = send(running, lines(2_000))  # 40 MB
    assert last["status"] == "done"
    assert process.memory_info().rss - before < 15e6


# ---------------------------------------------------------------------------------------------------------- deletion


def test_delete_by_filter_and_all(running: Served) -> None:
    send(running, b"".join(line(f"d{i}", rating=i % 5, lang="de" if i % 2 else "en") for i in range(1_200)))
    tried = running.post("/documents:delete", {"filter": "rating >= 3 and lang = de", "dry_run": True}).json()
    assert (tried["matched"], tried["deleted"], stored(running)) == (240, 0, 1_200)
    done = running.post("/documents:delete", {"filter": "rating >= 3 and lang = de"}).json()
    assert (done["matched"], done["deleted"], stored(running)) == (240, 240, 960)
    assert exported(running, filter="rating >= 3 and lang = de") == []
    found = running.post("/search", {"text": "king", "k": 1_000, "source": "added"}).json()["neighbors"]
    assert len(found) == 960
    assert running.post("/documents:delete", {"all": True}).json()["deleted"] == 960
    assert (stored(running), running.get("/documents").json()["documents"]) == (0, [])


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({}, "invalid-request"),
        ({"all": False}, "invalid-request"),
        ({"all": True, "filter": "a = 1"}, "invalid-request"),
        ({"filter": "a ="}, "invalid-filter"),
    ],
)
def test_a_deletion_says_what_it_means(running: Served, body: dict[str, Any], kind: str) -> None:
    send(running, line("a"))
    answer = running.post("/documents:delete", body)
    assert (answer.status_code, answer.json()["type"]) == (422, f"/problems#{kind}")
    assert stored(running) == 1


@pytest.mark.parametrize(
    ("filter", "said"),
    [
        ("day < 20250101", "the field 'day' holds dates"),  # as text it is above all days of that year
        ("dya is missing", "there is no field 'dya'; kept are day"),  # all documents would fit
    ],
)
def test_a_slip_in_a_filter_deletes_nothing(running: Served, filter: str, said: str) -> None:
    send(running, b"".join(line(f"d{i}", day=f"2025-01-{i % 28 + 1:02}") for i in range(700)))
    refused = [
        running.post("/documents:delete", {"filter": filter}),
        running.get("/documents:export", params={"filter": filter}),
        running.post("/search", {"text": "king", "filter": filter.replace("is missing", "= 1")}),
    ]
    for answer in refused:
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems#invalid-filter")
        assert said.partition(";")[0] in answer.json()["detail"]
    assert stored(running) == 700
    # A field that is gone with its last document is no slip.
    assert running.post("/documents:delete", {"filter": "batch = 7"}).json()["matched"] == 0
    trained = running.get("/documents:export", params={"filter": "day = 2025-01-01", "source": "trained"})
    assert trained.json()["detail"].startswith("there is no field 'day'; no fields are kept")


# --------------------------------------------------------------------------------------------------- lists and fields


def pages(served: Served, **parameters: Any) -> Iterator[list[dict[str, Any]]]:
    after: str | None = ""
    while after is not None:
        answer = served.get("/documents", params=parameters | {"after": after})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        yield page["documents"]
        after = page["next"]


def test_pages_survive_writes(running: Served) -> None:
    """Documents that are there all the time are listed once, whatever is added, replaced and deleted meanwhile."""
    lasting = [f"keep-{i:03}" for i in range(300)]
    send(running, b"".join(line(id) for id in lasting))
    stop = threading.Event()

    def write() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            running.put(f"keep-{n % 300:03}", f"w{n % 100 + 4}")
            running.put(f"keep-{n % 300:03}x", "queen")
            running.client.delete(f"/documents/keep-{(n - 3) % 300:03}x")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            listed = [item["id"] for page in pages(running, limit=7) for item in page]
            assert [id for id in listed if not id.endswith("x")] == lasting
            assert len(set(listed)) == len(listed)
            found = [item["id"] for item in exported(running)]
            assert [id for id in found if not id.endswith("x")] == lasting
    finally:
        stop.set()
        writer.join()


def test_texts_and_fields_of_added_documents(running: Served) -> None:
    put = running.client.put("/documents/a", json={"text": "king", "fields": {"n": 1}})
    assert put.status_code == 201
    operations = [
        {"op": "put", "id": "b", "text": "queen", "fields": {"n": 2}},
        {"op": "put", "id": "c", "text": "man"},
    ]
    assert running.post("/documents:batch", {"operations": operations}).status_code == 200
    assert running.get("/documents/a").json()["fields"] == {"n": 1}
    (page,) = pages(running, include="text,fields")
    assert [(item["text"], item["fields"]) for item in page] == [("king", {"n": 1}), ("queen", {"n": 2}), ("man", {})]
    (page,) = pages(running)
    assert all(set(item) == {"id", "revision", "characters", "created", "updated"} for item in page)
    running.put("a", "king")
    assert running.get("/documents/a").json()["fields"] == {}, "fields that are omitted are empty"
    assert running.get("/documents", params={"include": "everything"}).status_code == 422
    large = {"text": "king", "fields": {"x": "y" * 70_000}}
    assert running.client.put("/documents/a", json=large).json()["type"] == "/problems#invalid-request"


def test_a_page_of_long_texts_is_short(model_a: Model, tmp_path: Path, starter: Starter) -> None:
    running = starter(
        model_a[0], "--documents", str(tmp_path / "d.sqlite3"), environment={"JOSE_MAX_ANSWER_BYTES": "1600000"}
    )
    send(running, b"".join(line(f"d{i}", "king " * 10_000) for i in range(9)))
    sizes = [len(page) for page in pages(running, include="text")]
    assert (sum(sizes), max(sizes)) == (9, 2)
    assert len(exported(running)) == 9


def test_documents_of_the_training(starter: Starter, tmp_path: Path) -> None:
    texts = [f"the text of {i + 1}" for i in range(130)]
    path = keep(tmp_path / "a.jose", texts, [{"stars": i} for i in range(130)])
    running = starter(path)
    listed = [item for page in pages(running, source="trained", include="text,fields", limit=60) for item in page]
    assert [(item["id"], item["text"]) for item in listed] == [(str(i + 1), text) for i, text in enumerate(texts)]
    found = exported(running, source="trained", filter="stars >= 120", after="125")
    assert [item["id"] for item in found] == [str(i) for i in range(126, 131)]
    assert found[0] == {"id": "126", "source": "trained", "text": texts[125], "fields": {"stars": 125}}
    assert running.get("/documents:export?source=trained&after=x").json()["type"] == "/problems#unknown-document"
    assert running.get("/documents?source=trained&after=x").status_code == 404


def test_a_model_without_texts_lists_ids(running: Served) -> None:
    (page,) = pages(running, source="trained", include="text,fields", limit=1_000)
    assert (len(page), page[0]["id"], page[0]["text"], page[0]["fields"]) == (120, "1", None, {})


def test_an_import_while_the_model_is_replaced(tmp_path: Path, starter: Starter) -> None:
    path = tmp_path / "own.jose"
    make_model(path, n_words=500)
    running = starter(path, environment={"JOSE_BODY_SECONDS": "3600"})
    sent, reloaded, ended = threading.Event(), threading.Event(), threading.Event()

    def reload() -> None:
        """A reload as soon as documents have come in since the last one, which a slow machine must get to as well."""
        sent.wait()
        for seed in range(4, 1_000):
            before = stored(running)
            make_model(path, n_words=500, seed=seed, overwrite=True)
            running.post("/admin/reload?wait=3600")
            reloaded.set()
            wait_for(lambda before=before: ended.is_set() or stored(running) > before)
            if ended.is_set():
                return

    def lines() -> Iterator[bytes]:
        for i in range(4_000):
            yield line(f"d{i}", f"w{i % 400 + 4}")
            if i == 2_000:
                sent.set()
                reloaded.wait(END_SECONDS)

    thread = threading.Thread(target=reload)
    thread.start()
    try:
        *_, last = send(running, lines())
    finally:
        sent.set()
        ended.set()
        thread.join()
    assert reloaded.is_set()
    assert (last["status"], counts(last)) == ("done", [4_000, 0, 0, 0])
    found = running.post("/search", {"text": "king", "k": 1_000, "source": "added"}).json()["neighbors"]
    assert len(found) == 1_000
    assert running.get("/info").json()["documents"]["searchable"] == 4_000
