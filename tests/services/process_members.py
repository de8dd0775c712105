"""The membership and the peers, as one process reaches them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from pyexec.adapters.single_member import NoPeers
from pyexec.ports import Liveness, Member, Members
from tests.services.world import Process, World


class ProcessMembership:
    """`ports.Membership` as one process reaches it."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    @property
    def is_member(self) -> bool:
        return self._process.name in self._world.members

    async def _enter(self) -> None:
        await self._process.passing()
        self._world.check_store()

    async def join(self, member: Member) -> None:
        await self._enter()
        self._world.enter(self._process, member)

    async def update(self, member: Member) -> None:
        await self._enter()
        self._process.member = member
        if (joined := self._world.members.get(self._process.name)) is not None:
            self._world.members[self._process.name] = (joined[0], member)
            self._world.notify_all()

    async def members(self, since: int | None = None) -> Members:
        await self._enter()
        while self._world.version == since:
            await self._world.changes.next_event().wait()
        found = {name: member for name, (_, member) in self._world.members.items()}
        seen = Members(version=self._world.version, members=found)
        await self._process.passing()
        return seen

    @asynccontextmanager
    async def lead(self) -> AsyncIterator[None]:
        await self._enter()
        while self._world.leader is not None:
            await self._world.changes.next_event().wait()
            await self._enter()
        self._world.leader = self._process
        with anyio.CancelScope() as scope:
            self._process.leading = scope
            try:
                yield
            finally:
                if not self._process.crashed and self._world.leader is self._process:
                    self._world.leader = None
                    self._world.notify_all()

    async def evict(self, replica: str) -> None:
        await self._enter()
        self._world.expire(self._world.processes[replica])

    async def leave(self) -> None:
        self._process.left = True
        await self._process.passing()
        self._world.members.pop(self._process.name, None)
        self._world.notify_all()


class WorldPeers(NoPeers):
    """`ports.Peers` that knows which processes exist."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    async def probe(self, member: Member) -> Liveness:
        await self._process.passing()
        probed = self._world.processes[member.replica]
        if probed.crashed or probed.left:
            return Liveness.GONE
        return Liveness.UNKNOWN if probed.held is not None else Liveness.ANSWERS
