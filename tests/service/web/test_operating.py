"""What operators set: request ids, logs, origins of pages, proxies, a root path, keys that change, and limits."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from serving import READ_KEY, WRITE_KEY, Served, Starter, run_cli, start, wait_for

from jose_embed.errors import ConfigError
from jose_embed.model.embeddings import Embeddings
from service.app import create_app
from service.settings import Settings, named_key
from service.web.access import Allowance
from service.web.route import ReadRoute

README = Path(__file__).resolve().parents[3] / "service" / "README.md"
APP = "https://app.example"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def lines_of(served: Served) -> list[dict[str, Any]]:
    """The log so far, every line of which is JSON."""
    return [json.loads(line) for line in served.lines]


def requests_of(served: Served, id: str) -> list[dict[str, Any]]:
    """The lines of answered requests of this id."""
    wait_for(lambda: any(f'"{id}"' in line for line in served.lines))
    return [line for line in lines_of(served) if line.get("request_id") == id and line["logger"] == "service.access"]


@pytest.fixture(scope="module")
def operated(model_a: tuple[Path, Embeddings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service behind a proxy, with keys, JSON logs and pages of another origin."""
    settings = {
        "JOSE_READ_KEY": f"web:{READ_KEY} another-read-key-1",
        "JOSE_WRITE_KEY": WRITE_KEY,
        "JOSE_CORS_ORIGINS": APP,
        "JOSE_TRUSTED_PROXIES": "127.0.0.0/8",
        "JOSE_ROOT_PATH": "/jose",
        "JOSE_ACCESS_LOG": "true",
        "JOSE_LOG_FORMAT": "json",
    }
    folder = tmp_path_factory.mktemp("operated")
    running = start(model_a[0], "--documents", str(folder / "d.sqlite3"), environment=settings)
    yield running
    assert running.stop() == 0
    assert lines_of(running)


# ---- ids and logs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/livez", "/similar?word=king", "/nowhere", "/v1/models"])
def test_each_answer_has_the_id_of_its_request(served: Served, path: str) -> None:
    assert served.get(path, headers={"X-Request-Id": "a-b/c:1"}).headers.get_list("x-request-id") == ["a-b/c:1"]
    made = {served.get(path).headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3
    for foreign in ("", "two words", "x" * 129, "caf\xe9"):
        answer = served.get(path, headers={"X-Request-Id": foreign.encode("latin-1")})  # type: ignore[dict-item]
        assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["x-request-id"]), foreign


