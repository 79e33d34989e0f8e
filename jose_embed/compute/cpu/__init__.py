"""The CPU backend: the Numba kernel, its vector instructions, directions of documents."""

from __future__ import annotations
