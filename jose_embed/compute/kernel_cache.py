"""Machine code of kernels on disk, so that a process compiles nothing that another one has compiled.

An entry is one file, named by a hash of all that the machine code depends on: the sources of this package, the kernel
and the types of its arguments, the versions of Numba, llvmlite and Python, Numba's environment variables, the
processor's name and features. So an edit of any source makes other names, also of a helper in another file. A file
begins with the hash of the rest: a damaged or truncated one is compiled anew. It appears whole, by a rename: any number
of processes may read and write at once. If the directory cannot be written to, every process compiles for itself.

``JOSE_CACHE_DIR`` names another directory than the platform's; ``JOSE_CACHE_DIR=off`` keeps nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import secrets
import stat
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs
from llvmlite import binding

#: The most that all entries together may take; the oldest go first.
MOST_BYTES = 32_000_000

_DAY = 86_400.0
_HASH_BYTES = 32
_PACKAGE = Path(__file__).resolve().parent.parent


class MachineCode(NamedTuple):
    """A compiled kernel.

    Attributes:
        code: An object file for this processor.
        name: The function in it: ``int32 name(int64 *arguments, void *result)``; it returns 0 if nothing failed.
        result: The struct format of the result, empty if there is none.
        single: Whether the result is one number and no tuple.
    """

    code: bytes
    name: str
    result: str
    single: bool


def loaded(machine: MachineCode) -> tuple[Any, int]:
    """The object file in memory, ready to run.

    Returns:
        What must stay alive as long as it may be called, and the function's address.
    """
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_triple(binding.get_process_triple())
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), target.create_target_machine(jit=True))
    engine.add_object_file(binding.ObjectFileRef.from_data(machine.code))
    engine.finalize_object()
    return engine, engine.get_function_address(machine.name)


def key(kernel: str, types: Any) -> str:
    """The name of an entry.

    Args:
        kernel: Name and variant of the kernel.
        types: The types of its arguments, as a value with a ``repr`` that says all.
    """
    return hashlib.sha256(repr((_environment(), kernel, types)).encode()).hexdigest()[:32]


def directory() -> Path | None:
    """The directory of the entries, which need not exist; None if no entries are kept."""
    named = os.environ.get("JOSE_CACHE_DIR", "")
    if named == "off" or not (_PACKAGE / "compute" / "kernel_cache.py").is_file():  # an archive: no sources to hash
        return None
    path = Path(named or platformdirs.user_cache_path("jose-embed", appauthor=False))
    return path.absolute() if named or path.is_absolute() else None  # a user without a home directory


def usable_directory() -> Path | None:
    """The directory, which exists and to which nobody else writes; None if there is none. It may be read-only."""
    path = directory()
    try:
        if path is not None:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            return path if _trusted(path) else None
    except OSError:
        pass
    return None


def read(name: str) -> MachineCode | None:
    """The entry of this name, None if there is none or it is damaged."""
    path = directory()
    if path is None:
        return None
    try:
        if not _trusted(path):
            return None
        with open(path / f"{name}.kernel", "rb") as file:
            data = file.read()
            if time.time() - os.fstat(file.fileno()).st_mtime > _DAY:
                with contextlib.suppress(OSError):
                    os.utime(path / f"{name}.kernel")  # in use: the oldest go first
    except OSError:
        return None
    header, _, code = data[_HASH_BYTES:].partition(b"\n")
    if hashlib.sha256(data[_HASH_BYTES:]).digest() != data[:_HASH_BYTES]:
        return None
    return MachineCode(code, **json.loads(header))


def write(name: str, machine: MachineCode) -> None:
    """Keep an entry, and remove the oldest ones if all together are too large; does nothing if that is not possible."""
    path = usable_directory()
    if path is None:
        return
    header = json.dumps({"name": machine.name, "result": machine.result, "single": machine.single})
    rest = header.encode() + b"\n" + machine.code
    temporary = path / f"{name}.{secrets.token_hex(4)}.tmp"
    with contextlib.suppress(OSError):
        try:
            temporary.write_bytes(hashlib.sha256(rest).digest() + rest)
            os.replace(temporary, path / f"{name}.kernel")
        finally:
            temporary.unlink(missing_ok=True)
        _tidy(path)


def _tidy(path: Path) -> None:
    """Remove the oldest entries above the bound, and files of processes that were killed while they wrote."""
    facts = []
    for entry in os.scandir(path):
        if entry.name.endswith((".kernel", ".tmp")):
            with contextlib.suppress(OSError):  # another process removed it
                facts.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
    total = 0
    for modified, size, name in sorted(facts, reverse=True):
        total += size
        if total > MOST_BYTES or (name.endswith(".tmp") and time.time() - modified > _DAY):
            with contextlib.suppress(OSError):
                os.unlink(name)


def _trusted(path: Path) -> bool:
    """Whether nobody else can have put code there."""
    facts = os.stat(path)
    if not hasattr(os, "getuid"):
        return True
    return facts.st_uid in (0, os.getuid()) and not facts.st_mode & stat.S_IWOTH


@cache
def _environment() -> tuple[Any, ...]:
    """The facts that the machine code of all kernels depends on."""
    sources = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        data = path.read_bytes()
        sources.update(f"{path.relative_to(_PACKAGE).as_posix()} {len(data)}\n".encode() + data)
    return (
        sources.hexdigest(),
        version("numba"),
        version("llvmlite"),
        version("numpy"),
        platform.python_implementation(),
        platform.python_version(),
        platform.machine(),
        platform.system(),
        binding.get_host_cpu_name(),
        binding.get_host_cpu_features().flatten(),
        sorted(item for item in os.environ.items() if item[0].startswith("NUMBA_")),
    )
