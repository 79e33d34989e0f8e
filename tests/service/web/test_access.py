"""Keys for reading and writing, and names of the host."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import READ_KEY, WRITE_KEY, Served, Starter, start

from jose_embed.model.embeddings import Embeddings

READS: list[tuple[str, str, Any]] = [
    ("GET", "/similar?word=king", None),
    ("POST", "/similar", {"queries": [{"word": "king"}]}),
    ("POST", "/embed-doc", {"text": "king"}),
    ("POST", "/search", {"word": "king"}),
    ("GET", "/words", None),
    ("GET", "/words/king", None),
    ("GET", "/distance?a=king&b=queen", None),
    ("GET", "/card", None),
    ("GET", "/documents", None),
    ("GET", "/documents/there", None),
    ("GET", "/documents:export", None),
    ("GET", "/admin/jobs", None),
    ("POST", "/v1/embeddings", {"input": "king", "model": "a"}),
    ("GET", "/v1/models", None),
    ("GET", "/v1/models/a", None),
]
WRITES: list[tuple[str, str, Any]] = [
    ("PUT", "/documents/there", {"text": "king"}),
    ("POST", "/documents:batch", {"operations": [{"op": "put", "id": "there", "text": "queen"}]}),
    ("POST", "/admin/reload?wait=60", None),
    ("POST", "/documents:delete", {"filter": "n = 1", "dry_run": True}),
    ("POST", "/admin/snapshot?wait=60", None),
    ("DELETE", "/documents/other", None),
]
OPEN = ["/", "/page/page.js", "/livez", "/readyz", "/healthz", "/metrics", "/info"]
OPEN += ["/docs", "/redoc", "/openapi.json", "/problems", "/static/swagger-ui.css"]


@pytest.fixture(scope="module")
def locked(model_a: tuple[Path, Embeddings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with keys, as on a network."""
    documents = tmp_path_factory.mktemp("documents") / "documents.sqlite3"
    keys = {"JOSE_READ_KEY": f"{READ_KEY} another-read-key-1", "JOSE_WRITE_KEY": WRITE_KEY}
    running = start(model_a[0], "--documents", str(documents), environment=keys)
    for id in ("there", "other"):
        assert running.put(id, "king", headers=bearer(WRITE_KEY)).status_code == 201
    yield running
    assert running.stop() == 0


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def ask(served: Served, call: tuple[str, str, Any], headers: dict[str, str]) -> httpx.Response:
    method, path, body = call
    return served.client.request(method, path, json=body, headers=headers)


@pytest.mark.parametrize("call", READS + WRITES, ids=lambda call: f"{call[0]} {call[1]}")
def test_keys(locked: Served, call: tuple[str, str, Any]) -> None:
    # Twice: an answer that is kept from before needs a key no less.
    for _ in range(2):
        for headers in ({}, {"Authorization": "Basic abc"}, {"Authorization": "Bearer"}):
            missing = ask(locked, call, headers)
            assert missing.status_code == 401
            assert missing.headers["www-authenticate"].startswith("Bearer")
        for key in ("wrong", READ_KEY[:-1], READ_KEY + "x", READ_KEY.upper(), "\xe9" * 20):
            assert ask(locked, call, {"Authorization": f"Bearer {key}".encode("latin-1")}).status_code == 401  # type: ignore[dict-item]
        reading = ask(locked, call, bearer(READ_KEY))
        assert reading.status_code == (403 if call in WRITES else 200)
    assert ask(locked, call, {"X-API-Key": WRITE_KEY}).status_code in (200, 201, 204)
    if call in READS:
        assert ask(locked, call, bearer("another-read-key-1")).status_code == 200


@pytest.mark.parametrize("path", OPEN)
def test_open_calls(locked: Served, path: str) -> None:
    assert locked.get(path).status_code == 200
    assert locked.get(path, headers={"Host": "elsewhere.example"}).status_code == 200


