"""The executor of MCP's tools, over the HTTP API of a server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager

from attrs import evolve, frozen

from pyexec.mcp.executor import Document, OnProgress, tool_error
from pyexec.mcp.progress import ProgressText
from pyexec.mcp.sessions import Sessions
from pyexec_client import Ended, Event, Lifecycle, Output, PyexecError, Setup, requests
from pyexec_client.content import content
from pyexec_client.errors import ApiError
from pyexec_client.event_stream import stream_events
from pyexec_client.requests import EVAL_MARGIN_SECONDS, Request
from pyexec_client.retry import NO_RETRY, Retry
from pyexec_client.source import archive
from pyexec_client.transport import Transport

_RETRY = Retry()
_RESUME = Retry(attempts=10, longest=5.0)
_MARGIN_SECONDS = 30.0


@frozen
class HttpExecutor:
    """Runs programs on one server, with the token of its transport."""

    _http: Transport

    @property
    def sessions(self) -> Sessions:
        return Sessions(_SessionHttp(self._http))

    async def openapi(self) -> Document:
        """Return the document that describes the server's API. Raise PyexecError if the server does not answer."""
        request = Request(method="GET", path="/openapi.json", retry=_RETRY)
        document: Document = await self._http.json(request)
        return document

    async def run(
        self,
        request: Document,
        call_id: str | None,  # noqa: ARG002  only for calls that the transport cannot cancel
        on_progress: OnProgress | None,
    ) -> Document:
        with _translate_errors():
            post = Request(
                method="POST",
                path="/api/v1/eval",
                headers={"Accept": "text/event-stream"},
                json=request,
            )
            progress = ProgressText()
            async with aclosing(stream_events(self._http, post, _RESUME)) as events:
                async for event in events:
                    if isinstance(event, Ended):
                        return dict(event.result.raw)
                    if on_progress is not None and (text := _text_of(event, progress)):
                        await on_progress(text)
        raise AssertionError("an event stream ends with Ended or raises")

    async def cancel(self, call_id: str) -> None:
        raise AssertionError(f"standard input and output cancel calls themselves, such as {call_id}")

    async def submit(self, metadata: Document, files: Sequence[Mapping[str, str]]) -> str:
        with _translate_errors():
            contents = {file["name"]: file["content"] for file in files}
            request = Request(
                method="POST",
                path="/api/v1/exec/async",
                headers={"Idempotency-Key": uuid.uuid4().hex},
                archive=archive(contents),
                metadata=metadata,
                retry=_RETRY,
            )
            return str((await self._http.json(request))["execution_id"])

    async def get(self, execution_id: str, wait_seconds: float) -> Document:
        with _translate_errors():
            request = evolve(
                requests.get(execution_id, _RETRY),
                query={"wait": f"{wait_seconds:g}"},
                idle_timeout=wait_seconds + _MARGIN_SECONDS,
            )
            document: Document = await self._http.json(request)
            return document

    async def kill(self, execution_id: str) -> str:
        with _translate_errors():
            return str((await self._http.json(requests.kill(execution_id, _RETRY)))["status"])

    async def page(self, status: str | None, limit: int, cursor: str | None) -> Document:
        with _translate_errors():
            document: Document = await self._http.json(requests.page(status, limit, cursor, _RETRY))
            return document

    async def read_file(self, execution_id: str, path: str, bytes_max: int) -> bytes:
        with _translate_errors():
            content = bytearray()
            async with self._http.open(requests.files(execution_id, path, _RETRY)) as response:
                async for chunk in response.chunks():
                    content += chunk
                    if len(content) > bytes_max:
                        raise tool_error(
                            f"{path!r} has more than {bytes_max} bytes; get it with "
                            f"`python-executor follow {execution_id} --output-dir DIR`",
                            code="too_large",
                            field="path",
                        )
            return bytes(content)


@frozen
class _SessionHttp:
    """Sends the requests of sessions."""

    _http: Transport

    async def send(
        self, method: str, path: str, *, body: bytes | None = None, kind: str | None = None, bytes_max: int
    ) -> bytes | None:
        with _translate_errors():
            request = Request(
                method=method,
                path=path,
                headers={"Content-Type": kind} if kind else {},
                content=None if body is None else content(body),
                idle_timeout=None if path.endswith("/eval") else 2 * EVAL_MARGIN_SECONDS,
                retry=_RETRY if method in ("GET", "PUT") else NO_RETRY,
            )
            answer = bytearray()
            async with self._http.open(request) as response:
                async for chunk in response.chunks():
                    answer += chunk
                    if len(answer) > bytes_max:
                        return None
            return bytes(answer)


def _text_of(event: Event, progress: ProgressText) -> str:
    match event:
        case Lifecycle():
            return progress.phase(event.type)
        case Output():
            return progress.output(event.stream, event.data)
        case Setup():
            return progress.output("setup", event.data)
    return ""


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Turn the client's errors into errors that name the tool's arguments."""
    try:
        yield
    except ApiError as error:
        raise tool_error(str(error), code=error.code, field=error.field) from error
    except PyexecError as error:
        raise tool_error(str(error), code="unavailable") from error
    except ValueError as error:  # the client itself rejects some ids and paths
        raise tool_error(str(error), code="not_found") from error
