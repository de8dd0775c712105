"""How long the engine takes for each kind of request, and how often it does not serve one."""

import re
from http import HTTPStatus
from time import perf_counter
from types import SimpleNamespace
from typing import Final

import aiohttp

from pyexec.metrics import DOCKER_ERRORS, DOCKER_REQUEST_SECONDS, Meter

_COLLECTIONS: Final = frozenset(
    {"containers", "images", "networks", "exec", "commit", "info", "version", "_ping"}
)
_VERBS: Final = frozenset(
    {"create", "start", "kill", "attach", "logs", "wait", "archive", "exec", "json", "tag"}
)
_DAILY: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT})
"""Something is gone already, or has its name already."""


def operation_of(method: str, path: str) -> str:
    """What a request is for, in few words of ours: paths hold ids and names that callers give."""
    parts = re.sub(r"^/v[\d.]+/", "/", path).strip("/").split("/")
    if parts[0] not in _COLLECTIONS:
        return "other"
    verb = parts[-1] if len(parts) > 1 and parts[-1] in _VERBS else method.lower()
    return f"{parts[0]} {verb}"


def trace(meter: Meter) -> aiohttp.TraceConfig:
    """To be given to the session that talks to the engine."""

    async def begin(_: aiohttp.ClientSession, asked: SimpleNamespace, __: object) -> None:
        asked.begun = perf_counter()

    async def end(
        _: aiohttp.ClientSession, asked: SimpleNamespace, answer: aiohttp.TraceRequestEndParams
    ) -> None:
        operation = operation_of(answer.method, answer.url.path)
        meter.observe(DOCKER_REQUEST_SECONDS, perf_counter() - asked.begun, operation)
        status = answer.response.status
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            meter.count(DOCKER_ERRORS, operation, "server_error")
        elif status >= HTTPStatus.BAD_REQUEST and status not in _DAILY:
            meter.count(DOCKER_ERRORS, operation, "refused")

    async def fail(
        _: aiohttp.ClientSession, __: SimpleNamespace, failure: aiohttp.TraceRequestExceptionParams
    ) -> None:
        if isinstance(failure.exception, aiohttp.ClientError | OSError | TimeoutError):  # not a cancellation
            meter.count(DOCKER_ERRORS, operation_of(failure.method, failure.url.path), "unreachable")

    config = aiohttp.TraceConfig()
    config.on_request_start.append(begin)
    config.on_request_end.append(end)
    config.on_request_exception.append(fail)
    config.freeze()
    return config
