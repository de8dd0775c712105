"""Place a run: find or build its image, get a slot, take a sandbox from the pool, unpack the archive in it."""

import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

import anyio
from attrs import frozen

from pyexec.aio import FailureLog, retry
from pyexec.domain.events import Preparing
from pyexec.domain.execution import Phase
from pyexec.domain.output_log import Stream
from pyexec.domain.python_version import check_python, tag_version
from pyexec.domain.spec import Spec
from pyexec.errors import (
    Conflict,
    EngineError,
    ExecutorError,
    ImageUnavailable,
    InvalidRequest,
    PythonMismatch,
    SandboxBroken,
    SandboxRefused,
    SandboxStalled,
    Unavailable,
)
from pyexec.metrics import NOOP_METER, STEP_SECONDS, Meter, timed
from pyexec.ports import BlobStore, EventLog, Image
from pyexec.sandbox.environments.environments import Environments
from pyexec.sandbox.pool.kind_queue import SandboxKind
from pyexec.sandbox.pool.pool import Pool
from pyexec.sandbox.sandbox import Sandbox
from pyexec.services.active_runs import Run
from pyexec.services.clock import nonce, now
from pyexec.services.reservation import Reservation
from pyexec.services.setup_lane import setup_key
from pyexec.services.slots import Slot
from pyexec.services.upload_rate import reject_slow
from pyexec.services.uploads import CheckedArchive, Spool, archive_error

logger = logging.getLogger(__name__)

RETRY_DELAYS_SECONDS = (1.0, 2.0, 3.0, 4.0)
"""Pauses before a broken sandbox is replaced. Together they take longer than a restart of the engine."""

LOOKUP_SECONDS = 2.0
"""Time limit of the lookup for an asynchronous request. After it, the request is accepted without the lookup."""

_SLOW_ADVICE = "; POST /api/v1/exec/async has no such limit"

OpenArchive = Callable[[], AsyncIterator[bytes]]
"""Returns the bytes of an archive from the first one. It is called again for each attempt."""


@frozen
class Placement:
    """A slot, and a sandbox with the archive unpacked in it: everything that a run needs to start."""

    slot: Slot
    sandbox: Sandbox


PlaceRun = Callable[[], Coroutine[Any, Any, Placement]]
"""Returns the placement of an accepted run, which can take minutes. If it raises, it has released everything."""


