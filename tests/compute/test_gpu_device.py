"""The device from outside: what is missing, what it holds, and the kernels compiled for real architectures by NVRTC."""

from __future__ import annotations

import importlib.util
import itertools
from typing import Any

import fake_cupy
import numpy as np
import nvrtc
import pytest
from fake_cupy import FakeCupy, needs_compiler

import jose_embed
from jose_embed.compute import backends
from jose_embed.compute.gpu import device as gpu_device
from jose_embed.compute.gpu.backend import layout_of
from jose_embed.compute.gpu.device import Bundle, Device, Layout, open_device, resident_warps
from jose_embed.config import TrainConfig, preset_settings
from jose_embed.errors import DeviceError, MissingExtraError
from jose_embed.progress import SilentReporter

needs_nvrtc = pytest.mark.skipif(nvrtc.library() is None, reason="nvidia-cuda-nvrtc-cu12 is not installed")
COUNTS, OFFSETS = np.full(1000, 50), np.arange(0, 50_001, 100)


class Notes(SilentReporter):
    """Keeps what a person should see."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture
def no_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which CuPy is not installed."""
    real = importlib.util.find_spec
    monkeypatch.setattr(gpu_device, "find_spec", lambda name: None if name == "cupy" else real(name))


# ---- real architectures ---------------------------------------------------------------------------------------------

LAYOUTS = {
    "default": layout_of(TrainConfig()),
    "pairwise": layout_of(TrainConfig(**preset_settings("pairwise"))),
    "joint, 2 h": layout_of(TrainConfig(objective="joint", window=5, negatives=2, negative_step="reference")),
    "16 floats": layout_of(TrainConfig(dim=16)),
    "pairwise, a wide window": layout_of(TrainConfig(**preset_settings("pairwise") | {"window": 200})),
    "300 floats": layout_of(TrainConfig(dim=300)),
    "1,024 floats, joint": layout_of(TrainConfig(dim=1024, objective="joint", window=50)),
}


@needs_nvrtc
@pytest.mark.parametrize(
    ("which", "architecture"),
    [
        *itertools.product(("default", "pairwise", "joint, 2 h"), nvrtc.ARCHITECTURES),
        *itertools.product(
            ("pairwise, a wide window", "16 floats", "300 floats", "1,024 floats, joint"), nvrtc.ARCHITECTURES[:1]
        ),
    ],
)
def test_the_kernels_compile_without_a_warning_and_keep_rows_in_registers(which: str, architecture: str) -> None:
    found = nvrtc.compile_for(architecture, LAYOUTS[which])
    assert found.keys() == {"thin", "train", "merge", "write_directions"}
    for name, kernel in found.items():
        assert kernel.spilled_bytes <= (0 if LAYOUTS[which].row < 1024 else 100), name  # three such rows fill a lane
        assert 0 < kernel.registers <= 255, name
        assert kernel.shared_bytes <= 48 << 10, name
        # At least one is there at a time; where fewer than are started have room, the others wait for them.
        assert resident_warps(kernel.registers, kernel.shared_bytes, *nvrtc.LIMITS[architecture]) >= 1, name
    if which == "default":
        train = found["train"]
        assert resident_warps(train.registers, train.shared_bytes, *nvrtc.LIMITS[architecture]) >= 4


def test_rows_of_a_contrast_are_kept_in_shared_memory_where_they_fit() -> None:
    assert LAYOUTS["default"] == Layout(112, "joint", "paper", 4, 16, 64)
    assert LAYOUTS["pairwise"] == Layout(112, "pairwise", "paper", 12, 16, 64)
    assert LAYOUTS["pairwise"].staged_rows == 28
    assert LAYOUTS["joint, 2 h"] == Layout(112, "joint", "reference", 12, 4, 64)
    assert LAYOUTS["16 floats"].row == 16
    assert LAYOUTS["1,024 floats, joint"].staged_rows == 0
    assert layout_of(TrainConfig(objective="joint", window=1, negatives=1))[3:] == (4, 4, 64)
    # A wide window has a larger ring of words, a very wide one none.
    assert [layout_of(TrainConfig(window=window)).words for window in (16, 17, 112, 113, 1000)] == [64, 256, 256, 0, 0]


# ---- what is missing ------------------------------------------------------------------------------------------------


def test_without_cupy_the_gpu_is_refused_and_auto_says_what_it_took(no_cupy: None) -> None:
    with pytest.raises(MissingExtraError) as refusal:
        backends.check_backend("gpu")
    assert str(refusal.value) == (
        'the backend gpu (CuPy) needs packages that are not installed; run: pip install "jose-embed[gpu]"'
    )
    with pytest.raises(MissingExtraError, match="CuPy"):
        jose_embed.train(documents=["a b c"] * 5, backend="gpu")
    for name in ("auto", "cpu"):
        backends.check_backend(name)
    notes = Notes()
    assert backends.choose_backend(TrainConfig(workers=3), COUNTS, OFFSETS, notes) == "cpu"
    assert notes.notes == ["backend cpu, 3 workers (CuPy is not installed)"]
    assert backends.choose_backend(TrainConfig(backend="cpu"), COUNTS, OFFSETS, notes) == "cpu"
    assert len(notes.notes) == 1


