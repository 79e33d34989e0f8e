"""Interfaces of other libraries. A module here imports its library; nothing else of the package imports the module."""

from __future__ import annotations
