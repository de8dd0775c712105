"""What the handlers need, under typed keys of the application."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from attrs import frozen

from pyexec.services.kill import Kills
from pyexec.services.query import Queries
from pyexec.services.submit import Submissions


@frozen(kw_only=True)
class WebLimits:
    """Bounds of a request: bytes of the body and of its JSON, seconds between two pieces of it."""

    upload_bytes_max: int
    metadata_bytes_max: int
    idle_seconds: float


@frozen(kw_only=True)
class Context:
    """The services behind the handlers. `checks` name what the replica needs, each raising when it is away."""

    submissions: Submissions
    queries: Queries
    kills: Kills
    checks: dict[str, Callable[[], Awaitable[None]]]
    limits: WebLimits
    spool_dir: Path
    tokens: tuple[str, ...]


CONTEXT = web.AppKey("context", Context)
