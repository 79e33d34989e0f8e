"""How functions are compiled: with the freedom that was asked for, and no more."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from jose_embed.compute.jit import jit


@jit(fastmath=True, inline=True)
def _reciprocal(x: float) -> float:
    """One over x, or -1 for what is no number."""
    return -1.0 if math.isnan(x) else 1.0 / x


@jit
def _sum_of_reciprocals(values: npt.NDArray[np.float64]) -> float:
    total = 0.0
    for value in values:
        total += _reciprocal(value)
    return total


def test_compiled_functions_compute_and_see_nan() -> None:
    assert _sum_of_reciprocals(np.array([1.0, 2.0, 4.0])) == pytest.approx(1.75)
    assert _sum_of_reciprocals(np.array([math.nan, 2.0])) == pytest.approx(-0.5)


def test_a_division_by_zero_is_infinite_and_no_error() -> None:
    assert _sum_of_reciprocals(np.array([0.0])) == math.inf


def test_the_lock_of_the_interpreter_is_released() -> None:
    for function in (_reciprocal, _sum_of_reciprocals):
        assert function.targetoptions["nogil"]
