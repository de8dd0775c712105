"""Several replicas in one world, requests to them, and what must hold for them at any time and at rest."""

from collections.abc import AsyncIterator
from functools import partial
from itertools import count
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant

from pyexec.errors import InvalidRequest
from pyexec.services import submissions
from tests.services.callers import Request
from tests.services.containers import Box
from tests.services.log_invariants import check_ended, check_log, check_started_once
from tests.services.replicas import SETUPS, SLOTS, TENANTS, Life
from tests.services.world_loop import WorldLoop

PLACES = ("engine-1", "engine-1", "engine-2")
SETTLING_SECONDS = 4000.0


class Simulation(WorldLoop):
    """The part of a state machine of Hypothesis that starts replicas, sends requests and checks the world."""

    def __init__(self) -> None:
        super().__init__()
        self.lives: list[Life] = []
        self.requests: list[Request] = []
        self.hung_up: set[str] = set()
        self.checked: dict[str, int] = {}
        self.numbers = count(1)
        self.tokens = count(1)

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

    def _request(self, life: Life, request: Request, archive: bytes, passes: int) -> None:
        life.requests.append(request)
        self.requests.append(request)
        self.spawn(partial(life.request, request, archive), f"request {request.token}", passes)

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
            self.end_world(self.lives)

    def _come_to_rest(self) -> None:
        """Repair all faults, end every program, and start a replica if none serves."""
        self.world.store_away = False
        for engine in self.world.engines.values():
            engine.start_seconds, engine.setup_seconds, engine.programs_end_at_once = 0.0, 0.0, True
            self.call(engine.come_back)
            for box in list(engine.boxes.values()):
                if box.running:
                    self.call(lambda box=box: box.exit(0))
        for life in self.lives:
            life.process.append_faults.clear()
            self.call(life.process.resume)
            if life.process.crashed:
                self.call(lambda life=life: self.world.expire(life.process))
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


class InlineSpool:
    """An archive that waits for its environment, in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @classmethod
    async def fill(cls, _folder: Path, chunks: AsyncIterator[bytes]) -> "InlineSpool":
        return cls(b"".join([chunk async for chunk in chunks]))

    async def read(self) -> AsyncIterator[bytes]:
        yield self._data

    async def close(self) -> None:
        self._data = b""


@pytest.fixture
def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep spooled archives in memory, because virtual time does not work with threads."""
    monkeypatch.setattr(submissions, "Spool", InlineSpool)
