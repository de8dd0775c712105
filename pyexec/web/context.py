"""Services, application keys and readers of request data that the handlers share."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from aiohttp import web
from attrs import define, evolve, frozen

from pyexec.domain.execution import Execution
from pyexec.domain.ids import is_execution_id, is_session_id
from pyexec.domain.result import Summary
from pyexec.domain.session_view import SessionView
from pyexec.domain.tenants import DEFAULT_TENANT, Tenants
from pyexec.errors import Unavailable, UnknownExecution, UnknownSession, quote
from pyexec.metrics import Meter
from pyexec.ports import REPLICA_HEADER, Caller, Peers
from pyexec.services.cluster import Cluster
from pyexec.services.downloads import Downloads
from pyexec.services.executions import Executions
from pyexec.services.sessions.sessions import Sessions
from pyexec.services.submissions import Submissions
from pyexec.services.tracing import ExecutionTraces


@frozen(kw_only=True)
class WebLimits:
    """Limits of a request: bytes of its body, bytes of JSON in it, and seconds to wait for more data."""

    upload_bytes_max: int
    metadata_bytes_max: int
    idle_seconds: float


@frozen(kw_only=True)
class Context:
    """Services of a running replica.

    `traces` is None if the server exports no traces. `checks` has a function for each dependency, which raises if the
    dependency is unavailable. `warnings` returns messages for the operator."""

    submissions: Submissions
    executions: Executions
    downloads: Downloads
    cluster: Cluster
    sessions: Sessions
    peers: Peers
    checks: dict[str, Callable[[], Awaitable[None]]]
    warnings: Callable[[], Sequence[str]]
    sandbox_reuse: bool
    limits: WebLimits
    spool_dir: Path
    traces: ExecutionTraces | None = None


@define
class ServerState:
    """Services of the replica while it is running; otherwise, the reason why the server is not ready.

    `replica` is its name, also while it starts; empty before that."""

    not_ready_reason: str
    context: Context | None = None
    replica: str = ""


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Exposition(Protocol):
    """Metrics as text for a scraper."""

    content_type: str

    def exposition(self) -> bytes:
        """Return the current values of all metrics."""


SERVER_STATE = web.AppKey("server_state", ServerState)
TENANTS = web.AppKey("tenants", Tenants)
S = TypeVar("S", bound=Summary | SessionView)
TENANT = web.RequestKey("tenant", str)
"""The tenant of the request's token; not set if the server requires no token, or if the path is public."""
BODY = web.RequestKey("body", bytes)
"""The body of a request that another replica may have to handle after this one has read it."""
METER = web.AppKey("meter", Meter)
EXPOSITION = web.AppKey("exposition", Exposition)
ACCESS_LOG = web.AppKey("access_log", bool)


def get_context(request: web.Request) -> Context:
    """Return the services; raise `Unavailable` while the server starts or stops."""
    state = request.app[SERVER_STATE]
    if state.context is None:
        raise Unavailable(state.not_ready_reason)
    return state.context


def trace_headers(request: web.Request, execution: Execution) -> dict[str, str]:
    """Return the headers `traceparent` and `tracestate` of an execution; none if the server exports no traces."""
    traces = get_context(request).traces
    return {} if traces is None else traces.context_of(execution).headers()


def accepted_headers(request: web.Request, execution_id: str) -> dict[str, str]:
    """Return the headers of a 202 response: the path of the execution, and its trace as in `trace_headers`."""
    headers = {"Location": f"/api/v1/executions/{execution_id}"}
    traces = get_context(request).traces
    known = None if traces is None else traces.known(execution_id)
    return headers if known is None else {**headers, **known.headers()}


def read_caller(request: web.Request) -> Caller:
    """Return the sender of the request: its bearer token and tenant, and whether it is another replica."""
    return Caller(
        token=read_token(request),
        tenant=request.get(TENANT),
        is_replica=REPLICA_HEADER in request.headers,
    )


def read_tenant(request: web.Request) -> str:
    """Return the tenant for which the request runs code."""
    tenant: str = request.get(TENANT, DEFAULT_TENANT)
    return tenant


def read_token(request: web.Request) -> str | None:
    """Return the bearer token of the request, if it has one.

    Return None if it has two `Authorization` headers: a proxy may have checked the other one."""
    values = request.headers.getall("Authorization", [])
    scheme, _, token = (values[0] if len(values) == 1 else "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def public(request: web.Request, summary: S) -> S:
    """Return a result, a summary or a session for the response, without the tenant if the server requires no tokens."""
    return summary if TENANT in request else evolve(summary, tenant=None)


def read_execution_id(request: web.Request) -> str:
    """Return the execution id in the path; raise `UnknownExecution` if it is malformed."""
    execution_id = request.match_info["id"]
    if not is_execution_id(execution_id):
        raise UnknownExecution(f"{quote(execution_id)} is not an execution id")
    return execution_id


def read_session_id(request: web.Request) -> str:
    """Return the session id in the path; raise `UnknownSession` if it is malformed."""
    session_id = request.match_info["id"]
    if not is_session_id(session_id):
        raise UnknownSession(f"{quote(session_id)} is not a session id")
    return session_id
