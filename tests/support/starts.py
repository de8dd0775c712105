"""How often each program's code has started, as its containers themselves show it.

Neither the log nor a server is asked. An observer attaches to every container of the deployment as Docker starts it,
and reads what the supervisor sends. A program's first act is to print its mark and a number that the kernel makes
anew for each reader: two starts of one program are two numbers, in two containers or in one."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from aiodocker import Docker, DockerError
from attrs import define, field

from pyexec.errors import SandboxBroken
from pyexec.sandbox.protocol import Decoder, Printed

STDOUT = 1

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
        """Reads what a container prints to its end."""
        self.containers += 1
        decoder, text = Decoder(), ""
        try:
            async with docker.containers.container(container_id).attach(stdout=True, logs=True) as stream:
                while (message := await stream.read_out()) is not None:
                    for frame in decoder.feed(message.data) if message.stream == STDOUT else ():
                        text += frame.data.decode() if isinstance(frame, Printed) else ""
                    *lines, text = text.split("\n")
                    for line in lines:
                        self.note(line)
        except (DockerError, SandboxBroken, ConnectionError) as error:
            logger.info("container %s is followed no more: %s", container_id[:12], error)


@asynccontextmanager
async def observed_starts(deployment: str) -> AsyncIterator[Starts]:
    """Observes every container of a deployment from here on, and those that are there."""
    starts = Starts()
    label = f"label=pyexec.deployment={deployment}"
    events = await asyncio.create_subprocess_exec(
        "docker", "events", "--filter", label, "--filter", "event=start", "--format", "{{.ID}}",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    docker = Docker()
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_follow_all, starts, docker, events, deployment, name="observe starts")
            yield starts
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            events.kill()
            await events.wait()
            await docker.close()


async def _follow_all(
    starts: Starts, docker: Docker, events: asyncio.subprocess.Process, deployment: str
) -> None:
    assert events.stdout is not None
    known = set()
    async with anyio.create_task_group() as tasks:
        there = await docker.containers.list(filters={"label": [f"pyexec.deployment={deployment}"]})
        for container in there:
            known.add(container.id)
            tasks.start_soon(starts.follow, docker, container.id, name=f"observe {container.id[:12]}")
        while line := (await events.stdout.readline()).decode().strip():
            if line not in known:
                known.add(line)
                tasks.start_soon(starts.follow, docker, line, name=f"observe {line[:12]}")
