"""The calls of the API, one file a subject; each file's ``router`` is put together in :mod:`service.app`."""

from __future__ import annotations
