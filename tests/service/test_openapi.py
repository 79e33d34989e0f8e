"""The OpenAPI document: checked in, true, and shown without internet."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from serving import Served, run_cli

from service.app import OPENAPI_FILE, create_app, openapi_document
from service.settings import Settings


def test_the_document_that_is_checked_in_is_the_application_s(served: Served) -> None:
    made = openapi_document(create_app(Settings(model=Path("model.jose"))))
    checked_in = json.loads(OPENAPI_FILE.read_text(encoding="utf-8"))
    assert made == checked_in, "the API has changed: jose-serve openapi > service/openapi.json"
    assert json.loads(run_cli("openapi").stdout) == checked_in
    assert served.get("/openapi.json").json() == checked_in


def test_every_call_of_the_table_is_documented() -> None:
    document = json.loads(OPENAPI_FILE.read_text(encoding="utf-8"))
    calls = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert calls == {
        "GET /similar",
        "POST /similar",
        "POST /embed-doc",
        "POST /v1/embeddings",
        "GET /v1/models",
        "GET /v1/models/{model}",
        "GET /words",
        "GET /words/{word}",
        "GET /distance",
        "POST /search",
        "GET /documents",
        "PUT /documents/{id}",
        "GET /documents/{id}",
        "DELETE /documents/{id}",
        "POST /documents:batch",
        "POST /documents:delete",
        "POST /documents:import",
        "GET /documents:export",
        "GET /livez",
        "GET /readyz",
        "GET /healthz",
        "GET /metrics",
        "GET /info",
        "GET /card",
        "POST /admin/reload",
        "POST /admin/snapshot",
        "GET /admin/jobs",
        "GET /admin/jobs/{id}",
    }
    for path, methods in document["paths"].items():
        for call in methods.values():
            assert call["summary"]
            assert call["description"]
            opened = path in ("/livez", "/readyz", "/healthz", "/metrics", "/info")
            assert ("security" in call) is not opened
            assert ("401" in call["responses"]) is not opened


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_pages_need_no_internet(served: Served, page: str) -> None:
    shown = served.get(page)
    assert shown.headers["content-type"].startswith("text/html")
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", shown.text)
    needed = re.findall(r"(?:src|href)=\"([^\"]+)\"", shown.text)
    assert any(path.startswith("static/") for path in needed)
    for path in needed:
        assert served.get(path).status_code == 200, path
        assert len(served.get(path).content) > 1_000


def test_problem_types_lead_somewhere(served: Served) -> None:
    kind = served.get("/similar?word=nowhere").json()["type"]
    path, _, anchor = kind.partition("#")
    assert f'id="{anchor}"' in served.get(path).text
