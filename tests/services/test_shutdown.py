"""Test a graceful shutdown: no program is left behind while there is time, because its engine may end as well."""

import logging

import pytest

from pyexec.domain.events import Claimed, Failed, FailureType, Finished, Released, Running
from pyexec.domain.execution import Phase
from pyexec.errors import ShuttingDown
from pyexec.services.shutdown import ENDED_AT_SHUTDOWN, LINES_MAX, log_closed
from tests.services.containers import Box
from tests.services.replica_schedules import Replicas
from tests.services.replicas import DRAIN_SECONDS, SLOTS, Life
from tests.services.simulation import without_threads

__all__ = ["without_threads"]

LONG_SETUP_SECONDS = 300.0


pytestmark = pytest.mark.usefixtures("without_threads")


def started_replicas(local_claim: bool = True) -> Replicas:
    replicas = Replicas()
    replicas.start(local_claim=local_claim)
    return replicas


def submit(replicas: Replicas, life: Life, *, sync: bool, package: str | None = None) -> None:
    pick = [each for each in replicas.lives if each.serving].index(life)
    replicas.submit(pick=pick, sync=sync, key=None, package=package, passes=20)
    replicas.time_passes(0.3)


def shut_down(replicas: Replicas, life: Life) -> None:
    replicas.call(life.shut_down)
    replicas.time_passes(0.3)


def programs_of(replicas: Replicas, life: Life) -> list[Box]:
    boxes = replicas.world.engines[life.engine].boxes.values()
    return [box for box in boxes if box.running and box.labels["pyexec.replica"] == life.name]


def end_programs(replicas: Replicas, life: Life) -> None:
    """Let the programs end one after another."""
    for box in programs_of(replicas, life):
        replicas.call(lambda box=box: box.exit(0))
        replicas.time_passes(0.3)


@pytest.mark.parametrize("local_claim", [True, False])
def test_a_caller_that_waits_for_a_slot_is_refused(local_claim: bool) -> None:
    """If its program started during the drain, it would be left at the end of the drain."""
    replicas = started_replicas(local_claim)
    first = replicas.lives[0]
    for _ in range(SLOTS + 1):
        submit(replicas, first, sync=True)
    shut_down(replicas, first)
    assert isinstance(replicas.requests[-1].error, ShuttingDown)
    assert len(programs_of(replicas, first)) == SLOTS
    end_programs(replicas, first)
    assert first.ended.is_set()
    assert [state.phase for state in replicas.world.states.values()] == [Phase.ENDED] * SLOTS
    replicas.teardown()


def test_executions_that_wait_for_a_slot_run_on_other_replicas() -> None:
    """The leader assigns nothing to a replica that drains, although it has the most room."""
    replicas = started_replicas()
    leader, other, draining = replicas.lives
    for _ in range(SLOTS * len(replicas.lives) + 2):
        submit(replicas, leader, sync=False)
    waiting = [state for state in replicas.world.states.values() if state.owner == draining.name]
    assert [state.phase for state in waiting] == [Phase.RUNNING] * SLOTS + [Phase.CLAIMED]
    shut_down(replicas, draining)
    end_programs(replicas, draining)
    assert draining.ended.is_set()
    assert not draining.left_early
    for _ in range(3):
        end_programs(replicas, leader)
        end_programs(replicas, other)
    log = replicas.world.written[waiting[-1].id]
    released = next(n for n, entry in enumerate(log) if isinstance(entry.event, Released))
    assert [type(entry.event) for entry in log[released:]] == [Released, Claimed, Running, Finished]
    assert {state.phase for state in replicas.world.states.values()} == {Phase.ENDED}
    claims = [
        entry
        for entries in replicas.world.written.values()
        for entry in entries
        if isinstance(entry.event, Claimed) and entry.event.replica == draining.name
    ]
    assert all(entry.at < draining.stopped_at for entry in claims)
    replicas.teardown()


def test_a_setup_is_left_to_another_replica() -> None:
    """The drain does not wait for it, because the archive is in the blob store."""
    replicas = started_replicas()
    for engine in replicas.world.engines.values():
        engine.setup_seconds = LONG_SETUP_SECONDS
    first = replicas.lives[0]
    submit(replicas, first, sync=False, package="package-1")
    (state,) = replicas.world.states.values()
    assert (state.phase, state.owner) == (Phase.PREPARING, first.name)
    shut_down(replicas, first)
    assert first.ended.is_set()
    (state,) = replicas.world.states.values()
    assert (state.phase, state.owner) != (Phase.PREPARING, first.name)
    replicas.teardown()


def test_a_setup_whose_caller_waits_ends_during_the_drain() -> None:
    """Only this replica has the archive. The drain then waits for the program, too."""
    replicas = started_replicas()
    first = replicas.lives[0]
    replicas.world.engines[first.engine].setup_seconds = 0.6
    submit(replicas, first, sync=True, package="package-1")
    assert [state.phase for state in replicas.world.states.values()] == [Phase.PREPARING]
    shut_down(replicas, first)
    replicas.time_passes(1.5)
    assert [state.phase for state in replicas.world.states.values()] == [Phase.RUNNING]
    assert not first.ended.is_set()
    end_programs(replicas, first)
    assert first.ended.is_set()
    assert not first.left_early
    assert [state.phase for state in replicas.world.states.values()] == [Phase.ENDED]
    replicas.teardown()


def test_a_setup_whose_caller_waits_ends_as_lost_at_the_end_of_the_drain() -> None:
    """The caller gets this result. Without it, the connection would be cut, and the execution would stay open."""
    replicas = started_replicas()
    first = replicas.lives[0]
    replicas.world.engines[first.engine].setup_seconds = LONG_SETUP_SECONDS
    submit(replicas, first, sync=True, package="package-1")
    shut_down(replicas, first)
    replicas.time_passes(DRAIN_SECONDS + 1)
    assert first.ended.is_set()
    (log,) = replicas.world.written.values()
    end = log[-1].event
    assert isinstance(end, Failed)
    assert end.error_type is FailureType.LOST
    assert end.error == ENDED_AT_SHUTDOWN
    assert not any(isinstance(entry.event, Released) for entry in log)
    replicas.teardown()


def test_a_drain_ends_in_time() -> None:
    replicas = started_replicas()
    first = replicas.lives[0]
    submit(replicas, first, sync=True)
    shut_down(replicas, first)
    replicas.time_passes(DRAIN_SECONDS - 0.5)
    assert not first.ended.is_set()
    replicas.time_passes(1.5)
    assert first.ended.is_set()
    replicas.teardown()


def test_a_shutdown_names_a_bounded_number_of_sessions(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pyexec.services.shutdown"):
        log_closed([f"ses_{number}" for number in range(LINES_MAX + 3)])
    assert len(caplog.messages) == LINES_MAX + 1
    assert caplog.messages[0] == "shutdown: session ses_0 is closed"
    assert caplog.messages[-1] == "shutdown: 3 more sessions are closed"
