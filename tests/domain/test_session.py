"""Test the state machine of a session: every sequence of events folds or is corrupt, and closed is final."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec.domain.session import Session, SessionStatus, apply_session, fold_session, is_legal
from pyexec.domain.session_events import (
    CloseReason,
    InterpreterRestarted,
    SessionAdopted,
    SessionClosed,
    SessionEvent,
    SessionOpened,
    SessionPlaced,
)
from pyexec.errors import CorruptLog
from tests.events import (
    SESSION_SPEC,
    any_session_event,
    closed,
    interpreter_restarted,
    later_session_events,
    opened,
    placed,
    session_adopted,
    session_openings,
)

ONE_OF_EACH = [opened(), placed(), session_adopted(), interpreter_restarted(), closed()]
STATES: dict[str, list[SessionEvent]] = {
    "opened": [opened()],
    "placed": [opened(), placed()],
    "adopted": [opened(), placed(), session_adopted()],
    "restarted": [opened(), placed(), interpreter_restarted()],
    "closed": [opened(), placed(), closed()],
}
WITH_OWNER: list[type[SessionEvent]] = [SessionAdopted, InterpreterRestarted, SessionClosed]
FOLLOWERS: dict[str, list[type[SessionEvent]]] = {
    "opened": [SessionPlaced, SessionClosed],
    "placed": WITH_OWNER,
    "adopted": WITH_OWNER,
    "restarted": WITH_OWNER,
    "closed": [],
}
"""The documented transitions, written a second time: the events that may follow in each state."""


@st.composite
def legal_words(draw: st.DrawFn) -> list[SessionEvent]:
    """Draw a legal sequence of events: each event is allowed in the state before it."""
    word: list[SessionEvent] = [draw(session_openings)]
    state = fold_session("s", word)
    for candidate in draw(st.lists(later_session_events, max_size=12)):
        if is_legal(state, candidate):
            word.append(candidate)
            state = apply_session("s", state, candidate)
    return word


def prefixes(word: list[SessionEvent]) -> list[Session]:
    return [fold_session("s", word[:length]) for length in range(1, len(word) + 1)]


@given(st.lists(any_session_event, max_size=8))
def test_any_sequence_folds_or_is_corrupt(events: list[SessionEvent]) -> None:
    try:
        state = fold_session("s", events)
    except CorruptLog:
        return
    assert state.seq == len(events)
    assert isinstance(events[0], SessionOpened)
    assert sum(isinstance(event, SessionOpened) for event in events) == 1
    assert sum(isinstance(event, SessionPlaced) for event in events) <= 1
    assert sum(isinstance(event, SessionClosed) for event in events) <= 1


@given(legal_words())
def test_the_generation_grows_with_every_owner(word: list[SessionEvent]) -> None:
    states = prefixes(word)
    for before, after, event in zip(states, states[1:], word[1:], strict=False):
        if isinstance(event, SessionPlaced | SessionAdopted):
            assert after.generation > before.generation
            assert (after.owner, after.generation) == (event.replica, after.seq)
        else:
            assert (after.owner, after.generation) == (before.owner, before.generation)


@given(legal_words(), any_session_event)
def test_closed_is_final(word: list[SessionEvent], event: SessionEvent) -> None:
    states = prefixes(word)
    assert [state.is_open for state in states[:-1]] == [True] * (len(states) - 1)
    last = states[-1]
    assert (last.status is SessionStatus.CLOSED) == isinstance(word[-1], SessionClosed)
    if not last.is_open:
        assert last.closed_at == word[-1].at
        assert not is_legal(last, event)
        with pytest.raises(CorruptLog):
            apply_session("s", last, event)


@given(legal_words())
def test_the_sandbox_of_a_session_never_changes(word: list[SessionEvent]) -> None:
    state = fold_session("s", word)
    found = [event for event in word if isinstance(event, SessionPlaced)]
    places = [(event.engine, event.container, event.image) for event in found]
    assert (state.engine, state.container, state.image) == (places[0] if places else (None, None, None))
    assert state.restarts == sum(isinstance(event, InterpreterRestarted) for event in word)


@given(legal_words(), st.data())
def test_a_fold_can_be_interrupted_anywhere(word: list[SessionEvent], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(word)))
    state = fold_session("s", word[:cut])
    for event in word[cut:]:
        state = apply_session("s", state, event)
    assert state == fold_session("s", word)


@given(st.lists(st.lists(later_session_events, min_size=1, max_size=2), max_size=6), st.data())
def test_of_concurrent_writers_one_appends_and_the_others_read_again(
    attempts: list[list[SessionEvent]], data: st.DataObject
) -> None:
    """Each writer decides on a state that may be old. The log accepts its events only at the current length, so the
    log is always legal, and no two owners have the same generation."""
    log: list[SessionEvent] = [opened(), placed()]
    generations = [fold_session("s", log).generation]
    for events in attempts:
        known = data.draw(st.integers(1, len(log)))
        state = fold_session("s", log[:known])
        for event in events:
            if not is_legal(state, event):
                break
            state = apply_session("s", state, event)
        else:
            if known == len(log):
                log += events
                generation = fold_session("s", log).generation
                if generation != generations[-1]:
                    generations.append(generation)
    fold_session("s", log)
    assert generations == sorted(set(generations))


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: type(event).__name__)
def test_exactly_the_documented_transitions_are_legal(name: str, event: SessionEvent) -> None:
    state = fold_session("s", STATES[name])
    expected = type(event) in FOLLOWERS[name]
    assert is_legal(state, event) is expected
    if expected:
        assert apply_session("s", state, event).seq == state.seq + 1
    else:
        with pytest.raises(CorruptLog):
            apply_session("s", state, event)


def test_the_state_has_everything_that_callers_see() -> None:
    state = fold_session("s", [opened(), placed("r1"), interpreter_restarted(), session_adopted("r2")])
    assert (state.id, state.spec, state.owner, state.generation) == ("s", SESSION_SPEC, "r2", 4)
    assert (state.restarts, state.status, state.close_reason) == (1, "open", None)
    end = apply_session("s", state, closed(CloseReason.IDLE))
    assert (end.status, end.close_reason, end.owner) == ("closed", "idle", "r2")


@pytest.mark.parametrize("events", [[], [placed()], [opened(), opened()]])
def test_a_log_begins_with_opened_and_has_it_once(events: list[SessionEvent]) -> None:
    with pytest.raises(CorruptLog):
        fold_session("s", events)
