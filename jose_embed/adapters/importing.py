"""Models of word vectors that other programs made.

A file or folder becomes a table of names and rows; rows become directions. Text needs weights of words, which such
files do not hold: they follow from counts, from the order of the rows (Zipf's law, the most frequent word first), from
the norms of the rows (static models of sentence-transformers and model2vec put their weights there), or are given.

Source: Tissier, Gravier and Habrard, and the documentation of model2vec, for weights by rank.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ConfigError, MissingExtraError, ModelError
from jose_embed.model.embeddings import Embeddings
from jose_embed.model.exchange import FORMATS, format_of, read_safetensors, read_vectors
from jose_embed.model.inference import topic_alone
from jose_embed.model.parts import WORD_WEIGHTS
from jose_embed.progress import Reporter
from jose_embed.storage.atomic import plain_size, reason
from jose_embed.storage.columns import NORM_TOLERANCE, row_blocks
from jose_embed.text.sources import printable

__all__ = ["IMPORT_FORMATS", "WEIGHTS", "import_vectors"]

#: The formats that :func:`import_vectors` reads.
IMPORT_FORMATS: Final = (*FORMATS, "npy", "static")
#: The ways to weigh words, besides given weights.
WEIGHTS: Final = ("counts", "norms", "equal")

_MOST_TEXT_BYTES: Final = 1 << 30  # of a list of words or a tokenizer
_TENSORS: Final[tuple[str, ...]] = ("vectors", "embedding.weight", "embeddings", "weight")
_KINDS: Final = "fiu"
_ZIPF_TOTAL, _ZIPF_SHIFT = 1e9, 2.7
_MOST_COUNT: Final = 1 << 40
_BATCH_WORDS: Final = 4096

PathLike = str | os.PathLike[str]
Numbers = Mapping[str, float] | PathLike


class _Table(NamedTuple):
    """Words and their rows, of any length; the rows may be mapped and of any type of number."""

    words: Sequence[str]
    rows: npt.NDArray[Any]


def import_vectors(
    path: PathLike,
    *,
    format: str | None = None,
    words: Iterable[str] | PathLike | None = None,
    counts: Numbers | None = None,
    weights: str | Numbers | None = None,
    tokenizer: str = "words",
    on_error: str = "stop",
    reporter: Reporter | None = None,
) -> Embeddings:
    """A model of the word vectors of another program.

    Args:
        path: A file in the word2vec format (text, with or without its first line, or binary), a ``.vec`` of fastText,
            a text file of GloVe, a safetensors or ``.npy`` file, or the folder of a static model of
            sentence-transformers or model2vec.
        format: One of :data:`IMPORT_FORMATS`; by the ending of the name if omitted.
        words: The words of the rows, for ``.npy`` files and safetensors files without a tensor ``names``: strings, or a
            file with a word per line, or a JSON file with a list of words or an object of words and row numbers. For a
            folder: words to make from sub-words (needs the extra ``static``); the whole words of its tokenizer if
            omitted.
        counts: Occurrences by word, or a file with a word, a tab or space and its count per line; a word without a
            count has 1. By Zipf's law from the order of the rows if omitted.
        weights: ``counts`` (the log of the inverse relative frequency), ``norms`` (the norm of the row), ``equal``, or
            weights by word as for ``counts``. Default: ``norms`` for folders, else ``counts``.
        tokenizer: The tokenizer for texts.
        on_error: ``stop`` or ``skip``: leave out rows of zeros, repeated words and words that a model cannot hold.
        reporter: Receives notes on what was left out, and on words that no text can contain.

    Returns:
        A model without documents; center and context vectors are the same rows of norm 1.

    Raises:
        ConfigError: an unknown format, tokenizer or kind of weights, or ``words`` missing or not needed.
        ModelError: a damaged file, lists of other lengths than the table, a row without a direction, a repeated word.
        MissingExtraError: sub-words without the package tokenizers.

    Example::

        model = jose_embed.import_vectors("glove.6B.100d.txt")
        model.save("glove.jose")
    """
    if on_error not in ("stop", "skip"):
        raise ConfigError(f"on_error is {on_error!r}; it must be stop or skip")
    if isinstance(weights, str) and weights not in WEIGHTS and not os.path.isfile(weights):
        raise ConfigError(f"weights is {weights!r}; it must be one of {', '.join(WEIGHTS)}, or a file of weights")
    kind = _format_of(path, format)
    table = _static_table(Path(path), words) if kind == "static" else _file_table(path, kind, words, on_error)
    source = os.fspath(path)
    rows, norms = _directions(table)
    numbers = None if counts is None else _given_numbers(counts, "counts")
    kept, order_counts, left_out = _kept_rows(source, table.words, norms, numbers, on_error)
    if len(kept) != len(rows) or not np.array_equal(kept, np.arange(len(rows))):
        rows = rows[kept]
    chosen = [table.words[row] for row in kept.tolist()]
    how = weights if weights is not None else "norms" if kind == "static" else "counts"
    model = Embeddings.from_arrays(
        words=chosen,
        counts=order_counts,
        center_vectors=rows,
        context_vectors=rows,
        config={"tokenizer": tokenizer} | ({"dim": rows.shape[1]} if 2 <= rows.shape[1] <= 1024 else {}),
        tokenizer=tokenizer,
        training={"imported_from": os.path.basename(os.path.normpath(source)), "format": kind, "left_out": left_out},
        text={"normalisation": "nfc"},
        extra_arrays=_weights(how, chosen, norms[kept]),
    )
    _ = model.tokenizer  # an unknown one is refused here
    if reporter is not None:
        _report(model, source, left_out, reporter)
    return model


def _format_of(path: PathLike, format: str | None) -> str:
    if format is not None and format not in IMPORT_FORMATS:
        raise ConfigError(f"format is {format!r}; it must be one of {', '.join(IMPORT_FORMATS)}")
    if format is not None:
        return format
    if os.path.isdir(path):
        return "static"
    return "npy" if Path(path).suffix.lower() == ".npy" else format_of(path)


def _report(model: Embeddings, source: str, left_out: Mapping[str, int], reporter: Reporter) -> None:
    for what, n in left_out.items():
        reporter.note(f"{source}: {n:,} {what} left out")
    tokenizer = model.tokenizer
    unseen = [word for word in model.words if tokenizer(word) != [word]]
    if unseen:
        reporter.note(
            f"{len(unseen):,} of {model.n_words:,} words, such as {printable(unseen[0])}, are never made by the "
            f"tokenizer {tokenizer.name}: they are found by name, and not in texts"
        )


# ------------------------------------------------------------------------------------------------------------- files


def _file_table(path: PathLike, format: str, words: Iterable[str] | PathLike | None, on_error: str) -> _Table:
    source = os.fspath(path)
    if format in ("word2vec", "word2vec-binary"):
        if words is not None:
            raise ConfigError(f"{source}: a {format} file holds its words; leave words out")
        return _Table(*read_vectors(path, format=format, distinct=on_error == "stop"))
    if format == "npy":
        rows = _npy(path)
    else:
        tensors, _ = read_safetensors(path)
        if words is None and "names" in tensors:
            return _Table(*read_vectors(path, format=format, distinct=on_error == "stop"))
        rows = _only_table(source, tensors)
    if words is None:
        raise ConfigError(f"{source}: holds no words; name them by words=..., a file with a word per line")
    _check_rows(source, rows)
    listed = _given_words(words)
    if len(listed) != len(rows):
        raise ModelError(f"{source}: has {len(rows):,} rows, but there are {len(listed):,} words; they must be as many")
    return _Table(listed, rows)


def _only_table(source: str, tensors: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    tables = {name: array for name, array in tensors.items() if array.ndim == 2}
    chosen: list[str] = [name for name in _TENSORS if name in tables][:1] or list(tables)
    if len(chosen) != 1:
        found = ", ".join(sorted(tensors)[:8]) or "none"
        raise ModelError(f"{source}: holds no table of vectors; its tensors are: {found}")
    return tables[chosen[0]]


def _npy(path: PathLike) -> npt.NDArray[Any]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    except Exception as error:  # a damaged header raises errors of Python's own parser, too
        what = reason(error) if isinstance(error, OSError) else "it is damaged, or does not hold numbers only"
        raise ModelError(f"{os.fspath(path)}: cannot be read ({what}); save it again by numpy.save") from None


def _check_rows(source: str, rows: Any) -> None:
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind not in _KINDS or 0 in rows.shape:
        found = f"{rows.dtype} numbers of shape {rows.shape}" if isinstance(rows, np.ndarray) else "several arrays"
        raise ModelError(f"{source}: holds {found}; it must hold a table of numbers, a row per word")


def _text_of(path: PathLike) -> str:
    """The text of a small file.

    Raises:
        ModelError: it cannot be read, is too large or is not UTF-8.
    """
    try:
        size = os.stat(path).st_size
        if size > _MOST_TEXT_BYTES:
            raise ModelError(
                f"{os.fspath(path)}: has {plain_size(size)}; at most {plain_size(_MOST_TEXT_BYTES)} are read"
            )
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelError(f"{os.fspath(path)}: is not UTF-8 at byte {error.start}; convert it") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{os.fspath(path)}: cannot be read ({reason(error)})") from None


def _json_of(path: PathLike) -> Any:
    try:
        return json.loads(_text_of(path))
    except (ValueError, RecursionError):
        raise ModelError(f"{os.fspath(path)}: is not JSON; take it from a good copy") from None


def _lines(path: PathLike) -> list[str]:
    lines = [line.removesuffix("\r") for line in _text_of(path).split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def _given_words(words: Iterable[str] | PathLike) -> Sequence[str]:
    if not isinstance(words, (str, os.PathLike)):
        listed = list(words)
        if not all(isinstance(word, str) for word in listed):
            raise ConfigError("words holds something that is not a string; give strings")
        return listed
    if Path(words).suffix.lower() != ".json":
        return _lines(words)
    value = _json_of(words)
    if isinstance(value, dict) and all(type(row) is int for row in value.values()):
        ordered = sorted(value, key=value.__getitem__)
        if [value[word] for word in ordered] == list(range(len(ordered))):
            return ordered
    elif isinstance(value, list) and all(isinstance(word, str) for word in value):
        return value
    raise ModelError(f"{os.fspath(words)}: must hold a list of words, or an object of words and the rows 0, 1, 2 ...")


def _given_numbers(numbers: Numbers, what: str) -> dict[str, float]:
    """Numbers by word, finite and not negative."""
    if isinstance(numbers, Mapping):
        found = [(word, str(number), f"the {what} of {word!r}") for word, number in numbers.items()]
    else:
        place = os.fspath(numbers)
        found = []
        for row, line in enumerate(_lines(numbers), 1):
            word, separator, number = line.rpartition("\t" if "\t" in line else " ")
            if not separator:
                raise ModelError(f"{place}: line {row} is {line[:80]!r}; it must be a word, a tab and a number")
            found.append((word, number, f"{place}: line {row}"))
    values: dict[str, float] = {}
    for word, text, where in found:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < _MOST_COUNT:
            raise ModelError(f"{where} is {text[:40]!r}; it must be a number from 0 to {_MOST_COUNT:,}")
        values[word] = value
    return values


# -------------------------------------------------------------------------------------------------------------- rows


def _directions(table: _Table) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Rows of norm 1, float32, and the norms of the given rows; zeros stay, and a row of norm 1 keeps its bytes.

    Raises:
        ModelError: a number that is not finite.
    """
    given = table.rows
    own = given.dtype == np.float32 and given.flags.writeable
    rows = given if own else np.empty(given.shape, np.float32)
    norms = np.empty(len(given))
    for first, block in row_blocks(given):
        wide = block.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            largest = np.abs(wide).max(axis=1, initial=0.0)
            if not np.isfinite(largest).all():
                row = first + int(np.isfinite(largest).argmin())
                raise ModelError(f"the vector of {table.words[row][:100]!r} holds a NaN or an infinity; leave it out")
            scale = np.where(largest > 0, largest, 1.0)  # squares of tiny or huge numbers stay in range
            lengths = scale * np.linalg.norm(wide / scale[:, None], axis=1)
        norms[first : first + len(block)] = lengths
        unit = np.abs(lengths - 1) <= NORM_TOLERANCE
        divisor = np.where(unit | (lengths == 0), 1.0, lengths)[:, None]
        rows[first : first + len(block)] = (wide / scale[:, None]) / (divisor / scale[:, None])
        if unit.any() and own:
            rows[first : first + len(block)][unit] = wide[unit]
        elif unit.any():
            rows[first : first + len(block)][unit] = block[unit]
    return rows, norms


