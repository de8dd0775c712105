"""Count how often the code of each program has started, from the output of its containers.

Neither the log nor a server is asked. An observer attaches to every container of the deployment as Docker starts it,
and reads what the supervisor sends. A program's first act is to print its mark and a number that the kernel makes
anew for each reader: two starts of one program are two numbers, in two containers or in one."""

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
from pyexec.sandbox.protocol import Decoder, OutputChunk
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
"""Its arguments: its mark, how many seconds it takes, and its exit code."""

logger = logging.getLogger(__name__)


@define
class Starts:
    """The numbers that were seen of each mark."""

    seen: dict[str, set[str]] = field(factory=lambda: defaultdict(set))
    containers: int = 0
    _news: anyio.Event = field(factory=anyio.Event)

    def note(self, line: str) -> None:
        """Takes in a line that a program has printed."""
        match line.split():
            case ["started", mark, number]:
                self.seen[mark].add(number)
                news, self._news = self._news, anyio.Event()
                news.set()

    async def until(self, mark: str) -> None:
        """Returns once this program's code has started."""
        while mark not in self.seen:
            await self._news.wait()

    async def follow(self, docker: Docker, container_id: str) -> None:
        """Reads what a container prints to its end, from the first byte on once more when its engine restarts."""
        self.containers += 1
        container = docker.containers.container(container_id)
        while True:
            try:
                await self._read(container)
                if not (await container.show())["State"]["Running"]:
                    return
            except SandboxBroken as error:
                logger.info("container %s is followed no more: %s", container_id[:12], error)
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
                    self.note(line)


@asynccontextmanager
async def observed_starts(deployment: str, host: str | None = None) -> AsyncIterator[Starts]:
    """Observes every container of a deployment from here on, and those that are there."""
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
    """Follows each container once, also those that a restarted engine starts."""
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
    """The containers that are there, and each that starts or has `since`, for as long as the engine answers.

    `docker events` takes a while until it listens, and perhaps did not the last time."""
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
