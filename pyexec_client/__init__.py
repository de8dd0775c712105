"""Python client for python-executor: run Python code in isolated sandboxes.

async with AsyncClient("http://localhost:8080") as client:
    result = await client.run("print(6 * 7)", timeout=10)
    print(result.exit_code, result.stdout)

`Client` has the same methods without `async` and `await`.
"""

from .client import AsyncClient
from .cluster import Capacity, Cluster, PoolImage, Replica, SandboxReuse, SessionCount, TenantQueue
from .display import Display
from .errors import (
    ApiError,
    ClientClosed,
    Conflict,
    ConnectionFailed,
    InvalidAnswer,
    InvalidRequest,
    NotFound,
    PyexecError,
    QueueFull,
    ServerError,
    SessionClosed,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from .events import Displayed, Ended, Event, Lifecycle, Output, Setup
from .result import (
    OutputFile,
    Result,
    SkippedFile,
    Status,
    Timings,
    TracebackEntry,
    TracebackFrame,
    Truncated,
    Usage,
)
from .retry import Retry
from .session import AsyncSession, FileList, SessionInfo
from .source import Source
from .sync import Client
from .sync_session import Session
from .timeline import Timeline, TimelineEvent, TimelinePhase

__all__ = [
    "ApiError",
    "AsyncClient",
    "AsyncSession",
    "Capacity",
    "Client",
    "ClientClosed",
    "Cluster",
    "Conflict",
    "ConnectionFailed",
    "Display",
    "Displayed",
    "Ended",
    "Event",
    "FileList",
    "InvalidAnswer",
    "InvalidRequest",
    "Lifecycle",
    "NotFound",
    "Output",
    "OutputFile",
    "PoolImage",
    "PyexecError",
    "QueueFull",
    "Replica",
    "Result",
    "Retry",
    "SandboxReuse",
    "ServerError",
    "Session",
    "SessionClosed",
    "SessionCount",
    "SessionInfo",
    "Setup",
    "SkippedFile",
    "Source",
    "Status",
    "TenantQueue",
    "Timeline",
    "TimelineEvent",
    "TimelinePhase",
    "Timings",
    "TooLarge",
    "TracebackEntry",
    "TracebackFrame",
    "Truncated",
    "Unauthorized",
    "Unavailable",
    "Usage",
]
