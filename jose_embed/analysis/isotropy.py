"""How evenly vectors use the directions of their space.

With the rows w of norm 1, M = W^T W / n their second moment and p its eigenvalues, which sum to 1:

* mean cosine: of two different rows; 0 if they point everywhere alike;
* effective rank: exp(-sum p log p), from 1, one axis, to the dimension;
* partition ratio: the smallest by the largest of Z(c) = sum_w exp(w.c), over the eigenvectors c of M and -c; 1 if all
  directions are used alike.

Each figure is taken on random samples of the rows, and beside it stands that of as many uniformly random directions,
because few rows cannot fill a space evenly.

Source: Roy and Vetterli, The effective rank, EUSIPCO 2007; Arora, Li, Liang, Ma and Risteski, A latent variable model
approach to PMI-based word embeddings, TACL 2016 (Z); Mu and Viswanath, All-but-the-top, ICLR 2018 (its ratio).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from jose_embed.analysis.measures import Spread, unit_rows
from jose_embed.analysis.tables import Table
from jose_embed.errors import ConfigError

if TYPE_CHECKING:
    from jose_embed.model.embeddings import Embeddings

_SAMPLES, _MOST_ROWS = 5, 5000
_FEWEST_ROWS: Final = 4


@dataclass(frozen=True, slots=True)
class IsotropyScore:
    """The isotropy of rows, one value for each sample.

    Args:
        n_rows: Rows of a sample.
        mean_cosine: In [-1, 1].
        effective_rank: In [1, dim].
        partition_ratio: In (0, 1].
    """

    n_rows: int
    mean_cosine: Spread
    effective_rank: Spread
    partition_ratio: Spread


def isotropy(vectors: npt.NDArray[Any], *, seed: int = 0) -> IsotropyScore:
    """Measure on five samples of half of the rows, at most 5,000.

    Args:
        vectors: (n, dim), at least four rows; rows of zeros count as absent.
        seed: Of the samples.

    Raises:
        ConfigError: too few rows.

    Example:
        >>> isotropy(np.eye(8)).mean_cosine.mean
        0.0
    """
    present = np.flatnonzero(np.any(vectors, axis=1))
    if len(present) < _FEWEST_ROWS:
        raise ConfigError(f"isotropy needs at least {_FEWEST_ROWS} vectors, and there are {len(present)}")
    n = min(len(present) // 2, _MOST_ROWS)
    random = np.random.default_rng(seed)
    found = [_figures(unit_rows(vectors[random.choice(present, n, replace=False)])) for _ in range(_SAMPLES)]
    return IsotropyScore(n, *(Spread(values) for values in zip(*found, strict=True)))


def isotropy_table(model: Embeddings) -> Table:
    """The isotropy of a model's words and documents, each above that of uniformly random directions.

    Raises:
        ConfigError: too few words.
    """
    tables = {"words": model.center_vectors, "context vectors": model.context_vectors}
    if model.n_docs >= _FEWEST_ROWS:
        tables["documents"] = model.doc_vectors
    rows = []
    for name, vectors in tables.items():
        uniform = np.random.default_rng(0).standard_normal((min(len(vectors), 2 * _MOST_ROWS), model.dim))
        for label, some in ((name, vectors), ("as many random directions", uniform)):
            score = isotropy(some)
            rows.append((label, score.n_rows, score.mean_cosine, score.effective_rank, score.partition_ratio))
    columns = ("", "rows", "mean cosine", "effective rank", "partition ratio")
    return Table("Isotropy", columns, rows, f"{_SAMPLES} samples; {model.dim} dimensions.")


def _figures(rows: npt.NDArray[Any]) -> tuple[float, float, float]:
    rows = rows.astype(np.float64)
    n = len(rows)
    total = rows.sum(0)
    moments, axes = np.linalg.eigh(rows.T @ rows / n)
    shares = moments[moments > 1e-12]
    products = rows @ axes
    sums = np.concatenate([np.exp(products).sum(0), np.exp(-products).sum(0)])
    return (
        float((total @ total - n) / (n * (n - 1))),
        float(np.exp(-(shares * np.log(shares)).sum())),
        float(sums.min() / sums.max()),
    )
