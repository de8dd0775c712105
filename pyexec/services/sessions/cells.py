"""Cells: the executions of an interpreter session, from their first event to their last."""

import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial

import anyio
from attrs import evolve, frozen

from pyexec.aio import FailureLog, retry
from pyexec.correlation import current_correlation
from pyexec.domain.events import Claimed, Event, FailureType, Running, Submitted
from pyexec.domain.execution import Phase
from pyexec.domain.outcome import RunOutcome
from pyexec.domain.session import Session
from pyexec.domain.session_events import CloseReason
from pyexec.domain.spec import TIMEOUT_SECONDS_MIN, Policy, Spec, check_range
from pyexec.errors import Conflict, NotWritten, QueueFull, Unavailable
from pyexec.ports import BlobStore, EventLog, IdempotencyKey
from pyexec.sandbox.session_protocol import CellStart
from pyexec.sandbox.session_sandbox import SessionSandbox
from pyexec.services.active_runs import ActiveRuns, Run
from pyexec.services.clock import nonce, now
from pyexec.services.completion import CompletionWriter
from pyexec.services.idempotency import fingerprint, key_hash
from pyexec.services.output_store import payload_blob
from pyexec.services.run_monitor import OutputLimits
from pyexec.services.sessions.cell_monitor import follow_cell

logger = logging.getLogger(__name__)

CELLS_MAX = 100
"""How many cells of a session may wait."""
RETRY_AFTER_SECONDS = 5
INLINE_CODE_BYTES_MAX = 64 * 1024
"""Longer code is a blob: an append to Consul holds less than 400 KiB."""
CELL_ADOPTION_SECONDS = 10.0
"""How long the next owner of a session may take to adopt its cells."""
CELL_REASONS: Mapping[CloseReason | None, str] = {
    CloseReason.LOST: "session_lost",
    CloseReason.MEMORY: "out_of_memory",
}
"""The outcome of the running cell, by the reason for which its session was closed. Default: `session_closed`."""
CODE_SECONDS = 60.0
"""How long the blob store may take for the code of a cell."""
NO_CODE = f"the blob store did not return the code of the cell within {CODE_SECONDS:g} s; it was not run"
NEVER_STARTED = "the replica that ran the session died before the code started; it was not run"


@frozen(kw_only=True)
class Cell:
    """A request to run code in a session. `key` is the caller's idempotency key."""

    code: str
    timeout_seconds: float | None = None
    key: str | None = None

    def check(self, policy: Policy) -> None:
        """Raise `InvalidRequest` if the timeout is not allowed."""
        if self.timeout_seconds is not None:
            ceiling = policy.ceilings.timeout_seconds
            check_range("timeout_seconds", self.timeout_seconds, TIMEOUT_SECONDS_MIN, ceiling)


