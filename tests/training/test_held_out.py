"""Held-out documents, the early end of a training, and the function that is told of each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import planted
import pytest
import replay

import jose_embed
from jose_embed.compute import sphere
from jose_embed.compute.cpu.backend import loss_of
from jose_embed.compute.sampling import SamplingTables
from jose_embed.compute.tables import Tables, Text, padded_table
from jose_embed.config import TrainConfig
from jose_embed.errors import ConfigError
from jose_embed.training.held_out import held_out_documents
from jose_embed.training.schedule import n_tokens_of, visiting_order

TEXTS = planted.corpus(120).texts
SETTINGS: dict[str, Any] = {"dim": 16, "epochs": 4, "workers": 1, "seed": 3, "min_count": 1}


def train(**settings: Any) -> jose_embed.Embeddings:
    return jose_embed.train(documents=TEXTS, **(SETTINGS | settings))


def reports(model: jose_embed.Embeddings) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = model.manifest["training"]["epochs"]
    return found


@pytest.mark.parametrize("objective", ["pairwise", "joint", "smooth", "cross-entropy"])
def test_the_loss_of_a_text_is_the_replays_and_moves_nothing(objective: Any) -> None:
    random = np.random.default_rng(0)
    offsets = np.array([0, 5, 5, 30, 37])
    text = Text(random.integers(0, 20, 37).astype(np.int32), offsets)
    config = TrainConfig(dim=16, objective=objective, subsample_threshold=1.0, seed=5)
    tables = Tables(*(padded_table(n, 16) for n in (20, 20, 4)))
    for table in tables:
        sphere.random_points(random, table)
    before = [table.tobytes() for table in tables]
    samples = SamplingTables.of(np.arange(40, 20, -1), 1.0, 0.75)
    loss = loss_of(text, samples, tables, config, 2)
    assert [table.tobytes() for table in tables] == before
    losses, n_pairs = 0.0, 0
    wide = Tables(*(table.astype(np.float64) for table in tables))
    for each in replay.contrasts(text, samples, config, range(4), epoch=0, first_token=0, total_tokens=1):
        anchors = [
            table[row]
            for table, row in ((wide.context, each.context), (wide.document, each.document))
            if row is not None
        ]
        mixed = np.sum(anchors, axis=0)
        f, h = wide.center[each.positives] @ mixed, wide.center[each.negatives] @ mixed
        sharpness = config.temperature if objective == "cross-entropy" else config.sharpness
        pairs = oracle.slopes(f[:, None], h[None, :], objective, config.margin, sharpness)[0]
        losses, n_pairs = losses + pairs.sum(), n_pairs + pairs.size
    assert loss == pytest.approx(losses / n_pairs, rel=1e-5)


def test_held_out_documents_are_not_visited() -> None:
    offsets = np.cumsum([0, 4, 0, 1, 5, 6, 7, 2, 9, 9, 9, 9])
    chosen = {seed: held_out_documents(offsets, TrainConfig(held_out=0.3, seed=seed)) for seed in range(9)}
    assert len({rows.tobytes() for rows in chosen.values()}) > 3
    for rows in chosen.values():
        assert len(rows) == 3
        assert not {1, 2} & {*rows.tolist()}  # too short to be halved
        visited = visiting_order(offsets, 1, 0, left_out=rows)
        assert sorted([*visited, *rows]) == [row for row in range(11) if row != 1]
        assert n_tokens_of(offsets, rows) + n_tokens_of(offsets, visited) == offsets[-1]
    assert len(held_out_documents(offsets, TrainConfig())) == 0
    for share in (0.01, 0.9):
        with pytest.raises(ConfigError, match=r"held_out is .*documents of two words and more; choose a larger share"):
            held_out_documents(offsets[:3] if share == 0.9 else offsets, TrainConfig(held_out=share))


def test_the_held_out_loss_falls_and_is_stored_and_every_document_has_a_vector() -> None:
    model = train(held_out=0.2, learning_rate=0.002)
    losses = [report["held_out_loss"] for report in reports(model)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]
    assert np.allclose(np.linalg.norm(model.doc_vectors, axis=1), 1, atol=1e-6)
    untouched = train()
    assert "held_out_loss" not in reports(untouched)[0]
    assert reports(model)[0]["positions"] < 0.9 * reports(untouched)[0]["positions"]
    again = train(held_out=0.2, learning_rate=0.002)
    assert again.doc_vectors.tobytes() == model.doc_vectors.tobytes()
    assert [report["held_out_loss"] for report in reports(again)] == losses


def test_patience_ends_a_training_that_gets_no_better() -> None:
    """The words of a topic follow each other at random, so more epochs only learn the order in 96 documents."""
    told: list[Mapping[str, Any]] = []
    model = train(held_out=0.2, patience=2, epochs=20, on_epoch=told.append)
    losses = [report["held_out_loss"] for report in reports(model)]
    assert 3 <= len(losses) < 20
    assert losses.index(min(losses)) == len(losses) - 3
    assert [report["held_out_loss"] for report in told] == losses
    assert [report["epoch"] for report in told] == [*range(1, len(losses) + 1)]


def test_on_epoch_ends_the_training_and_the_model_is_kept() -> None:
    model = train(on_epoch=lambda report: report["epoch"] < 2)
    assert len(reports(model)) == 2
    assert model.manifest["training"]["words_per_second"] > 0
    # Nothing and anything but False goes on.
    assert len(reports(train(on_epoch=lambda report: 0))) == 4


def test_an_error_in_on_epoch_leaves_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    run, seen = tmp_path / "run", []

    def failing(report: Mapping[str, Any]) -> None:
        seen.append(report["epoch"])
        if report["epoch"] == 2:
            raise ZeroDivisionError

    options: dict[str, Any] = {"checkpoint": run, "held_out": 0.2}
    with pytest.raises(ZeroDivisionError):
        train(on_epoch=failing, **options)
    resumed = train(on_epoch=failing, resume=True, **options)
    assert seen == [1, 2, 3, 4]
    assert not run.exists()
    whole = train(held_out=0.2)
    assert resumed.doc_vectors.tobytes() == whole.doc_vectors.tobytes()
    with pytest.raises(ZeroDivisionError):
        train(on_epoch=failing, checkpoint=run, checkpoint_every=0)
    assert not run.exists()


def test_a_training_that_was_stopped_stays_stopped_when_it_is_resumed(tmp_path: Path) -> None:
    from jose_embed.training.checkpoints import Checkpoints

    for resume in (False, True):
        with Checkpoints(tmp_path / "run", every=1e-9) as checkpoints:
            checkpoints.begin(resume)
            model = train(checkpoint=checkpoints, on_epoch=lambda report: report["epoch"] < 2)
            assert len(reports(model)) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patience": 2}, "patience counts epochs without a lower held-out loss; add held_out, such as 0.05"),
        ({"held_out": 0.1, "doc_method": "trained"}, "held_out leaves documents untrained"),
        ({"held_out": 1.0}, "held_out is 1.0; it must be a number from 0.0 to 0.9"),
        ({"isotropy": 1.0, "backend": "gpu"}, "isotropy needs the CPU; choose backend='cpu', or isotropy=0"),
        (
            {"objective": "smooth", "backend": "gpu"},
            "objective='smooth' needs the CPU; choose backend='cpu', or objective=",
        ),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(**settings)


def test_several_machines_do_not_take_them() -> None:
    for settings in ({"held_out": 0.1}, {"isotropy": 1.0}, {"on_epoch": print}):
        with pytest.raises(ConfigError, match=f"{next(iter(settings))} is for trainings on one machine"):
            jose_embed.train("texts", engine="ray", **settings)
