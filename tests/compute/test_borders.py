"""At the border of 2^31: more running words, rows and numbers in a table than 32 bits can count.

Nothing of that size is made: files have holes where nobody looks, and tables are mapped from them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import replay
from test_cpu_kernel import tables_of

from jose_embed.compute import sphere
from jose_embed.compute.cpu.backend import CpuBackend
from jose_embed.compute.cpu.directions import CpuDirections, count_documents
from jose_embed.compute.documents import gathered, stretches
from jose_embed.compute.sampling import SamplingTables
from jose_embed.compute.tables import DocumentInputs, Tables, Text, padded_table
from jose_embed.config import TrainConfig
from jose_embed.model.nearest import nearest_rows
from jose_embed.progress import SilentReporter
from jose_embed.storage import memory as pages
from jose_embed.storage.columns import array_chunks, row_blocks
from jose_embed.storage.memory import ResidentRows, mapped_table
from jose_embed.text.encode import TokenSpill
from jose_embed.training.document_weights import concentration_weights

BORDER = 1 << 31


def holed(path: Path, dtype: Any, *shape: int) -> np.memmap[Any, Any]:
    """A writable mapped array of zeros, of which the disk holds nothing yet."""
    with path.open("wb") as file:
        file.truncate(int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize)
    return np.memmap(path, dtype, "r+", shape=shape)


@pytest.fixture
def without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mapped tables take no room on the disk until they are written to."""
    monkeypatch.setattr(os, "posix_fallocate", lambda descriptor, start, n: os.truncate(descriptor, start + n))


@pytest.fixture
def long_text(tmp_path: Path) -> Text:
    """Documents of three words each around running word 2^31; what is before them is one document that nobody reads."""
    tokens = holed(tmp_path / "tokens", np.int32, BORDER + 3000)
    offsets = np.concatenate(([0], np.arange(BORDER - 3000, BORDER + 3001, 3, dtype=np.int64)))
    tokens[BORDER - 3000 :] = np.arange(6000) % 7
    return Text(np.asarray(tokens), offsets)


def test_documents_beyond_the_border_are_gathered(long_text: Text) -> None:
    documents = np.array([2000, 1, 1001, 1000, 999])
    words, ends = gathered(*long_text, documents)
    expected = [(3 * (document - 1) + i) % 7 for document in documents for i in range(3)]
    assert words.tolist() == expected
    assert ends.tolist() == [0, 3, 6, 9, 12, 15]


def test_passes_over_the_text_beyond_the_border(long_text: Text) -> None:
    """The same figures as for a short text with the same documents."""
    tokens, offsets = long_text.tokens, long_text.offsets[1:]
    short = Text(np.asarray(tokens[BORDER - 3000 :]), offsets - offsets[0])
    assert sum(len(words) for _, words, _ in stretches(tokens, offsets)) == 6000
    counts = count_documents(tokens, offsets, 7)
    assert np.array_equal(counts, count_documents(*short, 7))
    center, vectors = padded_table(7, 16), padded_table(2000, 16)
    for number, table in enumerate((center, vectors)):
        sphere.random_points(np.random.default_rng(number), table)
    weights = concentration_weights(tokens, offsets, counts, vectors)
    assert np.array_equal(weights, concentration_weights(*short, counts, vectors))
    found, wanted = np.zeros_like(vectors), np.zeros_like(vectors)
    inputs = DocumentInputs(weights, np.ones(4), center, center, 0.0, np.eye(16))
    CpuDirections(inputs).write(tokens, offsets, found)
    CpuDirections(inputs).write(*short, wanted)
    assert np.array_equal(found, wanted)


CONFIG = TrainConfig(dim=16, min_count=1, workers=1, subsample_threshold=1.0, learning_rate=0.1, window=3)


