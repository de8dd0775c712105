"""Run random schedules of callers on the pool: a sandbox serves one tenant only, and never after it was found dirty."""

import asyncio
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from attrs import define, field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from pyexec.domain.output_files import FileLimits
from pyexec.errors import EngineError
from pyexec.guest import wire
from pyexec.ports import ContainerSpec
from pyexec.sandbox.pool.pool import Pool
from pyexec.sandbox.pool.returns import AGE_SECONDS_MAX, ReusePolicy
from pyexec.sandbox.protocol import Exited, ProgramPlan, StartSignal
from pyexec.sandbox.sandbox import Sandbox
from tests.services.containers import Box, MemoryEngine, document
from tests.services.pool_kinds import image_of, kind_of, spec_of
from tests.services.virtual_time import VirtualLoop
from tests.support.cases import examples

SIZE, RUNS_MAX, START_SECONDS, PATIENCE_SECONDS = 2, 5, 0.3, 60.0
LIMITS = FileLimits(bytes_max=0)


@frozen
class Caller:
    """Comes after `at` seconds, and runs programs, one after another, for `seconds` each in a sandbox of this kind.

    The sandbox is then clean, or not, or its container has died, or the caller gives up before."""

    at: float
    tenant: str
    memory_mb: int
    seconds: float
    end: str
    programs: int = 1


CALLERS = st.lists(
    st.builds(
        Caller,
        at=st.sampled_from([0.0, 0.01, 0.1, 0.4, 1.0, 3.0, 8.0]),
        tenant=st.sampled_from(["a", "a", "b"]),
        memory_mb=st.sampled_from([64, 64, 128]),
        seconds=st.sampled_from([0.0, 0.01, 0.2, 2.0]),
        end=st.sampled_from(["clean", "clean", "clean", "dirty", "dead", "impatient"]),
    ),
    min_size=1,
    max_size=25,
)


class Connection:
    """`ports.Container` on a container in memory."""

    diagnostics = ""

    def __init__(self, box: Box, engine: MemoryEngine) -> None:
        self.box, self._engine, self._at = box, engine, 0

    @property
    def id(self) -> str:
        return self.box.id

    async def write(self, data: bytes) -> None:
        if self.box.ended:
            raise EngineError("the container is gone")
        self.box.hear(data)

    async def read(self) -> bytes | None:
        while self._at == len(self.box.output):
            if self.box.ended:
                return None
            await self.box.changed.wait()
        data, self._at = bytes(self.box.output[self._at :]), len(self.box.output)
        return data

    async def remove(self) -> None:
        self._engine.remove(self.box.id)


@define
class Engine:
    """The parts of `ports.Engine` that the pool uses. Every fifth start fails."""

    memory: MemoryEngine
    starts: int = 0

    async def start(self, spec: ContainerSpec) -> Connection:
        self.starts += 1
        if self.starts % 5 == 0:
            raise EngineError("no container could be started")
        return Connection(await self.memory.start(spec), self.memory)

    async def check(self) -> None:
        self.memory.check()


