"""Query the Docker engine for the containers of a server."""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from ipaddress import ip_network
from pathlib import Path

import anyio
from aiodocker import Docker, DockerError
from aiodocker.containers import DockerContainer

PATIENCE_SECONDS = 120


def gateway(network: str = "bridge") -> str:
    """Return this machine's address on a Docker network. The default is Docker's own default network."""
    inspect = subprocess.run(
        ["docker", "network", "inspect", network], check=True, stdout=subprocess.PIPE, text=True
    )
    config = json.loads(inspect.stdout)[0]["IPAM"]["Config"][0]
    # Docker does not tell the gateway of its default network until its second start. It is the first address.
    first = next(ip_network(config["Subnet"]).hosts())
    return str(config.get("Gateway", first))


async def containers(deployment: str, host: str | None = None) -> Collection[str]:
    """Return the ids of all containers of a deployment, running or not."""
    return set(await owners(deployment, host))


async def owners(deployment: str, host: str | None = None) -> Mapping[str, str]:
    """Return the replica of each container of a deployment."""
    filters = json.dumps({"label": [f"pyexec.deployment={deployment}"]})
    async with Docker(url=host) as docker:
        listed = await docker.containers.list(all=1, filters=filters)
        replicas = {container.id: container["Labels"]["pyexec.replica"] for container in listed}
        return {container.id: replicas[container.id] for container in listed if await _exists(container)}


async def _exists(container: DockerContainer) -> bool:
    """Return True if the engine can inspect the container. After a crash, it may list containers that do not exist."""
    try:
        await container.show()
    except DockerError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return False
        raise
    return True


async def until_containers(deployment: str, count: int, *, host: str | None = None) -> Collection[str]:
    """Wait for events of the engine until there are `count` containers; return them. Fail after a timeout."""
    found = await containers(deployment, host)
    if len(found) == count:
        return found
    try:
        with anyio.fail_after(PATIENCE_SECONDS):
            async with changes(deployment, host) as changed:
                while len(found := await containers(deployment, host)) != count:
                    await changed()
    except TimeoutError:
        raise AssertionError(f"found {len(found)} containers, expected {count}: {sorted(found)}") from None
    return found


async def until_at_most(deployment: str, count: int) -> None:
    """Wait for events of the engine until there are at most `count` containers. Fail after a timeout."""
    if len(await containers(deployment)) <= count:
        return
    with anyio.fail_after(PATIENCE_SECONDS):
        async with changes(deployment, None) as changed:
            while len(await containers(deployment)) > count:
                await changed()


async def until_no_others(deployment: str, replicas: Collection[str], *, host: str | None = None) -> None:
    """Wait until every container of a deployment belongs to one of these replicas."""
    with anyio.fail_after(PATIENCE_SECONDS):
        async with changes(deployment, host) as changed:
            while not set((await owners(deployment, host)).values()) <= set(replicas):
                await changed()


@asynccontextmanager
async def changes(deployment: str, host: str | None) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Yield a function that waits for the next event of a container of the deployment."""
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
    """Return the environment of a `docker` command for the engine at `host`; None is the shared engine."""
    return os.environ if host is None else {**os.environ, "DOCKER_HOST": host}


async def remove(container: str) -> None:
    """Remove a container by force, as an operator does."""
    async with Docker() as docker:
        await docker.containers.container(container).delete(force=True)


def deployment_of(data_dir: Path) -> str:
    """Return the deployment id of a server, which its containers have as a label."""
    return (data_dir / "deployment").read_text().strip()
