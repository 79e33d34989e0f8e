"""The isotropy step against its formula, and a training with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import planted
import pytest

import jose_embed
from jose_embed.analysis.isotropy import isotropy
from jose_embed.compute.cpu.isotropy import spread_out
from jose_embed.compute.sphere import normalized
from jose_embed.compute.tables import padded_table


def test_a_step_is_the_formula_and_lowers_the_distance_to_isotropy() -> None:
    table = padded_table(60, 20)
    table[:, :20] = normalized(np.random.default_rng(1).standard_normal((60, 20)) + 0.5)
    rows = np.arange(3, 58, 2)
    before = table[:, :20].astype(np.float64)
    w = before[rows]

    def distance(w: np.ndarray) -> float:
        return float(np.linalg.norm(w.T @ w / len(w) - np.eye(20) / 20))

    # The gradient that the docstring gives, by differences.
    gradient = 4 / len(w) * w @ (w.T @ w / len(w) - np.eye(20) / 20)
    moved = w.copy()
    moved[2, 5] += 1e-6
    assert (distance(moved) ** 2 - distance(w) ** 2) / 1e-6 == pytest.approx(gradient[2, 5], abs=1e-5)

    spread_out(table, rows, 20, 0.01)
    wanted = oracle.retraction(w, -0.01 * 20 * oracle.tangent_projection(w, w @ (w.T @ w) / len(w)))
    assert np.allclose(table[rows, :20], wanted, atol=1e-6)
    assert not table[:, 20:].any()
    others = np.setdiff1d(np.arange(60), rows)
    assert np.array_equal(table[others, :20], before[others])
    assert distance(wanted) < distance(w)
    for step in (1.0, 1e9):  # bounded
        spread_out(table, rows, 20, step)
        assert distance(table[rows, :20].astype(np.float64)) < distance(w)
    assert np.abs(np.linalg.norm(table.astype(np.float64), axis=1) - 1).max() < 1e-6


def test_a_training_with_isotropy_uses_more_directions_and_repeats() -> None:
    settings: dict[str, Any] = {"dim": 16, "epochs": 3, "workers": 1, "seed": 2, "min_count": 1}
    texts = planted.corpus(160)
    models = [jose_embed.train(documents=texts.texts, isotropy=weight, **settings) for weight in (0.0, 20.0, 20.0)]
    plain, spread = (isotropy(model.center_vectors).effective_rank.mean for model in models[:2])
    assert spread > 1.1 * plain
    assert models[1].doc_vectors.tobytes() == models[2].doc_vectors.tobytes()
    assert planted.nearest_agree(models[1].doc_vectors, texts.topics) > 0.95
