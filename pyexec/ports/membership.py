"""The replicas that are alive, and the one that leads."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from attrs import frozen


@frozen(kw_only=True)
class Member:
    """A living replica: the engine it runs on, where others reach its HTTP API, and how many programs it runs
    at once."""

    replica: str
    engine: str
    address: str | None
    slots: int
    version: str


@frozen(kw_only=True)
class Members:
    """All living replicas by their names, at a version of the membership."""

    version: int
    members: Mapping[str, Member]


class Membership(Protocol):
    """Who is alive, and who of them leads. Its methods raise `Unavailable` when the store does not answer."""

    @property
    def held(self) -> bool:
        """Whether this replica is a member now, as far as it knows without asking."""

    async def join(self, member: Member) -> None:
        """Makes this replica a member, and keeps it one until `leave`.

        When it was taken for dead it becomes a member again by itself; until then it appends nothing."""

    async def members(self, since: int | None = None) -> Members:
        """The members: now, or as soon as the membership's version is not `since`. It may return without news."""

    def lead(self) -> AbstractAsyncContextManager[None]:
        """A scope in which this replica leads: entering waits for it, leaving it lets another lead.

        When leadership is lost what runs inside is cancelled, and the scope ends as if it had returned."""

    async def leave(self) -> None:
        """Ends the membership at once; fine when there is none."""
