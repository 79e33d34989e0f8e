"""Killed at any moment, resumed, and at the end the same model; under its name there is never half of one.

Every run is a process of its own that tells its phases, and is killed (SIGKILL) at a random moment of a phase drawn at
random, until it comes to its end. An old model stands under the name all the time: whatever happens it is the old one
or the new one, whole.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
import planted
import pytest

from jose_embed.model.embeddings import Embeddings, load

ROOT = Path(__file__).resolve().parents[2]
BEGINNING = ("starting", "reading", "encoding", "compiling", "training", "checkpointing")
RESUMED = ("verifying", "checking", "compiling", "training", "checkpointing", "document weights", "saving", "removing")
OPTIONS = {
    "--tokenizer": "whitespace",
    "--min-count": 2,
    "--dim": 24,
    "--epochs": 6,
    "--seed": 3,
    "--learning-rate": 0.1,
    "--backend": "cpu",
    "--checkpoint-every": "0.05s",
}

# jose-train, telling its phases on standard output; "checkpointing" and "removing" happen within others.
PROGRAM = """
import sys
from jose_embed.training import checkpoints
from jose_embed.cli import train as cli_train
from jose_embed.training import epochs
from jose_embed.cli.program import train_main
from jose_embed.progress import SilentReporter

def say(phase):
    print(phase, flush=True)

class Phases(SilentReporter):
    def start(self, phase, total, unit, done=0):
        say(phase)

def told(name, phase, then):
    method = getattr(checkpoints.Checkpoints, name)
    def wrapped(self, *arguments, **named):
        say(phase)
        result = method(self, *arguments, **named)
        say(then)
        return result
    setattr(checkpoints.Checkpoints, name, wrapped)

told("write", "checkpointing", "training")
told("remove", "removing", "done")
epochs.chunk_tokens = lambda *_: 4096
cli_train.reporter_for = lambda **_: Phases()
say("starting")
sys.exit(train_main(sys.argv[1:]))
"""


@dataclass
class Story:
    """What the kills have met.

    Attributes:
        kills: Kills by phase.
        models: How often the old and the new model stood under the name after a kill.
        resumed: How often a run went on from a checkpoint.
    """

    kills: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    resumed: int = 0


def mixed_corpus() -> planted.Planted:
    """Documents in which two words of three are of any topic, so that there is something to lose."""
    texts, topics = planted.corpus(4000, n_words=50)
    chance = random.Random(0)
    any_topic = [f"t{chance.randrange(planted.TOPICS)}" for _ in range(1 << 16)]
    mixed = []
    for text in texts:
        words = [
            any_topic[chance.getrandbits(16)] + word[2:] if word[0] == "t" and chance.random() < 0.67 else word
            for word in text.split()
        ]
        mixed.append(" ".join(words))
    return planted.Planted(mixed, topics)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(mixed_corpus().texts) + "\n")
    return path


def started(text: Path, output: Path, workers: int) -> tuple[subprocess.Popen[str], SimpleQueue[str]]:
    """A training and the queue of its phases; None ends it."""
    options = {"--output": output, "--workers": workers, **OPTIONS}
    settings = [str(word) for option in options.items() for word in option]
    command = [sys.executable, "-c", PROGRAM, str(text), "--quiet", "--overwrite", "--resume", *settings]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    phases: SimpleQueue[str] = SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            phases.put(line.strip())
        phases.put("")

    threading.Thread(target=read, daemon=True).start()
    return process, phases


def ended(process: subprocess.Popen[str]) -> str:
    """What it wrote to standard error; it has ended, or does."""
    _, err = process.communicate(timeout=600)
    return err


def whole_run(text: Path, output: Path, workers: int) -> tuple[Embeddings, dict[str, float]]:
    """A training that nobody kills, and how long each phase took at the longest."""
    process, phases = started(text, output, workers)
    longest: dict[str, float] = {}
    phase, since = "starting", time.monotonic()
    while True:
        following = phases.get(timeout=600)
        now = time.monotonic()
        longest[phase] = max(longest.get(phase, 0.0), now - since)
        phase, since = following, now
        if not following:
            break
    assert ended(process) == ""
    assert process.returncode == 0
    return load(output, verify=True), longest


def killed_once(process: subprocess.Popen[str], phases: SimpleQueue[str], wanted: str, delay: float, skip: int) -> str:
    """Kill a training some time after it has entered the wanted phase for the (skip + 1)th time.

    Returns:
        The phase it was in; nothing where it ended before that.
    """
    phase = "starting"
    while True:
        try:
            phase = phases.get(timeout=600)
        except Empty:  # pragma: no cover
            process.kill()
            raise
        if not phase:
            return ""
        if phase == wanted:
            if not skip:
                break
            skip -= 1
    deadline = time.monotonic() + delay
    while (left := deadline - time.monotonic()) > 0:
        try:
            phase = phases.get(timeout=left) or "done"
        except Empty:
            break
    process.send_signal(signal.SIGKILL)
    return phase


def survive(
    text: Path, folder: Path, workers: int, n_kills: int, seed: int
) -> tuple[Story, list[Embeddings], Embeddings]:
    """Kill trainings until there were so many kills; each training is resumed until it comes to its end.

    Returns:
        What happened, the models that the killed trainings ended with, and that of one that nobody killed.
    """
    expected, longest = whole_run(text, folder / "whole.jose", workers)
    old = folder / "old.jose"
    vector = np.float32([[1, 0]])
    Embeddings.from_arrays(words=["old"], counts=[1], center_vectors=vector, context_vectors=vector).save(old)
    chance = random.Random(seed)
    story, models = Story(), []
    while sum(story.kills.values()) < n_kills:
        output = folder / f"{len(models)}.jose"
        shutil.copytree(old, output)
        while True:
            left = n_kills - sum(story.kills.values())
            has_checkpoint = any(output.with_name(f"{output.name}.run").glob("checkpoint-*"))
            wanted = chance.choice(RESUMED if has_checkpoint else BEGINNING) if left > 0 else ""
            delay = chance.uniform(0.0, 1.2 * longest.get(wanted, 0.05))
            skip = chance.randrange(6) if wanted in ("training", "checkpointing") else 0
            process, phases = started(text, output, workers)
            phase = killed_once(process, phases, wanted, delay, skip)
            err = ended(process)
            story.resumed += has_checkpoint
            if process.returncode == 0:
                assert sorted(path.name for path in folder.glob(f"*{output.name}*")) == [output.name]
                break
            assert process.returncode == -signal.SIGKILL, err
            story.kills[phase] += 1
            # Whole, whatever it is: every byte is read and compared with its checksum.
            there = load(output, verify=True)
            story.models["old" if there.words == ["old"] else "new"] += 1
            if there.words != ["old"] and not output.with_name(f"{output.name}.run").exists():
                break  # it was killed after its last step
        models.append(load(output, verify=True))
    return story, models, expected


def arrays_of(model: Embeddings) -> dict[str, bytes]:
    arrays = {
        name: getattr(model, name)
        for name in ("center_vectors", "context_vectors", "doc_vectors", "doc_token_counts", "counts")
    } | dict(model.extra_arrays)
    return {name: np.ascontiguousarray(array).tobytes() for name, array in arrays.items()}


def agreement(model: Embeddings) -> float:
    """The share of documents' five nearest neighbours that are of the same topic."""
    return planted.nearest_agree(np.asarray(model.doc_vectors), mixed_corpus().topics)


