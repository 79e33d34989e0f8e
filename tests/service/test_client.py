"""``jose-serve import`` and ``jose-serve export`` as commands, against a running service."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import END_SECONDS, READ_KEY, ROOT, WRITE_KEY, Served, Starter, run_cli, start, wait_for

from jose_embed.model.embeddings import Embeddings

Model = tuple[Path, Embeddings]


@pytest.fixture(scope="module")
def locked(model_a: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    documents = tmp_path_factory.mktemp("documents") / "documents.sqlite3"
    running = start(
        model_a[0],
        "--documents",
        str(documents),
        environment={"JOSE_READ_KEY": READ_KEY, "JOSE_WRITE_KEY": WRITE_KEY},
    )
    yield running
    assert running.stop() == 0


@pytest.fixture
def running(locked: Served) -> Served:
    """The service of this file, without documents."""
    headers = {"X-API-Key": WRITE_KEY}
    assert locked.client.post("/documents:delete", json={"all": True}, headers=headers).status_code == 200
    return locked


def call(served: Served, *arguments: str, key: str = WRITE_KEY) -> tuple[int, str]:
    environment = {"JOSE_WRITE_KEY": key, "JOSE_READ_KEY": READ_KEY} if key else {}
    done = run_cli(arguments[0], "--url", served.url, *arguments[1:], environment=environment)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def written(path: Path, n: int) -> Path:
    lines = [json.dumps({"id": f"d{i:05}", "text": f"king w{i % 90 + 4}", "fields": {"n": i}}) for i in range(n)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_there_and_back(running: Served, tmp_path: Path) -> None:
    source = written(tmp_path / "in.ndjson", 1_500)
    status, said = call(running, "import", str(source))
    assert (status, said.splitlines()[-1]) == (0, "1,500 lines: 1,500 added, 0 replaced, 0 unchanged, 0 refused")
    target = tmp_path / "out.ndjson"
    status, said = call(running, "export", str(target))
    assert (status, said.splitlines()[-1]) == (0, f"{target}: 1,500 documents")
    assert [json.loads(line)["id"] for line in target.read_text().splitlines()] == [f"d{i:05}" for i in range(1_500)]
    status, said = call(running, "export", str(target))
    assert (status, "--overwrite" in said) == (2, True)
    assert call(running, "export", str(target), "--overwrite", "--filter", "n < 3")[0] == 0
    assert len(target.read_text().splitlines()) == 3
    status, said = call(running, "import", str(source), "--after", "d01489")
    assert (status, said.splitlines()[-1]) == (0, "10 lines: 0 added, 0 replaced, 10 unchanged, 0 refused")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["in.ndjson", "out.ndjson"]


def test_refused_lines_are_named(running: Served, tmp_path: Path) -> None:
    source = tmp_path / "in.ndjson"
    # The service takes a byte order mark; some editors write one.
    source.write_text('{"id": "a", "text": "king"}\n{"id": "b", "text": "nowhere"}\nx\n', encoding="utf-8-sig")
    status, said = call(running, "import", str(source))
    assert status == 1
    assert [line.partition(":")[0] for line in said.splitlines()] == ["line 2 ('b')", "line 3", "3 lines"]


@pytest.mark.parametrize(
    ("arguments", "key", "message"),
    [
        (["import", "{in}"], "", "refused it (401)"),
        (["import", "{in}"], READ_KEY, "refused it (403)"),
        (["import", "{table}"], WRITE_KEY, "does not hold JSON lines, it begins with 'id,text"),
        (["import", "nowhere.ndjson"], WRITE_KEY, "nowhere.ndjson: cannot be read"),
        (["import", "{in}", "--after", "nothing"], WRITE_KEY, "no line has the id 'nothing'"),
        (["export", "{out}", "--filter", "a >"], WRITE_KEY, "refused it (422): the filter ends"),
        (["export", "{out}"], "", "refused it (401)"),
        (["export", "nowhere/out"], WRITE_KEY, "nowhere/out: cannot be written"),
        (["import", "{in}", "--url", "ftp://x"], WRITE_KEY, "--url is 'ftp://x'"),
        (["import", "{in}", "--url", "http://127.0.0.1:{taken}"], WRITE_KEY, "does not answer"),
        (["import"], WRITE_KEY, "required: file"),
    ],
)
def test_what_goes_wrong_is_one_line(
    running: Served, tmp_path: Path, arguments: list[str], key: str, message: str
) -> None:
    names = {"in": str(written(tmp_path / "in.ndjson", 20_000)), "out": str(tmp_path / "out.ndjson")}
    (tmp_path / "table.csv").write_text("id,text\n" * 300)
    names["table"] = str(tmp_path / "table.csv")
    with socket.socket() as taken:  # nobody listens there
        taken.bind(("127.0.0.1", 0))
        names["taken"] = str(taken.getsockname()[1])
        status, said = call(running, *(part.format(**names) for part in arguments), key=key)
    assert (status, len(said.splitlines())) == (2, 1), said
    assert message in said
    assert sorted(item.name for item in tmp_path.iterdir()) == ["in.ndjson", "table.csv"]


def test_an_interrupted_import_says_how_to_continue(model_a: Model, tmp_path: Path, starter: Starter) -> None:
    running = starter(model_a[0], "--documents", str(tmp_path / "d.sqlite3"))
    source = tmp_path / "in.ndjson"
    os.mkfifo(source)  # the import does not come to its end before the service does
    command = [sys.executable, "-m", "service.cli", "import", str(source), "--url", running.url]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    sending = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    lines = written(tmp_path / "all.ndjson", 30_000).read_bytes().splitlines(keepends=True)
    with open(source, "wb") as pipe:
        pipe.write(b"".join(lines[:2_500]))
        pipe.flush()
        wait_for(lambda: running.get("/info").json()["documents"]["stored"] >= 2_000)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(END_SECONDS) == 0
    assert sending.stderr is not None
    said = sending.stderr.read()
    sending.stderr.close()
    assert sending.wait(END_SECONDS) == 1
    source.unlink()
    (tmp_path / "all.ndjson").rename(source)
    last = said.splitlines()[-1]
    assert last.startswith(
        "jose-serve: not all was imported: the service is stopping; continue with: jose-serve import"
    )
    after = last.split("--after ")[1]
    again = starter(model_a[0], "--documents", str(tmp_path / "d.sqlite3"))
    assert again.get("/info").json()["documents"]["stored"] == int(after[1:]) + 1
    done = run_cli("import", str(source), "--after", after, "--url", again.url)
    assert done.returncode == 0
    assert " 0 replaced, 0 unchanged, 0 refused" in done.stderr
    assert again.get("/info").json()["documents"]["stored"] == 30_000
