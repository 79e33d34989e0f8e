"""The engine of the service: queues of work, the documents store, metrics, reloads."""

from __future__ import annotations
