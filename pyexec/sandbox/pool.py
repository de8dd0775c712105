"""Sandboxes started ahead of time, so that a run need not wait for a container."""

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
from anyio.abc import TaskGroup
from attrs import frozen

from pyexec.errors import EngineError, ExecutorError, ImageUnavailable, SandboxBroken, Unavailable
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
from pyexec.sandbox.sandbox import Sandbox

logger = logging.getLogger(__name__)

REFILL_DELAY_SECONDS = 0.05
"""Most programs end sooner than this; starting a container beside one would take its processor away."""
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)


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
    """Keeps `size` sandboxes of one kind waiting. Others, and more, are started when they are asked for.

    `image_of` gets an image by its name; `spec_of` says what container a kind of sandbox is."""

    def __init__(
        self,
        engine: Engine,
        *,
        kind: SandboxKind,
        size: int,
        image_of: Callable[[str], Awaitable[Image]],
        spec_of: Callable[[SandboxKind], ContainerSpec],
        meter: Meter = UNMEASURED,
    ) -> None:
        self._meter = meter
        self._engine = engine
        self._kind = kind
        self._size = size
        self._image_of = image_of
        self._spec_of = spec_of
        self._warm: deque[_Waiting] = deque()
        self._taken = anyio.Event()
        self._filled = anyio.Event()
        meter.watch(POOL_SIZE, lambda: size)
        meter.watch(POOL_WAITING, lambda: len(self._warm))

    @property
    def ready(self) -> int:
        """How many sandboxes wait."""
        return len(self._warm)

    def has(self, kind: SandboxKind) -> bool:
        """Whether one of this kind waits."""
        return kind == self._kind and bool(self._warm)

    async def take(self, kind: SandboxKind) -> Sandbox:
        """A sandbox of this kind, the caller's from now on: a waiting one, else a new one.

        Raises `ImageUnavailable`, `EngineError` or `Unavailable`."""
        with timed(self._meter, STEP_SECONDS, "sandbox"):
            while kind == self._kind and self._warm:
                waiting = self._warm.popleft()
                self._wake()
                if sandbox := await waiting.claim():
                    self._meter.count(POOL_TAKES, "hit")
                    return sandbox
            self._meter.count(POOL_TAKES, "miss")
            return await self._start(kind)

    async def _start(self, kind: SandboxKind) -> Sandbox:
        image = await self._image_of(kind.image)
        try:
            with timed(self._meter, SANDBOX_START_SECONDS):
                return await Sandbox.start(self._engine, self._spec_of(kind), image.digest)
        except ExecutorError:
            self._meter.count(SANDBOX_START_FAILURES)
            raise

    async def full(self) -> None:
        """Returns when all `size` sandboxes wait."""
        while len(self._warm) < self._size:
            await self._filled.wait()

    async def keep_filled(self) -> None:
        """Runs until cancelled; then nothing of the pool is left on the engine."""
        failures = 0
        async with anyio.create_task_group() as watchers:
            try:
                while True:
                    while len(self._warm) < self._size:
                        try:
                            await self._add(watchers)
                            failures = 0
                        except (EngineError, ImageUnavailable, Unavailable) as error:
                            delay = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
                            failures += 1
                            logger.warning("cannot start a sandbox ahead, next try in %g s: %s", delay, error)
                            await anyio.sleep(delay)
                    self._taken = anyio.Event()
                    await self._taken.wait()
                    await anyio.sleep(REFILL_DELAY_SECONDS)
            finally:
                with anyio.CancelScope(shield=True):
                    await self._drain()
                watchers.cancel_scope.cancel()

    async def _add(self, watchers: TaskGroup) -> None:
        sandbox = await self._start(self._kind)
        waiting = _Waiting(sandbox)
        self._warm.append(waiting)
        name = f"watch sandbox {sandbox.container_id[:12]}"
        watchers.start_soon(partial(waiting.watch, self._forget), name=name)
        self._filled.set()
        self._filled = anyio.Event()

    def _forget(self, waiting: "_Waiting") -> None:
        if waiting in self._warm:
            self._warm.remove(waiting)
            self._wake()

    def _wake(self) -> None:
        self._taken.set()

    async def _drain(self) -> None:
        while self._warm:
            if sandbox := await self._warm.popleft().claim():
                try:
                    await sandbox.remove()
                except ExecutorError as error:
                    logger.warning("cannot remove a waiting sandbox: %s", error)


class _Waiting:
    """A sandbox in the pool, watched so that a dead one is noticed before it is handed out."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._scope = anyio.CancelScope()
        self._watched = anyio.Event()
        self._broken = False

    async def watch(self, forget: Callable[["_Waiting"], None]) -> None:
        """Returns when the sandbox is claimed, or removes it when it has broken."""
        try:
            with self._scope:
                try:
                    await self._sandbox.broken()
                except SandboxBroken as error:
                    logger.warning("a waiting sandbox is of no use: %s", error)
                self._broken = True
        finally:
            self._watched.set()
        if self._broken:
            forget(self)
            try:
                await self._sandbox.remove()
            except ExecutorError as error:
                logger.warning("cannot remove a broken sandbox: %s", error)

    async def claim(self) -> Sandbox | None:
        """The sandbox, watched no longer; None when it has broken."""
        self._scope.cancel()
        with anyio.CancelScope(shield=True):  # else a caller who hangs up now would leave it with nobody
            await self._watched.wait()
        return None if self._broken else self._sandbox
