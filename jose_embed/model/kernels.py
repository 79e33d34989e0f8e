"""The kernels of inference, compiled by a process of its own for another one that loads them from the disk."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from jose_embed.compute import kernel_cache
from jose_embed.model.embeddings import Embeddings
from jose_embed.model.inference import BatchEncoder

_NICER = 10


def main(model: str) -> None:
    """Compile the kernels for the texts of a model, unless their files are there.

    Args:
        model: Its directory.

    Raises:
        SystemExit: no files are kept.
    """
    folder = kernel_cache.directory()
    if folder is None:
        sys.exit("no compiled kernels are kept (JOSE_CACHE_DIR)")
    if hasattr(os, "nice"):  # not on Windows
        os.nice(_NICER)
    embeddings = Embeddings.load(Path(model), verify=False, mapped=True)
    text = " ".join(embeddings.words[:4])
    BatchEncoder(embeddings.encoder).write([text], np.empty((1, embeddings.dim), np.float32))
    if not os.access(folder, os.W_OK):
        sys.exit(f"{folder} cannot be written to; name another directory with JOSE_CACHE_DIR")
