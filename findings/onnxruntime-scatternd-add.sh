#!/usr/bin/env bash
# onnxruntime 1.32.0 on the CPU, ScatterND with reduction="add" and an index that occurs more than once.
# Expected: the sum of all its updates, as the operator's definition says for reductions (only "none" forbids repeated
# indices), the same with any number of threads.
# Seen: with one thread the sum is right in every run; with two threads some runs lose updates, without an error, and
# two runs of one session on the same input differ. ScatterElements with reduction="add" is right with any number.
# Exits 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

rows, width = 20_000, 1024


def wrong_runs(operator, n_threads, n_runs):
    """How many runs differ from the sum, and one wrong value."""
    known = {"axis": 0} if operator == "ScatterElements" else {}
    node = helper.make_node(operator, ["data", "indices", "updates"], ["sums"], reduction="add", **known)
    inputs = [
        helper.make_tensor_value_info("data", TensorProto.FLOAT, ["n", width]),
        helper.make_tensor_value_info("indices", TensorProto.INT64, ["m", "k"]),
        helper.make_tensor_value_info("updates", TensorProto.FLOAT, ["m", width]),
    ]
    outputs = [helper.make_tensor_value_info("sums", TensorProto.FLOAT, ["n", width])]
    graph = helper.make_graph([node], "sums", inputs, outputs)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    session = onnxruntime.InferenceSession(made.SerializeToString(), options)
    targets = (np.arange(rows) % 4)[:, None]
    given = {
        "data": np.zeros((4, width), np.float32),
        "indices": np.repeat(targets, width, axis=1) if operator == "ScatterElements" else targets,
        "updates": np.ones((rows, width), np.float32),
    }
    sums = [session.run(None, given)[0] for _ in range(n_runs)]
    wrong = [each for each in sums if not (each == rows / 4).all()]
    return len(wrong), float(wrong[0].min()) if wrong else rows / 4


one, _ = wrong_runs("ScatterND", 1, 5)
two, value = wrong_runs("ScatterND", 2, 50)
elements, _ = wrong_runs("ScatterElements", 2, 5)
print(f"ScatterND: 1 thread, {one} of 5 runs wrong; 2 threads, {two} of 50 wrong, such as {value} for {rows / 4}")
print(f"ScatterElements: 2 threads, {elements} of 5 runs wrong")
sys.exit(0 if one == elements == 0 and two > 0 else "ScatterND adds all updates")
PY
