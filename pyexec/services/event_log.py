"""The event logs as the services use them: calls are measured, and each corrupt log is reported once."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from time import perf_counter

from attrs import define, field, frozen

from pyexec.correlation import current_correlation
from pyexec.domain.events import Event, Failed, Running, Terminal
from pyexec.domain.execution import Status, end_status, fold
from pyexec.domain.result import milliseconds, timings_of
from pyexec.domain.session_events import (
    InterpreterRestarted,
    SessionAdopted,
    SessionClosed,
    SessionEvent,
    SessionOpened,
)
from pyexec.domain.tenants import Tenants
from pyexec.errors import ConsulSessionLost, CorruptLog, ExecutorError, TooLarge, Unavailable
from pyexec.metrics import (
    EVENT_LOG_ERRORS,
    EVENT_LOG_SECONDS,
    EVENTS_APPENDED,
    EXECUTION_SECONDS,
    EXECUTIONS_ENDED,
    INTERPRETER_RESTARTS,
    OUTPUT_BYTES,
    PHASE_SECONDS,
    SESSIONS_ADOPTED,
    SESSIONS_CLOSED,
    SESSIONS_OPENED,
    STEP_SECONDS,
    TENANT_EXECUTIONS_ENDED,
    Meter,
    timed,
)
from pyexec.ports import (
    EventLog,
    ExecutionPage,
    IdempotencyKey,
    Inbox,
    OpenExecutions,
    OutstandingWebhooks,
    SessionIndex,
    SessionLog,
)
from pyexec.services.active_runs import ActiveRuns

logger = logging.getLogger(__name__)

_ERROR_KINDS: tuple[tuple[type[ExecutorError], str], ...] = (
    (ConsulSessionLost, "session_lost"),
    (Unavailable, "unavailable"),
    (CorruptLog, "corrupt"),
    (TooLarge, "too_large"),
)
"""The metric labels of errors. A `Conflict` is not an error of the log, because another writer caused it."""


@frozen
class MeteredLog:
    """Measures another `ports.EventLog`, through which all services of this replica append and read.

    Operators use the labels of the operations, so a label stays the same if its method gets another name."""

    log: EventLog
    active_runs: ActiveRuns
    meter: Meter
    tenants: Tenants = field(factory=Tenants)

    async def append(
        self,
        execution_id: str,
        after: int,
        events: Sequence[Event],
        *,
        key: IdempotencyKey | None = None,
        notify: str | None = None,
        fence: str | None = None,
    ) -> None:
        begun = perf_counter()
        with self._measured("append"):
            await self.log.append(execution_id, after, events, key=key, notify=notify, fence=fence)
        for event in events:
            # Dashboards use `killrequested`, the label before events had their names in the API: it must stay.
            self.meter.count(EVENTS_APPENDED, event.name.replace("_", ""))
        last = events[-1]
        if isinstance(last, Running):
            self.meter.observe(STEP_SECONDS, perf_counter() - begun, "first_commit")
        elif isinstance(last, Terminal):
            self.meter.observe(STEP_SECONDS, perf_counter() - begun, "terminal_commit")
            self._count_end(last, execution_id, after, events)

    async def read(self, execution_id: str, after: int = 0) -> Sequence[Event]:
        with self._measured("read"):
            return await self.log.read(execution_id, after)

    async def wait(self, execution_id: str, after: int) -> None:
        with self._counting_errors("wait"):
            await self.log.wait(execution_id, after)

    async def open_executions(self, since: int | None = None) -> OpenExecutions:
        with self._measured_unless_waiting("open_executions", since):
            return await self.log.open_executions(since)

    async def inbox(self, replica: str, since: int | None = None) -> Inbox:
        with self._measured_unless_waiting("inbox", since):
            return await self.log.inbox(replica, since)

    async def acknowledge(self, replica: str, execution_id: str, revision: int) -> None:
        with self._measured("settle"):
            await self.log.acknowledge(replica, execution_id, revision)

    async def list_executions(
        self, *, status: Status | None, limit: int, cursor: str | None
    ) -> ExecutionPage:
        with self._measured("page"):
            return await self.log.list_executions(status=status, limit=limit, cursor=cursor)

    async def list_ended(
        self, before: datetime, limit: int, *, undelivered_before: datetime | None = None
    ) -> Sequence[str]:
        with self._measured("ended_before"):
            return await self.log.list_ended(before, limit, undelivered_before=undelivered_before)

    async def find_by_key(self, key_hash: str) -> tuple[str, str] | None:
        with self._measured("key_owner"):
            return await self.log.find_by_key(key_hash)

    async def retire(self, execution_id: str) -> None:
        with self._measured("retire"):
            await self.log.retire(execution_id)

    async def erase_retired(self) -> None:
        with self._measured("erase_retired"):
            await self.log.erase_retired()

    async def webhooks(self, since: int | None = None) -> OutstandingWebhooks:
        with self._measured_unless_waiting("webhooks", since):
            return await self.log.webhooks(since)

    async def remove_webhook(self, execution_id: str) -> None:
        with self._measured("remove_webhook"):
            await self.log.remove_webhook(execution_id)

    async def rebuild_index(self) -> Mapping[str, CorruptLog]:
        with self._counting_errors("rebuild_index"):  # hourly; its duration grows with the history
            return await self.log.rebuild_index()

    async def check(self) -> None:
        with self._measured("check"):
            await self.log.check()

    def _count_end(self, terminal: Terminal, execution_id: str, after: int, events: Sequence[Event]) -> None:
        """Count an ended execution, and its output and timings if all its events are known here."""
        mode, tenant = current_correlation().mode, self.tenants.label(current_correlation().tenant)
        # The error type of a completed program is text that the program chose, so it is not a label.
        reason = terminal.error_type if isinstance(terminal, Failed) else ""
        status = end_status(terminal).value
        self.meter.count(EXECUTIONS_ENDED, mode, status, reason)
        self.meter.count(TENANT_EXECUTIONS_ENDED, tenant, status)
        run = self.active_runs.get(execution_id)
        if run is not None and run.seq >= after:
            self.meter.count(OUTPUT_BYTES, by=len(run.output_log))
            state = run.execution if run.events else None
            # `state` already contains the events before `run.seq`.
            execution = fold(execution_id, events[run.seq - after :], state)
        elif after == 0:
            execution = fold(execution_id, events)
        else:
            return
        timings = timings_of(execution, terminal)
        self.meter.observe(EXECUTION_SECONDS, milliseconds(execution.created_at, terminal.at) / 1000, mode)
        self.meter.observe(PHASE_SECONDS, timings.queue / 1000, "queue")
        self.meter.observe(PHASE_SECONDS, timings.setup / 1000, "setup")
        self.meter.observe(PHASE_SECONDS, timings.run / 1000, "run")

    def _measured_unless_waiting(self, operation: str, since: int | None) -> AbstractContextManager[None]:
        return self._measured(operation) if since is None else self._counting_errors(operation)

    @contextmanager
    def _measured(self, operation: str) -> Iterator[None]:
        with self._counting_errors(operation), timed(self.meter, EVENT_LOG_SECONDS, operation):
            yield

    @contextmanager
    def _counting_errors(self, operation: str) -> Iterator[None]:
        try:
            yield
        except ExecutorError as error:
            kind = next((name for kind, name in _ERROR_KINDS if isinstance(error, kind)), None)
            if kind is not None:
                self.meter.count(EVENT_LOG_ERRORS, operation, kind)
            raise


@define
class CorruptLogReporter:
    """Logs each execution whose stored log cannot be read, once. Such executions are left unchanged."""

    _reported: set[str] = field(factory=set)

    def __len__(self) -> int:
        """Return how many were reported."""
        return len(self._reported)

    def report(self, execution_id: str, error: CorruptLog) -> None:
        """Log the execution, unless it was reported before."""
        if execution_id not in self._reported:
            self._reported.add(execution_id)
            logger.error("the log of %s is corrupt; the execution is left unchanged: %s", execution_id, error)


@frozen
class MeteredSessionLog:
    """Counts the events that go into another `ports.SessionLog`."""

    log: SessionLog
    meter: Meter

    async def append(
        self, session_id: str, after: int, events: Sequence[SessionEvent], *, fence: str | None = None
    ) -> None:
        await self.log.append(session_id, after, events, fence=fence)
        for event in events:
            match event:
                case SessionOpened():
                    self.meter.count(SESSIONS_OPENED)
                case SessionAdopted():
                    self.meter.count(SESSIONS_ADOPTED)
                case InterpreterRestarted():
                    self.meter.count(INTERPRETER_RESTARTS)
                case SessionClosed():
                    self.meter.count(SESSIONS_CLOSED, event.reason)

    async def read(self, session_id: str) -> Sequence[SessionEvent]:
        return await self.log.read(session_id)

    async def all(self, since: int | None = None) -> SessionIndex:
        return await self.log.all(since)

    async def retire(self, session_id: str) -> None:
        await self.log.retire(session_id)
