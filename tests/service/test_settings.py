"""Settings from the environment, and the command line around them."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from serving import READ_KEY, ROOT, WRITE_KEY, Starter, run_cli

from jose_embed.errors import ConfigError
from jose_embed.model.embeddings import Embeddings
from jose_embed.version import __version__
from service.settings import Settings

MODEL = {"JOSE_MODEL": "corpus.jose"}
KEYS = {"JOSE_READ_KEY": READ_KEY, "JOSE_WRITE_KEY": WRITE_KEY}


def read(**variables: str) -> Settings:
    """Settings of an environment that names a model."""
    return Settings.from_environment({**MODEL, "HOME": "/", "PATH": "", **variables})


def test_every_kind_of_value() -> None:
    settings = read(
        JOSE_PORT="9000",
        JOSE_BODY_SECONDS="1.5",
        JOSE_READ_ONLY="true",
        JOSE_ALLOWED_HOSTS="a.example, b",
        JOSE_INDEX="hnsw",
    )
    assert (settings.port, settings.body_seconds, settings.read_only, settings.index) == (9000, 1.5, True, "hnsw")
    assert settings.allowed_hosts == ("a.example", "b")
    assert settings.documents_path == Path("corpus.documents.sqlite3")
    assert read(JOSE_DOCUMENTS="/x/y.db").documents_path == Path("/x/y.db")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"JOSE_PROT": "1"}, "JOSE_PROT is not a setting; did you mean JOSE_PORT?"),
        ({"JOSE_": "1"}, "JOSE_ is not a setting"),
        ({"JOSE_PORT_FILE": "x"}, "JOSE_PORT_FILE is not a setting"),
        ({"JOSE_PORT": "-1"}, "JOSE_PORT is -1; it must be a whole number from 0 to 65535"),
        ({"JOSE_PORT": "65536"}, "JOSE_PORT is 65536"),
        ({"JOSE_PORT": "eighty"}, "JOSE_PORT is 'eighty'; it must be a whole number"),
        ({"JOSE_PORT": ""}, "JOSE_PORT is ''"),
        ({"JOSE_BODY_SECONDS": "nan"}, "JOSE_BODY_SECONDS is nan"),
        ({"JOSE_READ_ONLY": "maybe"}, "JOSE_READ_ONLY is 'maybe'; it must be true or false"),
        ({"JOSE_INDEX": "fast"}, "JOSE_INDEX is 'fast'; it must be one of auto, exact, hnsw"),
        ({"JOSE_READ_KEY": "short"}, "JOSE_READ_KEY holds a key of 5 characters"),
        ({"JOSE_READ_KEY": READ_KEY}, "JOSE_READ_KEY is set, but writing needs no key"),
        ({"JOSE_READ_KEY": READ_KEY, "JOSE_WRITE_KEY": READ_KEY}, "hold the same key"),
        ({"JOSE_READ_KEY_FILE": "/nowhere/key"}, "JOSE_READ_KEY_FILE is '/nowhere/key', which cannot be read"),
        ({"JOSE_READ_KEY_FILE": "/nowhere/key", "JOSE_READ_KEY": READ_KEY}, "are both set"),
        ({"JOSE_HOST": "0.0.0.0"}, "JOSE_HOST is '0.0.0.0', which others can reach, but reading needs no key"),
        ({"JOSE_HOST": "0.0.0.0", "JOSE_WRITE_KEY": WRITE_KEY}, "reading needs no key"),
        ({"JOSE_HOST": "::", "JOSE_READ_KEY": READ_KEY}, "writing needs no key"),
        ({"JOSE_HOST": "box.example", "JOSE_READ_ONLY": "yes"}, "reading needs no key"),
    ],
)
def test_what_is_refused(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(**variables)
    assert message in str(refused.value)
    assert not any(key in str(refused.value) for key in (READ_KEY, WRITE_KEY))


def test_doors_that_may_be_open() -> None:
    for host in ("127.0.0.1", "127.0.0.9", "::1", "localhost", "[::1]"):
        assert read(JOSE_HOST=host).on_loopback
    assert read(JOSE_HOST="0.0.0.0", **KEYS).port == 8080
    assert read(JOSE_HOST="0.0.0.0", JOSE_READ_KEY=READ_KEY, JOSE_READ_ONLY="1").read_only
    assert read(JOSE_HOST="0.0.0.0", JOSE_PUBLISHED_ON_LOOPBACK="true").on_loopback


def test_secrets_from_files(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text(f"{WRITE_KEY}\n")
    assert read(JOSE_WRITE_KEY_FILE=str(secret)).keys("write_key") == (WRITE_KEY,)
    secret.write_text(f"{WRITE_KEY}, {READ_KEY}\n")
    assert read(JOSE_WRITE_KEY_FILE=str(secret)).keys("write_key") == (WRITE_KEY, READ_KEY)
    secret.write_text("\n")
    with pytest.raises(ConfigError, match="an empty file"):
        read(JOSE_WRITE_KEY_FILE=str(secret))


def test_secrets_are_never_shown() -> None:
    settings = read(**KEYS)
    assert READ_KEY not in f"{settings.shown()} {settings!r}"
    assert WRITE_KEY not in f"{settings.shown()} {settings!r}"


def test_the_tests_own_variables_are_passed_over() -> None:
    assert read(JOSE_SHARED_DATA="/x", JOSE_REFERENCE="/y").port == 8080


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ((), {}, "no model is named"),
        (("--port", "x"), {}, "argument --port: invalid int value: 'x'"),
        (("nowhere.jose",), {}, "nowhere.jose"),
        (("a.jose", "b.jose"), {}, "unrecognized arguments: b.jose"),
        (("a.jose",), {"JOSE_MODLE": "1"}, "did you mean JOSE_MODEL?"),
        (("a.jose", "--host", "192.0.2.1"), {}, "reading needs no key"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: tuple[str, ...], environment: dict[str, str], message: str
) -> None:
    done = (
        run_cli(*arguments, "--port", "0", environment=environment)
        if arguments[:1] != ("--port",)
        else run_cli(*arguments)
    )
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2
    assert last.startswith("jose-serve: ")
    assert message in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("openapi",), ("a.jose", "--port", "0")])
def test_a_package_that_is_missing_is_told_in_one_line(arguments: tuple[str, ...]) -> None:
    without = "import sys; sys.modules['fastapi'] = None; from service.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", without, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert 'run: pip install "jose-embed[service]"' in done.stderr


def test_a_port_in_use(model_a: tuple[Path, Embeddings]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run_cli(str(model_a[0]), "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "cannot listen there (Address already in use)" in done.stderr


def test_help_needs_nothing_heavy() -> None:
    assert "jose-serve healthcheck" in run_cli("--help").stdout
    listed = run_cli("settings").stdout
    assert "JOSE_READ_KEY_FILE" in listed
    assert listed.count("\n") > 25


def test_the_settings_are_shown_at_start_with_secrets_masked(
    model_a: tuple[Path, Embeddings], tmp_path: Path, starter: Starter
) -> None:
    running = starter(model_a[0], "--documents", str(tmp_path / "d.sqlite3"), environment=KEYS)
    written = "".join(running.lines)
    assert "JOSE_READ_KEY = 1 key, masked" in written
    assert "JOSE_INDEX = auto" in written
    assert READ_KEY not in written
    assert READ_KEY not in running.get("/info").text
    assert str(tmp_path) not in running.get("/info").text, "what needs no key tells no paths"


def test_the_log_begins_with_a_line_of_the_service(
    model_a: tuple[Path, Embeddings], tmp_path: Path, starter: Starter
) -> None:
    running = starter(model_a[0], "--documents", str(tmp_path / "d.sqlite3"))
    assert f"INFO jose-serve {__version__} loads {model_a[0]}" in running.lines[0]
    assert not any("faiss" in line.lower() for line in running.lines)
    missing = run_cli(str(tmp_path / "nowhere.jose"))
    assert missing.stderr.startswith(f"jose-serve: {tmp_path / 'nowhere.jose'}: there is no model directory")
    assert missing.stderr.count("\n") == 1


def test_healthcheck(model_a: tuple[Path, Embeddings], tmp_path: Path, starter: Starter) -> None:
    running = starter(model_a[0], "--documents", str(tmp_path / "d.sqlite3"), environment=KEYS)
    port = running.url.rpartition(":")[2]
    healthy: Any = run_cli("healthcheck", environment={"JOSE_HOST": "0.0.0.0", "JOSE_PORT": port, **KEYS})
    assert healthy.returncode == 0, healthy.stderr
    assert '"status":"ready"' in healthy.stdout
    running.stop()
    dead = run_cli("healthcheck", "--url", running.url)
    assert dead.returncode == 1
    assert "does not answer" in dead.stderr
