"""The model directory: which files it has, how they are written and how they are opened and checked.

====================== ===================================================================================
manifest.json          format and version, id, configuration, tokenizer, counts, training, corpus; size
                       and SHA-256 of every other file, and a sum of its own
center_vectors.npy     float32 (n_words, dim), rows of norm 1
context_vectors.npy    float32 (n_words, dim), rows of norm 1
doc_vectors.npy        float32 (n_docs, dim), rows of norm 1
doc_token_counts.npy   int64 (n_docs,), known words of each document; 0 marks an untrained one
vocabulary.tsv         a word, a tab and its count per line, most frequent first, UTF-8
doc_ids.txt            an id per line, UTF-8
NAME.npy, NAME.json    whatever later parts keep beside them
quality.json           figures of quality that were measured later; no part of the model (qualityfile.py)
====================== ===================================================================================
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ModelError
from jose_embed.model.parts import OWN_FILES, TABLES, ModelParts
from jose_embed.model.quality import QUALITY_NAME
from jose_embed.storage.atomic import Chunk, DirectoryWriter, FileFacts, check_target, file_name_is_safe, tidy
from jose_embed.storage.columns import (
    MappedLines,
    array_chunks,
    counted,
    first_fault,
    first_repetition,
    line_chunks,
    read_vocabulary,
    vocabulary_chunks,
)
from jose_embed.storage.directory import DirectoryReader
from jose_embed.storage.manifest import (
    FORMAT,
    FORMAT_VERSION,
    LARGEST_MANIFEST,
    MANIFEST_NAME,
    _canonical,
    json_bytes,
    manifest_checksum,
)
from jose_embed.version import __version__

if TYPE_CHECKING:
    from jose_embed.progress import Reporter

__all__ = ["check_model_target", "manifest_of", "model_id", "open_model", "read_manifest", "write_model"]

_ATTEMPTS: Final = 3


# ------------------------------------------------------------------------------------------------------------- writing


def write_model(
    parts: ModelParts, path: str | os.PathLike[str], *, overwrite: bool = False, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Writes a model directory, whole or not at all, in pieces of a few megabytes.

    Args:
        parts: What to write, checked.
        path: The directory.
        overwrite: Replace an existing model; nothing else is ever replaced.
        reporter: Told of the phase "saving", in bytes.

    Returns:
        The manifest.

    Raises:
        ModelError: the place is taken or cannot be written; a word occurs twice; a word or id holds a line end.
        TrainingError: a row that is not finite or not of norm 1, or no room on the disk.
    """
    needed = _stored_bytes(parts)
    repetition = first_repetition(parts.words)
    if repetition is not None:
        raise ModelError(f"the word {repetition!r} is in the vocabulary more than once; the words must differ")
    if reporter is not None:
        reporter.start("saving", needed, "bytes")
    with DirectoryWriter(path, overwrite=overwrite, known=_known_model, needed_bytes=needed) as directory:
        for name, chunks in _files(parts):
            directory.write(name, chunks if reporter is None else counted(chunks, reporter.advance))
        manifest = _manifest(parts, directory.files)
        directory.write(MANIFEST_NAME, [json_bytes(manifest, MANIFEST_NAME)])
    if reporter is not None:
        reporter.finish()
    return manifest


def manifest_of(parts: ModelParts) -> dict[str, Any]:
    """The manifest that the parts would be written with; all of them are read for it."""
    files = {}
    for name, chunks in _files(parts):
        digest, size = hashlib.sha256(), 0
        for chunk in chunks:
            digest.update(chunk)
            size += memoryview(chunk).nbytes
        files[name] = FileFacts(sha256=digest.hexdigest(), bytes=size)
    return _manifest(parts, files)


