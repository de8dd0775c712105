"""The port to the service that runs programs. Requests and answers are JSON documents of the HTTP API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pyexec.mcp.argument_terms import argument_terms

if TYPE_CHECKING:
    from pyexec.mcp.sessions import Sessions

Document = dict[str, Any]
DISPLAY_VALUES_MAX = 20_000
"""JSON values in all displays of a result. The SDK validates and encodes them on the event loop, which takes 3 µs for
each (2026-11-27); a long text is one value."""
EXECUTOR = "pyexec.executor"
"""The key of the caller's executor in the scope of an ASGI request."""
MESSAGE = "pyexec.message"
"""The key of the request's parsed JSON body in the same scope."""
OnProgress = Callable[[str], Awaitable[None]]
"""Called with each phase of a run and each piece of its output, as text for a person."""


class ToolError(Exception):
    """The executor rejected a request. `code` and `field` are those of the HTTP API's errors."""

    def __init__(self, message: str, *, code: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.field = field


def tool_error(message: str, *, code: str, field: str | None = None) -> ToolError:
    """Return an error of the API in terms of the tools' arguments."""
    return ToolError(argument_terms(message), code=code, field=field and argument_terms(field))


class Executor(Protocol):
    """Runs programs for one caller, and answers for that caller's executions. Raises `ToolError`."""

    @property
    def sessions(self) -> Sessions:
        """The sessions of the caller."""

    async def run(self, request: Document, call_id: str | None, on_progress: OnProgress | None) -> Document:
        """Run the request of `/api/v1/eval`, and return the result. If this call is cancelled, kill the run.

        `call_id` is the name by which `cancel` finds the run."""

    async def cancel(self, call_id: str) -> None:
        """Kill the run that was started with this `call_id`, on any replica."""

    async def submit(self, metadata: Document, files: Sequence[Mapping[str, str]]) -> str:
        """Accept an execution, and return its id."""

    async def get(self, execution_id: str, wait_seconds: float) -> Document:
        """Return the result. If the execution has not ended, wait for its end, at most `wait_seconds`."""

    async def kill(self, execution_id: str) -> str:
        """Kill an execution, and return its status."""

    async def page(self, status: str | None, limit: int, cursor: str | None) -> Document:
        """Return one page of executions, newest first, and the cursor of the next page."""

    async def read_file(self, execution_id: str, path: str, bytes_max: int) -> bytes:
        """Return an output file. Reject one with more than `bytes_max` bytes."""
