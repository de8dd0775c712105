"""Taking work in: synchronous runs stream straight into a sandbox, asynchronous ones into the blob store."""

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from functools import partial

import anyio
from attrs import evolve, frozen

from pyexec.codec import to_json
from pyexec.domain.archive import ArchiveCheck, ArchiveLimits
from pyexec.domain.events import Claimed, Event, Failed, FailureType, Submitted
from pyexec.domain.execution import fold
from pyexec.domain.spec import MEBIBYTE, Metadata, Policy, Spec, resolve
from pyexec.errors import (
    EngineError,
    ImageUnavailable,
    InvalidRequest,
    KeyReused,
    KeyTaken,
    SandboxBroken,
    SandboxRefused,
    TooLarge,
    Unavailable,
)
from pyexec.ports import BlobStore, EventLog, IdempotencyKey
from pyexec.sandbox.sandbox import Sandbox
from pyexec.services.clock import new_execution_id, nonce, now
from pyexec.services.live import Live, Run
from pyexec.services.outputs import payload_blob
from pyexec.services.runner import Runner
from pyexec.services.slots import Slot, Slots


@frozen(kw_only=True)
class Upload:
    """One request to run something: what to run, the archive as it streams in, and how the caller means it.

    `identity` is what else must be equal for two requests under one idempotency key to be the same."""

    metadata: Metadata
    archive: AsyncIterator[bytes]
    key: str | None = None
    identity: str = ""
    eval_last_expr: bool = False