def check_model_target(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """The absolute place that a model written as ``path`` would take, found fit before hours of work.

    Raises:
        ModelError: as writing would: taken, no directory to write to, or something there that is not a model.
    """
    return check_target(path, overwrite=overwrite, known=_known_model)


def _stored_bytes(parts: ModelParts) -> int:
    arrays: list[npt.NDArray[Any]] = [getattr(parts, name) for name in (*TABLES, "doc_token_counts")]
    arrays += parts.extra_arrays.values()
    texts = 16 * len(parts.words) + 8 * len(parts.doc_ids)  # an estimate: counting would read them all
    return sum(array.nbytes + 128 for array in arrays) + texts + 4096


def _files(parts: ModelParts) -> Iterator[tuple[str, Iterator[Chunk]]]:
    """Each file's name and contents in pieces; the tables' rows are checked on the way."""
    for name in TABLES:
        yield f"{name}.npy", array_chunks(getattr(parts, name), f"{name}.npy", unit_rows=True)
    yield "doc_token_counts.npy", array_chunks(parts.doc_token_counts, "doc_token_counts.npy")
    yield "vocabulary.tsv", vocabulary_chunks(parts.words, parts.counts)
    yield "doc_ids.txt", line_chunks(parts.doc_ids, "document id")
    for name, array in parts.extra_arrays.items():
        yield f"{name}.npy", array_chunks(array, f"{name}.npy")
    for name, value in parts.extra_json.items():
        yield f"{name}.json", iter([json_bytes(value, f"{name}.json")])


def _manifest(parts: ModelParts, files: Mapping[str, FileFacts]) -> dict[str, Any]:
    n_docs = len(parts.doc_vectors)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "package_version": __version__,
        "created": parts.about["created"],
        "id": model_id(files, parts.about["tokenizer"]),
        "counts": {
            "n_words": len(parts.center_vectors),
            "n_docs": n_docs,
            "n_untrained": n_docs - int(np.count_nonzero(parts.doc_token_counts)),
            "n_tokens": int(parts.counts.sum()),
            "dim": parts.center_vectors.shape[1],
        },
        **{name: parts.about[name] for name in ("config", "tokenizer", "corpus", "training")},
        "files": dict(files),
    }
    manifest["checksum"] = manifest_checksum(manifest)
    return manifest


def _known_model(path: Path) -> None:
    """Passes where a directory holds a model and nothing else, so that replacing it destroys nothing of anybody's."""
    advice = "only a model is ever overwritten; choose another name or remove it yourself"
    with DirectoryReader(path) as directory:
        try:
            manifest = json.loads(directory.read(MANIFEST_NAME, largest=LARGEST_MANIFEST))
            known = manifest["files"].keys() | {MANIFEST_NAME, QUALITY_NAME} if manifest["format"] == FORMAT else None
        except (ModelError, ValueError, RecursionError, TypeError, KeyError, AttributeError):
            known = None
    if known is None:
        raise ModelError(f"{path}: is a directory, but not a model; {advice}")
    tidy(path / QUALITY_NAME)
    foreign = sorted(name for name in os.listdir(path) if name not in known)
    if foreign:
        raise ModelError(f"{path}: holds {foreign[0]!r}, which is not part of the model; {advice}")


# ------------------------------------------------------------------------------------------------------------- reading


def open_model(
    path: str | os.PathLike[str], *, verify: bool = False, reporter: Reporter | None = None
) -> tuple[ModelParts, dict[str, Any]]:
    """Maps a model directory read-only.

    Args:
        path: The directory.
        verify: Also read every byte: the SHA-256 of each file and of the manifest, finite rows of norm 1, distinct
            words.
        reporter: Told of the phase "verifying", in bytes.

    Returns:
        The parts and the manifest.

    Raises:
        ModelError: missing, damaged, foreign, or of a newer format; the message names the file and says what to do.
    """
    for _ in range(_ATTEMPTS - 1):
        with DirectoryReader(path) as directory:
            try:
                return _opened(directory, verify, reporter)
            except ModelError:
                # Replaced and removed while it was read: then the name stands for the new one by now.
                if not directory.vanished or directory.is_still(path):
                    raise
    with DirectoryReader(path) as directory:
        return _opened(directory, verify, reporter)


