"""Test replicas in random schedules, with crashes, suspensions, lost sessions and store failures at any step."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Coroutine
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pyexec.domain.events import Adopted, Failed, Finished, Running
from pyexec.domain.execution import Phase
from pyexec.domain.tenants import DEFAULT_TENANT
from pyexec.errors import InvalidRequest
from pyexec.services import submissions
from tests.services.containers import Box
from tests.services.images import COLD
from tests.services.log_invariants import check_ended, check_log, check_started_once
from tests.services.replicas import (
    BAD,
    GOOD,
    QUEUE_SECONDS,
    SETUPS,
    SLOTS,
    TENANTS,
    InlineSpool,
    Life,
    Request,
)
from tests.services.virtual_time import VirtualLoop
from tests.services.world import World
from tests.support.cases import examples

PLACES = ("engine-1", "engine-1", "engine-2")
SETTLING_SECONDS = 4000.0
picks = st.integers(0, 11)
ticks = st.integers(0, 30)
keys = st.sampled_from([None, None, None, "key-1", "key-2"])
packages = st.sampled_from([None, None, "package-1", "package-2", "package-3"])
images = st.sampled_from([None, None, None, f"{COLD}1", f"{COLD}2"])


class Replicas(RuleBasedStateMachine):
    """Let Hypothesis choose each event, and the number of steps for which all other tasks run after it."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.loop = VirtualLoop()
        self.lives: list[Life] = []
        self.requests: list[Request] = []
        self.hung_up: set[str] = set()
        self.checked: dict[str, int] = {}
        self.numbers = count(1)
        self.tokens = count(1)
        self.stop = anyio.Event()
        self.do(self._open())

    def do(self, work: Coroutine[Any, Any, None], passes: int = 0) -> None:
        """Run one step, and then `passes` passes of the event loop."""

        async def step() -> None:
            await work
            for _ in range(passes):
                await anyio.lowlevel.checkpoint()

        self.loop.run_until_complete(step())

    async def _open(self) -> None:
        opened = asyncio.get_running_loop().create_future()

        async def hold() -> None:
            async with anyio.create_task_group() as tasks:
                opened.set_result(World(Path(self.directory.name), tasks))
                await self.stop.wait()
                tasks.cancel_scope.cancel()

        self.holder = asyncio.create_task(hold(), name="world")
        self.world: World = await opened

    @initialize(local_claim=st.booleans())
    def start(self, local_claim: bool) -> None:
        self.local_claim = local_claim
        self.places: list[Life | None] = [None] * len(PLACES)
        for place in range(len(PLACES)):
            self.do(self._start(place))
        self.do(anyio.sleep(1))

    async def _start(self, place: int) -> None:
        life = Life(self.world, f"rep_{next(self.numbers)}", PLACES[place], local_claim=self.local_claim)
        self.places[place] = life
        self.lives.append(life)
        self.world.tasks.start_soon(life.run, name=life.name)

    def life(self, pick: int) -> Life | None:
        serving = [life for life in self.lives if life.serving]
        return serving[pick % len(serving)] if serving else None

    def box(self, pick: int) -> Box | None:
        running = [b for e in self.world.engines.values() for b in e.boxes.values() if b.running]
        return running[pick % len(running)] if running else None

    # Actions of callers.

    @rule(
        pick=picks,
        sync=st.booleans(),
        key=keys,
        package=packages,
        image=images,
        tenant=st.sampled_from(TENANTS.names),
        passes=ticks,
    )
    def submit(
        self,
        pick: int,
        sync: bool,
        key: str | None,
        passes: int,
        package: str | None = None,
        image: str | None = None,
        tenant: str = DEFAULT_TENANT,
    ) -> None:
        if (life := self.life(pick)) is None:
            return
        token = f"{'sync' if sync else 'async'}-{key}" if key else str(next(self.tokens))
        request = Request(token, sync, f"{key}-{sync}" if key else None)
        if key is None:
            request.package, request.image, request.tenant = package, image, tenant
        self._request(life, request, GOOD, passes)

    @rule(pick=picks, sync=st.booleans(), passes=ticks)
    def submit_invalid_archive(self, pick: int, sync: bool, passes: int) -> None:
        if (life := self.life(pick)) is not None:
            self._request(life, Request(f"bad-{next(self.tokens)}", sync, None), BAD, passes)

    def _request(self, life: Life, request: Request, archive: bytes, passes: int) -> None:
        life.requests.append(request)
        self.requests.append(request)

        async def send() -> None:
            self.world.tasks.start_soon(life.request, request, archive, name=f"request {request.token}")

        self.do(send(), passes)

    @rule(pick=picks, passes=ticks)
    def hang_up(self, pick: int, passes: int) -> None:
        waiting = [request for request in self.requests if not request.done]
        if waiting:
            request = waiting[pick % len(waiting)]
            if request.key is None and request.sync:
                self.hung_up.add(request.token)
            self.do(call(request.hang_up), passes)

    @rule(pick=picks, whom=picks, passes=ticks)
    def kill(self, pick: int, whom: int, passes: int) -> None:
        life, ids = self.life(pick), sorted(self.world.states)
        if life is not None and ids:
            execution_id = ids[-1 - whom % len(ids)]
            self.world.kills_asked.add(execution_id)

            async def send() -> None:
                self.world.tasks.start_soon(life.kill, execution_id, name=f"kill {execution_id}")

            self.do(send(), passes)

    # Actions of programs.

    @rule(pick=picks, passes=ticks)
    def program_prints(self, pick: int, passes: int) -> None:
        if (box := self.box(pick)) is not None:
            self.do(call(lambda: box.print(b"hello ")), passes)

    @rule(pick=picks, code=st.integers(0, 2), passes=ticks)
    def program_exits(self, pick: int, code: int, passes: int) -> None:
        if (box := self.box(pick)) is not None:
            self.do(call(lambda: box.exit(code)), passes)

    @rule(pick=picks, passes=ticks)
    def container_breaks(self, pick: int, passes: int) -> None:
        if (box := self.box(pick)) is not None:
            self.world.faults += 1
            self.do(call(box.end), passes)

    # Faults of replicas.

    @rule(pick=picks, passes=ticks)
    def crash(self, pick: int, passes: int) -> None:
        alive = [life for life in self.lives if not life.process.crashed and not life.ended.is_set()]
        if alive:
            self.world.faults += 1
            self.do(call(alive[pick % len(alive)].crash), passes)

    @rule(pick=picks, passes=ticks)
    def session_ends(self, pick: int, passes: int) -> None:
        members = [life for life in self.lives if self.world.has_session(life.process)]
        if members:
            self.world.faults += 1
            life = members[pick % len(members)]
            self.do(call(lambda: self.world.expire(life.process)), passes)

    @rule(passes=ticks)
    def leader_is_deposed(self, passes: int) -> None:
        if (leader := self.world.leader) is not None:
            self.do(call(lambda: self.world.depose(leader)), passes)

    @rule(pick=picks, passes=ticks)
    def hold(self, pick: int, passes: int) -> None:
        if (life := self.life(pick)) is not None:
            self.world.faults += 1
            self.do(call(life.process.hold), passes)

    @rule(pick=picks, passes=ticks)
    def resume(self, pick: int, passes: int) -> None:
        held = [life for life in self.lives if life.process.held is not None]
        if held:
            self.do(call(held[pick % len(held)].process.resume), passes)

    @rule(place=st.integers(0, len(PLACES) - 1), passes=ticks)
    def start_again(self, place: int, passes: int) -> None:
        life = self.places[place]
        if life is not None and (life.process.crashed or life.ended.is_set()):
            self.do(self._start(place), passes)

    @rule(pick=picks, passes=ticks)
    def stop_in_order(self, pick: int, passes: int) -> None:
        if (life := self.life(pick)) is not None:
            self.world.faults += 1
            self.do(call(life.shut_down), passes)

    # Faults of the log, the blob store and the engines.

    @rule(pick=picks, fault=st.sampled_from(["never", "late", "unheard"]))
    def next_append_fails(self, pick: int, fault: str) -> None:
        if (life := self.life(pick)) is not None:
            self.world.faults += 1
            life.process.append_faults.append(fault)

    @rule(passes=ticks)
    def store_goes_away(self, passes: int) -> None:
        self.world.faults += 1
        self.world.store_away = True
        self.do(anyio.lowlevel.checkpoint(), passes)

    @precondition(lambda self: self.world.store_away)
    @rule(passes=ticks)
    def store_comes_back(self, passes: int) -> None:
        self.world.store_away = False
        self.do(anyio.lowlevel.checkpoint(), passes)

    @rule(
        place=st.sampled_from(["engine-1", "engine-2"]),
        away=st.booleans(),
        seconds=st.sampled_from([0, 4.0]),
        setup_seconds=st.sampled_from([0, 4.0, 400.0]),
    )
    def engine_changes(self, place: str, away: bool, seconds: float, setup_seconds: float) -> None:
        engine = self.world.engines[place]
        self.world.faults += away
        engine.start_seconds, engine.setup_seconds = seconds, setup_seconds
        if away:
            engine.away = True
        else:
            self.do(call(engine.come_back))

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.5, 6.0, 25.0, 301.0]))
    def time_passes(self, seconds: float) -> None:
        self.do(anyio.sleep(seconds))

    # Invariants.

    @invariant()
    def every_log_is_valid(self) -> None:
        check_started_once(self.world)
        for life in self.lives:
            if life.died_of is not None:
                raise AssertionError(f"{life.name} died") from life.died_of
        grown = {i for i, entries in self.world.written.items() if self.checked.get(i) != len(entries)}
        for execution_id in sorted(grown):
            self.do(check_log(self.world, execution_id, frozenset(self.hung_up)))
            self.checked[execution_id] = len(self.world.written[execution_id])

    @invariant()
    def a_shutdown_waits_for_programs(self) -> None:
        for life in self.lives:
            assert not life.left_early, f"{life.name} did not wait for {life.left_early}"

    @invariant()
    def setups_keep_to_their_lane(self) -> None:
        for engine in self.world.engines.values():
            assert all(running <= SETUPS for running in engine.setups.values()), engine.setups

    @invariant()
    def accepted_executions_are_durable(self) -> None:
        for request in self.requests:
            if request.accepted:
                assert request.execution_id in self.world.written
                state = self.world.states[request.execution_id]
                if state.payload is not None:
                    assert state.payload in self.world.blobs
            if isinstance(request.error, InvalidRequest):
                assert request.token not in {self.world.token_of(i) for i in self.world.written}

    def teardown(self) -> None:
        try:
            self._come_to_rest()
        finally:
            self.stop.set()
            for life in self.lives:
                if not life.ended.is_set():
                    self.do(call(life.crash))
            self.loop.run_until_complete(self.holder)
            self.world.log.store.close()
            self.world.log._data_dir.release()
            self.loop.close()
            self.directory.cleanup()

    def _come_to_rest(self) -> None:
        """Repair all faults, end every program, and start a replica if none serves."""
        self.world.store_away = False
        for engine in self.world.engines.values():
            engine.start_seconds, engine.setup_seconds, engine.programs_end_at_once = 0.0, 0.0, True
            self.do(call(engine.come_back))
            for box in list(engine.boxes.values()):
                if box.running:
                    self.do(call(lambda box=box: box.exit(0)))
        for life in self.lives:
            life.process.append_faults.clear()
            self.do(call(life.process.resume))
            if life.process.crashed:
                self.do(call(lambda life=life: self.world.expire(life.process)))
        self.do(anyio.sleep(15))
        if not any(life.serving for life in self.lives):
            self.do(self._start(0))
        self.do(anyio.sleep(SETTLING_SECONDS))
        self.every_log_is_valid()
        self.accepted_executions_are_durable()
        check_ended(self.world)
        for life in self.lives:
            if life.serving:
                self._check_idle(life)
        self.do(self._check_index())

    def _check_idle(self, life: Life) -> None:
        assert life.replica is not None
        slots = life.replica.runner._slots
        assert slots.free == SLOTS, f"{life.name} has {slots.free} of {SLOTS} slots"
        assert not slots._queue
        assert not any(map(slots.in_use_by, TENANTS.names))
        assert not len(life.replica.inbox.lane)
        assert slots._free_mb == slots._memory_mb_max
        assert not life.replica.runner._active_runs.all()
        assert not self.world.log._inboxes.get(life.name)
        boxes = [
            b
            for b in self.world.engines[life.engine].boxes.values()
            if b.labels["pyexec.replica"] == life.name
        ]
        assert len(boxes) == 1, f"{life.name} has {[b.id for b in boxes]}, and needs one that waits"

    async def _check_index(self) -> None:
        before = self.world.log.index()
        await self.world.log.rebuild_index()
        assert self.world.log.index() == before


async def call(what: Any) -> None:
    what()


@pytest.fixture(autouse=True)
def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep spooled archives in memory, because virtual time does not work with threads."""
    monkeypatch.setattr(submissions, "Spool", InlineSpool)


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
    replicas.do(call(lambda: replicas.world.expire(first.process)))
    replicas.start_again(place=1, passes=40)
    adopter = replicas.lives[-1]
    replicas.do(call(adopter.crash))
    replicas.do(call(lambda: replicas.world.expire(adopter.process)))
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
