"""All errors of the API as RFC 9457 problem documents; under ``/v1`` they have OpenAI's shape."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from jose_embed.errors import counterpart

MEDIA_TYPE: Final = "application/problem+json"
_SHOWN_CHARACTERS: Final = 200
_SHOWN_ERRORS: Final = 20
_ABOUT_NAMES: Final = {"missing": "is missing", "extra_forbidden": "is no known name"}  # by pydantic's type of an error


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem: its status, its title, and what a caller can do about it."""

    status: int
    title: str
    advice: str


CATALOGUE: Final[Mapping[str, Kind]] = {
    "malformed-json": Kind(400, "The body is not valid JSON", "Send one JSON value in UTF-8."),
    "malformed-http": Kind(400, "The request is not HTTP", "Send it as HTTP/1.1 says; a client library does."),
    "missing-key": Kind(401, "A key is needed", "Send the header 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."),
    "wrong-key": Kind(401, "The key is not known", "Check the key; it may have been changed."),
    "key-cannot-write": Kind(403, "This key may only read", "Send a write key."),
    "read-only": Kind(403, "The service is read-only", "Start it without JOSE_READ_ONLY to change documents."),
    "host-not-allowed": Kind(
        403,
        "The Host header names another machine",
        "Call the service as localhost, or add the name to JOSE_ALLOWED_HOSTS.",
    ),
    "foreign-page": Kind(
        403,
        "A page of another origin may not change anything",
        "Call the service from a page of its own origin, or from a program.",
    ),
    "unknown-path": Kind(404, "There is nothing at this path", "See /docs for the calls."),
    "unknown-word": Kind(
        404,
        "The word is not in the vocabulary",
        "Take one of the suggestions, or look words up with GET /words?prefix=.",
    ),
    "unknown-document": Kind(404, "There is no document of this id", "List the documents with GET /documents."),
    "unknown-model": Kind(404, "No such model is served", "List the models with GET /v1/models."),
    "unknown-job": Kind(404, "There is no job of this id", "List the jobs with GET /admin/jobs."),
    "method-not-allowed": Kind(
        405, "The path does not allow this method", "The header Allow lists the methods that do."
    ),
    "body-too-slow": Kind(408, "The body did not arrive in time", "Send it faster, or in smaller pieces."),
    "head-too-slow": Kind(408, "The head did not arrive in time", "Send the request line and headers at once."),
    "reload-running": Kind(
        409,
        "A reload is in progress",
        "Wait until it has ended; GET /admin/jobs shows how far it is.",
    ),
    "snapshot-running": Kind(
        409, "A snapshot is being made", "Wait until it has ended; GET /admin/jobs shows how far it is."
    ),
    "model-refused": Kind(
        409,
        "The model on disk was refused; the previous one stays in use",
        "Repair the model directory, then reload again.",
    ),
    "precondition-failed": Kind(
        412, "The document has changed", "Read it again and send its present ETag in If-Match."
    ),
    "body-too-large": Kind(413, "The body is too large", "Send less at once; GET /info shows max_body_bytes."),
    "text-too-long": Kind(
        413, "The text is too long", 'Send a shorter text, or ask for truncation with "truncate": "end".'
    ),
    "not-json": Kind(415, "The body is not JSON", "Send the header 'Content-Type: application/json'."),
    "not-ndjson": Kind(415, "The body is not NDJSON", "Send the header 'Content-Type: application/x-ndjson'."),
    "invalid-request": Kind(
        422, "The request is invalid", "See 'errors' for each place, and /docs for what is allowed."
    ),
    "invalid-filter": Kind(
        422, "The filter cannot be read", 'Write comparisons joined by "and", such as rating >= 3 and lang = "de".'
    ),
    "head-too-large": Kind(431, "The head of the request is too large", "Send a shorter path and fewer headers."),
    "no-known-words": Kind(
        422,
        "The text holds no known word",
        "A text without a known word has no direction; send one with words of the vocabulary.",
    ),
    "no-direction": Kind(422, "The query has no direction", "Ask with other words, or with a vector that is not zero."),
    "not-searchable": Kind(
        422, "The document has no vector", "None of its words is known to this model; search by another document."
    ),
    "too-many-requests": Kind(
        429, "The key has made its requests of this minute", "Wait for the seconds in Retry-After, then ask again."
    ),
    "internal": Kind(500, "Internal error", "See the log of the service."),
    "saturated": Kind(503, "The service is busy", "Wait for the seconds in Retry-After, then ask again."),
    "not-ready": Kind(
        503, "The service is not ready", "Wait for the seconds in Retry-After; GET /readyz says when it is."
    ),
    "storage-unavailable": Kind(
        503,
        "The documents cannot be written or read now",
        "See the log of the service; check the disk and its permissions.",
    ),
    "disk-full": Kind(
        507, "The disk is full; nothing was stored", "Make room on the disk, then send the request again."
    ),
}


