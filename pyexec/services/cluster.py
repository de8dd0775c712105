"""Collect the state of all replicas of the deployment, without a request to Consul for each answer."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import anyio
from attrs import define, evolve, field

from pyexec.aio import FailureLog, retry
from pyexec.domain.cluster import Capacity, ClusterView, ReplicaState, merge, visible_to
from pyexec.domain.tenants import Tenants
from pyexec.errors import Unavailable
from pyexec.ports import Caller, Member, Membership, Peers

logger = logging.getLogger(__name__)

CACHE_SECONDS = 2.0
ANNOUNCE_SECONDS = 1.0


@define
class _Cached:
    """The last answer for one tenant. The lock lets callers that arrive together share one refresh."""

    lock: anyio.Lock = field(factory=anyio.Lock)
    view: ClusterView | None = None
    expires_at: float = 0.0


class Cluster:
    """Returns the state of all replicas. `watch` must run: it follows the members with one blocking query.

    Other replicas report their own state over HTTP. Answers are kept for `CACHE_SECONDS`, for each tenant."""

    def __init__(
        self,
        *,
        member: Member,
        report: Callable[[], Awaitable[ClusterView]],
        membership: Membership,
        peers: Peers,
        tenants: Tenants,
        default_image: str,
    ) -> None:
        self._member = member
        self._report = report
        self._membership = membership
        self._peers = peers
        self._tenants = tenants
        self._default_image = default_image
        self._members: Mapping[str, Member] = {}
        self._cache: dict[str | None, _Cached] = {}

    async def watch(self) -> None:
        """Follow the members until cancelled."""
        failures = FailureLog(logger, "watching the members for the cluster's state")
        version: int | None = None
        while True:
            found = await retry(partial(self._membership.members, version), failures)
            self._members, version = found.members, found.version

    async def announce_drain(self) -> None:
        """Tell the leader to assign nothing more to this replica. If Consul does not answer, log that, and return."""
        try:
            with anyio.fail_after(ANNOUNCE_SECONDS):
                await self._membership.update(evolve(self._member, draining=True))
        except (Unavailable, TimeoutError) as error:
            logger.warning("cannot announce the drain: %s", str(error) or "no answer from Consul")

    async def view(self, caller: Caller) -> ClusterView:
        """Return the state of all replicas. If the caller is a replica, return only the state of this one.

        A tenant that does not operate the server sees its own queue and no addresses."""
        tenant = None if caller.tenant is None or self._tenants.is_operator(caller.tenant) else caller.tenant
        if caller.is_replica:
            view = await self._report()
        else:
            view = await self._cached(tenant, caller)
        return view if tenant is None else visible_to(view, tenant, self._default_image)

    async def _cached(self, tenant: str | None, caller: Caller) -> ClusterView:
        cached = self._cache.setdefault(tenant, _Cached())
        async with cached.lock:
            if cached.view is None or anyio.current_time() >= cached.expires_at:
                cached.view = await self._ask_all(caller)
                cached.expires_at = anyio.current_time() + CACHE_SECONDS
            return cached.view

    async def _ask_all(self, caller: Caller) -> ClusterView:
        views: list[ClusterView] = []

        async def ask(member: Member) -> None:
            try:
                views.append(_checked(member, await self._peers.report(member, caller)))
            except Unavailable as error:
                logger.info("%s", error)
                views.append(_unanswered(member))

        async with anyio.create_task_group() as tasks:
            for name, member in self._members.items():
                if name != self._member.replica:
                    tasks.start_soon(ask, member, name=f"ask {name} for its state")
            views.append(await self._report())
        return merge(views)


def _checked(member: Member, view: ClusterView) -> ClusterView:
    """Return the answer of a member. Raises `Unavailable` if another replica answers at its address.

    After a restart, the new process has this address, and the Consul session of the old one has not expired yet."""
    answering = {replica.name for replica in view.replicas}
    if answering != {member.replica}:
        names = ", ".join(sorted(answering))
        raise Unavailable(f"replica {names} answers at the address of replica {member.replica}")
    return view


def _unanswered(member: Member) -> ClusterView:
    state = ReplicaState(
        name=member.replica,
        address=member.address,
        version=member.version,
        ready=False,
        warnings=("the replica does not answer",),
        slots=Capacity(total=member.slots, used=0),
    )
    return ClusterView(replicas=(state,), queue=())
