"""Each vector primitive against NumPy, over row lengths that are one register, many, and odd ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jose_embed.compute.cpu.simd import (
    active_bits,
    equal_bits,
    exponential,
    inverse_root,
    lane_sum,
    load_lanes,
    popcount,
    row_primitives,
    store_lanes,
    where_positive,
)
from jose_embed.compute.jit import jit
from jose_embed.compute.tables import LANES, padded_table

CHUNKS = [1, 2, 7]


def table(n_chunks: int, n: int, seed: int) -> np.ndarray:
    rows = padded_table(n, n_chunks * LANES)
    rows[:] = np.random.default_rng(seed).standard_normal(rows.shape)
    return rows


def test_padded_tables_begin_at_cache_lines_and_are_zero() -> None:
    for dim, width in ((1, 16), (16, 16), (17, 32), (100, 112)):
        rows = padded_table(3, dim)
        assert rows.shape == (3, width)
        assert rows.ctypes.data % 64 == 0
        assert rows.flags.c_contiguous
        assert not rows.any()


@pytest.mark.parametrize("n_chunks", CHUNKS)
def test_gather_products(n_chunks: int) -> None:
    gather = row_primitives(n_chunks).gather_products

    @jit
    def run(rows: Any, indices: Any, first: Any, n: Any, anchors: Any, out: Any) -> None:
        store_lanes(out, 0, gather(rows, indices, first, n, anchors, np.uint64(1), np.float32(-7)))

    rows, anchors = table(n_chunks, 40, 1), table(n_chunks, 3, 2)
    indices = np.random.default_rng(3).integers(0, 40, 32).astype(np.uint32)
    for first in (0, 16):
        for n in range(1, LANES + 1):
            out = np.zeros(LANES, np.float32)
            run(rows, indices, first, n, anchors, out)
            wanted = rows[indices[first : first + n]].astype(np.float64) @ anchors[1]
            assert np.allclose(out[:n], wanted, atol=1e-4)
            assert (out[n:] == -7).all()


@pytest.mark.parametrize("n_chunks", CHUNKS)
@pytest.mark.parametrize("bits", [1 << 0, 1 << 31, 0b1011, 0xFFFF_FFFF])
@pytest.mark.parametrize("measured", [0, 0xFFFF, 0xFFFF_FFFF])
def test_step_rows(n_chunks: int, bits: int, measured: int) -> None:
    step = row_primitives(n_chunks).step_rows

    @jit
    def run(rows: Any, indices: Any, bits: Any, measured: Any, anchors: Any, factors: Any, total: Any) -> None:
        step(rows, indices, bits, anchors, np.uint64(2), factors[0], factors[1], factors[2], total, measured)

    random = np.random.default_rng(4)
    rows, anchors, total = table(n_chunks, 60, 5), table(n_chunks, 3, 6), table(n_chunks, 1, 7)
    indices = random.permutation(60)[:32].astype(np.uint32)
    factors = random.standard_normal((3, 32)).astype(np.float32)
    own, towards, weight = factors
    before = rows.astype(np.float64)
    run(rows, indices, np.uint64(bits), np.uint64(measured), anchors, factors, total)
    moved = [r for r in range(32) if bits >> r & 1]
    for r in moved:
        wanted = own[r] * before[indices[r]] + towards[r] * anchors[2].astype(np.float64)
        wanted /= np.linalg.norm(wanted) if measured >> r & 1 else 1
        assert np.allclose(rows[indices[r]], wanted, atol=1e-5)
    untouched = np.setdiff1d(np.arange(60), indices[moved])
    assert np.array_equal(rows[untouched], before[untouched])
    assert np.allclose(total[0], sum(weight[r] * before[indices[r]] for r in moved), atol=1e-4)


def test_a_row_that_stands_twice_is_moved_twice_and_stays_on_the_sphere() -> None:
    step = row_primitives(1).step_rows

    @jit
    def run(rows: Any, indices: Any, bits: Any, anchors: Any, own: Any, towards: Any, weight: Any, total: Any) -> None:
        step(rows, indices, bits, anchors, np.uint64(0), own, towards, weight, total, bits)

    rows, anchors = table(1, 1, 1), table(1, 1, 2)
    first = rows[0].astype(np.float64)
    ones = np.ones(32, np.float32)
    run(rows, np.zeros(32, np.uint32), np.uint64(0b11), anchors, ones, ones, ones, table(1, 1, 3))
    for _ in range(2):
        first = first + anchors[0]
        first /= np.linalg.norm(first)
    assert np.allclose(rows[0], first, atol=1e-6)


@pytest.mark.parametrize("n_chunks", CHUNKS)
def test_move_row_is_the_retraction_along_the_tangent_projection(n_chunks: int) -> None:
    from oracle import retraction, tangent_projection

    from jose_embed.compute.sphere import normalized

    move = row_primitives(n_chunks).move_row

    @jit
    def run(rows: Any, sums: Any) -> None:
        move(rows, np.uint64(1), sums, np.uint64(0), np.float32(0.6))

    rows, sums = table(n_chunks, 3, 8), table(n_chunks, 1, 9)
    rows[:] = normalized(rows)
    before = rows.astype(np.float64)
    run(rows, sums)
    x, y = before[1], sums[0].astype(np.float64)
    assert np.allclose(rows[1], retraction(x, 0.6 * tangent_projection(x, y)), atol=1e-6)
    assert np.array_equal(rows[[0, 2]], before[[0, 2]])


def test_add_rows_and_prefetch() -> None:
    primitives = row_primitives(2)
    add, prefetch = primitives.add_rows, primitives.prefetch_row

    @jit
    def run(out: Any, a: Any, b: Any) -> Any:
        prefetch(a, np.uint64(2))
        return add(out, a, np.uint64(2), b, np.uint64(1))

    out, a, b = table(2, 1, 1), table(2, 3, 2), table(2, 2, 3)
    square = run(out, a, b)
    assert np.array_equal(out[0], a[2] + b[1])
    assert square == pytest.approx(float(out[0] @ out[0]), rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_chunks", [1, 2, 9])
def test_weighted_rows_are_added_in_order_with_rounded_products(n_chunks: int, dtype: type) -> None:
    add = row_primitives(n_chunks).add_weighted_rows

    @jit
    def run(total: Any, rows: Any, indices: Any, weights: Any, n: Any) -> None:
        add(total, rows, indices, weights, n)

    random = np.random.default_rng(1)
    rows = table(n_chunks, 20, 1).astype(dtype)
    indices, weights = random.integers(0, 20, 30).astype(np.uint32), random.standard_normal(30)
    for n in (0, 1, 30):
        total = random.standard_normal(n_chunks * LANES)
        wanted = total.copy()
        for index, weight in zip(indices[:n], weights, strict=False):
            wanted += weight * rows[index].astype(np.float64)
        run(total, rows, indices, weights, n)
        assert total.tobytes() == wanted.tobytes()


def test_lane_functions() -> None:
    gather = row_primitives(1).gather_products

    @jit
    def run(rows: Any, indices: Any, anchors: Any, out: Any) -> Any:
        f = gather(rows, indices, 0, 16, anchors, np.uint64(0), np.float32(0))
        store_lanes(out, 0, where_positive(f, np.float32(2) * f - np.float32(1) + f * f))
        bits = active_bits(f)
        return lane_sum(f), bits, popcount(bits)

    rows, anchors = table(1, 16, 1), table(1, 1, 2)
    out = np.zeros(16, np.float32)
    total, bits, n = run(rows, np.arange(32, dtype=np.uint32) % 16, anchors, out)
    f = rows @ anchors[0]
    assert np.allclose(out, np.where(f > 0, 2 * f - 1 + f * f, 0), atol=1e-4)
    assert total == pytest.approx(f.sum(), abs=1e-4)
    assert [bool(int(bits) >> r & 1) for r in range(16)] == (f > 0).tolist()
    assert n == (f > 0).sum()


def test_no_number_counts_as_above_zero() -> None:
    """So that a NaN is never mistaken for a satisfied hinge."""
    gather = row_primitives(1).gather_products

    @jit
    def run(rows: Any, indices: Any, anchors: Any, out: Any) -> Any:
        f = gather(rows, indices, 0, 16, anchors, np.uint64(0), np.float32(0))
        store_lanes(out, 0, where_positive(f, f))
        return active_bits(f)

    rows, out = np.zeros((16, 16), np.float32), np.zeros(LANES, np.float32)
    rows[:, 0] = [np.nan, -np.inf, np.inf, 1, 0, -0.0, *[-1] * 10]
    bits = run(rows, np.arange(32, dtype=np.uint32) % 16, np.eye(1, 16, dtype=np.float32), out)
    assert int(bits) == 0b1101
    assert np.isnan(out[0])
    assert out[1:].tolist() == [0, np.inf, 1, *[0] * 12]


def test_the_exponential_of_each_lane() -> None:
    gather = row_primitives(1).gather_products

    @jit
    def run(rows: Any, indices: Any, anchors: Any, out: Any) -> None:
        x = gather(rows, indices, 0, 16, anchors, np.uint64(0), np.float32(0))
        store_lanes(out, 0, exponential(x) / np.float32(2))

    rows, out = np.zeros((16, 16), np.float32), np.zeros(LANES, np.float32)
    edges = [-1e9, -np.inf, -87, 88, np.inf, 1e9, np.nan, 0, -0.0, 1e-9]
    random = np.random.default_rng(0)
    for powers in ([*edges, *[1] * 6], *random.uniform(-87, 88, (9, 16)), *random.uniform(-2, 2, (9, 16))):
        rows[:, 0] = powers
        run(rows, np.arange(32, dtype=np.uint32) % 16, np.eye(1, 16, dtype=np.float32), out)
        wanted = np.exp(np.clip(rows[:, 0].astype(np.float64), -87, 88)) / 2
        assert np.allclose(out, wanted, rtol=2.4e-7, atol=0, equal_nan=True)


def test_lanes_are_loaded_and_compared() -> None:
    @jit
    def run(numbers: Any, out: Any, rows: Any, row: Any) -> Any:
        store_lanes(out, 1, inverse_root(load_lanes(numbers, 3)))
        return equal_bits(rows, 2, row)

    numbers, out = np.arange(1, 33, dtype=np.float32), np.zeros(18, np.float32)
    rows = np.array([7, 9, *range(14), 9, 9, 9], np.uint32)
    assert run(numbers, out, rows, np.uint32(9)) == 1 << 9 | 1 << 14 | 1 << 15
    assert np.allclose(out[1:17], numbers[3:19] ** -0.5, rtol=1e-6)
    assert not out[[0, 17]].any()
