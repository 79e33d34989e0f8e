"""Models as folders of sentence-transformers and model2vec: a table of word vectors and a tokenizer.

Both libraries average the rows of a text's words and normalise the mean. The row of a word is its summand in our
document vector,

    row(w) = (presence(w) + topic(w)) (u_w - s c_w) A,

with the names of model/inference.py. A text in which no word repeats gets the direction of ``model.infer``. A word that
occurs tf times counts tf times there, and presence + topic (1 + log tf) here, which no table can express.

Unknown words have the row zero, which changes the length of the mean and not its direction. The folders are made
without either library.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from jose_embed.errors import ConfigError, ModelError
from jose_embed.model.embeddings import Embeddings
from jose_embed.storage.atomic import Chunk, DirectoryWriter, foreign_entry
from jose_embed.text.tokenizers import ALSO_LAST

__all__ = ["STATIC_FORMATS", "export_static"]

#: The formats that :func:`export_static` writes.
STATIC_FORMATS: Final = ("sentence-transformers", "model2vec")

_CONFIGS: Final = {"sentence-transformers": "config_sentence_transformers.json", "model2vec": "config.json"}
_FILES: Final = (*_CONFIGS.values(), "model.safetensors", "modules.json", "tokenizer.json")
_BLOCK_WORDS: Final = 4096
# The tokenizers in the regular expressions of the library tokenizers.
_LETTER: Final = r"[\p{L}\p{N}]"
_NOT_SPACE: Final = "[^\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+"
# Those that do not prevent an export.
_TEXT_FACTS: Final = frozenset({"texts", "fields", "rare_counts", "normalisation"})
# What turns a text into a Unicode form, as text/normalization.py does it.
_NORMALIZERS: Final[dict[str | None, list[dict[str, Any]]]] = {
    "nfc": [{"type": "NFC"}],
    "nfkc": [
        {"type": "NFKC"},
        *(
            {"type": "Replace", "pattern": {"String": apart}, "content": whole}
            for apart, whole in (("\u0e4d\u0e32", "\u0e33"), ("\u0ecd\u0eb2", "\u0eb3"))
        ),
    ],
}


def export_static(model: Embeddings, path: str | os.PathLike[str], *, format: str, overwrite: bool = False) -> None:
    """Write a model as a folder that sentence-transformers and model2vec load.

    Args:
        model: The model.
        path: The folder; it appears complete or not at all.
        format: ``sentence-transformers`` or ``model2vec``: the layout.
        overwrite: Replace a folder that holds only the files of such a model.

    Raises:
        ConfigError: an unknown format, or a model whose way from text to words these libraries cannot express.
        ModelError: the path is taken or cannot be written.
        TrainingError: a full disk.
    """
    if format not in STATIC_FORMATS:
        raise ConfigError(f"format is {format!r}; it must be one of {', '.join(STATIC_FORMATS)}")
    tokenizer = _tokenizer(model)
    by_sentence_transformers = format == "sentence-transformers"
    # model2vec normalises and cuts texts as its own settings say; sentence-transformers runs the modules.
    settings: dict[str, Any] = {"normalize": True, "max_length": None}
    modules = [
        {"idx": row, "name": str(row), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for row, (place, kind) in enumerate(((".", "StaticEmbedding"), ("1_Normalize", "Normalize")))
    ]
    if by_sentence_transformers:
        settings |= {"model_type": "SentenceTransformer", "similarity_fn_name": "cosine", "prompts": {}}
    else:
        settings |= {"model_type": "model2vec", "architectures": ["StaticModel"], "hidden_dim": model.dim}
    with DirectoryWriter(path, overwrite=overwrite, known=_known, needed_bytes=model.center_vectors.nbytes) as writer:
        writer.write(_CONFIGS[format], [_json(settings)])
        writer.write("modules.json", [_json(modules)])
        writer.write("tokenizer.json", [_json(tokenizer)])
        tensor = "embedding.weight" if by_sentence_transformers else "embeddings"
        writer.write("model.safetensors", _tensor_file(model, tensor))


def _known(path: Path) -> None:
    foreign = foreign_entry(path, _FILES)
    if foreign is not None:
        raise ModelError(f"{path}: holds {foreign!r}, which no export made; it will not be overwritten")


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True, indent=1).encode("ascii")


def _tokenizer(model: Embeddings) -> dict[str, Any]:
    """The tokenizer in the JSON of the library tokenizers.

    Raises:
        ConfigError: a tokenizer or an option without such a form.
    """
    name = model.tokenizer.name
    if name not in ("words", "whitespace"):
        what = f"its tokenizer is {name!r}, which other libraries do not have"
        raise ConfigError(f"{what}; export a model with the tokenizer words or whitespace")
    more = sorted(set(model.manifest.get("text", {})) - _TEXT_FACTS)
    if more:
        what = f"its words are made with {', '.join(more)}, which other libraries do not have"
        raise ConfigError(f"{what}; export a model that was trained without")
    patterns, final_sigma = _word_patterns(**model.tokenizer.settings())
    before = _NORMALIZERS.get(model.manifest.get("text", {}).get("normalisation"), [])
    before = [*before, _replace("\u02bc", "\u2019")] if before else []
    steps = [
        *before,
        _replace("\u00ad", ""), _replace("\u2019", "'"), _replace("\u0130", "i"),
        {"type": "Replace", "pattern": {"Regex": final_sigma}, "content": "\u03c2"}, {"type": "Lowercase"},
        *([{"type": "NFC"}] if before else []),
    ]  # fmt: skip
    if name == "whitespace":
        steps, patterns = before, [_NOT_SPACE]
    unknown = "[UNK]"
    while unknown in model:
        unknown = f"[{unknown}]"
    vocabulary = {word: row for row, word in enumerate([*model.words, unknown])}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": steps} if steps else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [_split(pattern) for pattern in patterns]},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": unknown},
    }


def _word_patterns(keep_joined: str = "", keep_prefix: str = "") -> tuple[list[str], str]:
    """The tokenizer ``words`` as regular expressions, each applied to what the one before found, and the one of a final
    sigma; as :func:`jose_embed.text.tokenizers.word_pattern`."""
    last = "".join(character for character in keep_joined if character in ALSO_LAST)
    inside = "".join(character for character in keep_joined if character not in ALSO_LAST)
    more = rf"[\p{{L}}\p{{N}}\p{{M}}{re.escape(last)}]"
    joiner = f"['\u200c\u200d{re.escape(inside)}]"
    word = rf"{_LETTER}{more}*(?:{joiner}{_LETTER}{more}*)*"
    final_sigma = rf"(?<={more})\u03a3(?!{more}|{joiner}{_LETTER})"
    if not keep_prefix:
        return [word], final_sigma
    prefix = f"[{re.escape(keep_prefix)}]"
    # The first takes what belongs to no other word along with a word, the second cuts it off.
    return [f"{prefix}?{word}{joiner}?{prefix}?", f"{prefix}?{word}"], final_sigma


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": True}


def _replace(old: str, new: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def _tensor_file(model: Embeddings, name: str) -> Iterator[Chunk]:
    """A safetensors file with the rows of the words and a row of zeros.

    Source: the format's description at https://github.com/huggingface/safetensors.
    """
    shape = [model.n_words + 1, model.dim]
    tensor = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * shape[0] * shape[1]]}
    header = json.dumps({"__metadata__": {"format": "pt"}, name: tensor}).encode("ascii")
    header += b" " * (-len(header) % 8)
    yield len(header).to_bytes(8, "little") + header
    encoder = model.encoder
    for start in range(0, model.n_words, _BLOCK_WORDS):
        block = slice(start, start + _BLOCK_WORDS)
        rows = encoder.document_rows(block) * encoder.word_weights[block].sum(axis=1, keepdims=True)
        yield np.ascontiguousarray(rows, "<f4").data
    yield bytes(4 * model.dim)
