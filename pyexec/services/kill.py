"""Ending an execution because somebody asks for it."""

import anyio

from pyexec.domain.execution import Execution, Phase, request_kill
from pyexec.errors import Conflict
from pyexec.ports import EventLog
from pyexec.services.active_runs import ActiveRuns
from pyexec.services.clock import nonce, now
from pyexec.services.query import Queries

ANSWER_SECONDS = 10.0


class Kills:
    """Writes the wish into the log, which decides; the owner is told, and ends the run."""

    def __init__(self, *, log: EventLog, active_runs: ActiveRuns, queries: Queries) -> None:
        self._log = log
        self._active_runs = active_runs
        self._queries = queries

    async def kill(self, execution_id: str) -> Execution:
        """The state once it has ended, whoever ended it, or after ten seconds.

        Raises `UnknownExecution`."""
        execution = await self.request(execution_id)
        with anyio.move_on_after(ANSWER_SECONDS):
            while execution.phase is not Phase.ENDED:
                await self._log.wait(execution_id, execution.seq)
                execution = await self._queries.execution(execution_id)
        return execution

    async def request(self, execution_id: str) -> Execution:
        """The state once the wish is durable. A conflict means that something else happened first."""
        while True:
            execution = await self._queries.execution(execution_id)
            events = request_kill(execution, at=now(), nonce=nonce())
            if not events:
                return execution
            try:
                await self._log.append(execution_id, execution.seq, events, notify=execution.owner)
            except Conflict:
                continue
            if (run := self._active_runs.get(execution_id)) is not None:
                run.catch_up(await self._log.read(execution_id))
            return await self._queries.execution(execution_id)
