#!/usr/bin/env bash
# gensim 4.4.0, KeyedVectors.add_vectors(keys, weights, extras={name: values}).
# Expected (its docstring): the named extra attributes of the new keys are set.
# Seen: ValueError ("too many values to unpack"), because the dict is iterated without .items(). The keys and vectors
# have been added by then, and the attribute's array has length 0.
# Exits 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check gensim==4.4.0
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
from gensim.models import KeyedVectors

keyed = KeyedVectors(2)
try:
    keyed.add_vectors(["up", "down"], np.float32([[0, 1], [0, -1]]), extras={"count": np.array([3, 2])})
except ValueError as error:
    print(f"ValueError: {error}; keys {keyed.index_to_key}, counts {keyed.expandos['count']}")
    sys.exit(0 if keyed.index_to_key == ["up", "down"] and len(keyed.expandos["count"]) == 0 else 1)
sys.exit("add_vectors accepted the extras")
PY
