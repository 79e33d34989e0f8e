#!/bin/sh
# Numba 0.68.1: what the key of its disk cache (@njit(cache=True)) leaves out.
#
# Expected: a function compiled with other options, or whose helper in another file was edited, is compiled anew; a
# function that calls a function from its closure is found again by the next process.
# Seen, each in a process of its own:
#   1. error_model is not in the key: the code compiled with "numpy" (1/0 is inf) is served for "python" (an exception).
#   2. A caller is stale after an edit of its helper in another file: it keeps the old helper's code.
#   3. A function whose closure holds another compiled function never hits: each process compiles and leaves a file more.
#
# Exits 0 if all three are seen, 1 if one has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numba==0.68.1
export NUMBA_CACHE_DIR="$folder/cache"
status=0
differs() { echo "changed: $1"; status=1; }

cat > model.py <<'PY'
import os
from numba import njit

@njit(cache=True, error_model=os.environ["MODEL"])
def inverse(x):
    return 1.0 / x
PY
MODEL=numpy venv/bin/python -c 'from model import inverse; print(inverse(0.0))'
if MODEL=python venv/bin/python -c 'from model import inverse; print(inverse(0.0))' 2> errors; then
    echo "1. compiled for error_model=numpy, served for error_model=python: no ZeroDivisionError"
else
    tail -n 1 errors
    differs "error_model counts"
fi

cat > helper.py <<'PY'
from numba import njit

@njit(cache=True)
def one():
    return 1
PY
cat > caller.py <<'PY'
from numba import njit
from helper import one

@njit(cache=True)
def twice():
    return 2 * one()
PY
venv/bin/python -c 'from caller import twice; assert twice() == 2'
sed -i.old 's/return 1/return 100/' helper.py
found=$(venv/bin/python -c 'from caller import twice; print(twice())')
echo "2. after the helper returns 100, twice() is $found (200 would be right)"
[ "$found" = 2 ] || differs "a caller follows its helper"

cat > closure.py <<'PY'
from numba import njit

def made():
    @njit(cache=True)
    def inner():
        return 1

    @njit(cache=True)
    def outer():
        return inner() + 1

    return outer
PY
for process in 1 2 3; do
    venv/bin/python -c 'from closure import made; outer = made(); outer(); print("hits", sum(outer.stats.cache_hits.values()))'
done > hits
files=$(find cache -name 'closure.made.locals.outer*.nbc' | wc -l)
echo "3. three processes: $(sort hits | uniq -c | tr -s ' '), $files files of machine code"
if grep -qv "hits 0" hits || [ "$files" -lt 2 ]; then differs "closures are found again"; fi
exit $status
