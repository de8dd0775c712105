"""Resolve executions of which this replica and the event log may disagree.

Two cases exist. By the log this replica owns an execution, but no run of it exists here, because an append was not
confirmed: the execution must be ended or released. Or a run exists here, but another replica has adopted the execution:
the run must be detached."""

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
    """Makes the runs of `replica` agree with the log again."""

    log: EventLog
    active_runs: ActiveRuns
    replica: str
    corrupt_logs: CorruptLogReporter

    def is_orphaned(self, execution: Execution) -> bool:
        """Return True if the log says that this replica owns the execution, but no run of it exists here."""
        return execution.is_for(self.replica) and execution.id not in self.active_runs

    async def resolve(self, execution_id: str, reason: str, submitted: Submitted | None) -> None:
        """End or release the execution if this replica owns it and no run of it exists here.

        `submitted` is given if the first append was not confirmed. That append may still take effect. So if the log
        is empty, a failed execution is written instead, which makes the late append fail."""
        failures = FailureLog(logger, f"resolving the state of {execution_id}")
        while True:
            try:
                return await retry(partial(self._resolve, execution_id, reason, submitted), failures)
            except Conflict as error:
                logger.info("%s: append conflict; retrying: %s", execution_id, error)
            except CorruptLog as error:
                self.corrupt_logs.report(execution_id, error)
                return None

    async def refresh(self) -> None:
        """Detach from the runs that belong to other replicas since this replica lost its Consul session."""
        for run in self.active_runs.all():
            try:
                events = await self.log.read(run.id)
            except CorruptLog as error:
                self.corrupt_logs.report(run.id, error)
                continue
            if not events:
                continue  # its first append is in progress
            execution = run.catch_up(events)
            if execution.phase is not Phase.ENDED and not execution.is_for(self.replica):
                logger.warning("%s is owned by %s now; detached", run.id, execution.owner)
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
    is_cell = execution.spec.session_id is not None  # only the owner of its session can run it
    if execution.phase in (Phase.CLAIMED, Phase.PREPARING) and execution.payload is not None and not is_cell:
        return Released(at=now(), nonce=nonce(), reason=reason)
    return _failed(reason)


def _failed(reason: str) -> Failed:
    return Failed(at=now(), nonce=nonce(), error_type=FailureType.INTERNAL, error=reason)
