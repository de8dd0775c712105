"""Sandboxes started ahead of time, so that a run need not wait for a container."""

import logging
import math
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import anyio
from anyio.abc import TaskGroup, TaskStatus
from attrs import define, field, frozen

from pyexec.correlation import correlate
from pyexec.errors import EngineError, ImageUnavailable, Unavailable
from pyexec.measures import (
    POOL_SIZE,
    POOL_TAKES,
    POOL_WAITING,
    SANDBOX_START_FAILURES,
    SANDBOX_START_SECONDS,
    STEP_SECONDS,
    UNMEASURED,
    Meter,
    timed,
)
from pyexec.ports import ContainerSpec, Engine, Image
from pyexec.sandbox.demand import Demand
from pyexec.sandbox.sandbox import Sandbox
from pyexec.sandbox.waiting import Waiting, discard

logger = logging.getLogger(__name__)

REFILL_DELAY_SECONDS = 0.15
"""Most programs end sooner than this, and their sandboxes are gone: starting one beside that would take another
processor, and leave none to the next program on a small machine."""
FADING_SECONDS = 15.0
"""How often it is asked whether what was wanted still is."""
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
FIRST_GUESS_SECONDS = 0.2
"""How long a start takes, until one was seen."""
CANNOT_START = (EngineError, ImageUnavailable, Unavailable)


@frozen(kw_only=True)
class SandboxKind:
    """What must be equal for two sandboxes to be interchangeable."""

    image: str
    memory_mb: int
    disk_mb: int
    cpu_shares: int
    cpus: float | None
    network: bool


@define(eq=False)
class _Caller:
    """Who waits for a sandbox that is being started; gets it, or learns why there is none."""

    served: anyio.Event = field(factory=anyio.Event)
    sandbox: Sandbox | None = None
    error: Exception | None = None


