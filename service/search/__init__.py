"""Search: the served model, its index, the library of documents, queries."""

from __future__ import annotations
