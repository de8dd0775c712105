"""Resolve executions of which this replica and the event log may disagree.

Either nothing here carries an execution that the log says this replica owns, because an append was not confirmed:
it must end or be released. Or a run is carried here that another replica has taken over: it must be detached."""

import logging
from functools import partial

from attrs import frozen

from pyexec.aio import FailureLog, retry
from pyexec.domain.events import Event, Failed, FailureType, Killed, Released, Submitted
from pyexec.domain.execution import Execution, Phase, fold
from pyexec.errors import Conflict, CorruptLog
from pyexec.ports import EventLog
from pyexec.services.active_runs import ActiveRuns
from pyexec.services.clock import nonce, now
from pyexec.services.event_log import CorruptLogReporter

logger = logging.getLogger(__name__)


@frozen(kw_only=True)
class InDoubtResolver:
    """Makes what `replica` does and what the log says agree again."""

    log: EventLog
    active_runs: ActiveRuns
    replica: str
    corrupt_logs: CorruptLogReporter

    async def resolve(self, execution_id: str, reason: str, submitted: Submitted | None) -> None:
        """Return once nothing waits for this replica to carry the execution.

        `submitted` is given if the first append was not confirmed. It may still take effect, so an ended execution
        is written in its place."""
        failures = FailureLog(logger, f"resolving the state of {execution_id}")
        while True:
            try:
                return await retry(partial(self._resolve, execution_id, reason, submitted), failures)
            except Conflict as error:
                logger.info("%s has changed meanwhile and is read again: %s", execution_id, error)
            except CorruptLog as error:
                self.corrupt_logs.report(execution_id, error)
                return None

    async def refresh(self) -> None:
        """Detach from the runs that other replicas took over while this replica's Consul session was lost."""
        for run in self.active_runs.all():
            try:
                events = await self.log.read(run.id)
            except CorruptLog as error:
                self.corrupt_logs.report(run.id, error)
                continue
            if not events:
                continue  # its first append is under way
            execution = run.catch_up(events)
            if execution.phase is not Phase.ENDED and not execution.is_for(self.replica):
                logger.warning("%s was taken over by %s", run.id, execution.owner)
                run.detach()

    async def _resolve(self, execution_id: str, reason: str, submitted: Submitted | None) -> None:
        events = await self.log.read(execution_id)
        if execution_id in self.active_runs:
            return
        if events:
            execution = fold(execution_id, events)
            if execution.is_for(self.replica):
                await self.log.append(execution_id, execution.seq, [_resolution(execution, reason)])
        elif submitted is not None:
            await self.log.append(execution_id, 0, [submitted, _failed(reason)])


def _resolution(execution: Execution, reason: str) -> Event:
    """Return the kill if one was requested, a release if the execution can run elsewhere, else a failure."""
    if execution.kill_requested:
        return Killed(at=now(), nonce=nonce())
    if execution.phase in (Phase.CLAIMED, Phase.PREPARING) and execution.payload is not None:
        return Released(at=now(), nonce=nonce(), reason=reason)
    return _failed(reason)


def _failed(reason: str) -> Failed:
    return Failed(at=now(), nonce=nonce(), error_type=FailureType.INTERNAL, error=reason)