def tell(story: Story, what: str) -> None:
    kills = ", ".join(f"{phase} {n}" for phase, n in story.kills.most_common())
    old, new = story.models["old"], story.models["new"]
    print(f"\n{what}: {sum(story.kills.values())} kills ({kills}), {story.resumed} starts from a checkpoint")
    print(f"under the name stood the old model {old} times, the new one {new} times, half of one never")


def test_a_few_kills_change_nothing(text: Path, tmp_path: Path) -> None:
    story, models, expected = survive(text, tmp_path, workers=1, n_kills=3, seed=8)
    tell(story, "one worker")
    assert all(arrays_of(model) == arrays_of(expected) for model in models)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sixty_kills_change_nothing(text: Path, tmp_path: Path) -> None:
    """One worker: the same bytes."""
    story, models, expected = survive(text, tmp_path, workers=1, n_kills=60, seed=1)
    tell(story, "one worker")
    assert set(story.kills) >= {"reading", "encoding", "training", "checkpointing", "document weights", "saving"}
    assert all(arrays_of(model) == arrays_of(expected) for model in models)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kills_with_two_workers_leave_the_quality(text: Path, tmp_path: Path) -> None:
    """Two workers: bytes differ from run to run, topics are found as well."""
    story, models, expected = survive(text, tmp_path, workers=2, n_kills=30, seed=2)
    tell(story, "two workers")
    whole = agreement(expected)
    killed = ", ".join(f"{agreement(model):.4f}" for model in models)
    print(f"five nearest neighbours of the same topic: {whole:.4f} unkilled, {killed} killed")
    for model in models:
        assert agreement(model) > whole - 0.02
        losses, wanted = ([e["loss"] for e in m.manifest["training"]["epochs"]] for m in (model, expected))
        assert losses[-1] == pytest.approx(wanted[-1], rel=0.1)
