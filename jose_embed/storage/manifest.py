"""Manifests: the JSON file of a container directory that says what is in it, with a checksum of every byte.

Models, encoded corpora and checkpoints are containers: a directory of plain files and a manifest with

- ``format`` and ``format_version``, as in :class:`~jose_embed.storage.directory.DirectoryKind`;
- ``files``: size and SHA-256 of every other file;
- ``checksum``: SHA-256 over the manifest without this field;
- fields of the format, each with a :class:`Rule`.

Figures of quality are a manifest without files. All are read by :func:`read_manifest`, which checks every field before
anything uses it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from jose_embed.errors import ModelError
from jose_embed.progress import Reporter, SilentReporter
from jose_embed.storage.atomic import FileFacts, file_name_is_safe
from jose_embed.storage.directory import DirectoryKind, DirectoryReader

MANIFEST_NAME: Final = "manifest.json"
_LARGEST: Final = 16 << 20  # bytes of a manifest
_LONGEST_NUMBER: Final = 24  # characters that a float64 needs
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"


class Rule(NamedTuple):
    """The rule for the value of a manifest's field.

    Attributes:
        test: Whether a value is that.
        what: The same in words: "it must be" ...
    """

    test: Callable[[Any], bool]
    what: str


def _is_time(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(datetime.datetime.strptime(f"{value}+0000", f"{_TIME_FORMAT}%z"))
    except ValueError:
        return False


TEXT: Final = Rule(lambda value: isinstance(value, str), "text")
MAPPING: Final = Rule(lambda value: isinstance(value, dict), "a mapping")
TIME: Final = Rule(_is_time, "a time such as 2026-01-31T23:59:00Z")


def whole_number(least: int = 0, most: int = 2**62 - 1) -> Rule:
    """A whole number from ``least`` to ``most``.

    Example:
        >>> [whole_number(1).test(value) for value in (0, 1, 1.0, True, 2**62)]
        [False, True, False, False, False]
    """
    return Rule(lambda value: type(value) is int and least <= value <= most, f"a whole number from {least}")


def one_of_pattern(pattern: str, what: str) -> Rule:
    """Text that a regular expression matches as a whole."""
    return Rule(lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None, what)


def now() -> str:
    """The time, as manifests have it."""
    return datetime.datetime.now(datetime.UTC).strftime(_TIME_FORMAT)


def json_bytes(value: Any, what: str, *, indent: int | None = 2, raw_names: bool = False) -> bytes:
    """A value as the UTF-8 JSON of a file; NumPy numbers become numbers.

    Args:
        value: The value.
        what: What it is, for the error.
        indent: Spaces per level; None for one line.
        raw_names: Keep lone surrogates, which stand for bytes of file names that are not UTF-8, as JSON escapes.
            Otherwise they become text: a backslash, ``u`` and four digits.

    Raises:
        ModelError: a value that JSON does not have, such as a NaN.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{what} cannot be written as JSON ({error}); use text, finite numbers, lists and mappings"
        ) from None
    escape = "\\u%04x" if raw_names else "\\\\u%04x"
    return _SURROGATE.sub(lambda found: escape % ord(found[0]), text).encode("utf-8") + b"\n"


def json_copy(value: Any, what: str) -> Any:
    """A value as it will be read back from JSON: NumPy numbers as numbers, tuples as lists.

    Raises:
        ModelError: as :func:`json_bytes`.
    """
    return json.loads(json_bytes(value, what, indent=None))


def canonical_json(value: Any) -> bytes:
    """One JSON text for equal values: ASCII, sorted keys, no spaces."""
    return json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":"), default=_plain).encode("ascii")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} is not a JSON value")


def manifest_checksum(manifest: Mapping[str, Any]) -> str:
    """SHA-256 over the manifest without the field that holds it."""
    facts = {name: value for name, value in manifest.items() if name != "checksum"}
    return hashlib.sha256(canonical_json(facts)).hexdigest()


def sealed(kind: DirectoryKind, facts: Mapping[str, Any], files: Mapping[str, FileFacts]) -> dict[str, Any]:
    """The manifest of a container: format and version first, then the facts, the files, and the checksum.

    Facts become what they will be when they are read back.
    """
    head = {"format": kind.format, "format_version": kind.version}
    manifest: dict[str, Any] = json_copy({**head, **facts, "files": dict(files)}, kind.manifest)
    manifest["checksum"] = manifest_checksum(manifest)
    return manifest


# ------------------------------------------------------------------------------------------------------------- reading


def read_manifest(
    directory: DirectoryReader,
    rules: Mapping[str, Rule],
    optional: Mapping[str, Rule] | None = None,
    *,
    has_files: bool = True,
    newer: str = "update jose-embed",
) -> dict[str, Any]:
    """The checked manifest of a container.

    Args:
        directory: The open directory; its kind names the manifest, the format and the newest version that is read.
        rules: What each field must be; ``"counts.dim"`` is a field of a field.
        optional: The same for fields that may be missing.
        has_files: Whether the manifest lists files and has a checksum.
        newer: What to do about a newer version.

    Raises:
        JoseError: of the directory's kind: no manifest, not JSON, of another format, of a newer version, with a field
            that is not what it must be, or with a wrong checksum.
    """
    manifest = open_manifest(directory, has_files=has_files)
    check_manifest(directory, manifest, rules, optional, has_files=has_files, newer=newer)
    return manifest


