"""The pool: starts sandboxes before requests arrive. See docs/design/pool.md."""

import logging
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import anyio
from anyio.abc import TaskGroup, TaskStatus
from attrs import evolve, frozen

from pyexec.aio import Broadcast
from pyexec.correlation import correlate
from pyexec.errors import SHUTTING_DOWN, EngineError, ImageUnavailable, Unavailable
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
from pyexec.sandbox.pool.kind_queue import IdleSandbox, KindQueue, SandboxRequest, discard
from pyexec.sandbox.sandbox import Sandbox

logger = logging.getLogger(__name__)

REFILL_DELAY_SECONDS = 0.15
"""Refill this long after a request. Most programs end sooner; a start at the same time would take processor time from
them, and would leave no sandbox for the next program on a small machine."""
BUSY_REFILL_DELAY_SECONDS = 1.0
"""The delay while programs run, if the idle sandboxes are expected to last that long. A start slows down a program that
imports numpy by an eighth (two processors)."""
DEMAND_CHECK_SECONDS = 15.0
"""How often the pool checks whether demand for other kinds has decayed."""
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
INITIAL_START_SECONDS = 0.2
"""The assumed duration of a start until one has been measured."""
START_ERRORS = (EngineError, ImageUnavailable, Unavailable)


@frozen(kw_only=True)
class SandboxKind:
    """The properties of a sandbox. Two sandboxes of the same kind are interchangeable."""

    image: str
    memory_mb: int
    disk_mb: int
    cpu_shares: int
    cpus: float | None
    network: bool


