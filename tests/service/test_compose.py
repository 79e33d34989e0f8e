"""``docker compose`` with a real engine: ``make test-compose``. Without one these tests are skipped and say why.

They work in a project of their own and remove its containers and volumes; the image is ``jose-embed:latest``.
``COMPOSE_FILE`` may name further compose files, such as one with ``build: {network: host}`` for an engine without a
network of its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from planted import corpus

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "jose-embed-test"
Outcome = subprocess.CompletedProcess[str]

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1_800)]


def engine_trouble() -> str:
    """Why there is no engine to drive; empty if there is one."""
    if shutil.which("docker") is None:
        return "there is no program docker"
    for command in (["docker", "version"], ["docker", "compose", "version"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1:]}"
    return ""


class Compose:
    """The project of a test."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.variables = {"COMPOSE_PROJECT_NAME": PROJECT, "PORT": str(self.port), "BUILDKIT_PROGRESS": "plain"}

    def run(self, *arguments: str, succeeds: bool = True, **variables: str) -> str:
        """One command of docker compose; returns its output."""
        environment = {**os.environ, **self.variables, **variables}
        command = ["docker", "compose", *arguments]
        done: Outcome = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        written = done.stdout + done.stderr
        assert (done.returncode == 0) is succeeds, f"{arguments}: {written[-3000:]}\n{self.log('train')[-3000:]}"
        return written

    def log(self, service: str) -> str:
        """What the present container of a service has written."""
        command = ["docker", "logs", f"{PROJECT}-{service}-1"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def inside(self, *command: str) -> str:
        """A command in the container of the service."""
        done = subprocess.run(
            ["docker", "exec", f"{PROJECT}-api-1", *command], capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """One call of the service; its answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def wait(self, holds: Callable[[], Any], what: str) -> None:
        """Waits until something holds; the service may not answer meanwhile."""
        deadline = time.monotonic() + 300
        while True:
            try:
                if holds():
                    return
            except (OSError, urllib.error.URLError):
                pass
            assert time.monotonic() < deadline, f"{what}\n{self.log('train')[-2000:]}\n{self.log('api')[-2000:]}"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def built() -> Compose:
    """A project whose image is built."""
    if trouble := engine_trouble():
        pytest.skip(f"no engine: {trouble}")
    compose = Compose()
    compose.run("build")
    return compose


@pytest.fixture
def project(built: Compose) -> Iterator[Compose]:
    built.run("down", "--volumes", "--remove-orphans")
    yield built
    built.run("down", "--volumes", "--remove-orphans")


def folder_of_texts(path: Path, seed: int, n_documents: int = 2_000) -> str:
    """A folder that every user may read, with documents of four topics."""
    path.mkdir(mode=0o755, parents=True)
    (path / "texts.txt").write_text("\n".join(corpus(n_documents, seed=seed).texts), encoding="utf-8")
    for parent in path.parents:
        if parent.stat().st_uid == os.geteuid() and parent.name:
            parent.chmod(parent.stat().st_mode | 0o011)
    return str(path)


def test_what_runs_holds_no_tools_and_no_tests(built: Compose) -> None:
    image = ["docker", "run", "--rm", "--network", "none", "jose-embed:latest"]
    find = "find / -xdev -type d ( -name pip -o -name setuptools -o -path */site-packages/*/tests ) -not -path /proc/*"
    found = subprocess.run([*image, *find.split()], capture_output=True, text=True, check=False).stdout.split()
    assert found == []
    for program in ("pip", "wheel"):
        done = subprocess.run([*image, program, "--version"], capture_output=True, check=False)
        assert done.returncode == 127, program


def test_up_with_the_bundled_corpus(project: Compose) -> None:
    began = time.monotonic()
    project.run("up", "--detach", "--wait")
    print(f"up with the bundled corpus: healthy after {time.monotonic() - began:.0f} s")
    assert f"jose-serve: {project.url} serves /models/corpus.jose" in project.log("api")
    assert not re.search(r"https?://(0\.0\.0\.0|\[::\])", project.log("api"))
    assert "threads" in [near["word"] for near in project.ask("/similar?word=thread&k=5")["neighbors"]]
    assert project.ask("/documents/mine", {"text": "a thread holds a lock"}, "PUT")["revision"] == 1

    assert "Read-only" in project.inside("touch", "/x")
    assert "uid=10001" in project.inside("id")
    status = project.inside("cat", "/proc/1/status")
    assert re.search(r"^CapEff:\t0{16}$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
    assert project.inside("sh", "-c", "ls /cache/*.kernel | wc -l").strip() != "0", "kernels are kept in a volume"

    model = project.ask("/info")["model"]
    project.run("down")
    project.run("up", "--detach", "--wait")
    assert "was trained on this text and is kept" in project.log("train")
    assert project.ask("/info")["model"] == model
    subprocess.run(["docker", "kill", f"{PROJECT}-api-1"], check=True, capture_output=True)
    project.run("up", "--detach", "--wait")
    assert project.ask("/documents/mine")["text"] == "a thread holds a lock"
    project.run("stop", "api")
    state = subprocess.run(
        ["docker", "inspect", "--format", "{{.State.ExitCode}}", f"{PROJECT}-api-1"], capture_output=True, text=True
    )
    assert state.stdout.strip() == "0"


def test_a_bound_for_the_memory(project: Compose, tmp_path: Path) -> None:
    project.run("create", MEMORY_LIMIT="1g", CORPUS=folder_of_texts(tmp_path / "a", 0))
    for service in ("train", "api"):
        command = ["docker", "inspect", "--format", "{{.HostConfig.Memory}}", f"{PROJECT}-{service}-1"]
        assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == str(1 << 30)


def test_another_corpus_is_not_served_by_the_old_model(project: Compose, tmp_path: Path) -> None:
    first, second = folder_of_texts(tmp_path / "a", 0), folder_of_texts(tmp_path / "b", 1)
    project.run("up", "--detach", "--wait", CORPUS=first)
    model = project.ask("/info")["model"]
    refused = project.run("up", "--detach", succeeds=False, CORPUS=second)
    assert "exit 2" in refused
    said = project.log("train")
    assert "is not the text that /models/corpus.jose was trained on" in said
    assert "ON_CHANGE=retrain docker compose up" in said
    project.run("up", "--detach", "--wait", CORPUS=second, ON_CHANGE="keep")
    assert project.ask("/info")["model"] == model
    project.run("up", "--detach", "--wait", CORPUS=second, ON_CHANGE="retrain")
    assert "docker compose kill -s SIGHUP api" in project.log("train")
    project.run("kill", "-s", "SIGHUP", "api")
    project.wait(lambda: project.ask("/info")["model"] != model, "SIGHUP loads the new model")
    project.run("up", "--detach", "--wait", CORPUS=second)


def test_a_training_that_was_stopped_goes_on(project: Compose, tmp_path: Path) -> None:
    texts = folder_of_texts(tmp_path / "a", 0)
    settings = {"CORPUS": texts, "TRAIN_OPTIONS": "--epochs 400 --checkpoint-every 1s"}
    environment = {**os.environ, **project.variables, **settings}
    up = subprocess.Popen(
        ["docker", "compose", "up", "--detach"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    project.wait(lambda: "checkpoint: epoch" in project.log("train"), "a checkpoint is written")
    project.run("stop", "train", **settings)
    assert up.wait(120) != 0
    assert "continue with: docker compose up" in project.log("train")
    other = folder_of_texts(tmp_path / "b", 1)
    project.run("up", "--detach", succeeds=False, **{**settings, "CORPUS": other})
    assert "is not the text of the training that was stopped" in project.log("train")
    project.run("up", "--detach", "--wait", **settings)
    assert "resuming from" in project.log("train")


def test_folders_that_cannot_be_trained_on(project: Compose, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    project.run("up", "--detach", succeeds=False, CORPUS=str(missing))
    assert "the engine has made an empty one" in project.log("train")
    closed = folder_of_texts(tmp_path / "closed", 0)
    Path(closed).chmod(0o700)
    project.run("up", "--detach", succeeds=False, CORPUS=closed)
    assert "user 10001 of the container may not read all of it" in project.log("train")
    Path(closed).chmod(0o755)
    project.run("up", "--detach", "--wait", CORPUS=closed)
