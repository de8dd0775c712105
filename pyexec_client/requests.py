"""Every request the client makes, as data: nothing is sent here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from attrs import field, frozen

from .options import metadata
from .retry import NEVER, Retry
from .source import Archive, Source, archive

_API = "/api/v1"
_PAGE = 100
_POLL_SECONDS = 60
# How long the server may be silent beyond what was asked of it, before the connection counts as broken.
# An eval answers as a whole: beside the run itself it may have to wait for a slot and for setup.
_MARGIN_SECONDS = 30.0
_EVAL_MARGIN_SECONDS = 900.0


@frozen(kw_only=True)
class Request:
    """One request. `silence`: after how many seconds without a byte the connection counts as broken.

    `retry` says how often it may be sent again: only what does no harm twice may be.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(factory=dict)
    headers: Mapping[str, str] = field(factory=dict)
    json: Any = None
    archive: Archive | None = None
    metadata: Mapping[str, Any] = field(factory=dict)
    silence: float | None = 2 * _MARGIN_SECONDS
    retry: Retry = NEVER


def run_streaming(source: Source, options: Mapping[str, Any], key: str | None, retry: Retry) -> Request:
    return _upload("exec/sync", source, options, key, retry, accept="text/event-stream")


def submit(source: Source, options: Mapping[str, Any], key: str, retry: Retry) -> Request:
    return _upload("exec/async", source, options, key, retry, accept="application/json")


def _upload(
    route: str, source: Source, options: Mapping[str, Any], key: str | None, retry: Retry, accept: str
) -> Request:
    tar = archive(source)
    return Request(
        method="POST",
        path=f"{_API}/{route}",
        headers=_key_header(key) | {"Accept": accept},
        archive=tar,
        metadata=metadata(options),
        retry=retry if key and tar.replayable else NEVER,
    )


def evaluate(
    code: str | Mapping[str, str],
    options: Mapping[str, Any],
    extras: Mapping[str, Any],
    key: str | None,
    retry: Retry,
) -> Request:
    body: dict[str, Any] = metadata(options)
    if isinstance(code, str):
        body["code"] = code
    else:
        body["files"] = [{"name": name, "content": content} for name, content in code.items()]
    body |= {name: value for name, value in extras.items() if value is not None}
    seconds = options.get("timeout")
    return Request(
        method="POST",
        path=f"{_API}/eval",
        headers=_key_header(key),
        json=body,
        silence=seconds + _EVAL_MARGIN_SECONDS if seconds else None,
        retry=retry if key else NEVER,
    )


def get(execution_id: str, retry: Retry) -> Request:
    return Request(method="GET", path=_path(execution_id), retry=retry)


def wait(execution_id: str, retry: Retry) -> Request:
    """The long poll: held by the server until the execution ends, or for a minute."""
    query = {"wait": str(_POLL_SECONDS)}
    silence = _POLL_SECONDS + _MARGIN_SECONDS
    return Request(method="GET", path=_path(execution_id), query=query, silence=silence, retry=retry)


def kill(execution_id: str, retry: Retry) -> Request:
    return Request(method="DELETE", path=_path(execution_id), retry=retry)


def page(status: str | None, left: int | None, cursor: str | None, retry: Retry) -> Request:
    """One page of the listing, of at most `left` entries."""
    query = {"limit": str(_PAGE if left is None else min(left, _PAGE)), "status": status, "cursor": cursor}
    given = {name: value for name, value in query.items() if value}
    return Request(method="GET", path=f"{_API}/executions", query=given, retry=retry)


def logs(execution_id: str, stream: str | None, follow: bool, retry: Retry) -> Request:
    query = ({"stream": stream} if stream else {}) | ({"follow": "1"} if follow else {})
    # A program may be silent for as long as it likes.
    silence = None if follow else 2 * _MARGIN_SECONDS
    path = f"{_path(execution_id)}/logs"
    return Request(method="GET", path=path, query=query, silence=silence, retry=retry)


def files(execution_id: str, path: str | None, retry: Retry) -> Request:
    one = f"/{quote(path)}" if path else ""
    return Request(method="GET", path=f"{_path(execution_id)}/files{one}", retry=retry)


def events(execution_id: str, after: str | None, retry: Retry) -> Request:
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
    return Request(method="GET", path=f"{_path(execution_id)}/events", headers=headers, retry=retry)


def _path(execution_id: str) -> str:
    if not execution_id.isascii() or not execution_id.replace("_", "").isalnum():
        raise ValueError(f"an execution's id looks like exe_0123abcd, not {execution_id!r}")
    return f"{_API}/executions/{execution_id}"


def _key_header(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key} if key else {}
