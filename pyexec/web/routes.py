"""Routes of all endpoints that docs/api.md describes."""

from collections.abc import Mapping
from http import HTTPStatus

import anyio
from aiohttp import web
from aiohttp_apispec import docs, response_schema

from pyexec.codec import to_json
from pyexec.errors import ExecutorError
from pyexec.web.context import GATE, Context
from pyexec.web.handlers.executions import (
    delete_execution,
    get_events,
    get_execution,
    get_logs,
    list_executions,
)
from pyexec.web.handlers.metrics import metrics
from pyexec.web.handlers.output_files import get_file, get_files
from pyexec.web.handlers.submissions import evaluate, exec_async, exec_sync
from pyexec.web.openapi.schemas import schema_of
from pyexec.web.responses import Health, Readiness, Unreadiness

CHECK_SECONDS = 5.0


@docs(tags=["server"], summary="The process lives")
@response_schema(schema_of(Health), 200, description="It does.")
async def health(_: web.Request) -> web.StreamResponse:
    """Answers as long as the process does."""
    return web.json_response(to_json(Health(status="ok")))


@docs(tags=["server"], summary="Can take work")
@response_schema(schema_of(Readiness), 200, description="It can.")
@response_schema(schema_of(Unreadiness), 503, description="It cannot.")
async def ready(request: web.Request) -> web.StreamResponse:
    """200 when all answers that it needs; else 503, and what does not: the server itself (starting, or stopping), the
    event log, the engine, its membership."""
    gate = request.app[GATE]
    if (context := gate.context) is None:
        return _not_ready(gate.waiting_for, {"server": gate.waiting_for})
    away = await _away(context)
    if away:
        return _not_ready("; ".join(f"{name}: {reason}" for name, reason in away.items()), away)
    return web.json_response(to_json(Readiness(status="ok", warnings=tuple(context.warnings()) or None)))


ROUTES = (
    ("POST", "/api/v1/exec/sync", exec_sync),
    ("POST", "/api/v1/exec/async", exec_async),
    ("POST", "/api/v1/eval", evaluate),
    ("GET", "/api/v1/executions", list_executions),
    ("GET", "/api/v1/executions/{id}", get_execution),
    ("DELETE", "/api/v1/executions/{id}", delete_execution),
    ("GET", "/api/v1/executions/{id}/logs", get_logs),
    ("GET", "/api/v1/executions/{id}/events", get_events),
    ("GET", "/api/v1/executions/{id}/files", get_files),
    ("GET", "/api/v1/executions/{id}/files/{path:.+}", get_file),
    ("GET", "/health", health),
    ("GET", "/ready", ready),
    ("GET", "/metrics", metrics),
)


def add_routes(app: web.Application) -> None:
    """Every path with and without a slash at its end."""
    for method, path, handler in ROUTES:
        app.router.add_route(method, path, handler)
        app.router.add_route(method, f"{path}/", handler)


def _not_ready(text: str, reasons: Mapping[str, str]) -> web.Response:
    document = {"status": "unavailable", "error": text, "code": "unavailable", "reasons": reasons}
    return web.json_response(document, status=HTTPStatus.SERVICE_UNAVAILABLE)


async def _away(context: Context) -> dict[str, str]:
    """What of the things a replica needs does not answer, and why."""
    away = {}
    for name, check in context.checks.items():
        try:
            with anyio.fail_after(CHECK_SECONDS):
                await check()
        except TimeoutError:
            away[name] = f"does not answer within {CHECK_SECONDS:g} s"
        except ExecutorError as error:
            away[name] = str(error)
    return away
