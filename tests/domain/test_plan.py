"""Check the reconciler's decisions: safe for every state of the cluster, and no execution is forgotten."""

from collections import Counter

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from pyexec.domain.events import Event
from pyexec.domain.execution import OWNED_PHASES, Execution, Phase, fold
from pyexec.domain.plan import (
    Action,
    Claim,
    ClusterState,
    EndCell,
    Expire,
    MarkLost,
    OpenExecution,
    Release,
    next_deadline,
    plan,
)
from tests.events import adopted, claimed, finished, kill_requested, preparing, released, running, submitted

REPLICAS = ["r1", "r2", "r3"]
SESSIONS = ["s1", "s2", "s3"]
QUEUE_TIMEOUT = 60.0


def words(replica: str) -> list[list[Event]]:
    owned = [submitted(), claimed(replica)]
    return [
        [submitted()],
        [*owned, released()],
        owned,
        [*owned, kill_requested()],
        [*owned, preparing()],
        [*owned, preparing(), kill_requested()],
        [*owned, running()],
        [*owned, running(), kill_requested()],
        [*owned, running(), finished()],
    ]


def cell_words(replica: str, session: str) -> list[list[Event]]:
    waiting = [submitted(pinned=replica, session=session)]
    owned = [*waiting, claimed(replica)]
    return [
        waiting,
        [*owned, kill_requested()],
        [*owned, running()],
        [*owned, running(), adopted("r3")],
        [submitted(session=session), claimed(replica), running()],
        [*owned, running(), finished()],
    ]


@st.composite
def cluster_states(draw: st.DrawFn) -> ClusterState:
    now = draw(st.floats(0, 1e6))
    candidates = []
    for number in range(draw(st.integers(0, 8))):
        word = draw(st.sampled_from(words(draw(st.sampled_from(REPLICAS)))))
        since = now - draw(st.floats(0, 2 * QUEUE_TIMEOUT))
        candidates.append(OpenExecution(execution=fold(f"e{number}", word), waiting_since=since))
    return ClusterState(
        now=now,
        open=draw(st.permutations(candidates)),
        capacity=draw(st.dictionaries(st.sampled_from(REPLICAS), st.integers(-1, 3))),
        queue_timeout_seconds=QUEUE_TIMEOUT,
    )


@st.composite
def states_with_cells(draw: st.DrawFn) -> ClusterState:
    state = draw(cluster_states())
    cells = []
    for number in range(draw(st.integers(1, 6))):
        replica, session = draw(st.sampled_from(REPLICAS)), draw(st.sampled_from(SESSIONS))
        word = draw(st.sampled_from(cell_words(replica, session)))
        since = state.now - draw(st.floats(0, 2 * QUEUE_TIMEOUT))
        cells.append(OpenExecution(execution=fold(f"c{number}", word), waiting_since=since))
    open_sessions = draw(st.none() | st.sets(st.sampled_from(SESSIONS)))
    return evolve(state, open=draw(st.permutations([*state.open, *cells])), open_sessions=open_sessions)


@given(states_with_cells())
def test_cells_are_never_claimed_released_or_expired_and_end_only_without_session_and_owner(
    state: ClusterState,
) -> None:
    acted = {action.execution.id: action for action in plan(state)}
    for candidate in state.open:
        cell = candidate.execution
        if cell.spec.session_id is None:
            continue
        is_closed = state.open_sessions is not None and cell.spec.session_id not in state.open_sessions
        is_orphaned = (cell.owner or cell.pinned) not in state.capacity
        if is_closed and is_orphaned and cell.phase is not Phase.ENDED:
            expected = MarkLost if cell.phase is Phase.RUNNING else EndCell
            assert isinstance(acted[cell.id], expected)
        else:
            assert cell.id not in acted


@given(states_with_cells())
def test_cells_change_nothing_for_other_executions(state: ClusterState) -> None:
    others = [each for each in state.open if each.execution.spec.session_id is None]
    alone = evolve(state, open=others)
    assert [a for a in plan(state) if a.execution.spec.session_id is None] == plan(alone)
    assert next_deadline(state) == next_deadline(alone)


@given(cluster_states())
def test_a_plan_is_safe(state: ClusterState) -> None:
    actions = plan(state)
    ids = [action.execution.id for action in actions]
    assert len(ids) == len(set(ids))
    assert ids == sorted(ids)
    claims = Counter(action.replica for action in actions if isinstance(action, Claim))
    assert all(count <= state.capacity[replica] for replica, count in claims.items())
    for action in actions:
        execution = action.execution
        assert execution.phase is not Phase.ENDED
        if isinstance(action, Claim | Expire):
            assert execution.phase is Phase.QUEUED
        else:
            assert execution.phase in OWNED_PHASES
            assert execution.owner not in state.capacity
        if isinstance(action, Claim | Release):
            assert execution.started_at is None
            assert not execution.kill_requested


@given(cluster_states())
def test_a_plan_contains_every_due_action(state: ClusterState) -> None:
    acted = {action.execution.id: action for action in plan(state)}
    free = sum(max(0, capacity) for capacity in state.capacity.values())
    claims = sum(isinstance(action, Claim) for action in acted.values())
    for candidate in state.open:
        execution = candidate.execution
        if execution.phase is Phase.QUEUED:
            if state.now >= candidate.waiting_since + QUEUE_TIMEOUT:
                assert isinstance(acted[execution.id], Expire)
            elif execution.id not in acted:
                assert claims == free
        elif execution.phase in OWNED_PHASES and execution.owner not in state.capacity:
            assert isinstance(acted[execution.id], MarkLost | Release)


