"""The fair queue: starts converge to the weights, every tenant gets its turn, and each tenant's order is kept."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pyexec.domain.fair_queue import FairQueue, FairShares

TENANTS = ["a", "b", "c", "d"]
weights = st.fixed_dictionaries({name: st.integers(1, 20) for name in TENANTS})


def queue_with(weight: dict[str, int]) -> FairQueue[int]:
    return FairQueue(FairShares(weight.__getitem__))


def start_next(queue: FairQueue[int]) -> tuple[str, int]:
    found = queue.peek()
    assert found is not None
    tenant, item = found
    assert queue.pop(tenant) == item
    return tenant, item


@given(weights, st.lists(st.sampled_from(TENANTS), max_size=30), st.integers(20, 200))
def test_shares_of_waiting_tenants_converge_to_their_weights(
    weight: dict[str, int], earlier: list[str], rounds: int
) -> None:
    """Whatever was started before, each tenant gets its share of the next starts, give or take a few."""
    queue = queue_with(weight)
    for tenant in earlier:
        queue.shares.charge(tenant)
    for tenant in TENANTS:
        for number in range(rounds):
            queue.push(tenant, number)
    started = Counter(start_next(queue)[0] for _ in range(rounds))
    total = sum(weight.values())
    for tenant in TENANTS:
        share = rounds * weight[tenant] / total
        assert abs(started[tenant] - share) <= len(TENANTS)


@given(
    weights,
    st.lists(
        st.one_of(
            st.sampled_from(TENANTS).map(lambda name: ("push", name)),
            st.sampled_from(TENANTS).map(lambda name: ("remove", name)),
            st.just(("start", "")),
        ),
        max_size=80,
    ),
)
def test_no_tenant_starves_and_each_keeps_its_order(
    weight: dict[str, int], steps: list[tuple[str, str]]
) -> None:
    queue = queue_with(weight)
    waiting: dict[str, list[int]] = {name: [] for name in TENANTS}
    passed_over = Counter[str]()
    for number, (step, name) in enumerate(steps):
        if step == "push":
            queue.push(name, number)
            waiting[name].append(number)
        elif step == "remove" and waiting[name]:
            queue.remove(name, waiting[name].pop())
        elif step == "start" and any(waiting.values()):
            tenant, item = start_next(queue)
            assert item == waiting[tenant].pop(0)
            passed_over[tenant] = 0
            for other in TENANTS:
                passed_over[other] = passed_over[other] + 1 if other != tenant and waiting[other] else 0
                rest = sum(weight.values()) - weight[other]
                assert passed_over[other] <= rest / weight[other] + 2 * len(TENANTS)
        assert queue.lengths() == {name: len(items) for name, items in waiting.items() if items}
        assert len(queue) == sum(map(len, waiting.values()))


def test_a_flood_does_not_delay_another_tenant() -> None:
    queue = FairQueue[int]()
    for number in range(1000):
        queue.push("flood", number)
    for _ in range(500):
        start_next(queue)
    queue.push("late", 0)
    assert start_next(queue) == ("late", 0)


def test_an_idle_tenant_saves_nothing() -> None:
    queue = FairQueue[int]()
    for number in range(100):
        queue.push("busy", number)
        start_next(queue)
    for number in range(10):
        queue.push("busy", number)
        queue.push("idle", number)
    assert Counter(start_next(queue)[0] for _ in range(10)) == {"busy": 5, "idle": 5}


def test_a_tenant_that_is_not_eligible_is_passed_over_and_saves_nothing() -> None:
    queue = FairQueue[int]()
    for number in range(20):
        queue.push("capped", number)
        queue.push("free", number)
    for _ in range(10):
        found = queue.peek(lambda name: name == "free")
        assert found is not None
        queue.pop(found[0])
    assert Counter(start_next(queue)[0] for _ in range(10))["capped"] in (5, 6)
