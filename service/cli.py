"""``jose-serve``: the service from the command line; ``jose-serve healthcheck`` asks a running one."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import signal
import socket
import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from jose_embed.errors import ConfigError, JoseError, MissingExtraError
from jose_embed.version import __version__
from service.settings import PREFIX, Settings, named_key
from service.web import logs

_USAGE_ERROR: Final = 2
_EPILOG: Final = """\
commands:
  jose-serve import FILE   adds the documents of a file of JSON lines to a running service
  jose-serve export FILE   writes the documents of a running service to such a file
  jose-serve restore DIR   puts the documents of a snapshot in the place of the documents file
  jose-serve healthcheck   asks a running service whether it is ready; exit status 0 if it is
  jose-serve settings      lists the settings in more detail
  jose-serve openapi       prints the OpenAPI document

Every option, and more, can be set by an environment variable (secrets also as NAME_FILE):
{settings}
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status (2 for a usage error, which is printed in one line)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    commands = {
        "healthcheck": _healthcheck,
        "import": _import,
        "export": _export,
        "restore": _restore,
        "openapi": _openapi,
        "settings": _settings,
    }
    try:
        if given and given[0] in commands:
            return commands[given[0]](given[1:])
        return _serve(given)
    except JoseError as error:
        _say(str(error), logging.ERROR)
        return _USAGE_ERROR
    except KeyboardInterrupt:
        _say("interrupted", logging.ERROR)
        return 130


def _serve(arguments: Sequence[str]) -> int:
    parser = _Parser(
        "jose-serve",
        description="Serve a trained model.",
        epilog=_EPILOG.format(settings=_listed_settings()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", nargs="?", type=Path, help="the model directory, such as corpus.jose")
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (8080); 0 takes a free one")
    parser.add_argument(
        "--documents",
        type=Path,
        help="file of the documents that clients add (default: NAME.documents.sqlite3 beside the model)",
    )
    parser.add_argument(
        "--map",
        type=Path,
        help="the map that the page shows, of jose map (default: NAME.html beside the model)",
    )
    parser.add_argument("--read-only", action="store_true", default=None, help="refuse every write")
    parser.add_argument(
        "--index",
        choices=("auto", "exact", "hnsw"),
        help="exact search, approximate search by a graph (hnsw), or exact below JOSE_EXACT_ROWS documents and "
        "by codes from there on (auto, the default)",
    )
    parser.add_argument("--access-log", action="store_true", default=None, help="a line for every request")
    settings = Settings.from_environment(**vars(parser.parse_args(arguments)))
    if settings.map is not None and not settings.map.is_file():
        raise ConfigError(f"{PREFIX}MAP is {str(settings.map)!r}, which is not a file; make it with jose map")
    logs.set_up(settings.log_format, settings.log_level)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the server handles it: the model is being loaded anyway
    listener = _listener(settings)
    with listener:
        # Imported late: --help, healthcheck and usage errors need neither FastAPI nor FAISS.
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(name, "1")  # the service has threads of its own; each computes on one core
        with _extra_needed():
            from service.app import create_app
            from service.web.server import serve
        log = logging.getLogger("service")
        if settings.model.is_dir():  # else the error is the first line
            log.info("jose-serve %s loads %s", __version__, settings.model)
        app = create_app(settings)
        try:
            app.state.engine.open()
        except JoseError:
            app.state.engine.close()
            raise
        for name, value in settings.shown().items():
            log.info("%s%s = %s", PREFIX, name.upper(), value)
        where = "a page for people at /, calls at /docs" if settings.page else "calls at /docs"
        line = f"{_address(settings, listener)} serves {settings.model}; {where}"
        return serve(app, settings, listener, lambda: _say(line, logging.INFO))


def _say(text: str, level: int) -> None:
    """One line for people, or a line of the log if that is JSON."""
    if logs.is_json():
        logging.getLogger("service").log(level, "jose-serve: %s", text)
    else:
        print(f"jose-serve: {text}", file=sys.stderr, flush=True)


def _address(settings: Settings, listener: socket.socket) -> str:
    """The address that one can type: that of all interfaces is reached as this machine."""
    if settings.public_url:
        return settings.public_url
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}{settings.root_path}" if ":" in host else f"http://{host}:{port}{settings.root_path}"


@contextlib.contextmanager
def _extra_needed() -> Iterator[None]:
    """Turns a failed import of a package of the extra into one line that names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("jose_embed", "service"):
            raise
        raise MissingExtraError("jose-serve", "service") from None


def _listener(settings: Settings) -> socket.socket:
    """The listening socket, opened before the model is loaded, so that a port in use is reported at once."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(
            f"{PREFIX}HOST is {settings.host!r}, which is not an address of this host ({error.strerror}); "
            "listen on 127.0.0.1"
        ) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        where = f"{settings.host}:{settings.port}"
        raise ConfigError(f"{where}: cannot listen there ({error.strerror}); choose another port with --port") from None
    return listener


def _healthcheck(arguments: Sequence[str]) -> int:
    """Asks ``/readyz`` of the service that the same environment describes; needs no key and no other program."""
    parser = _Parser("jose-serve healthcheck", description="Ask a running service whether it is ready.")
    parser.add_argument("--url", help=f"the service (from {PREFIX}HOST and {PREFIX}PORT)")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds to wait (5)")
    chosen = parser.parse_args(arguments)
    url = chosen.url or _own_url()
    try:
        # No proxy, whatever the environment says: the service is on this host.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{url.rstrip('/')}/readyz", timeout=chosen.timeout) as response:
            print(response.read().decode())
            return 0
    except urllib.error.HTTPError as error:
        print(f"jose-serve: {url} is not ready: {error.read().decode(errors='replace')}", file=sys.stderr)
    except (OSError, ValueError) as error:
        print(f"jose-serve: {url} does not answer: {error}", file=sys.stderr)
    return 1


