"""Test replicas in random schedules, with crashes, suspensions, lost sessions and store failures at any step."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from pyexec.domain.events import Adopted, Finished, Running
from pyexec.domain.execution import Phase
from tests.services.replica_schedules import Replicas
from tests.services.simulation import PLACES, without_threads
from tests.support.cases import examples

__all__ = ["without_threads"]

pytestmark = pytest.mark.usefixtures("without_threads")


def _explore(count: int, steps: int) -> None:
    run_state_machine_as_test(
        Replicas,
        settings=settings(
            max_examples=count,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_invariants_hold_in_random_schedules() -> None:
    _explore(examples(100), 30)


def test_the_first_owner_adopts_its_run_again_if_the_adopter_crashes() -> None:
    """The first replica still has the container. It had only lost its Consul session for a moment."""
    replicas = Replicas()
    replicas.start(local_claim=True)
    replicas.crash(pick=1, passes=0)
    replicas.submit(pick=0, sync=False, key=None, passes=20)
    first = replicas.lives[0]
    replicas.call(lambda: replicas.world.expire(first.process))
    replicas.start_again(place=1, passes=40)
    adopter = replicas.lives[-1]
    replicas.call(adopter.crash)
    replicas.call(lambda: replicas.world.expire(adopter.process))
    replicas.time_passes(6.0)
    replicas.program_exits(pick=0, code=0, passes=20)
    (log,) = replicas.world.written.values()
    assert [(written.writer, type(written.event)) for written in log[2:]] == [
        (first.name, Running),
        (adopter.name, Adopted),
        (first.name, Adopted),
        (first.name, Finished),
    ]
    replicas.teardown()


@pytest.mark.soak
def test_the_invariants_hold_in_many_long_random_schedules() -> None:
    _explore(20_000, 60)


@pytest.mark.parametrize("local_claim", [True, False])
def test_executions_of_a_tenant_at_its_limit_start_one_after_another(local_claim: bool) -> None:
    replicas = Replicas()
    replicas.start(local_claim=local_claim)
    count_of_each = 3
    for number in range(count_of_each * len(PLACES)):
        replicas.submit(pick=number, sync=False, key=None, tenant="capped", passes=20)
    for _ in range(count_of_each):
        replicas.time_passes(1.5)
        phases = Counter(state.phase for state in replicas.world.states.values())
        assert phases[Phase.RUNNING] == len(PLACES)
        for _ in range(len(PLACES)):
            replicas.program_exits(pick=0, code=0, passes=0)
    replicas.time_passes(1.5)
    assert {state.phase for state in replicas.world.states.values()} == {Phase.ENDED}
    replicas.teardown()
