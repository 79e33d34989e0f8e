#!/usr/bin/env bash
# wordllama 0.4.0.post1, WordLlama.load(disable_download=True) right after the installation.
# Expected: the model loads, because the wheel holds its weights and its tokenizer, and the docstring of load names
# wordllama/tokenizers as the first place where a tokenizer is looked for.
# Seen: FileNotFoundError. The weights are found in wordllama/weights, but the tokenizer is looked for in
# wordllama/tokenizer (no such folder), so without a network the default model does not load. It does with
# cache_dir=<folder of the package>, below which the folder is called tokenizers.
# Exits 0 while that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check wordllama==0.4.0.post1
"$folder/venv/bin/python" - "$folder/empty" <<'PY'
import sys
from pathlib import Path

import wordllama

package = Path(wordllama.__file__).parent
shipped = sorted(path.relative_to(package).as_posix() for path in package.glob("tokenizer*/*.json"))
print("the wheel's tokenizers:", shipped)
try:
    wordllama.WordLlama.load(cache_dir=Path(sys.argv[1]), disable_download=True)
    sys.exit("the model loads")
except FileNotFoundError as error:
    print("FileNotFoundError:", error)
    if not str(error).startswith("Tokenizer file"):
        sys.exit("it is not the tokenizer that is missing")
if shipped != ["tokenizers/l2_supercat_tokenizer_config.json"]:
    sys.exit("the wheel holds other files")
model = wordllama.WordLlama.load(cache_dir=package, disable_download=True)
print("with cache_dir=<folder of the package> it loads:", model.embed("one text").shape)
PY
