"""Checkpoints: a run that was stopped anywhere ends as one that never was, and nothing wrong is ever gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from test_train import SETTINGS, sums

from jose_embed.compute.tables import ChunkResult
from jose_embed.config import TrainConfig
from jose_embed.errors import ConfigError, CorpusError, TrainingError
from jose_embed.model.embeddings import Embeddings
from jose_embed.progress import SilentReporter
from jose_embed.storage import atomic as storage
from jose_embed.storage.manifest import manifest_checksum
from jose_embed.text.encode import encode_texts
from jose_embed.text.kept import kept_encoding, write_encoded
from jose_embed.training import checkpoints, epochs
from jose_embed.training.checkpoints import Checkpoints, RunFacts
from jose_embed.training.schedule import Chunk, RunState
from jose_embed.training.train import train

ROOT = Path(__file__).resolve().parents[2]
TEXTS = planted.corpus(120).texts
CHUNK = 200  # running words: 15 chunks an epoch


class Notes(SilentReporter):
    """Remembers what was noted, and calls ``at`` with the number of every chunk of training that is done."""

    def __init__(self, at: Callable[[int], object] = lambda _: None) -> None:
        self.notes: list[str] = []
        self.phases: list[str] = []
        self.n_chunks = 0
        self.total: int | None = None
        self.done = 0
        self._at = at

    def start(self, phase: str, total: int | None, unit: str, done: int = 0) -> None:
        self.phases.append(phase)
        self.total, self.done = total, 0

    def advance(self, amount: int, **figures: float) -> None:
        self.done += amount
        if self.phases[-1] == "training":
            self.n_chunks += 1
            self._at(self.n_chunks)

    def note(self, message: str) -> None:
        if not message.startswith("backend "):
            self.notes.append(message)


def stopped_after(n: int) -> Notes:
    """A reporter that presses Ctrl-C when so many chunks are done."""
    return Notes(lambda chunk: signal.raise_signal(signal.SIGINT) if chunk == n else None)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochs, "chunk_tokens", lambda *_: CHUNK)


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


@pytest.fixture(scope="module")
def whole() -> Embeddings:
    """The model of a run that was never stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(epochs, "chunk_tokens", lambda *_: CHUNK)
        return train(documents=TEXTS, **SETTINGS)


def stop(directory: Path, source: Any, n: int, *, resume: bool = False, **settings: Any) -> Notes:
    """A run that is interrupted after n chunks."""
    reporter = stopped_after(n)
    with pytest.raises(KeyboardInterrupt):
        train(source, checkpoint=directory, resume=resume, reporter=reporter, **{**SETTINGS, **settings})
    return reporter


# ---- the same bytes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"objective": "joint"}, {"doc_method": "words"}, {"doc_vectors": "mapped"}])
def test_a_run_that_is_stopped_again_and_again_ends_the_same(
    tmp_path: Path, text_file: Path, settings: dict[str, Any]
) -> None:
    """In the middle of an epoch, near its end and its beginning, and after the last chunk of all."""
    settings = {**SETTINGS, **settings}
    expected = train(text_file, **settings)
    directory = tmp_path / "m.run"
    whole_run = Notes()
    train(text_file, reporter=whole_run, **settings)
    stop(directory, text_file, whole_run.n_chunks, **settings)  # every chunk is done, and nothing after that
    train(text_file, checkpoint=directory, resume=True, reporter=(rest := Notes()), **settings)
    assert rest.n_chunks == 0
    n_stops, model = 0, None
    while model is None:
        reporter = stopped_after((1, 5, 2, 13)[n_stops % 4])
        try:
            model = train(text_file, checkpoint=directory, resume=n_stops > 0, reporter=reporter, **settings)
        except KeyboardInterrupt:
            n_stops += 1
    assert n_stops >= 6
    assert sums(model) == sums(expected)
    for name in ("loss", "active", "pairs", "positions"):
        losses, wanted = ([epoch[name] for epoch in m.manifest["training"]["epochs"]] for m in (model, expected))
        assert losses == wanted, name
    assert list(model.doc_ids) == list(expected.doc_ids)
    assert not directory.exists()


