"""The HTTP API as raw requests: nothing here knows more than docs/api.md says, and nothing is retried."""

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
    """One answer: status, headers, and the JSON document."""

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
    """One server, as one client of it sees it."""

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
        """The Result of a script, run by sync; fails when there is none."""
        answer = await self.sync(script(source), metadata)
        assert answer.status == 200, answer.document
        return answer.document

    async def accepted(self, source: str, **metadata: Any) -> str:
        """The id of a script that was accepted by async."""
        answer = await self.submit(script(source), metadata)
        assert answer.status == 202, answer.document
        return str(answer.document["execution_id"])

    async def ended(self, execution_id: str) -> Any:
        """The Result once it has ended, by long polls."""
        while True:
            answer = await self.get(f"/api/v1/executions/{execution_id}?wait=60")
            assert answer.status == 200, answer.document
            if answer.document["status"] not in ("pending", "running"):
                return answer.document

    async def newest(self) -> str | None:
        """The id of the newest execution."""
        listed = (await self.get("/api/v1/executions?limit=1")).document["executions"]
        return listed[0]["execution_id"] if listed else None

    async def kill(self, execution_id: str) -> Answer:
        return await self.request("DELETE", f"/api/v1/executions/{execution_id}")

    @asynccontextmanager
    async def events(
        self, execution_id: str, after: str | None = None
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """Its event stream, after a position."""
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
        """Returns once such an event has happened, and fails when it ends before."""
        async with self.events(execution_id) as events:
            async for event in events:
                if event.name == name:
                    return
        raise AssertionError(f"{execution_id} has ended without {name}")

    async def until_printed(self, execution_id: str, wanted: bytes) -> None:
        """Returns once it has printed `wanted`, and fails when it ends before."""
        printed = b""
        async with self.events(execution_id) as events:
            async for event in events:
                printed += event.output if event.name == "output" else b""
                if wanted in printed:
                    return
        raise AssertionError(f"{execution_id} ended and had printed {printed[:200]!r}")


async def until_not_ready(api: Api) -> Mapping[str, str]:
    """Returns once a server says of itself that it cannot take work, with its reasons."""
    return (await _until_ready_says(api, lambda answer: answer.status == 503)).document["reasons"]


async def until_ready(api: Api) -> None:
    """Returns once a server says of itself that it takes work."""
    await _until_ready_says(api, lambda answer: answer.status == 200)


async def until_unready_for(api: Api, reason: str) -> str:
    """What a server says of this reason, once it names it."""
    answer = await _until_ready_says(
        api, lambda answer: answer.status == 503 and reason in answer.document["reasons"]
    )
    return str(answer.document["reasons"][reason])


async def _until_ready_says(api: Api, wanted: Callable[[Answer], bool]) -> Answer:
    with anyio.fail_after(PATIENCE_SECONDS):
        while not wanted(answer := await api.get("/ready")):
            pass
    return answer


@asynccontextmanager
async def api_of(url: str, **options: Any) -> AsyncIterator[Api]:
    """A client of the server at `url`."""
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
    """A multipart body. Metadata may be a document, or text as it is; what is None is left out."""
    body = aiohttp.FormData(default_to_multipart=True)
    for name in order:
        if name == TAR and archive is not None:
            file = io.BytesIO(archive) if isinstance(archive, bytes) else archive
            body.add_field(name, file, filename="main.tar", content_type="application/x-tar")
        elif name == METADATA and metadata is not None:
            text = metadata if isinstance(metadata, str | bytes) else json.dumps(metadata)
            if len(text) > 1024 * 1024:
                text = io.BytesIO(text.encode() if isinstance(text, str) else text)
            options = {"filename": "metadata.json", "content_type": "application/json"}
            body.add_field(name, text, **(options if metadata_as_file else {}))
    return body


async def parse_events(response: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    """The events of a stream, to its end; comments are left out."""
    fields: dict[str, str] = {}
    async for line in response.content:
        text = line.decode().rstrip("\n")
        if not text and fields:
            yield Event(fields["event"], fields["id"], json.loads(fields["data"]))
            fields = {}
        elif text and not text.startswith(":"):
            name, _, value = text.partition(": ")
            fields[name] = value
