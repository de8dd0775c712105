"""Check which sessions the leader closes as lost: only those without a live owner, and none before its time."""

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from pyexec.domain.session import SessionsState, fold_session, next_session_deadline, plan_sessions
from tests.events import closed, interpreter_restarted, opened, placed, session_adopted

REPLICAS = ["r1", "r2", "r3"]
WORDS = [
    [opened()],
    [opened(), placed("r1")],
    [opened(), placed("r1"), interpreter_restarted()],
    [opened(), placed("r1"), session_adopted("r2")],
    [opened(), placed("r2"), session_adopted("r3")],
    [opened(), placed("r1"), closed()],
]


@st.composite
def states(draw: st.DrawFn) -> SessionsState:
    now = draw(st.floats(0, 1e6))
    words = draw(st.lists(st.sampled_from(WORDS), max_size=6))
    sessions = [fold_session(f"s{number}", word) for number, word in enumerate(words)]
    ages = draw(st.dictionaries(st.sampled_from(REPLICAS), st.floats(0, 60)))
    return SessionsState(
        now=now,
        open=draw(st.permutations(sessions)),
        live=draw(st.sets(st.sampled_from(REPLICAS))),
        gone_since={replica: now - age for replica, age in ages.items()},
        adoption_seconds=draw(st.sampled_from([0.0, 20.0])),
    )


@given(states())
def test_only_open_sessions_of_replicas_that_are_gone_for_long_enough_are_lost(state: SessionsState) -> None:
    lost = plan_sessions(state)
    assert [session.id for session in lost] == sorted({session.id for session in lost})
    for session in state.open:
        since = state.gone_since.get(session.owner or "", state.now)
        is_due = (
            session.is_open
            and session.owner not in state.live
            and state.now >= since + state.adoption_seconds
        )
        assert (session in lost) == is_due


@given(states())
def test_at_the_next_deadline_a_session_is_lost(state: SessionsState) -> None:
    deadline = next_session_deadline(state)
    orphans = [each for each in state.open if each.is_open and each.owner not in state.live]
    assert (deadline is None) == (not orphans)
    if deadline is not None:
        gone = {replica: state.gone_since.get(replica, state.now) for replica in [*REPLICAS, ""]}
        later = evolve(state, now=max(deadline, state.now), gone_since=gone)
        assert plan_sessions(later)


def test_a_session_is_lost_only_after_the_adoption_time() -> None:
    session = fold_session("s", [opened(), placed("gone")])
    early, late = (
        SessionsState(now=now, open=[session], live={"r1"}, gone_since={"gone": 5}, adoption_seconds=20)
        for now in (24.9, 25.0)
    )
    assert plan_sessions(early) == []
    assert next_session_deadline(early) == 25.0
    assert plan_sessions(late) == [session]