def test_an_unexpected_error_is_an_answer_like_others(
    model_a: tuple[Path, Embeddings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from starlette.testclient import TestClient

    app = create_app(Settings(model=model_a[0], documents=tmp_path / "d.sqlite3", cors_origins=(APP,)))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        monkeypatch.setattr(app.state.engine, "info", lambda: 1 / 0)
        answer = client.get("/info", headers={"X-Request-Id": "lost", "Origin": APP})
        figures = client.get("/metrics").text
    assert (answer.status_code, answer.json()["type"]) == (500, "/problems#internal")
    assert answer.headers.get_list("x-request-id") == ["lost"]
    assert answer.headers["access-control-allow-origin"] == APP, "a page of that origin may read what went wrong"
    assert "X-Request-Id" in answer.headers["access-control-expose-headers"]
    assert {"server-timing", "content-security-policy"} <= answer.headers.keys()
    assert 'path="/info",status="500"' in figures
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.getMessage() == "GET '/info' failed"
    assert "ZeroDivisionError" in caplog.text


def test_an_error_behind_the_beginning_of_an_answer_cuts_it_off(
    model_a: tuple[Path, Embeddings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starlette.testclient import TestClient

    app = create_app(Settings(model=model_a[0], documents=tmp_path / "d.sqlite3"))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        client.put("/documents/a", json={"text": "king"})
        pages = iter([app.state.engine.store.whole_page("", 1, 1)])
        monkeypatch.setattr(app.state.engine.store, "whole_page", lambda *_: next(pages, None) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            client.get("/documents:export")


def test_the_line_of_a_request(operated: Served) -> None:
    operated.get("/similar?word=king", headers={"X-Request-Id": "one", **bearer(READ_KEY)})
    (line,) = requests_of(operated, "one")
    assert line["ms"] > 0
    assert line["bytes"] > 100
    facts = {name: line[name] for name in ("level", "client", "method", "path", "query", "status", "key")}
    assert facts == {
        "level": "info",
        "client": "127.0.0.1",
        "method": "GET",
        "path": "/jose/similar",
        "query": "word=king",
        "status": 200,
        "key": "web",
    }
    for key, name in (("another-read-key-1", "read-2"), (WRITE_KEY, "write-1"), ("wrong-key-0123456789", None)):
        operated.get("/words/king", headers={"X-Request-Id": f"key-{name}", **bearer(key)})
        assert [line["key"] for line in requests_of(operated, f"key-{name}")] == [name]
    written = "".join(operated.lines)
    assert not any(key in written for key in (READ_KEY, WRITE_KEY, "another-read-key-1", "wrong-key"))


def test_every_line_is_json_from_the_first_on(operated: Served, tmp_path: Path) -> None:
    lines = lines_of(operated)
    assert re.fullmatch(r"jose-serve \S+ loads .*a\.jose", lines[0]["message"])
    assert {"time", "level", "logger", "message"} <= lines[0].keys()
    assert any(line["message"].startswith("jose-serve: http://127.0.0.1:") for line in lines)
    failed = run_cli(str(tmp_path / "nowhere.jose"), "--port", "0", environment={"JOSE_LOG_FORMAT": "json"})
    assert failed.returncode == 2
    assert "there is no model directory" in json.loads(failed.stderr)["message"]


def test_a_line_of_text_cannot_be_forged(model_a: tuple[Path, Embeddings], tmp_path: Path, starter: Starter) -> None:
    running = starter(
        model_a[0], "--documents", str(tmp_path / "d.sqlite3"), environment={"JOSE_ACCESS_LOG": "1"}, ready=False
    )
    running.get("/words/king%0A2026-01-01%20forged", headers={"X-Request-Id": "text"})
    wait_for(lambda: any("[text]" in line for line in running.lines))
    (line,) = [line for line in running.lines if "[text]" in line]
    told = r"INFO 127\.0\.0\.1 GET /words/king\\n2026-01-01 forged 404 [\d.]+ ms \d+ bytes key - \[text\]"
    assert re.search(told, line)
    assert not any(line.startswith("2026-01-01 forged") for line in running.lines)
    assert not any("Uvicorn running on" in line for line in running.lines), "uvicorn does not know the address"


# ---- pages of other origins -----------------------------------------------------------------------------------------


def test_pages_of_an_origin_that_is_named_may_call(operated: Served, served: Served) -> None:
    asked = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization,content-type"}
    for origin, status in ((APP, 200), ("https://evil.example", 400)):
        answer = operated.client.options("/documents/x", headers={"Origin": origin, **asked})
        assert answer.status_code == status
        assert answer.headers.get("access-control-allow-origin") == (APP if status == 200 else None)
    reading = operated.get("/words/king", headers={"Origin": APP, **bearer(READ_KEY)})
    assert reading.headers["access-control-allow-origin"] == APP
    assert "X-Request-Id" in reading.headers["access-control-expose-headers"]
    refused = operated.get("/words/king", headers={"Origin": APP})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, APP)
    foreign = {"Sec-Fetch-Site": "cross-site", **bearer(WRITE_KEY)}
    assert operated.put("by-page", "king", headers={"Origin": APP, **foreign}).status_code == 201
    assert operated.put("by-page", "king", headers={"Origin": "https://evil.example", **foreign}).status_code == 403
    # By default no page of another origin may.
    plain = served.get("/words/king", headers={"Origin": APP})
    assert "access-control-allow-origin" not in plain.headers
    assert served.client.options("/words/king", headers={"Origin": APP, **asked}).status_code == 405


# ---- proxies and paths ----------------------------------------------------------------------------------------------


def test_the_client_that_a_trusted_proxy_names(operated: Served) -> None:
    for id, forwarded, client in (
        ("plain", None, "127.0.0.1"),
        ("proxy", "203.0.113.7", "203.0.113.7"),
        ("forged", "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("chain", "203.0.113.7, 127.0.0.9", "203.0.113.7"),
    ):
        headers = {"X-Request-Id": id} | ({"X-Forwarded-For": forwarded} if forwarded else {})
        operated.get("/livez", headers=headers)
        assert [line["client"] for line in requests_of(operated, id)] == [client], id


def test_a_root_path_that_the_proxy_takes_off_or_leaves(operated: Served) -> None:
    key = bearer(READ_KEY)
    assert operated.url.endswith("/jose")
    bare = operated.url.removesuffix("/jose")
    for path in ("/words/king", "/static/swagger-ui.css", "/docs", "/page/page.js", "/"):
        short, full = (operated.get(f"{prefix}{path}", headers=key) for prefix in (bare, operated.url))
        assert (short.status_code, full.status_code) == (200, 200), path
        assert short.content == full.content
    for path, n in (("/docs", 4), ("/redoc", 3)):
        page = operated.get(path).text
        named = re.findall(r"(?:src|href|spec-url)=\"([^\"]+)\"|url: '([^']+)'", page)
        files = [urljoin(f"{operated.url}{path}", link or spec) for link, spec in named]
        assert (len(files), {operated.get(file).status_code for file in files}) == (n, {200}), files
        assert all(file.startswith(f"{operated.url}/") for file in files), files
    assert operated.get("/openapi.json").json()["servers"] == [{"url": "/jose"}]
    linked = re.findall(r"\]\(([^)]+)\)", operated.get("/openapi.json").json()["info"]["description"])
    assert [urljoin(f"{operated.url}/docs", link) for link in linked] == [f"{operated.url}/problems"]
    moved = operated.get(operated.url)
    assert (moved.status_code, moved.headers["location"]) == (307, "/jose/")
    job = operated.post("/admin/snapshot", headers=bearer(WRITE_KEY))
    assert (job.status_code, operated.get(bare + job.headers["location"], headers=key).status_code) == (202, 200)
    assert "error" in operated.get("/v1/models").json(), "errors below /v1 have OpenAI's shape"
    assert operated.get(f"{operated.url}phine", headers=key).status_code == 404
    assert 'path="/v1/models"' in operated.get("/metrics").text, "figures have the path without the prefix"


def test_the_health_of_a_monitor_that_asks_one_path(served: Served) -> None:
    answer = served.get("/healthz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert set(answer.json()["checks"]) == {"index", "inference", "documents"}


def test_the_address_in_the_log_is_one_to_type(
    model_a: tuple[Path, Embeddings], tmp_path: Path, starter: Starter
) -> None:
    published = {"JOSE_HOST": "0.0.0.0", "JOSE_PUBLISHED_ON_LOOPBACK": "true"}
    running = starter(model_a[0], "--documents", str(tmp_path / "d.sqlite3"), environment=published)
    assert running.url.startswith("http://127.0.0.1:")
    written = "".join(line for line in running.lines if "JOSE_" not in line)
    assert "0.0.0.0" not in written
    named = {**published, "JOSE_PUBLIC_URL": "http://search.example/jose"}
    other = starter(model_a[0], "--documents", str(tmp_path / "e.sqlite3"), environment=named, ready=False)
    assert other.url == "http://search.example/jose"


# ---- keys -----------------------------------------------------------------------------------------------------------


def test_keys_change_without_a_gap(model_a: tuple[Path, Embeddings], tmp_path: Path, starter: Starter) -> None:
    secret = tmp_path / "keys"
    secret.write_text(f"web:{READ_KEY}")
    environment = {"JOSE_READ_KEY_FILE": str(secret), "JOSE_WRITE_KEY": WRITE_KEY}
    running = starter(model_a[0], "--documents", str(tmp_path / "d.sqlite3"), environment=environment)

    def status(key: str) -> int:
        return running.get("/words/king", headers=bearer(key)).status_code

    def reload(text: str, said: str) -> None:
        n = len(running.lines)
        secret.write_text(text)
        os.kill(running.process.pid, signal.SIGHUP)
        wait_for(lambda: any(said in line for line in running.lines[n:]))

    new = "new-read-key-0123456789"
    assert (status(READ_KEY), status(new)) == (200, 401)
    reload(f"web:{READ_KEY}\nweb:{new}\n", "keys in use: ")
    assert (status(READ_KEY), status(new)) == (200, 200)
    reload("short", "the keys stay as they are: JOSE_READ_KEY holds a key of 5 characters")
    assert (status(READ_KEY), status(new)) == (200, 200)
    reload(f"web:{new}", "keys in use: ")
    assert (status(READ_KEY), status(new)) == (401, 200)
    assert not any(key in "".join(running.lines) for key in (READ_KEY, new, WRITE_KEY))


def test_a_key_has_its_number_of_requests(model_a: tuple[Path, Embeddings], tmp_path: Path, starter: Starter) -> None:
    keys = {"JOSE_READ_KEY": f"web:{READ_KEY} batch:another-read-key-1", "JOSE_WRITE_KEY": WRITE_KEY}
    environment = {**keys, "JOSE_REQUESTS_PER_MINUTE": "1"}
    running = starter(model_a[0], "--documents", str(tmp_path / "d.sqlite3"), environment=environment)
    answers = [running.get("/similar?word=king", headers=bearer(READ_KEY)) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[-1].json()["type"] == "/problems#too-many-requests"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert READ_KEY not in answers[-1].text
    as_openai = running.get("/v1/models", headers=bearer(READ_KEY))
    assert (as_openai.status_code, as_openai.json()["error"]["type"]) == (429, "rate_limit_error")
    assert running.get("/similar?word=king", headers=bearer("another-read-key-1")).status_code == 200
    assert running.get("/similar?word=king").status_code == 401
    assert running.get("/livez", headers=bearer(READ_KEY)).status_code == 200
    assert 'path="/similar",status="429"' in running.get("/metrics").text


def test_requests_come_back_evenly() -> None:
    now = [0.0]
    allowance = Allowance(60, lambda: now[0])
    assert [allowance.take("a") for _ in range(60)] == [0.0] * 60
    assert allowance.take("a") == pytest.approx(1.0)
    now[0] = 2.0
    assert [allowance.take("a") == 0.0 for _ in range(3)] == [True, True, False]
    now[0] = 1e6
    assert [allowance.take("a") == 0.0 for _ in range(61)] == [True] * 60 + [False]


# ---- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"JOSE_CORS_ORIGINS": "app.example"}, "JOSE_CORS_ORIGINS holds 'app.example'; an origin is a scheme"),
        ({"JOSE_CORS_ORIGINS": "https://app.example/"}, "JOSE_CORS_ORIGINS holds 'https://app.example/'"),
        ({"JOSE_CORS_ORIGINS": "*"}, "every page could read; set JOSE_READ_KEY"),
        ({"JOSE_TRUSTED_PROXIES": "localhost"}, "JOSE_TRUSTED_PROXIES holds 'localhost'; it must be an address"),
        ({"JOSE_TRUSTED_PROXIES": "10.0.0.1/8"}, "JOSE_TRUSTED_PROXIES holds '10.0.0.1/8'"),
        ({"JOSE_ROOT_PATH": "jose"}, "JOSE_ROOT_PATH is 'jose'; it must be a path"),
        ({"JOSE_ROOT_PATH": "/jose/"}, "JOSE_ROOT_PATH is '/jose/'"),
        ({"JOSE_PUBLIC_URL": "search.example"}, "JOSE_PUBLIC_URL is 'search.example'; it must begin with http"),
        ({"JOSE_LOG_FORMAT": "xml"}, "JOSE_LOG_FORMAT is 'xml'; it must be one of text, json"),
        ({"JOSE_REQUESTS_PER_MINUTE": "-1"}, "JOSE_REQUESTS_PER_MINUTE is -1; it must be a whole number from 0"),
        ({"JOSE_WRITE_KEY": f"no/name:{WRITE_KEY}"}, "write NAME:KEY"),
        ({"JOSE_WRITE_KEY": "web:short"}, "JOSE_WRITE_KEY holds a key of 5 characters"),
        ({"JOSE_READ_KEY": f"a:{WRITE_KEY}", "JOSE_WRITE_KEY": f"b:{WRITE_KEY}"}, "hold the same key"),
    ],
)
def test_what_is_refused(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Settings.from_environment({"JOSE_MODEL": "m.jose", **variables})
    assert message in str(refused.value)
    assert not any(key in str(refused.value) for key in (READ_KEY, WRITE_KEY))


def test_a_named_key_is_sent_without_its_name() -> None:
    assert named_key(f"web:{READ_KEY}:x") == ("web", f"{READ_KEY}:x")
    settings = Settings(model=Path("m.jose"), read_key=f"web:{READ_KEY},web:{READ_KEY}2", write_key=WRITE_KEY)
    assert settings.keys("read_key") == (READ_KEY, f"{READ_KEY}2")
    assert set(settings.named_keys("read_key").values()) == {"web"}


# ---- the document for operators -------------------------------------------------------------------------------------


def test_the_document_names_the_calls_without_a_key() -> None:
    (line,) = re.findall(
        r"^\*\*Without a key\*\* answer (.*?):", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    named = set(re.findall(r"`([^`]+)`", line))
    app = create_app(Settings(model=Path("m.jose")))
    keyed = {route.path for route in app.routes if isinstance(route, ReadRoute) and route.right != "open"} | {"/map"}
    opened = {str(getattr(route, "path", "")) for route in app.routes} - keyed
    assert {path.replace("{name}", "*") if "{" in path else path for path in opened} == {
        name.removesuffix("/*") if name == "/static/*" else name for name in named
    }


def test_every_setting_and_every_metric_that_the_document_names_exists(
    model_a: tuple[Path, Embeddings], tmp_path: Path
) -> None:
    text = README.read_text(encoding="utf-8")
    settings = set(run_cli("settings").stdout.split())
    read_by_the_package = {"JOSE_CACHE_DIR"}
    assert set(re.findall(r"\bJOSE_[A-Z0-9_]+[A-Z0-9]\b", text)) - settings - read_by_the_package == set()
    engines = [
        create_app(Settings(model=model_a[0], documents=tmp_path / "d.sqlite3", read_only=read_only)).state.engine
        for read_only in (False, True)
    ]
    for engine in engines:
        engine.metrics.observe("GET", "/similar", 200, 0.001)
        engine.metrics.reloads.labels("done").inc()
    exported = set(
        re.findall(r"^(jose_\w+)", "".join(engine.metrics.page().decode() for engine in engines), re.MULTILINE)
    )
    named = set(re.findall(r"\bjose_(?!embed\b)\w+", text))
    assert len(named) > 12
    assert named - exported == set()
    for engine in engines:
        engine.close()
