"""Sandboxes started ahead of time, so that a run need not wait for a container."""

import logging
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import anyio
from anyio.abc import TaskGroup, TaskStatus
from attrs import frozen

from pyexec.correlation import correlate
from pyexec.errors import EngineError, ImageUnavailable, Unavailable
from pyexec.metrics import (
    NOOP_METER,
    POOL_IDLE,
    POOL_SIZE,
    POOL_TAKES,
    SANDBOX_START_FAILURES,
    SANDBOX_START_SECONDS,
    STEP_SECONDS,
    Meter,
    timed,
)
from pyexec.ports import ContainerSpec, Engine, Image
from pyexec.sandbox.pool.demand import Demand
from pyexec.sandbox.pool.idle_sandbox import IdleSandbox, discard
from pyexec.sandbox.pool.kind_queue import KindQueue, SandboxRequest
from pyexec.sandbox.sandbox import Sandbox

logger = logging.getLogger(__name__)

REFILL_DELAY_SECONDS = 0.15
"""Most programs end sooner than this, and their sandboxes are gone: starting one beside that would take another
processor, and leave none to the next program on a small machine."""
PATIENCE_SECONDS = 1.0
"""So long it is put off while programs run, if what waits lasts until then: a start beside a program that imports numpy
makes that an eighth slower (two processors)."""
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


