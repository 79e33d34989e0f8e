"""The compose file keeps its promises; the long way through all of the Dockerfile's steps is slow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import image
import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_compose_file_keeps_the_rules() -> None:
    services = image.composed((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert set(services) == {"train", "api"}
    image.check_rules(services)


def test_the_dockerfile_keeps_the_rules() -> None:
    steps = list(image.steps(ROOT / "Dockerfile"))
    assert [name for name, _ in steps].count("FROM") == 2
    last = dict(steps)
    assert last["USER"].split(":")[0] not in ("0", "root")
    assert last["HEALTHCHECK"].endswith('["jose-serve", "healthcheck"]')
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    copied = [source for name, rest in steps if name == "COPY" and "--from" not in rest for source in rest.split()[:-1]]
    assert {f"!{source}" for source in copied} <= set(ignored)
    for source in copied:
        assert (ROOT / source).exists(), source


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_the_dockerfile_s_steps_and_the_compose_file_s_services() -> None:
    subprocess.run([sys.executable, str(ROOT / "tests" / "service" / "image.py")], check=True)
