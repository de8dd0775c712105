"""HTTP: one pooled session, errors made typed, requests repeated where that is safe."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import anyio
from attrs import define, field

from .errors import ApiError, ConnectionFailed, InvalidAnswer, QueueFull, Unavailable, error_from_answer
from .multipart import Upload
from .requests import Request

_CONNECT_SECONDS = 10.0


@define
class Answer:
    """A good answer whose body has not been read yet."""

    url: str
    _response: aiohttp.ClientResponse
    _upload: Upload | None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives; ConnectionFailed if it stops in the middle."""
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, OSError) as problem:
            raise _failure(self.url, problem, self._upload) from problem

    async def json(self) -> Any:
        """The body as JSON; InvalidAnswer if it is something else."""
        body = b"".join([chunk async for chunk in self.chunks()])
        try:
            return json.loads(body)
        except ValueError as problem:
            raise InvalidAnswer(
                f"{self.url} does not answer as python-executor does: {body[:100]!r}"
            ) from problem


@define
class Transport:
    """Sends requests to one server. `base_url` may carry a path; a slash at its end makes no difference."""

    base_url: str
    token: str | None = field(default=None, repr=False)
    _session: aiohttp.ClientSession | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"the server's address must look like http://host:8080, not {self.base_url!r}")
        self.base_url = self.base_url.rstrip("/")

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def json(self, request: Request) -> Any:
        """Send it and read the whole answer as JSON."""
        async with self.open(request) as answer:
            return await answer.json()

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Answer]:
        """Send it; the body of a good answer is read inside the context.

        Raises ApiError (its kinds) for an error the server reports, ConnectionFailed if it cannot be reached,
        and OSError or ValueError if the archive to send cannot be made.
        """
        answer = await self._send(request)
        try:
            yield answer
        finally:
            answer._response.close()

    async def _send(self, request: Request) -> Answer:
        pauses = request.retry.pauses()
        while True:
            try:
                return await self._attempt(request)
            except (ConnectionFailed, Unavailable, QueueFull) as problem:
                pause = next(pauses, None)
                asked = problem.retry_after if isinstance(problem, ApiError) else None
                if pause is None or (asked is not None and asked > request.retry.longest):
                    raise
            await anyio.sleep(max(pause, asked or 0))

    async def _attempt(self, request: Request) -> Answer:
        upload = Upload(request.archive, request.metadata) if request.archive else None
        try:
            response = await self._opened().request(
                request.method,
                self.base_url + request.path,
                params=request.query,
                headers=request.headers,
                json=request.json,
                data=upload.form() if upload else None,
                timeout=aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=request.silence),
                allow_redirects=False,  # a redirected POST would become a GET
            )
        except (aiohttp.ClientError, OSError) as problem:
            raise _failure(self.base_url, problem, upload) from problem
        if response.status < 300:
            return Answer(self.base_url, response, upload)
        try:
            body = await response.read()
        except (aiohttp.ClientError, OSError):
            body = b""  # the status alone says enough
        finally:
            response.close() if upload else response.release()
        raise error_from_answer(response.status, response.headers, body)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
            # Long polls each hold a connection: a limit on connections would make them wait for each other.
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers)
        return self._session


def _failure(url: str, problem: Exception, upload: Upload | None) -> Exception:
    """What to tell the caller: our own failure to read what is to be sent goes before the network's."""
    if upload is not None and upload.problem is not None:
        return upload.problem
    return ConnectionFailed(url, _reason(problem))


def _reason(problem: Exception) -> str:
    match problem:
        case aiohttp.ClientConnectorDNSError():
            return "its name cannot be resolved"
        case aiohttp.ClientConnectorError(os_error=OSError(errno=int() as number)):
            return os.strerror(number).lower()
        case aiohttp.ConnectionTimeoutError():
            return f"no connection within {_CONNECT_SECONDS:g} s"
        case TimeoutError():
            return "it stopped answering"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError() | ConnectionResetError():
            return "the connection broke"
    return str(problem) or type(problem).__name__