class Problem(Exception):  # noqa: N818  # RFC 9457's word
    """An error that is reported to the caller.

    Args:
        kind: A name in :data:`CATALOGUE`.
        detail: What is wrong here: the value and what is allowed.
        headers: Further headers of the answer.
        members: Further members of the document (``suggestions``, ``errors`` ...).

    Example:
        >>> Problem("unknown-word", "'kign' is not in the vocabulary", suggestions=["king"]).document()["status"]
        404
    """

    def __init__(self, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members

    @property
    def status(self) -> int:
        """The HTTP status."""
        return CATALOGUE[self.kind].status

    def document(self) -> dict[str, Any]:
        """The problem document of RFC 9457; ``type`` leads to the page that explains it."""
        kind = CATALOGUE[self.kind]
        head = {"type": f"/problems#{self.kind}", "title": kind.title, "status": kind.status, "detail": self.detail}
        return head | {"advice": kind.advice} | self.members

    def openai_document(self) -> dict[str, Any]:
        """The same in the shape that OpenAI's clients read."""
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kinds[503] = "service_unavailable_error"
        kind = kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        advice = CATALOGUE[self.kind].advice
        error = {
            "message": f"{self.detail}. {advice}",
            "type": kind,
            "param": self.members.get("param"),
            "code": self.kind.replace("-", "_"),
        }
        return {"error": error}


def as_response(request: Request, problem: Problem) -> Response:
    """The answer for a problem, in the shape that the path requires."""
    headers = dict(problem.headers)
    if problem.status == 401:
        headers.setdefault("WWW-Authenticate", 'Bearer realm="jose-embed"')
    if problem.status == 503:
        headers.setdefault("Retry-After", "1")
    if request.scope["path"].removeprefix(request.scope.get("root_path", "")).startswith("/v1/"):
        return Response(_dumped(problem.openai_document()), problem.status, headers, "application/json")
    return Response(_dumped(problem.document()), problem.status, headers, MEDIA_TYPE)


def _dumped(document: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(document)
    except TypeError:  # a lone surrogate cannot be written as UTF-8
        return orjson.dumps(_printable(document))


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(item) for item in value]
    return value if isinstance(value, (int, float, bool, type(None))) else str(value)


def from_validation(errors: Sequence[Any]) -> Problem:
    """The problem for a failed validation: each place with its value and what is allowed there.

    Args:
        errors: As pydantic lists them; ``known`` of one about an unknown name are the names that are known there.
    """
    listed = [
        {
            "where": ".".join(str(part)[:_SHOWN_CHARACTERS] for part in error.get("loc", ())),
            "value": shown(error.get("input")),
            "problem": _reason(error),
        }
        for error in errors[:_SHOWN_ERRORS]
    ]
    more = f" (and {len(errors) - _SHOWN_ERRORS} more)" if len(errors) > _SHOWN_ERRORS else ""
    detail = "; ".join(
        f"{one['where'] or 'request'}: {one['problem']}"
        + ("" if error.get("type") in _ABOUT_NAMES else f", not {one['value']}")
        for one, error in zip(listed[:3], errors, strict=False)
    )
    return Problem("invalid-request", f"{detail}{more}", errors=listed)


def _reason(error: Mapping[str, Any]) -> str:
    if error.get("type") != "extra_forbidden":
        return _ABOUT_NAMES.get(error.get("type", ""), str(error.get("msg", "")))
    known = error.get("known", ())
    return _ABOUT_NAMES["extra_forbidden"] + (counterpart(str(error["loc"][-1]), known) if known else "")


def shown(value: Any) -> str:
    """A value as an error message quotes it, at most a line long.

    Example:
        >>> shown("x" * 300)[-20:]
        'xx… (300 characters)'
    """
    if isinstance(value, str):
        text = value[:_SHOWN_CHARACTERS].encode("utf-8", "backslashreplace").decode()
        return f"{text!r}" if len(value) <= _SHOWN_CHARACTERS else f"{text}… ({len(value)} characters)"
    if isinstance(value, (list, tuple, dict)):
        kind = "an object" if isinstance(value, dict) else "a list"
        return f"{kind} of {len(value)}"
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int) and abs(value) >= 10**40:
        return f"a number of {value.bit_length()} bits"
    return repr(value)[:_SHOWN_CHARACTERS]


def catalogue_page() -> str:
    """The page behind ``type``: every kind of problem, for people."""
    rows = "".join(
        f'<tr id="{name}"><td><code>{name}</code></td><td>{kind.status}</td>'
        f"<td>{html.escape(kind.title)}</td><td>{html.escape(kind.advice)}</td></tr>"
        for name, kind in CATALOGUE.items()
    )
    style = (
        "body{font:1rem/1.5 sans-serif;margin:2rem}td,th{padding:.3rem .8rem;text-align:left}tr:target{background:#ffd}"
    )
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Problems</title><style>{style}</style>'
    columns = "".join(f"<th>{column}</th>" for column in ("type", "status", "title", "what to do"))
    return f"{head}<h1>Problems</h1><table><tr>{columns}</tr>{rows}</table></html>"
