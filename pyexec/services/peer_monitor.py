"""End the membership of replicas on this engine whose process is gone. See docs/design/replicas.md."""

import logging
from collections.abc import Collection, Mapping
from functools import partial

import anyio
from anyio.abc import TaskGroup
from attrs import field, frozen

from pyexec.aio import FailureLog, retry
from pyexec.ports import Liveness, Member, Membership, Peers

logger = logging.getLogger(__name__)

PROBE_INTERVAL_SECONDS = 2.0
MISSES = 3
"""How many probes in a row must find no process before a replica is evicted."""


@frozen(kw_only=True)
class PeerMonitor:
    """Probes the other replicas on the engine of `member`, and evicts those that are gone.

    An eviction is safe even if the process lives: it cannot append any more until it has joined again, and then it
    reads the log first. It is evicted only once, because its address is not reliable."""

    member: Member
    membership: Membership
    peers: Peers
    _probed: dict[str, anyio.CancelScope] = field(factory=dict, init=False)
    _answered: set[str] = field(factory=set, init=False)
    """The members that have answered before. The address of any other may be wrong, or not reachable from here."""
    _evicted: set[str] = field(factory=set, init=False)

    def update(self, members: Mapping[str, Member], tasks: TaskGroup) -> None:
        """Probe these members from now on, and no others. The probes are tasks of `tasks`."""
        self._answered.intersection_update(members)
        for name in self._probed.keys() - members.keys():
            self._probed.pop(name).cancel()
        for name, member in members.items():
            is_peer = member.engine == self.member.engine and name != self.member.replica
            if is_peer and name not in self._probed:
                scope = self._probed[name] = anyio.CancelScope()
                tasks.start_soon(self._probe_until_gone, member, scope, name=f"probes of {name}")

    async def are_gone(self, members: Collection[Member]) -> bool:
        """Return True if the processes of all these replicas, which were members until now, are gone."""
        found: list[bool] = []

        async def probe(member: Member) -> None:
            found.append(await self._is_gone(member))

        async with anyio.create_task_group() as tasks:
            for member in members:
                tasks.start_soon(probe, member, name=f"probe of {member.replica}")
        return all(found)

    async def _probe_until_gone(self, member: Member, scope: anyio.CancelScope) -> None:
        with scope:
            if member.replica in self._evicted:
                logger.warning(
                    "replica %s was evicted before and still answers; check that %s is its own address",
                    member.replica,
                    member.address,
                )
                return
            await self._wait_until_gone(member)
            logger.warning(
                "evicting replica %s: nothing listens on %s",
                member.replica,
                member.address,
            )
            self._evicted.add(member.replica)
            failures = FailureLog(logger, f"ending the membership of {member.replica}")
            await retry(partial(self.membership.evict, member.replica), failures)

    async def _wait_until_gone(self, member: Member) -> None:
        misses = 0
        while True:
            misses = misses + 1 if await self._is_gone(member) else 0
            if misses == MISSES:
                return
            await anyio.sleep(PROBE_INTERVAL_SECONDS)

    async def _is_gone(self, member: Member) -> bool:
        """Return True if the replica has answered before, and its process does not exist now."""
        liveness = await self.peers.probe(member)
        if liveness is Liveness.ANSWERS:
            self._answered.add(member.replica)
        return liveness is Liveness.GONE and member.replica in self._answered
