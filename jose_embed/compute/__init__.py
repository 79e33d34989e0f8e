"""Compiled work on arrays, independent of text and models."""

from __future__ import annotations