def test_a_run_whose_epochs_follow_from_the_text_goes_on(tmp_path: Path, text_file: Path) -> None:
    settings = {**SETTINGS, "epochs": 0, "subsample_threshold": 0.0}
    expected = train(text_file, **settings)
    assert expected.config.epochs == 50
    directory = tmp_path / "m.run"
    assert any("epoch 1 of 50, " in note for note in stop(directory, text_file, 9, **settings).notes)
    model = train(text_file, checkpoint=directory, resume=True, reporter=(notes := Notes()), **settings)
    assert any("epoch 1 of 50, " in note for note in notes.notes)
    assert sums(model) == sums(expected)


def test_a_run_can_change_where_its_document_vectors_lie(tmp_path: Path, text_file: Path, whole: Embeddings) -> None:
    directory = tmp_path / "m.run"
    stop(directory, text_file, 9)
    stop(directory, text_file, 9, resume=True, doc_vectors="mapped")
    model = train(text_file, checkpoint=directory, resume=True, **{**SETTINGS, "doc_vectors": "none"})
    assert sums(model)[:2] == sums(whole)[:2]
    assert model.n_docs == 0
    assert model.manifest["config"]["doc_vectors"] == "none"


def test_two_workers_stop_and_go_on(tmp_path: Path, text_file: Path) -> None:
    directory, settings = tmp_path / "m.run", {**SETTINGS, "workers": 2}
    for n in (2, 7, 11):
        stop(directory, text_file, n, resume=directory.exists(), **settings)
    model = train(text_file, checkpoint=directory, resume=True, **settings)
    expected = train(text_file, **settings)
    for name in ("pairs", "positions"):
        found, wanted = ([epoch[name] for epoch in m.manifest["training"]["epochs"]] for m in (model, expected))
        assert found == wanted


def test_texts_of_a_program_go_on_where_they_are_given_again(tmp_path: Path, whole: Embeddings) -> None:
    directory = tmp_path / "m.run"
    with pytest.raises(KeyboardInterrupt):
        train(documents=iter(TEXTS), checkpoint=directory, reporter=stopped_after(20), **SETTINGS)
    assert os.listdir(directory) == ["checkpoint-000001"]
    with pytest.raises(CorpusError, match="the text is not that of the training to resume"):
        train(documents=TEXTS[:-1], checkpoint=directory, resume=True, **SETTINGS)
    assert sums(train(documents=TEXTS, checkpoint=directory, resume=True, **SETTINGS)) == sums(whole)


# ---- when a checkpoint is written -----------------------------------------------------------------------------------


