"""1,000 long polls at one server on Consul: how soon each is answered, and how many Consul connections are open."""

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

from benchmarks.report import Measurement, Section
from benchmarks.timing import Samples
from tests.support.api import Answer, Api, api_of
from tests.support.consul import durable_agent
from tests.support.server import Server, running_server

T = TypeVar("T")

POLLS = 1000
CONCURRENT_REQUESTS = 20
CONNECTIONS_MAX = 20
MILLISECONDS_MAX = 1000
SEPARATE, SHARED = "one poll per execution", "all polls on one execution"
SLEEP = "import time; time.sleep(3600)"
SETTINGS = {
    "warm_pool": "0",
    "max_concurrent": "1",
    "max_queued": str(2 * POLLS),
    "default_memory_mb": "64",
    "default_disk_mb": "16",
    "default_timeout": "3600",
    "stop_timeout": "0",
}
ESTABLISHED = "01"


class PollingClient:
    """A client with any number of connections that knows how many long polls have reached the network."""

    def __init__(self, api: Api, sent: anyio.Semaphore) -> None:
        self.api = api
        self._sent = sent

    async def long_poll(self, execution_id: str) -> Answer:
        """Wait up to 60 seconds for the end of an execution."""
        path = f"/api/v1/executions/{execution_id}?wait=60"
        return await self.api.get(path, trace_request_ctx={"long poll": True})

    async def wait_until_polling(self, execution_id: str, count: int) -> None:
        """Wait until the server has received `count` more long polls."""
        for _ in range(count):
            await self._sent.acquire()
        # The server reads this request after all the polls that were sent before it.
        await self.api.get(f"/api/v1/executions/{execution_id}")


@asynccontextmanager
async def polling_client(url: str) -> AsyncIterator[PollingClient]:
    """Open a client for many long polls at one server."""
    sent = anyio.Semaphore(0)
    trace = aiohttp.TraceConfig()

    async def count_sent(_: object, context: SimpleNamespace, __: object) -> None:
        if context.trace_request_ctx:
            sent.release()

    trace.on_request_headers_sent.append(count_sent)
    connector = aiohttp.TCPConnector(limit=0)
    async with api_of(url, connector=connector, trace_configs=[trace]) as api:
        yield PollingClient(api, sent)


class LongPolls:
    """Long polls at one server, and the server's open connections to Consul meanwhile."""

    def __init__(self, client: PollingClient, pid: int, consul_port: int) -> None:
        self.connections_max = 0
        self._client = client
        self._pid = pid
        self._consul_port = consul_port

    async def measure(self, ids: Sequence[str]) -> Samples:
        """Start a long poll for each of `ids`, then kill them; time each poll from the end to the answer."""
        samples = Samples()
        async with anyio.create_task_group() as tasks:
            for execution_id in ids:
                tasks.start_soon(self._poll, execution_id, samples, name=f"poll {execution_id}")
            await self._client.wait_until_polling(ids[0], len(ids))
            self._count_connections()
            await for_each(self._kill, sorted(set(ids)))
        return samples

    async def submit(self, count: int) -> Sequence[str]:
        """Submit executions that stay in the queue; return their ids."""
        ids: list[str] = []

        async def submit(_: int) -> None:
            ids.append(await self._client.api.accepted(SLEEP))

        await for_each(submit, range(count))
        return ids

    async def _poll(self, execution_id: str, samples: Samples) -> None:
        answer = await self._client.long_poll(execution_id)
        received = time.time()
        if answer.status != 200 or answer.document["status"] != "killed":
            raise RuntimeError(f"a long poll returned {answer.status}: {answer.document}")
        samples.seconds.append(received - datetime.fromisoformat(answer.document["finished_at"]).timestamp())

    async def _kill(self, execution_id: str) -> None:
        answer = await self._client.api.kill(execution_id)
        if answer.document != {"status": "killed"}:
            raise RuntimeError(f"a kill returned {answer.status}: {answer.document}")
        self._count_connections()

    def _count_connections(self) -> None:
        now = open_connections(self._pid, self._consul_port)
        if now == 0:
            raise RuntimeError("the server has no connection to Consul")
        self.connections_max = max(self.connections_max, now)


def measure_long_polls(image: str) -> Section:
    """Measure long polls on separate executions and on one execution. Takes about half a minute."""
    with (
        tempfile.TemporaryDirectory(prefix="pyexec-bench-") as directory,
        durable_agent(Path(directory) / "consul") as agent,
        running_server(Path(directory) / "data", image, consul_addr=agent.address, **SETTINGS) as server,
    ):
        samples, connections_max = asyncio.run(_measure(server, agent.ports["http"]))
    slowest = [
        Measurement(
            name=f"slowest answer, {name}", value=max(s.seconds) * 1000, unit="ms", at_most=MILLISECONDS_MAX
        )
        for name, s in samples.items()
    ]
    connections = Measurement(
        name="connections to Consul", value=connections_max, unit="", at_most=CONNECTIONS_MAX
    )
    title = f"{POLLS:,} long polls at one server: from the end of the execution to the answer"
    return Section(title=title, samples=samples, measurements=[*slowest, connections])


async def _measure(server: Server, consul_port: int) -> tuple[Mapping[str, Samples], int]:
    """Return the times by row, and the largest number of connections to Consul."""
    async with polling_client(server.url) as client:
        sleeper = await client.api.accepted(SLEEP)  # occupies the only slot
        polls = LongPolls(client, server.process.pid, consul_port)
        samples = {
            SEPARATE: await polls.measure(await polls.submit(POLLS)),
            SHARED: await polls.measure([*await polls.submit(1)] * POLLS),
        }
        await client.api.kill(sleeper)
    return samples, polls.connections_max


async def for_each(work: Callable[[T], Awaitable[None]], items: Iterable[T]) -> None:
    """Await `work` for each item, a few at a time."""
    remaining = iter(items)

    async def worker() -> None:
        for item in remaining:
            await work(item)

    async with anyio.create_task_group() as tasks:
        for number in range(CONCURRENT_REQUESTS):
            tasks.start_soon(worker, name=f"worker {number}")


def open_connections(pid: int, port: int) -> int:
    """Count a process's established connections to a local port, from the kernel's tables."""
    table = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    to_port = {
        f"socket:[{row[9]}]"
        for row in table
        if int(row[2].partition(":")[2], 16) == port and row[3] == ESTABLISHED
    }
    return sum(link in to_port for link in _descriptor_links(Path(f"/proc/{pid}/fd")))


def _descriptor_links(directory: Path) -> Iterator[str]:
    """Yield the target of each open descriptor of a process; skip those closed meanwhile."""
    for name in os.listdir(directory):
        try:
            yield os.readlink(directory / name)
        except FileNotFoundError:
            continue
