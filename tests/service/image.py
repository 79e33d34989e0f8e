"""What ``docker compose up`` would do, without Docker: the Dockerfile's steps and the compose file's services.

Both files are read, not repeated: every ENV, WORKDIR, COPY and RUN of the Dockerfile is carried out in a folder that
stands for the image, in a fresh virtual environment, and ``train`` and ``api`` run with the commands, variables and
user that the compose file gives them, where the image's files are read-only and only the mounted volumes can be
written. Needs to be root to become the user of the image; else the present user runs everything.

What this cannot show: the base image, the kernel's limits (cap_drop, no-new-privileges, read_only for the rest of the
file system), the network settings and the volumes' owners.

    python tests/service/image.py [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
# Paths of the image, each of which becomes a folder below the one that stands for its root.
IMAGE_PATHS = ("/src", "/opt", "/corpus", "/models", "/documents", "/cache", "/tmp", "/usr/local")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def steps(dockerfile: Path) -> Iterator[tuple[str, str]]:
    """The instructions of a Dockerfile: (name, rest); comments are passed over, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(str.strip, text.splitlines()):
        name, _, rest = line.partition(" ")
        yield name.upper(), rest.strip()


class Image:
    """A folder that stands for an image.

    Args:
        root: The folder.
        python: The interpreter that stands for the base image's.
    """

    def __init__(self, root: Path, python: str) -> None:
        self.root = root
        self.stages: dict[str, Path] = {}
        self.stage = root
        self.environment: dict[str, str] = {}
        self.work = "/"
        self.user = ""
        self.command: list[str] = []
        self.healthcheck: list[str] = []
        self.python = python
        # A copied interpreter must find the library beside it, not the one of its first home.
        self.library = {"LD_LIBRARY_PATH": str(root / "python" / "lib")} if str(root) in python else {}

    def path(self, inside: str) -> Path:
        """The place of a path of the image."""
        return self.stage / inside.lstrip("/")

    def translated(self, text: str) -> str:
        """Text with every path of the image replaced by its place."""
        names = "|".join(path.lstrip("/") for path in IMAGE_PATHS)
        return re.sub(rf"(?<![\w.])/({names})(?=[/\s\"':]|$)", lambda found: str(self.stage / found.group(1)), text)

    def build(self, dockerfile: Path, context: Path) -> None:
        """Carries out every step."""
        for name, rest in steps(dockerfile):
            print(f"  {name} {rest}"[:150], flush=True)
            getattr(self, f"step_{name.lower()}")(rest, context)

    def step_arg(self, rest: str, context: Path) -> None:
        """The version of the base image: the interpreter at hand stands for it."""

    def step_expose(self, rest: str, context: Path) -> None:
        """Says something to people."""

    def step_from(self, rest: str, context: Path) -> None:
        stage = rest.partition(" AS ")[2].strip() or "final"
        # Virtual environments hold their own path, so both stages stand in one folder, as /opt/venv does in both.
        self.stages[stage] = self.stage
        self.environment, self.work = {}, "/"
        for path in IMAGE_PATHS:
            self.path(path).mkdir(parents=True, exist_ok=True)

    def step_env(self, rest: str, context: Path) -> None:
        for pair in shlex.split(rest):
            name, _, value = pair.partition("=")
            self.environment[name] = self.translated(value.replace("$PATH", self.environment.get("PATH", SYSTEM_PATH)))

    def step_workdir(self, rest: str, context: Path) -> None:
        self.work = rest
        self.path(rest).mkdir(parents=True, exist_ok=True)

    def step_user(self, rest: str, context: Path) -> None:
        self.user = rest

    def step_copy(self, rest: str, context: Path) -> None:
        *sources, target = rest.split()
        if sources[0].startswith("--from="):
            place = self.stages[sources.pop(0).partition("=")[2]] / sources[0].strip("/")
            if place != self.path(target):
                shutil.copytree(place, self.path(target), dirs_exist_ok=True)
            return
        base = self.path(self.work)
        for source in sources:
            place = base / target if not target.endswith("/") else base / target / source
            place.parent.mkdir(parents=True, exist_ok=True)
            if (context / source).is_dir():
                shutil.copytree(
                    context / source, place, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
                )
            else:
                shutil.copy(context / source, place)

    def step_run(self, rest: str, context: Path) -> None:
        if rest.startswith("groupadd"):  # the user need not have a name on this machine
            rest = rest[rest.index("mkdir") :]
            if os.geteuid() != 0:
                rest = rest.partition("&& chown")[0]
        command = re.sub(r"^python ", f"{shlex.quote(self.python)} ", self.translated(rest))
        environment = {"PATH": SYSTEM_PATH, "HOME": str(self.path("/tmp"))} | self.library
        environment |= pip_settings() | self.environment
        subprocess.run(["bash", "-ec", command], cwd=self.path(self.work), env=environment, check=True)

    def step_healthcheck(self, rest: str, context: Path) -> None:
        self.healthcheck = json.loads(rest[rest.index("CMD") + 3 :])

    def step_cmd(self, rest: str, context: Path) -> None:
        self.command = json.loads(rest)

    def sealed(self, writable: list[str]) -> None:
        """Takes the right to write from everything but some folders, which the image's user gets."""
        subprocess.run(["chmod", "-R", "a-w,a+rX", str(self.stage)], check=True)
        for path in [*writable, "/tmp"]:
            subprocess.run(["chmod", "-R", "u+w", str(self.path(path))], check=True)
            if os.geteuid() == 0 and self.user:
                subprocess.run(["chown", "-R", self.user, str(self.path(path))], check=True)

    def run(self, command: list[str], environment: dict[str, str], **options: Any) -> subprocess.Popen[str]:
        """Starts a command as the image's user, with the image's variables and those given."""
        variables = {"PATH": SYSTEM_PATH, "HOME": "/nonexistent", "TMPDIR": str(self.path("/tmp"))} | self.environment
        variables |= self.library | {name: self.translated(value) for name, value in environment.items()}
        become: dict[str, Any] = {}
        if os.geteuid() == 0 and self.user:
            user, _, group = self.user.partition(":")
            become = {"user": int(user), "group": int(group), "extra_groups": []}
        translated = [self.translated(word) for word in command]
        program = shutil.which(translated[0], path=variables["PATH"])
        assert program is not None, translated
        return subprocess.Popen(
            [program, *translated[1:]],
            env=variables,
            cwd=self.path(self.work),
            text=True,
            umask=0o022,
            **become,
            **options,
        )


