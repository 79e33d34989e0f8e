"""The entry points of the programs, which import almost nothing, so that Ctrl-C during the imports is one line, too."""

from __future__ import annotations

import sys
from importlib import import_module


def jose() -> int:
    """The program ``jose``; returns its exit status."""
    return _run("jose", "jose_embed.cli.program", "main")


def jose_train() -> int:
    """The program ``jose-train``; returns its exit status."""
    return _run("jose-train", "jose_embed.cli.program", "train_main")


def jose_serve() -> int:
    """The program ``jose-serve``; returns its exit status."""
    return _run("jose-serve", "service.cli", "main")


def _run(program: str, module: str, function: str) -> int:
    try:
        return int(getattr(import_module(module), function)())
    except KeyboardInterrupt:  # later ones are reported by the function itself
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