def test_a_key_is_asked_for_before_the_body_is_read(locked: Served) -> None:
    answer = locked.client.post("/embed-doc", content=b"not json", headers={"content-type": "text/plain"})
    assert answer.status_code == 401


def test_errors_under_v1_have_openai_s_shape(locked: Served) -> None:
    error = locked.post("/v1/embeddings", {"input": "king", "model": "a"}).json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("authentication_error", "missing_key", None)


def test_without_keys_the_host_must_be_this_one(served: Served) -> None:
    for host in ("localhost", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST:1"):
        assert served.get("/similar?word=king", headers={"Host": host}).status_code == 200, host
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8080", "10.0.0.1", ""):
        answer = served.get("/similar?word=king", headers={"Host": host})
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems#host-not-allowed"), host
        assert served.put("x", "king", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("path", OPEN)
def test_without_keys_the_host_must_be_this_one_everywhere(served: Served, path: str) -> None:
    answer = served.get(path, headers={"Host": "evil.example"})
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems#host-not-allowed")


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"}, False),
        ({"Origin": "http://localhost:1"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "OWN"}, True),
        ({"Origin": "OWN", "Sec-Fetch-Site": "same-origin"}, True),
    ],
    ids=str,
)
@pytest.mark.parametrize("keys", [True, False])
def test_no_foreign_page_changes_anything(
    served: Served, locked: Served, headers: dict[str, str], allowed: bool, keys: bool
) -> None:
    service = locked if keys else served
    own = {name: value.replace("OWN", service.url) for name, value in headers.items()}
    own |= bearer(WRITE_KEY) if keys else {}
    for method, path, body in WRITES[:3]:
        answer = service.client.request(method, path, json=body, headers=own)
        if allowed:
            assert answer.status_code in (200, 201)
        else:
            assert (answer.status_code, answer.json()["type"]) == (403, "/problems#foreign-page")
    assert service.get("/livez", headers=own).status_code == 200


@pytest.mark.parametrize("path", [*OPEN, "/nowhere"])
def test_policies(served: Served, path: str) -> None:
    headers = served.get(path).headers
    assert headers.get_list("x-content-type-options") == ["nosniff"]
    policy = headers.get_list("content-security-policy")
    assert len(policy) == 1
    assert policy[0].startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in policy[0]
    assert "script-src 'unsafe" not in policy[0]


def test_the_inline_script_of_a_page_is_the_one_that_its_policy_names(served: Served) -> None:
    page = served.get("/docs")
    scripts = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in page.headers["content-security-policy"]
    assert "<script>" not in served.get("/redoc").text


def test_further_hosts(model_a: tuple[Path, Embeddings], tmp_path: Path, starter: Starter) -> None:
    allowed = {"JOSE_ALLOWED_HOSTS": "api.example,Other"}
    running = starter(model_a[0], "--documents", str(tmp_path / "d.sqlite3"), environment=allowed)
    for host in ("api.example", "API.example:80", "other"):
        assert running.get("/similar?word=king", headers={"Host": host}).status_code == 200


def test_read_only(model_a: tuple[Path, Embeddings], tmp_path: Path, starter: Starter) -> None:
    documents = tmp_path / "d.sqlite3"
    empty = starter(model_a[0], "--documents", str(documents), "--read-only")
    assert empty.put("x", "king").json()["type"] == "/problems#read-only"
    assert empty.get("/documents").json()["documents"] == []
    assert empty.stop() == 0
    assert not documents.exists()
    writer = starter(model_a[0], "--documents", str(documents))
    assert writer.put("x", "king").status_code == 201
    assert writer.stop() == 0
    reader = starter(model_a[0], "--documents", str(documents), "--read-only")
    assert reader.get("/documents/x").json()["text"] == "king"
    assert reader.post("/search", {"text": "king", "k": 1}).json()["neighbors"][0]["id"] == "x"
    assert reader.client.delete("/documents/x").status_code == 403
    assert reader.post("/admin/reload").status_code == 403
    assert reader.stop() == 0
