"""The model directory: its files, how they are written, opened and checked.

====================== ===================================================================================
manifest.json          format and version, id, configuration, tokenizer, counts, training, corpus; optional
                       "text" and "blocks" (see _OPTIONAL); size and SHA-256 of every other file, and a
                       checksum of its own
center_vectors.npy     float32 (n_words, dim), rows of norm 1
context_vectors.npy    float32 (n_words, dim), rows of norm 1
doc_vectors.npy        float32 (n_docs, dim), rows of norm 1
doc_token_counts.npy   int64 (n_docs,), known words of each document; rows of doc_vectors with 0 are random
vocabulary.tsv         a word, a tab and its count per line, most frequent first, UTF-8
doc_ids.txt            an id per line, UTF-8
texts.sqlite3          texts and fields of the documents, if they are kept (text/texts.py)
NAME.npy, NAME.json    extra arrays and values; word_weights, context_share and document_matrix are read by
                       inference, phrases by look-ups; rare_counts, uint8, has the counts of words outside of
                       the vocabulary (text/rare_words.py)
quality.json           figures of quality measured later; not a part of the model (quality.py)
====================== ===================================================================================
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ModelError
from jose_embed.model.parts import (
    ABOUT,
    NOT_LISTED,
    OPTIONAL_ABOUT,
    OWN_FILES,
    RARE_COUNTS,
    TABLES,
    ModelParts,
    decisive_facts,
)
from jose_embed.model.quality import QUALITY_NAME
from jose_embed.progress import Reporter, SilentReporter
from jose_embed.storage.atomic import Chunk, DirectoryWriter, FileFacts, check_target, foreign_entry, tidy
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
from jose_embed.storage.directory import MODEL, DirectoryReader
from jose_embed.storage.manifest import (
    MANIFEST_NAME,
    MAPPING,
    TEXT,
    TIME,
    Rule,
    canonical_json,
    check_sizes,
    json_bytes,
    read_manifest,
    sealed,
    verify_files,
    whole_number,
)
from jose_embed.text.texts import TEXTS_NAME, TextStore
from jose_embed.version import __version__

_ATTEMPTS: Final = 3
_INDECISIVE: Final = frozenset({TEXTS_NAME, f"{RARE_COUNTS}.npy"})  # no answer depends on them
_CHECKED_BYTES: Final = 16 << 20  # of a mapped table that is read in full when a model is opened

_BOOLEAN: Final = Rule(lambda value: isinstance(value, bool), "true or false")
_NAMES: Final = Rule(
    lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value), "a list of names"
)

_FIELDS: Final = {
    "package_version": TEXT,
    "created": TIME,
    "id": TEXT,
    "config": MAPPING,
    "tokenizer": MAPPING,
    "tokenizer.name": TEXT,
    "tokenizer.settings": MAPPING,
    "counts": MAPPING,
    "counts.n_words": whole_number(1),
    "counts.n_docs": whole_number(),
    "counts.n_untrained": whole_number(),
    "counts.n_tokens": whole_number(),
    "counts.dim": whole_number(1),
    "training": MAPPING,
    "corpus": MAPPING,
}

# Since version 2; a field that is missing means what version 1 did.
_OPTIONAL: Final = {
    "text": MAPPING,
    "text.normalisation": TEXT,  # the Unicode form, or the name of a rule
    "text.segmenter": MAPPING,
    "text.segmenter.name": TEXT,
    "text.segmenter.settings": MAPPING,
    "text.segmenter.library_version": TEXT,
    "text.segmenter.dictionary_version": TEXT,
    "text.phrases": MAPPING,  # settings and number; the phrases are a file of their own
    "text.rare_counts": _BOOLEAN,  # whether counts of words outside of the vocabulary are stored
    "text.subwords": MAPPING,  # the n-grams of subword_vectors
    "text.texts": TEXT,  # the file of the documents' texts
    "text.fields": _NAMES,  # of the documents
    "blocks": _NAMES,  # of vectors, if there is more than one
}


# ------------------------------------------------------------------------------------------------------------- writing


def write_model(
    parts: ModelParts, path: str | os.PathLike[str], *, overwrite: bool = False, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Write a model directory, which appears complete or not at all, in blocks of a few megabytes.

    Args:
        parts: The checked contents.
        path: The directory.
        overwrite: Replace an existing model; nothing but a model is ever replaced.
        reporter: Receives the phase "saving", in bytes.

    Returns:
        The manifest.

    Raises:
        ModelError: the path is taken or cannot be written; a word occurs twice; a word or id contains a line end.
        TrainingError: a row that is not finite or not of norm 1, or a full disk.
    """
    needed = _stored_bytes(parts)
    repetition = first_repetition(parts.words)
    if repetition is not None:
        raise ModelError(f"the word {repetition!r} is in the vocabulary more than once; the words must differ")
    # Those of a text were compared when it was read.
    repetition = first_repetition(parts.doc_ids) if isinstance(parts.doc_ids, list | tuple) else None
    if repetition is not None:
        raise ModelError(f"the document id {repetition[:100]!r} is there more than once; the ids must differ")
    reporter = reporter or SilentReporter()
    reporter.start("saving", needed, "bytes")
    with DirectoryWriter(path, overwrite=overwrite, known=_known_model, needed_bytes=needed) as directory:
        for name, chunks in _files(parts):
            directory.write(name, counted(chunks, reporter.advance))
        manifest = _manifest(parts, directory.files)
        directory.write(MANIFEST_NAME, [json_bytes(manifest, MANIFEST_NAME)])
    reporter.finish()
    return manifest