def open_manifest(directory: DirectoryReader, *, has_files: bool = True) -> dict[str, Any]:
    """The manifest of a container of the directory's kind; of its fields only ``format`` is checked.

    Args:
        directory: The open directory.
        has_files: Whether the manifest describes the whole directory, and not only itself.

    Raises:
        JoseError: of the directory's kind.
    """
    kind = directory.kind
    value = _strict_json(directory, kind.manifest)
    manifest: dict[str, Any] = value if isinstance(value, dict) else {}
    found = manifest.get("format")
    if found != kind.format:
        other = "" if found is None else f", but has {_shown(found)}"
        what = f'lacks "format": "{kind.format}"{other}'
        raise directory.not_one(f"its {kind.manifest} {what}") if has_files else directory.error(kind.manifest, what)
    return manifest


def check_manifest(
    directory: DirectoryReader,
    manifest: Mapping[str, Any],
    rules: Mapping[str, Rule],
    optional: Mapping[str, Rule] | None = None,
    *,
    has_files: bool = True,
    newer: str = "update jose-embed",
) -> None:
    """Check the version, the fields, the list of files and the checksum; arguments as for :func:`read_manifest`.

    Raises:
        JoseError: of the directory's kind.
    """
    kind = directory.kind
    version = manifest.get("format_version")
    if type(version) is not int or version < 1:
        what = f"has the format version {_shown(version)}; it must be a whole number from 1"
        raise directory.error(kind.manifest, what)
    if version > kind.version:
        what = f"has the format version {version}, newer than {kind.version}, the newest that this jose-embed reads"
        raise directory.error(kind.manifest, what, newer)
    present = {name: rule for name, rule in (optional or {}).items() if _field(manifest, name) is not None}
    for name, rule in {**rules, **present}.items():
        value = _field(manifest, name)
        if not rule.test(value):
            raise directory.error(kind.manifest, f"has {_shown(value)} as {name}; it must be {rule.what}")
    if has_files:
        _check_files(directory, manifest.get("files"))
        if manifest.get("checksum") != manifest_checksum(manifest):
            raise directory.error(kind.manifest, "is damaged: its checksum does not match its contents")


def _strict_json(directory: DirectoryReader, name: str) -> Any:
    """JSON without NaN, numbers beyond float64 and lone surrogates."""
    try:
        text = directory.read(name, largest=_LARGEST).decode("utf-8")
        value = json.loads(text, parse_constant=_number, parse_int=_number, parse_float=_number)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise directory.error(name, "holds a lone surrogate, which is not a character") from None
    except (ValueError, RecursionError) as error:
        raise directory.error(name, f"is not JSON ({str(error)[:100]})") from None
    return value


def _number(digits: str) -> int | float:
    if len(digits) <= _LONGEST_NUMBER:
        number = int(digits) if digits.lstrip("-").isdigit() else float(digits)
        if math.isfinite(number) and abs(number) < (2**64 if isinstance(number, int) else math.inf):
            return number
    raise ValueError(f"the number {digits[:20]}{'...' if len(digits) > 20 else ''} is out of range")


def _field(manifest: Mapping[str, Any], name: str) -> Any:
    value: Any = manifest
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _check_files(directory: DirectoryReader, files: Any) -> None:
    kind = directory.kind
    if not isinstance(files, dict):
        raise directory.error(kind.manifest, f"has {_shown(files)} as files; it must be a mapping")
    size = whole_number()
    for name, facts in files.items():
        if not file_name_is_safe(name) or name == kind.manifest:
            raise directory.error(kind.manifest, f"lists the file {_shown(name)}, which is not a plain file name")
        if not (isinstance(facts, dict) and size.test(facts.get("bytes")) and isinstance(facts.get("sha256"), str)):
            what = f"has {_shown(facts)} for the file {name}; it must hold its size in bytes and its sha256"
            raise directory.error(kind.manifest, what)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def check_sizes(directory: DirectoryReader, files: Mapping[str, FileFacts]) -> None:
    """Check that every file of a manifest is there and has its size.

    Raises:
        JoseError: of the directory's kind.
    """
    for name, facts in files.items():
        size = directory.size(name)
        if size != facts["bytes"]:
            raise directory.error(name, f"is {size} bytes long, but the manifest says {facts['bytes']}")


def verify_files(
    directory: DirectoryReader,
    files: Mapping[str, FileFacts],
    reporter: Reporter | None = None,
    look: Mapping[str, Callable[[bytes], None]] | None = None,
) -> None:
    """Check that every file of a manifest has its SHA-256.

    Args:
        directory: The open directory.
        files: As the manifest lists them.
        reporter: Receives the phase "verifying", in bytes.
        look: By name of a file, a function that receives every block of it in order.

    Raises:
        JoseError: of the directory's kind.
    """
    reporter = reporter or SilentReporter()
    reporter.start("verifying", sum(facts["bytes"] for facts in files.values()), "bytes")
    for name, facts in files.items():
        digest = hashlib.sha256()
        see = (look or {}).get(name)
        for block in directory.blocks(name):
            digest.update(block)
            if see is not None:
                see(block)
            reporter.advance(len(block))
        if digest.hexdigest() != facts["sha256"]:
            raise directory.error(name, f"is damaged: its SHA-256 is not that of {directory.kind.manifest}")
    reporter.finish()
