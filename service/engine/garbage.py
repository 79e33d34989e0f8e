"""Cyclic garbage, collected when nobody waits for long, and large things, let go of where nobody waits.

A collection stops everything, and it looks at every item of every list that is alive: beside a large body that is some
ten milliseconds, again and again, where the same collection a moment later takes two. So the server switches the
automatic collection off, and :func:`swept` collects between large bodies.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any, Final

__all__ = ["freeze", "let_go", "swept"]

_BEAT: Final = 1.0
_MANY: Final = 10_000  # containers made and not freed since the last collection; some megabytes
_PATIENCE: Final = 30  # beats


def freeze() -> None:
    """Leaves what is there now to itself, for good, and switches the automatic collection off."""
    gc.collect()
    gc.freeze()
    gc.disable()


def let_go(parts: dict[str, Any]) -> None:
    """Takes the last references to large things out of a dictionary, one after the other: together, the end of a
    million words and of their index holds the interpreter's lock for 40 ms and longer."""
    while parts:
        parts.popitem()


async def swept(quiet: Callable[[], bool]) -> None:
    """Collects for as long as it runs, when there is enough to collect.

    Args:
        quiet: Whether a collection costs little now. Where that is never so, it is done after half a minute
            nevertheless.
    """
    waited = 0
    while True:
        await asyncio.sleep(_BEAT)
        if gc.get_count()[0] < _MANY:
            continue
        if quiet() or waited >= _PATIENCE:
            gc.collect()
            waited = 0
        else:
            waited += 1
