"""The pool's state for one kind of sandbox: idle sandboxes, waiting requests, and starts in progress."""

import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Mapping

import anyio
from attrs import define, field, frozen

from pyexec.domain.cluster import PoolImage
from pyexec.errors import ExecutorError, SandboxBroken
from pyexec.sandbox.pool.returns import ReturnForecast
from pyexec.sandbox.sandbox import Sandbox

RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses after the first and further failures; the last one is repeated."""
IDLE_CHECK_SECONDS, IDLE_CPUS_MAX = 5.0, 0.2
"""The interval at which the processor time of an idle sandbox is read, and the processors that it may use meanwhile."""

logger = logging.getLogger(__name__)


@frozen(kw_only=True)
class SandboxKind:
    """The properties of a sandbox. Two sandboxes of the same kind are interchangeable."""

    image: str
    memory_mb: int
    disk_mb: int
    cpu_shares: int
    cpus: float | None
    network: bool
    """True if programs have a network. Then the sandbox is not reused, because a peer may keep a connection to it."""
    session: bool = False
    """True for the sandbox of an interpreter session, in which IPython is loaded."""


class IdleSandbox:
    """A sandbox in the pool. `watch` must run until it is claimed, so that the pool never hands out a broken one.

    `tenant` is the only tenant whose programs may run in it; None if it has not run any."""

    def __init__(self, sandbox: Sandbox, tenant: str | None) -> None:
        self.sandbox = sandbox
        self.tenant = tenant
        self.since = anyio.current_time()
        self._scope = anyio.CancelScope()
        self._watched = anyio.Event()
        self._broken = False

    async def watch(self, forget: Callable[[], None], *, limit_cpu: bool) -> None:
        """Return when the sandbox is claimed. If it breaks before, call `forget` and remove it.

        With `limit_cpu`, a sandbox that uses processor time counts as broken."""
        name = self.sandbox.container_id[:12]
        try:
            with self._scope:
                try:
                    await (
                        self._wait_until_broken_or_busy() if limit_cpu else self.sandbox.wait_until_broken()
                    )
                except SandboxBroken as error:
                    logger.warning("removing broken idle sandbox %s: %s", name, error)
                except Exception:  # a bug that one sandbox triggers must not stop the pool
                    logger.exception("removing broken idle sandbox %s", name)
                self._broken = True
        finally:
            self._watched.set()
        if self._broken:
            forget()
            await discard(self.sandbox)

    async def _wait_until_broken_or_busy(self) -> None:
        """Do as `Sandbox.wait_until_broken`, and raise `SandboxBroken` if the sandbox uses processor time.

        An image may contain code that every start of Python executes, and no limit of a program applies to it."""
        before: float | None = None
        while True:
            with anyio.move_on_after(IDLE_CHECK_SECONDS):
                return await self.sandbox.wait_until_broken()
            usage = await self.sandbox.container_usage()
            now = None if usage is None else usage.cpu_seconds
            if before is not None and now is not None and now - before > IDLE_CPUS_MAX * IDLE_CHECK_SECONDS:
                raise SandboxBroken(f"without a program, it used {now - before:.1f} s of processor time")
            before = now

    async def claim(self) -> bool:
        """End the watch. Return False if the sandbox has broken."""
        self._scope.cancel()
        with anyio.CancelScope(shield=True):  # a cancelled caller must not leak the sandbox
            await self._watched.wait()
        return not self._broken


@define(eq=False)
class SandboxRequest:
    """A tenant's request for a sandbox, made at `since` (seconds of the monotonic clock).

    When `done` is set, it has the sandbox, or the error of a failed start."""

    tenant: str
    since: float
    beyond_supply: bool = False
    """True if, when the request arrived, its tenant's earlier requests needed all sandboxes that were starting or being
    cleaned."""
    needs_start: bool = False
    """True once the request no longer waits for a return, and a start must begin for it."""
    done: anyio.Event = field(factory=anyio.Event)
    sandbox: Sandbox | None = None
    error: Exception | None = None

    def fulfill(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.done.set()

    def fail(self, error: Exception) -> None:
        self.error = error
        self.done.set()


@frozen
class Use:
    """The current use of a sandbox: the tenant whose program has it, and since when."""

    tenant: str
    since: float


@define(eq=False)
class KindQueue:
    """All sandboxes and requests of one kind.

    `failures` counts the starts that failed and the idle sandboxes that broke since a caller took one. After each of
    them, no idle sandbox is started until `paused_until`.

    `in_use` has the sandboxes that callers have taken. `returning` counts, by tenant, those that are being cleaned."""

    idle: deque[IdleSandbox] = field(factory=deque)
    requests: deque[SandboxRequest] = field(factory=deque)
    starting: int = 0
    in_use: dict[Sandbox, Use] = field(factory=dict)
    returning: Counter[str] = field(factory=Counter)
    returns: ReturnForecast = field(factory=ReturnForecast)
    failures: int = 0
    paused_until: float = -math.inf

    def back_off(self, now: float) -> float:
        """Pause the starts of idle sandboxes; each further failure pauses them longer. Return the seconds."""
        delay = RETRY_SECONDS[min(self.failures, len(RETRY_SECONDS) - 1)]
        self.failures += 1
        self.paused_until = now + delay
        return delay

    @property
    def supply(self) -> int:
        """Return the number of sandboxes that are idle, starting, or being cleaned."""
        return len(self.idle) + self.starting + self.returning.total()

    def returning_soon(self, now: float, tenant: str | None = None) -> int:
        """Return how many sandboxes in use will probably come back soon; only those of a tenant, if it is given."""
        uses = (use for use in self.in_use.values() if tenant in (None, use.tenant))
        return sum(now < use.since + self.returns.soon_seconds for use in uses)

    def next_overdue(self, now: float) -> float:
        """Return when the next sandbox in use ceases to count as one that returns soon; infinity if none does."""
        times = (use.since + self.returns.soon_seconds for use in self.in_use.values())
        return min((time for time in times if time > now), default=math.inf)

    def add_request(self, tenant: str, now: float) -> SandboxRequest:
        """Add a request of this tenant, made at `now`, to the end of the queue, and return it."""
        ahead = sum(request.tenant == tenant for request in self.requests)
        request = SandboxRequest(tenant, now, beyond_supply=ahead >= self.returning[tenant] + self.starting)
        self.requests.append(request)
        return request

    def return_wait_seconds(self, tenant: str, now: float, start_seconds: float) -> float:
        """Return how many seconds the last request of this tenant waits for a return before a start for it begins.

        The result is 0 if a start, which takes `start_seconds`, would probably be faster than a return, else
        `start_seconds`."""
        ahead = sum(request.tenant == tenant for request in self.requests)
        sandboxes = self.returning_soon(now, tenant) + self.returning[tenant]
        is_faster = sandboxes and self.returns.seconds * ahead / sandboxes < start_seconds
        return start_seconds if is_faster else 0.0

    @property
    def new_supply(self) -> int:
        """Return the number of sandboxes that are starting, or idle and not used yet."""
        return self.starting + sum(idle.tenant is None for idle in self.idle)

    @property
    def empty(self) -> bool:
        return not (self.supply or self.requests or self.in_use)

    @property
    def missing(self) -> int:
        """Return how many more sandboxes must start so that every request that needs a start gets one."""
        waiting = Counter(request.tenant for request in self.requests if request.needs_start)
        return (waiting - self.returning).total() - self.starting

    def usable_by(self, tenant: str) -> IdleSandbox | None:
        """Return the idle sandbox that this tenant used last, else the oldest one that has not been used."""
        own = (idle for idle in reversed(self.idle) if idle.tenant == tenant)
        return next(own, None) or next((idle for idle in self.idle if idle.tenant is None), None)

    def next_request(self, tenant: str | None) -> SandboxRequest | None:
        """Remove and return the first request that may get a sandbox that this tenant has used.

        None means a new sandbox. Then a request that needs a start comes first."""
        allowed = (request for request in self.requests if tenant in (None, request.tenant))
        found = (self._needing_start() if tenant is None else None) or next(allowed, None)
        if found:
            self.requests.remove(found)
        return found

    def next_failed(self) -> SandboxRequest | None:
        """Remove and return the request that a failed start was for; None if no request needs one."""
        if found := self._needing_start():
            self.requests.remove(found)
        return found

    def _needing_start(self) -> SandboxRequest | None:
        return next((request for request in self.requests if request.needs_start), None)


def supply_by_image(queues: Mapping[SandboxKind, KindQueue]) -> tuple[PoolImage, ...]:
    """Return the idle and the starting sandboxes of each image that has any."""
    idle, starting = Counter[str](), Counter[str]()
    for kind, queue in queues.items():
        idle[kind.image] += len(queue.idle)
        starting[kind.image] += queue.starting
    return tuple(
        PoolImage(image=image, idle=idle[image], starting=starting[image])
        for image in sorted(idle)
        if idle[image] or starting[image]
    )


async def discard(sandbox: Sandbox) -> None:
    """Remove a sandbox that no run uses; log an error."""
    try:
        await sandbox.remove()
    except ExecutorError as error:
        logger.warning("removing unused sandbox %s failed: %s", sandbox.container_id[:12], error)
