"""Membership and peers of a server without a cluster: it is the only member, it leads, and it has no peers."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio

from pyexec.aio import Broadcast
from pyexec.domain.cluster import ClusterView
from pyexec.domain.execution import Execution
from pyexec.domain.output_log import Stream
from pyexec.errors import Unavailable
from pyexec.ports import Caller, Liveness, Member, Members, PeerRequest, PeerResponse


class SingleMember:
    """`ports.Membership` for one replica."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self._version = 0
        self._changed = Broadcast()
        self._leadership = anyio.Lock()

    @property
    def is_member(self) -> bool:
        return bool(self._members)

    async def join(self, member: Member) -> None:
        self._update({member.replica: member})

    async def update(self, member: Member) -> None:
        self._update({member.replica: member})

    async def members(self, since: int | None = None) -> Members:
        while self._version == since:
            await self._changed.wait()
        return Members(version=self._version, members=dict(self._members))

    @asynccontextmanager
    async def lead(self) -> AsyncIterator[None]:
        async with self._leadership:
            yield

    async def leave(self) -> None:
        self._update({})

    async def evict(self, replica: str) -> None:
        raise Unavailable(_unreachable(replica))

    def _update(self, members: dict[str, Member]) -> None:
        self._members = members
        self._version += 1
        self._changed.notify_all()


class NoPeers:
    """`ports.Peers` for a server without peers. A run that this server does not know was owned by a crashed process."""

    async def probe(self, member: Member) -> Liveness:  # noqa: ARG002 required by `ports.Peers`
        return Liveness.UNKNOWN

    async def report(self, member: Member, caller: Caller) -> ClusterView:  # noqa: ARG002 required by `ports.Peers`
        raise Unavailable(_unreachable(member.replica))

    async def output(
        self, execution: Execution, offset: int, caller: Caller, *, follow: bool
    ) -> AsyncIterator[tuple[Stream, bytes]]:
        request = f"offset {offset}, follow {follow}, from a replica: {caller.is_replica}"
        raise Unavailable(f"{execution.id} runs on {execution.owner}, which is not a member ({request})")
        yield

    def forward(
        self,
        replica: str,
        request: PeerRequest,  # noqa: ARG002 required by `ports.Peers`
    ) -> AbstractAsyncContextManager[PeerResponse]:
        raise Unavailable(_unreachable(replica))


def _unreachable(replica: str) -> str:
    return f"cannot reach {replica}: this server runs without Consul"
