"""The choice of a backend: the processor (cpu/backend.py) or a CUDA device (gpu/backend.py).

Only the chosen one is imported. ``backend="gpu"`` without a usable GPU is an error, never a training on the processor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

from jose_embed.compute.cpu.directions import CpuDirections
from jose_embed.compute.tables import ChunkResult, DocumentInputs
from jose_embed.config import TrainConfig
from jose_embed.errors import ConfigError, DeviceError, JoseError
from jose_embed.progress import Reporter

if TYPE_CHECKING:
    from jose_embed.compute.cpu.backend import CpuBackend
    from jose_embed.compute.gpu.backend import GpuBackend
    from jose_embed.compute.sampling import SamplingTables
    from jose_embed.compute.tables import Tables, Text

#: The values of a ``backend`` argument.
BACKENDS = ("auto", "cpu", "gpu")

Chosen = Literal["cpu", "gpu"]

#: Writes the directions of documents: tokens int32 (n_tokens,), offsets int64 (n_documents + 1,), out float32.
Writer = Callable[[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.float32]], None]


def check_backend(name: str) -> None:
    """Check that this backend can run on this machine; "auto" always can.

    Raises:
        MissingExtraError: "gpu" without CuPy.
        DeviceError: "gpu" without a device or its driver.
    """
    if name == "gpu":
        from jose_embed.compute.gpu.device import open_device

        open_device()


def is_for_the_cpu(config: TrainConfig) -> bool:
    """Whether the settings need the CPU, which "auto" then is.

    Raises:
        ConfigError: they do, and the backend is "gpu".
    """
    needs = {
        ("continue_from", ""): config.continue_from,
        ("init_pull", ", or init_pull=0 to only start from init"): config.init and config.init_pull,
        (f"objective={config.objective!r}", ", or objective='joint'"): config.objective in ("smooth", "cross-entropy"),
        ("isotropy", ", or isotropy=0"): config.isotropy,
    }
    found = [names for names, is_set in needs.items() if is_set]
    if found and config.backend == "gpu":
        raise ConfigError(f"{found[0][0]} needs the CPU; choose backend='cpu'{found[0][1]}")
    return bool(found)


def choose_backend(
    config: TrainConfig,
    counts: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    reporter: Reporter,
) -> Chosen:
    """The backend that a training takes: "cpu" or "gpu".

    "auto" is the GPU if there is one on which the model fits and ``workers`` is 0: a number of workers means
    threads to a user who sets it. What "auto" took, and why, is noted.

    Args:
        config: The settings.
        counts: int64 (n_words,), how often each word occurs.
        offsets: int64 (n_documents + 1,).
        reporter: Receives notes about the choice.

    Raises:
        MissingExtraError: "gpu" without CuPy.
        DeviceError: "gpu" without a device, or on one without room for the model; with the numbers.
        ConfigError: "gpu" with settings that need the CPU.
    """
    if is_for_the_cpu(config) or config.backend == "cpu":
        return "cpu"
    try:
        reason = _why_not(config)
        found = "" if reason else _fitting(config, counts, offsets)
    except JoseError as error:
        if config.backend == "gpu":
            raise
        reason, found = str(error), ""
    if config.backend == "auto":
        workers = config.resolved_workers()
        on_cpu = f"backend cpu, {workers} worker{'s' if workers != 1 else ''} ({reason})"
        reporter.note(on_cpu if reason else f"backend gpu, {found}")
    return "cpu" if reason else "gpu"


def make_backend(
    name: str,
    text: Text,
    samples: SamplingTables,
    tables: Tables,
    config: TrainConfig,
    total_tokens: int,
    counts: npt.NDArray[np.int64],
    first_document: int = 0,
) -> CpuBackend | GpuBackend:
    """The backend of this name; the arguments are those of :class:`jose_embed.compute.gpu.backend.GpuBackend`."""
    if name == "gpu":
        from jose_embed.compute.gpu.backend import GpuBackend

        return GpuBackend(text, samples, tables, config, total_tokens, counts, first_document)
    from jose_embed.compute.cpu import backend as cpu

    return cpu.CpuBackend(text, samples, tables, config, total_tokens, first_document)


def directions_writer(name: str, inputs: DocumentInputs, *, threads: int = 1) -> Writer:
    """The function that sums documents: on the processor, or with the same bytes on a CUDA device.

    Args:
        name: "cpu", "gpu", or "auto" for the GPU if there is one with room for the words.
        inputs: The words' vectors and weights.
        threads: Most threads that sum on the processor.

    Raises:
        MissingExtraError: "gpu" without CuPy.
        DeviceError: "gpu" without a device, or on one without room.
    """
    if name not in BACKENDS:
        raise ConfigError(f"backend is {name!r}; it must be one of {', '.join(BACKENDS)}")
    if name != "cpu":
        from jose_embed.compute.gpu.device import missing

        if name == "gpu" or missing() is None:
            try:
                from jose_embed.compute.gpu.directions import GpuDirections

                return GpuDirections(inputs).write
            except DeviceError:
                if name == "gpu":
                    raise

    return CpuDirections(inputs, threads).write


def _why_not(config: TrainConfig) -> str:
    """The reason why "auto" does not take the GPU, apart from its memory; empty if there is none."""
    if config.backend != "auto":
        return ""
    from jose_embed.compute.gpu.device import missing

    reason = missing()
    if reason is None and config.workers:
        return f"workers={config.workers} counts threads; backend='gpu' trains that many documents at a time"
    return reason or ""


def _fitting(config: TrainConfig, counts: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> str:
    """The device and what it will do, in words.

    Raises:
        DeviceError: the model has no room there.
    """
    from jose_embed.compute.gpu.backend import documents_in_flight, needed_bytes
    from jose_embed.compute.gpu.device import gigabytes, open_device

    device = open_device()
    longest = int(np.diff(offsets).max(initial=0))
    needed = needed_bytes(config, len(counts), len(offsets) - 1, longest, int(offsets[-1]))
    free = device.free_bytes
    if needed > free:
        raise DeviceError(
            f"{device.name} has {gigabytes(free)} free of {gigabytes(device.memory_bytes)}, and the training needs "
            f"{gigabytes(needed)} there (dim {config.dim}, {len(counts):,} words, {len(offsets) - 1:,} documents); "
            "lower dim, raise min_count, or use backend='cpu'"
        )
    n = documents_in_flight(config, counts, device.n_processors)
    return f"{device.name}: {n:,} documents at a time, {gigabytes(needed)} of {gigabytes(free)} free there"


class Backend(Protocol):
    """The part of a training that moves the vectors.

    Attributes:
        name: "cpu" or "gpu".
        workers: Documents that are trained at a time; stored with the model.
        threads: Threads of this process that may call :meth:`train_chunk` at a time.
        chunk_limits: The fewest and the most running words that are worth a call, see :func:`schedule.chunk_tokens`.
    """

    name: str
    workers: int
    threads: int
    chunk_limits: tuple[int, int]

    def prepare(self) -> None:
        """Do what has to be done once, such as compiling."""

    def collect(self) -> None:
        """Bring the vectors into the tables that the backend was given, wherever they moved; no chunk is running."""

    def load(self) -> None:
        """Take the vectors of words from the tables, where they were changed meanwhile; no chunk is running."""

    def train_chunk(self, documents: npt.NDArray[np.int64], epoch: int, first_token: int) -> ChunkResult:
        """Train these documents in this order. ``first_token``: the running words of all epochs that came before."""
