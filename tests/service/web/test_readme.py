"""The examples of service/README.md for operators: each is taken from the document and tried."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from serving import END_SECONDS, READ_KEY, WRITE_KEY, Served, Starter, wait_for

from jose_embed.model.embeddings import Embeddings

README = (Path(__file__).resolve().parents[3] / "service" / "README.md").read_text(encoding="utf-8")
Model = tuple[Path, Embeddings]
KEYS = {"JOSE_READ_KEY": READ_KEY, "JOSE_WRITE_KEY": WRITE_KEY}
READ, WRITE = ({"Authorization": f"Bearer {key}"} for key in (READ_KEY, WRITE_KEY))
NGINX = shutil.which("nginx")


def block(beginning: str) -> str:
    """The fenced block that has a line with this beginning."""
    found = [text for text in re.findall(r"^```\w*\n(.*?)^```", README, re.DOTALL | re.MULTILINE) if beginning in text]
    assert len(found) == 1, f"{len(found)} blocks of service/README.md have {beginning!r}"
    return str(found[0])


# ---- Kubernetes -----------------------------------------------------------------------------------------------------


def test_the_probes_ask_what_the_service_answers(
    model_a: tuple[Path, Embeddings], starter: Starter, tmp_path: Path
) -> None:
    pod: dict[str, Any] = yaml.safe_load(block("startupProbe:"))
    running = starter(model_a[0], "--documents", str(tmp_path / "d.sqlite3"), environment=KEYS, ready=False)
    probes = {name: pod.pop(f"{name}Probe") for name in ("startup", "readiness", "liveness")}
    # The kubelet sends no key, its own name, and the address of the pod as the host.
    headers = {"Host": "10.1.2.3:8080", "User-Agent": "kube-probe/1.30"}
    for probe in probes.values():
        asked = probe.pop("httpGet")
        assert (asked.keys(), asked["port"]) == ({"path", "port"}, 8080), "the port of JOSE_PORT's default"
        assert all(isinstance(number, int) for number in probe.values()), probe
        wait_for(lambda path=asked["path"]: running.get(path, headers=headers).status_code == 200)
    assert probes["liveness"].keys() >= {"timeoutSeconds", "failureThreshold"}
    assert pod.pop("terminationGracePeriodSeconds") > 10, "more than JOSE_DRAIN_SECONDS"
    assert pod == {}


# ---- systemd --------------------------------------------------------------------------------------------------------


def test_the_unit_is_one(tmp_path: Path) -> None:
    text = block("[Unit]")
    settings = set(re.findall(r"JOSE_\w+", text))
    assert settings == {"JOSE_READ_KEY_FILE", "JOSE_WRITE_KEY_FILE", "JOSE_CACHE_DIR"}
    command = re.findall(r"^ExecStart=(\S+)", text, re.MULTILINE)
    assert [Path(name).name for name in command] == ["jose-serve"]
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze")
    unit = tmp_path / "jose.service"
    unit.write_text(text.replace(command[0], "/bin/true").replace("User=jose", "User=root"))
    done = subprocess.run([program, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "jose" in line]) == (0, [])


# ---- nginx ----------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def proxied(folder: Path, http_block: str) -> Iterator[httpx.Client]:
    """nginx in the foreground, with a configuration in a folder of its own; ``PORT`` in it becomes a free port."""
    folder.mkdir()
    scratch = " ".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = folder / "nginx.conf"
    user = "user root; " if os.geteuid() == 0 else ""  # else the workers may not enter the folder
    command = [str(NGINX), "-e", f"{folder}/error.log", "-p", str(folder), "-c", str(configuration)]
    with contextlib.ExitStack() as stack:

        def started() -> tuple[subprocess.Popen[bytes], httpx.Client]:
            port = free_port()
            listening = re.sub(r"listen \d+", f"listen 127.0.0.1:{port}", http_block)
            configuration.write_text(
                f"{user}daemon off; pid {folder}/pid; error_log {folder}/error.log;\nevents {{}}\n"
                f"http {{ access_log off; {scratch}\n{listening}\n}}\n"
            )
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(process.wait, END_SECONDS)
            stack.callback(process.terminate)
            url = f"http://127.0.0.1:{port}"
            return process, stack.enter_context(httpx.Client(base_url=url, timeout=END_SECONDS, trust_env=False))

        process, client = started()

        def answers() -> bool:
            nonlocal process, client
            if process.poll() is not None:
                written = (folder / "error.log").read_text()
                assert "Address already in use" in written, written
                process, client = started()  # somebody else has taken the port meanwhile
            with contextlib.suppress(httpx.TransportError):
                client.get("/nowhere")
                return process.poll() is None
            return False

        wait_for(answers)
        yield client


@pytest.mark.skipif(NGINX is None, reason="there is no nginx")
def test_nginx_before_a_writer_and_replicas(model_a: Model, starter: Starter, tmp_path: Path) -> None:
    text = block("upstream writer")
    documents = str(tmp_path / "d.sqlite3")
    environment = KEYS | {"JOSE_ACCESS_LOG": "true"}
    writer = starter(model_a[0], "--documents", documents, environment=environment)
    replica = starter(model_a[0], "--documents", documents, "--read-only", environment=environment)
    for port, served in ((8080, writer), (8081, replica), (8082, replica)):
        text = re.sub(rf"server 127\.0\.0\.1:{port}", f"server {served.url.removeprefix('http://')}", text)

    def answered(served: Served, request: str) -> bool:
        return any(request in line for line in served.lines)

    with proxied(tmp_path / "nginx", text) as client:
        last = _streamed(client, "/documents:import")
        assert (last["status"], last["added"]) == ("done", 3)
        for path, status in (("/", 200), ("/docs", 200), ("/page/page.js", 200), ("/static/swagger-ui.css", 200)):
            assert client.get(path).status_code == status, path
        wait_for(lambda: client.get("/documents/d2", headers=READ).status_code == 200)
        assert client.post("/search", json={"text": "king", "k": 1}, headers=READ).json()["neighbors"]
        assert len(client.get("/documents:export", headers=READ).text.splitlines()) == 3
        assert client.put("/documents/mine", json={"text": "queen"}, headers=WRITE).status_code == 201
        assert client.delete("/documents/mine", headers=WRITE).status_code == 204
        assert client.post("/documents:delete", json={"filter": "n > 1"}, headers=WRITE).json()["deleted"] == 1
        assert client.get("/admin/jobs", headers=READ).status_code == 200
        too_large = client.post(
            "/search", content=b" " * 3_000_000, headers=READ | {"Content-Type": "application/json"}
        )
        assert (too_large.status_code, too_large.json()["type"]) == (413, "/problems#body-too-large")
    for request in ("POST /documents:import", "PUT /documents/mine", "POST /documents:delete", "GET /admin/jobs"):
        wait_for(lambda request=request: answered(writer, request))
        assert not answered(replica, request), request
    for request in ("POST /search", "GET /documents:export", "GET /docs", "GET /documents/d2"):
        wait_for(lambda request=request: answered(replica, request))
        assert not answered(writer, request), request


def _streamed(client: httpx.Client, path: str) -> dict[str, Any]:
    """Imports three documents, the last of which is sent when the progress of the first has come back."""
    address = client.base_url
    with socket.create_connection((address.host, address.port), timeout=END_SECONDS) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {WRITE_KEY}\r\n"
        head += "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"

        def send(id: int) -> None:
            line = json.dumps({"id": f"d{id}", "text": "king", "fields": {"n": id}}).encode() + b"\n"
            connection.sendall(b"%x\r\n%s\r\n" % (len(line), line))

        connection.sendall(head.encode())
        send(0)
        received = b""
        while b'"progress"' not in received:
            received += (piece := connection.recv(65_536))
            assert piece, received
        send(1)
        send(2)
        connection.sendall(b"0\r\n\r\n")
        while b'"done"' not in received:
            received += (piece := connection.recv(65_536))
            assert piece, received
    last: dict[str, Any] = json.loads(next(line for line in received.splitlines() if b'"done"' in line))
    return last


@pytest.mark.skipif(NGINX is None, reason="there is no nginx")
def test_nginx_before_a_root_path(model_a: Model, starter: Starter, tmp_path: Path) -> None:
    environment = KEYS | {
        "JOSE_ROOT_PATH": "/jose",
        "JOSE_TRUSTED_PROXIES": "127.0.0.0/8",
        "JOSE_ACCESS_LOG": "true",
        "JOSE_LOG_FORMAT": "json",
    }
    running = starter(model_a[0], "--documents", str(tmp_path / "d.sqlite3"), environment=environment, ready=False)
    text = block("location /jose/").replace("http://127.0.0.1:8080", running.url.removesuffix("/jose"))
    with proxied(tmp_path / "nginx", f"server {{ listen 80; {text} }}") as client:
        docs = client.get("/jose/docs")
        assert docs.status_code == 200
        files = re.findall(r"(?:src|href)=\"([^\"]+)\"|url: '([^']+)'", docs.text)
        assert [client.get(f"/jose/{link or spec}").status_code for link, spec in files] == [200] * 4
        answer = client.get("/jose/similar?word=king", headers=READ | {"X-Forwarded-For": "203.0.113.7"})
        assert answer.status_code == 200
        assert client.get("/jose/", headers={"Accept": "text/html"}).status_code == 200
        assert client.get("/similar?word=king", headers=READ).status_code == 404, "the rest of the server is others'"
        id = answer.headers["x-request-id"]
    wait_for(lambda: any(id in line for line in running.lines))
    lines = [json.loads(line) for line in running.lines]
    (line,) = [line for line in lines if line.get("request_id") == id]
    assert (len(id), line["client"], line["path"]) == (32, "203.0.113.7", "/jose/similar")
