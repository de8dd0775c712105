"""The membership of a server that stands alone: it is the only member, and leads."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from pyexec.ports import Member, Members


class SingleMember:
    """`ports.Membership` for one replica. Whoever would lead waits for whoever does."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self._version = 0
        self._changed = anyio.Event()
        self._leadership = anyio.Lock()

    @property
    def held(self) -> bool:
        return bool(self._members)

    async def join(self, member: Member) -> None:
        self._members = {member.replica: member}
        self._announce()

    async def members(self, since: int | None = None) -> Members:
        while self._version == since:
            await self._changed.wait()
        return Members(version=self._version, members=dict(self._members))

    @asynccontextmanager
    async def lead(self) -> AsyncIterator[None]:
        async with self._leadership:
            yield

    async def leave(self) -> None:
        self._members = {}
        self._announce()

    def _announce(self) -> None:
        self._version += 1
        self._changed.set()
        self._changed = anyio.Event()
