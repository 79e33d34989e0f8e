"""A model as arrays and facts: made, saved, loaded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from jose_embed.config import TrainConfig
from jose_embed.errors import ModelError
from jose_embed.model.files import manifest_of, open_model, write_model
from jose_embed.model.parts import SUBWORD_VECTORS, ModelParts, whole_numbers
from jose_embed.model.subwords import Subwords
from jose_embed.progress import Reporter
from jose_embed.storage.directory import FileState as FileState  # also for the service, which sees no storage
from jose_embed.storage.manifest import MANIFEST_NAME, json_copy, now
from jose_embed.text.texts import TEXTS_NAME, KeptDocument, TextStore

Number = TypeVar("Number", bound=np.generic)


class StoredModel:
    """The arrays of a model and the facts stored with them; the attributes are those of :class:`Embeddings`."""

    words: Sequence[str]
    counts: npt.NDArray[np.int64]
    center_vectors: npt.NDArray[np.float32]
    context_vectors: npt.NDArray[np.float32]
    doc_ids: Sequence[str]
    doc_vectors: npt.NDArray[np.float32]
    doc_token_counts: npt.NDArray[np.int64]
    extra_arrays: Mapping[str, npt.NDArray[Any]]
    extra_json: Mapping[str, Any]
    path: Path | None
    _place: str | None  # the absolute path, whatever the working directory becomes
    _files: dict[str, FileState | None]  # of the directory, as they were when the model was loaded or saved
    _parts: ModelParts
    _manifest: dict[str, Any] | None

    def __init__(self) -> None:
        raise TypeError("Embeddings are made by jose_embed.train, jose_embed.load or Embeddings.from_arrays")

    @classmethod
    def from_arrays(
        cls,
        *,
        words: Sequence[str],
        counts: npt.ArrayLike,
        center_vectors: npt.NDArray[np.float32],
        context_vectors: npt.NDArray[np.float32],
        doc_ids: Sequence[str] = (),
        doc_vectors: npt.NDArray[np.float32] | None = None,
        doc_token_counts: npt.ArrayLike | None = None,
        config: TrainConfig | Mapping[str, Any] | None = None,
        tokenizer: str = "words",
        tokenizer_settings: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        corpus: Mapping[str, Any] | None = None,
        text: Mapping[str, Any] | None = None,
        extra_arrays: Mapping[str, npt.NDArray[Any]] | None = None,
        extra_json: Mapping[str, Any] | None = None,
        texts: TextStore | None = None,
    ) -> Self:
        """A model of arrays in memory or in mapped files, which are not copied.

        Args:
            words: n_words different words, most frequent first.
            counts: int64 (n_words,), at least 1, descending.
            center_vectors: float32 (n_words, dim), rows of norm 1 (checked by :meth:`save`); may be a strided view. The
                caller must not change the arrays afterwards.
            context_vectors: float32 (n_words, dim), rows of norm 1.
            doc_ids: n_docs ids; may be lazy. Default: none.
            doc_vectors: float32 (n_docs, dim). Default: no documents.
            doc_token_counts: int64 (n_docs,), 0 for a document without a known word. Default: all 1.
            config: The settings of the training, a :class:`TrainConfig` or a mapping.
            tokenizer: The registered name of the tokenizer. Default: "words".
            tokenizer_settings: Its settings.
            training: Facts about the training, as JSON values.
            corpus: Facts about the training text, as JSON values.
            text: How text becomes words besides the tokenizer, as JSON values; see ``_OPTIONAL`` in model/files.py.
            extra_arrays: Stored as NAME.npy.
            extra_json: Stored as NAME.json.
            texts: The texts and fields of the documents, for results to show.

        Raises:
            ModelError: shapes, dtypes or lengths that do not fit together, or values that are not JSON.
        """
        if doc_vectors is None:
            doc_vectors = np.empty((0, *np.shape(center_vectors)[1:]), np.float32)
        if doc_token_counts is None:
            doc_token_counts = np.ones(len(doc_vectors), np.int64)
        if texts is not None:
            kept = ({"texts": TEXTS_NAME} if texts.has_texts else {}) | {"fields": list(texts.fields)}
            text = {**(text or {}), **kept}
        about: dict[str, Mapping[str, Any]] = {
            "config": config.to_dict() if isinstance(config, TrainConfig) else config or {},
            "tokenizer": {"name": tokenizer, "settings": tokenizer_settings or {}},
            "training": training or {},
            "corpus": corpus or {},
            **({} if text is None else {"text": text}),
        }
        parts = ModelParts(
            words=words,
            counts=whole_numbers("counts", counts),
            center_vectors=center_vectors,
            context_vectors=context_vectors,
            doc_ids=doc_ids,
            doc_vectors=doc_vectors,
            doc_token_counts=whole_numbers("doc_token_counts", doc_token_counts),
            extra_arrays=dict(extra_arrays or {}),
            extra_json={name: json_copy(value, f"{name}.json") for name, value in (extra_json or {}).items()},
            about={
                "created": now(),
                **{name: json_copy(dict(value), f"{name!r} of the manifest") for name, value in about.items()},
            },
            texts=texts,
        )
        parts.check()
        return cls._of(parts)

    @classmethod
    def _of(cls, parts: ModelParts, manifest: dict[str, Any] | None = None, path: Path | None = None) -> Self:
        model = object.__new__(cls)
        model.words = parts.words
        model.counts = _read_only(parts.counts)
        model.center_vectors = _read_only(parts.center_vectors)
        model.context_vectors = _read_only(parts.context_vectors)
        model.doc_ids = parts.doc_ids
        model.doc_vectors = _read_only(parts.doc_vectors)
        model.doc_token_counts = _read_only(parts.doc_token_counts)
        model.extra_arrays = {name: _read_only(array) for name, array in parts.extra_arrays.items()}
        model.extra_json = parts.extra_json
        model.path = path
        model._place = None if path is None else os.path.abspath(path)
        model._files = {}
        model._parts = parts
        model._manifest = manifest
        model._prepare()
        return model

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle path and id of a saved or loaded model, whose files are mapped again; else all arrays.

        The files are compared with those of today by inode, size and time, and if these differ by their checksums.
        """
        if self._place is not None:
            return _mapped_again, (type(self), self._place, self.id, _signature(self._files, self.manifest))
        return type(self)._of, (self._parts,)

    def _prepare(self) -> None:
        """Set up what a subclass holds beside the arrays."""

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False, reporter: Reporter | None = None) -> Path:
        """Write the model as a directory, which appears complete or not at all.

        The directory is written under a hidden temporary name, synced and renamed. A killed process leaves the
        temporary behind; the next one that saves under the same name removes it.

        Args:
            path: The directory, usually ``NAME.jose``.
            overwrite: Replace an existing model; nothing but a model is ever replaced.
            reporter: Receives the phase "saving", in bytes.

        Returns:
            The path, which is from now on the model's ``path``.

        Raises:
            ModelError: the path is taken or cannot be written; a word occurs twice; a word or id contains a line end.
            TrainingError: a row that is not finite or not of norm 1, or a full disk.
        """
        self._manifest = write_model(self._parts, path, overwrite=overwrite, reporter=reporter)
        self.path, self._place, self._files = Path(path), os.path.abspath(path), FileState.of_directory(path)
        return self.path

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        verify: bool = False,
        mapped: bool = True,
        reporter: Reporter | None = None,
    ) -> Self:
        """Open a model directory and map its arrays read-only.

        Args:
            path: The directory.
            verify: Also read every byte: the SHA-256 of each file and of the manifest, rows of norm 1, distinct words.
            mapped: Map the files; False reads them into memory, so that a later change of them on disk has no effect.
            reporter: Receives the phase "verifying", in bytes.

        Raises:
            ModelError: missing, damaged, not a model, or of a newer format; the message names the file.
        """
        files = FileState.of_directory(path)  # before: a later change is noticed
        parts, manifest = open_model(path, verify=verify, mapped=mapped, reporter=reporter)
        model = cls._of(parts, manifest, Path(path))
        model._files = files
        return model

    @property
    def manifest(self) -> dict[str, Any]:
        """The stored facts: format, id, config, tokenizer, counts, files, training, corpus. Not to be changed.

        For a model that was neither saved nor loaded, the first access reads all arrays once.
        """
        if self._manifest is None:
            self._manifest = manifest_of(self._parts)
        return self._manifest

    @property
    def id(self) -> str:
        """SHA-256 in hex over all that answers depend on; equal models have equal ids."""
        return str(self.manifest["id"])

    @property
    def has_texts(self) -> bool:
        """Whether the texts of the documents are kept."""
        return self._parts.texts is not None and self._parts.texts.has_texts

    @property
    def kept_fields(self) -> tuple[str, ...]:
        """The names of the fields that are kept of documents."""
        return self._parts.texts.fields if self._parts.texts is not None else ()

    def kept_documents(self, rows: Sequence[int]) -> list[KeptDocument]:
        """The texts and fields that are kept of documents.

        Args:
            rows: Rows of documents, from 0.

        Raises:
            ModelError: the kept texts are damaged.
        """
        if self._parts.texts is None:
            return [KeptDocument(None, {})] * len(rows)
        return self._parts.texts.read(rows)

    @property
    def texts(self) -> TextStore | None:
        """The kept texts and fields of the documents, if there are such."""
        return self._parts.texts

    @property
    def subwords(self) -> Subwords | None:
        """The vectors of n-grams, of which unknown words are composed; None without them."""
        ngrams = self._parts.ngrams
        return None if ngrams is None else Subwords(self.extra_arrays[SUBWORD_VECTORS], ngrams)

    def without_texts(self) -> Self:
        """The same model without texts and fields of its documents and counts of rare words; it has the same id."""
        return self._of(self._parts.without_texts())

    @property
    def n_words(self) -> int:
        """Words in the vocabulary."""
        return int(self.center_vectors.shape[0])

    @property
    def n_docs(self) -> int:
        """Documents, including those without a known word."""
        return int(self.doc_vectors.shape[0])

    @property
    def known_documents(self) -> npt.NDArray[np.bool_]:
        """bool (n_docs,): which documents have a known word.

        The other rows of ``doc_vectors`` are random; cluster, classify or index ``doc_vectors[known_documents]``.
        """
        return self.doc_token_counts > 0

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return int(self.center_vectors.shape[1])

    @property
    def config(self) -> TrainConfig:
        """The settings of the training; a setting that did not exist then has its default.

        Raises:
            ConfigError: settings that this version of the package does not know.
        """
        return TrainConfig.from_dict(self._parts.about["config"])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.n_words:,} words and {self.n_docs:,} documents, dim {self.dim}>"


def _mapped_again(kind: type[StoredModel], place: str, id: str, signature: str) -> StoredModel:
    """The model of a pickle.

    Raises:
        ModelError: its directory is gone, damaged, or holds another model now.
    """
    try:
        model = kind.load(place)
        if model.id == id and _signature(model._files, model.manifest) != signature:
            model = kind.load(place, verify=True)
    except ModelError as error:
        raise ModelError(f"a pickled model is read from its directory again, and that failed: {error}") from None
    if model.id != id:
        raise ModelError(
            f"{place}: holds another model than when it was pickled (id {model.id[:12]}, not {id[:12]}); "
            "load it instead of unpickling, or keep each model under a name of its own"
        )
    return model


def _signature(files: Mapping[str, FileState | None], manifest: Mapping[str, Any]) -> str:
    """A short hash of the states of a model's files; empty if they are unknown."""
    states = sorted((name, files.get(name)) for name in (MANIFEST_NAME, *manifest["files"]))
    return hashlib.sha256(repr(states).encode()).hexdigest()[:32] if files else ""


def _read_only(array: npt.NDArray[Number]) -> npt.NDArray[Number]:
    view = array.view(np.ndarray)
    view.flags.writeable = False
    return view
