"""NVIDIA's run-time compiler from its wheel, which needs no device: what becomes of kernels.cu in CuPy's hands."""

from __future__ import annotations

import ctypes
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from jose_embed.compute.gpu.device import Layout, compiler_options, kernel_source

#: Architectures that the kernels are compiled for: T4, A100, H100 and their likes.
ARCHITECTURES = ("sm_75", "sm_80", "sm_90")

# Of a multiprocessor: 32-bit registers, bytes of shared memory, threads, blocks.
LIMITS = {
    "sm_75": (65536, 64 << 10, 1024, 16),
    "sm_80": (65536, 164 << 10, 2048, 32),
    "sm_90": (65536, 228 << 10, 2048, 32),
}


class Compiled(NamedTuple):
    """What ptxas says of a kernel.

    Attributes:
        registers: Of a thread.
        shared_bytes: Of a block.
        spilled_bytes: Registers that found no room.
    """

    registers: int
    shared_bytes: int
    spilled_bytes: int


@cache
def library() -> ctypes.CDLL | None:
    """libnvrtc from the wheel nvidia-cuda-nvrtc-cu12, or None where it is not installed."""
    try:
        found = find_spec("nvidia.cuda_nvrtc")
    except ModuleNotFoundError:
        return None
    places = list(found.submodule_search_locations or ()) if found else []
    names = [
        name for place in places for name in sorted(Path(place).glob("lib/libnvrtc.so.*")) if "alt" not in name.name
    ]
    return ctypes.CDLL(str(names[0])) if names else None


def compile_for(architecture: str, layout: Layout) -> dict[str, Compiled]:
    """The kernels of kernels.cu by name, compiled for an architecture down to machine code.

    Raises:
        AssertionError: the compiler refuses or warns, with its words.
    """
    nvrtc = library()
    assert nvrtc is not None
    program = ctypes.c_void_p()
    source = kernel_source().encode()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", 0, None, None) == 0
    options = [f"--gpu-architecture={architecture}", "--std=c++17", "-Xptxas", "-v"]
    encoded = [option.encode() for option in (*options, *compiler_options(layout))]
    refused = nvrtc.nvrtcCompileProgram(program, len(encoded), (ctypes.c_char_p * len(encoded))(*encoded))
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    text = log.value.decode()
    assert refused == 0, text
    assert "warning" not in text, text
    assert nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)) == 0
    assert size.value > 1000
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return {
        name: _facts(part) for name, part in re.findall(r"entry function '(\w+)'(.*?)(?=Compiling|\Z)", text, re.DOTALL)
    }


def _facts(text: str) -> Compiled:
    def number(pattern: str) -> int:
        found = re.search(pattern, text)
        return int(found[1]) if found else 0

    spilled = number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads")
    return Compiled(number(r"Used (\d+) registers"), number(r"(\d+) bytes smem"), spilled)
