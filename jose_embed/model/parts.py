"""The contents of a model, and the checks that they fit together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ModelError
from jose_embed.storage.atomic import file_name_is_safe
from jose_embed.storage.manifest import MANIFEST_NAME
from jose_embed.text.ngrams import Ngrams
from jose_embed.text.texts import TEXTS_NAME, TextStore

#: The extra arrays that inference reads: weights of words, the context share, the reliability matrix.
WORD_WEIGHTS, CONTEXT_SHARE, DOCUMENT_MATRIX = "word_weights", "context_share", "document_matrix"

#: The JSON value that holds pairs of words that are one.
PHRASES: Final = "phrases"

#: The extra array that holds the counts of words outside of the vocabulary (text/rare_words.py).
RARE_COUNTS: Final = "rare_counts"

#: The extra array that holds the vectors of n-grams, and the fact of "text" that says which n-grams they are.
SUBWORD_VECTORS: Final = "subword_vectors"
SUBWORDS: Final = "subwords"

#: The tables of vectors; each is stored as NAME.npy.
TABLES: Final = ("center_vectors", "context_vectors", "doc_vectors")

#: Files of a model directory that its manifest does not list or need not list.
NOT_LISTED: Final = frozenset({MANIFEST_NAME, "quality.json", TEXTS_NAME})

#: File names that no extra array or value may have.
OWN_FILES: Final = NOT_LISTED | {
    *(f"{name}.npy" for name in TABLES),
    "vocabulary.tsv",
    "doc_ids.txt",
    "doc_token_counts.npy",
}

#: Sections of the manifest that describe how the model was made; those after the first four are optional.
ABOUT: Final = ("config", "tokenizer", "training", "corpus")
OPTIONAL_ABOUT: Final = ("text", "blocks")
_MOST: Final = 1e9  # for the largest of the learned numbers; far from it squares overflow or vanish
_ZERO: Final = np.zeros(())  # in place of an array that a model lacks
_TEXT_FACTS: Final = ("texts", "fields", "rare_counts")  # of "text": about what is kept beside the model


@dataclass(frozen=True, slots=True)
class ModelParts:
    """All that a model directory stores.

    Attributes:
        words: n_words different words, most frequent first.
        counts: int64 (n_words,), at least 1, descending.
        center_vectors: float32 (n_words, dim), rows of norm 1.
        context_vectors: float32 (n_words, dim), rows of norm 1.
        doc_ids: n_docs ids.
        doc_vectors: float32 (n_docs, dim), rows of norm 1.
        doc_token_counts: int64 (n_docs,), at least 0.
        extra_arrays: Numbers or booleans by name.
        extra_json: JSON values by name.
        about: The manifest's ``created``, ``config``, ``tokenizer``, ``training``, ``corpus`` and, if there are such,
            ``text`` and ``blocks``.
        texts: The texts and fields of the documents, if they are kept.
    """

    words: Sequence[str]
    counts: npt.NDArray[np.int64]
    center_vectors: npt.NDArray[np.float32]
    context_vectors: npt.NDArray[np.float32]
    doc_ids: Sequence[str]
    doc_vectors: npt.NDArray[np.float32]
    doc_token_counts: npt.NDArray[np.int64]
    extra_arrays: Mapping[str, npt.NDArray[Any]]
    extra_json: Mapping[str, Any]
    about: Mapping[str, Any]
    texts: TextStore | None = None

    def without_texts(self) -> ModelParts:
        """The same parts without texts and fields of the documents and without the counts of rare words."""
        text = decisive_facts(self.about, "text")
        about = {name: value for name, value in self.about.items() if name != "text"} | ({"text": text} if text else {})
        arrays = {name: array for name, array in self.extra_arrays.items() if name != RARE_COUNTS}
        return replace(self, about=about, texts=None, extra_arrays=arrays)

    def check(self) -> None:
        """Check that shapes, dtypes, lengths and names fit together; the rows of vectors are checked when written.

        Raises:
            ModelError: they do not.
        """
        n_words, dim = _table_shape("center_vectors", self.center_vectors)
        if n_words == 0 or dim == 0:
            raise ModelError(f"center_vectors has the shape {(n_words, dim)}; a model needs at least one word and axis")
        n_docs = _table_shape("doc_vectors", self.doc_vectors)[0]
        _check_shape("context_vectors", _table_shape("context_vectors", self.context_vectors), (n_words, dim))
        _check_shape("doc_vectors", self.doc_vectors.shape, (n_docs, dim))
        _check_shape("counts", self.counts.shape, (n_words,))
        _check_shape("doc_token_counts", self.doc_token_counts.shape, (n_docs,))
        _check_shape("words", (len(self.words),), (n_words,))
        _check_shape("doc_ids", (len(self.doc_ids),), (n_docs,))
        if (self.counts < 1).any() or (np.diff(self.counts) > 0).any():
            raise ModelError("counts must be at least 1 and descending: the most frequent word comes first")
        if self.texts is not None and self.texts.n_documents != n_docs:
            raise ModelError(f"there are texts of {self.texts.n_documents} documents, but the model has {n_docs}")
        if (self.doc_token_counts < 0).any():
            raise ModelError("doc_token_counts must not be negative")
        for name in [f"{name}.npy" for name in self.extra_arrays] + [f"{name}.json" for name in self.extra_json]:
            if not file_name_is_safe(name) or name in OWN_FILES:
                raise ModelError(
                    f"{name!r} cannot name an extra file of a model: use letters, digits, '_', '-' and '.', "
                    "and no name of its own files"
                )
        for name, array in self.extra_arrays.items():
            if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
                raise ModelError(
                    f"the extra array {name} holds {array.dtype} values; only numbers and booleans can be stored"
                )
        self.check_learned()

    def check_learned(self) -> None:
        """Check the arrays that inference reads.

        Raises:
            ModelError: another shape or dtype, a number that is not finite, or numbers that leave no direction.
        """
        n_words, dim = self.center_vectors.shape
        for name, shape in ((WORD_WEIGHTS, (n_words, 2)), (CONTEXT_SHARE, ()), (DOCUMENT_MATRIX, (dim, dim))):
            if name in self.extra_arrays:
                _check_finite(name, self.extra_arrays[name], shape)
                if shape:
                    _check_largest(name, self.extra_arrays[name])
        if (self.extra_arrays.get(WORD_WEIGHTS, _ZERO) < 0).any():
            raise ModelError(f"{WORD_WEIGHTS} holds a negative number; a weight is 0 or more")
        self._check_subwords()
        share = float(self.extra_arrays.get(CONTEXT_SHARE, _ZERO))
        if not 0 <= share <= 1:
            raise ModelError(f"{CONTEXT_SHARE} is {share:g}; it must be from 0 to 1")

    def _check_subwords(self) -> None:
        array, ngrams = self.extra_arrays.get(SUBWORD_VECTORS), self.ngrams
        if (ngrams is None) != (array is None):
            raise ModelError(
                f"{SUBWORD_VECTORS} needs the facts text.{SUBWORDS} of the manifest, and these need it; one is missing"
            )
        if ngrams is not None and array is not None:
            _check_shape(SUBWORD_VECTORS, array.shape, (ngrams.buckets, self.center_vectors.shape[1]))
            if array.dtype != np.float32:
                raise ModelError(f"{SUBWORD_VECTORS} holds {array.dtype} numbers, not float32")

    @property
    def ngrams(self) -> Ngrams | None:
        """The n-grams of which unknown words are composed; None if there are none.

        Raises:
            ModelError: the manifest does not say which.
        """
        facts = self.about.get("text", {}).get(SUBWORDS)
        if facts is None:
            return None
        names = ("shortest", "longest", "buckets")
        if not isinstance(facts, Mapping) or set(facts) != set(names) or any(
            type(value) is not int or not 1 <= value < 1 << 31 for value in facts.values()
        ):  # fmt: skip
            raise ModelError(
                f"{SUBWORD_VECTORS} has the facts {facts!r:.100}; text.{SUBWORDS} must be {', '.join(names)}, whole "
                "numbers from 1"
            )
        return Ngrams(**facts)


def decisive_facts(about: Mapping[str, Any], name: str) -> Any:
    """An optional fact of a manifest as far as answers depend on it: without those about what is kept; or None."""
    value = about.get(name)
    if name != "text" or not isinstance(value, Mapping):
        return value
    return {part: facts for part, facts in value.items() if part not in _TEXT_FACTS}


def _table_shape(name: str, table: Any) -> tuple[int, int]:
    if not isinstance(table, np.ndarray) or table.dtype != np.float32 or table.ndim != 2:
        found = f"{table.dtype} of shape {table.shape}" if isinstance(table, np.ndarray) else type(table).__name__
        raise ModelError(f"{name} is {found}; it must be a float32 array of shape (rows, dim)")
    return table.shape[0], table.shape[1]


def _check_shape(name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if found != wanted:
        raise ModelError(f"{name} has the shape {found}; to fit the other arrays it must be {wanted}")


def _check_finite(name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    _check_shape(name, array.shape, shape)
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        what = f"{array.dtype} numbers" if array.dtype.kind != "f" else "a NaN or an infinity"
        raise ModelError(f"{name} holds {what}; it must hold finite floating-point numbers")


def _check_largest(name: str, array: npt.NDArray[Any]) -> None:
    largest = float(np.abs(array).max())
    if not 1 / _MOST <= largest <= _MOST:
        why = "every document would be zero" if largest < 1 else "sums would overflow"
        raise ModelError(
            f"{name} holds numbers up to {largest:g}, so {why}; the largest must be {1 / _MOST:g} to {_MOST:g}"
        )


def whole_numbers(name: str, values: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Values as int64.

    Raises:
        ModelError: they are not whole numbers; ``name`` names the array.
    """
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise ModelError(f"{name} holds {array.dtype} values; it must hold whole numbers")
    return array.astype(np.int64, copy=False)