class Pool:
    """Keeps `size` sandboxes waiting, of the kinds that are asked for most; others are started when they are asked for.
    `serve` must run around it.

    All starts are made here, and whoever waits gets the first that is ready: nobody starts one beside another that is
    about to be. Filling up comes after that: one start at a time and with a little delay; or, while requests come
    faster than that, `parallel` at a time and at once. `image_of` gets an image by its name; `spec_of` says what
    container a kind of sandbox is."""

    def __init__(
        self,
        engine: Engine,
        *,
        standard: SandboxKind,
        size: int,
        parallel: int,
        image_of: Callable[[str], Awaitable[Image]],
        spec_of: Callable[[SandboxKind], ContainerSpec],
        meter: Meter = UNMEASURED,
    ) -> None:
        self._engine = engine
        self._size = size
        self._parallel = parallel
        self._image_of = image_of
        self._spec_of = spec_of
        self._standard = standard
        self._demand = Demand(standard)
        self._shelves: defaultdict[SandboxKind, deque[Waiting]] = defaultdict(deque)
        self._lines: defaultdict[SandboxKind, deque[_Caller]] = defaultdict(deque)
        self._starting: Counter[SandboxKind] = Counter()
        self._start_seconds = FIRST_GUESS_SECONDS
        self._failures = 0
        self._delayed_until = self._paused_until = -math.inf
        self._changed = anyio.Event()
        self._tasks: TaskGroup | None = None
        self._meter = meter
        meter.watch(POOL_SIZE, lambda: size)
        meter.watch(POOL_WAITING, lambda: self.ready)

    @property
    def ready(self) -> int:
        """How many sandboxes wait."""
        return sum(map(len, self._shelves.values()))

    def has(self, kind: SandboxKind) -> bool:
        """Whether one of this kind waits."""
        return bool(self._shelves.get(kind))

    async def full(self) -> None:
        """Returns when `size` sandboxes wait."""
        while self.ready < self._size:
            await self._changed.wait()

    async def take(self, kind: SandboxKind) -> Sandbox:
        """A sandbox of this kind, the caller's from now on: a waiting one, else the next one that is ready.

        Raises `ImageUnavailable`, `EngineError` or `Unavailable`."""
        now = anyio.current_time()
        self._demand.note(kind, now)
        if (
            now >= self._delayed_until
        ):  # the first of a burst counts: however many come, the pool is filled again
            self._delayed_until = now + REFILL_DELAY_SECONDS
        with timed(self._meter, STEP_SECONDS, "sandbox"):
            while shelf := self._shelves.get(kind):
                waiting = shelf.popleft()
                self._announce()
                if sandbox := await waiting.claim():
                    self._meter.count(POOL_TAKES, "hit")
                    return sandbox
            self._meter.count(POOL_TAKES, "miss")
            return await self._next_started(kind)

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keeps the pool filled until cancelled; then nothing of it is left on the engine."""
        try:
            async with anyio.create_task_group() as self._tasks:
                task_status.started()
                try:
                    while True:
                        changed = self._changed
                        with anyio.move_on_after(self._fill()):
                            await changed.wait()
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._clear()
        finally:
            self._tasks = None
            for caller in [caller for line in self._lines.values() for caller in line]:
                _refuse(caller, Unavailable("this server is stopping; send the request again"))

    async def _next_started(self, kind: SandboxKind) -> Sandbox:
        caller, line = _Caller(), self._lines[kind]
        line.append(caller)
        if self._starting[kind] < len(line):
            self._begin(kind)
        try:
            await caller.served.wait()
        except BaseException:
            if caller in line:
                line.remove(caller)
            elif caller.sandbox is not None:
                with anyio.CancelScope(shield=True):
                    await discard(caller.sandbox)
            raise
        if caller.sandbox is None:
            raise caller.error or RuntimeError("nobody has served this caller")
        return caller.sandbox

    def _fill(self) -> float | None:
        """Begins what is lacking, and says after how many seconds to look again even if nothing changes."""
        now = anyio.current_time()
        if self._size == 0 or any(self._lines.values()):
            return None
        places = self._demand.places(self._size, now)
        expected = self._demand.rate(now) * self._start_seconds
        while lacking := [kind for kind, count in places.items() if self._have(kind) < count]:
            under_way = self._starting.total()
            hurried = expected >= 1 and self.ready + under_way < expected
            if under_way >= (self._parallel if hurried else 1):
                return None
            not_before = self._paused_until if hurried else max(self._paused_until, self._delayed_until)
            if now < not_before:
                return not_before - now
            if self.ready + under_way >= self._size and not self._give_up_one(places):
                return None
            self._begin(max(lacking, key=lambda kind: places[kind] - self._have(kind)))
        fading = any(shelf for kind, shelf in self._shelves.items() if kind != self._standard)
        return FADING_SECONDS if fading else None

    def _have(self, kind: SandboxKind) -> int:
        shelf = self._shelves.get(kind)
        return (len(shelf) if shelf else 0) + self._starting[kind]

    def _give_up_one(self, places: Mapping[SandboxKind, int]) -> bool:
        """Makes room for what is asked for more: the oldest of the kind that has most too many goes, if any has."""
        surplus = {
            kind: self._have(kind) - places.get(kind, 0) for kind, shelf in self._shelves.items() if shelf
        }
        kind = max(surplus, key=lambda kind: surplus[kind], default=None)
        if kind is None or surplus[kind] <= 0:
            return False
        self._group().start_soon(_give_up, self._shelves[kind].popleft(), name="give up a sandbox")
        return True

    def _begin(self, kind: SandboxKind) -> None:
        self._starting[kind] += 1
        self._group().start_soon(self._start, kind, name=f"start a sandbox of {kind.image}")

    async def _start(self, kind: SandboxKind) -> None:
        correlate()  # it may serve another than whoever made it begin
        begun = anyio.current_time()
        try:
            image = await self._image_of(kind.image)
            with timed(self._meter, SANDBOX_START_SECONDS):
                sandbox = await Sandbox.start(self._engine, self._spec_of(kind), image.digest)
        except CANNOT_START as error:
            self._meter.count(SANDBOX_START_FAILURES)
            self._starting[kind] -= 1
            self._note_failure(kind, error)
        except BaseException:
            self._starting[kind] -= 1
            raise
        else:
            self._starting[kind] -= 1
            self._failures = 0
            self._start_seconds += (anyio.current_time() - begun - self._start_seconds) / 4
            self._offer(kind, sandbox)

    def _note_failure(self, kind: SandboxKind, error: Exception) -> None:
        """Whoever waits first is told; if nobody does, the next try comes later."""
        if line := self._lines[kind]:
            _refuse(line.popleft(), error)
        else:
            delay = RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)]
            self._failures += 1
            self._paused_until = anyio.current_time() + delay
            logger.warning("cannot start a sandbox ahead, next try in %g s: %s", delay, error)
        self._announce()

    def _offer(self, kind: SandboxKind, sandbox: Sandbox) -> None:
        """To whoever waits first; else it waits itself."""
        if line := self._lines[kind]:
            caller = line.popleft()
            caller.sandbox = sandbox
            caller.served.set()
        elif self.ready < self._size:
            waiting = Waiting(sandbox)
            self._shelves[kind].append(waiting)
            watch = partial(waiting.watch, partial(self._forget, kind, waiting))
            self._group().start_soon(watch, name=f"watch sandbox {sandbox.container_id[:12]}")
        else:
            self._group().start_soon(discard, sandbox, name="discard a sandbox")
        self._announce()

    def _forget(self, kind: SandboxKind, waiting: Waiting) -> None:
        if waiting in self._shelves[kind]:
            self._shelves[kind].remove(waiting)
            self._announce()

    def _announce(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def _clear(self) -> None:
        for shelf in self._shelves.values():
            while shelf:
                await _give_up(shelf.popleft())

    def _group(self) -> TaskGroup:
        if self._tasks is None:
            raise Unavailable("this server is stopping; send the request again")
        return self._tasks


def _refuse(caller: _Caller, error: Exception) -> None:
    caller.error = error
    caller.served.set()


async def _give_up(waiting: Waiting) -> None:
    if sandbox := await waiting.claim():
        await discard(sandbox)
