"""Read the logs of executions for callers: large ones of a tenant one at a time, so that they delay others less."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import anyio
from attrs import define, field

from pyexec.domain.events import Event, Submitted
from pyexec.ports import Caller, EventLog

LARGE_CHARACTERS: Final = 256 * 1024
"""The standard input of an execution, above which its log is large."""
TURNS_SECONDS: Final = 60.0


@define
class LogReader:
    """Reads logs. For a minute after a tenant has read a large one, its reads take turns, and pause between two.

    A log with 15 MiB of standard input takes the event log and the event loop a quarter of a second. Sixteen reads at
    once delayed a run of another tenant by ten seconds."""

    _log: EventLog
    _until: dict[str | None, float] = field(factory=dict, init=False)
    """The tenants whose reads take turns, and until when."""
    _turns: defaultdict[str | None, anyio.Lock] = field(factory=lambda: defaultdict(anyio.Lock), init=False)

    async def read(self, execution_id: str, caller: Caller) -> Sequence[Event]:
        """Return all events of an execution; none if it does not exist."""
        if anyio.current_time() >= self._until.get(caller.tenant, 0.0):
            return await self._read(execution_id, caller)
        turn = self._turns[caller.tenant]
        async with turn:
            started = anyio.current_time()
            events = await self._read(execution_id, caller)
            if turn.statistics().tasks_waiting and _is_large(events):
                await anyio.sleep(anyio.current_time() - started)
            return events

    async def _read(self, execution_id: str, caller: Caller) -> Sequence[Event]:
        events = await self._log.read(execution_id)
        if _is_large(events):
            self._until[caller.tenant] = anyio.current_time() + TURNS_SECONDS
        return events


def _is_large(events: Sequence[Event]) -> bool:
    return bool(events) and isinstance(events[0], Submitted) and len(events[0].spec.stdin) > LARGE_CHARACTERS
