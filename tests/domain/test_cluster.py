"""Test the state of a deployment: the sum of what replicas report, and what a tenant sees of it."""

from pyexec.domain.cluster import (
    Capacity,
    ClusterView,
    PoolImage,
    ReplicaState,
    TenantQueue,
    merge,
    visible_to,
)


def state(name: str, *, leader: bool = False, **waiting: int) -> ClusterView:
    replica = ReplicaState(
        name=name,
        address=f"http://{name}",
        version="1",
        ready=True,
        leader=leader,
        slots=Capacity(total=2, used=1),
        pool=(PoolImage(image="default", idle=1, starting=0), PoolImage(image="private", idle=1, starting=0)),
    )
    queue = tuple(TenantQueue(tenant=name, waiting=n, running=1) for name, n in waiting.items())
    return ClusterView(replicas=(replica,), queue=queue, leader=name if leader else None)


def test_the_view_does_not_depend_on_the_order_of_the_replicas() -> None:
    one, other = state("a", x=1), state("b", leader=True, x=2, y=3)
    merged = merge([one, other])
    assert merged == merge([other, one])
    assert [replica.name for replica in merged.replicas] == ["a", "b"]
    assert merged.queue == (
        TenantQueue(tenant="x", waiting=3, running=2),
        TenantQueue(tenant="y", waiting=3, running=1),
    )
    assert merged.leader == "b"


def test_at_most_one_replica_leads() -> None:
    merged = merge([state("b", leader=True), state("a", leader=True)])
    assert [replica.name for replica in merged.replicas if replica.leader] == [merged.leader] == ["a"]
    assert merge([state("a")]).leader is None


def test_a_tenant_sees_no_addresses_no_other_tenants_and_no_private_images() -> None:
    seen = visible_to(merge([state("a", x=1, y=2)]), "x", "default")
    assert [replica.address for replica in seen.replicas] == [None]
    assert [queue.tenant for queue in seen.queue] == ["x"]
    assert [entry.image for entry in seen.replicas[0].pool] == ["default"]
