"""The manifest of a model directory: what is in it, how it was made, and a sum over every byte."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from jose_embed.errors import ModelError
from jose_embed.mapped import DirectoryReader
from jose_embed.storage import FileFacts, file_name_is_safe

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "LARGEST_MANIFEST",
    "MANIFEST_NAME",
    "json_bytes",
    "json_copy",
    "manifest_checksum",
    "model_id",
    "read_manifest",
]

FORMAT: Final = "jose-embed"
FORMAT_VERSION: Final = 1
MANIFEST_NAME: Final = "manifest.json"
LARGEST_MANIFEST: Final = 16 << 20
_COUNT_NAMES: Final = ("n_words", "n_docs", "n_untrained", "n_tokens", "dim")


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


def model_id(files: Mapping[str, FileFacts], tokenizer: Mapping[str, Any]) -> str:
    """SHA-256 over all that answers depend on, the sums of the files and the tokenizer: equal models have equal ids."""
    facts = {"files": {name: facts["sha256"] for name, facts in files.items()}, "tokenizer": tokenizer}
    return hashlib.sha256(_canonical(facts)).hexdigest()


def manifest_checksum(manifest: Mapping[str, Any]) -> str:
    """SHA-256 over the manifest itself, without the field that holds it."""
    return hashlib.sha256(
        _canonical({name: value for name, value in manifest.items() if name != "checksum"})
    ).hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":"), default=_plain).encode("ascii")


def read_manifest(directory: DirectoryReader, *, verify: bool = False) -> dict[str, Any]:
    """The checked manifest of a model directory.

    Args:
        directory: The open directory.
        verify: Also compare it with its own checksum and id.

    Raises:
        ModelError: no manifest, not JSON, not of this format, of a newer version, or with a field that cannot be.
    """
    data = directory.read(MANIFEST_NAME, largest=LARGEST_MANIFEST)
    try:
        manifest = json.loads(data.decode("utf-8"), parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise directory.error(MANIFEST_NAME, f"is not JSON ({str(error)[:100]})") from None
    try:
        _check(manifest)
    except _NewerError as error:
        raise directory.error(MANIFEST_NAME, str(error), "update jose-embed") from None
    except ValueError as error:
        raise directory.error(MANIFEST_NAME, str(error)) from None
    if verify:
        sums = manifest_checksum(manifest), model_id(manifest["files"], manifest["tokenizer"])
        if (manifest.get("checksum"), manifest["id"]) != sums:
            raise directory.error(MANIFEST_NAME, "is damaged: its checksum or id does not match its contents")
    return dict(manifest)


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


class _NewerError(ValueError):
    """A manifest of a version that is not read yet."""


def _check(manifest: Any) -> None:
    """Passes where every field that reading relies on is of the right type; else the error says what is wrong."""
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f'is not the manifest of a model (it lacks "format": "{FORMAT}")')
    version = manifest.get("format_version")
    if type(version) is not int or version < 1:
        raise ValueError(f"has the format version {_shown(version)}; it must be a whole number from 1")
    if version > FORMAT_VERSION:
        raise _NewerError(
            f"has the format version {version}, newer than {FORMAT_VERSION}, the newest that this jose-embed reads"
        )
    for name, kind in _FIELDS.items():
        if not isinstance(manifest.get(name), kind):
            raise ValueError(
                f"has {_shown(manifest.get(name))} as {name!r}; it must be {'text' if kind is str else 'a mapping'}"
            )
    for name in _COUNT_NAMES:
        count = manifest["counts"].get(name)
        if type(count) is not int or not 0 <= count < 2**62:
            raise ValueError(f"has {_shown(count)} as counts.{name}; it must be a whole number from 0")
    for name in ("n_words", "dim"):
        if manifest["counts"][name] < 1:
            raise ValueError(f"has {manifest['counts'][name]} as counts.{name}; it must be a whole number from 1")
    tokenizer = manifest["tokenizer"]
    if not isinstance(tokenizer.get("name"), str) or not isinstance(tokenizer.get("settings"), dict):
        raise ValueError(f"has {_shown(tokenizer)} as 'tokenizer'; it must hold a name and settings")
    for name, facts in manifest["files"].items():
        if not file_name_is_safe(name) or name == MANIFEST_NAME:
            raise ValueError(f"lists the file {_shown(name)}, which is no plain file name")
        if (
            not isinstance(facts, dict)
            or type(facts.get("bytes")) is not int
            or not 0 <= facts["bytes"] < 2**62
            or not isinstance(facts.get("sha256"), str)
        ):
            raise ValueError(f"has {_shown(facts)} for the file {name}; it must hold its size in bytes and its sha256")


_FIELDS: Final[dict[str, type]] = {
    "package_version": str,
    "created": str,
    "id": str,
    "config": dict,
    "tokenizer": dict,
    "counts": dict,
    "files": dict,
    "training": dict,
    "corpus": dict,
}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
