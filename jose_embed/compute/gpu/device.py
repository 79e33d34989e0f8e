"""The CUDA device, as far as the backend needs it: whether there is one, what it holds, and kernels.cu compiled for it.

CuPy is imported here and nowhere else, when a device is asked for. Of CuPy, memory, streams and the compiler are used,
never its array arithmetic: that would want the headers of a whole CUDA toolkit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.compute.tables import DOCUMENT_BLOCK, LANES, PIECE
from jose_embed.errors import DeviceError, MissingExtraError

#: Kept words of a document that a warp takes at a time. A longer document is trained by several warps.
STRETCH = 1024
#: Lanes of a warp: the threads of a block.
WARP = 32

_CLOCK_RATE, _BUS_WIDTH = 36, 37  # of the memory, among CUDA's device attributes
_STATIC_SHARED_BYTES = 48 << 10  # what every architecture gives a block that does not ask for more
_RING = 64  # slots of the ring buffer of drawn negatives: two draws, and one of a warp
_SLOT_BYTES = 4 * (2 * LANES * 8 + LANES + _RING + WARP)  # struct Slots without rows and words


def _record(*fields: tuple[str, str]) -> np.dtype[Any]:
    return np.dtype(list(fields), align=True)


_POINTER, _FLOAT, _DOUBLE, _WHOLE, _LONG, _KEY = "u8", "f4", "f8", "i4", "i8", "u8"

#: struct Chunk of kernels.cu.
CHUNK = _record(
    *[(name, _POINTER) for name in ("center", "context", "document", "keep", "columns")],
    *[(name, _KEY) for name in ("n_words", "seed", "epoch", "first_document")],
    *[(name, _WHOLE) for name in ("n_copied", "n_copies")],
    *[(name, _FLOAT) for name in ("context_weight", "doc_weight", "margin")],
    *[(name, _WHOLE) for name in ("window", "negatives", "positions_per_draw", "doc_negatives")],
    *[(name, _POINTER) for name in ("tokens", "begins", "offsets", "documents", "pieces", "rates", "steps")],
    *[(name, _POINTER) for name in ("places", "stretches", "starts")],
    *[(name, _LONG) for name in ("n_documents", "n_stretches")],
    *[(name, _POINTER) for name in ("kept", "n_kept", "numbers", "next", "loss", "counts")],
)

#: struct Lines of kernels.cu.
LINES = _record(
    *[(name, _POINTER) for name in ("center", "context")],
    ("context_share", _DOUBLE),
    *[(name, _POINTER) for name in ("tokens", "offsets", "word_weights", "term_weights", "matrix")],
    *[(name, _LONG) for name in ("n_words", "n_documents")],
    *[(name, _WHOLE) for name in ("n_term_weights", "n_matrix")],
    *[(name, _POINTER) for name in ("occurrences", "next", "directions", "found")],
)


class Layout(NamedTuple):
    """The compile-time constants of the kernels.

    Attributes:
        row: Floats of a padded row.
        objective: "pairwise" or "joint".
        negative_step: "paper" or "reference".
        positives: The most positives of a contrast.
        negatives: The most negatives.
        words: Words of a document kept in shared memory, a power of two, or 0.
    """

    row: int
    objective: str = "pairwise"
    negative_step: str = "paper"
    positives: int = LANES
    negatives: int = LANES
    words: int = 64

    @property
    def staged_rows(self) -> int:
        """Rows of a contrast kept in shared memory: all of them, or none if they are too long."""
        n = self.positives + self.negatives
        taken = (n + 1) * self.row * 4 + self.words * 4 + _SLOT_BYTES
        return n if taken <= _STATIC_SHARED_BYTES else 0


def padded_dim(dim: int) -> int:
    """Floats of a row with its padding."""
    return -(-dim // LANES) * LANES


def kernel_source() -> str:
    """The text of kernels.cu."""
    return files("jose_embed.compute.gpu").joinpath("kernels.cu").read_text(encoding="utf-8")


def compiler_options(layout: Layout) -> tuple[str, ...]:
    """The macros that kernels.cu needs, as compiler options."""
    values = {
        "ROW": layout.row,
        "JOINT": int(layout.objective == "joint"),
        "PAPER": int(layout.negative_step == "paper"),
        "DOCUMENT_BLOCK": DOCUMENT_BLOCK,
        "PIECE": PIECE,
        "STRETCH": STRETCH,
        "RING": _RING,
        "STAGED": layout.staged_rows,
        "WORDS": layout.words,
    }
    return tuple(f"-D{name}={value}" for name, value in values.items())


def missing() -> str | None:
    """The reason why no GPU can be used here, as a clause; None if one can."""
    if find_spec("cupy") is None:
        return "CuPy is not installed"
    try:
        cupy = import_module("cupy")
        count = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:  # no driver, an old one, libraries that do not load: whatever it raises, it will not do
        return f"CuPy finds no CUDA device ({_first_line(error)})"
    return None if count else "CuPy finds no CUDA device"


def open_device() -> Device:
    """The CUDA device that comes first; ``CUDA_VISIBLE_DEVICES`` chooses another.

    Raises:
        MissingExtraError: CuPy is not installed.
        DeviceError: there is no device, or no driver for it.
    """
    reason = missing()
    if reason is None:
        return Device(import_module("cupy"))
    if find_spec("cupy") is None:
        raise MissingExtraError("the backend gpu (CuPy)", "gpu")
    raise DeviceError(f"backend is gpu, but {reason}; install the driver of a CUDA device, or use backend='cpu'")


class Device:
    """A CUDA device.

    Args:
        cupy: The module CuPy.

    Attributes:
        name: What its maker calls it.
        capability: Of its architecture, such as (9, 0).
        n_processors: Multiprocessors.
        memory_bytes: What it has.
        bandwidth: Peak bytes per second between it and its memory.
    """

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy
        facts: Mapping[str, Any] = cupy.cuda.runtime.getDeviceProperties(0)
        name = facts["name"]
        self.name = name.decode() if isinstance(name, bytes) else str(name)
        self.capability = (int(facts["major"]), int(facts["minor"]))
        self.n_processors = int(facts["multiProcessorCount"])
        self.memory_bytes = int(facts["totalGlobalMem"])
        # Two transfers per tick of a clock in kHz, on a bus whose width is in bits.
        attribute = cupy.cuda.runtime.deviceGetAttribute
        self.bandwidth = 250.0 * attribute(_CLOCK_RATE, 0) * attribute(_BUS_WIDTH, 0)
        self._registers = int(facts["regsPerMultiprocessor"])
        self._shared_bytes = int(facts["sharedMemPerMultiprocessor"])
        self._threads = int(facts["maxThreadsPerMultiProcessor"])
        self._blocks = int(facts.get("maxBlocksPerMultiProcessor", 16))

    @property
    def free_bytes(self) -> int:
        """Free bytes of the device memory."""
        return int(self.cupy.cuda.runtime.memGetInfo()[0])

    def kernels(self, layout: Layout) -> Any:
        """The compiled module: its ``get_function`` gives "thin", "train", "merge" and "write_directions".

        Raises:
            DeviceError: the compiler is missing or refuses.
        """
        try:
            module = self.cupy.RawModule(code=kernel_source(), options=compiler_options(layout))
            module.get_function("train")  # which compiles
        except Exception as error:  # CuPy has no one class for what can be amiss with its compiler
            why = _first_line(error)
            raise DeviceError(f"kernels.cu cannot be compiled for {self.name}: {why}; use backend='cpu'") from error
        return module

    def resident_warps(self, kernel: Any) -> int:
        """Warps of a kernel that one multiprocessor holds at a time, one per block; at most ``most_warps``."""
        return resident_warps(
            int(kernel.num_regs),
            int(kernel.shared_size_bytes),
            self._registers,
            self._shared_bytes,
            self._threads,
            self._blocks,
        )

    @property
    def most_warps(self) -> int:
        """Warps that a multiprocessor could hold of a kernel that needs nothing."""
        return self._threads // WARP

    @contextmanager
    def allocating(self, what: str, n_bytes: int) -> Iterator[None]:
        """Turn the lack of memory in a block of code into an error with its numbers.

        Raises:
            DeviceError: the device has no such room.
        """
        try:
            yield
        except MemoryError as error:
            raise DeviceError(
                f"{self.name} has no room for {what}: {gigabytes(n_bytes)} are needed, "
                f"{gigabytes(self.free_bytes)} of {gigabytes(self.memory_bytes)} are free; "
                "lower dim, raise min_count, or use backend='cpu'"
            ) from error

    def uploaded(self, array: npt.NDArray[Any]) -> Any:
        """A copy of a contiguous array on the device."""
        there = self.cupy.empty(array.shape, array.dtype)
        there.set(array)
        return there


class Bundle:
    """Arrays that travel to the device in one copy, and room for what is made there; used again for the next ones.

    Args:
        device: Where to.
    """

    def __init__(self, device: Device) -> None:
        self._cupy = device.cupy
        self._device = device
        self._room = 0
        self._here: npt.NDArray[np.uint8] = np.empty(0, np.uint8)
        self._there: Any = None
        self._copied_bytes = 0

    def pack(
        self,
        record: np.dtype[Any],
        values: Mapping[str, Any],
        arrays: Mapping[str, npt.NDArray[Any]],
        rooms: Mapping[str, tuple[type[np.generic], int]] | None = None,
        there: Mapping[str, tuple[type[np.generic], int]] | None = None,
    ) -> None:
        """Lay everything out: the record first, which points to all the rest.

        Args:
            record: A structure of kernels.cu.
            values: Its fields that are numbers, and pointers to arrays that are on the device already.
            arrays: Its fields that point to arrays which travel.
            rooms: Its fields that point to uninitialised memory: how many numbers of which type.
            there: Such room on the device alone: it cannot be fetched.
        """
        rooms, there = rooms or {}, there or {}
        place: dict[str, int] = {}
        at = _aligned(record.itemsize)
        for name, array in arrays.items():
            place[name], at = at, _aligned(at + array.nbytes)
        self._copied_bytes = at
        here = at
        for name, (kind, size) in (*rooms.items(), *there.items()):
            place[name], at = at, _aligned(at + size * np.dtype(kind).itemsize)
            here = at if name in rooms else here
        self._reserve(here, at)
        base = int(self._there.data.ptr)
        head = np.zeros((), record)
        for name in record.names or ():
            head[name] = values[name] if name in values else base + place[name]
        self._here[: record.itemsize] = np.frombuffer(head.tobytes(), np.uint8)
        for name, array in arrays.items():
            where = slice(place[name], place[name] + array.nbytes)
            self._here[where] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        kinds: dict[str, tuple[Any, int]] = {name: (array.dtype, array.size) for name, array in arrays.items()}
        self._places = {name: (place[name], *kind) for name, kind in {**kinds, **rooms}.items()}

    @property
    def there(self) -> Any:
        """The record on the device: what a kernel is given."""
        return self._there

    def send(self, stream: Any) -> None:
        """Start the copy."""
        self._there[: self._copied_bytes].set(self._here[: self._copied_bytes], stream=stream)

    def fetch(self, name: str, stream: Any) -> None:
        """Start the copy back of a field's numbers."""
        where = self._where(name)
        self._there[where].get(stream=stream, out=self._here[where], blocking=False)

    def result(self, name: str) -> npt.NDArray[Any]:
        """What :meth:`fetch` has brought, once its stream has got there, in one dimension; a view."""
        return self._here[self._where(name)].view(self._places[name][1])

    def _where(self, name: str) -> slice:
        at, kind, size = self._places[name]
        return slice(at, at + size * np.dtype(kind).itemsize)

    def _reserve(self, here: int, there: int) -> None:
        """Memory for this number of bytes on host and device; a quarter more if it has to grow."""
        room = there + there // 4
        with self._device.allocating("a chunk of the text", room):
            if there > self._room:
                self._there = None
                self._there = self._cupy.empty((room,), np.uint8)
                self._room = room
            if here > len(self._here):
                more = here + here // 4
                self._here = np.frombuffer(self._cupy.cuda.alloc_pinned_memory(more), np.uint8, more)


@cache
def resident_warps(
    registers: int, shared_bytes: int, all_registers: int, all_shared_bytes: int, threads: int, blocks: int
) -> int:
    """How many warps of a kernel a multiprocessor holds at a time, one warp to a block.

    Registers are given out by 256 to a warp, shared memory by 128 bytes and with 1 kB on top, which the newer
    architectures take for themselves.

    Args:
        registers: Of a thread.
        shared_bytes: Of a block.
        all_registers: Of the multiprocessor.
        all_shared_bytes: Likewise.
        threads: The most it can hold.
        blocks: Likewise.

    Example:
        >>> resident_warps(168, 13248, 65536, 228 << 10, 2048, 32)
        12
    """
    by_registers = all_registers // max(256, -(-registers * WARP // 256) * 256)
    by_shared = all_shared_bytes // (-(-shared_bytes // 128) * 128 + 1024)
    return min(by_registers, by_shared, threads // WARP, blocks)


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // 256) * 256


def gigabytes(n_bytes: float) -> str:
    """An amount of memory, in words."""
    return f"{n_bytes / 1e9:.2f} GB"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
