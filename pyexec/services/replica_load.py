"""Compute how many more executions each replica can be given, and of which tenants, for the plan of the reconciler."""

from collections import Counter
from collections.abc import Collection, Mapping, Set

from attrs import frozen

from pyexec.domain.execution import Execution, Phase
from pyexec.ports import Member
from pyexec.services.setup_lane import SetupLane
from pyexec.services.slots import Slots

QUEUED_AHEAD = 1
"""How many executions the leader assigns to a replica beyond its free slots. So asynchronous executions wait in
the same queue as synchronous callers."""


@frozen(kw_only=True)
class ReplicaLoad:
    """Computes how many executions each member can be given.

    `here` is the id of this replica; `slots` and `lane` count its own runs. `executions` are all other open executions.
    Those in a setup lane hold no slot."""

    here: str
    members: Mapping[str, Member]
    executions: Collection[Execution]
    slots: Slots
    lane: SetupLane

    def capacity(self) -> dict[str, int]:
        """Return how many more executions each member may be given."""
        owned = Counter(e.owner for e in self.executions if e.phase is not Phase.PREPARING)
        capacity = {name: member.slots + QUEUED_AHEAD - owned[name] for name, member in self.members.items()}
        if self.here in capacity:
            capacity[self.here] = self.slots.free + QUEUED_AHEAD - owned[self.here]
        return {name: 0 if self.members[name].draining else room for name, room in capacity.items()}

    def in_setup(self) -> dict[str, int]:
        """Return how many executions are in the setup lane of each member."""
        preparing = Counter(e.owner for e in self.executions if e.phase is Phase.PREPARING)
        in_setup = {name: preparing[name] for name in self.members}
        in_setup[self.here] = len(self.lane)
        return in_setup

    def ahead(self) -> dict[str, Set[str]]:
        """Return for each member the tenants that may have one execution there beyond its capacity.

        Otherwise the waiting execution of one tenant would keep all other tenants out of the member's queue."""
        if len(self.slots.tenants.names) == 1:
            return {}
        queued = {e.spec.tenant for e in self.executions if e.phase is Phase.QUEUED}
        waiting = {(e.owner, e.spec.tenant) for e in self.executions if e.phase is Phase.CLAIMED}
        return {
            name: {tenant for tenant in queued if (name, tenant) not in waiting}
            for name, member in self.members.items()
            if not member.draining
        }

    def allowance(self) -> dict[str, dict[str, int]]:
        """Return, for each member and each tenant with a `max_running`, how many more executions it may be given.

        One execution beyond `max_running` waits at the replica, so that it starts as soon as a slot is released."""
        owned = Counter(
            (e.owner, e.spec.tenant) for e in self.executions if e.owner and e.phase is not Phase.PREPARING
        )
        limits = {
            tenant.name: tenant.max_running
            for tenant in self.slots.tenants.configured
            if tenant.max_running is not None
        }
        allowance = {
            name: {tenant: allowed + QUEUED_AHEAD - owned[name, tenant] for tenant, allowed in limits.items()}
            for name in self.members
        }
        for tenant in allowance.get(self.here, {}):
            allowance[self.here][tenant] -= self.slots.in_use_by(tenant)
        return allowance