@pytest.mark.usefixtures("without_room")
def test_documents_whose_rows_lie_beyond_the_border(tmp_path: Path) -> None:
    """The kernel moves the rows that the replay moves, and no others; their pages are held and given back."""
    n_documents = BORDER // 16 + 1000
    rows = [5, BORDER // 16 - 1, BORDER // 16, BORDER // 16 + 999]
    text = Text(np.array([0, 1, 2, 3, 4, 1] * 4, np.int32), holed(tmp_path / "offsets", np.int64, n_documents + 1))
    for place, row in enumerate(rows):
        text.offsets[row : row + 2] = 6 * place, 6 * place + 6
    table = mapped_table(n_documents, 16, tmp_path, "the document vectors")
    start = tables_of(16, 5, 4)
    table[rows] = start.document
    tables = Tables(start.center, start.context, table)
    samples = SamplingTables.of(np.array([9, 8, 7, 6, 5]), 1.0, 0.75)
    expected = Tables(
        start.center.astype(np.float64),
        start.context.astype(np.float64),
        dict(zip(rows, start.document.astype(np.float64), strict=True)),  # type: ignore[arg-type]
    )
    order = np.array([rows[i] for i in (2, 0, 3, 1)])
    CpuBackend(text, samples, tables, CONFIG, 24).train_chunk(order, 0, 0)
    drawn = replay.contrasts(text, samples, CONFIG, order.tolist(), epoch=0, first_token=0, total_tokens=24)
    replay.train(expected, drawn, CONFIG)
    for row, was in zip(rows, start.document, strict=True):
        assert np.abs(table[row] - expected.document[row]).max() < 1e-4
        assert np.abs(table[row] - was).max() > 1e-3
        assert not table[row - 1].any() or row - 1 in rows
    assert np.abs(tables.center - expected.center).max() < 1e-4
    assert np.abs(table[rows[-1]] - expected.document[rows[-1]]).max() < 1e-4


def test_words_whose_rows_lie_beyond_the_border(tmp_path: Path) -> None:
    """The last words of two tables of 8.6 GB move as the words of small ones do, bit for bit."""
    dim, few = 128, 20
    n_words = BORDER // dim + 100
    shift = n_words - few
    config = TrainConfig(**{**CONFIG.to_dict(), "dim": dim})
    small = tables_of(dim, few, 2)
    large = Tables(
        holed(tmp_path / "center", np.float32, n_words, dim),
        holed(tmp_path / "context", np.float32, n_words, dim),
        small.document.copy(),
    )
    large.center[shift:], large.context[shift:] = small.center, small.context
    words = np.array([0, 3, 7, 3, 1, 19, 2, 0, 11, 12, 13, 5], np.int32)
    offsets = np.array([0, 7, 12])

    def samples(n: int) -> SamplingTables:
        # Whatever column is drawn, it gives its word to one of the last.
        return SamplingTables(np.full(n, 2**32 - 1, np.uint32), np.zeros(n, np.uint32), np.full(n, n - 4, np.uint32))

    order = np.array([1, 0])
    found = CpuBackend(Text(words + np.int32(shift), offsets), samples(n_words), large, config, 12)
    wanted = CpuBackend(Text(words, offsets), samples(few), small, config, 12)
    before = small.center.copy()
    assert found.train_chunk(order, 0, 0) == wanted.train_chunk(order, 0, 0)
    assert not np.array_equal(small.center, before)
    assert np.array_equal(large.center[shift:], small.center)
    assert np.array_equal(large.context[shift:], small.context)
    assert np.array_equal(large.document, small.document)
    assert not large.center[shift - 50 : shift].any()


def test_a_table_beyond_the_border_is_written_in_pieces(tmp_path: Path) -> None:
    table = holed(tmp_path / "table", np.float32, BORDER // 16 + 1000, 16)
    last, rows = list(row_blocks(table))[-1]
    assert last + len(rows) == len(table)
    preamble = next(array_chunks(table, "table.npy"))
    assert f"'shape': ({len(table)}, 16)".encode() in bytes(preamble)


@pytest.mark.slow
def test_the_nearest_rows_of_a_table_beyond_the_border(tmp_path: Path) -> None:
    table = holed(tmp_path / "table", np.float32, BORDER // 16 + 1000, 16)
    rows = [len(table) - 1, BORDER // 16, 3]
    for place, row in enumerate(rows):
        table[row, :2] = 1.0 - 0.1 * place, 0.1 * place
    found, _ = nearest_rows(np.asarray(table), np.eye(16, dtype=np.float32)[0], 3)
    assert found.tolist() == rows


@pytest.mark.slow
def test_a_text_is_spilled_beyond_the_border(tmp_path: Path) -> None:
    """2^31 words that are left out, and six that are kept."""
    with TokenSpill(tmp_path) as spool:
        spool._tokens.seek(4 * (BORDER - 2))
        spool.n_tokens = BORDER - 2
        spool.append(np.array([1, 2, 1, 2, 3, 1], np.int32), np.array([3, 5, 5]))
        assert (spool.n_tokens, spool.n_documents, spool.n_empty) == (BORDER + 4, 3, 1)
        tokens, offsets = spool.renumbered(np.array([-1, 1, 0, 2], np.int32), SilentReporter())
    assert tokens.tolist() == [1, 0, 1, 0, 2, 1]
    assert offsets.tolist() == [0, 3, 5, 5]


@pytest.mark.usefixtures("without_room")
def test_a_mapped_table_may_be_larger_than_everything(tmp_path: Path) -> None:
    table = mapped_table(1 << 34, 16, tmp_path, "a table")  # a terabyte
    last = np.array([len(table) - 1])
    with ResidentRows(table).rows(last):
        table[last] = 1.0
    pages.release(table[-3:])
    assert table[-2:].sum() == 16
