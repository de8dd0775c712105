"""The pool: starts sandboxes before requests arrive. See docs/design/pool.md."""

import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
from anyio.abc import TaskGroup, TaskStatus

from pyexec.aio import Broadcast
from pyexec.correlation import correlate
from pyexec.errors import ImageUnavailable, ShuttingDown
from pyexec.metrics import (
    NOOP_METER,
    POOL_IDLE,
    POOL_SIZE,
    POOL_TAKES,
    SANDBOX_RETURNS,
    SANDBOX_START_FAILURES,
    STEP_SECONDS,
    Meter,
    timed,
)
from pyexec.ports import ContainerSpec, Engine, Image
from pyexec.sandbox.pool.kind_queue import IdleSandbox, KindQueue, SandboxKind, Use, discard
from pyexec.sandbox.pool.refill import CHECK_PAUSE_SECONDS, Refill
from pyexec.sandbox.pool.returns import ReusePolicy
from pyexec.sandbox.pool.starter import START_ERRORS, Starter
from pyexec.sandbox.sandbox import Sandbox

logger = logging.getLogger(__name__)


class Pool:
    """Keeps up to `size` idle sandboxes of the kinds with the highest demand. `serve` must be running while it is used.

    It keeps used sandboxes that come back for their tenant, if `reuse` allows it; under load, more than `size` for some
    seconds. It starts sandboxes for waiting callers first. Then it refills: one start at a time, after a delay, which
    is longer if `busy()` returns True; up to `parallel` starts at the same time if requests arrive faster than that.

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
        self._starter = Starter(engine, image_of, spec_of, meter)
        self._busy = busy
        self._reuse = reuse
        self._default_kind = default_kind
        self.queues: defaultdict[SandboxKind, KindQueue] = defaultdict(KindQueue)
        self._refill = Refill(self.queues, default_kind, size, parallel)
        self.python_versions: dict[str, str] = {}  # of the last sandbox of each image
        self._kinds: dict[Sandbox, SandboxKind] = {}
        self.returned = Counter[bool]()
        self._changed = Broadcast()
        self._tasks: TaskGroup | None = None
        self._meter = meter
        meter.watch(POOL_SIZE, lambda: size)
        meter.watch(POOL_IDLE, lambda: self.idle_count)

    @property
    def idle_count(self) -> int:
        """Return the number of idle sandboxes, of all kinds."""
        return sum(len(queue.idle) for queue in self.queues.values())

    def has(self, kind: SandboxKind, tenant: str) -> bool:
        """Return True if a sandbox of this kind is idle that this tenant may use."""
        queue = self.queues.get(kind)
        return queue is not None and queue.usable_by(tenant) is not None

    async def take(self, kind: SandboxKind, tenant: str) -> Sandbox:
        """Return a sandbox of this kind for a program of this tenant: an idle one, else the next one that comes back or
        starts. The caller must remove it or give it back.

        Raises `ImageUnavailable`, `EngineError` or `Unavailable`."""
        self._refill.demand.record(kind, anyio.current_time())
        self._refill.tenants.add(tenant)
        with timed(self._meter, STEP_SECONDS, "sandbox"):
            sandbox = await self._claim_idle(kind, tenant)
            self._meter.count(POOL_TAKES, "miss" if sandbox is None else "hit")
            if sandbox is None:
                sandbox = await self._next_sandbox(kind, tenant)
        return sandbox

    def may_reuse(self, sandbox: Sandbox) -> bool:
        """Return True if this sandbox may run another program after the current one."""
        kind = self._kinds.get(sandbox)  # None if another process has started it
        return kind is not None and not kind.network and self._reuse.allows(sandbox)

    def forget(self, sandbox: Sandbox) -> Use | None:
        """Stop counting a used sandbox, for example because another replica will adopt it. Return its use."""
        kind = self._kinds.pop(sandbox, None)
        return None if kind is None else self.queues[kind].in_use.pop(sandbox)

    async def give_back(self, sandbox: Sandbox, *, reusable: bool) -> None:
        """Take back a used sandbox. Keep it for its tenant if it is `reusable` and proves to be clean; else remove it.

        Raises `EngineError` or `Unavailable` if it cannot be removed."""
        kind = self._kinds.get(sandbox, self._default_kind)
        queue = self.queues[kind]
        clean = reusable and self.may_reuse(sandbox)
        use = self.forget(sandbox)
        if clean and use is not None:
            queue.returning[use.tenant] += 1
            try:
                clean = await sandbox.wait_until_clean()
            finally:
                queue.returning[use.tenant] -= 1
        self.returned[clean] += 1
        self._meter.count(SANDBOX_RETURNS, "reused" if clean else "removed")
        if clean and use is not None and self._tasks is not None:
            now = anyio.current_time()
            self._refill.demand.record_return(now)
            queue.returns.record(now - use.since)
            self._offer(kind, sandbox, use.tenant)
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
                        with anyio.move_on_after(self._refill_now()):
                            await changed.wait()
                        await anyio.sleep(CHECK_PAUSE_SECONDS)
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._clear()
        finally:
            self._tasks = None
            for request in [request for queue in self.queues.values() for request in queue.requests]:
                request.fail(ShuttingDown())

    async def _claim_idle(self, kind: SandboxKind, tenant: str) -> Sandbox | None:
        queue = self.queues[kind]
        while (idle := queue.usable_by(tenant)) is not None:
            queue.idle.remove(idle)
            self._record_use(kind, idle.sandbox, tenant)
            self._changed.notify_all()
            if await idle.claim():
                return idle.sandbox
            self.forget(idle.sandbox)
        return None

    def _record_use(self, kind: SandboxKind, sandbox: Sandbox, tenant: str) -> None:
        self._kinds[sandbox] = kind
        self.queues[kind].failures = 0
        self.queues[kind].in_use[sandbox] = Use(tenant, anyio.current_time())

    async def _next_sandbox(self, kind: SandboxKind, tenant: str) -> Sandbox:
        """Wait for a sandbox that comes back, or for a new one."""
        queue = self.queues[kind]
        request = queue.add_request(tenant, anyio.current_time())
        try:
            with anyio.move_on_after(queue.return_wait_seconds(tenant, request.since, self._starter.seconds)):
                await request.done.wait()
            if not request.done.is_set():
                request.needs_start = True
                self._start_missing(kind)
                await request.done.wait()
        except BaseException:
            if request in queue.requests:
                queue.requests.remove(request)
            elif request.sandbox is not None:
                self.forget(request.sandbox)
                with anyio.CancelScope(shield=True):
                    await discard(request.sandbox)
            raise
        if request.sandbox is None:
            raise request.error or RuntimeError("a sandbox request ended without a result")
        return request.sandbox

    def _start_missing(self, kind: SandboxKind) -> None:
        """Begin as many starts as requests need and no start in progress serves."""
        for _ in range(self.queues[kind].missing):
            self._begin_start(kind)

    def _refill_now(self) -> float | None:
        """Begin the starts and removals that are due. Return the seconds until the next check; None to wait for a
        change."""
        while True:
            step = self._refill.next_step(anyio.current_time(), self._starter.seconds, self._busy())
            if step.remove is not None:
                self._remove_idle(step.remove)
            if step.start is not None:
                self._begin_start(step.start)
            elif step.remove is None:
                return step.seconds

    def _remove_idle(self, idle: IdleSandbox) -> None:
        self._forget(idle)
        self._group().start_soon(_discard_idle, idle, name="remove an idle sandbox")

    def _begin_start(self, kind: SandboxKind) -> None:
        self._group().start_soon(self._start, kind, name=f"start a sandbox of {kind.image}")
        self.queues[kind].starting += 1

    async def _start(self, kind: SandboxKind) -> None:
        """Start a sandbox and offer it. If the start fails, only one request fails."""
        correlate()  # log lines must not name the request that began this start: another one may get the sandbox
        queue = self.queues[kind]
        try:
            sandbox = await self._starter.start(kind)
        except START_ERRORS as error:
            self._record_failure(kind, error)
            return
        finally:
            queue.starting -= 1
        self.python_versions[kind.image] = sandbox.python
        self._offer(kind, sandbox, None)

    def _record_failure(self, kind: SandboxKind, error: Exception) -> None:
        """Fail the first request that needs a start; without one, back off. Forget a kind whose image is missing."""
        self._meter.count(SANDBOX_START_FAILURES)
        queue = self.queues[kind]
        if request := queue.next_failed():
            request.fail(error)
        else:
            delay = queue.back_off(anyio.current_time())
            logger.warning(
                "starting an idle sandbox of %s failed; retrying in %g s: %s", kind.image, delay, error
            )
        if isinstance(error, ImageUnavailable) and kind != self._default_kind:
            self._refill.demand.forget(kind)
        self._changed.notify_all()

    def _offer(self, kind: SandboxKind, sandbox: Sandbox, tenant: str | None) -> None:
        """Give the sandbox to the first request that may have it; without one, keep it idle.

        `tenant` has used it; None if it is new. A new one is kept only if there is a place."""
        queue = self.queues[kind]
        if request := queue.next_request(tenant):
            self._record_use(kind, sandbox, request.tenant)
            request.fulfill(sandbox)
            now = anyio.current_time()
            waited = now - request.since
            if (
                tenant
                and request.beyond_supply
                and queue.returns.record_wait(waited, self._starter.seconds, now)
            ):
                self._begin_start(kind)
            self._start_missing(kind)
        elif tenant is not None or self._refill.has_place():
            idle = IdleSandbox(sandbox, tenant)
            queue.idle.append(idle)
            forget = partial(self._forget_broken, kind, idle)
            # Only callers' images and packages are not trusted.
            watch = partial(idle.watch, forget, limit_cpu=kind.image != self._default_kind.image)
            self._group().start_soon(watch, name=f"watch the idle sandbox {sandbox.container_id[:12]}")
        else:
            self._group().start_soon(discard, sandbox, name="remove a surplus sandbox")
        self._changed.notify_all()

    def _forget(self, idle: IdleSandbox) -> None:
        for queue in (each for each in self.queues.values() if idle in each.idle):
            queue.idle.remove(idle)
            self._changed.notify_all()

    def _forget_broken(self, kind: SandboxKind, idle: IdleSandbox) -> None:
        """Forget a broken sandbox. An image can break each one after its start: forget its kind, or back off."""
        if kind == self._default_kind:
            self.queues[kind].back_off(anyio.current_time())
        else:
            self._refill.demand.forget(kind)
        self._forget(idle)

    async def _clear(self) -> None:
        while idle := next((idle for queue in self.queues.values() for idle in queue.idle), None):
            self._forget(idle)
            await _discard_idle(idle)

    def _group(self) -> TaskGroup:
        if self._tasks is None:
            raise ShuttingDown
        return self._tasks


async def _discard_idle(idle: IdleSandbox) -> None:
    if await idle.claim():
        await discard(idle.sandbox)
