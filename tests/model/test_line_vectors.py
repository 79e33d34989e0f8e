"""Vectors of lines by the block: the very vectors that inference gives one text at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jose_embed.model import line_vectors as room
from jose_embed.model.embeddings import Embeddings
from jose_embed.model.line_vectors import line_vectors
from jose_embed.text import tokenizers
from jose_embed.text.reader import Block, BlockReader
from jose_embed.text.sources import find_sources

N_WORDS = 300


def small_model(tokenizer: str = "words") -> Embeddings:
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((N_WORDS, 12))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Embeddings.from_arrays(
        words=[f"w{row}" for row in range(N_WORDS - 1)] + ["ärger"],
        counts=np.arange(N_WORDS, 0, -1) * 3,
        center_vectors=vectors.astype(np.float32),
        context_vectors=vectors.astype(np.float32),
        tokenizer=tokenizer,
    )


def random_lines(n_lines: int) -> list[str]:
    """Lines of 0 to 60 words, a third of them unknown, some lines without a known one."""
    rng = np.random.default_rng(3)
    numbers = [rng.zipf(1.3, rng.integers(0, 60)) % (N_WORDS + N_WORDS // 2) for _ in range(n_lines)]
    return [" ".join(f"W{number}, " for number in line) + "Ärger" * (len(line) % 2) for line in numbers]


def blocks_of(lines: list[str], size: int) -> list[Block]:
    cut = [lines[start : start + size] for start in range(0, len(lines), size)]
    return [Block("".join(f"{line}\n" for line in some).encode(), 10) for some in cut]


def lower_and_split(text: str) -> list[str]:
    return text.lower().replace(",", " ").split()


class Spaces:
    """A tokenizer that the compiled way cannot run."""

    name = "spaces-of-a-test"

    def settings(self) -> dict[str, object]:
        return {}

    def __call__(self, text: str) -> list[str]:
        return lower_and_split(text)


@pytest.fixture(autouse=True)
def _spaces_are_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tokenizers._FACTORIES, Spaces.name, Spaces)


@pytest.mark.parametrize("tokenizer", ["words", Spaces.name])
@pytest.mark.parametrize("workers", [1, 2])
def test_both_ways_give_the_bytes_of_inference(tokenizer: str, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_PLAIN_BYTES", 50_000)
    model = small_model(tokenizer)
    lines = random_lines(1000)
    found = list(line_vectors(model.encoder, blocks_of(lines, 70), workers=workers))
    assert [block.consumed for block in found] == [10] * 15
    expected = model.encoder.infer_detailed(lines)
    vectors = np.concatenate([block.vectors for block in found])
    nowhere = model.encoder.mean_direction
    wanted = np.array([nowhere if line.vector is None else line.vector for line in expected])
    assert vectors.dtype == np.float32
    assert vectors.tobytes() == wanted.tobytes()
    assert np.concatenate([block.n_tokens for block in found]).tolist() == [line.n_tokens for line in expected]
    n_known = np.concatenate([block.n_known for block in found])
    assert n_known.tolist() == [line.n_known for line in expected]
    assert (n_known == 0).any()
    assert np.abs(np.linalg.norm(vectors.astype(np.float64), axis=1) - 1).max() < 1e-6


def test_no_text_gives_no_vectors() -> None:
    assert list(line_vectors(small_model().encoder, [])) == []


def test_a_small_text_starts_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(room, "_CompiledLines", None)
    (tmp_path / "a.txt").write_text("w1 w2\nw3")
    with BlockReader(find_sources(tmp_path / "a.txt"), whole_lines=True) as reader:
        found = list(line_vectors(small_model().encoder, reader))
    assert [n for block in found for n in block.n_known.tolist()] == [2, 1]
    assert sum(block.consumed for block in found) == 8


def test_the_mean_direction_is_that_of_all_running_words() -> None:
    model = small_model()
    total = (model.counts[:, None] * model.center_vectors.astype(np.float64)).sum(axis=0)
    np.testing.assert_allclose(model.encoder.mean_direction, total / np.linalg.norm(total), atol=1e-7)


def test_opposite_words_in_equal_numbers_have_a_mean_direction_too() -> None:
    vectors = np.float32([[1, 0], [-1, 0]])
    model = Embeddings.from_arrays(words=["a", "b"], counts=[5, 5], center_vectors=vectors, context_vectors=vectors)
    np.testing.assert_array_equal(model.encoder.mean_direction, vectors[0])
