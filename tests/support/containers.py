"""Query the Docker engine for the containers of a server."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import anyio
from aiodocker import Docker, DockerError
from aiodocker.containers import DockerContainer

PATIENCE_SECONDS = 120


async def containers(deployment: str, host: str | None = None) -> Collection[str]:
    """The ids of all containers of a deployment, running or not."""
    return set(await owners(deployment, host))


async def owners(deployment: str, host: str | None = None) -> Mapping[str, str]:
    """The replica that each container of a deployment belongs to."""
    filters = json.dumps({"label": [f"pyexec.deployment={deployment}"]})
    async with Docker(url=host) as docker:
        listed = await docker.containers.list(all=1, filters=filters)
        replicas = {container.id: container["Labels"]["pyexec.replica"] for container in listed}
        return {container.id: replicas[container.id] for container in listed if await _exists(container)}


async def _exists(container: DockerContainer) -> bool:
    """Ask for the container itself: after its own crash an engine may list one that it then says is not there."""
    try:
        await container.show()
    except DockerError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return False
        raise
    return True


async def until_containers(deployment: str, count: int, *, host: str | None = None) -> Collection[str]:
    """The containers, once there are `count`; waits for the engine's events, and fails when that never comes."""
    found = await containers(deployment, host)
    if len(found) == count:
        return found
    try:
        with anyio.fail_after(PATIENCE_SECONDS):
            async with changes(deployment, host) as changed:
                while len(found := await containers(deployment, host)) != count:
                    await changed()
    except TimeoutError:
        raise AssertionError(f"{len(found)} containers are there, not {count}: {sorted(found)}") from None
    return found


async def until_no_others(deployment: str, replicas: Collection[str], *, host: str | None = None) -> None:
    """Returns once every container of a deployment belongs to one of these replicas."""
    with anyio.fail_after(PATIENCE_SECONDS):
        async with changes(deployment, host) as changed:
            while not set((await owners(deployment, host)).values()) <= set(replicas):
                await changed()


@asynccontextmanager
async def changes(deployment: str, host: str | None) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """What returns each time something happens to a container of a deployment."""
    events = await asyncio.create_subprocess_exec(
        "docker", "events", "--since", str(int(time.time())), "--format", "{{.Action}}",
        "--filter", f"label=pyexec.deployment={deployment}",
        stdout=asyncio.subprocess.PIPE,
        env=environment(host),
    )  # fmt: skip
    if events.stdout is None:
        raise RuntimeError("docker events has no output")
    try:
        yield events.stdout.readline
    finally:
        events.kill()
        await events.wait()


def environment(host: str | None) -> Mapping[str, str]:
    """That of a `docker` command: for the shared engine, or another."""
    return os.environ if host is None else {**os.environ, "DOCKER_HOST": host}


async def remove(container: str) -> None:
    """Removes it by force, as an engine's operator would."""
    async with Docker() as docker:
        await docker.containers.container(container).delete(force=True)


def deployment_of(data_dir: Path) -> str:
    """The id by which a server marks its containers."""
    return (data_dir / "deployment").read_text().strip()
