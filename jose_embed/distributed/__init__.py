"""Training and embedding on several machines, run by Ray; see README.md in this folder."""

from __future__ import annotations
