"""How functions are compiled: when they are called first, and once for all processes.

A function marked by :func:`jit` is a :class:`Kernel`. Its first call with arguments of some types looks for machine
code in the cache on disk; if there is none, Numba is imported and compiles it. A process that finds all its kernels
never imports Numba, and a module that holds kernels is imported without it.

``np.uint64(x)`` and its like convert in kernels as they do in Python.
"""

from __future__ import annotations

import ctypes
import itertools
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

import numpy as np

from jose_embed.interrupts import interrupts_held

if TYPE_CHECKING:
    from jose_embed.compute.kernel_cache import MachineCode

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
        inline: Ask LLVM to put the body into every caller.

    Returns:
        The function as a :class:`Kernel`, or a decorator if options were given.
    """
    # Without the runtime that counts references: nothing here allocates, and each call of a function took and gave back
    # all of its arrays by locked instructions.
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, "_nrt": False}
    options["no_cpython_wrapper"] = True
    if fastmath:
        options["fastmath"] = set(FAST_FLAGS)
    if inline:
        options["forceinline"] = True

    def marked(plain: Function) -> Function:
        # The sources of the package are part of every key; a function of another one, or one that is made anew at each
        # call of another function, could change without them.
        keepable = plain.__module__.startswith("jose_embed.") and plain.__closure__ is None
        name = f"{plain.__module__}.{plain.__qualname__}"
        return cast(Function, Kernel(name, lambda: (plain, options), keepable=keepable))

    return marked if function is None else marked(function)


def kernel_from(module: str, function: str, *arguments: str | int) -> Kernel:
    """The kernel that a function of a module makes; the module is imported if the kernel has to be compiled.

    Args:
        module: A module of this package, which may import Numba.
        function: One of its functions; it returns what :func:`jit` returned, and it always makes the same kernel of the
            same arguments.
        arguments: Its arguments.
    """
    name = f"{module}.{function}{arguments}"
    return Kernel(name, lambda: getattr(import_module(module), function)(*arguments).source())


@contextmanager
def compilation_noted(note: Callable[[str], object]) -> Iterator[None]:
    """In this context the first kernel that has to be compiled is announced, in whichever thread; also of several such
    contexts in one another only one says so.

    Args:
        note: Called with the sentence.
    """
    _notes.append(note)
    try:
        yield
    finally:
        if note in _notes:
            _notes.remove(note)


_notes: list[Callable[[str], object]] = []


class Kernel:
    """A function that is compiled when it is called first.

    Args:
        name: Identifies it among the kernels of the package.
        source: Returns the Python function and the options of ``numba.njit``.
        keepable: Whether the machine code may be kept on disk: name and sources of the package say all about it.
    """

    def __init__(
        self, name: str, source: Callable[[], tuple[Callable[..., Any], dict[str, Any]]], *, keepable: bool = True
    ) -> None:
        self.name, self.source = name, source
        self._keepable = keepable
        self._loaded: dict[Any, _Loaded] = {}
        self._dispatcher: Any = None

    def __call__(self, *arguments: Any) -> Any:
        """Call it. The first call with arguments of some types compiles or loads the machine code."""
        types = _types_of(arguments)
        loaded = self._loaded.get(types)
        return (loaded or self._load(types, arguments))(arguments)

    def _load(self, types: Any, arguments: Sequence[Any]) -> _Loaded:
        with interrupts_held(), _compiling:
            if types not in self._loaded:
                cache = import_module("jose_embed.compute.kernel_cache")
                key = cache.key(self.name, types)
                machine = cache.read(key) if self._keepable else None
                if machine is None:
                    if _notes:
                        _notes[-1](f"compiling kernels for this processor{', once' if cache.directory() else ''}")
                        _notes.clear()
                    plain, options = self.source()
                    compiler = import_module("jose_embed.compute.compiler")
                    machine = compiler.compiled(plain, options, arguments, f"kernel_{key}_{next(_numbers)}")
                    if self._keepable:
                        cache.write(key, machine)
                self._loaded[types] = _Loaded(machine, *cache.loaded(machine))
            return self._loaded[types]

    @property
    def _numba_type_(self) -> Any:
        # Numba asks for it if another kernel names this one.
        if self._dispatcher is None:
            self._dispatcher = import_module("jose_embed.compute.compiler").dispatcher(*self.source())
        return import_module("numba").typeof(self._dispatcher)


class _Loaded:
    """Machine code, in memory and ready to be called."""

    def __init__(self, machine: MachineCode, engine: Any, address: int) -> None:
        self.machine, self._engine = machine, engine
        self._call = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p)(address)
        self._result = struct.Struct(machine.result)

    def __call__(self, arguments: Sequence[Any]) -> Any:
        slots = b"".join(map(_slots, arguments))
        result = ctypes.create_string_buffer(max(8, self._result.size))
        status = self._call(slots, result)
        if status:
            raise RuntimeError(f"the kernel {self.machine.name} failed with status {status}")
        numbers = self._result.unpack_from(result)
        return (numbers[0] if numbers else None) if self.machine.single else numbers


def _types_of(value: Any) -> Any:
    """The facts that determine Numba's type of a value; equal for values of one type."""
    if isinstance(value, np.ndarray):
        flags = value.flags
        order = "C" if flags.c_contiguous else "F" if flags.f_contiguous else "A"
        return value.dtype.str, value.ndim, order, flags.writeable, flags.aligned
    if isinstance(value, tuple):
        return type(value).__name__, tuple(map(_types_of, value))
    return type(value).__name__


def _slots(value: Any) -> bytes:
    """An argument as Numba passes it, each number in eight bytes."""
    if isinstance(value, np.ndarray):
        # Without reference counts nobody looks at the first two, the owners of the memory.
        numbers = (0, 0, value.size, value.itemsize, value.ctypes.data, *value.shape, *value.strides)
        return struct.pack(f"{len(numbers)}q", *numbers)
    if isinstance(value, tuple):
        return b"".join(map(_slots, value))
    if isinstance(value, (int, float)):
        return struct.pack("d" if isinstance(value, float) else "q", value)
    return np.asarray(value).tobytes().ljust(8, b"\0")


_compiling = threading.RLock()
_numbers = itertools.count()  # of compiled kernels: each has a name of its own
