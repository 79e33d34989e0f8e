"""What runs the service: lanes of work, the documents store, metrics, reloads."""

from __future__ import annotations
