"""From files to integers: sources, readers, tokenizers, vocabulary, encoded corpus."""

from __future__ import annotations
