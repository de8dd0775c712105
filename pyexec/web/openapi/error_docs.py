"""The errors of an endpoint, for its documentation."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pyexec.web.openapi.schemas import Problem, schema_of

_MEANINGS = {
    400: "The request is malformed, or something in it is not allowed; `field` says where.",
    401: "There is no valid token.",
    403: "A browser sends it for a page of another site, and no tokens are set.",
    404: "There is no such execution, or its retention is over.",
    409: "The Idempotency-Key came before, with another request.",
    413: "The request, or what it would unpack to, is larger than allowed.",
    415: "The archive is no uncompressed tar, or the body is compressed.",
    429: "No slot is free and the queue is full.",
    503: "The event log or the container engine does not answer, or the server is starting or stopping.",
}
HEADERS = {
    401: {"WWW-Authenticate": "Bearer."},
    429: {"Retry-After": "Seconds after which it is worth another try."},
}
"""What comes beside such an error, and its meaning."""


def problems(*statuses: int, own: Mapping[int, str] = MappingProxyType({})) -> dict[str, Any]:
    """Answers of these statuses, as `responses` of aiohttp-apispec's `docs`; `own` are those with other meanings."""
    meanings = {**{status: _MEANINGS[status] for status in statuses}, **own}
    return {
        str(status): {"schema": schema_of(Problem), "description": meaning}
        for status, meaning in sorted(meanings.items())
    }
