"""Read what Docker counts of a container: its usage, and kills for lack of memory."""

import json
from http import HTTPStatus
from typing import Final

import anyio
from aiodocker.containers import DockerContainer

from pyexec.adapters.docker.client import get, translate_errors
from pyexec.errors import EngineError
from pyexec.ports import ContainerUsage

OOM_EVENT_SECONDS: Final = 1.0
"""How much later than the end of a container its OOM event may come."""


async def read_usage(container: DockerContainer) -> ContainerUsage:
    """Read the counters of a running container's control group, of version 1 or 2."""
    # Without `one-shot`, Docker waits for a second reading.
    params = {"stream": "0", "one-shot": "1"}
    response = await get(container.docker, f"containers/{container.id}/stats", params)
    with translate_errors():
        async with response:
            if response.status != HTTPStatus.OK:
                raise EngineError(f"container {container.id[:12]} has no statistics: {response.reason}")
            document = await response.json()
    try:
        counters = document["memory_stats"]["stats"]
        return ContainerUsage(
            cpu_seconds=document["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9,
            memory_bytes=counters["anon"] if "anon" in counters else counters["total_rss"],
        )
    except KeyError as error:  # it has just ended
        raise EngineError(f"the statistics of container {container.id[:12]} have no {error}") from error


async def has_oom_event(container: DockerContainer) -> bool:
    """Return True if Docker reports that the kernel has killed a process of the container for lack of memory.

    Docker removes a container at its end, so its state cannot be read. It keeps the last 256 events of all containers,
    and sends them before new ones."""
    filters = json.dumps({"container": [container.id], "event": ["oom"]})
    with anyio.move_on_after(OOM_EVENT_SECONDS):
        response = await get(container.docker, "events", {"since": "1", "filters": filters}, stream=True)
        with translate_errors():
            async with response:
                return response.status == HTTPStatus.OK and await response.content.readline() != b""
    return False
