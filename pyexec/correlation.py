"""The execution that the current task works on and its tenant, for log lines and metrics.

A correlation never changes. A task sets its own, and the tasks that it starts from then on inherit it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from attrs import evolve, frozen

MODES = ("sync", "async", "eval", "session", "mcp", "none")
"""The ways to request an execution: by one of three paths of the API, in a session, or by a tool of MCP. `none` is the
mode of an execution that this replica ends but never ran."""


@frozen
class Correlation:
    """An execution, how it was requested, and its tenant. Id and tenant are empty until they are known.

    `traceparent` and `tracestate` are the headers of the request, if they are valid and the server exports traces."""

    execution_id: str = ""
    mode: str = "none"
    tenant: str = ""
    traceparent: str | None = None
    tracestate: str | None = None


_NO_CORRELATION = Correlation()
_CURRENT: ContextVar[Correlation] = ContextVar("correlation", default=_NO_CORRELATION)


def current_correlation() -> Correlation:
    """Return what the current task works on."""
    return _CURRENT.get()


def correlate(execution_id: str = "", mode: str = "none", tenant: str = "") -> None:
    """Set what the current task works on, until it ends."""
    _CURRENT.set(Correlation(execution_id, mode, tenant))


def correlate_execution(execution_id: str) -> None:
    """Set the execution that the current task works on, once its id is known. The mode stays the same."""
    _CURRENT.set(evolve(_CURRENT.get(), execution_id=execution_id))


def correlate_tenant(tenant: str) -> None:
    """Set the tenant for which the current task works, once it is known. The rest stays the same."""
    _CURRENT.set(evolve(_CURRENT.get(), tenant=tenant))


def correlate_trace(traceparent: str, tracestate: str | None) -> None:
    """Set the caller's trace context. The rest stays the same."""
    _CURRENT.set(evolve(_CURRENT.get(), traceparent=traceparent, tracestate=tracestate))


@contextmanager
def correlated(execution_id: str, mode: str = "none", tenant: str = "") -> Iterator[None]:
    """Set what the current task works on within the block, and restore the previous correlation after it."""
    token = _CURRENT.set(Correlation(execution_id, mode, tenant))
    try:
        yield
    finally:
        _CURRENT.reset(token)
