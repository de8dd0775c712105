"""What the handlers need, under typed keys of the application."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from aiohttp import web
from attrs import define, frozen

from pyexec.domain.ids import is_execution_id
from pyexec.errors import Unavailable, UnknownExecution
from pyexec.ports import REPLICA_HEADER, Caller
from pyexec.services.downloads import Downloads
from pyexec.services.executions import Executions
from pyexec.services.submissions import Submissions


@frozen(kw_only=True)
class WebLimits:
    """Bounds of a request: bytes of the body and of its JSON, seconds between two pieces of it."""

    upload_bytes_max: int
    metadata_bytes_max: int
    idle_seconds: float


@frozen(kw_only=True)
class Context:
    """The services behind the handlers. `checks` name what the replica needs, each raising when it is away;
    `warnings` are what an operator should know, a sentence each."""

    submissions: Submissions
    executions: Executions
    downloads: Downloads
    checks: dict[str, Callable[[], Awaitable[None]]]
    warnings: Callable[[], Sequence[str]]
    limits: WebLimits
    spool_dir: Path


@define
class Gate:
    """Stands before the services until they are there; `waiting_for` says to a person what is missing."""

    waiting_for: str
    context: Context | None = None


GATE = web.AppKey("gate", Gate)
TOKENS = web.AppKey("tokens", tuple[str, ...])


def caller_of(request: web.Request) -> Caller:
    """Who asks."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return Caller(
        token=token.strip() if scheme.lower() == "bearer" else None,
        is_replica=REPLICA_HEADER in request.headers,
    )


def context_of(request: web.Request) -> Context:
    """The services; raises `Unavailable` while the server starts or stops."""
    gate = request.app[GATE]
    if gate.context is None:
        raise Unavailable(gate.waiting_for)
    return gate.context


def execution_id_of(request: web.Request) -> str:
    """The execution that the path names; raises `UnknownExecution` for what cannot be one."""
    execution_id = request.match_info["id"]
    if not is_execution_id(execution_id):
        raise UnknownExecution(f"{execution_id[:80]!r} is no execution id")
    return execution_id
