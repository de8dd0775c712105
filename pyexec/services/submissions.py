"""Accept work: synchronous runs stream straight into a sandbox, asynchronous ones into the blob store.

Nothing is written before the whole upload is known to be acceptable, so a rejected request leaves nothing behind."""

import logging
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import anyio
from attrs import frozen

from pyexec.correlation import correlate_execution
from pyexec.domain.events import Event, Submitted
from pyexec.domain.spec import Policy, Spec
from pyexec.errors import (
    EngineError,
    ImageUnavailable,
    InvalidRequest,
    KeyTaken,
    NotWritten,
    QueueTimeout,
    SandboxBroken,
    Unavailable,
    raising_first_error,
)
from pyexec.metrics import NOOP_METER, Meter
from pyexec.ports import BlobStore, EventLog, IdempotencyKey
from pyexec.sandbox.pool.kind_queue import SandboxKind
from pyexec.services.active_runs import ActiveRuns, Run
from pyexec.services.admission import Admission
from pyexec.services.clock import new_execution_id
from pyexec.services.idempotency import check_key
from pyexec.services.inline_requirements import InlineRequirements
from pyexec.services.output_store import payload_blob
from pyexec.services.preparation import Placement, Preparation
from pyexec.services.reservation import Reservation
from pyexec.services.runner import Runner
from pyexec.services.setup_lane import SetupKey, SetupLane, setup_key
from pyexec.services.slots import Slots
from pyexec.services.uploads import CheckedArchive, Spool, Submission, Upload, resolve_upload

logger = logging.getLogger(__name__)

START_AT_ONCE_BYTES_MAX = 128 * 1024
"""The largest asynchronous archive that is read ahead to start at once. A larger one goes through the blob store:
it is not held in memory, and no slot waits for a slow upload."""


@frozen(kw_only=True)
class SubmissionConfig:
    """The operator's limits. With `local_claim`, this replica claims what it accepts; otherwise the leader does."""

    policy: Policy
    members_max: int
    queue_timeout_seconds: float
    spool_dir: Path
    local_claim: bool