class Clock:
    """Seconds that a test decides about."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_checkpoints_come_in_time_and_at_the_end_and_two_are_kept(
    tmp_path: Path, text_file: Path, whole: Embeddings
) -> None:
    clock, directory = Clock(), tmp_path / "m.run"
    seen: list[list[str]] = []

    def at(_: int) -> None:
        clock.now += 1.0
        seen.append(sorted(os.listdir(directory)) if directory.exists() else [])

    reporter = Notes(at)
    with Checkpoints(directory, every=10.0, clock=clock) as kept:
        kept.begin(resume=False)
        model = train(text_file, checkpoint=kept, reporter=reporter, **SETTINGS)
        assert sums(model) == sums(whole)
        assert max(os.listdir(directory)) == "text"
        assert [note.partition(":")[0] for note in reporter.notes] == ["checkpoint"] * (reporter.n_chunks // 10 + 1)
        assert reporter.notes[-1] == "checkpoint: epoch 3 of 3, 100% of the training"
        # The owner removes it, once the model is saved: a kill while saving costs nothing of the training.
        model.save(tmp_path / "m.jose")
        assert model.manifest["training"]["run"] == kept.run
        kept.remove()
    assert sorted(os.listdir(tmp_path)) == ["m.jose"]
    assert seen[8] == []
    assert seen[12] == ["checkpoint-000001", "text"]
    assert seen[-1] == ["checkpoint-000003", "checkpoint-000004", "text"]


def test_an_interrupt_after_checkpoints_in_time_loses_nothing_either(
    tmp_path: Path, text_file: Path, whole: Embeddings
) -> None:
    clock, directory = Clock(), tmp_path / "m.run"

    def at(chunk: int) -> None:
        clock.now += 1.0
        if chunk == 17:
            signal.raise_signal(signal.SIGINT)

    with Checkpoints(directory, every=5.0, clock=clock) as kept:
        kept.begin(resume=False)
        with pytest.raises(KeyboardInterrupt):
            train(text_file, checkpoint=kept, reporter=Notes(at), **SETTINGS)
    whole_run, rest = Notes(), Notes()
    train(text_file, reporter=whole_run, **SETTINGS)
    model = train(text_file, checkpoint=directory, resume=True, reporter=rest, **SETTINGS)
    assert rest.n_chunks <= whole_run.n_chunks - 17
    assert sums(model) == sums(whole)


def test_a_run_moves_on_however_soon_the_next_checkpoint_is_due(
    tmp_path: Path, text_file: Path, whole: Embeddings
) -> None:
    reporter = Notes()
    model = train(
        text_file, config=TrainConfig(**SETTINGS), reporter=reporter, checkpoint=tmp_path / "run", checkpoint_every=1e-9
    )
    assert sums(model) == sums(whole)
    n_written = sum(note.startswith("checkpoint: ") for note in reporter.notes)
    assert reporter.n_chunks // 2 < n_written <= reporter.n_chunks + 2


def test_a_short_run_writes_nothing(tmp_path: Path, text_file: Path) -> None:
    reporter = Notes(lambda _: pytest.fail("written") if (tmp_path / "m.run").exists() else None)
    train(text_file, checkpoint=tmp_path / "m.run", reporter=reporter, **SETTINGS)
    assert reporter.notes == []
    assert list(tmp_path.iterdir()) == []


def test_without_checkpoints_an_interrupt_acts_at_once(tmp_path: Path, text_file: Path) -> None:
    reporter = stopped_after(3)
    with pytest.raises(KeyboardInterrupt):
        train(text_file, checkpoint=tmp_path / "m.run", checkpoint_every=0, reporter=reporter, **SETTINGS)
    assert reporter.n_chunks == 3
    assert list(tmp_path.iterdir()) == []


def test_a_second_interrupt_does_not_wait(tmp_path: Path, text_file: Path) -> None:
    def press(n: int) -> None:
        if n in (3, 4):
            signal.raise_signal(signal.SIGINT)

    reporter = Notes(press)
    with pytest.raises(KeyboardInterrupt):
        train(text_file, checkpoint=tmp_path / "m.run", reporter=reporter, **SETTINGS)
    assert reporter.n_chunks == 4
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_cannot_be_kept_goes_on(
    tmp_path: Path, text_file: Path, whole: Embeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at every checkpoint but the first: it stays, and the training comes to its end."""
    clock, directory = Clock(), tmp_path / "m.run"
    free = [10**12]

    def full(path: Any) -> Any:
        return type("Usage", (), {"free": free[0]})

    monkeypatch.setattr(storage.shutil, "disk_usage", full)

    def at(n: int) -> None:
        clock.now += 1.0
        if n == 15:
            free[0] = 1000

    reporter = Notes(at)
    with Checkpoints(directory, every=10.0, clock=clock) as kept:
        kept.begin(resume=False)
        model = train(text_file, checkpoint=kept, reporter=reporter, **SETTINGS)
        assert sorted(os.listdir(directory)) == ["checkpoint-000001", "text"]
    assert sums(model) == sums(whole)
    assert reporter.notes[0] == "checkpoint: epoch 1 of 3, 24% of the training"
    for note in reporter.notes[1:]:
        assert note.startswith(
            f"no checkpoint could be written: {directory / 'checkpoint-000002'}: no room on the disk"
        )
        assert "1.0 kB were free" in note
    # What was written is good.
    free[0] = 10**12
    assert sums(train(text_file, checkpoint=directory, resume=True, **SETTINGS)) == sums(whole)


