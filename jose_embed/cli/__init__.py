"""The programs ``jose`` and ``jose-train``, one file a command."""

from __future__ import annotations
