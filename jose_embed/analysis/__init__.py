"""What is computed from a model: quality measures, tables of them, the model card."""

from __future__ import annotations