# ---- the text -------------------------------------------------------------------------------------------------------


@pytest.fixture
def begun(tmp_path: Path) -> tuple[Path, Path]:
    """A text of our own and the directory of a run that was stopped twice."""
    text, directory = tmp_path / "text.txt", tmp_path / "m.run"
    text.write_text("\n".join(TEXTS) + "\n")
    stop(directory, text, 5)
    stop(directory, text, 12, resume=True)
    return text, directory


def test_the_text_is_not_read_again(begun: tuple[Path, Path], whole: Embeddings) -> None:
    text, directory = begun
    reporter = Notes()
    model = train(text, checkpoint=directory, resume=True, reporter=reporter, **SETTINGS)
    assert sums(model) == sums(whole)
    assert reporter.phases == [
        "verifying",
        "verifying",
        "checking",
        "restoring",
        "compiling",
        "training",
        "document weights",
    ]
    assert f"{directory / 'text'}: the encoded text is read from here" in reporter.notes


def test_the_tables_of_a_checkpoint_are_read_in_sight(begun: tuple[Path, Path]) -> None:
    reporter = Notes()
    with Checkpoints(begun[1]) as kept:
        kept.begin(resume=True, reporter=reporter)
        assert kept.latest is not None
        size = sum(file.stat().st_size for file in kept.latest.path.glob("*.npy"))
    assert (reporter.phases, reporter.total, reporter.done) == (["verifying"], size, size)


def test_a_text_that_is_gone_is_not_needed(begun: tuple[Path, Path], whole: Embeddings) -> None:
    text, directory = begun
    text.unlink()
    reporter = Notes()
    assert sums(train(text, checkpoint=directory, resume=True, reporter=reporter, **SETTINGS)) == sums(whole)
    assert reporter.notes[0] == f"{text} is gone: the stored text is used"


@pytest.mark.parametrize("change", ["more", "other"])
def test_a_text_that_has_changed_is_refused(begun: tuple[Path, Path], change: str) -> None:
    text, directory = begun
    before = text.read_bytes()
    text.write_bytes(before + b"t1w1 t1w2\n" if change == "more" else b"t1w2 " + before[5:])
    with pytest.raises(CorpusError, match=r"m\.run: the text is not that of the training to resume \(SHA-256 "):
        train(text, checkpoint=directory, resume=True, **SETTINGS)
    text.write_bytes(before)
    train(text, checkpoint=directory, resume=True, **SETTINGS)


def test_the_same_text_may_be_packed_otherwise(begun: tuple[Path, Path], whole: Embeddings) -> None:
    import gzip

    text, directory = begun
    packed = text.with_suffix(".gz")
    packed.write_bytes(gzip.compress(text.read_bytes()))
    assert sums(train(packed, checkpoint=directory, resume=True, **SETTINGS)) == sums(whole)


def test_a_text_that_was_kept_badly_is_read_again(begun: tuple[Path, Path], whole: Embeddings) -> None:
    text, directory = begun
    with (directory / "text" / "tokens.npy").open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\xff")
    reporter = Notes()
    assert sums(train(text, checkpoint=directory, resume=True, reporter=reporter, **SETTINGS)) == sums(whole)
    assert "tokens.npy: holds a row outside of the vocabulary" in reporter.notes[0]
    assert "reading" in reporter.phases