def manifest_of(parts: ModelParts) -> dict[str, Any]:
    """The manifest of a model that is not saved; all arrays are read for the checksums."""
    files = {}
    for name, chunks in _files(parts):
        digest, size = hashlib.sha256(), 0
        for chunk in chunks:
            digest.update(chunk)
            size += memoryview(chunk).nbytes
        files[name] = FileFacts(sha256=digest.hexdigest(), bytes=size)
    return _manifest(parts, files)


def check_model_target(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """The absolute path of a model written as ``path``, checked before hours of work.

    Raises:
        ModelError: as :func:`write_model` would: taken, no directory to write to, or something that is not a model.
    """
    return check_target(path, overwrite=overwrite, known=_known_model)


def _stored_bytes(parts: ModelParts) -> int:
    arrays: list[npt.NDArray[Any]] = [getattr(parts, name) for name in (*TABLES, "doc_token_counts")]
    arrays += parts.extra_arrays.values()
    texts = 16 * len(parts.words) + 8 * len(parts.doc_ids)  # an estimate, as an exact number would read them all
    texts += 0 if parts.texts is None else parts.texts.n_bytes
    return sum(array.nbytes + 128 for array in arrays) + texts + 4096


def _files(parts: ModelParts) -> Iterator[tuple[str, Iterator[Chunk]]]:
    """Name and contents, in blocks, of each file; the rows of tables are checked to have norm 1."""
    for name in TABLES:
        yield f"{name}.npy", array_chunks(getattr(parts, name), f"{name}.npy", unit_rows=True)
    yield "doc_token_counts.npy", array_chunks(parts.doc_token_counts, "doc_token_counts.npy")
    yield "vocabulary.tsv", vocabulary_chunks(parts.words, parts.counts)
    yield "doc_ids.txt", line_chunks(parts.doc_ids, "document id")
    if parts.texts is not None:
        yield TEXTS_NAME, parts.texts.chunks()
    for name, array in parts.extra_arrays.items():
        yield f"{name}.npy", array_chunks(array, f"{name}.npy")
    for name, value in parts.extra_json.items():
        yield f"{name}.json", iter([json_bytes(value, f"{name}.json")])


def _manifest(parts: ModelParts, files: Mapping[str, FileFacts]) -> dict[str, Any]:
    n_docs = len(parts.doc_vectors)
    facts = {
        "package_version": __version__,
        "created": parts.about["created"],
        "id": model_id(files, parts.about),
        "counts": {
            "n_words": len(parts.center_vectors),
            "n_docs": n_docs,
            "n_untrained": n_docs - int(np.count_nonzero(parts.doc_token_counts)),
            "n_tokens": int(parts.counts.sum()),
            "dim": parts.center_vectors.shape[1],
        },
        **{name: parts.about[name] for name in (*ABOUT, *OPTIONAL_ABOUT) if name in parts.about},
    }
    return sealed(MODEL, facts, files)


def _known_model(path: Path) -> None:
    """Check that a directory is a model and holds nothing else, so that overwriting it deletes nothing else.

    Raises:
        ModelError: it is not.
    """
    advice = "only a model is ever overwritten; choose another name or remove it yourself"
    with DirectoryReader(path) as directory:
        try:
            manifest = directory.json(MANIFEST_NAME)
            listed = manifest["files"].keys() if manifest["format"] == MODEL.format else None
        except (ModelError, TypeError, KeyError, AttributeError):
            listed = None
    if listed is None:
        raise ModelError(f"{path}: is a directory, but not a model; {advice}")
    tidy(path / QUALITY_NAME)
    own = OWN_FILES | {name for name in listed if name.endswith((".npy", ".json"))}
    foreign = foreign_entry(path, own)
    if foreign is not None:
        raise ModelError(f"{path}: holds {foreign!r}, which is not part of the model; {advice}")


# ------------------------------------------------------------------------------------------------------------- reading


def open_model(
    path: str | os.PathLike[str], *, verify: bool = False, mapped: bool = True, reporter: Reporter | None = None
) -> tuple[ModelParts, dict[str, Any]]:
    """Map a model directory read-only.

    Args:
        path: The directory.
        verify: Also read every byte: the SHA-256 of each file, finite rows of norm 1, distinct words.
        mapped: Map the files; False reads them into memory, so that a later change of them on disk has no effect.
        reporter: Receives the phase "verifying", in bytes.

    Returns:
        The parts and the manifest.

    Raises:
        ModelError: missing, damaged, not a model, or of a newer format; the message names the file.
    """
    for _ in range(_ATTEMPTS - 1):
        with DirectoryReader(path, mapped=mapped) as directory:
            try:
                return _opened(directory, verify, mapped, reporter)
            except ModelError:
                # Replaced and removed while it was read: the name now belongs to the new model.
                if not directory.vanished or directory.is_still(path):
                    raise
    with DirectoryReader(path, mapped=mapped) as directory:
        return _opened(directory, verify, mapped, reporter)


def _opened(
    directory: DirectoryReader, verify: bool, mapped: bool, reporter: Reporter | None
) -> tuple[ModelParts, dict[str, Any]]:
    manifest = read_manifest(directory, _FIELDS, _OPTIONAL)
    files, counts = manifest["files"], manifest["counts"]
    n_words, n_docs, dim = counts["n_words"], counts["n_docs"], counts["dim"]
    missing = sorted(OWN_FILES - NOT_LISTED - set(files))
    if missing:
        raise directory.error(MANIFEST_NAME, f"does not list {missing[0]}")
    check_sizes(directory, files)
    if verify:
        verify_files(directory, files, reporter)
        if manifest["id"] != model_id(files, manifest):
            raise directory.error(MANIFEST_NAME, "is damaged: its id does not match its contents")
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
        about={name: manifest[name] for name in ("created", *ABOUT, *OPTIONAL_ABOUT) if name in manifest},
        texts=TextStore.open(directory.path / TEXTS_NAME) if TEXTS_NAME in files else None,
    )
    if parts.texts is not None and parts.texts.n_documents != n_docs:
        n_texts = parts.texts.n_documents
        raise directory.error(TEXTS_NAME, f"holds {n_texts} documents, but the manifest says {n_docs}")
    try:
        parts.check_learned()
    except ModelError as error:
        raise directory.error(f"{str(error).split()[0]}.npy", str(error).partition(" ")[2]) from None
    _check_vectors(directory, parts, counts["n_untrained"], verify or not mapped)
    if verify:
        _verify_names(directory, parts)
    return parts, manifest


