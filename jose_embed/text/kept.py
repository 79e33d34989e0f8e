"""Kept encodings: the directory of a text that was encoded with one tokenizer and one ``min_count``.

================ ==============================================================================================
manifest.json    format and version, tokenizer, min_count, counts, statistics of the text, size and SHA-256 of
                 every other file, and its own checksum
tokens.npy       int32 (n_tokens,), rows of the vocabulary
offsets.npy      int64 (n_documents + 1,), where documents begin
vocabulary.tsv   a word, a tab and its count per line, most frequent first, UTF-8
sources.json     the report of each source: its name, documents, bytes on the disk and their SHA-256
doc_ids.txt      an id per line, UTF-8; only if documents have ids of their own
phrases.json     two words and their score each; only if pairs of words were joined
rare_counts.npy  uint8, the counts of words that are not in the vocabulary (rare_words.py)
texts.sqlite3    texts and fields to keep with a model (texts.py); only if any are kept
================ ==============================================================================================

An encoding is used again only if the settings are equal and every source still has the same bytes on disk. The sources
are always hashed: this is ten times as fast as encoding, needs no decompression, and times of files can be wrong.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypedDict

import numpy as np

from jose_embed.config import TrainConfig, available_workers
from jose_embed.errors import ConfigError, CorpusError, ModelError
from jose_embed.progress import Reporter, SilentReporter
from jose_embed.storage.atomic import Chunk, DirectoryWriter, check_output, check_target, foreign_entry
from jose_embed.storage.columns import (
    MappedLines,
    array_chunks,
    counted,
    line_chunks,
    read_vocabulary,
    row_blocks,
    vocabulary_chunks,
)
from jose_embed.storage.directory import DirectoryKind, DirectoryReader, array_header
from jose_embed.storage.manifest import (
    MANIFEST_NAME,
    MAPPING,
    TEXT,
    check_sizes,
    json_bytes,
    now,
    one_of_pattern,
    read_manifest,
    sealed,
    verify_files,
    whole_number,
)
from jose_embed.text.corpus import CorpusStatistics, EncodedCorpus
from jose_embed.text.encode import encode
from jose_embed.text.phrases import Phrase, phrases_from
from jose_embed.text.reader import DocumentIds
from jose_embed.text.records import TextOptions
from jose_embed.text.sources import Source, SourceReport, Sources, find_sources, listed, printable, sha256_of
from jose_embed.text.texts import TEXTS_NAME, TextStore
from jose_embed.text.tokenizers import (
    Tokenizer,
    code_point_rules,
    configured_tokenizer,
    get_tokenizer,
    normalization_of,
    normalizing,
    stored_tokenizer,
    text_facts,
)
from jose_embed.text.vocabulary import EarlierWords, Vocabulary
from jose_embed.text.word_lists import VocabularyChoice, vocabulary_choice
from jose_embed.version import __version__

ENCODED: Final = DirectoryKind(
    noun="encoded corpus",
    made="make one with jose encode",
    advice="remove it and encode the text again",
    error=CorpusError,
    format="jose-embed-encoded",
    version=1,  # to be raised also if a tokenizer splits text in another way than before
)
_FIELDS: Final = {
    "tokenizer": MAPPING,
    "tokenizer.name": TEXT,
    "tokenizer.settings": MAPPING,
    "min_count": whole_number(1),
    "counts.n_words": whole_number(1, 2**31 - 1),
    "counts.n_documents": whole_number(1),
    "counts.n_tokens": whole_number(1),
    "corpus": MAPPING,
}
_OPTIONAL: Final = {
    "choice_of_words": MAPPING,
    "text": MAPPING,
    "text.normalisation": one_of_pattern("nfc|nfkc|none", "nfc, nfkc or none"),
}
_FILES: Final = frozenset({"tokens.npy", "offsets.npy", "vocabulary.tsv", "sources.json"})
_IDS_NAME: Final = "doc_ids.txt"
_PHRASES_NAME: Final = "phrases.json"
_RARE_NAME: Final = "rare_counts.npy"
_OPTIONAL_FILES: Final = frozenset({_IDS_NAME, _PHRASES_NAME, _RARE_NAME, TEXTS_NAME})

#: The names of all files of an encoded corpus.
ENCODED_FILES: Final = _FILES | _OPTIONAL_FILES | {MANIFEST_NAME}


# ------------------------------------------------------------------------------------------------------------- writing


def write_encoded(
    corpus: EncodedCorpus,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> None:
    """Write an encoded corpus as a directory, whole or not at all.

    Args:
        corpus: What to write; it stays open.
        path: The directory.
        overwrite: Replace an encoded corpus; nothing else is ever replaced.
        reporter: Receives the phase "keeping", in bytes.

    Raises:
        CorpusError: the place is taken or cannot be written.
        TrainingError: no room on the disk, with what was needed and what there was.

    Example:
        >>> import tempfile
        >>> from jose_embed.text.encode import encode_texts
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with encode_texts(["a b a", "b c"], min_count=2) as corpus:
        ...         write_encoded(corpus, f"{folder}/texts.encoded")
        ...     with open_encoded(f"{folder}/texts.encoded") as again:
        ...         print(again.vocabulary.words, again.tokens.tolist(), again.min_count)
        ('a', 'b') [0, 1, 0, 1] 2
    """
    reporter = reporter or SilentReporter()
    sources = json_bytes([dataclasses.asdict(report) for report in corpus.sources], "sources.json", raw_names=True)
    files: dict[str, Iterator[Chunk]] = {
        "tokens.npy": array_chunks(corpus.tokens, "tokens.npy"),
        "offsets.npy": array_chunks(corpus.offsets, "offsets.npy"),
        "vocabulary.tsv": vocabulary_chunks(corpus.vocabulary.words, corpus.vocabulary.counts),
        "sources.json": iter([sources]),
    }
    if not isinstance(corpus.doc_ids, DocumentIds):
        files[_IDS_NAME] = line_chunks(corpus.doc_ids, "document id")
    if corpus.phrases:
        files[_PHRASES_NAME] = iter([json_bytes(list(corpus.phrases), _PHRASES_NAME)])
    if corpus.rare_counts is not None:
        files[_RARE_NAME] = array_chunks(np.frombuffer(corpus.rare_counts, np.uint8), _RARE_NAME)
    if corpus.texts is not None:
        files[TEXTS_NAME] = corpus.texts.chunks()
    needed = corpus.tokens.nbytes + corpus.offsets.nbytes + 16 * corpus.vocabulary.n_words + len(sources) + 8192
    reporter.start("keeping", needed, "bytes")
    writer = DirectoryWriter(path, overwrite=overwrite, known=_known_encoding, needed_bytes=needed)
    with _errors_of_a_corpus(), writer as directory:
        for name, chunks in files.items():
            directory.write(name, counted(chunks, reporter.advance))
        manifest = sealed(ENCODED, _facts(corpus), directory.files)
        directory.write(MANIFEST_NAME, [json_bytes(manifest, MANIFEST_NAME)])
    reporter.finish()


@contextlib.contextmanager
def _errors_of_a_corpus() -> Iterator[None]:
    """In this context an error about a place on the disk is one about the encoded corpus."""
    try:
        yield
    except ModelError as error:
        raise CorpusError(str(error)) from error


def check_encoded_target(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """The absolute place that an encoded corpus written as ``path`` would take, found fit before any text is read.

    Raises:
        CorpusError: the name is taken, by something else than an encoded corpus, or its directory cannot be written to.
    """
    with _errors_of_a_corpus():
        return check_target(path, overwrite=overwrite, known=_known_encoding)


def _facts(corpus: EncodedCorpus) -> dict[str, Any]:
    return {
        "package_version": __version__,
        "created": now(),
        **_settings(corpus.tokenizer, corpus.min_count, corpus.options, corpus.choice),
        "counts": {
            "n_words": corpus.vocabulary.n_words,
            "n_documents": corpus.n_documents,
            "n_tokens": corpus.n_tokens,
        },
        "corpus": {name: value for name, value in corpus.statistics.to_dict().items() if "sources" not in name},
    }


def _settings(tokenizer: Tokenizer, min_count: int, options: TextOptions, choice: VocabularyChoice) -> dict[str, Any]:
    """The settings that an encoding depends on, as its manifest stores them."""
    rules = code_point_rules(tokenizer)  # the tables follow from the Unicode version of Python, and from us
    return {
        "tokenizer": {"name": tokenizer.name, "settings": tokenizer.settings()},
        "text": text_facts(tokenizer),
        "tokenizer_rules": None if rules is None else hashlib.sha256(rules.astype("<u4").tobytes()).hexdigest(),
        "unicode": unicodedata.unidata_version,
        "min_count": min_count,
        "choice_of_words": choice.to_dict(),
        "way_of_reading": options.to_dict(),
    }


def _known_encoding(path: Path) -> None:
    """Check that a directory is an encoded corpus and holds nothing else, so that replacing it deletes nothing else."""
    advice = "only an encoded corpus is ever overwritten; choose another name or remove it yourself"
    if not is_encoded(path):
        raise CorpusError(f"{path}: is a directory, but not an encoded corpus; {advice}")
    foreign = foreign_entry(path, ENCODED_FILES)
    if foreign is not None:
        raise CorpusError(f"{path}: holds {printable(foreign)!r}, which is not part of the encoded corpus; {advice}")


# ------------------------------------------------------------------------------------------------------------- reading


def is_encoded(path: str | os.PathLike[str]) -> bool:
    """Whether a directory has the manifest of an encoded corpus; it may be damaged."""
    try:
        with DirectoryReader(path, ENCODED) as directory:
            head = directory.read(MANIFEST_NAME, largest=16 << 20)
    except CorpusError:
        return False
    return f'"{ENCODED.format}"'.encode() in head[:200]


def open_encoded(
    path: str | os.PathLike[str], *, verify: bool = True, reporter: Reporter | None = None
) -> EncodedCorpus:
    """Map an encoded corpus, read-only.

    Every byte is compared with its checksum, because training trusts the numbers blindly: a row beyond the vocabulary
    would be memory that is not ours.

    Args:
        path: The directory.
        verify: Compare with the checksums; to be left out only for what this process has just written.
        reporter: Receives the phase "verifying", in bytes.

    Raises:
        CorpusError: missing, damaged, foreign, or of a newer format; the message names the file and says what to do.
        ConfigError: a tokenizer that is not registered.
    """
    with DirectoryReader(path, ENCODED) as directory:
        return _opened(directory, _read_manifest(directory), verify, reporter or SilentReporter())


def encoding_facts(path: str | os.PathLike[str]) -> tuple[dict[str, Any], list[SourceReport]]:
    """The manifest of an encoded corpus, and what was found in each of its sources; nothing else is read.

    Raises:
        CorpusError: missing, damaged, foreign, or of a newer format.
    """
    with DirectoryReader(path, ENCODED) as directory:
        manifest = _read_manifest(directory)
        return manifest, _read_sources(directory, manifest["counts"]["n_documents"])


def _opened(directory: DirectoryReader, manifest: Mapping[str, Any], verify: bool, reporter: Reporter) -> EncodedCorpus:
    counts, files = manifest["counts"], manifest["files"]
    n_words, n_documents, n_tokens = counts["n_words"], counts["n_documents"], counts["n_tokens"]
    check_sizes(directory, files)
    if verify:
        verify_files(directory, files, reporter, {"tokens.npy": _TokenCheck(directory, n_words)})
    tokens = directory.array("tokens.npy", dtype="<i4", shape=(n_tokens,))
    offsets = directory.array("offsets.npy", dtype="<i8", shape=(n_documents + 1,))
    if offsets[0] != 0 or offsets[-1] != n_tokens or any((np.diff(part) < 0).any() for part in _overlapping(offsets)):
        raise directory.error("offsets.npy", f"must rise from 0 to {n_tokens}")
    words, word_counts = read_vocabulary(directory, n_words, n_tokens)
    reports = _read_sources(directory, n_documents)
    statistics = _statistics(directory, manifest["corpus"], reports)
    stored = manifest["tokenizer"]
    tokenizer = stored_tokenizer(stored["name"], stored["settings"], manifest.get("text") or {})
    doc_ids: Sequence[str] = DocumentIds([report.name for report in reports], [report.n_lines for report in reports])
    if _IDS_NAME in files:
        doc_ids = MappedLines(directory.map(_IDS_NAME), _IDS_NAME)
        if len(doc_ids) != n_documents:
            raise directory.error(_IDS_NAME, f"has {len(doc_ids)} lines, but the manifest says {n_documents} documents")
    return EncodedCorpus(
        tokens,
        offsets,
        doc_ids,
        Vocabulary(tuple(words), word_counts),
        tokenizer,
        statistics,
        manifest["min_count"],
        reports,
        _options(directory, manifest.get("way_of_reading", {})),
        _texts(directory, n_documents) if TEXTS_NAME in files else None,
        VocabularyChoice(names=manifest.get("choice_of_words") or {}),
        _phrases(directory) if _PHRASES_NAME in files else (),
        directory.array(_RARE_NAME, dtype="|u1").tobytes() if _RARE_NAME in files else None,
    )


def _phrases(directory: DirectoryReader) -> list[Phrase]:
    try:
        return phrases_from(directory.json(_PHRASES_NAME))
    except ValueError as error:
        raise directory.error(_PHRASES_NAME, str(error)) from None


def _options(directory: DirectoryReader, values: Any) -> TextOptions:
    try:
        return TextOptions(**values)
    except (TypeError, ConfigError):
        raise directory.error(MANIFEST_NAME, "does not say how the text was read") from None


def _texts(directory: DirectoryReader, n_documents: int) -> TextStore:
    try:
        texts = TextStore.open(directory.path / TEXTS_NAME)
    except ModelError as error:
        raise directory.error(TEXTS_NAME, str(error).partition(": ")[2]) from None
    if texts.n_documents != n_documents:
        raise directory.error(TEXTS_NAME, f"holds {texts.n_documents} documents, but the manifest says {n_documents}")
    return texts


def _overlapping(offsets: np.ndarray[Any, np.dtype[np.int64]]) -> Sequence[np.ndarray[Any, np.dtype[np.int64]]]:
    """Pieces of the offsets, each beginning with the last one of the piece before."""
    return [offsets[max(0, first - 1) : first + len(block)] for first, block in row_blocks(offsets)]


class _TokenCheck:
    """Looks at the blocks of ``tokens.npy`` for rows outside of the vocabulary."""

    def __init__(self, directory: DirectoryReader, n_words: int) -> None:
        self._directory, self._n_words, self._start = directory, n_words, -1

    def __call__(self, block: bytes) -> None:
        if self._start < 0:
            try:
                self._start = array_header(block)[2]
            except ValueError as error:
                raise self._directory.error("tokens.npy", str(error)) from None
        rows = np.frombuffer(block, "<i4", (len(block) - self._start) // 4, self._start)
        if len(rows) and not (rows.min() >= 0 and rows.max() < self._n_words):
            what = f"holds a row outside of the vocabulary of {self._n_words} words"
            raise self._directory.error("tokens.npy", what)
        self._start = 0


def _read_manifest(directory: DirectoryReader) -> dict[str, Any]:
    manifest = read_manifest(directory, _FIELDS, _OPTIONAL, newer="update jose-embed, or encode the text again")
    if not _FILES <= manifest["files"].keys() <= _FILES | _OPTIONAL_FILES:
        raise directory.error(MANIFEST_NAME, f"lists other files than {', '.join(sorted(_FILES | _OPTIONAL_FILES))}")
    return manifest


def _read_sources(directory: DirectoryReader, n_documents: int) -> list[SourceReport]:
    try:
        reports = [SourceReport(**facts) for facts in directory.json("sources.json")]
        for report in reports:
            for option in dataclasses.fields(SourceReport):
                kinds = str(option.type).replace("None", "NoneType").split(" | ")
                if type(getattr(report, option.name)).__name__ not in kinds:
                    raise TypeError(option.name)
        n_lines = sum(report.n_lines for report in reports)
        if n_lines != n_documents or any(report.n_lines < 0 for report in reports):
            raise ValueError
    except (TypeError, ValueError):
        raise directory.error("sources.json", "does not describe the sources of this encoding") from None
    return reports


def _statistics(
    directory: DirectoryReader, facts: Mapping[str, Any], reports: Sequence[SourceReport]
) -> CorpusStatistics:
    try:
        fields = tuple(facts.get("text_field", ()))
        notes = tuple(str(note) for note in facts.get("notes", ()))
        names = tuple(printable(report.name) for report in reports)
        return CorpusStatistics(**{**facts, "text_field": fields, "notes": notes, "sources": names})
    except TypeError:
        raise directory.error(MANIFEST_NAME, "does not describe the text of this encoding") from None


# -------------------------------------------------------------------------------------------------------------- reusing


def kept_encoding(
    sources: Sources,
    path: str | os.PathLike[str],
    *,
    tokenizer: str | Tokenizer = "words",
    min_count: int = 5,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    options: TextOptions | None = None,
    choice: VocabularyChoice | None = None,
    workers: int = 1,
) -> EncodedCorpus:
    """The kept encoding of a text if it is still valid, or a new one, which is then kept.

    A kept encoding is valid if its settings are equal and the sources, in their order, have the same bytes on disk. If
    the text of the same files or the settings have changed, it is replaced. An encoding of other files is replaced only
    with ``overwrite``.

    Args:
        sources: As for :func:`~jose_embed.text.encode.encode`.
        path: The directory of the encoded corpus.
        tokenizer: A registered name, or a tokenizer.
        min_count: Words that occur less often are left out; at least 1.
        overwrite: Replace the encoding of any other text, too, also a damaged one.
        reporter: Receives the progress and the reasons for an encoding.
        options: How tables and records are read, and what is kept of them.
        choice: Which words the vocabulary has, besides the frequent ones.
        workers: Processes of a slow tokenizer.

    Raises:
        ConfigError: an unknown tokenizer, or a ``min_count`` below 1.
        CorpusError: text that cannot be read; something else at ``path``; a damaged encoding.
        TrainingError: no room on the disk.
    """
    chosen = normalizing(get_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer, "nfc")
    reporter, options = reporter or SilentReporter(), options or TextOptions()
    choice = choice or VocabularyChoice()
    names = listed(sources)
    if (encoded := _encoded_among(names)) is not None:
        raise CorpusError(f"{encoded}: is an encoded corpus already; name the text that it was made of")
    found = find_sources(names)
    with _errors_of_a_corpus():
        check_output(path, [source.path for source in found if source.path is not None])
    target = check_encoded_target(path, overwrite=True)
    place = printable(os.fspath(path))
    if os.path.lexists(target) and os.listdir(target):
        try:
            taken = _reused(path, found, _settings(chosen, min_count, options, choice), overwrite, reporter)
        except CorpusError as damage:  # of the encoding, or of the text, which is then read again
            if not overwrite:
                raise
            taken = str(damage).removeprefix(f"{place}: ")
        if isinstance(taken, EncodedCorpus):
            reporter.note(f"{place}: this encoding of the same text is used")
            return taken
        reporter.note(f"{place}: {taken}; the text is encoded again")
    with encode(
        names,
        tokenizer=chosen,
        min_count=min_count,
        reporter=reporter,
        directory=target.parent,
        options=options,
        choice=choice,
        workers=workers,
    ) as corpus:
        write_encoded(corpus, path, overwrite=True, reporter=reporter)
    return open_encoded(path, verify=False)


class EncodingSettings(TypedDict):
    """Arguments of :func:`~jose_embed.text.encode.encode` by name."""

    tokenizer: Tokenizer
    min_count: int
    choice: VocabularyChoice
    workers: int


def encoding_settings(config: TrainConfig) -> EncodingSettings:
    """The arguments of :func:`~jose_embed.text.encode.encode` that the settings of a training make.

    Raises:
        ConfigError: an unknown tokenizer, or settings that contradict each other.
        CorpusError: a file that is not a list of words.
    """
    tokenizer = configured_tokenizer(config)
    choice = vocabulary_choice(config, tokenizer)
    workers = min(config.resolved_workers(), available_workers())
    return {"tokenizer": tokenizer, "min_count": config.min_count, "choice": choice, "workers": workers}


def text_for(
    sources: Sources,
    config: TrainConfig,
    *,
    given: Collection[str] = (),
    keep_encoded: str | os.PathLike[str] | None = None,
    reporter: Reporter | None = None,
    directory: str | os.PathLike[str] | None = None,
    options: TextOptions | None = None,
    earlier: EarlierWords | None = None,
) -> tuple[EncodedCorpus, TrainConfig]:
    """The text of a training, encoded: opened, read, or read and kept.

    Args:
        sources: As for :func:`~jose_embed.text.encode.encode`, or one encoded corpus.
        config: The settings of the training.
        given: The settings that the user chose. If the tokenizer or ``min_count`` of an encoded corpus differs from
            them, that is an error; defaults are replaced.
        keep_encoded: Directory of the kept encoding, as by :func:`kept_encoding`.
        reporter: Receives the progress.
        directory: Directory of the temporary files of a text that is not kept.
        options: How tables and records are read, and what is kept of them.
        earlier: The words of earlier texts, see :func:`~jose_embed.text.encode.encode`.

    Returns:
        The corpus and the settings, with the tokenizer and ``min_count`` of the corpus.

    Raises:
        ConfigError: settings that are not those of the encoded corpus, or nothing to keep.
        CorpusError: text or an encoding that cannot be read; an encoded corpus beside other text.
        TrainingError: no room on the disk.
    """
    names = listed(sources)
    place = _encoded_among(names)
    if place is None:
        settings = encoding_settings(config)
        if keep_encoded is not None:
            return kept_encoding(names, keep_encoded, reporter=reporter, options=options, **settings), config
        corpus = encode(names, reporter=reporter, directory=directory, options=options, earlier=earlier, **settings)
        return corpus, config
    if earlier is not None:
        raise ConfigError(f"{place}: is an encoded corpus, whose rare words are lost; continue with the text itself")
    if len(names) > 1:
        raise CorpusError(f"{place}: is an encoded corpus, which cannot be joined with other text; name it alone")
    if keep_encoded is not None:
        raise ConfigError(f"{place}: is an encoded corpus already, there is nothing to keep; leave out keep_encoded")
    corpus = open_encoded(names[0], reporter=reporter)
    if options is not None and options != TextOptions() and options != corpus.options:
        raise ConfigError(
            f"{place}: was encoded with other options of the text ({_options_text(corpus.options)}); leave them out, "
            "or encode the text again with these"
        )
    own: dict[str, Any] = {
        "tokenizer": corpus.tokenizer.name,
        "normalize": normalization_of(corpus.tokenizer) or "none",
        **{name: corpus.tokenizer.settings().get(name, "") for name in ("keep_joined", "keep_prefix")},
        "min_count": corpus.min_count,
        "stop_words": "none",
        "keep_words": "",
        "max_vocab": 0,
        "phrases": False,
    }
    own |= {name: value for name, value in corpus.choice.to_dict().items() if name in own}
    for name, value in own.items():
        wanted = getattr(config, name)
        if wanted != value and name in given:
            advice = f"leave out {name}={wanted!r}, or encode the text again"
            raise ConfigError(f"{name} is {wanted!r}, but {place} was encoded with {value!r}; {advice}")
    return corpus, dataclasses.replace(config, **own)


def _options_text(options: TextOptions) -> str:
    """The options that are not the default, for people."""
    default = TextOptions().to_dict()
    given = [f"{name} {value}" for name, value in options.to_dict().items() if value != default[name]]
    return ", ".join(given) or "none"


def _reused(
    path: str | os.PathLike[str],
    found: Sequence[Source],
    settings: Mapping[str, Any],
    overwrite: bool,
    reporter: Reporter,
) -> EncodedCorpus | str:
    """The kept encoding if it was made from this text with these settings, else the reason why it does not fit."""
    with DirectoryReader(path, ENCODED) as directory:
        manifest = _read_manifest(directory)
        reports = _read_sources(directory, manifest["counts"]["n_documents"])
        why = _why_not(manifest, reports, found, settings, reporter)
        if why is None:
            return _renamed(_opened(directory, manifest, True, reporter), found)
    if not overwrite and [report.path for report in reports] != [source.place() for source in found]:
        names = " ".join(printable(report.name)[-100:] for report in reports[:3]) + (" ..." if len(reports) > 3 else "")
        place = printable(os.fspath(path))
        advice = "name another directory, or replace it with jose encode and overwrite=True"
        raise CorpusError(f"{place}: holds the encoding of another text ({names}); {advice}")
    return why


def _why_not(
    manifest: Mapping[str, Any],
    reports: Sequence[SourceReport],
    found: Sequence[Source],
    settings: Mapping[str, Any],
    reporter: Reporter,
) -> str | None:
    """The first difference between an encoding and the wanted text and settings; None if there is none."""
    for name, value in settings.items():
        if manifest.get(name) != value:
            shown = "" if isinstance(value, (dict, str)) else f" (it was {manifest.get(name)}, and is {value} now)"
            return f"another {name.replace('_', ' ')}{shown}"
    if len(reports) != len(found):
        return f"it was made of {len(reports):,} files, and there are {len(found):,} now"
    for report, source in zip(reports, found, strict=True):
        if source.path is None or source.size() != report.disk_bytes:
            return f"{printable(source.name)} has changed since"
    reporter.start("checking", sum(report.disk_bytes for report in reports), "bytes")
    for report, source in zip(reports, found, strict=True):
        if sha256_of(source, reporter.advance) != report.disk_sha256:
            return f"{printable(source.name)} has changed since"
    reporter.finish()
    return None


def _encoded_among(names: Sequence[str | os.PathLike[str]]) -> str | None:
    """The first of the names that stands for an encoded corpus, as messages show it."""
    paths = [name for name in names if name != "-" and isinstance(name, (str, os.PathLike))]
    return next((printable(os.fspath(path)) for path in paths if is_encoded(path)), None)


def _renamed(corpus: EncodedCorpus, found: Sequence[Source]) -> EncodedCorpus:
    """The same corpus with its sources under the names by which they are called today."""
    corpus.sources = [
        dataclasses.replace(report, name=source.name, path=source.place())
        for report, source in zip(corpus.sources, found, strict=True)
    ]
    if isinstance(corpus.doc_ids, DocumentIds):
        corpus.doc_ids = DocumentIds([source.name for source in found], [report.n_lines for report in corpus.sources])
    corpus.statistics = dataclasses.replace(
        corpus.statistics, sources=tuple(printable(source.name) for source in found)
    )
    return corpus
