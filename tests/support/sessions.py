"""An interpreter session of a server, over raw HTTP."""

import io
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio

from tests.support.api import Answer, Api


class Session:
    """A session of the server, over raw HTTP."""

    def __init__(self, api: Api, document: Any) -> None:
        self.api = api
        self.document = document
        self.path = f"/api/v1/sessions/{document['id']}"

    async def eval(self, code: str, **options: Any) -> Answer:
        body = {"code": code, **{name: options.pop(name) for name in ("timeout_seconds",) if name in options}}
        headers = {"Content-Type": "application/json", **options.pop("headers", {})}
        data = io.BytesIO(json.dumps(body).encode())  # aiohttp warns of a long body that is no file
        return await self.api.request("POST", f"{self.path}/eval", data=data, headers=headers, **options)

    async def result(self, code: str, **options: Any) -> Any:
        """Run a cell and return its result; fail if the response is an error."""
        answer = await self.eval(code, **options)
        assert answer.status == 200, answer.document
        return answer.document

    async def submitted(self, code: str) -> str:
        answer = await self.api.request("POST", f"{self.path}/eval/async", json={"code": code})
        assert answer.status == 202, answer.document
        assert answer.headers["Location"] == f"/api/v1/executions/{answer.document['execution_id']}"
        return str(answer.document["execution_id"])

    async def post(self, action: str) -> Any:
        answer = await self.api.request("POST", f"{self.path}/{action}")
        assert answer.status == 200, answer.document
        return answer.document

    async def get(self) -> Any:
        return (await self.api.get(self.path)).document

    async def put(self, path: str, data: Any, **options: Any) -> Answer:
        if isinstance(data, bytes):
            data = io.BytesIO(data)  # as above
        return await self.api.request("PUT", f"{self.path}/files/{path}", data=data, **options)

    async def read(self, path: str) -> tuple[int, bytes]:
        async with self.api.session.get(f"{self.path}/files/{path}") as response:
            return response.status, await response.read()

    async def files(self, glob: str) -> Sequence[str]:
        answer = await self.api.get(f"{self.path}/files", params={"glob": glob})
        assert answer.status == 200, answer.document
        return sorted(file["path"] for file in answer.document["files"])

    async def until_closed(self) -> None:
        with anyio.fail_after(20):
            while (await self.get())["status"] == "open":  # noqa: ASYNC110 a state of the server
                await anyio.sleep(0.2)

    async def until_started(self, execution_id: str) -> None:
        await self.api.until_event(execution_id, "running")


@asynccontextmanager
async def opened(api: Api, **options: Any) -> AsyncIterator[Session]:
    answer = await api.request("POST", "/api/v1/sessions", json=options)
    assert answer.status == 201, answer.document
    session = Session(api, answer.document)
    assert answer.headers["Location"] == session.path
    try:
        yield session
    finally:
        await api.request("DELETE", session.path)
