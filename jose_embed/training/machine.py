"""Facts about the machine and the packages of a training."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from jose_embed.config import available_workers

_PACKAGES = ("numpy", "numba", "llvmlite")


def machine_facts() -> dict[str, Any]:
    """The processor, the memory, the system and the package versions.

    Returns:
        ``cpu`` (the processor's name), ``cores`` (that this process may use), ``memory_bytes`` (None if unknown),
        ``os``, ``python``, and ``packages`` (versions by name).

    Example:
        >>> sorted(machine_facts())
        ['cores', 'cpu', 'memory_bytes', 'os', 'packages', 'python']
    """
    return {
        "cpu": _processor(),
        "cores": available_workers(),
        "memory_bytes": _memory_bytes(),
        "os": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: found for name in _PACKAGES if (found := _version(name)) is not None},
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in ("model name", "Model", "Hardware") and value.strip():
                    return " ".join(value.split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
