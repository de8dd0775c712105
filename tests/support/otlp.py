"""A collector of traces: it receives spans over OTLP/HTTP and keeps them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from aiohttp import web
from attrs import define, field
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SPAN_SECONDS = 30


@define
class Collector:
    """The spans that arrived at `url`, and the ids of the replicas that sent them."""

    url: str = ""
    spans: list[tuple[str, Any]] = field(factory=list)
    _changed: anyio.Event = field(factory=anyio.Event)

    async def receive(self, request: web.Request) -> web.Response:
        for group in ExportTraceServiceRequest.FromString(await request.read()).resource_spans:
            resource = {each.key: each.value.string_value for each in group.resource.attributes}
            for scope in group.scope_spans:
                self.spans += [(resource["service.instance.id"], span) for span in scope.spans]
        self._changed.set()
        self._changed = anyio.Event()
        return web.Response(content_type="application/x-protobuf")

    async def trace(self, trace_id: str) -> dict[str, tuple[str, Any]]:
        """Return the spans of a trace by name, each with its sender, once its execution has ended."""
        with anyio.fail_after(SPAN_SECONDS):
            while True:
                found = {span.name: (by, span) for by, span in self.spans if span.trace_id.hex() == trace_id}
                if {"execution", "accept", "queued"} <= found.keys():
                    return found
                await self._changed.wait()


@asynccontextmanager
async def running_collector(address: str = "127.0.0.1") -> AsyncIterator[Collector]:
    """Run a collector on a free port of this machine's address."""
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, 0).start()
        collector.url = f"http://{address}:{runner.addresses[0][1]}"
        yield collector
    finally:
        await runner.cleanup()
