"""Bytes on disk: atomic files and directories, locks, manifests, columns of text, memory that is given back."""

from __future__ import annotations
