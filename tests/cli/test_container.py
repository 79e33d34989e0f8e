"""The training of ``docker compose up``: once, continued, and never of another text unnoticed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from planted import corpus

from jose_embed.cli.container import main
from jose_embed.model.embeddings import load
from jose_embed.training.checkpoints import Checkpoints

OPTIONS = ["--dim", "16", "--epochs", "2", "--min-count", "1", "--quiet"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a corpus of four topics, and no variables of the shell."""
    for name in ("ON_CHANGE", "TRAIN_OPTIONS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "corpus").mkdir()
    write(tmp_path, 0)
    return tmp_path


def write(folder: Path, seed: int) -> None:
    (folder / "corpus" / "a.txt").write_text("\n".join(corpus(seed=seed).texts) + "\n", encoding="utf-8")


def up(folder: Path, *options: str) -> int:
    return main([str(folder / "corpus"), "--output", str(folder / "models.jose"), *OPTIONS, *options])


def model_id(folder: Path) -> str:
    return load(folder / "models.jose").id


def test_a_model_of_the_same_text_is_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert up(folder) == 0
    first = model_id(folder)
    os.utime(folder / "corpus" / "a.txt", (0, 0))  # times do not matter
    assert main([str(folder / "corpus"), "--output", str(folder / "models.jose")]) == 0
    assert model_id(folder) == first
    assert "was trained on this text and is kept" in capsys.readouterr().err


def test_another_text_is_noticed(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert up(folder) == 0
    first = model_id(folder)
    write(folder, 1)
    assert up(folder) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is not the text that" in line
    assert "ON_CHANGE=retrain docker compose up" in line
    assert "ON_CHANGE=keep docker compose up" in line
    monkeypatch.setenv("ON_CHANGE", "keep")
    assert (up(folder), model_id(folder)) == (0, first)
    monkeypatch.setenv("ON_CHANGE", "retrain")
    assert up(folder) == 0
    second = model_id(folder)
    assert second != first
    assert "docker compose kill -s SIGHUP api" in capsys.readouterr().out
    monkeypatch.delenv("ON_CHANGE")
    assert (up(folder), model_id(folder)) == (0, second)
    monkeypatch.setenv("ON_CHANGE", "always")
    assert up(folder) == 2
    assert "ON_CHANGE is 'always'; it must be one of stop, retrain, keep" in capsys.readouterr().err


LONG = ["--epochs", "4", "--checkpoint-every", "0.000001s"]


def stop_after_a_checkpoint(folder: Path) -> int:
    """Trains until there is a checkpoint, and is then stopped as by ``docker compose stop``; returns the status."""
    write = Checkpoints.write

    def then_stop(self: Checkpoints, *arguments: Any) -> Any:
        written = write(self, *arguments)
        signal.raise_signal(signal.SIGTERM)
        return written

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "write", then_stop)
        return up(folder, *LONG)


def run_of(folder: Path) -> str:
    """The name of the run that was stopped."""
    newest = max(folder.glob("models.jose.run/checkpoint-*/checkpoint.json"))
    return str(json.loads(newest.read_bytes())["run"])


def test_a_training_that_was_stopped_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stop_after_a_checkpoint(folder) == 143
    assert "continue with: docker compose up" in capsys.readouterr().err
    run = run_of(folder)
    assert up(folder, *LONG) == 0
    assert load(folder / "models.jose").manifest["training"]["run"] == run
    assert not (folder / "models.jose.run").exists()


def test_a_training_that_was_stopped_is_of_another_text(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stop_after_a_checkpoint(folder) == 143
    run = run_of(folder)
    write(folder, 1)
    for choice in ("stop", "keep"):  # there is no model to keep
        monkeypatch.setenv("ON_CHANGE", choice)
        capsys.readouterr()
        assert up(folder) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "is not the text of the training that was stopped" in line
        assert "ON_CHANGE=retrain docker compose up" in line
        assert "ON_CHANGE=keep" not in line
        assert run_of(folder) == run
    monkeypatch.setenv("ON_CHANGE", "retrain")
    assert up(folder) == 0
    assert load(folder / "models.jose").manifest["training"]["run"] != run
    assert not (folder / "models.jose.run").exists()


def test_a_folder_without_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "corpus" / "a.txt").unlink()
    assert up(folder) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "there is no file in this directory" in line
    assert "the engine has made an empty one" in line


@pytest.mark.parametrize("place", ["corpus", "corpus/a.txt"])
def test_a_folder_that_may_not_be_read(
    folder: Path, place: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system is asked by a replacement: these tests may run as root, who may read everything."""
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder / place)
    monkeypatch.setattr(os, "geteuid", lambda: 10001)
    assert up(folder) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "user 10001 of the container may not read all of it" in line
    assert "chmod -R a+rX FOLDER" in line


def test_options_and_mistakes(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAIN_OPTIONS", "--dim 24 --preset 'words'")
    assert up(folder) == 0
    assert load(folder / "models.jose").dim == 24
    monkeypatch.setenv("TRAIN_OPTIONS", "--dim 'x")
    assert up(folder) == 2
    monkeypatch.setenv("TRAIN_OPTIONS", "--dimension 3")
    assert up(folder) == 2
    written = capsys.readouterr().err
    assert "TRAIN_OPTIONS is" in written
    assert "unknown option --dimension" in written
    assert "Traceback" not in written