@define(eq=False)
class Schedule:
    """The pool, and what its sandboxes have run."""

    pool: Pool
    memory: MemoryEngine
    tenants: dict[str, str] = field(factory=dict)
    unusable: set[str] = field(factory=set)
    waits: list[tuple[float, float]] = field(factory=list)
    """The time of each request, and how long it waited for its sandbox."""

    async def call(self, caller: Caller) -> None:
        """Run the caller's programs as a replica does: the next one may begin while the last sandbox is cleaned."""
        await anyio.sleep(caller.at)
        async with anyio.create_task_group() as returning:
            for _ in range(caller.programs):
                await self._run_next(caller, returning)
                await anyio.sleep(0.001)  # until the next request arrives

    async def _run_next(self, caller: Caller, returning: TaskGroup) -> None:
        begun = anyio.current_time()
        kind = kind_of(caller.memory_mb)
        try:
            with anyio.fail_after(0.02 if caller.end == "impatient" else PATIENCE_SECONDS):
                sandbox = await self.pool.take(kind, caller.tenant)
        except EngineError:
            return
        except TimeoutError:
            assert caller.end == "impatient", "the caller starves"
            return
        self.waits.append((begun, anyio.current_time() - begun))
        box = self.memory.boxes[sandbox.container_id]
        assert box.id not in self.unusable
        assert self.tenants.setdefault(box.id, caller.tenant) == caller.tenant
        assert not box.running
        reason = await self._run(sandbox, box, caller)
        give_back = partial(self.pool.give_back, sandbox, reusable=reason == "exit")
        returning.start_soon(give_back, name="give back a sandbox")

    async def _run(self, sandbox: Sandbox, box: Box, caller: Caller) -> str:
        await sandbox.unpack()
        await sandbox.send_plan(ProgramPlan(entrypoint="", args=(), env=("TOKEN=",), evaluate=False), b"")
        await sandbox.start_program(
            StartSignal(
                nonce="", timeout=100, memory_bytes=0, disk_bytes=0, output_bytes=0, output_files=(),
                file_limits=LIMITS, cpu_seconds=None, reuse=self.pool.may_reuse(sandbox),
            )
        )  # fmt: skip
        await anyio.sleep(caller.seconds)
        if caller.end == "dead":
            self.unusable.add(box.id)
            box.end()
            return "broken"
        if caller.end == "dirty":
            self.unusable.add(box.id)
            box.reuse = False
        box.exit(0)
        if caller.end == "dirty":
            box.say(document(wire.RETIRED, reason="a test"))
        ended = [frame async for frame in first_exit(sandbox)]
        return ended[0].reason


async def first_exit(sandbox: Sandbox) -> Any:
    async for frame in sandbox.frames():
        if isinstance(frame, Exited):
            yield frame
            return


@frozen
class Report:
    """How many sandboxes have been started, and how long the requests waited, in the order in which they came."""

    starts: int
    waits: Sequence[float]


