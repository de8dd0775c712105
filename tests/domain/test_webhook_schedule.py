"""Test when webhooks are due: properties of random schedules, and single cases."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec.domain.webhook_schedule import (
    IN_FLIGHT_MAX,
    PAUSE_MAX_SECONDS,
    RECEIVER_MAX,
    RETRY_FIRST_SECONDS,
    RETRY_MAX_SECONDS,
    Attempt,
    Delivery,
    Outcome,
    Schedule,
    outcome_of_status,
    receiver_name,
    retry_seconds,
)

RECEIVERS = [f"https://r{n}" for n in range(8)]
steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "finish", "pass"]),
        st.integers(0, 7),
        st.sampled_from(Outcome),
        st.floats(0, 10),
    ),
    max_size=80,
)


def attempt(outcome: Outcome, retry_after: float | None = None) -> Attempt:
    return Attempt(outcome=outcome, reason="", retry_after=retry_after)


class Driver:
    """Drives a schedule as the service does, and checks it after each step."""

    def __init__(self) -> None:
        self.now = 0.0
        self.schedule = Schedule()
        self.ended: dict[str, str] = {}
        self.flying: list[Delivery] = []
        self.number = 0

    def step(self, what: str, pick: int, outcome: Outcome, seconds: float) -> None:
        if what == "add":
            for _ in range(pick + 1):
                self.number += 1
                self.ended[f"exe_{self.number:04}"] = RECEIVERS[pick]
            self.schedule.update(dict(self.ended), self.now)
        elif what == "remove" and self.ended:
            del self.ended[list(self.ended)[pick % len(self.ended)]]
            self.schedule.update(dict(self.ended), self.now)
        elif what == "finish" and self.flying:
            self.finish(self.flying.pop(pick % len(self.flying)), outcome)
        else:
            self.now += seconds
        self.start_due()

    def finish(self, delivery: Delivery, outcome: Outcome) -> None:
        if outcome in (Outcome.DELIVERED, Outcome.GONE):
            self.ended.pop(delivery.execution_id, None)
        retried = self.schedule.finish(delivery, attempt(outcome), self.now, 0.5)
        assert (retried is not None) == (outcome in (Outcome.REFUSED, Outcome.UNREACHABLE))
        if retried is not None:
            assert retried.due_at >= self.now + RETRY_FIRST_SECONDS / 2
            assert retried.failures == delivery.failures + 1

    def start_due(self) -> None:
        for delivery in self.schedule.due(self.now):
            assert delivery.due_at <= self.now
            assert delivery not in self.flying
            self.schedule.start(delivery)
            self.flying.append(delivery)
        assert len(self.flying) <= IN_FLIGHT_MAX
        assert max(Counter(each.receiver for each in self.flying).values(), default=0) <= RECEIVER_MAX
        assert not self.schedule.due(self.now)
        next_due = self.schedule.next_due()
        assert next_due is None or next_due > self.now  # otherwise the service would spin


@given(steps)
def test_attempts_are_bounded_and_each_wait_has_an_end(actions) -> None:
    driver = Driver()
    for action in actions:
        driver.step(*action)


@given(steps)
def test_every_webhook_is_delivered_once_its_receiver_answers(actions) -> None:
    driver = Driver()
    for action in actions:
        driver.step(*action)
    driver.schedule.update(dict(driver.ended), driver.now)
    driver.start_due()
    for _ in range(20 * (driver.number + 1)):
        while driver.flying:
            driver.finish(driver.flying.pop(), Outcome.DELIVERED)
            driver.start_due()
        if (next_due := driver.schedule.next_due()) is None:
            break
        assert next_due <= driver.now + RETRY_MAX_SECONDS
        driver.now = next_due
        driver.start_due()
    # A delivery that was in progress when it was removed may have been retried.
    driver.schedule.update(dict(driver.ended), driver.now)
    assert len(driver.schedule) == 0


def test_a_dead_receiver_is_tried_alone_and_delays_no_other() -> None:
    schedule, dead, alive = Schedule(), "https://dead", "https://alive"
    ended = {f"exe_{n}": dead for n in range(1000)}
    schedule.update(ended, 0.0)
    first = schedule.due(0.0)
    assert len(first) == RECEIVER_MAX
    for delivery in first:
        schedule.start(delivery)
    for delivery in first:
        schedule.finish(delivery, attempt(Outcome.UNREACHABLE), 1.0, 1.0)
    assert (list(schedule.due(1.5)), schedule.next_due()) == ([], 2.0)
    schedule.update({**ended, "exe_new": alive}, 1.5)
    assert [each.execution_id for each in schedule.due(1.5)] == ["exe_new"]
    (probe,) = [each for each in schedule.due(2.0) if each.receiver == dead]
    assert probe not in first  # another delivery than the one that may be the cause
    schedule.start(probe)
    schedule.finish(probe, attempt(Outcome.DELIVERED), 2.0, 1.0)
    assert len([each for each in schedule.due(2.0) if each.receiver == dead]) == RECEIVER_MAX


@pytest.mark.parametrize("silent", [1, 20])
def test_a_tenant_delays_no_delivery_of_another_one(silent: int) -> None:
    """One tenant has silent receivers, or one that asks for an hour; the other one sends to the same receiver."""
    schedule, urls = Schedule(), [f"https://r{n}.example.com/a" for n in range(silent)]
    ended = {f"exe_{n}": receiver_name(urls[n % silent], "acme") for n in range(100)}
    schedule.update(ended, 0.0)
    started = schedule.due(0.0)
    for delivery in started:
        schedule.start(delivery)
    if silent == 1:
        schedule.finish(started[0], attempt(Outcome.UNREACHABLE, 3600.0), 0.0, 1.0)
    else:
        assert len(started) == IN_FLIGHT_MAX
    others = {"exe_b": receiver_name(urls[0], "beta"), "exe_d": receiver_name(urls[0], "default")}
    schedule.update({**ended, **others}, 1.0)
    assert schedule.next_due() == 1.0
    assert [each.execution_id for each in schedule.due(1.0)] == list(others)


def test_a_refused_delivery_delays_no_other_of_its_receiver() -> None:
    schedule = Schedule()
    schedule.update({"exe_1": "https://a", "exe_2": "https://a"}, 0.0)
    one = schedule.due(0.0)[0]
    schedule.start(one)
    schedule.finish(one, attempt(Outcome.REFUSED), 0.0, 1.0)
    assert [each.execution_id for each in schedule.due(0.0)] == ["exe_2"]
    assert [each.execution_id for each in schedule.due(1.0)] == ["exe_2", "exe_1"]


def test_a_pause_grows_with_the_probes_and_not_with_the_attempts_before_it() -> None:
    schedule, seconds, now = Schedule(), [], 0.0
    schedule.update({f"exe_{n}": "https://a" for n in range(8)}, now)
    for _ in range(8):
        found = schedule.due(now)
        for delivery in found:
            schedule.start(delivery)
        for delivery in found:
            schedule.finish(delivery, attempt(Outcome.UNREACHABLE), now, 1.0)
        later = schedule.next_due()
        assert later is not None
        seconds.append(later - now)
        now = later
    assert seconds[:3] == [1.0, 3.0, 9.0]
    assert seconds[-1] == PAUSE_MAX_SECONDS


@given(st.integers(1, 10**6), st.floats(0, 1), st.one_of(st.none(), st.floats(0, 1e12)))
def test_retries_wait_longer_and_longer_up_to_a_maximum(failures, jitter, asked) -> None:
    wait = retry_seconds(failures, jitter, RETRY_MAX_SECONDS, asked)
    assert RETRY_FIRST_SECONDS / 2 <= wait <= RETRY_MAX_SECONDS
    assert wait <= retry_seconds(failures + 1, 1.0, RETRY_MAX_SECONDS, asked)
    assert wait >= min(asked or 0, RETRY_MAX_SECONDS)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.DELIVERED),
        (204, Outcome.DELIVERED),
        (301, Outcome.REFUSED),
        (307, Outcome.REFUSED),
        (404, Outcome.REFUSED),
        (410, Outcome.GONE),
        (429, Outcome.UNREACHABLE),
        (500, Outcome.REFUSED),
        (503, Outcome.UNREACHABLE),
    ],
)
def test_the_outcome_of_each_status(status: int, outcome: Outcome) -> None:
    assert outcome_of_status(status) is outcome
