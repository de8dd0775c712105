"""Read the logs of executions for callers, so that a tenant with large logs delays other tenants less."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import anyio
from attrs import define, field

from pyexec.domain.events import Event, Submitted
from pyexec.ports import Caller, EventLog

LARGE_CHARACTERS: Final = 256 * 1024
"""A log is large if the standard input of its execution is longer."""
TURNS_SECONDS: Final = 60.0
"""How long the reads of a tenant take turns after it has read a large log."""


@define
class LogReader:
    """Reads the logs of executions.

    For a minute after a tenant has read a large log, its reads take turns: one at a time. After each large log, the
    next turn begins only after a pause as long as the read, in which the event log serves other tenants.

    A log with 15 MiB of standard input occupies the event log and the event loop for 0.25 s. Sixteen reads at once
    delayed a run of another tenant by 8 to 13 s, in turns by 0.6 s (2026-11-28)."""

    _log: EventLog
    _turns_until: dict[str | None, float] = field(factory=dict, init=False)
    """The tenants whose reads take turns, and until when."""
    _turns: defaultdict[str | None, anyio.Lock] = field(factory=lambda: defaultdict(anyio.Lock), init=False)

    async def read(self, execution_id: str, caller: Caller) -> Sequence[Event]:
        """Return all events of an execution; none if it does not exist."""
        if anyio.current_time() >= self._turns_until.get(caller.tenant, 0.0):
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
            self._turns_until[caller.tenant] = anyio.current_time() + TURNS_SECONDS
        return events


def _is_large(events: Sequence[Event]) -> bool:
    return bool(events) and isinstance(events[0], Submitted) and len(events[0].spec.stdin) > LARGE_CHARACTERS
