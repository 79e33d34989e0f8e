"""Locks on directories, by the operating system."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def _lock(descriptor: int, *, wait: bool = False) -> bool | None:
    """Lock an open file or directory until it is closed: whether it was free, None on systems without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except (AttributeError, OSError):
        return None
    return True


def directory_lock(path: str | os.PathLike[str]) -> int | None:
    """A descriptor that locks a directory until it is closed; None if another process has locked it.

    Raises:
        OSError: the directory cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY)
    if _lock(descriptor) is False:
        os.close(descriptor)
        return None
    return descriptor


@contextlib.contextmanager
def held_directory(path: str | os.PathLike[str]) -> Iterator[None]:
    """A context that locks a directory; other such contexts, in this or another process, wait for its end.

    Nothing is locked on systems without locks or if the directory cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        _lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)
