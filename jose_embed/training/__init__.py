"""From an encoded corpus to a model."""

from __future__ import annotations