def _check_vectors(directory: DirectoryReader, parts: ModelParts, n_untrained: int, every_row: bool) -> None:
    for name in TABLES:
        table = getattr(parts, name)
        fault = first_fault(table, every_row=every_row or table.nbytes <= _CHECKED_BYTES)
        if fault is not None:
            row, norm = fault
            raise directory.error(f"{name}.npy", f"has norm {norm:.9g} in row {row}; every row must have norm 1")
    if (parts.doc_token_counts < 0).any():
        raise directory.error("doc_token_counts.npy", "holds a negative count")
    found = len(parts.doc_token_counts) - int(np.count_nonzero(parts.doc_token_counts))
    if found != n_untrained:
        raise directory.error(
            "doc_token_counts.npy", f"has {found} untrained documents, but the manifest says {n_untrained}"
        )


def _verify_names(directory: DirectoryReader, parts: ModelParts) -> None:
    for name, names, what in (("vocabulary.tsv", parts.words, "word"), ("doc_ids.txt", parts.doc_ids, "id")):
        repetition = first_repetition(names)  # decoding fails if an id is not UTF-8
        if repetition is not None:
            raise directory.error(name, f"has the {what} {repetition[:100]!r} more than once")


def model_id(files: Mapping[str, FileFacts], about: Mapping[str, Any]) -> str:
    """SHA-256 in hex over all that answers depend on: the files, the tokenizer and the settings of the text.

    Texts that are kept and counts of rare words are not among them, so a model without them has the same id.

    Args:
        files: As the manifest lists them.
        about: The manifest, or the facts for it.
    """
    facts: dict[str, Any] = {
        "files": {name: facts["sha256"] for name, facts in files.items() if name not in _INDECISIVE},
        "tokenizer": about["tokenizer"],
    }
    facts |= {name: value for name in OPTIONAL_ABOUT if (value := decisive_facts(about, name))}
    return hashlib.sha256(canonical_json(facts)).hexdigest()
