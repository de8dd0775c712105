"""Test the state machine: every sequence of events folds or is corrupt, and a legal one ends at most once."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec.domain.events import Adopted, Event, Failed, Finished, Killed, KillRequested, Running, Submitted
from pyexec.domain.execution import (
    OWNED_PHASES,
    Execution,
    Phase,
    Status,
    apply,
    fold,
    is_legal,
    request_kill,
    status_after,
)
from pyexec.errors import CorruptLog
from tests.events import (
    START,
    adopted,
    any_event,
    claimed,
    failed,
    finished,
    kill_requested,
    killed,
    later_events,
    preparing,
    released,
    running,
    submissions,
    submitted,
)

ENDS = (Finished, Failed, Killed)

ONE_OF_EACH = [
    submitted(),
    claimed(),
    released(),
    preparing(),
    running(),
    adopted(),
    kill_requested(),
    finished(),
    failed(),
    killed(),
]

WORDS: dict[Phase, list[Event]] = {
    Phase.QUEUED: [submitted()],
    Phase.CLAIMED: [submitted(), claimed()],
    Phase.PREPARING: [submitted(), claimed(), preparing()],
    Phase.RUNNING: [submitted(), claimed(), preparing(), running()],
    Phase.ENDED: [submitted(), claimed(), preparing(), running(), finished()],
}

FOLLOWERS: dict[Phase, list[type[Event]]] = {
    Phase.QUEUED: [type(claimed()), Failed, Killed],
    Phase.CLAIMED: [type(released()), type(preparing()), Running, KillRequested, Failed, Killed],
    Phase.PREPARING: [type(released()), Running, KillRequested, Failed, Killed],
    Phase.RUNNING: [Adopted, KillRequested, Finished, Failed, Killed],
    Phase.ENDED: [],
}
"""The documented transitions, written a second time: the events that may follow in each phase."""


@st.composite
def legal_words(draw: st.DrawFn) -> list[Event]:
    """Draw a legal sequence of events: each event is allowed in the state before it."""
    word: list[Event] = [draw(submissions)]
    state = fold("e", word)
    for candidate in draw(st.lists(later_events, max_size=12)):
        if is_legal(state, candidate):
            word.append(candidate)
            state = apply("e", state, candidate)
    return word


@given(st.lists(any_event, max_size=8))
def test_any_sequence_folds_or_is_corrupt(events: list[Event]) -> None:
    try:
        state = fold("e", events)
    except CorruptLog:
        return
    assert state.seq == len(events)
    assert isinstance(events[0], Submitted)
    assert sum(isinstance(event, ENDS) for event in events) <= 1
    assert sum(isinstance(event, Running) for event in events) <= 1
    assert sum(isinstance(event, KillRequested) for event in events) <= 1


@given(legal_words())
def test_a_legal_sequence_starts_ends_and_is_killed_at_most_once(word: list[Event]) -> None:
    state = fold("e", word)
    ends = [event for event in word if isinstance(event, ENDS)]
    assert ends == ([] if state.terminal is None else [word[-1]])
    assert sum(isinstance(event, Running) for event in word) <= 1
    assert sum(isinstance(event, KillRequested) for event in word) <= 1
    assert (state.phase is Phase.ENDED) == bool(ends)
    assert (state.phase is Phase.RUNNING) <= (state.started_at is not None)
    if state.phase in OWNED_PHASES:
        assert state.owner is not None
        assert state.claimed_at is not None
    if state.phase is Phase.QUEUED:
        assert state.owner is None
        assert not state.kill_requested


@given(legal_words())
def test_the_status_in_the_index_equals_the_status_of_the_fold(word: list[Event]) -> None:
    seen = list(accumulate(map(status_after, word), lambda status, news: news or status))
    assert seen[-1] is fold("e", word).status


@given(legal_words(), st.data())
def test_a_fold_can_be_interrupted_anywhere(word: list[Event], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(word)))
    state = fold("e", word[:cut])
    for event in word[cut:]:
        state = apply("e", state, event)
    assert state == fold("e", word)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: type(event).__name__)
def test_exactly_the_documented_transitions_are_legal(phase: Phase, event: Event) -> None:
    state = fold("e", WORDS[phase])
    assert state.phase is phase
    expected = type(event) in FOLLOWERS[phase]
    assert is_legal(state, event) is expected
    if expected:
        assert apply("e", state, event).seq == state.seq + 1
    else:
        with pytest.raises(CorruptLog):
            apply("e", state, event)


@pytest.mark.parametrize("event", [kill_requested(), released()])
def test_after_a_kill_request_no_second_request_or_release_is_legal(event: Event) -> None:
    state = fold("e", [submitted(), claimed(), kill_requested()])
    assert not is_legal(state, event)


def test_adoption_changes_only_the_owner_of_a_run() -> None:
    started = fold("e", [submitted(), claimed("replica-1"), running()])
    taken = apply("e", started, adopted("replica-2"))
    assert taken.owner == "replica-2"
    assert (taken.phase, taken.started_at, taken.container) == (
        started.phase,
        started.started_at,
        started.container,
    )


@pytest.mark.parametrize("events", [[], [claimed()], [submitted(), submitted()], [killed()]])
def test_a_log_that_does_not_begin_with_one_submitted_is_corrupt(events: list[Event]) -> None:
    with pytest.raises(CorruptLog):
        fold("e", events)


def test_an_unknown_event_type_is_corrupt() -> None:
    with pytest.raises(CorruptLog):
        fold("e", [submitted(), Event(at=START, nonce="n")])


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ([submitted()], Status.PENDING),
        ([submitted(), claimed(), preparing()], Status.PENDING),
        ([submitted(), claimed(), running()], Status.RUNNING),
        ([submitted(), claimed(), running(), kill_requested()], Status.RUNNING),
        ([submitted(), claimed(), running(), adopted()], Status.RUNNING),
        ([submitted(), claimed(), running(), finished(3)], Status.COMPLETED),
        ([submitted(), failed()], Status.FAILED),
        ([submitted(), killed()], Status.KILLED),
    ],
)
def test_each_sequence_has_its_public_status(word: list[Event], status: Status) -> None:
    assert fold("e", word).status is status


@pytest.mark.parametrize(
    ("phase", "written"),
    [
        (Phase.QUEUED, [Killed]),
        (Phase.CLAIMED, [KillRequested]),
        (Phase.PREPARING, [KillRequested]),
        (Phase.RUNNING, [KillRequested]),
        (Phase.ENDED, []),
    ],
)
def test_a_kill_ends_an_unowned_execution_or_asks_its_owner(phase: Phase, written: list[type[Event]]) -> None:
    events = request_kill(fold("e", WORDS[phase]), at=START, nonce="n")
    assert [type(event) for event in events] == written


@given(legal_words())
def test_a_kill_is_always_legal_and_idempotent(word: list[Event]) -> None:
    state: Execution = fold("e", word)
    for event in request_kill(state, at=START, nonce="n"):
        state = apply("e", state, event)
    assert state.phase is Phase.ENDED or state.kill_requested
    again = request_kill(state, at=START, nonce="n")
    assert list(again) == ([] if state.phase is not Phase.QUEUED else [Killed(at=START, nonce="n")])
