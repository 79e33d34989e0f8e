"""Vector primitives of the CPU kernels: sixteen floats at a time, written as LLVM instructions.

A table of vectors is a float32 array whose rows are padded with zeros to a multiple of 16 floats (64 bytes: one cache
line, one AVX-512 register; LLVM splits it in two for AVX2 and in four for NEON). Plain loops over such rows compile to
half the speed: they cannot keep a row in registers between the scalar product and the step (DESIGN.md, decision 6).

The module has two parts:

- ``Lanes``, sixteen float32 in one register, with ``+ - * /`` and a few functions; a scalar beside it counts sixteen
  times.
- :func:`row_primitives`: loads, products and steps of whole rows, unrolled for one row length.

The primitives check nothing. Indices must be in range, tables C-contiguous; the callers, kernel.py and
directions_kernel.py, are tested with bounds, and each primitive is tested against NumPy.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, register_model

from jose_embed.compute.tables import LANES

_FLOAT = ir.FloatType()
_I1, _I16, _I32, _I64 = ir.IntType(1), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_DOUBLE = ir.DoubleType()
_DOUBLES = ir.VectorType(_DOUBLE, LANES)
_SUMS_AT_ONCE = 8  # chunks whose float64 sums the registers of AVX-512 hold
_ZERO = ir.Constant(_VECTOR, [0.0] * LANES)
# Everything but the promise that no NaN occurs: the compiler would delete what lets it through to the loss.
_FLAGS = ("reassoc", "nsz", "arcp", "contract", "afn")


class _LanesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Lanes")


lanes = _LanesType()


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]  # numba has no types
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _VECTOR)


@intrinsic
def prefetch(ctx: Any, table: Any, row: Any, column: Any) -> Any:
    """Ask for the memory of a number of a table, in a row and a column, that will be read soon."""

    def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        array = context.make_array(sig.args[0])(context, builder, arguments[0])
        place = cgutils.get_item_pointer(context, builder, sig.args[0], array, arguments[1:])
        _prefetch(builder, place)
        return context.get_dummy_value()

    return types.void(table, types.intp, types.intp), code


# --- pieces of LLVM code ---------------------------------------------------------------------------------------------


def _call(builder: Any, name: str, returns: Any, arguments: Sequence[Any], **flags: Any) -> Any:
    function_type = ir.FunctionType(returns, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), arguments, **flags)


def _splat(builder: Any, scalar: Any, vector_type: Any = _VECTOR) -> Any:
    undefined = ir.Constant(vector_type, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, undefined, _indices([0] * LANES))


def _indices(values: Sequence[int]) -> Any:
    return ir.Constant(ir.VectorType(_I32, len(values)), list(values))


def _multiply_add(builder: Any, x: Any, y: Any, z: Any) -> Any:
    return _call(builder, "llvm.fma.v16f32", _VECTOR, [x, y, z])


def _sum(builder: Any, vector: Any) -> Any:
    return _call(
        builder, "llvm.vector.reduce.fadd.v16f32", _FLOAT, [ir.Constant(_FLOAT, -0.0), vector], fastmath=_FLAGS
    )


def _product_sum(builder: Any, xs: Sequence[Any], ys: Sequence[Any]) -> Any:
    """x.y over whole rows; two chains of additions, so that they overlap."""
    chains: list[Any] = [None, None]
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        so_far = chains[i % 2]
        chains[i % 2] = builder.fmul(x, y) if so_far is None else _multiply_add(builder, x, y, so_far)
    both = chains[0] if chains[1] is None else builder.fadd(*chains, flags=_FLAGS)
    return _sum(builder, both)


def _above_zero(builder: Any, vector: Any) -> Any:
    """Sixteen bits. A NaN counts as above zero, so that it spreads up to the loss, where the training checks it."""
    return builder.fcmp_unordered(">", vector, _ZERO)


def _inverse_root(builder: Any, scalar: Any) -> Any:
    return builder.fdiv(ir.Constant(_FLOAT, 1.0), _call(builder, "llvm.sqrt.f32", _FLOAT, [scalar]))


def _prefetch(builder: Any, place: Any) -> None:
    """Ask for a cache line, for reading. Into the second cache: many lines on their way to the first one would take all
    of its buffers for misses, and every other load would wait."""
    hints = [ir.Constant(_I32, hint) for hint in (0, 2, 1)]  # to read, second cache, data
    line = builder.bitcast(place, ir.IntType(8).as_pointer())
    _call(builder, "llvm.prefetch.p0", ir.VoidType(), [line, *hints])


def _data(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    return cgutils.create_struct_proxy(array_type)(context, builder, value=array).data


def _load(builder: Any, pointer: Any, chunk: int) -> Any:
    return builder.load(builder.gep(pointer, [ir.Constant(_I64, chunk)]), align=4)


def _store(builder: Any, vector: Any, pointer: Any, chunk: int) -> None:
    builder.store(vector, builder.gep(pointer, [ir.Constant(_I64, chunk)]), align=4)


def _sums_of_four(builder: Any, vectors: Sequence[Any]) -> Any:
    """The sums of four vectors as one <4 x float>: a tree in which they share registers, half the work of four sums."""

    def halves_added(x: Any, y: Any, half: int, width: int) -> Any:
        low = [start + i for start in range(0, width, 2 * half) for i in range(half)]
        high = [index + half for index in low]
        return builder.fadd(
            builder.shuffle_vector(x, y, _indices(low + [width + index for index in low])),
            builder.shuffle_vector(x, y, _indices(high + [width + index for index in high])),
            flags=_FLAGS,
        )

    a, b, c, d = vectors
    quarters = halves_added(halves_added(a, b, 8, 16), halves_added(c, d, 8, 16), 4, 16)
    for kept in ([0, 1, 4, 5, 8, 9, 12, 13], [0, 2, 4, 6]):
        step = 2 if len(kept) == 8 else 1
        quarters = builder.fadd(
            builder.shuffle_vector(quarters, quarters, _indices(kept)),
            builder.shuffle_vector(quarters, quarters, _indices([index + step for index in kept])),
            flags=_FLAGS,
        )
    return quarters


# --- Lanes: operators and functions ----------------------------------------------------------------------------------


def _as_vector(context: Any, builder: Any, value: Any, value_type: Any) -> Any:
    if value_type == lanes:
        return value
    return _splat(builder, context.cast(builder, value, value_type, types.float32))


def _define_operator(function: Any, instruction: str) -> None:
    @infer_global(function)
    class _Typing(AbstractTemplate):  # type: ignore[misc]  # numba has no types
        def generic(self, arguments: Any, keywords: Any) -> Any:
            if len(arguments) == 2 and lanes in arguments and not keywords:
                return signature(lanes, *(a if a == lanes else types.float32 for a in arguments))
            return None

    def lower(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        x, y = (_as_vector(context, builder, a, t) for a, t in zip(arguments, sig.args, strict=True))
        return getattr(builder, instruction)(x, y, flags=_FLAGS)

    for left, right in ((lanes, lanes), (lanes, types.float32), (types.float32, lanes)):
        lower_builtin(function, left, right)(lower)


_define_operator(operator.add, "fadd")
_define_operator(operator.sub, "fsub")
_define_operator(operator.mul, "fmul")
_define_operator(operator.truediv, "fdiv")


@intrinsic
def where_positive(typing_context: Any, condition: Any, value: Any) -> Any:
    """``value`` in the lanes whose ``condition`` is above zero or NaN, 0 elsewhere."""

    def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        vector = _as_vector(context, builder, arguments[1], sig.args[1])
        return builder.select(_above_zero(builder, arguments[0]), vector, _ZERO)

    return lanes(lanes, lanes if value == lanes else types.float32), code


@intrinsic
def exponential(typing_context: Any, vector: Any) -> Any:
    """e to the power of each lane, to 2 units in the last place; powers outside -87 ... 88 count as the border.

    e^x = 2^n e^r with n = round(x / ln 2) and |r| <= ln(2) / 2, where the Taylor series of e^r has seven terms. A NaN
    stays one. LLVM has no exponential of a register and would call the C library for each lane.
    """

    def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        def constant(number: float) -> Any:
            return ir.Constant(_VECTOR, [number] * LANES)

        x = arguments[0]
        for order, border in (("<", -87.0), (">", 88.0)):
            x = builder.select(builder.fcmp_ordered(order, x, constant(border)), constant(border), x)
        n = _call(builder, "llvm.roundeven.v16f32", _VECTOR, [builder.fmul(x, constant(1 / math.log(2)))])
        # ln 2 in two parts, of which the first has few bits: n times it is exact.
        r = _multiply_add(builder, n, constant(-0.693359375), x)
        r = _multiply_add(builder, n, constant(0.693359375 - math.log(2)), r)
        power = constant(1 / math.factorial(7))
        for term in range(6, -1, -1):
            power = _multiply_add(builder, power, r, constant(1 / math.factorial(term)))
        wide = ir.VectorType(_I32, LANES)
        exponent = _call(builder, "llvm.fptosi.sat.v16i32.v16f32", wide, [n])  # 0 of a NaN, which is in r as well
        exponent = builder.add(exponent, ir.Constant(wide, [127] * LANES))
        scale = builder.bitcast(builder.shl(exponent, ir.Constant(wide, [23] * LANES)), _VECTOR)
        return builder.fmul(power, scale)

    return lanes(lanes), code


@intrinsic
def inverse_root(typing_context: Any, vector: Any) -> Any:
    """1 / sqrt of each lane."""

    def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        root = _call(builder, "llvm.sqrt.v16f32", _VECTOR, arguments)
        return builder.fdiv(ir.Constant(_VECTOR, [1.0] * LANES), root)

    return lanes(lanes), code


@intrinsic
def active_bits(typing_context: Any, vector: Any) -> Any:
    """A uint64 whose bit r is set if lane r is above zero or NaN."""

    def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return builder.zext(builder.bitcast(_above_zero(builder, arguments[0]), _I16), _I64)

    return types.uint64(lanes), code


@intrinsic
def equal_bits(typing_context: Any, array: Any, start: Any, value: Any) -> Any:
    """A uint64 whose bit r is set if ``array[start + r] == value``, r < 16, for a contiguous uint32 array."""

    def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        wide = ir.VectorType(_I32, LANES)
        place = builder.gep(_data(context, builder, sig.args[0], arguments[0]), [arguments[1]])
        numbers = builder.load(builder.bitcast(place, wide.as_pointer()), align=4)
        equal = builder.icmp_unsigned("==", numbers, _splat(builder, arguments[2], wide))
        return builder.zext(builder.bitcast(equal, _I16), _I64)

    return types.uint64(array, types.int64, types.uint32), code


@intrinsic
def lane_sum(typing_context: Any, vector: Any) -> Any:
    """The sum of the sixteen lanes."""

    def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return _sum(builder, arguments[0])

    return types.float32(lanes), code


@intrinsic
def popcount(typing_context: Any, bits: Any) -> Any:
    """The number of set bits of a uint64."""

    def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        return _call(builder, "llvm.ctpop.i64", _I64, arguments)

    return types.uint64(types.uint64), code


@intrinsic
def load_lanes(typing_context: Any, array: Any, start: Any) -> Any:
    """``array[start : start + 16]`` of a contiguous float32 array."""

    def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        place = builder.gep(_data(context, builder, sig.args[0], arguments[0]), [arguments[1]])
        return builder.load(builder.bitcast(place, _VECTOR.as_pointer()), align=4)

    return lanes(array, types.int64), code


@intrinsic
def store_lanes(typing_context: Any, array: Any, start: Any, vector: Any) -> Any:
    """``array[start : start + 16] = vector`` for a contiguous float32 array."""

    def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        place = builder.gep(_data(context, builder, sig.args[0], arguments[0]), [arguments[1]])
        builder.store(arguments[2], builder.bitcast(place, _VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, lanes), code


# --- whole rows ------------------------------------------------------------------------------------------------------


class RowPrimitives(NamedTuple):
    """The row operations for one row length; see :func:`row_primitives`."""

    gather_products: Callable[..., Any]
    step_rows: Callable[..., Any]
    move_row: Callable[..., Any]
    add_rows: Callable[..., Any]
    prefetch_row: Callable[..., Any]
    add_weighted_rows: Callable[..., Any]


@cache
def row_primitives(n_chunks: int) -> RowPrimitives:
    """Operations on rows of ``16 * n_chunks`` floats, unrolled.

    ``gather_products(table, rows, first, n, anchors, anchor, absent) -> Lanes``
        Lane r holds table[rows[first + r]].anchors[anchor] for r < n <= 16, and ``absent`` in the rest. Rows are taken
        four at a time: ``rows`` must hold valid indices up to the next multiple of four.

    ``step_rows(table, rows, bits, anchors, anchor, own, towards, weight, sum, measured)``
        For each set bit r of ``bits`` (not 0), with x = table[rows[r]] and v = anchors[anchor]: adds weight[r] x to the
        row ``sum[0]``, which it first clears, and writes x <- own[r] x + towards[r] v, over its length if bit r of
        ``measured`` is set. Rows of the other bits are moved first, each kind in the order of the bits. A row that
        stands twice is moved twice, one move after the other.

    ``move_row(table, row, sums, sum, scale)``
        x <- R_x(scale (I - x x^T) y) for x = table[row], y = sums[sum]: retraction along a tangent projection.

    ``add_rows(out, a, i, b, j)``
        out[0] = a[i] + b[j]; returns the square of its length.

    ``prefetch_row(table, row)``
        Asks for the row's cache lines.

    ``add_weighted_rows(total, table, rows, weights, n)``
        total <- (total + weights[0] table[rows[0]]) + weights[1] table[rows[1]] + ..., n terms in this order, in
        float64, each product rounded before it is added. ``table`` is float32 or float64.

    Args:
        n_chunks: Row length in units of 16 floats.
    """

    def row_pointer(builder: Any, base: Any, row: Any) -> Any:
        place = builder.gep(base, [builder.mul(row, ir.Constant(_I64, n_chunks * LANES))])
        return builder.bitcast(place, _VECTOR.as_pointer())

    def load_row(builder: Any, pointer: Any) -> list[Any]:
        return [_load(builder, pointer, chunk) for chunk in range(n_chunks)]

    def store_row(builder: Any, vectors: Sequence[Any], pointer: Any) -> None:
        for chunk, vector in enumerate(vectors):
            _store(builder, vector, pointer, chunk)

    def scaled(builder: Any, scale: Any, vectors: Sequence[Any]) -> list[Any]:
        factor = _splat(builder, scale)
        return [builder.fmul(factor, vector) for vector in vectors]

    @intrinsic
    def gather_products(
        ctx: Any, table: Any, rows: Any, first: Any, n: Any, anchors: Any, anchor: Any, absent: Any
    ) -> Any:  # fmt: skip
        def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            base = _data(context, builder, sig.args[0], arguments[0])
            indices = builder.gep(_data(context, builder, sig.args[1], arguments[1]), [arguments[2]])
            count = arguments[3]
            anchor_base = _data(context, builder, sig.args[4], arguments[4])
            v = load_row(builder, row_pointer(builder, anchor_base, arguments[5]))

            def products(slot: int) -> Any:
                index = builder.load(builder.gep(indices, [ir.Constant(_I64, slot)]))
                pointer = row_pointer(builder, base, builder.zext(index, _I64))
                total = None
                for chunk in range(n_chunks):
                    x = _load(builder, pointer, chunk)
                    total = builder.fmul(x, v[chunk]) if total is None else _multiply_add(builder, x, v[chunk], total)
                return total

            four = ir.VectorType(_FLOAT, 4)
            groups = [cgutils.alloca_once(builder, four) for _ in range(4)]
            for group in groups:
                builder.store(ir.Constant(four, [0.0] * 4), group)
            end = builder.append_basic_block("products.end")
            for g, group in enumerate(groups):
                if g:
                    more = builder.append_basic_block(f"products.{g}")
                    builder.cbranch(builder.icmp_signed(">", count, ir.Constant(_I64, 4 * g)), more, end)
                    builder.position_at_end(more)
                builder.store(_sums_of_four(builder, [products(4 * g + i) for i in range(4)]), group)
            builder.branch(end)
            builder.position_at_end(end)
            parts = [builder.load(group) for group in groups]
            low = builder.shuffle_vector(parts[0], parts[1], _indices(range(8)))
            high = builder.shuffle_vector(parts[2], parts[3], _indices(range(8)))
            found = builder.shuffle_vector(low, high, _indices(range(16)))
            numbers = ir.Constant(ir.VectorType(_I32, LANES), list(range(LANES)))
            limit = _splat(builder, builder.trunc(count, _I32), ir.VectorType(_I32, LANES))
            present = builder.icmp_signed("<", numbers, limit)
            return builder.select(present, found, _splat(builder, arguments[6]))

        return lanes(table, rows, types.int64, types.int64, anchors, types.uint64, types.float32), code

    @intrinsic
    def step_rows(
        ctx: Any, table: Any, rows: Any, bits: Any, anchors: Any, anchor: Any,
        own: Any, towards: Any, weight: Any, total: Any, measured: Any,
    ) -> Any:  # fmt: skip
        def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            base, indices, own_at, towards_at, weight_at, sum_base = (
                _data(context, builder, sig.args[i], arguments[i]) for i in (0, 1, 5, 6, 7, 8)
            )
            anchor_base = _data(context, builder, sig.args[3], arguments[3])
            v = load_row(builder, row_pointer(builder, anchor_base, arguments[4]))

            def moved(bits: Any, start: Sequence[Any], measured: bool) -> list[Any]:
                before = builder.block
                row, end = (builder.append_basic_block(f"step.{name}") for name in ("row", "end"))
                none = ir.Constant(_I64, 0)
                builder.cbranch(builder.icmp_unsigned("!=", bits, none), row, end)
                builder.position_at_end(row)
                left = builder.phi(_I64)
                sums = [builder.phi(_VECTOR) for _ in range(n_chunks)]
                left.add_incoming(bits, before)
                for phi, begun in zip(sums, start, strict=True):
                    phi.add_incoming(begun, before)
                r = _call(builder, "llvm.cttz.i64", _I64, [left, ir.Constant(_I1, 1)])
                index = builder.load(builder.gep(indices, [r]))
                pointer = row_pointer(builder, base, builder.zext(index, _I64))
                a, b, w = (
                    _splat(builder, builder.load(builder.gep(at, [r]))) for at in (own_at, towards_at, weight_at)
                )
                x = load_row(builder, pointer)
                after = [_multiply_add(builder, w, x[i], sums[i]) for i in range(n_chunks)]
                y = [_multiply_add(builder, a, x[i], builder.fmul(b, v[i])) for i in range(n_chunks)]
                if measured:
                    y = scaled(builder, _inverse_root(builder, _product_sum(builder, y, y)), y)
                store_row(builder, y, pointer)
                rest = builder.and_(left, builder.sub(left, ir.Constant(_I64, 1)))
                left.add_incoming(rest, builder.block)
                for phi, added in zip(sums, after, strict=True):
                    phi.add_incoming(added, builder.block)
                last = builder.block
                builder.cbranch(builder.icmp_unsigned("!=", rest, none), row, end)
                builder.position_at_end(end)
                ended = [builder.phi(_VECTOR) for _ in range(n_chunks)]
                for phi, begun, added in zip(ended, start, after, strict=True):
                    phi.add_incoming(begun, before)
                    phi.add_incoming(added, last)
                return ended

            known = builder.and_(arguments[2], builder.not_(arguments[9]))
            total = moved(known, [_ZERO] * n_chunks, False)
            total = moved(builder.and_(arguments[2], arguments[9]), total, True)
            store_row(builder, total, row_pointer(builder, sum_base, ir.Constant(_I64, 0)))
            return context.get_dummy_value()

        bits = types.uint64
        return types.void(table, rows, bits, anchors, types.uint64, own, towards, weight, total, bits), code

    @intrinsic
    def move_row(ctx: Any, table: Any, row: Any, sums: Any, which: Any, scale: Any) -> Any:
        def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            pointer = row_pointer(builder, _data(context, builder, sig.args[0], arguments[0]), arguments[1])
            x = load_row(builder, pointer)
            y = load_row(
                builder, row_pointer(builder, _data(context, builder, sig.args[2], arguments[2]), arguments[3])
            )
            y = scaled(builder, arguments[4], y)
            along = builder.fsub(ir.Constant(_FLOAT, 1.0), _product_sum(builder, x, y), flags=_FLAGS)
            factor = _splat(builder, along)  # x + (y - (x.y) x) = (1 - x.y) x + y
            moved = [_multiply_add(builder, factor, x[i], y[i]) for i in range(n_chunks)]
            store_row(
                builder, scaled(builder, _inverse_root(builder, _product_sum(builder, moved, moved)), moved), pointer
            )
            return context.get_dummy_value()

        return types.void(table, types.uint64, sums, types.uint64, types.float32), code

    @intrinsic
    def add_rows(ctx: Any, out: Any, a: Any, i: Any, b: Any, j: Any) -> Any:
        def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            x, y = (
                load_row(
                    builder,
                    row_pointer(builder, _data(context, builder, sig.args[at], arguments[at]), arguments[at + 1]),
                )
                for at in (1, 3)
            )
            place = row_pointer(builder, _data(context, builder, sig.args[0], arguments[0]), ir.Constant(_I64, 0))
            both = [builder.fadd(p, q) for p, q in zip(x, y, strict=True)]
            store_row(builder, both, place)
            return _product_sum(builder, both, both)

        return types.float32(out, a, types.uint64, b, types.uint64), code

    @intrinsic
    def prefetch_row(ctx: Any, table: Any, row: Any) -> Any:
        def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            place = row_pointer(builder, _data(context, builder, sig.args[0], arguments[0]), arguments[1])
            for chunk in range(n_chunks):
                _prefetch(builder, builder.gep(place, [ir.Constant(_I64, chunk)]))
            return context.get_dummy_value()

        return types.void(table, types.uint64), code

    @intrinsic
    def add_weighted_rows(ctx: Any, total: Any, table: Any, rows: Any, weights: Any, n: Any) -> Any:
        element = _DOUBLE if table.dtype == types.float64 else _FLOAT

        def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
            sums_at, base, indices, weights_at = (_data(context, builder, sig.args[i], arguments[i]) for i in range(4))
            count, none, one = arguments[4], ir.Constant(_I64, 0), ir.Constant(_I64, 1)
            # As many sums as registers hold at a time.
            for first in range(0, n_chunks, _SUMS_AT_ONCE):
                n_sums = min(_SUMS_AT_ONCE, n_chunks - first)
                place = builder.gep(sums_at, [ir.Constant(_I64, first * LANES)])
                place = builder.bitcast(place, _DOUBLES.as_pointer())
                start = [_load(builder, place, chunk) for chunk in range(n_sums)]
                before, loop, end = (
                    builder.block,
                    *(builder.append_basic_block(f"add.{part}") for part in ("row", "end")),
                )
                builder.cbranch(builder.icmp_signed(">", count, none), loop, end)
                builder.position_at_end(loop)
                k = builder.phi(_I64)
                sums = [builder.phi(_DOUBLES) for _ in range(n_sums)]
                index = builder.zext(builder.load(builder.gep(indices, [k])), _I64)
                weight = _splat(builder, builder.load(builder.gep(weights_at, [k])), _DOUBLES)
                row = builder.mul(index, ir.Constant(_I64, n_chunks * LANES))
                row = builder.gep(base, [builder.add(row, ir.Constant(_I64, first * LANES))])
                row = builder.bitcast(row, ir.VectorType(element, LANES).as_pointer())
                after = []
                for chunk, so_far in enumerate(sums):
                    x = _load(builder, row, chunk)
                    x = x if element == _DOUBLE else builder.fpext(x, _DOUBLES)
                    after.append(builder.fadd(so_far, builder.fmul(weight, x)))
                following = builder.add(k, one)
                builder.cbranch(builder.icmp_signed("<", following, count), loop, end)
                k.add_incoming(none, before)
                k.add_incoming(following, loop)
                for so_far, begun, added in zip(sums, start, after, strict=True):
                    so_far.add_incoming(begun, before)
                    so_far.add_incoming(added, loop)
                builder.position_at_end(end)
                for chunk, (begun, added) in enumerate(zip(start, after, strict=True)):
                    result = builder.phi(_DOUBLES)
                    result.add_incoming(begun, before)
                    result.add_incoming(added, loop)
                    after[chunk] = result
                for chunk, result in enumerate(after):
                    _store(builder, result, place, chunk)
            return context.get_dummy_value()

        return types.void(total, table, rows, weights, types.int64), code

    return RowPrimitives(gather_products, step_rows, move_row, add_rows, prefetch_row, add_weighted_rows)
