"""The execution that the current task works on, for log lines and metrics.

A correlation never changes. A task sets its own, and the tasks that it starts from then on inherit it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from attrs import evolve, frozen

MODES = ("sync", "async", "eval", "none")
"""The ways to request an execution, and `none` for an execution that this replica ends but never ran."""


@frozen
class Correlation:
    """An execution and how it was requested. The id is empty until it is known."""

    execution_id: str = ""
    mode: str = "none"


_NO_CORRELATION = Correlation()
_CURRENT: ContextVar[Correlation] = ContextVar("correlation", default=_NO_CORRELATION)


def current_correlation() -> Correlation:
    """Return what the current task works on."""
    return _CURRENT.get()


def correlate(execution_id: str = "", mode: str = "none") -> None:
    """Set what the current task works on, until it ends."""
    _CURRENT.set(Correlation(execution_id, mode))


def correlate_execution(execution_id: str) -> None:
    """Set the execution that the current task works on, once its id is known. The mode stays the same."""
    _CURRENT.set(evolve(_CURRENT.get(), execution_id=execution_id))


@contextmanager
def correlated(execution_id: str, mode: str = "none") -> Iterator[None]:
    """Set what the current task works on within the block, and restore the previous correlation after it."""
    token = _CURRENT.set(Correlation(execution_id, mode))
    try:
        yield
    finally:
        _CURRENT.reset(token)
