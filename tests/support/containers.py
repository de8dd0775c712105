"""What a server has on the Docker engine, as the engine itself tells it."""

import asyncio
import json
import time
from collections.abc import Collection
from pathlib import Path

import anyio

PATIENCE_SECONDS = 120


async def containers(deployment: str) -> Collection[str]:
    """The ids of all containers of a deployment, running or not."""
    listed = await _docker("ps", "-aq", "--no-trunc", "--filter", f"label=pyexec.deployment={deployment}")
    return set(listed.split())


async def until_containers(deployment: str, count: int) -> Collection[str]:
    """The containers, once there are `count`; waits for the engine's events, and fails when that never comes."""
    events = await asyncio.create_subprocess_exec(
        "docker", "events", "--since", str(int(time.time())), "--format", "{{.Action}}",
        "--filter", f"label=pyexec.deployment={deployment}",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    if events.stdout is None:
        raise RuntimeError("docker events has no output")
    found: Collection[str] = ()
    try:
        with anyio.fail_after(PATIENCE_SECONDS):
            while len(found := await containers(deployment)) != count:
                await events.stdout.readline()
    except TimeoutError:
        raise AssertionError(f"{len(found)} containers are there, not {count}: {sorted(found)}") from None
    finally:
        events.kill()
        await events.wait()
    return found


async def labels_of(container: str) -> dict[str, str]:
    labels: dict[str, str] = json.loads(
        await _docker("inspect", "--format", "{{json .Config.Labels}}", container)
    )
    return labels


async def remove(container: str) -> None:
    """Removes it by force, as an engine's operator would."""
    await _docker("rm", "-f", container)


def deployment_of(data_dir: Path) -> str:
    """The id by which a server marks its containers."""
    return (data_dir / "deployment").read_text().strip()


async def _docker(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "docker", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"docker {' '.join(arguments)}: {err.decode()}")
    return out.decode()
