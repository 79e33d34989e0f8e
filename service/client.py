"""``jose-serve import`` and ``jose-serve export``: documents from a file to a running service, and back."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from jose_embed.errors import ConfigError

_BLOCK: Final = 1 << 16
_SECONDS: Final = 120.0  # without a byte of the service
_TRIES: Final = 3  # of an export that is cut off, without a further document
_NOTE_SECONDS: Final = 10.0  # between two notes that do not overwrite each other


class Service(NamedTuple):
    """A running service.

    Args:
        url: Where it listens, such as http://127.0.0.1:8080.
        key: The key to send, or an empty text.
    """

    url: str
    key: str

    def begin(self, method: str, path: str, headers: dict[str, str]) -> http.client.HTTPConnection:
        """A connection with the head of a request, which may have a body.

        Raises:
            ConfigError: it is not a URL, or nothing answers there.
        """
        parts = urllib.parse.urlsplit(self.url)
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        try:
            if parts.scheme not in kinds or not parts.hostname:
                raise ValueError
            connection: http.client.HTTPConnection = kinds[parts.scheme](parts.hostname, parts.port, timeout=_SECONDS)
        except ValueError:
            raise ConfigError(f"--url is {self.url!r}; it must be as in http://127.0.0.1:8080") from None
        if self.key:
            headers = headers | {"Authorization": f"Bearer {self.key}"}
        try:
            connection.putrequest(method, parts.path.rstrip("/") + path)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
        except OSError as error:
            connection.close()
            raise ConfigError(
                f"{self.url} does not answer ({error.strerror or error}); start the service, or name another --url"
            ) from None
        return connection


def _problem(answer: http.client.HTTPResponse) -> ConfigError:
    """The error for an answer that is not a success, in one line."""
    text = answer.read(1 << 16).decode(errors="replace")
    try:
        found = json.loads(text)
        said = f"{found['detail']}. {found['advice']}"
    except (ValueError, KeyError, TypeError):
        said = " ".join(text.split())[:200]
    return ConfigError(f"the service refused it ({answer.status}): {said}")


# ----------------------------------------------------------------------------------------------------------------------


def import_documents(service: Service, path: str, after: str | None) -> int:
    """Sends the lines of a file; prints progress, refused lines, and where to continue if it is interrupted.

    Args:
        service: Where to.
        path: The file; ``-`` is standard input.
        after: Begin behind the line of this id.

    Returns:
        The exit status: 0 if all documents are stored, otherwise 1.

    Raises:
        ConfigError: the file cannot be read, or the service refuses the import.
    """
    with contextlib.ExitStack() as open_files:
        file = sys.stdin.buffer if path == "-" else open_files.enter_context(_opened(path))
        if after is not None:
            _skip(file, path, after)
        _check_kind(file, path)
        return _sent(service, file, path)


def _check_kind(file: BinaryIO, path: str) -> None:
    """A table or a compressed file is one error, not one for each of its lines."""
    start = file.peek(1) if isinstance(file, io.BufferedReader) else b""
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start and not start.startswith(b"{"):
        raise ConfigError(
            f"{path}: does not hold JSON lines, it begins with {start[:20].decode(errors='replace')!a}; give each "
            'document a line such as {"id": "a1", "text": "..."}'
        )


def _opened(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name a file of JSON lines") from None


def _skip(file: BinaryIO, path: str, after: str) -> None:
    """Reads a file up to and with the line of an id."""
    for line in file:
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict) and found.get("id") == after:
                return
    raise ConfigError(f"{path}: no line has the id {after!r}; check --after, or import the whole file again")


def _sent(service: Service, file: BinaryIO, path: str) -> int:
    headers = {"Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"}
    connection = service.begin("POST", "/documents:import", headers)
    answer = _Answer(connection)
    with contextlib.closing(connection):
        reader = threading.Thread(target=answer.read, daemon=True)
        reader.start()
        interrupted = False
        try:
            with contextlib.suppress(OSError):  # the service has ended the connection: its answer says why
                while not answer.ended and (
                    block := file.read1(_BLOCK) if hasattr(file, "read1") else file.read(_BLOCK)
                ):
                    connection.send(b"%x\r\n%s\r\n" % (len(block), block))
                connection.send(b"0\r\n\r\n")
            reader.join()
        except KeyboardInterrupt:
            interrupted = True
        if answer.refusal is not None:
            raise answer.refusal
        return answer.conclude(path, interrupted)


class _Answer:
    """The answer to an import, read while the documents are sent."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._socket = connection.sock
        self.ended = False
        self.refusal: ConfigError | None = None
        self._last: dict[str, Any] = {}
        self._note = _Note()

    def read(self) -> None:
        """Reads to the end."""
        try:
            with http.client.HTTPResponse(self._socket, method="POST") as answer:
                answer.begin()
                if answer.status != 200:
                    self.refusal = _problem(answer)
                    return
                while line := answer.readline():
                    self._take(json.loads(line))
        except (OSError, http.client.HTTPException, ValueError):  # cut off: the last line that arrived counts
            pass
        finally:
            self.ended = True

    def _take(self, line: dict[str, Any]) -> None:
        if line["status"] == "refused":
            named = "" if line["id"] is None else f" ({line['id']!r})"
            self._note.line(f"line {line['line']}{named}: {line['problem']['detail']}")
            return
        self._last = line
        self._note.progress(_counted(line))

    def conclude(self, path: str, interrupted: bool) -> int:
        """Prints how it ended; the exit status."""
        last = self._last
        done = last.get("status") == "done"
        self._note.line(_counted(last) if last else "nothing is stored")
        if done:
            return 1 if last["refused"] else 0
        reason = "interrupted" if interrupted else "the connection was lost"
        if "problem" in last:
            reason = str(last["problem"]["detail"])
        named = [] if last.get("id") is None else ["--after", str(last["id"])]
        command = " ".join(["jose-serve import", path, *(json.dumps(part) if " " in part else part for part in named)])
        print(f"jose-serve: not all was imported: {reason}; continue with: {command}", file=sys.stderr)
        return 130 if interrupted else 1


