"""The one place that says how a function is compiled.

Every kernel is made by :func:`jit`, once: two compilations of one Python function would share state that numba keeps
per function. Nothing is cached on disk: a cached caller goes stale when a helper in another file changes, and the
kernels are few and small enough to be compiled by each process that needs them.
"""

from __future__ import annotations

from collections.abc import Callable
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

    Args:
        function: The function; it keeps its type for the type checker.
        fastmath: Let the compiler reorder and contract floating-point operations (:data:`FAST_FLAGS`).
        inline: Ask LLVM to put the body into every caller.

    Returns:
        The compiled function, or a decorator where options were given.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    if fastmath:
        options["fastmath"] = set(FAST_FLAGS)
    if inline:
        options["forceinline"] = True

    def compiled(plain: Function) -> Function:
        return cast(Function, numba.njit(**options)(plain))

    return compiled if function is None else compiled(function)