def base_python(folder: Path) -> str:
    """An interpreter that every user of this machine may run: this one, or a copy where it lives in somebody's home."""
    python = Path(sys.base_prefix).resolve() / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    if all(parent.stat().st_mode & 0o005 == 0o005 for parent in python.parents):
        return str(python)
    copy = folder / "python"
    unused = shutil.ignore_patterns("test", "tests", "site-packages", "__pycache__", "*.a", "idlelib")
    shutil.copytree(sys.base_prefix, copy, symlinks=True, ignore=unused)
    return str(copy / "bin" / python.name)


def pip_settings() -> dict[str, str]:
    """Where this machine's pip finds packages, which the image's would find by itself."""
    return {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.endswith("_CERT_FILE")}


def composed(text: str) -> dict[str, Any]:
    """The services of a compose file, with ``${NAME:-default}`` as where NAME is not set."""
    loaded: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    services: dict[str, Any] = loaded["services"]
    return services


def check_rules(services: dict[str, Any]) -> None:
    """What is promised of the compose file."""
    for service in services.values():
        assert service["read_only"] is True
        assert service["init"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["user"].split(":")[0] != "0"
        assert service["tmpfs"] == ["/tmp"]
        assert "no-new-privileges=true" in service["security_opt"]  # a colon is deprecated
        assert service["pull_policy"] == "never"
        assert "mem_limit" in service
    assert [name for name, service in services.items() if "build" in service] == ["train"], "the image is built once"
    api = services["api"]
    assert api["depends_on"]["train"]["condition"] == "service_completed_successfully"
    assert all(port.startswith("127.0.0.1:") for port in api["ports"])
    assert "models:/models:ro" in api["volumes"]
    assert services["train"]["network_mode"] == "none"


def ask(url: str, path: str, body: Any = None, method: str | None = None) -> Any:
    """One call; its answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def volumes(service: dict[str, Any], *, writable: bool) -> list[str]:
    """The places of a service's volumes that may, or may not, be written."""
    places = [volume.split(":") for volume in service["volumes"]]
    return [place[1] for place in places if (place[-1] != "ro") is writable]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it")
    chosen = parser.parse_args()
    services = composed((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    check_rules(services)
    folder = chosen.keep or Path(tempfile.mkdtemp(prefix="jose-image-"))
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    image = Image(folder, base_python(folder))
    try:
        print("Dockerfile:")
        image.build(ROOT / "Dockerfile", ROOT)
        up(image, services)
    finally:
        if chosen.keep is None:
            subprocess.run(["chmod", "-R", "u+w", str(folder)], check=False)
            shutil.rmtree(folder, ignore_errors=True)


def up(image: Image, services: dict[str, Any]) -> None:
    """``docker compose up``, three calls, a kill, another start, and ``docker compose stop``."""
    train, api = services["train"], services["api"]
    for _ in range(2):  # the second time finds the model
        image.sealed(volumes(train, writable=True))
        began = time.monotonic()
        assert image.run(train["command"], {}).wait(1_200) == 0
        print(f"train: {time.monotonic() - began:.1f} s")
    image.sealed(volumes(api, writable=True))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    # The loopback in the place of a network of the container's own: this machine has no such thing to publish.
    environment = api["environment"] | {"JOSE_HOST": "127.0.0.1", "JOSE_PORT": port}
    environment = {name: "" if value is None else str(value) for name, value in environment.items()}
    url = f"http://127.0.0.1:{port}"
    for end in ("kill", "stop"):
        log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # as long as the process
        process = image.run(image.command, environment, stderr=log)
        began = time.monotonic()
        while (
            image.run(image.healthcheck, environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait(30)
            != 0
        ):
            if process.poll() is not None:
                log.seek(0)
                raise AssertionError(f"the service ended with status {process.returncode}: {log.read()}")
            assert time.monotonic() - began < 60, "the service does not become healthy"
        print(f"api: healthy after {time.monotonic() - began:.1f} s")
        info = ask(url, "/info")
        word = ask(url, "/words?limit=300")["words"][-1]["word"]
        print(
            f"api: {info['words']} words; beside {word!r}:",
            [n["word"] for n in ask(url, f"/similar?word={word}&k=5")["neighbors"]],
        )
        if end == "kill":
            ask(url, "/documents/first", {"text": f"{word} in a document"}, "PUT")
            process.kill()
            process.wait(30)
        else:
            found = ask(url, "/search", {"text": word, "source": "added"})["neighbors"]
            assert [hit["id"] for hit in found] == ["first"]
            process.terminate()
            assert process.wait(30) == 0
    print("compose: train, api, health check, kill, restart and stop are as promised")


if __name__ == "__main__":
    main()
