"""Test replicas that install packages for several runs at once: what waits, what runs, what fails in time."""

from collections import Counter

import pytest

from pyexec.domain.events import Failed
from pyexec.domain.execution import Phase
from tests.services.replica_schedules import Replicas
from tests.services.replicas import QUEUE_SECONDS, SLOTS
from tests.services.simulation import PLACES, without_threads

__all__ = ["without_threads"]

pytestmark = pytest.mark.usefixtures("without_threads")


@pytest.mark.parametrize("local_claim", [True, False])
@pytest.mark.parametrize("sync", [True, False])
def test_warm_runs_end_while_more_environments_than_slots_are_missing(local_claim: bool, sync: bool) -> None:
    replicas = Replicas()
    replicas.start(local_claim=local_claim)
    for engine in replicas.world.engines.values():
        engine.setup_seconds = 300.0
    cold = [f"package-{number}" for number in range(4 * SLOTS)]
    for number, package in enumerate(cold):
        replicas.submit(pick=number, sync=sync, key=None, package=package, passes=20)
    replicas.time_passes(25.0)
    for number in range(2 * len(PLACES)):
        replicas.submit(pick=number, sync=sync, key=None, passes=20)
        replicas.time_passes(1.5)
        for _ in range(SLOTS):
            replicas.program_exits(pick=0, code=0, passes=20)
        replicas.time_passes(1.5)
    phases = [state.phase for _, state in sorted(replicas.world.states.items())]
    assert phases[len(cold) :] == [Phase.ENDED] * (len(phases) - len(cold))
    assert phases[: len(cold)] == [Phase.PREPARING] * len(cold)
    owners = Counter(
        state.owner for state in replicas.world.states.values() if state.phase is Phase.PREPARING
    )
    assert len(owners) == len(PLACES)
    assert max(owners.values()) - min(owners.values()) <= 1
    replicas.teardown()


def test_executions_that_need_the_same_environment_share_one_place() -> None:
    replicas = Replicas()
    replicas.start(local_claim=True)
    for engine in replicas.world.engines.values():
        engine.setup_seconds = 300.0
    for _ in range(SLOTS):
        replicas.submit(pick=0, sync=True, key=None, package="package-1", passes=20)
    replicas.submit(pick=0, sync=True, key=None, package="package-2", passes=20)
    replicas.time_passes(299.0)
    assert {state.phase for state in replicas.world.states.values()} == {Phase.PREPARING}
    replicas.time_passes(25.0)
    *together, other = [state for _, state in sorted(replicas.world.states.items())]
    assert [state.phase for state in together] == [Phase.RUNNING] * SLOTS
    assert other.phase is Phase.PREPARING
    replicas.teardown()


def test_an_environment_that_is_evicted_during_the_wait_for_a_slot_is_built_again() -> None:
    replicas = Replicas()
    replicas.start(local_claim=True)
    for _ in range(SLOTS):
        replicas.submit(pick=0, sync=True, key=None, passes=20)
    replicas.time_passes(1.5)
    replicas.submit(pick=0, sync=True, key=None, package="package-1", passes=20)
    replicas.time_passes(1.5)
    engine = replicas.world.engines[PLACES[0]]
    (environment,) = engine.environments
    engine.environments.clear()
    replicas.program_exits(pick=0, code=0, passes=20)
    replicas.time_passes(1.5)
    assert engine.builds == [environment] * 2
    assert [state.phase for _, state in sorted(replicas.world.states.items())][-1] is Phase.RUNNING
    replicas.teardown()


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("sync", [True, False])
def test_a_kill_ends_a_setup_and_the_wait_for_one(sync: bool, waits: bool) -> None:
    replicas = Replicas()
    replicas.start(local_claim=True)
    for engine in replicas.world.engines.values():
        engine.setup_seconds = 300.0
    for number in range(2):
        replicas.submit(pick=0, sync=sync, key=None, package=f"package-{number}", passes=20)
    replicas.kill(pick=0, whom=0 if waits else 1, passes=20)
    replicas.time_passes(1.5)
    killed, other = sorted(replicas.world.states.items(), reverse=waits)
    assert (killed[1].status, other[1].phase) == ("killed", Phase.PREPARING)
    replicas.time_passes(301.0 if waits else 303.0)
    assert replicas.world.states[other[0]].phase is Phase.RUNNING
    replicas.teardown()


def test_an_execution_whose_setup_does_not_begin_fails_in_time() -> None:
    replicas = Replicas()
    replicas.start(local_claim=True)
    for engine in replicas.world.engines.values():
        engine.setup_seconds = QUEUE_SECONDS - 1
    for number in range(3):
        replicas.submit(pick=0, sync=True, key=None, package=f"package-{number}", passes=20)
    replicas.time_passes(QUEUE_SECONDS + 1)
    states = [state for _, state in sorted(replicas.world.states.items())]
    assert [state.phase for state in states] == [Phase.RUNNING, Phase.PREPARING, Phase.ENDED]
    end = states[2].terminal
    assert isinstance(end, Failed)
    assert end.error_type == "queue_timeout"
    replicas.teardown()
