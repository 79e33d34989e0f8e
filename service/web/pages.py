"""The pages: ``/`` for people with its map, and the documentation of the calls. All of them work offline."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs

import orjson
from fastapi import FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from jose_embed.errors import MissingExtraError
from service.engine.status import map_state
from service.problems import Problem, catalogue_page, shown
from service.settings import Settings
from service.web.access import Access
from service.web.route import JSON, Admission, read_body

_STATIC: Final = "/static"
_PAGE: Final = Path(__file__).parent.parent / "page"
_MOST_FORM_BYTES: Final = 8_192
_INLINE_SCRIPT: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_DOCS_POLICY: Final = (
    "default-src 'none'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# The page for people: its own files and calls of its own host, no inline script or style, no text that becomes HTML.
_PEOPLE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types"
)
# The map is one file of inline scripts and styles. The sandbox gives it an origin of its own: it reads no key and
# calls nothing, whatever texts it holds.
_MAP_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'; sandbox allow-scripts allow-downloads"
)
_FILES: Final = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
_NO_REFERRER: Final = {"Referrer-Policy": "no-referrer"}

Handler = Callable[[Request], Awaitable[Response]]


def add_pages(app: FastAPI, settings: Settings, document: bytes) -> None:
    """Adds the pages to an application.

    Args:
        app: Its state must hold ``access``, ``admission`` and ``open_admission``.
        settings: Whether there is a page for people, and where its map is.
        document: The OpenAPI document that the pages about the calls show.
    """
    if settings.page:
        _add_page_for_people(app, settings)
    _add_documentation(app, settings, document)


# ---- for people -----------------------------------------------------------------------------------------------------


def _add_page_for_people(app: FastAPI, settings: Settings) -> None:
    contents = {name: (_PAGE / name).read_bytes() for name in ("index.html", *_FILES)}

    async def page(request: Request) -> Response:
        accepted = request.headers.get("accept", "")
        if "json" in accepted and "text/html" not in accepted:
            raise Problem("unknown-path", "/ is a page for people")
        headers = {"Content-Security-Policy": _PEOPLE_POLICY, "Cache-Control": "no-cache", **_NO_REFERRER}
        return HTMLResponse(contents["index.html"], headers=headers)

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _FILES:
            raise Problem("unknown-path", f"the page has no file {shown(name)}")
        return Response(contents[name], headers={"Cache-Control": "no-cache"}, media_type=_FILES[name])

    async def map_page(request: Request) -> Response:
        access: Access = app.state.access
        admission: Admission = app.state.admission
        with admission.entered() as taken:
            given = None
            if request.method == "POST":
                body = await read_body(request, admission, taken, _MOST_FORM_BYTES)
                given = parse_qs(body.decode("latin-1")).get("key", [""])[0].encode("latin-1") or None
            access.check(request, "read", given=given)
            path = settings.map_path
            state = map_state(settings, app.state.engine.snapshot.served.id)
            if state == "none":
                raise Problem("unknown-path", f"there is no map {path.name}; make it with: jose map")
            if state == "other":
                detail = f"the map {path.name} is of another model; make it again with: jose map --overwrite"
                raise Problem("unknown-path", detail)
            headers = {"Content-Security-Policy": _MAP_POLICY, "Cache-Control": "no-cache", **_NO_REFERRER}
            return FileResponse(path, headers=headers, media_type="text/html; charset=utf-8")

    app.add_route("/", _admitted(app, page), include_in_schema=False)
    app.add_route("/page/{name}", _admitted(app, file), include_in_schema=False)
    # A frame sends no headers: the page sends the key to it in a form.
    app.add_route("/map", map_page, methods=["GET", "POST"], include_in_schema=False)


def _admitted(app: FastAPI, handle: Handler) -> Handler:
    """A page that counts among the requests without a key."""

    admission: Admission = app.state.open_admission

    async def admitted(request: Request) -> Response:
        with admission.entered():
            return await handle(request)

    return admitted


# ---- about the calls ------------------------------------------------------------------------------------------------


def _add_documentation(app: FastAPI, settings: Settings, document: bytes) -> None:
    """The OpenAPI document and the pages that show it."""

    # The pages name their files relative to themselves, so they work below any path that a proxy takes off.
    if root := settings.root_path:
        document = orjson.dumps(orjson.loads(document) | {"servers": [{"url": root}]})
    static_files = _STATIC.removeprefix("/")

    async def openapi_file(request: Request) -> Response:
        return Response(document, media_type=JSON)

    async def docs(request: Request) -> HTMLResponse:
        return _with_policy(
            get_swagger_ui_html(
                openapi_url="openapi.json",
                title="jose-embed",
                swagger_js_url=f"{static_files}/swagger-ui-bundle.js",
                swagger_css_url=f"{static_files}/swagger-ui.css",
                swagger_favicon_url=f"{static_files}/favicon.png",
            )
        )

    async def redoc(request: Request) -> HTMLResponse:
        return _with_policy(
            get_redoc_html(
                openapi_url="openapi.json",
                title="jose-embed",
                redoc_js_url=f"{static_files}/redoc.standalone.js",
                redoc_favicon_url=f"{static_files}/favicon.png",
                with_google_fonts=False,
            )
        )

    async def problem_page(request: Request) -> HTMLResponse:
        return _with_policy(HTMLResponse(catalogue_page()))

    async def static(scope: Scope, receive: Receive, send: Send) -> None:
        with app.state.open_admission.entered():
            await files(scope, receive, send)

    for path, page in (
        ("/openapi.json", openapi_file),
        ("/docs", docs),
        ("/redoc", redoc),
        ("/problems", problem_page),
    ):
        app.add_route(path, page, include_in_schema=False)
    files = StaticFiles(directory=_scripts())
    app.mount(_STATIC, static, name="static")


def _with_policy(response: HTMLResponse) -> HTMLResponse:
    """A page with a policy under which only its own scripts run."""
    hashes = (base64.b64encode(hashlib.sha256(script).digest()) for script in _INLINE_SCRIPT.findall(response.body))
    scripts = " ".join(f"'sha256-{digest.decode()}'" for digest in hashes)
    response.headers["Content-Security-Policy"] = _DOCS_POLICY.format(scripts=scripts)
    return response


def _scripts() -> Path:
    """The directory of the scripts of the package fastapi-offline, which is not imported."""
    found = importlib.util.find_spec("fastapi_offline")
    if found is None or found.origin is None:
        raise MissingExtraError("jose-serve", "service")
    return Path(found.origin).with_name("static")
