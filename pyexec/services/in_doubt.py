"""Executions of which this replica and the log may not think the same. Nobody here carries them on, because the log did
not answer when they began, or somebody else was faster: then they must end, or be given to another replica. Or they
are carried on here, and others have taken them over."""

import logging

import anyio
from attrs import frozen

from pyexec.aio import FailureLog
from pyexec.domain.events import Event, Failed, FailureType, Killed, Released, Submitted
from pyexec.domain.execution import Execution, Phase, fold
from pyexec.errors import Conflict, CorruptLog, Unavailable
from pyexec.ports import EventLog
from pyexec.services.active_runs import ActiveRuns
from pyexec.services.clock import nonce, now
from pyexec.services.corrupt_logs import CorruptLogReporter

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


@frozen(kw_only=True)
class InDoubtResolver:
    """Brings what `replica` does and what the log says together again."""

    log: EventLog
    active_runs: ActiveRuns
    replica: str
    corrupt_logs: CorruptLogReporter

    async def settle(self, execution_id: str, reason: str, submitted: Submitted | None) -> None:
        """Returns once nothing depends on this replica any more.

        `submitted` is what the log was told first, when that is the doubt. An append that was not heard of may yet
        take place; so its place is taken by an end."""
        settling = FailureLog(logger, f"settling what became of {execution_id}")
        while True:
            try:
                return await self._settle(execution_id, reason, submitted)
            except Conflict as error:
                logger.info("%s has moved on, it is looked at again: %s", execution_id, error)
            except Unavailable as error:
                settling.failed(error)
                await anyio.sleep(RETRY_SECONDS)
            except CorruptLog as error:
                self.corrupt_logs.report(execution_id, error)
                return None

    async def refresh(self) -> None:
        """After others may have taken this replica for dead: lets go of the runs that they have taken over."""
        for run in self.active_runs.all():
            try:
                events = await self.log.read(run.id)
            except CorruptLog as error:
                self.corrupt_logs.report(run.id, error)
                continue
            if not events:
                continue  # it is about to begin
            execution = run.catch_up(events)
            if execution.phase is not Phase.ENDED and not execution.is_for(self.replica):
                logger.warning("%s was taken over by %s", run.id, execution.owner)
                run.detach()

    async def _settle(self, execution_id: str, reason: str, submitted: Submitted | None) -> None:
        events = await self.log.read(execution_id)
        if execution_id in self.active_runs:
            return
        if events:
            execution = fold(execution_id, events)
            if execution.is_for(self.replica):
                await self.log.append(execution_id, execution.seq, [_settlement(execution, reason)])
        elif submitted is not None:
            await self.log.append(execution_id, 0, [submitted, _failed(reason)])


def _settlement(execution: Execution, reason: str) -> Event:
    """What was to be killed is; what can run elsewhere may; the rest has failed."""
    if execution.kill_requested:
        return Killed(at=now(), nonce=nonce())
    if execution.phase in (Phase.CLAIMED, Phase.PREPARING) and execution.payload is not None:
        return Released(at=now(), nonce=nonce(), reason=reason)
    return _failed(reason)


def _failed(reason: str) -> Failed:
    return Failed(at=now(), nonce=nonce(), error_type=FailureType.INTERNAL, error=reason)
