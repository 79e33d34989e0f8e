"""Compiled work on arrays. Nothing here knows text or models."""

from __future__ import annotations
