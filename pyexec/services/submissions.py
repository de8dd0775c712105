"""Taking work in: synchronous runs stream straight into a sandbox, asynchronous ones into the blob store."""

import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from pathlib import Path

import anyio
from attrs import evolve, frozen

from pyexec.correlation import correlate_execution
from pyexec.domain.events import Event, Failed, FailureType, Submitted
from pyexec.domain.spec import Policy, Spec, resolve
from pyexec.errors import (
    ConsulSessionLost,
    ExecutorError,
    KeyReused,
    KeyTaken,
    SandboxBroken,
    Unavailable,
    first_error,
)
from pyexec.metrics import NOOP_METER, STEP_SECONDS, Meter, timed
from pyexec.ports import BlobStore, EventLog, IdempotencyKey
from pyexec.services.active_runs import ActiveRuns, Run
from pyexec.services.admission import Admission, CannotStart, Filled
from pyexec.services.clock import new_execution_id, nonce, now
from pyexec.services.output_store import payload_blob
from pyexec.services.runner import Runner
from pyexec.services.slots import Slot, Slots
from pyexec.services.spool import Spool
from pyexec.services.uploads import CheckedArchive, Upload, digest, fill

logger = logging.getLogger(__name__)

AT_ONCE_BYTES_MAX = 128 * 1024
"""An asynchronous archive that is larger takes its way through the store alone: it is not held in memory, and no slot
or sandbox waits for a slow upload."""


@frozen(kw_only=True)
class SubmitConfig:
    """The operator's bounds."""

    policy: Policy
    members_max: int
    spool_dir: Path
    local_claim: bool
    """Whether this replica claims what it takes itself; else every claim is the reconciler's."""


