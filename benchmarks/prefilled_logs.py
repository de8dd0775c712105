"""Event logs filled with ended executions directly: running 10,000 programs would take an hour."""

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import anyio

from benchmarks.timing import Samples, timed
from pyexec.adapters.consul.config import ConsulConfig
from pyexec.adapters.consul.kv import ConsulKV
from pyexec.adapters.consul.log import ConsulLog
from pyexec.adapters.consul.membership import ConsulMembership
from pyexec.adapters.sqlite.log import EmbeddedLog
from pyexec.domain.events import Claimed, Event, Finished, Output, Running, Submitted
from pyexec.domain.ids import execution_id
from pyexec.domain.output_log import OutputLog, Stream
from pyexec.domain.spec import Limits, Spec
from pyexec.ports import EventLog, Member

OpenLog = AbstractAsyncContextManager[EventLog]

WRITERS: Final = 12
TIME_SPAN: Final = timedelta(minutes=4)
"""The executions ended at even intervals within this time before now."""
SPEC: Final = Spec(
    docker_image="python:3.12-slim",
    entrypoint="main.py",
    limits=Limits(timeout_seconds=300, network_disabled=True, memory_mb=1024, disk_mb=2048, cpu_shares=1024),
)


@asynccontextmanager
async def open_embedded(data_dir: Path, _: str | None) -> AsyncIterator[EventLog]:
    """Open the embedded log in a data directory."""
    async with await EmbeddedLog.open(data_dir) as log:
        yield log


@asynccontextmanager
async def open_consul(_: Path, address: str | None) -> AsyncIterator[EventLog]:
    """Open the log in Consul as a member with no slots, which is given no work."""
    member = Member(replica="bench", engine="bench", address=None, slots=-1, version="bench")
    async with (
        ConsulKV(ConsulConfig(address=address or "")) as kv,
        ConsulMembership.open(kv) as membership,
        ConsulLog.open(kv, membership.fence) as log,
    ):
        await membership.join(member)
        yield log
        await membership.leave()


OPENERS: Final[Mapping[str, Callable[[Path, str | None], OpenLog]]] = {
    "embedded": open_embedded,
    "Consul": open_consul,
}


async def fill(opened: OpenLog, size: int) -> Sequence[str]:
    """Write `size` ended executions that printed hello; return their ids."""
    now = datetime.now(UTC)
    moments = iter([now - TIME_SPAN * (1 - number / size) for number in range(size)])
    ids: list[str] = []

    async def write(log: EventLog) -> None:
        for at in moments:
            name = execution_id(round(at.timestamp() * 1e9), os.urandom(8))
            await log.append(name, 0, events_of_small_run(at))
            ids.append(name)

    async with opened as log, anyio.create_task_group() as tasks:
        for number in range(WRITERS):
            tasks.start_soon(write, log, name=f"writer {number}")
    return ids


def events_of_small_run(at: datetime) -> Sequence[Event]:
    """Return the events of a run that printed hello at the given time."""
    output_log = OutputLog()
    output_log.append(Stream.STDOUT, b"hello\n")
    nonces = iter([os.urandom(8).hex() for _ in range(4)])
    return [
        Submitted(at=at, nonce=next(nonces), spec=SPEC),
        Claimed(at=at, nonce=next(nonces), replica="bench"),
        Running(at=at, nonce=next(nonces), engine="bench", container="bench"),
        Finished(at=at, nonce=next(nonces), exit_code=0, output=Output(inline=output_log.encode())),
    ]


async def time_retention_scans(
    opened: Mapping[str, OpenLog], rounds: int, ttl_seconds: float
) -> Mapping[str, Samples]:
    """Time the leader's search for executions to retire; the logs take turns.

    Each log's first scan is not counted: it lists the whole log, while later scans list only what has become due."""
    samples = {name: Samples() for name in opened}
    async with AsyncExitStack() as stack:
        logs = {name: await stack.enter_async_context(context) for name, context in opened.items()}
        for number in range(rounds + 1):
            for name, log in logs.items():
                with timed() as watch:
                    due = await log.list_ended(datetime.now(UTC) - timedelta(seconds=ttl_seconds), 100)
                if due:
                    raise RuntimeError(f"{name}: found {len(due)} executions to retire; expected none")
                if number > 0:
                    samples[name].seconds.append(watch.seconds)
    return samples
