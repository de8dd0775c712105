"""The state of a deployment: its replicas and its queue, as `GET /api/v1/cluster` shows them."""

from collections import Counter
from collections.abc import Iterable

from attrs import evolve, field, frozen


@frozen(kw_only=True)
class Capacity:
    """The total and the used amount of a resource."""

    total: int
    used: int


@frozen(kw_only=True)
class PoolImage:
    """Sandboxes of one image that are idle, and those that are starting."""

    image: str
    idle: int
    starting: int


@frozen(kw_only=True)
class SandboxReuse:
    """Numbers of used sandboxes that were kept for another program, or removed, since the server started."""

    served: int
    discarded: int


@frozen(kw_only=True)
class SessionCount:
    """The number of interpreter sessions that a replica owns."""

    open: int


@frozen(kw_only=True)
class ReplicaState:
    """The state of a replica. A replica that does not answer has only the fields that its membership tells."""

    name: str
    address: str | None = None
    version: str
    ready: bool
    warnings: tuple[str, ...] = ()
    leader: bool = False
    draining: bool = False
    slots: Capacity
    memory_mb: Capacity | None = None
    pool: tuple[PoolImage, ...] = ()
    reuse: SandboxReuse | None = None
    sessions: SessionCount | None = None
    uptime_seconds: float | None = None


@frozen(kw_only=True)
class TenantQueue:
    """Executions of a tenant that wait, and those that hold a slot."""

    tenant: str
    waiting: int
    running: int


@frozen(kw_only=True)
class ClusterView:
    """All replicas by name, the queue by tenant, and the name of the leader, if it is known."""

    replicas: tuple[ReplicaState, ...]
    queue: tuple[TenantQueue, ...]
    leader: str | None = field(default=None, metadata={"nullable": True})


def merge(states: Iterable[ClusterView]) -> ClusterView:
    """Combine what the replicas report about themselves. If two claim to lead during a change, the first one counts."""
    replicas: list[ReplicaState] = []
    waiting, running = Counter[str](), Counter[str]()
    for state in states:
        replicas += state.replicas
        for queue in state.queue:
            waiting[queue.tenant] += queue.waiting
            running[queue.tenant] += queue.running
    replicas.sort(key=lambda replica: replica.name)
    leader = next((replica.name for replica in replicas if replica.leader), None)
    return ClusterView(
        replicas=tuple(evolve(replica, leader=replica.name == leader) for replica in replicas),
        queue=tuple(
            TenantQueue(tenant=tenant, waiting=waiting[tenant], running=running[tenant])
            for tenant in sorted(waiting.keys() | running.keys())
        ),
        leader=leader,
    )


def visible_to(state: ClusterView, tenant: str, default_image: str) -> ClusterView:
    """Return what a tenant may see: no addresses, no warnings for operators, no other tenants, and no images that other
    tenants may have named."""
    return evolve(
        state,
        replicas=tuple(
            evolve(
                replica,
                address=None,
                warnings=(),
                pool=tuple(entry for entry in replica.pool if entry.image == default_image),
            )
            for replica in state.replicas
        ),
        queue=tuple(queue for queue in state.queue if queue.tenant == tenant),
    )
