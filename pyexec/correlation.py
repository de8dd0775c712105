"""What the present task is about, so that a log line or a figure can name it without being told."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from attrs import define

MODES = ("sync", "async", "eval", "none")
"""How an execution was asked for; `none` for what this replica ends that never ran on it."""


@define
class Correlation:
    """One request, or one execution carried on in the background. Tasks that it starts share it."""

    execution_id: str = ""
    mode: str = "none"


_CURRENT: ContextVar[Correlation | None] = ContextVar("correlation", default=None)


def correlate(execution_id: str = "", mode: str = "none") -> Correlation:
    """From here on the present task, and those that it starts, are about this."""
    correlation = Correlation(execution_id, mode)
    _CURRENT.set(correlation)
    return correlation


def current() -> Correlation:
    """What the present task is about; nothing in particular where nobody has said."""
    return _CURRENT.get() or Correlation()


@contextmanager
def correlated(execution_id: str, mode: str = "none") -> Iterator[None]:
    """Within the block the present task, and what it starts, are about this."""
    token = _CURRENT.set(Correlation(execution_id, mode))
    try:
        yield
    finally:
        _CURRENT.reset(token)
