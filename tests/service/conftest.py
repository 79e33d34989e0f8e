"""Models and services that tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Served, Starter, make_model, start, starting

from jose_embed.model.embeddings import Embeddings


@pytest.fixture(scope="session")
def model_a(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Embeddings]:
    """A model directory that no test changes, and the model."""
    path = tmp_path_factory.mktemp("models") / "a.jose"
    return path, make_model(path)


@pytest.fixture
def starter() -> Iterator[Starter]:
    """Starts services that are killed when the test ends, whatever happened."""
    with starting() as started:
        yield started


@pytest.fixture(scope="module")
def served(model_a: tuple[Path, Embeddings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service without keys, shared by the tests of a file."""
    documents = tmp_path_factory.mktemp("documents") / "documents.sqlite3"
    running = start(model_a[0], "--documents", str(documents))
    yield running
    assert running.stop() == 0, "".join(running.lines)