@frozen(kw_only=True)
class SubmitConfig:
    """The operator's bounds."""

    policy: Policy
    queue_timeout_seconds: float
    members_max: int


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
        live: Live,
        runner: Runner,
    ) -> None:
        self._config = config
        self._log = log
        self._blobs = blobs
        self._slots = slots
        self._live = live
        self._runner = runner

    async def run(self, upload: Upload) -> Run | str:
        """Starts an execution whose caller waits: its run, or the id of the one that the key already names."""
        spec = self._spec(upload)
        archive = _CheckedArchive(upload, spec, self._config.members_max)
        if upload.key is not None and (taken := await self._log.key_owner(_hash(upload.key))):
            return await self._same_request(archive, *taken)
        return await self._start(spec, archive)

    async def submit(self, upload: Upload) -> str:
        """Accepts an execution for later; on return its archive and its first event are durable."""
        spec = self._spec(upload)
        archive = _CheckedArchive(upload, spec, self._config.members_max)
        if upload.key is not None and (taken := await self._log.key_owner(_hash(upload.key))):
            return await self._same_request(archive, *taken)
        await self._check_room(spec)
        execution_id, created_at = new_execution_id(), now()
        async with AsyncExitStack() as undo:
            undo.push_async_callback(partial(self._forget_payload, execution_id))
            await self._blobs.put(payload_blob(execution_id), archive.chunks())
            submitted = Submitted(
                at=created_at,
                nonce=nonce(),
                spec=evolve(spec, entrypoint=archive.entrypoint()),
                payload=payload_blob(execution_id),
            )
            try:
                await self._accept(execution_id, submitted, archive.key())
            except KeyTaken as taken_now:
                return self._same_or_refused(archive, taken_now.execution_id, taken_now.fingerprint)
            undo.pop_all()
        return execution_id

    async def _accept(self, execution_id: str, submitted: Submitted, key: IdempotencyKey | None) -> None:
        """Writes the first event; with the claim in the same step when a slot is free here."""
        slot = self._slots.try_reserve(submitted.spec.limits)
        events: list[Event] = [submitted]
        if slot is not None:
            events.append(Claimed(at=now(), nonce=nonce(), replica=self._runner.config.replica))
        with anyio.CancelScope(shield=True):
            try:
                await self._log.append(execution_id, 0, events, key=key)
            except BaseException:
                if slot is not None:
                    self._slots.release(slot)
                raise
            if slot is not None:
                self._runner.start_claimed(fold(execution_id, events), events, slot)

    async def _start(self, spec: Spec, archive: "_CheckedArchive") -> Run | str:
        run, created_at = Run(new_execution_id()), now()
        await self._check_room(spec)
        async with AsyncExitStack() as undo:
            slot = await self._slot_in_time(spec)
            if slot is None:
                submitted = Submitted(at=created_at, nonce=nonce(), spec=spec)
                waited = f"no slot became free within {self._config.queue_timeout_seconds:g} s"
                return await self._failed_at_once(run, submitted, FailureType.QUEUE_TIMEOUT, waited, archive)
            undo.callback(self._slots.release, slot)
            claimed = Claimed(at=now(), nonce=nonce(), replica=self._runner.config.replica)
            try:
                sandbox = await self._runner.sandbox_for(spec)
            except ImageUnavailable as error:
                submitted = Submitted(at=created_at, nonce=nonce(), spec=spec)
                reason = str(error)
                return await self._failed_at_once(
                    run, submitted, FailureType.IMAGE_UNAVAILABLE, reason, archive
                )
            except EngineError as error:
                raise Unavailable(f"no sandbox can be started: {error}") from error
            undo.push_async_callback(partial(_discard, sandbox))
            await _fill(sandbox, archive, spec)
            spec = evolve(spec, entrypoint=archive.entrypoint())
            submitted = Submitted(at=created_at, nonce=nonce(), spec=spec)
            try:
                await self._runner.start(run, sandbox, slot, spec, [submitted, claimed], archive.key())
            except KeyTaken as taken:
                return self._same_or_refused(archive, taken.execution_id, taken.fingerprint)
            undo.pop_all()
        return run

    async def _slot_in_time(self, spec: Spec) -> Slot | None:
        with anyio.move_on_after(self._config.queue_timeout_seconds):
            return await self._slots.reserve(spec.limits)
        return None

    async def _failed_at_once(
        self, run: Run, submitted: Submitted, kind: FailureType, error: str, archive: "_CheckedArchive"
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
            elsewhere = sum(execution_id not in self._live for execution_id in opened.lengths)
        self._slots.check_room(spec.limits, also_waiting=elsewhere)

    async def _same_request(self, archive: "_CheckedArchive", execution_id: str, fingerprint: str) -> str:
        """Reads the request to its end to compare it with the one that the key stands for."""
        async for _ in archive.chunks():
            pass
        archive.entrypoint()
        return self._same_or_refused(archive, execution_id, fingerprint)

    def _same_or_refused(self, archive: "_CheckedArchive", execution_id: str, fingerprint: str) -> str:
        key = archive.key()
        if key is None or key.fingerprint != fingerprint:
            raise KeyReused(
                f"this Idempotency-Key was used before, with another request, for {execution_id}; use a new key"
            )
        return execution_id

    async def _forget_payload(self, execution_id: str) -> None:
        with anyio.CancelScope(shield=True):
            await self._blobs.delete(payload_blob(execution_id))


class _CheckedArchive:
    """The archive of an upload, checked as it passes, and hashed when a key needs its fingerprint."""

    def __init__(self, upload: Upload, spec: Spec, members_max: int) -> None:
        limits = ArchiveLimits(bytes_max=spec.limits.disk_mb * MEBIBYTE, members_max=members_max)
        self._check = ArchiveCheck(limits, spec.entrypoint)
        self._upload = upload
        self._digest = hashlib.sha256() if upload.key is not None else None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes, each chunk after its check; raises `InvalidRequest` where the archive is at fault."""
        async for chunk in self._upload.archive:
            self._check.feed(chunk)
            if self._digest is not None:
                self._digest.update(chunk)
            yield chunk

    def entrypoint(self) -> str:
        """After the last chunk: the file to run."""
        return self._check.finish()

    def key(self) -> IdempotencyKey | None:
        """After the last chunk: the caller's key with the fingerprint of the whole request."""
        if self._upload.key is None or self._digest is None:
            return None
        metadata = json.dumps(to_json(self._upload.metadata), sort_keys=True)
        parts = [self._upload.identity, metadata, self._digest.hexdigest()]
        return IdempotencyKey(key_hash=_hash(self._upload.key), fingerprint=_hash("\n".join(parts)))


async def _fill(sandbox: Sandbox, archive: _CheckedArchive, spec: Spec) -> None:
    """The archive into the sandbox; what the caller is to blame for is an `InvalidRequest`."""
    try:
        async for chunk in archive.chunks():
            await sandbox.send_archive(chunk)
        archive.entrypoint()
        await sandbox.unpack(spec.stdin.encode())
    except SandboxRefused as error:
        if error.code == "disk_full":
            raise TooLarge(
                f"the archive's contents do not fit in disk_mb ({spec.limits.disk_mb} MiB)",
                field="config.disk_mb",
            ) from error
        raise InvalidRequest(f"the archive cannot be unpacked: {error}", field="tar") from error
    except (SandboxBroken, EngineError) as error:
        raise Unavailable(f"the sandbox broke while it was filled: {error}") from error


async def _discard(sandbox: Sandbox) -> None:
    with anyio.CancelScope(shield=True):
        await sandbox.remove()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
