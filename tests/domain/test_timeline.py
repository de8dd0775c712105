"""Test timelines: phases cover the whole time, whatever the clocks of the replicas say, and show no secrets."""

from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from pyexec.codec import timestamp, to_json
from pyexec.domain.events import Event
from pyexec.domain.execution import Phase, fold, is_legal
from pyexec.domain.timeline import Timeline, timeline
from tests.events import (
    SPEC,
    START,
    adopted,
    claimed,
    finished,
    kill_requested,
    killed,
    later_events,
    preparing,
    released,
    running,
    submitted,
)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def timeline_of(events: list[Event], now: datetime) -> Timeline:
    return timeline("exe", events, now)


def phases_of(events: list[Event], now: datetime = START) -> list[tuple[str, float]]:
    return [(phase.name.value, phase.seconds) for phase in timeline_of(events, now).phases]


def test_each_phase_has_its_duration() -> None:
    events = [
        submitted(),
        claimed(at=after(1)),
        preparing(after(3)),
        evolve(running(), at=after(6)),
        evolve(adopted(), at=after(8)),
        evolve(kill_requested(), at=after(10)),
        evolve(killed(), at=after(15)),
    ]
    phases = [("queued", 1), ("claimed", 2), ("preparing", 3), ("running", 4), ("completing", 5)]
    assert phases_of(events) == phases


def test_an_execution_that_returns_to_the_queue_has_two_queued_phases() -> None:
    events: list[Event] = [submitted(), claimed(at=after(1)), released(after(3))]
    assert phases_of(events, after(7)) == [("queued", 1), ("claimed", 2), ("queued", 4)]


def test_events_name_the_replica_and_contain_no_secrets() -> None:
    secret = evolve(SPEC, env_vars=("TOKEN=secret",), stdin="secret", script_args=("secret",))
    first = evolve(submitted(), spec=secret)
    events: list[Event] = [first, claimed("a"), released(), claimed("b"), running(), finished()]
    document = to_json(timeline_of(events, START))
    assert [event["type"] for event in document["events"]] == [event.name for event in events]
    assert [event.get("replica") for event in document["events"]] == [None, "a", "a", "b", "b", "b"]
    assert document["events"][2]["reason"] == "its replica is gone"
    assert document["events"][0] == {"type": "submitted", "at": timestamp(START), "image": SPEC.docker_image}
    assert "secret" not in str(document)


@given(st.data())
def test_phases_sum_to_the_whole_time_and_none_is_negative(data: st.DataObject) -> None:
    clocks = st.floats(-100, 100).map(after)
    events: list[Event] = [evolve(submitted(), at=data.draw(clocks))]
    for event in data.draw(st.lists(later_events, max_size=20)):
        if is_legal(fold("exe", events), event):
            events.append(evolve(event, at=data.draw(clocks)))
    now = data.draw(clocks)
    phases = phases_of(events, now)
    ended = fold("exe", events).phase is Phase.ENDED
    end = max(event.at for event in events) if ended else max(now, *(event.at for event in events))
    assert all(seconds >= 0 for _, seconds in phases)
    assert sum(seconds for _, seconds in phases) == pytest.approx(
        (end - events[0].at).total_seconds(), abs=1e-4
    )
    assert all(one != other for (one, _), (other, _) in pairwise(phases))
