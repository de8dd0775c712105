"""The pool: starts sandboxes before requests arrive. See docs/design/pool.md."""

import logging
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
    SANDBOX_RETURNS,
    SANDBOX_START_FAILURES,
    SANDBOX_START_SECONDS,
    STEP_SECONDS,
    Meter,
    timed,
)
from pyexec.ports import ContainerSpec, Engine, Image
from pyexec.sandbox.pool.demand import Demand
from pyexec.sandbox.pool.kind_queue import IdleSandbox, KindQueue, SandboxRequest, discard
from pyexec.sandbox.pool.reuse import ReusePolicy
from pyexec.sandbox.sandbox import Sandbox

logger = logging.getLogger(__name__)

REFILL_DELAY_SECONDS = 0.15
"""Refill when sandboxes have been lacking for this long. Most programs end sooner, and their sandboxes come back. A
start at the same time would take processor time from them."""
RETURN_SECONDS = 0.05
"""How long a request waits for one of its tenant's sandboxes to come back, before another one starts for it."""
SURPLUS_SECONDS = 5.0
"""How long the pool keeps more used sandboxes than it has places."""
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
    """Whether programs have a network. Their sandboxes are used once: a peer may keep a connection to one."""


class Pool:
    """Keeps up to `size` idle sandboxes of the kinds with the highest demand. `serve` must be running while it is used.

    Used sandboxes that come back are used again, for the same tenant only, and as far as `reuse` allows. Under load
    there can be more of them than `size`, for some seconds.

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
        reuse: ReusePolicy,
        meter: Meter = NOOP_METER,
    ) -> None:
        self._engine = engine
        self._size = size
        self._parallel = parallel
        self._image_of = image_of
        self._spec_of = spec_of
        self._busy = busy
        self._reuse = reuse
        self._default_kind = default_kind
        self._demand = Demand(default_kind)
        self._queues: defaultdict[SandboxKind, KindQueue] = defaultdict(KindQueue)
        self._start_seconds = INITIAL_START_SECONDS
        self._lacking_since: float | None = None
        self._in_use: dict[Sandbox, tuple[SandboxKind, str]] = {}
        self._tenants: set[str] = set()
        self._changed = Broadcast()
        self._tasks: TaskGroup | None = None
        self._meter = meter
        meter.watch(POOL_SIZE, lambda: size)
        meter.watch(POOL_IDLE, lambda: self.idle_count)

    @property
    def idle_count(self) -> int:
        """Return the number of idle sandboxes, of all kinds."""
        return sum(len(queue.idle) for queue in self._queues.values())

    def has(self, kind: SandboxKind, tenant: str) -> bool:
        """Return True if a sandbox of this kind is idle that this tenant may use."""
        queue = self._queues.get(kind)
        return queue is not None and queue.usable_by(tenant) is not None

    async def take(self, kind: SandboxKind, tenant: str) -> Sandbox:
        """Return a sandbox of this kind for a program of this tenant: an idle one, else the next one that comes back or
        starts. The caller must remove it or give it back.

        Raises `ImageUnavailable`, `EngineError` or `Unavailable`."""
        self._demand.record(kind, anyio.current_time())
        self._tenants.add(tenant)
        with timed(self._meter, STEP_SECONDS, "sandbox"):
            sandbox = await self._claim_idle(kind, tenant)
            self._meter.count(POOL_TAKES, "miss" if sandbox is None else "hit")
            if sandbox is None:
                sandbox = await self._next_sandbox(kind, tenant)
        self._in_use[sandbox] = (kind, tenant)
        self._queues[kind].in_use[tenant] += 1
        return sandbox

    def may_reuse(self, sandbox: Sandbox) -> bool:
        """Return True if this sandbox may run another program after the present one."""
        kind, _ = self._in_use.get(sandbox, (None, None))  # none if another process has started it
        return kind is not None and not kind.network and self._reuse.allows(sandbox)

    def forget(self, sandbox: Sandbox) -> None:
        """Stop to count a used sandbox, because another replica will adopt it."""
        kind, tenant = self._in_use.pop(sandbox, (None, ""))
        if kind is not None:
            self._queues[kind].in_use[tenant] -= 1

    async def give_back(self, sandbox: Sandbox, *, reusable: bool) -> None:
        """Take back a used sandbox. Keep it for its tenant if it is `reusable` and proves to be clean; else remove it.

        Raises `EngineError` or `Unavailable` if it cannot be removed."""
        kind, tenant = self._in_use.get(sandbox, (self._default_kind, ""))
        queue = self._queues[kind]
        clean = reusable and self.may_reuse(sandbox)
        self.forget(sandbox)
        if clean:
            queue.returning[tenant] += 1
            try:
                clean = await sandbox.wait_until_clean()
            finally:
                queue.returning[tenant] -= 1
        self._meter.count(SANDBOX_RETURNS, "reused" if clean else "removed")
        if clean and self._tasks is not None:
            self._demand.record_return(anyio.current_time())
            self._offer(kind, sandbox, tenant)
        else:
            if self._tasks is not None:
                self._start_missing(kind)
            self._changed.notify_all()
            await sandbox.remove()

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep the pool filled until cancelled, then remove all idle sandboxes."""
        try:
            async with anyio.create_task_group() as self._tasks:
                task_status.started()
                try:
                    while True:
                        changed = self._changed.next_event()
                        with anyio.move_on_after(_sooner(self._fill(), self._remove_surplus())):
                            await changed.wait()
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._clear()
        finally:
            self._tasks = None
            for request in [request for queue in self._queues.values() for request in queue.requests]:
                request.fail(Unavailable(SHUTTING_DOWN))

    async def _claim_idle(self, kind: SandboxKind, tenant: str) -> Sandbox | None:
        queue = self._queues[kind]
        while (idle := queue.usable_by(tenant)) is not None:
            queue.idle.remove(idle)
            self._changed.notify_all()
            if sandbox := await idle.claim():
                return sandbox
        return None

    async def _next_sandbox(self, kind: SandboxKind, tenant: str) -> Sandbox:
        """Wait for a sandbox that comes back, or for a new one."""
        request, queue = SandboxRequest(tenant), self._queues[kind]
        queue.requests.append(request)
        try:
            if queue.in_use[tenant]:
                with anyio.move_on_after(RETURN_SECONDS):
                    await request.done.wait()
            self._start_missing(kind)
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

    def _start_missing(self, kind: SandboxKind) -> None:
        """Begin as many starts as requests would otherwise wait for nothing."""
        for _ in range(self._queues[kind].missing):
            self._begin_start(kind)

    def _fill(self) -> float | None:
        """Begin the starts that are due. Return the seconds until the next check; None to wait for a change."""
        now = anyio.current_time()
        places = self._demand.allocate(self._size, now)
        for kind in [kind for kind, queue in self._queues.items() if queue.empty and kind not in places]:
            del self._queues[kind]
        lacking = [kind for kind, count in places.items() if self._supply(kind) < count]
        if not lacking:
            self._lacking_since = None
        elif self._lacking_since is None:
            self._lacking_since = now
        if self._size == 0 or any(queue.requests for queue in self._queues.values()):
            return None
        rate = self._demand.rate(now)
        expected = rate * self._start_seconds
        while lacking := [kind for kind, count in places.items() if self._supply(kind) < count]:
            starting = sum(queue.starting for queue in self._queues.values())
            supply = sum(map(self._supply, self._queues))
            urgent = expected >= 1 and supply < expected
            if starting >= (self._parallel if urgent else 1):
                return None
            not_before = min(self._queues[kind].paused_until for kind in lacking)
            if not urgent:
                can_wait = self._busy() and supply >= rate * (self._start_seconds + BUSY_REFILL_DELAY_SECONDS)
                delay = BUSY_REFILL_DELAY_SECONDS if can_wait else REFILL_DELAY_SECONDS
                not_before = max(not_before, (self._lacking_since or now) + delay)
            if now < not_before:
                return not_before - now
            if supply >= self._size and not self._evict_one(places):
                return None
            ready = [kind for kind in lacking if self._queues[kind].paused_until <= now]
            self._begin_start(max(ready, key=lambda kind: places[kind] - self._supply(kind)))
        others_idle = any(queue.idle for kind, queue in self._queues.items() if kind != self._default_kind)
        return DEMAND_CHECK_SECONDS if others_idle else None

    def _supply(self, kind: SandboxKind) -> int:
        """Return how many sandboxes of this kind take, or will take, one of its places.

        If there are several tenants, a used sandbox takes no place, because only one of them can use it."""
        queue = self._queues[kind]
        return queue.supply if len(self._tenants) <= 1 else queue.new_supply

    def _remove_surplus(self) -> float | None:
        """Remove used sandboxes for which there was no place for some time. Return the seconds until the next check."""
        used = [
            (idle.since, queue, idle) for queue in self._queues.values() for idle in queue.idle if idle.tenant
        ]
        used.sort(key=lambda entry: entry[0])
        for since, queue, idle in used[: max(0, self.idle_count - self._size)]:
            if (seconds := since + SURPLUS_SECONDS - anyio.current_time()) > 0:
                return seconds
            self._remove_idle(queue, idle)
        return None

    def _remove_idle(self, queue: KindQueue, idle: IdleSandbox) -> None:
        queue.idle.remove(idle)
        self._group().start_soon(_discard_idle, idle, name="remove an idle sandbox")

    def _evict_one(self, places: Mapping[SandboxKind, int]) -> bool:
        """Remove the oldest idle sandbox of the kind with the largest surplus. Return False if none has a surplus."""
        surplus = {
            kind: self._supply(kind) - places.get(kind, 0)
            for kind, queue in self._queues.items()
            if queue.idle
        }
        kind = max(surplus, key=lambda kind: surplus[kind], default=None)
        if kind is None or surplus[kind] <= 0:
            return False
        self._remove_idle(self._queues[kind], self._queues[kind].idle[0])
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
            self._offer(kind, sandbox, None)

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

    def _offer(self, kind: SandboxKind, sandbox: Sandbox, tenant: str | None) -> None:
        """Give the sandbox to the first request that may have it; without one, keep it idle.

        `tenant` has used it; None if it is new. A new one is kept only if there is a place."""
        queue = self._queues[kind]
        if request := queue.next_request(tenant):
            request.fulfill(sandbox)
        elif tenant is not None or sum(map(self._supply, self._queues)) < self._size:
            idle = IdleSandbox(sandbox, tenant)
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
                await _discard_idle(queue.idle.popleft())

    def _group(self) -> TaskGroup:
        if self._tasks is None:
            raise Unavailable(SHUTTING_DOWN)
        return self._tasks


async def _discard_idle(idle: IdleSandbox) -> None:
    if sandbox := await idle.claim():
        await discard(sandbox)


def _sooner(*times: float | None) -> float | None:
    """Return the least of these times; None means never."""
    return min((seconds for seconds in times if seconds is not None), default=None)