def _import(arguments: Sequence[str]) -> int:
    """Sends a file of JSON lines to a running service."""
    parser = _Parser(
        "jose-serve import",
        description="Add the documents of a file to a running service: a line of JSON for each, with id, text and, if "
        "it has some, fields. A document that is stored as it is costs little, so an import can be repeated.",
        epilog=f"The key is that of {PREFIX}WRITE_KEY or {PREFIX}WRITE_KEY_FILE.",
    )
    parser.add_argument("file", help="the file; - reads standard input")
    parser.add_argument("--url", help=f"the service (from {PREFIX}HOST and {PREFIX}PORT)")
    parser.add_argument("--after", metavar="ID", help="begin behind the document of this id")
    chosen = parser.parse_args(arguments)
    from service.client import Service, import_documents

    return import_documents(Service(chosen.url or _own_url(), _own_key("WRITE_KEY")), chosen.file, chosen.after)


def _export(arguments: Sequence[str]) -> int:
    """Writes the documents of a running service to a file of JSON lines."""
    parser = _Parser(
        "jose-serve export",
        description="Write the documents of a running service to a file: a line of JSON for each.",
        epilog=f"The key is that of {PREFIX}READ_KEY or {PREFIX}READ_KEY_FILE.",
    )
    parser.add_argument("file", help="the file; - writes to standard output")
    parser.add_argument("--url", help=f"the service (from {PREFIX}HOST and {PREFIX}PORT)")
    parser.add_argument("--source", choices=("added", "trained"), help="added documents (the default) or trained ones")
    parser.add_argument("--filter", help="only documents whose fields fit, such as 'rating >= 3 and lang = de'")
    parser.add_argument("--after", metavar="ID", help="begin behind the document of this id")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    chosen = parser.parse_args(arguments)
    from service.client import Service, export_documents

    parameters = {name: value for name in ("source", "filter", "after") if (value := getattr(chosen, name)) is not None}
    service = Service(chosen.url or _own_url(), _own_key("READ_KEY"))
    return export_documents(service, chosen.file, parameters, overwrite=chosen.overwrite)


def _restore(arguments: Sequence[str]) -> int:
    """Puts the documents of a snapshot in the place of the documents file of a service that is not running."""
    parser = _Parser(
        "jose-serve restore",
        description="Put the documents of a snapshot in the place of a documents file. No service may have it open; "
        "replicas notice it.",
    )
    parser.add_argument("snapshot", type=Path, help="the directory that POST /admin/snapshot made")
    parser.add_argument("--documents", type=Path, help=f"the documents file (from {PREFIX}DOCUMENTS or {PREFIX}MODEL)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing file, which is kept as FILE.before-restore"
    )
    chosen = parser.parse_args(arguments)
    documents = chosen.documents
    if documents is None:
        names = (f"{PREFIX}MODEL", f"{PREFIX}DOCUMENTS")
        named = {name: os.environ[name] for name in names if os.environ.get(name)}
        if not named:
            raise ConfigError(f"no documents file is named; give one with --documents, or set {PREFIX}DOCUMENTS")
        documents = Settings.from_environment({names[0]: "model.jose"} | named).documents_path
    with _extra_needed():
        from service.engine.snapshots import restore
    facts = restore(chosen.snapshot, documents, overwrite=chosen.overwrite)
    print(
        f"jose-serve: {documents} has the {facts['documents']:,} documents of {facts['created']}; they were served "
        f"with the model {facts['model']['id'][:12]} of {facts['model']['version']} (under another, the start makes "
        "their vectors again)",
        file=sys.stderr,
    )
    return 0


def _own_key(name: str) -> str:
    """The first key that a variable, or the file that one names, holds."""
    text = os.environ.get(f"{PREFIX}{name}", "")
    if not text and (path := os.environ.get(f"{PREFIX}{name}_FILE")):
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ConfigError(f"{PREFIX}{name}_FILE is {path!r}, which cannot be read ({error})") from None
    return named_key(next(iter(text.replace(",", " ").split()), ""))[1]


def _own_url() -> str:
    host = os.environ.get(f"{PREFIX}HOST", "127.0.0.1")
    port = os.environ.get(f"{PREFIX}PORT", "8080")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _settings(arguments: Sequence[str]) -> int:
    _Parser("jose-serve settings", description="List every setting with its meaning and default.").parse_args(arguments)
    for option in dataclasses.fields(Settings):
        print(f"{PREFIX}{option.name.upper():<24} {option.metadata['help']} (default: {_default(option)})")
        if option.metadata["secret"]:
            print(f"{PREFIX}{option.name.upper() + '_FILE':<24} the same, read from a file")
    return 0


def _listed_settings() -> str:
    """One or two short lines for each setting."""
    lines: list[str] = []
    for option in dataclasses.fields(Settings):
        text = f"{option.metadata['help']} ({_default(option)})"
        lines += textwrap.wrap(
            text, 100, initial_indent=f"  {PREFIX + option.name.upper():<28} ", subsequent_indent=" " * 31
        )
    return "\n".join(lines)


def _default(option: dataclasses.Field[Any]) -> Any:
    return option.default if option.default not in (None, "", ()) else "none"


def _openapi(arguments: Sequence[str]) -> int:
    _Parser("jose-serve openapi", description="Print the OpenAPI document.").parse_args(arguments)
    import json

    with _extra_needed():
        from service.app import create_app, openapi_document

    print(json.dumps(openapi_document(create_app(Settings(model=Path("model.jose")))), indent=1, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
