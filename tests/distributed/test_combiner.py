"""The combiner of the rows of several machines, held to its formula in float64, and what travels in an exchange."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from jose_embed.compute.sphere import normalized
from jose_embed.compute.tables import Tables
from jose_embed.distributed.combiner import Moves, combined, moved
from jose_embed.distributed.exchange import Owner, SharedRows, plan

RANDOM = np.random.default_rng(7)


def points(n: int, dim: int = 24) -> npt.NDArray[np.float32]:
    return normalized(RANDOM.normal(size=(n, dim)).astype(np.float32))


def oracle(rows: npt.NDArray[np.float32], deltas: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float64]:
    """x + min(1, Q / |S|^2) S, with norm 1, in float64."""
    steps = np.stack(deltas).astype(np.float64)
    total, squares = steps.sum(0), (steps**2).sum((0, 2))
    length = (total**2).sum(1)
    share = np.minimum(1.0, squares / np.where(length > 0, length, 1))
    out = rows + share[:, None] * total
    out[length > 0] /= np.linalg.norm(out[length > 0], axis=1, keepdims=True)
    return out


@pytest.mark.parametrize("n_machines", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [0.01, 0.3, 1.5])
def test_the_combiner_is_its_formula(n_machines: int, size: float) -> None:
    rows = points(5000)
    deltas = [(points(5000) - rows) * np.float32(size) for _ in range(n_machines)]
    for each in deltas:
        each[RANDOM.random(5000) < 0.3] = 0
    found = combined(rows, [Moves(each) for each in deltas])
    assert np.abs(found - oracle(rows, deltas)).max() < 5e-7
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 3e-7


def test_one_machine_alone_is_where_it_went() -> None:
    rows, there = points(100), points(100)
    assert np.abs(combined(rows, [Moves(there - rows)]) - there).max() < 3e-7


def test_equal_moves_are_averaged_and_orthogonal_ones_added() -> None:
    rows = np.zeros((2, 8), np.float32)
    rows[:, 0] = 1
    north, up = np.zeros((2, 2, 8), np.float32)
    north[:, 1], up[:, 2] = 0.1, 0.1
    alone = combined(rows, [Moves(north)])
    assert np.allclose(combined(rows, [Moves(north)] * 4), alone, atol=1e-7)
    both = combined(rows, [Moves(north), Moves(up)])
    assert np.allclose(both, moved(rows, north + up), atol=1e-7)
    assert both[0, 1] > 1.9 * (north + up)[0, 1] / 2  # added: the mean would halve the move


def test_rows_that_nobody_moved_keep_their_bytes() -> None:
    rows = points(300) * np.float32(1.0000001)
    still = np.zeros_like(rows)
    there = still.copy()
    there[7] = 0.01
    found = combined(rows, [Moves(still), Moves(there)])
    others = np.arange(300) != 7
    assert found[others].tobytes() == rows[others].tobytes()
    assert not np.array_equal(found[7], rows[7])


def test_opposite_moves_and_a_move_to_the_centre_leave_a_row() -> None:
    rows = points(4)
    there = points(4) * np.float32(0.1)
    assert np.array_equal(combined(rows, [Moves(there), Moves(-there)]), rows)
    assert np.array_equal(combined(rows, [Moves(-rows)]), rows)


def test_the_order_of_machines_does_not_matter_beyond_rounding_and_the_same_order_gives_the_same_bytes() -> None:
    rows = points(500)
    moves = [Moves((points(500) - rows) * np.float32(0.2)) for _ in range(5)]
    assert np.abs(combined(rows, moves) - combined(rows, moves[::-1])).max() < 5e-7
    assert combined(rows, moves).tobytes() == combined(rows, moves).tobytes()


def test_int8_is_near_and_a_quarter_of_the_bytes() -> None:
    deltas = (points(200, 100) * np.float32(0.01)).copy()
    deltas[3] = 0
    packed = Moves.of(deltas, int8=True)
    assert np.abs(packed.deltas() - deltas).max() <= np.abs(deltas).max() / 127 / 2 * 1.001
    assert not packed.deltas()[3].any()
    assert packed.n_bytes / Moves.of(deltas).n_bytes == pytest.approx(0.26)
    assert Moves.of(deltas[:0], int8=True).deltas().shape == (0, 100)


# ---- exchanges ------------------------------------------------------------------------------------------------------


def machines(n: int, n_words: int, int8: bool) -> tuple[list[Tables], list[SharedRows], list[Owner]]:
    start = [points(n_words) for _ in range(2)]
    tables = [Tables(start[0].copy(), start[1].copy(), points(1)) for _ in range(n)]
    shared = [SharedRows(table, n, int8) for table in tables]
    owners = [Owner(int8) for _ in range(n)]
    for number, owner in enumerate(owners):
        owner.fill(0, shared[0].of_owner(number))
    return tables, shared, owners


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("limit", [101, 40, 2])
def test_after_an_exchange_all_machines_have_the_rows_that_the_combiner_gives(int8: bool, limit: int) -> None:
    tables, shared, owners = machines(3, 101, int8)
    before = tables[0].center.copy()
    for table in tables:
        table.center[:] = normalized(table.center + np.float32(0.1) * points(101))
    wanted = oracle(before, [table.center - before for table in tables])
    moves = [each.moves(limit) for each in shared]
    answers = [owner.combine(1, *(each[number] for each in moves))[0] for number, owner in enumerate(owners)]
    untouched = [table.center[limit:].copy() for table in tables]
    for each in shared:
        each.apply(1, limit, answers)
        each.apply(1, limit, answers)  # the second time, nothing happens
    for table, rest in zip(tables, untouched, strict=True):
        assert table.center[:limit].tobytes() == tables[0].center[:limit].tobytes()
        assert np.abs(table.center[:limit] - wanted[:limit]).max() < (4e-3 if int8 else 5e-7)
        assert np.array_equal(table.center[limit:], rest)
    for number, owner in enumerate(owners):  # what they keep is what all have
        assert np.array_equal(owner.rows(), shared[1].of_owner(number))


@pytest.mark.parametrize("int8", [False, True])
def test_an_owner_gives_the_same_answer_twice_and_one_made_anew_gives_the_rows(int8: bool) -> None:
    tables, shared, owners = machines(2, 30, int8)
    tables[0].context[:] = points(30)
    moves = [each.moves(30) for each in shared]
    first = owners[1].combine(1, *(each[1] for each in moves))[0]
    again = owners[1].combine(1, *(each[1] for each in moves))[0]
    assert first.values.tobytes() == again.values.tobytes()
    answers = [owners[0].combine(1, *(each[0] for each in moves))[0], first]
    shared[0].apply(1, 30, answers)
    anew = Owner(int8)
    anew.fill(1, shared[0].of_owner(1))
    shared[1].apply(1, 30, [answers[0], anew.combine(1)[0]])
    assert np.array_equal(tables[0].context, tables[1].context)


def test_the_plan_ends_each_epoch_with_all_words_and_spares_rare_ones_if_they_are_many() -> None:
    small, large = plan(3, 8, 20_000), plan(3, 8, 1_000_000)
    assert len(small) == 24
    assert {point.limit for point in small} == {20_000}
    for points_of in (small, large):
        assert all(point.limit >= 20_000 for point in points_of if point.part == point.parts)
        assert [point.number for point in points_of] == list(range(1, len(points_of) + 1))
        assert points_of[-1].words_before(1001) == 3 * 1001
    of_all = [sum(point.limit == 1_000_000 for point in large if point.epoch == epoch) for epoch in range(3)]
    assert of_all == [8, 2, 2]
    assert {point.limit for point in large} == {200_000, 1_000_000}
    assert sum(point.limit for point in large) / (3 * 32 * 1_000_000) < 4 * 0.08  # of the bytes of float32, as int8
    assert {point.limit for point in plan(2, 3, 40_000) if point.part == point.parts} == {40_000}
    assert [point.limit for point in plan(1, 1, 1_000_000)] == [1_000_000]
