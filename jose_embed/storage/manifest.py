"""The manifest of a model directory: what is in it, how it was made, and a sum over every byte."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from jose_embed.errors import ModelError

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "LARGEST_MANIFEST",
    "MANIFEST_NAME",
    "json_bytes",
    "json_copy",
    "manifest_checksum",
]

FORMAT: Final = "jose-embed"
FORMAT_VERSION: Final = 1
MANIFEST_NAME: Final = "manifest.json"
LARGEST_MANIFEST: Final = 16 << 20


def json_bytes(value: Any, what: str, *, indent: int | None = 2) -> bytes:
    """A value as the UTF-8 JSON of a file; NumPy numbers are taken as numbers.

    Raises:
        ModelError: a value that JSON does not have, such as a NaN.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, default=_plain)
        try:
            return text.encode("utf-8") + b"\n"
        except UnicodeEncodeError:  # a lone surrogate, as in the name of a file that is not UTF-8
            return json.dumps(value, allow_nan=False, indent=indent, default=_plain).encode("ascii") + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{what} cannot be written as JSON ({error}); use text, finite numbers, lists and mappings"
        ) from None


def json_copy(value: Any, what: str) -> Any:
    """A value as it will be read back from JSON: NumPy numbers as numbers, tuples as lists.

    Raises:
        ModelError: as :func:`json_bytes`.
    """
    return json.loads(json_bytes(value, what, indent=None))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} is not a JSON value")


def manifest_checksum(manifest: Mapping[str, Any]) -> str:
    """SHA-256 over the manifest itself, without the field that holds it."""
    return hashlib.sha256(
        _canonical({name: value for name, value in manifest.items() if name != "checksum"})
    ).hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":"), default=_plain).encode("ascii")
