"""Access control: keys for reading and writing, their limits, and a check of the ``Host`` header if no key is set."""

from __future__ import annotations

import hmac
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Final, Literal

from starlette.requests import Request
from starlette.types import Scope

from jose_embed.errors import ConfigError
from service.problems import Problem, shown
from service.settings import Settings, is_loopback
from service.web.logs import KEY

Right = Literal["open", "read", "write"]
_SCHEME: Final = b"bearer "
_log = logging.getLogger("service")


class Allowance:
    """The requests that each key may make: a minute's number at once, which comes back evenly.

    Args:
        per_minute: That number.
        clock: A monotonic clock, in seconds.

    Example:
        >>> allowance = Allowance(2, lambda: 0.0)
        >>> [allowance.take("web") for _ in range(3)], allowance.take("other")
        ([0.0, 0.0, 30.0], 0.0)
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = float(per_minute)
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}  # requests left, and when that was so

    def take(self, name: str) -> float:
        """Counts a request of a key; returns the seconds after which it is allowed, 0 if it is now."""
        now = self._clock()
        left, at = self._left.get(name, (self._most, now))
        left = min(self._most, left + (now - at) * self._most / 60)
        if left < 1:
            return (1 - left) * 60 / self._most
        self._left[name] = left - 1, now
        return 0.0


class Access:
    """The rights that a service's settings give.

    All keys are compared, each in constant time. A right without a key is open
    to everyone who can reach the service, which :class:`~service.settings.Settings` allows on the loopback only; then
    the ``Host`` header must name this host, so that a page in a browser cannot reach the service under a domain of its
    own (DNS rebinding).
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._set_keys()
        self._allowance = Allowance(settings.requests_per_minute) if settings.requests_per_minute else None
        self._read_only = settings.read_only
        self._origins = frozenset(origin.encode() for origin in settings.cors_origins)
        self._hosts = frozenset(host.lower().encode() for host in settings.allowed_hosts)
        self._known_hosts: set[bytes] = set()

    def _set_keys(self) -> None:
        read, write = (self._settings.named_keys(name) for name in ("read_key", "write_key"))
        self._read: Mapping[bytes, str] = {key.encode(): name for key, name in read.items()}
        self._write: Mapping[bytes, str] = {key.encode(): name for key, name in write.items()}

    def renew_keys(self) -> None:
        """Reads the files of keys again; if one of them is wrong, the log says so, and the present keys stay."""
        try:
            self._settings = self._settings.with_present_keys()
        except ConfigError as error:
            _log.warning("the keys stay as they are: %s", error)
            return
        self._set_keys()
        _log.info("keys in use: %s", ", ".join({*self._read.values(), *self._write.values()}) or "none")

    def check(self, request: Request, right: Right, *, given: bytes | None = None) -> None:
        """Lets a request pass.

        Args:
            request: Whose headers hold the key.
            right: What it needs.
            given: The key, if it is not in the headers.

        Raises:
            Problem: ``missing-key``, ``wrong-key``, ``key-cannot-write``, ``too-many-requests``, ``read-only``,
                ``foreign-page``.
        """
        if right == "open":
            return
        if self._write if right == "write" else self._read:
            given = given or _key(request)
            if given is None:
                raise Problem("missing-key", f"{request.method} {shown(request.scope['path'])} needs a {right} key")
            may_write, may_read = _among(given, self._write), _among(given, self._read)
            name = request.scope[KEY] = may_write or may_read
            if name is None:
                raise Problem("wrong-key", f"the key of {len(given)} characters is not among those that are set")
            if right == "write" and not may_write:
                raise Problem("key-cannot-write", f"{request.method} {shown(request.scope['path'])} needs a write key")
            self._count(name)
        if right == "write":
            self._check_origin(request)
            if self._read_only:
                raise Problem("read-only", f"{request.method} {shown(request.scope['path'])} would change something")

    def _count(self, name: str) -> None:
        wait = self._allowance.take(name) if self._allowance is not None else 0.0
        if wait:
            most = self._settings.requests_per_minute
            raise Problem(
                "too-many-requests",
                f"the key {name} may make {most} requests in a minute",
                headers={"Retry-After": str(math.ceil(wait))},
            )

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
            fits = fits or origin in self._origins or b"*" in self._origins
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


def _among(given: bytes, keys: Mapping[bytes, str]) -> str | None:
    """The name of a key, None if it is not there; it takes the same time for every key."""
    found = None
    for key, name in keys.items():
        if hmac.compare_digest(given, key):
            found = name
    return found
