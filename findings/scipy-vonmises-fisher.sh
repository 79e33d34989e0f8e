#!/bin/sh
# scipy 1.17.1: vonmises_fisher.fit at 100 dimensions.
#
# Expected: the concentration of a clear sample (2,000 directions of kappa 200), or an error.
# Seen: kappa is 1e-8, the uniform distribution, with a RuntimeWarning only: the Bessel functions underflow near 0, and
# the root finder takes the nan there for the root. The closed approximation r (d - r^2) / (1 - r^2) of Banerjee and
# others is within 3 % on the same sample.
#
# Exits with a status other than 0 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet numpy==2.4.6 scipy==1.17.1
"$folder/env/bin/python" - <<'PYTHON'
import warnings

import numpy as np
from scipy.stats import vonmises_fisher

dim, kappa = 100, 200.0
sample = vonmises_fisher(np.eye(dim)[0], kappa).rvs(2000, random_state=np.random.default_rng(0))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    _, fitted = vonmises_fisher.fit(sample)
r = np.linalg.norm(sample.mean(0))
closed = r * (dim - r**2) / (1 - r**2)
print("kappa", kappa, "fitted", fitted, "closed form", closed, "warnings", [str(each.message) for each in caught])
assert abs(closed / kappa - 1) < 0.03
assert fitted < 1e-6
PYTHON
