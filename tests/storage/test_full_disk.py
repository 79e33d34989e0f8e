"""A disk without room, a disk that is read-only: one line that says what was needed, and all that was there before
stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jose_embed.cli.program import main

ROOT = Path(__file__).resolve().parents[2]

Run = Callable[..., tuple[int, str, list[str]]]


def _can_mount() -> bool:
    """Whether this system lets a process of its own mount a file system that nobody else sees."""
    if not sys.platform.startswith("linux") or shutil.which("unshare") is None:
        return False
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not _can_mount(), reason="needs a system that lets us mount a small file system")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of 1.6 MB that takes 1.4 MB when it is encoded, and a model and an encoding of it."""
    path = tmp_path_factory.mktemp("disk")
    rng = np.random.default_rng(3)
    words = [f"w{number}" for number in range(2000)]
    lines = [" ".join(words[word] for word in rng.integers(0, 2000, 60)) for _ in range(5000)]
    (path / "text.txt").write_text("\n".join(lines))
    (path / "short.txt").write_text("\n".join(lines[:500]))
    (path / "small").mkdir()
    train = ["train", str(path / "short.txt"), "-q", "--dim", "8", "--epochs", "1", "--output", str(path / "m.jose")]
    assert main(train) == 0
    assert main(["encode", str(path / "short.txt"), "-q", "--output", str(path / "t.encoded")]) == 0
    return path


@pytest.fixture
def on_a_small_disk(folder: Path) -> Run:
    """Runs a command in ``folder``, where ``small`` is a file system of so many kilobytes that holds these files: its
    status, its last line, and the files that are there then, with what has changed."""

    def _run(kilobytes: int, *arguments: str, holding: str = "", read_only: bool = False) -> tuple[int, str, list[str]]:
        script = [
            f"mount -t tmpfs -o size={kilobytes}k tmpfs small",
            *([f"cp -r {holding} small/"] if holding else []),
            *(["mount -o remount,ro small"] if read_only else []),
            "find small -type f -exec sha256sum {} + | sort > before.txt",
            '"$@"; status=$?',
            "find small -type f -exec sha256sum {} + | sort > after.txt",
            "cmp before.txt after.txt || cat after.txt",
            "find small | sort",
            "exit $status",
        ]
        command = [
            "unshare",
            "-rm",
            "sh",
            "-c",
            "\n".join(script),
            "sh",
            sys.executable,
            "-m",
            "jose_embed",
            *arguments,
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
        return done.returncode, done.stderr.rstrip("\n").rpartition("\n")[2], done.stdout.splitlines()

    return _run


def expect_no_room(outcome: tuple[int, str, list[str]], start: str, *parts: str) -> None:
    status, message, left = outcome
    assert status == 2, message
    assert message.startswith(f"jose: {start}"), message
    assert "no room" in message
    for part in parts:
        assert part in message, message
    assert [line for line in left if ".tmp" in line or "differ" in line] == []


def test_no_room_while_encoding(on_a_small_disk: Run) -> None:
    outcome = on_a_small_disk(800, "encode", "text.txt", "-q", "-o", "small/text.encoded")
    expect_no_room(outcome, "", "small: no room for the encoded text (", "needed: about 1.2 MB, there was: 0.8 MB)")
    assert outcome[2] == ["small"]


def test_no_room_while_keeping_what_was_encoded(on_a_small_disk: Run) -> None:
    outcome = on_a_small_disk(1600, "encode", "text.txt", "-q", "-o", "small/text.encoded")
    expect_no_room(
        outcome, "small/text.encoded: no room on the disk", " are needed, ", " were free; nothing was changed"
    )
    assert outcome[2] == ["small"]


@pytest.mark.slow
def test_a_kept_encoding_survives_a_new_one_without_room(on_a_small_disk: Run, folder: Path) -> None:
    arguments = ["encode", "text.txt", "-q", "--overwrite", "-o", "small/t.encoded"]
    outcome = on_a_small_disk(1000, *arguments, holding="t.encoded")
    expect_no_room(outcome, "", "no room for the encoded text")
    assert "small/t.encoded/tokens.npy" in outcome[2]


@pytest.mark.slow
def test_no_room_for_a_model(on_a_small_disk: Run) -> None:
    arguments = ["train", "text.txt", "-q", "--dim", "100", "--epochs", "1", "--overwrite", "-o", "small/m.jose"]
    outcome = on_a_small_disk(1000, *arguments, holding="m.jose")
    expect_no_room(outcome, "small/m.jose: no room on the disk", " are needed, ", " were free; nothing was changed")
    assert "small/m.jose/manifest.json" in outcome[2]


def test_no_room_for_vectors(on_a_small_disk: Run) -> None:
    outcome = on_a_small_disk(100, "embed", "m.jose", "text.txt", "-q", "-o", "small/v.npy")
    expect_no_room(outcome, "small/v.npy: no room on the disk", " are needed, 102.4 kB were free")
    outcome = on_a_small_disk(200, "embed", "m.jose", "text.txt", "-q", "-o", "small/v.npy", "--details", "small/d.tsv")
    expect_no_room(outcome, "small/", "no room on the disk", " are needed, ", " were free; nothing was changed")
    assert outcome[2] == ["small"]


def test_no_room_for_an_export(on_a_small_disk: Run) -> None:
    outcome = on_a_small_disk(64, "export", "m.jose", "--format", "word2vec", "-o", "small/v.bin")
    expect_no_room(outcome, "small/v.bin: no room on the disk", " are needed, 65.5 kB were free")
    assert outcome[2] == ["small"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["encode", "short.txt", "-o", "small/x"],
        ["train", "short.txt", "-o", "small/x"],
        ["train", "short.txt", "--keep-encoded", "small/x", "-o", "x"],
        ["embed", "m.jose", "short.txt", "-o", "small/x"],
        ["export", "m.jose", "-o", "small/x.txt"],
    ],
    ids=" ".join,
)
def test_a_place_that_is_read_only(on_a_small_disk: Run, arguments: list[str]) -> None:
    status, message, left = on_a_small_disk(1000, *arguments, "-q", holding="t.encoded", read_only=True)
    assert status == 2
    assert message.startswith("jose: ")
    assert "cannot be written to" in message
    assert "Traceback" not in message
    assert "small/t.encoded/tokens.npy" in left


@pytest.mark.slow
def test_what_is_kept_can_be_used_where_nothing_can_be_written(on_a_small_disk: Run) -> None:
    arguments = ["train", "small/t.encoded", "-q", "--dim", "8", "--epochs", "1", "--overwrite", "-o", "again.jose"]
    assert on_a_small_disk(1000, *arguments, holding="t.encoded", read_only=True)[0] == 0


def test_vectors_have_a_head_of_one_length(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(folder / "short.txt", "a.txt")
    assert main(["embed", str(folder / "m.jose"), "a.txt", "-q", "-o", "v.npy"]) == 0
    vectors: Any = np.load("v.npy")
    assert vectors.shape == (500, 8)
    assert Path("v.npy").stat().st_size == 128 + 500 * 8 * 4
