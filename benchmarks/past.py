"""Logs of executions that have ended, written directly: running 10,000 programs would take an hour."""

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import anyio

from benchmarks.samples import Samples, timed
from pyexec.adapters.consul.kv import ConsulConfig, ConsulKV
from pyexec.adapters.consul.lease import ConsulMembership
from pyexec.adapters.consul.log import ConsulLog
from pyexec.adapters.sqlite.log import EmbeddedLog
from pyexec.domain.events import Claimed, Event, Finished, Output, Running, Submitted
from pyexec.domain.ids import execution_id
from pyexec.domain.output_log import OutputLog, Stream
from pyexec.domain.spec import Limits, Spec
from pyexec.ports import EventLog, Member

OpenLog = AbstractAsyncContextManager[EventLog]

WRITERS: Final = 12
SPREAD: Final = timedelta(minutes=4)
"""Over how long a time they ended, up to now."""
SPEC: Final = Spec(
    docker_image="python:3.12-slim",
    entrypoint="main.py",
    limits=Limits(timeout_seconds=300, network_disabled=True, memory_mb=1024, disk_mb=2048, cpu_shares=1024),
)


@asynccontextmanager
async def embedded(data_dir: Path, _: str | None) -> AsyncIterator[EventLog]:
    """The log in a data directory."""
    async with await EmbeddedLog.open(data_dir) as log:
        yield log


@asynccontextmanager
async def consul(_: Path, address: str | None) -> AsyncIterator[EventLog]:
    """The log in Consul, for a member that is given no work."""
    member = Member(replica="bench", engine="bench", address=None, slots=-1, version="bench")
    async with (
        ConsulKV(ConsulConfig(address=address or "")) as kv,
        ConsulMembership.open(kv) as membership,
        ConsulLog.open(kv, membership.fence) as log,
    ):
        await membership.join(member)
        yield log
        await membership.leave()


LOGS: Final[Mapping[str, Callable[[Path, str | None], OpenLog]]] = {"embedded": embedded, "Consul": consul}


async def fill(opened: OpenLog, size: int) -> Sequence[str]:
    """Writes so many executions that printed hello, one after the other; their ids."""
    now = datetime.now(UTC)
    moments = iter([now - SPREAD * (1 - number / size) for number in range(size)])
    ids: list[str] = []

    async def write(log: EventLog) -> None:
        for at in moments:
            name = execution_id(round(at.timestamp() * 1e9), os.urandom(8))
            await log.append(name, 0, history_of(at))
            ids.append(name)

    async with opened as log, anyio.create_task_group() as tasks:
        for number in range(WRITERS):
            tasks.start_soon(write, log, name=f"writer {number}")
    return ids


def history_of(at: datetime) -> Sequence[Event]:
    """The events of one small run."""
    output_log = OutputLog()
    output_log.append(Stream.STDOUT, b"hello\n")
    nonces = iter([os.urandom(8).hex() for _ in range(4)])
    return [
        Submitted(at=at, nonce=next(nonces), spec=SPEC),
        Claimed(at=at, nonce=next(nonces), replica="bench"),
        Running(at=at, nonce=next(nonces), engine="bench", container="bench"),
        Finished(at=at, nonce=next(nonces), exit_code=0, output=Output(inline=output_log.encode())),
    ]


async def passes(opened: Mapping[str, OpenLog], rounds: int, ttl_seconds: float) -> Mapping[str, Samples]:
    """Times the leader's search for what is to be retired, in each log by turns, by the names that they have here.
    The first is not counted: it is made once, by whoever begins to lead."""
    samples = {name: Samples() for name in opened}
    async with AsyncExitStack() as stack:
        logs = {name: await stack.enter_async_context(context) for name, context in opened.items()}
        for number in range(rounds + 1):
            for name, log in logs.items():
                with timed() as watch:
                    due = await log.ended_before(datetime.now(UTC) - timedelta(seconds=ttl_seconds), 100)
                if due:
                    raise RuntimeError(f"{name}: nothing is to be retired yet, and {len(due)} were found")
                if number > 0:
                    samples[name].seconds.append(watch.seconds)
    return samples