class Pool:
    """Keeps `size` sandboxes waiting, of the kinds that are asked for most; others are started when they are asked for.
    `serve` must run around it.

    All starts are made here, and whoever waits gets the first that is ready: nobody starts one beside another that is
    about to be. Filling up comes after that: one start at a time, with a little delay, and rather when nothing runs
    (`busy` tells); or, while requests come faster than that, `parallel` at a time and at once. `image_of` gets an image
    by its name; `spec_of` says what container a kind of sandbox is."""

    def __init__(
        self,
        engine: Engine,
        *,
        standard: SandboxKind,
        size: int,
        parallel: int,
        image_of: Callable[[str], Awaitable[Image]],
        spec_of: Callable[[SandboxKind], ContainerSpec],
        busy: Callable[[], bool],
        meter: Meter = NOOP_METER,
    ) -> None:
        self._engine = engine
        self._size = size
        self._parallel = parallel
        self._image_of = image_of
        self._spec_of = spec_of
        self._busy = busy
        self._standard = standard
        self._demand = Demand(standard)
        self._queues: defaultdict[SandboxKind, KindQueue] = defaultdict(KindQueue)
        self._start_seconds = FIRST_GUESS_SECONDS
        self._taken_at = -math.inf
        self._changed = anyio.Event()
        self._tasks: TaskGroup | None = None
        self._meter = meter
        meter.watch(POOL_SIZE, lambda: size)
        meter.watch(POOL_IDLE, lambda: self.ready)

    @property
    def ready(self) -> int:
        """How many sandboxes wait."""
        return sum(len(queue.waiting) for queue in self._queues.values())

    def has(self, kind: SandboxKind) -> bool:
        """Whether one of this kind waits."""
        queue = self._queues.get(kind)
        return queue is not None and bool(queue.waiting)

    async def take(self, kind: SandboxKind) -> Sandbox:
        """A sandbox of this kind, the caller's from now on: a waiting one, else the next one that is ready.

        Raises `ImageUnavailable`, `EngineError` or `Unavailable`."""
        now = anyio.current_time()
        self._demand.note(kind, now)
        if now >= self._taken_at + REFILL_DELAY_SECONDS:
            self._taken_at = now  # the first of a burst counts: however many come, the pool is filled again
        with timed(self._meter, STEP_SECONDS, "sandbox"):
            while self.has(kind):
                waiting = self._queues[kind].waiting.popleft()
                self._announce()
                if sandbox := await waiting.claim():
                    self._meter.count(POOL_TAKES, "hit")
                    return sandbox
            self._meter.count(POOL_TAKES, "miss")
            return await self._next_started(kind)

    def refresh(self) -> None:
        """A program is over: it may be time to fill up."""
        self._announce()

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
            for caller in [caller for queue in self._queues.values() for caller in queue.line]:
                caller.refuse(Unavailable("this server is stopping; send the request again"))

    async def _next_started(self, kind: SandboxKind) -> Sandbox:
        caller, queue = SandboxRequest(), self._queues[kind]
        queue.line.append(caller)
        try:
            if queue.starting < len(queue.line):
                self._begin(kind)
            await caller.served.wait()
        except BaseException:
            if caller in queue.line:
                queue.line.remove(caller)
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
        places = self._demand.places(self._size, now)
        for kind in [kind for kind, queue in self._queues.items() if queue.empty and kind not in places]:
            del self._queues[kind]
        if self._size == 0 or any(queue.line for queue in self._queues.values()):
            return None
        rate = self._demand.rate(now)
        expected = rate * self._start_seconds
        while lacking := [kind for kind, count in places.items() if self._queues[kind].have < count]:
            under_way = sum(queue.starting for queue in self._queues.values())
            soon = self.ready + under_way
            hurried = expected >= 1 and soon < expected
            if under_way >= (self._parallel if hurried else 1):
                return None
            not_before = min(self._queues[kind].paused_until for kind in lacking)
            if not hurried:
                patient = self._busy() and soon >= rate * (self._start_seconds + PATIENCE_SECONDS)
                delay = PATIENCE_SECONDS if patient else REFILL_DELAY_SECONDS
                not_before = max(not_before, self._taken_at + delay)
            if now < not_before:
                return not_before - now
            if soon >= self._size and not self._give_up_one(places):
                return None
            able = [kind for kind in lacking if self._queues[kind].paused_until <= now]
            self._begin(max(able, key=lambda kind: places[kind] - self._queues[kind].have))
        fading = any(queue.waiting for kind, queue in self._queues.items() if kind != self._standard)
        return FADING_SECONDS if fading else None

    def _give_up_one(self, places: Mapping[SandboxKind, int]) -> bool:
        """Makes room for what is asked for more: the oldest of the kind that has most too many goes, if any has."""
        surplus = {
            kind: queue.have - places.get(kind, 0) for kind, queue in self._queues.items() if queue.waiting
        }
        kind = max(surplus, key=lambda kind: surplus[kind], default=None)
        if kind is None or surplus[kind] <= 0:
            return False
        waiting = self._queues[kind].waiting.popleft()
        self._group().start_soon(_give_up, waiting, name="give up a sandbox")
        return True

    def _begin(self, kind: SandboxKind) -> None:
        self._group().start_soon(self._start, kind, name=f"start a sandbox of {kind.image}")
        self._queues[kind].starting += 1

    async def _start(self, kind: SandboxKind) -> None:
        """Starts one and offers it. What fails here fails for whoever waits, and for nobody else."""
        correlate()  # it may serve another than whoever made it begin
        queue = self._queues[kind]
        try:
            image = await self._image_of(kind.image)
            begun = anyio.current_time()
            with timed(self._meter, SANDBOX_START_SECONDS):
                sandbox = await Sandbox.start(self._engine, self._spec_of(kind), image.digest)
        except CANNOT_START as error:
            queue.starting -= 1
            self._note_failure(kind, error)
        except Exception:
            logger.exception("a sandbox of %s could not be started", kind.image)
            queue.starting -= 1
            self._note_failure(kind, EngineError("the server failed to start a sandbox; its log says why"))
        except BaseException:
            queue.starting -= 1
            raise
        else:
            queue.starting -= 1
            queue.failures = 0
            self._start_seconds += (anyio.current_time() - begun - self._start_seconds) / 4
            self._offer(kind, sandbox)

    def _note_failure(self, kind: SandboxKind, error: Exception) -> None:
        """Whoever waits first is told; if nobody does, the next try comes later, or, without an image, only when it is
        asked for again."""
        self._meter.count(SANDBOX_START_FAILURES)
        queue = self._queues[kind]
        if queue.line:
            queue.line.popleft().refuse(error)
        else:
            delay = RETRY_SECONDS[min(queue.failures, len(RETRY_SECONDS) - 1)]
            queue.failures += 1
            queue.paused_until = anyio.current_time() + delay
            logger.warning("cannot start a sandbox of %s ahead: %s", kind.image, error)
        if isinstance(error, ImageUnavailable) and kind != self._standard:
            self._demand.forget(kind)
        self._announce()

    def _offer(self, kind: SandboxKind, sandbox: Sandbox) -> None:
        """To whoever waits first; else it waits itself."""
        queue = self._queues[kind]
        if queue.line:
            queue.line.popleft().serve(sandbox)
        elif self.ready < self._size:
            waiting = IdleSandbox(sandbox)
            queue.waiting.append(waiting)
            watch = partial(waiting.watch, partial(self._forget, queue, waiting))
            self._group().start_soon(watch, name=f"watch sandbox {sandbox.container_id[:12]}")
        else:
            self._group().start_soon(discard, sandbox, name="discard a sandbox")
        self._announce()

    def _forget(self, queue: KindQueue, waiting: IdleSandbox) -> None:
        if waiting in queue.waiting:
            queue.waiting.remove(waiting)
            self._announce()

    def _announce(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def _clear(self) -> None:
        for queue in self._queues.values():
            while queue.waiting:
                await _give_up(queue.waiting.popleft())

    def _group(self) -> TaskGroup:
        if self._tasks is None:
            raise Unavailable("this server is stopping; send the request again")
        return self._tasks


async def _give_up(waiting: IdleSandbox) -> None:
    if sandbox := await waiting.claim():
        await discard(sandbox)