def _kept_rows(
    source: str,
    words: Sequence[str],
    norms: npt.NDArray[np.float64],
    numbers: Mapping[str, float] | None,
    on_error: str,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], dict[str, int]]:
    """The rows to keep, the most frequent word first; their counts; how many were left out, by reason."""
    seen: set[str] = set()
    kept: list[int] = []
    left_out: dict[str, int] = {}
    for row, (word, norm) in enumerate(zip(words, norms.tolist(), strict=True)):
        fault = None
        if not word or "\t" in word or "\n" in word:
            fault = "words that are empty or hold a tab or line end"
        elif word in seen:
            fault = "repeated words"
        elif not norm > 0:
            fault = "rows of zeros"
        if fault is None:
            seen.add(word)
            kept.append(row)
        elif on_error == "skip":
            left_out[fault] = left_out.get(fault, 0) + 1
        else:
            raise ModelError(
                f"{source}: row {row + 1} ({word[:100]!r}) is one of the {fault}, which a model cannot hold; "
                "take it out, or add on_error='skip'"
            )
    if not kept:
        raise ModelError(f"{source}: holds no word with a direction, so there is nothing to import")
    rows = np.array(kept, np.int64)
    if numbers is None:
        ranks = np.arange(len(rows))
        return rows, np.maximum(1, _ZIPF_TOTAL / (ranks + _ZIPF_SHIFT)).astype(np.int64), left_out
    counts = np.array([max(1, round(numbers.get(words[row], 1))) for row in kept], np.int64)
    order = np.argsort(-counts, kind="stable")
    return rows[order], counts[order], left_out


