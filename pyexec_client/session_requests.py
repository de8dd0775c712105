"""Build the requests for sessions as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from . import arguments
from .arguments import text
from .content import Content
from .options import session_metadata
from .requests import API, EVAL_MARGIN_SECONDS, MARGIN_SECONDS, Request, key_header
from .retry import NO_RETRY, Retry
from .source import Source, archive

_SSE = {"Accept": "text/event-stream"}
_TAR = {"Accept": "application/x-tar"}


def open_session(source: Source | None, options: Mapping[str, Any]) -> Request:
    """Build the request that opens a session. The server answers when the packages are installed."""
    metadata = session_metadata(options)
    body: dict[str, Any] = (
        {"json": metadata} if source is None else {"archive": archive(source), "metadata": metadata}
    )
    return Request(method="POST", path=f"{API}/sessions", idle_timeout=EVAL_MARGIN_SECONDS, **body)


def list_sessions(retry: Retry) -> Request:
    return Request(method="GET", path=f"{API}/sessions", retry=retry)


def get(session_id: str, retry: Retry) -> Request:
    return Request(method="GET", path=_path(session_id), retry=retry)


def close(session_id: str, retry: Retry) -> Request:
    return Request(method="DELETE", path=_path(session_id), retry=retry)


def evaluate(session_id: str, code: str, timeout: float | None, key: str | None, retry: Retry) -> Request:
    return _cell("eval", session_id, code, timeout, key, retry)


def stream(session_id: str, code: str, timeout: float | None, key: str | None, retry: Retry) -> Request:
    return _cell("eval", session_id, code, timeout, key, retry, accept=_SSE)


def submit(session_id: str, code: str, timeout: float | None, key: str, retry: Retry) -> Request:
    return _cell("eval/async", session_id, code, timeout, key, retry)


def _cell(
    route: str,
    session_id: str,
    code: str,
    timeout: float | None,
    key: str | None,
    retry: Retry,
    accept: Mapping[str, str] | None = None,
) -> Request:
    body: dict[str, Any] = {"code": text("code", code, "source text (a str)")}
    if timeout is not None:
        body["timeout_seconds"] = arguments.number("timeout", timeout)
    is_waiting = route == "eval" and accept is None
    return Request(
        method="POST",
        path=f"{_path(session_id)}/{route}",
        headers={**key_header(key), **(accept or {})},
        json=body,
        # A cell waits for those before it, for any length of time. In an event stream, the server sends comments.
        idle_timeout=None if is_waiting else 2 * MARGIN_SECONDS,
        retry=retry if key else NO_RETRY,
    )


def interrupt(session_id: str) -> Request:
    """Build the request without retries: a second interrupt could hit the next cell."""
    return Request(method="POST", path=f"{_path(session_id)}/interrupt")


def restart(session_id: str) -> Request:
    return Request(method="POST", path=f"{_path(session_id)}/restart")


def upload(session_id: str, path: str, content: Content, retry: Retry) -> Request:
    return Request(
        method="PUT",
        path=_file_path(session_id, path),
        headers={"Content-Type": "application/octet-stream"},
        content=content,
        retry=retry if content.replayable else NO_RETRY,
    )


def download(session_id: str, path: str, retry: Retry) -> Request:
    return Request(method="GET", path=_file_path(session_id, path), retry=retry)


def delete(session_id: str, path: str) -> Request:
    return Request(method="DELETE", path=_file_path(session_id, path))


def list_files(session_id: str, glob: str | None, retry: Retry) -> Request:
    return Request(method="GET", path=f"{_path(session_id)}/files", query=_glob(glob), retry=retry)


def download_tar(session_id: str, glob: str | None, retry: Retry) -> Request:
    return Request(
        method="GET", path=f"{_path(session_id)}/files", query=_glob(glob), headers=_TAR, retry=retry
    )


def _glob(glob: str | None) -> dict[str, str]:
    return {} if glob is None else {"glob": text("glob", glob)}


def _path(session_id: str) -> str:
    return f"{API}/sessions/{arguments.session_id(session_id)}"


def _file_path(session_id: str, path: str) -> str:
    return f"{_path(session_id)}/files/{quote(arguments.file_path(path))}"
