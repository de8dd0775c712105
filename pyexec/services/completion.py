"""Append the terminal event of an execution, exactly once."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import anyio
from attrs import define, evolve, field, frozen

from pyexec.aio import FailureLog
from pyexec.domain.crash import Crash
from pyexec.domain.events import Failed, FailureType, Output, Released, Terminal
from pyexec.domain.execution import is_legal
from pyexec.domain.outcome import RunOutcome, shortened, terminal_event
from pyexec.domain.output_files import OutputFiles, missing_files
from pyexec.domain.output_log import Stream
from pyexec.errors import (
    Conflict,
    CorruptLog,
    EngineError,
    ExecutorError,
    ImageUnavailable,
    QueueTimeout,
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
from pyexec.services.event_log import CorruptLogReporter
from pyexec.services.output_store import files_blob, inline_output, store_output

logger = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_SECONDS = 0.5
STORE_SECONDS = 60.0
"""How long an unavailable blob store may delay the end of an execution, while the event log answers."""
PREPARATION_ERRORS = (
    ImageUnavailable,
    SetupFailed,
    SandboxBroken,
    SandboxRefused,
    EngineError,
    CorruptLog,
    QueueTimeout,
)
"""Errors that can prevent a run from being prepared."""
ARCHIVE_PROBLEMS = frozenset({"bad_archive", "disk_full"})
"""Codes of `SandboxRefused` for an archive that is the caller's mistake."""
SETUP_FAILURES = {SetupFailed: FailureType.SETUP_FAILED, SetupTimeout: FailureType.SETUP_TIMEOUT}


@define
class _StoreDeadline:
    """The moment at which storing output and files ends."""

    _at: float = field(factory=lambda: anyio.current_time() + STORE_SECONDS)

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._at - anyio.current_time())

    def restart(self) -> None:
        self._at = anyio.current_time() + STORE_SECONDS


def _crash_of(run: Run) -> Crash | None:
    """Return the exception that ended the main thread: as the interpreter reports it, else as stderr shows it."""
    # The report is lost if a function at exit calls `os._exit`, for example.
    if run.reports is not None and run.reports.end_reported:
        return run.reports.crash
    return run.traceback.finish() if run.traceback else None


def _with_dropped_displays(output: Output, run: Run) -> Output:
    dropped = run.reports is not None and run.reports.displays_truncated
    if not dropped or not run.execution.spec.capture_displays or Stream.DISPLAY in output.truncated:
        return output
    return evolve(output, truncated=(*output.truncated, Stream.DISPLAY))