@given(cluster_states())
def test_older_executions_are_claimed_first(state: ClusterState) -> None:
    actions = plan(state)
    claimed_ids = [action.execution.id for action in actions if isinstance(action, Claim)]
    passed_over = {s.execution.id for s in state.open if s.execution.phase is Phase.QUEUED} - {
        action.execution.id for action in actions
    }
    assert all(claimed < passed for claimed in claimed_ids for passed in passed_over)


@given(cluster_states())
def test_a_claim_goes_to_the_replica_with_the_largest_capacity(state: ClusterState) -> None:
    capacity = dict(state.capacity)
    for action in plan(state):
        if isinstance(action, Claim):
            assert capacity[action.replica] == max(capacity.values())
            capacity[action.replica] -= 1


@given(st.integers(1, 20), st.integers(0, 3), st.floats(0.5, 30))
def test_every_queued_execution_is_claimed_or_expires(queued: int, slots: int, run_seconds: float) -> None:
    """One replica, whose runs each take `run_seconds`: repeat the plan until no execution waits."""
    waiting = {
        f"e{n:02}": OpenExecution(execution=fold(f"e{n:02}", [submitted()]), waiting_since=0.0)
        for n in range(queued)
    }
    busy: list[float] = []
    fates: dict[str, Action] = {}
    now = 0.0
    while waiting:
        busy = [end for end in busy if end > now]
        state = ClusterState(
            now=now,
            open=list(waiting.values()),
            capacity={"r1": slots - len(busy)},
            queue_timeout_seconds=QUEUE_TIMEOUT,
        )
        for action in plan(state):
            fates[action.execution.id] = action
            del waiting[action.execution.id]
            if isinstance(action, Claim):
                busy.append(now + run_seconds)
        deadline = next_deadline(evolve(state, open=list(waiting.values())))
        assert (deadline is None) == (not waiting)
        if deadline is not None:
            now = min([deadline, *busy])
            assert now <= deadline <= QUEUE_TIMEOUT
    assert len(fates) == queued
    if slots == 0:
        assert all(isinstance(fate, Expire) for fate in fates.values())


def sole(execution: Execution, capacity: dict[str, int]) -> Action | None:
    state = ClusterState(
        now=0,
        open=[OpenExecution(execution=execution, waiting_since=0)],
        capacity=capacity,
        queue_timeout_seconds=1,
    )
    actions = plan(state)
    return actions[0] if actions else None


def test_executions_of_a_lost_replica_are_released_or_marked_lost() -> None:
    owned = [submitted(payload="e/payload"), claimed("gone")]
    streamed = [submitted(), claimed("gone")]
    assert isinstance(sole(fold("e", owned), {}), Release)
    assert isinstance(sole(fold("e", streamed), {}), MarkLost)
    assert isinstance(sole(fold("e", [*owned, preparing()]), {"r1": 1}), Release)
    assert isinstance(sole(fold("e", [*owned, kill_requested()]), {}), MarkLost)
    assert isinstance(sole(fold("e", [*owned, running()]), {"r1": 1}), MarkLost)
    assert sole(fold("e", [*owned, running()]), {"gone": 0}) is None


def test_a_pinned_execution_waits_for_its_replica() -> None:
    pinned = fold("e", [submitted(pinned="mine")])
    claim = sole(pinned, {"mine": 0, "other": 5})
    assert isinstance(claim, Claim)
    assert claim.replica == "mine"
    assert isinstance(sole(pinned, {"other": 5}), MarkLost)


def test_a_running_execution_is_marked_lost_only_after_the_adoption_time() -> None:
    running_still = [
        OpenExecution(execution=fold("e", [submitted(), claimed("gone"), running()]), waiting_since=0)
    ]
    early, late = (
        ClusterState(
            now=now,
            open=running_still,
            capacity={},
            queue_timeout_seconds=1,
            gone_since={"gone": 5},
            adoption_seconds=20,
        )
        for now in (24.9, 25.0)
    )
    assert plan(early) == []
    assert next_deadline(early) == 25.0
    assert isinstance(plan(late)[0], MarkLost)


def test_claims_fill_the_capacity_and_no_more() -> None:
    waiting = [OpenExecution(execution=fold(f"e{n}", [submitted()]), waiting_since=0) for n in range(5)]
    state = ClusterState(
        now=0, open=waiting, capacity={"r1": 2, "r2": 1, "r3": 0}, queue_timeout_seconds=QUEUE_TIMEOUT
    )
    claims = [(action.execution.id, action.replica) for action in plan(state) if isinstance(action, Claim)]
    assert claims == [("e0", "r1"), ("e1", "r2"), ("e2", "r1")]


def test_executions_in_setup_take_no_capacity_but_claims_go_where_fewer_are() -> None:
    waiting = [OpenExecution(execution=fold(f"e{n}", [submitted()]), waiting_since=0) for n in range(4)]
    state = ClusterState(
        now=0,
        open=waiting,
        capacity={"r1": 2, "r2": 2},
        in_setup={"r1": 1, "r2": 9},
        queue_timeout_seconds=QUEUE_TIMEOUT,
    )
    claims = [action.replica for action in plan(state) if isinstance(action, Claim)]
    assert claims == ["r1", "r1", "r2", "r2"]