class Submissions:
    """Accepts uploads.

    Raises `InvalidRequest` for a malformed upload, `QueueFull` if no slot is free and the queue is full,
    `Unavailable` if the event log or the engine does not answer, `KeyReused` for a key with another request."""

    def __init__(
        self,
        config: SubmissionConfig,
        *,
        log: EventLog,
        blobs: BlobStore,
        slots: Slots,
        lane: SetupLane,
        active_runs: ActiveRuns,
        preparation: Preparation,
        runner: Runner,
        meter: Meter = NOOP_METER,
    ) -> None:
        self._config = config
        self._log = log
        self._blobs = blobs
        self._slots = slots
        self._lane = lane
        self._admission = Admission(slots, lane, log, active_runs)
        self._preparation = preparation
        self._inline_requirements = InlineRequirements(config.policy, preparation)
        self._runner = runner
        self._meter = meter

    @property
    def closed(self) -> bool:
        """True once the runner starts nothing more. From then on the server itself closes connections of callers."""
        return self._runner.closed

    async def run(self, upload: Upload) -> Run | str:
        """Start an execution whose caller waits. Return its run, or the id of the execution with its key."""
        submission = await self._submission(upload)
        try:
            await check_key(self._log, upload.key, upload.tenant)
            submission = await self._inline_requirements.apply(submission, upload)
            correlate_execution(submission.run.id)
            await self._start(submission)
        except KeyTaken as taken:
            return await submission.existing_execution(taken)
        finally:
            await submission.archive.close()
        return submission.run

    async def submit(self, upload: Upload) -> str:
        """Accept an execution for later. On return its archive and its first event are durable."""
        submission = await self._submission(upload)
        try:
            await check_key(self._log, upload.key, upload.tenant)
            submission = await self._inline_requirements.apply(submission, upload)
            setup = await self._missing_setup(submission.spec)
            async with self._admission.accepting(submission.run.id, submission.spec, setup):
                correlate_execution(submission.run.id)
                await self._accept(submission, setup)
        except KeyTaken as taken:
            return await submission.existing_execution(taken)
        finally:
            await submission.archive.close()
        return submission.run.id

    async def _start(self, submission: Submission) -> None:
        """Reserve a slot, get a sandbox, unpack the archive in it, append the events, start.

        If the image must be pulled or built first, accept the execution before that. If no slot becomes free in time,
        or the image is unavailable, the execution is accepted and ends as failed."""
        spec = submission.spec
        reservation = self._reservation(spec)
        async with AsyncExitStack() as undo:
            undo.callback(reservation.release)
            try:
                kind = self._preparation.idle_kind(spec)
                if kind is None:
                    await self._admission.check(spec)  # if it is rejected, the engine need not be asked
                    kind = await self._preparation.kind(spec)
                if kind is not None:
                    await self._admission.check(spec)
                    if await reservation.wait_for_slot(spec.limits):
                        kind = await self._preparation.kind(spec)
                if kind is None:
                    await self._accept_before_setup(submission, reservation, undo)
                else:
                    await self._start_in(kind, submission, reservation, undo)
            except (QueueTimeout, ImageUnavailable) as error:
                await self._append_failure(submission, error)
                return
            except EngineError as error:
                raise Unavailable(f"no sandbox can be started: {error}") from error
            undo.pop_all()

    async def _start_in(
        self, kind: SandboxKind, submission: Submission, reservation: Reservation, undo: AsyncExitStack
    ) -> None:
        run, archive, claimed = submission.run, submission.archive, self._runner.claim()
        sandbox = await self._preparation.sandbox_for_upload(kind, submission.archive, submission.spec)
        undo.push_async_callback(self._preparation.remove, sandbox)
        try:
            if self._config.local_claim:
                placement = Placement(reservation.reserved_slot, sandbox)
                await self._runner.start(run, placement, [submission.event(), claimed], await archive.key())
            else:
                place_run = partial(self._preparation.place_when_claimed, run, sandbox, reservation)
                pinned = submission.event(pinned=self._runner.replica)
                await self._runner.accept(run, [pinned], await archive.key(), place_run)
        except SandboxBroken as error:
            raise Unavailable(f"the sandbox broke before the program could start: {error}") from error

    async def _accept_before_setup(
        self, submission: Submission, reservation: Reservation, undo: AsyncExitStack
    ) -> None:
        """Accept an execution whose image must be pulled or built first, which may take minutes. It holds no slot."""
        run, archive, setup = submission.run, submission.archive, setup_key(submission.spec)
        reservation.release()
        async with self._admission.accepting(run.id, submission.spec, setup):
            spool = await Spool.fill(self._config.spool_dir, archive.chunks())
            undo.push_async_callback(spool.close)
            reservation.join_setup(setup)
            self._admission.stop_counting(run.id)
            events: list[Event] = [submission.event(pinned=self._runner.replica)]
            if self._config.local_claim:
                events.append(self._runner.claim())
            place_run = partial(self._preparation.place_from_spool, run, spool, reservation)
            await self._runner.accept(run, events, await archive.key(), place_run)

    async def _append_failure(self, submission: Submission, error: QueueTimeout | ImageUnavailable) -> None:
        """Append an execution that has failed before its start. A malformed archive is still rejected."""
        await submission.archive.read_to_end()
        events = [submission.event(), submission.failure(error)]
        await self._log.append(submission.run.id, 0, events, key=await submission.archive.key())
        submission.run.record(events)

    async def _accept(self, submission: Submission, setup: SetupKey | None) -> None:
        """Store the archive, then append the first events; start at once if a slot and an idle sandbox are there."""
        run, archive = submission.run, submission.archive
        async with AsyncExitStack() as undo, AsyncExitStack() as held:
            undo.push_async_callback(self._delete_payload, run.id)
            try:
                placement = await self._store(submission, held)
            except Unavailable:
                undo.pop_all()  # a deletion could time out, too; a sweep removes what the store has kept
                raise
            submitted = submission.event(payload=payload_blob(run.id))
            key = await archive.key()
            try:
                if placement is None or not await self._start_stored(run, submitted, key, placement, held):
                    await self._queue(run, submitted, key, setup)
            except NotWritten:
                raise
            except Unavailable:
                undo.pop_all()  # the append may have succeeded, and then the archive is needed
                raise
            undo.pop_all()

    async def _store(self, submission: Submission, held: AsyncExitStack) -> Placement | None:
        """Put the archive into the blob store; meanwhile also put a small one into a sandbox, if one is idle.

        `held` releases the slot and the sandbox of the returned placement."""
        run, archive = submission.run, submission.archive
        is_small = self._config.local_claim and await archive.read_ahead(START_AT_ONCE_BYTES_MAX)
        placement: Placement | None = None
        with raising_first_error():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(
                    self._blobs.put, payload_blob(run.id), archive.chunks(), name=f"store {run.id}"
                )
                if is_small:
                    placement = await self._place_at_once(submission, held)
        return placement

    async def _place_at_once(self, submission: Submission, held: AsyncExitStack) -> Placement | None:
        """Fill an idle sandbox if a slot is free. Return None if no slot or sandbox is free, or if this fails.

        A failure is only logged: if its cause persists, the start from the queue fails too, and reports it."""
        spec = submission.spec
        kind = self._preparation.idle_kind(spec)
        if kind is None or (slot := self._slots.try_reserve(spec.limits, spec.tenant)) is None:
            return None
        held.callback(self._slots.release, slot)
        self._admission.stop_counting(submission.run.id)
        try:
            sandbox = await self._preparation.sandbox_for_upload(kind, submission.archive, submission.spec)
        except (ImageUnavailable, EngineError, Unavailable, InvalidRequest) as error:
            logger.info("%s cannot start at once: %s", submission.run.id, error)
            await held.aclose()
            return None
        held.push_async_callback(self._preparation.remove, sandbox)
        return Placement(slot, sandbox)

    async def _start_stored(
        self,
        run: Run,
        submitted: Submitted,
        key: IdempotencyKey | None,
        placement: Placement,
        held: AsyncExitStack,
    ) -> bool:
        """Append all events up to `running` in one step, and start. Return False if the sandbox broke before that
        and nothing was written."""
        try:
            await self._runner.start(run, placement, [submitted, self._runner.claim()], key)
        except SandboxBroken as error:
            logger.info("the sandbox of %s broke; retrying from the queue: %s", run.id, error)
            await held.aclose()
            return False
        held.pop_all()
        return True

    async def _queue(
        self, run: Run, submitted: Submitted, key: IdempotencyKey | None, setup: SetupKey | None
    ) -> None:
        """Append the first event, and the claim in the same step if a slot, or a place for its setup, is free here."""
        reservation = self._reservation(submitted.spec)
        if not self._config.local_claim or not reservation.try_begin(submitted.spec.limits, setup):
            await self._runner.accept(run, [submitted], key)
            return
        self._admission.stop_counting(run.id)
        place_run = partial(self._preparation.place_from_payload, run, reservation)
        with reservation.released_on_error():
            await self._runner.accept(run, [submitted, self._runner.claim()], key, place_run)

    def _reservation(self, spec: Spec) -> Reservation:
        seconds = self._config.queue_timeout_seconds
        return Reservation(slots=self._slots, lane=self._lane, seconds_left=seconds, tenant=spec.tenant)

    async def _missing_setup(self, spec: Spec) -> SetupKey | None:
        """Return the setup that an asynchronous execution needs here, if it needs one."""
        if self._preparation.idle_kind(spec) is not None:
            return None
        await self._admission.check(spec)  # if it is rejected, the engine need not be asked
        return setup_key(spec) if await self._preparation.needs_setup(spec) else None

    async def _submission(self, upload: Upload) -> Submission:
        spec = await resolve_upload(upload, self._config.policy)
        self._slots.check_fits(spec.limits)
        archive = CheckedArchive(upload, spec, self._config.members_max, self._meter)
        return Submission(Run(new_execution_id()), spec, archive)

    async def _delete_payload(self, execution_id: str) -> None:
        with anyio.CancelScope(shield=True):
            await self._blobs.delete(payload_blob(execution_id))
