"""What the pool has of one kind of sandbox, and who waits for it."""

import math
from collections import deque

import anyio
from attrs import define, field

from pyexec.sandbox.pool.idle_sandbox import IdleSandbox
from pyexec.sandbox.sandbox import Sandbox


@define(eq=False)
class SandboxRequest:
    """Who waits for a sandbox that is being started; gets it, or learns why there is none."""

    served: anyio.Event = field(factory=anyio.Event)
    sandbox: Sandbox | None = None
    error: Exception | None = None

    def serve(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.served.set()

    def refuse(self, error: Exception) -> None:
        self.error = error
        self.served.set()


@define(eq=False)
class KindQueue:
    """All that there is of one kind: sandboxes that wait, callers who do, starts under way; and what went wrong."""

    waiting: deque[IdleSandbox] = field(factory=deque)
    line: deque[SandboxRequest] = field(factory=deque)
    starting: int = 0
    failures: int = 0
    paused_until: float = -math.inf

    @property
    def have(self) -> int:
        """Sandboxes that wait, or soon will."""
        return len(self.waiting) + self.starting

    @property
    def empty(self) -> bool:
        return not (self.waiting or self.line or self.starting)