class Pool:
    """Keeps up to `size` idle sandboxes of the kinds with the highest demand. `serve` must be running while it is used.

    Only the pool starts sandboxes. It serves waiting callers first. Then it refills: one start at a time, after a
    delay, which is longer if `busy()` returns True. If requests arrive faster than that, it starts up to `parallel` at
    the same time.

    `image_of` returns an image by its name; `spec_of` returns the container for a kind of sandbox."""

    def __init__(
        self,
        engine: Engine,
        *,
        default_kind: SandboxKind,
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
        self._default_kind = default_kind
        self._demand = Demand(default_kind)
        self._queues: defaultdict[SandboxKind, KindQueue] = defaultdict(KindQueue)
        self._start_seconds = INITIAL_START_SECONDS
        self._taken_at = -math.inf
        self._changed = Broadcast()
        self._tasks: TaskGroup | None = None
        self._meter = meter
        meter.watch(POOL_SIZE, lambda: size)
        meter.watch(POOL_IDLE, lambda: self.idle_count)

    @property
    def idle_count(self) -> int:
        """Return the number of idle sandboxes, of all kinds."""
        return sum(len(queue.idle) for queue in self._queues.values())

    def has(self, kind: SandboxKind) -> bool:
        """Return True if a sandbox of this kind is idle."""
        queue = self._queues.get(kind)
        return queue is not None and bool(queue.idle)

    async def take(self, kind: SandboxKind) -> Sandbox:
        """Return a sandbox of this kind: an idle one, else the next one that starts. The caller must remove it.

        Raises `ImageUnavailable`, `EngineError` or `Unavailable`."""
        now = anyio.current_time()
        self._demand.record(kind, now)
        if now >= self._taken_at + REFILL_DELAY_SECONDS:
            self._taken_at = now  # later requests of a burst do not postpone the refill
        with timed(self._meter, STEP_SECONDS, "sandbox"):
            while self.has(kind):
                idle = self._queues[kind].idle.popleft()
                self._changed.notify_all()
                if sandbox := await idle.claim():
                    self._meter.count(POOL_TAKES, "hit")
                    return sandbox
            self._meter.count(POOL_TAKES, "miss")
            return await self._next_started(kind)

    def refresh(self) -> None:
        """Check whether to refill. Call this when a program has ended."""
        self._changed.notify_all()

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep the pool filled until cancelled, then remove all idle sandboxes."""
        try:
            async with anyio.create_task_group() as self._tasks:
                task_status.started()
                try:
                    while True:
                        changed = self._changed.next_event()
                        with anyio.move_on_after(self._fill()):
                            await changed.wait()
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._clear()
        finally:
            self._tasks = None
            for request in [request for queue in self._queues.values() for request in queue.requests]:
                request.fail(Unavailable(SHUTTING_DOWN))

    async def _next_started(self, kind: SandboxKind) -> Sandbox:
        request, queue = SandboxRequest(), self._queues[kind]
        queue.requests.append(request)
        try:
            if queue.starting < len(queue.requests):
                self._begin_start(kind)
            await request.done.wait()
        except BaseException:
            if request in queue.requests:
                queue.requests.remove(request)
            elif request.sandbox is not None:
                with anyio.CancelScope(shield=True):
                    await discard(request.sandbox)
            raise
        if request.sandbox is None:
            raise request.error or RuntimeError("a sandbox request ended without a result")
        return request.sandbox

    def _fill(self) -> float | None:
        """Begin the starts that are due. Return the seconds until the next check; None to wait for a change."""
        now = anyio.current_time()
        places = self._demand.allocate(self._size, now)
        for kind in [kind for kind, queue in self._queues.items() if queue.empty and kind not in places]:
            del self._queues[kind]
        if self._size == 0 or any(queue.requests for queue in self._queues.values()):
            return None
        rate = self._demand.rate(now)
        expected = rate * self._start_seconds
        while lacking := [kind for kind, count in places.items() if self._queues[kind].supply < count]:
            starting = sum(queue.starting for queue in self._queues.values())
            supply = self.idle_count + starting
            urgent = expected >= 1 and supply < expected
            if starting >= (self._parallel if urgent else 1):
                return None
            not_before = min(self._queues[kind].paused_until for kind in lacking)
            if not urgent:
                can_wait = self._busy() and supply >= rate * (self._start_seconds + BUSY_REFILL_DELAY_SECONDS)
                delay = BUSY_REFILL_DELAY_SECONDS if can_wait else REFILL_DELAY_SECONDS
                not_before = max(not_before, self._taken_at + delay)
            if now < not_before:
                return not_before - now
            if supply >= self._size and not self._evict_one(places):
                return None
            ready = [kind for kind in lacking if self._queues[kind].paused_until <= now]
            self._begin_start(max(ready, key=lambda kind: places[kind] - self._queues[kind].supply))
        others_idle = any(queue.idle for kind, queue in self._queues.items() if kind != self._default_kind)
        return DEMAND_CHECK_SECONDS if others_idle else None

    def _evict_one(self, places: Mapping[SandboxKind, int]) -> bool:
        """Remove the oldest idle sandbox of the kind with the largest surplus. Return False if none has a surplus."""
        surplus = {
            kind: queue.supply - places.get(kind, 0) for kind, queue in self._queues.items() if queue.idle
        }
        kind = max(surplus, key=lambda kind: surplus[kind], default=None)
        if kind is None or surplus[kind] <= 0:
            return False
        idle = self._queues[kind].idle.popleft()
        self._group().start_soon(_remove_idle, idle, name="evict an idle sandbox")
        return True

    def _begin_start(self, kind: SandboxKind) -> None:
        self._group().start_soon(self._start, kind, name=f"start a sandbox of {kind.image}")
        self._queues[kind].starting += 1

    async def _start(self, kind: SandboxKind) -> None:
        """Start a sandbox and offer it. If the start fails, only the first request in the queue fails."""
        correlate()  # log lines must not name the request that began this start: another one may get the sandbox
        queue = self._queues[kind]
        try:
            image = await self._image_of(kind.image)
            begun = anyio.current_time()
            with timed(self._meter, SANDBOX_START_SECONDS):
                spec = evolve(self._spec_of(kind), image_id=image.id)
                sandbox = await Sandbox.start(self._engine, spec, image.digest)
        except START_ERRORS as error:
            queue.starting -= 1
            self._record_failure(kind, error)
        except Exception:
            logger.exception("starting a sandbox of %s failed", kind.image)
            queue.starting -= 1
            self._record_failure(
                kind, EngineError("the server failed to start a sandbox; see the server log")
            )
        except BaseException:
            queue.starting -= 1
            raise
        else:
            queue.starting -= 1
            queue.failures = 0
            self._start_seconds += (anyio.current_time() - begun - self._start_seconds) / 4
            self._offer(kind, sandbox)

    def _record_failure(self, kind: SandboxKind, error: Exception) -> None:
        """Fail the first request in the queue; if it is empty, back off. Forget a kind whose image is missing."""
        self._meter.count(SANDBOX_START_FAILURES)
        queue = self._queues[kind]
        if queue.requests:
            queue.requests.popleft().fail(error)
        else:
            delay = RETRY_SECONDS[min(queue.failures, len(RETRY_SECONDS) - 1)]
            queue.failures += 1
            queue.paused_until = anyio.current_time() + delay
            logger.warning(
                "starting an idle sandbox of %s failed; retrying in %g s: %s", kind.image, delay, error
            )
        if isinstance(error, ImageUnavailable) and kind != self._default_kind:
            self._demand.forget(kind)
        self._changed.notify_all()

    def _offer(self, kind: SandboxKind, sandbox: Sandbox) -> None:
        """Give the sandbox to the first request in the queue; without one, keep it idle if there is a place."""
        queue = self._queues[kind]
        if queue.requests:
            queue.requests.popleft().fulfill(sandbox)
        elif self.idle_count < self._size:
            idle = IdleSandbox(sandbox)
            queue.idle.append(idle)
            watch = partial(idle.watch, partial(self._forget, queue, idle))
            self._group().start_soon(watch, name=f"watch the idle sandbox {sandbox.container_id[:12]}")
        else:
            self._group().start_soon(discard, sandbox, name="remove a surplus sandbox")
        self._changed.notify_all()

    def _forget(self, queue: KindQueue, idle: IdleSandbox) -> None:
        if idle in queue.idle:
            queue.idle.remove(idle)
            self._changed.notify_all()

    async def _clear(self) -> None:
        for queue in self._queues.values():
            while queue.idle:
                await _remove_idle(queue.idle.popleft())

    def _group(self) -> TaskGroup:
        if self._tasks is None:
            raise Unavailable(SHUTTING_DOWN)
        return self._tasks


async def _remove_idle(idle: IdleSandbox) -> None:
    if sandbox := await idle.claim():
        await discard(sandbox)
