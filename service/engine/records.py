"""What the documents file takes and gives: changes, their outcomes, stored documents, and its errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.errors import JoseError

NO_FIELDS: Final = "{}"


class StoreError(JoseError):
    """A documents file that cannot be used: foreign, damaged, of a newer format, in use, removed or out of reach."""


class DiskFullError(StoreError):
    """The disk is full; nothing of the write was stored."""


class ReadOnlyError(StoreError):
    """A write to a file that is open for reading only."""


class Document(NamedTuple):
    """A stored document; ``serial`` is the version that its ETag names, ``fields`` an object in JSON."""

    id: str
    serial: int
    text: str
    created: str
    updated: str
    fields: str = NO_FIELDS


class Summary(NamedTuple):
    """A stored document without its text."""

    id: str
    serial: int
    characters: int
    created: str
    updated: str
    fields: str = NO_FIELDS


class Mark(NamedTuple):
    """A state of the documents file: its last version, the number of its last removal, and the model of its writer."""

    serial: int
    removal: int
    model: str | None


class MissingText(NamedTuple):
    """A stored version that has no vector under a model."""

    serial: int
    id: str
    text: str


class StoredVector(NamedTuple):
    """A stored version and its vector under a model: None if the text holds no known word."""

    serial: int
    vector: npt.NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Put:
    """A document to be stored.

    Args:
        id: Its id.
        text: Its text.
        model: The id of the model of ``vector``.
        vector: float32 (dim,), or None if no word is known.
        if_serial: The version that must be stored; None for any.
        if_absent: There must be none.
        if_present: There must be one.
        fields: An object in JSON.
    """

    id: str
    text: str
    model: str
    vector: npt.NDArray[np.float32] | None
    if_serial: int | None = None
    if_absent: bool = False
    if_present: bool = False
    fields: str = NO_FIELDS


@dataclass(frozen=True, slots=True)
class Delete:
    """A document to be deleted; ``if_serial`` and ``if_present`` as in :class:`Put`."""

    id: str
    if_serial: int | None = None
    if_present: bool = False


class Outcome(NamedTuple):
    """A change that was made: the new version (None after a deletion) and the replaced one (None if there was none)."""

    id: str
    serial: int | None
    replaced: int | None
    created: str
    updated: str


class Refusal(NamedTuple):
    """A change that was not made: there is no such document, or it has another version than the change requires."""

    reason: Literal["unknown", "changed"]
    change: Put | Delete
    present: int | None
