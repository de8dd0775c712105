"""Check the invariants that must hold after every scenario, and collect its measurements."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any

from pyexec.adapters.consul.config import ConsulConfig
from pyexec.adapters.consul.kv import ConsulKV
from pyexec.adapters.consul.log import ConsulLog
from pyexec.domain.events import Event, Failed, Running, Submitted
from pyexec.domain.execution import Phase, fold
from pyexec.errors import ConsulSessionLost
from tests.support.cluster import Cluster
from tests.support.load import Job, Load
from tests.support.starts import Starts

Row = Mapping[str, object]

SCENE_RESULTS: list[Row] = []
"""The outcome of each scene, printed after all tests."""
RECOVERIES: list[Row] = []
"""Recovery times in seconds, one row for each scene and kind of recovery."""


def recovery(scene: str, what: str, seconds: Sequence[float]) -> None:
    """Add a row with the number, minimum and maximum of these times, if there are any."""
    if seconds:
        shown = {"least": min(seconds), "most": max(seconds)}
        RECOVERIES.append({"scene": scene, "what": what, "times": len(seconds), **shown})


def table(rows: Sequence[Row]) -> Sequence[str]:
    """Format rows as a Markdown table."""
    cells = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return [f"| {' | '.join(row)} |" for row in cells]


async def check(
    scene: str,
    cluster: Cluster,
    load: Load,
    starts: Starts,
    *,
    failures: Collection[str] = (),
    failures_max: int = 0,
) -> Mapping[str, Sequence[Event]]:
    """End the scene. Check that every accepted execution has ended with a true result, that no code has started twice,
    and that nothing is left behind.

    Return all logs. At most `failures_max` executions may have failed, with one of the error types `failures`."""
    known = await load.everything()
    logs = await read_logs(cluster.agents[0].address, known)
    for result in load.results.values():
        # A short-lived container may be gone before the observer attaches. Its start is also in the result.
        for line in result["stdout"].splitlines():
            starts.record(line)
    outcomes = Counter(outcome(result) for result in load.results.values())
    twice = [mark for mark, numbers in starts.seen.items() if len(numbers) > 1]
    await cluster.stop()  # fails when a container is left
    SCENE_RESULTS.append(
        {
            "scene": scene,
            "accepted": len(known),
            "ended": sum(fold(i, events).phase is Phase.ENDED for i, events in logs.items()),
            "started": len(starts.seen),
            "started twice": len(twice),
            "outcomes": ", ".join(f"{count} {name}" for name, count in outcomes.items()),
            "containers left": 0,
            "retried": load.refusals,
        }
    )
    assert not twice
    assert load.results.keys() == load.jobs.keys()
    by_id = {result["execution_id"]: mark for mark, result in load.results.items()}
    assert by_id.keys() <= known.keys(), "what was answered is known"
    refused = known.keys() - by_id.keys()
    assert len(refused) <= load.refusals, "one key is one execution"
    for execution_id, events in logs.items():
        assert fold(execution_id, events).phase is Phase.ENDED
        if execution_id in refused:
            check_never_started(events)
            continue
        assert sum(isinstance(event, Running) for event in events) <= 1
        mark = by_id[execution_id]
        check_true(load.jobs[mark], load.results[mark], starts.seen.get(mark, set()))
    assert outcomes.keys() <= {"completed", *failures}, outcomes
    assert outcomes.total() - outcomes["completed"] <= failures_max, outcomes
    for replica in cluster.replicas:
        assert "Traceback" not in replica.logs(), replica.logs()
    return logs


def check_never_started(events: Sequence[Event]) -> None:
    """Check that the execution was ended before its start, because the log did not confirm its first append."""
    submitted, failed = events
    assert isinstance(submitted, Submitted)
    assert isinstance(failed, Failed)
    assert "was not started" in failed.error, failed


def outcome(result: Mapping[str, Any]) -> str:
    return str(result["error_type"] if result["status"] == "failed" else result["status"])


def check_true(job: Job, result: Mapping[str, Any], numbers: Collection[str]) -> None:
    """Check that the result matches what was observed in the container."""
    if result["status"] == "completed":
        (number,) = numbers
        printed = f"started {job.mark} {number}\nended {job.mark}\n"
        assert (result["stdout"], result["exit_code"]) == (printed, job.code), result
    elif result["status"] == "failed" and result["error_type"] in ("queue_timeout", "image_unavailable"):
        assert not numbers, result


async def read_logs(consul: str, ids: Collection[str]) -> Mapping[str, Sequence[Event]]:
    """Read the events of these executions from the Consul at this address."""

    def no_member() -> Any:
        raise ConsulSessionLost("the test only reads")

    async with AsyncExitStack() as stack:
        kv = await stack.enter_async_context(ConsulKV(ConsulConfig(address=consul)))
        log = await stack.enter_async_context(ConsulLog.open(kv, no_member))
        return {execution_id: await log.read(execution_id) for execution_id in ids}


def after(moment: datetime, logs: Mapping[str, Sequence[Event]], kind: type[Event]) -> Sequence[float]:
    """Return the seconds from `moment` to each event of this kind, rounded to a tenth."""
    found = [event.at for events in logs.values() for event in events if isinstance(event, kind)]
    return sorted(round((at - moment).total_seconds(), 1) for at in found if at >= moment)
