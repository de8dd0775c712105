"""Build the requests of this API as plain data. `transport.py` sends them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from attrs import field, frozen

from . import arguments
from .arguments import flag, text, text_mapping
from .content import Content
from .options import metadata
from .retry import NO_RETRY, Retry
from .source import Archive, Source, archive

API = "/api/v1"
_PAGE_SIZE = 100
_POLL_SECONDS = 60
# A connection counts as lost if the server sends nothing for the expected time plus this margin. The margin of an
# eval is larger, because the server sends nothing while the request waits in the queue and for the setup.
MARGIN_SECONDS = 30.0
EVAL_MARGIN_SECONDS = 900.0


@frozen(kw_only=True)
class Request:
    """One HTTP request.

    The body is `json`, the multipart form of `archive` and `metadata`, or the bytes of `content`.
    `idle_timeout` is how many seconds may pass without a byte from the server before the connection counts as
    lost. `retry` is NO_RETRY unless the request is safe to repeat.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(factory=dict)
    headers: Mapping[str, str] = field(factory=dict)
    json: Any = None
    archive: Archive | None = None
    content: Content | None = None
    metadata: Mapping[str, Any] = field(factory=dict)
    idle_timeout: float | None = 2 * MARGIN_SECONDS
    retry: Retry = NO_RETRY


def run_streaming(source: Source, options: Mapping[str, Any], key: str | None, retry: Retry) -> Request:
    return _upload("exec/sync", source, options, key, retry, accept="text/event-stream")


def submit(source: Source, options: Mapping[str, Any], key: str, retry: Retry) -> Request:
    return _upload("exec/async", source, options, key, retry, accept="application/json")


def _upload(
    route: str, source: Source, options: Mapping[str, Any], key: str | None, retry: Retry, accept: str
) -> Request:
    tar = archive(source)
    fields = metadata(options)
    if tar.entrypoint is not None:
        fields.setdefault("entrypoint", tar.entrypoint)
    return Request(
        method="POST",
        path=f"{API}/{route}",
        headers=key_header(key) | {"Accept": accept},
        archive=tar,
        metadata=fields,
        retry=retry if key and tar.replayable else NO_RETRY,
    )


def evaluate(
    code: str | Mapping[str, str],
    options: Mapping[str, Any],
    *,
    last_expression: bool,
    python_version: str | None,
    key: str | None,
    retry: Retry,
) -> Request:
    body: dict[str, Any] = metadata(options)
    if isinstance(code, str):
        body["code"] = code
    else:
        files = text_mapping("code", code, "source text (a str), or a mapping of file names to source texts")
        body["files"] = [{"name": name, "content": content} for name, content in files.items()]
    body["eval_last_expr"] = flag("last_expression", last_expression)
    if python_version is not None:
        body["python_version"] = text("python_version", python_version, "a str such as '3.12'")
    seconds = options.get("timeout")
    return Request(
        method="POST",
        path=f"{API}/eval",
        headers=key_header(key),
        json=body,
        idle_timeout=seconds + EVAL_MARGIN_SECONDS if seconds else None,
        retry=retry if key else NO_RETRY,
    )


def get(execution_id: str, retry: Retry) -> Request:
    return Request(method="GET", path=_path(execution_id), retry=retry)


def wait(execution_id: str, seconds: float, retry: Retry) -> Request:
    """Build the long poll: the server answers when the execution ends, after this time, or after a minute."""
    query = {"wait": f"{max(0.0, min(seconds, _POLL_SECONDS)):g}"}
    idle = _POLL_SECONDS + MARGIN_SECONDS
    return Request(method="GET", path=_path(execution_id), query=query, idle_timeout=idle, retry=retry)


def kill(execution_id: str, retry: Retry) -> Request:
    return Request(method="DELETE", path=_path(execution_id), retry=retry)


def page(
    status: str | None, left: int | None, cursor: str | None, retry: Retry, session_id: str | None = None
) -> Request:
    """Build the request for one page of the list, with at most `left` entries."""
    query = {
        "limit": str(_PAGE_SIZE if left is None else min(left, _PAGE_SIZE)),
        "status": status,
        "cursor": cursor,
        "session_id": session_id,
    }
    given = {name: value for name, value in query.items() if value}
    return Request(method="GET", path=f"{API}/executions", query=given, retry=retry)


def logs(execution_id: str, stream: str | None, follow: bool, retry: Retry) -> Request:
    query = ({"stream": stream} if stream else {}) | ({"follow": "1"} if follow else {})
    # A program may print nothing for any length of time.
    idle = None if follow else 2 * MARGIN_SECONDS
    path = f"{_path(execution_id)}/logs"
    return Request(method="GET", path=path, query=query, idle_timeout=idle, retry=retry)


def files(execution_id: str, path: str | None, retry: Retry) -> Request:
    """Build the request for one output file, or for a tar of all of them if `path` is None."""
    suffix = "" if path is None else f"/{quote(arguments.file_path(path))}"
    return Request(method="GET", path=f"{_path(execution_id)}/files{suffix}", retry=retry)


def events(execution_id: str, after: str | None, retry: Retry) -> Request:
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
    return Request(method="GET", path=f"{_path(execution_id)}/events", headers=headers, retry=retry)


def timeline(execution_id: str, retry: Retry) -> Request:
    return Request(method="GET", path=f"{_path(execution_id)}/timeline", retry=retry)


def cluster(retry: Retry) -> Request:
    return Request(method="GET", path=f"{API}/cluster", retry=retry)


def _path(execution_id: str) -> str:
    return f"{API}/executions/{arguments.execution_id(execution_id)}"


def key_header(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": text("idempotency_key", key)} if key else {}
