"""Locks on directories, by the operating system."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["directory_lock", "held_directory"]


def _lock(descriptor: int, *, wait: bool = False) -> bool | None:
    """Takes the lock of a file or directory until it is closed: whether it was free, None where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except (AttributeError, OSError):
        return None
    return True


def directory_lock(path: str | os.PathLike[str]) -> int | None:
    """A descriptor that holds a directory for its owner until it is closed; None where another process holds it.

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
    """A context that has a directory for itself: any other one waits for its end, in this process or in another.

    For what takes a moment. Nothing is held where the system has no such locks, or where the directory cannot be
    opened, which what is done in it will tell.
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
