"""Isotropy: figures of directions with a known answer, and the command that prints them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jose_embed.analysis.isotropy import isotropy
from jose_embed.analysis.measures import unit_rows
from jose_embed.cli.program import main
from jose_embed.errors import ConfigError
from jose_embed.model.embeddings import Embeddings


def test_uniform_directions_are_isotropic() -> None:
    score = isotropy(np.random.default_rng(1).standard_normal((8000, 10)))
    assert score.n_rows == 4000
    assert abs(score.mean_cosine.mean) < 2e-3
    assert score.effective_rank.mean == pytest.approx(10, abs=0.05)
    assert score.partition_ratio.mean > 0.95
    assert 0 < score.effective_rank.deviation < 0.02


def test_one_direction_is_not() -> None:
    score = isotropy(np.tile([3.0, 4.0], (20, 1)))
    assert score.mean_cosine.mean == pytest.approx(1)
    assert score.effective_rank.mean == pytest.approx(1)
    assert score.partition_ratio.mean == pytest.approx(np.exp(-2))  # exp(-1) against exp(1)


def test_a_plane_and_opposite_directions() -> None:
    plane = np.zeros((4000, 6))
    plane[:, 2:4] = np.random.default_rng(0).standard_normal((4000, 2))
    assert isotropy(plane).effective_rank.mean == pytest.approx(2, abs=0.01)
    line = np.random.default_rng(0).choice([-1.0, 1.0], 4000)[:, None] * np.eye(1, 5)
    score = isotropy(line)
    assert abs(score.mean_cosine.mean) < 2e-3
    assert score.effective_rank.mean == pytest.approx(1)


def test_rows_of_zeros_do_not_count() -> None:
    vectors = np.vstack([np.zeros((50, 3)), np.eye(3), -np.eye(3)])
    assert isotropy(vectors).n_rows == 3
    with pytest.raises(ConfigError, match="isotropy needs at least 4 vectors, and there are 3"):
        isotropy(vectors[:53])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vectors = unit_rows(np.random.default_rng(2).standard_normal((40, 5)).astype(np.float32))
    words = [f"w{row}" for row in range(40)]
    tables = {"center_vectors": vectors, "context_vectors": vectors}
    Embeddings.from_arrays(words=words, counts=[1] * 40, **tables, tokenizer="words").save(tmp_path / "m.jose")
    assert main(["eval", "isotropy", str(tmp_path / "m.jose"), "--json", "--save"]) == 0
    (table,) = json.loads(capsys.readouterr().out)
    assert [row[""] for row in table["rows"]][:2] == ["words", "as many random directions"]
    assert len(table["rows"]) == 4  # no documents
    assert 1 < table["rows"][0]["effective rank"]["mean"] < 5
    assert main(["info", str(tmp_path / "m.jose")]) == 0
    assert "Isotropy" in capsys.readouterr().out