@frozen(kw_only=True)
class CellRunner:
    """Runs the cells of all sessions of `replica`. `engine` is the id of its engine."""

    replica: str
    engine: str
    log: EventLog
    blobs: BlobStore
    active_runs: ActiveRuns
    completion: CompletionWriter
    resolve_later: Callable[[str, str, Submitted | None], None]
    """`Runner.resolve_later`."""
    limits: OutputLimits

    async def accept(self, execution_id: str, session: Session, cell: Cell, starts: bool) -> Run:
        """Append the first events of a cell, up to `running` if it starts at once. Raises as `EventLog.append` does."""
        run = Run(execution_id)
        code = cell.code.encode()
        is_inline = len(code) <= INLINE_CODE_BYTES_MAX
        spec = cell_spec(session, cell.timeout_seconds, cell.code if is_inline else None)
        payload = None if is_inline else payload_blob(run.id)
        request = current_correlation()
        submitted = Submitted(
            at=now(),
            nonce=nonce(),
            spec=spec,
            payload=payload,
            traceparent=request.traceparent,
            tracestate=request.tracestate,
        )
        events: list[Event] = [submitted, Claimed(at=now(), nonce=nonce(), replica=self.replica)]
        if starts:
            events.append(self._running(session.container, session.image))
        key = _idempotency_key(session, cell)
        if payload is not None:
            await self.blobs.put(payload, _chunks(code))
        try:
            with self.active_runs.appending(run, events):
                await self.log.append(run.id, 0, events, key=key)
        except NotWritten:
            await self._delete(payload)
            raise
        except Unavailable:
            # The append may still take effect; then no replica would run the cell.
            self.resolve_later(run.id, "the event log did not confirm the cell", submitted)
            raise
        except BaseException:
            await self._delete(payload)
            raise
        return run

    async def run(self, run: Run, sandbox: SessionSandbox, is_turn: bool, started_before: bool) -> str | None:
        """Run a cell, and append its end. Return why the interpreter was restarted, if it was.

        If a kill was requested before its turn, only append its end. A cell that an earlier owner has started is only
        followed: it never starts again."""
        outcome = RunOutcome(reason="killed")
        if started_before and (sandbox.synced is None or sandbox.synced.cell_nonce != _start_nonce(run)):
            outcome = RunOutcome(reason="session_lost", detail=NEVER_STARTED)
        elif is_turn and await self._start(run, sandbox):
            code = "" if started_before else await self._code_of(run)
            if code is not None:
                start = self._cell_start(run, code, resume=started_before)
                outcome = await follow_cell(run, sandbox, start, self.limits)
            elif not run.kill_requested.is_set() and not run.inactive.is_set():
                await self.completion.fail(run, FailureType.INTERNAL, NO_CODE)
                return None
        await self.completion.end(run, outcome)
        if run.has_ended and run.execution.started_at is not None and not sandbox.ended.is_set():
            await sandbox.acknowledge(_start_nonce(run))
        return outcome.reason if outcome.interpreter_restarted else None

    async def end_with_session(self, run: Run, session: Session) -> None:
        """End a cell whose session is closed."""
        reason = f"the session was closed ({session.close_reason})"
        if run.execution.kill_requested:
            await self.completion.end(run, RunOutcome(reason="killed"))
        elif run.execution.started_at is None:
            await self.completion.fail(run, FailureType.SESSION_CLOSED, f"{reason} before the code started")
        else:
            text = f"{reason} while the code was running"
            kind = CELL_REASONS.get(session.close_reason, "session_closed")
            await self.completion.end(run, RunOutcome(reason=kind, detail=text))

    async def end_unfinished(self, execution_ids: Sequence[str]) -> None:
        """End the cells of a session that has moved to another replica, unless that replica adopts them in time.

        The new owner has not seen a cell that was accepted here after it read the cells."""
        await anyio.sleep(CELL_ADOPTION_SECONDS)
        for execution_id in execution_ids:
            self.resolve_later(execution_id, "the session had moved to another replica", None)

    def forget(self, run: Run) -> None:
        """Stop handling a cell that has ended, or that another replica handles."""
        self.active_runs.remove(run)

    def _running(self, container: str | None, image: str | None) -> Running:
        return Running(at=now(), nonce=nonce(), engine=self.engine, container=container or "", image=image)

    async def _start(self, run: Run, sandbox: SessionSandbox) -> bool:
        """Append `running`, unless the cell has it. Return False if the cell must no longer start."""
        failures = FailureLog(logger, f"starting {run.id}")
        while True:
            try:
                return await retry(partial(self._append_running, run, sandbox), failures)
            except Conflict as error:
                logger.info("%s: append conflict: %s", run.id, error)

    async def _append_running(self, run: Run, sandbox: SessionSandbox) -> bool:
        if run.execution.started_at is None:
            # An earlier append may have succeeded without a response.
            run.catch_up(await self.log.read(run.id))
        execution = run.execution
        if (
            execution.phase is Phase.CLAIMED
            and execution.is_for(self.replica)
            and not execution.kill_requested
        ):
            running = self._running(sandbox.container_id, sandbox.image)
            with anyio.CancelScope(shield=True), self.active_runs.appending(run, [running]):
                await self.log.append(run.id, run.seq, [running])
        return run.execution.phase is Phase.RUNNING and run.execution.is_for(self.replica)

    def _cell_start(self, run: Run, code: str, resume: bool) -> CellStart:
        limits = run.execution.spec.limits
        return CellStart(
            nonce=_start_nonce(run),
            code=code,
            timeout=limits.timeout_seconds,
            output_bytes=self.limits.output_bytes,
            display_bytes=self.limits.display_bytes,
            cpu_seconds=limits.cpu_seconds,
            resume=resume,
        )

    async def _code_of(self, run: Run) -> str | None:
        """Return the code of a cell; None if the blob store does not return it in time, or if the run ends before."""
        payload = run.execution.payload
        if payload is None:
            return run.execution.spec.code or ""
        failures = FailureLog(logger, f"reading the code of {run.id}")
        with anyio.move_on_after(CODE_SECONDS) as scope, run.followed(scope.cancel):
            return (await retry(partial(self._read, payload), failures)).decode()
        return None

    async def _read(self, blob: str) -> bytes:
        return b"".join([chunk async for chunk in self.blobs.read(blob)])

    async def _delete(self, blob: str | None) -> None:
        if blob is not None:
            with anyio.CancelScope(shield=True):
                await self.blobs.delete(blob)


def check_queue(waiting: int) -> None:
    """Raise `QueueFull` if no more cells of a session may wait."""
    if waiting >= CELLS_MAX:
        raise QueueFull(
            f"{waiting} cells of this session wait, which is the maximum; send the request again later",
            retry_after_seconds=RETRY_AFTER_SECONDS,
        )


def cell_spec(session: Session, timeout_seconds: float | None, code: str | None) -> Spec:
    """Return the spec of a cell. `code` is None if it is in the blob store."""
    limits = session.spec.limits
    if timeout_seconds is not None:
        limits = evolve(limits, timeout_seconds=timeout_seconds)
    return Spec(
        docker_image=session.spec.docker_image,
        limits=limits,
        eval_last_expr=True,
        capture_displays=True,
        tenant=session.spec.tenant,
        session_id=session.id,
        code=code,
    )


def started_nonce(events: Sequence[Event]) -> str | None:
    """Return the nonce of the start of a cell with these events; None if it has not started."""
    return next((event.nonce for event in events if isinstance(event, Running)), None)


def _start_nonce(run: Run) -> str:
    found = started_nonce(run.events)
    if found is None:
        raise Conflict(f"{run.id} has not started")
    return found


def request_fingerprint(session: Session, cell: Cell) -> str:
    """Return the fingerprint by which two requests with one idempotency key are the same request."""
    digest = hashlib.sha256(cell.code.encode()).hexdigest()
    options = {"timeout_seconds": cell.timeout_seconds}
    return fingerprint(f"/api/v1/sessions/{session.id}/eval", options, digest)


def _idempotency_key(session: Session, cell: Cell) -> IdempotencyKey | None:
    if cell.key is None:
        return None
    return IdempotencyKey(
        key_hash=key_hash(cell.key, session.spec.tenant), fingerprint=request_fingerprint(session, cell)
    )


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data