def test_the_text_of_a_run_without_a_checkpoint_is_not_taken_for_that_of_the_next(
    tmp_path: Path, text_file: Path, whole: Embeddings
) -> None:
    """A kill between the text and the first checkpoint; then a run with other settings."""
    directory = tmp_path / "m.run"
    directory.mkdir()
    with encode_texts(TEXTS, tokenizer="whitespace", min_count=40) as corpus:
        write_encoded(corpus, directory / "text")
    stop(directory, text_file, 20)
    reporter = Notes()
    assert sums(train(text_file, checkpoint=directory, resume=True, reporter=reporter, **SETTINGS)) == sums(whole)
    assert f"{directory / 'text'}: the encoded text is read from here" in reporter.notes


def test_standard_input_goes_on_from_what_was_kept(tmp_path: Path, whole: Embeddings) -> None:
    """What came through a pipe cannot come again; the encoded text of the first checkpoint stands for it."""
    code = (
        "import sys; sys.path[:0] = ['tests', 'tests/training']\n"
        "import test_checkpoints as t; from jose_embed import train; from jose_embed.training import epochs\n"
        "epochs.chunk_tokens = lambda *_: t.CHUNK\n"
        "reporter = t.stopped_after(int(sys.argv[2])); resume = sys.argv[3] == 'again'\n"
        "try:\n"
        "    model = train('-', checkpoint=sys.argv[1], resume=resume, reporter=reporter, **t.SETTINGS)\n"
        "    print(*t.sums(model), *reporter.notes, sep='\\n')\n"
        "except KeyboardInterrupt:\n"
        "    print('stopped')\n"
    )

    def run(n: int, how: str, given: bytes | None) -> str:
        command = [sys.executable, "-c", code, str(tmp_path / "m.run"), str(n), how]
        pipe: dict[str, Any] = {"input": given} if given is not None else {"stdin": subprocess.DEVNULL}
        return subprocess.run(command, cwd=ROOT, capture_output=True, check=True, **pipe).stdout.decode()

    assert run(20, "first", "\n".join(TEXTS).encode()) == "stopped\n"
    lines = run(-1, "again", None).splitlines()
    assert lines[:3] == sums(whole)
    assert "standard input is not read: the stored text is used" in lines


def test_an_encoding_that_is_kept_elsewhere_is_not_kept_twice(tmp_path: Path, text_file: Path) -> None:
    directory, encoded = tmp_path / "m.run", tmp_path / "text.encoded"
    stop(directory, text_file, 20, keep_encoded=encoded)
    assert os.listdir(directory) == ["checkpoint-000001"]
    model = train(text_file, checkpoint=directory, resume=True, keep_encoded=encoded, **SETTINGS)
    assert sums(model) == sums(train(text_file, **SETTINGS))
    settings = {name: value for name, value in SETTINGS.items() if name not in ("tokenizer", "min_count")}
    with pytest.raises(KeyboardInterrupt):
        train(encoded, checkpoint=directory, reporter=stopped_after(20), **settings)
    assert os.listdir(directory) == ["checkpoint-000001"]
    assert sums(train(encoded, checkpoint=directory, resume=True, **settings)) == sums(model)


def test_what_was_made_of_a_folder_of_text_may_lie_in_it(tmp_path: Path, whole: Embeddings) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "text.txt").write_text("\n".join(TEXTS) + "\n")
    directory, encoded = folder / "m.jose.run", folder / "m.encoded"
    stop(directory, folder, 20)
    whole.save(folder / "m.jose")
    note = f"{directory / 'checkpoint-000001'} and 1 more: written by jose-embed, not read as text"
    with kept_encoding(folder, encoded, tokenizer="whitespace", min_count=1, reporter=(reporter := Notes())) as corpus:
        assert corpus.n_documents == len(TEXTS)
    assert reporter.notes == [f"{folder / 'm.jose'} and 2 more: written by jose-embed, not read as text"]
    assert sums(train(folder, checkpoint=directory, resume=True, **SETTINGS)) == sums(whole)
    assert sums(train(folder, keep_encoded=encoded, reporter=(reporter := Notes()), **SETTINGS)) == sums(whole)
    assert reporter.notes == [f"{encoded}: this encoding of the same text is used"]
    assert sums(train(folder, reporter=(reporter := Notes()), **SETTINGS)) == sums(whole)
    assert reporter.notes == [note.replace("m.jose.run/checkpoint-000001", "m.encoded")]
    with pytest.raises(CorpusError, match=r"m\.jose: this was written by jose-embed and is not a text; name the text$"):
        train(folder / "m.jose", **SETTINGS)


