"""Endpoints about the server itself: liveness, readiness, metrics."""

from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp_apispec import docs, response_schema

from pyexec.codec import to_json
from pyexec.domain.cluster import ClusterView
from pyexec.ports import REPLICA_HEADER
from pyexec.services.replica_state import failed_checks
from pyexec.web.context import EXPOSITION, SERVER_STATE, get_context, read_caller
from pyexec.web.openapi.schema_builder import error_responses, schema_of
from pyexec.web.schemas import Health, Readiness, Unreadiness, reject_query

CHECK_SECONDS = 5.0


@docs(tags=["server"], summary="Liveness check")
@response_schema(schema_of(Health), 200, description="The process is alive.")
async def health(request: web.Request) -> web.StreamResponse:
    """Respond as long as the process is alive.

    This endpoint and `/ready` ignore the query string, because load balancers and monitors may append one."""
    is_probe = REPLICA_HEADER in request.headers  # another replica asks which one listens here
    headers = {REPLICA_HEADER: request.app[SERVER_STATE].replica} if is_probe else None
    return web.json_response(to_json(Health(status="ok")), headers=headers)


@docs(tags=["server"], summary="Readiness check")
@response_schema(schema_of(Readiness), 200, description="The server accepts work.")
@response_schema(schema_of(Unreadiness), 503, description="The server does not accept work.")
async def ready(request: web.Request) -> web.StreamResponse:
    """Check whether the server accepts work: event log, container engine and cluster membership must respond in time,
    and the data directory must be writable.

    While the server is starting or stopping, `reasons` contains only `server`."""
    state = request.app[SERVER_STATE]
    if (context := state.context) is None:
        return _not_ready(state.not_ready_reason, {"server": state.not_ready_reason})
    reasons = await failed_checks(context.checks, CHECK_SECONDS)
    if reasons:
        return _not_ready("; ".join(f"{name}: {reason}" for name, reason in reasons.items()), reasons)
    readiness = Readiness(
        status="ok",
        sandbox_reuse="on" if context.sandbox_reuse else "off",
        warnings=tuple(context.warnings()) or None,
    )
    return web.json_response(to_json(readiness))


@docs(tags=["server"], summary="State of the cluster", responses=error_responses(400, 503))
@response_schema(schema_of(ClusterView), 200, description="All replicas, and the queue of each tenant.")
async def get_cluster(request: web.Request) -> web.StreamResponse:
    """Return the state of all replicas. Every replica returns the same, at most two seconds old.

    A token of a tenant that does not operate the server sees its own queue, and neither addresses nor images."""
    reject_query(request)
    view = await get_context(request).cluster.view(read_caller(request))
    return web.json_response(cluster_answer(view))


def cluster_answer(view: ClusterView) -> dict[str, Any]:
    """Return the document of a view. `leader` is null if it is not known."""
    return {"leader": None, **to_json(view)}


@docs(tags=["server"], summary="Prometheus metrics", produces=["text/plain"], responses=error_responses(400))
async def metrics(request: web.Request) -> web.StreamResponse:
    """Return all metrics in the Prometheus text format."""
    reject_query(request)
    exposition = request.app[EXPOSITION]
    return web.Response(body=exposition.exposition(), headers={"Content-Type": exposition.content_type})


def _not_ready(text: str, reasons: dict[str, str]) -> web.Response:
    body = Unreadiness(status="unavailable", error=text, code="unavailable", reasons=reasons)
    return web.json_response(to_json(body), status=HTTPStatus.SERVICE_UNAVAILABLE)