def _weights(
    how: str | Numbers, words: Sequence[str], norms: npt.NDArray[np.float64]
) -> dict[str, npt.NDArray[np.float64]]:
    """The weights to store; none if they follow from the counts."""
    if how == "counts":
        return {}
    if how == "equal":
        topic = np.ones(len(words))
    elif how == "norms":
        topic = norms / norms.max()
    else:
        given = _given_numbers(how, "weights")
        lacking = next((word for word in words if word not in given), None)
        if lacking is not None:
            raise ModelError(f"the weights lack the word {lacking[:100]!r}; give each word a weight")
        topic = np.array([given[word] for word in words])
        if not topic.any():
            raise ModelError("all weights are 0, so no text has a direction; give some word a weight above 0")
    return {WORD_WEIGHTS: topic_alone(topic)}


# ------------------------------------------------------------------------------------------------------------ folders


def _static_table(folder: Path, words: Iterable[str] | PathLike | None) -> _Table:
    """Words and rows of the folder of a static model."""
    place = _static_folder(folder)
    tensors, _ = read_safetensors(place / "model.safetensors")
    rows = _only_table(os.fspath(place / "model.safetensors"), tensors)
    _check_rows(os.fspath(place / "model.safetensors"), rows)
    tokenizer_file = place / "tokenizer.json"
    if not tokenizer_file.is_file():
        tokenizer_file = folder / "tokenizer.json"
    facts = _json_of(tokenizer_file)
    ids, unknown = _vocabulary(tokenizer_file, facts)
    rows = _by_token(os.fspath(place), rows, tensors, max(ids.values(), default=-1) + 1)
    if words is not None:
        return _summed(tokenizer_file, rows, _given_words(words), unknown)
    whole = _whole_words(tokenizer_file, facts, ids, unknown)
    order = sorted(whole, key=whole.__getitem__)
    return _Table(order, rows[[whole[word] for word in order]])