# ---- what is not gone on with ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            {"dim": 20},
            "dim is 20, but the training to resume has 16; use the same settings",
        ),
        ({"seed": 5}, "seed is 5, but the training to resume has 1"),
        ({"epochs": 4}, "epochs is 4, but the training to resume has 3"),
        ({"min_count": 2}, "min_count is 2, but the training to resume has 1"),
        ({"workers": 2}, "workers is 2, but the training to resume has 1"),
    ],
)
def test_other_settings_are_refused_before_the_text_is_read(
    begun: tuple[Path, Path], setting: dict[str, Any], message: str
) -> None:
    text, directory = begun
    reporter = Notes()
    with pytest.raises(ConfigError) as refusal:
        train(text, checkpoint=directory, resume=True, reporter=reporter, **{**SETTINGS, **setting})
    assert message in str(refusal.value)
    assert str(refusal.value).startswith(f"{directory}: {next(iter(setting))} is ")
    assert reporter.phases == ["verifying"]


def test_another_backend_is_refused(begun: tuple[Path, Path]) -> None:
    with Checkpoints(begun[1]) as kept:
        kept.begin(resume=True)
        with pytest.raises(ConfigError, match="began on the cpu and cannot continue on the gpu"):
            kept.check_backend("gpu")


def test_another_version_is_refused(begun: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    text, directory = begun
    monkeypatch.setattr(checkpoints, "__version__", "99.0")
    with pytest.raises(
        TrainingError, match=r"was written by jose-embed .*, and this is 99\.0; resume with the version"
    ):
        train(text, checkpoint=directory, resume=True, **SETTINGS)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda config: [config.pop(name) for name in ("doc_step", "doc_shrinkage")], "doc_shrinkage, doc_step"),
        (lambda config: config.update({"of\nold": 1}), r"of\nold"),
    ],
    ids=["missing", "unknown"],
)
def test_a_run_with_other_settings_than_there_are_today_is_neither_gone_on_with_nor_thrown_away(
    begun: tuple[Path, Path], change: Callable[[dict[str, Any]], object], names: str
) -> None:
    """As a version between two releases leaves it, when a setting came or went since."""
    text, directory = begun
    for path in directory.glob("checkpoint-*/checkpoint.json"):
        facts = json.loads(path.read_text())
        change(facts["config"])
        path.write_text(json.dumps(facts | {"checksum": manifest_checksum(facts)}))
    with pytest.raises(TrainingError) as refusal:
        train(text, checkpoint=directory, resume=True, **SETTINGS)
    assert str(refusal.value) == (
        f"{directory / 'checkpoint-000002'}: records other settings than this jose-embed has ({names}); "
        f"resume with the version that began the training, or remove {directory} to start from the beginning"
    )
    assert sorted(os.listdir(directory)) == ["checkpoint-000001", "checkpoint-000002", "text"]


def test_a_new_start_does_not_throw_an_old_run_away(begun: tuple[Path, Path]) -> None:
    text, directory = begun
    before = sorted(os.listdir(directory))
    with pytest.raises(TrainingError, match=r"was interrupted; continue it with resume=True, or remove the dir"):
        train(text, checkpoint=directory, **SETTINGS)
    assert sorted(os.listdir(directory)) == before


