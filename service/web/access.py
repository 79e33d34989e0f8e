"""Access control: keys for reading and writing, and a check of the ``Host`` header if no key is set."""

from __future__ import annotations

import hmac
from typing import Final, Literal

from starlette.requests import Request
from starlette.types import Scope

from service.problems import Problem, shown
from service.settings import Settings, is_loopback

__all__ = ["Access", "Right"]

Right = Literal["open", "read", "write"]
_SCHEME: Final = b"bearer "


class Access:
    """The rights that a service's settings give.

    All keys are compared, each in constant time. A right without a key is open
    to everyone who can reach the service, which :class:`~service.settings.Settings` allows on the loopback only; then
    the ``Host`` header must name this host, so that a page in a browser cannot reach the service under a domain of its
    own (DNS rebinding).
    """

    def __init__(self, settings: Settings) -> None:
        self._read = tuple(key.encode() for key in settings.keys("read_key"))
        self._write = tuple(key.encode() for key in settings.keys("write_key"))
        self._read_only = settings.read_only
        self._hosts = frozenset(host.lower().encode() for host in settings.allowed_hosts)
        self._known_hosts: set[bytes] = set()

    def check(self, request: Request, right: Right, *, given: bytes | None = None) -> None:
        """Lets a request pass.

        Args:
            request: Whose headers hold the key.
            right: What it needs.
            given: The key, if it is not in the headers.

        Raises:
            Problem: ``missing-key``, ``wrong-key``, ``key-cannot-write``, ``read-only``, ``host-not-allowed``.
        """
        needed = {"open": (), "read": self._read, "write": self._write}[right]
        if needed:
            given = given or _key(request)
            if given is None:
                raise Problem("missing-key", f"{request.method} {shown(request.scope['path'])} needs a {right} key")
            may_write, may_read = _among(given, self._write), _among(given, self._read)
            if not may_write and not may_read:
                raise Problem("wrong-key", f"the key of {len(given)} characters is not among those that are set")
            if right == "write" and not may_write:
                raise Problem("key-cannot-write", f"{request.method} {shown(request.scope['path'])} needs a write key")
        if right == "write":
            self._check_origin(request)
            if self._read_only:
                raise Problem("read-only", f"{request.method} {shown(request.scope['path'])} would change something")

    def check_host(self, scope: Scope) -> None:
        """Lets a request pass that names this host, or any request if a key is needed to read.

        Raises:
            Problem: ``host-not-allowed``.
        """
        if self._read:
            return
        host = _header(scope, b"host")
        if host in self._known_hosts:
            return
        name = _name_of(host)
        if not is_loopback(name) and name.encode("latin-1") not in self._hosts:
            raise Problem("host-not-allowed", f"Host is {shown(host.decode('latin-1'))}, and no key is set")
        if len(self._known_hosts) < 100:
            self._known_hosts.add(host)

    def _check_origin(self, request: Request) -> None:
        """Refuse a change from a page of another origin, which browsers name; programs send no origin."""
        origin, site = _header(request.scope, b"origin"), _header(request.scope, b"sec-fetch-site")
        authority = origin.partition(b"://")[2]
        if origin:
            fits = authority == _header(request.scope, b"host") or _name_of(authority).encode("latin-1") in self._hosts
        else:
            fits = site in (b"", b"same-origin", b"none")
        if not fits:
            named = shown((origin or site).decode("latin-1"))
            raise Problem(
                "foreign-page", f"{request.method} {shown(request.scope['path'])} was sent by a page of {named}"
            )


def _header(scope: Scope, name: bytes) -> bytes:
    """The first header of this name, or an empty one."""
    return next((bytes(value) for found, value in scope["headers"] if found == name), b"")


def _name_of(authority: bytes) -> str:
    """The host name of ``name:port``, in lower case.

    Example:
        >>> _name_of(b"[::1]:8080"), _name_of(b"LocalHost:80")
        ('[::1]', 'localhost')
    """
    name = authority.decode("latin-1").lower()
    return name.partition("]")[0] + "]" if name.startswith("[") else name.partition(":")[0]


def _key(request: Request) -> bytes | None:
    """The key that a request carries: a bearer token, or X-API-Key."""
    plain = None
    for name, value in request.scope["headers"]:
        if name == b"authorization" and value[: len(_SCHEME)].lower() == _SCHEME:
            return bytes(value[len(_SCHEME) :].strip())
        if name == b"x-api-key":
            plain = bytes(value.strip())
    return plain


def _among(given: bytes, keys: tuple[bytes, ...]) -> bool:
    found = False
    for key in keys:
        found |= hmac.compare_digest(given, key)
    return found