def _opened(directory: DirectoryReader, verify: bool, reporter: Reporter | None) -> tuple[ModelParts, dict[str, Any]]:
    manifest = read_manifest(directory, verify=verify)
    files, counts = manifest["files"], manifest["counts"]
    n_words, n_docs, dim = counts["n_words"], counts["n_docs"], counts["dim"]
    missing = sorted(OWN_FILES - {MANIFEST_NAME, QUALITY_NAME} - set(files))
    if missing:
        raise directory.error(MANIFEST_NAME, f"does not list {missing[0]}")
    for name, facts in files.items():
        size = directory.size(name)
        if size != facts["bytes"]:
            raise directory.error(name, f"is {size} bytes long, but the manifest says {facts['bytes']}")
    if verify:
        _verify_sums(directory, files, reporter)
    words, word_counts = read_vocabulary(directory, n_words, counts["n_tokens"])
    doc_ids = MappedLines(directory.map("doc_ids.txt"), str(directory.path / "doc_ids.txt"))
    if len(doc_ids) != n_docs:
        raise directory.error("doc_ids.txt", f"has {len(doc_ids)} lines, but the manifest says {n_docs} documents")
    extra = [name for name in files if name not in OWN_FILES]
    parts = ModelParts(
        words=words,
        counts=word_counts,
        center_vectors=directory.array("center_vectors.npy", dtype="<f4", shape=(n_words, dim)),
        context_vectors=directory.array("context_vectors.npy", dtype="<f4", shape=(n_words, dim)),
        doc_ids=doc_ids,
        doc_vectors=directory.array("doc_vectors.npy", dtype="<f4", shape=(n_docs, dim)),
        doc_token_counts=directory.array("doc_token_counts.npy", dtype="<i8", shape=(n_docs,)),
        extra_arrays={name[:-4]: directory.array(name) for name in extra if name.endswith(".npy")},
        extra_json={name[:-5]: directory.json(name) for name in extra if name.endswith(".json")},
        about={name: manifest[name] for name in ("created", "config", "tokenizer", "training", "corpus")},
    )
    if verify:
        _verify_contents(directory, parts, counts["n_untrained"])
    return parts, manifest


def _verify_sums(directory: DirectoryReader, files: Mapping[str, FileFacts], reporter: Reporter | None) -> None:
    if reporter is not None:
        reporter.start("verifying", sum(facts["bytes"] for facts in files.values()), "bytes")
    for name, facts in files.items():
        if directory.sha256(name, None if reporter is None else reporter.advance) != facts["sha256"]:
            raise directory.error(name, "is damaged: its SHA-256 is not the manifest's")
    if reporter is not None:
        reporter.finish()


def _verify_contents(directory: DirectoryReader, parts: ModelParts, n_untrained: int) -> None:
    for name in TABLES:
        fault = first_fault(getattr(parts, name))
        if fault is not None:
            row, norm = fault
            raise directory.error(f"{name}.npy", f"has norm {norm:.9g} in row {row}; every row must have norm 1")
    repetition = first_repetition(parts.words)
    if repetition is not None:
        raise directory.error("vocabulary.tsv", f"has the word {repetition!r} more than once")
    if (parts.doc_token_counts < 0).any():
        raise directory.error("doc_token_counts.npy", "holds a negative count")
    found = len(parts.doc_token_counts) - int(np.count_nonzero(parts.doc_token_counts))
    if found != n_untrained:
        raise directory.error(
            "doc_token_counts.npy", f"has {found} untrained documents, but the manifest says {n_untrained}"
        )
    for _ in parts.doc_ids:  # each is decoded, which fails where it is not UTF-8
        pass


_COUNT_NAMES: Final = ("n_words", "n_docs", "n_untrained", "n_tokens", "dim")


def model_id(files: Mapping[str, FileFacts], tokenizer: Mapping[str, Any]) -> str:
    """SHA-256 over all that answers depend on, the sums of the files and the tokenizer: equal models have equal ids."""
    facts = {"files": {name: facts["sha256"] for name, facts in files.items()}, "tokenizer": tokenizer}
    return hashlib.sha256(_canonical(facts)).hexdigest()


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
