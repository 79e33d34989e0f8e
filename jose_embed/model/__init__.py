"""A trained model: its files, its queries, inference for new documents, exchange formats."""

from __future__ import annotations
