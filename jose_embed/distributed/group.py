"""Objects of one class on several machines, as the training uses them; here also in one process, for tests."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol


class LostResultError(Exception):
    """A result that another machine needs was lost with the machine that had it."""


class Group(Protocol):
    """Members 0, 1, 2 ... of one class, each on a machine.

    A member that is lost is made anew: it gets the calls that were to be kept again, in their order, and then the call
    that was under way.

    Attributes:
        on_wait: Called now and then while members work.
    """

    on_wait: Callable[[], None] | None

    def __len__(self) -> int: ...

    def values(
        self, method: str, *arguments: Any, each: Sequence[Sequence[Any]] | None = None, keep: bool = False
    ) -> list[Any]:
        """Call a method of all members and wait for the results.

        Args:
            method: The method.
            arguments: The same for all members.
            each: More arguments for each member, behind the others.
            keep: Call it again for a member that is made anew later.
        """

    def handles(
        self,
        method: str,
        *arguments: Any,
        each: Sequence[Sequence[Any]] | None = None,
        returns: int = 1,
        only: Collection[int] | None = None,
    ) -> list[list[Any]]:
        """The same, but the results stay where they are: for each member, a list of ``returns`` handles.

        Args:
            method: Returns a sequence of ``returns`` values.
            arguments: The same for all members; handles arrive as their values.
            each: More arguments for each member.
            returns: How many values it returns.
            only: The members to call; all if None. The others have an empty list.

        Raises:
            LostResultError: an argument was lost.
        """

    def value(self, handle: Any) -> Any:
        """The value behind a handle."""

    def keep_call(self, method: str, arguments: Callable[[int], Sequence[Any] | None]) -> None:
        """Keep a call whose arguments are made when it is needed; None for no call."""

    def ask(self, member: int, method: str, *arguments: Any) -> Any:
        """Call a method of one member; None if it is lost."""

    def poll(self, method: str) -> list[Any]:
        """What a quick method of each member has answered last; None of one that has not answered yet."""

    def send(self, method: str) -> None:
        """Call a quick method of all members, without waiting, also while another one runs."""

    def taken_anew(self) -> list[int]:
        """The members that were made anew since this was asked last."""


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
