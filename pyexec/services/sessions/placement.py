"""Decide which replica opens a new interpreter session."""

from attrs import frozen

from pyexec.domain.tenants import Tenants
from pyexec.errors import OwnedElsewhere, TooManySessions
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

    async def place(self, caller: Caller, tenant: str, open_here: int) -> None:
        """Return if this replica has room for a session, besides those that are `open_here` or being opened.

        Raises `OwnedElsewhere` if only another replica has room, `TooManySessions` if none has."""
        tenant_max = self.tenants.get(tenant).max_sessions
        has_room = open_here < self.sessions_max
        if has_room and tenant_max is None:
            return
        sessions = await self.directory.all_open()
        if tenant_max is not None and sum(each.spec.tenant == tenant for each in sessions) >= tenant_max:
            raise TooManySessions(f"{tenant_max} sessions are open, the maximum of this token; close one")
        if has_room:
            return
        counts = dict.fromkeys((await self.membership.members()).members, 0)
        for session in sessions:
            if session.owner in counts:
                counts[session.owner] += 1
        counts.pop(self.replica, None)
        if caller.is_replica or not counts:
            raise TooManySessions(
                f"{self.sessions_max} sessions are open on this replica, which is its maximum "
                "(PYEXEC_MAX_SESSIONS); close one, or try again later"
            )
        raise OwnedElsewhere(min(counts, key=lambda name: (counts[name], name)))
