"""What a newcomer needs to run: a slot, a sandbox, and its archive in it."""

import logging
from contextlib import AsyncExitStack
from functools import partial

import anyio
from attrs import frozen

from pyexec.domain.events import FailureType
from pyexec.domain.spec import Spec
from pyexec.errors import EngineError, ImageUnavailable, InvalidRequest, Unavailable
from pyexec.metrics import NOOP_METER, STEP_SECONDS, Meter, timed
from pyexec.sandbox.pool.pool import SandboxKind
from pyexec.sandbox.sandbox import Sandbox
from pyexec.services.preparation import Preparation
from pyexec.services.slots import Slot, Slots
from pyexec.services.uploads import CheckedArchive, fill

logger = logging.getLogger(__name__)


class CannotStart(Exception):
    """The execution ends, truthfully, before its code could start."""

    def __init__(self, kind: FailureType, error: str) -> None:
        super().__init__(error)
        self.kind = kind


@frozen
class Filled:
    """A sandbox with the archive in it, and the right to run it."""

    sandbox: Sandbox
    slot: Slot


@frozen(kw_only=True)
class Admission:
    """Gets newcomers what they need. What is handed out goes back when the `undo` that it was asked for with ends."""

    slots: Slots
    preparation: Preparation
    queue_timeout_seconds: float
    meter: Meter = NOOP_METER

    async def slot(self, spec: Spec, undo: AsyncExitStack) -> Slot:
        """A slot, after waiting for it as long as the operator allows; else raises `CannotStart`."""
        with anyio.move_on_after(self.queue_timeout_seconds):
            slot = await self.slots.reserve(spec.limits)
            undo.callback(self.slots.release, slot)
            return slot
        waited = f"no slot became free within {self.queue_timeout_seconds:g} s"
        raise CannotStart(FailureType.QUEUE_TIMEOUT, waited)

    async def kind(self, spec: Spec) -> SandboxKind | None:
        """As `Preparation.kind`; raises `CannotStart` or `Unavailable`."""
        try:
            return await self.preparation.kind(spec)
        except ImageUnavailable as error:
            raise CannotStart(FailureType.IMAGE_UNAVAILABLE, str(error)) from error
        except EngineError as error:
            raise Unavailable(f"no sandbox can be started: {error}") from error

    async def sandbox(self, kind: SandboxKind, undo: AsyncExitStack) -> Sandbox:
        """An empty one; raises `CannotStart` or `Unavailable`."""
        try:
            sandbox = await self.preparation.pool.take(kind)
        except ImageUnavailable as error:
            raise CannotStart(FailureType.IMAGE_UNAVAILABLE, str(error)) from error
        except EngineError as error:
            raise Unavailable(f"no sandbox can be started: {error}") from error
        undo.push_async_callback(partial(_discard, sandbox))
        return sandbox

    async def at_once(self, spec: Spec, archive: CheckedArchive, undo: AsyncExitStack) -> Filled | None:
        """What it needs when a slot is free and a sandbox waits; None when not, or when anything goes wrong there: it
        is then tried again in the usual way, which tells what is wrong. The archive was read ahead."""
        kind = self.preparation.waiting_kind(spec)
        slot = None if kind is None else self.slots.try_reserve(spec.limits)
        if kind is None or slot is None:
            return None
        undo.callback(self.slots.release, slot)
        try:
            sandbox = await self.sandbox(kind, undo)
            with timed(self.meter, STEP_SECONDS, "upload"):
                await fill(sandbox, archive, spec)
        except (CannotStart, Unavailable, InvalidRequest) as error:
            logger.info("a sandbox of %s could not be filled at once: %s", spec.docker_image, error)
            await undo.aclose()
            return None
        return Filled(sandbox, slot)


async def _discard(sandbox: Sandbox) -> None:
    with anyio.CancelScope(shield=True):
        await sandbox.remove()
