"""The version of the package that is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("jose-embed")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+unknown"