class Submissions:
    """Accepts uploads. Raises `InvalidRequest` and leaves nothing for what is not acceptable, `QueueFull` when
    there is no room, `Unavailable` when log or engine are away, `KeyReused` for a key with another request."""

    def __init__(
        self,
        config: SubmitConfig,
        *,
        log: EventLog,
        blobs: BlobStore,
        slots: Slots,
        active_runs: ActiveRuns,
        admission: Admission,
        runner: Runner,
        meter: Meter = NOOP_METER,
    ) -> None:
        self._config = config
        self._log = log
        self._blobs = blobs
        self._slots = slots
        self._active_runs = active_runs
        self._admission = admission
        self._runner = runner
        self._meter = meter

    @property
    def stopped(self) -> bool:
        """Whether this replica has let go of what it ran: whoever is cut off now has not hung up."""
        return self._runner.closed

    async def run(self, upload: Upload) -> Run | str:
        """Starts an execution whose caller waits: its run, or the id of the one that the key already names."""
        spec = self._spec(upload)
        archive = CheckedArchive(upload, spec, self._config.members_max, self._meter)
        if upload.key is not None and (taken := await self._log.key_owner(digest(upload.key))):
            return await self._same_request(archive, *taken)
        return await self._start(spec, archive)

    async def submit(self, upload: Upload) -> str:
        """Accepts an execution for later; on return its archive and its first event are durable."""
        spec = self._spec(upload)
        archive = CheckedArchive(upload, spec, self._config.members_max, self._meter)
        if upload.key is not None and (taken := await self._log.key_owner(digest(upload.key))):
            return await self._same_request(archive, *taken)
        await self._check_room(spec)
        run, created_at = _new_run(), now()
        async with AsyncExitStack() as undo, AsyncExitStack() as place:
            undo.push_async_callback(partial(self._forget_payload, run.id))
            filled = await self._store(run, spec, archive, place)
            submitted = Submitted(
                at=created_at,
                nonce=nonce(),
                spec=evolve(spec, entrypoint=archive.entrypoint()),
                payload=payload_blob(run.id),
            )
            try:
                if filled is None or not await self._begin(run, submitted, archive.key(), filled, place):
                    await self._accept(run, submitted, archive.key())
            except KeyTaken as taken_now:
                return self._same_or_refused(archive, taken_now.execution_id, taken_now.fingerprint)
            except ConsulSessionLost:
                raise
            except Unavailable:
                undo.pop_all()  # it may have been accepted all the same, and then its archive is needed
                raise
            undo.pop_all()
        return run.id

    async def _store(
        self, run: Run, spec: Spec, archive: CheckedArchive, place: AsyncExitStack
    ) -> Filled | None:
        """Puts the archive into the blob store, and a small one meanwhile also where it can run at once, if there is
        such a place; `place` gives that back."""
        at_once = self._config.local_claim and await archive.read_ahead(AT_ONCE_BYTES_MAX)
        filled = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(
                    self._blobs.put, payload_blob(run.id), archive.chunks(), name=f"store {run.id}"
                )
                if at_once:
                    filled = await self._admission.at_once(spec, archive, place)
        except* ExecutorError as errors:
            raise first_error(errors) from errors
        return filled

    async def _begin(
        self,
        run: Run,
        submitted: Submitted,
        key: IdempotencyKey | None,
        filled: Filled,
        place: AsyncExitStack,
    ) -> bool:
        """Writes all up to `running` in one step; False when the sandbox broke before, and nothing was written."""
        try:
            await self._runner.start(run, filled.sandbox, filled.slot, [submitted, self._runner.claim()], key)
        except SandboxBroken as error:
            logger.info("%s is prepared anew: %s", run.id, error)
            await place.aclose()
            return False
        place.pop_all()
        return True

    async def _accept(self, run: Run, submitted: Submitted, key: IdempotencyKey | None) -> None:
        """Writes the first event; with the claim in the same step when a slot is free here."""
        slot = self._slots.try_reserve(submitted.spec.limits) if self._config.local_claim else None
        try:
            await self._runner.open(run, submitted, key, slot)
        except BaseException:
            if slot is not None:
                self._slots.release(slot)
            raise

    async def _start(self, spec: Spec, archive: CheckedArchive) -> Run | str:
        """A slot, a sandbox, the archive in it, and only then the first write: what is refused leaves nothing."""
        run, created_at = _new_run(), now()
        await self._check_room(spec)
        async with AsyncExitStack() as undo:
            try:
                slot = await self._admission.slot(spec, undo)
                kind = await self._admission.kind(spec)
                if kind is None:
                    return await self._start_prepared(run, created_at, spec, archive, slot, undo)
                claimed = self._runner.claim()
                sandbox = await self._admission.sandbox(kind, undo)
            except CannotStart as end:
                submitted = Submitted(at=created_at, nonce=nonce(), spec=spec)
                return await self._failed_at_once(run, submitted, end.kind, str(end), archive)
            with timed(self._meter, STEP_SECONDS, "upload"):
                await fill(sandbox, archive, spec)
            spec = evolve(spec, entrypoint=archive.entrypoint())
            submitted = Submitted(at=created_at, nonce=nonce(), spec=spec)
            try:
                if self._config.local_claim:
                    await self._runner.start(run, sandbox, slot, [submitted, claimed], archive.key())
                else:
                    await self._runner.open_pinned(run, submitted, archive.key(), sandbox, slot)
            except KeyTaken as taken:
                return self._same_or_refused(archive, taken.execution_id, taken.fingerprint)
            except SandboxBroken as error:
                raise Unavailable(f"the sandbox broke before the program could start: {error}") from error
            undo.pop_all()
        return run

    async def _start_prepared(
        self,
        run: Run,
        created_at: datetime,
        spec: Spec,
        archive: CheckedArchive,
        slot: Slot,
        undo: AsyncExitStack,
    ) -> Run | str:
        """What the program needs must be made first, which may take minutes: the archive waits on disk, and the
        execution is accepted, so that it can be followed and killed meanwhile."""
        spool = await Spool.fill(self._config.spool_dir, archive.chunks())
        undo.push_async_callback(spool.close)
        spec = evolve(spec, entrypoint=archive.entrypoint())
        submitted = Submitted(at=created_at, nonce=nonce(), spec=spec)
        try:
            await self._runner.open_spooled(
                run, submitted, archive.key(), spool, slot, claim=self._config.local_claim
            )
        except KeyTaken as taken:
            return self._same_or_refused(archive, taken.execution_id, taken.fingerprint)
        undo.pop_all()
        return run

    async def _failed_at_once(
        self, run: Run, submitted: Submitted, kind: FailureType, error: str, archive: CheckedArchive
    ) -> Run | str:
        """An execution that ends before it could start, as its whole log. A bad archive is refused all the same,
        and a key names this end from now on."""
        async for _ in archive.chunks():
            pass
        submitted = evolve(submitted, spec=evolve(submitted.spec, entrypoint=archive.entrypoint()))
        events: Sequence[Event] = [submitted, Failed(at=now(), nonce=nonce(), error_type=kind, error=error)]
        try:
            await self._log.append(run.id, 0, events, key=archive.key())
        except KeyTaken as taken:
            return self._same_or_refused(archive, taken.execution_id, taken.fingerprint)
        run.record(events)
        return run

    def _spec(self, upload: Upload) -> Spec:
        spec = evolve(resolve(upload.metadata, self._config.policy), eval_last_expr=upload.eval_last_expr)
        self._slots.check_fits(spec.limits)
        return spec

    async def _check_room(self, spec: Spec) -> None:
        """Raises `QueueFull` when a new execution could neither start nor wait, `Unavailable` when stopping."""
        elsewhere = 0
        if self._slots.must_wait(spec.limits):
            opened = await self._log.open_executions()
            elsewhere = sum(execution_id not in self._active_runs for execution_id in opened.lengths)
        self._slots.check_room(spec.limits, also_waiting=elsewhere)

    async def _same_request(self, archive: CheckedArchive, execution_id: str, fingerprint: str) -> str:
        """Reads the request to its end to compare it with the one that the key stands for."""
        async for _ in archive.chunks():
            pass
        archive.entrypoint()
        return self._same_or_refused(archive, execution_id, fingerprint)

    def _same_or_refused(self, archive: CheckedArchive, execution_id: str, fingerprint: str) -> str:
        key = archive.key()
        if key is None or key.fingerprint != fingerprint:
            raise KeyReused(
                f"this Idempotency-Key was used before, with another request, for {execution_id}; use a new key"
            )
        correlate_execution(execution_id)
        return execution_id

    async def _forget_payload(self, execution_id: str) -> None:
        with anyio.CancelScope(shield=True):
            await self._blobs.delete(payload_blob(execution_id))


def _new_run() -> Run:
    run = Run(new_execution_id())
    correlate_execution(run.id)
    return run
