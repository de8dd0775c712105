"""Writing how an execution ended. The one write that must not get lost, and must not come twice."""

import logging

import anyio
from attrs import evolve, field, frozen

from pyexec.aio import FailureLog
from pyexec.domain.events import Failed, FailureType, Output, Released, Terminal
from pyexec.domain.execution import is_legal
from pyexec.domain.outcome import RunOutcome, shortened, terminal_event
from pyexec.domain.output_files import OutputFiles
from pyexec.domain.output_log import Stream
from pyexec.errors import (
    Conflict,
    CorruptLog,
    EngineError,
    ExecutorError,
    ImageUnavailable,
    SandboxBroken,
    SandboxRefused,
    SetupFailed,
    SetupTimeout,
    TooLarge,
    Unavailable,
)
from pyexec.ports import BlobStore, EventLog
from pyexec.services.active_runs import Run
from pyexec.services.clock import nonce, now
from pyexec.services.corrupt_logs import CorruptLogReporter
from pyexec.services.output_store import files_blob, store_output

logger = logging.getLogger(__name__)

TRACEBACK_BYTES = 64 * 1024
RETRY_SECONDS = 0.5
UNPREPARED = (ImageUnavailable, SetupFailed, SandboxBroken, SandboxRefused, EngineError, CorruptLog)
"""What may prevent a run's sandbox from being prepared."""
SETUP_FAILURES = {SetupFailed: FailureType.SETUP_FAILED, SetupTimeout: FailureType.SETUP_TIMEOUT}


@frozen(kw_only=True)
class CompletionWriter:
    """Ends the runs of `replica`. Every method survives cancellation, and waits for a log that is away, but no
    longer than until `leave`: from then on such a run is left to whoever adopts it."""

    log: EventLog
    blobs: BlobStore
    replica: str
    output_bytes_max: int
    corrupt_logs: CorruptLogReporter
    _leaving: anyio.Event = field(factory=anyio.Event)

    def leave(self) -> None:
        """Waits for a log that is away no more."""
        self._leaving.set()

    async def end(self, run: Run, ended: RunOutcome) -> None:
        """Writes the terminal event for what was seen, with the output so far."""
        writing = FailureLog(logger, f"writing the end of {run.id}")
        with anyio.CancelScope(shield=True):
            tail = run.output_log.bytes_of(Stream.STDERR)[-TRACEBACK_BYTES:]
            stored = await self._store(run, writing)
            files = await self._store_files(run, writing)
            if stored is None:
                return
            output, left_out = stored
            if left_out is not None and ended.reason == "exit":
                ended = evolve(ended, reason="output_limit", detail=str(left_out))
            terminal = terminal_event(
                ended,
                limits=run.known().spec.limits,
                output_max=self.output_bytes_max,
                stderr_tail=tail.decode("utf-8", "replace"),
                output=output,
                files=files,
                at=now(),
                nonce=nonce(),
            )
            await self._write(run, terminal, writing)

    async def fail(self, run: Run, kind: FailureType, error: str, *, exit_code: int | None = None) -> None:
        """Ends what failed before its program could say anything. What setup said is its error output."""
        writing = FailureLog(logger, f"writing the end of {run.id}")
        with anyio.CancelScope(shield=True):
            run.output_log.relabel_setup()
            stored = await self._store(run, writing)
            if stored is not None:
                failed = Failed(
                    at=now(),
                    nonce=nonce(),
                    error_type=kind,
                    error=error,
                    exit_code=exit_code,
                    output=stored[0],
                )
                await self._write(run, failed, writing)

    async def fail_unprepared(self, run: Run, error: ExecutorError) -> None:
        """As `fail`, for one of the errors of `UNPREPARED`."""
        if isinstance(error, SetupFailed):
            await self.fail(run, SETUP_FAILURES[type(error)], str(error), exit_code=error.exit_code)
        elif isinstance(error, ImageUnavailable):
            await self.fail(run, FailureType.IMAGE_UNAVAILABLE, str(error))
        else:
            await self.fail(run, FailureType.INTERNAL, f"the sandbox could not be prepared: {error}")

    async def _store(self, run: Run, writing: FailureLog) -> tuple[Output, TooLarge | None] | None:
        """Where its output lies from now on, and why it is not all of it; None when it is not this replica's any
        more."""
        while self._is_own(run):
            try:
                return await store_output(self.blobs, run.id, run.output_log)
            except Unavailable as error:
                await self._wait_for_store(run, writing, error)
        return None

    async def _store_files(self, run: Run, writing: FailureLog) -> OutputFiles | None:
        while run.output_files and self._is_own(run):
            try:
                return await run.output_files.store(self.blobs, files_blob(run.id))
            except TooLarge as error:
                logger.warning("the files of %s are dropped: %s", run.id, error)
                return OutputFiles(truncated=True)
            except Unavailable as error:
                await self._wait_for_store(run, writing, error)
        return None

    async def release(self, run: Run, reason: str) -> None:
        """Gives back what has not started, if it may still be given back; else leaves it as it is."""
        released = Released(at=now(), nonce=nonce(), reason=reason)
        if run.known().is_for(self.replica) and is_legal(run.known(), released):
            with anyio.CancelScope(shield=True):
                try:
                    await self.log.append(run.id, run.seq, [released])
                except (Conflict, Unavailable) as error:
                    logger.warning("%s is left to the reconciler: %s", run.id, error)
        run.detach()

    async def _write(self, run: Run, terminal: Terminal, writing: FailureLog) -> None:
        """Appends where the log stands now, as long as the execution is open and this replica's own.

        A conflict means that somebody else has written meanwhile: a wish to kill it, its end, its release, or its
        adoption."""
        while self._is_own(run):
            try:
                await self._append(run, terminal)
                writing.recovered()
            except TooLarge as error:
                logger.error("the end of %s is written in short: %s", run.id, error)
                if (shorter := shortened(terminal)) == terminal:
                    raise
                terminal = shorter
            except CorruptLog as error:
                self._leave_alone(run, error)
            except Unavailable as error:
                await self._wait_for_store(run, writing, error)

    async def _append(self, run: Run, terminal: Terminal) -> None:
        after = [*run.events, terminal]
        try:
            await self.log.append(run.id, run.seq, [terminal])
        except Conflict:
            await self._catch_up(run)
        else:
            run.catch_up(after)  # others may have told the run meanwhile

    async def _wait_for_store(self, run: Run, writing: FailureLog, error: Unavailable) -> None:
        if self._leaving.is_set():
            logger.error("the end of %s is left to be found again: %s", run.id, error)
            run.detach()
            return
        writing.failed(error)
        await anyio.sleep(RETRY_SECONDS)
        try:
            await self._catch_up(run)
        except Unavailable as still:
            writing.failed(still)

    async def _catch_up(self, run: Run) -> None:
        try:
            events = await self.log.read(run.id)
            if not events:
                run.detach()
                return
            run.catch_up(events)
        except CorruptLog as error:
            self._leave_alone(run, error)

    def _leave_alone(self, run: Run, error: CorruptLog) -> None:
        self.corrupt_logs.report(run.id, error)
        run.detach()

    def _is_own(self, run: Run) -> bool:
        """Whether it is still to be ended from here. Somebody may have taken it over, whoever has told the run."""
        if not run.over.is_set() and not run.known().is_for(self.replica):
            logger.warning("%s is not this replica's any more; nothing is written", run.id)
            run.detach()
        return not run.over.is_set()
