"""The CUDA backend: device, kernels, directions of documents. CuPy is imported when a device is asked for."""

from __future__ import annotations
