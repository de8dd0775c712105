"""The leader's claims: tenants take turns by their weights, limits of tenants hold, and no tenant blocks another."""

from collections import Counter, defaultdict

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from pyexec.domain.execution import Execution, fold
from pyexec.domain.fair_queue import FairShares
from pyexec.domain.plan import Claim, ClusterState, OpenExecution, plan
from tests.events import SPEC, submitted
from tests.support.cases import examples

TENANTS = ["a", "b", "c"]
REPLICAS = ["r1", "r2"]


def queued(number: int, tenant: str) -> Execution:
    return fold(f"e{number:03}", [evolve(submitted(), spec=evolve(SPEC, tenant=tenant))])


def state_of(executions: list[Execution], **values: object) -> ClusterState:
    opened = [OpenExecution(execution=execution, waiting_since=0.0) for execution in executions]
    return ClusterState(now=0.0, open=opened, queue_timeout_seconds=60.0, **values)  # type: ignore[arg-type]


def claims_of(state: ClusterState) -> list[Claim]:
    actions = plan(state)
    assert all(isinstance(action, Claim) for action in actions)
    return [action for action in actions if isinstance(action, Claim)]


@settings(max_examples=examples(30))
@given(st.fixed_dictionaries({name: st.integers(1, 10) for name in TENANTS}), st.integers(1, 4))
def test_claims_of_waiting_tenants_converge_to_their_weights(weight: dict[str, int], slots: int) -> None:
    """Each plan hands out a few slots, and the reconciler counts the claims that it has made."""
    executions = [queued(45 * TENANTS.index(tenant) + n, tenant) for tenant in TENANTS for n in range(45)]
    shares = FairShares(weight.__getitem__)
    claimed: list[Execution] = []
    while len(claimed) < 40:
        for claim in claims_of(state_of(executions, capacity={"r1": slots}, shares=shares)):
            claimed.append(claim.execution)
            executions.remove(claim.execution)
            shares.charge(claim.execution.spec.tenant)
    counts = Counter(execution.spec.tenant for execution in claimed)
    for tenant in TENANTS:
        assert abs(counts[tenant] - len(claimed) * weight[tenant] / sum(weight.values())) <= len(TENANTS)
        own = [execution.id for execution in claimed if execution.spec.tenant == tenant]
        assert own == sorted(own)


@given(
    st.lists(st.sampled_from(TENANTS), max_size=20),
    st.dictionaries(st.sampled_from(REPLICAS), st.integers(-1, 3), min_size=1),
    st.dictionaries(st.sampled_from(REPLICAS), st.sets(st.sampled_from(TENANTS))),
    st.dictionaries(st.sampled_from(REPLICAS), st.dictionaries(st.sampled_from(TENANTS), st.integers(-1, 2))),
)
def test_no_claim_exceeds_a_limit_and_none_is_missing(
    tenants: list[str],
    capacity: dict[str, int],
    ahead: dict[str, set[str]],
    allowance: dict[str, dict[str, int]],
) -> None:
    executions = [queued(number, tenant) for number, tenant in enumerate(tenants)]
    state = state_of(executions, capacity=capacity, ahead=ahead, allowance=allowance)
    given_to: dict[str, Counter[str]] = defaultdict(Counter)
    for claim in claims_of(state):
        given_to[claim.replica][claim.execution.spec.tenant] += 1
        executions.remove(claim.execution)
    for replica, free in capacity.items():
        counts = given_to[replica]
        assert counts.total() <= max(0, free) + len(ahead.get(replica, ()))
        for tenant, allowed in allowance.get(replica, {}).items():
            assert counts[tenant] <= max(0, allowed)
        for tenant in {execution.spec.tenant for execution in executions}:
            is_limited = counts[tenant] >= allowance.get(replica, {}).get(tenant, len(tenants) + 1)
            is_ahead = tenant in ahead.get(replica, ()) and not counts[tenant]
            assert is_limited or (counts.total() >= free and not is_ahead)


def test_a_tenant_that_waits_ahead_keeps_no_other_tenant_out() -> None:
    executions = [queued(number, "a") for number in range(5)] + [queued(9, "b")]
    state = state_of(executions, capacity={"r1": 0}, ahead={"r1": {"b"}})
    assert [claim.execution.spec.tenant for claim in claims_of(state)] == ["b"]


def test_an_execution_goes_to_the_replica_where_its_tenant_has_room() -> None:
    executions = [queued(number, tenant) for number, tenant in enumerate("ab")]
    state = state_of(executions, capacity={"r1": 9, "r2": 4}, allowance={"r1": {"a": 1}, "r2": {"a": 3}})
    assert [claim.replica for claim in claims_of(state)] == ["r2", "r1"]
