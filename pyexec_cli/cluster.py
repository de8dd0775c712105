"""The commands `cluster` and `timeline`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncclick

from pyexec_client import Cluster, Replica, Timeline, TimelineEvent

from .console import Console
from .flags import Flags, with_flags
from .printable import printable, printable_json
from .table import table

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))
_REPLICA_HEADINGS = (
    *("REPLICA", "STATE", "LEADER", "SLOTS", "MEMORY MB", "IDLE", "STARTING", "REUSED", "SESSIONS"),
    *("UPTIME", "VERSION", "ADDRESS"),
)


@asyncclick.command(name="cluster")
@asyncclick.option("--json", "as_json", is_flag=True, help="Print the state as one line of JSON.")
@with_flags(runs=False)
async def cluster(flags: Flags, as_json: bool) -> int:
    """Show all replicas and the queue of each tenant."""
    async with flags.client() as client:
        state = await client.cluster()
    console = Console(flags)
    await _print(console, state.raw, None if as_json else _cluster_lines(state, headings=not flags.quiet))
    return 0


@asyncclick.command(name="timeline")
@asyncclick.argument("execution_id", metavar="ID")
@asyncclick.option("--json", "as_json", is_flag=True, help="Print the timeline as one line of JSON.")
@with_flags(runs=False)
async def timeline(flags: Flags, execution_id: str, as_json: bool) -> int:
    """Show the events and the phases of an execution.

    Each event names its replica. A phase in progress has its duration so far.
    """
    async with flags.client() as client:
        found = await client.timeline(execution_id)
    console = Console(flags)
    await _print(console, found.raw, None if as_json else _timeline_lines(found, headings=not flags.quiet))
    return 0


async def _print(console: Console, document: Mapping[str, Any], lines: Iterable[str] | None) -> None:
    """Print the lines, or the document if there are none."""
    if lines is None:
        lines = [printable_json(json.dumps(document, ensure_ascii=False))]
    await console.write("stdout", "".join(f"{line}\n" for line in lines).encode())


def _cluster_lines(state: Cluster, *, headings: bool) -> list[str]:
    queue = [(each.tenant, f"{each.waiting:>7}", f"{each.running:>7}") for each in state.queue]
    return [
        *table(_REPLICA_HEADINGS, [_replica_row(each) for each in state.replicas], headings),
        *[
            printable(f"warning: {each.name}: {warning}")
            for each in state.replicas
            for warning in each.warnings
        ],
        "",
        *table(("TENANT", "WAITING", "RUNNING"), queue, headings),
    ]


def _replica_row(replica: Replica) -> Sequence[str]:
    memory, reuse = replica.memory_mb, replica.reuse
    return (
        replica.name,
        "draining" if replica.draining else "ready" if replica.ready else "not ready",
        "leader" if replica.leader else "",
        f"{replica.slots.used}/{replica.slots.total}",
        f"{memory.used}/{memory.total}" if memory else "",
        str(sum(each.idle for each in replica.pool)),
        str(sum(each.starting for each in replica.pool)),
        f"{reuse.served}/{reuse.served + reuse.discarded}" if reuse else "",
        str(replica.sessions.open) if replica.sessions else "",
        "" if replica.uptime_seconds is None else _rough(int(replica.uptime_seconds)),
        replica.version,
        replica.address or "",
    )


def _timeline_lines(found: Timeline, *, headings: bool) -> list[str]:
    first = _milliseconds(found.events[0].at) if found.events else 0
    events = [_event_row(event, first) for event in found.events]
    phases = [(phase.name, f"{phase.seconds:>10.3f}") for phase in found.phases]
    return [
        *table(("TIME", "   SECONDS", "EVENT", "REPLICA", "DETAILS"), events, headings),
        "",
        *table(("PHASE", "   SECONDS"), phases, headings),
    ]


def _event_row(event: TimelineEvent, first: int) -> Sequence[str]:
    at = event.at.astimezone(UTC).replace(tzinfo=None)
    details = (
        f"image {event.image}" if event.image else "",
        event.reason or "",
        "" if event.exit_code is None else f"exit code {event.exit_code}",
        event.error_type or "",
    )
    return (
        f"{at.isoformat(timespec='milliseconds')}Z",
        f"{(_milliseconds(event.at) - first) / 1000:>10.3f}",
        event.type,
        event.replica or "",
        ", ".join(filter(None, details)),
    )


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _rough(seconds: int) -> str:
    """Return a duration in its largest unit."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
