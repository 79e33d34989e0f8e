"""The settings of the service: read from the environment, checked once, frozen."""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from jose_embed.errors import ConfigError

PREFIX: Final = "JOSE_"
#: Bounds of one call: neighbours, items of a batch, and over all items of a batch together neighbours, words of
#: positive, negative, without and among, and suggestions for unknown words.
MAX_K: Final = 1_000
MAX_BATCH: Final = 1_000
MAX_ANSWERS: Final = 100_000
MAX_QUERY_WORDS: Final = 200
MAX_SUGGESTIONS: Final = 100
SHORTEST_KEY: Final = 16
# Read by jose_embed, or by the tests and benchmarks of this repository: a shell may hold them.
_NOT_OURS: Final = frozenset(
    {"JOSE_CACHE_DIR", "JOSE_REFERENCE", "JOSE_REFERENCE_OFAST", "JOSE_SHARED_DATA", "JOSE_TOKENIZERS"}
)
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/,A-Z]+")

IndexKind = Literal["auto", "exact", "hnsw"]


def _option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    secret: bool = False,
) -> Any:
    """A field with the facts that the reader, the printout and ``--help`` share."""
    facts = {"help": help, "low": low, "high": high, "choices": choices, "secret": secret}
    return field(default=default, repr=not secret, metadata=facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of the service; each field is the environment variable ``JOSE_`` + its name in capitals.

    Secrets may also be given as ``<NAME>_FILE``, the path of a file that holds them. A key setting may hold several
    keys, separated by white space or commas, so that keys can be changed without a gap.

    Raises:
        ConfigError: a value outside its range, or settings that would let anyone on the network in.

    Example:
        >>> Settings(model=Path("corpus.jose")).port
        8080
        >>> Settings(model=Path("corpus.jose"), port=70000)
        Traceback (most recent call last):
        ...
        jose_embed.errors.ConfigError: JOSE_PORT is 70000; it must be a whole number from 0 to 65535
    """

    model: Path = _option(None, "the model directory to serve")
    documents: Path | None = _option(
        None, "the SQLite file of added documents; default: beside the model, NAME.documents.sqlite3"
    )
    map: Path | None = _option(
        None, "the map of the model, an HTML file of jose map; default: beside the model, NAME.html"
    )
    page: bool = _option(True, "answer / with a page for people")
    snapshots: Path | None = _option(None, "the directory of snapshots; default: beside the documents, NAME.snapshots")
    host: str = _option("127.0.0.1", "the address to listen on")
    port: int = _option(8080, "the port to listen on; 0 takes a free one", low=0, high=65_535)
    read_key: str = _option("", "the key(s) that may read; required if the host is not a loopback address", secret=True)
    write_key: str = _option(
        "",
        "the key(s) that may read and write; required if the host is not a loopback address, unless read-only",
        secret=True,
    )
    read_only: bool = _option(
        False, "refuse every write, open the documents read-only, and follow the service that writes to them"
    )
    published_on_loopback: bool = _option(
        False,
        "the port is a container's and is published on its machine's loopback only: treat the address as the loopback",
    )
    allowed_hosts: tuple[str, ...] = _option(
        (), "further Host names that are answered while no key is set, separated by commas"
    )
    index: IndexKind = _option(
        "auto",
        "exact search, approximate search by an HNSW graph, or chosen by the number of documents: exact below "
        "JOSE_EXACT_ROWS, from there on by codes that find 99 of 100 true neighbours",
        choices=("auto", "exact", "hnsw"),
    )
    exact_rows: int = _option(
        500_000, "with JOSE_INDEX=auto, documents from which on they are searched by codes", low=1_000, high=1 << 31
    )
    hnsw_links: int = _option(32, "links per node of the HNSW graph", low=4, high=128)
    hnsw_build_width: int = _option(200, "candidates looked at while the HNSW graph is built", low=8, high=4_096)
    hnsw_search_width: int = _option(128, "candidates looked at in a search of the HNSW graph", low=8, high=4_096)
    search_threads: int = _option(0, "threads that search; 0 takes half of the cores, at most 4", low=0, high=64)
    embed_threads: int = _option(1, "threads that make vectors of texts", low=1, high=64)
    work_threads: int = _option(2, "threads for stored documents, spelling and long answers", low=1, high=64)
    max_waiting: int = _option(512, "requests that may be in progress at once; one more gets 503", low=1, high=100_000)
    max_transfers: int = _option(
        4, "imports, exports and deletions of many documents at once; one more gets 503", low=1, high=1_000
    )
    max_body_bytes: int = _option(2 << 20, "bytes of the largest request body", low=1_024, high=1 << 30)
    max_queued_bytes: int = _option(
        64 << 20, "bytes of all request bodies in progress at once; more get 503", low=1_024, high=1 << 36
    )
    max_connections: int = _option(
        1_000,
        "connections open at once; one more closes the longest idle, or gets 503",
        low=1,
        high=100_000,
    )
    max_answer_bytes: int = _option(
        64 << 20, "bytes of all answers being sent at once; a large one more gets 503", low=1_024, high=1 << 36
    )
    head_seconds: float = _option(10.0, "a request's head must have arrived within this time", low=0.1, high=3_600)
    write_seconds: float = _option(
        30.0, "a client that reads nothing of its answer for this time is disconnected", low=0.1, high=3_600
    )
    body_seconds: float = _option(30.0, "a request body must have arrived within this time", low=0.1, high=3_600)
    max_text_characters: int = _option(8_000_000, "characters of the longest text", low=1, high=1 << 30)
    verify: bool = _option(True, "read every byte of the model at start and compare its checksum")
    v1_unknown_text: str = _option(
        "error",
        "what /v1/embeddings answers for a text without a known word: an error for the whole request, or for this text "
        "the vector of the mean of the training text, zeros, or null",
        choices=("error", "mean", "zeros", "null"),
    )
    map_model: bool = _option(
        False,
        "map the model's files instead of reading them into memory: less memory, but a change of the files in place "
        "ends the process or changes its answers",
    )
    cache_bytes: int = _option(64 << 20, "bytes of kept answers to GET /similar; 0 keeps none", low=0, high=1 << 36)
    drain_seconds: float = _option(
        10.0, "time that requests in progress get to finish after SIGTERM", low=0.0, high=3_600
    )
    requests_per_minute: int = _option(
        0, "requests that each key may make in a minute, all of them at once too; 0 for no limit", low=0, high=1_000_000
    )
    cors_origins: tuple[str, ...] = _option(
        (), "origins whose pages may call the service in a browser, such as https://app.example, separated by commas"
    )
    trusted_proxies: tuple[str, ...] = _option(
        (), "addresses or networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed"
    )
    root_path: str = _option("", "the path below which a proxy publishes the service, such as /jose")
    public_url: str = _option("", "the address that users type, for the log; default: from host and port")
    access_log: bool = _option(False, "write a line for each request")
    log_format: str = _option("text", "lines of text, or a JSON object a line", choices=("text", "json"))
    log_level: str = _option(
        "info", "the least important messages to write", choices=("debug", "info", "warning", "error")
    )

    def __post_init__(self) -> None:
        if self.model is None or not str(self.model):
            raise ConfigError("no model is named; give one: jose-serve corpus.jose, or JOSE_MODEL=corpus.jose")
        for option in dataclasses.fields(self):
            _check(option, getattr(self, option.name))
        for name in ("read_key", "write_key"):
            for key in self.keys(name):
                if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable():
                    raise ConfigError(
                        f"{PREFIX}{name.upper()} holds a key of {len(key)} characters; "
                        f"it must have {SHORTEST_KEY} or more, all printable ASCII; make one: "
                        "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
                    )
        self._check_addresses()
        if set(self.keys("read_key")) & set(self.keys("write_key")):
            raise ConfigError(
                f"{PREFIX}READ_KEY and {PREFIX}WRITE_KEY hold the same key, so a reader could write; "
                "make two different ones"
            )
        if self.keys("read_key") and not self.keys("write_key") and not self.read_only:
            raise ConfigError(
                f"{PREFIX}READ_KEY is set, but writing needs no key; set {PREFIX}WRITE_KEY too, "
                f"or {PREFIX}READ_ONLY=true"
            )
        if not self.on_loopback:
            self._require_keys()

    def _check_addresses(self) -> None:
        for origin in self.cors_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ConfigError(
                    f"{PREFIX}CORS_ORIGINS holds {origin!r}; an origin is a scheme, a host and a port if it is not the "
                    "usual one, in lower case and without a path: https://app.example"
                )
        if "*" in self.cors_origins and not self.keys("read_key"):
            raise ConfigError(
                f"{PREFIX}CORS_ORIGINS is '*', but reading needs no key, so every page could read; "
                f"set {PREFIX}READ_KEY, or name the origins"
            )
        for proxy in self.trusted_proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError:
                raise ConfigError(
                    f"{PREFIX}TRUSTED_PROXIES holds {proxy!r}; it must be an address or a network: 10.0.0.0/8"
                ) from None
        if self.root_path and not re.fullmatch(r"(/[\w.~-]+)+", self.root_path, re.ASCII):
            raise ConfigError(
                f"{PREFIX}ROOT_PATH is {self.root_path!r}; it must be a path such as /jose, with no / at its end"
            )
        if self.public_url and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", self.public_url):
            raise ConfigError(f"{PREFIX}PUBLIC_URL is {self.public_url!r}; it must begin with http:// or https://")

    def _require_keys(self) -> None:
        where = f"{PREFIX}HOST is {self.host!r}, which others can reach"
        if not self.keys("read_key"):
            more = (
                ""
                if self.read_only or self.keys("write_key")
                else f" and {PREFIX}WRITE_KEY (or {PREFIX}READ_ONLY=true)"
            )
            raise ConfigError(f"{where}, but reading needs no key; set {PREFIX}READ_KEY{more}, or listen on 127.0.0.1")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
        """The settings that the ``JOSE_`` variables say.

        Args:
            environment: Variables; the process's own by default.
            overrides: Values of fields that win over the environment (the command line).

        Raises:
            ConfigError: a ``JOSE_`` name that is not a setting (a similar one is named), a value of the wrong kind, or
            an unreadable secret.

        Example:
            >>> Settings.from_environment({"JOSE_MODEL": "corpus.jose", "JOSE_PORT": "9000"}).port
            9000
            >>> Settings.from_environment({"JOSE_MODLE": "corpus.jose"})
            Traceback (most recent call last):
            ...
            jose_embed.errors.ConfigError: JOSE_MODLE is not a setting; did you mean JOSE_MODEL?
        """
        variables = os.environ if environment is None else environment
        options = {PREFIX + option.name.upper(): option for option in dataclasses.fields(cls)}
        files = {f"{name}_FILE": name for name, option in options.items() if option.metadata["secret"]}
        values: dict[str, Any] = {}
        for name in sorted(variables):
            if not name.startswith(PREFIX) or name in _NOT_OURS:
                continue
            if name in options:
                option = options[name]
                if name + "_FILE" in variables and name + "_FILE" in files:
                    raise ConfigError(f"{name} and {name}_FILE are both set; set one of them")
                values[option.name] = _parsed(name, variables[name], option)
            elif name in files:
                values[options[files[name]].name] = _secret(name, variables[name])
            else:
                raise ConfigError(_unknown(name, [*options, *files]))
        return cls(**{**values, **{name: value for name, value in overrides.items() if value is not None}})

    def keys(self, name: str) -> tuple[str, ...]:
        """The single keys of ``read_key`` or ``write_key``, without their names."""
        return tuple(self.named_keys(name))

    def named_keys(self, name: str) -> dict[str, str]:
        """The keys of ``read_key`` or ``write_key`` with their names, which are ``read-1``, ``read-2`` ... if none is
        given.

        Example:
            >>> settings = Settings(model=Path("m.jose"), write_key="web:0123456789abcdef 0123456789ABCDEF")
            >>> settings.named_keys("write_key")
            {'0123456789abcdef': 'web', '0123456789ABCDEF': 'write-2'}
        """
        listed = enumerate(str(getattr(self, name)).replace(",", " ").split(), 1)
        found = ((named_key(part), number) for number, part in listed)
        return {key: own or f"{name.removesuffix('_key')}-{number}" for (own, key), number in found}

    def with_present_keys(self) -> Settings:
        """The same settings, with the keys that the files of ``JOSE_READ_KEY_FILE`` and ``JOSE_WRITE_KEY_FILE`` hold.

        Raises:
            ConfigError: a file cannot be read, or holds something that is not a key.
        """
        names = {f"{PREFIX}{name.upper()}_FILE": name for name in ("read_key", "write_key")}
        files = {field: (name, os.environ[name]) for name, field in names.items() if name in os.environ}
        changed: dict[str, Any] = {field: _secret(name, path) for field, (name, path) in files.items()}
        return dataclasses.replace(self, **changed)

    @property
    def on_loopback(self) -> bool:
        """Whether only this host can reach the service."""
        return self.published_on_loopback or is_loopback(self.host)

    @property
    def documents_path(self) -> Path:
        """The SQLite file of added documents."""
        return self.documents or self._beside("documents.sqlite3")

    @property
    def map_path(self) -> Path:
        """The HTML file of the map, which may not exist."""
        return self.map or self._beside("html")

    def _beside(self, ending: str) -> Path:
        """A file beside the model: its name, another ending."""
        name = self.model.name.removesuffix(".jose") or "model"
        return self.model.parent / f"{name}.{ending}"

    @property
    def snapshots_path(self) -> Path:
        """The directory of snapshots."""
        if self.snapshots is not None:
            return self.snapshots
        documents = self.documents_path
        return documents.with_name(f"{documents.name.removesuffix('.sqlite3')}.snapshots")

    @property
    def resolved_search_threads(self) -> int:
        """The number of threads that search."""
        try:
            cores = len(os.sched_getaffinity(0))
        except AttributeError:  # macOS and Windows have no affinity call
            cores = os.cpu_count() or 1
        return self.search_threads or min(4, max(1, cores // 2))

    def shown(self) -> dict[str, Any]:
        """Every setting as a plain value, secrets masked: for the start of the log.

        Example:
            >>> Settings(model=Path("m.jose"), write_key="0123456789abcdef").shown()["write_key"]
            '1 key, masked'
        """
        shown: dict[str, Any] = {}
        for option in dataclasses.fields(self):
            value = getattr(self, option.name)
            if option.metadata["secret"]:
                n_keys = len(self.keys(option.name))
                shown[option.name] = "none" if not n_keys else f"{n_keys} key{'s' * (n_keys > 1)}, masked"
            elif isinstance(value, Path):
                shown[option.name] = str(value)
            elif isinstance(value, tuple):
                shown[option.name] = list(value)
            else:
                shown[option.name] = value
        shown["documents"] = str(self.documents_path)
        shown["map"] = str(self.map_path)
        shown["snapshots"] = str(self.snapshots_path)
        shown["search_threads"] = self.resolved_search_threads
        return shown


def named_key(text: str) -> tuple[str, str]:
    """Name and key of ``NAME:KEY``; the name is empty if there is none.

    Raises:
        ConfigError: what stands before the colon is not a name.

    Example:
        >>> named_key("web:0123456789abcdef")
        ('web', '0123456789abcdef')
    """
    name, colon, key = text.partition(":")
    if not colon:
        return "", text
    if not re.fullmatch(r"[\w.-]{1,32}", name, re.ASCII):
        raise ConfigError(
            "what stands before the colon of a key setting is not a name; write NAME:KEY, with a name of at most 32 "
            "ASCII letters, digits, '.', '_' and '-', or a key without a colon"
        )
    return name, key


def is_loopback(host: str) -> bool:
    """Whether an address is reached from its own host only.

    Example:
        >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "10.0.0.1")]
        [True, True, True, False, False, False]
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _parsed(name: str, text: str, option: dataclasses.Field[Any]) -> Any:
    """A variable's text as the value of its field; what is wrong with the value itself is found by :func:`_check`."""
    if option.name in ("model", "documents", "map", "snapshots"):
        if not text:
            raise ConfigError(f"{name} is empty; it must be a path, or be unset")
        return Path(text)
    if isinstance(option.default, tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if isinstance(option.default, bool):
        word = text.strip().lower()
        if word not in _TRUE | _FALSE:
            raise ConfigError(f"{name} is {text!r}; it must be true or false")
        return word in _TRUE
    if isinstance(option.default, (int, float)):
        try:
            return int(text) if isinstance(option.default, int) else float(text)
        except ValueError:
            return text  # refused below, with the range that is allowed
    return text


def _check(option: dataclasses.Field[Any], value: Any) -> None:
    facts, name, default = option.metadata, PREFIX + option.name.upper(), option.default
    if facts["choices"] is not None and value not in facts["choices"]:
        raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(facts['choices'])}")
    if isinstance(default, bool) and not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}; it must be true or false")
    if isinstance(default, bool) or not isinstance(default, (int, float)):
        return
    kind = "a whole number" if isinstance(default, int) else "a number"
    valid = isinstance(value, int if isinstance(default, int) else (int, float)) and not isinstance(value, bool)
    if not valid or not math.isfinite(value) or not facts["low"] <= value <= facts["high"]:
        raise ConfigError(f"{name} is {value!r}; it must be {kind} from {facts['low']} to {facts['high']}")


def _secret(name: str, path: str) -> str:
    try:
        secret = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{name} is {path!r}, which cannot be read ({reason}); it must be the path of a file that holds the key"
        ) from None
    if not secret:
        raise ConfigError(f"{name} is {path!r}, an empty file; it must hold the key")
    return secret


def _unknown(name: str, known: list[str]) -> str:
    similar = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {similar[0]}?" if similar else f"known are {', '.join(sorted(known))}"
    return f"{name} is not a setting; {hint}"
