"""Sessions for the tools, over the HTTP API of a server."""

from __future__ import annotations

import json
import re
from typing import Any, Protocol
from urllib.parse import quote

from attrs import frozen

from pyexec.mcp.executor import Document, tool_error

_API = "/api/v1/sessions"
_ID = re.compile("[A-Za-z0-9_-]+")
_ANSWER_BYTES_MAX = 256 * 1024 * 1024


class SessionHttp(Protocol):
    """Sends requests to the server with the caller's token. Raises `ToolError` for an error of the server."""

    async def send(
        self, method: str, path: str, *, body: bytes | None = None, kind: str | None = None, bytes_max: int
    ) -> bytes | None:
        """Return the body of the response; None if it has more than `bytes_max` bytes.

        `kind` is the media type of `body`."""


@frozen
class Sessions:
    """Opens, uses and closes the sessions of one caller. Cancelling a call interrupts its code."""

    _http: SessionHttp

    async def open(self, request: Document) -> Document:
        """Open a session with the request of `/api/v1/sessions`, and return its state."""
        return await self._json("POST", "", request)

    async def close(self, session_id: str) -> Document:
        """Close a session, and return its state."""
        return await self._json("DELETE", _session_path(session_id))

    async def run(self, session_id: str, request: Document) -> Document:
        """Run code in a session, and return the result."""
        return await self._json("POST", f"{_session_path(session_id)}/eval", request)

    async def interrupt(self, session_id: str) -> Document:
        """Interrupt the code that runs in a session. The answer says whether any did."""
        return await self._json("POST", f"{_session_path(session_id)}/interrupt")

    async def list_files(self, session_id: str, pattern: str | None) -> Document:
        """Return the files of a session that match a pattern; None means all."""
        query = "" if pattern is None else f"?glob={quote(pattern, safe='')}"
        return await self._json("GET", f"{_session_path(session_id)}/files{query}")

    async def write_file(self, session_id: str, path: str, content: bytes) -> None:
        """Write a file of a session."""
        where = f"{_API}{_file_path(session_id, path)}"
        kind = "application/octet-stream"
        await self._http.send("PUT", where, body=content, kind=kind, bytes_max=_ANSWER_BYTES_MAX)

    async def read_file(self, session_id: str, path: str, bytes_max: int) -> bytes:
        """Return a file of a session. Reject one with more than `bytes_max` bytes."""
        content = await self._http.send("GET", f"{_API}{_file_path(session_id, path)}", bytes_max=bytes_max)
        if content is None:
            raise tool_error(
                f"{path[:100]!r} has more than {bytes_max} bytes, the maximum here; read a part of it with run_python",
                code="too_large",
                field="path",
            )
        return content

    async def _json(self, method: str, path: str, request: Document | None = None) -> Document:
        body = None if request is None else json.dumps(request).encode()
        kind = None if request is None else "application/json"
        answer = await self._http.send(
            method, f"{_API}{path}", body=body, kind=kind, bytes_max=_ANSWER_BYTES_MAX
        )
        if answer is None:
            raise tool_error(f"the result has more than {_ANSWER_BYTES_MAX} bytes", code="too_large")
        document: Any = json.loads(answer)
        if not isinstance(document, dict):
            raise tool_error("the server's answer is not an object", code="unavailable")
        return document


def _session_path(session_id: str) -> str:
    if _ID.fullmatch(session_id) is None:
        text = f"{session_id[:100]!r} is not the id of a session"
        raise tool_error(text, code="invalid_request", field="session_id")
    return f"/{session_id}"


def _file_path(session_id: str, path: str) -> str:
    """Return the path of the endpoint. HTTP libraries resolve `.` and `..`, and would send the request elsewhere."""
    relative = path.removeprefix("/work/")
    names = relative.split("/")
    if relative.startswith("/") or not any(names) or "." in names or ".." in names:
        text = f"{path[:100]!r} is not the path of a file below /work"
        raise tool_error(text, code="invalid_request", field="path")
    return f"{_session_path(session_id)}/files/{quote(relative)}"
