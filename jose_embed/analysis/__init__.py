"""Quality measures of a model, tables of them, topics, the model card."""

from __future__ import annotations