def _static_folder(folder: Path) -> Path:
    """Where the table lies: the folder itself, or that of its first module."""
    modules = _json_of(folder / "modules.json") if (folder / "modules.json").is_file() else []
    first = modules[0] if isinstance(modules, list) and modules and isinstance(modules[0], dict) else {}
    kind, path = str(first.get("type", "StaticEmbedding")), str(first.get("path", ""))
    if not kind.endswith("StaticEmbedding"):
        raise ModelError(
            f"{folder}: its first module is {kind.rpartition('.')[2][:60]}; only static models, a table of vectors and "
            "a tokenizer, can be imported"
        )
    inner = Path(path)
    if inner.is_absolute() or ".." in inner.parts:
        raise ModelError(f"{folder}: modules.json names the folder {path[:100]!r}, which is outside; it is not read")
    place = folder / inner
    if not (place / "model.safetensors").is_file():
        raise ModelError(
            f"{place}: holds no model.safetensors; name the folder of a static model of sentence-transformers or "
            "model2vec"
        )
    return place


def _vocabulary(path: Path, facts: Any) -> tuple[dict[str, int], frozenset[int]]:
    """The ids of all tokens, and the ids of those that are no words: unknown and special ones."""
    try:
        vocabulary = facts["model"]["vocab"]
        if isinstance(vocabulary, list):  # Unigram: pieces and scores
            vocabulary = {piece: row for row, (piece, _) in enumerate(vocabulary)}
        ids = {str(token): row for token, row in vocabulary.items()}
        special = {token["id"] for token in facts.get("added_tokens") or () if token.get("special")}
        unknown = facts["model"].get("unk_token")
        special |= {ids[unknown]} if unknown in ids else set()
        if isinstance(facts["model"].get("unk_id"), int):
            special.add(facts["model"]["unk_id"])
        if not ids or not all(type(row) is int and row >= 0 for row in (*ids.values(), *special)):
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ModelError(f"{path}: is not the tokenizer of a static model; take it from a good copy") from None
    return ids, frozenset(special)


