"""From the claim to a filled sandbox: the image is found or made, a sandbox taken, the archive put into it."""

import logging
from collections.abc import AsyncIterator, Callable
from functools import partial

import anyio
from attrs import frozen

from pyexec.aio import FailureLog
from pyexec.domain.events import Preparing
from pyexec.domain.execution import Phase
from pyexec.domain.output_log import Stream
from pyexec.domain.spec import Spec
from pyexec.errors import Conflict, EngineError, SandboxBroken, Unavailable
from pyexec.metrics import NOOP_METER, STEP_SECONDS, Meter, timed
from pyexec.ports import BlobStore, EventLog, Image
from pyexec.sandbox.environments.environments import Environments
from pyexec.sandbox.pool.pool import Pool, SandboxKind
from pyexec.sandbox.sandbox import Sandbox
from pyexec.services.active_runs import Run
from pyexec.services.clock import nonce, now
from pyexec.services.spool import Spool

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
AGAIN_SECONDS = (1.0, 2.0, 3.0, 4.0)
"""A sandbox that breaks before its program starts is replaced; by the last time a restarted engine is back."""

Archive = Callable[[], AsyncIterator[bytes]]
"""Opens an execution's archive, where it waits for its sandbox."""


@frozen(kw_only=True)
class Preparation:
    """Makes sandboxes ready for runs."""

    replica: str
    log: EventLog
    blobs: BlobStore
    pool: Pool
    environments: Environments
    meter: Meter = NOOP_METER

    async def kind(self, spec: Spec) -> SandboxKind | None:
        """The kind of sandbox in which `spec` can start at once; None when its image must be pulled or made first.

        Raises `ImageUnavailable`, `EngineError` or `Unavailable`."""
        if waiting := self.waiting_kind(spec):
            return waiting
        image = await self.environments.find(spec)
        return None if image is None else kind_of(spec, image)

    def waiting_kind(self, spec: Spec) -> SandboxKind | None:
        """The kind of sandbox for a spec that needs no environment, if one waits."""
        as_it_is = kind_of(spec)
        return as_it_is if spec.recipe is None and self.pool.has(as_it_is) else None

    async def from_payload(self, run: Run) -> Sandbox:
        """A sandbox for a claimed run whose archive lies in the blob store. What goes wrong on the way is tried again,
        for a while.

        Raises as `kind` does, and `SetupFailed`, `SandboxBroken`, `SandboxRefused`, or `Conflict` when the
        execution has moved on."""
        payload = run.known().payload
        if payload is None:
            raise Conflict("the execution has no archive")
        return await self._sandbox_with(run, partial(self.blobs.read, payload))

    async def from_spool(self, run: Run, spool: Spool) -> Sandbox:
        """As `from_payload`, as soon as the run is claimed; its archive lies in `spool`, which is closed at the end."""
        try:
            await self._until_claimed(run)
            return await self._sandbox_with(run, spool.read)
        finally:
            with anyio.CancelScope(shield=True):
                await spool.close()

    async def once_claimed(self, run: Run, sandbox: Sandbox) -> Sandbox:
        """The sandbox, filled already, as soon as its run is claimed; it is removed when that fails."""
        try:
            await self._until_claimed(run)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await sandbox.remove()
            raise
        return sandbox

    async def _sandbox_with(self, run: Run, archive: Archive) -> Sandbox:
        for seconds in AGAIN_SECONDS:
            try:
                return await self._sandbox(run, archive)
            except (SandboxBroken, EngineError, Unavailable) as error:
                logger.warning("%s cannot start yet, trying again in %g s: %s", run.id, seconds, error)
                await anyio.sleep(seconds)
        return await self._sandbox(run, archive)

    async def _sandbox(self, run: Run, archive: Archive) -> Sandbox:
        sandbox = await self.pool.take(await self._prepared_kind(run))
        try:
            with timed(self.meter, STEP_SECONDS, "upload"):
                async for chunk in archive():
                    await sandbox.send_archive(chunk)
                await sandbox.unpack()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await sandbox.remove()
            raise
        return sandbox

    async def _prepared_kind(self, run: Run) -> SandboxKind:
        spec = run.known().spec
        kind = await self.kind(spec)
        if kind is not None:
            return kind
        if run.known().phase is Phase.CLAIMED:
            await self._say_preparing(run)
        image = await self.environments.prepare(spec, lambda data: run.print(Stream.SETUP, data))
        return kind_of(spec, image)

    async def _until_claimed(self, run: Run) -> None:
        """Returns once a pinned run is claimed; raises `Conflict` when it has ended instead."""
        waiting = FailureLog(logger, f"waiting for a claim of {run.id}")
        while run.known().phase is Phase.QUEUED:
            try:
                await self.log.wait(run.id, run.seq)
                if not (events := await self.log.read(run.id)):
                    raise Conflict(f"{run.id} has ended and is forgotten")
                run.catch_up(events)
            except Unavailable as error:
                waiting.failed(error)
                await anyio.sleep(RETRY_SECONDS)
        if run.known().phase is Phase.ENDED:
            raise Conflict(f"{run.id} has ended")

    async def _say_preparing(self, run: Run) -> None:
        preparing = Preparing(at=now(), nonce=nonce())
        run.check_open(self.replica, preparing)
        after = [*run.events, preparing]
        await self.log.append(run.id, run.seq, [preparing])
        run.catch_up(after)


def kind_of(spec: Spec, image: Image | None = None) -> SandboxKind:
    """The sandbox that a spec needs: of the image that it names, or of the one that was made for it."""
    limits = spec.limits
    made = image is not None and spec.recipe is not None
    return SandboxKind(
        image=image.id if image is not None and made else spec.docker_image,
        memory_mb=limits.memory_mb,
        disk_mb=limits.disk_mb,
        cpu_shares=limits.cpu_shares,
        cpus=limits.cpus,
        network=not limits.network_disabled,
    )
