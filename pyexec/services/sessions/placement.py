"""Decide which replica opens a new interpreter session."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from attrs import frozen

from pyexec.domain.tenants import Tenants
from pyexec.errors import ExecutorError, NoSessionMemory, OwnedElsewhere, TooManySessions
from pyexec.ports import Caller, Membership
from pyexec.services.sessions.directory import SessionDirectory


@frozen(kw_only=True)
class SessionPlacement:
    """Places sessions for `replica`, which has room for `sessions_max`."""

    replica: str
    sessions_max: int
    tenants: Tenants
    membership: Membership
    directory: SessionDirectory

    async def place(self, caller: Caller, tenant: str, here: Sequence[str]) -> None:
        """Return if this replica has room for one more session. `here` has the tenant of each session that this replica
        owns or opens; the list may grow meanwhile.

        Raises `OwnedElsewhere` if only another replica has room, `TooManySessions` if none has."""
        tenant_max = self.tenants.get(tenant).max_sessions
        if len(here) < self.sessions_max and tenant_max is None:
            return
        sessions = await self.directory.all_open()
        elsewhere = sum(each.spec.tenant == tenant and each.owner != self.replica for each in sessions)
        if tenant_max is not None and elsewhere + here.count(tenant) >= tenant_max:
            raise _too_many(tenant_max)
        if len(here) < self.sessions_max:
            return
        refusal = TooManySessions(
            "this replica has its maximum number of open sessions "
            f"(PYEXEC_MAX_SESSIONS: {self.sessions_max}); close one, or try again later"
        )
        raise await self._elsewhere(caller, refusal)

    @asynccontextmanager
    async def forward_if_no_memory(self, caller: Caller | None) -> AsyncIterator[None]:
        """Raise `OwnedElsewhere` instead of `NoSessionMemory`, if there is another replica.

        `caller` is None if the request cannot be forwarded."""
        try:
            yield
        except NoSessionMemory as error:
            failure = error if caller is None else await self._elsewhere(caller, error)
            if failure is error:
                raise
            raise failure from error

    async def _elsewhere(self, caller: Caller, refusal: TooManySessions) -> ExecutorError:
        """Return the error that forwards the request to the replica with the fewest sessions. Return `refusal` if
        there is no other replica, or if another one has forwarded it."""
        counts = dict.fromkeys((await self.membership.members()).members, 0)
        counts.pop(self.replica, None)
        if caller.is_replica or not counts:
            return refusal
        for session in await self.directory.all_open():
            if session.owner in counts:
                counts[session.owner] += 1
        return OwnedElsewhere(min(counts, key=lambda name: (counts[name], name)))

    async def check_opened(self, tenant: str) -> None:
        """Raise `TooManySessions` if the tenant has too many sessions now that a new one is in the log: another replica
        may have opened one meanwhile. If both did at the same time, both must be closed."""
        tenant_max = self.tenants.get(tenant).max_sessions
        if tenant_max is None:
            return
        count = sum(each.spec.tenant == tenant for each in await self.directory.all_open())
        if count > tenant_max:
            raise _too_many(tenant_max)


def _too_many(tenant_max: int) -> TooManySessions:
    return TooManySessions(
        f"this tenant has its maximum number of open sessions (max_sessions: {tenant_max}); close one"
    )