def _by_token(
    source: str, rows: npt.NDArray[Any], tensors: Mapping[str, npt.NDArray[Any]], n_tokens: int
) -> npt.NDArray[Any]:
    """The row of each token; model2vec may share rows (``mapping``) and keep weights apart (``weights``)."""
    mapping, weights = tensors.get("mapping"), tensors.get("weights")
    if mapping is not None:
        if mapping.ndim != 1 or mapping.dtype.kind not in "iu" or not len(mapping):
            raise ModelError(f"{source}: its mapping of tokens to rows is damaged; take it from a good copy")
        if int(mapping.min()) < 0 or int(mapping.max()) >= len(rows):
            raise ModelError(f"{source}: its mapping names a row that is not among its {len(rows):,}")
        rows = rows[mapping]
    if weights is not None:
        if weights.shape != (len(rows),) or weights.dtype.kind != "f":
            raise ModelError(
                f"{source}: its weights have the shape {weights.shape}, but there are {len(rows):,} tokens"
            )
        rows = rows.astype(np.float32) * weights.astype(np.float32)[:, None]
    if len(rows) < n_tokens:
        raise ModelError(f"{source}: has {len(rows):,} rows, but its tokenizer {n_tokens:,} tokens; it is damaged")
    return rows


def _whole_words(path: Path, facts: Any, ids: Mapping[str, int], special: frozenset[int]) -> dict[str, int]:
    """The tokens that are whole words, spelled as words, with their ids."""
    kind = facts["model"].get("type")
    plain = {token: row for token, row in ids.items() if row not in special}
    if kind == "WordLevel":
        return plain
    if kind == "WordPiece":
        prefix = facts["model"].get("continuing_subword_prefix") or "##"
        return {token: row for token, row in plain.items() if not token.startswith(prefix)}
    tokenizer = _tokenizer(path)
    words: dict[str, int] = {}
    for token, row in plain.items():
        if token[:1] in ("\u2581", "\u0120"):  # the marks of a token that begins a word
            word = tokenizer.decode([row]).strip()
            if word and "\ufffd" not in word and not any(character.isspace() for character in word):
                words.setdefault(word, row)
    return words


def _tokenizer(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingExtraError("a static model with sub-words", "static") from None
    try:
        tokenizer = Tokenizer.from_str(_text_of(path))
        tokenizer.no_padding()
        tokenizer.no_truncation()
    except Exception as error:  # the library raises plain exceptions
        raise ModelError(f"{path}: the library tokenizers does not read it ({str(error)[:100]})") from None
    return tokenizer


def _summed(path: Path, rows: npt.NDArray[Any], words: Sequence[str], special: frozenset[int]) -> _Table:
    """The sum of the rows of each word's sub-words, as such models add them up; zeros for unknown parts only."""
    tokenizer = _tokenizer(path)
    sums = np.zeros((len(words), rows.shape[1]), np.float32)
    for first in range(0, len(words), _BATCH_WORDS):
        batch = list(words[first : first + _BATCH_WORDS])
        for place, found in enumerate(tokenizer.encode_batch(batch, add_special_tokens=False), first):
            ids = [row for row in found.ids if row not in special and row < len(rows)]
            if ids:
                sums[place] = rows[ids].sum(axis=0, dtype=np.float64)
    return _Table(words, sums)
