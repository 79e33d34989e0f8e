"""What trains: this process, or the machines of a Ray cluster (the package ``distributed``)."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Any, TypedDict

from jose_embed.errors import ConfigError, whole_number


@dataclass(frozen=True)
class EngineOptions:
    """The engine of a training.

    Attributes:
        engine: ``"local"`` for this process, ``"ray"`` for a Ray cluster.
        nodes: Machines that train; with ``"ray"`` only.
        address: The cluster: ``"auto"`` or ``HOST:PORT``; None for a cluster on this machine, which ends with the
            training.
        exchanges: How often in an epoch the machines exchange the vectors of all words.
        deltas: ``"float32"``, or ``"int8"`` for a quarter of the bytes.
        doc_output: A folder, also of an object store, to which the machines write the document vectors as Parquet
            instead of into the model.

    Raises:
        ConfigError: a value that is not allowed.

    Example:
        >>> EngineOptions(engine="ray", nodes=4).exchanges
        8
    """

    engine: str = "local"
    nodes: int = 1
    address: str | None = None
    exchanges: int = 8
    deltas: str = "float32"
    doc_output: str | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("engine", ("local", "ray")), ("deltas", ("float32", "int8"))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}")
        for name in ("nodes", "exchanges"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), 1, 1024))
        for name in ("address", "doc_output"):
            value = getattr(self, name)
            if isinstance(value, os.PathLike):
                object.__setattr__(self, name, value := os.fspath(value))
            if value is not None and (not isinstance(value, str) or not value):
                raise ConfigError(f"{name} is {value!r}; it must be a text, or None")
        if self.engine == "local" and (
            given := [one.name for one in fields(self) if getattr(self, one.name) != one.default]
        ):
            value = getattr(self, given[0])
            raise ConfigError(f'{given[0]} is {value!r}, which needs a cluster; add engine="ray", or leave it out')

    @property
    def int8(self) -> bool:
        """Whether moves of vectors travel as int8."""
        return self.deltas == "int8"

    @classmethod
    def taken_from(cls, settings: dict[str, Any]) -> EngineOptions:
        """The options among some settings, which are removed from there."""
        return cls(**{one.name: settings.pop(one.name) for one in fields(cls) if one.name in settings})


class EngineSettings(TypedDict, total=False):
    """Some options of :class:`EngineOptions` by name, for type checkers."""

    engine: str
    nodes: int
    address: str | None
    exchanges: int
    deltas: str
    doc_output: str | os.PathLike[str] | None
