"""The few names of CuPy that the GPU backend uses, on NumPy arrays; kernels are kernels.cu behind gpu_shim.h.

With :func:`installed` the whole backend runs end to end without a device: the host code as it is, the kernels compiled
by the host's compiler. Only what is listed here exists, so a call of anything else fails.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SHIM = Path(__file__).resolve().parent / "gpu_shim.h"
COMPILER = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler for the kernels (g++, c++ or clang++)")

#: What may run the kernels, as parameters of a fixture; see :func:`running_on`.
PLACES = [pytest.param("shim", marks=needs_compiler), pytest.param("device", marks=pytest.mark.gpu)]

_ROOMIEST = {"-DSTAGED": "-DSTAGED=32"}

PROPERTIES: dict[str, Any] = {
    "name": b"Processor behind a shim",
    "major": 9,
    "minor": 0,
    "multiProcessorCount": 4,
    "totalGlobalMem": 1 << 30,
    "regsPerMultiprocessor": 65536,
    "sharedMemPerMultiprocessor": 233472,
    "maxThreadsPerMultiProcessor": 2048,
    "maxBlocksPerMultiProcessor": 32,
}


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="jose-gpu-shim-")


@cache
def library(code: str, options: tuple[str, ...], lanes: int, extra: str = "") -> ctypes.CDLL:
    """kernels.cu as a library of the host, with warps of ``lanes`` lanes; ``extra`` is code that follows it.

    Options of the host's compiler may be among the others.
    """
    folder = Path(_folder().name) / str(abs(hash((code, options, lanes, extra))))
    folder.mkdir()
    source, target = folder / "kernels.cu", folder / "gpu.so"
    source.write_text(code + extra, encoding="utf-8")
    assert COMPILER is not None
    command = [COMPILER, "-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC"]
    command += ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    command += ["-include", str(SHIM), f"-DWARP={lanes}", *options, "-x", "c++", str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(target))


class Array:
    """cupy.ndarray: contiguous memory that no operator reaches."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        self.data = types.SimpleNamespace(ptr=values.ctypes.data)
        self.shape, self.dtype, self.nbytes = values.shape, values.dtype, values.nbytes

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        if arr.shape != self.shape or arr.dtype != self.dtype:
            raise TypeError(f"{arr.dtype} {arr.shape} does not fit {self.dtype} {self.shape}")
        self._values[...] = arr

    def get(self, stream: Any = None, order: str = "C", out: np.ndarray | None = None, blocking: bool = True) -> Any:
        if out is None:
            return self._values.copy()
        assert out.shape == self.shape
        assert out.dtype == self.dtype
        assert out.flags.c_contiguous
        out[...] = self._values
        return out

    def __getitem__(self, where: slice) -> Array:
        return Array(self._values[where])


class Stream:
    """cupy.cuda.Stream; everything is done at once."""

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False) -> None:
        pass

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def record(self) -> Stream:  # in the place of an event
        return self

    def wait_event(self, event: Stream) -> None:
        pass

    def synchronize(self) -> None:
        pass


class FakeCupy(types.ModuleType):
    """A module in the place of cupy.

    Args:
        lanes: Lanes of a warp: 1 for speed, 32 for what a device does.
        backwards: Lanes and warps take turns from the last to the first.
        free_bytes: Memory that arrays may take together.
        n_devices: Devices that are found.
        options: More for the host's compiler.
    """

    def __init__(
        self,
        lanes: int = 1,
        *,
        backwards: bool = False,
        free_bytes: int = 1 << 30,
        n_devices: int = 1,
        options: tuple[str, ...] = (),
    ) -> None:
        super().__init__("cupy")
        self.lanes, self.backwards, self.free_bytes = lanes, backwards, free_bytes
        self._options = options
        self.launches: list[tuple[str, int]] = []
        self._lock = threading.Lock()
        runtime = types.SimpleNamespace(
            getDeviceCount=lambda: n_devices,
            deviceGetAttribute=lambda attribute, number: {36: 2_619_000, 37: 5120}[attribute],
            getDeviceProperties=lambda number: dict(PROPERTIES),
            memGetInfo=lambda: (self.free_bytes, PROPERTIES["totalGlobalMem"]),
            deviceSynchronize=lambda: None,
        )
        self.cuda = types.SimpleNamespace(runtime=runtime, Stream=Stream, alloc_pinned_memory=bytearray)

    def empty(self, shape: Any, dtype: Any) -> Array:
        n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if n_bytes > self.free_bytes:
            raise MemoryError(f"out of memory allocating {n_bytes:,} bytes")
        raw = np.full(n_bytes + 256, 0xCC, np.uint8)  # whatever stood there
        start = -raw.ctypes.data % 256
        return Array(raw[start : start + n_bytes].view(dtype).reshape(shape))

    def zeros(self, shape: Any, dtype: Any) -> Array:
        made = self.empty(shape, dtype)
        made._values[...] = 0
        return made

    def RawModule(self, *, code: str, options: tuple[str, ...]) -> Any:  # noqa: N802 - CuPy's name
        assert code.isascii()  # NVRTC takes bytes
        if self.lanes == 1:  # room for the largest contrast, so that one library serves many settings
            options = tuple(_ROOMIEST.get(option.split("=")[0], option) for option in options)
        compiled = library(code, (*options, *self._options), self.lanes)

        def get_function(name: str) -> Any:
            kernel = getattr(compiled, name)

            def launch(grid: tuple[int], block: tuple[int], args: tuple[Array]) -> None:
                assert block == (32,)
                assert grid[0] > 0
                (data,) = args
                with self._lock:  # the fibres of a library are there once
                    self.launches.append((name, grid[0]))
                    stuck = compiled.launch(kernel, grid[0], ctypes.c_void_p(data.data.ptr), int(self.backwards))
                assert stuck == 0, "lanes of a warp wait for each other for ever"

            launch.num_regs, launch.shared_size_bytes = 168, 12352  # type: ignore[attr-defined]
            return launch

        return types.SimpleNamespace(get_function=get_function)


@contextmanager
def installed(cupy: FakeCupy) -> Iterator[FakeCupy]:
    """``import cupy`` gives this module."""
    import importlib.machinery
    import sys

    cupy.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
    before = sys.modules.get("cupy")
    sys.modules["cupy"] = cupy
    try:
        yield cupy
    finally:
        if before is None:
            del sys.modules["cupy"]
        else:
            sys.modules["cupy"] = before


@contextmanager
def running_on(place: str) -> Iterator[str]:
    """The GPU backend runs on one of :data:`PLACES`, whose name is given back."""
    if place == "device":
        yield place
    else:
        with installed(FakeCupy()):
            yield place
