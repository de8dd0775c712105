"""The replicas of a deployment: membership, leadership, and requests that only another replica can answer."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import Protocol

from attrs import frozen

from pyexec.domain.cluster import ClusterView
from pyexec.domain.execution import Execution
from pyexec.domain.output_log import Stream
from pyexec.domain.session import Session

REPLICA_HEADER = "X-Pyexec-Replica"
"""The header that marks a request from another replica, and the answer to its probe; its value is the name of the
sender."""


@frozen(kw_only=True)
class Member:
    """A replica that is alive: its engine, the address of its HTTP API, and how many programs it runs at once."""

    replica: str
    engine: str
    address: str | None
    slots: int
    version: str
    draining: bool = False
    """True while the replica drains. The leader assigns it no executions."""


@frozen(kw_only=True)
class Members:
    """All members by replica name, at a version of the membership."""

    version: int
    members: Mapping[str, Member]


class Membership(Protocol):
    """Joins this replica to the members, watches the members, and elects the leader.

    The methods raise `Unavailable` if the store does not answer."""

    @property
    def is_member(self) -> bool:
        """True if this replica is a member, as far as it knows without asking the store."""

    async def join(self, member: Member) -> None:
        """Make this replica a member, and keep it a member until `leave`.

        If the membership expires, this object joins again by itself; until then the replica cannot append events."""

    async def update(self, member: Member) -> None:
        """Replace what the other members see of this replica. It stays a member."""

    async def members(self, since: int | None = None) -> Members:
        """Return the members. If `since` is the current version, wait for the next one.

        The wait may end without a change."""

    def lead(self) -> AbstractAsyncContextManager[None]:
        """Return a scope in which this replica leads: entering waits for leadership, leaving gives it up.

        If leadership is lost, the body is cancelled and the scope ends normally."""

    async def leave(self) -> None:
        """End the membership of this replica at once, if there is one."""

    async def evict(self, replica: str) -> None:
        """End the membership and the leadership of another replica, whose process is gone.

        If the process lives, its appends fail until it has joined again, which it does by itself."""


@frozen(kw_only=True)
class Caller:
    """The sender of a request: its API token, the token's tenant, and whether it is another replica.

    Without a tenant, the server requires no tokens, and the caller may access every execution.
    Requests of other replicas are never passed on to a third one."""

    token: str | None = None
    tenant: str | None = None
    is_replica: bool = False

    def may_access(self, subject: Execution | Session) -> bool:
        """Return True if the caller may use the execution or the session."""
        return self.tenant is None or self.tenant == subject.spec.tenant


@frozen(kw_only=True)
class PeerRequest:
    """A request to forward. `path` has the query string; `body` can be iterated once."""

    method: str
    path: str
    headers: Sequence[tuple[str, str]]
    body: AsyncIterator[bytes] | None = None


@frozen(kw_only=True)
class PeerResponse:
    """The response of another replica. `chunks` is its body, and can be iterated once.

    `chunks` raises `Unavailable` if the connection breaks."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


class Liveness(Enum):
    """The result of a probe of another replica."""

    ANSWERS = "answers"
    GONE = "gone"
    """No process listens on its address, or only one of another replica."""
    UNKNOWN = "unknown"
    """It does not answer in time: it may be suspended or overloaded, or the network drops packets."""


class Peers(Protocol):
    """Sends requests to the other replicas: for their state, for the output of programs that they run, and those of
    callers."""

    async def probe(self, member: Member) -> Liveness:
        """Find out, within a few seconds, whether the process of a replica exists."""

    async def report(self, member: Member, caller: Caller) -> ClusterView:
        """Return what a replica reports about itself to this caller. Raises `Unavailable` if it does not answer."""

    def output(
        self, execution: Execution, offset: int, caller: Caller, *, follow: bool
    ) -> AsyncIterator[tuple[Stream, bytes]]:
        """Yield the output of an open execution from `offset` on, of its setup or of its program.

        With `follow`, continue until the next event of the execution; otherwise stop after the output so far.

        Raises `Unavailable` if the owner of the execution cannot be reached, or if the connection breaks."""

    def forward(self, replica: str, request: PeerRequest) -> AbstractAsyncContextManager[PeerResponse]:
        """Send a caller's request to another replica. At the end of the scope, an unfinished request is cancelled.

        The scope raises `Unavailable` if the replica cannot be reached, if the connection breaks, or if the replica
        stops being a member."""
