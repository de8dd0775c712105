"""Test the view of a cluster: peers that do not answer, what tenants see, and how often anything is asked."""

from unittest.mock import Mock

import anyio
from attrs import define, field

from pyexec.adapters.single_member import SingleMember
from pyexec.domain.cluster import Capacity, ClusterView, ReplicaState, TenantQueue
from pyexec.domain.tenants import Tenant, Tenants
from pyexec.errors import Unavailable
from pyexec.ports import Caller, Member
from pyexec.services.cluster import Cluster


def member(name: str) -> Member:
    return Member(replica=name, engine="e", address=f"http://{name}", slots=4, version="1")


def view_of(name: str) -> ClusterView:
    state = ReplicaState(
        name=name,
        address=f"http://{name}",
        version="1",
        ready=True,
        leader=name == "b",
        slots=Capacity(total=4, used=1),
    )
    queue = tuple(TenantQueue(tenant=tenant, waiting=1, running=1) for tenant in ("x", "y"))
    return ClusterView(replicas=(state,), queue=queue)


@define
class Replicas:
    """The peers `b`, which answers, `c`, which does not, and `d`, at whose address `b` answers."""

    asked: list[str] = field(factory=list)

    async def report(self, member: Member, caller: Caller) -> ClusterView:
        self.asked.append(member.replica)
        if member.replica == "c":
            raise Unavailable("no answer")
        return view_of("b" if member.replica == "d" else member.replica)


def cluster_of(peers: Replicas, members: SingleMember) -> Cluster:
    async def report() -> ClusterView:
        return view_of("a")

    return Cluster(
        member=member("a"),
        report=report,
        membership=members,
        peers=Mock(report=peers.report),
        tenants=Tenants([Tenant(name="x"), Tenant(name="y"), Tenant(name="default")]),
        default_image="default",
    )


async def test_the_view_has_all_members_and_is_kept_for_some_seconds() -> None:
    peers, members = Replicas(), SingleMember()
    members._update({name: member(name) for name in "abcd"})
    cluster = cluster_of(peers, members)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cluster.watch, name="watch")
        await anyio.wait_all_tasks_blocked()
        view = await cluster.view(Caller())
        assert await cluster.view(Caller()) is view
        own = await cluster.view(Caller(token="t", tenant="x"))
        local = await cluster.view(Caller(is_replica=True))
        tasks.cancel_scope.cancel()
    seen = [(each.name, each.ready) for each in view.replicas]
    assert seen == [("a", True), ("b", True), ("c", False), ("d", False)]
    assert view.replicas[2].warnings
    assert view.leader == "b"
    assert [queue.waiting for queue in view.queue] == [2, 2]
    assert [queue.tenant for queue in own.queue] == ["x"]
    assert {replica.address for replica in own.replicas} == {None}
    assert [replica.name for replica in local.replicas] == ["a"]
    assert sorted(peers.asked) == ["b", "b", "c", "c", "d", "d"]
