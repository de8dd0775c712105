"""The pool's state for one kind of sandbox: idle sandboxes, waiting requests, and starts in progress."""

import logging
import math
from collections import deque
from collections.abc import Callable

import anyio
from attrs import define, field

from pyexec.errors import ExecutorError, SandboxBroken
from pyexec.sandbox.sandbox import Sandbox

logger = logging.getLogger(__name__)


class IdleSandbox:
    """A sandbox in the pool. `watch` must run until it is claimed, so that the pool never hands out a broken one."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
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
    """A request for a sandbox. When `done` is set, it has the sandbox, or the error of a failed start."""

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
    """All sandboxes and requests of one kind. After failed starts, no new one begins until `paused_until`."""

    idle: deque[IdleSandbox] = field(factory=deque)
    requests: deque[SandboxRequest] = field(factory=deque)
    starting: int = 0
    failures: int = 0
    paused_until: float = -math.inf

    @property
    def supply(self) -> int:
        """Return the number of sandboxes that are idle or starting."""
        return len(self.idle) + self.starting

    @property
    def empty(self) -> bool:
        return not (self.idle or self.requests or self.starting)


async def discard(sandbox: Sandbox) -> None:
    """Remove a sandbox that no run uses; log an error."""
    try:
        await sandbox.remove()
    except ExecutorError as error:
        logger.warning("removing an unused sandbox failed: %s", error)
