"""A client for the HTTP API that sends raw requests, without retries. It relies only on docs/api.md."""

import base64
import io
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import anyio
from attrs import frozen

from tests.support.archives import script

PATIENCE_SECONDS = 120
TAR, METADATA = "tar", "metadata"


@frozen
class Answer:
    """A response: status, headers, and the JSON document."""

    status: int
    headers: Mapping[str, str]
    document: Any


@frozen
class Event:
    """One Server-Sent Event."""

    name: str
    id: str
    data: Any

    @property
    def output(self) -> bytes:
        return base64.b64decode(self.data["data"])


class Api:
    """A client of one server."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def request(self, method: str, path: str, **options: Any) -> Answer:
        async with self.session.request(method, path, **options) as response:
            text = await response.text()
            return Answer(response.status, response.headers, json.loads(text) if text else None)

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.request("GET", path, **options)

    async def sync(self, archive: Any, metadata: Any = None, **options: Any) -> Answer:
        return await self.request("POST", "/api/v1/exec/sync", data=form(archive, metadata), **options)

    async def submit(self, archive: Any, metadata: Any = None, **options: Any) -> Answer:
        return await self.request("POST", "/api/v1/exec/async", data=form(archive, metadata), **options)

    async def eval(self, body: Any, **options: Any) -> Answer:
        return await self.request("POST", "/api/v1/eval", json=body, **options)

    async def run(self, source: str, **metadata: Any) -> Any:
        """Run a script with /exec/sync and return its result; fail if the response is an error."""
        answer = await self.sync(script(source), metadata)
        assert answer.status == 200, answer.document
        return answer.document

    async def accepted(self, source: str, **metadata: Any) -> str:
        """Submit a script with /exec/async and return the id; fail if the response is an error."""
        answer = await self.submit(script(source), metadata)
        assert answer.status == 202, answer.document
        return str(answer.document["execution_id"])

    async def ended(self, execution_id: str) -> Any:
        """Wait with long polls until the execution has ended; return its result."""
        while True:
            answer = await self.get(f"/api/v1/executions/{execution_id}?wait=60")
            assert answer.status == 200, answer.document
            if answer.document["status"] not in ("pending", "running"):
                return answer.document

    async def newest(self) -> str | None:
        """Return the id of the newest execution; None if there is none."""
        listed = (await self.get("/api/v1/executions?limit=1")).document["executions"]
        return listed[0]["execution_id"] if listed else None

    async def kill(self, execution_id: str) -> Answer:
        return await self.request("DELETE", f"/api/v1/executions/{execution_id}")

    @asynccontextmanager
    async def events(
        self, execution_id: str, after: str | None = None
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """Open the event stream of an execution, after a position."""
        headers = {} if after is None else {"Last-Event-ID": after}
        async with self.session.get(f"/api/v1/executions/{execution_id}/events", headers=headers) as response:
            if after is None or response.status != 204:  # 204: nothing can follow the last event
                assert response.status == 200, await response.text()
                assert response.content_type == "text/event-stream"
            yield parse_events(response)

    async def all_events(self, execution_id: str, after: str | None = None) -> list[Event]:
        async with self.events(execution_id, after) as events:
            return [event async for event in events]

    async def until_event(self, execution_id: str, name: str) -> None:
        """Wait for an event with this name; fail if the execution ends before."""
        async with self.events(execution_id) as events:
            async for event in events:
                if event.name == name:
                    return
        raise AssertionError(f"{execution_id} has ended without {name}")

    async def until_printed(self, execution_id: str, wanted: bytes) -> None:
        """Wait until the program has printed `wanted`; fail if the execution ends before."""
        printed = b""
        async with self.events(execution_id) as events:
            async for event in events:
                printed += event.output if event.name == "output" else b""
                if wanted in printed:
                    return
        raise AssertionError(f"{execution_id} ended and had printed {printed[:200]!r}")


async def until_not_ready(api: Api) -> Mapping[str, str]:
    """Wait until /ready reports that the server does not accept work; return the reasons."""
    return (await _until_ready_says(api, lambda answer: answer.status == 503)).document["reasons"]


async def until_ready(api: Api) -> None:
    """Wait until /ready reports that the server accepts work."""
    await _until_ready_says(api, lambda answer: answer.status == 200)


async def until_unready_for(api: Api, reason: str) -> str:
    """Wait until /ready names this check as a reason; return the text."""
    answer = await _until_ready_says(
        api, lambda answer: answer.status == 503 and reason in answer.document["reasons"]
    )
    return str(answer.document["reasons"][reason])


async def pause() -> None:
    """Wait before a test asks again. Without this, the test and the server would keep two processors busy."""
    await anyio.sleep(0.05)


async def _until_ready_says(api: Api, wanted: Callable[[Answer], bool]) -> Answer:
    with anyio.fail_after(PATIENCE_SECONDS):
        while not wanted(answer := await api.get("/ready")):
            await pause()
    return answer


@asynccontextmanager
async def api_of(url: str, **options: Any) -> AsyncIterator[Api]:
    """Yield a client of the server at `url`."""
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(url, timeout=timeout, **options) as session:
        yield Api(url, session)


def form(
    archive: Any = None,
    metadata: Any = None,
    *,
    order: Sequence[str] = (METADATA, TAR),
    metadata_as_file: bool = False,
) -> aiohttp.FormData:
    """Return a multipart body. `metadata` is a document or raw text. A part that is None is left out."""
    body = aiohttp.FormData(default_to_multipart=True)
    for name in order:
        if name == TAR and archive is not None:
            file = io.BytesIO(archive) if isinstance(archive, bytes) else archive
            body.add_field(name, file, filename="main.tar", content_type="application/x-tar")
        elif name == METADATA and metadata is not None:
            text = metadata if isinstance(metadata, str | bytes) else json.dumps(metadata)
            if isinstance(text, bytes):  # not a file, but aiohttp takes no other bytes
                text = aiohttp.BytesPayload(text)
            elif len(text) > 1024 * 1024:
                text = io.BytesIO(text.encode())
            options = {"filename": "metadata.json", "content_type": "application/json"}
            body.add_field(name, text, **(options if metadata_as_file else {}))
    return body


async def parse_events(response: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    """Yield the events of a stream until it ends, without comments."""
    fields: dict[str, str] = {}
    async for line in response.content:
        text = line.decode().rstrip("\n")
        if not text and fields:
            yield Event(fields["event"], fields["id"], json.loads(fields["data"]))
            fields = {}
        elif text and not text.startswith(":"):
            name, _, value = text.partition(": ")
            fields[name] = value
