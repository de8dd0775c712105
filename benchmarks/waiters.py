"""A thousand callers who wait at one server on Consul: how many connections that takes, and when they hear."""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import aiohttp
import anyio

from benchmarks.report import Amount, Section
from benchmarks.samples import Samples
from tests.support.api import Api, api_of
from tests.support.consul import durable_agent
from tests.support.server import Server, running_server

T = TypeVar("T")

WAITERS = 1000
CALLERS = 20
CONNECTIONS_MAX = 20
MILLISECONDS_MAX = 1000
EACH, ONE = "each for its own", "all for one"
SLEEP = "import time; time.sleep(3600)"
SETTINGS = {
    "warm_pool": "0",
    "max_concurrent": "1",
    "max_queued": str(2 * WAITERS),
    "default_memory_mb": "64",
    "default_disk_mb": "16",
    "default_timeout": "3600",
    "stop_timeout": "0",
}
ESTABLISHED = "01"


class Crowd:
    """Callers of one server, and its connections to Consul meanwhile. A program that sleeps has the only slot."""

    def __init__(self, api: Api, sent: anyio.Semaphore, pid: int, consul_port: int) -> None:
        self.connections_max = 0
        self._api = api
        self._sent = sent
        self._pid = pid
        self._consul_port = consul_port

    async def wait_for(self, ids: Sequence[str]) -> Samples:
        """A caller for each of `ids`, which are killed once all wait: from each end to its caller's answer."""
        samples = Samples()
        async with anyio.create_task_group() as tasks:
            for execution_id in ids:
                tasks.start_soon(self._hear, execution_id, samples, name=f"wait for {execution_id}")
            for _ in ids:
                await self._sent.acquire()
            await self._api.get(f"/api/v1/executions/{ids[0]}")  # it stands in line behind all of theirs
            self._count()
            await in_turns(self._kill, sorted(set(ids)))
        return samples

    async def submitted(self, count: int) -> Sequence[str]:
        """So many executions that wait for a slot."""
        ids: list[str] = []

        async def submit(_: int) -> None:
            ids.append(await self._api.accepted(SLEEP))

        await in_turns(submit, range(count))
        return ids

    async def _hear(self, execution_id: str, samples: Samples) -> None:
        answer = await self._api.get(
            f"/api/v1/executions/{execution_id}?wait=60", trace_request_ctx={"waiter": True}
        )
        heard = time.time()
        if answer.status != 200 or answer.document["status"] != "killed":
            raise RuntimeError(f"a waiter was answered {answer.status}: {answer.document}")
        samples.seconds.append(heard - datetime.fromisoformat(answer.document["finished_at"]).timestamp())

    async def _kill(self, execution_id: str) -> None:
        answer = await self._api.kill(execution_id)
        if answer.document != {"status": "killed"}:
            raise RuntimeError(f"a kill was answered {answer.status}: {answer.document}")
        self._count()

    def _count(self) -> None:
        now = connections(self._pid, self._consul_port)
        if now == 0:
            raise RuntimeError("the server has no connection to Consul")
        self.connections_max = max(self.connections_max, now)


def measure_waiters(image: str) -> Section:
    """Takes about half a minute."""
    with (
        tempfile.TemporaryDirectory(prefix="pyexec-bench-") as directory,
        durable_agent(Path(directory) / "consul") as agent,
        running_server(Path(directory) / "data", image, consul_addr=agent.address, **SETTINGS) as server,
    ):
        samples, most = asyncio.run(_measure(server, agent.ports["http"]))
    slowest = [
        Amount(
            name=f"slowest answer, {name}", value=max(s.seconds) * 1000, unit="ms", at_most=MILLISECONDS_MAX
        )
        for name, s in samples.items()
    ]
    connected = Amount(name="connections to Consul", value=most, unit="", at_most=CONNECTIONS_MAX)
    title = "1,000 waiters at one server: from an end to the answer"
    return Section(title=title, samples=samples, amounts=[*slowest, connected])


async def _measure(server: Server, consul_port: int) -> tuple[Mapping[str, Samples], int]:
    """From each end to each answer, and the most connections to Consul that were seen."""
    async with callers(server.url) as (api, sent):
        sleeper = await api.accepted(SLEEP)
        crowd = Crowd(api, sent, server.process.pid, consul_port)
        samples = {
            EACH: await crowd.wait_for(await crowd.submitted(WAITERS)),
            ONE: await crowd.wait_for([*await crowd.submitted(1)] * WAITERS),
        }
        await api.kill(sleeper)
    return samples, crowd.connections_max


@asynccontextmanager
async def callers(url: str) -> AsyncIterator[tuple[Api, anyio.Semaphore]]:
    """A client of any number of connections, and what counts the waiters' requests that are on their way."""
    sent = anyio.Semaphore(0)
    trace = aiohttp.TraceConfig()

    async def note(_: object, context: SimpleNamespace, __: object) -> None:
        if context.trace_request_ctx:
            sent.release()

    trace.on_request_headers_sent.append(note)
    connector = aiohttp.TCPConnector(limit=0)
    async with api_of(url, connector=connector, trace_configs=[trace]) as api:
        yield api, sent


async def in_turns(work: Callable[[T], Awaitable[None]], items: Iterable[T]) -> None:
    """All of them, a few at a time."""
    left = iter(items)

    async def caller() -> None:
        for item in left:
            await work(item)

    async with anyio.create_task_group() as tasks:
        for number in range(CALLERS):
            tasks.start_soon(caller, name=f"caller {number}")


def connections(pid: int, port: int) -> int:
    """A process's established connections to a local port, as the kernel has them."""
    table = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    to_port = {
        f"socket:[{row[9]}]"
        for row in table
        if int(row[2].partition(":")[2], 16) == port and row[3] == ESTABLISHED
    }
    return sum(link in to_port for link in _links(Path(f"/proc/{pid}/fd")))


def _links(directory: Path) -> Iterator[str]:
    """Where a process's descriptors lead; one may be closed meanwhile."""
    for name in os.listdir(directory):
        try:
            yield os.readlink(directory / name)
        except FileNotFoundError:
            continue