def test_there_must_be_a_directory_to_go_on_from(tmp_path: Path, text_file: Path, whole: Embeddings) -> None:
    with pytest.raises(ConfigError, match="resume needs the directory of the checkpoints; add checkpoint="):
        train(text_file, resume=True, **SETTINGS)
    reporter = Notes()
    model = train(text_file, checkpoint=tmp_path / "m.run", resume=True, reporter=reporter, **SETTINGS)
    assert sums(model) == sums(whole)
    assert reporter.notes == [
        f"{tmp_path / 'm.run'}: there is no checkpoint, so the training starts from its beginning"
    ]


@pytest.mark.parametrize("every", [-1.0, float("nan")])
def test_a_time_that_is_none_is_refused(tmp_path: Path, every: float) -> None:
    with pytest.raises(ConfigError, match=r"checkpoint_every is .*; it must be a number of seconds, 0 for no"):
        train(documents=TEXTS, checkpoint=tmp_path / "m.run", checkpoint_every=every, **SETTINGS)


def test_what_is_not_ours_is_left_alone(tmp_path: Path, text_file: Path) -> None:
    directory = tmp_path / "m.run"
    directory.write_text("a file")
    with pytest.raises(TrainingError, match=r"m\.run: cannot be read \(Not a directory\)"):
        train(text_file, checkpoint=directory, **SETTINGS)
    directory.unlink()
    directory.mkdir()
    (directory / "notes.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(TrainingError, match=r"holds 'notes\.txt', which is not part of a checkpoint"):
            train(text_file, checkpoint=directory, resume=resume, **SETTINGS)
    assert (directory / "notes.txt").read_text() == "mine"


def test_a_run_belongs_to_one_process(begun: tuple[Path, Path]) -> None:
    text, directory = begun
    with Checkpoints(directory):
        message = r"m\.run: belongs to a running training; wait until it ends"
        with pytest.raises(TrainingError, match=message):
            train(text, checkpoint=directory, resume=True, **SETTINGS)
    train(text, checkpoint=directory, resume=True, **SETTINGS)


# ---- damage ---------------------------------------------------------------------------------------------------------


def damage_bytes(checkpoint: Path) -> None:
    with (checkpoint / "document.npy").open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"\x00\x01")


def damage_size(checkpoint: Path) -> None:
    os.truncate(checkpoint / "center.npy", 1000)


def damage_facts(checkpoint: Path) -> None:
    facts = json.loads((checkpoint / "checkpoint.json").read_text())
    facts["state"]["tokens"] += 1
    (checkpoint / "checkpoint.json").write_text(json.dumps(facts))


def damage_missing(checkpoint: Path) -> None:
    (checkpoint / "checkpoint.json").unlink()


def damage_nonsense(checkpoint: Path) -> None:
    (checkpoint / "checkpoint.json").write_text('["format"]')


DAMAGES = [damage_bytes, damage_size, damage_facts, damage_missing, damage_nonsense]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    begun: tuple[Path, Path], whole: Embeddings, damage: Callable[[Path], None]
) -> None:
    text, directory = begun
    damage(directory / "checkpoint-000002")
    reporter = Notes()
    assert sums(train(text, checkpoint=directory, resume=True, reporter=reporter, **SETTINGS)) == sums(whole)
    assert reporter.notes[0].startswith(str(directory / "checkpoint-000002"))
    assert reporter.notes[0].endswith("it is not used")
    assert any(note.startswith(f"resuming from {directory / 'checkpoint-000001'}: ") for note in reporter.notes)


def test_a_damaged_checkpoint_does_not_outlive_a_whole_one(begun: tuple[Path, Path], whole: Embeddings) -> None:
    text, directory = begun
    damage_bytes(directory / "checkpoint-000002")
    stop(directory, text, 5, resume=True)
    assert sorted(os.listdir(directory)) == ["checkpoint-000001", "checkpoint-000003", "text"]
    damage_bytes(directory / "checkpoint-000003")
    assert sums(train(text, checkpoint=directory, resume=True, **SETTINGS)) == sums(whole)


