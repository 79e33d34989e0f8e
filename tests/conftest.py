"""What every test may rely on: the marks ``shared_data`` and ``gpu``, Hypothesis settings for a busy machine."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get("JOSE_SHARED_DATA", ROOT.parent / "shared" / "data"))

# No deadline: a first call may compile. No check of the time that examples take. No database: a run leaves nothing
# behind and depends on nothing before it. The same examples in every run; `pytest --hypothesis-profile=random` draws
# others.
settings.register_profile(
    "random", deadline=None, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("house", settings.get_profile("random"), derandomize=True)
settings.load_profile("house")


def _missing_gpu() -> str | None:
    """Why the GPU tests cannot run here, or None where they can."""
    try:
        import cupy
    except ImportError:
        return 'CuPy is not installed (pip install "jose-embed[gpu]")'
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # the driver is missing or does not fit: whatever it raises, there is no device
        return f"no CUDA device: {error}"
    return None if count else "no CUDA device"


def pytest_configure(config: pytest.Config) -> None:
    # Kernels are compiled once for the whole run and all programs that it starts, and nothing is left behind.
    if "JOSE_CACHE_DIR" not in os.environ:
        kernels = tempfile.TemporaryDirectory(prefix="jose-kernels-")
        os.environ["JOSE_CACHE_DIR"] = kernels.name
        config.add_cleanup(kernels.cleanup)
    # A test run that was put into the background ignores SIGINT, and so would every program it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not SHARED_DATA.is_dir():
        reason = f"the development corpora are not here ({SHARED_DATA}; JOSE_SHARED_DATA may name another place)"
        for item in items:
            if item.get_closest_marker("shared_data"):
                item.add_marker(pytest.mark.skip(reason=reason))
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_items and (reason_gpu := _missing_gpu()):
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason=reason_gpu))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the development corpora; a test that uses it carries ``@pytest.mark.shared_data``."""
    return SHARED_DATA