@frozen(kw_only=True)
class CompletionWriter:
    """Writes the terminal events of the runs that `replica` owns.

    Every method survives cancellation. It retries as long as the log is unavailable. If only the blob store is
    unavailable, it retries for `STORE_SECONDS`, then writes an end with as much output as fits into the event. After
    `stop_waiting`, it does not retry, and leaves the run to the replica that adopts it."""

    log: EventLog
    blobs: BlobStore
    replica: str
    output_bytes_max: int
    setup_allowed: bool = True
    corrupt_logs: CorruptLogReporter
    _stopping: anyio.Event = field(factory=anyio.Event)

    def stop_waiting(self) -> None:
        """Detach from runs, instead of retrying, while the log or the blob store is unavailable."""
        self._stopping.set()

    async def end(self, run: Run, ended: RunOutcome) -> None:
        """Store the output and the files, and append the terminal event for this outcome."""
        failures = FailureLog(logger, f"writing the end of {run.id}")
        with anyio.CancelScope(shield=True):
            deadline = _StoreDeadline()
            stored = await self._stored_output(run, failures, deadline)
            if stored is None:
                return
            files = await self._stored_files(run, failures, deadline)
            output, not_stored = stored
            if not_stored is not None and ended.reason == "exit":
                ended = evolve(ended, reason="output_limit", detail=str(not_stored))
            terminal = terminal_event(
                ended,
                spec=run.execution.spec,
                output_max=self.output_bytes_max,
                setup_allowed=self.setup_allowed,
                crash=_crash_of(run),
                output=_with_dropped_displays(output, run),
                files=files,
                at=now(),
                nonce=nonce(),
            )
            await self._write(run, terminal, failures)

    async def fail(self, run: Run, kind: FailureType, error: str, *, exit_code: int | None = None) -> None:
        """End an execution that failed before its program started. The setup output becomes its stderr."""
        failures = FailureLog(logger, f"writing the end of {run.id}")
        with anyio.CancelScope(shield=True):
            run.output_log.relabel_setup()
            stored = await self._stored_output(run, failures, _StoreDeadline())
            if stored is not None:
                output = stored[0]
                failed = Failed(
                    at=now(), nonce=nonce(), error_type=kind, error=error, exit_code=exit_code, output=output
                )
                await self._write(run, failed, failures)

    async def fail_preparation(self, run: Run, error: ExecutorError) -> None:
        """End an execution with one of `PREPARATION_ERRORS`."""
        if isinstance(error, SetupFailed):
            await self.fail(run, SETUP_FAILURES[type(error)], str(error), exit_code=error.exit_code)
        elif isinstance(error, ImageUnavailable):
            await self.fail(run, FailureType.IMAGE_UNAVAILABLE, str(error))
        elif isinstance(error, QueueTimeout):
            await self.fail(run, FailureType.QUEUE_TIMEOUT, str(error))
        elif isinstance(error, SandboxRefused) and error.code in ARCHIVE_PROBLEMS:
            await self.fail(run, FailureType.SETUP_FAILED, f"the archive cannot be unpacked: {error}")
        else:
            await self.fail(run, FailureType.INTERNAL, f"the sandbox could not be prepared: {error}")

    async def release(self, run: Run, reason: str) -> None:
        """Release a run that has not started, if it may still be released. Then detach from it."""
        released = Released(at=now(), nonce=nonce(), reason=reason)
        if run.execution.is_for(self.replica) and is_legal(run.execution, released):
            with anyio.CancelScope(shield=True):
                try:
                    await self.log.append(run.id, run.seq, [released])
                except (Conflict, Unavailable) as error:
                    logger.warning("cannot release %s; left to the leader: %s", run.id, error)
        run.detach()

    async def _stored_output(
        self, run: Run, failures: FailureLog, deadline: _StoreDeadline
    ) -> tuple[Output, TooLarge | None] | None:
        """Store the output. Return None once this replica does not own the run."""
        store = partial(store_output, self.blobs, run.id, run.output_log)
        return await self._stored(
            run, failures, deadline, store, lambda: (inline_output(run.output_log), None)
        )

    async def _stored_files(
        self, run: Run, failures: FailureLog, deadline: _StoreDeadline
    ) -> OutputFiles | None:
        if (spool := run.output_files) is None:
            return None
        store = partial(spool.store, self.blobs, files_blob(run.id))
        missing = missing_files(len(run.execution.spec.output_files))
        try:
            return await self._stored(run, failures, deadline, store, lambda: missing)
        except TooLarge as error:
            logger.warning("output files of %s dropped: %s", run.id, error)
            return missing
        finally:
            await spool.close()  # the end may need its disk space

    async def _stored(
        self,
        run: Run,
        failures: FailureLog,
        deadline: _StoreDeadline,
        store: Callable[[], Awaitable[T]],
        fallback: Callable[[], T],
    ) -> T | None:
        """Retry `store` until the deadline; then return `fallback()`.

        Return None once this replica does not own the run."""
        while self._owns(run):
            error = Unavailable(f"the blob store did not answer within {STORE_SECONDS:g} s")
            try:
                with anyio.move_on_after(deadline.seconds_left):
                    result = await store()
                    failures.recovered()
                    return result
            except Unavailable as failure:
                error = failure
            if not await self._back_off(run, failures, error):
                deadline.restart()  # without the log, the end cannot be written anyway
            elif not deadline.seconds_left and self._owns(run):
                logger.error("the end of %s is written without all of its output: %s", run.id, error)
                return fallback()
        return None

    async def _write(self, run: Run, terminal: Terminal, failures: FailureLog) -> None:
        """Append the terminal event after the latest event, as long as this replica owns the open execution.

        After a conflict, another event is in the log (a kill request, an end, a release or an adoption), and the next
        attempt takes it into account."""
        while self._owns(run):
            try:
                await self._retried(run, failures, partial(self._append, run, terminal))
            except TooLarge as error:
                logger.error("the end of %s is too large and is shortened: %s", run.id, error)
                if (shorter := shortened(terminal)) == terminal:
                    raise
                terminal = shorter
            except CorruptLog as error:
                self._report_corrupt(run, error)

    async def _append(self, run: Run, terminal: Terminal) -> None:
        events = [*run.events, terminal]
        try:
            await self.log.append(run.id, run.seq, [terminal])
        except Conflict:
            await self._catch_up(run)
        else:
            run.catch_up(events)  # a reader may have recorded the event already

    async def _retried(
        self, run: Run, failures: FailureLog, operation: Callable[[], Awaitable[T]]
    ) -> T | None:
        """Retry `operation` while it raises `Unavailable`. Return None once this replica does not own the run."""
        while self._owns(run):
            try:
                result = await operation()
            except Unavailable as error:
                await self._back_off(run, failures, error)
            else:
                failures.recovered()
                return result
        return None

    async def _back_off(self, run: Run, failures: FailureLog, error: Unavailable) -> bool:
        """Pause, and read the log. Return False if it does not answer."""
        if self._stopping.is_set():
            logger.error("cannot write the end of %s; left to the replica that adopts it: %s", run.id, error)
            run.detach()
            return True
        failures.failed(error)
        await anyio.sleep(RETRY_SECONDS)
        try:
            await self._catch_up(run)
        except Unavailable as still:
            failures.failed(still)
            return False
        return True

    async def _catch_up(self, run: Run) -> None:
        """Read the log. If the execution was retired, or its log is corrupt, detach."""
        try:
            events = await self.log.read(run.id)
        except CorruptLog as error:
            self._report_corrupt(run, error)
            return
        if events:
            run.catch_up(events)
        else:
            run.detach()

    def _report_corrupt(self, run: Run, error: CorruptLog) -> None:
        self.corrupt_logs.report(run.id, error)
        run.detach()

    def _owns(self, run: Run) -> bool:
        """Return True if this replica must still end the run. Detach if another replica owns it."""
        if not run.inactive.is_set() and not run.execution.is_for(self.replica):
            logger.warning("%s is owned by another replica now; its end is not written here", run.id)
            run.detach()
        return not run.inactive.is_set()