def test_two_damaged_checkpoints_give_way_to_a_new_beginning(begun: tuple[Path, Path], whole: Embeddings) -> None:
    text, directory = begun
    for number in (1, 2):
        damage_bytes(directory / f"checkpoint-00000{number}")
    reporter = Notes()
    assert sums(train(text, checkpoint=directory, resume=True, reporter=reporter, **SETTINGS)) == sums(whole)
    assert reporter.notes[-1].endswith("there is no checkpoint, so the training starts from its beginning")


@pytest.mark.parametrize("place", ["mine/notes", "text/notes", "checkpoint-000007/notes", "checkpoint-000001/my/notes"])
def test_the_directory_of_a_run_with_something_foreign_in_it_is_refused(tmp_path: Path, place: str) -> None:
    file = tmp_path / "m.run" / place
    file.parent.mkdir(parents=True)
    file.write_text("x")
    with (
        pytest.raises(TrainingError, match=r"m\.run: holds '.*', which is not part of a checkpoint"),
        Checkpoints(tmp_path / "m.run"),
    ):
        pass
    assert file.read_text() == "x"


@pytest.mark.parametrize("place", ["mine", "text/notes", "checkpoint-000001/notes"])
def test_something_foreign_that_appears_during_a_run_stays(text_file: Path, tmp_path: Path, place: str) -> None:
    directory = tmp_path / "m.run"
    file = directory / place

    def appear(_: int) -> None:
        if (directory / "checkpoint-000001").is_dir() and not file.exists():
            file.write_text("x")

    train(text_file, checkpoint=directory, checkpoint_every=1e-9, reporter=Notes(appear), **SETTINGS)
    assert file.read_text() == "x"
    assert [path for path in directory.rglob("*") if path.is_file()] == [file]


def test_what_a_killed_process_left_is_tidied(begun: tuple[Path, Path], whole: Embeddings) -> None:
    """Half a checkpoint, and half of a directory that was being removed."""
    text, directory = begun
    half = directory / ".checkpoint-000003.tmp-999999999-0123abcd"
    half.mkdir()
    (half / "center.npy").write_bytes(b"half")
    aside = directory.with_name(".m.run.tmp-999999999-0123abcd")
    aside.mkdir()
    assert sums(train(text, checkpoint=directory, resume=True, **SETTINGS)) == sums(whole)
    assert sorted(os.listdir(directory.parent)) == [text.name]


# ---- what a checkpoint says -----------------------------------------------------------------------------------------


def test_a_checkpoint_says_what_it_is_of(tmp_path: Path) -> None:
    config, state = TrainConfig(**SETTINGS), RunState()
    state.add(Chunk(np.arange(2), 3, 0), ChunkResult(loss=1.5, active=3, pairs=4, positions=3))
    tables = [np.full((n, 16), n, np.float32) for n in (3, 3, 2)]
    with encode_texts(["a b", "c"], tokenizer="whitespace", min_count=1) as corpus, Checkpoints(tmp_path / "r") as kept:
        written = kept.write([*tables], state, RunFacts(corpus, config, config.epochs, "cpu", {"reading": 2.0}))
        assert (written.share, written.place) == (1 / 3, "epoch 1 of 3, 33% of the training")
        facts = json.loads((written.path / "checkpoint.json").read_text())
        assert facts["format"] == "jose-embed-checkpoint"
        assert facts["corpus"] == {
            "sha256": corpus.statistics.sha256,
            "n_documents": 2,
            "n_words": 3,
            "n_tokens": 3,
        }
        assert np.array_equal(np.load(written.path / "document.npy"), tables[2])
        other = Checkpoints(tmp_path / "s")
        kept.begin(resume=True)
        assert kept.latest == written
        empty, phases = [np.zeros_like(table) for table in tables], {"reading": 1.0}
        assert kept.restore(empty, corpus, phases, SilentReporter()) == state
        assert all(np.array_equal(a, b) for a, b in zip(empty, tables, strict=True))
        assert phases == {"reading": 3.0}
        assert other.run != kept.run
    assert checkpoints._KIND.version == 2
