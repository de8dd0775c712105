"""List executions, newest first. Summaries of ended executions stay in memory, for lists that are read often."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import anyio
from attrs import define, field

from pyexec.domain.execution import Phase, Status, fold
from pyexec.domain.result import Summary, summarize
from pyexec.errors import CorruptLog
from pyexec.ports import Caller, EventLog
from pyexec.services.event_log import CorruptLogReporter

SCAN_MAX: Final = 1000
"""How many executions are read for one page. Without a limit, a tenant with few executions among many of other tenants
could keep the event log busy with each request."""
KEPT_MAX: Final = 2000
"""How many summaries are kept. A summary takes about a kilobyte."""
_NO_VERSION: Final = -1


@define
class Listing:
    """Lists the executions of the deployment."""

    _log: EventLog
    _corrupt_logs: CorruptLogReporter
    _ended: dict[str, Summary] = field(factory=dict)
    """Summaries of ended executions, which never change."""
    _open: dict[str, tuple[int, Summary]] = field(factory=dict)
    """Summaries of open executions, each with the number of events that were read: only more events change it."""

    async def version(self, known: int | None, seconds: float) -> int:
        """Return the version of the list of executions. If it is `known`, wait for the next one, at most `seconds`.

        Each append changes the version. It comes from memory, so callers that wait cost the event log nothing."""
        if known is None:
            return (await self._log.open_executions(_NO_VERSION)).version
        with anyio.move_on_after(seconds):
            return (await self._log.open_executions(known)).version
        return known

    async def page(
        self,
        status: Status | None,
        limit: int,
        cursor: str | None,
        caller: Caller,
        session_id: str | None = None,
    ) -> tuple[Sequence[Summary], str | None]:
        """Return executions without their output, newest first, and the cursor of the next page; with `session_id`,
        only the cells of that session.

        Executions of other tenants, and those whose log cannot be read, are left out. After `SCAN_MAX` executions the
        page ends, even if it has fewer than `limit`."""
        batch = limit if caller.tenant is None and session_id is None else SCAN_MAX
        lengths = (await self._log.open_executions()).lengths
        self._open = {name: known for name, known in self._open.items() if lengths.get(name) == known[0]}
        page = await self._log.list_executions(status=status, limit=batch, cursor=cursor)
        summaries: list[Summary] = []
        for execution_id, next_id in pairwise([*page.ids, None]):
            if (
                execution_id is not None
                and (summary := await self._summary(execution_id, lengths.get(execution_id), caller))
                is not None
                and session_id in (None, summary.session_id)
            ):
                summaries.append(summary)
            if len(summaries) == limit and next_id is not None:
                return summaries, execution_id
        return summaries, page.next_cursor

    async def _summary(self, execution_id: str, length: int | None, caller: Caller) -> Summary | None:
        """Return a summary. `length` is the number of events of an open execution, None for an ended one."""
        known = self._open.get(execution_id)
        summary: Summary | None
        if known is not None and known[0] == length:
            summary = known[1]
        else:
            summary = self._ended.get(execution_id) or await self._summarize(execution_id)
        return summary if summary is not None and caller.tenant in (None, summary.tenant) else None

    async def _summarize(self, execution_id: str) -> Summary | None:
        try:
            events = await self._log.read(execution_id)
            execution = fold(execution_id, events) if events else None
        except CorruptLog as error:
            self._corrupt_logs.report(execution_id, error)
            return None
        if execution is None:
            return None
        summary = summarize(execution)
        if execution.phase is not Phase.ENDED:
            self._open[execution_id] = (execution.seq, summary)
        else:
            self._ended[execution_id] = summary
            if len(self._ended) > KEPT_MAX:
                del self._ended[next(iter(self._ended))]
        return summary
