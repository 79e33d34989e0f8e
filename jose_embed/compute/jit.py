"""How functions are compiled: when they are called first, by Numba, which is imported then.

A module that holds kernels is imported without the compiler, so that programs and queries that run none start fast.
Every kernel is made by :func:`jit`, once: two compilations of one Python function would share state that Numba keeps
per function. ``np.uint64(x)`` and its like convert in kernels as they do in Python.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, TypeVar, cast, overload

__all__ = ["FAST_FLAGS", "Kernel", "jit", "kernel_from"]

Function = TypeVar("Function", bound=Callable[..., Any])

#: Floating-point freedom that keeps checks for NaN and infinity working (plain ``fastmath=True`` deletes them).
FAST_FLAGS = frozenset({"contract", "reassoc", "nsz", "arcp", "afn"})


@overload
def jit(function: Function) -> Function: ...
@overload
def jit(*, fastmath: bool = ..., inline: bool = ...) -> Callable[[Function], Function]: ...
def jit(function: Function | None = None, *, fastmath: bool = False, inline: bool = False) -> Any:
    """Mark a function to be compiled at its first call: without the interpreter, and with its lock released.

    It cannot allocate arrays; arrays to work in are arguments. It may call other functions marked so.

    Args:
        function: The function; it keeps its type for the type checker.
        fastmath: Let the compiler reorder and contract floating-point operations (:data:`FAST_FLAGS`).
        inline: Ask LLVM to put the body into every caller. Only compiled code can call such a function.

    Returns:
        The function as a :class:`Kernel`, or a decorator if options were given.
    """
    # Without the runtime that counts references: nothing here allocates, and each call of a function took and gave back
    # all of its arrays by locked instructions.
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, "_nrt": False}
    if fastmath:
        options["fastmath"] = set(FAST_FLAGS)
    if inline:
        options.update(forceinline=True, no_cpython_wrapper=True)

    def marked(plain: Function) -> Function:
        return cast(Function, Kernel(lambda: import_module("numba").njit(**options)(plain)))

    return marked if function is None else marked(function)


def kernel_from(module: str, function: str, *arguments: Any) -> Kernel:
    """The kernel that a function of a module makes; the module is imported at the first call.

    Args:
        module: A module that may import Numba.
        function: One of its functions; it returns what :func:`jit` returned.
        arguments: Its arguments.
    """
    return Kernel(lambda: getattr(import_module(module), function)(*arguments).dispatcher())


class Kernel:
    """A function that is compiled when it is called first.

    Args:
        make: Makes Numba's dispatcher.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._dispatcher: Any = None
        self._warm = False

    def __call__(self, *arguments: Any) -> Any:
        """Call it; the first call compiles, which an interrupt does not break off."""
        if self._warm:
            return self._dispatcher(*arguments)
        with _interrupts_held():
            result = self.dispatcher()(*arguments)
            self._warm = True
        return result

    def dispatcher(self) -> Any:
        """Numba's own object for the function."""
        with _compiling:
            if self._dispatcher is None:
                _load_without_scipy()
                self._dispatcher = self._make()
        return self._dispatcher

    @property
    def _numba_type_(self) -> Any:
        # Numba asks for it where another kernel names this one.
        return import_module("numba").typeof(self.dispatcher())


_compiling = threading.RLock()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until the block has ended.

    An exception inside an import or a compilation leaves Numba unusable for the rest of the process. Signals reach the
    main thread only, so that other threads need nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: dict[int, Any] = {}  # by number, the frame it arrived in
    before = {
        number: signal.signal(number, held.__setitem__)
        for number in (signal.SIGINT, signal.SIGTERM)
        if callable(signal.getsignal(number))
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for arrived in held:
            signal.raise_signal(arrived)


def _load_without_scipy() -> None:
    """Load the part of Numba that looks for SciPy's linear algebra while that is hidden.

    If SciPy is installed, Numba would load all of it before the first compilation: 17 MB and a fifth of a second, of
    which no kernel here uses anything. Other code of the process finds it as ever, Numba's own np.dot too.
    """
    hidden = "scipy.linalg.cython_blas"
    if hidden in sys.modules:
        return
    sys.modules[hidden] = None  # type: ignore[assignment]  # what import takes for "not there"
    try:
        with suppress(ImportError):  # a Numba that keeps it elsewhere
            import_module("numba.np.arraymath")
    finally:
        sys.modules.pop(hidden, None)
