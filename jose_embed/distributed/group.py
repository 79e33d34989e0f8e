"""Objects of one class on several machines, as the training uses them.

cluster.py makes them of actors of Ray; tests/distributed/local_group.py has them in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Protocol

RESUME: Final = "continue from the last checkpoint with resume=True"


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
