#!/usr/bin/env bash
# safetensors 0.8.0, safetensors.numpy.save_file of an array that is a view (transposed, a slice of columns, reversed).
# Expected: the file holds the values of the array, as in 0.7.0, or the call refuses it.
# Seen: right shape, other values, no error; each of the three views below is read back wrong.
# Exits 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder/vectors.safetensors" <<'PY'
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

array = np.arange(12, dtype=np.float32).reshape(3, 4)
wrong = []
for name, view in {"transposed": array.T, "columns": array[:, 1:3], "reversed": array[::-1]}.items():
    save_file({"vectors": view}, sys.argv[1])
    read = load_file(sys.argv[1])["vectors"]
    print(f"{name}: saved {view.tolist()}, read {read.tolist()}")
    if read.shape == view.shape and not np.array_equal(read, view):
        wrong.append(name)
sys.exit(0 if wrong == ["transposed", "columns", "reversed"] else f"wrong are {wrong}")
PY
