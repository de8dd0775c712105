"""Test what the Docker adapter reads of a container's counters and events, from a server in Docker's place."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import anyio
import pytest
from aiodocker import Docker
from aiohttp import web
from aiohttp.test_utils import TestServer

from pyexec.adapters.docker import accounting
from pyexec.adapters.docker.accounting import has_oom_event, read_usage
from pyexec.adapters.docker.client import close_client, open_client
from pyexec.errors import EngineError
from pyexec.metrics import NOOP_METER
from pyexec.ports import ContainerUsage

V1 = {"usage": 9, "max_usage": 10, "stats": {"rss": 1, "total_rss": 4096, "total_cache": 7}}
V2 = {"usage": 9, "stats": {"anon": 4096, "file": 7, "shmem": 3}}
CPU = {"cpu_usage": {"total_usage": 1_500_000_000}, "system_cpu_usage": 1}
OOM = b'{"status": "oom", "id": "c0ffee", "Type": "container", "Action": "oom"}\n'


class DockerStandIn:
    """Answers the requests of the adapter as Docker 20.10 does."""

    def __init__(self) -> None:
        self.stats: Mapping[str, Any] | None = None
        self.events = b""
        self.filters = ""

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"ApiVersion": "1.41"})

    async def send_stats(self, request: web.Request) -> web.Response:
        assert dict(request.query) == {"stream": "0", "one-shot": "1"}
        if self.stats is None:
            raise web.HTTPNotFound
        return web.json_response(self.stats)

    async def send_events(self, request: web.Request) -> web.StreamResponse:
        """Send old events, and wait for new ones until the client hangs up."""
        self.filters = request.query["filters"]
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(self.events)
        while True:
            await response.write(b"")
            if request.transport is None or request.transport.is_closing():
                return response
            await anyio.sleep(0.01)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> DockerStandIn:
    monkeypatch.setattr(accounting, "OOM_EVENT_SECONDS", 0.3)
    return DockerStandIn()


@pytest.fixture
async def docker(stand_in: DockerStandIn) -> AsyncIterator[Docker]:
    app = web.Application()
    app.router.add_get("/{prefix:.*}version", stand_in.version)
    app.router.add_get("/v1.41/containers/c0ffee/stats", stand_in.send_stats)
    app.router.add_get("/v1.41/events", stand_in.send_events)
    async with TestServer(app) as server:
        client = open_client(f"tcp://127.0.0.1:{server.port}", 5, NOOP_METER)
        yield client
        await close_client(client)


@pytest.mark.parametrize("memory", [V1, V2], ids=["version 1", "version 2"])
async def test_usage_is_read_from_control_groups(
    docker: Docker, stand_in: DockerStandIn, memory: Mapping[str, Any]
) -> None:
    stand_in.stats = {"cpu_stats": CPU, "memory_stats": memory}
    usage = await read_usage(docker.containers.container("c0ffee"))
    assert usage == ContainerUsage(cpu_seconds=1.5, memory_bytes=4096)


@pytest.mark.parametrize(
    "stats", [None, {"cpu_stats": {"cpu_usage": {"total_usage": 0}}, "memory_stats": {}}]
)
async def test_an_ended_container_has_no_usage(
    docker: Docker, stand_in: DockerStandIn, stats: Mapping[str, Any] | None
) -> None:
    stand_in.stats = stats
    with pytest.raises(EngineError):
        await read_usage(docker.containers.container("c0ffee"))


@pytest.mark.parametrize(("events", "expected"), [(OOM, True), (b"", False)])
async def test_oom_events_are_found_or_waited_for(
    docker: Docker, stand_in: DockerStandIn, events: bytes, expected: bool
) -> None:
    stand_in.events = events
    assert await has_oom_event(docker.containers.container("c0ffee")) is expected
    assert stand_in.filters == '{"container": ["c0ffee"], "event": ["oom"]}'
