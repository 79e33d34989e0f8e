"""From a Python function to machine code, by Numba; imported when a kernel is not in the cache.

A kernel becomes an object file with one function that does not call Python. Its arguments are numbers in 8-byte slots,
in the order in which Numba passes them (an array is seven numbers or more), its result is a C struct. So another
process runs it without Numba: llvmlite loads the object file and ctypes calls it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from llvmlite import ir

from jose_embed.compute.kernel_cache import MachineCode

#: The struct format of a returned number.
_FORMATS = {"float32": "f", "float64": "d", "int32": "i", "int64": "q", "uint32": "I", "uint64": "Q", "bool": "?"}

#: Beginnings of the names that only a process with Numba can resolve.
_FOREIGN = ("numba", "NRT_", "nrt_", "Py", "_Py", ".numba")


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


_load_without_scipy()

import numba  # noqa: E402
from numba.core import compiler, types  # noqa: E402
from numba.core.compiler_lock import global_compiler_lock  # noqa: E402
from numba.core.types.containers import BaseTuple  # noqa: E402


def dispatcher(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    """Numba's object for a function that other kernels call.

    Args:
        function: The function.
        options: Of ``numba.njit``.
    """
    return numba.njit(**options)(function)


def compiled(function: Callable[..., Any], options: dict[str, Any], arguments: Sequence[Any], name: str) -> MachineCode:
    """Compile a function for arguments of the types of these.

    Args:
        function: The function.
        options: Of ``numba.njit``.
        arguments: Arrays, numbers and named tuples of them.
        name: For the function in the object file; no other one of the process may have it.

    Raises:
        RuntimeError: a kernel that needs Numba's runtime.
    """
    with global_compiler_lock:
        made = dispatcher(function, options)
        flags = compiler.Flags()
        made.targetdescr.options.parse_as_flags(flags, made.targetoptions)
        flags.no_compile = True  # the library is finished below, with the entry in it
        target = made.targetdescr.target_context
        library = target.codegen().create_library(name)
        library.enable_object_caching()
        made_of = tuple(numba.typeof(argument) for argument in arguments)
        result = compiler.compile_extra(
            made.targetdescr.typing_context, target, function, made_of, None, flags, {}, library=library
        )
        library.add_ir_module(_entry(target, result.fndesc, name))
        library.finalize()
    module = library._final_module
    declared = [symbol.name for symbol in (*module.functions, *module.global_variables) if symbol.is_declaration]
    if foreign := [symbol for symbol in declared if symbol.startswith(_FOREIGN)]:
        raise RuntimeError(
            f"the kernel {function.__name__} needs {foreign[0]}, which exists only in a process with Numba"
        )
    returned = result.signature.return_type
    single = not isinstance(returned, BaseTuple)
    numbers = () if returned == types.none else (returned,) if single else tuple(returned)
    return MachineCode(library._get_compiled_object(), name, "".join(_FORMATS[str(n)] for n in numbers), single)


def _entry(target: Any, description: Any, name: str) -> Any:
    """The module of a function that takes the arguments of another one from slots and calls it."""
    module = target.create_module(name)
    i32, slot = ir.IntType(32), ir.IntType(64)
    callee_type = target.call_conv.get_function_type(description.restype, description.argtypes)
    callee = ir.Function(module, callee_type, description.llvm_func_name)
    entry = ir.Function(module, ir.FunctionType(i32, [slot.as_pointer(), slot.as_pointer()]), name)
    builder = ir.IRBuilder(entry.append_basic_block())
    result_type, error_type, *argument_types = callee_type.args
    arguments = [
        builder.load(builder.bitcast(builder.gep(entry.args[0], [slot(number)]), kind.as_pointer()))
        for number, kind in enumerate(argument_types)
    ]
    error = builder.alloca(error_type.pointee)
    builder.ret(builder.call(callee, [builder.bitcast(entry.args[1], result_type), error, *arguments]))
    return module
