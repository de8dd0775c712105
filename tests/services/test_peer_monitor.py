"""The eviction of replicas whose process is gone, in virtual time."""

from collections.abc import Sequence

import anyio
import pytest
from attrs import define, evolve, field

from pyexec.ports import Liveness, Member, Members
from pyexec.services.peer_monitor import PROBE_INTERVAL_SECONDS, PeerMonitor
from tests.services.virtual_time import VirtualLoop

ANSWERS, GONE, UNKNOWN = Liveness.ANSWERS, Liveness.GONE, Liveness.UNKNOWN
HERE = Member(replica="here", engine="e", address="http://here", slots=1, version="1")
PEER = evolve(HERE, replica="peer", address="http://peer")


@define
class Cluster:
    """`ports.Membership` and `ports.Peers`. `answers` are the results of the probes; the last one stays."""

    answers: list[Liveness]
    probed: list[str] = field(factory=list)
    evicted: list[tuple[str, float]] = field(factory=list)

    async def probe(self, member: Member) -> Liveness:
        self.probed.append(member.replica)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    async def evict(self, replica: str) -> None:
        self.evicted.append((replica, anyio.current_time()))

    async def members(self, since: int | None = None) -> Members:
        raise AssertionError(f"the monitor gets the members, also those since {since}")


def watch(answers: Sequence[Liveness], *listings: Sequence[Member], seconds: float = 60) -> Cluster:
    """Give the monitor one listing of members after another, and return what it did."""
    cluster = Cluster(list(answers))
    monitor = PeerMonitor(member=HERE, membership=cluster, peers=cluster)  # type: ignore[arg-type]

    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            for listing in listings:
                monitor.update({member.replica: member for member in listing}, tasks)
                await anyio.sleep(seconds)
            tasks.cancel_scope.cancel()

    loop = VirtualLoop()
    try:
        loop.run_until_complete(run())
    finally:
        loop.close()
    return cluster


def test_a_peer_that_is_gone_three_times_in_a_row_is_evicted() -> None:
    answers = [ANSWERS, GONE, GONE, ANSWERS, GONE, GONE, GONE]
    assert watch(answers, [HERE, PEER]).evicted == [("peer", 6 * PROBE_INTERVAL_SECONDS)]


@pytest.mark.parametrize(
    "answers",
    [
        [ANSWERS],
        [UNKNOWN],
        [ANSWERS, UNKNOWN],
        [GONE],
        [UNKNOWN, GONE],
        [ANSWERS, GONE, GONE, UNKNOWN, GONE, GONE, UNKNOWN],
    ],
)
def test_a_peer_that_may_live_is_not_evicted(answers: Sequence[Liveness]) -> None:
    """Neither is a peer that has never answered: its address may be wrong, or not reachable from here."""
    assert watch(answers, [HERE, PEER]).evicted == []


def test_only_other_replicas_on_the_same_engine_are_probed() -> None:
    cluster = watch([ANSWERS], [HERE, evolve(PEER, engine="other"), evolve(PEER, replica="third")])
    assert set(cluster.probed) == {"third"}


def test_a_member_that_has_left_is_not_probed_any_more() -> None:
    cluster = watch([ANSWERS], [HERE, PEER], [HERE], seconds=4.5 * PROBE_INTERVAL_SECONDS)
    assert len(cluster.probed) == 5


def test_a_peer_that_lives_after_an_eviction_is_not_evicted_again() -> None:
    """A load balancer as the address of every replica would otherwise cost each its Consul session, over and over."""
    cluster = watch(
        [ANSWERS, GONE, GONE, GONE, ANSWERS, GONE], [HERE, PEER], [HERE], [HERE, PEER], seconds=20
    )
    assert [replica for replica, _ in cluster.evicted] == ["peer"]
