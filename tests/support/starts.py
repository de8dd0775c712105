"""Count how often the code of each program has started, from the output of its containers.

This relies neither on the event log nor on a server. An observer attaches to every container of the deployment when
Docker starts it, and reads the frames of the supervisor. Each program first prints its mark and a random number from
the kernel. So two numbers for one mark mean that the program has started twice, in two containers or in one."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from aiodocker import Docker, DockerError
from aiodocker.containers import DockerContainer
from attrs import define, field

from pyexec.errors import SandboxBroken
from pyexec.sandbox.decoder import Decoder
from pyexec.sandbox.protocol import OutputChunk
from tests.support.containers import environment

STDOUT = 1
GONE = (404, 409)
PAUSE_SECONDS = 0.1

PROGRAM = """\
import sys, time
with open("/proc/sys/kernel/random/uuid") as file:
    print("started", sys.argv[1], file.read().strip(), flush=True)
time.sleep(float(sys.argv[2]))
print("ended", sys.argv[1], flush=True)
sys.exit(int(sys.argv[3]))
"""
"""Arguments: the program's mark, its duration in seconds, and its exit code."""

logger = logging.getLogger(__name__)


@define
class Starts:
    """The random numbers that were printed with each mark."""

    seen: dict[str, set[str]] = field(factory=lambda: defaultdict(set))
    containers: int = 0
    _news: anyio.Event = field(factory=anyio.Event)

    def record(self, line: str) -> None:
        """Record a line that a program has printed."""
        match line.split():
            case ["started", mark, number]:
                self.seen[mark].add(number)
                news, self._news = self._news, anyio.Event()
                news.set()

    async def until(self, mark: str) -> None:
        """Wait until the code of the program with this mark has started."""
        while mark not in self.seen:
            await self._news.wait()

    async def follow(self, docker: Docker, container_id: str) -> None:
        """Read the output of a container until it ends. After a restart of the engine, begin at the first byte."""
        self.containers += 1
        container = docker.containers.container(container_id)
        while True:
            try:
                await self._read(container)
                if not (await container.show())["State"]["Running"]:
                    return
            except SandboxBroken as error:
                logger.info("no longer following container %s: %s", container_id[:12], error)
                return
            except (DockerError, ConnectionError) as error:
                if isinstance(error, DockerError) and error.status in GONE:
                    return
            await anyio.sleep(PAUSE_SECONDS)

    async def _read(self, container: DockerContainer) -> None:
        decoder, text = Decoder(), ""
        async with container.attach(stdout=True, logs=True) as stream:
            while (message := await stream.read_out()) is not None:
                for frame in decoder.feed(message.data) if message.stream == STDOUT else ():
                    text += frame.data.decode() if isinstance(frame, OutputChunk) else ""
                *lines, text = text.split("\n")
                for line in lines:
                    self.record(line)


@asynccontextmanager
async def observed_starts(deployment: str, host: str | None = None) -> AsyncIterator[Starts]:
    """Observe the containers of a deployment inside the block, including those that exist already."""
    starts = Starts()
    docker = Docker(url=host)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_follow_all, starts, docker, deployment, host, name="observe starts")
            yield starts
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await docker.close()


async def _follow_all(starts: Starts, docker: Docker, deployment: str, host: str | None) -> None:
    """Follow each container once, also those that a restarted engine starts."""
    known, before = set(), time.time()
    async with anyio.create_task_group() as tasks:
        while True:
            since, before = before, time.time()
            async for container_id in _started(docker, deployment, host, since):
                if container_id not in known:
                    known.add(container_id)
                    tasks.start_soon(starts.follow, docker, container_id, name=f"observe {container_id[:12]}")
            await anyio.sleep(PAUSE_SECONDS)


async def _started(docker: Docker, deployment: str, host: str | None, since: float) -> AsyncIterator[str]:
    """Yield the containers that exist, and those that have started since `since` or start now, until the engine stops.

    `since` covers the time before `docker events` begins to listen."""
    label = f"pyexec.deployment={deployment}"
    events = await asyncio.create_subprocess_exec(
        "docker", "events", "--since", str(int(since) - 1), "--filter", f"label={label}",
        "--filter", "event=start", "--format", "{{.ID}}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment(host),
    )  # fmt: skip
    assert events.stdout is not None
    try:
        for container in await docker.containers.list(filters={"label": [label]}):
            yield container.id
        while line := (await events.stdout.readline()).decode().strip():
            yield line
    except DockerError as error:
        logger.info("the engine does not answer: %s", error)
    finally:
        with anyio.CancelScope(shield=True):
            if events.returncode is None:
                events.kill()
            await events.wait()