def run(callers: Sequence[Caller], runs_max: int = RUNS_MAX, cleaning_seconds: float = 0.0) -> Report:
    """Run the callers' programs in virtual time."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(
            asyncio.wait_for(run_schedule(callers, runs_max, cleaning_seconds), 10_000)
        )
    finally:
        loop.close()


def create_pool(engine: Any, runs_max: int) -> Pool:
    return Pool(
        engine, default_kind=kind_of(64), size=SIZE, parallel=2, image_of=image_of, spec_of=spec_of,
        busy=lambda: False, reuse=ReusePolicy(enabled=True, runs_max=runs_max, log_bytes_max=1 << 20),
    )  # fmt: skip


async def run_schedule(callers: Sequence[Caller], runs_max: int, cleaning_seconds: float) -> Report:
    memory = MemoryEngine("engine")
    memory.start_seconds, memory.cleaning_seconds = START_SECONDS, cleaning_seconds
    engine: Any = Engine(memory)
    pool = create_pool(engine, runs_max)
    schedule = Schedule(pool, memory)
    async with anyio.create_task_group() as serving:
        await serving.start(pool.serve, name="pool")
        async with anyio.create_task_group() as calling:
            for number, caller in enumerate(callers):
                calling.start_soon(schedule.call, caller, name=f"caller {number}")
        await anyio.sleep(60)
        assert pool.idle_count == len(memory.boxes) == SIZE
        serving.cancel_scope.cancel()
    assert not memory.boxes
    return Report(int(engine.starts), [seconds for _, seconds in sorted(schedule.waits)])


def at(time: float, seconds: float) -> Caller:
    return Caller(time, "a", 64, seconds, "clean")


@settings(max_examples=examples(150), deadline=None)
@given(CALLERS)
def test_a_sandbox_serves_one_tenant_and_only_while_it_is_clean(callers: Sequence[Caller]) -> None:
    run(callers)


def test_a_steady_load_starts_no_more_sandboxes_than_it_needs() -> None:
    callers = [at(1 + 0.05 * number, 0.02) for number in range(RUNS_MAX * SIZE)]
    assert run(callers).starts <= 2 * SIZE


def test_a_burst_of_short_programs_waits_for_returns() -> None:
    """A start would take longer, and would take processor time from the programs."""
    callers = [*(at(1 + 0.1 * number, 0.02) for number in range(5)), *(at(5, 0.02) for _ in range(4 * SIZE))]
    report = run(callers, runs_max=100)
    assert report.starts == SIZE
    assert max(report.waits) < 0.1


def test_callers_without_a_pause_get_a_sandbox_each() -> None:
    """A single wait for a return is shorter than a start. If requests always wait, another sandbox is worth it."""
    callers = 2 * SIZE
    report = run([Caller(1, "a", 64, 0.1, "clean", 50)] * callers, runs_max=100)
    assert callers <= report.starts <= callers + 2
    assert max(report.waits[-10 * callers :]) < 0.01


def test_callers_that_wait_only_for_the_cleaning_get_no_more_sandboxes() -> None:
    """Another sandbox would take processor time from the programs, without ending any of them sooner."""
    report = run([Caller(1, "a", 64, 0.1, "clean", 100)] * SIZE, runs_max=1000, cleaning_seconds=0.02)
    assert report.starts == SIZE
    assert max(report.waits) < 0.03


def test_a_request_does_not_wait_for_programs_that_run_for_long() -> None:
    short = [at(1 + 0.1 * number, 0.02) for number in range(5)]
    report = run([*short, *(at(5, 30) for _ in range(SIZE)), at(5.01, 0.02), at(20, 0.02)], runs_max=100)
    assert START_SECONDS < report.waits[-2] < 2.1 * START_SECONDS  # they were taken for short ones
    assert report.waits[-1] < 0.01  # by now the pool has replaced them


async def starts_with_breaking_sandboxes(memory_mb: int, seconds: float) -> int:
    """Use two sandboxes of a kind whose idle ones break soon, as those of a hostile image can. Return the starts."""
    memory = MemoryEngine("engine")
    memory.start_seconds = START_SECONDS
    engine: Any = Engine(memory)
    pool = create_pool(engine, RUNS_MAX)
    async with anyio.create_task_group() as serving:
        await serving.start(pool.serve, name="pool")
        await anyio.sleep(1)
        for _ in range(2):
            await pool.give_back(await pool.take(kind_of(memory_mb), "a"), reusable=False)
        end = anyio.current_time() + seconds
        while anyio.current_time() < end:
            await anyio.sleep(0.05)
            for box in [box for box in memory.boxes.values() if box.labels["memory"] == str(memory_mb)]:
                box.end()
        serving.cancel_scope.cancel()
    return int(engine.starts)


@pytest.mark.parametrize(("memory_mb", "starts"), [(64, SIZE + 2 + 6), (128, SIZE + 2 + 3)])
def test_idle_sandboxes_that_break_are_not_replaced_again_and_again(memory_mb: int, starts: int) -> None:
    """Those of the default kind are replaced after 1, 2, 5 and more seconds, up to two at a time."""
    loop = VirtualLoop()
    try:
        assert loop.run_until_complete(starts_with_breaking_sandboxes(memory_mb, 15)) <= starts
    finally:
        loop.close()


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({}, True),
        ({"runs": RUNS_MAX}, False),
        ({"log_bytes": 1000}, False),
        ({"was_interrupted": True}, False),
        ({"age": AGE_SECONDS_MAX}, False),
    ],
)
async def test_a_sandbox_is_used_again_only_within_its_bounds(
    changes: dict[str, Any], *, allowed: bool
) -> None:
    used: dict[str, Any] = {"runs": RUNS_MAX - 1, "log_bytes": 999, "was_interrupted": False}
    used |= {"age": AGE_SECONDS_MAX - 1, **changes}
    sandbox: Any = SimpleNamespace(**used, created_at=anyio.current_time() - used["age"])
    policy = ReusePolicy(enabled=True, runs_max=RUNS_MAX, log_bytes_max=1000)
    assert policy.allows(sandbox) is allowed
