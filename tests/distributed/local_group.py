"""The members of a training in one process, as jose_embed/distributed/cluster.py has them on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from jose_embed.distributed.combiner import Moves, moved
from jose_embed.distributed.exchange import Owner


class LocalGroup:
    """All members in this process, one after the other; methods as in :class:`Group`.

    Args:
        make: Makes a member.
        n: The number of members.
    """

    def __init__(self, make: Callable[[int], Any], n: int) -> None:
        self.on_wait: Callable[[], None] | None = None
        self._make = make
        self._members = [make(number) for number in range(n)]
        self._kept: list[tuple[str, Callable[[int], Sequence[Any] | None]]] = []
        self._anew: list[int] = []

    def __len__(self) -> int:
        return len(self._members)

    def values(
        self, method: str, *arguments: Any, each: Sequence[Sequence[Any]] | None = None, keep: bool = False
    ) -> list[Any]:
        found = []
        for number, member in enumerate(self._members):
            found.append(getattr(member, method)(*arguments, *(each[number] if each is not None else ())))
            if self.on_wait is not None:
                self.on_wait()
        if keep:
            self.keep_call(method, lambda number: (*arguments, *(each[number] if each is not None else ())))
        return found

    def handles(
        self,
        method: str,
        *arguments: Any,
        each: Sequence[Sequence[Any]] | None = None,
        returns: int = 1,
        only: Collection[int] | None = None,
    ) -> list[list[Any]]:
        found: list[list[Any]] = []
        for number, member in enumerate(self._members):
            result: Sequence[Any] = ()
            if only is None or number in only:
                result = getattr(member, method)(*arguments, *(each[number] if each is not None else ()))
                assert len(result) == returns
            found.append(list(result))
            if self.on_wait is not None:
                self.on_wait()
        return found

    def value(self, handle: Any) -> Any:
        return handle

    def keep_call(self, method: str, arguments: Callable[[int], Sequence[Any] | None]) -> None:
        self._kept.append((method, arguments))

    def ask(self, member: int, method: str, *arguments: Any) -> Any:
        return getattr(self._members[member], method)(*arguments)

    def poll(self, method: str) -> list[Any]:
        return [getattr(member, method)() for member in self._members]

    def send(self, method: str) -> None:
        self.poll(method)

    def taken_anew(self) -> list[int]:
        anew, self._anew = self._anew, []
        return anew

    def lose(self, number: int) -> None:
        """Make a member anew, as after the loss of its machine."""
        member = self._members[number] = self._make(number)
        for method, arguments in self._kept:
            if (values := arguments(number)) is not None:
                getattr(member, method)(*values)
        self._anew.append(number)


class MeanOwner(Owner):
    """Plain averaging of the tables, which the combiner replaces."""

    def combine(self, number: int, *moves: Moves) -> tuple[Moves]:
        n = len(moves[0].values) // 2
        before = np.concatenate(self._rows[:, :n])
        after = moved(before, sum(each.deltas() for each in moves) / np.float32(len(moves)))
        self._rows[:, :n] = after.reshape(2, n, self._rows.shape[2])
        return (Moves(after),)
