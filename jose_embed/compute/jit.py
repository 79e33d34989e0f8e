"""The one place that says how a function is compiled.

Every kernel is made by :func:`jit`, once: two compilations of one Python function would share state that numba keeps
per function. Nothing is cached on disk: a cached caller goes stale when a helper in another file changes, and the
kernels are few and small enough to be compiled by each process that needs them.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast, overload

import numba

__all__ = ["FAST_FLAGS", "jit"]

Function = TypeVar("Function", bound=Callable[..., Any])

#: Floating-point freedom that keeps checks for NaN and infinity working (plain ``fastmath=True`` deletes them).
FAST_FLAGS = frozenset({"contract", "reassoc", "nsz", "arcp", "afn"})


@overload
def jit(function: Function) -> Function: ...
@overload
def jit(*, fastmath: bool = ..., inline: bool = ...) -> Callable[[Function], Function]: ...
def jit(function: Function | None = None, *, fastmath: bool = False, inline: bool = False) -> Any:
    """Compile a function with numba: without the interpreter, and with its lock released while it runs.

    It cannot allocate arrays; what it works in is passed in.

    Args:
        function: The function; it keeps its type for the type checker.
        fastmath: Let the compiler reorder and contract floating-point operations (:data:`FAST_FLAGS`).
        inline: Ask LLVM to put the body into every caller. Only compiled code can call such a function: the entry for
            Python, which would double the time of compiling it, is left out.

    Returns:
        The compiled function, or a decorator where options were given.
    """
    # Without the runtime that counts references: nothing here allocates, and each call of a function took and gave back
    # all of its arrays by locked instructions.
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, "_nrt": False}
    if fastmath:
        options["fastmath"] = set(FAST_FLAGS)
    if inline:
        options.update(forceinline=True, no_cpython_wrapper=True)

    def compiled(plain: Function) -> Function:
        return cast(Function, numba.njit(**options)(plain))

    return compiled if function is None else compiled(function)


def _load_without_scipy() -> None:
    """Load the part of numba that looks for SciPy's linear algebra while that is hidden.

    Where SciPy is installed, numba would load all of it before the first compilation: 17 MB and a fifth of a second, of
    which no kernel here uses anything. Other code of the process finds it as ever, numba's own np.dot too.
    """
    hidden = "scipy.linalg.cython_blas"
    if hidden in sys.modules:
        return
    sys.modules[hidden] = None  # type: ignore[assignment]  # what import takes for "not there"
    try:
        with suppress(ImportError):  # a numba that keeps it elsewhere
            importlib.import_module("numba.np.arraymath")
    finally:
        sys.modules.pop(hidden, None)


_load_without_scipy()
