"""The HTTP application: routes, middleware, and the values that they share."""

from typing import Any

from aiohttp import web

from pyexec.domain.spec import MEBIBYTE
from pyexec.domain.tenants import Tenants
from pyexec.metrics import Meter
from pyexec.settings import Settings
from pyexec.web.connections import collapse_slashes, drain_body, record_response
from pyexec.web.context import ACCESS_LOG, EXPOSITION, METER, SERVER_STATE, TENANTS, Exposition, ServerState
from pyexec.web.error_responses import handle_errors
from pyexec.web.forwarding import forward_to_owner
from pyexec.web.handlers.console import add_console
from pyexec.web.handlers.documentation import LazyDocument, add_api_docs, add_pages
from pyexec.web.handlers.executions import (
    delete_execution,
    get_events,
    get_execution,
    get_file,
    get_files,
    get_logs,
    get_timeline,
    list_executions,
)
from pyexec.web.handlers.server import get_cluster, health, metrics, ready
from pyexec.web.handlers.session_files import (
    delete_session_file,
    list_session_files,
    read_session_file,
    write_session_file,
)
from pyexec.web.handlers.sessions import (
    close_session,
    get_session,
    interrupt_session,
    list_sessions,
    open_session,
    restart_session,
    session_eval,
    session_eval_async,
)
from pyexec.web.handlers.submissions import evaluate, exec_async, exec_sync
from pyexec.web.mcp.endpoint import McpEndpoint
from pyexec.web.middleware import SAFE_METHODS, control_access, log_access, run_in_task

ROUTES = (
    ("POST", "/api/v1/exec/sync", exec_sync),
    ("POST", "/api/v1/exec/async", exec_async),
    ("POST", "/api/v1/eval", evaluate),
    ("GET", "/api/v1/executions", list_executions),
    ("GET", "/api/v1/executions/{id}", get_execution),
    ("DELETE", "/api/v1/executions/{id}", delete_execution),
    ("GET", "/api/v1/executions/{id}/logs", get_logs),
    ("GET", "/api/v1/executions/{id}/events", get_events),
    ("GET", "/api/v1/executions/{id}/timeline", get_timeline),
    ("GET", "/api/v1/executions/{id}/files", get_files),
    ("GET", "/api/v1/executions/{id}/files/{path:.+}", get_file),
    ("GET", "/api/v1/cluster", get_cluster),
    ("POST", "/api/v1/sessions", open_session),
    ("GET", "/api/v1/sessions", list_sessions),
    ("GET", "/api/v1/sessions/{id}", get_session),
    ("DELETE", "/api/v1/sessions/{id}", close_session),
    ("POST", "/api/v1/sessions/{id}/eval", session_eval),
    ("POST", "/api/v1/sessions/{id}/eval/async", session_eval_async),
    ("POST", "/api/v1/sessions/{id}/interrupt", interrupt_session),
    ("POST", "/api/v1/sessions/{id}/restart", restart_session),
    ("GET", "/api/v1/sessions/{id}/files", list_session_files),
    ("GET", "/api/v1/sessions/{id}/files/{path:.+}", read_session_file),
    ("PUT", "/api/v1/sessions/{id}/files/{path:.+}", write_session_file),
    ("DELETE", "/api/v1/sessions/{id}/files/{path:.+}", delete_session_file),
    ("GET", "/health", health),
    ("GET", "/ready", ready),
    ("GET", "/metrics", metrics),
)
"""Endpoints that docs/api.md describes."""


def create_application(
    settings: Settings,
    state: ServerState,
    meter: Meter,
    exposition: Exposition,
    tenants: Tenants,
) -> web.Application:
    """Create the application. Every path also works with a trailing slash, and HEAD wherever GET does."""
    app = web.Application(
        middlewares=[
            *(collapse_slashes, drain_body, run_in_task, log_access),
            *(handle_errors, control_access, forward_to_owner),
        ],
        client_max_size=settings.max_metadata_mb * MEBIBYTE,
    )
    app[SERVER_STATE] = state
    app[TENANTS] = tenants
    app[METER] = meter
    app[EXPOSITION] = exposition
    app[ACCESS_LOG] = settings.access_log
    app.on_response_prepare.append(record_response)
    for method, path, handler in ROUTES:
        for same_path in (path, f"{path}/"):
            for same_method in SAFE_METHODS if method == "GET" else (method,):
                app.router.add_route(same_method, same_path, handler)

    def build_openapi() -> dict[str, Any]:  # imports here: see `LazyDocument`
        from pyexec.web.openapi.document import openapi_document, server_info

        return openapi_document(ROUTES, server_info(settings, requires_token=tenants.requires_token))

    openapi = LazyDocument(build_openapi)
    add_api_docs(app, openapi)
    add_console(app)
    add_pages(app)
    mcp = McpEndpoint(openapi)
    for same_path in ("/mcp", "/mcp/"):
        app.router.add_post(same_path, mcp.handle)
    return app
