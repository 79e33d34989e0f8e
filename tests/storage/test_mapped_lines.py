"""A mapped column is the list that it was written from."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jose_embed.errors import ModelError
from jose_embed.storage import columns
from jose_embed.storage.columns import MappedLines, RowFinder, first_repetition

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=5)


@given(rows=st.lists(texts, max_size=300), block=st.integers(1, 400))
def test_a_column_is_its_list(rows: list[str], block: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(columns, "_BLOCK", block)
        patched.setattr(columns, "_READ_BYTES", block)
        column = MappedLines("".join(f"{row}\n" for row in rows).encode())
        assert len(column) == len(rows)
        assert list(column) == rows
        assert [column[i] for i in range(len(rows))] == rows
        assert [column[i] for i in range(-len(rows), 0)] == rows
        for part in (slice(None), slice(3, 70), slice(-5, None), slice(None, None, -7)):
            assert column[part] == rows[part]
        for outside in (len(rows), -len(rows) - 1):
            with pytest.raises(IndexError, match=f"row {outside} of a column of {len(rows)}"):
                column[outside]


@given(n=st.integers(0, 400), longest=st.integers(0, 9), block=st.integers(1, 700))
def test_a_long_column_is_its_list(n: int, longest: int, block: int) -> None:
    rows = [str(i) * (i % (longest + 1)) for i in range(n)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(columns, "_BLOCK", block)
        patched.setattr(columns, "_READ_BYTES", block)
        column = MappedLines("".join(f"{row}\n" for row in rows).encode())
        assert [column[i] for i in range(len(column))] == rows == list(column)


def test_a_column_reads_a_mapped_file(tmp_path: Path) -> None:
    rows = [f"document {i}" * (i % 7) for i in range(10_000)]
    (tmp_path / "ids.txt").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    with (tmp_path / "ids.txt").open("rb") as file:
        column = MappedLines(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    assert list(column) == rows
    assert column[9_999] == rows[9_999]
    assert repr(column) == "<MappedLines of 10,000 lines>"


def test_damage_is_said() -> None:
    with pytest.raises(ModelError, match=r"ids\.txt: its last line is cut off; take the model from a good copy"):
        MappedLines(b"a\nb", "ids.txt")
    column = MappedLines(b"a\n\xff\n", "ids.txt")
    assert column[0] == "a"
    with pytest.raises(ModelError, match=r"ids\.txt: is not UTF-8 at byte 2"):
        column[1]


@given(rows=st.lists(texts, max_size=60), other=texts)
def test_a_finder_finds_the_first(rows: list[str], other: str) -> None:
    finder = RowFinder(MappedLines("".join(f"{row}\n" for row in rows).encode()))
    for row in rows:
        assert finder.find(row) == rows.index(row)
    assert finder.find(other) == (rows.index(other) if other in rows else None)


@given(rows=st.lists(texts, max_size=60), piece=st.integers(1, 60))
def test_a_repetition_is_found(rows: list[str], piece: int) -> None:
    repeated = next((row for i, row in enumerate(rows) if row in rows[:i]), None)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(columns, "_HASHED", piece)
        assert first_repetition(rows) == repeated


def test_no_step_of_reading_is_long() -> None:
    """Neither a column nor a vocabulary is ever taken as a whole."""
    taken: list[int] = []

    class Sliced(bytes):
        def __getitem__(self, rows: Any) -> Any:
            part = super().__getitem__(rows)
            if isinstance(part, bytes):
                taken.append(len(part))
            return part

    class SlicedList(list[str]):
        def __getitem__(self, rows: Any) -> Any:
            part = super().__getitem__(rows)
            if isinstance(part, list):
                taken.append(len(part))
            return part

        def __iter__(self) -> Any:
            raise AssertionError("taken as a whole")

    rows = [str(i) for i in range(50_000)]
    assert list(MappedLines(Sliced("".join(f"{row}\n" for row in rows).encode()))) == rows
    assert columns._READ_BYTES - 6 <= max(taken) <= columns._READ_BYTES + 6
    taken.clear()
    assert first_repetition(SlicedList(rows)) is None
    assert max(taken) == columns._HASHED


def test_equal_hashes_are_no_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "hash", lambda _: 7, raising=False)
    assert first_repetition(["a", "b", "c"]) is None
    assert first_repetition(["a", "b", "c", "b"]) == "b"
    assert RowFinder(["a", "b", "c", "b"]).find("b") == 1
