"""Log lines, as text or as JSON, with the id of the request they belong to."""

from __future__ import annotations

import datetime
import json
import logging
import re
import secrets
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:  # an install without the extra has no starlette, and says so with these log lines
    from starlette.types import Scope

#: The id of the request in progress; empty outside of requests.
REQUEST_ID: Final[ContextVar[str]] = ContextVar("request_id", default="")
#: The name in a request's scope of the name of its key.
KEY: Final = "jose.key"
_FACTS: Final = "facts"  # the attribute of a record with further members of a JSON line
_GIVEN_ID: Final = re.compile(rb"[!-~]{1,128}")
_access = logging.getLogger("service.access")


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        id = REQUEST_ID.get()
        return super().formatMessage(record) + (f" [{id}]" if id else "")


class _JSON(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if id := REQUEST_ID.get():
            line["request_id"] = id
        line |= getattr(record, _FACTS, {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up(format: str, level: str) -> None:
    """Sends all log lines to standard error.

    Args:
        format: ``text`` or ``json``.
        level: The least important level, as ``logging`` names it in lower case.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JSON() if format == "json" else _Text())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    if format == "json":
        logging.captureWarnings(True)  # else they are lines that are not JSON
    if level != "debug":
        logging.getLogger("faiss").setLevel(logging.WARNING)  # it reports every variant of itself that it tries


def is_json() -> bool:
    """Whether lines are JSON."""
    return any(isinstance(handler.formatter, _JSON) for handler in logging.getLogger().handlers)


def begin(scope: Scope) -> bytes:
    """Gives a request its id, which all its log lines have: that of its header ``X-Request-Id`` if it is printable and
    has at most 128 characters, else a new one."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    id = bytes(given) if _GIVEN_ID.fullmatch(given) else secrets.token_hex(8).encode()
    REQUEST_ID.set(id.decode())
    return id


def log_request(scope: Scope, status: int, seconds: float, n_bytes: int) -> None:
    """Writes the line of an answered request.

    Args:
        scope: The request's.
        status: The status of the answer.
        seconds: From the head of the request to the end of the answer.
        n_bytes: Of the answer's body.
    """
    client = (scope.get("client") or ("-",))[0]
    query = scope["query_string"].decode("latin-1")
    facts: dict[str, Any] = {
        "client": client,
        "method": scope["method"],
        "path": scope["path"],
        "query": query,
        "status": status,
        "ms": round(seconds * 1e3, 3),
        "bytes": n_bytes,
        "key": scope.get(KEY),
    }
    target = _printable(scope["path"] + (f"?{query}" if query else ""))
    _access.info(
        "%s %s %s %d %.1f ms %d bytes key %s",
        *(_printable(client), scope["method"], target, status, seconds * 1e3, n_bytes, facts["key"] or "-"),
        extra={_FACTS: facts},
    )


def _printable(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
