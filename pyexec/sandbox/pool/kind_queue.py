"""The pool's state for one kind of sandbox: idle sandboxes, waiting requests, and starts in progress."""

import logging
import math
from collections import Counter, deque
from collections.abc import Callable

import anyio
from attrs import define, field, frozen

from pyexec.errors import ExecutorError, SandboxBroken
from pyexec.sandbox.sandbox import Sandbox

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


class IdleSandbox:
    """A sandbox in the pool. `watch` must run until it is claimed, so that the pool never hands out a broken one.

    `tenant` is the only tenant whose programs may run in it; None if it has not run any."""

    def __init__(self, sandbox: Sandbox, tenant: str | None) -> None:
        self._sandbox = sandbox
        self.tenant = tenant
        self.since = anyio.current_time()
        self._scope = anyio.CancelScope()
        self._watched = anyio.Event()
        self._broken = False

    async def watch(self, forget: Callable[[], None]) -> None:
        """Return when the sandbox is claimed. If it breaks before, call `forget` and remove it."""
        try:
            with self._scope:
                try:
                    await self._sandbox.wait_until_broken()
                except SandboxBroken as error:
                    logger.warning("removing a broken idle sandbox: %s", error)
                except Exception:  # a bug that one sandbox triggers must not stop the pool
                    logger.exception("removing a broken idle sandbox")
                self._broken = True
        finally:
            self._watched.set()
        if self._broken:
            forget()
            await discard(self._sandbox)

    async def claim(self) -> Sandbox | None:
        """End the watch and return the sandbox; None if it has broken."""
        self._scope.cancel()
        with anyio.CancelScope(shield=True):  # a cancelled caller must not leak the sandbox
            await self._watched.wait()
        return None if self._broken else self._sandbox


@define(eq=False)
class SandboxRequest:
    """A tenant's request for a sandbox. When `done` is set, it has the sandbox, or the error of a failed start."""

    tenant: str
    done: anyio.Event = field(factory=anyio.Event)
    sandbox: Sandbox | None = None
    error: Exception | None = None

    def fulfill(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.done.set()

    def fail(self, error: Exception) -> None:
        self.error = error
        self.done.set()


@define(eq=False)
class KindQueue:
    """All sandboxes and requests of one kind. After failed starts, no new one begins until `paused_until`.

    `in_use` and `returning` count, by tenant, the sandboxes that run a program and may be used again, and those that
    are being cleaned."""

    idle: deque[IdleSandbox] = field(factory=deque)
    requests: deque[SandboxRequest] = field(factory=deque)
    starting: int = 0
    in_use: Counter[str] = field(factory=Counter)
    returning: Counter[str] = field(factory=Counter)
    failures: int = 0
    paused_until: float = -math.inf

    @property
    def supply(self) -> int:
        """Return the number of sandboxes that are idle, starting, or being cleaned."""
        return len(self.idle) + self.starting + self.returning.total()

    @property
    def new_supply(self) -> int:
        """Return the number of sandboxes that are starting, or idle and not used yet."""
        return self.starting + sum(idle.tenant is None for idle in self.idle)

    @property
    def empty(self) -> bool:
        return not (self.supply or self.requests or self.in_use.total())

    @property
    def missing(self) -> int:
        """Return how many more sandboxes must start so that every request gets one."""
        waiting = Counter(request.tenant for request in self.requests)
        return (waiting - self.returning).total() - self.starting

    def usable_by(self, tenant: str) -> IdleSandbox | None:
        """Return the idle sandbox that this tenant used last, else the oldest one that has not been used."""
        own = (idle for idle in reversed(self.idle) if idle.tenant == tenant)
        return next(own, None) or next((idle for idle in self.idle if idle.tenant is None), None)

    def next_request(self, tenant: str | None) -> SandboxRequest | None:
        """Remove and return the first request that may get a sandbox of this tenant; None means any tenant."""
        found = next((request for request in self.requests if tenant in (None, request.tenant)), None)
        if found is not None:
            self.requests.remove(found)
        return found


async def discard(sandbox: Sandbox) -> None:
    """Remove a sandbox that no run uses; log an error."""
    try:
        await sandbox.remove()
    except ExecutorError as error:
        logger.warning("removing an unused sandbox failed: %s", error)
