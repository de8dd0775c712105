"""Check the invariants of all written events (docs/architecture.md#invariants)."""

from collections import Counter
from collections.abc import Mapping, Sequence

from pyexec.domain.events import (
    Adopted,
    Claimed,
    Event,
    Failed,
    FailureType,
    Finished,
    Killed,
    KillRequested,
    Preparing,
    Released,
    Running,
    Submitted,
    Terminal,
)
from pyexec.domain.execution import Phase, fold
from pyexec.services.shutdown import ENDED_AT_SHUTDOWN
from tests.services.containers import Program
from tests.services.world import World, Written

OWN = (Preparing, Running, Finished)
"""Events that only the owner may append."""


def programs(world: World) -> Mapping[str, Sequence[Program]]:
    found: dict[str, list[Program]] = {}
    for engine in world.engines.values():
        for program in engine.started:
            found.setdefault(program.token, []).append(program)
    return found


def check_started_once(world: World) -> None:
    started = Counter(program.token for engine in world.engines.values() for program in engine.started)
    twice = {token: times for token, times in started.items() if times > 1}
    assert not twice, f"code was started more than once: {twice}"


async def check_log(world: World, execution_id: str, hung_up: frozenset[str]) -> None:
    """Check that a log is read as it was written, and that each writer was allowed to append its event."""
    written = world.written[execution_id]
    events = await world.log.read(execution_id)
    assert list(events) == [entry.event for entry in written]
    fold(execution_id, events)
    ends = [event for event in events if isinstance(event, Terminal)]
    assert len(ends) <= 1
    assert not ends or ends[0] is events[-1]
    for entry in written:
        _check_writer(entry)
        if isinstance(entry.event, Terminal):
            _check_end(world, execution_id, entry, hung_up)


def _check_writer(entry: Written) -> None:
    """Check that a replica changes no execution of another live replica, except to request a kill."""
    before, event = entry.before, entry.event
    assert entry.writer in entry.members, "only members may append"
    if before is None or isinstance(event, KillRequested):
        return
    if isinstance(event, OWN):
        assert before.owner == entry.writer, f"{entry.writer} wrote {event} to what {before.owner} owns"
    elif before.owner is not None and before.owner != entry.writer:
        assert before.owner not in entry.members, f"{entry.writer} wrote {event} to what {before.owner} owns"
    if isinstance(event, Adopted):
        assert event.replica == entry.writer


def _check_end(world: World, execution_id: str, entry: Written, hung_up: frozenset[str]) -> None:
    event, before = entry.event, entry.before
    token = world.token_of(execution_id)
    runs = programs(world).get(token, ())
    match event:
        case Finished():
            assert [program.reason for program in runs] == ["exit"], f"{execution_id} has not finished"
            assert event.exit_code == runs[0].exit_code
        case Killed():
            asked = execution_id in world.kills_asked or token in hung_up
            assert asked, f"{execution_id} was killed without a kill request"
        case Failed(error_type=FailureType.LOST, error=error) if error == ENDED_AT_SHUTDOWN:
            assert before is not None
            assert not runs, f"{execution_id} has run"
            assert entry.writer == (before.owner or before.pinned)
            assert before.payload is None, f"{execution_id} can run on another replica"
        case Failed(error_type=FailureType.LOST):
            assert before is not None
            owner = before.owner or before.pinned
            assert owner not in entry.members, f"{execution_id} is not lost: {owner} is there"
        case Failed(error_type=FailureType.TIMEOUT) if not entry.was_held:
            assert runs, f"{execution_id} has not run, and cannot have run out of time"
            (program,) = runs
            ran = (entry.at if program.ended_at is None else program.ended_at) - program.started_at
            assert ran > program.timeout - 0.001, f"{execution_id} ran for {ran:g} s of {program.timeout:g}"
        case Failed(error_type=FailureType.QUEUE_TIMEOUT):
            pass
        case Failed():
            assert world.faults, f"nothing was wrong, and yet {event}"


def check_ended(world: World) -> None:
    """Check that every execution and every program has ended."""
    still_open = {i: state for i, state in world.states.items() if state.phase is not Phase.ENDED}
    assert not still_open, "\n".join(_story(world, i) for i in still_open)
    for engine in world.engines.values():
        assert not [box.id for box in engine.boxes.values() if box.running]


def check_index(
    world: World, rebuilt: Sequence[tuple[object, ...]], before: Sequence[tuple[object, ...]]
) -> None:
    assert rebuilt == before


def _story(world: World, execution_id: str) -> str:
    lines = [
        f"  {entry.at:8.1f} {entry.writer:6} {type(entry.event).__name__} {_of(entry.event)}"
        for entry in world.written[execution_id]
    ]
    return "\n".join([f"{execution_id} never ended:", *lines])


def _of(event: Event) -> str:
    match event:
        case Claimed() | Adopted():
            return event.replica
        case Running():
            return event.container
        case Submitted():
            return f"payload={event.payload is not None} pinned={event.pinned}"
        case Released():
            return event.reason
    return ""