@pytest.mark.parametrize("error", [RuntimeError("cudaErrorInsufficientDriver: too old\nand more"), OSError(), None])
def test_without_a_device_the_gpu_is_refused(error: Exception | None) -> None:
    cupy = FakeCupy(n_devices=0)
    if error is not None:

        def fail() -> int:
            raise error

        cupy.cuda.runtime.getDeviceCount = fail
    with fake_cupy.installed(cupy):
        with pytest.raises(DeviceError) as refusal:
            backends.check_backend("gpu")
        notes = Notes()
        assert backends.choose_backend(TrainConfig(workers=1), COUNTS, OFFSETS, notes) == "cpu"
    text = str(refusal.value)
    assert text.startswith("backend is gpu, but CuPy finds no CUDA device")
    assert text.endswith("; install the driver of a CUDA device, or use backend='cpu'")
    assert "\n" not in text
    if isinstance(error, RuntimeError):
        assert "(cudaErrorInsufficientDriver: too old)" in text
    assert notes.notes[0].startswith("backend cpu, 1 worker (CuPy finds no CUDA device")


def test_auto_takes_the_device_unless_threads_are_asked_for_or_the_model_has_no_room() -> None:
    with fake_cupy.installed(FakeCupy(free_bytes=1 << 29)):
        notes = Notes()
        assert backends.choose_backend(TrainConfig(), COUNTS, OFFSETS, notes) == "gpu"
        assert notes.notes[-1].startswith("backend gpu, Processor behind a shim: 24 documents at a time, 0.27 GB of ")
        assert backends.choose_backend(TrainConfig(workers=2), COUNTS, OFFSETS, notes) == "cpu"
        assert "workers=2 counts threads" in notes.notes[-1]
        many = np.full(400_000, 50)
        assert backends.choose_backend(TrainConfig(), many, OFFSETS, notes) == "cpu"
        assert "has 0.54 GB free" in notes.notes[-1]
        with pytest.raises(DeviceError) as refusal:
            backends.choose_backend(TrainConfig(backend="gpu"), many, OFFSETS, notes)
        assert str(refusal.value) == (
            "Processor behind a shim has 0.54 GB free of 1.07 GB, and the training needs 0.63 GB there (dim 100, "
            "400,000 words, 500 documents); lower dim, raise min_count, or use backend='cpu'"
        )
        assert backends.choose_backend(TrainConfig(backend="gpu", workers=7), COUNTS, OFFSETS, notes) == "gpu"
        assert len(notes.notes) == 3  # who names a backend needs no note


def test_memory_that_runs_out_is_told_with_numbers() -> None:
    with fake_cupy.installed(FakeCupy(free_bytes=10**6)) as cupy:
        bundle = Bundle(open_device())
        with pytest.raises(
            DeviceError, match=r"has no room for a chunk of the text: .* GB are needed, 0.00 GB of 1.07"
        ):
            bundle.pack(gpu_device.LINES, {}, {"tokens": np.zeros(10**6, np.int32)}, {})
        assert cupy.launches == []


def test_a_compiler_that_refuses_is_told_in_one_line() -> None:
    cupy = FakeCupy()

    def refuse(**_: Any) -> None:
        raise RuntimeError("nvrtc: error: invalid value for --gpu-architecture\nmany lines")

    cupy.RawModule = refuse  # type: ignore[method-assign]
    with fake_cupy.installed(cupy), pytest.raises(DeviceError) as refusal:
        open_device().kernels(Layout(16))
    assert str(refusal.value) == (
        "kernels.cu cannot be compiled for Processor behind a shim: nvrtc: error: invalid value for --gpu-architecture; "  # noqa: E501
        "use backend='cpu'"
    )


@needs_compiler
def test_occupancy_follows_from_registers_and_shared_memory() -> None:
    with fake_cupy.installed(FakeCupy()):
        device = open_device()
        kernel = device.kernels(Layout(16)).get_function("train")
        assert (device.name, device.capability, device.n_processors) == ("Processor behind a shim", (9, 0), 4)
        assert device.resident_warps(kernel) == 12
        assert device.most_warps == 64
        assert device.bandwidth == pytest.approx(3.35e12, rel=0.01)
    assert resident_warps(32, 0, 65536, 65536, 1024, 16) == 16
    assert resident_warps(32, 20_000, 65536, 65536, 1024, 16) == 3


# ---- a real device --------------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_a_device_compiles_the_kernels_and_moves_bytes() -> None:
    device = open_device()
    assert isinstance(device, Device)
    for layout in LAYOUTS.values():
        module = device.kernels(layout)
        assert 1 <= device.resident_warps(module.get_function("train")) <= device.most_warps
    array = np.random.default_rng(1).standard_normal((1000, 112)).astype(np.float32)
    assert np.array_equal(device.uploaded(array).get(), array)