@frozen(kw_only=True)
class Preparation:
    """Prepares sandboxes for the runs of `replica`.

    Methods raise `ImageUnavailable`, `EngineError` or `Unavailable`; those that unpack an archive also raise
    `SandboxBroken` and `SandboxRefused`. Methods that get a `Reservation` own it: they return its slot in the
    placement, or release it."""

    replica: str
    log: EventLog
    blobs: BlobStore
    pool: Pool
    environments: Environments
    meter: Meter = NOOP_METER

    async def kind(self, spec: Spec) -> SandboxKind | None:
        """Return the kind of sandbox for `spec`. Return None if its image must be pulled, or its environment built,
        first."""
        if idle := self.idle_kind(spec):
            return idle
        image = await self.environments.find(spec)
        return None if image is None else kind_of(spec, image)

    def idle_kind(self, spec: Spec) -> SandboxKind | None:
        """Return the kind of sandbox for a spec that needs no environment, if an idle one is in the pool."""
        kind = kind_of(spec)
        return kind if spec.recipe is None and self.pool.has(kind, spec.tenant) else None

    async def needs_setup(self, spec: Spec) -> bool:
        """Return True if an image must be pulled or an environment built first.

        Return False if the engine does not answer in time: the start of the run repeats the lookup, with retries."""
        try:
            with anyio.fail_after(LOOKUP_SECONDS):
                return await self.kind(spec) is None
        except (ImageUnavailable, EngineError, Unavailable, TimeoutError):
            return False

    async def python_of(self, image: str) -> str | None:
        """Return the version of Python in an image, as 3.12.4 or 3.12; None if it is unknown until a sandbox has
        started in the image."""
        if version := self.pool.python_versions.get(image):
            return version
        try:
            with anyio.fail_after(LOOKUP_SECONDS):
                found = await self.environments.images.find(image)
        except (ImageUnavailable, EngineError, Unavailable, TimeoutError):
            found = None  # the start of the run repeats the lookup, with retries
        return (found and found.python) or tag_version(image)

    async def sandbox_for_upload(self, kind: SandboxKind, archive: CheckedArchive, spec: Spec) -> Sandbox:
        """Take a sandbox from the pool and unpack an upload in it, while the upload arrives.

        Raises `InvalidRequest` if the archive arrives too slowly or cannot be unpacked, and `Unavailable` instead of
        `SandboxBroken`."""
        try:
            return await self._fill_sandbox(kind, spec, reject_slow(archive.chunks(), _SLOW_ADVICE))
        except PythonMismatch as error:
            raise InvalidRequest(str(error), field=archive.code_field) from error
        except SandboxRefused as error:
            raise archive_error(error, spec.limits) from error
        except SandboxBroken as error:
            raise Unavailable(f"the sandbox broke while the archive was unpacked: {error}") from error

    async def place_from_payload(self, run: Run, reservation: Reservation) -> Placement:
        """Place a claimed run whose archive is in the blob store.

        Builds the environment if it is missing. Retries a few times if a sandbox breaks. Also raises `SetupFailed`,
        `QueueTimeout`, and `Conflict` if the execution has changed meanwhile."""
        with reservation.released_on_error():
            payload = run.execution.payload
            if payload is None:
                raise Conflict("the execution has no archive")
            return await self._with_retries(run, partial(self.blobs.read, payload), reservation)

    async def place_from_spool(self, run: Run, spool: Spool, reservation: Reservation) -> Placement:
        """Wait until the run is claimed, then place it with the archive in `spool`. Close `spool` at the end.

        Retries and raises as `place_from_payload` does."""
        try:
            with reservation.released_on_error():
                await self._until_claimed(run)
                return await self._with_retries(run, spool.read, reservation)
        finally:
            with anyio.CancelScope(shield=True):
                await spool.close()

    async def place_when_claimed(self, run: Run, sandbox: Sandbox, reservation: Reservation) -> Placement:
        """Wait until the run is claimed, then place it in `sandbox`, which has the archive already.

        If the wait fails or is cancelled, remove the sandbox."""
        with reservation.released_on_error():
            try:
                await self._until_claimed(run)
            except BaseException:
                await self.remove(sandbox)
                raise
            return Placement(reservation.reserved_slot, sandbox)

    async def remove(self, sandbox: Sandbox) -> None:
        """Remove a sandbox that will not run anything, even if the task is being cancelled.

        A failure is logged and not raised: it would replace the exception, perhaps a cancellation, that led here."""
        with anyio.CancelScope(shield=True):
            try:
                await self.pool.give_back(sandbox, reusable=False)
            except ExecutorError as error:
                logger.error("cannot remove the sandbox %s: %s", sandbox.container_id[:12], error)

    async def _with_retries(self, run: Run, open_archive: OpenArchive, reservation: Reservation) -> Placement:
        for seconds in RETRY_DELAYS_SECONDS:
            try:
                return await self._place(run, open_archive, reservation)
            except SandboxStalled:
                raise  # the image's own supervisor is the cause; each attempt would hold the slot as long again
            except (SandboxBroken, EngineError, Unavailable) as error:
                logger.warning("cannot prepare %s; retrying in %g s: %s", run.id, seconds, error)
                await anyio.sleep(seconds)
        return await self._place(run, open_archive, reservation)

    async def _place(self, run: Run, open_archive: OpenArchive, reservation: Reservation) -> Placement:
        """Set up the environment if it is missing, then get a slot, then a sandbox."""
        kind = await self._prepared_kind(run, reservation)
        while await reservation.wait_for_slot(run.execution.spec.limits, during_drain=True):
            if await self.environments.has(kind.image):
                break
            kind = await self._prepared_kind(run, reservation)  # the image was evicted during the wait
        sandbox = await self._fill_sandbox(kind, run.execution.spec, open_archive())
        return Placement(reservation.reserved_slot, sandbox)

    async def _fill_sandbox(self, kind: SandboxKind, spec: Spec, archive: AsyncIterator[bytes]) -> Sandbox:
        """Take a sandbox from the pool and unpack the archive in it. If that fails, remove the sandbox."""
        sandbox = await self.pool.take(kind, spec.tenant)
        try:
            check_python(spec, sandbox.python)
            with timed(self.meter, STEP_SECONDS, "upload"):
                async for chunk in archive:
                    await sandbox.send_archive(chunk)
                await sandbox.unpack()
        except BaseException:
            await self.remove(sandbox)
            raise
        return sandbox

    async def _prepared_kind(self, run: Run, reservation: Reservation) -> SandboxKind:
        """Return the kind of the run's sandbox, after its setup if it needs one, in the setup lane.

        The output of the setup goes to the run's output log."""
        spec = run.execution.spec
        kind = await self.kind(spec)
        if kind is not None:
            return kind
        place = reservation.join_setup(setup_key(spec))
        if run.execution.phase is Phase.CLAIMED:
            await self._append_preparing(run)
        if not place.begun.is_set():
            run.write_output(Stream.SETUP, b"waiting for other setups to end\n")
        await reservation.wait_for_setup()
        image = await self.environments.prepare(spec, partial(run.write_output, Stream.SETUP))
        return kind_of(spec, image)

    async def _append_preparing(self, run: Run) -> None:
        preparing = Preparing(at=now(), nonce=nonce())
        run.check_may_append(self.replica, preparing)
        events = [*run.events, preparing]
        await self.log.append(run.id, run.seq, [preparing])
        run.catch_up(events)

    async def _until_claimed(self, run: Run) -> None:
        """Wait until a pinned run is claimed. Raises `Conflict` if it ends instead."""
        failures = FailureLog(logger, f"waiting for a claim of {run.id}")
        while run.execution.phase is Phase.QUEUED:
            await retry(partial(self._catch_up, run), failures)
        if run.execution.phase is Phase.ENDED:
            raise Conflict(f"{run.id} has ended")

    async def _catch_up(self, run: Run) -> None:
        await self.log.wait(run.id, run.seq)
        if not (events := await self.log.read(run.id)):
            raise Conflict(f"{run.id} has ended and was retired")
        run.catch_up(events)


def kind_of(spec: Spec, image: Image | None = None) -> SandboxKind:
    """Return the kind of sandbox for a spec. `image` is its environment if the spec has a recipe."""
    limits = spec.limits
    has_environment = image is not None and spec.recipe is not None
    return SandboxKind(
        image=image.id if image is not None and has_environment else spec.docker_image,
        memory_mb=limits.memory_mb,
        disk_mb=limits.disk_mb,
        cpu_shares=limits.cpu_shares,
        cpus=limits.cpus,
        network=not limits.network_disabled,
    )
