"""Tables in mapped temporary files: what they hold stays, and what is given back is out of memory."""

from __future__ import annotations

import errno
import mmap
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jose_embed.errors import TrainingError
from jose_embed.storage.columns import first_fault
from jose_embed.storage.memory import ResidentRows, mapped_table, read_in_order, release

STATUS = Path("/proc/self/status")


def file_pages() -> int:
    """Bytes of mapped files in the memory of this process."""
    return 1024 * int(re.search(r"RssFile:\s*(\d+)", STATUS.read_text())[1])


def test_a_table_is_zero_and_leaves_no_file(tmp_path: Path) -> None:
    table = mapped_table(100, 16, tmp_path, "a table")
    assert (table.shape, table.dtype, table.flags.writeable, table.any()) == ((100, 16), np.float32, True, False)
    assert list(tmp_path.iterdir()) == []
    assert mapped_table(0, 16, tmp_path, "nothing").shape == (0, 16)


def test_what_is_given_back_is_still_there() -> None:
    table = mapped_table(3000, 48, None, "a table")
    numbers = np.arange(table.size, dtype=np.float32).reshape(table.shape)
    table[:] = numbers
    for rows in (table, table[5:7], table[:, :40], table[2999:], table[:0]):
        release(rows)
        assert np.array_equal(table, numbers)
    some = np.array([2999, 0, 17, 17, 18, 1500])
    with ResidentRows(table).rows(some):
        table[some] += 1
    numbers[some] += 1
    assert np.array_equal(table, numbers)
    read_in_order(table)
    assert np.array_equal(table, numbers)
    with ResidentRows(table).rows(np.empty(0, np.int64)):
        pass


@pytest.mark.skipif(not STATUS.exists(), reason="this system does not tell")
def test_a_table_that_is_checked_does_not_stay_in_memory(tmp_path: Path) -> None:
    rows = np.zeros((200_000, 64), np.float32)  # 51 MB
    rows[:, 0] = 1
    np.save(tmp_path / "rows.npy", rows)
    table = np.load(tmp_path / "rows.npy", mmap_mode="r")
    before = file_pages()
    assert first_fault(table) is None
    assert file_pages() - before < 10e6
    assert table.sum() == 200_000
    assert file_pages() - before > 40e6


@pytest.mark.skipif(not STATUS.exists(), reason="this system does not tell")
def test_rows_anywhere_cost_their_pages_and_no_more() -> None:
    table = mapped_table(400_000, 64, None, "a table")  # 102 MB
    for start in range(0, len(table), 8192):
        table[start : start + 8192] = start
        release(table[start : start + 8192])
    before = file_pages()
    rows = np.random.default_rng(0).choice(len(table), 2000, replace=False)
    with ResidentRows(table).rows(rows):
        table[rows] += 1
        held = file_pages() - before
    assert held < 16 << 20
    assert file_pages() - before < 2 << 20


@pytest.mark.skipif(not STATUS.exists(), reason="this system does not tell")
def test_a_page_stays_as_long_as_somebody_works_with_it() -> None:
    """Two workers with rows of the same pages: the one that ends takes nothing from the other."""
    table = mapped_table(100_000, 64, None, "a table")
    for start in range(0, len(table), 8192):
        table[start : start + 8192] = start
        release(table[start : start + 8192])
    held, before = ResidentRows(table), file_pages()
    rows = np.arange(0, len(table), 200)
    with held.rows(rows):
        both = file_pages()
        with held.rows(rows + 1):
            table[rows + 1] += 1
        assert file_pages() >= both
        table[rows] += 1
        assert file_pages() < before + (3 << 20)
    assert file_pages() < before + (1 << 20)


def test_an_array_in_memory_or_a_private_mapping_is_left_alone(tmp_path: Path) -> None:
    """A private mapping loses what was written to it with its pages."""
    path = tmp_path / "numbers"
    np.zeros(4096, np.float32).tofile(path)
    with path.open("rb") as file:
        private = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.float32)
    plain = np.zeros(4096, np.float32)
    for array in (private, plain, np.memmap(path, np.float32, "c")):
        array[:] = 7
        release(array)
        with ResidentRows(array.reshape(-1, 16)).rows(np.arange(4)):
            pass
        assert (array == 7).all()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_is_an_error_with_the_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int) -> None:
    def full(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", full)
    message = r"no room for the document vectors: 6\.4 kB are needed, .* are free; make room or name another directory$"
    with pytest.raises(TrainingError, match=message):
        mapped_table(100, 16, tmp_path, "the document vectors")


def test_a_place_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no temporary file for a table can be made there \(No such file"):
        mapped_table(100, 16, tmp_path / "no", "a table")
