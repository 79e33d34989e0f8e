"""A model as an ONNX graph: texts whose words are separated by spaces to document vectors.

    text      -> words                    StringSplit, at spaces
    words     -> rows of the vocabulary   LabelEncoder; unknown words and padding get the row n_words and are left out
    rows      -> (text, row), count       Unique over text * n_words + row
    count     -> weight                   presence(row) + topic(row) (1 + log count)
    weight    -> sum over words           ScatterElements; ScatterND loses some with two threads
    sum       -> direction

No operator depends on a locale. Words come from the model's tokenizer, which ONNX cannot express.
"""

from __future__ import annotations

import os
from typing import Any, Final

import numpy as np

from jose_embed.errors import ConfigError, MissingExtraError
from jose_embed.model.embeddings import Embeddings
from jose_embed.model.inference import TERM_WEIGHTS
from jose_embed.storage.atomic import atomic_file, plain_size

__all__ = ["export_onnx"]

_LARGEST: Final = 2_000_000_000  # a file of Protocol Buffers holds less than 2 GiB
_BLOCK_WORDS: Final = 4096
_OPSETS: Final = {"": 20, "ai.onnx.ml": 4}
_IR_VERSION: Final = 9


def export_onnx(model: Embeddings, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a model as an ONNX file, for onnxruntime and others.

    Its input ``text`` is a tensor of strings (n,), the words of each text separated by spaces, as
    ``" ".join(model.tokenizer(text))`` makes them; phrases of the model must be one word (``new_york``). Outputs:
    ``vectors``, float32 (n, dim), as :func:`jose_embed.infer` makes them, zeros for a text without a known word;
    ``n_known``, int64 (n,), known running words of each text.

    Args:
        model: The model.
        path: The file; it appears complete or not at all.
        overwrite: Replace the file if it exists.

    Raises:
        MissingExtraError: the package onnx is not installed.
        ConfigError: a model of 2 GB or more, which one file cannot hold.
        ModelError: the file exists or cannot be written.
        TrainingError: a full disk.

    Example::

        export_onnx(model, "corpus.onnx")
        session = onnxruntime.InferenceSession("corpus.onnx")
        vectors, n_known = session.run(None, {"text": np.array(["parse a date"], object)})
    """
    size = model.center_vectors.nbytes + 16 * model.n_words + sum(len(word) for word in model.words)
    if size > _LARGEST:
        raise ConfigError(
            f"an ONNX file holds at most {plain_size(_LARGEST)}, and the model needs {plain_size(size)}; train it "
            "with a larger min_count or a smaller dim"
        )
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("the export to ONNX", "onnx") from None
    made = _graph(model, onnx)
    onnx.checker.check_model(made)
    with atomic_file(path, overwrite=overwrite) as write:
        write(made.SerializeToString())


def _graph(model: Embeddings, onnx: Any) -> Any:
    """The ``onnx.ModelProto``."""
    helper, kinds, from_array = onnx.helper, onnx.TensorProto, onnx.numpy_helper.from_array
    nodes: list[Any] = []

    def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> None:
        nodes.append(helper.make_node(kind, inputs.split(), outputs.split(), **attributes))

    encoder = model.encoder
    presence, topic = np.asarray(encoder.word_weights, np.float32).T
    table = np.empty((model.n_words, model.dim), np.float32)
    for start in range(0, model.n_words, _BLOCK_WORDS):
        table[start : start + _BLOCK_WORDS] = encoder.document_rows(slice(start, start + _BLOCK_WORDS))
    constants = {
        "presence": presence, "topic": topic, "table": table,
        "n_words": np.int64(model.n_words), "dim": np.array([model.dim]), "most": np.int64(len(TERM_WEIGHTS) - 1),
        "first": np.int64(0), "second": np.array([1]), "one": np.float32(1), "smallest": np.float32(1e-30),
    }  # fmt: skip

    node("StringSplit", "text", "words n_split")
    node(
        "LabelEncoder", "words", "rows", domain="ai.onnx.ml",
        keys_strings=list(model.words), values_int64s=list(range(model.n_words)), default_int64=model.n_words,
    )  # fmt: skip
    node("Less", "rows n_words", "is_known")
    node("Cast", "is_known", "known_as_numbers", to=kinds.INT64)
    node("ReduceSum", "known_as_numbers second", "n_known", keepdims=0)
    # (text, row) of each known running word, as one number; each different one once, with its count.
    node("NonZero", "is_known", "places")
    node("Transpose", "places", "places_as_rows", perm=[1, 0])
    node("GatherND", "rows places_as_rows", "known_rows")
    node("Gather", "places first", "known_texts")
    node("Mul", "known_texts n_words", "text_starts")
    node("Add", "text_starts known_rows", "pairs")
    node("Unique", "pairs", "different unused_1 unused_2 counts")
    node("Div", "different n_words", "of_text")
    node("Mod", "different n_words", "of_row")
    # presence + topic (1 + log count)
    node("Min", "counts most", "counted")
    node("Cast", "counted", "counted_float", to=kinds.FLOAT)
    node("Log", "counted_float", "log_count")
    node("Add", "log_count one", "term")
    node("Gather", "topic of_row", "topic_of_row")
    node("Mul", "topic_of_row term", "topic_part")
    node("Gather", "presence of_row", "presence_of_row")
    node("Add", "presence_of_row topic_part", "weights")
    # The sum of each text, and its direction.
    node("Gather", "table of_row", "vectors_of_row")
    node("Unsqueeze", "weights second", "weights_as_column")
    node("Mul", "vectors_of_row weights_as_column", "summands")
    node("Unsqueeze", "of_text second", "texts_as_column")
    node("Shape", "summands", "shape_of_summands")
    node("Expand", "texts_as_column shape_of_summands", "targets")
    node("Shape", "text", "n_texts")
    node("Concat", "n_texts dim", "shape_of_sums", axis=0)
    node("ConstantOfShape", "shape_of_sums", "zeros", value=from_array(np.zeros(1, np.float32)))
    node("ScatterElements", "zeros targets summands", "sums", axis=0, reduction="add")
    node("ReduceL2", "sums second", "lengths", keepdims=1)
    node("Max", "lengths smallest", "divisors")
    node("Div", "sums divisors", "vectors")

    graph = helper.make_graph(
        nodes,
        "jose_embed",
        [helper.make_tensor_value_info("text", kinds.STRING, ["n"])],
        [
            helper.make_tensor_value_info("vectors", kinds.FLOAT, ["n", model.dim]),
            helper.make_tensor_value_info("n_known", kinds.INT64, ["n"]),
        ],
        [from_array(np.asarray(value), name) for name, value in constants.items()],
        doc_string="Words separated by spaces to document vectors on the unit sphere.",
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="jose-embed")