def _counted(line: dict[str, Any]) -> str:
    names = ("added", "replaced", "unchanged", "refused")
    return f"{line['line']:,} lines: " + ", ".join(f"{line[name]:,} {name}" for name in names)


class _Note:
    """Progress on standard error: one line that is overwritten on a terminal, elsewhere a line now and then."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._width = 0
        self._last = time.monotonic()

    def progress(self, text: str) -> None:
        """Shows where the work is."""
        if self._terminal:
            print(f"\r{text:<{self._width}}", end="", file=sys.stderr, flush=True)
            self._width = len(text)
        elif time.monotonic() - self._last >= _NOTE_SECONDS:
            self._last = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def line(self, text: str) -> None:
        """Writes a line that stays."""
        if self._terminal and self._width:
            print(f"\r{'':<{self._width}}\r", end="", file=sys.stderr)
            self._width = 0
        print(text, file=sys.stderr, flush=True)


# ----------------------------------------------------------------------------------------------------------------------


def export_documents(service: Service, path: str, parameters: dict[str, str], *, overwrite: bool) -> int:
    """Writes documents as lines of JSON; one that is cut off is continued behind the last document.

    Args:
        service: Where from.
        path: The file, which is complete or not there; ``-`` is standard output.
        parameters: Of ``GET /documents:export``.
        overwrite: Replace an existing file.

    Returns:
        The exit status.

    Raises:
        ConfigError: the file cannot be written, or the service refuses the export.
    """
    note = _Note()
    if path == "-":
        n = _received(service, parameters, sys.stdout.buffer.write, note)
        sys.stdout.buffer.flush()
        note.line(f"{n:,} documents")
        return 0
    target = Path(path)
    if target.exists() and not overwrite:
        raise ConfigError(f"{path}: is there already; name another file, or add --overwrite")
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as file:
            n = _received(service, parameters, file.write, note)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); make room, or name another file") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    note.line(f"{path}: {n:,} documents")
    return 0


def _received(service: Service, parameters: dict[str, str], write: Callable[[bytes], Any], note: _Note) -> int:
    n = failures = 0
    while True:
        before = n
        try:
            for line in _lines(service, parameters):
                write(line)
                n += 1
                if n % 1_000 == 0:
                    note.progress(f"{n:,} documents")
                last = line
            return n
        except (http.client.HTTPException, _CutOffError) as error:
            cut = ConfigError(f"the export was cut off after {n:,} documents ({error!r}); see the log of the service")
        if n > before:
            failures = 0
            parameters = parameters | {"after": json.loads(last)["id"]}
        failures += 1
        if failures == _TRIES:
            raise cut
        note.line(f"the connection was lost after {n:,} documents; continuing")
        time.sleep(1.0)


class _CutOffError(Exception):
    """The service ended the connection."""


def _lines(service: Service, parameters: dict[str, str]) -> Iterator[bytes]:
    """The whole lines of an export."""
    connection = service.begin("GET", f"/documents:export?{urllib.parse.urlencode(parameters)}", {})
    with contextlib.closing(connection):
        try:
            answer = connection.getresponse()
            if answer.status != 200:
                raise _problem(answer)
            while line := answer.readline():
                if not line.endswith(b"\n"):
                    raise _CutOffError("within a line")
                yield line
        except (ConnectionError, TimeoutError) as error:
            raise _CutOffError(str(error)) from None
